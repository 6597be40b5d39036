package server_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// without takes scopes out of the client's manifest.
func (p *idp) without(app string, scopes ...string) {
	p.t.Helper()
	p.update(app, func(c *storage.Client) { c.Scopes = oauth.Without(c.Scopes, scopes) })
}

// What app.yml no longer lists is gone at once, and not when the token ends.
func TestWithdrawnScopesAreNotToldAnyMore(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	tokens := p.tokens("scope", "openid email profile threads:read", "resource", filesAPI)
	access, refresh := tokens.text("access_token"), tokens.text("refresh_token")
	forUs := p.tokens("scope", "openid email profile").text("access_token")
	own := p.service("service")
	mine := own.call("/oauth/token", forItself("threads:read")).text("access_token")
	own.introspect(mine).active(t, "a client's own token", map[string]any{"scope": "threads:read"})
	if got := p.userinfo(forUs); got.text("email") == "" || got.text("name") == "" {
		t.Fatalf("userinfo: %s", got.raw)
	}

	p.without("my-app", "email", "threads:read")
	own.without("service", "threads:read")
	if got := p.userinfo(forUs); got.status != http.StatusOK || got.json["email"] != nil || got.text("name") == "" {
		t.Errorf("userinfo: %d %s", got.status, got.raw)
	}
	p.introspect(access).active(t, "by the client", map[string]any{"scope": "openid profile"})
	p.files(access).active(t, "by the resource server", map[string]any{"scope": "openid profile"})
	p.introspect(refresh).active(t, "a refresh token", map[string]any{"scope": "openid profile"})
	own.introspect(mine).inactive(t, "a client's own token, of which nothing is left")

	p.without("my-app", "openid")
	p.userinfo(forUs).wants(t, "userinfo without openid", http.StatusForbidden, "insufficient_scope")
	p.without("my-app", "profile")
	p.userinfo(forUs).wants(t, "userinfo without anything", http.StatusUnauthorized, "invalid_token")
	p.introspect(access).inactive(t, "by the client, nothing is left")
	p.files(access).inactive(t, "by the resource server, nothing is left")
	p.introspect(refresh).inactive(t, "a refresh token, nothing is left")
}

// A scope that the server's catalogue has lost is gone for all clients.
func TestScopesWithdrawnFromTheCatalogue(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	access := p.tokens("scope", "threads:read runs:write", "resource", filesAPI).text("access_token")
	p.cfg.Scopes = slices.DeleteFunc(server.DefaultScopes(), func(s server.Scope) bool { return s.Name == "runs:write" })
	p.restart()
	p.introspect(access).active(t, "by the client", map[string]any{"scope": "threads:read"})
	p.files(access).active(t, "by the resource server", map[string]any{"scope": "threads:read"})
}

// Nothing is decided on memory alone.
func TestWithdrawnScopesAtALaggingReplica(t *testing.T) {
	p, runs := newExchanger(t)
	forUs := p.tokens("scope", "openid email profile")
	subject := p.tokens("scope", "openid threads:read runs:write", "resource", runsAPI).text("access_token")
	token := runs.swap(subject).text("access_token")
	lagging := func(q *idp) *idp { return q.replica(p.lagging()) }
	one, two, three, four := lagging(p), lagging(p), lagging(p), lagging(runs)
	p.without("my-app", "email", "runs:write")
	if got := one.userinfo(forUs.text("access_token")); got.json["email"] != nil || got.status != http.StatusOK {
		t.Errorf("userinfo: %d %s", got.status, got.raw)
	}
	two.introspect(forUs.text("refresh_token")).active(t, "a refresh token", map[string]any{"scope": "openid profile"})
	three.files(token).active(t, "an exchanged token", map[string]any{"scope": "openid threads:read"})
	if got := four.swap(subject); got.status == http.StatusOK && strings.Contains(got.text("scope"), "runs:write") {
		t.Errorf("exchange: %s", got.raw)
	}
}

// A token that was exchanged has what both clients may have: the one of the grant, and the one that acts.
func TestWithdrawnScopesOfExchangedTokens(t *testing.T) {
	p, runs := newExchanger(t)
	subject := p.tokens("scope", "threads:read runs:write openid", "resource", runsAPI).text("access_token")
	token := runs.swap(subject).text("access_token")
	p.without("my-app", "runs:write")
	p.files(token).active(t, "withdrawn from the grant's client", map[string]any{"scope": "threads:read openid"})
	if got := runs.swap(subject); got.text("scope") != "threads:read openid" {
		t.Errorf("exchanged again: %s", got.raw)
	}
	runs.swap(subject, "scope", "runs:write").wants(t, "exchanged for what is gone", http.StatusBadRequest,
		"invalid_scope")
	runs.without("runs-api", "threads:read")
	p.files(token).active(t, "withdrawn from the client that acts", map[string]any{"scope": "openid"})
}

// A resource server that is gone gets no more tokens, at the next refresh at the latest.
func TestWithdrawnResources(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.speaker("https://other.test")
	code := func(resources ...string) reply {
		return p.exchange(p.browser().codeFor(p.withResources("threads:read", resources...)))
	}
	both, alone := code(runsAPI, filesAPI), code(runsAPI)
	late := p.browser().codeFor(p.withResources("threads:read", runsAPI))
	p.update("runs-api", func(c *storage.Client) { c.ResourceIdentifiers = []string{"https://other.test"} })
	if got := p.refresh(both.text("refresh_token")); got.audience(t) != filesAPI {
		t.Errorf("one of two: %s", got.raw)
	}
	p.refresh(alone.text("refresh_token")).wants(t, "the only one", http.StatusBadRequest, "invalid_target")
	p.exchange(late).wants(t, "a code", http.StatusBadRequest, "invalid_target")
	p.update("runs-api", func(c *storage.Client) { c.ResourceIdentifiers = []string{runsAPI} })
	if got := p.refresh(alone.text("refresh_token")); got.audience(t) != runsAPI {
		t.Errorf("when it is back: %s", got.raw)
	}
	if got := p.exchange(late); got.audience(t) != runsAPI {
		t.Errorf("the code was used up: %s", got.raw)
	}
	// Another replica may have registered it a moment ago.
	lagging := p.replica(p.lagging())
	p.update("runs-api", func(c *storage.Client) { c.ResourceIdentifiers = []string{runsAPI, "urn:new"} })
	got := lagging.exchange(p.browser().codeFor(p.withResources("threads:read", "urn:new")))
	if got.audience(t) != "urn:new" {
		t.Errorf("at a replica that has not heard of it: %s", got.raw)
	}
}

// An app exchanges tokens for the resource servers that its manifest lists, and for no others that this server knows.
func TestTokenExchangeForAnUnlistedAudience(t *testing.T) {
	p, runs := newExchanger(t)
	subject := p.tokens("scope", "threads:read", "resource", runsAPI).text("access_token")
	runs.update("runs-api", func(c *storage.Client) { c.TokenExchangeAudiences = []string{"https://unused.test"} })
	if got := runs.swap(subject, "resource", "https://unused.test"); got.status != http.StatusOK {
		t.Errorf("listed: %d %s", got.status, got.raw)
	}
	both := runs.call("/oauth/token", url.Values{"grant_type": {exchangeGrant}, "subject_token": {subject},
		"subject_token_type": {accessType},
		"resource":           {"https://unused.test"}, "audience": {filesAPI}})
	for rule, got := range map[string]reply{
		"a resource": runs.swap(subject), "an audience": runs.swap(subject, "resource", "", "audience", filesAPI),
		"one of two": both,
		"its own":    runs.swap(subject, "resource", runsAPI), "the issuer": runs.swap(subject, "resource", p.issuer),
		"userinfo": runs.swap(subject, "resource", p.issuer+"/oauth/userinfo"),
	} {
		got.wants(t, rule, http.StatusBadRequest, "invalid_target")
	}
	if got := runs.swap(subject); !strings.Contains(got.text("error_description"), filesAPI) {
		t.Errorf("the app is not told what: %s", got.raw)
	}
	runs.update("runs-api", func(c *storage.Client) { c.TokenExchangeAudiences = nil })
	runs.swap(subject, "resource", "https://unused.test").wants(t, "nothing is listed", http.StatusBadRequest,
		"invalid_target")
}
