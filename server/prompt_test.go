package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

func TestPromptNone(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	none := func(changes ...string) page {
		return b.get(p.authorizeURL(append([]string{"prompt", "none"}, changes...)...))
	}
	p.redirected(none(), "nobody is signed in", "login_required")
	b.follow(b.signIn(b.get(p.authorizeURL()), userEmail, userPassword))
	p.redirected(none(), "nothing was allowed", "consent_required")
	b.code()
	b.answered(none(), "all is known")
	p.redirected(none("scope", "threads:read runs:write"), "more than was allowed", "consent_required")
	p.redirected(none("prompt", "none login"), "none with another", "invalid_request")
	p.redirected(none("prompt", "None"), "another spelling", "invalid_request")
	p.clock.forward(2 * time.Hour)
	p.redirected(none("max_age", "3600"), "the sign-in is too old", "login_required")
	b.answered(none("max_age", "7201"), "the sign-in is not too old")
	p.clock.forward(23 * time.Hour)
	p.redirected(none(), "the session has ended", "login_required")
}

func TestPromptLogin(t *testing.T) {
	p := newIDP(t)
	for _, prompt := range []string{"login", "select_account", "login consent", "select_account login"} {
		b := p.browser()
		b.code()
		got := b.get(p.authorizeURL("prompt", prompt))
		if got.asks() != "password" {
			t.Errorf("%s: no sign-in page: %d", prompt, got.status)
			continue
		}
		// What the page was asked for cannot be had by opening the request again.
		_, form := b.form(got, "password")
		if again := b.get(p.issuer + "/oauth/continue?request=" +
			url.QueryEscape(form.Get("request"))); again.asks() != "password" {
			t.Errorf("%s: gone after a reload: %d", prompt, again.status)
		}
		got = b.follow(b.signIn(got, userEmail, userPassword))
		if strings.Contains(prompt, "consent") {
			if got.asks() != "decision" {
				t.Errorf("%s: no consent page: %d", prompt, got.status)
				continue
			}
			got = b.decide(got, "allow")
		}
		b.answered(got, prompt)
	}
}

func TestPromptConsent(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	for range 2 {
		got := b.get(p.authorizeURL("prompt", "consent"))
		if got.asks() != "decision" || !strings.Contains(got.body, "View threads") {
			t.Fatalf("not asked again: %d", got.status)
		}
		p.redirected(b.decide(got, "deny"), "denied", "access_denied")
		b.answered(b.decide(got, "allow"), "allowed")
	}
	b.answered(b.get(p.authorizeURL()), "a denial takes back nothing")
}

func TestMaxAge(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	b := p.browser()
	first := claimsOf(t, p.exchange(b.code("scope", "openid")).text("id_token"))["auth_time"].(float64)
	p.clock.forward(10 * time.Minute)
	b.answered(b.get(p.authorizeURL("max_age", "600", "scope", "openid")), "just young enough")
	p.clock.forward(time.Second)
	for _, age := range []string{"600", "0"} {
		got := b.get(p.authorizeURL("max_age", age, "scope", "openid"))
		if got.asks() != "password" {
			t.Fatalf("max_age=%s: not asked to sign in: %d", age, got.status)
		}
		code := b.answered(b.follow(b.signIn(got, userEmail, userPassword)), "max_age="+age)
		if second := claimsOf(t, p.exchange(code).text("id_token"))["auth_time"].(float64); second <= first {
			t.Errorf("max_age=%s: auth_time %v", age, second)
		}
		p.clock.forward(11 * time.Minute)
	}
	for _, odd := range []string{"-1", "x", "1.5", "99999999999999999999", "0x10"} {
		p.redirected(b.get(p.authorizeURL("max_age", odd)), "max_age="+odd, "invalid_request")
	}
}

func TestLoginHint(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	got := b.get(p.authorizeURL("login_hint", "ann@app.test"))
	if !strings.Contains(got.body, `name="login" type="text" value="ann@app.test"`) {
		t.Errorf("not in the field:\n%s", shown(got.body))
	}
	// What was typed wins over what the app proposed.
	if got = b.signIn(got, "bob@app.test", "wrong"); !strings.Contains(got.body, `value="bob@app.test"`) {
		t.Errorf("what was typed is gone:\n%s", shown(got.body))
	}
}

func TestLanguages(t *testing.T) {
	p := newIDP(t)
	speaks := func(got page) string {
		_, rest, _ := strings.Cut(got.body, `<html lang="`)
		lang, _, _ := strings.Cut(rest, `"`)
		return lang
	}
	accept := func(b *browser, address, header string) page {
		return b.do(p.request(http.MethodGet, address, "", "Accept-Language", header))
	}
	for _, c := range []struct{ rule, uiLocales, accept, want string }{
		{"nothing said", "", "", "en"},
		{"the browser's", "", "ja,en;q=0.8", "ja"},
		{"the browser's second", "", "fr,ja;q=0.5", "ja"},
		{"the app's goes first", "en", "ja", "en"},
		{"the app's, with a region", "ja-JP", "en", "ja"},
		{"the app's second", "fr ja", "en", "ja"},
		{"none that is spoken", "fr de", "ja", "ja"},
		{"garbage", "%%% <script>", "!!", "en"},
	} {
		if got := accept(p.browser(), p.authorizeURL("ui_locales", c.uiLocales), c.accept); speaks(got) != c.want {
			t.Errorf("%s: %s", c.rule, speaks(got))
		}
	}
	b := p.browser()
	got := accept(b, p.authorizeURL("ui_locales", "en", "scope", "threads:read runs:write"), "en")
	_, form := b.form(got, "password")
	switched := b.get(p.issuer + "/oauth/continue?request=" + url.QueryEscape(form.Get("request")) + "&lang=ja")
	if speaks(switched) != "ja" || switched.asks() != "password" {
		t.Fatalf("switched to %s", speaks(switched))
	}
	wrong := b.signIn(switched, userEmail, "wrong")
	consent := b.follow(b.signIn(wrong, userEmail, userPassword))
	if speaks(wrong) != "ja" || speaks(consent) != "ja" || !strings.Contains(consent.body, "スレッド閲覧") ||
		!strings.Contains(consent.body, "実行開始") {
		t.Errorf("the choice was not kept: %s, %s", speaks(wrong), speaks(consent))
	}
	if got := b.get(p.authorizeURL("client_id", "stranger")); speaks(got) != "ja" {
		t.Errorf("the error page speaks %s", speaks(got))
	}
	if got := b.get(p.issuer + "/?lang=en"); speaks(got) != "en" {
		t.Errorf("the landing page speaks %s", speaks(got))
	}
	if got := b.get(p.authorizeURL("ui_locales", "ja")); speaks(got) != "en" {
		t.Errorf("switched back: %s", speaks(got))
	}
	b.get(p.issuer + "/?lang=fr")
	b.get(p.issuer + `/?lang="><script>`)
	if b.cookie("lang") != "en" {
		t.Errorf("a language that nobody speaks was kept: %q", b.cookie("lang"))
	}
}

// Where app.yml changes while somebody looks at a page, the page's answer is judged by what is true then.
func TestChangesWhileThePagesAreOpen(t *testing.T) {
	for rule, c := range map[string]struct {
		change func(*idp)
		status int
		code   string
	}{
		"client deleted": {(*idp).deleteApp, 400, "invalid_client"},
		"redirect URI gone": {func(p *idp) {
			p.update("my-app", func(c *storage.Client) { c.RedirectURIs = []string{"https://new.test/"} })
		}, 400, "unauthorized_client"},
		"a scope gone": {func(p *idp) { p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"email"} }) },
			303, "invalid_scope"},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newIDP(t)
			b, consent := p.signedIn(userEmail)
			c.change(p)
			for _, decision := range []string{"allow", "deny", "switch"} {
				got := b.decide(consent, decision)
				if c.status == http.StatusSeeOther {
					p.redirected(got, rule, c.code)
				} else {
					got.wants(t, rule, c.status, c.code)
				}
			}
		})
	}
	t.Run("the user disabled", func(t *testing.T) {
		p := newIDP(t)
		b, consent := p.signedIn(userEmail)
		p.putUser(storage.User{ID: "user-ann", Email: userEmail, Disabled: true})
		got := b.decide(consent, "allow")
		if got.asks() != "password" {
			t.Errorf("%d to %v", got.status, got.location)
		}
		if got = b.signIn(got, userEmail, userPassword); got.status != http.StatusUnprocessableEntity {
			t.Errorf("signed in: %d", got.status)
		}
	})
	t.Run("the session ended", func(t *testing.T) {
		p := newIDP(t, func(c *server.Config) { c.Lifetimes.Session = 10 * time.Minute })
		b, consent := p.signedIn(userEmail)
		p.clock.forward(11 * time.Minute)
		if got := b.decide(consent, "allow"); got.asks() != "password" {
			t.Errorf("%d to %v", got.status, got.location)
		}
	})
}
