package server_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/mail/mailtest"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// forgets asks for a new password.
func (b *browser) forgets(login string) page {
	b.p.t.Helper()
	action, form := b.form(b.get(b.p.issuer+"/forgot"), "login")
	form.Set("login", login)
	return b.post(action, form)
}

// Whoever is asked for: the same page, and nothing that would take another time. What was typed is not in the log.
func TestForgotSaysNothing(t *testing.T) {
	t.Parallel()
	inbox := mailtest.Start(t, mailtest.Options{})
	sender, err := mail.New(mail.Options{Host: inbox.Host, Port: inbox.Port, From: "a@id.example",
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := &people{newIDPOn(t, storagetest.Alone(t), func(c *server.Config) { c.Mail = sender }), inbox}
	p.hire("carol", nil)
	p.hire("nomail", func(u *storage.User, _ *storage.Factors) { u.Email = "" })
	p.hire("gone", nil)
	p.disable("gone")
	b := p.browser()
	b.get(p.issuer + "/forgot")
	var first page
	for i, login := range []string{carolEmail, "nobody", "CAROL", userEmail, "nomail", "gone", strings.Repeat("x", 5000),
		"canary\nname"} {
		action, form := b.form(b.get(p.issuer+"/forgot"), "login")
		form.Set("login", login)
		var got page
		if asked := p.etcd.Count(func() { got = b.post(action, form) }); asked != (storagetest.Counts{}) {
			t.Errorf("%.20s: asked etcd: %+v", login, asked)
		}
		if got = b.follow(got); got.status != http.StatusOK || !strings.Contains(got.body, "Look at your mail") {
			t.Fatalf("%.20s: %d\n%s", login, got.status, shown(got.body))
		}
		if i == 0 {
			first = got
		} else if got.body != first.body {
			t.Errorf("%.20s: another page:\n%s", login, shown(got.body))
		}
	}
	p.beside(p.server().RunPostroom)
	for strings.Contains(p.log.String(), "canary") {
		t.Fatal("the log has what was typed")
	}
}

// The mail leads to a new password, in the language of the page, and only who can have one gets it.
func TestForgottenPassword(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	p.hire("carol", nil)
	p.hire("dave", nil)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	_, to, found := strings.Cut(signIn.body, `href="/forgot?`)
	if !found {
		t.Fatalf("the sign-in page does not lead there:\n%s", shown(signIn.body))
	}
	to, _, _ = strings.Cut(to, `"`)
	got := b.get(p.issuer + "/forgot?" + to + "&lang=ja")
	action, form := b.form(got, "login")
	form.Set("login", userEmail) // is of the configuration
	b.post(action, form)
	form.Set("login", " Carol@People.Example ")
	got = b.follow(b.post(action, form))
	if !strings.Contains(got.body, "メールをご確認ください") || !strings.Contains(got.body, `href="/oauth/continue?request=`) {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	m := p.mail.Next()
	if m.To != carolEmail || !strings.Contains(m.Subject, "パスワードの再設定") || !strings.Contains(m.Body, "15分") {
		t.Errorf("to %s: %s\n%s", m.To, m.Subject, m.Body)
	}
	p.browser().forgets("dave")
	if m := p.mail.Next(); m.To != "dave@people.example" || !strings.HasPrefix(m.Subject, "Set a new password") {
		t.Errorf("to %s: %s", m.To, m.Subject)
	}
	link := m.Link(p.issuer + "/welcome?link=")
	if got := b.follow(b.choose(b.get(link), newPassword, newPassword)); got.status != http.StatusOK ||
		!strings.Contains(got.body, carolEmail) {
		t.Errorf("%d\n%s", got.status, shown(got.body))
	}
	p.mail.Next() // that the password has changed
}

// What an address asks for is limited, and what one account is sent.
func TestForgotIsLimited(t *testing.T) {
	t.Parallel()
	p := newPeople(t, mailtest.Options{})
	p.clock.stop()
	p.hire("carol", nil)
	p.hire("dave", nil)
	b := p.browser()
	for n := range 10 {
		if got := b.follow(b.forgets(carolEmail)); got.status != http.StatusOK {
			t.Fatalf("%d: %d", n, got.status)
		}
	}
	got := b.forgets("dave@people.example")
	if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" ||
		!strings.Contains(got.body, "Too many attempts") {
		t.Errorf("%d %v\n%s", got.status, got.header, shown(got.body))
	}
	p.clock.forward(time.Minute)
	b.forgets("dave@people.example")
	to := map[string]int{}
	for range 4 {
		to[p.mail.Next().To]++
	}
	if to[carolEmail] != 3 || to["dave@people.example"] != 1 {
		t.Errorf("mails: %v", to)
	}
	p.mail.None()
}

// Without a mail server nobody is told that there is one.
func TestNothingIsForgottenWithoutMail(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	b := p.browser()
	if got := b.get(p.issuer + "/forgot"); got.status != http.StatusNotFound {
		t.Errorf("GET: %d", got.status)
	}
	if got := b.post(p.issuer+"/forgot", url.Values{"login": {"x"}}); got.status != http.StatusNotFound {
		t.Errorf("POST: %d", got.status)
	}
	if got := b.get(p.authorizeURL()); strings.Contains(got.body, "/forgot") {
		t.Error("the sign-in page leads there")
	}
	if got := b.get(p.issuer + "/welcome?link=wfe_x"); !got.gone() || strings.Contains(got.body, "/forgot") {
		t.Errorf("a link: %d\n%s", got.status, shown(got.body))
	}
}

// Asking for a new password takes as long for a name that somebody has as for one that nobody has, whatever is done for
// the one behind it: the metric is how much longer, of a hundred. Run it with -benchtime 240x: no more are taken at
// once.
func BenchmarkForgot(b *testing.B) {
	p := newPeople(b, mailtest.Options{})
	p.server().WaitInPostroom()
	p.hire("carol", nil)
	ua := p.browser()
	action, form := ua.form(ua.get(p.issuer+"/forgot"), "login")
	var took [2][]time.Duration
	for n := 0; b.Loop(); n++ {
		for i := range took {
			who := (n + i) % 2
			form.Set("login", []string{carolEmail, "nobo1@people.example"}[who])
			p.clock.forward(time.Hour)
			begun := time.Now()
			if got := ua.post(action, form); got.status != http.StatusSeeOther {
				b.Fatal(got.status)
			}
			took[who] = append(took[who], time.Since(begun))
		}
	}
	for _, t := range took {
		slices.Sort(t)
	}
	known, unknown := took[0][len(took[0])/2], took[1][len(took[1])/2]
	b.ReportMetric(100*(float64(known)/float64(unknown)-1), "%-longer")
}
