//go:build faults

package faults

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// front is a proxy in front of the replicas as people run them: it sends requests in turn to those that say that they
// are ready, keeps its connections, and does not send anything twice.
type front struct {
	*httptest.Server
	mu    sync.Mutex // guards ready
	ready []*url.URL
	turn  atomic.Int64
	proxy httputil.ReverseProxy
	stop  chan struct{}
	done  sync.WaitGroup
}

func newFront(t testing.TB) *front {
	f := &front{stop: make(chan struct{})}
	f.proxy = httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			f.mu.Lock()
			to := f.ready
			f.mu.Unlock()
			if len(to) > 0 {
				r.SetURL(to[int(f.turn.Add(1))%len(to)])
			}
			r.Out.Host = r.In.Host
		},
		Transport:    &http.Transport{MaxIdleConnsPerHost: 64},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	f.Server = httptest.NewServer(&f.proxy)
	t.Cleanup(func() {
		close(f.stop)
		f.done.Wait()
		f.Close()
	})
	return f
}

// watch asks the replicas whether they are ready, five times a second.
func (f *front) watch(t testing.TB, replicas []*replica) {
	t.Helper()
	look := func() {
		var ready []*url.URL
		for _, r := range replicas {
			if r.ready() == nil {
				if u, err := url.Parse(r.base); err == nil {
					ready = append(ready, u)
				}
			}
		}
		f.mu.Lock()
		f.ready = ready
		f.mu.Unlock()
	}
	look()
	f.done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
				look()
			}
		}
	})
}

// TestRollingRestart: replicas behind a proxy are restarted one after the other, and nobody notices.
func TestRollingRestart(t *testing.T) {
	cell(t, "a rolling restart behind a proxy", false, func(t *testing.T, r *row) {
		f := newFront(t)
		s := newStage(t, staging{issuer: f.URL})
		f.watch(t, s.replicas)
		l := newLoad(s, r)
		l.at = []string{f.URL}
		l.runs(l.life, l.life, l.life, l.life, l.life, l.life, l.own) // operators ask one replica, on its socket
		for range 2 {
			for _, replica := range s.replicas {
				time.Sleep(time.Second)
				if err := replica.stop(); err != nil {
					r.violation("%s ends with %v", replica.name, err)
				}
				replica.starts(t)
			}
		}
		l.recovers(t, 10*time.Second)
		l.end()
		if n := r.failed(); n > 0 {
			r.violation("%d requests were lost", n)
		}
	})
}
