//go:build e2e

package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestSignInConsentTokens is the way of most people: a slip, the right password, allow, and the app has what it asked
// for.
func TestSignInConsentTokens(t *testing.T) {
	t.Parallel()
	a := newApp(t, "walk")
	_, b := newPerson(t, "en-US,en")
	b.open(a.url("/login"))
	b.onSignIn()
	if _, there := heard(b.speak(), "alert", ""); there {
		t.Error("an alert before anything happened")
	}

	user := suite.server.ready.User
	if response := b.signIn(user.Email, "not "+user.Password); response.Status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong password has the status %d", response.Status)
	}
	announced(t, b)
	b.signInAs(suite.server)

	asked := b.readConsent()
	if !strings.Contains(asked.Heading, "Board") {
		t.Errorf("the heading is %q", asked.Heading)
	}
	if want := strings.TrimPrefix(a.url(""), "http://"); asked.Host != want {
		t.Errorf("access goes to %q, want %q", asked.Host, want)
	}
	if !strings.Contains(asked.Who, user.Email) {
		t.Errorf("signed in as %q, want %s", asked.Who, user.Email)
	}
	if want := strings.Fields(defaultScopes); !slices.Equal(names(asked.New), want) || len(asked.Granted) != 0 {
		t.Errorf("asks for %v beside %v, want %v", names(asked.New), names(asked.Granted), want)
	}
	for _, s := range asked.New {
		if s.Words == "" || s.Words == s.Name {
			t.Errorf("%s is not put into words", s.Name)
		}
		if marked := s.Risk != ""; marked != strings.HasSuffix(s.Name, ":write") {
			t.Errorf("%s is marked %q", s.Name, s.Risk)
		}
	}
	if asked.Links["Terms of service"] != suite.site.URL+"/terms" || asked.Links["Privacy policy"] != suite.site.URL+
		"/privacy" {
		t.Errorf("the links are %v", asked.Links)
	}
	for _, rel := range asked.Rel {
		if rel != "noopener noreferrer _blank" {
			t.Errorf("a link has the rel and target %q", rel)
		}
	}
	if !asked.Logo {
		t.Error("the logo does not show")
	}

	b.press(allow)
	b.onApp("signed in")
	if b.text("#user") != user.Email {
		t.Errorf("the app greets %q", b.text("#user"))
	}
	got := a.last(t)
	if got.ID.Subject == "" || got.User.Subject != got.ID.Subject {
		t.Errorf("subjects differ: %q in the ID token, %q in userinfo", got.ID.Subject, got.User.Subject)
	}
	if granted, _ := got.Token.Extra("scope").(string); granted != defaultScopes {
		t.Errorf("granted %q", granted)
	}
	next, err := a.refresh(t.Context(), got.Token.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if next.AccessToken == got.Token.AccessToken || next.RefreshToken == got.Token.RefreshToken {
		t.Error("the refresh gives old tokens again")
	}

	// What was allowed is remembered: nobody is asked again, not even to sign in.
	if b.open(a.url("/login")); b.address() == "" || a.came() != 2 {
		t.Fatalf("asked again: %s", b.text("h1"))
	}
	b.onApp("signed in")
}

// announced checks that a wrong password is told to those who see and those who hear.
func announced(t *testing.T, b *tab) {
	t.Helper()
	text := b.text(problem)
	if !strings.Contains(text, "wrong") {
		t.Errorf("the alert says %q", text)
	}
	page := b.speak()
	if _, there := heard(page, "alert", ""); !there {
		t.Error("the problem has no role of alert")
	}
	for _, label := range []string{"User name or e-mail address", "Password"} {
		field, there := heard(page, "textbox", label)
		if !there {
			t.Errorf("no field is called %q", label)
			continue
		}
		if !field.invalid || !strings.Contains(field.description, "wrong") {
			t.Errorf("%s: invalid %t, described as %q", label, field.invalid, field.description)
		}
		if field.focused != (label == "Password") {
			t.Errorf("%s: focused %t", label, field.focused)
		}
	}
	if login := run(b, chromedp.Value(chromedp.CSS("#login"))); login != suite.server.ready.User.Email {
		t.Errorf("what was typed is gone: %q", login)
	}
	if password := run(b, chromedp.Value(chromedp.CSS("#password"))); password != "" {
		t.Error("the page gives the password back")
	}
}

// TestDeny: who denies goes back to the app, too, and the app learns that and nothing else.
func TestDeny(t *testing.T) {
	t.Parallel()
	a := newApp(t, "deny")
	_, b := newPerson(t, "en")
	b.open(a.url("/login"))
	b.signInAs(suite.server)
	b.onConsent()
	b.press(deny)
	b.onApp("error: access_denied")
	if got := a.last(t); got.Token != nil || got.Description == "" {
		t.Errorf("the app got %+v", got)
	}
	// Nothing is remembered of it.
	b.open(a.url("/login"))
	b.onConsent()
	b.press(allow)
	b.onApp("signed in")
}

// TestCancelSignIn: who does not want to sign in goes back to the app without having typed anything, and the app learns
// that.
func TestCancelSignIn(t *testing.T) {
	t.Parallel()
	a := newApp(t, "cancel")
	_, b := newPerson(t, "en")
	for i, query := range []string{"", "?response_mode=form_post"} {
		b.open(a.url("/login" + query))
		b.onSignIn()
		if text := b.text(cancel); text != "Cancel" {
			t.Errorf("the button is called %q", text)
		}
		b.press(cancel)
		if text := b.text("#result"); text != "error: access_denied" { // waits for it, as a form may come between
			t.Fatalf("the app says %q", text)
		}
		if got := a.last(t); got.Token != nil || got.Description == "" || a.came() != i+1 {
			t.Errorf("the app got %+v", got)
		}
	}
	// Nothing is remembered of it, and Enter in a field still means to sign in.
	b.open(a.url("/login"))
	b.onSignIn()
	b.fill("#login", suite.server.ready.User.Email)
	b.fill("#password", suite.server.ready.User.Password)
	b.key(kb.Enter)
	b.onConsent()
	// A device has no app to go back to.
	_, another := newPerson(t, "en")
	another.open(suite.server.ready.Issuer + "/device?user_code=BBBB-BBBB")
	another.press(submit)
	another.onSignIn()
	if another.has(cancel) {
		t.Error("there is a way back to nowhere")
	}
}

// TestMoreScopes: an app that wants more asks for what is new, and shows what it has.
func TestMoreScopes(t *testing.T) {
	t.Parallel()
	a := newApp(t, "more")
	_, b := newPerson(t, "en")
	b.open(a.url("/login?scope=openid+threads:read"))
	b.signInAs(suite.server)
	if asked := b.readConsent(); !slices.Equal(names(asked.New), []string{"openid", "threads:read"}) {
		t.Errorf("asks for %v", names(asked.New))
	}
	b.press(allow)
	b.onApp("signed in")

	b.open(a.url("/login?scope=openid+threads:read+files:write"))
	asked := b.readConsent()
	if !slices.Equal(names(asked.New), []string{"files:write"}) || !slices.Equal(names(asked.Granted),
		[]string{"openid", "threads:read"}) {
		t.Errorf("asks for %v beside %v", names(asked.New), names(asked.Granted))
	}
	b.press(deny)
	b.onApp("error: access_denied")

	// What was allowed before still is.
	b.open(a.url("/login?scope=openid+threads:read"))
	b.onApp("signed in")
	// A scope that app.yml does not list is the app's fault, and the app is told.
	b.open(a.url("/login?scope=openid+repos:write"))
	b.onApp("error: invalid_scope")
	// So is asking nobody anything when somebody would have to be asked.
	b.open(a.url("/login?prompt=none&scope=openid+runs:read"))
	b.onApp("error: consent_required")
	// A client that wants the person asked has the person asked.
	b.open(a.url("/login?prompt=consent&scope=openid"))
	b.onConsent()
}

// TestTabNotices holds the tabs of this suite to noticing what a browser complains about.
func TestTabNotices(t *testing.T) {
	t.Parallel()
	_, b := newPerson(t, "en")
	for _, page := range []struct{ path, want string }{
		{"/terms", ""}, {"/strict", "img-src"}, {"/throws", "exception"},
		{"/missing", ""}, // the one complaint that tests look at themselves: a page's status
	} {
		b.open(suite.site.URL + page.path)
		complaints := strings.Join(b.took(), "\n")
		if (page.want == "") != (complaints == "") || !strings.Contains(complaints, page.want) {
			t.Errorf("%s: complains %q, want %q", page.path, complaints, page.want)
		}
	}
	b.open(suite.site.URL + "/strict")
	b.took()
	run(b, chromedp.WaitEvent(issues, blockedForm, chromedp.Click(chromedp.CSS("button"))))
	if complaints := strings.Join(b.took(), "\n"); !strings.Contains(complaints, "form-action") {
		t.Errorf("does not complain about a blocked form: %s", complaints)
	}
}
