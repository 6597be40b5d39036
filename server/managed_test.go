package server_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
)

// Whom operators keep signs in with the same form as the people of the configuration, by name or address, and nobody
// sees which of them they are.
func TestManagedAccountsSignIn(t *testing.T) {
	p := newIDP(t, withManaged)
	p.clock.stop()
	hash := factor.HashPassword("a password of Mia")
	p.managed("mia-1", "Mia@app.test", "mia", hash)
	p.managed("shadow", userEmail, "", hash)
	p.managed("no-password", "nopass@app.test", "", "")
	for _, c := range []struct {
		rule, login, password string
		user                  string
	}{
		{"address", "mia@APP.test", "a password of Mia", "mia-1"},
		{"name", " MIA ", "a password of Mia", "mia-1"},
		{"wrong", "mia", "a password of mia", ""},
		{"somebody of the configuration", "ann", userPassword, "user-ann"},
		{"a name that the configuration has goes before", userEmail, userPassword, "user-ann"},
		{"and the managed account gets nowhere with it", userEmail, "a password of Mia", ""},
		{"nobody", "nobody", "a password of Mia", ""},
		{"no password", "nopass@app.test", "", ""},
		{"no name", "", "a password of Mia", ""},
	} {
		b := p.browser()
		got := b.follow(b.signIn(b.get(p.authorizeURL("scope", "openid")), c.login, c.password))
		if c.user == "" {
			if got.status != http.StatusUnprocessableEntity {
				t.Errorf("%s: %d %s", c.rule, got.status, shown(got.body))
			}
			continue
		}
		if got.asks() == "decision" {
			got = b.follow(b.decide(got, "allow"))
		}
		code := b.answered(got, c.rule)
		if sub := claimsOf(t, p.exchange(code).text("id_token"))["sub"]; sub != c.user {
			t.Errorf("%s: signed in as %v", c.rule, sub)
		}
	}
	mia, err := p.store.Account(t.Context(), "mia-1")
	if err != nil || mia.Factors.Password.Hash != hash {
		t.Errorf("the hash was made anew, %v", err)
	}
	asked := p.etcd.Count(func() {
		b := p.browser()
		b.signIn(b.get(p.authorizeURL()), "nobody at all", "x")
	})
	if asked.Proposals != 0 || asked.Reads != 2 {
		t.Errorf("a name that nobody has: %+v", asked)
	}
	b := p.browser()
	form := b.get(p.authorizeURL())
	asked = p.etcd.Count(func() { b.signIn(form, "mia", "a password of Mia") })
	if asked.Reads != 4 || asked.Proposals != 3 { // the guess, the sign-in, and that the guess is forgiven
		t.Errorf("a managed account: %+v", asked)
	}

	t.Run("counted by account", func(t *testing.T) {
		p := p.at(t)
		b := p.browser()
		form := b.get(p.authorizeURL())
		for i := range 10 {
			b.signIn(form, []string{"mia", "mia@app.test"}[i%2], "wrong")
		}
		for _, login := range []string{"mia", "mia@app.test"} {
			if got := b.signIn(form, login, "a password of Mia"); got.status != http.StatusTooManyRequests {
				t.Errorf("%s: %d", login, got.status)
			}
		}
		if !strings.Contains(p.log.String(), "actor=user:mia-1") {
			t.Error("the log does not say whose name it was")
		}
	})
}

// A hash that came from elsewhere is made anew at a sign-in, in its transaction, and nothing ends by that.
func TestOldHashesAreMadeAnew(t *testing.T) {
	p := newIDP(t, withManaged)
	p.clock.stop()
	before := p.managed("mia-1", "mia@app.test", "", string(userHash()))
	b := p.browser()
	b.signIn(b.get(p.authorizeURL()), userEmail, userPassword) // leases are there now
	b = p.browser()
	form := b.get(p.authorizeURL())
	asked := p.etcd.Count(func() {
		if got := b.signIn(form, "mia@app.test", userPassword); got.status != http.StatusSeeOther {
			t.Fatalf("sign-in: %d", got.status)
		}
	})
	if asked.Proposals != 3 {
		t.Errorf("%+v", asked)
	}
	a, err := p.store.Account(t.Context(), "mia-1")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(a.Factors.Password.Hash, "$argon2id$") ||
		!a.Factors.Password.At.Equal(before.Factors.Password.At) {
		t.Error("the hash is the old one, or the password seems to be new")
	}
	if a.User.Term != before.User.Term || a.User.Credential != before.User.Credential {
		t.Error("something has ended by that")
	}
	if got := b.follow(b.get(p.authorizeURL())); got.asks() != "decision" {
		t.Errorf("the session: %s", shown(got.body))
	}
	if got := p.browser().get(p.authorizeURL()); b.signIn(got, "mia@app.test",
		userPassword).status == http.StatusSeeOther {
		t.Error("a form of another browser")
	}
	b = p.browser()
	if got := b.signIn(b.get(p.authorizeURL()), "mia@app.test", userPassword); got.status != http.StatusSeeOther {
		t.Errorf("with the new hash: %d", got.status)
	}

	// Where a second factor is asked for, it waits for nothing.
	p.managed("max-1", "max@app.test", "", string(userHash()))
	p.enrol("max-1")
	b = p.browser()
	if got := b.follow(b.signIn(b.get(p.authorizeURL()), "max@app.test", userPassword)); !strings.Contains(got.body,
		`name="code"`) {
		t.Errorf("no factor page: %s", shown(got.body))
	}
	if a, err := p.store.Account(t.Context(), "max-1"); err != nil ||
		!strings.HasPrefix(a.Factors.Password.Hash, "$argon2id$") {
		t.Errorf("the hash is the old one, %v", err)
	}

	// Many sign-ins at once, each with the old hash.
	p.managed("moe-1", "moe@app.test", "", string(userHash()))
	browsers, forms := make([]*browser, 6), make([]page, 6)
	for i := range browsers {
		browsers[i] = p.browser()
		forms[i] = browsers[i].get(p.authorizeURL())
	}
	together(len(browsers), func(i int) {
		if got := browsers[i].signIn(forms[i], "moe@app.test", userPassword); got.status != http.StatusSeeOther {
			t.Errorf("one of many: %d", got.status)
		}
	})
}

// A password that has changed, and an account that is disabled, open nothing.
func TestChangedPasswordsOpenNothing(t *testing.T) {
	p := newIDP(t, withManaged)
	p.clock.stop()
	p.managed("mia-1", "mia@app.test", "", string(userHash()))
	b := p.browser()
	if got := b.follow(b.signIn(b.get(p.authorizeURL()), "mia@app.test", userPassword)); got.asks() != "decision" {
		t.Fatalf("sign-in: %s", shown(got.body))
	}
	a, err := p.store.Account(t.Context(), "mia-1")
	if err != nil {
		t.Fatal(err)
	}
	next := a.Factors.Clone()
	next.Password.Hash = factor.HashPassword("another one of Mia")
	if _, _, err := p.store.ChangeFactors(t.Context(), a, storage.FactorChange{Next: next,
		Ends: "the password has changed"}); err != nil {
		t.Fatal(err)
	}
	if got := b.follow(b.get(p.authorizeURL())); !strings.Contains(got.body, `name="password"`) {
		t.Errorf("a session from before the change: %s", shown(got.body))
	}
	if got := b.signIn(b.get(p.authorizeURL()), "mia@app.test",
		userPassword); got.status != http.StatusUnprocessableEntity {
		t.Errorf("the old password: %d", got.status)
	}
	if got := b.signIn(b.get(p.authorizeURL()), "mia@app.test", "another one of Mia"); got.status != http.StatusSeeOther {
		t.Errorf("the new one: %d", got.status)
	}
}

// Hashing takes much memory, and few are at it at once, however many come.
func TestTheMemoryOfHashingIsBounded(t *testing.T) {
	p := newIDP(t, withManaged)
	b := p.browser()
	form := b.get(p.authorizeURL())
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	const hash = 19 << 20
	slots := runtime.GOMAXPROCS(0)
	before, most := heap(), uint64(0)
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				most = max(most, heap())
			}
		}
	}()
	together(20*slots, func(i int) { b.signIn(form, fmt.Sprintf("nobody-%d", i%10), "wrong") })
	close(done)
	<-watched
	t.Logf("%d MiB before, at most %d MiB for %d at once", before>>20, most>>20, 20*slots)
	// Garbage is collected when there is as much again
	if grew := most - min(before, most); grew > before+uint64(6*slots*hash) {
		t.Errorf("the heap grew by %d MiB", grew>>20)
	}
}
