package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/doctor"
)

// A real proxy before a real server: what it gets wrong is seen by a probe, and nothing of that is for strangers.
func TestDoctorSeesWhatAProxyDoes(t *testing.T) {
	t.Parallel()
	var mode atomic.Pointer[string]
	backend := &atomic.Pointer[url.URL]{}
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch *mode.Load() {
		case "circle":
			http.Redirect(w, r, "https://"+r.Host+r.URL.Path, http.StatusMovedPermanently)
			return
		case "strips the path":
			r.URL.Path = strings.TrimPrefix(r.URL.Path, "/id")
		}
		forward := &httputil.ReverseProxy{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
			Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(backend.Load())
				p.Out.Host = p.In.Host
				switch *mode.Load() {
				case "forgets":
					return
				case "passes on":
					p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
					return
				}
				p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
				p.SetXForwarded()
			}}
		forward.ServeHTTP(w, r)
	}))
	set := func(m string) { mode.Store(&m) }
	set("good")
	proxy.StartTLS()
	defer proxy.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	issuer := proxy.URL + "/id"
	data := filepath.Join(dir, "data")
	s := startServer(t, data, "127.0.0.1:0", func(cfg *config.Config) {
		backend.Store(&url.URL{Scheme: "http", Host: strings.TrimPrefix(cfg.Issuer, "http://")})
		cfg.Issuer, cfg.Web.TrustedProxies = issuer, []string{"127.0.0.1"}
	})
	socket := filepath.Join(data, "a.sock")
	run := func() (found []doctor.Finding, code int) {
		out, said := newLines(), newLines()
		code = run(t.Context(), []string{"doctor", "--admin", socket, "--ca", ca, "-o", "json"}, strings.NewReader(""),
			out, said)
		if err := json.Unmarshal([]byte(out.String()), &found); err != nil {
			t.Fatalf("%v: %s%s", err, out, said)
		}
		if strings.Contains(out.String()+said.String(), "wft_") {
			t.Error("the probe is shown")
		}
		return found, code
	}
	sees := func(m, check string, state doctor.State, says string) {
		t.Helper()
		set(m)
		found, code := run()
		for _, f := range found {
			if f.Check == check && f.State == state && strings.Contains(f.Seen, says) {
				if state == doctor.Wrong && (code != exitChanges || f.Remedy == "") {
					t.Errorf("%s: exit code %d, %+v", m, code, f)
				}
				return
			}
		}
		t.Errorf("%s: no %s %s %q: %+v", m, state, check, says, found)
	}
	sees("good", "proxy", doctor.Fine, "is trusted, and passes on the address of users (this machine is 127.0.0.1, ")
	sees("good", "discovery", doctor.Fine, "apps find the issuer")
	sees("good", "certificate", doctor.Fine, "presents ends in")
	sees("good", "etcd", doctor.Fine, "embedded etcd 3.")
	sees("forgets", "proxy", doctor.Wrong, "does not pass X-Forwarded-For on")
	sees("passes on", "proxy", doctor.Wrong, "as clients write it")
	sees("circle", "discovery", doctor.Wrong, "redirects go in a circle")
	sees("strips the path", "discovery", doctor.Wrong, "the proxy changes the path: "+
		"/id/.well-known/openid-configuration arrives at the server as /.well-known/openid-configuration")
	set("good")

	good, err := s.first.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for name, probe := range map[string]string{"good": good, "none": "", "made up": "wft_AAAA",
		"of another kind": func() string {
			sealed, err := s.store.Seal("wff_", []byte("1"))
			if err != nil {
				t.Fatal(err)
			}
			return sealed
		}()} {
		req := httptest.NewRequestWithContext(context.Background(), http.MethodGet, issuer+
			"/.well-known/openid-configuration", nil)
		req.Header.Set(doctor.ProbeHeader, probe)
		w := httptest.NewRecorder()
		s.first.ServeHTTP(w, req)
		got, caching := w.Header().Get(doctor.ArrivedHeader), w.Header().Get("Cache-Control")
		if told := name == "good"; (got != "") != told || (caching == "no-store") != told || w.Code != http.StatusOK {
			t.Errorf("a probe that is %s: %d %q %q", name, w.Code, got, caching)
		}
	}
	s.terminate(nil)
	s.wait(t)
	if found := runDoctor(t, "--admin", socket); found != exitUnreachable {
		t.Errorf("without a server and a configuration: %d", found)
	}
}

func runDoctor(t *testing.T, args ...string) int {
	t.Helper()
	return run(t.Context(), append([]string{"doctor"}, args...), strings.NewReader(""), newLines(), newLines())
}

// Whoever may not use the admin socket has not found out that something is wrong.
func TestDoctorOfAnotherUser(t *testing.T) {
	t.Parallel()
	e := &examination{away: &unreachableError{"data/admin.sock", os.NewSyscallError("connect", syscall.EACCES)}}
	found, err := e.server(&client{where: "data/admin.sock"})(t.Context())
	if err != nil || len(found) != 1 || found[0].State != doctor.Unknown || !strings.Contains(found[0].Remedy,
		"as the user of the server") {
		t.Errorf("%+v, %v", found, err)
	}
}
