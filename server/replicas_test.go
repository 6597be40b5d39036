package server_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/warifu/warifu/storage"
)

// Any replica finishes what any other began.
func TestTwoReplicas(t *testing.T) {
	a := newIDP(t)
	b := a.replica(a.etcd.Client)
	consentAtA := a.browser()
	got := consentAtA.follow(consentAtA.signIn(consentAtA.get(a.authorizeURL()), userEmail, userPassword))
	atB := &browser{b, &http.Client{Transport: b.transport, Jar: consentAtA.http.Jar,
		CheckRedirect: consentAtA.http.CheckRedirect}}
	code := atB.answered(atB.decide(got, "allow"), "signed in at one, allowed at the other")
	tokens := b.exchange(code)
	if tokens.status != http.StatusOK {
		t.Fatalf("%d %s", tokens.status, tokens.raw)
	}
	next := a.refresh(tokens.text("refresh_token"))
	if next.status != http.StatusOK || !b.active(next.text("access_token")) || !a.active(tokens.text("access_token")) {
		t.Fatalf("%d %s", next.status, next.raw)
	}
	b.refresh(tokens.text("refresh_token")).wants(t, "replay at the other", http.StatusBadRequest, "invalid_grant")
	a.dead("replayed at the other", next)

	code = atB.code()
	var won atomic.Int64
	together(16, func(i int) {
		if []*idp{a, b}[i%2].exchange(code).status == http.StatusOK {
			won.Add(1)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d exchanges of one code succeeded", won.Load())
	}
	if strings.Join(a.kids(), " ") != strings.Join(b.kids(), " ") {
		t.Error("the replicas have different keys")
	}
}

// Memory of a replica may lag: what it decides on that is decided anew before anything is written.
func TestLaggingReplica(t *testing.T) {
	narrow := func(p *idp) { p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"runs:write"} }) }
	for _, c := range []struct {
		rule     string
		change   func(*idp)
		exchange int
		refresh  int
		code     string
		scope    string
	}{
		{rule: "renamed", change: func(p *idp) { p.update("my-app", func(c *storage.Client) { c.ClientName = "New name" }) },
			exchange: 200, refresh: 200, scope: "threads:read runs:write"},
		{rule: "a scope removed", change: narrow, exchange: 200, refresh: 200, scope: "runs:write"},
		{rule: "all scopes removed", change: func(p *idp) {
			p.update("my-app", func(c *storage.Client) {
				c.Scopes = []string{"email"}
			})
		}, exchange: 400, refresh: 400, code: "invalid_grant"},
		{rule: "redirect URI removed", change: func(p *idp) {
			p.update("my-app", func(c *storage.Client) { c.RedirectURIs = []string{"https://new.test/"} })
		}, exchange: 400, refresh: 200, code: "invalid_grant", scope: "threads:read runs:write"},
		{rule: "client disabled", change: func(p *idp) { p.update("my-app", func(c *storage.Client) { c.Disabled = true }) },
			exchange: 401, refresh: 401, code: "invalid_client"},
		{rule: "app deleted", change: (*idp).deleteApp, exchange: 401, refresh: 400},
		{rule: "user disabled", change: func(p *idp) {
			p.putUser(storage.User{ID: "user-ann", Email: userEmail,
				Disabled: true})
		}, exchange: 400, refresh: 400, code: "invalid_grant"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			a := newIDP(t)
			b, fresh := a.replica(a.lagging()), a.replica(a.lagging()) // each request meets what was not learnt yet
			code, got := a.code("scope", "threads:read runs:write"), a.tokens("scope", "threads:read runs:write")
			c.change(a)
			check := func(rule string, r reply, status int) {
				t.Helper()
				if r.status != status {
					t.Errorf("%s: %d %s", rule, r.status, r.raw)
				}
				if status != http.StatusOK && c.code != "" {
					r.wants(t, rule, status, c.code)
				}
				if status == http.StatusOK && r.text("scope") != c.scope {
					t.Errorf("%s: scope %q", rule, r.text("scope"))
				}
			}
			check("exchange", b.exchange(code), c.exchange)
			check("refresh", fresh.refresh(got.text("refresh_token")), c.refresh)
		})
	}
}

// What a replica has not heard of yet is looked up before it is called unknown.
func TestReplicaThatHasNotHeardOfAClient(t *testing.T) {
	a := newIDP(t)
	b := a.replica(a.lagging())
	fresh := b.as(a.register("new-app", func(*storage.Client) {}))
	if got := fresh.tokens(); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
}
