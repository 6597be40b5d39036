package outbound_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/outbound"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func TestAddressIsCheckedWhenItIsDialled(t *testing.T) {
	served := false
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true })
	secure, plain := httptest.NewTLSServer(handler), httptest.NewServer(handler)
	t.Cleanup(secure.Close)
	t.Cleanup(plain.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	c := outbound.New(outbound.Options{RootCAs: roots})
	for _, address := range []string{
		secure.URL, strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), // a name that resolves to loopback
		strings.Replace(secure.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1),
		plain.URL, "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data/", "https://192.168.1.1/",
		"https://[fe80::1]/", "https://[fd00::1]/",
		"https://100.64.0.1/", "https://0.0.0.0/", "https://255.255.255.255/", "https://[::]/", "https://[64:ff9b::7f00:1]/",
		"https://[::127.0.0.1]/", "https://[::ffff:0:127.0.0.1]/", "https://[fec0::1]/", "https://[2002:7f00:1::]/",
		"https://[100::1]/",
		"http://example.com/", "file:///etc/passwd", "gopher://127.0.0.1/", "https://user@example.com/", "/relative", "",
	} {
		if _, err := c.Get(t.Context(), address, "", 100); !errors.Is(err, outbound.ErrRefused) {
			t.Errorf("%q: %v, want a refusal", address, err)
		}
	}
	if served {
		t.Error("a refused request was sent")
	}
}

func TestAllowListOpensPrivateNetworks(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("Content-Type")+" "+string(body))
	}))
	t.Cleanup(s.Close)
	c := outbound.New(outbound.Options{Allow: loopback})
	if got, err := c.Get(t.Context(), s.URL, "application/json", 100); err != nil || string(got.Body) != "GET  " {
		t.Errorf("%q, %v", got.Body, err)
	}
	if got, err := c.Post(t.Context(), s.URL, "text/plain", []byte("hello")); err != nil ||
		string(got.Body) != "POST text/plain hello" {
		t.Errorf("%q, %v", got.Body, err)
	}
	if _, err := c.Get(t.Context(), "http://10.0.0.1/", "", 100); !errors.Is(err, outbound.ErrRefused) {
		t.Errorf("another private network: %v", err)
	}
}

func TestRepliesAreBounded(t *testing.T) {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 101))
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/long", http.StatusFound)
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	c := outbound.New(outbound.Options{Allow: loopback, Timeout: 200 * time.Millisecond})
	for path, rule := range map[string]string{"/long": "a long body", "/away": "a redirect", "/slow": "a slow reply"} {
		if got, err := c.Get(t.Context(), s.URL+path, "", 100); err == nil {
			t.Errorf("%s was taken: %d %q", rule, got.Status, got.Body)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(ctx, s.URL+"/slow", "", 100); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The operator's own word for an address reaches it where it is, by https alone, and a token goes nowhere else.
func TestOwnAddressMayBeAnywhere(t *testing.T) {
	var elsewhere []string
	other := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
	}))
	t.Cleanup(other.Close)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, other.URL, http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := outbound.New(outbound.Options{Own: true, RootCAs: roots})
	defer c.Close()
	if got, err := c.GetAs(t.Context(), "x", s.URL, "", 100); err != nil || string(got.Body) != "Bearer x" {
		t.Errorf("%q, %v", got.Body, err)
	}
	if _, err := c.GetAs(t.Context(), "x", s.URL+"/away", "", 100); err == nil || len(elsewhere) > 0 {
		t.Errorf("a redirect was followed: %v, %q", err, elsewhere)
	}
	if _, err := c.GetAs(t.Context(), "x", strings.Replace(s.URL, "https", "http", 1), "", 100); !errors.Is(err,
		outbound.ErrRefused) {
		t.Errorf("plain http: %v", err)
	}
	if _, err := outbound.New(outbound.Options{Own: true}).Get(t.Context(), s.URL, "", 100); err == nil {
		t.Error("a certificate that nobody vouches for")
	}
}
