package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

// across sends what a page of another origin would send to an endpoint.
func (p *idp) across(origin, method, path, body string, header ...string) reply {
	p.t.Helper()
	return p.send(p.request(method, p.issuer+path, body, append([]string{"Origin", origin}, header...)...))
}

// readBy reports whether a browser gives an answer to the page that asked, and that no cookie is taken.
func (got reply) readBy(t testing.TB, rule, origin string, want bool) {
	t.Helper()
	allowed := got.header.Get("Access-Control-Allow-Origin")
	if (allowed == origin || allowed == "*") != want || !want && allowed != "" {
		t.Errorf("%s: %s may read it: %v, want %v (%d %s)", rule, origin, !want, want, got.status, got.raw)
	}
	if got.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%s: with cookies", rule)
	}
	if want && allowed != "*" && got.header.Get("Vary") != "Origin" {
		t.Errorf("%s: Vary %q", rule, got.header.Get("Vary"))
	}
}

// A page of a client's own origins reads every answer to that client, of success and of failure, and no other page
// does.
func TestPagesOfOtherOrigins(t *testing.T) {
	p := newIDP(t, openToAll, func(c *server.Config) {
		c.AllowedOrigins = []string{"https://portal.test", "http://localhost:*"}
	})
	client, _ := p.register("spa", func(c *storage.Client) {
		c.Public, c.RedirectURIs = true, []string{callback, "http://127.0.0.1/cb", "com.example.app:/cb"}
		c.AllowedOrigins = []string{"https://pages.test"}
	})
	spa := p.as(client, "")
	origins := map[string]bool{
		"https://app.test": true, "http://127.0.0.1:5173": true, "https://pages.test": true, "https://portal.test": true,
		"http://localhost:5173": true,
		"https://evil.test":     false, "https://app.test.evil.test": false, "https://app.test:8443": false,
		"http://app.test":       false,
		"https://evil.app.test": false, "null": false, "http://127.9.9.9:1": false,
	}
	form := []string{"Content-Type", formType}
	for origin, own := range origins {
		verifies := []string{"code_challenge", challengeOf(verifier), "code_challenge_method", "S256"}
		code := spa.code(append(verifies, "scope", "openid")...)
		tokens := p.across(origin, http.MethodPost, "/oauth/token", url.Values{"grant_type": {"authorization_code"},
			"code":         {code},
			"redirect_uri": {callback}, "client_id": {client.ID}, "code_verifier": {verifier}}.Encode(), form...)
		tokens.readBy(t, "token", origin, own)
		if tokens.status != http.StatusOK {
			t.Fatalf("token: %d %s", tokens.status, tokens.raw)
		}
		refused := p.across(origin, http.MethodPost, "/oauth/token",
			url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"wfr_x"}, "client_id": {client.ID}}.Encode(), form...)
		refused.readBy(t, "a refusal of the token endpoint", origin, own)
		bearer := []string{"Authorization", "Bearer " + tokens.text("access_token")}
		p.across(origin, http.MethodGet, "/oauth/userinfo", "", bearer...).readBy(t, "userinfo", origin, own)
		pushed := p.across(origin, http.MethodPost, "/oauth/par", url.Values{"client_id": {client.ID},
			"redirect_uri":  {callback},
			"response_type": {"code"}, "scope": {"openid"}, "code_challenge": {challengeOf(verifier)},
			"code_challenge_method": {"S256"}}.Encode(), form...)
		pushed.readBy(t, "PAR", origin, own)
		revoked := p.across(origin, http.MethodPost, "/oauth/revoke", url.Values{"client_id": {client.ID},
			"token": {tokens.text("access_token")}}.Encode(), form...)
		revoked.readBy(t, "revocation", origin, own)
		if pushed.status != http.StatusCreated || revoked.status != http.StatusOK {
			t.Errorf("%d and %d", pushed.status, revoked.status)
		}
		registered := p.across(origin, http.MethodPost, "/oauth/register",
			`{"redirect_uris":["`+callback+`","http://127.0.0.1/cb"],"token_endpoint_auth_method":"none"}`, "Content-Type",
			"application/json")
		registered.readBy(t, "registration", origin, own && origin != "https://pages.test")
		path, _ := strings.CutPrefix(registered.text("registration_client_uri"), p.issuer)
		p.across(origin, http.MethodGet, path, "", "Authorization", "Bearer "+registered.text("registration_access_token")).
			readBy(t, "a registration", origin, own && origin != "https://pages.test")
	}
	const anybody = "https://anybody.test"
	for rule, got := range map[string]reply{
		"an unknown client": p.across(anybody, http.MethodPost, "/oauth/token",
			"grant_type=refresh_token&refresh_token=x&client_id=nobody", form...),
		"no client":      p.across(anybody, http.MethodPost, "/oauth/token", "", form...),
		"no token":       p.across(anybody, http.MethodGet, "/oauth/userinfo", ""),
		"a wrong method": p.across(anybody, http.MethodGet, "/oauth/token", ""),
	} {
		got.readBy(t, rule, anybody, true)
		if exposed := strings.ToLower(got.header.Get("Access-Control-Expose-Headers")); !strings.Contains(exposed,
			"www-authenticate") || !strings.Contains(exposed, "dpop-nonce") {
			t.Errorf("%s: exposed %q", rule, exposed)
		}
	}
	for _, path := range []string{"/oauth/jwks", "/.well-known/openid-configuration",
		"/.well-known/oauth-authorization-server"} {
		got := p.across(anybody, http.MethodGet, path, "")
		if got.readBy(t, path, anybody, true); got.header.Get("Access-Control-Allow-Origin") != "*" ||
			got.header.Get("Etag") == "" {
			t.Errorf("%s: %v", path, got.header)
		}
	}
}

// A preflight says nothing of the client, so it is answered for every page, and whatever headers that wants to send.
func TestPreflights(t *testing.T) {
	p := newIDP(t)
	const asked = "authorization,content-type,dpop,x-anything"
	for path, methods := range map[string]string{
		"/oauth/token": "POST", "/oauth/userinfo": "GET, POST", "/oauth/revoke": "POST", "/oauth/par": "POST",
		"/oauth/introspect": "POST",
		"/oauth/jwks":       "GET, HEAD", "/.well-known/openid-configuration": "GET, HEAD",
	} {
		got := p.across("https://any.test", http.MethodOptions, path, "", "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", asked)
		if got.status != http.StatusNoContent || got.header.Get("Access-Control-Allow-Origin") != "*" ||
			got.header.Get("Access-Control-Allow-Headers") != asked ||
			got.header.Get("Access-Control-Allow-Methods") != methods ||
			got.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
		if got := p.send(p.request(http.MethodOptions, p.issuer+path, "")); got.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: OPTIONS that is no preflight: %d", path, got.status)
		}
	}
	// Where people are, no page of another origin is.
	for _, path := range []string{"/oauth/authorize", "/oauth/continue", "/oauth/signin", "/oauth/consent",
		"/oauth/logout", "/"} {
		for rule, got := range map[string]reply{
			"a preflight": p.across(callback, http.MethodOptions, path, "", "Access-Control-Request-Method", "POST",
				"Accept", "text/html"),
			"a request": p.across("https://app.test", http.MethodPost, path, "client_id="+p.client.ID, "Content-Type",
				formType, "Accept", "text/html"),
		} {
			if got.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %s: %v", path, rule, got.header)
			}
		}
	}
}
