package server_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func (p *idp) startURL(changes ...string) string {
	params := url.Values{"client_id": {p.client.ID}}
	for i := 0; i < len(changes); i += 2 {
		params.Set(changes[i], changes[i+1])
	}
	return p.issuer + "/oauth/start?" + params.Encode()
}

// Somebody can begin here and is signed in to the app at the end (OpenID Connect Core 1.0 section 4).
func TestLoginThatAThirdPartyBegins(t *testing.T) {
	p := newIDP(t)
	p.update("my-app", func(c *storage.Client) { c.InitiateLoginURI = "https://app.test/login?via=portal" })
	for rule, b := range map[string]*browser{"a stranger": p.browser(),
		"somebody signed in": func() *browser { b := p.browser(); b.code(); return b }()} {
		got := b.get(p.startURL())
		if want := "https://app.test/login?via=portal&iss=" + url.QueryEscape(p.issuer); got.status != http.StatusSeeOther ||
			got.location.String() != want {
			t.Errorf("%s: %d to %v, want %s", rule, got.status, got.location, want)
		}
		if len(got.header.Values("Set-Cookie")) > 0 || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", rule, got.header)
		}
		got = b.get(p.startURL("target_link_uri", "https://app.test/threads?x=1&y=2", "login_hint", "ann", "iss",
			"https://evil.test"))
		if q := got.location.Query(); q.Get("target_link_uri") != "https://app.test/threads?x=1&y=2" ||
			q.Get("iss") != p.issuer || q.Has("login_hint") || len(q["iss"]) != 1 {
			t.Errorf("%s: to %v", rule, got.location)
		}
	}
	status := 0
	if got := p.etcd.Count(func() { status = p.browser().get(p.startURL()).status }); got != (storagetest.Counts{}) ||
		status != http.StatusSeeOther {
		t.Errorf("%+v, %d", got, status)
	}
}

// The start leads to the app and nowhere else.
func TestStartIsNoOpenRedirect(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.get(p.startURL()).wants(t, "a client that is not begun by others", http.StatusBadRequest, "invalid_request")
	p.update("my-app", func(c *storage.Client) { c.InitiateLoginURI = "https://app.test:8443/login" })
	for rule, target := range map[string]string{
		"another host":     "https://evil.test/",
		"another port":     "https://app.test/threads",
		"another scheme":   "http://app.test:8443/",
		"userinfo":         "https://app.test:8443@evil.test/",
		"a longer host":    "https://app.test:8443.evil.test/",
		"backslash":        `https://app.test:8443\@evil.test/`,
		"javascript":       "javascript:alert(1)//app.test:8443",
		"relative":         "/threads",
		"network path":     "//app.test:8443/",
		"control in it":    "https://app.test:8443/\r\nX: y",
		"case of the host": "https://APP.test:8443/",
		"fragment":         "https://app.test:8443/#x",
	} {
		b.get(p.startURL("target_link_uri", target)).wants(t, rule, http.StatusBadRequest, "invalid_request")
	}
	b.get(p.startURL()+"&client_id=x").wants(t, "two clients", http.StatusBadRequest, "invalid_request")
	b.get(p.startURL("client_id", "")).wants(t, "no client", http.StatusBadRequest, "invalid_request")
	b.get(p.startURL("client_id", `"><script>`)).wants(t, "an unknown client", http.StatusBadRequest, "invalid_client")
	b.get(p.startURL()+"&%zz").wants(t, "not well-formed", http.StatusBadRequest, "invalid_request")
	if got := b.post(p.startURL(), url.Values{}); got.status != http.StatusMethodNotAllowed ||
		got.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", got.status)
	}
	for _, registered := range []string{"javascript:alert(1)", "http://evil.test/", "http://localhost:*", "/relative",
		"https://user@app.test/"} {
		p.update("my-app", func(c *storage.Client) { c.InitiateLoginURI = registered })
		b.get(p.startURL()).wants(t, registered, http.StatusBadRequest, "invalid_request")
	}
	p.deleteApp()
	b.get(p.startURL()).wants(t, "a deleted client", http.StatusBadRequest, "invalid_client")
}
