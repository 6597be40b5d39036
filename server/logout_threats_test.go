package server_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/storage"
)

// Open redirect on logout (GHSA-36f2-fcrx-fp4j): whoever is sent on is sent to a registered address; the user is told
// of any other, and stays signed in.
func TestOpenRedirectOnLogout(t *testing.T) {
	p := logoutIDP(t)
	other := p.as(p.register("other-app", func(c *storage.Client) {
		c.PostLogoutRedirectURIs = []string{"https://other.test/"}
	}))
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	out := p.browser() // without a session nothing would be asked
	for rule, redirect := range map[string]string{
		"another site": "https://evil.test/", "a query added": afterLogout + "?x=y", "a fragment added": afterLogout +
			"#x", "a slash added": afterLogout + "/",
		"other case": "https://app.test/BYE", "host in other case": "https://APP.test/bye",
		"percent-encoded": "https://app.test/%62ye", "dot segment": "https://app.test/x/../bye",
		"user info": "https://app.test@evil.test/bye", "of another app": "https://other.test/", "a redirect URI": callback,
		"relative": "/bye", "scheme-relative": "//app.test/bye",
		"javascript": "javascript:alert(1)", "data": "data:text/html,x",
		"localhost, user info": "http://localhost:@evil.test/", "localhost, longer": "http://localhost.evil.test/",
		"the wildcard itself": "http://localhost:*", "white space": " " + afterLogout, "a line break": afterLogout +
			"\r\nSet-Cookie: x=y", "http": strings.Replace(afterLogout, "https", "http", 1),
		"long": afterLogout + strings.Repeat("x", 3000), "backslash": `https:\\evil.test`,
	} {
		for _, params := range [][]string{{"id_token_hint", id}, {"client_id", p.client.ID},
			{"id_token_hint", id, "client_id", p.client.ID}} {
			for _, at := range []*browser{b, out} {
				at.get(p.logoutURL(append(params, "post_logout_redirect_uri", redirect, "state", "s")...)).wants(t, rule,
					http.StatusBadRequest, "invalid_request")
			}
		}
	}
	for rule, params := range map[string][]string{
		"without a client": {"post_logout_redirect_uri", afterLogout},
		"client mixed up": {"id_token_hint", id, "client_id", other.client.ID, "post_logout_redirect_uri",
			"https://other.test/"},
		"unknown client":       {"client_id", "unknown", "post_logout_redirect_uri", afterLogout},
		"unknown client alone": {"client_id", "unknown"},
	} {
		for _, at := range []*browser{b, out} {
			at.get(p.logoutURL(params...)).wants(t, rule, http.StatusBadRequest, "invalid_request")
		}
	}
	for _, query := range []string{
		"client_id=" + p.client.ID + "&post_logout_redirect_uri=" + url.QueryEscape(afterLogout) +
			"&post_logout_redirect_uri=https://evil.test/",
		"client_id=" + p.client.ID + "&client_id=x", "id_token_hint=x&id_token_hint=y", "state=a&state=b", "state=%00",
		"state=%ff", "state=%zz",
		"state=" + strings.Repeat("x", 4097), "ui_locales=en&ui_locales=ja",
	} {
		b.get(p.issuer+"/oauth/logout?"+query).wants(t, "query "+query[:min(len(query), 60)], http.StatusBadRequest,
			"invalid_request")
	}
	page := b.get(p.logoutURL("client_id", p.client.ID, "post_logout_redirect_uri", "https://evil.test/",
		"ui_locales", "ja"))
	if !strings.Contains(b.get(p.logoutURL("id_token_hint", "x")).body, "You were not signed out") ||
		strings.Contains(page.body, `href="https://evil.test`) {
		t.Errorf("the page:\n%s", shown(page.body))
	}
	if !b.signedInHere() {
		t.Error("signed out by a request that was refused")
	}
}

// A hint that is not an ID token of ours, as we signed it, is refused on a page: the user stays signed in and where
// they are.
func TestForgedIDTokenHints(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	got := p.exchange(b.code("scope", "openid"))
	id := got.text("id_token")
	header, claims := takenApart(t, id)
	parts := strings.Split(id, ".")
	bob := maps.Clone(claims)
	bob["sub"] = "user-bob"
	key := p.signingKey(storage.UseRS256)
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.Private.(*rsa.PrivateKey).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	typed := map[string]any{"kid": key.Name(), "typ": "JWT"}
	other := maps.Clone(claims)
	other["iss"] = "https://other.test"
	for rule, hint := range map[string]string{
		"garbage": "x", "two dots": "..", "a megabyte of dots": strings.Repeat(".", 12<<10), "cut": id[:len(id)-5],
		"alg none": part(t, map[string]any{"alg": "none", "typ": "JWT", "kid": key.Name()}) +
			"." + parts[1] + ".",
		"alg none, with signature": part(t, map[string]any{"alg": "none", "typ": "JWT", "kid": key.Name()}) + "." +
			parts[1] + "." + parts[2],
		"claims changed":     parts[0] + "." + part(t, bob) + "." + parts[2],
		"signed by somebody": signedBy(t, foreign, jose.RS256, typed, claims),
		"HS256 with our public key": signedBy(t, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
			jose.HS256, typed, claims),
		"another issuer": signedBy(t, key.Private, jose.RS256, typed, other),
		"another type": signedBy(t, key.Private, jose.RS256, map[string]any{"kid": key.Name(),
			"typ": "logout+jwt"}, claims),
		"no type": signedBy(t, key.Private, jose.RS256, map[string]any{"kid": key.Name()}, claims),
		"unknown key": signedBy(t, key.Private, jose.RS256, map[string]any{"kid": "RS256-9", "typ": "JWT"},
			claims),
		"the access token": got.text("access_token"), "the refresh token": got.text("refresh_token"),
	} {
		b.get(p.logoutURL("id_token_hint", hint, "post_logout_redirect_uri", afterLogout, "state", "s")).wants(t, rule,
			http.StatusBadRequest, "invalid_request")
		b.get(p.logoutURL("id_token_hint", hint, "client_id", p.client.ID, "post_logout_redirect_uri", afterLogout)).wants(t,
			rule+", client_id", http.StatusBadRequest, "invalid_request")
	}
	if header["typ"] != "JWT" || !b.signedInHere() {
		t.Error("signed out by a forged hint")
	}
	b.get(p.logoutURL("id_token_hint", signedBy(t, key.Private, jose.RS256, typed, claims))).signedOut(t,
		"made by hand like ours, or this test says nothing")
}

// A session ends by a form that this server made for this browser, and by nothing that another site can send (CSRF).
func TestLogoutCSRF(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	b.code("scope", "openid")
	action, form := b.form(b.get(p.logoutURL()), "decision")
	form.Set("decision", "signout")
	_, authorization := b.form(b.get(p.authorizeURL("prompt", "consent")), "decision")
	stranger := p.browser()
	stranger.code("scope", "openid")
	_, strangers := stranger.form(stranger.get(p.logoutURL()), "decision")
	with := func(changes ...string) url.Values {
		out := maps.Clone(form)
		for i := 0; i < len(changes); i += 2 {
			out.Set(changes[i], changes[i+1])
		}
		return out
	}
	for rule, c := range map[string]struct {
		form   url.Values
		status int
	}{
		"no token":                     {with("form", ""), http.StatusForbidden},
		"a wrong token":                {with("form", "wff_x"), http.StatusForbidden},
		"the token of another form":    {with("form", authorization.Get("form")), http.StatusForbidden},
		"the token of another browser": {with("form", strangers.Get("form")), http.StatusForbidden},
		"the form of another browser": {with("form", strangers.Get("form"), "request", strangers.Get("request")),
			http.StatusForbidden},
		"no request": {with("request", ""), http.StatusBadRequest},
		"garbage":    {with("request", "wfl_x"), http.StatusBadRequest},
		"an authorization request": {with("request", authorization.Get("request"), "form", authorization.Get("form")),
			http.StatusBadRequest},
		"an authorization, named anew": {with("request", "wfl_"+authorization.Get("request")[4:]), http.StatusBadRequest},
		"one bit": {with("request", form.Get("request")[:9]+string(form.Get("request")[9]^1)+
			form.Get("request")[10:]), http.StatusBadRequest},
		"another request with its token": {with("request", strangers.Get("request")), http.StatusForbidden},
	} {
		b.post(action, c.form).wants(t, rule, c.status, "invalid_request")
	}
	for rule, header := range map[string][]string{
		"cross-site": {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.test"}, "same-site": {"Sec-Fetch-Site",
			"same-site", "Origin", "https://evil.app.test"},
		"of an old browser": {"Origin", "https://evil.test"}, "null": {"Origin", "null"},
	} {
		if got := b.do(p.request(http.MethodPost, action, form.Encode(), append(header, "Content-Type",
			formType)...)); got.status != http.StatusForbidden {
			t.Errorf("%s: %d", rule, got.status)
		}
	}
	if got := b.get(action + "?" + form.Encode()); got.status != http.StatusMethodNotAllowed {
		t.Errorf("by GET: %d", got.status)
	}
	// A sealed logout request is no authorization request either.
	consent, _ := b.form(b.get(p.authorizeURL("prompt", "consent")), "decision")
	b.post(consent, with("decision", "allow")).wants(t, "allow by a logout form", http.StatusBadRequest, "invalid_request")
	// Forms of another site lead to the question, whatever they say.
	if got := b.follow(b.post(p.issuer+"/oauth/logout", with())); got.asks() != "decision" {
		t.Errorf("the end_session_endpoint by POST: %d", got.status)
	}
	if !b.signedInHere() {
		t.Fatal("signed out")
	}
	b.post(action, form).signedOut(t, "its own form")
}

// Neither the question nor what follows can be shown in a frame of another site, and only one page shows frames itself.
func TestFramingOfLogout(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	for rule, got := range map[string]page{
		"question":   b.get(p.logoutURL("client_id", p.client.ID, "post_logout_redirect_uri", afterLogout)),
		"refused":    b.get(p.logoutURL("id_token_hint", "x")),
		"front page": b.get(p.issuer + "/"), "signed out": b.get(p.logoutURL("id_token_hint", id)),
	} {
		policy := got.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "frame-ancestors 'none'") || !strings.Contains(policy, "default-src 'none'") ||
			strings.Contains(policy, "frame-src") ||
			strings.Contains(policy, "script-src") || got.header.Get("X-Frame-Options") != "DENY" ||
			got.header.Get("Referrer-Policy") != "no-referrer" || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", rule, got.header)
		}
		if rule == "question" && !strings.Contains(policy, "form-action 'self';") {
			t.Errorf("the form may go to %s", policy)
		}
	}
}

// What an app or a request says is text on these pages, too.
func TestHTMLInLogoutText(t *testing.T) {
	const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>'`
	p := logoutIDP(t, func(c *storage.Client) {
		c.ClientName, c.LogoURI, c.FrontchannelLogoutURI = hostile, "javascript:alert(1)", "javascript:alert(1)"
	})
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	question := b.get(p.logoutURL("client_id", p.client.ID, "post_logout_redirect_uri", afterLogout, "state", hostile,
		"ui_locales", hostile, "logout_hint", hostile, "lang", hostile))
	for rule, got := range map[string]page{
		"question": question, "stay": b.decide(question, "stay"),
		"refused":           b.get(p.logoutURL("client_id", hostile, "post_logout_redirect_uri", hostile, hostile, hostile)),
		"a parameter twice": b.get(p.issuer + "/oauth/logout?" + strings.Repeat(url.QueryEscape(hostile)+"=x&", 2)),
		"done":              b.get(p.logoutURL("id_token_hint", id)),
	} {
		for _, live := range []string{"<script", "<img src=x", "javascript:", "<iframe"} {
			if strings.Contains(got.body, live) {
				t.Errorf("%s: %q is on the page", rule, live)
			}
		}
	}
	if question.asks() != "decision" {
		t.Errorf("%d", question.status)
	}
}
