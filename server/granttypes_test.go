package server_test

import (
	"net/http"
	"testing"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// What a client did not register, it may not use; what is off, nobody may.
func TestGrantTypesOfAClient(t *testing.T) {
	p := newIDP(t)
	refresh := p.tokens().text("refresh_token")
	p.update("my-app", func(c *storage.Client) { c.GrantTypes = []string{oauth.GrantAuthorizationCode} })
	p.refresh(refresh).wants(t, "refresh_token is not registered", http.StatusBadRequest, "unauthorized_client")
	p.update("my-app", func(c *storage.Client) { c.GrantTypes = nil })
	if got := p.refresh(refresh); got.status != http.StatusOK {
		t.Errorf("a registration that names none: %d %s", got.status, got.raw)
	}
	p.call("/oauth/token", map[string][]string{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"},
		"assertion": {"a.b.c"}}).
		wants(t, "a grant type that is not served", http.StatusBadRequest, "unsupported_grant_type")
}
