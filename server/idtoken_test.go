package server_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

var idTokenAlgs = []string{"RS256", "ES256", "EdDSA"}

// verified checks a JWT against the published keys, with go-jose alone.
func (p *idp) verified(token, alg string) map[string]any {
	p.t.Helper()
	object, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		p.t.Fatalf("%s: %v", alg, err)
	}
	header := object.Signatures[0].Header
	keys := p.jwks().Key(header.KeyID)
	if len(keys) != 1 || keys[0].Algorithm != alg || len(header.ExtraHeaders) != 1 || header.ExtraHeaders[jose.HeaderType] != "JWT" {
		p.t.Fatalf("%s: header %+v, keys %v", alg, header, keys)
	}
	payload, err := object.Verify(keys[0])
	if err != nil {
		p.t.Fatalf("%s: %v", alg, err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		p.t.Fatal(err)
	}
	return claims
}

// Each client gets ID tokens of the algorithm that it registered, RS256 when it registered none.
func TestIDTokenAlgorithms(t *testing.T) {
	p := newIDP(t)
	for _, registered := range append([]string{""}, idTokenAlgs...) {
		alg := registered
		if alg == "" {
			alg = "RS256"
		}
		q := p.as(p.register("app-"+strings.ToLower(alg)+registered, func(c *storage.Client) { c.IDTokenSignedResponseAlg = registered }))
		issued := q.tokens("scope", "openid threads:read", "nonce", "n-1")
		access := issued.text("access_token")
		claims := q.verified(issued.text("id_token"), alg)
		for name, want := range map[string]any{"iss": q.issuer, "sub": "user-ann", "aud": q.client.ID, "nonce": "n-1"} {
			if claims[name] != want {
				t.Errorf("%s %s: %v, want %v", alg, name, claims[name], want)
			}
		}
		if methods := texts(claims["amr"]); !slices.Equal(methods, []string{"pwd"}) || claims["auth_time"] == nil || claims["sid"] == nil {
			t.Errorf("%s: %v", alg, claims)
		}
		half := func(sum []byte) string { return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2]) }
		small, large := sha256.Sum256([]byte(access)), sha512.Sum512([]byte(access))
		want := half(small[:])
		if alg == "EdDSA" {
			want = half(large[:])
		}
		if claims["at_hash"] != want {
			t.Errorf("%s: at_hash %v, want %s", alg, claims["at_hash"], want)
		}
		// The documented way of coreos/go-oidc, which takes the algorithms from discovery.
		ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: q.transport})
		provider, err := oidc.NewProvider(ctx, q.issuer)
		if err != nil {
			t.Fatal(err)
		}
		id, err := provider.Verifier(&oidc.Config{ClientID: q.client.ID}).Verify(ctx, issued.text("id_token"))
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if err := id.VerifyAccessToken(access); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		// An ID token is for one client, and is no access token: whatever signs it, its type says so.
		if q.good(issued.text("id_token")) {
			t.Errorf("%s: the ID token passes as an access token", alg)
		}
		if again := q.refresh(issued.text("refresh_token")); again.text("id_token") != "" {
			t.Errorf("%s: an ID token that nobody asked for", alg)
		}
	}
}

// A confused ID token: claims of an access token under the type of an ID token, and the other way round, by every key of ours.
func TestIDTokenNeverPassesAsAnAccessToken(t *testing.T) {
	p := newIDP(t)
	issued := p.tokens("scope", "openid threads:read")
	access, id := claimsOf(t, issued.text("access_token")), claimsOf(t, issued.text("id_token"))
	for use, alg := range map[string]jose.SignatureAlgorithm{storage.UseRS256: jose.RS256, storage.UseES256: jose.ES256, storage.UseEdDSA: jose.EdDSA} {
		k := p.signingKey(use)
		for rule, forged := range map[string]string{
			"access claims, typ JWT":              signedBy(t, k.Private, alg, map[string]any{"typ": "JWT", "kid": k.Name()}, access),
			"access claims, typ jwt":              signedBy(t, k.Private, alg, map[string]any{"typ": "jwt", "kid": k.Name()}, access),
			"access claims, no typ":               signedBy(t, k.Private, alg, map[string]any{"kid": k.Name()}, access),
			"ID token claims, typ at+jwt":         signedBy(t, k.Private, alg, map[string]any{"typ": "at+jwt", "kid": k.Name()}, id),
			"ID token claims, application/at+jwt": signedBy(t, k.Private, alg, map[string]any{"typ": "application/at+jwt", "kid": k.Name()}, id),
		} {
			if p.good(forged) {
				t.Errorf("%s by %s: good", rule, alg)
			}
		}
		// Only the key of access tokens signs them.
		forged := signedBy(t, k.Private, alg, map[string]any{"typ": "at+jwt", "kid": k.Name()}, access)
		if p.good(forged) != (use == storage.UseES256) {
			t.Errorf("access claims by %s: %v", alg, p.good(forged))
		}
	}
}

// RSA costs more than all the rest, so it is made only where an ID token of a client that wants it is due.
func TestUserinfoAndRefreshMakeNoIDToken(t *testing.T) {
	p := newIDP(t)
	issued := p.tokens("scope", "openid threads:read")
	for rule, got := range map[string]reply{
		"refresh": p.refresh(issued.text("refresh_token")), "no openid": p.tokens("scope", "threads:read"),
	} {
		if got.status != http.StatusOK || got.json["id_token"] != nil {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
		if header, _ := takenApart(t, got.text("access_token")); header["alg"] != "ES256" {
			t.Errorf("%s: access token by %v", rule, header["alg"])
		}
	}
}

// Userinfo as a JWT for a client that registered an algorithm (OpenID Connect Core 1.0 section 5.3.2): it says from whom and for whom.
func TestSignedUserinfo(t *testing.T) {
	p := newIDP(t)
	for _, alg := range idTokenAlgs {
		q := p.as(p.register("app-"+strings.ToLower(alg), func(c *storage.Client) { c.UserinfoSignedResponseAlg = alg }))
		token := q.tokens("scope", "openid email").text("access_token")
		form := url.Values{"access_token": {token}}.Encode()
		for rule, req := range map[string]*http.Request{
			"GET":               q.request(http.MethodGet, q.issuer+"/oauth/userinfo", "", "Authorization", "Bearer "+token, "Accept", "application/json"),
			"POST, form":        q.request(http.MethodPost, q.issuer+"/oauth/userinfo", form, "Content-Type", formType),
			"POST, with header": q.request(http.MethodPost, q.issuer+"/oauth/userinfo", "", "Authorization", "Bearer "+token),
		} {
			var got reply
			if counts := q.etcd.Count(func() { got = q.send(req) }); counts != (storagetest.Counts{Reads: 1}) {
				t.Errorf("%s, %s: %+v", alg, rule, counts)
			}
			if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/jwt" || got.header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%s, %s: %d %v %s", alg, rule, got.status, got.header, got.raw)
			}
			claims := q.verified(got.raw, alg)
			for name, want := range map[string]any{"iss": q.issuer, "aud": q.client.ID, "sub": "user-ann", "email": userEmail, "email_verified": true} {
				if claims[name] != want {
					t.Errorf("%s %s: %v, want %v", alg, name, claims[name], want)
				}
			}
			if len(claims) != 5 || q.good(got.raw) {
				t.Errorf("%s: %v", alg, claims)
			}
		}
		q.userinfo("garbage").wants(t, "errors are JSON", http.StatusUnauthorized, "invalid_token")
		ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: q.transport})
		provider, err := oidc.NewProvider(ctx, q.issuer)
		if err != nil {
			t.Fatal(err)
		}
		info, err := provider.UserInfo(ctx, bearer(token))
		if err != nil || info.Subject != "user-ann" || info.Email != userEmail {
			t.Errorf("go-oidc: %+v, %v", info, err)
		}
	}
}
