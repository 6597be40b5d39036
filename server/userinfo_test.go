package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
)

// RFC 6750 section 2: the token comes in the header or in a form, once, never in an address.
func TestUserinfoTakesTheTokenOnce(t *testing.T) {
	p := newIDP(t)
	token := p.tokens("scope", "openid email profile").text("access_token")
	address := p.issuer + "/oauth/userinfo"
	form := url.Values{"access_token": {token}}.Encode()
	bearer := []string{"Authorization", "Bearer " + token}
	for rule, req := range map[string]*http.Request{
		"GET, header":                  p.request(http.MethodGet, address, "", bearer...),
		"GET, scheme in lower case":    p.request(http.MethodGet, address, "", "Authorization", "bearer "+token),
		"POST, header":                 p.request(http.MethodPost, address, "", bearer...),
		"POST, header, an empty form":  p.request(http.MethodPost, address, "", append(bearer, "Content-Type", formType)...),
		"POST, form":                   p.request(http.MethodPost, address, form, "Content-Type", formType),
		"GET, header, query unnoticed": p.request(http.MethodGet, address+"?x=y", "", bearer...),
	} {
		got := p.send(req)
		if got.status != http.StatusOK || got.text("sub") != "user-ann" || got.text("email") != userEmail || got.text("name") != "Ann" || got.text("preferred_username") != "ann" {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
		if got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: may be cached", rule)
		}
	}
	for rule, req := range map[string]*http.Request{
		"GET, query":             p.request(http.MethodGet, address+"?"+form, ""),
		"nothing":                p.request(http.MethodGet, address, ""),
		"Basic":                  p.request(http.MethodGet, address, "", "Authorization", basic(p.client.ID, p.secret)),
		"a scheme alone":         p.request(http.MethodGet, address, "", "Authorization", "Bearer"),
		"a GET with a form":      p.request(http.MethodGet, address, form, "Content-Type", formType),
		"a token without scheme": p.request(http.MethodGet, address, "", "Authorization", token),
	} {
		got := p.send(req)
		if got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != `Bearer realm="warifu"` || strings.TrimSpace(got.raw) != "" {
			t.Errorf("%s: %d %q %s, want a challenge without an error", rule, got.status, got.header.Get("WWW-Authenticate"), got.raw)
		}
	}
	for rule, req := range map[string]*http.Request{
		"header and form":      p.request(http.MethodPost, address, form, append(bearer, "Content-Type", formType)...),
		"two headers":          p.request(http.MethodGet, address, "", append(bearer, bearer...)...),
		"twice in the form":    p.request(http.MethodPost, address, form+"&"+form, "Content-Type", formType),
		"query beside a form":  p.request(http.MethodPost, address+"?"+form, "x=y", "Content-Type", formType),
		"another content type": p.request(http.MethodPost, address, form, "Content-Type", "text/plain"),
	} {
		p.send(req).wants(t, rule, http.StatusBadRequest, "invalid_request")
	}
	got := p.userinfo("garbage")
	got.wants(t, "garbage", http.StatusUnauthorized, "invalid_token")
	if want := `Bearer realm="warifu", error="invalid_token"`; got.header.Get("WWW-Authenticate") != want {
		t.Errorf("challenge %q", got.header.Get("WWW-Authenticate"))
	}
}

func TestUserinfoNeedsOpenID(t *testing.T) {
	p := newIDP(t)
	got := p.userinfo(p.tokens("scope", "threads:read email").text("access_token"))
	got.wants(t, "without openid", http.StatusForbidden, "insufficient_scope")
	if want := `Bearer realm="warifu", error="insufficient_scope", scope="openid"`; got.header.Get("WWW-Authenticate") != want {
		t.Errorf("challenge %q", got.header.Get("WWW-Authenticate"))
	}
	only := p.userinfo(p.tokens("scope", "openid").text("access_token"))
	if len(only.json) != 1 || only.text("sub") != "user-ann" {
		t.Errorf("openid alone gives %s", only.raw)
	}
	for rule, change := range map[string]func(){
		"client disabled": p.deleteApp,
	} {
		token := p.tokens("scope", "openid").text("access_token")
		change()
		p.userinfo(token).wants(t, rule, http.StatusUnauthorized, "invalid_token")
	}
}

// Browser apps of other origins: only those of the list, only where machines call, never with cookies.
func TestCORS(t *testing.T) {
	const app = "https://spa.test"
	preflight := func(p *idp, path, origin string) reply {
		return p.send(p.request(http.MethodOptions, p.issuer+path, "", "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type"))
	}
	simple := func(p *idp, path, origin string) reply {
		return p.send(p.request(http.MethodPost, p.issuer+path, "", "Origin", origin))
	}
	machine := []string{"/oauth/token", "/oauth/userinfo", "/oauth/introspect", "/oauth/revoke", "/oauth/jwks", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"}
	people := []string{"/oauth/authorize", "/oauth/continue", "/oauth/signin", "/oauth/consent", "/"}
	silent := func(t *testing.T, rule string, got reply) {
		t.Helper()
		for name := range got.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s: %s", rule, name, got.header.Get(name))
			}
		}
	}
	t.Run("off by default", func(t *testing.T) {
		p := newIDP(t)
		for _, path := range append(machine, people...) {
			silent(t, "preflight "+path, preflight(p, path, app))
			silent(t, path, simple(p, path, app))
			silent(t, path, simple(p, path, p.issuer))
		}
	})
	t.Run("a list", func(t *testing.T) {
		p := newIDP(t, func(c *server.Config) { c.AllowedOrigins = []string{app} })
		for _, path := range machine {
			got := preflight(p, path, app)
			if got.header.Get("Access-Control-Allow-Origin") != app || got.status != http.StatusNoContent ||
				!strings.EqualFold(got.header.Get("Access-Control-Allow-Headers"), "authorization,content-type") {
				t.Errorf("preflight %s: %d %v", path, got.status, got.header)
			}
			if got := simple(p, path, app); got.header.Get("Access-Control-Allow-Origin") != app || got.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: %v", path, got.header)
			}
			for _, other := range []string{"https://evil.test", "https://spa.test.evil.test", "http://spa.test", "https://spa.test:8443", "null", "https://evil.spa.test"} {
				if got := preflight(p, path, other); got.header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s allowed at %s", other, path)
				}
				if got := simple(p, path, other); got.header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s allowed at %s", other, path)
				}
			}
		}
		for _, path := range people {
			silent(t, "preflight "+path, preflight(p, path, app))
			silent(t, path, simple(p, path, app))
		}
	})
	t.Run("any", func(t *testing.T) {
		p := newIDP(t, func(c *server.Config) { c.AllowedOrigins = []string{"*"} })
		got := simple(p, "/oauth/token", "https://any.test")
		if got.header.Get("Access-Control-Allow-Origin") != "*" || got.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%v", got.header)
		}
		silent(t, "authorize", simple(p, "/oauth/authorize", "https://any.test"))
	})
}
