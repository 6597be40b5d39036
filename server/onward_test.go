package server_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

// A browser holds every redirect after a form against the policy of the form's page. So a form of ours is answered by
// a page, however the answer comes about, and its policy names nobody else.
func TestNoFormOfOursEndsAtAnApp(t *testing.T) {
	p := newIDP(t)
	p.update("my-app", func(c *storage.Client) { c.PostLogoutRedirectURIs = []string{afterLogout} })
	onward := func(got page, rule string) url.Values {
		t.Helper()
		if got.status != http.StatusOK || got.header.Get("Location") != "" || got.location == nil {
			t.Fatalf("%s: %d to %v\n%s", rule, got.status, got.location, shown(got.body))
		}
		policy := got.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "form-action 'none'") || strings.Contains(policy, "script-src") ||
			got.header.Get("Cross-Origin-Opener-Policy") != "unsafe-none" || got.header.Get("Cache-Control") != "no-store" ||
			got.header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers %v", rule, got.header)
		}
		return got.location.Query()
	}
	asks := func(got page) page {
		t.Helper()
		if policy := got.header.Get("Content-Security-Policy"); !strings.Contains(policy, "form-action 'self';") {
			t.Errorf("policy %q", policy)
		}
		return got
	}
	b := p.browser()
	if q := onward(b.cancel(asks(b.get(p.authorizeURL()))), "cancel"); q.Get("error") != "access_denied" {
		t.Errorf("cancel: %v", q)
	}
	consent := asks(b.follow(b.signIn(b.get(p.authorizeURL()), userEmail, userPassword)))
	if q := onward(b.decide(consent, "deny"), "deny"); q.Get("error") != "access_denied" || q.Get("state") != "state-1" {
		t.Errorf("deny: %v", q)
	}
	if q := onward(b.decide(consent, "allow"), "allow"); q.Get("code") == "" || q.Get("iss") != p.issuer {
		t.Errorf("allow: %v", q)
	}
	signedIn := b.signIn(b.get(p.authorizeURL("prompt", "login")), userEmail, userPassword)
	if q := onward(b.follow(signedIn), "sign in, without a question"); q.Get("code") == "" {
		t.Errorf("sign in: %v", q)
	}
	// Who comes from the app goes back by a redirect.
	for rule, address := range map[string]string{
		"allowed before": p.authorizeURL(), "silent": p.authorizeURL("prompt", "none"),
		"an error": p.authorizeURL("scope", "no:such"),
	} {
		if got := b.get(address); got.status != http.StatusSeeOther ||
			!strings.HasPrefix(got.header.Get("Location"), callback+"?") {
			t.Errorf("%s: %d to %v", rule, got.status, got.location)
		}
	}
	form := b.follow(b.decide(b.get(p.authorizeURL("prompt", "consent", "response_mode", "form_post")), "allow"))
	b.posted(form, callback)
	if policy := form.header.Get("Content-Security-Policy"); strings.Contains(policy, "form-action") {
		t.Errorf("where the app goes on to is held against %q", policy)
	}
	logout := b.get(p.issuer + "/oauth/logout?" + url.Values{"client_id": {p.client.ID},
		"post_logout_redirect_uri": {afterLogout}, "state": {"x"}}.Encode())
	if q := onward(b.decide(asks(logout), "signout"), "sign out"); q.Get("state") != "x" {
		t.Errorf("sign out: %v", q)
	}
}

// cancel presses the button of the sign-in page that leads back to the app.
func (b *browser) cancel(got page) page {
	b.p.t.Helper()
	action, form := b.form(got, "cancel")
	form.Set("cancel", "yes")
	return b.post(action, form)
}

// The default buffers of nginx have 4 KB for the header of a reply, which [browser.do] holds all replies to, and 8 KB
// for a line of a request.
func TestDefaultBuffersOfAProxyAreEnough(t *testing.T) {
	p := newIDP(t)
	p.update("my-app", func(c *storage.Client) {
		c.Scopes = server.ScopeNames(server.DefaultScopes())
		c.PostLogoutRedirectURIs = []string{afterLogout}
	})
	state := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("\x01\x9f\x33", 512))) // 2 KB
	claims :=
		`{"userinfo":{"email":{"essential":true},"name":null,"address":null},"id_token":{"email":null,"name":null,"picture":null,"auth_time":{"essential":true},"zoneinfo":{"values":["` +
			strings.Repeat("x", 1840) + `"]}}}`
	if len(state) != 2048 || len(claims) < 1990 || len(claims) > 2048 {
		t.Fatalf("%d and %d bytes", len(state), len(claims))
	}
	asked := []string{"state", state, "claims", claims, "scope", "openid profile email threads:read", "nonce",
		strings.Repeat("n", 43),
		"code_challenge", challengeOf(verifier), "code_challenge_method", "S256"}
	line := func(address, rule string) string {
		t.Helper()
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if n := len("GET " + u.RequestURI() + " HTTP/1.1\r\n"); n > 8<<10 {
			t.Errorf("%s: a request line of %d bytes", rule, n)
		}
		return address
	}
	walk := func(b *browser, rule, address string) {
		t.Helper()
		got := b.get(line(address, rule))
		for range 8 {
			if got.location != nil {
				line(got.location.String(), rule)
			}
			switch {
			case got.location != nil && !strings.HasPrefix(got.location.String(), p.issuer):
				if got.location.Query().Get("state") != state || got.location.Query().Get("code") == "" {
					t.Errorf("%s: %.200s", rule, got.location)
				}
				return
			case got.location != nil:
				got = b.get(got.location.String())
			case got.asks() == "password":
				got = b.signIn(got, userEmail, userPassword)
			default:
				got = b.decide(got, "allow")
			}
		}
		t.Errorf("%s: goes in circles", rule)
	}
	b := p.browser()
	walk(b, "in the address", p.authorizeURL(asked...))
	walk(b, "allowed before", p.authorizeURL(asked...))
	walk(b, "silent", p.authorizeURL(append(asked, "prompt", "none")...))
	for i, other := range []string{"bob@app.test", userEmail} { // a browser that many have signed in with
		got := b.signIn(b.get(p.authorizeURL("prompt", "login")), other, userPassword)
		if got.status != http.StatusSeeOther && got.location == nil {
			t.Fatalf("%d: %d", i, got.status)
		}
	}
	walk(p.browser(), "pushed", p.pushedURL(p.push(asked...)))
	q := p.request(http.MethodPost, p.issuer+"/oauth/authorize", strings.SplitN(p.authorizeURL(asked...), "?", 2)[1],
		"Content-Type", formType)
	b = p.browser()
	posted := b.do(q)
	if posted.location == nil {
		t.Fatalf("POST: %d", posted.status)
	}
	walk(b, "in a form", posted.location.String())
	// A frame is where silent requests end; this page may be in one.
	silent := b.get(p.authorizeURL(append(asked, "prompt", "none")...))
	if silent.status != http.StatusOK || silent.header.Get("X-Frame-Options") != "" ||
		strings.Contains(silent.header.Get("Content-Security-Policy"), "frame-ancestors") {
		t.Errorf("silent: %d %v", silent.status, silent.header)
	}
	out := b.get(line(p.issuer+"/oauth/logout?"+url.Values{"client_id": {p.client.ID},
		"post_logout_redirect_uri": {afterLogout}, "state": {state}}.Encode(), "sign out"))
	if out = b.decide(out, "signout"); out.location == nil || out.location.Query().Get("state") != state {
		t.Errorf("signed out: %d %v", out.status, out.location)
	}
}
