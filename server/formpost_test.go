package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/warifu/warifu/storage"
)

// posted takes an answer in the form of a page that posts itself (OAuth 2.0 Form Post Response Mode): what the app gets
// at its redirect URI.
func (b *browser) posted(got page, at string) url.Values {
	b.p.t.Helper()
	if got.status != http.StatusOK || got.location != nil {
		b.p.t.Fatalf("no form: status %d, location %v\n%s", got.status, got.location, shown(got.body))
	}
	action, form := b.form(got, "iss")
	if action != at {
		b.p.t.Errorf("posted to %s", action)
	}
	if got.header.Get("Cache-Control") != "no-store" || got.header.Get("X-Frame-Options") != "DENY" ||
		got.header.Get("Referrer-Policy") != "no-referrer" {
		b.p.t.Errorf("headers %v", got.header)
	}
	policy, scripts := got.header.Get("Content-Security-Policy"), 0
	root, err := html.Parse(strings.NewReader(got.body))
	if err != nil {
		b.p.t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Data != "script" {
			continue
		}
		scripts++
		sum := sha256.Sum256([]byte(n.FirstChild.Data))
		if want := "; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'"; !strings.HasSuffix(policy, want) {
			b.p.t.Errorf("policy %q, want %s", policy, want)
		}
	}
	if scripts != 1 || !strings.Contains(got.body, "<button") {
		b.p.t.Errorf("%d scripts\n%s", scripts, shown(got.body))
	}
	for name, values := range form {
		if len(values) != 1 {
			b.p.t.Errorf("%s is posted as %q", name, values)
		}
	}
	if form.Get("iss") != b.p.issuer {
		b.p.t.Errorf("iss %q", form.Get("iss"))
	}
	return form
}

func TestFormPost(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	const hostile = `a&b"><script>alert(1)</script>`
	at := []string{"response_mode", "form_post", "state", hostile, "scope", "openid"}
	got := b.follow(b.get(p.authorizeURL(at...)))
	got = b.follow(b.signIn(got, userEmail, userPassword))
	if policy := got.header.Get("Content-Security-Policy"); strings.Contains(policy, "script-src") {
		t.Errorf("a script on the consent page: %s", policy)
	}
	allowed := b.decide(got, "allow")
	form := b.posted(allowed, callback)
	if len(form) != 3 || form.Get("state") != hostile || strings.Contains(allowed.body, hostile) {
		t.Errorf("posted %v", form)
	}
	if issued := p.exchange(form.Get("code")); issued.status != http.StatusOK {
		t.Errorf("%d %s", issued.status, issued.raw)
	}
	// Once all is known, without a page of ours in between. Some redirect URIs have a query.
	app, secret := p.register("odd-app", func(c *storage.Client) {
		c.RedirectURIs = []string{"https://app.test/(cb)?a=1&b='2'"}
	})
	odd := p.as(app, secret)
	b.follow(b.decide(b.get(p.authorizeURL("client_id", app.ID, "redirect_uri", app.RedirectURIs[0])), "allow"))
	form = b.posted(b.get(odd.authorizeURL("redirect_uri", app.RedirectURIs[0], "response_mode", "form_post")),
		app.RedirectURIs[0])
	if issued := odd.exchange(form.Get("code"), "redirect_uri", app.RedirectURIs[0]); issued.status != http.StatusOK {
		t.Errorf("%d %s", issued.status, issued.raw)
	}
}

// Errors are posted as well.
func TestFormPostOfErrors(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	post := func(changes ...string) page {
		return b.get(p.authorizeURL(append([]string{"response_mode", "form_post"}, changes...)...))
	}
	for rule, c := range map[string]struct {
		got  page
		code string
	}{
		"nobody is signed in":         {post("prompt", "none"), "login_required"},
		"another response type":       {post("response_type", "token"), "unsupported_response_type"},
		"an unknown scope":            {post("scope", `<script>`), "invalid_scope"},
		"a parameter that is no text": {post("nonce", "a\xff"), "invalid_request"},
		"a duplicate": {b.get(p.authorizeURL("response_mode", "form_post") + "&nonce=a&nonce=b"),
			"invalid_request"},
		"two states":   {b.get(p.authorizeURL("response_mode", "form_post") + "&state=b"), "invalid_request"},
		"registration": {post("registration", "{}"), "registration_not_supported"},
	} {
		form := b.posted(c.got, callback)
		if form.Get("error") != c.code || form.Get("error_description") == "" || form.Get("state") != "state-1" ||
			form.Has("code") {
			t.Errorf("%s: %v", rule, form)
		}
	}
	got := b.follow(b.signIn(post(), userEmail, userPassword))
	if form := b.posted(b.decide(got, "deny"), callback); form.Get("error") != "access_denied" ||
		form.Get("state") != "state-1" {
		t.Errorf("denied: %v", form)
	}
	if form := b.posted(post("prompt", "none"), callback); form.Get("error") != "consent_required" {
		t.Errorf("consent: %v", form)
	}
	p.redirected(b.get(p.authorizeURL("prompt", "none")+"&response_mode=form_post&response_mode=form_post"),
		"two response modes", "invalid_request")
	p.redirected(b.get(p.authorizeURL("prompt", "none", "response_mode", "web_message")), "an unknown response mode",
		"invalid_request")
	// Nothing is posted to a redirect URI that is not known to be good.
	post("redirect_uri", "https://evil.test/").wants(t, "another redirect URI", http.StatusBadRequest,
		"unauthorized_client")
}
