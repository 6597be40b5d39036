package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

// A client that proves possession of a key gets tokens that are bound to it; a nonce costs it a round trip, and no
// code.
func TestDPoPBindsAccessTokens(t *testing.T) {
	p := newIDP(t)
	d := p.prover()
	code := p.code("scope", "openid threads:read")
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {p.client.ID},
		"client_secret": {p.secret}}
	first := p.machine("/oauth/token", form, "DPoP", d.proof(http.MethodPost, "/oauth/token", ""))
	first.wants(t, "without a nonce", http.StatusBadRequest, "use_dpop_nonce")
	d.nonce = first.header.Get("DPoP-Nonce")
	got := p.machine("/oauth/token", form, "DPoP", d.proof(http.MethodPost, "/oauth/token", ""))
	d.bound(got, "code exchange")
	if got.header.Get("DPoP-Nonce") != d.nonce {
		t.Error("no nonce with a success")
	}
	next := d.refresh(got.text("refresh_token"))
	d.bound(next, "refresh")
	other := p.informed()
	again := other.refresh(next.text("refresh_token"))
	other.bound(again, "refresh by a client that authenticates, with another key")
	plain := p.refresh(again.text("refresh_token"))
	if plain.text("token_type") != "Bearer" || claimsOf(t, plain.text("access_token"))["cnf"] != nil {
		t.Errorf("refresh without a proof: %s", plain.raw)
	}
	if intro := p.call("/oauth/introspect", url.Values{"token": {again.text("access_token")}}); intro.text(
		"token_type") != "DPoP" ||
		fmt.Sprint(intro.json["cnf"]) != fmt.Sprint(map[string]any{"jkt": other.thumbprint()}) {
		t.Errorf("introspection: %s", intro.raw)
	}
}

// RFC 9449 section 5: the refresh token of a client that cannot authenticate is worth nothing without the key.
func TestDPoPBindsRefreshTokensOfPublicClients(t *testing.T) {
	p := newIDP(t).publicApp()
	d, thief := p.informed(), p.informed()
	got := d.exchange(p.publicCode(), "code_verifier", verifier)
	d.bound(got, "code exchange")
	stolen := got.text("refresh_token")
	thief.refresh(stolen).wants(t, "another key", http.StatusBadRequest, "invalid_grant")
	p.machine("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {stolen},
		"client_id": {p.client.ID}}).
		wants(t, "no proof", http.StatusBadRequest, "invalid_grant")
	for range 3 {
		got = d.refresh(got.text("refresh_token"))
		d.bound(got, "the key")
	}
	thief.refresh(got.text("refresh_token")).wants(t, "another key, later", http.StatusBadRequest, "invalid_grant")
	d.bound(d.refresh(got.text("refresh_token")), "after the thief")

	unbound := p.exchange(p.publicCode(), "code_verifier", verifier, "client_id", p.client.ID)
	d.bound(d.refresh(unbound.text("refresh_token")), "a refresh token that was issued without a proof")
}

// A registration may bind a client to DPoP (RFC 9449 section 5.2), also while a request is on its way.
func TestClientThatMustUseDPoP(t *testing.T) {
	p := newIDP(t)
	p.update("my-app", func(c *storage.Client) { c.DPoPBoundAccessTokens = true })
	code := p.code()
	p.exchange(code).wants(t, "code exchange without a proof", http.StatusBadRequest, "invalid_dpop_proof")
	d := p.informed()
	got := d.exchange(code)
	d.bound(got, "with one")
	p.refresh(got.text("refresh_token")).wants(t, "refresh without a proof", http.StatusBadRequest, "invalid_dpop_proof")
	d.bound(d.refresh(got.text("refresh_token")), "refresh with one")

	lagging := p.replica(p.lagging())
	p.update("my-app", func(c *storage.Client) { c.DPoPBoundAccessTokens = false })
	fresh := p.tokens()
	p.update("my-app", func(c *storage.Client) { c.DPoPBoundAccessTokens = true })
	lagging.refresh(fresh.text("refresh_token")).wants(t, "at a replica that has not heard of it", http.StatusBadRequest,
		"invalid_dpop_proof")
}

// Every algorithm of discovery proves, and no other.
func TestDPoPAlgorithms(t *testing.T) {
	p := newIDP(t)
	offered := texts(p.document(p.issuer + "/.well-known/openid-configuration").json["dpop_signing_alg_values_supported"])
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tried := []string{}
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{
		jose.ES256: p.prover().key, jose.RS256: rsaKey, jose.PS256: rsaKey, jose.EdDSA: edKey,
		jose.ES384: p384, jose.RS512: rsaKey, jose.PS384: rsaKey,
	} {
		d := &prover{p: p, alg: alg, key: key, nonce: p.proofNonce()}
		got := d.exchange(p.code())
		if !slices.Contains(offered, string(alg)) {
			got.wants(t, string(alg), http.StatusBadRequest, "invalid_dpop_proof")
			continue
		}
		d.bound(got, string(alg))
		tried = append(tried, string(alg))
	}
	if len(tried) != len(offered) {
		t.Errorf("offered %v, tried %v", offered, tried)
	}
}

// What a proof must not be. None of it costs the code.
func TestForgedDPoPProofs(t *testing.T) {
	p := newIDP(t)
	d := p.informed()
	code := p.code()
	header, claims := d.parts(http.MethodPost, "/oauth/token")
	with := func(base map[string]any, changes ...any) map[string]any {
		out := maps.Clone(base)
		out["jti"] = storage.NewGrantID()
		if _, isHeader := base["jwk"]; isHeader {
			delete(out, "jti")
		}
		for i := 0; i < len(changes); i += 2 {
			if out[changes[i].(string)] = changes[i+1]; changes[i+1] == nil {
				delete(out, changes[i].(string))
			}
		}
		return out
	}
	sign := func(header, claims map[string]any) string { return signedBy(t, d.key, jose.ES256, header, claims) }
	claim := func(changes ...any) string { return sign(header, with(claims, changes...)) }
	head := func(changes ...any) string { return sign(with(header, changes...), with(claims)) }
	other := p.prover()
	private := func() map[string]any {
		raw, err := json.Marshal(jose.JSONWebKey{Key: d.key})
		if err != nil {
			t.Fatal(err)
		}
		var out map[string]any
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	smallProver := &prover{p: p, alg: jose.RS256, key: small, nonce: d.nonce}
	secret := []byte("0123456789abcdef0123456789abcdef")
	octet := map[string]any{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)}
	good := strings.Split(claim(), ".")
	unsigned := part(t, map[string]any{"typ": "dpop+jwt", "alg": "none", "jwk": d.jwk()}) + "." + good[1] + "."
	publicJWK, err := json.Marshal(jose.JSONWebKey{Key: d.key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	now := p.clock.now()

	for rule, proof := range map[string]string{
		"empty":                          "",
		"no JWT":                         "proof",
		"empty parts":                    "..",
		"a JWE":                          bomb(t),
		"many dots":                      strings.Repeat(".", 4000),
		"typ JWT":                        head("typ", "JWT"),
		"typ at+jwt":                     head("typ", "at+jwt"),
		"no typ":                         head("typ", nil),
		"no jwk":                         head("jwk", nil),
		"alg none":                       unsigned,
		"alg none with a signature":      unsigned + good[2],
		"no signature":                   good[0] + "." + good[1] + ".",
		"a signature of something else":  good[0] + "." + part(t, with(claims)) + "." + good[2],
		"HS256 with a jwk of its secret": signedBy(t, secret, jose.HS256, with(header, "jwk", octet), with(claims)),
		"HS256 with the public key":      signedBy(t, publicJWK, jose.HS256, header, with(claims)),
		"ES256 with a symmetric jwk":     head("jwk", octet),
		"a private jwk":                  head("jwk", private),
		"a jwk with a symmetric secret":  head("jwk", with(d.jwk(), "k", "AAAA", "jti", nil)),
		"another key's jwk":              head("jwk", other.jwk()),
		"a jwk off its curve":            head("jwk", with(d.jwk(), "y", d.jwk()["x"], "jti", nil)),
		"a jwk for encryption":           head("jwk", with(d.jwk(), "use", "enc", "jti", nil)),
		"a jwk for another algorithm":    head("jwk", with(d.jwk(), "alg", "RS256", "jti", nil)),
		"a jwk that is a kid":            head("jwk", p.signingKey(storage.UseES256).Name()),
		"a jwk with certificates":        head("jwk", with(d.jwk(), "x5c", []string{"AAAA"}, "jti", nil)),
		"a jwk that points to its key":   head("jwk", with(d.jwk(), "x5u", "https://evil.test/key", "jti", nil)),
		"a kid of ours in the place of it": signedBy(t, p.signingKey(storage.UseES256).Private, jose.ES256,
			with(header, "jwk", nil, "kid", p.signingKey(storage.UseES256).Name()), with(claims)),
		"critical headers":          head("crit", []string{"b64"}, "b64", true),
		"unknown critical headers":  head("crit", []string{"x"}, "x", 1),
		"a small RSA key":           smallProver.proof(http.MethodPost, "/oauth/token", ""),
		"no jti":                    claim("jti", nil),
		"an empty jti":              claim("jti", ""),
		"a huge jti":                claim("jti", strings.Repeat("x", 257)),
		"a jti that is a number":    claim("jti", 7),
		"no htm":                    claim("htm", nil),
		"htm GET":                   claim("htm", "GET"),
		"htm in lower case":         claim("htm", "post"),
		"no htu":                    claim("htu", nil),
		"htu of another server":     claim("htu", "https://evil.test/oauth/token"),
		"htu of another endpoint":   claim("htu", p.issuer+"/oauth/userinfo"),
		"htu of the issuer":         claim("htu", p.issuer),
		"htu with another scheme":   claim("htu", strings.Replace(p.issuer, "http:", "https:", 1)+"/oauth/token"),
		"htu with an encoded slash": claim("htu", p.issuer+"/oauth%2ftoken"),
		"htu with a user":           claim("htu", strings.Replace(p.issuer, "://", "://u@", 1)+"/oauth/token"),
		"htu in another case":       claim("htu", p.issuer+"/OAuth/token"),
		"no iat":                    claim("iat", nil),
		"iat as text":               claim("iat", fmt.Sprint(now.Unix())),
		"iat six minutes ago":       claim("iat", now.Add(-6*time.Minute).Unix()),
		"iat in two minutes":        claim("iat", now.Add(2*time.Minute).Unix()),
		"iat beyond all time":       claim("iat", 1e300),
		"claims that are no object": signedBy(t, d.key, jose.ES256, header, []string{"x"}),
		"an access token":           p.tokens().text("access_token"),
		"two proofs in one":         claim() + ", " + claim(),
		"longer than any proof":     claim("x", strings.Repeat("x", 10<<10)),
	} {
		form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {p.client.ID},
			"client_secret": {p.secret}}
		got := p.machine("/oauth/token", form, "DPoP", proof)
		got.wants(t, rule, http.StatusBadRequest, "invalid_dpop_proof")
		if got.header.Get("DPoP-Nonce") == "" {
			t.Errorf("%s: no nonce", rule)
		}
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {p.client.ID},
		"client_secret": {p.secret}}
	p.machine("/oauth/token", form, "DPoP", claim(), "DPoP", claim()).wants(t, "two headers", http.StatusBadRequest,
		"invalid_dpop_proof")
	used := claim()
	d.bound(p.machine("/oauth/token", form, "DPoP", used), "what a proof must be")
	p.machine("/oauth/token", form, "DPoP", used).wants(t, "the same proof again", http.StatusBadRequest,
		"invalid_dpop_proof")
}

// What names the endpoint another way is right (RFC 3986 sections 6.2.2 and 6.2.3), whatever Host header comes along.
func TestDPoPAddressIsNormalized(t *testing.T) {
	for issuer, addresses := range map[string][]string{
		"https://id.test": {"https://id.test/oauth/token", "HTTPS://ID.Test/oauth/token", "https://id.test:443/oauth/token",
			"https://id.test/oauth/token?x=y#z",
			"https://id.test/%6fauth/token", "https://id.test/x/../oauth/./token"},
		"https://id.test:8443/tenant": {"https://id.test:8443/tenant/oauth/token"},
	} {
		p := newIDP(t, func(c *server.Config) { c.Issuer = issuer })
		d, got := p.informed(), p.tokens()
		for _, address := range addresses {
			form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.text("refresh_token")},
				"client_id": {p.client.ID}, "client_secret": {p.secret}}
			req := p.request(http.MethodPost, p.issuer+"/oauth/token", form.Encode(), "Content-Type", formType,
				"DPoP", d.proof(http.MethodPost, "/oauth/token", "", "htu", address), "X-Forwarded-Host", "evil.test")
			req.Host = "evil.test"
			got = p.send(req)
			d.bound(got, address)
		}
	}
}

// RFC 9449 section 8: each proof holds a nonce of this server, not older than some minutes.
func TestDPoPNonces(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	foreign := newIDP(t).proofNonce()
	issued := p.tokens()
	d := p.informed()
	first := d.nonce
	next := d.refresh(issued.text("refresh_token"))
	d.bound(next, "a fresh nonce")
	p.clock.forward(4 * time.Minute)
	d.bound(d.refresh(next.text("refresh_token")), "one of four minutes ago")
	if now := p.proofNonce(); now == first {
		t.Error("the same nonce after four minutes")
	}
	p.clock.forward(time.Minute)
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {next.text("refresh_token")},
		"client_id": {p.client.ID}, "client_secret": {p.secret}}
	for rule, nonce := range map[string]any{
		"missing": nil, "empty": "", "old": first, "of another server": foreign, "garbage": "x",
		"altered":           p.proofNonce() + "A",
		"a session of ours": "wfk_AAAA", "a refresh token of ours": next.text("refresh_token"),
		"huge": strings.Repeat("x", 4000),
	} {
		got := p.machine("/oauth/token", form, "DPoP", d.proof(http.MethodPost, "/oauth/token", "", "nonce", nonce))
		got.wants(t, rule, http.StatusBadRequest, "use_dpop_nonce")
		if got.header.Get("DPoP-Nonce") != p.proofNonce() {
			t.Errorf("%s: the header does not help", rule)
		}
	}
	p.machine("/oauth/token", form, "DPoP", d.proof(http.MethodPost, "/oauth/token", "", "nonce", 7)).
		wants(t, "a number", http.StatusBadRequest, "invalid_dpop_proof")

	// All replicas share them, and a restart loses none.
	d.nonce = p.proofNonce()
	p.restart()
	d.bound(d.refresh(p.tokens().text("refresh_token")), "after a restart")
	for rule, got := range map[string]reply{
		"wrong method":  p.send(p.request(http.MethodGet, p.issuer+"/oauth/token", "")),
		"wrong secret":  p.exchange("x", "client_id", p.client.ID, "client_secret", "x"),
		"no grant type": p.call("/oauth/token", url.Values{}),
	} {
		if got.status == http.StatusOK || got.header.Get("DPoP-Nonce") == "" {
			t.Errorf("%s: no nonce with %d", rule, got.status)
		}
	}
}

// A proof is good once, also when many send it at the same time.
func TestDPoPProofReplayed(t *testing.T) {
	p := newIDP(t)
	d := p.informed()
	token := p.tokens().text("refresh_token")
	proof := d.proof(http.MethodPost, "/oauth/token", "")
	var replies [16]reply
	together(len(replies), func(i int) {
		// The resource is unknown, so the request whose proof passes uses up nothing.
		replies[i] = p.machine("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token},
			"scope":     {"threads:read"},
			"client_id": {p.client.ID}, "client_secret": {p.secret}, "resource": {"https://unknown.test"}}, "DPoP", proof)
	})
	passed := 0
	for _, got := range replies {
		if got.text("error") == "invalid_target" {
			passed++
			continue
		}
		got.wants(t, "replayed", http.StatusBadRequest, "invalid_dpop_proof")
	}
	if passed != 1 {
		t.Errorf("%d of %d passed", passed, len(replies))
	}
	// Another key may use the same jti.
	jti := storage.NewGrantID()
	for range 2 {
		d = p.informed()
		got := p.machine("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token},
			"client_id": {p.client.ID}, "client_secret": {p.secret}},
			"DPoP", d.proof(http.MethodPost, "/oauth/token", "", "jti", jti))
		d.bound(got, "the jti of somebody else")
		token = got.text("refresh_token")
	}
}

// Browser apps of the configured origins may send proofs and read nonces.
func TestDPoPAcrossOrigins(t *testing.T) {
	p := newIDP(t, func(c *server.Config) { c.AllowedOrigins = []string{"https://app.test"} })
	for _, path := range []string{"/oauth/token", "/oauth/userinfo"} {
		asked := p.send(p.request(http.MethodOptions, p.issuer+path, "", "Origin", "https://app.test",
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,dpop"))
		if allowed := asked.header.Get("Access-Control-Allow-Headers"); !strings.Contains(strings.ToLower(allowed), "dpop") {
			t.Errorf("%s: allowed headers %q", path, allowed)
		}
		got := p.send(p.request(http.MethodPost, p.issuer+path, "", "Origin", "https://app.test"))
		if exposed := got.header.Get("Access-Control-Expose-Headers"); !strings.Contains(strings.ToLower(exposed),
			"dpop-nonce") {
			t.Errorf("%s: exposed headers %q", path, exposed)
		}
	}
}

// userinfo shows an access token with a proof of d's.
func (d *prover) userinfo(method, token string, changes ...any) reply {
	d.p.t.Helper()
	return d.p.send(d.p.request(method, d.p.issuer+"/oauth/userinfo", "", "Authorization", "DPoP "+token, "DPoP",
		d.proof(method, "/oauth/userinfo", token, changes...)))
}

// RFC 9449 section 7: a token that is bound to a key is good with a proof of that key for that token, and never as
// Bearer.
func TestUserinfoWithDPoP(t *testing.T) {
	p := newIDP(t)
	d := p.informed()
	token := d.tokens("openid email").text("access_token")
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if got := d.userinfo(method, token); got.status != http.StatusOK || got.text("email") != userEmail ||
			got.header.Get("DPoP-Nonce") == "" {
			t.Errorf("%s: %d %s", method, got.status, got.raw)
		}
	}
	address := p.issuer + "/oauth/userinfo"
	scheme := p.request(http.MethodGet, address, "", "Authorization", "dpop "+token, "DPoP",
		d.proof(http.MethodGet, "/oauth/userinfo", token))
	if got := p.send(scheme); got.status != http.StatusOK {
		t.Errorf("scheme in lower case: %d %s", got.status, got.raw)
	}
	second := d.refresh(d.tokens("openid").text("refresh_token")).text("access_token")
	plain := p.tokens("scope", "openid").text("access_token")
	other := p.informed()
	replayed := d.proof(http.MethodGet, "/oauth/userinfo", token)
	show := func(scheme, token, proof string) reply {
		header := []string{"Authorization", scheme + " " + token}
		if proof != "" {
			header = append(header, "DPoP", proof)
		}
		return p.send(p.request(http.MethodGet, address, "", header...))
	}
	if got := show("DPoP", token, replayed); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	const bearer, dpop = `Bearer realm="warifu"`, `DPoP algs="ES256 RS256 PS256 EdDSA"`
	for rule, c := range map[string]struct {
		got           reply
		code          string
		first, second string
	}{
		"as Bearer": {show("Bearer", token, ""), "invalid_token", bearer, dpop},
		"as Bearer, with a proof": {show("Bearer", token, d.proof(http.MethodGet, "/oauth/userinfo", token)),
			"invalid_token", bearer, dpop},
		"in a form": {p.send(p.request(http.MethodPost, address,
			url.Values{"access_token": {token}}.Encode(), "Content-Type", formType)), "invalid_token", bearer, dpop},
		"in a form, with a proof": {p.send(p.request(http.MethodPost, address,
			url.Values{"access_token": {token}}.Encode(), "Content-Type", formType, "DPoP",
			d.proof(http.MethodPost, "/oauth/userinfo", token))), "invalid_token", bearer, dpop},
		"a Bearer token as DPoP": {show("DPoP", plain, d.proof(http.MethodGet, "/oauth/userinfo", plain)),
			"invalid_token", dpop, bearer},
		"garbage as DPoP": {show("DPoP", "garbage", d.proof(http.MethodGet, "/oauth/userinfo", "garbage")),
			"invalid_token", dpop, bearer},
		"no proof":              {show("DPoP", token, ""), "invalid_dpop_proof", dpop, bearer},
		"a proof that was used": {show("DPoP", token, replayed), "invalid_dpop_proof", dpop, bearer},
		"another key":           {other.userinfo(http.MethodGet, token), "invalid_token", dpop, bearer},
		"no ath":                {d.userinfo(http.MethodGet, token, "ath", nil), "invalid_dpop_proof", dpop, bearer},
		"ath of another token": {show("DPoP", token, d.proof(http.MethodGet, "/oauth/userinfo", second)),
			"invalid_dpop_proof", dpop, bearer},
		"ath that is the token": {d.userinfo(http.MethodGet, token, "ath", token), "invalid_dpop_proof", dpop,
			bearer},
		"htm of another request": {d.userinfo(http.MethodGet, token, "htm", "POST"), "invalid_dpop_proof", dpop,
			bearer},
		"htu of the token endpoint": {d.userinfo(http.MethodGet, token, "htu", p.issuer+"/oauth/token"),
			"invalid_dpop_proof", dpop, bearer},
		"no nonce":          {d.userinfo(http.MethodGet, token, "nonce", nil), "use_dpop_nonce", dpop, bearer},
		"a nonce of nobody": {d.userinfo(http.MethodGet, token, "nonce", "x"), "use_dpop_nonce", dpop, bearer},
		"a proof for the token endpoint": {show("DPoP", token, d.proof(http.MethodPost, "/oauth/token", "")),
			"invalid_dpop_proof", dpop, bearer},
	} {
		c.got.wants(t, rule, http.StatusUnauthorized, c.code)
		challenges := c.got.header.Values("WWW-Authenticate")
		if !slices.Equal(challenges, []string{c.first + `, error="` + c.code + `"`, c.second}) ||
			c.got.header.Get("DPoP-Nonce") == "" {
			t.Errorf("%s: challenges %q", rule, challenges)
		}
	}
	p.send(p.request(http.MethodPost, address, url.Values{"access_token": {token}}.Encode(), "Content-Type", formType,
		"Authorization", "DPoP "+token)).
		wants(t, "header and form", http.StatusBadRequest, "invalid_request")
	got := d.userinfo(http.MethodGet, d.tokens("threads:read").text("access_token"))
	got.wants(t, "without openid", http.StatusForbidden, "insufficient_scope")
	if want := dpop + `, error="insufficient_scope", scope="openid"`; got.header.Get("WWW-Authenticate") != want {
		t.Errorf("challenge %q", got.header.Get("WWW-Authenticate"))
	}
	if got := d.userinfo(http.MethodGet, token); got.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", got.status, got.raw)
	}
}

// RFC 9449 section 10: a code that was asked for with dpop_jkt is worth nothing without that key, and trying costs
// nothing.
func TestDPoPBindsCodes(t *testing.T) {
	p := newIDP(t)
	d, thief := p.informed(), p.informed()
	code := p.code("dpop_jkt", d.thumbprint())
	thief.exchange(code).wants(t, "another key", http.StatusBadRequest, "invalid_grant")
	p.exchange(code).wants(t, "no proof", http.StatusBadRequest, "invalid_grant")
	got := d.exchange(code)
	d.bound(got, "the key")
	thief.bound(thief.refresh(got.text("refresh_token")), "refresh by a client that authenticates, with another key")

	public := p.publicApp()
	d.p, thief.p = public, public
	code = public.publicCode("dpop_jkt", d.thumbprint())
	thief.exchange(code, "code_verifier", verifier).wants(t, "another key, public client", http.StatusBadRequest,
		"invalid_grant")
	got = d.exchange(code, "code_verifier", verifier)
	d.bound(got, "the key, public client")
	thief.refresh(got.text("refresh_token")).wants(t, "refresh with another key", http.StatusBadRequest, "invalid_grant")
}
