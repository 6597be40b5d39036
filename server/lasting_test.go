package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
)

// Whoever began to sign in under one configuration goes on under the next: with its page, its decision, its code and
// its tokens. What is counted goes on as well.
func TestASignInGoesOnUnderAnotherConfiguration(t *testing.T) {
	p := newIDP(t)
	names := []string{"One", "Two"}
	turn := 0
	reload := func() {
		turn++
		p.reload(func(c *server.Config) {
			c.Branding = pages.Branding{Name: names[turn%2]}
			c.Lifetimes.Session += time.Duration(turn) * time.Minute
			c.Registration = map[int]*server.Registration{1: {}}[turn%2]
		})
	}
	b := p.browser()
	page := b.follow(b.get(p.authorizeURL()))
	reload()
	page = b.follow(b.signIn(page, userEmail, userPassword))
	if page.asks() != "decision" || !strings.Contains(page.body, "Two") {
		t.Fatalf("the page after the sign-in: %s", shown(page.body))
	}
	reload()
	got := b.follow(b.decide(page, "allow"))
	if got.location == nil || got.location.Query().Get("code") == "" {
		t.Fatalf("no code: %d %s", got.status, shown(got.body))
	}
	reload()
	reply := p.exchange(got.location.Query().Get("code"))
	refresh := reply.text("refresh_token")
	if reply.status != 200 || refresh == "" {
		t.Fatalf("%+v", reply)
	}
	reload()
	if reply := p.refresh(refresh); reply.status != 200 {
		t.Errorf("%+v", reply)
	}
	if again := b.follow(b.get(p.authorizeURL("prompt", "none"))); again.location == nil ||
		again.location.Query().Get("code") == "" {
		t.Errorf("the session has ended: %v", again.location)
	}
}

// A demand that is raised counts for sessions that are there, at their next request; and one with another issuer, or
// with something wrong, is none.
func TestARaisedDemandCountsForSessions(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	p.reload(func(c *server.Config) { c.Demands.Everybody = oauth.AssuranceMFA })
	if got := b.follow(b.get(p.authorizeURL("prompt", "none"))); got.location == nil ||
		got.location.Query().Get("error") == "" {
		t.Errorf("%v", got.location)
	}
	for name, change := range map[string]func(*server.Config){
		"issuer":    func(c *server.Config) { c.Issuer = "https://other.example.com" },
		"lifetimes": func(c *server.Config) { c.Lifetimes.Code = -1 },
		"branding":  func(c *server.Config) { c.Branding.Support = "javascript:alert(1)" },
	} {
		cfg := p.cfg
		change(&cfg)
		if _, err := p.handler.(*server.Server).With(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Guesses that were counted count under another configuration: a reload gives nobody new ones.
func TestGuessesCountOnUnderAnotherConfiguration(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	page := b.get(p.authorizeURL())
	for range 10 {
		page = b.signIn(page, "nobody@example.com", "wrong")
	}
	p.reload(func(*server.Config) {})
	if got := b.signIn(page, "nobody@example.com", "wrong"); got.status != 429 {
		t.Errorf("after ten guesses and a reload: %d", got.status)
	}
}
