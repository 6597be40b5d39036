package server_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

// The libraries that Go apps use, through the whole flow, knowing nothing but issuer, id and secret.
func TestStandardLibraries(t *testing.T) {
	for rule, change := range map[string]func(*server.Config){
		"loopback":           func(*server.Config) {},
		"https":              func(c *server.Config) { c.Issuer = "https://id.test" },
		"https, with a path": func(c *server.Config) { c.Issuer = "https://id.test/tenant" },
	} {
		t.Run(rule, func(t *testing.T) {
			p := newIDP(t, change)
			walkWithLibraries(t, p, "")
			walkWithLibraries(t, p, oauth2.AuthStyleInHeader)
			walkWithLibraries(t, p, oauth2.AuthStyleInParams)
			public := p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
			walkWithLibraries(t, public, oauth2.AuthStyleInParams)
		})
	}
}

func walkWithLibraries(t *testing.T, p *idp, style any) {
	t.Helper()
	ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: p.transport})
	provider, err := oidc.NewProvider(ctx, p.issuer)
	if err != nil {
		t.Fatal(err)
	}
	conf := &oauth2.Config{ClientID: p.client.ID, ClientSecret: p.secret, Endpoint: provider.Endpoint(),
		RedirectURL: callback,
		Scopes:      []string{oidc.ScopeOpenID, "email", "threads:read"}}
	if chosen, ok := style.(oauth2.AuthStyle); ok {
		conf.Endpoint.AuthStyle = chosen
	}
	pkce := oauth2.GenerateVerifier()
	b := p.browser()
	got := b.follow(b.get(conf.AuthCodeURL("state-2", oauth2.S256ChallengeOption(pkce), oidc.Nonce("nonce-2"),
		oauth2.AccessTypeOffline)))
	if got.asks() == "password" {
		got = b.follow(b.signIn(got, userEmail, userPassword))
	}
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	code := b.answered(got, "library")
	if got.location.Query().Get("state") != "state-2" {
		t.Errorf("state %q", got.location.Query().Get("state"))
	}
	token, err := conf.Exchange(ctx, code, oauth2.VerifierOption(pkce))
	if err != nil {
		t.Fatal(err)
	}
	if token.Type() != "Bearer" || token.RefreshToken == "" || !token.Valid() ||
		token.Extra("scope") != "openid email threads:read" {
		t.Errorf("token of type %s, valid: %v, scope %v", token.Type(), token.Valid(), token.Extra("scope"))
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: p.client.ID, Now: p.clock.now}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if id.Subject != "user-ann" || id.Nonce != "nonce-2" || id.Issuer != p.issuer {
		t.Errorf("ID token %+v", id)
	}
	if err := id.VerifyAccessToken(token.AccessToken); err != nil {
		t.Errorf("at_hash: %v", err)
	}
	if err := id.VerifyAccessToken(token.AccessToken + "x"); err == nil {
		t.Error("at_hash fits another token")
	}

	old := *token
	token.Expiry = time.Now().Add(-time.Minute)
	source := conf.TokenSource(ctx, token)
	next, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	if next.AccessToken == old.AccessToken || next.RefreshToken == old.RefreshToken || next.RefreshToken == "" {
		t.Error("nothing was refreshed")
	}
	info, err := provider.UserInfo(ctx, source)
	if err != nil || info.Subject != "user-ann" || info.Email != userEmail || !info.EmailVerified {
		t.Errorf("userinfo %+v, %v", info, err)
	}
	old.Expiry = time.Now().Add(-time.Minute)
	if _, err := conf.TokenSource(ctx, &old).Token(); err == nil {
		t.Error("the refresh token was good twice")
	}
	if _, err := provider.UserInfo(ctx, source); err == nil {
		t.Error("the access token survived the replay")
	}
}

// Verifying a token of another issuer or for another client fails in the library, not only here.
func TestLibrariesRefuseWhatIsNotTheirs(t *testing.T) {
	p := newIDP(t)
	ctx := oidc.ClientContext(context.Background(), &http.Client{Transport: p.transport})
	provider, err := oidc.NewProvider(ctx, p.issuer)
	if err != nil {
		t.Fatal(err)
	}
	got := p.tokens("scope", "openid")
	for rule, c := range map[string]struct {
		config oidc.Config
		token  string
	}{
		"another client's": {oidc.Config{ClientID: "other"}, got.text("id_token")},
		"an access token": {oidc.Config{ClientID: p.client.ID, SupportedSigningAlgs: []string{"RS256", "ES256"}},
			got.text("access_token")},
		"after its expiry": {oidc.Config{ClientID: p.client.ID,
			Now: func() time.Time { return time.Now().Add(61 * time.Minute) }}, got.text("id_token")},
		"another algorithm's": {oidc.Config{ClientID: p.client.ID, SupportedSigningAlgs: []string{"ES256"}},
			got.text("id_token")},
	} {
		if _, err := provider.Verifier(&c.config).Verify(ctx, c.token); err == nil {
			t.Errorf("%s: verified", rule)
		}
	}
	header, claims := takenApart(t, got.text("id_token"))
	if header["alg"] != "RS256" || header["typ"] != "JWT" || claims["aud"] != p.client.ID || claims["sub"] != "user-ann" ||
		claims["auth_time"] == nil || claims["nonce"] != nil {
		t.Errorf("ID token %v %v", header, claims)
	}
}
