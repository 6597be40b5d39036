package server_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/factor/factortest"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/mail/mailtest"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const (
	carolEmail  = "carol@people.example"
	newPassword = "seven moles dig quietly"
)

// people is a server with managed accounts, which sends mail.
type people struct {
	*idp
	mail *mailtest.Server
}

func newPeople(t testing.TB, behaves mailtest.Options, change ...func(*server.Config)) *people {
	t.Helper()
	inbox := mailtest.Start(t, behaves)
	sender, err := mail.New(mail.Options{Host: inbox.Host, Port: inbox.Port, CAs: inbox.CAs, From: "no-reply@id.example",
		Helo: "id.example", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Pauses: []time.Duration{time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	p := &people{newIDP(t, append(change, func(c *server.Config) { c.Mail = sender })...), inbox}
	p.beside(sender.Run)
	p.server().HurryPostroom()
	p.beside(p.server().RunPostroom)
	return p
}

// beside runs something until the test ends.
func (p *people) beside(run func(context.Context)) {
	ctx, stop := context.WithCancel(context.WithoutCancel(p.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	p.t.Cleanup(func() {
		stop()
		<-done
	})
}

func (p *idp) server() *server.Server { return p.handler.(*server.Server) }

// hire stores a managed account, as an operator does.
func (p *people) hire(id string, change func(*storage.User, *storage.Factors)) *storage.Account {
	p.t.Helper()
	u, f := storage.User{ID: id, Username: id, Name: "Carol", Email: id + "@people.example"}, storage.Factors{}
	if change != nil {
		change(&u, &f)
	}
	a, err := p.store.PutAccount(p.t.Context(), u, nil, &storage.FactorChange{Next: f},
		storage.AuditEntry{Action: storage.AuditUserApplied})
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func (p *people) link(a *storage.Account, kind string) string {
	p.t.Helper()
	address, err := p.server().MakeLink(p.t.Context(), a, kind, server.LinkLife)
	if err != nil {
		p.t.Fatal(err)
	}
	return address
}

// choose fills in the page of a link.
func (b *browser) choose(got page, password, again string) page {
	b.p.t.Helper()
	action, form := b.form(got, "again")
	form.Set("password", password)
	form.Set("again", again)
	return b.post(action, form)
}

// gone reports whether a link no longer works.
func (got page) gone() bool {
	const ask, askOthers = `<a class="button" href="/forgot">`, "ask whoever runs this service for a new link"
	return got.status == http.StatusGone && strings.Contains(got.body, ask) != strings.Contains(got.body, askOthers)
}

// Somebody opens an invitation, chooses a password, and is signed in; the link works once, and looking spends nothing.
func TestInvitation(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	const strange = "Zvqwx-Trbnlk-Phyxgo"
	a := p.hire("carol", func(u *storage.User, _ *storage.Factors) { u.FamilyName = strange })
	address := p.link(a, server.LinkInvitation)
	scanner := p.browser()
	for range 2 {
		if got := scanner.do(p.request(http.MethodHead, address, "")); got.status != http.StatusOK {
			t.Fatalf("HEAD: %d", got.status)
		}
		if got := scanner.get(address); got.status != http.StatusOK || !strings.Contains(got.body, "Welcome to ") ||
			!strings.Contains(got.body, carolEmail) || got.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %v\n%s", got.status, got.header, shown(got.body))
		}
	}
	if got := scanner.get(address + "&lang=ja"); !strings.Contains(got.body, "へようこそ") {
		t.Errorf("not in Japanese: %s", shown(got.body))
	}
	b := p.browser()
	for _, c := range []struct{ password, again, says string }{
		{"sh0rt?", "sh0rt?", "The password is too short"},
		{"", "", "The password is too short"},
		{newPassword, newPassword + "x", "two different passwords"},
		{"password123", "password123", "The password is easy to guess"},
		{strange, strange, "contains your name"},
		{strings.Repeat("x y ", 300), strings.Repeat("x y ", 300), "The password is too long"},
	} {
		got := b.choose(b.get(address), c.password, c.again)
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, c.says) {
			t.Errorf("%.20q: %d, want %q\n%s", c.password, got.status, c.says, shown(got.body))
		}
		if c.password != "" && strings.Contains(got.body, c.password) {
			t.Errorf("the page repeats the password %.20q", c.password)
		}
	}
	got := b.choose(b.get(address), newPassword, newPassword)
	if got.status != http.StatusSeeOther || got.location.Path != "/account" {
		t.Fatalf("%d %v\n%s", got.status, got.location, shown(got.body))
	}
	if got = b.follow(got); got.status != http.StatusOK || !strings.Contains(got.body, carolEmail) {
		t.Errorf("not signed in: %d\n%s", got.status, shown(got.body))
	}
	for _, other := range []*browser{b, scanner} { // the second one reads Japanese
		if got := other.get(address); !got.gone() {
			t.Errorf("a link that was used: %d\n%s", got.status, shown(got.body))
		}
	}
	now, err := p.store.Account(t.Context(), "carol")
	if err != nil {
		t.Fatal(err)
	}
	if right, _ := factor.CheckPassword(now.Factors.Password.Hash, newPassword); !right ||
		now.Factors.Password.At.IsZero() {
		t.Errorf("the password is not the one that was chosen: %+v", now.Factors.Password)
	}
	p.mail.None()
}

// Somebody who is invited although they have a password learns when it is another one.
func TestInvitationOfSomebodyWithAPassword(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	a := p.hire("carol", func(_ *storage.User, f *storage.Factors) {
		f.Password = storage.Password{Hash: factor.HashPassword(newPassword), At: time.Now()}
	})
	b := p.browser()
	const another = "nine owls read slowly"
	if got := b.choose(b.get(p.link(a, server.LinkInvitation)), another, another); got.status != http.StatusSeeOther {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	if m := p.mail.Next(); m.To != carolEmail || !strings.HasSuffix(m.Subject, " has changed") {
		t.Errorf("to %s: %s", m.To, m.Subject)
	}
}

// Whoever is invited makes a passkey in place of a password, and signs in with it.
func TestInvitationToAPasskey(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{}, atHost)
	address := p.link(p.hire("carol", nil), server.LinkInvitation)
	b := p.browser()
	action, form := b.form(b.get(address), "passkey")
	form.Set("passkey", "yes")
	got := b.follow(b.post(action, form))
	device := &factortest.Authenticator{Origin: p.issuer}
	if got = b.follow(b.make(got, device)); got.status != http.StatusOK ||
		!strings.Contains(got.body, "Your passkey is set up") {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	if m := p.mail.Next(); m.To != carolEmail || !strings.HasPrefix(m.Subject, "A passkey was added") {
		t.Errorf("to %s: %s", m.To, m.Subject)
	}
	if got := b.get(address); !got.gone() {
		t.Errorf("the link still works: %d", got.status)
	}
	if f := p.account("carol").Factors; f.Password.Hash != "" || len(f.Passkeys) != 1 {
		t.Errorf("%+v", f)
	}
	other := p.browser()
	if got := other.follow(other.touch(other.get(p.authorizeURL()), device)); got.asks() != "decision" {
		t.Errorf("it does not sign in: %d\n%s", got.status, shown(got.body))
	}
	// Whoever has a second factor is not led past it.
	b = p.browser()
	address = p.link(p.account("carol"), server.LinkReset)
	got = b.get(address)
	if strings.Contains(got.body, `name="passkey"`) {
		t.Error("a passkey is offered to somebody who has one")
	}
	action, form = b.form(got, "again")
	form.Set("passkey", "yes")
	if got := b.post(action, form); got.status != http.StatusUnprocessableEntity || b.cookie("session") != "" {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
}

// A reset ends what was begun with the account, in the transaction in which the password changes, and tells its user.
func TestResetEndsWhatWasBegun(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	p.hire("carol", nil)
	thief := p.browser()
	thief.choose(thief.get(p.link(p.account("carol"), server.LinkInvitation)), newPassword, newPassword)
	tokens := p.exchange(thief.answered(thief.follow(thief.decide(thief.follow(thief.get(p.authorizeURL())), "allow")),
		"before"))
	if tokens.status != http.StatusOK {
		t.Fatal(tokens.raw)
	}
	b := p.browser()
	b.code() // somebody else is signed in here
	p.mail.None()
	got := b.get(p.link(p.account("carol"), server.LinkReset))
	if !strings.Contains(got.body, "<title>Set a new password") || !strings.Contains(got.body, "signed out") {
		t.Errorf("%s", shown(got.body))
	}
	if got = b.follow(b.choose(got, "nine owls read slowly", "nine owls read slowly")); !strings.Contains(got.body,
		carolEmail) {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	if got := thief.follow(thief.get(p.issuer + "/account")); got.asks() != "password" {
		t.Errorf("the session of before stands: %d\n%s", got.status, shown(got.body))
	}
	if got := p.refresh(tokens.text("refresh_token")); got.status != http.StatusBadRequest ||
		got.text("error") != "invalid_grant" {
		t.Errorf("the grant of before stands: %s", got.raw)
	}
	if m := p.mail.Next(); m.To != carolEmail || m.Subject != "Your password at "+strings.TrimPrefix(p.issuer, "http://")+
		" has changed" ||
		!strings.Contains(m.Body, "127.0.0.1") || !strings.Contains(m.Body, p.issuer+"/account") {
		t.Errorf("to %s: %s\n%s", m.To, m.Subject, m.Body)
	}
}

func (p *people) account(id string) *storage.Account {
	p.t.Helper()
	a, err := p.store.Account(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// Of many who use a link at once, one gets in.
func TestLinkWorksOnce(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	address := p.link(p.hire("carol", nil), server.LinkInvitation)
	const racers = 12 // each makes a hash
	var in, out atomic.Int32
	browsers, forms := make([]*browser, racers), make([]page, racers)
	for i := range racers {
		browsers[i] = p.browser()
		forms[i] = browsers[i].get(address)
	}
	together(racers, func(i int) {
		switch got := browsers[i].choose(forms[i], newPassword, newPassword); {
		case got.status == http.StatusSeeOther:
			in.Add(1)
		case got.gone():
			out.Add(1)
		default:
			t.Errorf("%d\n%s", got.status, shown(got.body))
		}
	})
	if in.Load() != 1 || out.Load() != racers-1 {
		t.Errorf("%d got in, %d did not", in.Load(), out.Load())
	}
}

// A link ends with its time, and with whatever happens to its account.
func TestLinkThatNoLongerWorks(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	for name, happens := range map[string]func(a *storage.Account, address string) string{
		"its time is over": func(_ *storage.Account, address string) string {
			p.clock.forward(server.LinkLife + time.Second)
			return address
		},
		"its user is disabled": func(a *storage.Account, address string) string {
			p.disable(a.User.ID)
			return address
		},
		"its user was disabled, and is back": func(a *storage.Account, address string) string {
			p.disable(a.User.ID)
			if err := p.store.EnableUser(t.Context(), a.User.ID, storage.AuditEntry{}); err != nil {
				t.Fatal(err)
			}
			return address
		},
		"it was for another address": func(a *storage.Account, address string) string {
			corrected := *a.User
			corrected.Email = "right-" + a.User.Email
			if _, err := p.store.PutAccount(t.Context(), corrected, a, nil, storage.AuditEntry{}); err != nil {
				t.Fatal(err)
			}
			return address
		},
		"the user has another factor": func(a *storage.Account, address string) string {
			f := a.Factors.Clone()
			f.Passkeys = append(f.Passkeys, storage.Passkey{ID: []byte("k"), Name: "key"})
			if _, _, err := p.store.ChangeFactors(t.Context(), a, storage.FactorChange{Next: f}); err != nil {
				t.Fatal(err)
			}
			return address
		},
		"it is cut short": func(_ *storage.Account, address string) string { return address[:len(address)-5] },
		"it is a request that waits": func(*storage.Account, string) string {
			b := p.browser()
			_, form := b.form(b.get(p.authorizeURL()), "password")
			return p.issuer + "/welcome?" + url.Values{"link": {form.Get("request")}}.Encode()
		},
		"it is none": func(*storage.Account, string) string { return p.issuer + "/welcome" },
	} {
		id := "u" + strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", "")
		a := p.hire(id, nil)
		address := p.link(a, server.LinkInvitation)
		b := p.browser()
		form := b.get(address)
		if form.status != http.StatusOK {
			t.Errorf("%s: %d before", name, form.status)
			continue
		}
		now := happens(a, address)
		if got := b.get(now); !got.gone() || !strings.Contains(got.body, `href="/forgot"`) {
			t.Errorf("%s: %d\n%s", name, got.status, shown(got.body))
		}
		if got := b.choose(form, newPassword, newPassword); now == address && !got.gone() {
			t.Errorf("%s: the form that was open: %d\n%s", name, got.status, shown(got.body))
		}
	}
}

func (p *people) disable(id string) {
	p.t.Helper()
	if _, err := p.store.DisableUser(p.t.Context(), id, storage.AuditEntry{}); err != nil {
		p.t.Fatal(err)
	}
}

// Only managed accounts have links, and none for longer than is said.
func TestLinksThatNobodyMakes(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	carol := p.hire("carol", nil)
	p.hire("dave", nil)
	p.disable("dave")
	dave := p.account("dave")
	for name, c := range map[string]struct {
		a     *storage.Account
		valid time.Duration
	}{
		"of the configuration": {p.account("user-ann"), time.Minute}, "disabled": {dave, time.Minute},
		"no time": {carol, 0}, "more than a week": {carol, 7*24*time.Hour + time.Second},
	} {
		if address, err := p.server().MakeLink(t.Context(), c.a, server.LinkReset, c.valid); err == nil {
			t.Errorf("%s: %s", name, address)
		}
	}
}

// Whoever has an authenticator app proves it as well: a mailbox alone signs nobody in.
func TestResetAsksForTheSecondFactor(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	a := p.hire("carol", func(_ *storage.User, f *storage.Factors) {
		f.TOTP = storage.TOTP{Secret: []byte("12345678901234567890"), At: time.Now()}
	})
	b := p.browser()
	got := b.follow(b.choose(b.get(p.link(a, server.LinkReset)), newPassword, newPassword))
	if !strings.Contains(got.body, `name="code"`) {
		t.Fatalf("no code is asked for: %d\n%s", got.status, shown(got.body))
	}
	if b.cookie("session") != "" {
		t.Error("there is a session already")
	}
	action, form := b.form(got, "code")
	form.Set("code", p.codeNow(a.Factors.TOTP.Secret))
	if got = b.follow(b.post(action, form)); got.status != http.StatusOK ||
		!strings.Contains(got.body, "<title>Your account") {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	if m := p.mail.Next(); !strings.Contains(m.Subject, "has changed") {
		t.Error(m.Subject)
	}
}

// The form of a link is bound to the browser that it was shown in, and no other site can send it.
func TestLinkFormOfAnotherBrowser(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	address := p.link(p.hire("carol", nil), server.LinkInvitation)
	b, victim := p.browser(), p.browser()
	victim.get(address)
	if got := victim.choose(b.get(address), newPassword, newPassword); got.status != http.StatusForbidden {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	action, form := b.form(b.get(address), "again")
	form.Set("password", newPassword)
	form.Set("again", newPassword)
	req := p.request(http.MethodPost, action, form.Encode(), "Content-Type", formType, "Sec-Fetch-Site", "cross-site")
	if got := b.do(req); got.status != http.StatusForbidden {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
}

// A fault is not a verdict: the link is as good as before.
func TestLinkWhileStorageIsAway(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	address := p.link(p.hire("carol", nil), server.LinkInvitation)
	b := p.browser()
	form := b.get(address)
	for name, away := range map[string]storagetest.Fault{
		"reads":  func(write, _ bool) error { return map[bool]error{false: context.DeadlineExceeded}[write] },
		"writes": func(write, _ bool) error { return map[bool]error{true: context.DeadlineExceeded}[write] },
	} {
		p.etcd.Inject(away)
		got := b.choose(form, newPassword, newPassword)
		p.etcd.Inject(nil)
		if got.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d\n%s", name, got.status, shown(got.body))
		}
	}
	if got := b.choose(b.get(address), newPassword, newPassword); got.status != http.StatusSeeOther {
		t.Errorf("afterwards: %d\n%s", got.status, shown(got.body))
	}
}
