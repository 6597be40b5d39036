package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

func (p *idp) rotate() {
	p.t.Helper()
	if err := p.handler.(*server.Server).RotateKeys(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// keyNames are names for kids: a use and a sequence.
func (p *idp) keyNames() map[string]string {
	names := make(map[string]string)
	for _, use := range []string{storage.UseES256, storage.UseEdDSA, storage.UseRS256} {
		for _, k := range p.store.Keys(use) {
			names[k.Name()] = fmt.Sprintf("%s-%d", k.Use, k.Sequence)
		}
	}
	return names
}

func (p *idp) kids() []string {
	names := p.keyNames()
	var kids []string
	for _, k := range p.jwks().Keys {
		kids = append(kids, names[k.KeyID])
	}
	slices.Sort(kids)
	return kids
}

// kid names the key that has signed a token.
func (p *idp) kid(token string) string {
	header, _ := takenApart(p.t, token)
	kid, _ := header["kid"].(string)
	return p.keyNames()[kid]
}

// The next key is published long before it signs; the old one until what it signed has run out.
func TestKeyRotation(t *testing.T) {
	const day = 24 * time.Hour
	// ID tokens are hints as long as sessions last
	p := newIDP(t, func(c *server.Config) { c.Lifetimes.Session = time.Hour })
	p.clock.stop()
	p.rotate()
	both := []string{"ES256-1", "ES256-2", "EdDSA-1", "EdDSA-2", "RS256-1", "RS256-2"}
	if got := p.kids(); !slices.Equal(got, both) {
		t.Fatalf("published at first: %v", got)
	}
	b := p.browser()
	code := b.code("scope", "openid")
	early := p.exchange(code)
	if p.kid(early.text("access_token")) != "ES256-1" || p.kid(early.text("id_token")) != "RS256-1" {
		t.Fatal("signed by a key whose time has not come")
	}

	p.clock.forward(30*day - 30*time.Minute)
	old := p.refresh(early.text("refresh_token"))
	oldID := p.tokens("scope", "openid").text("id_token")
	pending := p.code() // sealed by the key before
	if p.kid(old.text("access_token")) != "ES256-1" {
		t.Fatal("the next key signs too early")
	}

	p.clock.forward(30*time.Minute + 20*time.Second)
	p.rotate()
	fresh := p.tokens("scope", "openid")
	if p.kid(fresh.text("access_token")) != "ES256-2" || p.kid(fresh.text("id_token")) != "RS256-2" {
		t.Errorf("signed by %v and %v", p.kid(fresh.text("access_token")), p.kid(fresh.text("id_token")))
	}
	if !p.active(old.text("access_token")) || p.userinfo(old.text("access_token")).status != http.StatusOK ||
		!p.active(fresh.text("access_token")) {
		t.Error("a token of the key before, or of the one now, is not good")
	}
	ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: p.transport})
	provider, err := oidc.NewProvider(ctx, p.issuer)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{oldID, fresh.text("id_token")} {
		if _, err := provider.Verifier(&oidc.Config{ClientID: p.client.ID, Now: p.clock.now}).Verify(ctx, id); err != nil {
			t.Errorf("ID token: %v", err)
		}
	}
	want := []string{"ES256-1", "ES256-2", "ES256-3", "EdDSA-1", "EdDSA-2", "EdDSA-3", "RS256-1", "RS256-2", "RS256-3"}
	if got := p.kids(); !slices.Equal(got, want) {
		t.Errorf("published while the old ones verify: %v", got)
	}
	p.exchange(pending).wants(t, "a code of half an hour ago", http.StatusBadRequest, "invalid_grant")

	p.clock.forward(70 * time.Minute)
	p.rotate()
	if got := p.kids(); !slices.Equal(got, []string{"ES256-2", "ES256-3", "EdDSA-2", "EdDSA-3", "RS256-2", "RS256-3"}) {
		t.Errorf("published afterwards: %v", got)
	}
	if p.active(old.text("access_token")) {
		t.Error("good after its hour and without its key")
	}
	// Sealing keys live as long as the longest refresh token.
	if got := p.refresh(old.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("a refresh token sealed by the key before: %d %s", got.status, got.raw)
	}
	p.restart()
	if got := p.kids(); len(got) != 6 {
		t.Errorf("after a restart: %v", got)
	}
}

// A server that slept past its schedule still publishes a key before that signs.
func TestKeyRotationAfterALongStop(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	p.clock.forward(400 * 24 * time.Hour)
	p.restart()
	p.rotate()
	if got := p.kid(p.tokens().text("access_token")); got != "ES256-1" {
		t.Errorf("signed by %v, which nobody has seen", got)
	}
	p.clock.forward(61 * time.Minute)
	p.rotate()
	if got := p.kid(p.tokens().text("access_token")); got != "ES256-2" {
		t.Errorf("signed by %v", got)
	}
}
