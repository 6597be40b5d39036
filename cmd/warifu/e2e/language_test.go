//go:build e2e

package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// Words of each language on each page.
var (
	english  = language{"en", "Sign in", "That did not work", "Allow “", "View threads"}
	japanese = language{"ja", "ログイン", "ログインできませんでした", "許可しますか", "スレッド"}
)

type language struct{ code, signIn, problem, consent, scope string }

// on checks that the sign-in page, its problem and the consent page are in one language, and leaves the tab at consent.
func (l language) on(t *testing.T, b *tab) {
	t.Helper()
	l.heading(t, b, l.signIn)
	if response := b.signIn("nobody-"+l.code, "wrong"); response.Status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong password has the status %d", response.Status)
	}
	if text := b.text(problem); !strings.Contains(text, l.problem) {
		t.Errorf("%s: the problem is %q", l.code, text)
	}
	b.signInAs(suite.server)
	l.onConsent(t, b)
}

func (l language) onConsent(t *testing.T, b *tab) {
	t.Helper()
	l.heading(t, b, l.consent)
	var words []string
	for _, s := range b.readConsent().New {
		words = append(words, s.Words)
	}
	if text := strings.Join(words, "\n"); !strings.Contains(text, l.scope) {
		t.Errorf("%s: the scopes are\n%s", l.code, text)
	}
}

func (l language) heading(t *testing.T, b *tab, want string) {
	t.Helper()
	if lang, heading := b.lang(), b.text("h1"); lang != l.code || !strings.Contains(heading, want) {
		t.Errorf("the page is in %s with the heading %q, want %s and %q", lang, heading, l.code, want)
	}
}

// TestLanguageOfTheApp: the app's ui_locales count more than the browser's languages (OpenID Connect Core 1.0 section
// 3.1.2.1).
func TestLanguageOfTheApp(t *testing.T) {
	t.Parallel()
	a := newApp(t, "locales")
	_, b := newPerson(t, "en-US,en")
	b.open(a.url("/login?ui_locales=fr+ja-JP+en"))
	japanese.on(t, b)
	_, b = newPerson(t, "ja,en")
	b.open(a.url("/login?ui_locales=en-GB"))
	english.on(t, b)
}

// TestLanguageOfTheBrowser: without a wish of the app, the browser's languages count.
func TestLanguageOfTheBrowser(t *testing.T) {
	t.Parallel()
	a := newApp(t, "accepted")
	_, b := newPerson(t, "ja-JP,ja,en-US")
	b.open(a.url("/login"))
	japanese.on(t, b)
	_, b = newPerson(t, "de-DE,de,en")
	b.open(a.url("/login"))
	english.on(t, b)
}

// TestLanguageOfTheSwitch: what a person chose on a page counts most, on that page and on those that follow.
func TestLanguageOfTheSwitch(t *testing.T) {
	t.Parallel()
	a := newApp(t, "switched")
	_, b := newPerson(t, "ja")
	b.open(a.url("/login?ui_locales=ja"))
	japanese.heading(t, b, japanese.signIn)
	if current := b.text(`nav a[aria-current]`); current != "日本語" {
		t.Errorf("the switch stands at %q", current)
	}
	b.press(linkEnglish)
	english.on(t, b)
	b.press(linkJapanese)
	japanese.onConsent(t, b)
	b.press(linkEnglish)
	english.onConsent(t, b)
	b.press(allow)
	b.onApp("signed in")
	// The choice is kept for the next time.
	b.open(a.url("/login?prompt=login&ui_locales=ja"))
	english.heading(t, b, english.signIn)
}

// TestLanguageOfErrors: a page that tells of an error is in the language that the app asked for, and has the switch as
// well.
func TestLanguageOfErrors(t *testing.T) {
	t.Parallel()
	_, b := newPerson(t, "en")
	response := b.open(suite.server.ready.Issuer + "/oauth/authorize?client_id=nobody&ui_locales=ja&state=%22%3E%3Cb%3E")
	japanese.heading(t, b, "登録されていません")
	b.onError(response, http.StatusBadRequest, "invalid_client")
	b.onError(b.press(linkEnglish), http.StatusBadRequest, "invalid_client")
	english.heading(t, b, "not known here")
	b.onError(b.press(linkJapanese), http.StatusBadRequest, "invalid_client")
	japanese.heading(t, b, "登録されていません")
}
