package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessType    = "urn:ietf:params:oauth:token-type:access_token"
)

// newExchanger is a server with token exchange on, and runs-api, an app that speaks for runsAPI and may use it.
func newExchanger(t testing.TB) (p, runs *idp) {
	p = newIDP(t, withFilesAPI, func(c *server.Config) {
		c.GrantTypes = append(server.DefaultGrantTypes(), oauth.GrantTokenExchange)
	})
	return p, p.exchanger("runs-api", runsAPI)
}

// exchanger is p seen by an app that speaks for a resource server and may exchange what was sent to it.
func (p *idp) exchanger(app, identifier string) *idp {
	p.t.Helper()
	return p.as(p.register(app, func(c *storage.Client) {
		c.ResourceIdentifiers = []string{identifier}
		c.GrantTypes = []string{exchangeGrant, "client_credentials"}
		c.TokenExchangeAudiences = []string{filesAPI, runsAPI, "https://second.test", "https://unused.test", p.issuer,
			p.issuer + "/oauth/userinfo"}
		c.Scopes = []string{"threads:read", "runs:write", "openid"}
	}))
}

// swap exchanges a token for one for filesAPI, with changes as name, value pairs; a value of "" leaves the parameter
// out.
func (p *idp) swap(token string, changes ...string) reply {
	p.t.Helper()
	form := url.Values{"grant_type": {exchangeGrant}, "subject_token": {token}, "subject_token_type": {accessType},
		"resource": {filesAPI}}
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
		if changes[i+1] == "" {
			form.Del(changes[i])
		}
	}
	return p.call("/oauth/token", form)
}

// A resource server that was called for a user calls on for that user, and everybody can see that it does.
func TestTokenExchange(t *testing.T) {
	p, runs := newExchanger(t)
	p.clock.stop()
	subject := p.tokens("scope", "openid threads:read runs:write", "resource", runsAPI).text("access_token")
	before := claimsOf(t, subject)
	p.clock.forward(20 * time.Minute)
	got := runs.swap(subject, "scope", "threads:read")
	if got.status != http.StatusOK || got.text("issued_token_type") != accessType || got.text("token_type") != "Bearer" ||
		got.text("scope") != "threads:read" ||
		got.json["expires_in"] != float64(40*60) || got.json["refresh_token"] != nil || got.json["id_token"] != nil ||
		got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	token := got.text("access_token")
	header, claims := takenApart(t, token)
	for name, want := range map[string]any{
		"iss": p.issuer, "sub": "user-ann", "aud": filesAPI, "client_id": runs.client.ID, "scope": "threads:read",
		"origin_client_id": p.client.ID,
		"act":              map[string]any{"sub": runs.client.ID}, "exp": before["exp"], "auth_time": before["auth_time"],
		"amr": before["amr"],
	} {
		if fmt.Sprint(claims[name]) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, claims[name], want)
		}
	}
	grant := func(claims map[string]any) string { id, _, _ := strings.Cut(claims["jti"].(string), "."); return id }
	if header["typ"] != "at+jwt" || claims["jti"] == before["jti"] || grant(claims) != grant(before) ||
		claims["cnf"] != nil {
		t.Errorf("%v %v", header, claims)
	}
	p.files(token).active(t, "at the resource server that it is for", map[string]any{
		"client_id": runs.client.ID, "sub": "user-ann", "aud": filesAPI, "act": map[string]any{"sub": runs.client.ID},
		"scope": "threads:read", "username": nil})
	runs.introspect(token).active(t, "at the client that got it", map[string]any{"username": "ann"})
	p.introspect(token).inactive(t, "at the grant's client, whose token it is not")

	all := runs.swap(subject)
	if all.text("scope") != "openid threads:read runs:write" {
		t.Errorf("without scope: %s", all.raw)
	}
	both := claimsOf(t, runs.swap(subject, "audience", runsAPI).text("access_token"))
	if fmt.Sprint(both["aud"]) != fmt.Sprint([]any{filesAPI, runsAPI}) {
		t.Errorf("resource and audience: %v", both["aud"])
	}
	one := claimsOf(t, runs.swap(subject, "resource", "", "audience", filesAPI).text("access_token"))
	if one["aud"] != filesAPI {
		t.Errorf("audience alone: %v", one["aud"])
	}
	spelled := claimsOf(t, runs.swap(subject, "resource", "", "audience", "HTTPS://FILES.test:443/api").text(
		"access_token"))
	if spelled["aud"] != filesAPI {
		t.Errorf("in another spelling: %v", spelled["aud"])
	}
	several := runs.call("/oauth/token", url.Values{"grant_type": {exchangeGrant}, "subject_token": {subject},
		"subject_token_type": {accessType},
		"resource":           {filesAPI, p.issuer}, "audience": {runsAPI, "https://unused.test", filesAPI}})
	if several.audience(t) != fmt.Sprint([]any{filesAPI, p.issuer, runsAPI, "https://unused.test"}) {
		t.Errorf("several of both: %s", several.audience(t))
	}
	typed := runs.swap(subject, "requested_token_type", accessType)
	if typed.status != http.StatusOK {
		t.Errorf("requested_token_type: %s", typed.raw)
	}
	if doc := p.document(p.issuer + "/.well-known/openid-configuration").json; !slices.Contains(
		texts(doc["grant_types_supported"]), exchangeGrant) {
		t.Error("discovery does not offer it")
	}
}

// Who acted before is kept (RFC 8693 section 4.1), and a chain has an end.
func TestTokenExchangeNests(t *testing.T) {
	p, runs := newExchanger(t)
	second := p.exchanger("second-api", "https://second.test")
	subject := p.tokens("scope", "threads:read runs:write", "resource", runsAPI).text("access_token")
	first := runs.swap(subject, "resource", "https://second.test").text("access_token")
	next := second.swap(first, "scope", "threads:read")
	claims := claimsOf(t, next.text("access_token"))
	if fmt.Sprint(claims["act"]) != fmt.Sprint(map[string]any{"sub": second.client.ID,
		"act": map[string]any{"sub": runs.client.ID}}) ||
		claims["client_id"] != second.client.ID || claims["origin_client_id"] != p.client.ID {
		t.Errorf("%v", claims)
	}
	p.files(next.text("access_token")).active(t, "after two exchanges", map[string]any{"act": claims["act"]})
	token := first
	for range 6 {
		if token = second.swap(token, "resource", "https://second.test").text("access_token"); token == "" {
			t.Fatal("a chain of seven")
		}
	}
	last := second.swap(token, "resource", "https://second.test")
	second.swap(last.text("access_token")).wants(t, "a chain without an end", http.StatusBadRequest, "invalid_request")

	// A client in the middle that is gone takes what it got along.
	p.update("runs-api", func(c *storage.Client) { c.Disabled = true })
	second.swap(first).wants(t, "the first client is gone", http.StatusBadRequest, "invalid_request")
}

func TestTokenExchangeIsRefused(t *testing.T) {
	p, runs := newExchanger(t)
	subject := p.tokens("scope", "openid email threads:read", "resource", runsAPI)
	token := subject.text("access_token")
	forUs := p.tokens("scope", "threads:read").text("access_token")
	forFiles := p.tokens("scope", "threads:read", "resource", filesAPI).text("access_token")
	d := p.informed()
	bound := d.exchange(p.code("scope", "threads:read", "resource", runsAPI)).text("access_token")
	own := runs.call("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"},
		"resource": {runsAPI}}).text("access_token")
	narrow := p.tokens("scope", "email", "resource", runsAPI).text("access_token")
	public := p.as(p.register("public-api", func(c *storage.Client) {
		c.Public, c.GrantTypes, c.ResourceIdentifiers = true, []string{exchangeGrant}, []string{"https://public.test"}
	}))
	forPublic := p.tokens("scope", "threads:read", "resource", "https://public.test").text("access_token")
	for rule, c := range map[string]struct {
		got  reply
		code string
	}{
		"a token for somebody else": {runs.swap(forFiles), "invalid_request"},
		"a token for the issuer":    {runs.swap(forUs), "invalid_request"},
		"a refresh token":           {runs.swap(subject.text("refresh_token")), "invalid_request"},
		"an ID token":               {runs.swap(subject.text("id_token")), "invalid_request"},
		"garbage":                   {runs.swap("garbage"), "invalid_request"},
		"no subject token":          {runs.swap(token, "subject_token", ""), "invalid_request"},
		"no type":                   {runs.swap(token, "subject_token_type", ""), "invalid_request"},
		"type id_token": {runs.swap(token, "subject_token_type",
			"urn:ietf:params:oauth:token-type:id_token"), "invalid_request"},
		"type refresh_token": {runs.swap(subject.text("refresh_token"), "subject_token_type",
			"urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"},
		"type jwt": {runs.swap(token, "subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
			"invalid_request"},
		"type saml2": {runs.swap(token, "subject_token_type",
			"urn:ietf:params:oauth:token-type:saml2"), "invalid_request"},
		"a refresh token wanted": {runs.swap(token, "requested_token_type",
			"urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"},
		"an ID token wanted": {runs.swap(token, "requested_token_type",
			"urn:ietf:params:oauth:token-type:id_token"), "invalid_request"},
		"an actor token": {runs.swap(token, "actor_token", token, "actor_token_type", accessType),
			"invalid_request"},
		"an actor token's type alone":       {runs.swap(token, "actor_token_type", accessType), "invalid_request"},
		"no target":                         {runs.swap(token, "resource", ""), "invalid_target"},
		"an unknown target":                 {runs.swap(token, "resource", "https://unknown.test"), "invalid_target"},
		"an unknown audience":               {runs.swap(token, "audience", "unknown"), "invalid_target"},
		"more scope than the token's":       {runs.swap(token, "scope", "threads:read runs:write"), "invalid_scope"},
		"scope that the client may not use": {runs.swap(token, "scope", "email"), "invalid_scope"},
		"a scope that nobody knows":         {runs.swap(token, "scope", "x"), "invalid_scope"},
		"no scope that the client may use":  {runs.swap(narrow), "invalid_scope"},
		"a client's own token":              {runs.swap(own), "invalid_request"},
		"a bound token without its key":     {runs.swap(bound), "invalid_request"},
		"a client that may not":             {p.swap(token), "unauthorized_client"},
		"a public client":                   {public.swap(forPublic, "client_id", public.client.ID), "unauthorized_client"},
		"a subject token twice, as resource": {runs.call("/oauth/token", url.Values{"grant_type": {exchangeGrant},
			"subject_token": {token, token}, "subject_token_type": {accessType}, "resource": {filesAPI}}), "invalid_request"},
	} {
		c.got.wants(t, rule, http.StatusBadRequest, c.code)
	}
	runs.swap(token, "client_id", runs.client.ID, "client_secret", "x").wants(t, "wrong secret", http.StatusUnauthorized,
		"invalid_client")
	other := &prover{p: runs, alg: d.alg, key: p.prover().key, nonce: d.nonce}
	form := func(token string) url.Values {
		return url.Values{"grant_type": {exchangeGrant}, "subject_token": {token}, "subject_token_type": {accessType},
			"resource": {filesAPI}}
	}
	other.token(form(bound)).wants(t, "a bound token with another key", http.StatusBadRequest, "invalid_request")
	holder := &prover{p: runs, alg: d.alg, key: d.key, nonce: d.nonce}
	holder.bound(holder.token(form(bound)), "a bound token with its key")
	other.bound(other.token(form(token)), "a Bearer token becomes one that is bound")
	if got := runs.swap(token); got.status != http.StatusOK {
		t.Errorf("after all that: %d %s", got.status, got.raw)
	}
	p.clock.forward(61 * time.Minute)
	runs.swap(token).wants(t, "expired", http.StatusBadRequest, "invalid_request")
}

// It is off unless the operator wants it.
func TestTokenExchangeIsOffByDefault(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	runs := p.exchanger("runs-api", runsAPI)
	runs.swap(p.tokens("resource", runsAPI).text("access_token")).wants(t, "off", http.StatusBadRequest,
		"unsupported_grant_type")
	if doc := p.document(p.issuer + "/.well-known/openid-configuration").json; slices.Contains(
		texts(doc["grant_types_supported"]), exchangeGrant) {
		t.Error("discovery offers it")
	}
}

// What ends the grant ends what was exchanged from it, and the client that exchanged ends its own token alone.
func TestExchangedTokensEnd(t *testing.T) {
	p, runs := newExchanger(t)
	issued := p.tokens("scope", "threads:read", "resource", runsAPI)
	subject := issued.text("access_token")
	first, second := runs.swap(subject).text("access_token"), runs.swap(subject).text("access_token")
	p.call("/oauth/revoke", url.Values{"token": {first}}).wants(t, "revoked by the grant's client", http.StatusBadRequest,
		"invalid_grant")
	p.files(first).active(t, "after that", nil)
	for range 2 {
		if got := runs.call("/oauth/revoke", url.Values{"token": {first}}); got.status != http.StatusOK {
			t.Errorf("revoked by its client: %d %s", got.status, got.raw)
		}
	}
	p.files(first).inactive(t, "revoked")
	runs.introspect(first).inactive(t, "revoked, asked by its client")
	p.files(second).active(t, "another of the same grant", nil)
	runs.introspect(subject).active(t, "the subject token", nil)
	if got := p.refresh(issued.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("the grant suffered: %d %s", got.status, got.raw)
	}

	p.putUser(storage.User{ID: "user-ann", Email: userEmail, Disabled: true})
	p.files(second).inactive(t, "user disabled")
	runs.swap(subject).wants(t, "user disabled", http.StatusBadRequest, "invalid_request")
	p.putUser(storage.User{ID: "user-ann", Email: userEmail})
	p.files(second).inactive(t, "user enabled again")

	subject = p.tokens("scope", "threads:read", "resource", runsAPI).text("access_token")
	second = runs.swap(subject).text("access_token")
	lagging := p.replica(p.lagging()).as(runs.client, runs.secret)
	p.update("runs-api", func(c *storage.Client) { c.Disabled = true })
	p.files(second).inactive(t, "the client that got it is disabled")
	lagging.swap(subject).wants(t, "a client that is disabled, at a replica that has not heard of it",
		http.StatusUnauthorized, "invalid_client")
	p.update("runs-api", func(c *storage.Client) { c.Disabled = false })

	p.call("/oauth/revoke", url.Values{"token": {subject}})
	p.files(second).inactive(t, "the grant is revoked")
	runs.swap(subject).wants(t, "the grant is revoked", http.StatusBadRequest, "invalid_request")
}

// An exchanged token works at userinfo if it was asked for that, and the user allowed openid.
func TestExchangedTokenAtUserinfo(t *testing.T) {
	p, runs := newExchanger(t)
	subject := p.tokens("scope", "openid threads:read", "resource", runsAPI).text("access_token")
	userinfo := runs.swap(subject, "resource", p.issuer+"/oauth/userinfo").text("access_token")
	if got := p.userinfo(userinfo); got.status != http.StatusOK || got.text("sub") != "user-ann" {
		t.Errorf("%d %s", got.status, got.raw)
	}
	// What the grant's client asked for one by one, nobody else is told.
	p.update("runs-api", func(c *storage.Client) { c.Scopes = append(c.Scopes, "email") })
	asked := p.tokens("scope", "openid threads:read", "claims", `{"userinfo":{"email":null}}`).text("access_token")
	if got := p.userinfo(asked); got.text("email") != userEmail {
		t.Errorf("the grant's client is told %s", got.raw)
	}
	asked = p.tokens("scope", "openid threads:read", "claims", `{"userinfo":{"email":null}}`, "resource",
		runsAPI).text("access_token")
	if got := p.userinfo(runs.swap(asked, "resource", p.issuer+
		"/oauth/userinfo").text("access_token")); got.status != http.StatusOK || got.json["email"] != nil {
		t.Errorf("another client is told %d %s", got.status, got.raw)
	}
	p.userinfo(runs.swap(subject).text("access_token")).wants(t, "for another resource", http.StatusUnauthorized,
		"invalid_token")
	p.userinfo(runs.swap(subject, "resource", p.issuer, "scope", "threads:read").text("access_token")).wants(t,
		"without openid", http.StatusForbidden, "insufficient_scope")
	if got := runs.call("/oauth/revoke", url.Values{"token": {userinfo}}); got.status != http.StatusOK {
		t.Fatal(got.raw)
	}
	p.userinfo(userinfo).wants(t, "revoked", http.StatusUnauthorized, "invalid_token")
}

func TestWhatTokenExchangeCosts(t *testing.T) {
	p, runs := newExchanger(t)
	subject := p.tokens("scope", "threads:read", "resource", runsAPI).text("access_token")
	var token string
	for _, c := range []struct {
		rule   string
		want   storagetest.Counts
		status int
		do     func() reply
	}{
		{"exchange", storagetest.Counts{Reads: 1}, 200, func() reply { return runs.swap(subject) }},
		{"exchange of garbage", storagetest.Counts{}, 400, func() reply { return runs.swap("x") }},
		{"introspection of an exchanged token", storagetest.Counts{Reads: 1}, 200, func() reply { return p.files(token) }},
		{"introspection by its client", storagetest.Counts{Reads: 1}, 200, func() reply { return runs.introspect(token) }},
	} {
		var got reply
		if counts := p.etcd.Count(func() { got = c.do() }); counts != c.want || got.status != c.status {
			t.Errorf("%s: %+v, want %+v; %d %s", c.rule, counts, c.want, got.status, got.raw)
		}
		if got.text("access_token") != "" {
			token = got.text("access_token")
		}
	}
}

// A fault of storage is never a verdict about a token, and costs nothing but the proof.
func TestStorageFaultsOfResourceServers(t *testing.T) {
	p, runs := newExchanger(t)
	p.clock.stop()
	issued := p.tokens("scope", "openid threads:read", "resource", runsAPI)
	subject := issued.text("access_token")
	atFiles, atUserinfo := runs.swap(subject).text("access_token"), runs.swap(subject, "resource",
		p.issuer).text("access_token")
	gone := runs.swap(subject).text("access_token")
	d := p.informed()
	bound := d.tokens("threads:read")
	for _, c := range []struct {
		rule string
		do   func() reply
	}{
		{"introspection by a resource server", func() reply { return p.files(atFiles) }},
		{"signed introspection", func() reply { return p.files(atFiles, "Accept", "application/token-introspection+jwt") }},
		{"token exchange", func() reply { return runs.swap(subject) }},
		{"userinfo with an exchanged token", func() reply { return p.userinfo(atUserinfo) }},
		{"revocation of an exchanged token", func() reply { return runs.call("/oauth/revoke", url.Values{"token": {gone}}) }},
		{"refresh with DPoP", func() reply {
			got := d.refresh(bound.text("refresh_token"))
			if got.status == http.StatusOK {
				bound = got
			}
			return got
		}},
	} {
		fired := p.nth(1, false)
		got := c.do()
		p.etcd.Inject(nil)
		if got.status != http.StatusServiceUnavailable || strings.Contains(got.raw, "active") ||
			strings.Contains(got.raw, "injected") || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", c.rule, got.status, got.raw)
		}
		if again := c.do(); !fired.Load() || again.status != http.StatusOK {
			t.Errorf("%s, afterwards: %d %s", c.rule, again.status, again.raw)
		}
	}
	p.files(atFiles).active(t, "after all that", nil)
	runs.introspect(gone).inactive(t, "revoked")
}
