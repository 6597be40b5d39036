package conformance

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// flow is one authorization of a client by the user, step by step.
type flow struct {
	t *trial
	p *provider
	c *client

	params   url.Values // of the authorization request
	verifier string     // PKCE; empty sends none

	answer *answer
	reply  url.Values // the parameters of the authorization response
	code   string
	tokens map[string]any
	access string
	id     *jwt // the ID token

	lastToken url.Values // the code exchange as it was sent, to send it again
}

// flow starts an authorization of a client for scopes.
func (t *trial) flow(p *provider, c *client, scope string) *flow {
	f := &flow{t: t, p: p, c: c, params: url.Values{
		"client_id": {c.ID}, "redirect_uri": {c.RedirectURI}, "response_type": {"code"}, "scope": {scope},
		"state": {rand.Text()[:10]}, "nonce": {rand.Text()[:10]},
	}}
	if t.plan.FormPost {
		f.params.Set("response_mode", "form_post")
	}
	return f
}

// with sets a parameter of the request; an empty value takes it out.
func (f *flow) with(name, value string) *flow {
	f.params.Set(name, value)
	if value == "" {
		f.params.Del(name)
	}
	return f
}

// longState checks that the provider returns a state of 128 characters as it is.
func (f *flow) longState() *flow {
	return f.with("state", strings.Repeat(rand.Text(), 5)[:128])
}

// pkce adds a challenge (RFC 7636 section 4.3).
func (f *flow) pkce() *flow {
	f.verifier = rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(f.verifier))
	return f.with("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:])).with("code_challenge_method", "S256")
}

// request is the address of the authorization request.
func (f *flow) request() *url.URL {
	u := *f.t.endpoint(f.p, "authorization_endpoint")
	query := u.Query() // RFC 6749 section 3.1: what the endpoint has is kept
	maps.Copy(query, f.params)
	u.RawQuery = query.Encode()
	return &u
}

// visit sends the browser to the authorization endpoint.
func (f *flow) visit() *flow {
	f.answer = f.t.browser.visit(http.MethodGet, f.request(), nil, false)
	return f
}

// post is visit, with a POST (OpenID Connect Core 1.0 section 3.1.2.1).
func (f *flow) post() *flow {
	f.answer = f.t.browser.visit(http.MethodPost, f.t.endpoint(f.p, "authorization_endpoint"), f.params, false)
	return f
}

// returned takes the parameters of the authorization response, and checks how they came.
func (f *flow) returned() *flow {
	t, a := f.t, f.answer
	if a.url == nil {
		t.review(a.page, "", "the provider shows this page instead of sending the browser back (status %d)", a.page.status)
		t.stopf("OIDCC-3.1.2.5", "the provider sends the browser back to the relying party")
	}
	registered, err := url.Parse(f.c.RedirectURI)
	if err != nil {
		t.stopf("", "the redirect URI of the client, %q, is not a URL", f.c.RedirectURI)
	}
	at := *a.url
	at.RawQuery, at.Fragment, registered.Fragment = "", "", ""
	kept := registered.Query()
	registered.RawQuery = ""
	t.check(at.String() == registered.String(), "RFC6749-3.1.2", "the response comes to the redirect URI %s", registered)
	query := a.url.Query()
	for name, values := range kept {
		t.check(slices.Equal(query[name], values), "RFC6749-3.1.2", "the redirect URI's own parameter %s is kept", name)
		query.Del(name)
	}
	f.reply = query
	if t.plan.FormPost {
		t.check(a.method == http.MethodPost, "OAuth2-FP-2", "the response is posted")
		t.check(a.contentType == "application/x-www-form-urlencoded", "OAuth2-FP-2", "the response is form-encoded")
		t.check(!query.Has("code") && !query.Has("error"), "OAuth2-FP-2",
			"the URL of the response has neither code nor error")
		f.reply = a.form
	} else {
		t.check(a.method == http.MethodGet && len(a.form) == 0, "RFC6749-4.1.2",
			"the response is in the query of the redirect")
	}
	for name, values := range f.reply {
		t.check(len(values) == 1, "RFC6749-3.1", "%s is in the response once", name)
	}
	f.issuer()
	return f
}

// issuer checks RFC 9207: the response says whose it is, where metadata says that it does.
func (f *flow) issuer() {
	if iss := f.reply.Get("iss"); iss != "" || f.p.flag("authorization_response_iss_parameter_supported") {
		f.t.check(iss == f.p.text("issuer"), "RFC9207-2.4", "iss in the authorization response, %q, is the issuer", iss)
	}
}

// granted takes the code of a successful response.
func (f *flow) granted() *flow {
	t := f.t
	f.returned()
	if code := f.reply.Get("error"); code != "" {
		t.stopf("OIDCC-3.1.2.5", "the response is the error %s: %s", code, f.reply.Get("error_description"))
	}
	t.check(f.reply.Get("state") == f.params.Get("state"), "RFC6749-4.1.2",
		"the state in the response is that of the request")
	f.code = f.reply.Get("code")
	t.must(f.code != "", "OIDCC-3.1.2.5", "the response has a code")
	return f
}

// refused checks an error response, which must have one of the codes.
func (f *flow) refused(ref string, codes ...string) {
	t := f.t
	f.returned()
	t.check(f.reply.Get("state") == f.params.Get("state"), "RFC6749-4.1.2.1",
		"the state in the error response is that of the request")
	t.check(!f.reply.Has("code"), "OIDCC-3.1.2.6", "the error response has no code")
	for name := range f.reply {
		t.should(slices.Contains([]string{"error", "error_description", "error_uri", "state", "session_state", "iss"}, name),
			"OIDCC-3.1.2.6", "the error response has nothing but what is defined, not %s", name)
	}
	t.description("RFC6749-4.1.2.1", f.reply.Get("error_description"))
	t.check(slices.Contains(codes, f.reply.Get("error")), ref, "the error %q is one of %s", f.reply.Get("error"),
		strings.Join(codes, ", "))
}

// description checks an error_description.
func (t *trial) description(ref, text string) {
	bad := strings.IndexFunc(text, func(r rune) bool {
		return (r < 0x20 || r > 0x7E || r == '"' || r == '\\') && r != '\t' && r != '\n' && r != '\r'
	})
	t.check(bad < 0, ref, "error_description has no characters that it must not have")
	t.should(!strings.ContainsAny(text, "\t\n\r"), ref, "error_description has no line breaks")
}

// exchange redeems the code, and checks the answer and the ID token in it.
func (f *flow) exchange() *flow {
	f.lastToken = url.Values{"grant_type": {"authorization_code"}, "code": {f.code}, "redirect_uri": {f.c.RedirectURI}}
	if f.verifier != "" {
		f.lastToken.Set("code_verifier", f.verifier)
	}
	got := f.t.tokenRequest(f.p, f.c, f.lastToken)
	f.tokenReply(got)
	raw, _ := f.tokens["id_token"].(string)
	f.t.must(raw != "", "OIDCC-3.1.3.3", "the token response has an id_token")
	f.id = f.t.parseJWT("the ID token", raw)
	f.t.checkIDToken(f)
	return f
}

// tokenReply checks a successful answer of the token endpoint (RFC 6749 section 5.1).
func (f *flow) tokenReply(got *reply) {
	t := f.t
	f.tokens = got.object()
	if code, _ := f.tokens["error"].(string); code != "" {
		t.stopf("RFC6749-5.1", "the token endpoint answers with the error %s: %v", code, f.tokens["error_description"])
	}
	t.must(got.status == http.StatusOK, "RFC6749-5.1", "the token endpoint answers with status 200, not %d", got.status)
	t.must(f.tokens != nil, "RFC6749-5.1", "the token endpoint answers with a JSON object")
	f.access, _ = f.tokens["access_token"].(string)
	t.must(f.access != "", "RFC6749-5.1", "the token response has an access_token")
	kind, _ := f.tokens["token_type"].(string)
	t.check(strings.EqualFold(kind, "Bearer"), "OIDCC-3.1.3.3", "token_type, %q, is Bearer", kind)
	if expires, given := f.tokens["expires_in"]; given {
		seconds, isNumber := expires.(float64)
		t.check(isNumber && seconds > 0, "RFC6749-5.1", "expires_in, %v, is a number of seconds", expires)
	}
}

// resource uses the access token, at the userinfo endpoint.
func (f *flow) resource() *flow {
	got := f.t.get(f.t.endpoint(f.p, "userinfo_endpoint").String(), f.access)
	f.t.check(got.status == http.StatusOK, "OIDCC-5.3", "the access token is good at the userinfo endpoint: status %d",
		got.status)
	return f
}

// complete is a whole successful authorization.
func (f *flow) complete() *flow { return f.visit().granted().exchange().resource() }

// tokenError checks an error of the token endpoint (RFC 6749 section 5.2).
func (t *trial) tokenError(got *reply, ref, code string) {
	t.check(got.status == http.StatusBadRequest || code == "invalid_client" && got.status == http.StatusUnauthorized, ref,
		"the token endpoint answers with status 400, not %d", got.status)
	t.check(got.json(), ref, "the error is JSON")
	v := got.object()
	found, _ := v["error"].(string)
	t.check(found == code, "RFC6749-5.2", "the error, %q, is %s", found, code)
	text, _ := v["error_description"].(string)
	t.description("RFC6749-5.2", text)
	for _, name := range []string{"access_token", "id_token", "refresh_token"} {
		_, given := v[name]
		t.check(!given, "RFC6749-5.2", "the error comes without %s", name)
	}
}

// entropy is Shannon's, in bits, of the characters of a text.
func entropy(s string) float64 {
	counts := map[rune]int{}
	for _, r := range s {
		counts[r]++
	}
	sum := 0.0
	for _, n := range counts {
		p := float64(n) / float64(len(s))
		sum -= p * math.Log2(p)
	}
	return sum * float64(len(s))
}

// enoughBits: 128 are asked for; what is measured is less than what is there.
const enoughBits = 96

func (t *trial) random(what, value string) {
	t.check(len(value)*8 >= 128 && entropy(value) > enoughBits, "RFC6749-10.10", "%s is too long and random to be guessed",
		what)
}
