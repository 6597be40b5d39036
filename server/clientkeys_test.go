package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

// allowLoopback lets the server fetch from the test.
func allowLoopback(c *server.Config) {
	c.Outbound = outbound.New(outbound.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

// testKeys are made once: RSA takes its time.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return map[string]crypto.Signer{"RS256": rsaKey, "PS256": rsaKey, "ES256": ecKey, "EdDSA": edKey}
})

// jwksOf is a JWK Set of keys.
func jwksOf(t testing.TB, keys ...jose.JSONWebKey) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func publicJWK(key crypto.Signer, kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: kid, Use: "sig"}
}

// jwksServer is where a client keeps its keys. It counts how often it was asked.
type jwksServer struct {
	*httptest.Server
	asked atomic.Int64
	serve atomic.Pointer[http.HandlerFunc]
}

func newJWKS(t testing.TB, body string) *jwksServer {
	t.Helper()
	s := &jwksServer{}
	s.says(body)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		(*s.serve.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwksServer) does(h http.HandlerFunc) { s.serve.Store(&h) }

func (s *jwksServer) says(body string) {
	s.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) })
}

// keys are the names of the keys that the server knows of a client.
func (p *idp) keys(c *storage.Client, kid string) string {
	p.t.Helper()
	keys, err := p.handler.(*server.Server).ClientKeys(p.t.Context(), c, kid)
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, key := range keys {
		names = append(names, key.KeyID)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// RFC 7517 section 5: what is not understood or of no use does not spoil the rest of the set.
func TestClientKeysThatAreLeftOut(t *testing.T) {
	p := newIDP(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	long, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := testKeys()
	set := jwksOf(t,
		publicJWK(good["RS256"], "rsa"), publicJWK(good["ES256"], "ec"), publicJWK(good["EdDSA"], "ed"),
		jose.JSONWebKey{Key: good["ES256"], KeyID: "private"}, jose.JSONWebKey{Key: good["RS256"], KeyID: "private-rsa"},
		jose.JSONWebKey{Key: []byte("symmetric"), KeyID: "symmetric"}, jose.JSONWebKey{Key: good["ES256"].Public(),
			KeyID: "for-encryption", Use: "enc"},
		publicJWK(weak, "weak"), publicJWK(long, "p384"))
	odd :=
		`,{"kty":"ML-DSA","kid":"odd"},{"kty":"EC","crv":"P-256","kid":"off-curve","x":"AQ","y":"AQ"},{"kid":"none"},17,null,"x",{"kty":"RSA","kid":"empty"}]}`
	c := &storage.Client{ID: "c", Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{JWKS: strings.TrimSuffix(set,
		"]}") + odd}}}
	if got := p.keys(c, ""); got != "ec ed rsa" {
		t.Errorf("keys %q", got)
	}
	if got := p.keys(c, "ec"); got != "ec" {
		t.Errorf("keys %q of one name", got)
	}
	if got := p.keys(c, "other"); got != "" {
		t.Errorf("keys %q of a name that is not there", got)
	}
	c.JWKS = jwksOf(t, publicJWK(good["ES256"], ""), publicJWK(good["EdDSA"], ""))
	if keys, err := p.handler.(*server.Server).ClientKeys(t.Context(), c, "any"); err != nil || len(keys) != 2 {
		t.Errorf("keys without a name: %d, %v", len(keys), err)
	}
	for _, text := range []string{"", "{", "[]", `{"keys":{}}`, `{"keys":"x"}`, "{}", strings.Repeat(" ", 64<<10) + set} {
		c.JWKS = text
		if got := p.keys(c, ""); got != "" {
			t.Errorf("%.20q: keys %q", text, got)
		}
	}
}

func TestJWKSURIRotation(t *testing.T) {
	p := newIDP(t, allowLoopback)
	p.clock.stop()
	good := testKeys()
	first, second := publicJWK(good["ES256"], "first"), publicJWK(good["EdDSA"], "second")
	at := newJWKS(t, jwksOf(t, first))
	c := &storage.Client{ID: "c", Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{JWKSURI: at.URL}}}
	step := func(rule, kid, want string, asked int64) {
		t.Helper()
		if got := p.keys(c, kid); got != want {
			t.Errorf("%s: keys %q, want %q", rule, got, want)
		}
		if got := at.asked.Load(); got != asked {
			t.Errorf("%s: asked %d times, want %d", rule, got, asked)
		}
	}
	step("the first", "first", "first", 1)
	step("from memory", "first", "first", 1)
	at.says(jwksOf(t, first, second))
	step("a new key, just after a fetch", "second", "", 1)
	p.clock.forward(11 * time.Second)
	step("a new key", "second", "second", 2)
	for range 10 {
		step("a key that nobody has", "stranger", "", 2)
	}
	p.clock.forward(11 * time.Second)
	step("a key that nobody has, later", "stranger", "", 3)
	at.says(jwksOf(t, second))
	p.clock.forward(9 * time.Minute)
	step("a removed key, in the life of a set", "first", "first", 3)
	p.clock.forward(time.Minute)
	step("a removed key, after it", "first", "", 4)
	at.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	p.clock.forward(11 * time.Minute)
	step("the address fails: the old set serves", "second", "second", 5)
	step("and is not asked again at once", "second", "second", 5)
	p.clock.forward(time.Hour)
	step("but not for ever", "second", "", 6)
	at.says(jwksOf(t, second))
	p.clock.forward(11 * time.Second)
	step("the address is back", "second", "second", 7)
	if !strings.Contains(p.log.String(), "a client's keys cannot be fetched from its jwks_uri") {
		t.Error("the operator was not told")
	}
}

func TestJWKSURIIsFetchedOnceForAllWhoWait(t *testing.T) {
	p := newIDP(t, allowLoopback)
	p.clock.stop()
	at := newJWKS(t, "")
	waiting, body := make(chan struct{}), jwksOf(t, publicJWK(testKeys()["ES256"], "k"))
	at.does(func(w http.ResponseWriter, _ *http.Request) {
		<-waiting
		_, _ = w.Write([]byte(body))
	})
	c := &storage.Client{ID: "c", Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{JWKSURI: at.URL}}}
	var begun, found atomic.Int64
	together(32, func(int) {
		if begun.Add(1) == 32 {
			close(waiting)
		}
		if p.keys(c, "k") == "k" {
			found.Add(1)
		}
	})
	if found.Load() != 32 || at.asked.Load() != 1 {
		t.Errorf("%d found the key, the address was asked %d times", found.Load(), at.asked.Load())
	}
}

// What cannot be a key set gives no keys, and is no fault.
func TestJWKSURIOfSomethingElse(t *testing.T) {
	p := newIDP(t, allowLoopback)
	good := jwksOf(t, publicJWK(testKeys()["ES256"], "k"))
	many := make([]jose.JSONWebKey, 21)
	for i := range many {
		many[i] = publicJWK(testKeys()["ES256"], "k")
	}
	real := newJWKS(t, good)
	for rule, answer := range map[string]http.HandlerFunc{
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no set":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`[1]`)) },
		"over 64 KiB": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat(" ", 64<<10) + good))
		},
		"over 20 keys": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(jwksOf(t, many...))) },
		"an error":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, good, http.StatusNotFound) },
		"a redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, real.URL, http.StatusFound) },
		"a broken body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(good))
		},
	} {
		at := newJWKS(t, "")
		at.does(answer)
		c := &storage.Client{ID: "c", Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{JWKSURI: at.URL}}}
		if got := p.keys(c, "k"); got != "" || at.asked.Load() != 1 {
			t.Errorf("%s: keys %q, asked %d times", rule, got, at.asked.Load())
		}
	}
	if real.asked.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// SSRF: an address that is not public is not even dialled.
func TestJWKSURIOnLoopbackIsNeverDialled(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dialled atomic.Int64
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			_ = conn.Close()
		}
	}()
	p := newIDP(t)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"https://127.0.0.1:" + port, "https://localhost:" + port, "http://127.0.0.1:" +
		port, "https://[::ffff:127.0.0.1]:" + port} {
		c := &storage.Client{ID: "c", Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{JWKSURI: address}}}
		if got := p.keys(c, "k"); got != "" {
			t.Errorf("%s: keys %q", address, got)
		}
	}
	_ = listener.Close()
	<-closed
	if dialled.Load() != 0 {
		t.Errorf("dialled %d times", dialled.Load())
	}
}

// However many addresses there are: memory is bounded, and so are the fetches.
func TestFloodOfJWKSURIs(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	srv := p.handler.(*server.Server)
	busy := 0
	for i := range 1500 {
		c := &storage.Client{ID: "c", Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{JWKSURI: fmt.Sprintf(
			"https://127.0.0.1/%d", i)}}}
		if keys, err := srv.ClientKeys(t.Context(), c, "k"); err != nil {
			busy++
		} else if len(keys) > 0 {
			t.Error("keys from nowhere")
		}
	}
	if busy != 1400 || srv.KeySets() != 1000 {
		t.Errorf("%d refused, %d sets kept", busy, srv.KeySets())
	}
}
