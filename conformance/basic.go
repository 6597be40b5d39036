package conformance

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// basicModules are those of the Basic OP profile, which Form Post Basic runs as well.
func basicModules() []Module {
	return []Module{
		{"oidcc-server", "a sign-in from end to end", server},
		{"oidcc-response-type-missing", "a request without response_type is refused", responseTypeMissing},
		{"oidcc-idtoken-signature", "ID tokens are signed with RS256 when nothing else is registered", idTokenSignature},
		{"oidcc-idtoken-unsigned", "ID tokens without a signature, where the provider offers them", idTokenUnsigned},
		{"oidcc-userinfo-get", "userinfo by GET", userinfoGet},
		{"oidcc-userinfo-post-header", "userinfo by POST, the token in the header", userinfoPostHeader},
		{"oidcc-userinfo-post-body", "userinfo by POST, the token in the body", userinfoPostBody},
		{"oidcc-ensure-request-without-nonce-succeeds-for-code-flow", "the code flow needs no nonce", withoutNonce},
		{"oidcc-scope-profile", "scope profile", scoped("openid profile")},
		{"oidcc-scope-email", "scope email", scoped("openid email")},
		{"oidcc-scope-address", "scope address", scoped("openid address")},
		{"oidcc-scope-phone", "scope phone", scoped("openid phone")},
		{"oidcc-scope-all", "all scopes that ask for claims", scoped("openid email phone address profile")},
		{"oidcc-alternate-happy-flow", "scopes and parameters in another order", scoped("email openid")},
		{"oidcc-display-page", "display=page", accepts("display", "page")},
		{"oidcc-display-popup", "display=popup", accepts("display", "popup")},
		{"oidcc-prompt-login", "prompt=login asks for a new sign-in", promptLogin},
		{"oidcc-prompt-none-not-logged-in", "prompt=none without a session is an error", promptNoneNotLoggedIn},
		{"oidcc-prompt-none-logged-in", "prompt=none with a session asks for nothing", promptNoneLoggedIn},
		{"oidcc-max-age-1", "max_age asks for a new sign-in when the last one is older", maxAge1},
		{"oidcc-max-age-10000", "max_age is content with a sign-in that is not older", maxAge10000},
		{"oidcc-ensure-request-with-unknown-parameter-succeeds", "an unknown parameter is ignored",
			accepts("extra", "foobar")},
		{"oidcc-id-token-hint", "prompt=none with an id_token_hint", idTokenHint},
		{"oidcc-login-hint", "login_hint", loginHint},
		{"oidcc-ui-locales", "ui_locales", uiLocales},
		{"oidcc-claims-locales", "claims_locales", accepts("claims_locales", "se")},
		{"oidcc-ensure-request-with-acr-values-succeeds", "acr_values", acrValues},
		{"oidcc-codereuse", "a code is good once", codeReuse},
		{"oidcc-codereuse-30seconds", "a code is good once, also half a minute later, and its tokens end", codeReuseLater},
		{"oidcc-ensure-registered-redirect-uri", "a redirect URI that is not registered is refused", registeredRedirect},
		{"oidcc-ensure-post-request-succeeds", "the authorization request by POST", postRequest},
		{"oidcc-server-client-secret-post", "a sign-in with client_secret_post", serverSecretPost},
		{"oidcc-request-uri-unsigned-supported-correctly-or-rejected-as-unsupported",
			"an unsigned request object by reference", requestURIUnsigned},
		{"oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported",
			"an unsigned request object by value", requestUnsigned},
		{"oidcc-claims-essential", "an essential claim by the claims parameter", claimsEssential},
		{"oidcc-ensure-request-object-with-redirect-uri", "the redirect URI in a request object counts", requestWithRedirect},
		{"oidcc-refresh-token", "refresh tokens work, and for their client only", refreshToken},
		{"oidcc-ensure-request-with-valid-pkce-succeeds", "PKCE", withPKCE},
	}
}

// begin discovers the provider and takes the client that most modules use: the one of the configuration, or one that
// registers itself, as the plan says.
func (t *trial) begin() (*provider, *client) {
	p := t.discover()
	if t.plan.Dynamic {
		return p, t.register(p, t.plan.Auth)
	}
	return p, t.static(t.cfg.Clients.Client, t.plan.Auth, p)
}

func server(t *trial) {
	p, c := t.begin()
	t.happy(t.flow(p, c, "openid"))
}

func serverSecretPost(t *trial) {
	p := t.discover()
	t.flow(p, t.static(t.cfg.Clients.SecretPost, secretPost, p), "openid").complete()
}

// happy is what oidcc-server looks at beyond what every sign-in does.
func (t *trial) happy(f *flow) {
	f.visit().granted()
	t.random("the code", f.code)
	f.exchange()
	_, given := f.tokens["expires_in"]
	t.should(given, "RFC6749-5.1", "the token response has expires_in")
	_, named := f.id.claims["name"]
	t.should(!named, "OIDCC-5.5", "the ID token has no name claim, which was not requested")
	f.resource()
	f.unaskedClaims()
}

// accepts is a sign-in with one more parameter, which must not be an error.
func accepts(name, value string) func(*trial) {
	return func(t *trial) {
		p, c := t.begin()
		t.flow(p, c, "openid").with(name, value).complete()
	}
}

func loginHint(t *trial) { accepts("login_hint", t.cfg.LoginHint)(t) }

func uiLocales(t *trial) { accepts("ui_locales", t.cfg.UILocales)(t) }

func responseTypeMissing(t *trial) {
	p, c := t.begin()
	f := t.flow(p, c, "openid").with("response_type", "").visit()
	if f.answer.url == nil {
		t.errorPage(f.answer.page, "RFC6749-3.1.1", "that response_type is missing")
		return
	}
	f.refused("RFC6749-3.1.1", "unsupported_response_type", "invalid_request")
}

// errorPage takes a page for one that says what is wrong; that it does, a person must see.
func (t *trial) errorPage(p *page, ref, what string) {
	if !t.check(p.status >= 400 && p.status < 500, ref, "the page's status, %d, says that the request is at fault",
		p.status) {
		return
	}
	t.review(p, ref, "the page must say %s", what)
}

func withoutNonce(t *trial) {
	p, c := t.begin()
	t.flow(p, c, "openid").with("nonce", "").complete()
}

func withPKCE(t *trial) {
	p, c := t.begin()
	t.flow(p, c, "openid").pkce().complete()
}

func postRequest(t *trial) {
	p, c := t.begin()
	t.flow(p, c, "openid").post().granted().exchange().resource()
}

// userinfo calls the userinfo endpoint and checks the answer, which is JSON.
func (f *flow) userinfo(method, contentType, body, bearer string) map[string]any {
	t := f.t
	got := t.call(method, t.endpoint(f.p, "userinfo_endpoint").String(), contentType, body, bearer)
	t.must(got.status == http.StatusOK, "OIDCC-5.3.2", "the userinfo endpoint answers with status 200, not %d", got.status)
	t.check(got.json(), "OIDCC-5.3.2", "the userinfo response is application/json")
	claims := got.object()
	f.userinfoClaims(claims)
	return claims
}

func userinfoGet(t *trial) {
	p, c := t.begin()
	f := t.flow(p, c, "openid").complete()
	f.userinfo(http.MethodGet, "", "", f.access)
}

func userinfoPostHeader(t *trial) {
	p, c := t.begin()
	f := t.flow(p, c, "openid").complete()
	f.userinfo(http.MethodPost, "", "", f.access)
}

func userinfoPostBody(t *trial) {
	p, c := t.begin()
	f := t.flow(p, c, "openid").complete()
	body := url.Values{"access_token": {f.access}}.Encode()
	address := t.endpoint(p, "userinfo_endpoint").String()
	got := t.call(http.MethodPost, address, "application/x-www-form-urlencoded", body, "")
	if got.status < 200 || got.status > 299 {
		t.warnf("RFC6750-2.2", "the userinfo endpoint takes no token in the body (status %d), which is optional", got.status)
		return
	}
	t.check(got.json(), "OIDCC-5.3.2", "the userinfo response is application/json")
	f.userinfoClaims(got.object())
}

// scoped is a sign-in with scopes, whose claims userinfo must have.
func scoped(scope string) func(*trial) {
	return func(t *trial) {
		p, c := t.begin()
		t.supports(p, scope)
		f := t.flow(p, c, scope).complete()
		f.scopesReturned(f.userinfo(http.MethodGet, "", "", f.access))
	}
}

func claimsEssential(t *trial) {
	p, c := t.begin()
	f := t.flow(p, c, "openid").with("claims", `{"userinfo":{"name":{"essential":true}}}`).complete()
	claims := f.userinfo(http.MethodGet, "", "", f.access)
	f.scopesReturned(claims)
	t.should(isText(claims["name"]), "OIDCC-5.5", "userinfo has name, which was asked for as essential")
	_, named := f.id.claims["name"]
	t.should(!named, "OIDCC-5.5", "the ID token is without name, which was asked of userinfo")
}

// again is a second sign-in of the same client in the same browser.
func (f *flow) again() *flow { return f.t.flow(f.p, f.c, f.params.Get("scope")) }

// sameSignIn checks that two ID tokens are of one user and, where they say, of one sign-in.
func (f *flow) sameSignIn(second *flow) {
	t := f.t
	t.check(f.id.text("sub") == second.id.text("sub"), "OIDCC-2", "sub is the same both times")
	a, inFirst := f.id.seconds("auth_time")
	b, inSecond := second.id.seconds("auth_time")
	if inFirst && inSecond {
		t.check(a.Equal(b), "OIDCC-2", "auth_time is the same both times")
	}
}

// newSignIn checks that the user had to prove again who they are.
func (f *flow) newSignIn(second *flow, before int, ref string) {
	t := f.t
	a, inFirst := f.id.seconds("auth_time")
	b, inSecond := second.id.seconds("auth_time")
	if inFirst && inSecond {
		t.check(b.After(a), "OIDCC-2", "auth_time is later the second time")
	}
	t.check(t.browser.signIns > before, ref, "the provider asks for a new sign-in")
	for _, p := range second.answer.pages {
		if len(p.forms()) > 0 {
			t.note(Passed, ref, "the page of the second sign-in:", nil)
			t.append(Entry{At: time.Now().UTC(), Kind: "page", Text: p.text(), URL: redactURL(p.address), Status: p.status})
			break
		}
	}
}

func promptLogin(t *trial) {
	p, c := t.begin()
	first := t.flow(p, c, "openid").complete()
	before := t.browser.signIns
	t.wait(time.Second, "so that auth_time must differ")
	first.newSignIn(first.again().with("prompt", "login").complete(), before, "OIDCC-3.1.2.1")
}

func maxAge1(t *trial) {
	p, c := t.begin()
	first := t.flow(p, c, "openid").complete()
	before := t.browser.signIns
	t.wait(2*time.Second, "so that the sign-in is older than max_age")
	second := first.again().with("max_age", "1").complete()
	at, given := second.id.seconds("auth_time")
	t.check(given, "OIDCC-3.1.2.1", "the ID token has auth_time, as max_age was sent")
	t.check(!given || time.Since(at) < skew+time.Second, "OIDCC-2", "auth_time is recent")
	first.newSignIn(second, before, "OIDCC-3.1.2.1")
}

func maxAge10000(t *trial) {
	p, c := t.begin()
	first := t.flow(p, c, "openid").with("max_age", "15000").complete()
	_, given := first.id.seconds("auth_time")
	t.check(given, "OIDCC-3.1.2.1", "the first ID token has auth_time, as max_age was sent")
	before := t.browser.signIns
	second := first.again().with("max_age", "10000").complete()
	_, given = second.id.seconds("auth_time")
	t.check(given, "OIDCC-3.1.2.1", "the second ID token has auth_time, as max_age was sent")
	t.check(t.browser.signIns == before, "OIDCC-3.1.2.1", "the provider does not ask for a new sign-in")
	first.sameSignIn(second)
}

// interactions are the errors of a request that wanted no page and needs one (OpenID Connect Core 1.0 section 3.1.2.6).
var interactions = []string{"login_required", "interaction_required", "account_selection_required", "consent_required"}

func promptNoneNotLoggedIn(t *trial) {
	p, c := t.begin()
	t.flow(p, c, "openid").longState().with("prompt", "none").visit().refused("OIDCC-3.1.2.6", interactions...)
}

func promptNoneLoggedIn(t *trial) {
	p, c := t.begin()
	first := t.flow(p, c, "openid").complete()
	t.silently(first, first.again().with("prompt", "none"))
}

func idTokenHint(t *trial) {
	p, c := t.begin()
	first := t.flow(p, c, "openid").complete()
	t.silently(first, first.again().with("prompt", "none").with("id_token_hint", first.id.raw))
}

// silently completes a second authorization, in which no page may be shown.
func (t *trial) silently(first, second *flow) {
	second.complete()
	for _, p := range second.answer.pages {
		onward := slices.ContainsFunc(p.forms(), func(f form) bool { return f.onward() && t.ours(f.action) })
		t.check(onward || p.refresh() != nil, "OIDCC-3.1.2.1", "the provider shows no page, as prompt is none")
	}
	first.sameSignIn(second)
}

func acrValues(t *trial) {
	p, c := t.begin()
	values, ok := p.list("acr_values_supported")
	if !ok {
		values = strings.Fields(t.cfg.ACRValues)
	}
	if len(values) == 0 {
		values = []string{"1", "2"}
	}
	f := t.flow(p, c, "openid").with("acr_values", strings.Join(values, " ")).complete()
	t.should(slices.Contains(values, f.id.text("acr")), "OIDCC-3.1.2.1",
		"acr in the ID token, %v, is one of those asked for", f.id.claims["acr"])
}

func codeReuse(t *trial) {
	p, c := t.begin()
	f := t.flow(p, c, "openid").complete()
	got := t.tokenRequest(p, c, f.lastToken)
	if got.status == http.StatusOK {
		t.warnf("RFC6749-4.1.2", "the code was good twice")
		return
	}
	t.tokenError(got, "OIDCC-3.1.3.4", "invalid_grant")
}

func codeReuseLater(t *trial) {
	p, c := t.begin()
	f := t.flow(p, c, "openid").complete()
	t.wait(t.cfg.CodeReuse, "to use the code again after that")
	t.tokenError(t.tokenRequest(p, c, f.lastToken), "OIDCC-3.1.3.4", "invalid_grant")
	got := t.get(t.endpoint(p, "userinfo_endpoint").String(), f.access)
	t.should(got.status >= 400 && got.status < 500, "RFC6749-4.1.2",
		"the access token of a code that was used again has ended (status %d)", got.status)
}

func registeredRedirect(t *trial) {
	p, c := t.begin()
	t.unregistered(t.flow(p, c, "openid").with("redirect_uri", c.RedirectURI+"/"+rand.Text()[:10]))
}

// unregistered sends a request with a redirect URI that is not registered: there must be a page, and no way back.
func (t *trial) unregistered(f *flow) {
	f.visit()
	if f.answer.url != nil {
		t.failf("OIDCC-3.1.2.1", "the provider sends the browser to %s, although the redirect URI of the request is "+
			"not registered", redactURL(f.answer.url))
		return
	}
	t.errorPage(f.answer.page, "OIDCC-3.1.2.1", "that the redirect URI is not registered")
}

// refreshToken refreshes tokens of a client, and tries another client's refresh token with it.
func refreshToken(t *trial) {
	p := t.discover()
	var c, other *client
	if t.plan.Dynamic {
		c, other = t.register(p, t.plan.Auth, refreshing), t.register(p, t.plan.Auth, refreshing)
	} else {
		c, other = t.static(t.cfg.Clients.Client, t.plan.Auth, p), t.static(t.cfg.Clients.Client2, t.plan.Auth, p)
	}
	t.refreshed(p, c, true)
	theirs := t.refreshed(p, other, false)
	t.tokenError(t.tokenRequest(p, c, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {theirs}}),
		"OIDCC-3.1.3.4", "invalid_grant")
}

// refreshed signs in and refreshes once; it gives the refresh token that is good then.
func (t *trial) refreshed(p *provider, c *client, withScope bool) string {
	f := t.flow(p, c, refreshScope(p))
	if refreshScope(p) != "openid" {
		f.with("prompt", "consent") // OpenID Connect Core 1.0 section 11
	}
	f.visit().granted().exchange()
	token := t.takeRefresh(f)
	scope := ""
	if withScope {
		scope = f.params.Get("scope")
	}
	return t.refresh(f, token, scope)
}

func refreshScope(p *provider) string {
	if p.lists("scopes_supported", "offline_access") {
		return "openid offline_access"
	}
	return "openid"
}

// takeRefresh is the refresh token of a sign-in; without one the module ends.
func (t *trial) takeRefresh(f *flow) string {
	token, _ := f.tokens["refresh_token"].(string)
	listed := f.p.lists("grant_types_supported", "refresh_token")
	if token == "" {
		t.should(!listed, "OIDCD-3", "grant_types_supported is without refresh_token, as no refresh token was issued")
		t.skipf("no refresh token was issued")
	}
	t.should(listed, "OIDCD-3", "grant_types_supported has refresh_token")
	t.check(!strings.ContainsFunc(token, func(r rune) bool { return r < 0x20 || r > 0x7E }), "RFC6749-A.17",
		"the refresh token has the characters that it may have")
	return token
}

// refresh uses a refresh token, checks the answer, and gives the token that is good afterwards.
func (t *trial) refresh(f *flow, token, scope string) string {
	first := f.id
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	if scope != "" {
		form.Set("scope", scope)
	}
	t.wait(time.Second, "so that iat must differ")
	got := t.tokenRequest(f.p, f.c, form)
	before := f.access
	f.tokenReply(got)
	t.check(got.json(), "RFC6749-5.1", "the token response is JSON")
	t.check(listed(got.header.Values("Cache-Control"), "no-store"), "RFC6749-5.1",
		"the token response must not be stored: Cache-Control is %q", got.header.Values("Cache-Control"))
	t.random("the access token", f.access)
	t.note(Passed, "", "the access token is another one: %t", []any{f.access != before})
	if raw, _ := f.tokens["id_token"].(string); raw != "" {
		second := t.parseJWT("the refreshed ID token", raw)
		t.verify("the refreshed ID token", second, f.p.keys)
		t.sameGrant(first, second)
	}
	if next, _ := f.tokens["refresh_token"].(string); next != "" {
		t.random("the refresh token", next)
		token = next
	}
	f.resource()
	return token
}

// sameGrant compares the ID token of a refresh with the first one (OpenID Connect Core 1.0 section 12.2).
func (t *trial) sameGrant(first, second *jwt) {
	for _, claim := range []string{"iss", "sub"} {
		t.check(first.text(claim) != "" && first.text(claim) == second.text(claim), "OIDCC-12.2",
			"%s in the refreshed ID token is that of the first", claim)
	}
	a, b := first.audience(), second.audience()
	slices.Sort(a)
	slices.Sort(b)
	t.check(slices.Equal(a, b), "OIDCC-12.2", "aud in the refreshed ID token is that of the first")
	t.check(first.claims["azp"] == second.claims["azp"], "OIDCC-12.2",
		"azp in the refreshed ID token is that of the first")
	if at, given := second.claims["auth_time"]; given {
		t.check(at == first.claims["auth_time"], "OIDCC-12.2", "auth_time in the refreshed ID token is that of the first")
	}
	before, _ := first.seconds("iat")
	after, given := second.seconds("iat")
	t.check(given && after.After(before), "OIDCC-12.2", "iat in the refreshed ID token is of the refresh")
}

// listed says whether a header that is a list has a value.
func listed(values []string, want string) bool {
	for _, v := range values {
		for _, part := range strings.Split(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), want) {
				return true
			}
		}
	}
	return false
}
