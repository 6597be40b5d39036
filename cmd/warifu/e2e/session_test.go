//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// TestBackAndReload: neither the back button nor a reload breaks anything, at any page.
func TestBackAndReload(t *testing.T) {
	t.Parallel()
	a := newApp(t, "reload")
	_, b := newPerson(t, "en")
	b.open(a.url("/login"))
	b.reload()
	b.onSignIn()
	b.signIn(suite.server.ready.User.Email, "wrong")
	if b.text(problem) == "" {
		t.Error("no alert")
	}
	b.back()
	b.onSignIn()
	b.signInAs(suite.server)
	b.onConsent()
	b.reload()
	b.onConsent()
	// Who goes back from consent does not have to sign in a second time.
	b.back()
	if b.has("#password") {
		b.signInAs(suite.server) // the browser may show the page that it had, and that one still works
	}
	b.onConsent()
	b.press(allow)
	b.onApp("signed in")
	if got := a.last(t); got.Token == nil {
		t.Fatalf("the app got %+v", got)
	}
}

// TestTwoTabs: two tabs of one browser at once, each with its own request.
func TestTwoTabs(t *testing.T) {
	t.Parallel()
	a := newApp(t, "tabs")
	p, left := newPerson(t, "en")
	right, late := p.another(t), p.another(t)
	left.open(a.url("/login?scope=openid+threads:read"))
	right.open(a.url("/login?scope=openid+runs:read"))
	late.open(a.url("/login?scope=openid"))
	left.signInAs(suite.server)
	left.onConsent()
	// The form of the other tab is as good as it was, though somebody is signed in by now.
	right.signInAs(suite.server)
	right.onConsent()
	// The session is a new one since; it is the same person's, so this form is good, too.
	left.press(allow)
	left.onApp("signed in")
	if granted := a.last(t).Token.Extra("scope"); granted != "openid threads:read" {
		t.Errorf("the left tab was granted %q", granted)
	}
	if asked := right.readConsent(); len(asked.New) != 2 {
		t.Errorf("the right tab asks for %v", names(asked.New))
	}
	right.press(allow)
	right.onApp("signed in")
	if granted := a.last(t).Token.Extra("scope"); granted != "openid runs:read" {
		t.Errorf("the right tab was granted %q", granted)
	}
	// A tab that still shows the sign-in page needs no more than a reload.
	late.reload()
	late.onApp("signed in")
}

// TestAnotherBrowser: an address of a pending request is worth nothing in somebody else's browser (CVE-2022-39222),
// whether they are signed in or not.
func TestAnotherBrowser(t *testing.T) {
	t.Parallel()
	a := newApp(t, "elsewhere")
	_, victim := newPerson(t, "en")
	victim.open(a.url("/login?scope=openid"))
	victim.signInAs(suite.server)
	victim.press(allow)
	victim.onApp("signed in")

	_, attacker := newPerson(t, "en")
	attacker.open(a.url("/login?scope=openid+threads:write"))
	attacker.signInAs(suite.server)
	attacker.onConsent()
	address := attacker.address()
	if !strings.Contains(address, "request=") {
		t.Fatalf("the consent page is at %s", address)
	}
	came := a.came()
	victim.onError(victim.open(address), http.StatusBadRequest, "invalid_request")
	if !strings.Contains(victim.text("h1"), "start again in this browser") {
		t.Errorf("the page says %q", victim.text("h1"))
	}
	_, stranger := newPerson(t, "ja")
	stranger.onError(stranger.open(address), http.StatusBadRequest, "invalid_request")
	if stranger.lang() != "ja" {
		t.Error("the error page is not in the reader's language")
	}
	if a.came() != came {
		t.Error("somebody came to the app by an address of another browser")
	}
	attacker.press(allow) // in their own browser it still goes on
	attacker.onApp("signed in")
}

// TestSwitchAccount: "not you?" signs in as somebody else, who is asked for their own consent, and is not let in with
// what the one before allowed. It runs `warifu serve`, with two people.
func TestSwitchAccount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := serve(t, dir, map[string]string{"ann": "correct horse", "bob": "battery staple"})
	a := server.deploy(t, "family", "")
	p, b := newPerson(t, "en")

	b.open(a.url("/login"))
	b.signIn("ann", "correct horse")
	if asked := b.readConsent(); !strings.Contains(asked.Who, "ann@example.com") {
		t.Errorf("signed in as %q", asked.Who)
	}
	// While ann's consent page waits, bob signs in in another tab: her page must not allow anything in his name.
	stale := p.another(t)
	stale.open(a.url("/login"))
	stale.onConsent()

	b.press(notYou)
	b.signIn("bob@example.com", "battery staple")
	if asked := b.readConsent(); !strings.Contains(asked.Who, "bob@example.com") {
		t.Errorf("signed in as %q", asked.Who)
	}
	stale.press(allow)
	if asked := stale.readConsent(); !strings.Contains(asked.Who, "bob@example.com") {
		t.Errorf("after the switch the other tab shows %q", asked.Who)
	}
	if a.came() != 0 {
		t.Fatal("a consent page that was shown to ann let bob in")
	}
	b.press(allow)
	b.onApp("signed in")
	if got := a.last(t); got.User.Email != "bob@example.com" {
		t.Errorf("the app got %s", got.User.Email)
	}
	// select_account and login ask again who it is, with the name filled in that the app hopes for.
	b.open(a.url("/login?prompt=login&login_hint=ann"))
	b.onSignIn()
	b.signIn("ann", "correct horse")
	if asked := b.readConsent(); !strings.Contains(asked.Who, "ann@example.com") {
		t.Errorf("signed in as %q", asked.Who)
	}
	b.press(allow)
	b.onApp("signed in")
	if got := a.last(t); got.User.Email != "ann@example.com" || got.ID.Issuer != server.ready.Issuer {
		t.Errorf("the app got %s of %s", got.User.Email, got.ID.Issuer)
	}
}

// serve runs `warifu serve` with people and their passwords, and more configuration, until the test ends.
func serve(t testing.TB, dir string, people map[string]string, more ...string) *process {
	t.Helper()
	return serveAt(t, dir, "http://"+freeAddress(t), people, more...)
}

// serveAt is serve at an address of this machine. Without people, nobody has a password.
func serveAt(t testing.TB, dir, issuer string, people map[string]string, more ...string) *process {
	t.Helper()
	listen, data := strings.TrimPrefix(issuer, "http://"), filepath.Join(dir, "data")
	var users strings.Builder
	for name, password := range people {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(&users, "  - {email: %[1]s@example.com, emailVerified: true, username: %[1]s, userID: id-%[1]s, "+
			"hash: '%[2]s'}\n", name, hash)
	}
	if len(people) > 0 {
		more = append(more, "enablePasswordDB: true\nstaticPasswords:\n"+users.String())
	}
	file := filepath.Join(dir, "config.yaml")
	config := fmt.Sprintf(`issuer: %s
storage: {type: embedded, config: {dataDir: %s}}
web: {http: %q, trustedProxies: [127.0.0.1]}
manifests: {localhostRedirects: allow}
%s`, issuer, data, listen, strings.Join(more, ""))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(suite.binary, "serve", file), words: &transcript{}, ended: make(chan struct{})}
	p.ready = ready{Issuer: issuer, Admin: filepath.Join(data, "admin.sock")}
	p.cmd.Stderr = p.words
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
	})
	p.words.await(t, p, "warifu serves")
	return p
}
