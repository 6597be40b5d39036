package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

// ways are the ways of asking beside the query: pushed, in a request object, and in one that is pushed. Each gives the
// answer of the endpoint that judges the request.
func (p *idp) ways(b *browser) map[string]func(claims map[string]any) (status int, code string, location *url.URL) {
	fromPage := func(got page) (int, string, *url.URL) {
		_, rest, _ := strings.Cut(got.body, "<dt>Error</dt><dd><code>")
		code, _, _ := strings.Cut(rest, "<")
		if got.location != nil {
			code = got.location.Query().Get("error")
		}
		return got.status, code, got.location
	}
	push := func(changes ...string) (int, string, *url.URL) {
		got := p.push(changes...)
		if got.status != http.StatusCreated {
			return got.status, got.text("error"), nil
		}
		return fromPage(b.get(p.pushedURL(got)))
	}
	return map[string]func(map[string]any) (int, string, *url.URL){
		"pushed": func(claims map[string]any) (int, string, *url.URL) {
			var changes []string
			for name, value := range p.asked(claims) {
				if text, is := value.(string); is && name != "client_id" {
					changes = append(changes, name, text)
				}
			}
			return push(append([]string{"state", ""}, changes...)...)
		},
		"request object": func(claims map[string]any) (int, string, *url.URL) {
			return fromPage(b.get(p.objectURL(unsigned(p.t, p.asked(claims)))))
		},
		"pushed request object": func(claims map[string]any) (int, string, *url.URL) {
			return push("request", unsigned(p.t, p.asked(claims)))
		},
	}
}

// However a redirect URI comes, it is the registered one, byte for byte, or nobody is sent anywhere.
func TestRedirectTwinsByOtherWays(t *testing.T) {
	p := newIDP(t)
	p.update("my-app", func(c *storage.Client) { c.RedirectURIs = []string{callback, "http://localhost:*/cb"} })
	b := p.browser()
	for way, ask := range p.ways(b) {
		for rule, twin := range map[string]string{
			"case-folded path":      "https://app.test/Callback",
			"percent-encoded twin":  "https://app.test/%63allback",
			"dot segment":           "https://app.test/x/../callback",
			"userinfo":              "https://app.test@evil.test/callback",
			"several @":             "https://app.test@app.test@evil.test/callback",
			"localhost as user":     "http://localhost:@evil.test/cb",
			"localhost.evil":        "http://localhost.evil.test:80/cb",
			"https for loopback":    "https://localhost:8080/cb",
			"127.9.9.9":             "http://127.9.9.9:8080/cb",
			"fragment":              callback + "#x",
			"query":                 callback + "?x=1",
			"javascript":            "javascript:alert(1)//app.test/callback",
			"the wildcard itself":   "http://localhost:*/cb",
			"a line break after it": callback + "\r\n",
			"another client's":      "https://other.test/callback",
		} {
			if status, code, location := ask(map[string]any{"redirect_uri": twin,
				"scope": "x"}); status != http.StatusBadRequest || location != nil || code != "unauthorized_client" &&
				code != "invalid_request" {
				t.Errorf("%s, %s: %d %s to %v", way, rule, status, code, location)
			}
		}
		if _, code, location := ask(map[string]any{"redirect_uri": "http://localhost:8080/cb",
			"prompt": "none"}); code != "login_required" || !strings.HasPrefix(location.String(), "http://localhost:8080/cb?") {
			t.Errorf("%s, any port of loopback: %s at %v", way, code, location)
		}
	}
}

func TestPKCEByOtherWays(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code("scope", "openid threads:read")
	for way, ask := range p.ways(b) {
		for rule, claims := range map[string]map[string]any{
			"plain":                      {"code_challenge": challengeOf(verifier), "code_challenge_method": "plain"},
			"no method":                  {"code_challenge": challengeOf(verifier)},
			"42 characters":              {"code_challenge": challengeOf(verifier)[:42], "code_challenge_method": "S256"},
			"a method without challenge": {"code_challenge_method": "S256"},
		} {
			if _, code, _ := ask(claims); code != "invalid_request" {
				t.Errorf("%s, %s: %q", way, rule, code)
			}
		}
		_, _, location := ask(map[string]any{"code_challenge": challengeOf(verifier), "code_challenge_method": "S256"})
		if location == nil || location.Query().Get("iss") != p.issuer {
			t.Fatalf("%s: %v", way, location)
		}
		code := location.Query().Get("code")
		p.exchange(code).wants(t, way+": the challenge cannot be dropped", http.StatusBadRequest, "invalid_grant")
		if got := p.exchange(code, "code_verifier", verifier); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", way, got.status, got.raw)
		}
		_, _, location = ask(nil)
		p.exchange(location.Query().Get("code"), "code_verifier", verifier).wants(t, way+": a verifier without a challenge",
			http.StatusBadRequest, "invalid_grant")
	}
	// What a browser adds to a pushed request takes no challenge away, and brings none.
	got := p.push("code_challenge", challengeOf(verifier), "code_challenge_method", "S256")
	code := b.answered(b.get(p.pushedURL(got, "code_challenge", "", "code_challenge_method", "")), "dropped on the way")
	p.exchange(code).wants(t, "dropped on the way", http.StatusBadRequest, "invalid_grant")
	code = b.answered(b.get(p.pushedURL(p.push(), "code_challenge", challengeOf(verifier), "code_challenge_method",
		"S256")), "added on the way")
	p.exchange(code, "code_verifier", verifier).wants(t, "added on the way", http.StatusBadRequest, "invalid_grant")
}

// The way of the answer is sealed with the request (CVE-2026-7571).
func TestResponseTamperingBetweenPages(t *testing.T) {
	p := newIDP(t)
	for sealed, added := range map[string]string{"query": "form_post", "form_post": "query"} {
		b := p.browser()
		consent := b.follow(b.signIn(b.get(p.authorizeURL("response_mode", sealed, "prompt", "consent")),
			userEmail, userPassword))
		action, form := b.form(consent, "decision")
		for name, value := range map[string]string{"decision": "allow", "response_mode": added, "response_type": "token",
			"redirect_uri": "http://localhost:1/", "max_age": "0", "claims": "{}"} {
			form.Set(name, value)
		}
		got := b.post(action+"?response_mode="+added+"&response_type=token&redirect_uri=http://localhost:1/", form)
		if sealed == "form_post" {
			b.posted(got, callback)
			continue
		}
		if b.answered(got, sealed); got.location != nil && (!strings.HasPrefix(got.location.String(), callback+"?") ||
			got.location.Fragment != "") {
			t.Errorf("%s: answered at %s", sealed, got.location)
		}
	}
}

// What is foreign in the new parameters is text wherever it is shown.
func TestHTMLInOtherParameters(t *testing.T) {
	p := newIDP(t)
	const hostile = `"><script>alert(1)</script>`
	b := p.browser()
	b.code("scope", "openid threads:read")
	object := map[string]any{hostile: true, "redirect_uri": callback}
	for rule, got := range map[string]page{
		"login_hint of a request object": p.browser().get(
			p.objectURL(unsigned(t, p.asked(map[string]any{"login_hint": hostile, "ui_locales": hostile})))),
		"login_hint that was pushed": p.browser().get(p.pushedURL(p.push("login_hint", hostile))),
		"claims": p.browser().get(p.authorizeURL("claims", `{"userinfo":{"`+
			strings.ReplaceAll(hostile, `"`, `\"`)+`":null}}`)),
		"state, posted": b.get(p.authorizeURL("response_mode", "form_post", "state", hostile)),
		"the name of a claim, posted": b.get(p.objectURL(unsigned(t, object), "redirect_uri", callback, "response_mode",
			"form_post")),
		"the name of a claim": b.get(p.objectURL(unsigned(t, object))),
		"request_uri":         b.get(p.authorizeURL("request_uri", "urn:ietf:params:oauth:request_uri:"+hostile)),
		"redirect_uri of an object": b.get(p.objectURL(unsigned(t,
			p.asked(map[string]any{"redirect_uri": "https://evil.test/" + hostile})))),
		"target_link_uri": b.get(p.startURL("target_link_uri", hostile)),
	} {
		if strings.Contains(got.body, "<script>alert") || got.status == http.StatusSeeOther {
			t.Errorf("%s: %d\n%s", rule, got.status, shown(got.body))
		}
	}
	got := b.get(p.objectURL(unsigned(t, object), "redirect_uri", callback))
	if p.redirected(got, "the name of a claim", "invalid_request_object"); strings.ContainsAny(
		got.location.Query().Get("error_description"), "\"\\") {
		t.Errorf("error_description %q", got.location.Query().Get("error_description"))
	}
}
