package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/mail/mailtest"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// carol is a managed account with a password, and a browser in which she has signed in.
func (p *people) carol() *browser {
	p.t.Helper()
	hash := factor.HashPassword(userPassword)
	p.hire("carol", func(_ *storage.User, f *storage.Factors) {
		f.Password = storage.Password{Hash: hash, At: p.clock.now()}
	})
	b := p.browser()
	if got := b.account("/account", "carol"); got.status != http.StatusOK {
		p.t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	return b
}

// Whoever has signed in within the last minutes sets another password. All that was begun with the one before ends, but
// this browser goes on; a password that is easy to guess is not taken, and says why.
func TestPasswordIsChangedInTheAccount(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{}, withManaged)
	b := p.carol()
	other := p.browser()
	other.account("/account", "carol")
	tokens := p.exchange(other.code())
	if got := b.get(p.issuer + "/.well-known/change-password"); got.location == nil || got.location.String() != p.issuer+
		"/account/password" {
		t.Fatalf("where password managers look: %d %v", got.status, got.location)
	}
	page := b.get(p.issuer + "/account/password")
	for typed, says := range map[string]string{
		"short":                   "at least 8 characters",
		"password1":               "easy to guess",
		"carol carol":             "easy to guess",
		strings.Repeat("x ", 600): "too long",
	} {
		if got := b.choose(page, typed, typed); got.status != http.StatusUnprocessableEntity ||
			!strings.Contains(got.body, says) {
			t.Errorf("%.20q: %d\n%s", typed, got.status, shown(got.body))
		}
	}
	if got := b.choose(page, newPassword, newPassword+"x"); got.status != http.StatusUnprocessableEntity {
		t.Errorf("typed in two ways: %d", got.status)
	}
	held := b.cookie("session")
	got := b.follow(b.choose(page, newPassword, newPassword))
	if got.status != http.StatusOK || !strings.Contains(got.body, `role="status"`) ||
		!strings.Contains(got.body, "Carol") {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	if b.cookie("session") == held {
		t.Error("the session has not changed")
	}
	if got := other.follow(other.get(p.issuer + "/account")); got.asks() != "password" {
		t.Errorf("another browser goes on: %d", got.status)
	}
	p.refresh(tokens.text("refresh_token")).wants(t, "of the password before", http.StatusBadRequest, "invalid_grant")
	b2 := p.browser()
	if got := b2.signIn(b2.follow(b2.get(p.issuer+"/account")), "carol",
		userPassword); got.status != http.StatusUnprocessableEntity {
		t.Errorf("the old password: %d", got.status)
	}
	if got := b2.follow(b2.signIn(b2.follow(b2.get(p.issuer+"/account")), "carol", newPassword)); !strings.Contains(
		got.body, "Carol") {
		t.Errorf("the new password: %d\n%s", got.status, shown(got.body))
	}
	if n := p.audits(storage.AuditPasswordSet, "in the account"); n != 1 {
		t.Errorf("%d entries of the audit log", n)
	}
	if got := b.get(p.issuer + "/account/password"); got.status != http.StatusOK {
		t.Errorf("the browser has to sign in again: %d", got.status)
	}
}

// What changes how somebody signs in asks for a sign-in of the last minutes, as the same user, and leads back. A form
// that comes later changes nothing.
func TestChangesNeedARecentSignIn(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{}, withManaged)
	b := p.carol()
	page := b.get(p.issuer + "/account/password")
	p.clock.forward(11 * time.Minute)
	if got := b.follow(b.choose(page, newPassword, newPassword)); got.asks() != "password" ||
		!strings.Contains(got.body, `value="carol`) {
		t.Fatalf("a form after eleven minutes: %d\n%s", got.status, shown(got.body))
	}
	for _, path := range []string{"/account/password", "/account/totp", "/account/codes"} {
		got := b.follow(b.get(p.issuer + path))
		if got.asks() != "password" {
			t.Fatalf("%s: %d\n%s", path, got.status, shown(got.body))
		}
		got = b.signIn(got, "carol", userPassword)
		for got.location != nil && got.location.Path != path {
			got = b.get(got.location.String())
		}
		if got.location == nil {
			t.Errorf("%s: does not lead back: %d\n%s", path, got.status, shown(got.body))
		}
		p.clock.forward(11 * time.Minute)
	}
	for _, path := range []string{"/account", "/account/sessions", "/account/apps", "/account/activity",
		"/account/profile"} {
		if got := b.get(p.issuer + path); got.status != http.StatusOK {
			t.Errorf("%s: to look needs a recent sign-in: %d", path, got.status)
		}
	}
	if _, form := b.form(b.get(p.issuer+"/account/profile"), "name"); form.Get("form") != "" {
		form.Set("name", "Eve")
		if got := b.follow(b.post(p.issuer+"/account/profile", form)); got.asks() != "password" {
			t.Errorf("the name is changed: %d", got.status)
		}
	}
}

// Somebody with an authenticator app shows it before they change how they sign in, even if their session began with
// less.
func TestChangesNeedTheSecondFactor(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{}, withManaged)
	b, thief := p.carol(), p.browser()
	thief.account("/account", "carol") // with the password alone, which is enough now
	got := b.get(p.issuer + "/account/totp")
	_, code := p.shows(got)
	b.submit(got, "confirm", "code", code)
	for _, path := range []string{"/account/totp", "/account/password", "/account/codes"} {
		if got := thief.get(p.issuer + path); got.status == http.StatusOK {
			t.Errorf("%s: opens with a password alone", path)
		}
	}
}

// An app that is taken back in the account has nothing any more, and asks anew.
func TestAppIsTakenBack(t *testing.T) {
	t.Parallel()
	p := newIDP(t).withAllScopes()
	b := p.browser()
	got := b.account("/account/apps", userEmail)
	if !strings.Contains(got.body, "not allowed any app") {
		t.Errorf("before: %s", shown(got.body))
	}
	tokens := p.exchange(b.code("scope", "openid offline_access threads:read"))
	got = b.get(p.issuer + "/account/apps")
	if got.status != http.StatusOK || !strings.Contains(got.body, p.client.ClientName) ||
		!strings.Contains(got.body, "threads:read") {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	_, form := b.form(got, "client")
	got = b.follow(b.submit(got, "end", "client", form.Get("client")))
	if got.status != http.StatusOK || !strings.Contains(got.body, `role="status"`) ||
		strings.Contains(got.body, p.client.ClientName) {
		t.Errorf("after: %d\n%s", got.status, shown(got.body))
	}
	p.refresh(tokens.text("refresh_token")).wants(t, "taken back", http.StatusBadRequest, "invalid_grant")
	got = b.follow(b.get(p.authorizeURL("scope", "openid offline_access threads:read")))
	if got.asks() != "decision" || !strings.Contains(got.body, `href="/account/apps"`) {
		t.Errorf("the app is not asked for again, or it is not said where it is taken back: %d\n%s",
			got.status, shown(got.body))
	}
	revoked := p.audited(storage.AuditConsentRevoked)
	if len(revoked) != 1 || revoked[0].Actor != storage.UserActor("user-ann") || revoked[0].Address == "" {
		t.Errorf("audit log: %+v", revoked)
	}
	_, hidden := b.form(b.get(p.issuer+"/account/totp"), "code") // an app that there is not
	hidden.Set("client", "no/../such")
	if got := b.post(p.issuer+"/account/apps", url.Values{"form": hidden["form"],
		"client": hidden["client"]}); got.status != http.StatusSeeOther {
		t.Errorf("an app that there is not: %d", got.status)
	}
}

// A managed user chooses a name and a language; what others keep is shown, and said to be kept by them.
func TestProfile(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{}, withManaged)
	b := p.carol()
	page := b.get(p.issuer + "/account/profile")
	for _, name := range []string{"", " ", strings.Repeat("x", 201), "a\nb", "\xff", "\u200b\u2060", "\u3000"} {
		if got := b.named(page, name, "ja"); got.status != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d", name, got.status)
		}
	}
	const name = "キャロル <b>\u202e"
	got := b.follow(b.named(page, name, "ja"))
	a, err := p.store.Account(t.Context(), "carol")
	if err != nil || a.User.Name != name || a.User.Locale != "ja" {
		t.Fatalf("%+v %v", a, err)
	}
	if !strings.Contains(got.body, `<html lang="ja">`) || !strings.Contains(got.body, `role="status"`) {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	if got := b.get(p.issuer + "/account"); got.status != http.StatusOK || strings.Contains(got.body, "<b>\u202e") {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	ann := p.browser()
	if got := ann.account("/account/profile", userEmail); !strings.Contains(got.body, userEmail) ||
		strings.Contains(got.body, `name="name"`) {
		t.Errorf("a user of the configuration: %d\n%s", got.status, shown(got.body))
	}
	if got := ann.get(p.issuer + "/account/password"); got.status != http.StatusOK ||
		strings.Contains(got.body, `name="password"`) {
		t.Errorf("the password of a user of the configuration: %d\n%s", got.status, shown(got.body))
	}
}

// Nobody floods the audit log, or storage, by the forms of their account.
func TestAccountFormsAreBounded(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{}, withManaged)
	b := p.carol()
	page := b.get(p.issuer + "/account/profile")
	p.clock.stop()
	sent := 0
	for ; sent < 200; sent++ {
		got := b.named(page, fmt.Sprint("Carol ", sent), "")
		if got.status == http.StatusTooManyRequests {
			break
		}
		if got.status != http.StatusSeeOther {
			t.Fatalf("form %d: %d\n%s", sent+1, got.status, shown(got.body))
		}
	}
	if n := len(p.audited(storage.AuditUserApplied)); sent < 50 || sent == 200 || n > sent+5 {
		t.Errorf("%d forms were taken, of which the audit log has %d", sent, n)
	}
	p.clock.forward(time.Minute)
	if got := b.named(page, "Carol again", ""); got.status != http.StatusSeeOther {
		t.Errorf("a minute later: %d\n%s", got.status, shown(got.body))
	}
}

func (b *browser) named(got page, name, language string) page {
	b.p.t.Helper()
	action, form := b.form(got, "name")
	form.Set("name", name)
	form.Set("language", language)
	return b.post(action, form)
}

// The history has the sign-ins of a user, and nobody else's.
func TestActivity(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	b := p.browser()
	got := b.account("/account/activity", userEmail)
	if got.status != http.StatusOK || strings.Count(got.body, "<li>") != 1 || !strings.Contains(got.body, "127.0.0.1") {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	if got := p.browser().account("/account/activity", "bob@app.test"); strings.Count(got.body, "<li>") != 1 {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
}

// Every page of the account, and every form, asks who is there, and takes no form of another site.
func TestAccountIsClosedToStrangers(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	b := p.browser()
	b.account("/account", userEmail)
	for _, path := range []string{"/account", "/account/totp", "/account/codes", "/account/sessions", "/account/password",
		"/account/profile", "/account/apps", "/account/activity"} {
		stranger := p.browser()
		if got := stranger.follow(stranger.get(p.issuer + path)); got.asks() != "password" {
			t.Errorf("%s opens for a stranger: %d", path, got.status)
		}
		if slices.Contains([]string{"/account", "/account/activity"}, path) {
			continue
		}
		stranger = p.browser()
		if got := stranger.follow(stranger.post(p.issuer+
			path, url.Values{"decision": {"remove"}})); got.asks() != "password" {
			t.Errorf("%s takes a form of a stranger: %d", path, got.status)
		}
		b.post(p.issuer+path, url.Values{"decision": {"remove"}}).wants(t, path+": a form without a token",
			http.StatusForbidden, "invalid_request")
		req := p.request(http.MethodPost, p.issuer+path, "decision=remove", "Content-Type", formType, "Origin",
			"https://evil.example",
			"Sec-Fetch-Site", "cross-site")
		if got := b.do(req); got.status != http.StatusForbidden {
			t.Errorf("%s: a form of another site: %d", path, got.status)
		}
	}
}

// Where a second factor is demanded of somebody, they do not remove the last that suffices.
func TestLastFactorIsNotRemoved(t *testing.T) {
	t.Parallel()
	demanded := func(c *server.Config) { c.Demands = server.Demands{Everybody: oauth.AssuranceMFA} }
	refused := func(t *testing.T, got page) {
		t.Helper()
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, "this is your last one") {
			t.Errorf("%d\n%s", got.status, shown(got.body))
		}
	}
	t.Run("authenticator app", func(t *testing.T) {
		p := newIDP(t, demanded)
		b := p.browser()
		b.account("/signin", userEmail)
		got := b.get(p.issuer + "/account/totp")
		_, code := p.shows(got)
		b.submit(got, "confirm", "code", code)
		refused(t, b.submit(b.get(p.issuer+"/account/totp"), "remove"))
		if len(p.factors("user-ann").TOTP.Secret) == 0 {
			t.Error("it is gone")
		}
	})
	t.Run("passkey", func(t *testing.T) {
		p := newIDP(t, atHost, demanded)
		device, b := p.holding("user-ann"), p.browser()
		got := b.follow(b.touch(b.follow(b.get(p.issuer+"/account/passkeys")), device))
		action, form := b.form(got, "name")
		form.Set("decision", "remove")
		refused(t, b.post(action, form))
		if len(p.passkeys("user-ann")) == 0 {
			t.Error("it is gone")
		}
	})
}
