package connector_test

import (
	"context"
	"strings"
	"testing"

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
	return connector.StaticUser{Identity: connector.Identity{UserID: id, Email: email, Username: name}, Hash: hash(t, password)}
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
