package server_test

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

// compromise ends the keys of a use at one replica.
func (p *idp) compromise(use string) {
	p.t.Helper()
	p.schedule(use, func(schedule storage.KeySchedule) {
		if _, err := p.store.RotateKey(p.t.Context(), schedule, storage.TurnCompromised); err != nil {
			p.t.Fatal(err)
		}
	})
}

func (p *idp) schedule(use string, do func(storage.KeySchedule)) {
	p.t.Helper()
	schedules := p.handler.(interface{ KeySchedules() []storage.KeySchedule }).KeySchedules()
	i := slices.IndexFunc(schedules, func(k storage.KeySchedule) bool { return k.Use == use })
	do(schedules[i])
}

// soon waits for what a replica hears by its watch.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// What a compromised key has signed is refused by every replica, and by one that starts later; what other keys have
// made stays good.
func TestCompromisedKeyIsRefusedEverywhere(t *testing.T) {
	a := logoutIDP(t)
	a.rotate()
	b := a.replica(a.etcd.Client)
	issued := a.tokens("scope", "openid")
	access, refresh := issued.text("access_token"), issued.text("refresh_token")
	browser := a.browser()
	id := a.exchange(browser.code("scope", "openid")).text("id_token")
	if !b.active(access) || b.userinfo(access).status != http.StatusOK {
		t.Fatal("not good to begin with")
	}
	kids := a.kids()
	a.compromise(storage.UseES256)
	a.compromise(storage.UseRS256)
	soon(t, "the other replica has heard of it", func() bool {
		return slices.Contains(b.kids(), "RS256-3") &&
			slices.Contains(b.kids(), "ES256-3")
	})
	c := a.replica(a.etcd.Client)
	for name, p := range map[string]*idp{"where it was ended": a, "the other": b, "one that has started since": c} {
		if p.active(access) || p.userinfo(access).status != http.StatusUnauthorized {
			t.Errorf("%s: an access token of a compromised key is good", name)
		}
		p.browser().get(p.logoutURL("id_token_hint", id)).wants(t, name+": an ID token of a compromised key",
			http.StatusBadRequest, "invalid_request")
		for _, kid := range p.kids() {
			if slices.Contains(kids, kid) && !strings.HasPrefix(kid, "EdDSA") {
				t.Errorf("%s: %s is still published", name, kid)
			}
		}
	}
	next := b.refresh(refresh)
	if next.status != http.StatusOK || !a.active(next.text("access_token")) || !c.active(next.text("access_token")) {
		t.Errorf("the grant has ended as well: %d %s", next.status, next.raw)
	}
	fresh := b.tokens("scope", "openid")
	if b.kid(fresh.text("access_token")) != "ES256-3" || b.kid(fresh.text("id_token")) != "RS256-3" {
		t.Errorf("signed by %s and %s", b.kid(fresh.text("access_token")), b.kid(fresh.text("id_token")))
	}
}

// With the sealing keys everything ends that was sealed: codes, refresh tokens, sessions, pending sign-ins.
func TestCompromisedSealingKey(t *testing.T) {
	a := newIDP(t)
	a.rotate()
	b := a.replica(a.etcd.Client)
	issued := a.tokens("scope", "openid")
	browser := a.browser()
	code := browser.code("scope", "openid")
	pending := a.browser()
	form := pending.get(a.authorizeURL())
	a.compromise(storage.UseSeal)
	soon(t, "the other replica has heard of it", func() bool {
		keys := b.store.Keys(storage.UseSeal)
		return len(keys) > 0 && keys[len(keys)-1].Sequence == 3
	})
	for name, p := range map[string]*idp{"where it was ended": a, "the other": b,
		"one that has started since": a.replica(a.etcd.Client)} {
		p.exchange(code).wants(t, name+": a code", http.StatusBadRequest, "invalid_grant")
		p.refresh(issued.text("refresh_token")).wants(t, name+": a refresh token", http.StatusBadRequest, "invalid_grant")
		if p.active(issued.text("refresh_token")) {
			t.Errorf("%s: introspection takes a refresh token for good", name)
		}
	}
	if got := browser.get(a.authorizeURL("prompt", "none", "scope", "openid")); got.location == nil ||
		got.location.Query().Get("error") != "login_required" {
		t.Errorf("still signed in: %d %v", got.status, got.location)
	}
	if got := pending.signIn(form, userEmail, userPassword); got.location != nil && got.location.Query().Has("code") {
		t.Error("a pending sign-in goes on")
	}
	if !b.active(issued.text("access_token")) {
		t.Error("an access token has ended, which is not sealed")
	}
	if got := b.tokens("scope", "openid"); got.status != http.StatusOK {
		t.Errorf("nobody can sign in again: %d %s", got.status, got.raw)
	}
}

// What a replica issues whose clock is minutes ahead is good at the others, and readiness tells of it without a name.
func TestClockMinutesAhead(t *testing.T) {
	a := newIDP(t)
	a.clock.stop()
	a.rotate()
	store, err := storage.New(t.Context(), a.etcd.Client, storage.Options{Prefix: a.etcd.Prefix, KEK: a.etcd.KEK,
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return a.clock.now().Add(5 * time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	b := *a
	b.cfg.Now = func() time.Time { return a.clock.now().Add(5 * time.Minute) }
	b.serve(store)
	b.rotate()
	a.rotate()
	issued := a.exchange(b.code("scope", "openid"))
	if issued.status != http.StatusOK {
		t.Fatalf("a code of the one that is ahead: %d %s", issued.status, issued.raw)
	}
	ahead := b.refresh(issued.text("refresh_token"))
	if ahead.status != http.StatusOK || !a.active(ahead.text("access_token")) ||
		a.userinfo(ahead.text("access_token")).status != http.StatusOK {
		t.Errorf("a token of the one that is ahead: %d %s", ahead.status, ahead.raw)
	}
	if got := a.refresh(ahead.text("refresh_token")); got.status != http.StatusOK || !b.active(got.text("access_token")) {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if _, body := a.raw(http.MethodGet, a.issuer+"/readyz"); body != "ready\nthe clock of another replica is 5m0s ahead "+
		"of this one's\n" {
		t.Errorf("readyz says %q", body)
	}
}
