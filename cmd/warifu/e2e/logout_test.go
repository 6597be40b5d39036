//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestSignOut: from the front page, after a question that may be answered either way. The app that took part is signed out, too.
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
	if _, err := a.refresh(t.Context(), token.RefreshToken); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("the app goes on: %v", err)
	}
	b.open(home)
	if b.has(leave) {
		t.Error("still signed in")
	}
	b.open(a.url("/login"))
	b.onSignIn()
}

// leave is the way out on the front page.
const leave = `main a[href$="/oauth/logout"]`
