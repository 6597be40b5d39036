package dex_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/server/connector"
)

// fixed are hosts that Dex's code knows by heart. Here they are all one server, which asks the imitation in charge.
var fixed struct {
	sync.Mutex
	*httptest.Server
	imitation *imitation
}

var fixedHosts = []string{
	"github.com", "api.github.com", "bitbucket.org", "api.bitbucket.org", "www.linkedin.com", "api.linkedin.com",
	"accounts.google.com", "oauth2.googleapis.com", "admin.googleapis.com",
}

func TestMain(m *testing.M) {
	certificate := certify(fixedHosts...)
	fixed.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fixed.Lock()
		in := fixed.imitation
		fixed.Unlock()
		in.ServeHTTP(w, r)
	}))
	fixed.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	fixed.StartTLS()
	known := x509.NewCertPool()
	known.AddCert(certificate.Leaf)
	// Dex's code has no other door than the default transport.
	transport := http.DefaultTransport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: known}
	transport.ForceAttemptHTTP2 = false
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, _, err := net.SplitHostPort(address); err == nil && slices.Contains(fixedHosts, host) {
			address = fixed.Listener.Addr().String()
		}
		return dial(ctx, network, address)
	}
	status := m.Run()
	fixed.Close()
	os.Exit(status)
}

// certify makes a certificate that is its own authority.
func certify(names ...string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "imitations"}, DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func pemOf(c tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}

// imitation answers as the upstreams that cannot be had here do, by what their documentation and Dex's code say.
type imitation struct {
	*httptest.Server // by its address; the fixed hosts lead here as well

	mu       sync.Mutex
	codes    map[string]url.Values // by code: what was asked
	answers  map[string]any        // by path: what is answered to whoever has the token
	trouble  func(w http.ResponseWriter, r *http.Request) bool
	idClaims map[string]any // of the ID token; nil without one
	key      *ecdsa.PrivateKey
	asked    []string      // method and path
	ended    chan struct{} // closed at the end of the test: what hangs, hangs no longer
}

func imitate(t *testing.T, answers map[string]any) *imitation {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	in := &imitation{codes: map[string]url.Values{}, answers: answers, key: key, ended: make(chan struct{})}
	in.Server = httptest.NewServer(in)
	t.Cleanup(in.Close)
	t.Cleanup(func() { close(in.ended) })
	fixed.Lock()
	defer fixed.Unlock()
	fixed.imitation = in
	return in
}

// set changes what is answered.
func (in *imitation) set(change func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	change()
}

const (
	clientID, clientSecret = "warifu", "hunter2-client"
	accessToken            = "hunter2-access"
	refreshToken           = "hunter2-refresh"
)

func (in *imitation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in.mu.Lock()
	in.asked = append(in.asked, r.Method+" "+r.URL.Path)
	trouble := in.trouble
	in.mu.Unlock()
	if trouble != nil && trouble(w, r) {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	path := r.URL.Path
	switch {
	case strings.HasSuffix(path, "/authorize"), strings.HasSuffix(path, "/authorization"):
		in.authorize(w, r)
	case strings.HasSuffix(strings.ReplaceAll(strings.ToLower(path), "_", ""), "token"):
		in.token(w, r)
	case path == "/.well-known/openid-configuration":
		reply(w, map[string]any{
			"issuer":                                "https://accounts.google.com",
			"authorization_endpoint":                "https://accounts.google.com/o/oauth2/v2/authorize",
			"token_endpoint":                        "https://oauth2.googleapis.com/token",
			"jwks_uri":                              "https://accounts.google.com/certs",
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	case path == "/.well-known/oauth-authorization-server":
		reply(w, map[string]any{
			"authorization_endpoint": in.URL + "/oauth/authorize", "token_endpoint": in.URL + "/oauth/token",
		})
	case path == "/certs":
		key := jose.JSONWebKey{Key: in.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}
		reply(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
	case r.Header.Get("Authorization") != "Bearer "+accessToken:
		http.Error(w, `{"message": "Bad credentials"}`, http.StatusUnauthorized)
	default:
		answer, known := in.answers[path]
		switch {
		case !known:
			http.Error(w, "ann@example.test is not here", http.StatusNotFound)
		case answer == nil:
			w.WriteHeader(http.StatusNoContent)
		case r.URL.Query().Get("page") > "1":
			reply(w, []any{})
		default:
			reply(w, answer)
		}
	}
}

func denied(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	reply(w, map[string]string{"error": code, "error_description": "ann@example.test"})
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// authorize lets ann in.
func (in *imitation) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != clientID || q.Get("response_type") != "code" {
		http.Error(w, "invalid_request", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	in.codes[code] = q
	back := q.Get("redirect_uri")
	if back == "" { // Bitbucket is told when the client is registered
		back = callbacks("bitbucket-cloud")[0]
	}
	http.Redirect(w, r, back+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
}

func (in *imitation) token(w http.ResponseWriter, r *http.Request) {
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	asked, known := in.codes[r.PostFormValue("code")]
	delete(in.codes, r.PostFormValue("code"))
	refreshes := r.PostFormValue("refresh_token") == refreshToken
	assertion := r.PostFormValue("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer"
	switch {
	case !assertion && (id != clientID || secret != clientSecret):
		denied(w, http.StatusUnauthorized, "invalid_client")
		return
	case !assertion && !refreshes && (!known || r.PostFormValue("redirect_uri") != asked.Get("redirect_uri")):
		denied(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	token := map[string]any{
		"access_token": accessToken, "token_type": "bearer", "expires_in": 3600, "refresh_token": refreshToken,
	}
	if in.idClaims != nil {
		claims := map[string]any{"nonce": asked.Get("nonce")}
		for name, value := range in.idClaims {
			claims[name] = value
		}
		token["id_token"] = in.sign(claims)
	}
	reply(w, token)
}

func (in *imitation) sign(claims map[string]any) string {
	key := jose.JSONWebKey{Key: in.key, KeyID: "1"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		panic(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		panic(err)
	}
	return token
}

// newAsk is what the server asks of an upstream.
func newAsk() connector.Ask {
	text := func() string {
		random := make([]byte, 32)
		_, _ = rand.Read(random)
		return base64.RawURLEncoding.EncodeToString(random)
	}
	return connector.Ask{State: text(), Nonce: text()}
}

var browser = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// sentBack has a browser go where Start says, and be sent back.
func sentBack(t *testing.T, away connector.Away) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, away.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	back := resp.Header.Get("Location")
	if !strings.HasPrefix(back, "https://login.example.test/callback") {
		t.Fatalf("%s: status %d, sent to %q", away.URL, resp.StatusCode, back)
	}
	return httptest.NewRequest(http.MethodGet, back, nil)
}

// signIn goes all the way.
func signIn(ctx context.Context, t *testing.T, c connector.Connector) (connector.Identity, error) {
	t.Helper()
	if c.Password != nil {
		who, right, err := c.Password.Login(ctx, "ann", "hunter2-ann")
		if err == nil && !right {
			t.Fatal("the password is wrong")
		}
		return who, err
	}
	ask := newAsk()
	away, err := c.Redirect.Start(ctx, ask)
	if err != nil {
		return connector.Identity{}, err
	}
	return c.Redirect.Finish(ctx, ask, away.Keep, sentBack(t, away))
}
