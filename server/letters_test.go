package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/mail/mailtest"
	"github.com/warifu/warifu/storage"
)

// calling is a browser that calls itself something.
func (b *browser) calling(agent string) *browser {
	b.http.Transport = named{b.http.Transport, agent}
	return b
}

type named struct {
	http.RoundTripper
	agent string
}

func (n named) RoundTrip(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", n.agent)
	return n.RoundTripper.RoundTrip(req)
}

// noLetter checks that no letter is on its way: one that is asked for comes next.
func (p *people) noLetter(id string) {
	p.t.Helper()
	p.browser().forgets(id)
	if m := p.mail.Next(); m.To != id+"@people.example" || !strings.HasPrefix(m.Subject, "Set a new password") {
		p.t.Errorf("a letter came: to %s, %s", m.To, m.Subject)
	}
	p.mail.None()
}

// In the language of their record, a user learns of a sign-in in a browser in which they never did, and not of their
// first one, nor twice of a browser.
func TestLetterOfANewDevice(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	p.hire("carol", nil)
	enter := func(b *browser) {
		if got := b.account("/account", userEmail); !strings.Contains(got.body, userEmail) {
			t.Fatalf("%d\n%s", got.status, shown(got.body))
		}
	}
	enter(p.browser())
	p.noLetter("carol")
	b := p.browser().calling("Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0")
	enter(b)
	m := p.mail.Next()
	if m.To != userEmail || !strings.Contains(m.Subject, "新しいログイン") || !strings.Contains(m.Body, "Firefox (Linux)") ||
		!strings.Contains(m.Body, "127.0.0.1") || m.Link(p.issuer+"/account") == "" {
		t.Errorf("to %s: %s\n%s", m.To, m.Subject, m.Body)
	}
	p.clock.forward(p.cfg.Lifetimes.Session + 1)
	enter(b)
	p.noLetter("carol")
}

// Whoever has the password of somebody cannot fill their mailbox.
func TestLettersOfNewDevicesAreFew(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	p.clock.stop()
	p.hire("carol", nil)
	for range 7 {
		p.browser().account("/account", userEmail)
	}
	for range 3 {
		if m := p.mail.Next(); m.To != userEmail || !strings.Contains(m.Subject, "新しいログイン") {
			t.Errorf("to %s: %s", m.To, m.Subject)
		}
	}
	p.noLetter("carol")
}

// A user learns that a recovery code was used.
func TestLetterOfARecoveryCode(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	_, recovery := p.enrol("user-ann")
	b, got := p.halfSignedIn()
	if got := b.follow(b.prove(got, "recovery", recovery[0])); got.asks() != "decision" {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	if m := p.mail.Next(); m.To != userEmail || !strings.Contains(m.Subject, "回復コードが使われました") {
		t.Errorf("to %s: %s", m.To, m.Subject)
	}
}

// Nobody is written to at an address that is not known to be theirs.
func TestNoLetterToAnAddressThatNobodyVouchesFor(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	p.hire("carol", nil)
	for _, u := range []storage.User{
		{ID: "u1", Connector: "github", Email: "eve@people.example"}, {ID: "u2", Connector: "local"},
	} {
		p.server().Notify(&u, "passkey-added")
	}
	p.noLetter("carol")
}
