package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/storage"
)

// idTokenOf is an ID token of a user, as the app holds it. The user has allowed everything then.
func (p *idp) idTokenOf(login string) string {
	p.t.Helper()
	b := p.browser()
	got := b.follow(b.signIn(b.get(p.authorizeURL("scope", "openid threads:read")), login, userPassword))
	if got.asks() == "decision" {
		got = b.decide(got, "allow")
	}
	return p.exchange(b.answered(got, login)).text("id_token")
}

func TestIDTokenHint(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		for _, subjects := range []string{"public", "pairwise"} {
			t.Run(alg+", "+subjects, func(t *testing.T) {
				p := newIDP(t)
				p.update("my-app", func(c *storage.Client) { c.IDTokenSignedResponseAlg, c.SubjectType = alg, subjects })
				p.namedByHint()
			})
		}
	}
}

func (p *idp) namedByHint() {
	t := p.t
	ann, bob := p.idTokenOf(userEmail), p.idTokenOf("bob@app.test")
	none := func(b *browser, hint string) page {
		return b.get(p.authorizeURL("prompt", "none", "id_token_hint", hint))
	}
	stranger := p.browser()
	p.redirected(none(stranger, ann), "nobody is signed in", "login_required")
	b := p.browser()
	b.code()
	b.answered(none(b, ann), "ann is signed in")
	p.redirected(none(b, bob), "bob is asked for, ann is signed in", "login_required")
	got := b.get(p.authorizeURL("id_token_hint", bob))
	if got.asks() != "password" {
		t.Fatalf("bob is asked for: %d to %v", got.status, got.location)
	}
	p.redirected(b.follow(b.signIn(got, userEmail, userPassword)), "ann signed in all the same", "login_required")
	got = b.get(p.authorizeURL("id_token_hint", bob))
	if got.asks() != "password" {
		t.Fatalf("bob is asked for again: %d to %v", got.status, got.location)
	}
	code := b.answered(b.follow(b.signIn(got, "bob@app.test", userPassword)), "bob signed in")
	if issued := p.exchange(code); !p.active(issued.text("access_token")) {
		t.Errorf("%d %s", issued.status, issued.raw)
	}
	// A hint says who, however old it is.
	p.clock.forward(23 * time.Hour)
	b.answered(none(b, bob), "an ID token that has expired")
}

// A hint that is none of ours makes the request invalid: so does any other JWT.
func TestForgedHintsToAuthorize(t *testing.T) {
	p := newIDP(t)
	genuine := p.idTokenOf(userEmail)
	issued := p.tokens("scope", "openid")
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	header, claims := takenApart(t, genuine)
	public := p.jwks().Key(header["kid"].(string))[0]
	secret, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(genuine, ".")
	b := p.browser()
	b.code()
	for rule, hint := range map[string]string{
		"garbage":           "x",
		"an access token":   issued.text("access_token"),
		"a refresh token":   issued.text("refresh_token"),
		"of another client": other.idTokenOf(userEmail),
		"alg none": part(t, map[string]any{"alg": "none", "typ": "JWT", "kid": header["kid"]}) +
			"." + parts[1] + ".",
		"no signature": parts[0] + "." + parts[1] + ".",
		"HS256 with the public key": signedBy(t, secret, jose.HS256, map[string]any{"typ": "JWT", "kid": header["kid"]},
			claims),
		"signed by nobody known": signedBy(t, testKeys()["RS256"], jose.RS256, map[string]any{"typ": "JWT",
			"kid": header["kid"]}, claims),
		"many dots": strings.Repeat(".", 12<<10),
		"of another issuer": signedBy(t, p.signingKey(storage.UseRS256).Private, jose.RS256,
			map[string]any{"typ": "JWT", "kid": header["kid"]}, map[string]any{"iss": "https://evil.test", "sub": "user-ann",
				"aud": p.client.ID}),
		"typ of an access token": signedBy(t, p.signingKey(storage.UseRS256).Private, jose.RS256,
			map[string]any{"typ": "at+jwt", "kid": header["kid"]}, claims),
		"an embedded jwk, no known kid": signedBy(t, testKeys()["RS256"], jose.RS256, map[string]any{"typ": "JWT",
			"kid": "x"}, claims),
		"more than one after each other": genuine + " " + genuine,
	} {
		p.redirected(b.get(p.authorizeURL("id_token_hint", hint)), rule, "invalid_request")
		p.redirected(b.get(p.authorizeURL("id_token_hint", hint, "prompt", "none")), rule, "invalid_request")
	}
	b.get(p.authorizeURL("id_token_hint", bomb(t))).wants(t, "compressed bomb", http.StatusBadRequest, "invalid_request")
	b.answered(b.get(p.authorizeURL("id_token_hint", genuine)), "the genuine one")
}

// Asking for the claim sub by its value is asking for that user (OpenID Connect Core 1.0 section 5.5.1).
func TestClaimsForOneSubject(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	none := func(claims string, more ...string) page {
		return b.get(p.authorizeURL(append([]string{"prompt", "none", "claims", claims}, more...)...))
	}
	b.answered(none(`{"id_token": {"sub": {"value": "user-ann"}}}`), "the one who is signed in")
	b.answered(
		none(`{"id_token": {"sub": {"values": ["user-bob", "user-ann"]}}, "userinfo": {"sub": {"value": "user-ann"}}}`),
		"one of several")
	b.answered(none(`{"id_token": {"sub": null}}`), "anybody")
	for rule, claims := range map[string]string{
		"another in the ID token":  `{"id_token": {"sub": {"value": "user-bob"}}}`,
		"another at userinfo":      `{"userinfo": {"sub": {"essential": true, "value": "user-bob"}}}`,
		"nobody here":              `{"id_token": {"sub": {"value": "<script>"}}}`,
		"one of several, not this": `{"id_token": {"sub": {"values": ["user-bob", "x"]}}}`,
	} {
		p.redirected(none(claims), rule, "login_required")
		if got := b.get(p.authorizeURL("claims", claims)); got.asks() != "password" {
			t.Errorf("%s: %d to %v", rule, got.status, got.location)
		}
	}
	p.redirected(none(`{"id_token": {"sub": {"value": "user-bob"}}, "userinfo": {"sub": {"value": "user-ann"}}}`),
		"two at once", "invalid_request")
	p.redirected(none(`{"id_token": {"sub": {"value": "user-bob"}}}`, "id_token_hint", p.idTokenOf(userEmail)),
		"another than the hint", "invalid_request")
	p.redirected(none(`{"id_token": {"sub": {"value": 1}}}`), "a number", "invalid_request")
}

func TestBadClaimsParameter(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	for rule, claims := range map[string]string{
		"no JSON": "x", "a list": "[]", "a string": `"x"`, "deep": strings.Repeat(`{"userinfo":`, 150),
		"too long":                  `{"userinfo":{"` + strings.Repeat("x", 2048) + `":null}}`,
		"a claim that is no object": `{"userinfo":{"email":"x"}}`,
	} {
		p.redirected(b.get(p.authorizeURL("claims", claims)), rule, "invalid_request")
	}
}

// What is asked for claim by claim is shown and allowed like the scope that it comes with, and no app gets more than
// app.yml lists.
func TestConsentToClaims(t *testing.T) {
	p := newIDP(t)
	app := p.as(p.register("bare-app", func(c *storage.Client) { c.Scopes = []string{"openid", "email"} }))
	b := p.browser()
	claims := []string{"scope", "openid", "claims",
		`{"userinfo": {"email": null, "name": {"essential": true}, "odd": null}}`}
	got := b.follow(b.signIn(b.get(app.authorizeURL(claims...)), userEmail, userPassword))
	if got.asks() != "decision" || !strings.Contains(got.body, "and see your e-mail address<") ||
		strings.Contains(got.body, "profile") {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	code := b.answered(b.decide(got, "allow"), "allowed")
	if issued := app.exchange(code); issued.text("scope") != "openid" {
		t.Errorf("a scope grew: %s", issued.text("scope"))
	}
	b.answered(b.get(app.authorizeURL(append(claims, "prompt", "none")...)), "allowed before")
}

func TestACR(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code("scope", "openid")
	for rule, c := range map[string]struct {
		changes []string
		want    any
	}{
		"not asked for":          {nil, nil},
		"acr_values":             {[]string{"acr_values", "urn:warifu:acr:pwd"}, "urn:warifu:acr:pwd"},
		"acr_values not offered": {[]string{"acr_values", "urn:mace:incommon:iap:silver 1"}, "urn:warifu:acr:pwd"},
		"claims":                 {[]string{"claims", `{"id_token": {"acr": null}}`}, "urn:warifu:acr:pwd"},
		"claims, voluntary":      {[]string{"claims", `{"id_token": {"acr": {"values": ["x"]}}}`}, "urn:warifu:acr:pwd"},
		"claims, essential": {[]string{"claims",
			`{"id_token": {"acr": {"essential": true, "values": ["x", "urn:warifu:acr:pwd"]}}}`}, "urn:warifu:acr:pwd"},
		"claims, any essential": {[]string{"claims", `{"id_token": {"acr": {"essential": true}}}`}, "urn:warifu:acr:pwd"},
		"claims of userinfo":    {[]string{"claims", `{"userinfo": {"acr": {"essential": true, "value": "x"}}}`}, nil},
	} {
		code := b.answered(b.get(p.authorizeURL(append([]string{"scope", "openid"}, c.changes...)...)), rule)
		if claims := claimsOf(t, p.exchange(code).text("id_token")); claims["acr"] != c.want ||
			fmt.Sprint(claims["amr"]) != "[pwd]" {
			t.Errorf("%s: acr %v, amr %v", rule, claims["acr"], claims["amr"])
		}
	}
	for _, claims := range []string{`{"id_token": {"acr": {"essential": true, "value": "x"}}}`,
		`{"id_token": {"acr": {"essential": true, "values": ["x", "y"]}}}`} {
		p.redirected(b.get(p.authorizeURL("claims", claims)), claims, "unmet_authentication_requirements")
		p.redirected(p.browser().get(p.authorizeURL("claims", claims)), claims, "unmet_authentication_requirements")
	}
}

func TestDefaultMaxAge(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	age := int64(600)
	p.update("my-app", func(c *storage.Client) { c.DefaultMaxAge, c.RequireAuthTime = &age, true })
	b := p.browser()
	b.code("scope", "openid")
	p.clock.forward(10 * time.Minute)
	code := b.answered(b.get(p.authorizeURL("scope", "openid")), "just young enough")
	if claimsOf(t, p.exchange(code).text("id_token"))["auth_time"] == nil {
		t.Error("no auth_time")
	}
	p.clock.forward(time.Second)
	if got := b.get(p.authorizeURL()); got.asks() != "password" {
		t.Errorf("older than the client's default: %d", got.status)
	}
	b.answered(b.get(p.authorizeURL("max_age", "3600", "scope", "openid")), "the request says otherwise")
}

func TestRequestParametersThatChangeNothing(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	for _, change := range [][]string{
		{"claims_locales", "fr ja"}, {"display", "popup"}, {"display", "wap"}, {"ui_locales", "xx"}, {"unknown", "<b>"},
		{"access_type", "offline"},
	} {
		b.answered(b.get(p.authorizeURL(change...)), fmt.Sprint(change))
	}
	p.redirected(b.get(p.authorizeURL("display", "page popup")), "two displays", "invalid_request")
}
