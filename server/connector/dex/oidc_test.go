package dex

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server/connector"
)

// refused is the verdict that err is.
func refused(t *testing.T, err error) connector.RefusedError {
	t.Helper()
	var verdict *connector.RefusedError
	if !errors.As(err, &verdict) {
		t.Fatalf("no verdict: %v", err)
	}
	return *verdict
}

// faulty checks that err is a fault.
func faulty(t *testing.T, err error) {
	t.Helper()
	var verdict *connector.RefusedError
	if err == nil || errors.As(err, &verdict) {
		t.Fatalf("no fault: %v", err)
	}
}

func TestOIDCSignsIn(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, map[string]any{"scopes": []string{"profile", "email", "offline_access"}}))
	who, err := signIn(t, c, ask())
	want := connector.Identity{UserID: "ada", Name: "Ada Lovelace", Email: "ada@example.com", EmailVerified: true}
	if err != nil || !reflect.DeepEqual(who, want) {
		t.Errorf("%+v, %v", who, err)
	}
	for name, want := range map[string]string{
		"scope": "openid profile email", "response_type": "code", "code_challenge_method": "S256", "prompt": "",
		"max_age": "", "access_type": "", "login_hint": "",
	} {
		if got := p.auth.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if user, secret, is := p.tokens[0].BasicAuth(); !is || user != url.QueryEscape(clientID) ||
		secret != url.QueryEscape(clientSecret) {
		t.Errorf("no basic authentication")
	}
}

// What the app asks reaches the provider.
func TestOIDCPassesOn(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	question := ask()
	question.Fresh, question.SelectAccount, question.LoginHint, question.UILocales = true, true, "ada", "ja en"
	c := open(t, oidcSpec(t, p, map[string]any{"acrValues": []string{"gold", "silver"}, "promptType": "consent login"}))
	if _, err := signIn(t, c, question); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"prompt": "login select_account consent", "max_age": "0", "login_hint": "ada", "ui_locales": "ja en",
		"acr_values": "gold silver", "state": question.State, "nonce": question.Nonce,
	} {
		if got := p.auth.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	never := open(t, oidcSpec(t, p, map[string]any{"promptType": "none"}))
	if _, err := signIn(t, never, ask()); err != nil || p.auth.Get("prompt") != "none" {
		t.Errorf("prompt is %q, %v", p.auth.Get("prompt"), err)
	}
	if _, err := signIn(t, never, question); err != nil || p.auth.Get("prompt") != "login select_account" {
		t.Errorf("prompt is %q, %v", p.auth.Get("prompt"), err)
	}
}

func TestOIDCTakesAFormPost(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, nil))
	question := ask()
	away, err := c.Start(context.Background(), question)
	if err != nil {
		t.Fatal(err)
	}
	fields := callbackOf(t, away.URL).URL.RawQuery
	r := httptest.NewRequest(http.MethodPost, callback, strings.NewReader(fields))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if who, err := c.Finish(context.Background(), question, away.Keep, r); err != nil || who.UserID != "ada" {
		t.Errorf("%+v, %v", who, err)
	}
}

// An issuer that names itself, and an ID token that is to several and was issued to us, are as they should be.
func TestOIDCBelieves(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.set(func() {
		p.metadata = map[string]any{"authorization_response_iss_parameter_supported": true}
		p.answer = map[string]string{"iss": p.URL}
		p.claims = map[string]any{"aud": []string{"x", clientID}, "azp": clientID, "at_hash": "P3Vg5L4nG8wwEBcBR-5s2Q"}
	})
	c := open(t, oidcSpec(t, p, nil))
	if _, err := signIn(t, c, ask()); err == nil || !strings.Contains(err.Error(), "at_hash") {
		t.Errorf("at_hash: %v", err)
	}
	p.set(func() { delete(p.claims, "at_hash") })
	if _, err := signIn(t, c, ask()); err != nil {
		t.Error(err)
	}
}

// How and when people prove who they are is told only if the configuration trusts the provider in that.
func TestOIDCTrustUpstream(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	when := time.Now().Add(-time.Minute).Unix()
	p.set(func() {
		p.claims = map[string]any{"amr": []string{"hwk", "user"}, "acr": "gold", "auth_time": when}
	})
	s := oidcSpec(t, p, nil)
	who, err := signIn(t, open(t, s), ask())
	if err != nil || who.AMR != nil || who.ACR != "" || !who.AuthTime.IsZero() {
		t.Errorf("%+v, %v", who, err)
	}
	s.TrustUpstream = true
	who, err = signIn(t, open(t, s), ask())
	if err != nil || !slices.Equal(who.AMR, []string{"hwk", "user"}) || who.ACR != "gold" ||
		who.AuthTime.Unix() != when {
		t.Errorf("%+v, %v", who, err)
	}
	p.set(func() { p.claims = map[string]any{"auth_time": time.Now().Add(time.Hour).Unix()} })
	if who, err = signIn(t, open(t, s), ask()); err != nil || !who.AuthTime.IsZero() {
		t.Errorf("an auth_time of the future: %v, %v", who.AuthTime, err)
	}
}

// Keys that are new are fetched when a token says that it is signed with one.
func TestOIDCKeysRotate(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, nil))
	if _, err := signIn(t, c, ask()); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		next, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		p.set(func() { p.signer, p.kid = next, "next" }) // the second time under the same id
		if _, err := signIn(t, c, ask()); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// The discovery document and the keys are read again every now and then. Who signs in meanwhile does not wait for that,
// and is not harmed if it does not work; a key that the provider has taken back counts no longer.
func TestOIDCReadsTheDiscoveryDocumentAgain(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, nil))
	if _, err := signIn(t, c, ask()); err != nil {
		t.Fatal(err)
	}
	again := func() {
		t.Helper()
		c.provider.mu.Lock()
		c.provider.again = time.Time{}
		c.provider.mu.Unlock()
		if _, err := c.provider.get(context.Background()); err != nil {
			t.Error(err)
		}
		c.provider.mu.Lock()
		opening := c.provider.opening
		c.provider.mu.Unlock()
		if opening != nil {
			<-opening
		}
	}
	const document = "/.well-known/openid-configuration"
	p.set(func() { p.handle[document] = http.NotFound })
	again()
	if _, err := signIn(t, c, ask()); err != nil {
		t.Errorf("while it cannot be read: %v", err)
	}
	next, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	stolen := ask()
	p.set(func() {
		delete(p.handle, document)
		p.metadata = map[string]any{"code_challenge_methods_supported": nil}
		p.raw = p.idToken(stolen.Nonce)
		p.signer, p.kid = next, "2"
	})
	if _, err := signIn(t, c, stolen); err != nil {
		t.Errorf("with a key that is still known: %v", err)
	}
	again()
	_, err = signIn(t, c, stolen)
	if verdict := refused(t, err); !strings.Contains(verdict.Reason, "signature") || p.auth.Has("code_challenge") {
		t.Errorf("%v; asked with %v", verdict, p.auth)
	}
}

// Keys that are of no use here are no reason to have none: curves that hardly anybody knows, keys for encryption, and
// what is no key at all.
func TestOIDCKeysOfNoUse(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.set(func() {
		p.handle["/keys"] = func(w http.ResponseWriter, _ *http.Request) {
			own, err := jose.JSONWebKey{Key: p.key.Public(), KeyID: "1"}.MarshalJSON()
			if err != nil {
				panic(err)
			}
			writeJSON(w, map[string]any{"keys": []any{
				map[string]any{"kty": "EC", "crv": "secp256k1", "kid": "1", "x": "AA", "y": "AA"},
				map[string]any{"kty": "OKP", "crv": "Ed448", "kid": "1", "x": "AA"},
				map[string]any{"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "1", "n": "AQAB", "e": "AQAB"},
				map[string]any{"kty": "oct", "kid": "1", "k": "c2VjcmV0"},
				"no key", map[string]any{}, json.RawMessage(own),
			}})
		}
	})
	c := open(t, oidcSpec(t, p, nil))
	if _, err := signIn(t, c, ask()); err != nil {
		t.Error(err)
	}
	if len(c.provider.value.keys.keys) != 1 {
		t.Errorf("%d keys are kept", len(c.provider.value.keys.keys))
	}
}

// Userinfo may be signed (OpenID Connect Core 1.0 section 5.3.2), by the provider.
func TestOIDCSignedUserinfo(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, map[string]any{"getUserInfo": true}))
	tells := func(signed string) (connector.Identity, error) {
		p.set(func() {
			p.handle["/userinfo"] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/jwt")
				_, _ = w.Write([]byte(signed))
			}
		})
		return signIn(t, c, ask())
	}
	signed := p.sign(map[string]any{"sub": "ada", "name": "Ada King"})
	if who, err := tells(signed); err != nil || who.Name != "Ada King" {
		t.Errorf("%+v, %v", who, err)
	}
	_, err := tells(p.sign(map[string]any{"sub": "eve"}))
	_ = refused(t, err)
	_, err = tells(signed[:len(signed)-8] + "AAAAAAAA")
	_ = refused(t, err)
	p.set(func() { p.metadata = map[string]any{"userinfo_endpoint": nil} })
	_, err = signIn(t, open(t, oidcSpec(t, p, map[string]any{"getUserInfo": true})), ask())
	faulty(t, err)
}

// The secret is shown in the header, and in the body to whom that is not enough; a code is shown once.
func TestOIDCClientAuthentication(t *testing.T) {
	t.Parallel()
	inBody := func(r *http.Request) bool { return r.Form.Get("client_secret") == clientSecret }
	posted := func(p *provider) (ways []bool) {
		for _, r := range p.tokens {
			ways = append(ways, inBody(r))
		}
		return ways
	}
	for name, c := range map[string]struct {
		config, metadata map[string]any
		ways             []bool
	}{
		"usual":  {nil, nil, []bool{false}},
		"by key": {map[string]any{"basicAuthUnsupported": true}, nil, []bool{true}},
		"by metadata": {
			nil, map[string]any{"token_endpoint_auth_methods_supported": []string{"client_secret_post"}}, []bool{true}},
		"public": {map[string]any{"clientSecret": ""}, nil, []bool{false}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.set(func() { p.metadata = c.metadata })
			_, err := signIn(t, open(t, oidcSpec(t, p, c.config)), ask())
			if err != nil || !slices.Equal(posted(p), c.ways) ||
				name == "public" && p.tokens[0].Form.Get("client_id") != clientID {
				t.Errorf("%v, %v", posted(p), err)
			}
		})
	}
	p := newProvider(t)
	p.set(func() {
		p.handle["/token"] = func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			if inBody(r) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.token(w, r)
				return
			}
			writeError(w, http.StatusUnauthorized, "invalid_client")
		}
	})
	c := open(t, oidcSpec(t, p, nil))
	for range 2 {
		if _, err := signIn(t, c, ask()); err != nil {
			t.Fatal(err)
		}
	}
	tokens := 0
	for _, path := range p.asked {
		if path == "/token" {
			tokens++
		}
	}
	if tokens != 3 {
		t.Errorf("%d requests for two sign-ins", tokens)
	}
}

func TestOIDCRefresh(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.set(func() {
		p.metadata = map[string]any{"scopes_supported": []string{"openid", "offline_access"}}
		p.response = map[string]any{"refresh_token": "first"}
	})
	s := oidcSpec(t, p, map[string]any{"insecureEnableGroups": true, "allowedGroups": []string{"staff", "crew"}})
	p.set(func() { p.claims = map[string]any{"groups": []string{"staff", "other"}} })
	if who, err := signIn(t, open(t, s), ask()); err != nil || who.Data != nil {
		t.Errorf("kept a refresh token that nobody uses: %q, %v", who.Data, err)
	}
	s.Ask = time.Hour
	c := open(t, s)
	who, err := signIn(t, c, ask())
	if err != nil || !strings.Contains(string(who.Data), "first") {
		t.Fatalf("%q, %v", who.Data, err)
	}
	for name, want := range map[string]string{
		"scope": "openid profile email offline_access", "access_type": "offline", "prompt": "consent",
	} {
		if got := p.auth.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	refresh := func(change func()) (connector.Identity, error) {
		p.set(change)
		return c.Refresh(context.Background(), who)
	}
	now, err := refresh(func() { p.response = map[string]any{"refresh_token": "second"} })
	if err != nil || now.Name != "Ada Lovelace" || !strings.Contains(string(now.Data), "second") {
		t.Errorf("without an ID token: %+v, %v", now, err)
	}
	now, err = refresh(func() {
		p.response = nil
		p.claims = map[string]any{"name": "Ada King", "groups": []string{"crew"}}
		p.raw = p.idToken("")
	})
	if err != nil || now.Name != "Ada King" || !slices.Equal(now.Groups, []string{"crew"}) ||
		!strings.Contains(string(now.Data), "first") {
		t.Errorf("with an ID token: %+v, %v", now, err)
	}
	_, err = refresh(func() { p.claims = map[string]any{"groups": []string{"other"}}; p.raw = p.idToken("") })
	_ = refused(t, err)
	for name, claims := range map[string]map[string]any{
		"about another person": {"sub": "eve"}, "of another issuer": {"iss": "x"}, "without a name": {"name": nil},
	} {
		if _, err = refresh(func() { p.claims = claims; p.raw = p.idToken("") }); err == nil {
			t.Error(name)
		}
		faulty(t, err)
	}
	now, err = refresh(func() { p.response = map[string]any{"refresh_token": "third"} }) // with the last ID token
	if err != nil || now.Name != who.Name || !strings.Contains(string(now.Data), "third") {
		t.Errorf("a refresh token that is new, and claims that are faulty: %+v, %v", now, err)
	}
	says := func(status int, code string) error {
		_, err := refresh(func() {
			p.handle["/token"] = func(w http.ResponseWriter, _ *http.Request) {
				writeError(w, status, code)
			}
		})
		return err
	}
	_ = refused(t, says(http.StatusBadRequest, "invalid_grant"))
	faulty(t, says(http.StatusUnauthorized, "invalid_client"))
	faulty(t, says(http.StatusInternalServerError, "server_error"))
	who.Data = nil
	_, err = c.Refresh(context.Background(), who)
	faulty(t, err)
}

func TestOIDCSignOut(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	out, err := open(t, oidcSpec(t, p, nil)).SignOutURL(context.Background(), "https://warifu.example/out?a=b")
	want := p.URL + "/end?a=b&client_id=warifu&post_logout_redirect_uri=https%3A%2F%2Fwarifu.example%2Fout%3Fa%3Db"
	if err != nil || out != want {
		t.Errorf("%q, %v", out, err)
	}
	p.set(func() { p.metadata = map[string]any{"end_session_endpoint": nil} })
	if out, err := open(t, oidcSpec(t, p, nil)).SignOutURL(context.Background(), "x"); err != nil || out != "" {
		t.Errorf("%q, %v", out, err)
	}
	p.set(func() { p.metadata = map[string]any{"end_session_endpoint": "javascript:alert(1)"} })
	_, err = open(t, oidcSpec(t, p, nil)).SignOutURL(context.Background(), "x")
	faulty(t, err)
}

func TestOIDCConfiguration(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	for path, config := range map[string]map[string]any{
		"issuer":        {"issuer": nil},
		"clientID":      {"clientID": nil},
		"redirectURI":   {"redirectURI": "https://warifu.example/callback/wp"},
		"hostedDomains": {"hostedDomains": []string{"example.com"}},
		"pkceChallenge": {"pkceChallenge": "s256"},
		"rootCAs[0]":    {"rootCAs": []string{"no such file"}},
		"claimModifications.filterGroupClaims.groupsFilter": {
			"claimModifications": map[string]any{"filterGroupClaims": map[string]any{"groupsFilter": "("}}},
		"providerDiscoveryOverrides.tokenURL": {
			"providerDiscoveryOverrides": map[string]any{"tokenURL": "javascript:1"}},
	} {
		made, faults := New(oidcSpec(t, p, config))
		if len(faults) != 1 || faults[0].Path != path || faults[0].Message == "" || made.Redirect != nil {
			t.Errorf("%s: %+v", path, faults)
		}
		if path == "redirectURI" && faults[0].Suggestion != callback {
			t.Errorf("suggests %q", faults[0].Suggestion)
		}
	}
	if c := open(t, oidcSpec(t, p, map[string]any{"redirectURI": nil})); c.callback != callback {
		t.Errorf("the callback is %q", c.callback)
	}
	if len(p.asked) > 0 {
		t.Error("asked the provider:", p.asked)
	}
}

// Overrides take the place of what the discovery document says, and an alias that of the issuer.
func TestOIDCOverrides(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.set(func() {
		p.metadata = map[string]any{"issuer": "https://alias.example"}
		for _, endpoint := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"} {
			p.metadata[endpoint] = "http://x.example"
		}
		p.claims = map[string]any{"iss": "https://alias.example"}
		p.answer = map[string]string{"iss": "https://alias.example"}
	})
	c := open(t, oidcSpec(t, p, map[string]any{
		"issuerAlias": "https://alias.example", "getUserInfo": true, "pkceChallenge": "S256",
		"providerDiscoveryOverrides": map[string]any{"tokenURL": p.URL + "/token", "authURL": p.URL + "/auth",
			"jwksURL": p.URL + "/keys", "userInfoURL": p.URL + "/userinfo", "endSessionURL": p.URL + "/over"},
	}))
	if _, err := signIn(t, c, ask()); err != nil {
		t.Error(err)
	}
	if out, err := c.SignOutURL(context.Background(), ""); err != nil || out != p.URL+"/over?client_id=warifu" {
		t.Errorf("%q, %v", out, err)
	}
}
