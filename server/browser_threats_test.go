package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

// What comes from an app, a request or a person is text on every page and in every header.
func TestHTMLInForeignText(t *testing.T) {
	p := newIDP(t)
	const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>'` + "\u202e"
	var fetched atomic.Int64
	logo := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer logo.Close()
	app, _ := p.register("hostile", func(c *storage.Client) {
		c.ClientName, c.LogoURI, c.TOSURI, c.PolicyURI = hostile, logo.URL+"/logo.png?<script>", "javascript:alert(1)",
			"data:text/html,<script>alert(1)</script>"
	})
	b := p.browser()
	at := []string{"client_id", app.ID, "login_hint", hostile, "state", hostile[:len(hostile)-3], "ui_locales", hostile,
		"scope", "threads:read"}
	signIn := b.get(p.authorizeURL(at...))
	wrong := b.signIn(signIn, hostile, hostile)
	consent := b.follow(b.signIn(signIn, userEmail, userPassword))
	pages := map[string]page{
		"sign-in": signIn, "failed sign-in": wrong, "consent": consent,
		"unknown client":   b.get(p.authorizeURL("client_id", hostile)),
		"unknown redirect": b.get(p.authorizeURL("redirect_uri", "https://app.test/"+hostile)),
		"broken continuation": b.get(p.issuer + "/oauth/continue?request=" + url.QueryEscape(hostile) + "&lang=" +
			url.QueryEscape(hostile)),
		"odd path": b.get(p.issuer + "/" + url.PathEscape(hostile)),
		"landing":  b.get(p.issuer + "/?lang=" + url.QueryEscape(hostile)),
	}
	if consent.asks() != "decision" {
		t.Fatalf("no consent page: %d", consent.status)
	}
	for rule, got := range pages {
		policy := got.header.Get("Content-Security-Policy")
		if got.asks() == "password" { // it has the one script that the policy names, and no other
			before, rest, _ := strings.Cut(got.body, "<script>")
			own, after, _ := strings.Cut(rest, "</script>")
			sum := sha256.Sum256([]byte(own))
			hash := "; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
			if !strings.HasSuffix(policy, hash) {
				t.Errorf("%s: policy %q, but the script is\n%s", rule, policy, own)
			}
			got.body, policy = before+after, strings.TrimSuffix(policy, hash)
		}
		for _, live := range []string{"<script", "<img src=x", "javascript:", "data:text"} {
			if strings.Contains(got.body, live) {
				t.Errorf("%s: %q is on the page", rule, live)
			}
		}
		if got.asks() != "password" && strings.Contains(got.body, "\u202e") { // a field holds what was typed
			t.Errorf("%s: text that turns around what follows", rule)
		}
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action "} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: policy %q lacks %s", rule, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") ||
			got.header.Get("X-Frame-Options") != "DENY" || got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", rule, got.header)
		}
	}
	p.redirected(b.get(p.authorizeURL("client_id", app.ID, "scope", hostile, "state", hostile)), "the description",
		"invalid_scope")
	if got := b.get(p.authorizeURL("client_id", app.ID, "scope", hostile)); strings.ContainsAny(
		got.location.Query().Get("error_description"), "\"\\\u202e") {
		t.Errorf("error_description: %q", got.location.Query().Get("error_description"))
	}
	if fetched.Load() != 0 {
		t.Error("the server fetched a logo")
	}
}

// A form counts only when this server made it for this browser and this request, and when no other site sent it.
func TestConsentAndLoginCSRF(t *testing.T) {
	p := newIDP(t)
	b, consent := p.signedIn(userEmail)
	signIn := b.get(p.authorizeURL("prompt", "login", "scope", "runs:write"))
	signInAction, signInForm := b.form(signIn, "password")
	signInForm.Set("login", "bob@app.test")
	signInForm.Set("password", userPassword)
	consentAction, consentForm := b.form(consent, "decision")
	consentForm.Set("decision", "allow")
	stranger, strangers := p.signedIn("bob@app.test")
	_, strangersForm := stranger.form(strangers, "decision")

	changed := func(form url.Values, name, value string) url.Values {
		out := url.Values{}
		for k, v := range form {
			out[k] = v
		}
		if out.Set(name, value); value == "" {
			out.Del(name)
		}
		return out
	}
	session := b.cookie("session")
	for _, target := range []struct {
		what, action string
		form, other  url.Values
	}{{"sign-in", signInAction, signInForm, consentForm}, {"consent", consentAction, consentForm, signInForm}} {
		for rule, form := range map[string]url.Values{
			"no token":                       changed(target.form, "form", ""),
			"a wrong token":                  changed(target.form, "form", "wff_x"),
			"the token of another request":   changed(target.form, "form", target.other.Get("form")),
			"the token of another browser":   changed(target.form, "form", strangersForm.Get("form")),
			"the request in its place":       changed(target.form, "form", target.form.Get("request")),
			"another request with its token": changed(target.form, "request", target.other.Get("request")),
		} {
			b.post(target.action, form).wants(t, target.what+": "+rule, http.StatusForbidden, "invalid_request")
		}
		b.post(target.action, changed(target.form, "request", "")).wants(t, target.what+": no request", http.StatusBadRequest,
			"invalid_request")
		b.post(target.action, changed(target.form, "request", strangersForm.Get("request"))).wants(t, target.what+
			": a stranger's request", http.StatusBadRequest, "invalid_request")
		for rule, header := range map[string][]string{
			"cross-site":             {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.test"},
			"cross-site, no origin":  {"Sec-Fetch-Site", "cross-site"},
			"same-site":              {"Sec-Fetch-Site", "same-site", "Origin", "https://evil.app.test"},
			"origin of an old one":   {"Origin", "https://evil.test"},
			"origin null":            {"Origin", "null"},
			"another port":           {"Origin", "http://127.0.0.1:1"},
			"https in place of http": {"Origin", strings.Replace(p.issuer, "http:", "https:", 1) + "1"},
		} {
			req := p.request(http.MethodPost, target.action, target.form.Encode(), append(header, "Content-Type", formType)...)
			if got := b.do(req); got.status != http.StatusForbidden || got.location != nil {
				t.Errorf("%s: %s: %d to %v", target.what, rule, got.status, got.location)
			}
		}
		if got := b.get(target.action + "?" + target.form.Encode()); got.status != http.StatusMethodNotAllowed {
			t.Errorf("%s by GET: %d", target.what, got.status)
		}
	}
	if b.cookie("session") != session {
		t.Error("the session changed")
	}
	p.redirected(b.get(p.authorizeURL("prompt", "none")), "nothing was allowed", "consent_required")
	for _, header := range [][]string{{"Sec-Fetch-Site", "same-origin", "Origin", "null"}, {"Origin", p.issuer}, {}} {
		req := p.request(http.MethodPost, consentAction, consentForm.Encode(), append(header, "Content-Type", formType)...)
		b.answered(b.do(req), "its own form")
	}
}

// Whoever shows a consent page to ann gets no consent of bob, who signed in meanwhile in another tab.
func TestConsentForTheOneWhoSawIt(t *testing.T) {
	p := newIDP(t)
	b, forAnn := p.signedIn(userEmail)
	b.follow(b.signIn(b.get(p.authorizeURL("prompt", "login")), "bob@app.test", userPassword))
	got := b.decide(forAnn, "allow")
	if got.asks() != "decision" || !strings.Contains(got.body, "bob@app.test") || strings.Contains(got.body, userEmail) {
		t.Fatalf("%d to %v\n%s", got.status, got.location, shown(got.body))
	}
	p.redirected(b.get(p.authorizeURL("prompt", "none")), "bob allowed nothing", "consent_required")
	code := b.answered(b.decide(got, "allow"), "bob allows")
	if who := claimsOf(t, p.exchange(code).text("access_token"))["sub"]; who != "user-bob" {
		t.Errorf("the token is %v's", who)
	}
	ann := p.browser()
	if got := ann.follow(ann.signIn(ann.get(p.authorizeURL()), userEmail, userPassword)); got.asks() != "decision" {
		t.Error("ann has allowed something")
	}
}

func TestConsentForm(t *testing.T) {
	p := newIDP(t)
	b, consent := p.signedIn(userEmail)
	for _, decision := range []string{"", "yes", "ALLOW", "allow deny"} {
		b.decide(consent, decision).wants(t, "decision "+decision, http.StatusBadRequest, "invalid_request")
	}
	action, form := b.form(consent, "decision")
	form.Set("decision", "allow")
	form.Del("user")
	if got := b.post(action, form); got.asks() != "decision" {
		t.Errorf("without saying for whom: %d to %v", got.status, got.location)
	}
	switched := b.follow(b.decide(consent, "switch"))
	if switched.asks() != "password" || b.cookie("session") != "" {
		t.Fatalf("switch: %d, session %q", switched.status, b.cookie("session"))
	}
	if got := b.decide(consent, "allow"); got.asks() != "password" {
		t.Errorf("allowed without a session: %d to %v", got.status, got.location)
	}
	got := b.follow(b.signIn(switched, "bob@app.test", userPassword))
	if got.asks() != "decision" || !strings.Contains(got.body, "bob@app.test") {
		t.Errorf("after the switch: %d", got.status)
	}
}

// A request that the browser holds is sealed: response type, scope and redirect URI cannot be changed between pages.
func TestRequestTamperingBetweenPages(t *testing.T) {
	p := newIDP(t)
	b, consent := p.signedIn(userEmail)
	action, form := b.form(consent, "decision")
	form.Set("decision", "allow")
	for name, value := range map[string]string{
		"response_type": "token", "scope": "threads:read runs:write", "redirect_uri": "http://localhost:1/", "state": "other",
		"client_id": "other", "nonce": "x",
	} {
		form.Add(name, value)
	}
	got := b.post(action+"?response_type=token&redirect_uri=http://localhost:1/&scope=runs:write", form)
	code := b.answered(got, "with parameters added")
	if !strings.HasPrefix(got.location.String(), callback+"?") || got.location.Query().Get("state") != "state-1" ||
		got.location.Fragment != "" {
		t.Errorf("answered at %s", got.location)
	}
	if issued := p.exchange(code); issued.text("scope") != "threads:read" {
		t.Errorf("scope %q", issued.text("scope"))
	}
	sealed := form.Get("request")
	for i := 4; i < len(sealed); i += 7 {
		altered := sealed[:i] + string(sealed[i]^1) + sealed[i+1:]
		b.get(p.issuer+"/oauth/continue?request="+url.QueryEscape(altered)).wants(t, "one bit", http.StatusBadRequest,
			"invalid_request")
	}
}

// A sign-in gets a session of its own: nobody can know it before, and the one before has ended.
func TestSessionFixation(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.plant("session", "wfk_planted")
	b.code()
	first := b.cookie("session")
	if first == "wfk_planted" || first == "" {
		t.Fatalf("session %q", first)
	}
	b.follow(b.signIn(b.get(p.authorizeURL("prompt", "login")), userEmail, userPassword))
	second := b.cookie("session")
	if second == first {
		t.Error("the session was not renewed")
	}
	thief := p.browser()
	thief.plant("session", first)
	p.redirected(thief.get(p.authorizeURL("prompt", "none")), "the session before", "login_required")
	thief.plant("session", second)
	thief.answered(thief.get(p.authorizeURL("prompt", "none")), "the session itself, or this test says nothing")
	b.decide(b.get(p.authorizeURL("prompt", "consent")), "switch")
	p.redirected(thief.get(p.authorizeURL("prompt", "none")), "after signing out", "login_required")
	raw := p.etcd.Dump()
	if strings.Contains(raw, second) || strings.Contains(raw, strings.TrimPrefix(second, "wfk_")) {
		t.Error("the database holds a session cookie")
	}
}

// On https, cookies keep to this host and to TLS; everywhere, to HTTP.
func TestCookies(t *testing.T) {
	for issuer, prefix := range map[string]string{"https://id.test": "__Host-", "https://id.test/tenant": "__Host-",
		"": ""} {
		t.Run(issuer, func(t *testing.T) {
			p := newIDP(t, func(c *server.Config) {
				if issuer != "" {
					c.Issuer = issuer
				}
			})
			b := p.browser()
			signIn := b.get(p.authorizeURL())
			back := b.signIn(signIn, userEmail, userPassword)
			consent := b.follow(back)
			switched := b.decide(consent, "switch")
			var names []string
			for _, got := range []page{signIn, back, consent, switched, b.get(p.issuer + "/?lang=ja"),
				b.get(p.authorizeURL("client_id", "x"))} {
				resp := http.Response{Header: got.header}
				for _, c := range resp.Cookies() {
					names = append(names, c.Name)
					if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" ||
						c.Secure != (prefix != "") || !strings.HasPrefix(c.Name, prefix+"warifu_") {
						t.Errorf("cookie %s", c.Raw[:min(len(c.Raw), 20)]+"…"+c.Raw[max(0, len(c.Raw)-60):])
					}
				}
				if hsts := got.header.Get("Strict-Transport-Security"); (hsts != "") != (prefix != "") {
					t.Errorf("Strict-Transport-Security %q", hsts)
				}
			}
			if len(names) != 5 { // the browser's, the known browser's, the session's, which ends at the switch, and the language
				t.Errorf("cookies %v", names)
			}
			if b.code(); b.cookie("session") == "" {
				t.Error("no session")
			}
			if issuer != "" {
				// Without the prefix, a cookie may come from a neighbour.
				thief := p.browser()
				thief.plantAs(strings.TrimPrefix(p.cookieName("session"), "__Host-"), b.cookie("session"))
				p.redirected(thief.get(p.authorizeURL("prompt", "none")), "a session in a cookie of the other name",
					"login_required")
			}
		})
	}
}

// Browsers send a host's cookies to all of its ports and paths. Two servers on one host keep theirs apart.
func TestCookiesOfTwoServersOnOneHostDoNotMix(t *testing.T) {
	p, q := newIDP(t), newIDP(t)
	b, c := p.browser(), q.browser()
	c.http.Jar = b.http.Jar
	pending := b.get(p.authorizeURL())
	c.code()
	b.answered(b.follow(b.decide(b.follow(b.signIn(pending, userEmail, userPassword)), "allow")),
		"a sign-in during another one")
	c.answered(c.get(q.authorizeURL("prompt", "none")), "the other server's user is still signed in")

	const usual = "__Host-warifu_session"
	names := map[string]string{usual: "https://id.test"}
	if got := server.CookieNameAt("https://id.test"); got != usual {
		t.Errorf("the usual name is %s", got)
	}
	for _, issuer := range []string{"https://id.test/a", "https://id.test/b", "https://id.test:8443",
		"http://localhost:5556", "http://localhost:5557"} {
		name := server.CookieNameAt(issuer)
		if other := names[name]; other != "" {
			t.Errorf("%s and %s both have %s", issuer, other, name)
		}
		names[name] = issuer
	}
}

func TestTwoCookiesOfOneName(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	both := func(name, extra string) page {
		req := p.request(http.MethodGet, p.authorizeURL("prompt", "none"), "")
		for _, c := range []string{"session", "browser"} {
			req.AddCookie(&http.Cookie{Name: p.cookieName(c), Value: b.cookie(c)})
		}
		req.AddCookie(&http.Cookie{Name: p.cookieName(name), Value: extra})
		return (&browser{p, &http.Client{CheckRedirect: b.http.CheckRedirect}}).do(req)
	}
	b.answered(both("unrelated", "x"), "one of each")
	p.redirected(both("session", "x"), "two sessions", "login_required")
	p.redirected(both("session", b.cookie("session")), "the same twice", "login_required")
	if got := b.get(p.authorizeURL()); len(got.header.Values("Set-Cookie")) > 0 {
		t.Error("a cookie that the browser has was set again")
	}
}
