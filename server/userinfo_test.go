package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
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
		if got.status != http.StatusOK || got.text("sub") != "user-ann" || got.text("email") != userEmail ||
			got.text("name") != "Ann" || got.text("preferred_username") != "ann" {
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
		if got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != `Bearer realm="warifu"` ||
			strings.TrimSpace(got.raw) != "" {
			t.Errorf("%s: %d %q %s, want a challenge without an error", rule, got.status, got.header.Get("WWW-Authenticate"),
				got.raw)
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
	if want := `Bearer realm="warifu", error="insufficient_scope", scope="openid"`; got.header.Get(
		"WWW-Authenticate") != want {
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
