package dex

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A fault of the provider is a fault, at each of its addresses, and what it wrote is in no error.
func TestOIDCFaultsAreNoVerdicts(t *testing.T) {
	t.Parallel()
	const secret = "Ada Lovelace, access_token=abc"
	replies := map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(secret))
		},
		"garbage": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(secret)) },
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat(secret, 1000))); err != nil {
					return
				}
			}
		},
		"torn": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(secret))
		},
		"away": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://localhost:1/", http.StatusTemporaryRedirect)
		},
		"refuses": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/token", "/keys", "/userinfo"} {
		for name, reply := range replies {
			t.Run(path[1:]+" "+name, func(t *testing.T) {
				t.Parallel()
				p := newProvider(t)
				p.set(func() { p.handle[path] = reply })
				c := open(t, oidcSpec(t, p, map[string]any{"getUserInfo": true}))
				question := ask()
				away, err := c.Start(context.Background(), question)
				if err == nil {
					_, err = c.Finish(context.Background(), question, away.Keep, callbackOf(t, away.URL))
				}
				faulty(t, err)
				if strings.Contains(err.Error(), "Ada") || strings.Contains(err.Error(), "abc") {
					t.Errorf("quotes: %v", err)
				}
			})
		}
	}
}

// Codes, secrets and tokens go to no other host than the one that the discovery document names.
func TestOIDCSecretsFollowNoRedirect(t *testing.T) {
	t.Parallel()
	elsewhere := newProvider(t)
	for _, path := range []string{"/token", "/userinfo"} {
		p := newProvider(t)
		p.set(func() {
			p.handle[path] = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.URL+path, http.StatusTemporaryRedirect)
			}
		})
		_, err := signIn(t, open(t, oidcSpec(t, p, map[string]any{"getUserInfo": true})), ask())
		faulty(t, err)
	}
	if len(elsewhere.asked) > 0 {
		t.Errorf("followed to %v", elsewhere.asked)
	}
	// Documents that hold no secret may be elsewhere.
	p := newProvider(t)
	p.set(func() {
		p.handle["/keys"] = func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/keys", http.StatusFound)
		}
	})
	if _, err := signIn(t, open(t, oidcSpec(t, p, nil)), ask()); err != nil {
		t.Error(err)
	}
}

// A provider that hangs holds nobody longer than they want to wait, and nothing more when it is back.
func TestOIDCHangingProvider(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	asks, hangs := make(chan struct{}), make(chan struct{})
	p.set(func() {
		p.handle["/.well-known/openid-configuration"] = func(_ http.ResponseWriter, r *http.Request) {
			close(asks)
			select {
			case <-hangs:
			case <-r.Context().Done():
			}
		}
	})
	c := open(t, oidcSpec(t, p, nil))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.Start(ctx, ask())
	faulty(t, err)
	<-asks
	p.set(func() { clear(p.handle) })
	close(hangs) // the attempt that began ends without an answer
	_, err = c.provider.get(context.Background())
	faulty(t, err)
	asked := len(p.asked)
	_, again := c.provider.get(context.Background())
	if len(p.asked) != asked || again == nil || again.Error() != err.Error() {
		t.Errorf("asked again at once: %v, %v", p.asked, again)
	}
	c.provider.mu.Lock()
	c.provider.again = time.Now()
	c.provider.mu.Unlock()
	if _, err := signIn(t, c, ask()); err != nil {
		t.Errorf("after it has come back: %v", err)
	}
}
