package server_test

import (
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// trustedBy is a server on which another app trusts the one that asks, and the scope that names it.
func trustedBy(t *testing.T) (e *explained, peer *storage.Client, scope string) {
	t.Helper()
	e = newExplained(t)
	peer, _ = e.register("kubernetes", func(c *storage.Client) {
		c.ClientName, c.TrustedPeers = "Cluster", []string{"my-app"}
	})
	return e, peer, "openid offline_access audience:server:client_id:" + peer.ID
}

// isFor checks for whom an ID token is, by its claims.
func (p *idp) isFor(rule, token string, audience ...string) {
	p.t.Helper()
	claims := p.verified(token, "RS256")
	got := texts(claims["aud"])
	if one, is := claims["aud"].(string); is {
		got = []string{one}
	}
	azp := any(nil)
	if len(audience) > 1 {
		azp = p.client.ID
	}
	if !slices.Equal(got, audience) || claims["azp"] != azp || claims["sub"] != "user-ann" {
		p.t.Errorf("%s: for %v, azp %v, sub %v; want %v", rule, claims["aud"], claims["azp"], claims["sub"], audience)
	}
}

// An app gets ID tokens that an app which trusts it takes as well, at sign-in and on each refresh, for as long as it is
// trusted. That costs no request to etcd.
func TestIDTokensForPeers(t *testing.T) {
	e, peer, scope := trustedBy(t)
	e.update("my-app", func(c *storage.Client) { c.Scopes = append(c.Scopes, "offline_access") })
	e.clock.stop()
	first := e.tokens("scope", scope)
	e.isFor("the code", first.text("id_token"), peer.ID, e.client.ID)
	if got := first.text("scope"); got != scope {
		t.Errorf("scope is %q", got)
	}
	if got := claimsOf(t, first.text("access_token")); got["aud"] != e.issuer {
		t.Errorf("the access token is for %v", got["aud"])
	}
	if !e.active(first.text("access_token")) || !e.active(first.text("refresh_token")) {
		t.Error("tokens are not active")
	}

	t.Run("go-oidc takes it as the peer and as the app", func(t *testing.T) {
		ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: e.transport})
		provider, err := oidc.NewProvider(ctx, e.issuer)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{peer.ID, e.client.ID} {
			if _, err := provider.Verifier(&oidc.Config{ClientID: id}).Verify(ctx, first.text("id_token")); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		if _, err := provider.Verifier(&oidc.Config{ClientID: "another"}).Verify(ctx, first.text("id_token")); err == nil {
			t.Error("another client takes it")
		}
	})

	newest := first
	refresh := func(rule string, want storagetest.Counts, audience ...string) {
		t.Helper()
		got := e.etcd.Count(func() { newest = e.refresh(newest.text("refresh_token")) })
		if got != want || newest.status != http.StatusOK {
			t.Fatalf("%s: %d, asked etcd %+v, want %+v: %s", rule, newest.status, got, want, newest.raw)
		}
		e.isFor(rule, newest.text("id_token"), audience...)
	}
	once := storagetest.Counts{Proposals: 1}
	refresh("a refresh", once, peer.ID, e.client.ID)
	e.update("kubernetes", func(c *storage.Client) { c.AccessGroups = []string{"admins"} })
	refresh("the user may not use the peer", once, e.client.ID)
	e.member("user-ann", "admins")
	newest = e.refresh(newest.text("refresh_token")) // reads the user, who has changed
	refresh("the user may use the peer", once, peer.ID, e.client.ID)
	e.update("kubernetes", func(c *storage.Client) { c.TrustedPeers = []string{"other-app"} })
	refresh("trust was taken back", once, e.client.ID)
	if strings.Contains(newest.text("scope"), peer.ID) {
		t.Errorf("the scope stays: %q", newest.text("scope"))
	}
	e.update("kubernetes", func(c *storage.Client) { c.TrustedPeers = []string{"my-app"} })
	refresh("trust was given again", once, peer.ID, e.client.ID)
	e.update("kubernetes", func(c *storage.Client) { c.SubjectType = oauth.SubjectPairwise })
	refresh("the peer knows users by other subjects", once, e.client.ID)
	e.update("kubernetes", func(c *storage.Client) { c.SubjectType = "" })
	code := e.code("scope", scope)
	view, err := e.store.App(t.Context(), "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.store.BeginDelete(t.Context(), view, nil); err != nil {
		t.Fatal(err)
	}
	for e.store.Known(peer.ID) != nil { // until memory has heard of it
		runtime.Gosched()
	}
	refresh("the peer was deleted", once, e.client.ID)
	e.isFor("a code from before the peer was deleted", e.exchange(code).text("id_token"), e.client.ID)
	got := e.browser().get(e.authorizeURL("scope", scope))
	e.redirected(got, "a peer that was deleted", "invalid_scope")
}

// The user reads which other app is meant, in both languages, and is asked although the app skips the question for what
// its own manifest names.
func TestConsentNamesThePeer(t *testing.T) {
	e, peer, scope := trustedBy(t)
	e.update("my-app", func(c *storage.Client) {
		c.Scopes = append(c.Scopes, "offline_access")
		c.Consent, c.Trusted = oauth.ConsentSkip, true
	})
	for lang, says := range map[string]string{"en": "Sign in to “Cluster” as you", "ja": "あなたとしての「Cluster」へのサインイン"} {
		b := e.browser()
		got := b.follow(b.signIn(b.get(e.authorizeURL("scope", scope, "ui_locales", lang)), userEmail, userPassword))
		if got.asks() != "decision" || !strings.Contains(got.body, says) || !strings.Contains(got.body, peer.ID) {
			t.Fatalf("%s: %d %s", lang, got.status, shown(got.body))
		}
	}
	b := e.browser()
	b.code("scope", scope)
	if got := b.get(e.authorizeURL("scope", scope, "prompt", "none")); got.location == nil ||
		got.location.Query().Get("code") == "" {
		t.Errorf("the consent was not remembered: %d to %v", got.status, got.location)
	}
}

// Whoever may not use the peer gets no ID token for it: they are told so, and the app is.
func TestWhoMayNotUseThePeerIsToldSo(t *testing.T) {
	e, _, scope := trustedBy(t)
	e.update("my-app", func(c *storage.Client) { c.Scopes = append(c.Scopes, "offline_access") })
	e.update("kubernetes", func(c *storage.Client) { c.AccessGroups = []string{"admins"} })
	b := e.browser()
	got := b.follow(b.signIn(b.get(e.authorizeURL("scope", scope)), userEmail, userPassword))
	if got.status != http.StatusForbidden || !strings.Contains(got.body, "You cannot use “Cluster” with this account") ||
		!strings.Contains(got.body, "Back to “My App”") {
		t.Fatalf("%d %s", got.status, shown(got.body))
	}
	if why := e.of(got.header).Reasons[0]; why.Rule != oauth.RulePeerNotAdmitted {
		t.Errorf("%+v", why)
	}
	e.redirected(b.decide(got, "back"), "back to the app", "access_denied")
	e.redirected(b.get(e.authorizeURL("scope", scope, "prompt", "none")), "without a question", "access_denied")
	e.redirected(b.get(e.authorizeURL("scope", "openid", "prompt", "none")), "without the peer", "consent_required")
}

// Nobody gets an ID token for an app that does not trust them, and nobody learns which apps there are.
func TestPeersThatDoNotTrust(t *testing.T) {
	e, peer, _ := trustedBy(t)
	const names = "audience:server:client_id:"
	untrusted := e.as(e.register("untrusted", func(*storage.Client) {}))
	pairwise := e.as(e.register("pairwise", func(c *storage.Client) {
		c.SubjectType, c.RedirectURIs = oauth.SubjectPairwise, []string{callback}
	}))
	e.update("kubernetes", func(c *storage.Client) { c.TrustedPeers = []string{"my-app", "pairwise", "device"} })
	listing := e.as(e.register("listing", func(c *storage.Client) { c.Scopes = append(c.Scopes, names+peer.ID) }))
	for _, c := range []struct {
		rule, scope string
		p           *idp
	}{
		{"an app that is not trusted", "openid " + names + peer.ID, untrusted},
		{"an app whose manifest lists the scope", "openid " + names + peer.ID, listing},
		{"an app with other subjects", "openid " + names + peer.ID, pairwise},
		{"the other way around", "openid " + names + untrusted.client.ID, e.idp},
		{"nobody", "openid " + names + "nobody", e.idp},
		{"nothing", "openid " + names, e.idp},
		{"a document, which is not fetched", "openid " + names + "https://app.example.com/client.json", e.idp},
		{"without openid", "threads:read " + names + peer.ID, e.idp},
		{"one that trusts and one that does not", "openid " + names + peer.ID + " " + names + untrusted.client.ID, e.idp},
	} {
		got := e.browser().get(c.p.authorizeURL("scope", c.scope))
		e.redirected(got, c.rule, "invalid_scope")
		if why := e.of(got.header).Reasons[0]; why.Rule != oauth.RuleScopePeer || !strings.HasPrefix(why.Asked, names) {
			t.Errorf("%s: %+v", c.rule, why)
		}
	}
	own := e.tokens("scope", "openid "+names+e.client.ID)
	e.isFor("the app itself", own.text("id_token"), e.client.ID)
	device := e.as(e.register("device", func(c *storage.Client) {
		c.GrantTypes, c.RedirectURIs = []string{oauth.GrantDeviceCode}, nil
	}))
	got := device.call("/oauth/device_authorization", url.Values{"scope": {"openid " + names + untrusted.client.ID}})
	got.wants(t, "a device", http.StatusBadRequest, "invalid_scope")
	machine := e.as(e.register("machine", func(c *storage.Client) {
		c.GrantTypes, c.RedirectURIs = []string{oauth.GrantClientCredentials}, nil
	}))
	e.update("kubernetes", func(c *storage.Client) { c.TrustedPeers = append(c.TrustedPeers, "machine") })
	got = machine.call("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {names + peer.ID}})
	got.wants(t, "a client for itself", http.StatusBadRequest, "invalid_scope")
}

// An ID token that is for a peer as well is a hint of the app that got it, and of no other.
func TestHintsThatAreForPeersAsWell(t *testing.T) {
	p := logoutIDP(t)
	peer, _ := p.register("kubernetes", func(c *storage.Client) { c.TrustedPeers = []string{"my-app"} })
	b := p.browser()
	id := p.exchange(b.code("scope", "openid audience:server:client_id:"+peer.ID)).text("id_token")
	p.isFor("the hint", id, peer.ID, p.client.ID)
	if got := b.get(p.authorizeURL("scope", "openid", "prompt", "none", "id_token_hint", id)); got.location == nil ||
		got.location.Query().Get("code") == "" {
		t.Errorf("a hint at the authorization endpoint: %d to %v", got.status, got.location)
	}
	p.redirected(b.get(p.as(peer, "").authorizeURL("id_token_hint", id)), "a hint of the peer", "invalid_request")
	if got := b.get(p.logoutURL("id_token_hint", id, "client_id", peer.ID)); got.status != http.StatusBadRequest ||
		!b.signedInHere() {
		t.Errorf("a logout by the peer: %d", got.status)
	}
	got := b.get(p.logoutURL("id_token_hint", id, "client_id", p.client.ID, "post_logout_redirect_uri", afterLogout))
	if got.location == nil || got.location.String() != afterLogout || b.signedInHere() {
		t.Errorf("the logout: %d to %v", got.status, got.location)
	}
}

// What names a client is no scope of a catalogue.
func TestScopesOfPeersAreNotForACatalogue(t *testing.T) {
	wrong := server.CheckScopes([]server.Scope{{Name: "audience:server:client_id:kubernetes"}})
	if len(wrong) != 1 || !strings.Contains(wrong[0].Error(), "trustedPeers") {
		t.Errorf("%v", wrong)
	}
}
