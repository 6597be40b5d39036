package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// push sends a request of the app, with changes as name, value pairs; a value of "" leaves the parameter out.
func (p *idp) push(changes ...string) reply {
	p.t.Helper()
	form := url.Values{"redirect_uri": {callback}, "response_type": {"code"}, "scope": {"threads:read"},
		"state": {"state-p"}}
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
		if changes[i+1] == "" {
			form.Del(changes[i])
		}
	}
	return p.call("/oauth/par", form)
}

// pushedURL is the address for the browser after a push.
func (p *idp) pushedURL(got reply, more ...string) string {
	p.t.Helper()
	if got.status != http.StatusCreated || got.text("request_uri") == "" {
		p.t.Fatalf("push: %d %s", got.status, got.raw)
	}
	params := url.Values{"client_id": {p.client.ID}, "request_uri": {got.text("request_uri")}}
	for i := 0; i < len(more); i += 2 {
		params.Set(more[i], more[i+1])
	}
	return p.issuer + "/oauth/authorize?" + params.Encode()
}

func TestPushedRequest(t *testing.T) {
	p := newIDP(t)
	got := p.push("scope", "openid threads:read", "nonce", "n", "code_challenge", challengeOf(verifier),
		"code_challenge_method", "S256")
	seconds, _ := got.json["expires_in"].(float64)
	if got.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(got.text("request_uri"),
		"urn:ietf:params:oauth:request_uri:wfp_") || seconds != 90 || len(got.json) != 2 {
		t.Errorf("%v %s", got.header, got.raw)
	}
	// Nothing but what was pushed counts.
	b := p.browser()
	signIn := b.get(p.pushedURL(got, "scope", "runs:write", "redirect_uri", "http://localhost:1/", "state", "x",
		"response_type", "token", "prompt", "none", "request", "x"))
	if signIn.asks() != "password" {
		t.Fatalf("%d\n%s", signIn.status, shown(signIn.body))
	}
	b.get(p.pushedURL(got)) // a reload
	consent := b.follow(b.signIn(signIn, userEmail, userPassword))
	answer := b.decide(consent, "allow")
	code := b.answered(answer, "allowed")
	if q := answer.location.Query(); !strings.HasPrefix(answer.location.String(), callback+"?") ||
		q.Get("state") != "state-p" || q.Get("iss") != p.issuer {
		t.Errorf("answered at %s", answer.location)
	}
	p.exchange(code).wants(t, "without the verifier", http.StatusBadRequest, "invalid_grant")
	issued := p.exchange(code, "code_verifier", verifier)
	if issued.text("scope") != "openid threads:read" || claimsOf(t, issued.text("id_token"))["nonce"] != "n" {
		t.Errorf("%s", issued.raw)
	}
}

// A pushed request is answered with a code once; errors do not use it up.
func TestPushedRequestIsAnsweredOnce(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	denied := p.push("prompt", "consent")
	p.redirected(b.decide(b.get(p.pushedURL(denied)), "deny"), "denied", "access_denied")
	page := b.get(p.pushedURL(denied))
	b.answered(b.decide(page, "allow"), "allowed after all")
	b.answered(b.decide(page, "allow"), "the same form, sent twice")
	again := b.decide(b.get(p.pushedURL(denied)), "allow")
	again.wants(t, "the same request_uri again", http.StatusBadRequest, "invalid_request_uri")

	once := p.push()
	issued := p.exchange(b.answered(b.get(p.pushedURL(once)), "at once"))
	b.get(p.pushedURL(once)).wants(t, "a second time", http.StatusBadRequest, "invalid_request_uri")
	if !p.active(issued.text("access_token")) {
		t.Error("the second try ended what the first one gave")
	}
	// Not at another replica, nor after a restart.
	p.restart()
	c := p.browser()
	c.follow(c.signIn(c.get(p.pushedURL(once)), userEmail, userPassword)).wants(t, "after a restart",
		http.StatusBadRequest, "invalid_request_uri")
}

func TestPushedRequestAnsweredByManyAtOnce(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	address := p.pushedURL(p.push())
	const racers = 16
	answers := make([]page, racers)
	together(racers, func(i int) { answers[i] = b.get(address) })
	codes := 0
	for _, got := range answers {
		if got.location != nil && got.location.Query().Get("code") != "" {
			codes++
		} else {
			got.wants(t, "too late", http.StatusBadRequest, "invalid_request_uri")
		}
	}
	if codes != 1 {
		t.Errorf("%d codes", codes)
	}
}

// A request_uri that is not good is for the user: nobody knows where the client would be told.
func TestBadRequestURI(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	b := p.browser()
	b.code()
	got := p.push()
	uri := got.text("request_uri")
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	sealed := uri[len("urn:ietf:params:oauth:request_uri:"):]
	signIn := p.browser().get(p.authorizeURL())
	_, form := b.form(signIn, "password")
	at := func(uri string) page {
		return b.get(p.authorizeURL("request_uri", uri))
	}
	for rule, uri := range map[string]string{
		"garbage":                 "urn:ietf:params:oauth:request_uri:x",
		"nothing":                 "urn:ietf:params:oauth:request_uri:",
		"one bit":                 uri[:len(uri)-9] + string(uri[len(uri)-9]^1) + uri[len(uri)-8:],
		"a pending request":       "urn:ietf:params:oauth:request_uri:" + form.Get("request"),
		"a pending one, relabel":  "urn:ietf:params:oauth:request_uri:wfp_" + form.Get("request")[4:],
		"of another client":       other.push().text("request_uri"),
		"HTML":                    `urn:ietf:params:oauth:request_uri:"><script>`,
		"dots":                    "urn:ietf:params:oauth:request_uri:" + strings.Repeat(".", 8<<10),
		"a code":                  "urn:ietf:params:oauth:request_uri:" + p.code(),
		"with something after it": uri + "x",
	} {
		at(uri).wants(t, rule, http.StatusBadRequest, "invalid_request_uri")
	}
	b.get(p.issuer+"/oauth/continue?request="+url.QueryEscape(sealed)).wants(t, "as a pending request",
		http.StatusBadRequest, "invalid_request")
	p.redirected(at("https://evil.test/request"), "an address", "request_uri_not_supported")
	p.redirected(at("urn:other"), "another URN", "request_uri_not_supported")
	b.get(p.pushedURL(got)+"&request_uri=x").wants(t, "two of them, and no redirect URI", http.StatusBadRequest,
		"invalid_request")
	b.get(p.pushedURL(got, "client_id", "stranger")).wants(t, "an unknown client", http.StatusBadRequest, "invalid_client")
	b.get(p.pushedURL(got, "client_id", "")).wants(t, "no client", http.StatusBadRequest, "invalid_request")
	p.clock.forward(90*time.Second - time.Millisecond)
	page := b.get(p.pushedURL(p.push("prompt", "consent")))
	if late := b.get(p.pushedURL(got)); late.asks() != "" || late.location == nil {
		t.Errorf("in the last moment: %d", late.status)
	}
	expired := p.push()
	p.clock.forward(90*time.Second + time.Millisecond)
	b.get(p.pushedURL(expired)).wants(t, "expired", http.StatusBadRequest, "invalid_request_uri")
	b.answered(b.decide(page, "allow"), "a browser that came in time may take longer")
}

// What changed since the push is judged by what is true when the browser comes.
func TestChangesAfterAPush(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	got := p.push("scope", "threads:read runs:write")
	p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"threads:read"} })
	p.redirected(b.get(p.pushedURL(got)), "a scope gone", "invalid_scope")
	p.update("my-app", func(c *storage.Client) { c.RedirectURIs = []string{"https://new.test/"} })
	b.get(p.pushedURL(got)).wants(t, "the redirect URI gone", http.StatusBadRequest, "unauthorized_client")
	p.deleteApp()
	b.get(p.pushedURL(got)).wants(t, "the client gone", http.StatusBadRequest, "invalid_client")
}

func TestWhatCannotBePushed(t *testing.T) {
	p := newIDP(t)
	for rule, c := range map[string]struct {
		changes []string
		code    string
	}{
		"no redirect URI":        {[]string{"redirect_uri", ""}, "invalid_request"},
		"another redirect URI":   {[]string{"redirect_uri", "https://evil.test/"}, "invalid_request"},
		"another response type":  {[]string{"response_type", "token"}, "unsupported_response_type"},
		"no response type":       {[]string{"response_type", ""}, "invalid_request"},
		"another response mode":  {[]string{"response_mode", "fragment"}, "invalid_request"},
		"no scope":               {[]string{"scope", ""}, "invalid_scope"},
		"a scope beyond app.yml": {[]string{"scope", "offline_access"}, "invalid_scope"},
		"another prompt":         {[]string{"prompt", "create"}, "invalid_request"},
		"plain PKCE": {[]string{"code_challenge", challengeOf(verifier), "code_challenge_method", "plain"},
			"invalid_request"},
		"a challenge of 42": {[]string{"code_challenge", challengeOf(verifier)[:42], "code_challenge_method",
			"S256"}, "invalid_request"},
		"a method without challenge": {[]string{"code_challenge_method", "S256"}, "invalid_request"},
		"claims of garbage":          {[]string{"claims", "x"}, "invalid_request"},
		"a hint of garbage":          {[]string{"id_token_hint", "x"}, "invalid_request"},
		"an unknown resource":        {[]string{"resource", "https://unknown.test"}, "invalid_target"},
		"a thumbprint of garbage":    {[]string{"dpop_jkt", "x"}, "invalid_request"},
		"an acr not offered": {[]string{"claims", `{"id_token":{"acr":{"essential":true,"value":"x"}}}`},
			"unmet_authentication_requirements"},
		"request_uri":               {[]string{"request_uri", p.push().text("request_uri")}, "invalid_request"},
		"request object of garbage": {[]string{"request", "a.b.c"}, "invalid_request_object"},
		"registration":              {[]string{"registration", "{}"}, "registration_not_supported"},
		"longer than all may be": {[]string{"state", strings.Repeat(`"`, 4096), "nonce", strings.Repeat(`\`, 512),
			"claims", `{"id_token":{"email":{"values":["` + strings.Repeat("x", 1900) + `"]}}}`, "login_hint",
			strings.Repeat(`"`, 256), "ui_locales", strings.Repeat(`"`, 256)}, "invalid_request"},
	} {
		got := p.push(c.changes...)
		got.wants(t, rule, http.StatusBadRequest, c.code)
		if got.text("error_description") == "" || got.header.Get("Cache-Control") != "no-store" ||
			strings.Contains(got.raw, "request_uri:") {
			t.Errorf("%s: %v %s", rule, got.header, got.raw)
		}
	}
	twice := func(name string) reply {
		return p.call("/oauth/par", url.Values{"client_id": {p.client.ID}, "client_secret": {p.secret},
			"redirect_uri": {callback}, "response_type": {"code"},
			"scope": {"threads:read"}, name: {"threads:read", "threads:read"}})
	}
	for _, name := range []string{"client_id", "redirect_uri", "scope", "state", "unknown"} {
		twice(name).wants(t, name+" twice", http.StatusBadRequest, "invalid_request")
	}
	if got := p.call("/oauth/par", url.Values{"redirect_uri": {callback}, "response_type": {"code"},
		"scope": {"threads:read"}, "resource": {p.issuer, p.issuer}}); got.status != http.StatusCreated {
		t.Errorf("two resources: %d %s", got.status, got.raw)
	}
	p.send(p.request(http.MethodGet, p.issuer+"/oauth/par", "")).wants(t, "GET", http.StatusMethodNotAllowed,
		"invalid_request")
	p.send(p.request(http.MethodPost, p.issuer+"/oauth/par?client_id=x", "", "Content-Type", formType)).wants(t,
		"in the query", http.StatusBadRequest, "invalid_request")
	p.call("/oauth/par", url.Values{"state": {strings.Repeat("x", 1<<20)}}).wants(t, "a huge body",
		http.StatusRequestEntityTooLarge, "invalid_request")
}

// Whoever pushes is the client, by its registered way.
func TestPushedRequestAuthentication(t *testing.T) {
	p := newIDP(t)
	form := func(more ...string) url.Values {
		out := url.Values{"redirect_uri": {callback}, "response_type": {"code"}, "scope": {"threads:read"}}
		for i := 0; i < len(more); i += 2 {
			out.Set(more[i], more[i+1])
		}
		return out
	}
	p.machine("/oauth/par", form(), "Authorization", basic(p.client.ID, "wrong")).wants(t, "a wrong secret",
		http.StatusUnauthorized, "invalid_client")
	p.machine("/oauth/par", form("client_id", p.client.ID)).wants(t, "no secret", http.StatusUnauthorized,
		"invalid_client")
	unknown := p.machine("/oauth/par", form("client_id", "stranger", "client_secret", "x"))
	unknown.wants(t, "an unknown client", http.StatusUnauthorized, "invalid_client")
	if unknown.header.Get("WWW-Authenticate") == "" {
		t.Error("no challenge")
	}
	if got := p.machine("/oauth/par", form(), "Authorization",
		basic(p.client.ID, p.secret)); got.status != http.StatusCreated {
		t.Errorf("Basic: %d %s", got.status, got.raw)
	}
	public := p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
	public.call("/oauth/par", form("client_id", public.client.ID)).wants(t, "a public client without PKCE",
		http.StatusBadRequest, "invalid_request")
	got := public.call("/oauth/par", form("client_id", public.client.ID, "code_challenge", challengeOf(verifier),
		"code_challenge_method", "S256"))
	code := p.browser()
	page := code.follow(code.signIn(code.get(public.pushedURL(got)), userEmail, userPassword))
	if issued := public.exchange(code.answered(code.decide(page, "allow"), "a public client"), "client_id",
		public.client.ID, "code_verifier", verifier); issued.status != http.StatusOK {
		t.Errorf("%d %s", issued.status, issued.raw)
	}
}

// A client that is registered to push does nothing else (RFC 9126 section 6).
func TestRequiredPush(t *testing.T) {
	p := newIDP(t)
	p.update("my-app", func(c *storage.Client) { c.RequirePushedAuthorizationRequests = true })
	b := p.browser()
	p.redirected(b.get(p.authorizeURL()), "not pushed", "invalid_request")
	b.get(p.objectURL(unsigned(t, p.asked(nil)))) // a request object is no push
	p.redirected(b.get(p.objectURL(unsigned(t, p.asked(nil)))), "a request object", "invalid_request")
	got := b.follow(b.signIn(b.get(p.pushedURL(p.push())), userEmail, userPassword))
	b.answered(b.decide(got, "allow"), "pushed")
	// One that is registered as FAPI 2.0 demands must use PKCE as well.
	p.update("my-app", func(c *storage.Client) { c.DPoPBoundAccessTokens = true })
	p.push().wants(t, "without PKCE", http.StatusBadRequest, "invalid_request")
	if got := p.push("code_challenge", challengeOf(verifier), "code_challenge_method",
		"S256"); got.status != http.StatusCreated {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

// In a pushed request object are all parameters that count (RFC 9126 section 3).
func TestPushedRequestObject(t *testing.T) {
	p := newIDP(t)
	keys := p.withKeys()
	b := p.browser()
	b.code("scope", "openid threads:read")
	object := signedBy(t, keys["ES256"], jose.ES256, map[string]any{"typ": "oauth-authz-req+jwt"},
		p.asked(map[string]any{"state": nil}))
	got := p.push("request", object, "scope", "runs:write", "state", "beside", "redirect_uri", "http://localhost:1/")
	answer := b.get(p.pushedURL(got))
	if issued := p.exchange(b.answered(answer, "pushed")); issued.text("scope") != "openid threads:read" ||
		answer.location.Query().Has("state") {
		t.Errorf("%s, answered at %s", issued.raw, answer.location)
	}
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	other.push("request", object).wants(t, "pushed by another client", http.StatusBadRequest, "invalid_request_object")
	p.push("request", unsigned(t, p.asked(map[string]any{"redirect_uri": nil}))).wants(t, "the redirect URI beside it",
		http.StatusBadRequest, "invalid_request")
	p.push("request", unsigned(t, p.asked(map[string]any{"request_uri": "x"}))).wants(t, "request_uri within",
		http.StatusBadRequest, "invalid_request_object")
	p.push("request", strings.Repeat(".", 1<<20)).wants(t, "a megabyte of dots", http.StatusRequestEntityTooLarge,
		"invalid_request")
	for rule, bad := range map[string]string{"many dots": strings.Repeat(".", 50<<10), "compressed bomb": bomb(t),
		"long": unsigned(t, p.asked(map[string]any{"x": strings.Repeat("x", 20<<10)}))} {
		p.push("request", bad).wants(t, rule, http.StatusBadRequest, "invalid_request_object")
	}
}

// The key of a DPoP proof, or the one that dpop_jkt names, is the one that must redeem the code (RFC 9449 section 10).
func TestPushedRequestIsBoundToAKey(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	mine, other := p.informed(), p.informed()
	push := func(proof string, more ...string) reply {
		form := url.Values{"client_id": {p.client.ID}, "client_secret": {p.secret}, "redirect_uri": {callback},
			"response_type": {"code"}, "scope": {"threads:read"}}
		for i := 0; i < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		return p.machine("/oauth/par", form, "DPoP", proof)
	}
	for rule, address := range map[string]string{
		"a proof": p.pushedURL(push(mine.proof(http.MethodPost, "/oauth/par", ""))),
		"a proof and dpop_jkt": p.pushedURL(push(mine.proof(http.MethodPost, "/oauth/par", ""), "dpop_jkt",
			mine.thumbprint())),
		"dpop_jkt pushed":       p.pushedURL(p.push("dpop_jkt", mine.thumbprint())),
		"dpop_jkt in the query": p.authorizeURL("dpop_jkt", mine.thumbprint()),
	} {
		code := b.answered(b.get(address), rule)
		p.exchange(code).wants(t, rule+": without a proof", http.StatusBadRequest, "invalid_grant")
		other.exchange(code).wants(t, rule+": another key", http.StatusBadRequest, "invalid_grant")
		if got := mine.exchange(code); got.status != http.StatusOK || got.text("token_type") != "DPoP" {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
	push(mine.proof(http.MethodPost, "/oauth/par", ""), "dpop_jkt", other.thumbprint()).wants(t, "two keys",
		http.StatusBadRequest, "invalid_dpop_proof")
	push(mine.proof(http.MethodPost, "/oauth/token", "")).wants(t, "a proof for another endpoint", http.StatusBadRequest,
		"invalid_dpop_proof")
	push("x").wants(t, "garbage", http.StatusBadRequest, "invalid_dpop_proof")
	told := push(mine.proof(http.MethodPost, "/oauth/par", "", "nonce", nil))
	if told.wants(t, "no nonce", http.StatusBadRequest, "use_dpop_nonce"); told.header.Get("DPoP-Nonce") == "" {
		t.Error("no nonce was given")
	}
	p.redirected(b.get(p.authorizeURL("dpop_jkt", "x")), "no thumbprint", "invalid_request")
}

// An assertion is used up by a push, whatever became of that, but for the wish for a nonce and a fault of ours.
func TestPushedRequestByAssertion(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	app := p.keyed("keyed-app", "ES256")
	request := func(more ...string) url.Values {
		form := url.Values{"redirect_uri": {callback}, "response_type": {"code"}, "scope": {"threads:read"}}
		for i := 0; i < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		return form
	}
	pushed := func(rule string, got reply) {
		t.Helper()
		if got.status != http.StatusCreated {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
	pushed("warm", app.asserting("/oauth/par", app.assertion("ES256", nil), request()))
	first := app.assertion("ES256", nil)
	counts := p.etcd.Count(func() { pushed("an assertion", app.asserting("/oauth/par", first, request())) })
	if counts != (storagetest.Counts{Proposals: 1}) {
		t.Errorf("%+v", counts)
	}
	app.asserting("/oauth/par", first, request()).wants(t, "the same one", http.StatusUnauthorized, "invalid_client")
	app.asserting("/oauth/token", first, url.Values{"grant_type": {"client_credentials"}}).wants(t,
		"the same one, for tokens", http.StatusUnauthorized, "invalid_client")
	second := app.assertion("ES256", map[string]any{"aud": p.issuer + "/oauth/par"})
	app.asserting("/oauth/par", second, request("scope", "x")).wants(t, "a bad request", http.StatusBadRequest,
		"invalid_scope")
	app.asserting("/oauth/par", second, request()).wants(t, "after a bad request", http.StatusUnauthorized,
		"invalid_client")

	third, mine := app.assertion("ES256", nil), p.informed()
	form := request("client_assertion", third, "client_assertion_type", jwtBearer)
	p.machine("/oauth/par", form, "DPoP", mine.proof(http.MethodPost, "/oauth/par", "", "nonce", nil)).wants(t, "no nonce",
		http.StatusBadRequest, "use_dpop_nonce")
	pushed("with the nonce", p.machine("/oauth/par", form, "DPoP", mine.proof(http.MethodPost, "/oauth/par", "")))
	fourth := app.assertion("ES256", nil)
	p.nth(1, false)
	app.asserting("/oauth/par", fourth, request()).wants(t, "a fault of storage", http.StatusServiceUnavailable,
		"temporarily_unavailable")
	p.etcd.Inject(nil)
	pushed("after the fault", app.asserting("/oauth/par", fourth, request()))
}

func TestAssertionRacedAtPush(t *testing.T) {
	p := newIDP(t)
	app := p.keyed("keyed-app", "ES256")
	shared := app.assertion("ES256", nil)
	answers := make([]reply, 16)
	together(len(answers), func(i int) {
		answers[i] = app.asserting("/oauth/par", shared, url.Values{"redirect_uri": {callback}, "response_type": {"code"},
			"scope": {"threads:read"}})
	})
	taken := 0
	for _, got := range answers {
		if got.status == http.StatusCreated {
			taken++
		}
	}
	if taken != 1 {
		t.Errorf("%d pushes by one assertion", taken)
	}
}
