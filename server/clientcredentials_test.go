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

// service is p seen by a client that acts for itself.
func (p *idp) service(app string, change ...func(*storage.Client)) *idp {
	p.t.Helper()
	return p.as(p.register(app, func(c *storage.Client) {
		c.GrantTypes = []string{oauth.GrantClientCredentials}
		for _, f := range change {
			f(c)
		}
	}))
}

// known gives a client of an app that is registered already, or registers it.
func (p *idp) known(app string, register func() *idp) *idp {
	p.t.Helper()
	view, err := p.store.App(p.t.Context(), app)
	if err != nil {
		p.t.Fatal(err)
	}
	if view.Client == nil {
		return register()
	}
	values, err := p.store.SecretValues(view.Client)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.as(view.Client, strings.Join(values, ""))
}

func (p *idp) asService(app string) *idp { return p.known(app, func() *idp { return p.service(app) }) }

func (p *idp) asKeyed(app string) *idp {
	return p.known(app, func() *idp { return p.keyed(app, "ES256") })
}

// RFC 6749 section 4.4.
func TestClientCredentials(t *testing.T) {
	p := newIDP(t)
	s := p.service("batch")
	got := s.call("/oauth/token", forItself("runs:write threads:read"))
	if got.status != http.StatusOK || got.text("token_type") != "Bearer" || got.json["expires_in"] != 3600.0 ||
		got.text("scope") != "runs:write threads:read" ||
		got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	for _, name := range []string{"refresh_token", "id_token"} {
		if _, there := got.json[name]; there {
			t.Errorf("%s in %s", name, got.raw)
		}
	}
	token := got.text("access_token")
	header, claims := takenApart(t, token)
	if header["typ"] != "at+jwt" || claims["sub"] != s.client.ID || claims["client_id"] != s.client.ID ||
		claims["aud"] != p.issuer ||
		claims["scope"] != "runs:write threads:read" || !strings.HasPrefix(claims["jti"].(string), ".") {
		t.Errorf("%v %v", header, claims)
	}
	if _, there := claims["auth_time"]; there { // RFC 9068 section 2.2.1: nobody has signed in
		t.Errorf("%v", claims)
	}
	intro := s.call("/oauth/introspect", url.Values{"token": {token}})
	if intro.json["active"] != true || intro.text("sub") != s.client.ID ||
		intro.text("scope") != "runs:write threads:read" || intro.json["username"] != nil {
		t.Errorf("%s", intro.raw)
	}
	if p.active(token) {
		t.Error("active for another client")
	}
	if info := p.userinfo(token); info.status != http.StatusForbidden || info.text("sub") != "" {
		t.Errorf("userinfo: %d %s", info.status, info.raw)
	}
	if grants, _, err := p.store.Grants(t.Context(), storage.GrantQuery{}); err != nil || len(grants) != 0 {
		t.Errorf("%d grants, %v", len(grants), err)
	}
}

func TestClientCredentialsThatAreRefused(t *testing.T) {
	p := newIDP(t)
	s := p.service("batch", func(c *storage.Client) { c.Scopes = append(c.Scopes, "offline_access") })
	for scope, rule := range map[string]string{
		"": "no scope", "files:read": "a scope that app.yml does not list", "threads:read admin": "a scope that nobody knows",
		"openid": "openid", "threads:read openid": "openid beside others", "offline_access": "offline_access",
		"threads:read email": "a scope about a user",
	} {
		s.call("/oauth/token", forItself(scope)).wants(t, rule, http.StatusBadRequest, "invalid_scope")
	}
	p.call("/oauth/token", forItself("threads:read")).wants(t, "a client that did not register it", http.StatusBadRequest,
		"unauthorized_client")
	public := p.service("public", func(c *storage.Client) { c.Public = true })
	public.machine("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"},
		"client_id": {public.client.ID}}).
		wants(t, "a public client", http.StatusBadRequest, "unauthorized_client")
	p.call("/oauth/token", forItself("x")).wants(t, "before the scope is looked at", http.StatusBadRequest,
		"unauthorized_client")
	s.call("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"},
		"client_id": {s.client.ID}, "client_secret": {"wfs_x"}}).
		wants(t, "a wrong secret", http.StatusUnauthorized, "invalid_client")
	b := s.browser()
	s.redirected(b.get(s.authorizeURL()), "authorization for a client without that grant type", "unauthorized_client")
	s.refresh("wfr_x").wants(t, "refresh", http.StatusBadRequest, "unauthorized_client")
	s.exchange("wfc_x").wants(t, "code", http.StatusBadRequest, "unauthorized_client")

	off := newIDP(t, func(c *server.Config) { c.GrantTypes = []string{} })
	s = off.service("batch")
	s.call("/oauth/token", forItself("threads:read")).wants(t, "where it is off", http.StatusBadRequest,
		"unsupported_grant_type")
	if doc := off.document(off.issuer + "/.well-known/openid-configuration").json; slices.Contains(
		texts(doc["grant_types_supported"]), "client_credentials") {
		t.Error("discovery says it is on")
	}
	if got := off.tokens(); got.status != http.StatusOK {
		t.Errorf("the promised flow is off: %s", got.raw)
	}
}

// RFC 7009: a client's own token ends when it says so, and no other does.
func TestRevocationOfClientCredentials(t *testing.T) {
	p := newIDP(t)
	s, other := p.service("batch"), p.service("other")
	token, kept := s.call("/oauth/token", forItself("threads:read")).text("access_token"),
		s.call("/oauth/token", forItself("threads:read")).text("access_token")
	other.call("/oauth/revoke", url.Values{"token": {token}}).wants(t, "by another client", http.StatusBadRequest,
		"invalid_grant")
	if !s.active(token) {
		t.Error("revoked by another client")
	}
	for range 2 { // the second time it is revoked already
		if got := s.call("/oauth/revoke", url.Values{"token": {token},
			"token_type_hint": {"access_token"}}); got.status != http.StatusOK {
			t.Errorf("%d %s", got.status, got.raw)
		}
	}
	if s.active(token) || !s.active(kept) {
		t.Errorf("active: %v, the other one %v", s.active(token), s.active(kept))
	}
	entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{App: "batch"})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, e := range entries {
		if e.Action == storage.AuditTokenRevoked && e.Actor == "client:"+s.client.ID {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d entries in the audit log: %+v", told, entries)
	}
}

// Nothing is decided on memory alone: a replica that has not heard of a change issues no token against it, and calls
// none active.
func TestClientCredentialsAtALaggingReplica(t *testing.T) {
	for _, c := range []struct {
		rule   string
		change func(p *idp, app string)
		status int
		code   string
		active bool
	}{
		{"renamed", func(p *idp, app string) { p.update(app, func(c *storage.Client) { c.ClientName = "New" }) }, 200,
			"", true},
		{"scope removed", func(p *idp, app string) {
			p.update(app, func(c *storage.Client) {
				c.Scopes = []string{"runs:write"}
			})
		}, 400, "invalid_scope", false},
		{"grant type removed", func(p *idp, app string) { p.update(app, func(c *storage.Client) { c.GrantTypes = nil }) },
			400, "unauthorized_client", true},
		{"secret ended", func(p *idp, app string) {
			p.update(app, func(c *storage.Client) {
				secret, _ := p.store.NewClientSecret(c.ID)
				c.Secrets = []storage.ClientSecret{secret}
			})
		}, 401, "invalid_client", true},
		{"disabled", func(p *idp, app string) { p.update(app, func(c *storage.Client) { c.Disabled = true }) }, 401,
			"invalid_client", false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			p := newIDP(t)
			s := p.service("batch")
			token := s.call("/oauth/token", forItself("threads:read")).text("access_token")
			issuing, introspecting := s.replica(p.lagging()), s.replica(p.lagging())
			c.change(p, "batch")
			got := issuing.call("/oauth/token", forItself("threads:read"))
			if got.status != c.status || got.text("error") != c.code {
				t.Errorf("%d %s", got.status, got.raw)
			}
			if intro := introspecting.call("/oauth/introspect", url.Values{"token": {token}}); intro.json["active"] != c.active {
				t.Errorf("introspection: %d %s", intro.status, intro.raw)
			}
		})
	}
}

// A client that did not register refresh_token gets none; all else works, and its grant ends with the access token.
func TestClientWithoutRefreshToken(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	c := p.as(p.register("once-app", func(c *storage.Client) { c.GrantTypes = []string{oauth.GrantAuthorizationCode} }))
	code := c.code("scope", "openid threads:read")
	got := c.exchange(code)
	if _, there := got.json["refresh_token"]; got.status != http.StatusOK || there || got.text("id_token") == "" {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	token := got.text("access_token")
	if !c.active(token) || p.userinfo(token).status != http.StatusOK {
		t.Error("the token is not good")
	}
	grants, _, err := p.store.Grants(t.Context(), storage.GrantQuery{ClientID: c.client.ID})
	if err != nil || len(grants) != 1 || grants[0].ExpiresAt.Sub(grants[0].CreatedAt) != p.cfg.Lifetimes.AccessToken {
		t.Errorf("%+v, %v", grants, err)
	}
	c.exchange(code).wants(t, "replay", http.StatusBadRequest, "invalid_grant")
	if c.active(token) {
		t.Error("a replayed code left its token alive")
	}
	got = c.exchange(c.code())
	if c.call("/oauth/revoke", url.Values{"token": {got.text("access_token")}}).status != http.StatusOK ||
		c.active(got.text("access_token")) {
		t.Error("revocation")
	}
}
