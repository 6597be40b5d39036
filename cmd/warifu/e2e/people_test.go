//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/pquerna/otp/totp"
)

// TestGalleryOfPeople is TestGallery for somebody who is invited, chooses a password, sets up a second factor, and
// signs in with it: from the link that warifu dev prints to their account.
func TestGalleryOfPeople(t *testing.T) {
	t.Parallel()
	server := dev(t, t.TempDir(), "localhost:0", exampleFile)
	issuer, invited, password := server.ready.Issuer, server.ready.Invitation, "slow boats carry nine lamps"
	people := map[string]*tab{}
	for _, lang := range []string{"en", "ja"} {
		_, people[lang] = newPerson(t, lang)
	}
	each := func(do func(b *tab, lang string)) {
		for _, lang := range []string{"en", "ja"} {
			do(people[lang], lang)
		}
	}
	choose := func(b *tab, password, again string) *tab {
		b.fill("#password", password)
		b.fill("#again", again)
		b.press(submit)
		return b
	}
	each(func(b *tab, lang string) {
		b.open(invited.Link)
		b.shoot("welcome", lang)
		choose(b, invited.Email, invited.Email).shoot("welcome-guessed", lang)
	})
	first := people["en"]
	choose(first, password, password)
	if got := first.text("h1"); got != "Your account" {
		t.Fatalf("after the choice of a password: %q at %s", got, first.address())
	}
	each(func(b *tab, lang string) {
		if got := b.open(invited.Link); got.Status != http.StatusGone {
			t.Errorf("the link once more: %d", got.Status)
		}
		b.shoot("link-gone", lang)
	})
	people["ja"].open(issuer + "/account")
	people["ja"].shoot("signin-account", "ja")
	people["ja"].signIn(invited.Email, password)
	each(func(b *tab, lang string) {
		b.open(issuer + "/account")
		b.shoot("account-new", lang)
		b.open(issuer + "/account/totp")
		b.shoot("totp", lang)
		b.fill("#code", "12")
		b.press(submit)
		b.shoot("totp-wrong", lang)
	})
	code, err := totp.GenerateCode(strings.ReplaceAll(run(first, chromedp.Evaluate[string](
		`document.querySelector('.steps code.code').textContent`)), " ", ""), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	first.fill("#code", code)
	first.press(submit)
	first.shoot("codes-first", "en")
	codes := run(first,
		chromedp.Evaluate[[]string](`[...document.querySelectorAll('.codes code')].map(e => e.textContent)`))
	if len(codes) != 10 {
		t.Fatalf("recovery codes: %d", len(codes))
	}
	withCode := func(b *tab, code string) { // one of those for recovery, which are not bound to a moment
		b.do(chromedp.Click(chromedp.CSS("details summary")))
		b.fill("#recovery", code)
		b.press("details button")
	}
	// Who has signed in before, and without a second factor, is asked for it where something can be changed.
	people["ja"].open(issuer + "/account/totp")
	withCode(people["ja"], codes[9])
	each(func(b *tab, lang string) {
		for _, page := range []string{"", "/password", "/passkeys", "/totp", "/codes", "/sessions", "/apps",
			"/activity", "/profile"} {
			b.open(issuer + "/account" + page)
			b.shoot("account"+strings.ReplaceAll(page, "/", "-"), lang)
		}
	})
	for i, lang := range []string{"en", "ja"} {
		_, b := newPerson(t, lang)
		b.open(issuer + "/account")
		b.signIn(invited.Email, password)
		b.shoot("factor", lang)
		b.fill("#code", "123")
		b.press(submit)
		b.shoot("factor-wrong", lang)
		withCode(b, codes[i])
		if b.address() != issuer+"/account" {
			t.Errorf("after a recovery code: %s, %q", b.address(), b.text("h1"))
		}
		b.shoot("account-recovered", lang)
	}
}

// TestFirstPasskey goes from what warifu dev prints to somebody's first passkey in three clicks: the link, and a button
// on each of two pages. From then on they sign in to the app by a touch.
func TestFirstPasskey(t *testing.T) {
	t.Parallel()
	for _, lang := range []string{"en", "ja"} {
		server := dev(t, t.TempDir(), "localhost:0", exampleFile)
		a := server.deploy(t, "passkeys", "")
		_, b := newPerson(t, lang)
		own := b.newDevice()
		b.open(server.ready.Invitation.Link)
		b.resize(390, 844, true)
		b.picture(fmt.Sprintf("first-passkey-1-%s.png", lang))
		b.press(`button[name="passkey"]`)
		b.picture(fmt.Sprintf("first-passkey-2-%s.png", lang))
		b.press(usePasskey)
		if !b.has(".done") || !b.has(".facts b") || len(own.holds()) != 1 {
			t.Fatalf("no passkey was made: %s", b.text("main"))
		}
		b.picture(fmt.Sprintf("first-passkey-3-%s.png", lang))
		own.answers(false)
		b.open(server.ready.Issuer + "/oauth/logout")
		b.press(`button[value="signout"]`)
		b.open(a.url("/login?scope=openid"))
		b.onSignIn()
		b.touch(own)
		b.onConsent()
		b.press(allow)
		b.onApp("signed in")
		b.open(server.ready.Issuer + "/account")
		b.picture(fmt.Sprintf("first-passkey-4-%s.png", lang))
	}
}
