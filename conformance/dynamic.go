package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

func thirdPartyModules() []Module {
	return []Module{
		{"oidcc-3rd_party-init-login", "initiate_login_uri is registered and shown again", initiateLogin},
		{"oidcc-3rd_party-init-login-nohttps", "initiate_login_uri must be https", initiateLoginPlain},
	}
}

func dynamicModules() []Module {
	return []Module{
		{"oidcc-idtoken-rs256", "ID tokens signed with RS256", idTokenRS256},
		{"oidcc-idtoken-unsigned", "ID tokens without a signature, where the provider offers them", idTokenUnsigned},
		{"oidcc-userinfo-rs256", "userinfo signed with RS256", userinfoRS256},
		{"oidcc-ensure-redirect-uri-in-authorization-request", "a client with two redirect URIs must say which",
			redirectMissing},
		{"oidcc-redirect-uri-query-OK", "a redirect URI with a query", redirectQuery},
		{"oidcc-redirect-uri-query-mismatch", "another query than the registered one is refused", redirectOtherQuery},
		{"oidcc-redirect-uri-query-added", "a query that is not registered is refused", redirectAddedQuery},
		{"oidcc-redirect-uri-regfrag", "a redirect URI with a fragment is not registered", redirectFragment},
		{"oidcc-discovery-endpoint-verification", "metadata and keys are as those of a dynamic provider must be",
			verifyMetadata},
		{"oidcc-server", "a sign-in from end to end, of a client that registered itself", server},
		{"oidcc-registration-logo-uri", "the sign-in page shows logo_uri",
			shows("logo_uri", "/logo.png", "the client's logo")},
		{"oidcc-registration-policy-uri", "the sign-in page links policy_uri",
			shows("policy_uri", "/policy", "a link to the client's privacy policy")},
		{"oidcc-registration-tos-uri", "the sign-in page links tos_uri",
			shows("tos_uri", "/tos", "a link to the client's terms")},
		{"oidcc-registration-jwks-uri", "keys of a client from its jwks_uri", registrationJWKSURI},
		{"oidcc-registration-sector-uri", "a sector identifier that has the redirect URI", sectorGood},
		{"oidcc-registration-sector-bad", "a sector identifier without the redirect URI is refused", sectorBad},
		{"oidcc-server-rotate-keys", "the provider has a new signing key, and still the old one", rotateKeys},
		{"oidcc-refresh-token-rp-key-rotation", "a refresh with a new key of the client", clientKeyRotation},
		{"oidcc-request-uri-unsigned", "an unsigned request object by reference", requestURIUnsignedDynamic},
		{"oidcc-request-uri-signed-rs256", "a signed request object by reference", requestURISigned},
		{"oidcc-ensure-request-object-with-redirect-uri", "the redirect URI in a request object counts", requestWithRedirect},
		{"oidcc-refresh-token", "refresh tokens work, and for their client only", refreshToken},
		{"oidcc-ensure-client-assertion-with-iss-aud-succeeds", "client assertions for the issuer", assertionForIssuer},
	}
}

func initiateLogin(t *trial) {
	p := t.discover()
	address := strings.TrimSuffix(t.callback(), "/callback") + "/initiate_login"
	c := t.register(p, t.plan.Auth, set("initiate_login_uri", address))
	m := metadata(c.registration)
	t.check(m.text("initiate_login_uri") == address, "OIDCR-3.2",
		"the registration response has the initiate_login_uri of the request")
	t.must(m.text("registration_client_uri") != "", "OIDCR-4.2", "the registration response has registration_client_uri")
	got := t.get(m.text("registration_client_uri"), m.text("registration_access_token"))
	t.check(got.status == http.StatusOK, "OIDCR-4.3", "the client configuration endpoint answers with status 200, not %d",
		got.status)
	t.check(got.json(), "OIDCR-4.3", "the client configuration endpoint answers with application/json")
	t.check(metadata(got.object()).text("initiate_login_uri") == address, "OIDCR-4.3",
		"the client's configuration has the initiate_login_uri of the request")
}

func initiateLoginPlain(t *trial) {
	p := t.discover()
	t.registrationRefused(p, "OIDCR-3.3", []string{"invalid_client_metadata"},
		set("initiate_login_uri", "http://rp.example.com/initiate_login"))
}

// idTokenSignature is of the basic plan: nothing is said about the algorithm.
func idTokenSignature(t *trial) {
	p := t.discover()
	f := t.flow(p, t.register(p, t.plan.Auth), "openid").complete()
	f.signedWith("RS256")
}

func idTokenRS256(t *trial) {
	p := t.discover()
	f := t.flow(p, t.register(p, t.plan.Auth, set("id_token_signed_response_alg", "RS256")), "openid").complete()
	f.signedWith("RS256")
}

func (f *flow) signedWith(alg string) {
	kid, _ := f.id.header["kid"].(string)
	f.t.check(kid != "", "OIDCC-10.1", "the ID token has a kid")
	f.t.check(f.id.alg() == alg, "OIDCC-3.1.3.7", "the ID token is signed with %s, found %q", alg, f.id.alg())
}

func idTokenUnsigned(t *trial) {
	p := t.discover()
	if !p.lists("id_token_signing_alg_values_supported", "none") {
		t.skipf("id_token_signing_alg_values_supported has no none, as it need not")
	}
	f := t.flow(p, t.register(p, t.plan.Auth, set("id_token_signed_response_alg", "none")), "openid").visit().granted()
	f.lastToken = url.Values{"grant_type": {"authorization_code"}, "code": {f.code}, "redirect_uri": {f.c.RedirectURI}}
	f.tokenReply(t.tokenRequest(p, f.c, f.lastToken))
	raw, _ := f.tokens["id_token"].(string)
	f.id = t.parseJWT("the ID token", raw)
	t.check(f.id.alg() == "none" && strings.HasSuffix(raw, "."), "OIDCC-3.1.3.7", "the ID token has no signature")
	f.resource()
}

func userinfoRS256(t *trial) {
	p := t.discover()
	t.check(p.lists("userinfo_signing_alg_values_supported", "RS256"), "OIDCD-3",
		"userinfo_signing_alg_values_supported has RS256")
	f := t.flow(p, t.register(p, t.plan.Auth, set("userinfo_signed_response_alg", "RS256")), "openid").complete()
	got := t.get(t.endpoint(p, "userinfo_endpoint").String(), f.access)
	t.check(strings.HasPrefix(got.header.Get("Content-Type"), "application/jwt"), "OIDCC-5.3.2",
		"the userinfo response is application/jwt")
	j := t.parseJWT("userinfo", string(got.body))
	t.verify("userinfo", j, p.keys)
	t.check(j.alg() == "RS256", "OIDCC-5.3.2", "userinfo is signed with RS256, found %q", j.alg())
	t.should(j.text("iss") == p.text("issuer"), "OIDCC-5.3.2", "iss in userinfo is the issuer")
	t.should(slices.Contains(j.audience(), f.c.ID), "OIDCC-5.3.2", "aud in userinfo has the client")
	t.check(j.claims["nonce"] == nil, "OIDCC-5.3.2", "userinfo has no nonce")
	f.userinfoClaims(j.claims)
}

func redirectMissing(t *trial) {
	p := t.discover()
	c := t.register(p, t.plan.Auth, set("redirect_uris", []string{t.callback(), "https://example.org/redirect"}))
	f := t.flow(p, c, "openid").with("redirect_uri", "").visit()
	if f.answer.url != nil {
		t.failf("OIDCC-3.1.2.1", "the provider sends the browser to %s, although the request has no redirect_uri and the "+
			"client has two", redactURL(f.answer.url))
		return
	}
	t.errorPage(f.answer.page, "OIDCC-3.1.2.1", "that the redirect URI is missing")
}

func (t *trial) registerQuery(p *provider) *client {
	return t.register(p, t.plan.Auth, set("redirect_uris", []string{t.callback() + "?foo=bar"}))
}

func redirectQuery(t *trial) {
	p := t.discover()
	t.flow(p, t.registerQuery(p), "openid").complete()
}

func redirectOtherQuery(t *trial) {
	p := t.discover()
	t.unregistered(t.flow(p, t.registerQuery(p), "openid").with("redirect_uri", t.callback()+"?foo=other"))
}

func redirectAddedQuery(t *trial) {
	p, c := t.begin()
	t.unregistered(t.flow(p, c, "openid").with("redirect_uri", c.RedirectURI+"?foo=bar"))
}

func redirectFragment(t *trial) {
	p := t.discover()
	t.registrationRefused(p, "OIDCR-3.3", []string{"invalid_redirect_uri", "invalid_client_metadata"},
		set("redirect_uris", []string{t.callback() + "#foobar"}))
}

// shows registers an address that the provider's pages must show, and looks at them.
func shows(name, path, what string) func(*trial) {
	return func(t *trial) {
		p := t.discover()
		address := strings.TrimSuffix(t.callback(), "/callback") + path
		c := t.register(p, t.plan.Auth, set(name, address))
		t.check(metadata(c.registration).text(name) == address, "OIDCR-3.2",
			"the registration response has the %s of the request", name)
		a := t.flow(p, c, "openid").visit().answer
		t.must(t.browser.signIns > 0, "OIDCR-2", "the provider shows a page on which the user signs in")
		for _, shown := range a.pages {
			if len(shown.forms()) > 0 {
				t.review(shown, "OIDCR-2", "this page or the other must show %s; its HTML has the address: %t", what,
					shown.has(address))
			}
		}
	}
}

// remote registers a client that publishes its keys at its jwks_uri; turn replaces them.
func (t *trial) remote(p *provider, changes ...change) (c *client, turn func()) {
	kid := "key-" + t.id
	key := t.clientKey(0, kid)
	keys := publicSet(key)
	address := t.serve("jwks", "application/json", func() []byte {
		t.mu.Lock()
		defer t.mu.Unlock()
		return keys
	})
	c = t.register(p, privateKeyJWT, append(changes, func(m map[string]any) {
		delete(m, "jwks")
		m["jwks_uri"] = address
	})...)
	c.key = key
	return c, func() {
		c.key = t.clientKey(1, kid+"-next")
		t.mu.Lock()
		defer t.mu.Unlock()
		keys = publicSet(c.key)
	}
}

func registrationJWKSURI(t *trial) {
	p := t.discover()
	c, _ := t.remote(p)
	t.flow(p, c, "openid").complete()
}

func clientKeyRotation(t *trial) {
	p := t.discover()
	c, turn := t.remote(p, refreshing)
	f := t.flow(p, c, "openid offline_access").with("prompt", "consent").visit().granted().exchange()
	token := t.takeRefresh(f)
	turn()
	t.wait(t.cfg.JWKSRefresh, "so that the provider may fetch the client's keys again")
	t.refresh(f, token, "")
}

func assertionForIssuer(t *trial) {
	p, c := t.begin()
	c.toIssuer = true
	f := t.flow(p, c, "openid").visit().granted()
	f.lastToken = url.Values{"grant_type": {"authorization_code"}, "code": {f.code}, "redirect_uri": {c.RedirectURI}}
	got := t.tokenRequest(p, c, f.lastToken)
	if got.status != http.StatusOK {
		t.warnf("RFC7523-3", "a client assertion whose audience is the issuer is refused")
		t.tokenError(got, "RFC6749-5.2", "invalid_client")
		return
	}
	f.tokenReply(got)
	raw, _ := f.tokens["id_token"].(string)
	f.id = t.parseJWT("the ID token", raw)
	t.checkIDToken(f)
}

// pairwise ends a module where the provider has no pairwise subjects.
func (t *trial) pairwise(p *provider) {
	if !p.lists("subject_types_supported", "pairwise") {
		t.skipf("subject_types_supported has no pairwise")
	}
}

// sector serves a sector identifier document (OpenID Connect Core 1.0 section 8.1).
func (t *trial) sector(redirects ...string) []change {
	address := t.serve("redirect_uris.json", "application/json", func() []byte {
		text, err := json.Marshal(redirects)
		if err != nil {
			return nil
		}
		return text
	})
	return []change{set("subject_type", "pairwise"), set("sector_identifier_uri", address)}
}

func sectorGood(t *trial) {
	p := t.discover()
	t.pairwise(p)
	t.register(p, t.plan.Auth, t.sector(t.callback())...)
}

func sectorBad(t *trial) {
	p := t.discover()
	t.pairwise(p)
	t.registrationRefused(p, "OIDCR-5", []string{"invalid_client_metadata"}, t.sector("https://example.com/op")...)
}

// rotateKeys looks at the provider's keys before and after it takes a new one.
func rotateKeys(t *trial) {
	m := t.fetchMetadata()
	before := t.fetchKeys(m)
	if len(t.cfg.RotateKeys) == 0 {
		t.skipf("rotateKeys, the command that makes the provider take a new key, is not configured")
	}
	command := exec.CommandContext(t.ctx, t.cfg.RotateKeys[0], t.cfg.RotateKeys[1:]...)
	if out, err := command.CombinedOutput(); err != nil {
		t.stopf("", "the command that makes the provider take a new key: %v: %s", err, out)
	}
	after := t.fetchKeys(m)
	t.check(len(missingKeys(after, before)) > 0, "OIDCC-10.1.1", "the JWK Set has a new signing key")
	gone := missingKeys(before, after)
	t.should(len(gone) == 0, "OIDCC-10.1.1", "the JWK Set still has the old signing keys (missing: %v)", gone)
}

// missingKeys are the kids of one set that another does not have.
func missingKeys(of, in *jose.JSONWebKeySet) []string {
	var found []string
	for _, key := range of.Keys {
		if len(in.Key(key.KeyID)) == 0 {
			found = append(found, key.KeyID)
		}
	}
	return found
}
