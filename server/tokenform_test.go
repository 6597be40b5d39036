package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const springAPI, opaqueAPI = "https://spring.test", "https://opaque.test"

// withForms has resource servers of the configuration that want access tokens to look otherwise, and token exchange on.
func withForms(c *server.Config) {
	withFilesAPI(c)
	c.GrantTypes = append(server.DefaultGrantTypes(), oauth.GrantTokenExchange)
	c.ResourceServers = append(c.ResourceServers,
		server.ResourceServer{Identifier: springAPI, AccessTokenType: oauth.AccessTokenJWT, AccessTokenAlg: oauth.AlgRS256},
		server.ResourceServer{ID: "opaque", Identifier: opaqueAPI, Secret: filesSecret,
			AccessTokenType: oauth.AccessTokenOpaque})
}

// looks checks the form of an access token that has come in a reply.
func (p *idp) looks(got reply, rule, typ, alg string) string {
	p.t.Helper()
	token := got.text("access_token")
	if got.status != http.StatusOK {
		p.t.Errorf("%s: %d %s", rule, got.status, got.raw)
		return ""
	}
	if typ == oauth.AccessTokenOpaque {
		if !strings.HasPrefix(token, "wfa_") || strings.Contains(token, ".") {
			p.t.Errorf("%s: not opaque: %.20s", rule, token)
		}
		return token
	}
	object, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		p.t.Errorf("%s: %v", rule, err)
		return token
	}
	header := object.Signatures[0].Header
	keys := p.jwks().Key(header.KeyID)
	if len(keys) != 1 || keys[0].Algorithm != alg || header.ExtraHeaders[jose.HeaderType] != typ {
		p.t.Errorf("%s: %+v, signed by %v; want %s, %s", rule, header, keys, typ, alg)
	} else if _, err := object.Verify(keys[0]); err != nil {
		p.t.Errorf("%s: %v", rule, err)
	}
	return token
}

// Whoever takes access tokens decides how they look: the resource servers of the audience, or for a token that names
// none the client. Each form works at every endpoint, and costs etcd the same.
func TestAccessTokenForms(t *testing.T) {
	p := newIDP(t, withForms)
	p.clock.stop()
	p.register("ps256-api", func(c *storage.Client) {
		c.ResourceIdentifiers, c.AccessTokenType, c.AccessTokenAlg = []string{"https://ps256.test"}, oauth.AccessTokenJWT,
			oauth.AlgPS256
	})
	runs := p.as(p.register("runs-api", func(c *storage.Client) {
		c.ResourceIdentifiers, c.AccessTokenType = []string{runsAPI}, oauth.AccessTokenOpaque
		c.GrantTypes = []string{exchangeGrant, "client_credentials"}
		c.TokenExchangeAudiences = []string{filesAPI, springAPI, opaqueAPI}
	}))
	opaque := p.as(p.register("opaque", func(c *storage.Client) { c.AccessTokenType = oauth.AccessTokenOpaque }))
	rsa := p.as(p.register("rsa", func(c *storage.Client) { c.AccessTokenAlg = oauth.AlgRS256 }))
	for _, c := range []struct {
		rule     string
		client   *idp
		resource string
		typ, alg string
	}{
		{"by default", p, "", "at+jwt", "ES256"}, {"a resource server that says nothing", p, filesAPI, "at+jwt", "ES256"},
		{"JWT by RS256", p, springAPI, "JWT", "RS256"}, {"an app's", p, "https://ps256.test", "JWT", "PS256"},
		{"opaque, of the configuration", p, opaqueAPI, "opaque", ""}, {"opaque, an app's", p, runsAPI, "opaque", ""},
		{"the client's, without a resource", opaque, "", "opaque", ""}, {"the client's algorithm alone", rsa, "",
			"at+jwt", "RS256"},
		{"the resource server's before the client's", opaque, springAPI, "JWT", "RS256"}, {"a default before the client's",
			opaque, filesAPI, "at+jwt", "ES256"},
	} {
		q, asked := c.client, []string{"scope", "openid threads:read", "resource", c.resource}
		if c.resource == "" {
			asked = asked[:2]
		}
		first := q.tokens(asked...)
		q.looks(first, c.rule, c.typ, c.alg)
		var second reply
		if got := q.etcd.Count(func() {
			second = q.refresh(
				first.text("refresh_token"))
		}); got != (storagetest.Counts{Proposals: 1}) {
			t.Errorf("%s, refresh: %+v", c.rule, got)
		}
		token := q.looks(second, c.rule+", refresh", c.typ, c.alg)
		var intro, info reply
		if got := q.etcd.Count(func() { intro = q.introspect(token) }); got != (storagetest.Counts{Reads: 1}) {
			t.Errorf("%s, introspection: %+v", c.rule, got)
		}
		intro.active(t, c.rule, map[string]any{"sub": "user-ann", "client_id": q.client.ID, "scope": "openid threads:read",
			"token_type": "Bearer"})
		if got := q.etcd.Count(func() { info = q.userinfo(token) }); got != (storagetest.Counts{Reads: 1}) ||
			info.json["sub"] != "user-ann" {
			t.Errorf("%s, userinfo: %+v %d %s", c.rule, got, info.status, info.raw)
		}
		if got := q.call("/oauth/revoke", url.Values{"token": {token}}); got.status != http.StatusOK {
			t.Errorf("%s, revocation: %d %s", c.rule, got.status, got.raw)
		}
		q.introspect(token).inactive(t, c.rule+", revoked")
		if got := q.userinfo(token); got.status != http.StatusUnauthorized {
			t.Errorf("%s, revoked: %d", c.rule, got.status)
		}
	}

	// A client's own tokens, and those of an exchange, whose subject may have any form.
	service := p.service("batch", func(c *storage.Client) { c.AccessTokenType = oauth.AccessTokenOpaque })
	own := p.looks(service.call("/oauth/token", forItself("threads:read")), "a client's own", "opaque", "")
	service.introspect(own).active(t, "a client's own", map[string]any{"sub": service.client.ID,
		"exp": float64(p.clock.now().Unix() + 3600)})
	subject := p.tokens("scope", "threads:read", "resource", runsAPI).text("access_token")
	p.looks(runs.swap(subject), "exchanged", "at+jwt", "ES256")
	p.looks(runs.swap(subject, "resource", springAPI), "exchanged for JWT", "JWT", "RS256")
	swapped := p.looks(runs.swap(subject, "resource", opaqueAPI), "exchanged for opaque", "opaque", "")
	runs.introspect(swapped).active(t, "exchanged", map[string]any{"sub": "user-ann",
		"act": map[string]any{"sub": runs.client.ID}})
	runs.call("/oauth/revoke", url.Values{"token": {swapped}})
	runs.introspect(swapped).inactive(t, "exchanged, revoked")

	d := opaque.informed()
	bound := d.exchange(opaque.code("scope", "openid threads:read"))
	if bound.text("token_type") != "DPoP" || d.userinfo(http.MethodGet,
		bound.text("access_token")).status != http.StatusOK ||
		opaque.userinfo(bound.text("access_token")).status == http.StatusOK {
		t.Errorf("bound to a key: %s", bound.raw)
	}
}

// One token cannot have two forms. Whoever names one of the resources gets it, and what was refused has cost nothing.
func TestResourcesWithDifferentForms(t *testing.T) {
	p := newIDP(t, withForms)
	code := p.browser().codeFor(p.withResources("openid threads:read", filesAPI, springAPI))
	form := func() url.Values { return url.Values{"grant_type": {"authorization_code"}, "code": {code}} }
	p.asking(form()).wants(t, "both", http.StatusBadRequest, "invalid_target")
	got := p.asking(form(), springAPI)
	p.looks(got, "one of them", "JWT", "RS256")
	refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.text("refresh_token")}}
	p.asking(refresh).wants(t, "both, by refresh", http.StatusBadRequest, "invalid_target")
	p.looks(p.asking(refresh, filesAPI, p.issuer+"/oauth/userinfo"), "the other, and userinfo, which takes any",
		"at+jwt", "ES256")
}

// The configuration gives the issuer's tokens a form, which a client changes for itself; what was issued before a form
// changed stays good.
func TestFormOfTheIssuersTokens(t *testing.T) {
	p := newIDP(t)
	before := p.tokens("scope", "openid threads:read")
	p.looks(before, "before", "at+jwt", "ES256")
	q := p.replica(p.etcd.Client)
	q.cfg.ResourceServers = []server.ResourceServer{{Identifier: p.issuer, AccessTokenType: oauth.AccessTokenJWT,
		AccessTokenAlg: oauth.AlgRS256}}
	q.serve(q.store)
	token := q.looks(q.refresh(before.text("refresh_token")), "of the configuration", "JWT", "RS256")
	if !q.active(before.text("access_token")) || !p.active(token) || q.userinfo(token).status != http.StatusOK {
		t.Error("a token of another form is not good")
	}
	p.update("my-app", func(c *storage.Client) { c.AccessTokenType = oauth.AccessTokenOpaque })
	soon(t, "the replica has heard of it", func() bool {
		c, err := q.store.Client(t.Context(), p.client.ID)
		return err == nil && c.AccessTokenType != ""
	})
	q.looks(q.tokens("scope", "openid threads:read"), "of the client", "opaque", "")
	if !q.active(token) {
		t.Error("a token of an earlier form is not good")
	}
}

// An opaque token is what this server sealed as one, and nothing else; and an access token of the type JWT is no ID
// token.
func TestFormsAreNotConfused(t *testing.T) {
	p := newIDP(t)
	opaque := p.as(p.register("opaque", func(c *storage.Client) { c.AccessTokenType = oauth.AccessTokenOpaque }))
	jwt := p.as(p.register("jwt", func(c *storage.Client) { c.AccessTokenType = oauth.AccessTokenJWT }))
	issued, b := opaque.tokens("scope", "openid threads:read"), jwt.browser()
	token := issued.text("access_token")
	for rule, forged := range map[string]string{
		"garbage": "wfa_garbage", "altered": token[:len(token)-1] + string(token[len(token)-1]^1), "cut off": token[:60],
		"a refresh token": "wfa_" + strings.TrimPrefix(issued.text("refresh_token"), "wfr_"),
		"a code":          "wfa_" + strings.TrimPrefix(opaque.code("scope", "openid"), "wfc_"),
	} {
		if opaque.good(forged) {
			t.Errorf("%s is good", rule)
		}
	}
	opaque.refresh("wfr_"+strings.TrimPrefix(token, "wfa_")).wants(t, "as a refresh token", http.StatusBadRequest,
		"invalid_grant")
	got := jwt.exchange(b.code("scope", "openid threads:read"))
	if access := jwt.looks(got, "JWT", "JWT", "ES256"); !jwt.good(access) {
		t.Error("not good to begin with")
	} else {
		b.get(p.logoutURL("id_token_hint", access)).wants(t, "an access token for an ID token", http.StatusBadRequest,
			"invalid_request")
	}
	if jwt.good(got.text("id_token")) {
		t.Error("the ID token passes as an access token")
	}
}

// A token that this server has sealed and cannot read, such as one of a later release, is a fault and no verdict:
// nobody is told that it is not good, or that it was revoked.
func TestUnreadableTokensAreFaults(t *testing.T) {
	p, runs := newExchanger(t)
	for _, sealType := range []storage.SealType{storage.SealAccess, storage.SealRefresh} {
		token, err := p.store.Seal(sealType, []byte("[]"))
		if err != nil {
			t.Fatal(err)
		}
		replies := map[string]reply{
			"introspection": p.introspect(token), "revocation": p.call("/oauth/revoke", url.Values{"token": {token}})}
		if sealType == storage.SealAccess {
			replies["userinfo"], replies["exchange"] = p.userinfo(token), runs.swap(token)
		} else {
			replies["refresh"] = p.refresh(token)
		}
		for endpoint, got := range replies {
			got.wants(t, endpoint+" of "+string(sealType), http.StatusServiceUnavailable, "temporarily_unavailable")
		}
	}
}
