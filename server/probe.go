package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/warifu/warifu/server/doctor"
	"github.com/warifu/warifu/storage"
)

// Probe is what an operator sends in [doctor.ProbeHeader] to learn what arrives here of a request: a sealed time, which
// every replica takes for a while.
func (s *Server) Probe() (string, error) {
	return s.store.Seal(storage.SealProbe, strconv.AppendInt(nil, s.now().UnixMilli(), 10))
}

// tellArrived says in the reply what has arrived of a request, to whoever has a probe. Others are answered as if they
// had not sent it. The reply is for nobody else, so no cache keeps it.
func (s *Server) tellArrived(w http.ResponseWriter, r *http.Request, probe string) http.ResponseWriter {
	plain, err := s.store.Open(storage.SealProbe, probe)
	if err != nil {
		return w
	}
	made, err := strconv.ParseInt(string(plain), 10, 64)
	now := s.now()
	if age := now.Sub(time.UnixMilli(made)); err != nil || age > doctor.ProbeLife || age < -doctor.ProbeLife {
		return w
	}
	a := doctor.Arrival(r, now)
	a.Trusted, a.Address = s.trust(addressIn(r.RemoteAddr)), s.addressOf(r)
	w.Header().Set(doctor.ArrivedHeader, a.Header())
	return &uncached{ResponseWriter: w}
}

// uncached has the last word on caching.
type uncached struct {
	http.ResponseWriter
	begun bool
}

func (u *uncached) WriteHeader(status int) {
	u.begun = true
	u.Header().Set("Cache-Control", "no-store")
	u.ResponseWriter.WriteHeader(status)
}

func (u *uncached) Write(body []byte) (int, error) {
	if !u.begun {
		u.WriteHeader(http.StatusOK)
	}
	return u.ResponseWriter.Write(body)
}

// Unwrap is for [http.ResponseController].
func (u *uncached) Unwrap() http.ResponseWriter { return u.ResponseWriter }
