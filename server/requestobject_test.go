package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/storage"
)

// unsigned is a request object without a signature.
func unsigned(t testing.TB, claims map[string]any) string {
	return part(t, map[string]any{"alg": "none"}) + "." + part(t, claims) + "."
}

// objectURL is a request that has nothing in the query but what OpenID Connect Core 1.0 section 6.1 wants there.
func (p *idp) objectURL(object string, more ...string) string {
	params := url.Values{"client_id": {p.client.ID}, "response_type": {"code"}, "scope": {"openid"}, "request": {object}}
	for i := 0; i < len(more); i += 2 {
		params.Set(more[i], more[i+1])
	}
	return p.issuer + "/oauth/authorize?" + params.Encode()
}

// asked are the claims of a request object, with changes; nil leaves a claim out.
func (p *idp) asked(changes map[string]any) map[string]any {
	claims := map[string]any{
		"iss": p.client.ID, "aud": p.issuer, "client_id": p.client.ID, "response_type": "code", "redirect_uri": callback,
		"scope": "openid threads:read", "state": "state-o", "nonce": "nonce-o",
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// dated are claims with the times that a client has to give which signs.
func (p *idp) dated(claims map[string]any) map[string]any {
	now := p.clock.now()
	with := map[string]any{"nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	maps.Copy(with, claims)
	return with
}

// withKeys is p's client with the keys of this test, and the keys by algorithm.
func (p *idp) withKeys() map[string]crypto.Signer {
	p.t.Helper()
	keys := testKeys()
	p.update("my-app", func(c *storage.Client) {
		c.JWKS = jwksOf(p.t,
			jose.JSONWebKey{Key: keys["RS256"].Public(), KeyID: "rsa"}, jose.JSONWebKey{Key: keys["ES256"].Public(),
				KeyID: "ec"},
			jose.JSONWebKey{Key: keys["EdDSA"].Public(), KeyID: "ed"})
	})
	return keys
}

func TestRequestObjects(t *testing.T) {
	p := newIDP(t)
	keys := p.withKeys()
	b := p.browser()
	b.code("scope", "openid threads:read")
	objects := map[string]string{"none": unsigned(t, p.asked(nil))}
	for alg, key := range keys {
		objects[alg] = signedBy(t, key, jose.SignatureAlgorithm(alg), map[string]any{"typ": "oauth-authz-req+jwt"},
			p.asked(nil))
	}
	for alg, object := range objects {
		got := b.get(p.objectURL(object))
		code := b.answered(got, alg)
		if q := got.location.Query(); q.Get("state") != "state-o" {
			t.Errorf("%s: state %q", alg, q.Get("state"))
		}
		if issued := p.exchange(code); issued.text("scope") != "openid threads:read" ||
			claimsOf(t, issued.text("id_token"))["nonce"] != "nonce-o" {
			t.Errorf("%s: %s", alg, issued.raw)
		}
	}
	// What is in the object wins; what is not there comes from the query.
	got := b.get(p.objectURL(unsigned(t, p.asked(map[string]any{"state": nil})), "state", "state-q", "nonce", "nonce-q",
		"redirect_uri", "http://localhost:1/"))
	code := b.answered(got, "both")
	if !strings.HasPrefix(got.location.String(), callback+"?") || got.location.Query().Get("state") != "state-q" {
		t.Errorf("answered at %s", got.location)
	}
	if issued := p.exchange(code); claimsOf(t, issued.text("id_token"))["nonce"] != "nonce-o" {
		t.Errorf("%s", issued.raw)
	}
	// Values of other kinds than text.
	for rule, claims := range map[string]map[string]any{
		"max_age as a number": {"max_age": 100000},
		"claims as an object": {"claims": map[string]any{"id_token": map[string]any{"acr": nil}}},
		"claims as text":      {"claims": `{"id_token": {"acr": null}}`},
		"aud as a list":       {"aud": []string{"https://other.test", p.issuer}},
		"only what must be":   {"iss": nil, "aud": nil, "client_id": nil, "response_type": nil, "scope": nil, "nonce": nil},
		"times": {"exp": time.Now().Add(time.Minute).Unix(), "nbf": time.Now().Add(-time.Minute).Unix(),
			"iat": 1, "jti": "x"},
		"parameters of nobody":  {"unknown": "x"},
		"a resource in a list":  {"resource": []string{p.issuer}},
		"a resource as text":    {"resource": p.issuer},
		"the kind of a request": {"prompt": "none"},
	} {
		b.answered(b.get(p.objectURL(unsigned(t, p.asked(claims)))), rule)
	}
	form := b.posted(b.get(p.objectURL(unsigned(t, p.asked(map[string]any{"response_mode": "form_post"})))), callback)
	if form.Get("code") == "" {
		t.Errorf("form_post: %v", form)
	}
	if got := p.browser().get(p.objectURL(unsigned(t, p.asked(map[string]any{"login_hint": "<b>ann",
		"max_age": 1})))); got.asks() != "password" || !strings.Contains(got.body, `value="&lt;b&gt;ann"`) {
		t.Errorf("login_hint: %d\n%s", got.status, shown(got.body))
	}
	got = b.follow(b.post(p.issuer+"/oauth/authorize", url.Values{"client_id": {p.client.ID}, "response_type": {"code"},
		"scope": {"openid"}, "request": {objects["ES256"]}}))
	b.answered(got, "by POST")
}

// A request object that is not good is told to the client where the query names a good redirect URI, to the user where
// not.
func TestBadRequestObjects(t *testing.T) {
	p := newIDP(t)
	keys := p.withKeys()
	b := p.browser()
	b.code("scope", "openid threads:read")
	sign := func(alg string, header map[string]any, claims any) string {
		return signedBy(t, keys[alg], jose.SignatureAlgorithm(alg), header, claims)
	}
	es := func(claims map[string]any) string { return sign("ES256", nil, p.asked(claims)) }
	genuine := es(nil)
	parts := strings.Split(genuine, ".")
	public, err := json.Marshal(jose.JSONWebKey{Key: keys["RS256"].Public(), KeyID: "rsa"})
	if err != nil {
		t.Fatal(err)
	}
	now := p.clock.now()
	for rule, object := range map[string]string{
		"garbage":                    "x",
		"a request object's address": "https://evil.test/r",
		"empty parts":                "..",
		"no header":                  "." + parts[1] + "." + parts[2],
		"a header that is a list":    part(t, []string{"none"}) + "." + parts[1] + ".",
		"claims that are a list":     part(t, map[string]any{"alg": "none"}) + "." + part(t, []string{"x"}) + ".",
		"claims that are null":       part(t, map[string]any{"alg": "none"}) + "." + part(t, nil) + ".",
		"alg none with a signature":  part(t, map[string]any{"alg": "none"}) + "." + parts[1] + "." + parts[2],
		"alg None":                   part(t, map[string]any{"alg": "None"}) + "." + parts[1] + ".",
		"no alg":                     part(t, map[string]any{}) + "." + parts[1] + ".",
		"no signature":               parts[0] + "." + parts[1] + ".",
		"another payload": parts[0] + "." + part(t, p.asked(map[string]any{"scope": "openid runs:write"})) +
			"." + parts[2],
		"HS256 with the public key":    signedBy(t, public, jose.HS256, nil, p.asked(nil)),
		"HS256 with the client secret": signedBy(t, []byte(p.secret), jose.HS256, nil, p.asked(nil)),
		"signed by nobody known":       signedBy(t, strangersKey(t), jose.ES256, nil, p.asked(nil)),
		"embedded jwk": signedBy(t, strangersKey(t), jose.ES256,
			map[string]any{"jwk": map[string]any{"kty": "EC"}}, p.asked(nil)),
		"critical header":        sign("ES256", map[string]any{"crit": []string{"x"}, "x": 1}, p.asked(nil)),
		"typ of an access token": sign("ES256", map[string]any{"typ": "at+jwt"}, p.asked(nil)),
		"typ of a DPoP proof":    sign("ES256", map[string]any{"typ": "dpop+jwt"}, p.asked(nil)),
		"PBES2": part(t, map[string]any{"alg": "PBES2-HS256+A128KW", "enc": "A128GCM",
			"p2c": 1<<31 - 1, "p2s": "AAAAAAAAAAA"}) +
			".AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA",
		"many dots":                strings.Repeat(".", 8<<10),
		"of another client":        es(map[string]any{"client_id": "other"}),
		"iss of another client":    es(map[string]any{"iss": "other"}),
		"sub of the client":        es(map[string]any{"sub": p.client.ID}),
		"aud of another server":    es(map[string]any{"aud": "https://evil.test"}),
		"aud of others in a list":  es(map[string]any{"aud": []string{"https://evil.test", p.issuer + "/"}}),
		"aud is a number":          es(map[string]any{"aud": 1}),
		"expired":                  es(map[string]any{"exp": now.Add(-time.Second).Unix()}),
		"exp is text":              es(map[string]any{"exp": "x"}),
		"not yet":                  es(map[string]any{"nbf": now.Add(time.Hour).Unix()}),
		"another response type":    es(map[string]any{"response_type": "code id_token"}),
		"a request object within":  es(map[string]any{"request": genuine}),
		"request_uri within":       es(map[string]any{"request_uri": "https://evil.test/"}),
		"a parameter that is true": es(map[string]any{"nonce": true}),
		"a parameter that is null": part(t, map[string]any{"alg": "none"}) + "." +
			part(t, map[string]any{"nonce": nil, "redirect_uri": callback}) + ".",
		"a parameter that is nested": es(map[string]any{"state": []any{[]string{"x"}}}),
		"a claim twice": part(t, map[string]any{"alg": "none"}) + "." + rawPart(`{"redirect_uri":"`+callback+
			`","scope":"openid","scope":"threads:read"}`) + ".",
		"not closed": part(t, map[string]any{"alg": "none"}) + "." + rawPart(`{"redirect_uri":"`+
			callback+`"`) + ".",
		"nested deep": part(t, map[string]any{"alg": "none"}) + "." +
			rawPart(strings.Repeat(`{"a":`, 1500)) + ".",
		"an access token of this server": p.tokens("scope", "openid").text("access_token"),
	} {
		p.redirected(b.get(p.objectURL(object, "redirect_uri", callback)), rule, "invalid_request_object")
		got := b.get(p.objectURL(object))
		got.wants(t, rule+", and no redirect URI beside it", http.StatusBadRequest, "invalid_request_object")
	}
	big := unsigned(t, p.asked(map[string]any{"x": strings.Repeat("x", 16<<10)}))
	b.get(p.objectURL(big)).wants(t, "longer than a query may be", http.StatusBadRequest, "invalid_request")
	b.get(p.objectURL(bomb(t))).wants(t, "compressed bomb", http.StatusBadRequest, "invalid_request")
	b.answered(b.get(p.objectURL(genuine)), "the genuine one")
	for rule, c := range map[string]struct {
		claims map[string]any
		code   string
	}{
		"a list of what comes once": {map[string]any{"nonce": []string{"a", "b"}}, "invalid_request"},
		"a scope beyond app.yml":    {map[string]any{"scope": "openid offline_access"}, "invalid_scope"},
		"registration":              {map[string]any{"registration": map[string]any{"x": 1}}, "registration_not_supported"},
		"max_age of a fraction":     {map[string]any{"max_age": 1.5}, "invalid_request"},
		"a long state":              {map[string]any{"state": strings.Repeat("x", 4097)}, "invalid_request"},
		"NUL":                       {map[string]any{"nonce": "a\x00"}, "invalid_request"},
	} {
		p.redirected(b.get(p.objectURL(unsigned(t, p.asked(c.claims)))), rule, c.code)
	}
	b.get(p.objectURL(es(map[string]any{"redirect_uri": "https://evil.test/"}))).wants(t, "another redirect URI",
		http.StatusBadRequest, "unauthorized_client")
	b.get(p.objectURL(es(map[string]any{"redirect_uri": "https://evil.test/"}), "redirect_uri", callback)).wants(t,
		"another redirect URI than the query's", http.StatusBadRequest, "unauthorized_client")
	p.redirected(b.get(p.objectURL(genuine, "redirect_uri", callback)+"&request="+genuine), "two of them",
		"invalid_request")
	p.redirected(b.get(p.objectURL(genuine, "redirect_uri", callback)+"&scope=x"), "a parameter twice in the query, "+
		"which the object replaces", "invalid_request")
	p.redirected(b.get(p.objectURL(genuine, "redirect_uri", callback, "request_uri", "https://evil.test/")),
		"an address beside it", "request_uri_not_supported")
}

// The registered algorithm is the only one (OpenID Connect Dynamic Client Registration 1.0 section 2).
func TestRegisteredRequestObjectAlgorithm(t *testing.T) {
	p := newIDP(t)
	keys := p.withKeys()
	b := p.browser()
	b.code("scope", "openid threads:read")
	algs := append(slices.Collect(maps.Keys(keys)), "none")
	for _, registered := range append(algs, "RS512") {
		p.update("my-app", func(c *storage.Client) { c.RequestObjectSigningAlg = registered })
		for _, alg := range algs {
			object := unsigned(t, p.asked(nil))
			if alg != "none" {
				object = signedBy(t, keys[alg], jose.SignatureAlgorithm(alg), nil, p.asked(p.dated(nil)))
			}
			if got := b.get(p.objectURL(object)); alg == registered {
				b.answered(got, alg+", as registered")
			} else {
				got.wants(t, fmt.Sprintf("%s, %s registered", alg, registered), http.StatusBadRequest, "invalid_request_object")
			}
		}
	}
}

// signsRequests are the two ways in which a client registers that it signs its request objects.
var signsRequests = map[string]func(*storage.Client){
	"an algorithm": func(c *storage.Client) {
		c.RequestObjectSigningAlg, c.RequireSignedRequestObject = "ES256", false
	},
	"that requests must be signed": func(c *storage.Client) {
		c.RequestObjectSigningAlg, c.RequireSignedRequestObject = "", true
	},
}

// A client that signs its requests gives their times, and short ones (FAPI 2.0 Message Signing section 5.3.1): a
// request object that is good for ever can be used by whoever finds it.
func TestSignedRequestObjectsAreYoung(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	key := p.withKeys()["ES256"]
	b := p.browser()
	b.code("scope", "openid threads:read")
	now := p.clock.now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	sign := func(claims map[string]any) string { return signedBy(t, key, jose.ES256, nil, p.asked(claims)) }
	for name, registered := range signsRequests {
		p.update("my-app", registered)
		b.answered(b.get(p.objectURL(sign(p.dated(nil)))), name+" registered: within an hour")
		b.answered(b.get(p.objectURL(sign(map[string]any{"nbf": at(-59 * time.Minute), "exp": at(time.Minute)}))), name+
			" registered: an hour")
		for rule, claims := range map[string]map[string]any{
			"no times":          {},
			"no exp":            p.dated(map[string]any{"exp": nil}),
			"no nbf":            p.dated(map[string]any{"nbf": nil}),
			"old":               {"nbf": at(-61 * time.Minute), "exp": at(-2 * time.Minute)},
			"old, and still on": {"nbf": at(-61 * time.Minute), "exp": at(time.Minute)},
			"long":              {"nbf": at(-time.Minute), "exp": at(61 * time.Minute)},
			"not yet":           {"nbf": at(10 * time.Minute), "exp": at(20 * time.Minute)},
		} {
			p.redirected(b.get(p.objectURL(sign(claims), "redirect_uri", callback)), name+" registered: "+
				rule, "invalid_request_object")
		}
	}
	p.update("my-app", func(c *storage.Client) { c.RequestObjectSigningAlg, c.RequireSignedRequestObject = "", true })
	p.redirected(b.get(p.objectURL(sign(p.dated(map[string]any{"aud": nil})), "redirect_uri", callback)), "no aud",
		"invalid_request_object")
	p.redirected(b.get(p.objectURL(unsigned(t, p.asked(p.dated(nil))), "redirect_uri", callback)), "unsigned",
		"invalid_request_object")
	p.redirected(b.get(p.authorizeURL()), "no request object", "invalid_request")
	// The clients of OpenID Connect, which have registered neither, leave the times out.
	p.update("my-app", func(c *storage.Client) { c.RequireSignedRequestObject = false })
	b.answered(b.get(p.objectURL(sign(nil))), "without times")
}

// A client that signs its requests cannot push one that is not signed: whoever has its other credentials could.
func TestAClientThatSignsCannotPushUnsignedRequests(t *testing.T) {
	p := newIDP(t)
	key := p.withKeys()["ES256"]
	b := p.browser()
	b.code("scope", "openid threads:read")
	push := func(form url.Values) reply {
		form.Set("client_id", p.client.ID)
		form.Set("client_secret", p.secret)
		return p.call("/oauth/par", form)
	}
	plain := func() url.Values {
		u, err := url.Parse(p.authorizeURL())
		if err != nil {
			t.Fatal(err)
		}
		return u.Query()
	}
	for name, registered := range signsRequests {
		p.update("my-app", registered)
		if got := push(plain()); got.status != http.StatusBadRequest || got.text("error") != "invalid_request" {
			t.Errorf("%s registered: parameters: %d %s", name, got.status, got.raw)
		}
		if got := push(url.Values{"request": {unsigned(t, p.asked(p.dated(nil)))}}); got.text(
			"error") != "invalid_request_object" {
			t.Errorf("%s registered: alg none: %d %s", name, got.status, got.raw)
		}
		got := push(url.Values{"request": {signedBy(t, key, jose.ES256, nil, p.asked(p.dated(nil)))}})
		if got.status != http.StatusCreated {
			t.Fatalf("%s registered: signed: %d %s", name, got.status, got.raw)
		}
		b.answered(b.get(p.pushedURL(got)), name)
	}
}

// Keys at jwks_uri are fetched; what a request object names is not.
func TestRequestObjectKeysAtAnAddress(t *testing.T) {
	p := newIDP(t, allowLoopback)
	fetched := []string{}
	key := testKeys()["ES256"]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetched = append(fetched, r.URL.Path)
		_, _ = w.Write([]byte(jwksOf(t, jose.JSONWebKey{Key: key.Public(), KeyID: "ec"})))
	}))
	defer server.Close()
	p.update("my-app", func(c *storage.Client) { c.JWKSURI = server.URL + "/keys" })
	b := p.browser()
	b.code("scope", "openid threads:read")
	object := signedBy(t, key, jose.ES256, map[string]any{"kid": "ec", "jku": server.URL + "/jku", "x5u": server.URL +
		"/x5u"}, p.asked(nil))
	b.answered(b.get(p.objectURL(object)), "a key at an address")
	p.redirected(b.get(p.authorizeURL("request_uri", server.URL+"/request")), "request_uri", "request_uri_not_supported")
	if !slices.Equal(fetched, []string{"/keys"}) {
		t.Errorf("fetched %v", fetched)
	}
}

func rawPart(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// strangersKey is of nobody whom the server knows.
func strangersKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
