package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// What agents do (Model Context Protocol, revision 2026-07-28): they learn of this server from a resource server, are
// registered by nobody, and ask for what they were told.

const mcpServer = "https://mcp.test"

// onlyResource registers an app that is a resource server and nothing else.
func (p *idp) onlyResource(identifier string, scopes ...string) *idp {
	p.t.Helper()
	c, secret := p.register("mcp", func(c *storage.Client) {
		c.Client = oauth.Client{Scopes: scopes, ClientMetadata: oauth.ClientMetadata{Resource: identifier}}
	})
	return p.as(c, secret)
}

// A resource server is asked for by any of its equivalent spellings, at every step; tokens have the one that is
// registered.
func TestResourcesByAnySpelling(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	mcp := p.onlyResource(mcpServer)
	for registered, spellings := range map[string][]string{
		mcpServer: {mcpServer + "/", "HTTPS://MCP.test", "https://mcp.test:443/"},
		filesAPI:  {"https://FILES.test/api", "https://files.test:443/%61pi", "https://files.test/x/../api"},
	} {
		for i, spelled := range spellings {
			again := spellings[(i+1)%len(spellings)]
			code := p.browser().codeFor(p.withResources("threads:read", spelled))
			got := p.asking(url.Values{"grant_type": {"authorization_code"}, "code": {code}}, again)
			if got.audience(t) != registered {
				t.Errorf("%s, then %s: %s", spelled, again, got.raw)
			}
			refreshed := p.asking(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.text("refresh_token")}},
				spelled)
			if refreshed.audience(t) != registered {
				t.Errorf("refresh for %s: %s", spelled, refreshed.raw)
			}
		}
	}
	issuer := p.tokens("scope", "openid threads:read", "resource", p.issuer+"/")
	if issuer.audience(t) != p.issuer || p.userinfo(issuer.text("access_token")).status != http.StatusOK {
		t.Errorf("the issuer with a slash: %s", issuer.raw)
	}
	// The resource server asks about its tokens, also about those from before it was spelled in another way.
	token := p.tokens("scope", "threads:read", "resource", mcpServer+"/").text("access_token")
	mcp.introspect(token).active(t, "its token", map[string]any{"aud": mcpServer})
	p.update("mcp", func(c *storage.Client) { c.Resource = mcpServer + "/" })
	mcp.introspect(token).active(t, "its token, spelled as before", map[string]any{"aud": mcpServer})
	if got := p.tokens("scope", "threads:read", "resource", mcpServer); got.audience(t) != mcpServer+"/" {
		t.Errorf("registered anew: %s", got.audience(t))
	}
	p.redirected(p.browser().get(p.withResources("threads:read", mcpServer+"/mcp")), "another path", "invalid_target")
}

// An app that is a resource server and nothing else gets no token in any way.
func TestOnlyAResourceServerGetsNoTokens(t *testing.T) {
	mcp := newIDP(t).onlyResource(mcpServer)
	mcp.call("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"}}).
		wants(t, "for itself", http.StatusBadRequest, "unauthorized_client")
	mcp.call("/oauth/device_authorization", url.Values{"scope": {"threads:read"}}).
		wants(t, "for a device", http.StatusBadRequest, "unauthorized_client")
	if got := mcp.browser().get(mcp.authorizeURL("scope", "threads:read")); got.status != http.StatusBadRequest {
		t.Errorf("authorize: %d", got.status)
	}
}

// The metadata of a resource server (RFC 9728), for the app that is one and for those of the configuration.
func TestResourceMetadata(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.onlyResource(mcpServer+"/mcp", "threads:read", "openid", "gone:read")
	p.register("notes", func(c *storage.Client) {
		c.ClientName, c.Resource, c.PolicyURI = "Notes", "https://notes.test/", "https://notes.test/privacy"
	})
	bearer, us := []any{"header"}, []any{p.issuer}
	for asked, want := range map[string]map[string]any{
		mcpServer + "/mcp": {"resource": mcpServer + "/mcp", "scopes_supported": []any{"threads:read"}},
		"https://NOTES.test": {"resource": "https://notes.test/", "resource_name": "Notes",
			"resource_policy_uri": "https://notes.test/privacy", "scopes_supported": []any{"threads:read", "runs:write"}},
		filesAPI: {"resource": filesAPI},
	} {
		want["authorization_servers"], want["bearer_methods_supported"] = us, bearer
		got := p.document(oauth.ResourceMetadataURL(p.issuer, asked))
		if !reflect.DeepEqual(got.json, want) {
			t.Errorf("%s: %s", asked, got.raw)
		}
		if got.header.Get("Cache-Control") == "no-store" || got.header.Get("Etag") == "" {
			t.Errorf("%s: %v", asked, got.header)
		}
	}
	for rule, address := range map[string]string{
		"an unknown one": oauth.ResourceMetadataURL(p.issuer, "https://unknown.test"), "none": p.issuer + "/oauth/resource",
		"two": oauth.ResourceMetadataURL(p.issuer, filesAPI) + "&resource=x",
	} {
		if got := p.send(p.request(http.MethodGet, address, "")); got.status != http.StatusNotFound &&
			got.status != http.StatusBadRequest ||
			got.text("error") == "" {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
}

// A client that names no scope gets what it asks and the user allows, and so does one that registers where anybody may;
// what this server does not have for it is left out, and it is told.
func TestScopesOfClientsWithoutAManifest(t *testing.T) {
	const most = "openid threads:read threads:write"
	p := newIDP(t, openToAll, func(c *server.Config) {
		c.RegistrationScopes = oauth.ParseScopes(most +
			" offline_access")
	})
	registered := func(members string) (*idp, string) {
		t.Helper()
		got := p.registration(`{"redirect_uris":["` + callback + `"],"token_endpoint_auth_method":"client_secret_post"` +
			members + `}`)
		return p.itself(got), got.text("scope")
	}
	agent, scope := registered("")
	if scope != "openid offline_access" {
		t.Errorf("a registration that names no scope: %q", scope)
	}
	narrow, scope := registered(`,"scope":"threads:read repos:write mcp:tools a\"b"`)
	if scope != "threads:read" {
		t.Errorf("unknown scopes, and one beyond the ceiling: %q", scope)
	}
	if _, scope := registered(`,"scope":"mcp:tools"`); scope != "openid offline_access" {
		t.Errorf("nothing but unknown scopes: %q", scope)
	}
	for _, c := range []struct {
		client      *idp
		asked, want string
	}{
		{agent, "", "openid offline_access"},
		{agent, most, most},
		{agent, "threads:write repos:read unknown", "threads:write"},
		{narrow, "", "threads:read"},
		{narrow, "threads:read threads:write", "threads:read threads:write"}, // told of more by its resource server
	} {
		if got := c.client.tokens("scope", c.asked); got.text("scope") != c.want {
			t.Errorf("asked for %q: %s", c.asked, got.raw)
		}
	}
	page := agent.browser().get(agent.authorizeURL("scope", "repos:read"))
	if !strings.Contains(page.body, "not a scope that this server has for clients that register themselves") {
		t.Errorf("nothing but what is beyond the ceiling: %d %s", page.status, shown(page.body))
	}
	// The ceiling comes down: what is beyond it is gone from what users allowed before.
	tokens := agent.tokens("scope", most)
	p.cfg.RegistrationScopes = []string{"openid", "threads:read"}
	p.restart()
	agent = p.as(agent.client, agent.secret)
	if got := agent.refresh(tokens.text("refresh_token")); got.text("scope") != "openid threads:read" {
		t.Errorf("after the ceiling came down: %s", got.raw)
	}
}

// Who was let in by an operator, and a document, are held to what they name; and for itself a client has no more than
// that in any case.
func TestScopesThatAreNamed(t *testing.T) {
	p, s := newDescribed(t, func(c *server.Config) {
		c.Registration = &server.Registration{InitialAccessTokens: []string{initialToken}}
	})
	vouched := func(members string) *idp {
		t.Helper()
		got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", initialToken, `{"redirect_uris":["`+callback+
			`"],"token_endpoint_auth_method":"client_secret_post",`+members+`}`)
		if got.status != http.StatusCreated {
			t.Fatal(got.raw)
		}
		return p.itself(got)
	}
	q := vouched(`"scope":"openid threads:read"`)
	q.redirected(q.browser().get(q.authorizeURL("scope", "openid threads:write")), "beyond the registration",
		"invalid_scope")
	open := vouched(`"client_name":"Any","grant_types":["authorization_code","client_credentials"]`)
	if got := open.tokens("scope", "threads:write"); got.text("scope") != "threads:write" {
		t.Errorf("it names none: %s", got.raw)
	}
	open.call("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:write"}}).
		wants(t, "for itself, what it has not named", http.StatusBadRequest, "invalid_scope")

	s.says(s.document(map[string]any{"scope": "openid"}))
	got := p.browser().get(p.authorizeURL(append(withPKCE, "scope", "openid threads:read")...))
	if !strings.Contains(got.body, "not in scope of the client&#39;s document: threads:read") {
		t.Errorf("beyond the document: %d %s", got.status, shown(got.body))
	}
	s.says(s.document(map[string]any{"scope": nil}))
	p.clock.forward(24 * time.Hour)
	if got := p.described("scope", "threads:read"); got.text("scope") != "threads:read" {
		t.Errorf("a document without scope: %s", got.raw)
	}
}

// RFC 7591 section 3.2.1: a registration is told all that was registered, application_type among it.
func TestApplicationTypeOfARegistration(t *testing.T) {
	p := newIDP(t, openToAll)
	for said, want := range map[string]string{"": "web", `,"application_type":"native"`: "native",
		`,"application_type":"web"`: "web"} {
		for _, uri := range []string{"http://127.0.0.1:3118/callback", "http://localhost:3118/callback", callback} {
			got := p.registration(`{"redirect_uris":["` + uri + `"],"token_endpoint_auth_method":"none"` + said + `}`)
			again := p.dynamic(http.MethodGet, got.text("registration_client_uri"), got.text("registration_access_token"), "")
			if got.text("application_type") != want || again.text("application_type") != want {
				t.Errorf("%q with %s: %s, and when it is read: %s", said, uri, got.raw, again.raw)
			}
		}
	}
}

// A client that has no manifest is not told of app.yml, on no page and in no reply.
func TestNoManifestForWhoHasNone(t *testing.T) {
	p, s := newDescribed(t, openToAll)
	agent := p.itself(p.registration(`{"redirect_uris":["` + callback + `"],"client_name":"Agent"}`))
	pkce := func(q *idp, changes ...string) string {
		return q.authorizeURL(append(slices.Clone(withPKCE), changes...)...)
	}
	for rule, address := range map[string]string{
		"an unknown client":              p.authorizeURL("client_id", "client-gone"),
		"a redirect URI":                 pkce(agent, "redirect_uri", callback+"/x"),
		"a scope":                        pkce(agent, "scope", "mcp:tools"),
		"a resource":                     pkce(agent, "resource", "https://unknown.test"),
		"a redirect URI of a document":   pkce(p, "redirect_uri", callback+"/x"),
		"a scope of a document":          pkce(p, "scope", "mcp:tools"),
		"a document that there is not":   p.authorizeURL("client_id", s.URL+"/other.json"),
		"no redirect URI":                pkce(agent, "redirect_uri", ""),
		"a response type of another age": pkce(agent, "response_type", "token"),
	} {
		for _, lang := range []string{"en", "ja"} {
			got := p.browser().get(address + "&ui_locales=" + lang)
			if strings.Contains(got.body, "app.yml") || strings.Contains(got.body, "spec.oauth") ||
				got.status != http.StatusBadRequest {
				t.Errorf("%s: %d %s", rule, got.status, shown(got.body))
			}
		}
	}
	for rule, got := range map[string]reply{
		"a grant type": agent.call("/oauth/token", url.Values{"grant_type": {"client_credentials"}}),
		"a device":     agent.call("/oauth/device_authorization", url.Values{}),
		"a secret": p.as(agent.client, "wrong").call("/oauth/token", url.Values{"grant_type": {"refresh_token"},
			"refresh_token": {"x"}}),
	} {
		if got.status < 400 || strings.Contains(fmt.Sprint(got.json), "app.yml") {
			t.Errorf("%s: %s", rule, got.raw)
		}
	}
}

// Where anybody may register, one address gets so many registrations at once, and neither they nor what it makes this
// server fetch keeps others from registering.
func TestOneAddressKeepsNobodyFromRegistering(t *testing.T) {
	p := newIDP(t, openToAll, trusting("127.0.0.0/8"))
	p.clock.stop()
	register := func(from, members string) int {
		t.Helper()
		return p.send(p.request(http.MethodPost, p.issuer+"/oauth/register", `{"redirect_uris":["`+callback+`"]`+members+`}`,
			"Content-Type", "application/json", "X-Forwarded-For", from)).status
	}
	taken := 0
	for range 120 {
		if register("203.0.113.1", "") == http.StatusCreated {
			taken++
		}
		register("203.0.113.1", `,"sector_identifier_uri":"https://127.0.0.1:1/x"`)
	}
	if taken != 50 {
		t.Errorf("one address has registered %d clients at once", taken)
	}
	if got := register("198.51.100.7", ""); got != http.StatusCreated {
		t.Errorf("another address: %d", got)
	}
	p.clock.forward(20 * time.Second)
	if one, two := register("203.0.113.1", ""), register("203.0.113.1", ""); one != http.StatusCreated ||
		two != http.StatusServiceUnavailable {
		t.Errorf("after a while: %d, %d", one, two)
	}
}
