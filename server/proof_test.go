package server_test

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
)

// enrol gives a user an authenticator app, and recovery codes.
func (p *idp) enrol(userID string) (secret []byte, recovery []string) {
	p.t.Helper()
	a, err := p.store.Account(p.t.Context(), userID)
	if err != nil {
		p.t.Fatal(err)
	}
	next := a.Factors.Clone()
	next.TOTP = storage.TOTP{Secret: factor.NewTOTP(), At: p.clock.now()}
	recovery, next.Recovery = factor.NewRecoveryCodes()
	if _, _, err := p.store.ChangeFactors(p.t.Context(), a, storage.FactorChange{Next: next}); err != nil {
		p.t.Fatal(err)
	}
	return next.TOTP.Secret, recovery
}

// codeNow is what an authenticator app shows.
func (p *idp) codeNow(secret []byte) string {
	p.t.Helper()
	code, err := totp.GenerateCode(factor.TOTPText(secret), p.clock.now())
	if err != nil {
		p.t.Fatal(err)
	}
	return code
}

// halfSignedIn is a browser at the factor page, after the right password.
func (p *idp) halfSignedIn(changes ...string) (*browser, page) {
	p.t.Helper()
	b := p.browser()
	got := b.follow(b.signIn(b.get(p.authorizeURL(changes...)), userEmail, userPassword))
	if !strings.Contains(got.body, `name="code"`) {
		p.t.Fatalf("no factor page: %d %s", got.status, shown(got.body))
	}
	return b, got
}

// prove fills in a field of the factor page.
func (b *browser) prove(got page, field, value string) page {
	b.p.t.Helper()
	action, form := b.form(got, field)
	form.Set(field, value)
	return b.post(action, form)
}

// sessions are those that a user has.
func (p *idp) sessions(userID string) []storage.SessionView {
	p.t.Helper()
	held, _, err := p.store.Sessions(p.t.Context(), userID, storage.Part{})
	if err != nil {
		p.t.Fatal(err)
	}
	return held
}

// A right password alone is no sign-in of a user who has an authenticator app.
func TestTheSecondFactorIsAskedFor(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	secret, recovery := p.enrol("user-ann")
	b, asked := p.halfSignedIn("scope", "openid")
	if b.cookie("session") != "" || len(p.sessions("user-ann")) != 0 {
		t.Error("there is a session after the password alone")
	}
	if got := b.follow(b.get(p.authorizeURL("prompt", "none"))); got.location == nil ||
		got.location.Query().Get("error") != "login_required" {
		t.Errorf("prompt=none after the password alone: %v", got.location)
	}
	if got := b.prove(asked, "code", "000000"); got.status != http.StatusUnprocessableEntity ||
		!strings.Contains(got.body, `name="code"`) {
		t.Errorf("a wrong code: %d %s", got.status, shown(got.body))
	}
	code := p.codeNow(secret)
	got := b.follow(b.prove(asked, "code", code[:3]+" "+code[3:]))
	if got.asks() != "decision" {
		t.Fatalf("the right code: %d %s", got.status, shown(got.body))
	}
	sessions := p.sessions("user-ann")
	if len(sessions) != 1 || !slices.Equal(sessions[0].AMR, []string{"pwd", "otp", "mfa"}) {
		t.Fatalf("sessions: %+v", sessions)
	}
	if s := sessions[0]; s.Since.IsZero() || s.Address != "127.0.0.1" || s.Agent == "" {
		t.Errorf("since %v, address %q, agent %q", s.Since, s.Address, s.Agent)
	}
	if b.cookie("half") != "" {
		t.Error("the half stays in the browser")
	}

	t.Run("a code works once", func(t *testing.T) {
		p := p.at(t)
		b, asked := p.halfSignedIn()
		if got := b.prove(asked, "code", code); got.status != http.StatusUnprocessableEntity {
			t.Errorf("the same code again: %d", got.status)
		}
		p.clock.forward(30 * time.Second)
		if got := b.prove(asked, "code", p.codeNow(secret)); got.status != http.StatusSeeOther {
			t.Errorf("the next code: %d", got.status)
		}
	})
	t.Run("so does a recovery code", func(t *testing.T) {
		p := p.at(t)
		b, asked := p.halfSignedIn()
		if got := b.follow(b.prove(asked, "recovery", strings.ToUpper(recovery[3]))); got.asks() != "decision" {
			t.Errorf("a recovery code: %d %s", got.status, shown(got.body))
		}
		b, asked = p.halfSignedIn()
		if got := b.prove(asked, "recovery", recovery[3]); got.status != http.StatusUnprocessableEntity {
			t.Errorf("again: %d", got.status)
		}
	})
	t.Run("another browser has no half", func(t *testing.T) {
		p := p.at(t)
		b, asked := p.halfSignedIn()
		thief := p.browser()
		thief.get(p.authorizeURL())
		thief.plant("half", b.cookie("half"))
		p.clock.forward(30 * time.Second)
		action, form := b.form(asked, "code")
		form.Set("code", p.codeNow(secret))
		if got := thief.post(action, form); got.status == http.StatusSeeOther || thief.cookie("session") != "" {
			t.Errorf("the form in another browser: %d", got.status)
		}
		asked = thief.get(p.authorizeURL())
		if !strings.Contains(asked.body, `name="password"`) {
			t.Errorf("a half of another request opens the factor page: %s", shown(asked.body))
		}
		_, form = thief.form(asked, "password")
		form.Set("code", p.codeNow(secret))
		if got := thief.follow(thief.post(action, form)); !strings.Contains(got.body, `name="password"`) ||
			thief.cookie("session") != "" {
			t.Errorf("a code without a half: %d %s", got.status, shown(got.body))
		}
	})
	t.Run("it waits for ten minutes", func(t *testing.T) {
		p := p.at(t)
		b, asked := p.halfSignedIn()
		p.clock.forward(10 * time.Minute)
		if got := b.follow(b.prove(asked, "code", p.codeNow(secret))); !strings.Contains(got.body, `name="password"`) {
			t.Errorf("a code after ten minutes: %d %s", got.status, shown(got.body))
		}
	})
	t.Run("it ends with the user's term", func(t *testing.T) {
		p := p.at(t)
		b, asked := p.halfSignedIn()
		p.clock.forward(30 * time.Second)
		if _, err := p.store.EndUser(t.Context(), "user-ann", storage.AuditEntry{Reason: "stolen"}); err != nil {
			t.Fatal(err)
		}
		if got := b.follow(b.prove(asked, "code", p.codeNow(secret))); !strings.Contains(got.body, `name="password"`) {
			t.Errorf("a code after the end of the term: %d %s", got.status, shown(got.body))
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		p := p.at(t)
		b, asked := p.halfSignedIn()
		action, form := b.form(asked, "cancel")
		form.Set("cancel", "yes")
		p.redirected(b.post(action, form), "cancelled", "access_denied")
	})
	t.Run("as somebody else", func(t *testing.T) {
		p := p.at(t)
		b, asked := p.halfSignedIn()
		action, _ := b.form(asked, "code")
		_, form := b.form(asked, "code")
		form.Set("decision", "switch")
		if got := b.follow(b.post(action, form)); !strings.Contains(got.body, `name="password"`) {
			t.Errorf("switch: %s", shown(got.body))
		}
	})
}

// Guesses of codes are counted for the account, and that concerns nobody's password.
func TestCodesAreNotGuessed(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	secret, _ := p.enrol("user-ann")
	b, asked := p.halfSignedIn()
	for i := range 5 {
		if got := b.prove(asked, "code", "00000"+string(rune('0'+i))); got.status != http.StatusUnprocessableEntity {
			t.Fatalf("guess %d: %d", i+1, got.status)
		}
	}
	got := b.prove(asked, "code", p.codeNow(secret))
	if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("the right one after too many: %d", got.status)
	}
	if _, asked = p.halfSignedIn(); asked.status != http.StatusOK {
		t.Errorf("the password after too many codes: %d", asked.status)
	}
	if !strings.Contains(p.log.String(), "too many wrong codes") {
		t.Error("the log does not tell of it")
	}
	p.clock.forward(15 * time.Minute)
	b, asked = p.halfSignedIn()
	if got := b.prove(asked, "code", p.codeNow(secret)); got.status != http.StatusSeeOther {
		t.Errorf("after the window: %d", got.status)
	}
	// Who has signed in here before has a count of their own.
	other, elsewhere := p.halfSignedIn()
	for range 6 {
		other.prove(elsewhere, "code", "000000")
	}
	p.clock.forward(30 * time.Second)
	asked = b.follow(b.signIn(b.get(p.authorizeURL("prompt", "login")), userEmail, userPassword))
	if got := b.prove(asked, "code", p.codeNow(secret)); got.status != http.StatusSeeOther {
		t.Errorf("in the owner's browser: %d", got.status)
	}
}

// Who had the password before there was a second factor has no more guesses than others, from however many browsers.
func TestCodesAreNotGuessedFromManyBrowsers(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	browsers := make([]*browser, 4)
	for i := range browsers {
		browsers[i] = p.browser()
		browsers[i].account("/account", userEmail)
	}
	owner := p.browser()
	page := owner.account("/account/totp", userEmail)
	secret, code := p.shows(page)
	owner.submit(page, "confirm", "code", code)
	p.clock.forward(30 * time.Second)
	taken := 0
	for _, b := range browsers {
		asked := b.follow(b.signIn(b.get(p.authorizeURL("prompt", "login")), userEmail, userPassword))
		for range 4 {
			if got := b.prove(asked, "code", "000000"); got.status == http.StatusUnprocessableEntity {
				taken++
			}
		}
	}
	if taken != 5 {
		t.Errorf("%d guesses were taken", taken)
	}
	now, err := totp.GenerateCode(secret, p.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	asked := owner.follow(owner.signIn(owner.get(p.authorizeURL("prompt", "login")), userEmail, userPassword))
	if got := owner.prove(asked, "code", now); got.status != http.StatusSeeOther {
		t.Errorf("in the owner's browser: %d", got.status)
	}
}

// Who waits for the second factor when an operator removes it signs in anew, and is not asked for what is gone.
func TestHalfOfAFactorThatIsGone(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	p.enrol("user-ann")
	b, asked := p.halfSignedIn()
	if _, _, err := p.store.RemoveFactors(t.Context(), "user-ann", nil, "", storage.AuditEntry{}); err != nil {
		t.Fatal(err)
	}
	again := b.prove(asked, "code", "000000")
	if again.asks() != "password" {
		t.Fatalf("%d\n%s", again.status, shown(again.body))
	}
	if got := b.signIn(again, userEmail, userPassword); got.status != http.StatusSeeOther ||
		len(p.sessions("user-ann")) != 1 {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
}

// One code, many requests at once: one session.
func TestRacersForACode(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	_, recovery := p.enrol("user-ann")
	const racers = 5
	forms, browsers := make([]url.Values, racers), make([]*browser, racers)
	action := ""
	for i := range racers {
		b, asked := p.halfSignedIn()
		action, forms[i] = b.form(asked, "recovery")
		forms[i].Set("recovery", recovery[0])
		browsers[i] = b
	}
	won := make([]bool, racers)
	together(racers, func(i int) { won[i] = browsers[i].post(action, forms[i]).status == http.StatusSeeOther })
	n := 0
	for i := range racers {
		if won[i] {
			n++
		}
		if won[i] != (browsers[i].cookie("session") != "") {
			t.Error("an answer without its cookie, or the other way round")
		}
	}
	if n != 1 || len(p.sessions("user-ann")) != 1 {
		t.Errorf("%d of %d used one recovery code; %d sessions", n, racers, len(p.sessions("user-ann")))
	}
}

// Users find in their history who has tried to sign in as them, beside those who did.
func TestFailedSignInsAreInTheHistory(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	secret, _ := p.enrol("user-ann")
	b := p.browser()
	form := b.get(p.authorizeURL())
	for range 3 {
		b.signIn(form, userEmail, "wrong")
	}
	b.signIn(form, "nobody@app.test", "wrong")
	asked := b.follow(b.signIn(form, userEmail, userPassword))
	b.prove(asked, "code", "000000")
	if got := b.prove(asked, "code", p.codeNow(secret)); got.status != http.StatusSeeOther {
		t.Fatalf("sign-in: %d", got.status)
	}
	p.handler.(*server.Server).FlushJournal(t.Context())
	history, err := p.store.SignIns(t.Context(), "user-ann", 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, e := range history {
		got[e.Failed] += max(1, e.Times)
		if e.Address != "127.0.0.1" || e.Agent == "" || e.At.IsZero() {
			t.Errorf("%+v", e)
		}
	}
	if want := map[string]int{"": 1, "password": 3, "code": 1}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
