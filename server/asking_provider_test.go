package server_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/dex"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// The whole way, with a real provider and the connector for it: what changes there is known here without a sign-in, the
// provider's refresh token is another one each time, and whoever is ended there is ended here.
func TestOpenIDProviderIsAskedAgain(t *testing.T) {
	up := newUpstream(t, "up")
	p := newIDP(t, func(c *server.Config) {
		up.of(c.Issuer)
		up.update("my-app", func(c *storage.Client) { c.Scopes = append(c.Scopes, oauth.ScopeOfflineAccess) })
		settings, err := json.Marshal(map[string]any{"issuer": up.issuer, "clientID": up.client.ID, "clientSecret": up.secret,
			"redirectURI": up.back, "scopes": []string{"openid", "email", "profile", "offline_access"},
			"insecureSkipEmailVerified": true})
		if err != nil {
			t.Fatal(err)
		}
		way, faults := dex.New(dex.Spec{Type: "oidc", ID: "up", Config: settings, Callbacks: []string{up.back},
			Ask: 15 * time.Minute, Logger: slog.New(slog.DiscardHandler)})
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		way.ID, way.Name, way.Ask = "up", "UP", 15*time.Minute
		c.Connectors = append(c.Connectors, way)
	})
	issued := p.exchange(p.browser().by(up, userEmail, "scope", "openid email"))
	account := func() *storage.User {
		t.Helper()
		u, err := p.store.User(t.Context(), connector.SubjectsHashed.Of("up", "user-ann"))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, email := range []string{"ann@married.test", "ann@again.test"} {
		ann, err := up.store.User(t.Context(), "user-ann")
		if err != nil {
			t.Fatal(err)
		}
		ann.Email = email
		up.putUser(*ann)
		p.asksAfter(16 * time.Minute)
		if u := account(); u.Email != email {
			t.Fatalf("%q, want %q: %s", u.Email, email, p.log.String())
		}
	}
	issued = p.refresh(issued.text("refresh_token"))
	if issued.status != http.StatusOK {
		t.Fatal(issued.raw)
	}
	if _, err := up.store.EndUser(t.Context(), "user-ann",
		storage.AuditEntry{Reason: "revoked by an operator"}); err != nil {
		t.Fatal(err)
	}
	p.asksAfter(16 * time.Minute)
	if got := p.refresh(issued.text("refresh_token")); got.status != http.StatusBadRequest {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if list := p.audited(storage.AuditUserEnded); len(list) != 1 {
		t.Errorf("%+v", list)
	}
}
