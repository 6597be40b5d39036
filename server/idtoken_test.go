package server_test

import (
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

var idTokenAlgs = []string{"RS256", "ES256", "EdDSA", "PS256"}

// verified checks a JWT against the published keys, with go-jose alone.
func (p *idp) verified(token, alg string) map[string]any {
	p.t.Helper()
	object, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		p.t.Fatalf("%s: %v", alg, err)
	}
	header := object.Signatures[0].Header
	keys := p.jwks().Key(header.KeyID)
	if len(keys) != 1 || keys[0].Algorithm != alg || len(header.ExtraHeaders) != 1 ||
		header.ExtraHeaders[jose.HeaderType] != "JWT" {
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
		q := p.as(p.register("app-"+strings.ToLower(alg)+registered, func(c *storage.Client) {
			c.IDTokenSignedResponseAlg = registered
		}))
		issued := q.tokens("scope", "openid threads:read", "nonce", "n-1")
		access := issued.text("access_token")
		claims := q.verified(issued.text("id_token"), alg)
		for name, want := range map[string]any{"iss": q.issuer, "sub": "user-ann", "aud": q.client.ID, "nonce": "n-1"} {
			if claims[name] != want {
				t.Errorf("%s %s: %v, want %v", alg, name, claims[name], want)
			}
		}
		if methods := texts(claims["amr"]); !slices.Equal(methods, []string{"pwd"}) || claims["auth_time"] == nil ||
			claims["sid"] != nil {
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
		q.verified(q.refresh(issued.text("refresh_token")).text("id_token"), alg)
	}
}

// A confused ID token: the claims of one kind of token under another type than it can have, by every key of ours.
// Access tokens may have the type JWT, and be signed by each of them; then their claims tell them from ID tokens.
func TestIDTokenNeverPassesAsAnAccessToken(t *testing.T) {
	p := newIDP(t)
	issued := p.tokens("scope", "openid threads:read")
	access, id := claimsOf(t, issued.text("access_token")), claimsOf(t, issued.text("id_token"))
	for use, alg := range map[string]jose.SignatureAlgorithm{storage.UseRS256: jose.RS256, storage.UseES256: jose.ES256,
		storage.UseEdDSA: jose.EdDSA} {
		k := p.signingKey(use)
		for rule, forged := range map[string]string{
			"ID token claims, typ JWT": signedBy(t, k.Private, alg, map[string]any{"typ": "JWT", "kid": k.Name()},
				id),
			"access claims, typ jwt": signedBy(t, k.Private, alg, map[string]any{"typ": "jwt", "kid": k.Name()},
				access),
			"access claims, no typ": signedBy(t, k.Private, alg, map[string]any{"kid": k.Name()}, access),
			"ID token claims, typ at+jwt": signedBy(t, k.Private, alg, map[string]any{"typ": "at+jwt", "kid": k.Name()},
				id),
			"ID token claims, application/at+jwt": signedBy(t, k.Private, alg, map[string]any{"typ": "application/at+jwt",
				"kid": k.Name()}, id),
		} {
			if p.good(forged) {
				t.Errorf("%s by %s: good", rule, alg)
			}
		}
		for _, typ := range []string{"at+jwt", "JWT"} {
			if !p.good(signedBy(t, k.Private, alg, map[string]any{"typ": typ, "kid": k.Name()}, access)) {
				t.Errorf("access claims, typ %s by %s: not good", typ, alg)
			}
		}
	}
}

// RSA costs more than all the rest, so it is made only where an ID token is due: with openid, on a refresh as well,
// unless the client does without.
func TestIDTokensComeWithOpenIDAlone(t *testing.T) {
	p := newIDP(t)
	without := p.tokens("scope", "threads:read")
	narrow := p.tokens("scope", "openid threads:read")
	never := p.as(p.register("never", func(c *storage.Client) { c.IDTokenOnRefresh = oauth.IDTokenNever }))
	first := never.tokens("scope", "openid threads:read")
	if first.text("id_token") == "" {
		t.Error("the first sign-in of a client that wants none on refreshes has no ID token")
	}
	for rule, got := range map[string]reply{
		"no openid": without, "its refresh": p.refresh(without.text("refresh_token")),
		"a refresh for less": p.refresh(narrow.text("refresh_token"), "scope", "threads:read"),
		"never":              never.refresh(first.text("refresh_token")),
	} {
		if got.status != http.StatusOK || got.json["id_token"] != nil {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
		if header, _ := takenApart(t, got.text("access_token")); header["alg"] != "ES256" {
			t.Errorf("%s: access token by %v", rule, header["alg"])
		}
	}
}

// The ID token of a refresh is about the same user and the same sign-in, and without a nonce (OpenID Connect Core 1.0
// section 12.2); what it says about the user is true when it is made. It costs one proposal and no read.
func TestRefreshBringsAnIDToken(t *testing.T) {
	p := newIDP(t)
	p.clock.begin()
	pairwise := p.as(p.register("pairwise", func(c *storage.Client) { c.SubjectType = oauth.SubjectPairwise }))
	keyed := p.as(p.register("es256", func(c *storage.Client) { c.IDTokenSignedResponseAlg = "ES256" }))
	for rule, q := range map[string]*idp{"RS256": p, "pairwise": pairwise, "ES256": keyed} {
		q.putUser(storage.User{ID: "user-ann", Username: "ann", Email: userEmail})
		issued := q.tokens("scope", "openid email", "nonce", "n-1", "acr_values", "urn:warifu:password")
		q.clock.forward(time.Minute)
		q.putUser(storage.User{ID: "user-ann", Username: "ann", Email: "new@app.test", EmailVerified: true})
		second := q.refresh(issued.text("refresh_token")) // finds another user than it knows, and decides once more
		var third reply
		if got := q.etcd.Count(func() {
			third = q.refresh(
				second.text("refresh_token"))
		}); got != (storagetest.Counts{Proposals: 1}) {
			t.Errorf("%s: %+v", rule, got)
		}
		first := claimsOf(t, issued.text("id_token"))
		if first["email"] != userEmail || first["nonce"] != "n-1" {
			t.Errorf("%s, at first: %v", rule, first)
		}
		for _, got := range []reply{second, third} {
			header, claims := takenApart(t, got.text("id_token"))
			for _, same := range []string{"iss", "sub", "aud", "auth_time", "amr", "acr"} {
				if first[same] == nil && same != "acr" || !reflect.DeepEqual(claims[same], first[same]) {
					t.Errorf("%s: %s is %v, and was %v", rule, same, claims[same], first[same])
				}
			}
			if claims["nonce"] != nil || claims["iat"] != first["iat"].(float64)+60 || claims["exp"] != first["exp"].(float64)+
				60 ||
				claims["email"] != "new@app.test" || claims["email_verified"] != true {
				t.Errorf("%s: %v", rule, claims)
			}
			if want := cmp.Or(q.client.IDTokenSignedResponseAlg, "RS256"); header["alg"] != want {
				t.Errorf("%s: signed with %v", rule, header["alg"])
			}
			ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: q.transport})
			provider, err := oidc.NewProvider(ctx, q.issuer)
			if err != nil {
				t.Fatal(err)
			}
			id, err := provider.Verifier(&oidc.Config{ClientID: q.client.ID, Now: q.clock.now}).Verify(ctx, got.text("id_token"))
			if err != nil {
				t.Fatalf("%s: %v", rule, err)
			}
			if err := id.VerifyAccessToken(got.text("access_token")); err != nil {
				t.Errorf("%s: %v", rule, err)
			}
		}
	}
}

// A sid is for clients that have an address for logouts, and means nothing to others: their users are asked before they
// are signed out.
func TestSessionIsNamedToClientsThatTakePartInLogouts(t *testing.T) {
	p := newIDP(t)
	for name, change := range map[string]func(*storage.Client){
		"back":  func(c *storage.Client) { c.BackchannelLogoutURI = "https://app.test/back" },
		"front": func(c *storage.Client) { c.FrontchannelLogoutURI = "https://app.test/front" },
		"after": func(c *storage.Client) { c.PostLogoutRedirectURIs = []string{afterLogout} },
	} {
		q := p.as(p.register(name, change))
		issued := q.tokens("scope", "openid")
		sid := claimsOf(t, issued.text("id_token"))["sid"]
		if again := claimsOf(t, q.refresh(issued.text("refresh_token")).text("id_token"))["sid"]; sid == nil || again != sid {
			t.Errorf("%s: %v, after a refresh %v", name, sid, again)
		}
	}
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	if claims := claimsOf(t, id); claims["sid"] != nil {
		t.Errorf("%v", claims)
	}
	if got := b.get(p.logoutURL("id_token_hint", id)); got.asks() != "decision" || !b.signedInHere() {
		t.Errorf("signed out unasked: %d", got.status)
	}
}

// The key is in the JWK Set as soon as a client asks for its algorithm, by its registration or its document: an app
// that reads the set when it signs somebody in for the first time, and keeps it, takes the first token that it gets.
func TestKeyIsPublishedBeforeItSigns(t *testing.T) {
	for name, become := range map[string]func(*idp, *documentServer){
		"registered": func(p *idp, _ *documentServer) {
			p.register("ps256", func(c *storage.Client) { c.IDTokenSignedResponseAlg = oauth.AlgPS256 })
		},
		"described": func(p *idp, s *documentServer) {
			s.says(s.document(map[string]any{"id_token_signed_response_alg": oauth.AlgPS256}))
			p.knows(s.id())
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := newDescribed(t)
			published := func() bool {
				return slices.ContainsFunc(p.jwks().Keys, func(k jose.JSONWebKey) bool { return k.Algorithm == oauth.AlgPS256 })
			}
			if published() {
				t.Error("a key that nobody needs")
			}
			if become(p, s); !published() {
				t.Error("the first token would be signed with a key that is not published")
			}
		})
	}
}

// Userinfo as a JWT for a client that registered an algorithm (OpenID Connect Core 1.0 section 5.3.2): it says from
// whom and for whom.
func TestSignedUserinfo(t *testing.T) {
	p := newIDP(t)
	for _, alg := range idTokenAlgs {
		q := p.as(p.register("app-"+strings.ToLower(alg), func(c *storage.Client) { c.UserinfoSignedResponseAlg = alg }))
		token := q.tokens("scope", "openid email").text("access_token")
		form := url.Values{"access_token": {token}}.Encode()
		for rule, req := range map[string]*http.Request{
			"GET": q.request(http.MethodGet, q.issuer+"/oauth/userinfo", "", "Authorization", "Bearer "+
				token, "Accept", "application/json"),
			"POST, form":        q.request(http.MethodPost, q.issuer+"/oauth/userinfo", form, "Content-Type", formType),
			"POST, with header": q.request(http.MethodPost, q.issuer+"/oauth/userinfo", "", "Authorization", "Bearer "+token),
		} {
			var got reply
			if counts := q.etcd.Count(func() { got = q.send(req) }); counts != (storagetest.Counts{Reads: 1}) {
				t.Errorf("%s, %s: %+v", alg, rule, counts)
			}
			if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/jwt" ||
				got.header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%s, %s: %d %v %s", alg, rule, got.status, got.header, got.raw)
			}
			claims := q.verified(got.raw, alg)
			for name, want := range map[string]any{"iss": q.issuer, "aud": q.client.ID, "sub": "user-ann", "email": userEmail,
				"email_verified": true} {
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
