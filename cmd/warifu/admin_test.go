package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// at is the value at a path in decoded JSON.
func at(t *testing.T, body any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := body.(map[string]any)
			body = m[s]
		case int:
			list, _ := body.([]any)
			if s >= len(list) {
				t.Fatalf("no %d in %v", s, list)
			}
			body = list[s]
		}
	}
	return body
}

func TestAdminDocumentAndHandlerAgree(t *testing.T) {
	i := testInstance(t, func(c *config.Config) {
		c.OAuth2.GrantTypes = oauth.GrantTypes()
		c.Claims = []config.Claim{{Name: "department"}}
		c.TrustedIssuers = []config.TrustedIssuer{ // nobody asks them for keys here
			{Issuer: "https://ci.example.com", JWKSURI: "https://ci.example.com/jwks"},
			{Issuer: "spiffe://example.org", JWKSURI: "https://spire.example.org/keys"}}
	})
	example := exampleManifest(t)
	var doc openAPI
	if err := json.NewDecoder(i.ask(t, "GET", "/openapi.json", "").Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("openapi is %q", doc.OpenAPI)
	}
	grant := storage.Grant{ID: storage.NewGrantID(), UserID: "ann", Scopes: []string{"threads:read"},
		CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
	publicApp := strings.NewReplacer("my-oauth-app", "public-app", "autoEnv: true", "public: true").Replace(example)
	metadata, err := os.ReadFile("../../manifests/testdata/apps/client-metadata.yml")
	if err != nil {
		t.Fatal(err)
	}
	// Without what would be fetched from elsewhere.
	withKeys := strings.NewReplacer("    sectorIdentifierUri: https://app.example.com/sector.json\n", "",
		", https://app.example.org/callback", "").Replace(string(metadata))
	bare := "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: bare}\nspec: {version: 1.0.0}\n"
	type step struct {
		operation, path, body string
		status                int
		then                  func(body any)
	}
	path := func(pattern string, values ...string) string {
		for i := 0; i < len(values); i += 2 {
			pattern = strings.ReplaceAll(pattern, "{"+values[i]+"}", url.PathEscape(values[i+1]))
		}
		return pattern
	}
	equal := func(want any, steps ...any) func(any) {
		return func(body any) {
			t.Helper()
			if got := at(t, body, steps...); got != want {
				t.Errorf("%v is %v, want %v", steps, got, want)
			}
		}
	}
	var revision any
	seen := make(map[string][]int)
	run := func(steps ...step) {
		t.Helper()
		for _, s := range steps {
			if s.path == "" {
				_, s.path, _ = strings.Cut(s.operation, " ")
			}
			method, _, _ := strings.Cut(s.operation, " ")
			resp := i.ask(t, method, s.path, s.body)
			if resp.StatusCode != s.status {
				text, _ := io.ReadAll(resp.Body)
				t.Fatalf("%s %s: %d, want %d: %s", method, s.path, resp.StatusCode, s.status, text)
			}
			body := doc.check(t, s.operation, resp)
			seen[s.operation] = append(seen[s.operation], s.status)
			if s.then != nil {
				s.then(body)
			}
		}
	}

	run(
		step{operation: "GET /v1/info", status: 200, then: equal(i.cfg.Issuer, "issuer")},
		step{operation: "GET /v1/replicas", status: 200, then: equal(true, 0, "self")},
		step{operation: "GET /v1/apps", status: 200},
		step{operation: "GET /v1/replicas", status: 200},
		step{operation: "GET /v1/doctor", status: 200, then: equal("etcd", "findings", 0, "check")},
		step{operation: "GET /v1/clients", status: 200},
		step{operation: "GET /v1/deliveries", status: 200},
		step{operation: "GET /v1/grants", status: 200},
		step{operation: "POST /v1/plan", body: documents(t, nil, example), status: 200, then: func(body any) {
			equal(true, "plans", 0, "changed")(body)
			equal(false, "applied")(body)
			revision = at(t, body, "plans", 0, "revision")
		}},
		step{operation: "POST /v1/plan", body: documents(t, nil, strings.ReplaceAll(example, "threads:write",
			"threads:wirte")), status: 422, then: func(body any) {
			equal("invalid_manifest", "code")(body)
			equal(15.0, "faults", 0, "line")(body)
			equal(9.0, "faults", 0, "column")(body)
			equal("threads:write", "faults", 0, "suggestion")(body)
		}},
		step{operation: "POST /v1/plan", body: `{"documents":[]}`, status: 422, then: equal("invalid_request", "code")},
		step{operation: "POST /v1/plan", body: `{"documents":`, status: 400, then: equal("bad_request", "code")},
		step{operation: "POST /v1/plan", body: `{"documents":[{"name":"x","content":"` + strings.Repeat("x", 17<<20) +
			`"}]}`, status: 413, then: equal("too_large", "code")},
		step{operation: "POST /v1/plan", body: documents(t, nil, strings.Repeat("# padding\n", 1<<17)), status: 422,
			then: equal("invalid_manifest", "code")},
		step{operation: "POST /v1/apply", body: documents(t, map[string]any{"dryRun": true}, example), status: 200,
			then: equal(false, "applied")},
	)
	run(
		step{operation: "POST /v1/apply", body: documents(t,
			map[string]any{"expected": map[string]any{"my-oauth-app": revision}, "wait": 60}, example), status: 200,
			then: equal(true, "applied")},
	)
	run(
		step{operation: "POST /v1/apply", body: documents(t,
			map[string]any{"expected": map[string]any{"my-oauth-app": revision}}, strings.ReplaceAll(example, "1.0.0", "1.0.1")),
			status: 409, then: equal("stale_plan", "code")},
		step{operation: "POST /v1/apply", body: documents(t, nil, "kind: App"), status: 422},
		step{operation: "POST /v1/apply", body: `[]`, status: 422},
		step{operation: "POST /v1/apply", body: documents(t, map[string]any{"trust": true}, publicApp, bare, withKeys),
			status: 200},
		step{operation: "GET /v1/apps", status: 200, then: equal("bare", 0, "name")},
		step{operation: "GET /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "with-keys"), status: 200,
			then: func(body any) {
				equal("private_key_jwt", "client", "tokenEndpointAuthMethod")(body)
				equal("2026-01", "client", "keyIds", 0)(body)
				equal(nil, "client", "jwks")(body)
				equal(3600.0, "client", "defaultMaxAge")(body)
				equal("client_credentials", "client", "grantTypes", 2)(body)
			}},
		step{operation: "GET /v1/clients", path: "/v1/clients?app=service", status: 200, then: equal("client_credentials", 0,
			"grantTypes", 0)},
		step{operation: "GET /v1/apps/{name}/credentials", path: path("/v1/apps/{name}/credentials", "name", "with-keys"),
			status: 200, then: equal(nil, "clientSecret")},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "with-keys"), body: `{}`,
			status: 409, then: equal("no_secret", "code")},
		step{operation: "GET /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "my-oauth-app"), status: 200,
			then: func(body any) {
				equal("1.0.0", "version")(body)
				equal("ready", "deliveries", 0, "state")(body)
				equal("file", "deliveries", 0, "runtime")(body)
				grant.ClientID = at(t, body, "client", "id").(string)
			}},
		step{operation: "GET /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "bare"), status: 200},
		step{operation: "GET /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "../my-oauth-app"), status: 404,
			then: equal("not_found", "code")},
		step{operation: "GET /v1/apps/{name}", path: path("/v1/apps/{name}", "name", strings.Repeat("a", 64)), status: 422},
		step{operation: "GET /v1/apps/{name}/credentials", path: path("/v1/apps/{name}/credentials", "name", "my-oauth-app"),
			status: 200, then: func(body any) {
				if secret, _ := at(t, body, "clientSecret").(string); len(secret) != 47 || !strings.HasPrefix(secret, "wfs_") {
					t.Errorf("clientSecret is %q", secret)
				}
			}},
		step{operation: "GET /v1/apps/{name}/credentials", path: path("/v1/apps/{name}/credentials", "name", "public-app"),
			status: 200, then: equal(nil, "clientSecret")},
		step{operation: "GET /v1/apps/{name}/credentials", path: path("/v1/apps/{name}/credentials", "name", "bare"),
			status: 404, then: equal("no_client", "code")},
		step{operation: "GET /v1/secrets", path: "/v1/secrets?app=my-oauth-app", status: 200,
			then: equal("current", 0, "state")},
		step{operation: "GET /v1/secrets", path: "/v1/secrets?app=bare", status: 200},
		step{operation: "GET /v1/secrets", path: "/v1/secrets?app=nobody", status: 404, then: equal("not_found", "code")},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "my-oauth-app"),
			body: `{"grace":60}`, status: 200, then: func(body any) {
				equal(60.0, "grace")(body)
				equal("worker/web", "targets", 0)(body)
			}},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "my-oauth-app"),
			body: `{}`, status: 409, then: equal("rotating", "code")},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "public-app"), body: `{}`,
			status: 409, then: equal("no_secret", "code")},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "nobody"), body: `{}`,
			status: 404, then: equal("not_found", "code")},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "my-oauth-app"),
			body: `{"grace":-1}`, status: 422, then: equal("invalid_request", "code")},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "my-oauth-app"),
			body: `{"secret":"secret"}`, status: 422, then: equal("client_secret", "code")},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "my-oauth-app"),
			body: `{`, status: 400},
		step{operation: "GET /v1/secrets", status: 200, then: func(body any) {
			equal("current", 0, "state")(body)
			equal("next", 1, "state")(body)
		}},
		step{operation: "POST /v1/apps/{name}/rotate", path: path("/v1/apps/{name}/rotate", "name", "my-oauth-app"),
			body: `{"compromised":true}`, status: 200, then: equal(true, "compromised")},
		step{operation: "POST /v1/apps/{name}/retry", path: path("/v1/apps/{name}/retry", "name", "my-oauth-app"),
			status: 200, then: equal("web", "deliveries", 0, "name")},
		step{operation: "POST /v1/apps/{name}/retry", path: path("/v1/apps/{name}/retry", "name", "nobody"), status: 404},
		step{operation: "GET /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "my-oauth-app"), status: 200,
			then: equal("current", "secrets", 0, "state")},
		step{operation: "GET /v1/clients", path: "/v1/clients?app=public-app", status: 200, then: equal(true, 0, "public")},
		step{operation: "GET /v1/clients", path: "/v1/clients?nonsense=1", status: 422},
		step{operation: "GET /v1/deliveries", path: "/v1/deliveries?app=my-oauth-app", status: 200,
			then: equal("web", 0, "name")},
	)
	client, err := i.store.Client(t.Context(), grant.ClientID)
	if err != nil {
		t.Fatal(err)
	}
	user, err := i.store.User(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.store.CreateGrant(t.Context(), grant, grant.ExpiresAt, storage.Revisions{Client: client.Revision,
		User: user.Revision}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.store.RegisterClient(t.Context(), storage.Client{ID: "itself",
		Client: oauth.Client{ClientName: "Itself", Public: true}}); err != nil {
		t.Fatal(err)
	}
	described := grant
	described.ID, described.ClientID = storage.NewGrantID(), "https://agent.example/client.json" // which has no record
	if _, err := i.store.CreateGrant(t.Context(), described, described.ExpiresAt,
		storage.Revisions{User: user.Revision}); err != nil {
		t.Fatal(err)
	}
	for _, twin := range []string{"twin-1", "twin-2"} {
		if _, err := i.store.PutUser(t.Context(), storage.User{ID: twin, Email: "twin@example.com"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.store.CreateSession(t.Context(), storage.Session{UserID: "ann", Term: user.Term,
		ExpiresAt: time.Now().Add(time.Hour)}, ""); err != nil {
		t.Fatal(err)
	}
	sid := ""
	run(
		step{operation: "GET /v1/grants", status: 200, then: func(body any) {
			equal("https://agent.example/client.json", 0, "clientId")(body)
			equal("ann@example.com", 1, "user")(body)
			equal("my-oauth-app", 1, "app")(body)
		}},
		step{operation: "GET /v1/grants", path: "/v1/grants?app=bare", status: 200},
		step{operation: "GET /v1/grants", path: "/v1/grants?app=nobody", status: 404},
		step{operation: "POST /v1/plan", body: documents(t, nil, strings.ReplaceAll(example, "      - threads:read\n", "")),
			status: 200, then: equal("removes `threads:read`: 0 grants lose it", "plans", 0, "consequences", 0)},
		step{operation: "DELETE /v1/grants/{id}", path: path("/v1/grants/{id}", "id", grant.ID), status: 200,
			then: equal("my-oauth-app", "app")},
		step{operation: "DELETE /v1/grants/{id}", path: path("/v1/grants/{id}", "id", grant.ID), status: 404},
		step{operation: "DELETE /v1/grants/{id}", path: path("/v1/grants/{id}", "id", described.ID), status: 200,
			then: equal(described.ID, "grant")},
		step{operation: "GET /v1/sessions", status: 200, then: func(body any) {
			equal("ann@example.com", 0, "user")(body)
			sid = at(t, body, 0, "sid").(string)
		}},
		step{operation: "GET /v1/sessions", path: "/v1/sessions?user=twin@example.com", status: 409,
			then: equal("ambiguous_user", "code")},
		step{operation: "GET /v1/sessions", path: "/v1/sessions?user=nobody", status: 404},
		step{operation: "GET /v1/grants", path: "/v1/grants?user=twin@example.com", status: 409,
			then: equal("ambiguous_user", "code")},
	)
	run(step{operation: "POST /v1/reload", status: 409, then: equal("no_configuration", "code")})
	var faults strictyaml.Faults
	i.reloader.Store(&reloading{instance: i, told: make(map[string]bool), read: func() (*config.Settings, error) {
		if faults != nil {
			return nil, faults
		}
		next := *i.cfg
		changed := *next.Config
		changed.Trusted, next.Config = []string{"board"}, &changed
		return &next, nil
	}})
	run(step{operation: "POST /v1/reload", status: 200, then: equal("trusted", "changed", 0)})
	faults = strictyaml.Faults{{File: "config.yaml", Line: 3, Path: "web", Message: "is wrong",
		Severity: strictyaml.SeverityError}}
	run(step{operation: "POST /v1/reload", status: 422, then: equal(3.0, "faults", 0, "line")})
	provider := i.provider
	provider.Connectors = []connector.Connector{{ID: "ldap", Name: "LDAP"}}
	reloaded, err := i.public().With(provider)
	if err != nil {
		t.Fatal(err)
	}
	reloaded.TakeOver()
	consent := "/v1/clients/my-oauth-app/consents/"
	if err := i.store.AddConsent(t.Context(), grant.ClientID, storage.Presence{User: user},
		storage.Asked{Scopes: []string{"threads:read"}}); err != nil {
		t.Fatal(err)
	}
	run(
		step{operation: "DELETE /v1/sessions/{sid}", path: path("/v1/sessions/{sid}", "sid", sid), status: 200,
			then: equal(1.0, "sessions")},
		step{operation: "DELETE /v1/sessions/{sid}", path: path("/v1/sessions/{sid}", "sid", sid), status: 404},
		step{operation: "DELETE /v1/users/{user}/sessions", path: "/v1/users/ann/sessions", status: 200,
			then: equal(0.0, "sessions")},
		step{operation: "DELETE /v1/users/{user}/sessions", path: "/v1/users/nobody/sessions", status: 404},
		step{operation: "DELETE /v1/users/{user}/sessions", path: "/v1/users/twin@example.com/sessions", status: 409},
		step{operation: "DELETE /v1/clients/{id}/consents/{user}", path: consent + "ann", status: 200,
			then: equal(grant.ClientID, "clientId")},
		step{operation: "DELETE /v1/clients/{id}/consents/{user}", path: "/v1/clients/nobody/consents/ann", status: 404},
		step{operation: "DELETE /v1/clients/{id}/consents/{user}", path: consent + "twin@example.com", status: 409},
		step{operation: "POST /v1/users/{user}/revoke", path: "/v1/users/ann@example.com/revoke", status: 200,
			then: equal("ann", "userId")},
		step{operation: "POST /v1/users/{user}/revoke", path: "/v1/users/nobody/revoke", status: 404},
		step{operation: "POST /v1/users/{user}/revoke", path: "/v1/users/twin@example.com/revoke", status: 409},
		step{operation: "GET /v1/users", status: 200, then: func(body any) {
			equal("ann", 0, "id")(body)
			equal("active", 0, "state")(body)
			equal("twin@example.com", 1, "email")(body)
		}},
		step{operation: "GET /v1/users/{user}", path: "/v1/users/ann@example.com", status: 200, then: equal("ann", "id")},
		step{operation: "GET /v1/users/{user}", path: "/v1/users/nobody", status: 404},
		step{operation: "GET /v1/users/{user}", path: "/v1/users/twin@example.com", status: 409,
			then: equal("ambiguous_user", "code")},
		step{operation: "POST /v1/users/{user}/links", path: "/v1/users/ann/links",
			body: `{"connector":"ldap","upstreamId":"uid=bob/x"}`, status: 200, then: equal("ann", "user", "id")},
		step{operation: "POST /v1/users/{user}/links", path: "/v1/users/twin-1/links",
			body: `{"connector":"ldap","upstreamId":"uid=bob/x"}`, status: 409, then: equal("linked_elsewhere", "code")},
		step{operation: "DELETE /v1/users/{user}/links/{connector}/{upstreamId}",
			path: "/v1/users/twin@example.com/links/ldap/x", status: 409},
		step{operation: "DELETE /v1/users/{user}/links/{connector}/{upstreamId}",
			path: "/v1/users/ann/links/ldap/uid=bob%2Fx", status: 200, then: equal("ann", "user", "id")},
		step{operation: "POST /v1/users/{user}/links", path: "/v1/users/ann/links",
			body: `{"connector":"local","upstreamId":"bob"}`, status: 404, then: equal("no_connector", "code")},
		step{operation: "POST /v1/users/{user}/links", path: "/v1/users/ann/links", body: `{"connector":"local"}`,
			status: 422},
		step{operation: "POST /v1/users/{user}/links", path: "/v1/users/ann/links", body: `{`, status: 400},
		step{operation: "POST /v1/users/{user}/links", path: "/v1/users/nobody/links",
			body: `{"connector":"local","upstreamId":"bob"}`, status: 404},
		step{operation: "DELETE /v1/users/{user}/links/{connector}/{upstreamId}",
			path: "/v1/users/ann/links/ldap/uid=bob%2Fx", status: 404, then: equal("not_found", "code")},
	)
	run(
		step{operation: "POST /v1/users", body: documents(t, nil, "email: eve@example.com\nuserID: eve"), status: 200,
			then: equal("created", "users", 0, "change")},
		step{operation: "POST /v1/users", body: documents(t, nil, "emial: eve@example.com"), status: 422,
			then: equal("invalid_people", "code")},
		step{operation: "POST /v1/users", body: `{"documents":`, status: 400},
		step{operation: "PUT /v1/users/{user}/password", path: "/v1/users/eve/password",
			body: `{"password":"quartz tangerine lighthouse"}`, status: 200, then: equal(true, "ended")},
		step{operation: "PUT /v1/users/{user}/password", path: "/v1/users/eve/password", body: `{"password":"password"}`,
			status: 422, then: equal("weak_password", "code")},
		step{operation: "PUT /v1/users/{user}/password", path: "/v1/users/eve/password", body: `{`, status: 400},
		step{operation: "PUT /v1/users/{user}/password", path: "/v1/users/nobody/password", body: `{"password":"x"}`,
			status: 404},
		step{operation: "PUT /v1/users/{user}/password", path: "/v1/users/ann/password", body: `{"password":"x"}`,
			status: 409, then: equal("not_managed", "code")},
		step{operation: "POST /v1/users/{user}/link", path: "/v1/users/eve/link", body: `{"for":"reset"}`, status: 200,
			then: equal(false, "mailed")},
		step{operation: "POST /v1/users/{user}/link", path: "/v1/users/eve/link", body: `{`, status: 400},
		step{operation: "POST /v1/users/{user}/link", path: "/v1/users/nobody/link", body: `{"for":"reset"}`, status: 404},
		step{operation: "POST /v1/users/{user}/link", path: "/v1/users/ann/link", body: `{"for":"reset"}`, status: 409},
	)
	eve, err := i.store.Account(t.Context(), "eve")
	if err != nil {
		t.Fatal(err)
	}
	proofs := eve.Factors.Clone()
	proofs.TOTP.Secret = []byte("a secret of twenty b")
	if _, _, err := i.store.ChangeFactors(t.Context(), eve, storage.FactorChange{Next: proofs}); err != nil {
		t.Fatal(err)
	}
	run(
		step{operation: "DELETE /v1/users/{user}/factors/{factor}", path: "/v1/users/eve/factors/totp", status: 200,
			then: equal("totp", "removed", 0)},
		step{operation: "DELETE /v1/users/{user}/factors/{factor}", path: "/v1/users/eve/factors/totp", status: 404},
		step{operation: "DELETE /v1/users/{user}/factors/{factor}", path: "/v1/users/twin@example.com/factors/totp",
			status: 409},
		step{operation: "DELETE /v1/users/{user}/factors", path: "/v1/users/eve/factors", status: 200},
		step{operation: "DELETE /v1/users/{user}/factors", path: "/v1/users/nobody/factors", status: 404},
		step{operation: "DELETE /v1/users/{user}/factors", path: "/v1/users/twin@example.com/factors", status: 409},
		step{operation: "POST /v1/users/{user}/disable", path: "/v1/users/eve/disable", status: 200,
			then: equal("eve", "userId")},
		step{operation: "POST /v1/users/{user}/disable", path: "/v1/users/nobody/disable", status: 404},
		step{operation: "POST /v1/users/{user}/disable", path: "/v1/users/twin@example.com/disable", status: 409},
		step{operation: "POST /v1/users/{user}/enable", path: "/v1/users/eve/enable", status: 200,
			then: equal("active", "state")},
		step{operation: "POST /v1/users/{user}/enable", path: "/v1/users/nobody/enable", status: 404},
		step{operation: "POST /v1/users/{user}/enable", path: "/v1/users/twin@example.com/enable", status: 409},
		step{operation: "DELETE /v1/users/{user}", path: "/v1/users/eve", status: 200, then: equal("eve", "userId")},
		step{operation: "DELETE /v1/users/{user}", path: "/v1/users/eve", status: 404},
		step{operation: "DELETE /v1/users/{user}", path: "/v1/users/twin@example.com", status: 409},
		step{operation: "GET /v1/audit", path: "/v1/audit?user=twin@example.com", status: 409},
		step{operation: "GET /v1/audit", path: "/v1/audit?user=eve", status: 200, then: equal("user-applied",
			"entries", 0, "action")},
		step{operation: "GET /v1/audit/follow", path: "/v1/audit/follow?user=twin@example.com", status: 409},
	)
	run(
		step{operation: "DELETE /v1/clients/{id}", path: path("/v1/clients/{id}", "id", grant.ClientID), status: 409,
			then: equal("client_of_an_app", "code")},
		step{operation: "DELETE /v1/clients/{id}", path: path("/v1/clients/{id}", "id", "itself"), status: 200,
			then: equal("Itself", "name")},
		step{operation: "DELETE /v1/clients/{id}", path: path("/v1/clients/{id}", "id", "itself"), status: 404},
		step{operation: "GET /v1/audit", status: 200, then: func(body any) {
			equal("refused", "entries", 0, "outcome")(body)
			equal(fmt.Sprintf("uid:%d", os.Getuid()), "entries", 0, "actor")(body)
			equal(nil, "next")(body)
		}},
		step{operation: "GET /v1/audit", path: "/v1/audit?app=my-oauth-app&limit=1", status: 200, then: func(body any) {
			equal("apply", "entries", 0, "action")(body)
			if at(t, body, "next") == nil {
				t.Error("no next page")
			}
		}},
		step{operation: "GET /v1/audit", path: "/v1/audit?since=yesterday", status: 422},
		step{operation: "GET /v1/audit", path: "/v1/audit?limit=201", status: 422},
		step{operation: "GET /v1/encryption", status: 200, then: equal(true, "keys", 0, "seals")},
		step{operation: "POST /v1/encryption/rotate", body: `{"now":`, status: 400},
		step{operation: "POST /v1/encryption/rotate", body: `{"now":1}`, status: 422},
		step{operation: "POST /v1/encryption/rotate", body: "{}", status: 200, then: func(body any) {
			if kid, _ := at(t, body, "keys", 0, "fingerprint").(string); len(kid) != 16 {
				t.Errorf("fingerprint %q", kid)
			}
		}},
		step{operation: "GET /v1/keys", status: 200, then: func(body any) {
			for _, key := range body.([]any) {
				if kid, _ := at(t, key, "kid").(string); len(kid) != 43 {
					t.Errorf("kid %q", kid)
				}
			}
		}},
		step{operation: "POST /v1/keys/{use}/rotate", path: "/v1/keys/ES256/rotate", body: "{}", status: 200,
			then: func(body any) {
				equal("ES256", "keys", 0, "use")(body)
				equal(false, "keys", 0, "compromised")(body)
			}},
		step{operation: "POST /v1/keys/{use}/rotate", path: "/v1/keys/all/rotate", body: `{"compromised":true}`, status: 200,
			then: func(body any) {
				equal("seal", "keys", 0, "use")(body)
				equal(true, "keys", 3, "compromised")(body)
			}},
		step{operation: "POST /v1/keys/{use}/rotate", path: "/v1/keys/pairwise/rotate", body: "{}", status: 409,
			then: equal("permanent_key", "code")},
		step{operation: "POST /v1/keys/{use}/rotate", path: "/v1/keys/ES256/rotate", body: `{"now":`, status: 400},
		step{operation: "POST /v1/keys/{use}/rotate", path: "/v1/keys/HS256/rotate", body: "{}", status: 422},
		step{operation: "POST /v1/keys/{use}/rotate", path: "/v1/keys/seal/rotate", body: `{"now":true,"compromised":true}`,
			status: 422, then: equal("invalid_request", "code")},
		step{operation: "POST /v1/drift", body: "{}", status: 200, then: func(body any) {
			equal(11.0, "apps")(body)
			if found := at(t, body, "findings").([]any); len(found) > 0 {
				t.Errorf("drift: %v", found)
			}
		}},
		step{operation: "POST /v1/drift", body: documents(t, nil, strings.ReplaceAll(example, "1.0.0", "1.0.1")), status: 200,
			then: equal("unapplied", "findings", 0, "kind")},
		step{operation: "POST /v1/drift", body: documents(t, nil, "kind: App"), status: 422},
		step{operation: "POST /v1/drift", body: documents(t, map[string]any{"app": "bare"}, example), status: 422,
			then: equal("invalid_request", "code")},
		step{operation: "POST /v1/drift", body: `{"app":"nobody"}`, status: 404},
		step{operation: "POST /v1/drift", body: `{"documents":`, status: 400},
		step{operation: "DELETE /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "my-oauth-app") +
			"?wait=60", status: 200, then: equal(true, "gone")},
		step{operation: "DELETE /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "my-oauth-app"), status: 404},
		step{operation: "DELETE /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "bare") + "?wait=1000", status: 422},
	)

	// An app whose env cannot be taken away stays, and says so.
	stuck := documents(t, map[string]any{"wait": 60}, strings.ReplaceAll(example, "my-oauth-app", "stuck"))
	run(step{operation: "POST /v1/apply", body: stuck, status: 200})
	view, err := i.store.App(t.Context(), "stuck")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.store.BeginDelete(t.Context(), view, nil); err != nil { // without removals, nobody takes the env away
		t.Fatal(err)
	}
	run(
		step{operation: "POST /v1/apply", body: stuck, status: 409, then: equal("deleting", "code")},
		step{operation: "POST /v1/drift", body: `{"app":"stuck"}`, status: 409, then: equal("deleting", "code")},
		step{operation: "DELETE /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "stuck"), status: 200,
			then: equal(false, "gone")},
		step{operation: "GET /v1/apps/{name}", path: path("/v1/apps/{name}", "name", "stuck"), status: 200,
			then: func(body any) {
				equal("deleting", "state")(body)
				equal(true, "client", "disabled")(body)
			}},
		step{operation: "GET /schemas/{name}", path: "/schemas/app.json", status: 200,
			then: equal("https://json-schema.org/draft/2020-12/schema", "$schema")},
		step{operation: "GET /schemas/{name}", path: "/schemas/config.json", status: 200},
		step{operation: "GET /schemas/{name}", path: "/schemas/config", status: 404},
	)

	refused := i.ask(t, "POST", "/v1/plan", documents(t, nil, strings.ReplaceAll(example, "threads:write",
		"threads:wirte"))).Header.Get("X-Request-Id")
	run(
		step{operation: "GET /v1/refusals/{id}", path: "/v1/refusals/" + refused, status: 200, then: func(body any) {
			equal("POST /v1/plan", "endpoint")(body)
			equal("invalid_manifest", "error")(body)
			equal("unknown-scope", "reasons", 0, "rule")(body)
			equal("0.yml:15:9", "reasons", 0, "place")(body)
			equal("threads:write", "reasons", 0, "nearest")(body)
		}},
		step{operation: "GET /v1/refusals/{id}", path: "/v1/refusals/0123456789abcdef", status: 404, then: func(body any) {
			equal("unknown_request", "code")(body)
			if text, _ := at(t, body, "remedy").(string); !strings.Contains(text, "other replicas") {
				t.Errorf("remedy is %q", text)
			}
		}},
	)

	// What is not JSON.
	backup := i.ask(t, "POST", "/v1/backup", "")
	if kind := backup.Header.Get("Content-Type"); backup.StatusCode != http.StatusOK ||
		kind != "application/octet-stream" {
		t.Errorf("a backup: %s, %s", backup.Status, kind)
	}
	seen["POST /v1/backup"] = append(seen["POST /v1/backup"], backup.StatusCode)

	follow := i.ask(t, "GET", "/v1/audit/follow", "")
	var first admin.AuditEntry
	if err := json.NewDecoder(follow.Body).Decode(&first); err != nil || follow.StatusCode != http.StatusOK ||
		first.Action == "" {
		t.Errorf("the audit log: %s, %+v, %v", follow.Status, first, err)
	}
	_ = follow.Body.Close()
	seen["GET /v1/audit/follow"] = append(seen["GET /v1/audit/follow"], follow.StatusCode)

	// Nothing in the document was left out, neither an operation nor a status that this client can cause.
	elsewhere := map[string]bool{
		"POST /v1/users 413": true, "POST /v1/users 409": true, // and that after many conflicts in a row
		"POST /v1/apply 400": true, "POST /v1/apply 413": true, "POST /v1/drift 413": true, // as with plan, which was seen
		"DELETE /v1/apps/{name} 409": true, // after fifty conflicts in a row
		// With encryptionKeyFiles: this server keeps its key itself.
		"POST /v1/encryption/rotate 409": true,
	}
	for at, methods := range doc.Paths {
		for method, operation := range methods {
			name := strings.ToUpper(method) + " " + at
			for status := range operation.Responses {
				if status[0] != '5' && status != "422" && !elsewhere[name+" "+status] &&
					!slices.Contains(seen[name], atoi(status)) {
					t.Errorf("%s: %s is in the document and was never seen", name, status)
				}
			}
		}
	}
}

func atoi(s string) int {
	var n int
	_, _ = fmt.Sscan(s, &n)
	return n
}
