package connector_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/warifu/warifu/server/connector"
)

func hash(t *testing.T, password string) []byte {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func user(t *testing.T, id, email, name, password string) connector.StaticUser {
	return connector.StaticUser{Identity: connector.Identity{UserID: id, Email: email, Username: name},
		Hash: hash(t, password)}
}

func TestStaticLogin(t *testing.T) {
	s, err := connector.NewStatic([]connector.StaticUser{
		user(t, "1", "Ann@app.test", "ann", "correct"),
		user(t, "2", "bob@app.test", "", strings.Repeat("b", 72)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rule, login, password, want string
	}{
		{"e-mail", "ann@app.test", "correct", "1"},
		{"case and space do not count", " ANN@app.test ", "correct", "1"},
		{"user name", "ann", "correct", "1"},
		{"wrong password", "ann", "wrong", ""},
		{"empty password", "ann", "", ""},
		{"unknown login", "eve", "correct", ""},
		{"unknown login with the dummy's password", "eve", "nobody has this", ""},
		{"empty login of a user without a name", "", strings.Repeat("b", 72), ""},
		{"72 bytes", "bob@app.test", strings.Repeat("b", 72), "2"},
		{"what bcrypt cannot take", "bob@app.test", strings.Repeat("b", 73), ""},
	} {
		id, ok, err := s.Login(t.Context(), c.login, c.password)
		if err != nil || id.UserID != c.want || ok != (c.want != "") {
			t.Errorf("%s: %+v, %v, %v", c.rule, id, ok, err)
		}
	}
	if s.Account("ann") != s.Account("ANN@APP.TEST") || s.Account("ann") == s.Account("bob@app.test") {
		t.Error("user name and e-mail address must share an account, and no other")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok, _ := s.Login(ended, "eve", "x"); ok {
		t.Error("signed in")
	}
}

func TestStaticRefuses(t *testing.T) {
	good := user(t, "1", "a@app.test", "", "x")
	for rule, users := range map[string][]connector.StaticUser{
		"no id":          {user(t, "", "a@app.test", "", "x")},
		"same id":        {good, user(t, "1", "b@app.test", "", "x")},
		"no login":       {user(t, "1", "", "", "x")},
		"another's name": {good, user(t, "2", "b@app.test", "A@app.test", "x")},
		"no bcrypt":      {{Identity: good.Identity, Hash: []byte("plain")}},
	} {
		if _, err := connector.NewStatic(users); err == nil || strings.Contains(err.Error(), "plain") {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

// spent is the processor's time that this process has used: what else runs on the machine does not count.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Users' hashes may have different costs; how long a wrong password takes tells nobody which names there are.
func TestWrongPasswordsTakeTheSameTimeWhateverTheHashCosts(t *testing.T) {
	expensive, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost+5)
	if err != nil {
		t.Fatal(err)
	}
	s, err := connector.NewStatic([]connector.StaticUser{
		user(t, "1", "cheap@app.test", "", "correct"),
		{Identity: connector.Identity{UserID: "2", Email: "expensive@app.test"}, Hash: expensive},
	})
	if err != nil {
		t.Fatal(err)
	}
	fastest := func(login string) time.Duration {
		best := time.Hour
		for range 8 {
			begun := spent(t)
			if _, ok, err := s.Login(t.Context(), login, "wrong"); ok || err != nil {
				t.Fatal(ok, err)
			}
			best = min(best, spent(t)-begun)
		}
		return best
	}
	// The hashes differ by a factor of 32.
	cheap, expensiveTook, nobody := fastest("cheap@app.test"), fastest("expensive@app.test"), fastest("nobody@app.test")
	if shortest, longest := min(cheap, expensiveTook, nobody), max(cheap, expensiveTook, nobody); longest > 4*shortest {
		t.Errorf("%s at a cheap hash, %s at an expensive one, %s at a name that nobody has", cheap, expensiveTook, nobody)
	}
	if id, known := s.User(" CHEAP@app.test "); id != "1" || !known {
		t.Errorf("%q, %v", id, known)
	}
	if id, known := s.User("nobody@app.test"); id != "" || known {
		t.Errorf("%q, %v", id, known)
	}
}
