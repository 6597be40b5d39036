package server_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
)

// While storage does not answer, a bounded number of requests waits for it; the others are told to come back.
func TestRequestsDoNotPileUp(t *testing.T) {
	p := newIDP(t)
	token := p.tokens().text("access_token")
	introspect := func() reply { return p.call("/oauth/introspect", url.Values{"token": {token}}) }
	silence, asked := make(chan struct{}), atomic.Int64{}
	p.etcd.Inject(func(_, sent bool) error {
		if !sent {
			asked.Add(1)
			<-silence
		}
		return errors.New(faultText)
	})
	var waiting sync.WaitGroup
	for range server.MostAtWork {
		waiting.Go(func() {
			introspect().wants(t, "a request that waits", http.StatusServiceUnavailable, "temporarily_unavailable")
		})
	}
	for deadline := time.Now().Add(time.Minute); asked.Load() < server.MostAtWork; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests wait", asked.Load())
		}
	}
	crowded := introspect()
	crowded.wants(t, "a request too many", http.StatusServiceUnavailable, "temporarily_unavailable")
	if crowded.header.Get("Retry-After") == "" {
		t.Error("it is not told when to come back")
	}
	page := p.browser().get(p.authorizeURL())
	page.wants(t, "a page too many", http.StatusServiceUnavailable, "temporarily_unavailable")
	if page.header.Get("Retry-After") == "" {
		t.Error("a browser is not told when to come back")
	}
	if asked.Load() != server.MostAtWork {
		t.Errorf("storage was asked %d times", asked.Load())
	}
	if health := p.send(p.request(http.MethodGet, p.issuer+"/healthz", "")); health.status != http.StatusOK ||
		len(p.jwks().Keys) == 0 {
		t.Errorf("what needs no storage does not work: %d", health.status)
	}
	p.etcd.Inject(nil)
	close(silence)
	waiting.Wait()
	if r := introspect(); r.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", r.status, r.raw)
	}
}

// slowly is a body of which something is still to come.
type slowly struct{ ends <-chan struct{} }

func (s slowly) Read([]byte) (int, error) {
	<-s.ends
	return 0, io.ErrUnexpectedEOF
}

// Whoever sends a body slowly takes no place from the others.
func TestSlowBodiesKeepNobodyOut(t *testing.T) {
	p := newIDP(t)
	token := p.tokens().text("access_token")
	ends := make(chan struct{})
	var sending sync.WaitGroup
	var refused atomic.Int64
	for range server.ArrivalsOfAddress + 10 {
		sending.Go(func() {
			r := httptest.NewRequest(http.MethodPost, p.issuer+"/oauth/token", slowly{ends})
			r.ContentLength, r.RemoteAddr = 100, "198.51.100.7:1234"
			r.Header.Set("Content-Type", formType)
			w := httptest.NewRecorder()
			if p.handler.ServeHTTP(w, r); w.Code == http.StatusServiceUnavailable {
				refused.Add(1)
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); refused.Load() < 10; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d were refused", refused.Load())
		}
	}
	for range 10 {
		if r := p.call("/oauth/introspect", url.Values{"token": {token}}); r.status != http.StatusOK {
			t.Errorf("%d %s", r.status, r.raw)
			break
		}
	}
	close(ends)
	sending.Wait()
	if refused.Load() != 10 { // what has come of the others takes memory
		t.Errorf("%d slow bodies of one address were refused", refused.Load())
	}
	if log := p.log.String(); strings.Contains(log, "level=ERROR") {
		t.Error("a stranger's request was logged as an ERROR")
	}
}
