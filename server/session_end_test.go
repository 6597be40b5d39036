package server_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/warifu/warifu/storage"
)

// What ends with the session, and what does not.
func TestGrantsAfterALogout(t *testing.T) {
	p := logoutIDP(t)
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	b := p.browser()
	at := func(q *idp, scope string) reply {
		return q.exchange((&browser{q, b.http}).code("scope", scope))
	}
	signIn, offline, api, elsewhere := at(p, "openid threads:read"), at(p, "openid offline_access"), at(p, "threads:read"),
		at(other, "openid email")
	another := p.tokens("scope", "openid") // in another browser
	pending, pendingOffline, pendingAPI := b.code("scope", "openid"), b.code("scope", "openid offline_access"),
		b.code("scope", "threads:read")
	b.get(p.logoutURL("id_token_hint", signIn.text("id_token"))).signedOut(t, "sign-out")

	p.dead("openid without offline_access", signIn)
	other.dead("at another app", elsewhere)
	if got := p.userinfo(signIn.text("access_token")); got.status != http.StatusUnauthorized {
		t.Errorf("userinfo: %d", got.status)
	}
	for rule, got := range map[string]reply{"offline_access": offline, "no openid": api, "another browser": another} {
		if next := p.refresh(got.text("refresh_token")); next.status != http.StatusOK ||
			!p.active(next.text("access_token")) {
			t.Errorf("%s: %d %s", rule, next.status, next.raw)
		}
	}
	p.exchange(pending).wants(t, "a code from before", http.StatusBadRequest, "invalid_grant")
	p.exchange(pendingOffline).wants(t, "a code from before, offline", http.StatusBadRequest, "invalid_grant")
	if got := p.exchange(pendingAPI); got.status != http.StatusOK {
		t.Errorf("a code that is no sign-in: %d %s", got.status, got.raw)
	}
	entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(entries, func(e storage.AuditEntry) bool {
		return e.Action == storage.AuditSessionEnded && e.Actor == "user:user-ann" && e.Reason == "the user signed out"
	}) {
		t.Errorf("audit: %+v", entries)
	}
}

// Signing in as somebody else, or asking to, ends the session before; signing in again as oneself does not.
func TestSessionsEndWhenAccountsAreSwitched(t *testing.T) {
	for rule, c := range map[string]struct {
		change func(p *idp, b *browser)
		ends   bool
	}{
		"not you": {func(p *idp, b *browser) { b.decide(b.get(p.authorizeURL("prompt", "consent")), "switch") }, true},
		"another user": {func(p *idp, b *browser) {
			b.signIn(b.get(p.authorizeURL("prompt", "login")), "bob@app.test", userPassword)
		}, true},
		"the same user": {func(p *idp, b *browser) {
			b.signIn(b.get(p.authorizeURL("prompt", "login")), userEmail,
				userPassword)
		}, false},
		"a failure": {func(p *idp, b *browser) {
			b.signIn(b.get(p.authorizeURL("prompt", "login")), "bob@app.test",
				"wrong")
		}, false},
	} {
		t.Run(rule, func(t *testing.T) {
			back := newReceiver(t)
			p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = back.URL })
			b := p.browser()
			got := p.exchange(b.code("scope", "openid"))
			c.change(p, b)
			p.sendLogouts()
			if told := len(back.tokens()) == 1; told != c.ends || p.active(got.text("access_token")) == c.ends {
				t.Errorf("told: %v, active: %v", told, p.active(got.text("access_token")))
			}
		})
	}
}

// However many ask at once, everybody ends signed out and each app is told once.
func TestLogout32AtOnce(t *testing.T) {
	back := newReceiver(t)
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = back.URL })
	q := p.replica(p.etcd.Client)
	b := p.browser()
	got := p.exchange(b.code("scope", "openid"))
	address := p.logoutURL("id_token_hint", got.text("id_token"), "post_logout_redirect_uri", afterLogout, "state", "s")
	pages := make([]page, 32)
	together(len(pages), func(i int) {
		at := &browser{[]*idp{p, q}[i%2], b.http}
		if i%2 == 1 {
			at.http = &http.Client{Transport: q.transport, Jar: b.http.Jar, CheckRedirect: b.http.CheckRedirect}
		}
		pages[i] = at.get(address)
	})
	for _, got := range pages {
		if got.location == nil || got.location.String() != afterLogout+"?state=s" {
			t.Errorf("%d to %v\n%s", got.status, got.location, shown(got.body))
		}
	}
	together(8, func(i int) { []*idp{p, q}[i%2].sendLogouts() })
	if n := len(back.tokens()); n != 1 {
		t.Errorf("told %d times", n)
	}
	p.dead("after 32 logouts", got)
}
