package conformance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Party is the relying party as the provider calls it: jwks_uri, sector identifiers, request_uri, back-channel logout.
// One may serve many suites.
type Party struct {
	base   string
	server *http.Server
	done   chan struct{} // closed when the goroutine that serves has ended

	mu       sync.Mutex // guards what follows
	handlers map[string]http.HandlerFunc
	watchers map[chan *received]string // of calls, by path
}

// received is a call that came in.
type received struct {
	method string
	header http.Header
	query  url.Values
	form   url.Values
}

// Serve serves the relying party at a listener, by https when there is a certificate. base is its address for the
// provider.
func Serve(listener net.Listener, base string, certificate *tls.Certificate) *Party {
	p := &Party{base: strings.TrimSuffix(base, "/"), handlers: map[string]http.HandlerFunc{},
		watchers: map[chan *received]string{}, done: make(chan struct{})}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	if certificate != nil {
		listener = tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS12,
			Certificates: []tls.Certificate{*certificate}})
	}
	go func() { // ends with Close
		defer close(p.done)
		_ = p.server.Serve(listener)
	}()
	return p
}

// Listen serves the relying party as a configuration says; nil when it says nothing.
func Listen(cfg Config) (*Party, error) {
	if cfg.Listen == "" || cfg.BaseURL == "" {
		return nil, nil
	}
	var certificate *tls.Certificate
	if cfg.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("read the relying party's certificate: %w", err)
		}
		certificate = &pair
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the provider's calls: %w", err)
	}
	return Serve(listener, cfg.BaseURL, certificate), nil
}

// Close ends the relying party.
func (p *Party) Close(ctx context.Context) error {
	err := p.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, p.server.Close())
	}
	<-p.done
	return err
}

func (p *Party) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	_ = r.ParseForm() // what is not a form has no fields, and the module says so
	got := &received{method: r.Method, header: r.Header.Clone(), query: r.URL.Query(), form: r.PostForm}
	p.mu.Lock()
	handler := p.handlers[r.URL.Path]
	watched := false
	for watcher, path := range p.watchers {
		if path == r.URL.Path {
			watched = true
			select {
			case watcher <- got:
			default: // nobody needs that many
			}
		}
	}
	p.mu.Unlock()
	switch {
	case handler != nil:
		handler(w, r)
	case watched:
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
	default:
		http.NotFound(w, r)
	}
}

// serve answers a path of the relying party until the module ends, and gives its address.
func (t *trial) serve(name, contentType string, body func() []byte) string {
	if t.suite.party == nil {
		t.skipf("the relying party is not served: listen and baseUrl are not configured")
	}
	p := t.suite.party
	path := "/" + t.id + "/" + name
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handlers[path] = func(w http.ResponseWriter, r *http.Request) {
		t.append(Entry{At: time.Now().UTC(), Kind: "received", Method: r.Method, URL: p.base + path,
			Text: "the provider fetches this"})
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body())
	}
	t.cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.handlers, path)
	})
	return p.base + path
}

// watch hears of the calls to an address until the module ends.
func (t *trial) watch(address string) <-chan *received {
	u, err := url.Parse(address)
	if t.suite.party == nil || err != nil || address == "" {
		t.skipf("the relying party cannot be called: listen, baseUrl and the address for this must be configured")
	}
	p := t.suite.party
	calls := make(chan *received, 32)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers[calls] = u.Path
	t.cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, calls)
	})
	return calls
}
