package server_test

import (
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
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const (
	filesAPI    = "https://files.test/api"
	filesID     = "files-api"
	filesSecret = "7d1f9e3b5a2c4e6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7"
	runsAPI     = "https://runs.test/api"
)

// withFilesAPI has a resource server in its configuration.
func withFilesAPI(c *server.Config) {
	c.ResourceServers = []server.ResourceServer{
		{ID: "unused-api", Identifier: "https://unused.test", Secret: strings.Repeat("u", 64)},
		{ID: filesID, Identifier: filesAPI, Secret: filesSecret},
	}
}

// speaker is p seen by an app that speaks for runsAPI, and for what else is named.
func (p *idp) speaker(more ...string) *idp {
	p.t.Helper()
	return p.as(p.register("runs-api", func(c *storage.Client) {
		c.ResourceIdentifiers = append([]string{runsAPI}, more...)
	}))
}

// introspect asks as p's client; header may be more headers.
func (p *idp) introspect(token string, header ...string) reply {
	p.t.Helper()
	return p.machine("/oauth/introspect", url.Values{"token": {token}, "client_id": {p.client.ID},
		"client_secret": {p.secret}}, header...)
}

// files asks as the resource server of the configuration.
func (p *idp) files(token string, header ...string) reply {
	p.t.Helper()
	return p.machine("/oauth/introspect", url.Values{"token": {token}},
		append([]string{"Authorization", basic(filesID, filesSecret)}, header...)...)
}

const inactive = `{"active":false}`

// inactive checks that an answer says nothing at all.
func (r reply) inactive(t testing.TB, rule string) {
	t.Helper()
	if r.status != http.StatusOK || strings.TrimSpace(r.raw) != inactive || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %s", rule, r.status, r.raw)
	}
}

// active checks claims of an answer about a token that is good.
func (r reply) active(t testing.TB, rule string, want map[string]any) {
	t.Helper()
	if r.status != http.StatusOK || r.json["active"] != true {
		t.Errorf("%s: %d %s", rule, r.status, r.raw)
		return
	}
	for name, value := range want {
		if fmt.Sprint(r.json[name]) != fmt.Sprint(value) {
			t.Errorf("%s: %s is %v, want %v", rule, name, r.json[name], value)
		}
	}
}

// RFC 7662 section 2.1: a resource server asks about tokens that are for it, and about nothing else.
func TestIntrospectionByResourceServers(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	runs := p.speaker()
	forFiles := p.tokens("scope", "threads:read", "resource", filesAPI)
	forRuns := p.tokens("scope", "threads:read", "resource", runsAPI)
	forUs := p.tokens("scope", "openid threads:read")
	claims := claimsOf(t, forFiles.text("access_token"))
	want := map[string]any{
		"scope": "threads:read", "client_id": p.client.ID, "sub": "user-ann", "aud": filesAPI, "iss": p.issuer,
		"token_type": "Bearer", "acr": claims["acr"],
		"exp": claims["exp"], "iat": claims["iat"], "jti": claims["jti"], "auth_time": claims["auth_time"], "username": nil,
		"cnf": nil, "act": nil,
	}
	p.files(forFiles.text("access_token")).active(t, "a resource server of the configuration", want)
	want["aud"] = runsAPI
	for _, name := range []string{"exp", "iat", "jti", "auth_time"} { // of the other token
		delete(want, name)
	}
	runs.introspect(forRuns.text("access_token")).active(t, "an app that speaks for one", want)
	p.introspect(forRuns.text("access_token")).active(t, "the token's own client",
		map[string]any{"username": "ann", "aud": runsAPI})
	for rule, got := range map[string]reply{
		"another resource server's token":         p.files(forRuns.text("access_token")),
		"another's, asked by an app":              runs.introspect(forFiles.text("access_token")),
		"a token for the issuer":                  p.files(forUs.text("access_token")),
		"a token for the issuer, asked by an app": runs.introspect(forUs.text("access_token")),
		"a refresh token":                         p.files(forFiles.text("refresh_token")),
		"a refresh token, asked by an app":        runs.introspect(forRuns.text("refresh_token")),
		"an ID token":                             p.files(forUs.text("id_token")),
		"garbage":                                 p.files("garbage"),
	} {
		got.inactive(t, rule)
	}
	both := p.tokens("scope", "threads:read", "resource", filesAPI)
	bound := p.informed()
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {both.text("refresh_token")}}
	token := bound.token(form).text("access_token")
	p.files(token).active(t, "a bound token", map[string]any{"token_type": "DPoP",
		"cnf": map[string]any{"jkt": bound.thumbprint()}})

	// What ends the token ends it here as well, with the very next question.
	p.call("/oauth/revoke", url.Values{"token": {both.text("refresh_token")}})
	p.files(token).inactive(t, "revoked")
	p.putUser(storage.User{ID: "user-ann", Email: userEmail, Disabled: true})
	p.files(forFiles.text("access_token")).inactive(t, "user disabled")
	p.putUser(storage.User{ID: "user-ann", Email: userEmail})
	p.files(forFiles.text("access_token")).inactive(t, "user enabled again")
	forFiles = p.tokens("scope", "threads:read", "resource", filesAPI)
	p.files(forFiles.text("access_token")).active(t, "begun anew", nil)
	lagging := p.replica(p.lagging())
	p.update("my-app", func(c *storage.Client) { c.Disabled = true })
	p.files(forFiles.text("access_token")).inactive(t, "client disabled")
	lagging.files(forFiles.text("access_token")).inactive(t, "client disabled, at a replica that has not heard of it")
}

// A resource server authenticates by its secret, in either way; whoever fails is told the same as a client that fails.
func TestResourceServerAuthenticates(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	token := p.tokens("resource", filesAPI).text("access_token")
	form := func(more ...string) url.Values {
		out := url.Values{"token": {token}}
		for i := 0; i < len(more); i += 2 {
			out.Set(more[i], more[i+1])
		}
		return out
	}
	p.machine("/oauth/introspect", form("client_id", filesID, "client_secret", filesSecret)).active(t, "post", nil)
	p.machine("/oauth/introspect", form(), "Authorization", basic(filesID, filesSecret)).active(t, "basic", nil)
	unknown := p.machine("/oauth/introspect", form("client_id", "nobody", "client_secret", filesSecret))
	for rule, got := range map[string]reply{
		"wrong secret":        p.machine("/oauth/introspect", form("client_id", filesID, "client_secret", "x")),
		"wrong secret, basic": p.machine("/oauth/introspect", form(), "Authorization", basic(filesID, "x")),
		"the secret of another": p.machine("/oauth/introspect", form("client_id", filesID, "client_secret",
			strings.Repeat("u", 64))),
		"its identifier as its id": p.machine("/oauth/introspect", form("client_id", filesAPI, "client_secret",
			filesSecret)),
		"no secret":       p.machine("/oauth/introspect", form("client_id", filesID)),
		"an empty secret": p.machine("/oauth/introspect", form(), "Authorization", basic(filesID, "")),
		"nobody":          p.machine("/oauth/introspect", form()),
		"a token endpoint it is not": p.machine("/oauth/token", form("client_id", filesID, "client_secret", filesSecret,
			"grant_type", "client_credentials", "scope", "runs:write")),
		"it revokes nothing": p.machine("/oauth/revoke", form("client_id", filesID, "client_secret", filesSecret)),
		"an assertion in its place": p.machine("/oauth/introspect", form("client_id", filesID, "client_assertion", "a.b.c",
			"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")),
		"a client with its client_id": p.machine("/oauth/introspect", form("client_id", filesID, "client_secret", p.secret)),
	} {
		got.wants(t, rule, http.StatusUnauthorized, "invalid_client")
		if got.raw != unknown.raw || got.header.Get("WWW-Authenticate") == "" ||
			got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s, an unknown client gets %s", rule, got.raw, unknown.raw)
		}
	}
	p.machine("/oauth/introspect", form("client_id", filesID, "client_secret", filesSecret), "Authorization",
		basic(filesID, filesSecret)).
		wants(t, "two ways at once", http.StatusBadRequest, "invalid_request")
	p.machine("/oauth/introspect", url.Values{"client_id": {filesID}, "client_secret": {filesSecret}}).wants(t, "no token",
		http.StatusBadRequest, "invalid_request")
	p.send(p.request(http.MethodGet, p.issuer+"/oauth/introspect?token="+token, "", "Authorization",
		basic(filesID, filesSecret))).
		wants(t, "GET", http.StatusMethodNotAllowed, "invalid_request")
}

// An app that claims to be this server, or a resource server of the configuration, learns nothing by that.
func TestAppsSpeakForNobodyElse(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	liar := p.as(p.register("liar", func(c *storage.Client) {
		c.ResourceIdentifiers = []string{p.issuer, p.issuer + "/oauth/userinfo", filesAPI, "https://mine.test"}
	}))
	liar.introspect(p.tokens("scope", "openid").text("access_token")).inactive(t, "a token for the issuer")
	liar.introspect(p.tokens("resource", filesAPI).text("access_token")).inactive(t, "one for a resource server of "+
		"the configuration")
	liar.introspect(p.tokens("scope", "openid", "resource", runsAPIOf(p)).text("access_token")).inactive(t,
		"one for another app's, and userinfo")
	liar.introspect(p.tokens("resource", "https://mine.test").text("access_token")).active(t, "one for its own", nil)
}

func runsAPIOf(p *idp) string { p.speaker(); return runsAPI }

// RFC 9701: who asks for it gets a signed answer, made for them.
func TestSignedIntrospection(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	const mediaType = "application/token-introspection+jwt"
	token := p.tokens("scope", "threads:read", "resource", filesAPI).text("access_token")
	es, esSecret := p.register("es-app", func(c *storage.Client) {
		c.ResourceIdentifiers, c.IntrospectionSignedResponseAlg = []string{runsAPI}, "ES256"
	})
	offered := texts(p.document(p.issuer +
		"/.well-known/openid-configuration").json["introspection_signing_alg_values_supported"])
	opened := func(rule string, got reply, alg, audience string) map[string]any {
		t.Helper()
		if got.status != http.StatusOK || got.header.Get("Content-Type") != mediaType ||
			got.header.Get("Cache-Control") != "no-store" || !slices.Contains(offered, alg) {
			t.Fatalf("%s: %d %v %s", rule, got.status, got.header, got.raw)
		}
		header, claims := takenApart(t, got.raw)
		if header["typ"] != "token-introspection+jwt" || header["alg"] != alg {
			t.Errorf("%s: header %v", rule, header)
		}
		object, err := jose.ParseSignedCompact(got.raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := object.Verify(p.jwks().Key(header["kid"].(string))[0]); err != nil {
			t.Errorf("%s: by the published key: %v", rule, err)
		}
		if claims["iss"] != p.issuer || claims["aud"] != audience || claims["iat"] == nil || len(claims) != 4 {
			t.Errorf("%s: claims %v", rule, claims)
		}
		inner, _ := claims["token_introspection"].(map[string]any)
		return inner
	}
	inner := opened("a resource server of the configuration", p.files(token, "Accept", mediaType), "RS256", filesID)
	plain := p.files(token).json
	if !maps.EqualFunc(inner, plain, func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
		t.Errorf("signed %v, plain %v", inner, plain)
	}
	app := p.as(es, esSecret)
	forRuns := p.tokens("resource", runsAPI).text("access_token")
	if inner = opened("an app with an algorithm", app.introspect(forRuns, "Accept", "application/json;q=0.5, "+mediaType),
		"ES256", es.ID); inner["active"] != true {
		t.Errorf("%v", inner)
	}
	for _, other := range []string{token, "garbage"} {
		if inner = opened("not active", app.introspect(other, "Accept", mediaType), "ES256", es.ID); len(inner) != 1 ||
			inner["active"] != false {
			t.Errorf("%v", inner)
		}
	}
	for _, accept := range []string{"", "*/*", "application/json", "application/*", mediaType + ";q=0", mediaType +
		"x", "application/jwt"} {
		if got := p.files(token, "Accept", accept); got.json["active"] != true {
			t.Errorf("Accept %q: %s %s", accept, got.header.Get("Content-Type"), got.raw)
		}
	}
	// It is no access token, and no ID token: each has a type of its own.
	signed := p.files(token, "Accept", mediaType).raw
	if p.good(signed) {
		t.Error("a signed introspection passes for an access token")
	}
}

// What introspection asks of etcd, whoever asks.
func TestWhatIntrospectionCosts(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	runs := p.speaker()
	forFiles := p.tokens("resource", filesAPI).text("access_token")
	forRuns := p.tokens("resource", runsAPI).text("access_token")
	p.update("my-app", func(c *storage.Client) { c.GrantTypes = []string{"client_credentials"} })
	own := p.call("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"},
		"resource": {filesAPI}}).text("access_token")
	for _, c := range []struct {
		rule string
		do   func() reply
		want storagetest.Counts
		good bool
	}{
		{"resource server of the configuration", func() reply { return p.files(forFiles) },
			storagetest.Counts{Reads: 1}, true},
		{"app that speaks for one", func() reply { return runs.introspect(forRuns) }, storagetest.Counts{Reads: 1}, true},
		{"a client's own token", func() reply { return p.files(own) }, storagetest.Counts{Reads: 1}, true},
		{"signed", func() reply { return p.files(forFiles, "Accept", "application/json") },
			storagetest.Counts{Reads: 1}, true},
		{"somebody else's token", func() reply { return p.files(forRuns) }, storagetest.Counts{}, false},
		{"garbage", func() reply { return p.files("garbage") }, storagetest.Counts{}, false},
		{"wrong secret", func() reply {
			return p.machine("/oauth/introspect", url.Values{"token": {forFiles}}, "Authorization", basic(filesID, "x"))
		}, storagetest.Counts{}, false},
	} {
		var got reply
		if counts := p.etcd.Count(func() { got = c.do() }); counts != c.want || (got.json["active"] == true) != c.good {
			t.Errorf("%s: %+v, want %+v; %s", c.rule, counts, c.want, got.raw)
		}
	}
}

// A pairwise client's tokens tell a resource server nothing of who else the user is.
func TestIntrospectionOfPairwiseSubjects(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.update("my-app", func(c *storage.Client) { c.SubjectType = oauth.SubjectPairwise })
	issued := p.tokens("scope", "openid", "resource", filesAPI)
	sub := claimsOf(t, issued.text("id_token"))["sub"]
	p.files(issued.text("access_token")).active(t, "resource server", map[string]any{"sub": sub, "username": nil})
	p.introspect(issued.text("access_token")).active(t, "its client", map[string]any{"sub": sub, "username": nil})
	p.introspect(issued.text("refresh_token")).active(t, "its client, of the refresh token",
		map[string]any{"sub": sub, "username": nil})
	if sub == "user-ann" {
		t.Error("not pairwise")
	}
	p.clock.forward(2 * time.Hour)
	p.files(issued.text("access_token")).inactive(t, "expired")
}
