package dex

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server/connector"
)

// provider is an OpenID provider that does what a test wants, also what none should do. It signs people in as they are
// in claims, without asking.
type provider struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu sync.Mutex // owns all below
	// metadata are put over the members of the discovery document; nil takes one out.
	metadata map[string]any
	kid      string
	signer   *rsa.PrivateKey // nil: key
	alg      jose.SignatureAlgorithm
	claims   map[string]any // put over those of ID tokens; nil takes one out
	userinfo map[string]any
	response map[string]any    // put over the token response
	answer   map[string]string // put over the authorization response
	raw      string            // instead of the ID token
	handle   map[string]http.HandlerFunc
	codes    map[string]url.Values
	asked    []string // paths
	auth     url.Values
	tokens   []*http.Request
}

const (
	clientID     = "warifu"
	clientSecret = "the secret: of client/üè"
	callback     = "https://warifu.example/callback/up"
)

var providerKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{key: providerKey(), kid: "1", alg: jose.RS256, codes: map[string]url.Values{},
		handle: map[string]http.HandlerFunc{}}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

// set changes what the provider does.
func (p *provider) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func over(base, changes map[string]any) map[string]any {
	base = maps.Clone(base)
	for name, value := range changes {
		if value == nil {
			delete(base, name)
		} else {
			base[name] = value
		}
	}
	return base
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.URL.Path)
	special := p.handle[r.URL.Path]
	p.mu.Unlock()
	if special != nil {
		special(w, r)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		writeJSON(w, over(map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token",
			"jwks_uri": p.URL + "/keys", "userinfo_endpoint": p.URL + "/userinfo",
			"end_session_endpoint":                  p.URL + "/end?a=b",
			"id_token_signing_alg_values_supported": []string{"RS256"},
			"code_challenge_methods_supported":      []string{"S256"},
		}, p.metadata))
	case "/keys":
		signer := cmp.Or(p.signer, p.key)
		writeJSON(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: signer.Public(), KeyID: p.kid, Use: "sig"}}})
	case "/auth":
		p.auth = r.URL.Query()
		code := rand.Text()
		p.codes[code] = r.URL.Query()
		back := url.Values{"code": {code}, "state": {p.auth.Get("state")}}
		for name, value := range p.answer {
			if back.Set(name, value); value == "" {
				back.Del(name)
			}
		}
		http.Redirect(w, r, p.auth.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	case "/token":
		p.token(w, r)
	case "/userinfo":
		if r.Header.Get("Authorization") != "Bearer access" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		writeJSON(w, over(map[string]any{"sub": "ada"}, p.userinfo))
	default:
		http.NotFound(w, r)
	}
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	p.tokens = append(p.tokens, r)
	request := url.Values{}
	if r.Form.Get("grant_type") == "authorization_code" {
		code := r.Form.Get("code")
		request = p.codes[code]
		delete(p.codes, code)
		sum := sha256.Sum256([]byte(r.Form.Get("code_verifier")))
		challenge := request.Get("code_challenge")
		if request == nil || challenge != "" && challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
			writeError(w, http.StatusBadRequest, "invalid_grant")
			return
		}
	}
	answer := map[string]any{"access_token": "access", "token_type": "Bearer"}
	if r.Form.Get("grant_type") == "authorization_code" || p.raw != "" {
		answer["id_token"] = cmp.Or(p.raw, p.idToken(request.Get("nonce")))
	}
	writeJSON(w, over(answer, p.response))
}

// idToken is an ID token for a request with this nonce.
func (p *provider) idToken(nonce string) string {
	claims := map[string]any{
		"iss": p.URL, "sub": "ada", "aud": clientID, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
		"name": "Ada Lovelace", "email": "ada@example.com", "email_verified": true,
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	return p.sign(over(claims, p.claims))
}

func (p *provider) sign(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	var key any = cmp.Or(p.signer, p.key)
	if p.alg == jose.HS256 {
		key = []byte(clientSecret + clientSecret)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: p.alg, Key: jose.JSONWebKey{Key: key, KeyID: p.kid}}, nil)
	if err != nil {
		panic(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return raw
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func writeError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeJSON(w, map[string]any{"error": code})
}

// unfollowed is a browser that shows where it would go.
var unfollowed = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
	return http.ErrUseLastResponse
}}

// callbackOf is the request with which the browser comes back from address.
func callbackOf(t *testing.T, address string) *http.Request {
	t.Helper()
	resp, err := unfollowed.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	back := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusFound || !strings.HasPrefix(back, callback) {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("the provider: %s to %q: %s", resp.Status, back, body)
	}
	return httptest.NewRequest(http.MethodGet, back, nil)
}

// oidcSpec is a connector at p, with keys of the configuration put over the usual ones.
func oidcSpec(t *testing.T, p *provider, config map[string]any) Spec {
	t.Helper()
	return oidcSpecAt(t, p.URL, config)
}

func oidcSpecAt(t *testing.T, issuer string, config map[string]any) Spec {
	t.Helper()
	raw, err := json.Marshal(over(map[string]any{
		"issuer": issuer, "clientID": clientID, "clientSecret": clientSecret, "redirectURI": callback,
	}, config))
	if err != nil {
		t.Fatal(err)
	}
	return Spec{Type: "oidc", ID: "up", Config: raw, Logger: slog.New(slog.DiscardHandler),
		Callbacks: []string{callback, "https://warifu.example/callback"}}
}

// open makes the connector of s.
func open(t *testing.T, s Spec) *oidcConnector {
	t.Helper()
	made, faults := New(s)
	if len(faults) > 0 {
		t.Fatalf("faults: %+v", faults)
	}
	return made.Redirect.(*oidcConnector)
}

// ask is a question like the server's.
func ask() connector.Ask {
	return connector.Ask{State: rand.Text(), Nonce: rand.Text()}
}

// signIn goes to the provider and back.
func signIn(t *testing.T, c *oidcConnector, ask connector.Ask) (connector.Identity, error) {
	t.Helper()
	away, err := c.Start(context.Background(), ask)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	if len(away.Keep) > 1024 {
		t.Errorf("Keep has %d bytes", len(away.Keep))
	}
	return c.Finish(context.Background(), ask, away.Keep, callbackOf(t, away.URL))
}
