package server_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

// documentServer is the https site of a client's developer. It counts what it is asked.
type documentServer struct {
	*httptest.Server
	t     testing.TB
	asked atomic.Int64
	serve atomic.Pointer[http.HandlerFunc]
}

func newDocumentServer(t testing.TB) *documentServer {
	t.Helper()
	s := &documentServer{t: t}
	s.does(http.NotFound)
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		(*s.serve.Load())(w, r)
	}))
	s.Config.SetKeepAlivesEnabled(false) // a request on a connection that was open already might be sent twice
	t.Cleanup(s.Close)
	return s
}

func (s *documentServer) does(h http.HandlerFunc) { s.serve.Store(&h) }

// id is the client_id of the document at a path.
func (s *documentServer) id() string { return s.URL + "/oauth/client.json" }

// document describes a public client, with changes; nil leaves a member out.
func (s *documentServer) document(changes map[string]any) string {
	s.t.Helper()
	doc := map[string]any{
		"client_id": s.id(), "client_name": "Fancy Agent", "redirect_uris": []string{callback},
		"token_endpoint_auth_method": "none", "grant_types": []string{"authorization_code", "refresh_token"},
		"response_types": []string{"code"},
		"scope":          "openid threads:read",
	}
	maps.Copy(doc, changes)
	maps.DeleteFunc(doc, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(doc)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// says serves a text as JSON; header are name, value pairs.
func (s *documentServer) says(text string, header ...string) {
	s.does(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_, _ = w.Write([]byte(text))
	})
}

// withDocuments turns documents on, and lets the server reach s.
func (s *documentServer) withDocuments(c *server.Config) {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c.ClientIDMetadataDocuments = true
	c.Outbound = outbound.New(outbound.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		RootCAs: roots})
}

// newDescribed is an idp, seen by a client that is a document at s.
func newDescribed(t testing.TB, change ...func(*server.Config)) (*idp, *documentServer) {
	t.Helper()
	s := newDocumentServer(t)
	s.says(s.document(nil))
	p := newIDP(t, append([]func(*server.Config){s.withDocuments}, change...)...)
	p.clock.begin()
	return p.as(&storage.Client{ID: s.id()}, ""), s
}

var withPKCE = []string{"code_challenge", challengeOf(verifier), "code_challenge_method", "S256"}

// described walks the whole flow of a public client.
func (p *idp) described(changes ...string) reply {
	p.t.Helper()
	got := p.exchange(p.code(append(changes, withPKCE...)...), "code_verifier", verifier)
	if got.status != http.StatusOK {
		p.t.Fatalf("exchange: %d %s", got.status, got.raw)
	}
	return got
}

// knows is the client as the server knows it now; nil when it does not.
func (p *idp) knows(id string) *storage.Client {
	p.t.Helper()
	c, err := p.handler.(*server.Server).KnownClient(p.t.Context(), id)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		p.t.Fatal(err)
	}
	return c
}

// A client that nobody has registered, at every endpoint.
func TestClientIDMetadataDocument(t *testing.T) {
	p, s := newDescribed(t)
	s.says(s.document(map[string]any{
		"grant_types":               []string{"authorization_code", "refresh_token", deviceGrant},
		"post_logout_redirect_uris": []string{"https://app.test/bye"},
	}))
	b := p.browser()
	tokens := p.exchange(b.code(append(withPKCE, "scope", "openid threads:read")...), "code_verifier", verifier)
	if tokens.status != http.StatusOK || tokens.text("scope") != "openid threads:read" {
		t.Fatalf("exchange: %d %s", tokens.status, tokens.raw)
	}
	if claims := claimsOf(t, tokens.text("access_token")); claims["client_id"] != s.id() {
		t.Errorf("client_id of the access token: %v", claims["client_id"])
	}
	id := claimsOf(t, tokens.text("id_token"))
	if id["aud"] != s.id() {
		t.Errorf("aud of the ID token: %v", id["aud"])
	}
	if got := p.userinfo(tokens.text("access_token")); got.status != http.StatusOK || got.json["sub"] != id["sub"] {
		t.Errorf("userinfo: %d %s", got.status, got.raw)
	}
	next := p.refresh(tokens.text("refresh_token"))
	if next.status != http.StatusOK {
		t.Fatalf("refresh: %d %s", next.status, next.raw)
	}
	pushed := p.push(append(withPKCE, "scope", "openid")...)
	again := p.exchange(b.answered(b.get(p.pushedURL(pushed)), "a pushed request"), "code_verifier", verifier)
	if again.status != http.StatusOK {
		t.Errorf("exchange after a push: %d %s", again.status, again.raw)
	}
	device := p.device()
	shown := p.browser().reach(device, userEmail)
	if host := strings.TrimPrefix(s.URL, "https://"); !strings.Contains(shown.body, "in a document of "+host) {
		t.Errorf("the page about a device does not say who asks: %s", shown.body)
	}
	p.approve(device)
	if got := p.poll(device); got.status != http.StatusOK {
		t.Errorf("device: %d %s", got.status, got.raw)
	}
	if got := p.call("/oauth/revoke", url.Values{"token": {next.text("refresh_token")}}); got.status != http.StatusOK {
		t.Errorf("revocation: %d %s", got.status, got.raw)
	}
	p.refresh(next.text("refresh_token")).wants(t, "a refresh after a revocation", http.StatusBadRequest, "invalid_grant")
	p.refresh("wfr_garbage").wants(t, "garbage", http.StatusBadRequest, "invalid_grant")
	if got := b.get(p.logoutURL("id_token_hint", again.text("id_token"), "post_logout_redirect_uri",
		"https://app.test/bye")); got.location == nil || !strings.HasPrefix(got.location.String(), "https://app.test/bye") {
		t.Errorf("logout: %d, %v", got.status, got.location)
	}
	if got := b.get(p.logoutURL("client_id", s.id(), "post_logout_redirect_uri",
		"https://app.test/other")); got.status != http.StatusBadRequest {
		t.Errorf("logout to elsewhere: %d", got.status)
	}
	if got := s.asked.Load(); got != 1 {
		t.Errorf("fetched %d times", got)
	}
	if clients, err := p.store.Clients(t.Context()); err != nil || len(clients) != 1 {
		t.Errorf("%d clients stored, %v", len(clients), err)
	}
}

// A document may hold keys, or say where they are. Then nobody is the client without them.
func TestClientIDMetadataDocumentWithKeys(t *testing.T) {
	for rule, doc := range map[string]map[string]any{
		"jwks": {"jwks": json.RawMessage(jwksOf(t, publicJWK(testKeys()["ES256"], "k"))),
			"token_endpoint_auth_method": "private_key_jwt"},
		"jwks_uri": {"jwks_uri": "/keys", "token_endpoint_auth_method": "private_key_jwt"},
		"jwks, and no word": {"jwks": json.RawMessage(jwksOf(t, publicJWK(testKeys()["ES256"], "k"))),
			"token_endpoint_auth_method": nil},
	} {
		p, s := newDescribed(t)
		if doc["jwks_uri"] != nil {
			doc["jwks_uri"] = s.URL + "/keys"
		}
		text := s.document(doc)
		s.does(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			if r.URL.Path == "/keys" {
				text := jwksOf(t, publicJWK(testKeys()["ES256"], "k"))
				_, _ = w.Write([]byte(text))
				return
			}
			_, _ = w.Write([]byte(text))
		})
		code := p.code()
		p.exchange(code).wants(t, rule+": without an assertion", http.StatusUnauthorized, "invalid_client")
		p.exchange(code, "client_id", s.id(), "client_secret", "wfs_x").wants(t, rule+": with a secret",
			http.StatusUnauthorized, "invalid_client")
		forged := signedBy(t, testKeys()["EdDSA"], jose.EdDSA, map[string]any{"kid": "k"}, p.assertionClaims(nil))
		p.asserting("/oauth/token", forged, redeeming(code)).wants(t, rule+": a forged assertion", http.StatusUnauthorized,
			"invalid_client")
		tokens := p.asserting("/oauth/token", p.assertion("ES256", nil), redeeming(code), "client_id", s.id())
		if tokens.status != http.StatusOK {
			t.Fatalf("%s: %d %s", rule, tokens.status, tokens.raw)
		}
		token := url.Values{"token": {tokens.text("access_token")}}
		if got := p.asserting("/oauth/introspect", p.assertion("ES256", nil), token); got.json["active"] != true {
			t.Errorf("%s: introspection: %d %s", rule, got.status, got.raw)
		}
		if got := p.asserting("/oauth/introspect", p.assertion("ES256", nil),
			url.Values{"token": {tokens.text("refresh_token")}}); got.json["active"] != true {
			t.Errorf("%s: introspection of a refresh token: %d %s", rule, got.status, got.raw)
		}
		next := p.asserting("/oauth/token", p.assertion("ES256", nil), refreshing(tokens.text("refresh_token")))
		if next.status != http.StatusOK {
			t.Errorf("%s: refresh: %d %s", rule, next.status, next.raw)
		}
		once := p.assertion("ES256", nil)
		if got := p.asserting("/oauth/revoke", once, token); got.status != http.StatusOK {
			t.Errorf("%s: revocation: %d %s", rule, got.status, got.raw)
		}
		p.asserting("/oauth/revoke", once, token).wants(t, rule+": an assertion used twice", http.StatusUnauthorized,
			"invalid_client")
		p.asserting("/oauth/token", p.assertion("ES256", nil), forItself("threads:read")).
			wants(t, rule+": a token for itself", http.StatusBadRequest, "unauthorized_client")
	}
}

// The name in a document is its own claim; the host that it is from is a fact. Pages show both.
func TestPagesSayThatAClientDescribesItself(t *testing.T) {
	p, s := newDescribed(t)
	host := strings.TrimPrefix(s.URL, "https://")
	b := p.browser()
	got := b.follow(b.get(p.authorizeURL(withPKCE...)))
	if !strings.Contains(got.body, "Fancy Agent") || !strings.Contains(got.body, `<span class="host">`+host+`</span>`) {
		t.Errorf("sign-in: %s", shown(got.body))
	}
	got = b.follow(b.signIn(got, userEmail, userPassword))
	if !strings.Contains(got.body, `<span class="host">`+host+`</span>`) ||
		!strings.Contains(got.body, `<span class="host">app.test</span>`) ||
		!strings.Contains(got.body, "Nobody here has registered this app: it describes itself, in a document of "+host) {
		t.Errorf("consent: %s", shown(got.body))
	}
	registered, _ := p.as(p.register("other", func(*storage.Client) {})).signedIn(userEmail)
	if body := registered.get(registered.p.authorizeURL()).body; strings.Contains(body, "describes itself") {
		t.Errorf("consent to a registered app: %s", shown(body))
	}
	s.says(s.document(map[string]any{"client_name": nil}))
	p.clock.forward(time.Hour)
	if c := p.knows(s.id()); c == nil || c.ClientName != host {
		t.Errorf("a document without a name: %+v", c)
	}
}

// Off by default: such a client is not known, nothing is fetched, and discovery does not speak of it.
func TestClientIDMetadataDocumentsAreOff(t *testing.T) {
	s := newDocumentServer(t)
	s.says(s.document(nil))
	p := newIDP(t, s.withDocuments, func(c *server.Config) { c.ClientIDMetadataDocuments = false })
	p = p.as(&storage.Client{ID: s.id()}, "")
	p.browser().get(p.authorizeURL(withPKCE...)).wants(t, "authorize", http.StatusBadRequest, "invalid_client")
	p.refresh("wfr_x").wants(t, "token", http.StatusUnauthorized, "invalid_client")
	if s.asked.Load() != 0 {
		t.Error("fetched")
	}
	const member = "client_id_metadata_document_supported"
	if doc := p.document(p.issuer + "/.well-known/openid-configuration").json; doc[member] != nil {
		t.Errorf("discovery: %v", doc[member])
	}
	p, _ = newDescribed(t)
	for _, at := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		if doc := p.document(p.issuer + at).json; doc[member] != true {
			t.Errorf("discovery when on: %v", doc[member])
		}
	}
}

// Section 3: what a client_id has to be to name a document.
func TestClientIDsThatNameADocument(t *testing.T) {
	for _, id := range []string{
		"https://app.test/client", "https://app.test/", "https://app.test:8443/c.json", "https://127.0.0.1/c",
		"https://[::1]/c",
		"https://app.test/a%2Fb", "https://app.test/a/...", "https://app.test/c?v=1", "https://app.test/.well-known/c",
		"https://app.test/~a;b",
		"https://app.test/" + strings.Repeat("a", 256-len("https://app.test/")),
	} {
		if !server.IsDocumentURL(id) {
			t.Errorf("%q names none", id)
		}
	}
	for rule, ids := range map[string][]string{
		"scheme": {"http://app.test/c", "HTTPS://app.test/c", "https:/app.test/c", "https:app.test/c", "//app.test/c",
			"ftp://app.test/c", "javascript://app.test/c", " https://app.test/c"},
		"path":     {"https://app.test", "https://app.test?a=/", "https://app.test:443"},
		"fragment": {"https://app.test/c#", "https://app.test/c#a", "https://app.test#/c"},
		"user info": {"https://a@app.test/c", "https://a:b@app.test/c", "https://@app.test/c",
			"https://app.test:443@evil.test/c"},
		"dot segments": {"https://app.test/a/../c", "https://app.test/./c", "https://app.test/..", "https://app.test/.",
			"https://app.test/%2e%2e/c", "https://app.test/.%2E/c", "https://app.test/a%2f..%2fc"},
		"host": {"https:///c", "https://*/c", "https://app.test:*/c", "https://app.test:0/c",
			"https://app.test:99999/c", "https://app.test./c", "https://äpp.test/c", "https://app%2etest/c",
			"https://[fe80::1%25eth0]/c", "https://[::1/c"},
		"characters": {"https://app.test/a b", "https://app.test/\n", "https://app.test/\x00", "https://app.test/é",
			`https://app.test/\..`, "https://app.test/<c>", "https://app.test/%zz", "https://app.test/%"},
		"length": {"https://app.test/" + strings.Repeat("a", 257-len("https://app.test/"))},
		"none":   {"", "my-app-abcdefghijkl", "https", "https://"},
	} {
		for _, id := range ids {
			if server.IsDocumentURL(id) {
				t.Errorf("%s: %q", rule, id)
			}
		}
	}
}

func FuzzDocumentURL(f *testing.F) {
	for _, id := range []string{"https://app.test/client", "https://app.test:8443/a/%2e%2e/c?x=y",
		"https://a:b@app.test/c#d", "https://[::1]/c", "http://localhost:*/"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if !server.IsDocumentURL(id) {
			return
		}
		u, err := url.Parse(id)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Path == "" ||
			len(id) > 256 || u.String() != id {
			t.Errorf("%q: %v", id, err)
		}
		if clean := u.JoinPath(); clean.Path != u.Path && strings.Contains(u.Path, "./") {
			t.Errorf("%q has dot segments", id)
		}
		if strings.ContainsAny(id, " \t\r\n\"<>\\^`{|}#@\x00") && !strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
			t.Errorf("%q holds what a URL cannot", id)
		}
	})
}
