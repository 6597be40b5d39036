//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestSignOut: from the front page, after a question that may be answered either way. The app that took part is signed
// out, too.
func TestSignOut(t *testing.T) {
	t.Parallel()
	a := newApp(t, "signout")
	_, b := newPerson(t, "en")
	user, home := suite.server.ready.User, suite.server.ready.Issuer+"/"
	b.open(home)
	if b.has(leave) {
		t.Error("nobody is signed in, and may sign out")
	}
	b.open(a.url("/login"))
	b.signInAs(suite.server)
	b.onConsent()
	b.press(allow)
	b.onApp("signed in")
	token, err := a.refresh(t.Context(), a.last(t).Token.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}

	b.open(home)
	if !strings.Contains(b.text("main"), user.Email) {
		t.Errorf("the front page says %q", b.text("main"))
	}
	b.press(leave)
	if !strings.Contains(b.text("h1"), "Sign out of") || !strings.Contains(b.text("main"), user.Email) {
		t.Errorf("asked %q", b.text("main"))
	}
	b.press(`button[value="stay"]`)
	if b.text("h1") != "You are still signed in" {
		t.Errorf("stay: %q", b.text("h1"))
	}
	b.open(a.url("/login")) // without a question
	b.onApp("signed in")

	b.open(home)
	b.press(leave)
	b.press(`button[value="signout"]`)
	if b.text("h1") != "You are signed out" {
		t.Errorf("sign out: %q", b.text("h1"))
	}
	if _, err := a.refresh(t.Context(), token.RefreshToken); err == nil ||
		!strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("the app goes on: %v", err)
	}
	b.open(home)
	if b.has(leave) {
		t.Error("still signed in")
	}
	b.open(a.url("/login"))
	b.onSignIn()
}

// TestFrontchannelLogout: who signs out of one app is signed out of the others, too, in frames that really load; then
// the browser goes back to the app by itself.
func TestFrontchannelLogout(t *testing.T) {
	t.Parallel()
	a, other := newApp(t, "frames", logout...), newApp(t, "frames-too", logout...)
	p, b := newPerson(t, "en")
	b.open(a.url("/login"))
	b.signInAs(suite.server)
	for _, each := range []*app{a, other} {
		if each == other {
			b.open(other.url("/login"))
		}
		b.onConsent()
		b.press(allow)
		b.onApp("signed in")
		b.open(each.url("/"))
		if b.text("#user") != suite.server.ready.User.Email || each.seated() != 1 {
			t.Fatalf("%s says %q", each.name, b.text("body"))
		}
	}
	elsewhere := p.another(t) // a second tab, which stays open meanwhile
	elsewhere.open(other.url("/"))

	b.open(a.url("/logout")) // the ID token says that the app speaks for them, so there is no question
	b.text("#bye")           // waits for it: the page with the frames needs nobody to press anything
	if a.seated() != 0 || other.seated() != 0 {
		t.Errorf("%d and %d are still signed in", a.seated(), other.seated())
	}
	a.saidBye(t, "a b")
	other.saidBye(t)
	elsewhere.reload()
	if text := elsewhere.text("body"); text != "nobody is signed in" {
		t.Errorf("the other app says %q", text)
	}
	b.open(a.url("/login"))
	b.onSignIn()
	b.excuse(framesCost...)
}

// TestFrontchannelLogoutByHand: without an ID token there is a question, which names the app, and its page leads back
// to the app also by a link.
func TestFrontchannelLogoutByHand(t *testing.T) {
	t.Parallel()
	a := newApp(t, "frames-asked", logout...)
	_, b := newPerson(t, "en")
	b.open(a.url("/login"))
	b.signInAs(suite.server)
	b.press(allow)
	b.onApp("signed in")

	b.open(a.url("/logout?hint=none"))
	if text := b.text("main"); !strings.Contains(text, "Board") || !strings.Contains(text, suite.server.ready.User.Email) {
		t.Errorf("the question says %q", text)
	}
	b.press(`button[value="stay"]`)
	if b.text("h1") != "You are still signed in" {
		t.Errorf("stay: %q", b.text("h1"))
	}
	b.press("main a.button")
	b.text("#bye")
	a.saidBye(t, "") // without the state: nobody is signed out
	if a.seated() != 1 {
		t.Error("who stays is signed out of the app")
	}

	b.open(a.url("/logout?hint=none&back=/nothing")) // going back by itself leads nowhere, so the page stays
	b.press(`button[value="signout"]`)
	if b.text("h1") != "You are signed out" {
		t.Errorf("sign out: %q", b.text("h1"))
	}
	if a.seated() != 0 {
		t.Error("still signed in to the app")
	}
	if text := b.text("main a.button"); text != "Back to “Board”" {
		t.Errorf("the way back is called %q", text)
	}
	// Once more there is nobody to sign out, and nothing to show.
	b.open(a.url("/logout?hint=none"))
	b.text("#bye")
	a.saidBye(t, "", "a b")
	b.excuse(framesCost...)
}

// framesCost is what the browser remarks on: a frame of another site gets no cookies, and a page that goes on by itself
// cannot be gone back to. Neither does harm.
var framesCost = []string{"ExcludeSameSiteLax", "NavigationEntryMarkedSkippable"}

// leave is the way out on the front page.
const leave = `main a[href$="/oauth/logout"]`
