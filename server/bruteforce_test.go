package server_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
)

// counting counts how many passwords were checked.
type counting struct {
	connector.Password
	checked *atomic.Int64
}

func (c counting) Login(ctx context.Context, login, password string) (connector.Identity, bool, error) {
	c.checked.Add(1)
	return c.Password.Login(ctx, login, password)
}

func newGuarded(t *testing.T) (*idp, *atomic.Int64) {
	t.Helper()
	var checked atomic.Int64
	p := newIDP(t, func(c *server.Config) { c.Connectors = local(counting{c.Connectors[0].Password, &checked}) })
	p.clock.stop()
	return p, &checked
}

func TestParallelGuessesAreCounted(t *testing.T) {
	p, checked := newGuarded(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	var wrong, locked, other atomic.Int64
	together(40, func(i int) {
		switch got := b.signIn(signIn, userEmail, fmt.Sprintf("guess %d", i)); got.status {
		case http.StatusUnprocessableEntity:
			wrong.Add(1)
		case http.StatusTooManyRequests:
			locked.Add(1)
			if got.header.Get("Retry-After") == "" {
				other.Add(1)
			}
		default:
			other.Add(1)
		}
	})
	if checked.Load() != 10 || wrong.Load() != 10 || locked.Load() != 30 || other.Load() != 0 {
		t.Errorf("%d passwords checked; %d wrong, %d locked, %d other", checked.Load(), wrong.Load(),
			locked.Load(), other.Load())
	}
	if got := b.signIn(signIn, userEmail, userPassword); got.status != http.StatusTooManyRequests {
		t.Errorf("the right password while locked: %d", got.status)
	}
}

// An account has one counter, whatever name of it is guessed at; another account has its own.
func TestUserNameAndEmailShareACounter(t *testing.T) {
	p, _ := newGuarded(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	names := []string{userEmail, "ann", "ANN", " Ann@App.Test "}
	for i := range 10 {
		if got := b.signIn(signIn, names[i%len(names)], "wrong"); got.status != http.StatusUnprocessableEntity {
			t.Fatalf("guess %d: %d", i+1, got.status)
		}
	}
	for _, name := range names {
		if got := b.signIn(signIn, name, userPassword); got.status != http.StatusTooManyRequests {
			t.Errorf("%q: %d", name, got.status)
		}
	}
	if got := b.signIn(signIn, "bob@app.test", userPassword); got.status != http.StatusSeeOther {
		t.Errorf("another account: %d", got.status)
	}
}

func TestTheLockEndsByItself(t *testing.T) {
	p, _ := newGuarded(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	for range 12 {
		b.signIn(signIn, userEmail, "wrong")
	}
	p.clock.forward(15 * time.Minute)
	if got := b.signIn(signIn, userEmail, userPassword); got.status != http.StatusSeeOther {
		t.Errorf("after the window: %d", got.status)
	}
}

func TestTheRightPasswordForgives(t *testing.T) {
	p, _ := newGuarded(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	for range 3 {
		for range 9 {
			b.signIn(signIn, userEmail, "wrong")
		}
		if got := b.signIn(signIn, userEmail, userPassword); got.status != http.StatusSeeOther {
			t.Fatalf("the tenth was right: %d", got.status)
		}
	}
}

// A page tells nobody whether an account exists: not by its words, not by its lock.
func TestUnknownAccountsLookTheSame(t *testing.T) {
	p, checked := newGuarded(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	answers := func(login string) (all []string) {
		for range 11 {
			got := b.signIn(signIn, login, "wrong")
			all = append(all, fmt.Sprint(got.status, strings.ReplaceAll(shown(got.body), login, "X")))
		}
		return all
	}
	known, unknown := answers(userEmail), answers("eve@app.test")
	for i := range known {
		if known[i] != unknown[i] {
			t.Errorf("guess %d: %s\nand\n%s", i+1, known[i], unknown[i])
		}
	}
	if checked.Load() != 20 {
		t.Errorf("%d passwords checked", checked.Load())
	}
}

// What cannot be a login costs neither a guess nor a check.
func TestAbsurdLogins(t *testing.T) {
	p, checked := newGuarded(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	for _, c := range [][2]string{{strings.Repeat("a", 5000), "x"}, {userEmail, strings.Repeat("p", 5000)}} {
		for range 12 {
			if got := b.signIn(signIn, c[0], c[1]); got.status != http.StatusUnprocessableEntity {
				t.Errorf("%d", got.status)
			}
		}
	}
	if checked.Load() != 0 {
		t.Errorf("%d passwords checked", checked.Load())
	}
	for _, c := range [][2]string{{"", ""}, {"", userPassword}, {userEmail, ""}, {"\x00", "\xff"}} {
		if got := b.signIn(signIn, c[0], c[1]); got.status != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d", c, got.status)
		}
	}
	if got := b.signIn(signIn, userEmail, userPassword); got.status != http.StatusSeeOther {
		t.Errorf("the right one: %d", got.status)
	}
}
