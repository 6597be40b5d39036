package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// keyed is p seen by a client that has keys, and no secret.
func (p *idp) keyed(app, alg string, change ...func(*storage.Client)) *idp {
	p.t.Helper()
	registered, _ := p.register(app, func(c *storage.Client) {
		c.Secrets = nil
		c.TokenEndpointAuthMethod = "private_key_jwt"
		c.JWKS = jwksOf(p.t, publicJWK(testKeys()[alg], "k"))
		c.GrantTypes = []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials}
		for _, f := range change {
			f(c)
		}
	})
	return p.as(registered, "")
}

// assertion is one of p's client, with changes to its claims; nil leaves a claim out.
func (p *idp) assertion(alg string, changes map[string]any) string {
	p.t.Helper()
	return signedBy(p.t, testKeys()[alg], jose.SignatureAlgorithm(alg), map[string]any{"kid": "k", "typ": "JWT"},
		p.assertionClaims(changes))
}

func (p *idp) assertionClaims(changes map[string]any) map[string]any {
	now := p.clock.now()
	claims := map[string]any{
		"iss": p.client.ID, "sub": p.client.ID, "aud": p.issuer, "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(),
		"jti": rand.Text(),
	}
	for name, value := range changes {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return claims
}

// asserting posts a form, the client authenticating by an assertion.
func (p *idp) asserting(path, assertion string, form url.Values, more ...string) reply {
	p.t.Helper()
	sent := url.Values{"client_assertion": {assertion}, "client_assertion_type": {jwtBearer}}
	maps.Copy(sent, form)
	for i := 0; i < len(more); i += 2 {
		sent.Set(more[i], more[i+1])
	}
	return p.machine(path, sent)
}

func redeeming(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}
}

func refreshing(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
}

func forItself(scope string) url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
}

// RFC 7523, OpenID Connect Core 1.0 section 9: with each algorithm, at each endpoint.
func TestPrivateKeyJWT(t *testing.T) {
	p := newIDP(t)
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		k := p.keyed("app-"+strings.ToLower(alg), alg)
		got := k.asserting("/oauth/token", k.assertion(alg, nil), redeeming(k.code()), "client_id", k.client.ID)
		if got.status != http.StatusOK {
			t.Fatalf("%s: code: %d %s", alg, got.status, got.raw)
		}
		got = k.asserting("/oauth/token", k.assertion(alg, nil), refreshing(got.text("refresh_token")))
		if got.status != http.StatusOK {
			t.Fatalf("%s: refresh: %d %s", alg, got.status, got.raw)
		}
		token := url.Values{"token": {got.text("access_token")}}
		if intro := k.asserting("/oauth/introspect", k.assertion(alg, nil), token); intro.json["active"] != true {
			t.Errorf("%s: introspection: %d %s", alg, intro.status, intro.raw)
		}
		if own := k.asserting("/oauth/token", k.assertion(alg, nil), forItself("threads:read")); own.status != http.StatusOK {
			t.Errorf("%s: client credentials: %d %s", alg, own.status, own.raw)
		}
		if revoked := k.asserting("/oauth/revoke", k.assertion(alg, nil), token); revoked.status != http.StatusOK {
			t.Errorf("%s: revocation: %d %s", alg, revoked.status, revoked.raw)
		}
		if intro := k.asserting("/oauth/introspect", k.assertion(alg, nil), token); intro.json["active"] != false {
			t.Errorf("%s: introspection after revocation: %d %s", alg, intro.status, intro.raw)
		}
	}
	k := p.keyed("json-app", "ES256")
	body, err := json.Marshal(map[string]string{"grant_type": "client_credentials", "scope": "threads:read",
		"client_assertion": k.assertion("ES256", nil), "client_assertion_type": jwtBearer})
	if err != nil {
		t.Fatal(err)
	}
	if got := k.send(k.request(http.MethodPost, p.issuer+"/oauth/token", string(body), "Content-Type",
		"application/json")); got.status != http.StatusOK {
		t.Errorf("JSON: %d %s", got.status, got.raw)
	}
}

// The threats of JWTs, and everything else that is wrong with an assertion. All of it comes under one jti, and burns
// nothing: the genuine assertion with that jti works afterwards.
func TestForgedAssertions(t *testing.T) {
	p := newIDP(t)
	k := p.keyed("key-app", "ES256")
	other := p.keyed("other-app", "EdDSA")
	key := testKeys()["ES256"]
	jti := rand.Text()
	claims := k.assertionClaims(map[string]any{"jti": jti})
	like := func(name string, value any) map[string]any {
		return k.assertionClaims(map[string]any{"jti": jti, name: value})
	}
	genuine := signedBy(t, key, jose.ES256, map[string]any{"kid": "k", "typ": "JWT"}, claims)
	parts := strings.Split(genuine, ".")
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	jwk, err := json.Marshal(publicJWK(key, "k"))
	if err != nil {
		t.Fatal(err)
	}
	mine := publicJWK(stranger, "k")
	header := map[string]any{"kid": "k", "typ": "JWT"}
	with := func(name string, value any) map[string]any {
		out := maps.Clone(header)
		out[name] = value
		return out
	}
	signed := func(claims any) string { return signedBy(t, key, jose.ES256, header, claims) }
	unsigned := func(alg string) string { return part(t, with("alg", alg)) + "." + parts[1] }
	now := p.clock.now()
	doubled := strings.TrimSuffix(mustJSON(t, claims), "}") + `,"jti":"x"}`

	wrongSecret := p.exchange("x", "client_id", p.client.ID, "client_secret", "x")
	try := func(rule, assertion string) reply {
		t.Helper()
		got := k.asserting("/oauth/token", assertion, forItself("threads:read"))
		got.wants(t, rule, http.StatusUnauthorized, "invalid_client")
		if got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", rule)
		}
		return got
	}
	for rule, forged := range map[string]string{
		"alg none":                     unsigned("none") + ".",
		"alg none, the signature kept": unsigned("none") + "." + parts[2],
		"no signature":                 parts[0] + "." + parts[1] + ".",
		"zero signature": parts[0] + "." + parts[1] + "." +
			base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"HS256 with the public key, DER": signedBy(t, der, jose.HS256, header, claims),
		"HS256 with the public key, PEM": signedBy(t, publicPEM, jose.HS256, header, claims),
		"HS256 with the public key, JWK": signedBy(t, jwk, jose.HS256, header, claims),
		"embedded jwk":                   signedBy(t, stranger, jose.ES256, with("jwk", mine), claims),
		"jku":                            signedBy(t, stranger, jose.ES256, with("jku", "https://evil.test/jwks"), claims),
		"another key under our kid":      signedBy(t, stranger, jose.ES256, header, claims),
		"another client's key":           signedBy(t, testKeys()["EdDSA"], jose.EdDSA, header, claims),
		"unknown kid":                    signedBy(t, key, jose.ES256, with("kid", "x"), claims),
		"unknown critical header": signedBy(t, key, jose.ES256, map[string]any{"kid": "k", "crit": []string{"x"},
			"x": 1}, claims),
		"changed claims": parts[0] + "." + part(t, like("exp", now.Add(time.Hour).Unix())) + "." + parts[2],
		"JSON serialization": `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` +
			parts[2] + `"}`,
		"a dot more":         genuine + ".",
		"a megabyte of dots": strings.Repeat(".", 60<<10),
		"PBES2 with a huge count": part(t, map[string]any{"alg": "PBES2-HS256+A128KW", "enc": "A128GCM",
			"p2c": 1<<31 - 1, "p2s": "AAAAAAAAAAA"}) + ".AAAA.AAAA.AAAA.AAAA",
		"compressed bomb":        bomb(t),
		"too long":               signed(like("x", strings.Repeat("x", 16<<10))),
		"no JWT":                 "x",
		"the server's own token": p.tokens().text("access_token"),
		"another client's assertion": other.assertion("EdDSA", map[string]any{"iss": k.client.ID, "sub": k.client.ID,
			"jti": jti}),
	} {
		if got := try(rule, forged); got.raw != wrongSecret.raw {
			t.Errorf("%s: %s, a wrong secret gets %s", rule, got.raw, wrongSecret.raw)
		}
	}
	for rule, wrong := range map[string]string{
		"typ at+jwt":              signedBy(t, key, jose.ES256, with("typ", "at+jwt"), claims),
		"typ dpop+jwt":            signedBy(t, key, jose.ES256, with("typ", "dpop+jwt"), claims),
		"a request object":        signedBy(t, key, jose.ES256, with("typ", "oauth-authz-req+jwt"), claims),
		"another issuer":          signed(like("iss", "https://evil.test")),
		"no issuer":               signed(like("iss", nil)),
		"another issuer's client": signed(like("iss", p.client.ID)),
		"no audience":             signed(like("aud", nil)),
		"audience null":           signed(like("aud", []any{nil})),
		"wrong audience":          signed(like("aud", "https://other.test")),
		"empty audience":          signed(like("aud", "")),
		"empty audiences":         signed(like("aud", []string{})),
		"one audience too many":   signed(like("aud", []string{p.issuer, "https://other.test"})),
		"almost the issuer":       signed(like("aud", p.issuer+"/")),
		"another endpoint":        signed(like("aud", p.issuer+"/oauth/revoke")),
		"the audience an object":  signed(like("aud", map[string]string{"x": p.issuer})),
		"expired":                 signed(like("exp", now.Unix()-1)),
		"no expiry":               signed(like("exp", nil)),
		"expiry a text":           signed(like("exp", "soon")),
		"expiry too far":          signed(like("exp", now.Add(62*time.Minute).Unix())),
		"expiry of a century":     signed(like("exp", 1e300)),
		"not yet valid":           signed(like("nbf", now.Add(time.Minute).Unix())),
		"issued in the future":    signed(like("iat", now.Add(time.Minute).Unix())),
		"no jti":                  signed(like("jti", nil)),
		"empty jti":               signed(like("jti", "")),
		"a jti of 257 bytes":      signed(like("jti", strings.Repeat("j", 257))),
		"jti a number":            signed(like("jti", 1)),
		"claims of no object":     signed([]string{"x"}),
		"a claim twice":           signedRaw(t, key, header, doubled),
		"claims in capitals":      signedRaw(t, key, header, strings.ToUpper(mustJSON(t, claims))),
	} {
		// Of the three it is not known whose they are.
		if got := try(rule, wrong); !strings.HasPrefix(got.text("error_description"), "the client assertion was refused: ") &&
			rule != "claims of no object" && rule != "claims in capitals" && rule != "a claim twice" {
			t.Errorf("%s: the client is not told why: %s", rule, got.raw)
		}
	}
	// sub alone decides whose assertion it is.
	k.asserting("/oauth/token", signed(like("sub", p.client.ID)), forItself("threads:read")).wants(t, "another subject",
		http.StatusUnauthorized, "invalid_client")
	k.asserting("/oauth/token", genuine, forItself("threads:read"), "client_id", other.client.ID).wants(t,
		"another client_id", http.StatusUnauthorized, "invalid_client")
	k.asserting("/oauth/token", genuine, forItself("threads:read"), "client_assertion_type",
		"urn:ietf:params:oauth:client-assertion-type:saml2-bearer").wants(t, "another type", http.StatusUnauthorized,
		"invalid_client")
	k.machine("/oauth/token", url.Values{"client_assertion": {genuine}, "grant_type": {"client_credentials"}}).wants(t,
		"no type", http.StatusBadRequest, "invalid_request")
	k.machine("/oauth/token", url.Values{"client_assertion_type": {jwtBearer}, "grant_type": {"client_credentials"},
		"client_id": {k.client.ID}}).wants(t, "no assertion", http.StatusBadRequest, "invalid_request")
	k.asserting("/oauth/token", genuine, forItself("threads:read"), "client_secret", "x").wants(t, "a secret beside it",
		http.StatusBadRequest, "invalid_request")

	if got := k.asserting("/oauth/token", genuine, forItself("threads:read")); got.status != http.StatusOK {
		t.Errorf("the genuine one was burnt: %d %s", got.status, got.raw)
	}
	k.asserting("/oauth/token", genuine, forItself("threads:read")).wants(t, "a second time", http.StatusUnauthorized,
		"invalid_client")
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// signedRaw signs a payload as it is.
func signedRaw(t testing.TB, key any, header map[string]any, payload string) string {
	t.Helper()
	return signedBy(t, key, jose.ES256, header, json.RawMessage(payload))
}

// A client's registration may name one algorithm, and a key may.
func TestAssertionAlgorithmIsPinned(t *testing.T) {
	p := newIDP(t)
	both := func(c *storage.Client) {
		c.JWKS = jwksOf(t, publicJWK(testKeys()["ES256"], "k"), publicJWK(testKeys()["RS256"], "k"))
	}
	for alg, works := range map[string]string{"": "RS256 PS256 ES256", "ES256": "ES256", "PS256": "PS256",
		"HS256": "", "none": ""} {
		k := p.keyed("app-"+strings.ToLower(alg), "ES256", both, func(c *storage.Client) {
			c.TokenEndpointAuthSigningAlg = alg
		})
		for _, used := range []string{"RS256", "PS256", "ES256"} {
			got := k.asserting("/oauth/token", k.assertion(used, nil), forItself("threads:read"))
			if (got.status == http.StatusOK) != strings.Contains(works, used) {
				t.Errorf("registered %q, used %s: %d %s", alg, used, got.status, got.raw)
			}
		}
	}
	k := p.keyed("key-alg", "RS256", func(c *storage.Client) {
		key := publicJWK(testKeys()["RS256"], "k")
		key.Algorithm = "PS256"
		c.JWKS = jwksOf(t, key)
	})
	k.asserting("/oauth/token", k.assertion("RS256", nil), forItself("threads:read")).wants(t, "a key for something else",
		http.StatusUnauthorized, "invalid_client")
	if got := k.asserting("/oauth/token", k.assertion("PS256", nil),
		forItself("threads:read")); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

func TestAssertionAudience(t *testing.T) {
	p := newIDP(t, func(c *server.Config) { c.Issuer += "/oauth" })
	plain := p.keyed("plain", "ES256")
	strict := p.keyed("strict", "ES256", func(c *storage.Client) {
		c.RequirePushedAuthorizationRequests, c.DPoPBoundAccessTokens = true, true
	})
	token := p.issuer + "/oauth/token"
	introspect := p.issuer + "/oauth/introspect"
	for _, c := range []struct {
		rule          string
		aud           any
		plain, strict bool
	}{
		{"the issuer", p.issuer, true, true},
		{"the issuer in an array", []string{p.issuer}, true, false},
		{"the token endpoint", token, true, false},
		{"issuer and token endpoint", []string{p.issuer, token}, true, false},
		{"the endpoint called", introspect, true, false},
		{"all of them", []string{introspect, p.issuer, token}, true, false},
		{"another endpoint", p.issuer + "/oauth/revoke", false, false},
		{"somebody else, too", []string{p.issuer, "https://other.test"}, false, false},
	} {
		for k, works := range map[*idp]bool{plain: c.plain, strict: c.strict} {
			got := k.asserting("/oauth/introspect", k.assertion("ES256", map[string]any{"aud": c.aud}),
				url.Values{"token": {"x"}})
			if (got.status == http.StatusOK) != works {
				t.Errorf("%s for %s: %d %s", c.rule, k.client.App, got.status, got.raw)
			}
		}
	}
	strict.client.JWKS = jwksOf(t, publicJWK(testKeys()["RS256"], "k"))
	p.update("strict", func(c *storage.Client) { c.JWKS = strict.client.JWKS })
	strict.asserting("/oauth/introspect", strict.assertion("RS256", nil), url.Values{"token": {"x"}}).wants(t,
		"RS256 under FAPI 2.0", http.StatusUnauthorized, "invalid_client")
	if got := strict.asserting("/oauth/introspect", strict.assertion("PS256", nil),
		url.Values{"token": {"x"}}); got.status != http.StatusOK {
		t.Errorf("PS256 under FAPI 2.0: %d %s", got.status, got.raw)
	}
}

// Clocks differ a little, and NumericDate may have a fraction (RFC 7519 section 2).
func TestAssertionTimes(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	k := p.keyed("key-app", "ES256")
	now := p.clock.now()
	for rule, changes := range map[string]map[string]any{
		"a clock that is ahead":      {"iat": now.Unix() + 20, "nbf": now.Unix() + 20},
		"no iat":                     {"iat": nil},
		"an hour":                    {"exp": now.Unix() + 3600},
		"a fraction":                 {"exp": float64(now.UnixMilli())/1000 + 0.5},
		"a jti of 256 bytes":         {"jti": strings.Repeat("j", 256)},
		"a jti that is no nice text": {"jti": "../\x00\"é"},
	} {
		if got := k.asserting("/oauth/token", k.assertion("ES256", changes),
			forItself("threads:read")); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
}

// Keys at jwks_uri, rotated. Until they are heard of, an assertion with a new key is refused.
func TestAssertionWithJWKSURI(t *testing.T) {
	p := newIDP(t, allowLoopback)
	p.clock.stop()
	at := newJWKS(t, jwksOf(t, publicJWK(testKeys()["ES256"], "k")))
	k := p.keyed("key-app", "ES256", func(c *storage.Client) { c.JWKS, c.JWKSURI = "", at.URL })
	works := func(alg, kid string) bool {
		t.Helper()
		assertion := signedBy(t, testKeys()[alg], jose.SignatureAlgorithm(alg), map[string]any{"kid": kid},
			k.assertionClaims(nil))
		got := k.asserting("/oauth/token", assertion, forItself("threads:read"))
		if got.status != http.StatusOK {
			got.wants(t, alg, http.StatusUnauthorized, "invalid_client")
		}
		return got.status == http.StatusOK
	}
	if !works("ES256", "k") || works("EdDSA", "new") || at.asked.Load() != 1 {
		t.Errorf("asked %d times", at.asked.Load())
	}
	p.clock.forward(11 * time.Second)
	at.says(jwksOf(t, publicJWK(testKeys()["EdDSA"], "new")))
	if !works("EdDSA", "new") || works("ES256", "k") || at.asked.Load() != 2 {
		t.Errorf("after the rotation: asked %d times", at.asked.Load())
	}
}

// SSRF: keys on loopback are not fetched unless the operator allows it, and the client learns nothing of that.
func TestAssertionWithJWKSURIOnLoopback(t *testing.T) {
	p := newIDP(t)
	at := newJWKS(t, jwksOf(t, publicJWK(testKeys()["ES256"], "k")))
	k := p.keyed("key-app", "ES256", func(c *storage.Client) { c.JWKS, c.JWKSURI = "", at.URL })
	got := k.asserting("/oauth/token", k.assertion("ES256", nil), forItself("threads:read"))
	got.wants(t, "loopback", http.StatusUnauthorized, "invalid_client")
	if at.asked.Load() != 0 || strings.Contains(got.raw, "127.0.0.1") || !strings.Contains(p.log.String(), "not https") {
		t.Errorf("asked %d times: %s", at.asked.Load(), got.raw)
	}
}
