package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

// What is not a registered redirect URI byte for byte, or by the rule of the loopback port, never gets a redirect.
func TestRedirectTwins(t *testing.T) {
	p := newIDP(t)
	for _, c := range []struct{ rule, registered, asked string }{
		{"case-folded path", "https://app.test/Callback", "https://app.test/callback"},
		{"case-folded host", callback, "https://APP.test/callback"},
		{"case-folded scheme", callback, "HTTPS://app.test/callback"},
		{"percent-encoded twin", callback, "https://app.test/%63allback"},
		{"dot segment", callback, "https://app.test/x/../callback"},
		{"encoded dot segment", callback, "https://app.test/x/%2e%2e/callback"},
		{"dot segment with a parameter", callback, "https://app.test/..;/callback"},
		{"slash at the end", callback, callback + "/"},
		{"query added", callback, callback + "?x=1"},
		{"fragment added", callback, callback + "#x"},
		{"default port added", callback, "https://app.test:443/callback"},
		{"userinfo added", callback, "https://evil@app.test/callback"},
		{"the registered one as userinfo", callback, "https://app.test@evil.test/callback"},
		{"several @", callback, "https://app.test@app.test@evil.test/callback"},
		{"backslash", callback, `https://app.test\@evil.test/callback`},
		{"subdomain", callback, "https://evil.app.test/callback"},
		{"longer host", callback, "https://app.test.evil.test/callback"},
		{"host in the path", callback, "https://evil.test/https://app.test/callback"},
		{"plain http", callback, "http://app.test/callback"},
		{"space before", callback, " " + callback},
		{"line break after", callback, callback + "\r\n"},
		{"NUL after", callback, callback + "\x00"},
		{"javascript", callback, "javascript:alert(1)//app.test/callback"},
		{"data", callback, "data:text/html,x"},
		{"relative", callback, "/callback"},
		{"network path", callback, "//app.test/callback"},
		{"localhost.evil", "http://localhost:*", "http://localhost.evil.test:80/"},
		{"localhost as user", "http://localhost:*", "http://localhost:@evil.test/"},
		{"localhost as user and password", "http://localhost:*", "http://localhost:80@evil.test/"},
		{"several @ at loopback", "http://localhost:*", "http://localhost:80@localhost:80@evil.test/"},
		{"https for a loopback registration", "http://localhost:*", "https://localhost:8080/"},
		{"userinfo at loopback", "http://localhost:*", "http://evil@localhost:8080/"},
		{"fragment at loopback", "http://localhost:*", "http://localhost:8080/#x"},
		{"127.9.9.9", "http://127.0.0.1:*", "http://127.9.9.9:8080/"},
		{"127.9.9.9 without a port", "http://127.0.0.1/cb", "http://127.9.9.9/cb"},
		{"localhost.evil without a port", "http://localhost/cb", "http://localhost.evil.test/cb"},
		{"localhost as user without a port", "http://localhost/cb", "http://localhost:@evil.test/cb"},
		{"userinfo where any port will do", "http://127.0.0.1/cb", "http://127.0.0.1:80@evil.test/cb"},
		{"fragment where any port will do", "http://127.0.0.1/cb", "http://127.0.0.1:8080/cb#x"},
		{"https where any port will do", "http://127.0.0.1/cb", "https://127.0.0.1:8080/cb"},
		{"another path where any port will do", "http://127.0.0.1/cb", "http://127.0.0.1:8080/cb/x"},
		{"a query where any port will do", "http://127.0.0.1/cb", "http://127.0.0.1:8080/cb?x=1"},
		{"encoded path where any port will do", "http://127.0.0.1/cb", "http://127.0.0.1:8080/%63b"},
		{"another port than the one that is named", "http://127.0.0.1:8080/cb", "http://127.0.0.1:8081/cb"},
		{"a host that is not loopback", "https://app.test/callback", "https://app.test:8443/callback"},
		{"another scheme of an app", "com.example.app:/cb", "com.example.other:/cb"},
		{"case-folded scheme of an app", "com.example.app:/cb", "com.example.App:/cb"},
		{"an authority for an app", "com.example.app:/cb", "com.example.app://evil.test/cb"},
		{"more of a path for an app", "com.example.app:/cb", "com.example.app:/cb/x"},
		{"a query for an app", "com.example.app:/cb", "com.example.app:/cb?x=1"},
		{"a fragment for an app", "com.example.app:/cb", "com.example.app:/cb#x"},
		{"another name of loopback", "http://localhost:*", "http://127.0.0.1:8080/"},
		{"the wildcard itself", "http://localhost:*", "http://localhost:*"},
		{"a port that is no number", "http://localhost:*", "http://localhost:80a/"},
		{"another path of a loopback registration", "http://localhost:*/cb", "http://localhost:8080/cb/x"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			app, _ := p.at(t).register("app-"+storage.NewGrantID()[:8], func(client *storage.Client) {
				client.RedirectURIs = []string{c.registered}
			})
			got := p.at(t).browser().get(p.authorizeURL("client_id", app.ID, "redirect_uri", c.asked))
			got.wants(t, c.rule, http.StatusBadRequest, "unauthorized_client")
			if strings.Contains(got.body, `href="`+c.asked) {
				t.Error("the page links to it")
			}
		})
	}
	for asked, registered := range map[string]string{
		"http://localhost:8080/any/path": "http://localhost:*",
		"http://127.0.0.1:1/cb":          "http://127.0.0.1:*/cb",
		"http://[::1]:49152/":            "http://[::1]:*",
		"http://127.0.0.1:49152/cb":      "http://127.0.0.1/cb",
		"http://[::1]:49152/cb":          "http://[::1]/cb",
		"http://localhost:49152/cb?x=1":  "http://localhost/cb?x=1",
		"http://localhost:49152":         "http://localhost",
		"com.example.app:/cb?x=1":        "com.example.app:/cb?x=1",
		"https://app.test/%63b?x=%20":    "https://app.test/%63b?x=%20",
	} {
		app, _ := p.register("app-"+storage.NewGrantID()[:8], func(client *storage.Client) {
			client.RedirectURIs = []string{registered}
		})
		got := p.browser().get(p.authorizeURL("client_id", app.ID, "redirect_uri", asked))
		if got.asks() != "password" {
			t.Errorf("%s does not match %s", asked, registered)
		}
		// The answer goes to the same bytes.
		got = p.browser().get(p.authorizeURL("client_id", app.ID, "redirect_uri", asked, "prompt", "none"))
		if to := got.header.Get("Location"); !strings.HasPrefix(to, asked+"?error=login_required") &&
			!strings.HasPrefix(to, asked+"&error=login_required") {
			t.Errorf("%s answered at %s", asked, to)
		}
	}
}

// Nothing is redirected before client and redirect URI are known to be good, whatever else is wrong.
func TestErrorRedirectBeforeTheRedirectIsChecked(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	for rule, c := range map[string]struct {
		change []string
		code   string
	}{
		"unknown response type": {[]string{"redirect_uri", "https://evil.test/", "response_type", "token"},
			"unauthorized_client"},
		"no scope": {[]string{"redirect_uri", "https://evil.test/", "scope", ""},
			"unauthorized_client"},
		"prompt none": {[]string{"redirect_uri", "https://evil.test/", "prompt", "none"},
			"unauthorized_client"},
		"unknown client":                 {[]string{"client_id", "stranger"}, "invalid_client"},
		"no client":                      {[]string{"client_id", ""}, "invalid_request"},
		"no redirect URI":                {[]string{"redirect_uri", ""}, "invalid_request"},
		"redirect URI of another client": {[]string{"redirect_uri", "https://other.test/callback"}, "unauthorized_client"},
	} {
		b.get(p.authorizeURL(c.change...)).wants(t, rule, http.StatusBadRequest, c.code)
	}
	p.register("other-app", func(c *storage.Client) { c.RedirectURIs = []string{"https://other.test/callback"} })
	b.get(p.authorizeURL("redirect_uri", "https://other.test/callback")).wants(t, "another client's",
		http.StatusBadRequest, "unauthorized_client")
}

func TestDuplicateParameters(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	for _, name := range []string{"client_id", "redirect_uri"} {
		b.get(p.authorizeURL()+"&"+name+"=x").wants(t, name, http.StatusBadRequest, "invalid_request")
	}
	for _, name := range []string{"response_type", "scope", "state", "nonce", "code_challenge", "code_challenge_method",
		"prompt", "max_age", "ui_locales", "login_hint", "unknown"} {
		address := p.authorizeURL() + "&" + name + "=a&" + name + "=a"
		p.redirected(b.get(address), name, "invalid_request")
	}
	for _, name := range []string{"grant_type", "code", "client_id", "client_secret", "redirect_uri", "code_verifier",
		"unknown"} {
		form := url.Values{"grant_type": {"authorization_code"}, "code": {"x"}, "redirect_uri": {callback},
			"client_id": {p.client.ID}, "client_secret": {p.secret}}
		form[name] = []string{"a", "a"}
		p.call("/oauth/token", form).wants(t, name, http.StatusBadRequest, "invalid_request")
	}
}

// A form with a password is answered with 303, which no browser follows with the form's body; also under an odd
// spelling of the path.
func TestFormsAreNeverReplayed(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	action, form := b.form(signIn, "password")
	form.Set("login", userEmail)
	form.Set("password", userPassword)
	for _, path := range []string{"//oauth/signin", "/oauth/./signin", "/oauth/x/../signin", "/oauth//signin",
		"/oauth/signin/"} {
		got := b.post(p.issuer+path, form)
		if got.status < 400 || got.header.Get("Location") != "" {
			t.Errorf("POST %s: %d to %q", path, got.status, got.header.Get("Location"))
		}
	}
	if got := b.post(action, form); got.status != http.StatusSeeOther {
		t.Errorf("sign-in: %d, want 303", got.status)
	}
	params := url.Values{"client_id": {p.client.ID}, "redirect_uri": {callback}, "response_type": {"code"},
		"scope": {"threads:read"}, "state": {"a&b"}}
	posted := b.post(p.issuer+"/oauth/authorize", params)
	if posted.status != http.StatusSeeOther {
		t.Fatalf("POST of a request: %d, want 303", posted.status)
	}
	consent := b.follow(posted)
	if consent.asks() != "decision" {
		t.Fatalf("no consent page after a POST: %d", consent.status)
	}
	allowed := b.decide(consent, "allow")
	if allowed.status == http.StatusTemporaryRedirect || allowed.location == nil ||
		allowed.location.Query().Get("state") != "a&b" {
		t.Errorf("consent: %d to %v", allowed.status, allowed.location)
	}
}

// The app finds its state as it was, whatever is in it, and the server's name (RFC 9207) beside it.
func TestStateComesBack(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	for rule, state := range map[string]string{
		"characters that JSON escapes": strings.Repeat(`<&>"\`, 400),
		"as long as it may be":         strings.Repeat("&", 4096),
		"as long, and escaped":         strings.Repeat(`"`, 4096),
		"other scripts":                "状態 état",
		"percent and plus":             "%41+b c",
	} {
		got := b.get(p.authorizeURL("state", state))
		b.answered(got, rule)
		if got.location != nil && (got.location.Query().Get("state") != state ||
			got.location.Query().Get("iss") != p.issuer) {
			t.Errorf("%s: came back as %.80q", rule, got.location.Query().Get("state"))
		}
		// It also survives the pages.
		fresh := p.browser()
		got = fresh.follow(fresh.signIn(fresh.get(p.authorizeURL("state", state)), userEmail, userPassword))
		if fresh.answered(got, rule+", through the pages"); got.location != nil &&
			got.location.Query().Get("state") != state {
			t.Errorf("%s: came back from the pages as %.80q", rule, got.location.Query().Get("state"))
		}
	}
	for rule, state := range map[string]string{
		"too long": strings.Repeat("s", 4097), "control characters": "a\x01b", "line break": "a\r\nSet-Cookie: x=y",
		"not text": "a\xffb",
	} {
		got := b.get(p.authorizeURL("state", state))
		p.redirected(got, rule, "invalid_request")
		if state, has := got.location.Query()["state"]; has && rule == "too long" {
			t.Errorf("%s: a state of %d bytes comes back", rule, len(state[0]))
		}
		if len(got.header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: a cookie was set", rule)
		}
	}
}
