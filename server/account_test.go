package server_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/html"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// account opens a page of the account, and signs in on the way if it is asked to.
func (b *browser) account(path, login string) page {
	b.p.t.Helper()
	got := b.follow(b.get(b.p.issuer + path))
	if got.asks() == "password" {
		got = b.follow(b.signIn(got, login, userPassword))
	}
	return got
}

// The account asks for a sign-in, and leads to its page afterwards, and not to the front page.
func TestAccountAsksWhoIsThere(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	b := p.browser()
	got := b.follow(b.get(p.issuer + "/account"))
	if got.asks() != "password" {
		t.Fatalf("nobody is signed in: %d\n%s", got.status, shown(got.body))
	}
	got = b.follow(b.signIn(got, userEmail, userPassword))
	if got.status != http.StatusOK || !strings.Contains(got.body, userEmail) ||
		!strings.Contains(got.body, "<title>Your account") {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	if got := b.get(p.issuer + "/account?lang=ja"); !strings.Contains(got.body, "<title>アカウント") {
		t.Errorf("not in Japanese: %s", shown(got.body))
	}
	p.clock.forward(30 * time.Minute) // to look, an old sign-in is good enough
	if got := b.get(p.issuer + "/account"); got.status != http.StatusOK {
		t.Errorf("after half an hour: %d", got.status)
	}
	if got := b.get(p.issuer + "/"); !strings.Contains(got.body, `href="/account"`) {
		t.Error("the front page does not lead to the account")
	}
}

// submit presses a button of a form of the account, with what was typed as name, value pairs.
func (b *browser) submit(got page, button string, typed ...string) page {
	b.p.t.Helper()
	action, form := b.form(got, "decision")
	form.Set("decision", button)
	for i := 0; i+1 < len(typed); i += 2 {
		form.Set(typed[i], typed[i+1])
	}
	return b.post(action, form)
}

// shows is what an authenticator app shows that has read the page.
func (p *idp) shows(got page) (secret, code string) {
	p.t.Helper()
	address := regexp.MustCompile(`href="(otpauth://[^"]+)"`).FindStringSubmatch(got.body)
	if address == nil {
		p.t.Fatalf("no secret on the page: %d\n%s", got.status, shown(got.body))
	}
	key, err := otp.NewKeyFromURL(html.UnescapeString(address[1]))
	if err != nil {
		p.t.Fatal(err)
	}
	code, err = totp.GenerateCode(key.Secret(), p.clock.now())
	if err != nil {
		p.t.Fatal(err)
	}
	return key.Secret(), code
}

// factors are those of a user, as they are stored.
func (p *idp) factors(userID string) storage.Factors {
	p.t.Helper()
	a, err := p.store.Account(p.t.Context(), userID)
	if err != nil {
		p.t.Fatal(err)
	}
	return a.Factors
}

// audits counts the entries of the audit log of an action about something.
func (p *idp) audits(action, detail string) (n int) {
	p.t.Helper()
	for _, e := range p.audited(action) {
		if e.Detail == detail {
			n++
		}
	}
	return n
}

// recoveryCodes are those that a page shows.
func recoveryCodes(got page) []string {
	return regexp.MustCompile(`[a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4}`).FindAllString(got.body, -1)
}

// An authenticator app is set up by a code that it shows, and recovery codes come with the first one. Nothing is stored
// before, and the session has proven a second factor by that.
func TestAuthenticatorAppIsSetUp(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	b := p.browser()
	got := b.account("/account/totp", userEmail)
	secret, code := p.shows(got)
	if !strings.Contains(got.body, "<svg viewBox=") || !strings.Contains(got.body, secret[:4]) {
		t.Error("no QR code, or no key to type in")
	}
	wrong := b.submit(got, "confirm", "code", "000000")
	if again, _ := p.shows(wrong); wrong.status != http.StatusUnprocessableEntity || again != secret {
		t.Fatalf("a wrong code: %d, another secret %v\n%s", wrong.status, again != secret, shown(wrong.body))
	}
	if f := p.factors("user-ann"); f.TOTP.Secret != nil || f.Revision != 0 {
		t.Error("something was stored before the code was right")
	}
	codes := b.submit(got, "confirm", "code", code)
	shownCodes := recoveryCodes(codes)
	f := p.factors("user-ann")
	if codes.status != http.StatusOK || len(shownCodes) != 10 || factor.TOTPText(f.TOTP.Secret) != secret ||
		len(f.Recovery) != 10 {
		t.Fatalf("%d, %d recovery codes\n%s", codes.status, len(shownCodes), shown(codes.body))
	}
	for _, c := range shownCodes {
		if _, is := factor.CheckRecovery(f.Recovery, c, p.clock.now()); !is {
			t.Errorf("%s is not one of those that are stored", c)
		}
	}
	if _, again := factor.CheckTOTP(f.TOTP, code, p.clock.now()); again {
		t.Error("the code that confirmed the app can be used again")
	}
	if p.audits(storage.AuditFactorAdded, "authenticator app") != 1 || p.audits(storage.AuditFactorAdded,
		"recovery codes") != 1 {
		t.Errorf("audit log: %+v", p.audited(storage.AuditFactorAdded))
	}
	file := b.submit(codes, "download")
	if !strings.HasPrefix(file.header.Get("Content-Disposition"), "attachment") ||
		!slices.Equal(recoveryCodes(file), shownCodes) ||
		!strings.HasPrefix(file.header.Get("Content-Type"), "text/plain") {
		t.Errorf("the file: %v\n%s", file.header, file.body)
	}
	if got := b.get(p.issuer + "/account/codes"); len(recoveryCodes(got)) != 0 || !strings.Contains(got.body, ">10<") {
		t.Errorf("after they were shown: %s", shown(got.body))
	}
	// The session is good enough for what needs a second factor: the next page does not ask again.
	if got := b.get(p.issuer + "/account/totp"); got.status != http.StatusOK {
		t.Errorf("asked for a second factor that has just been proven: %d %v", got.status, got.location)
	}
	sessions, _, err := p.store.Sessions(t.Context(), "user-ann", storage.Part{})
	if err != nil || len(sessions) != 1 || oauth.AssuranceOf(sessions[0].ACR, sessions[0].AMR) != oauth.AssuranceMFA {
		t.Errorf("%+v %v", sessions, err)
	}
	stored, err := p.etcd.Client.Get(t.Context(), p.etcd.Prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range stored.Kvs {
		for what, it := range map[string][]byte{"secret": f.TOTP.Secret, "secret in base32": []byte(secret),
			"recovery code": []byte(shownCodes[0]), "hash of a recovery code": f.Recovery[0].Hash} {
			if bytes.Contains(kv.Value, it) || bytes.Contains(kv.Value, []byte(base64.StdEncoding.EncodeToString(it))) {
				t.Errorf("%s holds a %s", kv.Key, what)
			}
		}
	}
}

// What an authenticator app is set up with, and how one is replaced and removed.
func TestAuthenticatorAppOfAnotherSession(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	ann, bob := p.browser(), p.browser()
	got := ann.account("/account/totp", userEmail)
	of := bob.account("/account/totp", "bob@app.test")
	_, code := p.shows(got)

	t.Run("a form of another browser", func(t *testing.T) {
		action, form := ann.form(got, "code")
		form.Set("decision", "confirm")
		form.Set("code", code)
		bob.post(action, form).wants(t, "form of another browser", http.StatusForbidden, "invalid_request")
	})
	t.Run("a secret of another session", func(t *testing.T) {
		_, mine := bob.form(of, "code")
		_, theirs := ann.form(got, "code")
		answer := bob.submit(of, "confirm", "code", code, "secret", theirs.Get("secret"))
		if answer.status != http.StatusUnprocessableEntity || p.factors("user-bob").TOTP.Secret != nil {
			t.Errorf("%d\n%s", answer.status, shown(answer.body))
		}
		if mine.Get("secret") == theirs.Get("secret") {
			t.Error("two people get one secret")
		}
	})
	t.Run("posted twice", func(t *testing.T) {
		got := bob.account("/account/totp", "bob@app.test")
		secret, code := p.shows(got)
		bob.submit(got, "confirm", "code", code)
		held := p.factors("user-bob")
		used, err := p.store.Account(t.Context(), "user-bob")
		if err != nil {
			t.Fatal(err)
		}
		next := used.Factors.Clone()
		next.TOTP.Step++ // by a sign-in elsewhere
		if _, _, err := p.store.ChangeFactors(t.Context(), used, storage.FactorChange{Next: next}); err != nil {
			t.Fatal(err)
		}
		twice := bob.submit(got, "confirm", "code", code)
		if f := p.factors("user-bob"); f.TOTP.Step != held.TOTP.Step+1 || factor.TOTPText(f.TOTP.Secret) != secret ||
			twice.status != http.StatusSeeOther {
			t.Errorf("a code counts again: step %d, then %d\n%d %s", held.TOTP.Step+1, f.TOTP.Step, twice.status,
				shown(twice.body))
		}
	})
	t.Run("after an hour", func(t *testing.T) {
		p.clock.forward(61 * time.Minute)
		_, code := p.shows(got)
		answer := ann.submit(got, "confirm", "code", code)
		if answer.location == nil || p.factors("user-ann").TOTP.Secret != nil {
			t.Errorf("%d\n%s", answer.status, shown(answer.body))
		}
	})
	t.Run("replaced and removed", func(t *testing.T) {
		got := ann.account("/account/totp", userEmail)
		_, code := p.shows(got)
		ann.submit(got, "confirm", "code", code)
		held := p.factors("user-ann")
		anew := ann.get(p.issuer + "/account/totp?anew=1")
		secret, code := p.shows(anew)
		if factor.TOTPText(held.TOTP.Secret) == secret {
			t.Fatal("the same secret again")
		}
		after := ann.follow(ann.submit(anew, "confirm", "code", code))
		replaced := p.factors("user-ann")
		if factor.TOTPText(replaced.TOTP.Secret) != secret || len(recoveryCodes(after)) != 0 ||
			!reflect.DeepEqual(replaced.Recovery, held.Recovery) || !strings.Contains(after.body, `role="status"`) {
			t.Errorf("replaced: %d\n%s", after.status, shown(after.body))
		}
		if again := ann.get(p.issuer + "/account"); strings.Contains(again.body, `role="status"`) {
			t.Error("what has happened is said twice")
		}
		gone := ann.follow(ann.submit(ann.get(p.issuer+"/account/totp"), "remove"))
		if f := p.factors("user-ann"); f.TOTP.Secret != nil || f.Recovery != nil ||
			!strings.Contains(gone.body, `role="status"`) {
			t.Errorf("removed: %+v\n%s", f, shown(gone.body))
		}
		if p.audits(storage.AuditFactorRemoved, "authenticator app") != 1 {
			t.Error("not in the audit log")
		}
	})
}

// A session that its user ends in the account is over at once, on every replica: its browser has to sign in, and what
// apps got from it is refused. Nobody ends a session of somebody else, and the one of this browser is ended by signing
// out.
func TestSessionIsEndedInTheAccount(t *testing.T) {
	t.Parallel()
	p := newIDP(t).withAllScopes()
	other := p.replica(p.etcd.Client)
	mine, lost, bob := p.browser(), p.browser(), p.browser()
	mine.account("/account", userEmail)
	bob.account("/account", "bob@app.test")
	tokens := p.exchange(lost.code("scope", "openid threads:read"))
	offline := p.exchange(lost.code("scope", "openid offline_access threads:read", "prompt", "consent"))
	sid := func(b *browser) string {
		t.Helper()
		got := b.get(p.issuer + "/account/sessions")
		found := regexp.MustCompile(`name="session" value="([^"]+)"`).FindStringSubmatch(got.body)
		if found == nil {
			return ""
		}
		return found[1]
	}
	got := mine.get(p.issuer + "/account/sessions")
	if got.status != http.StatusOK || strings.Count(got.body, "<h2><bdi>Go-http-client") != 2 ||
		!strings.Contains(got.body, "This browser") ||
		!strings.Contains(got.body, p.client.ClientName) || !strings.Contains(got.body, "127.0.0.1") {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	if alone := sid(bob); alone != "" {
		t.Errorf("somebody with one session can end %s", alone)
	}
	_, form := bob.form(bob.get(p.issuer+"/account/totp"), "form")
	form.Set("decision", "end")
	form.Set("session", sid(mine))
	bob.post(p.issuer+"/account/sessions", form)
	if got := other.refresh(tokens.text("refresh_token")); got.status != http.StatusOK {
		t.Fatalf("somebody else has ended it: %d %s", got.status, got.raw)
	} else {
		tokens = got
	}
	got = mine.submit(got, "end", "session", sid(mine))
	other.refresh(tokens.text("refresh_token")).wants(t, "a session that was ended", http.StatusBadRequest,
		"invalid_grant")
	if got = mine.follow(got); !strings.Contains(got.body, `role="status"`) || sid(mine) != "" {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	if got := lost.follow(lost.get(p.issuer + "/account")); got.asks() != "password" {
		t.Errorf("the browser goes on: %d %s", got.status, shown(got.body))
	}
	if got := other.refresh(offline.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("what was allowed while the user is away: %d %s", got.status, got.raw)
	}
	if n := len(p.audited(storage.AuditSessionEnded)); n != 1 {
		t.Errorf("%d entries of the audit log", n)
	}

	lost.account("/account", userEmail)
	third := p.browser()
	third.account("/account", userEmail)
	mine.submit(mine.get(p.issuer+"/account/sessions"), "end", "session", "")
	if got := third.get(p.issuer + "/account"); got.status != http.StatusOK {
		t.Errorf("a form that names no session has ended one: %d", got.status)
	}
	mine.follow(mine.submit(mine.get(p.issuer+"/account/sessions"), "all"))
	for name, b := range map[string]*browser{"second": lost, "third": third} {
		if got := b.follow(b.get(p.issuer + "/account")); got.asks() != "password" {
			t.Errorf("the %s browser goes on: %d", name, got.status)
		}
	}
	if got := mine.get(p.issuer + "/account"); got.status != http.StatusOK {
		t.Errorf("the browser itself: %d", got.status)
	}
}
