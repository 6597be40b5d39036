package conformance

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

func rpLogoutModules() []Module {
	return []Module{
		{"oidcc-rp-initiated-logout-discovery-endpoint-verification", "metadata has end_session_endpoint", logoutMetadata()},
		{"oidcc-rp-initiated-logout", "logout, and back to the relying party", rpLogout},
		{"oidcc-rp-initiated-logout-bad-post-logout-redirect-uri", "no way to an address that is not registered",
			logoutBadRedirect},
		{"oidcc-rp-initiated-logout-modified-id-token-hint", "no way back for an ID token with alg none", logoutModifiedHint},
		{"oidcc-rp-initiated-logout-no-id-token-hint", "no way back without an ID token", logoutNoHint},
		{"oidcc-rp-initiated-logout-no-params", "logout without parameters", logoutNoParams},
		{"oidcc-rp-initiated-logout-no-post-logout-redirect-uri", "logout without a way back", logoutNoRedirect},
		{"oidcc-rp-initiated-logout-no-state", "logout, and back without a state", logoutNoState},
		{"oidcc-rp-initiated-logout-only-state", "logout with nothing but a state", logoutOnlyState},
		{"oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri",
			"no way to a registered address with a query added", logoutQueryAdded},
		{"oidcc-rp-initiated-logout-bad-id-token-hint", "no way back for an ID token of somebody else", logoutForeignHint},
	}
}

func backchannelModules() []Module {
	return []Module{
		{"oidcc-backchannel-logout-discovery-endpoint-verification", "metadata offers Back-Channel Logout with sessions",
			logoutMetadata("backchannel_logout_supported", "backchannel_logout_session_supported")},
		{"oidcc-backchannel-rp-initiated-logout", "a logout token reaches the relying party", backchannelLogout},
	}
}

func frontchannelModules() []Module {
	return []Module{
		{"oidcc-frontchannel-logout-discovery-endpoint-verification", "metadata offers Front-Channel Logout with sessions",
			logoutMetadata("frontchannel_logout_supported", "frontchannel_logout_session_supported")},
		{"oidcc-frontchannel-rp-initiated-logout", "the browser loads the relying party's logout address",
			frontchannelLogout},
	}
}

// logoutMetadata checks end_session_endpoint and flags that must be true.
func logoutMetadata(flags ...string) func(*trial) {
	return func(t *trial) {
		m := t.fetchMetadata()
		t.endpoints(m)
		u, err := url.Parse(m.text("end_session_endpoint"))
		t.check(err == nil && u.Scheme == "https" && u.Host != "", "OIDCRIL-2.1", "end_session_endpoint, %q, is an https URL",
			m.text("end_session_endpoint"))
		for _, name := range flags {
			t.check(m.flag(name), "OIDCRIL-2.1", "metadata says %s", name)
		}
	}
}

// leaving is a sign-in that is about to be ended (OpenID Connect RP-Initiated Logout 1.0 section 2).
type leaving struct {
	*flow
	params url.Values
	answer *answer
}

// signedIn signs in with a client, and makes a complete logout request.
func (t *trial) signedIn(registered *Client) *leaving {
	p := t.discover()
	t.must(p.text("end_session_endpoint") != "", "OIDCRIL-2.1", "metadata has end_session_endpoint")
	c := t.static(t.cfg.Clients.Client, t.plan.Auth, p)
	if registered != nil {
		c = t.static(*registered, t.plan.Auth, p)
	}
	if c.PostLogoutRedirectURI == "" {
		t.skipf("the client has no postLogoutRedirectUri in the configuration")
	}
	f := t.flow(p, c, "openid").longState().complete()
	return &leaving{flow: f, params: url.Values{
		"id_token_hint": {f.id.raw}, "post_logout_redirect_uri": {c.PostLogoutRedirectURI},
		"state": {strings.Repeat(rand.Text(), 5)[:128]},
	}}
}

// leave sends the browser to end_session_endpoint. look stops at the first page, before the user answers anything.
func (l *leaving) leave(look bool) {
	u := *l.t.endpoint(l.p, "end_session_endpoint")
	query := u.Query()
	for name := range l.params {
		query.Set(name, l.params.Get(name))
	}
	u.RawQuery = query.Encode()
	l.answer = l.t.browser.visit(http.MethodGet, &u, nil, look)
}

// back checks that the browser came back to where it was to go.
func (l *leaving) back() {
	t, a := l.t, l.answer
	if a.url == nil {
		t.review(a.page, "OIDCRIL-3", "the provider shows this page instead of sending the browser back (status %d)",
			a.page.status)
		t.stopf("OIDCRIL-3", "the provider sends the browser to post_logout_redirect_uri")
	}
	at := *a.url
	query := at.Query()
	at.RawQuery = ""
	t.check(at.String() == l.c.PostLogoutRedirectURI, "OIDCRIL-3", "the browser comes to %s", l.c.PostLogoutRedirectURI)
	t.check(slices.Equal(query["state"], l.params["state"]), "OIDCRIL-2",
		"the state is that of the logout request, or there is none in both")
	for name := range query {
		t.should(name == "state", "OIDCRIL-2", "the browser comes back with state only, not with %s", name)
	}
}

// gone checks that the user is signed in no more: a request that may show no page must fail.
func (l *leaving) gone() {
	l.again().longState().with("prompt", "none").visit().refused("OIDCC-3.1.2.6", interactions...)
}

// stays checks that the browser was not sent back, but shown a page.
func (l *leaving) stays(what string) {
	if l.answer.url != nil {
		l.t.failf("OIDCRIL-3", "the provider sends the browser to %s, which it must not", redactURL(l.answer.url))
		return
	}
	l.t.review(l.answer.page, "OIDCRIL-2", "the page must say %s, or ask whether to log out", what)
}

func rpLogout(t *trial) {
	l := t.signedIn(nil)
	l.leave(false)
	l.back()
	l.gone()
}

func logoutNoState(t *trial) {
	l := t.signedIn(nil)
	l.params.Del("state")
	l.leave(false)
	l.back()
	l.gone()
}

// notBack is a logout request in which something is wrong: whatever the user answers, the browser does not come back.
func (l *leaving) notBack(what string) {
	l.leave(true)
	l.stays(what)
	if l.answer.url == nil {
		l.leave(false)
		l.t.check(l.answer.url == nil, "OIDCRIL-3", "the browser is not sent back after the user has answered, either")
	}
}

func logoutBadRedirect(t *trial) {
	l := t.signedIn(nil)
	l.params.Set("post_logout_redirect_uri", l.c.PostLogoutRedirectURI+rand.Text()[:10])
	l.notBack("that the address is not registered")
}

func logoutQueryAdded(t *trial) {
	l := t.signedIn(nil)
	l.params.Set("post_logout_redirect_uri", l.c.PostLogoutRedirectURI+"?foo=bar")
	l.notBack("that the address is not registered")
}

func logoutModifiedHint(t *trial) {
	l := t.signedIn(nil)
	header, err := json.Marshal(map[string]any{"alg": "none", "typ": "JWT"})
	if err != nil {
		t.stopf("", "encode a header: %v", err)
	}
	parts := strings.Split(l.id.raw, ".")
	l.params.Set("id_token_hint", base64.RawURLEncoding.EncodeToString(header)+"."+parts[1]+".")
	l.notBack("that the ID token is not good")
}

func logoutForeignHint(t *trial) {
	l := t.signedIn(nil)
	now := time.Now()
	l.params.Set("id_token_hint", t.sign(t.clientKey(0, ""), "", map[string]any{
		"iss": l.c.ID, "sub": "SubjectID", "aud": l.p.text("issuer"), "nonce": "flibble", "iat": now.Unix(),
		"exp": now.Add(skew).Unix(),
	}))
	l.notBack("that the ID token is not good")
}

func logoutNoHint(t *trial) {
	l := t.signedIn(nil)
	l.params.Del("id_token_hint")
	l.notBack("that an ID token is needed")
}

// without logs out with less; the user ends on a page, signed in no more.
func without(t *trial, names ...string) {
	l := t.signedIn(nil)
	for _, name := range names {
		l.params.Del(name)
	}
	l.leave(false)
	if l.answer.url != nil {
		t.failf("OIDCRIL-3", "the provider sends the browser to %s, which the request did not ask for",
			redactURL(l.answer.url))
		return
	}
	t.review(l.answer.page, "OIDCRIL-2", "the page must say that the user is logged out")
	l.gone()
}

func logoutNoParams(t *trial) { without(t, "id_token_hint", "post_logout_redirect_uri", "state") }

func logoutNoRedirect(t *trial) { without(t, "post_logout_redirect_uri") }

func logoutOnlyState(t *trial) { without(t, "id_token_hint", "post_logout_redirect_uri") }

// backchannelEvent is the member of events that makes a JWT a logout token (OpenID Connect Back-Channel Logout 1.0
// section 2.4).
const backchannelEvent = "http://schemas.openid.net/event/backchannel-logout"

func backchannelLogout(t *trial) {
	registered := t.cfg.Clients.Backchannel
	if registered == nil {
		registered = &t.cfg.Clients.Client
	}
	calls := t.watch(registered.BackchannelLogoutURI)
	l := t.signedIn(registered)
	l.leave(false)
	call := t.logoutCall(calls, l.id)
	t.check(call.method == http.MethodPost, "OIDCBCL-2.5", "the logout token is posted")
	t.check(strings.HasPrefix(call.header.Get("Content-Type"), "application/x-www-form-urlencoded"), "OIDCBCL-2.5",
		"the logout request is form-encoded")
	for name := range call.form {
		t.should(name == "logout_token", "OIDCBCL-2.5", "the logout request has logout_token only, not %s", name)
	}
	t.must(call.form.Get("logout_token") != "", "OIDCBCL-2.5", "the logout request has logout_token")
	t.logoutToken(l, t.parseJWT("the logout token", call.form.Get("logout_token")))
	l.back()
	l.gone()
}

// logoutCall waits for the logout request about a sign-in. Others may log out of the same client meanwhile; a request
// that names no session that is known is taken for ours when nothing better comes.
func (t *trial) logoutCall(calls <-chan *received, id *jwt) *received {
	var any *received
	<-t.suite.slots // others may work meanwhile
	defer func() { t.suite.slots <- struct{}{} }()
	patience := time.After(t.cfg.Backchannel)
	for {
		select {
		case call := <-calls:
			t.append(Entry{At: time.Now().UTC(), Kind: "received", Method: call.method, URL: "backchannel_logout_uri",
				RequestForm: redactValues(call.form), Text: "the provider logs the user out"})
			any = call
			if claims := peek(call.form.Get("logout_token")); claims["sid"] != nil && claims["sid"] == id.claims["sid"] {
				return call
			}
		case <-patience:
			if any == nil {
				t.stopf("OIDCBCL-2.5", "a logout token comes to backchannel_logout_uri within %s", t.cfg.Backchannel)
			}
			return any
		}
	}
}

// peek reads the claims of a JWT; nil when there are none.
func peek(raw string) map[string]any {
	var claims map[string]any
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return nil
	}
	return claims
}

// logoutToken checks a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.4).
func (t *trial) logoutToken(l *leaving, j *jwt) {
	const ref = "OIDCBCL-2.4"
	t.verify("the logout token", j, l.p.keys)
	t.check(j.text("iss") == l.p.text("issuer"), ref, "iss in the logout token is the issuer")
	t.check(slices.Contains(j.audience(), l.c.ID), ref, "aud in the logout token has the client")
	at, ok := j.seconds("iat")
	t.check(ok && at.Before(time.Now().Add(skew)) && at.After(time.Now().AddDate(0, 0, -1)), ref,
		"iat in the logout token is now")
	if _, given := j.claims["exp"]; given {
		exp, ok := j.seconds("exp")
		t.check(ok && exp.After(time.Now().Add(-skew)), ref, "exp in the logout token is to come")
	}
	t.check(j.text("jti") != "", ref, "the logout token has jti")
	events, _ := j.claims["events"].(map[string]any)
	event, isObject := events[backchannelEvent].(map[string]any)
	t.check(len(events) == 1 && isObject && len(event) == 0, ref,
		"events in the logout token is of a logout, and nothing else")
	_, hasNonce := j.claims["nonce"]
	t.check(!hasNonce, ref, "the logout token has no nonce")
	t.check(j.text("sub") != "" || j.text("sid") != "", ref, "the logout token has sub or sid")
	for _, claim := range []string{"sub", "sid"} {
		if j.text(claim) != "" {
			t.check(j.text(claim) == l.id.text(claim), ref, "%s in the logout token is that of the ID token", claim)
		}
	}
}

func frontchannelLogout(t *trial) {
	registered := t.cfg.Clients.Frontchannel
	if registered == nil {
		registered = &t.cfg.Clients.Client
	}
	if registered.FrontchannelLogoutURI == "" {
		t.skipf("the client has no frontchannelLogoutUri in the configuration")
	}
	l := t.signedIn(registered)
	t.check(l.id.text("sid") != "", "OIDCFCL-3", "the ID token has sid")
	l.leave(false)
	l.frame(registered.FrontchannelLogoutURI)
	l.back()
	l.gone()
}

// frame checks that the browser loaded the client's logout address (OpenID Connect Front-Channel Logout 1.0 section 2).
func (l *leaving) frame(address string) {
	t := l.t
	var query url.Values
	for _, f := range l.answer.frames {
		at := *f
		at.RawQuery = ""
		if at.String() == address {
			query = f.Query()
		}
	}
	t.must(query != nil, "OIDCFCL-2", "a page of the logout embeds frontchannel_logout_uri")
	t.check(query.Get("iss") == l.p.text("issuer"), "OIDCFCL-2", "iss at frontchannel_logout_uri is the issuer")
	t.check(query.Get("sid") != "" && query.Get("sid") == l.id.text("sid"), "OIDCFCL-2",
		"sid at frontchannel_logout_uri is that of the ID token")
	for name := range query {
		t.should(name == "iss" || name == "sid", "OIDCFCL-2", "frontchannel_logout_uri gets iss and sid only, not %s", name)
	}
}
