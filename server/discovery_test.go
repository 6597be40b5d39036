package server_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

func (p *idp) document(address string) reply {
	p.t.Helper()
	got := p.send(p.request(http.MethodGet, address, ""))
	if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "application/json") ||
		!strings.Contains(got.header.Get("Cache-Control"), "max-age=300") {
		p.t.Errorf("%s: %d %v", address, got.status, got.header)
	}
	return got
}

func texts(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, text := range list {
		out = append(out, fmt.Sprint(text))
	}
	return out
}

// Everything that discovery names works, and it names nothing else.
func TestDiscoverySaysWhatWorks(t *testing.T) {
	p := newIDP(t)
	p.update("my-app", func(c *storage.Client) {
		c.Scopes = server.ScopeNames(server.DefaultScopes())
		c.PostLogoutRedirectURIs = []string{afterLogout} // so that there is a sid
	})
	doc := p.document(p.issuer + "/.well-known/openid-configuration").json
	if other := p.document(p.issuer + "/.well-known/oauth-authorization-server").json; !maps.EqualFunc(doc, other,
		func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
		t.Errorf("the two documents differ: %v and %v", doc, other)
	}
	if doc["issuer"] != p.issuer {
		t.Fatalf("issuer %v", doc["issuer"])
	}
	at := func(name string) string {
		address, _ := doc[name].(string)
		path, below := strings.CutPrefix(address, p.issuer)
		if !below {
			t.Fatalf("%s is %q", name, address)
		}
		return path
	}
	exercised := map[string]bool{"issuer": true}
	use := func(name string) []string { exercised[name] = true; return texts(doc[name]) }
	same := func(name string, want ...string) {
		t.Helper()
		if got := use(name); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}

	same("response_types_supported", "code")
	same("response_modes_supported", "query", "form_post")
	same("subject_types_supported", "public", "pairwise")                             // see TestPairwiseSubjects
	same("id_token_signing_alg_values_supported", "RS256", "ES256", "EdDSA", "PS256") // see TestIDTokenAlgorithms
	same("userinfo_signing_alg_values_supported", "RS256", "ES256", "EdDSA", "PS256") // see TestSignedUserinfo
	same("code_challenge_methods_supported", "S256")
	same("introspection_signing_alg_values_supported", "RS256", "ES256", "EdDSA", "PS256") // see TestSignedIntrospection
	same("dpop_signing_alg_values_supported", "ES256", "RS256", "PS256", "EdDSA")          // see TestDPoPAlgorithms
	same("grant_types_supported", "authorization_code", "refresh_token", "client_credentials", deviceGrant)
	b := p.browser()
	exercised["authorization_endpoint"], exercised["token_endpoint"] = true, true
	start := p.issuer + at("authorization_endpoint")
	if !strings.HasPrefix(p.authorizeURL(), start+"?") || p.issuer+"/oauth/token" != p.issuer+at("token_endpoint") {
		t.Errorf("endpoints %s, %s", start, at("token_endpoint"))
	}
	scopes := use("scopes_supported")
	code := b.code("scope", strings.Join(scopes, " "), "response_mode", "query", "nonce", "n", "acr_values",
		"urn:warifu:acr:pwd", "code_challenge", challengeOf(verifier), "code_challenge_method", "S256")
	got := p.exchange(code, "code_verifier", verifier)
	if got.text("scope") != strings.Join(scopes, " ") {
		t.Errorf("scopes %v, granted %s", scopes, got.raw)
	}
	got.json["scope"] = ""

	// Claims: those of an ID token and of userinfo, and no others.
	exercised["userinfo_endpoint"] = true
	if at("userinfo_endpoint") != "/oauth/userinfo" {
		t.Error(at("userinfo_endpoint"))
	}
	claims := claimsOf(t, got.text("id_token"))
	maps.Copy(claims, p.userinfo(got.text("access_token")).json)
	q := newIDP(t)
	secret, _ := q.enrol("user-ann")
	surer, half := q.halfSignedIn("scope", "openid", "acr_values", "urn:warifu:acr:mfa")
	allow := surer.follow(surer.prove(half, "code", q.codeNow(secret)))
	surely := q.exchange(surer.answered(surer.decide(allow, "allow"), "with a second factor"))
	same("acr_values_supported", fmt.Sprint(claims["acr"]), fmt.Sprint(claimsOf(t, surely.text("id_token"))["acr"]))
	same("claims_supported", slices.Collect(maps.Keys(claims))...)

	// Every way of client authentication at every endpoint that has one.
	public := p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
	for endpoint, path := range map[string]string{
		"token":         at("token_endpoint"),
		"introspection": at("introspection_endpoint"),
		"revocation":    at("revocation_endpoint"),
	} {
		name := endpoint + "_endpoint_auth_methods_supported"
		offered := use(name)
		algs := use(endpoint + "_endpoint_auth_signing_alg_values_supported")
		same(endpoint+"_endpoint_auth_signing_alg_values_supported", "RS256", "PS256", "ES256", "EdDSA")
		for _, method := range []string{"client_secret_basic", "client_secret_post", "none", "private_key_jwt",
			"client_secret_jwt"} {
			form, header := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"wfr_x"}, "token": {"x"}},
				[]string(nil)
			switch method {
			case "client_secret_basic":
				header = []string{"Authorization", basic(p.client.ID, p.secret)}
			case "client_secret_post":
				form.Set("client_id", p.client.ID)
				form.Set("client_secret", p.secret)
			case "none":
				form.Set("client_id", public.client.ID)
			case "private_key_jwt":
				for _, alg := range algs {
					k := p.keyed(endpoint+alg, alg)
					if got := k.asserting(path, k.assertion(alg, nil), form); got.text("error") == "invalid_client" {
						t.Errorf("%s: %s: %s", name, alg, got.raw)
					}
					form.Set("client_assertion", k.assertion(alg, nil))
				}
				form.Set("client_assertion_type", jwtBearer)
			default: // client_secret_jwt
				form.Set("client_assertion", signedBy(t, []byte(p.secret), jose.HS256, nil, p.assertionClaims(nil)))
				form.Set("client_assertion_type", jwtBearer)
			}
			works := p.machine(path, form, header...).text("error") != "invalid_client"
			if works != slices.Contains(offered, method) {
				t.Errorf("%s: %s works: %v", name, method, works)
			}
		}
	}
	exercised["introspection_endpoint"], exercised["revocation_endpoint"] = true, true

	exercised["device_authorization_endpoint"] = true
	if at("device_authorization_endpoint") != "/oauth/device_authorization" ||
		withDevices(p).device().text("device_code") == "" {
		t.Error("no device authorization")
	}

	exercised["jwks_uri"] = true
	if p.issuer+at("jwks_uri") != p.issuer+"/oauth/jwks" || len(p.jwks().Keys) == 0 {
		t.Error("no keys")
	}
	for _, mode := range use("response_modes_supported") {
		if mode == "form_post" {
			b.posted(b.get(p.authorizeURL("response_mode", mode)), callback)
			continue
		}
		b.answered(b.get(p.authorizeURL("response_mode", mode)), "response mode "+mode)
	}
	for _, display := range use("display_values_supported") {
		b.answered(b.get(p.authorizeURL("display", display)), "display "+display)
	}
	p.redirected(b.get(p.authorizeURL("display", "hologram")), "a display that is not offered", "invalid_request")
	for _, prompt := range use("prompt_values_supported") {
		if answer := b.get(p.authorizeURL("prompt", prompt)); answer.location != nil &&
			answer.location.Query().Get("error") != "" {
			t.Errorf("prompt %s: %s", prompt, answer.location)
		}
	}
	p.redirected(b.get(p.authorizeURL("prompt", "create")), "a prompt that is not offered", "invalid_request")
	for _, locale := range use("ui_locales_supported") {
		if shown := p.browser().get(p.authorizeURL("ui_locales", locale)); !strings.Contains(shown.body, `<html lang="`+
			locale+`"`) {
			t.Errorf("ui_locales %s is not spoken", locale)
		}
	}
	exercised["request_uri_parameter_supported"], exercised["request_parameter_supported"] = true, true
	if doc["request_uri_parameter_supported"] != false || doc["request_parameter_supported"] != true {
		t.Errorf("request_uri %v, request %v", doc["request_uri_parameter_supported"], doc["request_parameter_supported"])
	}
	p.redirected(b.get(p.authorizeURL("request_uri", "https://evil.test/r")), "request_uri", "request_uri_not_supported")
	keys := p.withKeys()
	same("request_object_signing_alg_values_supported", append(slices.Collect(maps.Keys(keys)), "none")...)
	for alg, key := range keys {
		b.answered(b.get(p.objectURL(signedBy(t, key, jose.SignatureAlgorithm(alg), nil, p.asked(nil)))),
			"a request object of "+alg)
	}
	b.answered(b.get(p.objectURL(unsigned(t, p.asked(nil)))), "an unsigned request object")
	exercised["pushed_authorization_request_endpoint"], exercised["require_pushed_authorization_requests"] = true, true
	if doc["require_pushed_authorization_requests"] != false ||
		at("pushed_authorization_request_endpoint") != "/oauth/par" {
		t.Errorf("pushed requests: %v at %s", doc["require_pushed_authorization_requests"],
			at("pushed_authorization_request_endpoint"))
	}
	b.answered(b.get(p.pushedURL(p.push())), "a pushed request")
	exercised["claims_parameter_supported"] = true
	// See also TestEachClaimWhereItIsAskedFor
	asked := p.tokens(append(asking(`{}`, `{"email": null}`), "scope", "openid")...)
	if doc["claims_parameter_supported"] != true || claimsOf(t, asked.text("id_token"))["email"] != userEmail {
		t.Error("claims_parameter_supported")
	}
	exercised["authorization_response_iss_parameter_supported"] = true // see TestMixUpIss
	p.redirected(b.get(p.authorizeURL("response_type", "code id_token")), "a response type that is not offered",
		"unsupported_response_type")
	p.redirected(b.get(p.authorizeURL("response_mode", "fragment")), "a response mode that is not offered",
		"invalid_request")
	p.redirected(b.get(p.authorizeURL("registration", "{}")), "registration", "registration_not_supported")
	p.exerciseLogout(doc, exercised)
	for name := range doc {
		if !exercised[name] {
			t.Errorf("%s is said, and not tested", name)
		}
	}
	for _, engine := range []string{"/authorize/callback", "/oauth/v2/authorize", "/device_authorization", "/end_session",
		"/keys", "/userinfo", "/oauth/token/", "/debug/pprof/", "/.well-known/"} {
		if got := p.send(p.request(http.MethodGet, p.issuer+engine, "")); got.status != http.StatusNotFound {
			t.Errorf("%s answers %d", engine, got.status)
		}
	}
}

// An issuer may have a path. All of it is below that path, but for the metadata of RFC 8414, which puts the well-known
// part before the path.
func TestIssuerWithAPath(t *testing.T) {
	for _, path := range []string{"/tenant", "/a/b-1_2.x~y"} {
		t.Run(path, func(t *testing.T) {
			p := newIDP(t, func(c *server.Config) { c.Issuer += path })
			root := strings.TrimSuffix(p.issuer, path)
			b := p.browser()
			landing := b.get(p.issuer + "/")
			if landing.status != http.StatusOK {
				t.Errorf("landing: %d", landing.status)
			}
			signIn := b.get(p.authorizeURL("scope", "openid threads:read"))
			style := strings.SplitN(strings.SplitN(signIn.body, `rel="stylesheet" href="`, 2)[1], `"`, 2)[0]
			if !strings.HasPrefix(style, path+"/") || b.get(root+style).status != http.StatusOK {
				t.Errorf("the stylesheet is at %s", style)
			}
			b.signIn(signIn, userEmail, "wrong").asksAgain(t)
			code := b.code("scope", "openid threads:read")
			got := p.exchange(code)
			if got.status != http.StatusOK || claimsOf(t, got.text("id_token"))["iss"] != p.issuer ||
				claimsOf(t, got.text("access_token"))["aud"] != p.issuer {
				t.Fatalf("%d %s", got.status, got.raw)
			}
			next := p.refresh(got.text("refresh_token"))
			if !p.active(next.text("access_token")) || p.userinfo(next.text("access_token")).status != http.StatusOK ||
				len(p.jwks().Keys) == 0 {
				t.Error("tokens are not good")
			}
			if revoked := p.call("/oauth/revoke",
				url.Values{"token": {next.text("access_token")}}); revoked.status != http.StatusOK {
				t.Errorf("revocation: %d", revoked.status)
			}
			want := p.document(p.issuer + "/.well-known/openid-configuration")
			for _, address := range []string{
				p.issuer + "/.well-known/oauth-authorization-server",
				root + "/.well-known/oauth-authorization-server" + path, // RFC 8414 section 3.1
				root + "/.well-known/openid-configuration" + path,       // RFC 8414 section 5
			} {
				if got := p.document(address); got.raw != want.raw || got.text("issuer") != p.issuer {
					t.Errorf("%s: %s", address, got.raw)
				}
			}
			for _, outside := range []string{"/oauth/token", "/oauth/authorize", "/oauth/jwks",
				"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server",
				"/.well-known/openid-configuration/other"} {
				if got := p.send(p.request(http.MethodGet, root+outside, "")); got.status != http.StatusNotFound {
					t.Errorf("%s outside the issuer: %d", outside, got.status)
				}
			}
		})
	}
}

func (got page) asksAgain(t *testing.T) {
	t.Helper()
	if got.status != http.StatusUnprocessableEntity || got.asks() != "password" {
		t.Errorf("a wrong password: %d", got.status)
	}
}

func TestIssuersThatAreRefused(t *testing.T) {
	p := newIDP(t)
	for _, issuer := range []string{
		"", "id.test", "https://", "http://id.test", "ftp://id.test", "https://id.test/", "https://id.test/a/",
		"https://id.test?x=y", "https://id.test#x", "https://user@id.test",
		"https://id.test/{a}", "https://id.test/a%20b", "https://id.test/a b", "https://id.test/a/../b",
		"https://id.test/a//b", "https://id.test/.", "https://id.test/ä",
	} {
		cfg := p.cfg
		cfg.Issuer = issuer
		if _, err := server.New(t.Context(), cfg); err == nil {
			t.Errorf("issuer %q was accepted", issuer)
		}
	}
}
