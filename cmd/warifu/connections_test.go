package main

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// boundedEndpoint is an endpoint with a bound, as serve opens it.
func boundedEndpoint(t *testing.T, most int, trusted []netip.Prefix, secure bool,
	handler http.HandlerFunc) (address string, open *connections) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open = newConnections("web", most, trusted, log)
	e := endpoint{name: "web.http", listener: listener, handler: handler, patience: time.Minute, connections: open}
	if secure {
		cert, key := writeCertificate(t, t.TempDir(), 1)
		c, err := loadCertificate(cert, key, log)
		if err != nil {
			t.Fatal(err)
		}
		e.tls = c.config()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.serve(ctx, log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String(), open
}

func (c *connections) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// idle opens connections and sends nothing on them, or the beginning of a request.
func idle(t *testing.T, address string, n int, text string) {
	t.Helper()
	for range n {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, text) // it may have been closed already
	}
}

// Idle connections take neither all descriptors of the process nor the place of others.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	everybody := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, c := range []struct {
		rule    string
		secure  bool
		trusted []netip.Prefix
		text    string
	}{
		{"silent", false, everybody, ""}, {"half a request", false, everybody, "GET / HTTP/1.1\r\nHost: x\r\n"},
		{"silent, by TLS", true, everybody, ""}, {"of one address", false, nil, ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			const most = 20
			address, open := boundedEndpoint(t, most, c.trusted, c.secure, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "here")
			})
			scheme := "http://"
			if c.secure {
				scheme = "https://"
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // a certificate of its own
			for round := range 5 {
				idle(t, address, 60, c.text)
				resp, err := client.Get(scheme + address)
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("round %d: %d", round, resp.StatusCode)
				}
				bound := most
				if c.trusted == nil {
					bound = most / share
				}
				if n := open.now(); n > bound {
					t.Errorf("%d connections are open, at most %d may be", n, bound)
				}
			}
		})
	}
}

// A request that is being served is not cut off for new connections.
func TestConnectionsInUseAreKept(t *testing.T) {
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	address, _ := boundedEndpoint(t, 4, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, false,
		func(w http.ResponseWriter, _ *http.Request) {
			begun <- struct{}{}
			<-finish
			_, _ = io.WriteString(w, "here")
		})
	answer := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + address)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		answer <- err
	}()
	<-begun
	idle(t, address, 50, "")
	close(finish)
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func TestConnectionsAreAsConfigured(t *testing.T) {
	if most := webConnections(0); most > mostWeb {
		t.Errorf("without a configuration: %d", most)
	}
	if most := webConnections(16); most != 16 {
		t.Errorf("16 are configured: %d", most)
	}
}
