package server_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/warifu/warifu/server"
)

// link finds the link back to an app on a page, and checks that it tells the app's site nothing of this one.
func (b *browser) link(got page, rule string) *url.URL {
	b.p.t.Helper()
	root, err := html.Parse(strings.NewReader(got.body))
	if err != nil {
		b.p.t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Data != "a" {
			continue
		}
		attrs := make(map[string]string)
		for _, a := range n.Attr {
			attrs[a.Key] = a.Val
		}
		if attrs["rel"] == "noreferrer" && strings.Contains(attrs["href"], "error=") {
			u, err := url.Parse(attrs["href"])
			if err != nil {
				b.p.t.Fatal(err)
			}
			return u
		}
	}
	b.p.t.Errorf("%s: no link: %d %v\n%s", rule, got.status, got.location, shown(got.body))
	return &url.URL{}
}

// told checks that the browser is sent nowhere, and that the page has a link with the whole answer.
func (b *browser) told(got page, rule, code string) {
	b.p.t.Helper()
	if got.location != nil {
		b.p.t.Errorf("%s: redirected to %s", rule, got.location)
		return
	}
	back := b.link(got, rule)
	q := back.Query()
	if !strings.HasPrefix(back.String(), callback+"?") || q.Get("error") != code || q.Get("error_description") == "" ||
		q.Get("state") != "s & <1>" ||
		q.Get("iss") != b.p.issuer || q.Has("code") {
		b.p.t.Errorf("%s: the link leads to %s, want %s", rule, back, code)
	}
	if got.header.Get("Referrer-Policy") != "no-referrer" || !strings.Contains(got.body, "Back to app.test") {
		b.p.t.Errorf("%s: %s %s", rule, got.header.Get("Referrer-Policy"), shown(got.body))
	}
}

// Whoever can register, or publish a document, must not make this server send browsers anywhere (RFC 9700 section
// 4.11.2): neither by a request that is wrong, nor by one that the user denies, nor silently. The app gets its answer
// all the same, if the user wants.
func TestErrorsLeadNowhereByThemselves(t *testing.T) {
	described, _ := newDescribed(t)
	open := newIDP(t, openToAll)
	open = open.itself(open.registration(`{"redirect_uris":["` + callback +
		`"],"token_endpoint_auth_method":"client_secret_post"}`))
	for kind, p := range map[string]*idp{"document": described, "registration": open} {
		p = p.at(t)
		ask := append([]string{"scope", "openid", "state", "s & <1>"}, withPKCE...)
		for rule, c := range map[string]struct {
			change []string
			code   string
		}{
			"a scope that is none":  {[]string{"scope", "x"}, "invalid_scope"},
			"another response type": {[]string{"response_type", "token"}, "unsupported_response_type"},
			"a bad prompt":          {[]string{"prompt", "x"}, "invalid_request"},
			"prompt=none":           {[]string{"prompt", "none"}, "login_required"},
		} {
			b := p.browser()
			b.told(b.get(p.authorizeURL(append(ask, c.change...)...)), kind+": "+rule, c.code)
		}
		b := p.browser()
		signIn := b.get(p.authorizeURL(ask...))
		action, form := b.form(signIn, "cancel")
		form.Set("cancel", "yes")
		b.told(b.post(action, form), kind+": cancelled", "access_denied")
		consent := b.follow(b.signIn(signIn, userEmail, userPassword))
		if strings.Contains(consent.body, "you go back too") {
			t.Errorf("%s: the page promises to go back: %s", kind, shown(consent.body))
		}
		b.told(b.decide(consent, "deny"), kind+": denied", "access_denied")
		b.told(b.get(p.authorizeURL(append(ask, "prompt", "none")...)), kind+": prompt=none, not allowed", "consent_required")
		b.told(b.get(p.pushedURL(p.push(append(ask, "prompt", "none")...))), kind+": pushed", "consent_required")

		// What a user has allowed leads to the app, and so does an answer in a frame of the app's own page.
		b.answered(b.decide(consent, "allow"), kind+": allowed")
		b.answered(b.get(p.authorizeURL(append(ask, "prompt", "none")...)), kind+": prompt=none, allowed")
		framed := p.request(http.MethodGet, p.authorizeURL(append(ask, "prompt", "none")...), "", "Sec-Fetch-Dest", "iframe")
		p.redirected(p.browser().do(framed), kind+": in a frame", "login_required")

		// A form post is a button.
		stranger := p.browser()
		posts := stranger.get(p.authorizeURL(append(ask, "prompt", "none", "response_mode", "form_post")...))
		to, fields := stranger.form(posts, "error")
		if to != callback || fields.Get("error") != "login_required" || fields.Get("state") != "s & <1>" ||
			fields.Get("iss") != p.issuer ||
			strings.Contains(posts.body, "<script") || strings.Contains(posts.header.Get("Content-Security-Policy"),
			"form-action") {
			t.Errorf("%s: form post: %s %v", kind, to, fields)
		}
	}
}

// Clients that an operator registered are told by themselves: by a manifest, or by an initial access token, which stays
// with the registration when its owner replaces it.
func TestErrorsAreRedirectedToVouchedClients(t *testing.T) {
	p := newIDP(t, func(c *server.Config) {
		c.Registration = &server.Registration{InitialAccessTokens: []string{initialToken}}
	})
	p.redirected(p.browser().get(p.authorizeURL("scope", "x")), "a manifest's client", "invalid_scope")
	body := `{"redirect_uris":["` + callback + `"]`
	registered := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", initialToken, body+`}`)
	q := p.itself(registered)
	q.redirected(q.browser().get(q.authorizeURL("scope", "x")), "a client with an initial access token", "invalid_scope")
	q.redirected(q.browser().get(q.authorizeURL("scope", "openid", "prompt", "none")), "prompt=none", "login_required")
	if got := p.dynamic(http.MethodPut, registered.text("registration_client_uri"),
		registered.text("registration_access_token"), body+`,"client_id":"`+q.client.ID+`"}`); got.status != http.StatusOK {
		t.Fatal(got.raw)
	}
	q.redirected(q.browser().get(q.authorizeURL("scope", "x")), "after its replacement", "invalid_scope")
	b, consent := p.signedIn(userEmail)
	if !strings.Contains(consent.body, "you go back too") {
		t.Errorf("%s", shown(consent.body))
	}
	p.redirected(b.decide(consent, "deny"), "denied", "access_denied")
}

// In Japanese as well, and with a redirect URI that has a query of its own.
func TestTheWayBackInJapanese(t *testing.T) {
	const queried = "https://app.test/callback?a=1&b=%20"
	p := newIDP(t, openToAll)
	p = p.itself(p.registration(`{"redirect_uris":["` + queried + `"]}`))
	b := p.browser()
	got := b.get(p.authorizeURL("redirect_uri", queried, "prompt", "none", "scope", "openid", "ui_locales", "ja"))
	if !strings.Contains(got.body, "app.test に戻る") || !strings.Contains(got.body, "アプリだけでは続行できません") {
		t.Errorf("%s", shown(got.body))
	}
	if back := b.link(got, "a query"); !regexp.MustCompile(
		`^https://app\.test/callback\?a=1&b=%20&error=login_required&`).MatchString(back.String()) {
		t.Errorf("%s", back)
	}
}
