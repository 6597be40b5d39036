package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/storage"
)

// claimsOf reads a JWT's claims without a look at its signature.
func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	_, claims := takenApart(t, token)
	return claims
}

func takenApart(t testing.TB, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a JWT of %d parts", len(parts))
	}
	for i, into := range []*map[string]any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func part(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// signed makes a JWT with any header.
func signedBy(t testing.TB, key any, alg jose.SignatureAlgorithm, header map[string]any, claims any) string {
	t.Helper()
	opts := &jose.SignerOptions{}
	for name, value := range header {
		opts.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (p *idp) signingKey(use string) *storage.Key {
	p.t.Helper()
	k, err := p.store.SigningKey(use)
	if err != nil {
		p.t.Fatal(err)
	}
	return k
}

// jwks is what the server publishes.
func (p *idp) jwks() *jose.JSONWebKeySet {
	p.t.Helper()
	got := p.send(p.request(http.MethodGet, p.issuer+"/oauth/jwks", ""))
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(got.raw), &set); err != nil || got.status != http.StatusOK {
		p.t.Fatalf("JWKS: %d %v", got.status, err)
	}
	return &set
}

// good says whether a string passes for an access token anywhere.
func (p *idp) good(token string) bool {
	p.t.Helper()
	intro := p.call("/oauth/introspect", url.Values{"token": {token}})
	info := p.userinfo(token)
	if intro.status >= 500 || info.status >= 500 {
		p.t.Errorf("introspection %d, userinfo %d", intro.status, info.status)
	}
	return intro.json["active"] == true || info.status == http.StatusOK
}

func TestForgedJWTs(t *testing.T) {
	p := newIDP(t)
	issued := p.tokens("scope", "openid threads:read")
	genuine := issued.text("access_token")
	header, claims := takenApart(t, genuine)
	es := p.signingKey(storage.UseES256)
	kid := es.Name()
	like := func(changes map[string]any) map[string]any {
		out := maps.Clone(claims)
		for name, value := range changes {
			if out[name] = value; value == nil {
				delete(out, name)
			}
		}
		return out
	}
	ours := map[string]any{"typ": "at+jwt", "kid": kid}
	if !p.good(genuine) || !p.good(signedBy(t, es.Private, jose.ES256, ours, claims)) {
		t.Fatal("what we sign ourselves must be good, or this test says nothing")
	}

	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&es.Private.(*ecdsa.PrivateKey).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	set := p.jwks()
	jwk, err := json.Marshal(set.Key(kid)[0])
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(genuine, ".")
	unsigned := func(alg string) string {
		return part(t, map[string]any{"alg": alg, "typ": "at+jwt", "kid": kid}) + "." + parts[1]
	}
	mine := jose.JSONWebKey{Key: private.Public(), KeyID: kid, Algorithm: "ES256"}
	mineRaw, err := json.Marshal(mine)
	if err != nil {
		t.Fatal(err)
	}
	var mineMap map[string]any
	if err := json.Unmarshal(mineRaw, &mineMap); err != nil {
		t.Fatal(err)
	}

	for rule, forged := range map[string]string{
		"alg none, no signature":       unsigned("none") + ".",
		"alg none, the signature kept": unsigned("none") + "." + parts[2],
		"alg None":                     unsigned("None") + ".",
		"no signature":                 parts[0] + "." + parts[1] + ".",
		"zero signature": parts[0] + "." + parts[1] + "." +
			base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"HS256 with the public key, DER": signedBy(t, public, jose.HS256, ours, claims),
		"HS256 with the public key, PEM": signedBy(t, publicPEM, jose.HS256, ours, claims),
		"HS256 with the public key, JWK": signedBy(t, jwk, jose.HS256, ours, claims),
		"embedded jwk": signedBy(t, private, jose.ES256, map[string]any{"typ": "at+jwt", "kid": kid,
			"jwk": mineMap}, claims),
		"embedded jwk, no kid": signedBy(t, private, jose.ES256, map[string]any{"typ": "at+jwt", "jwk": mineMap},
			claims),
		"jku": signedBy(t, private, jose.ES256, map[string]any{"typ": "at+jwt", "kid": kid,
			"jku": "https://evil.test/jwks"}, claims),
		"another key under our kid":       signedBy(t, private, jose.ES256, ours, claims),
		"the RSA key under the other kid": signedBy(t, p.signingKey(storage.UseRS256).Private, jose.RS256, ours, claims),
		"unknown kid": signedBy(t, es.Private, jose.ES256, map[string]any{"typ": "at+jwt",
			"kid": "ES256-9"}, claims),
		"no kid": signedBy(t, es.Private, jose.ES256, map[string]any{"typ": "at+jwt"}, claims),
		"typ JWT, no client_id": signedBy(t, es.Private, jose.ES256, map[string]any{"typ": "JWT", "kid": kid},
			like(map[string]any{"client_id": nil})),
		"typ JWT, no jti": signedBy(t, es.Private, jose.ES256, map[string]any{"typ": "JWT", "kid": kid},
			like(map[string]any{"jti": nil})),
		"no typ": signedBy(t, es.Private, jose.ES256, map[string]any{"kid": kid}, claims),
		"unknown critical header": signedBy(t, es.Private, jose.ES256, map[string]any{"typ": "at+jwt", "kid": kid,
			"crit": []string{"x"}, "x": 1}, claims),
		"an ID token": issued.text("id_token"),
		"an ID token with our typ": signedBy(t, p.signingKey(storage.UseRS256).Private, jose.RS256,
			map[string]any{"typ": "at+jwt", "kid": p.signingKey(storage.UseRS256).Name()}, claimsOf(t, issued.text("id_token"))),
		"another issuer": signedBy(t, es.Private, jose.ES256, ours,
			like(map[string]any{"iss": "https://evil.test"})),
		"no issuer": signedBy(t, es.Private, jose.ES256, ours, like(map[string]any{"iss": nil})),
		"expired": signedBy(t, es.Private, jose.ES256, ours,
			like(map[string]any{"exp": time.Now().Add(-time.Second).Unix()})),
		"no expiry":            signedBy(t, es.Private, jose.ES256, ours, like(map[string]any{"exp": nil})),
		"another user's grant": signedBy(t, es.Private, jose.ES256, ours, like(map[string]any{"sub": "user-bob"})),
		"no grant":             signedBy(t, es.Private, jose.ES256, ours, like(map[string]any{"jti": nil})),
		"a grant that never was": signedBy(t, es.Private, jose.ES256, ours,
			like(map[string]any{"jti": storage.NewGrantID() + ".x"})),
		"a grant's name with a path": signedBy(t, es.Private, jose.ES256, ours,
			like(map[string]any{"jti": "../" + claims["jti"].(string)})),
		"claims that are no object": signedBy(t, es.Private, jose.ES256, ours, []string{"x"}),
		"claims of other types":     signedBy(t, es.Private, jose.ES256, ours, like(map[string]any{"exp": "soon"})),
		"changed claims": parts[0] + "." + part(t, like(map[string]any{"scope": "openid email"})) + "." +
			parts[2],
		"JSON serialization": `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` +
			parts[2] + `"}`,
		"a dot more": genuine + ".",
		"PBES2 with a huge count": part(t, map[string]any{"alg": "PBES2-HS256+A128KW", "enc": "A128GCM",
			"p2c": 1<<31 - 1, "p2s": "AAAAAAAAAAA", "typ": "at+jwt", "kid": kid}) +
			".AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA",
		"compressed bomb":    bomb(t),
		"many dots":          strings.Repeat(".", 60<<10),
		"empty parts":        "..",
		"nothing but spaces": "  ",
	} {
		if p.good(forged) {
			t.Errorf("%s: good", rule)
		}
	}
	if header["alg"] != "ES256" || !p.good(genuine) {
		t.Error("the genuine token suffered")
	}
}

// bomb is a JWE whose few kilobytes become many megabytes once inflated.
func bomb(t testing.TB) string {
	t.Helper()
	key := sha256.Sum256([]byte("any"))
	enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.DIRECT, Key: key[:]},
		(&jose.EncrypterOptions{Compression: jose.DEFLATE}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	object, err := enc.Encrypt(bytes.Repeat([]byte{'a'}, 20<<20))
	if err != nil {
		t.Fatal(err)
	}
	token, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestMegabyteOfDots(t *testing.T) {
	p := newIDP(t)
	dots := strings.Repeat(".", 1<<20)
	for _, path := range []string{"/oauth/introspect", "/oauth/revoke"} {
		p.call(path, url.Values{"token": {dots}}).wants(t, path, http.StatusRequestEntityTooLarge, "invalid_request")
	}
	p.transport = direct{p} // net/http would refuse the header before us
	if got := p.userinfo(dots); got.status != http.StatusUnauthorized {
		t.Errorf("userinfo: %d", got.status)
	}
}

// A client learns nothing of the tokens of another (RFC 7662 section 4).
func TestIntrospectionByAStranger(t *testing.T) {
	p := newIDP(t)
	got := p.tokens("scope", "openid")
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	for _, token := range []string{got.text("access_token"), got.text("refresh_token"), got.text("id_token"), "garbage"} {
		intro := other.call("/oauth/introspect", url.Values{"token": {token}})
		if strings.TrimSpace(intro.raw) != `{"active":false}` || intro.status != http.StatusOK {
			t.Errorf("%d %s", intro.status, intro.raw)
		}
	}
	public := p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
	public.call("/oauth/introspect", url.Values{"token": {got.text("access_token")}, "client_id": {public.client.ID}}).
		wants(t, "a public client, which proves nothing", http.StatusUnauthorized, "invalid_client")
	owner := p.call("/oauth/introspect", url.Values{"token": {got.text("access_token")},
		"token_type_hint": {"refresh_token"}})
	for name, want := range map[string]any{
		"active": true, "scope": "openid", "client_id": p.client.ID, "username": "ann", "token_type": "Bearer",
		"sub": "user-ann", "iss": p.issuer, "aud": p.issuer,
	} {
		if owner.json[name] != want {
			t.Errorf("%s: %v, want %v", name, owner.json[name], want)
		}
	}
	if owner.header.Get("Cache-Control") != "no-store" {
		t.Error("introspection may be cached")
	}
}

// Access tokens are those of RFC 9068, for anybody to verify by the published keys.
func TestAccessTokenIsRFC9068(t *testing.T) {
	p := newIDP(t)
	issued := p.tokens("scope", "threads:read runs:write")
	header, claims := takenApart(t, issued.text("access_token"))
	if header["typ"] != "at+jwt" || header["alg"] != "ES256" || header["kid"] != p.signingKey(storage.UseES256).Name() ||
		len(header) != 3 {
		t.Errorf("header %v", header)
	}
	for name, want := range map[string]any{
		"iss": p.issuer, "sub": "user-ann", "aud": p.issuer, "client_id": p.client.ID, "scope": "threads:read runs:write",
		"acr": "urn:warifu:acr:pwd",
	} {
		if claims[name] != want {
			t.Errorf("%s: %v, want %v", name, claims[name], want)
		}
	}
	number := func(name string) float64 { n, _ := claims[name].(float64); return n }
	if number("exp")-number("iat") != 3600 || number("auth_time") == 0 || number("auth_time") > number("iat") {
		t.Errorf("times: %v", claims)
	}
	if fmt.Sprint(claims["amr"]) != "[pwd]" {
		t.Errorf("amr: %v", claims["amr"])
	}
	second := claimsOf(t, p.refresh(issued.text("refresh_token")).text("access_token"))
	if second["jti"] == claims["jti"] || second["jti"] == nil || second["auth_time"] != claims["auth_time"] {
		t.Errorf("the next token: %v", second)
	}
	object, err := jose.ParseSignedCompact(issued.text("access_token"), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := object.Verify(p.jwks().Key(header["kid"].(string))[0]); err != nil {
		t.Errorf("by the published key: %v", err)
	}
	for name := range claims {
		if !slices.Contains([]string{"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "auth_time",
			"acr", "amr"}, name) {
			t.Errorf("claim %s that nobody promised", name)
		}
	}
}

func TestJWKSHoldsOnlyPublicKeys(t *testing.T) {
	p := newIDP(t)
	got := p.send(p.request(http.MethodGet, p.issuer+"/oauth/jwks", ""))
	if !strings.HasPrefix(got.header.Get("Content-Type"), "application/json") ||
		!strings.Contains(got.header.Get("Cache-Control"), "max-age=300") {
		t.Errorf("headers %v", got.header)
	}
	for _, k := range p.jwks().Keys {
		if !k.IsPublic() || k.Use != "sig" || k.KeyID == "" || k.Algorithm == "" {
			t.Errorf("key %s", k.KeyID)
		}
		if rsaKey, ok := k.Key.(*rsa.PublicKey); ok && rsaKey.N.BitLen() < 2048 {
			t.Errorf("RSA key of %d bits", rsaKey.N.BitLen())
		}
	}
	for _, private := range []string{`"d":`, `"p":`, `"q":`, `"dp":`, `"k":`} {
		if strings.Contains(got.raw, private) {
			t.Errorf("%s in the JWKS", private)
		}
	}
}
