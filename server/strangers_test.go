package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// from is signIn through proxies that say where it came from.
func (b *browser) from(forwarded string, got page, login, password string) page {
	b.p.t.Helper()
	address, form := b.form(got, "password")
	form.Set("login", login)
	form.Set("password", password)
	return b.do(b.p.request(http.MethodPost, address, form.Encode(), "Content-Type", formType, "X-Forwarded-For",
		forwarded))
}

func trusting(networks ...string) func(*server.Config) {
	return func(c *server.Config) {
		for _, n := range networks {
			c.TrustedProxies = append(c.TrustedProxies, netip.MustParsePrefix(n))
		}
	}
}

// Whoever knows a name can lock it, but not keep its owner out: a browser in which the owner has signed in before has
// guesses of its own.
func TestAStrangerCannotKeepTheOwnerOut(t *testing.T) {
	p, _ := newGuarded(t)
	owner, _ := p.signedIn(userEmail)
	p.clock.forward(time.Second)
	ownerForm := owner.get(p.authorizeURL("prompt", "login"))
	stranger := p.browser()
	form := stranger.get(p.authorizeURL())
	for range 12 {
		stranger.signIn(form, userEmail, "wrong")
	}
	if got := stranger.signIn(form, userEmail, userPassword); got.status != http.StatusTooManyRequests {
		t.Errorf("the stranger: %d", got.status)
	}
	if got := owner.signIn(ownerForm, "ann", userPassword); got.status != http.StatusSeeOther {
		t.Errorf("the owner: %d", got.status)
	}
	if got := stranger.signIn(form, userEmail, userPassword); got.status != http.StatusTooManyRequests {
		t.Errorf("the owner's sign-in opened the lock to the stranger: %d", got.status)
	}
	// The cookie is no way around the limit: it has guesses of its own, and for that user alone.
	thief := p.browser()
	thief.plant("known", owner.cookie("known"))
	form = thief.get(p.authorizeURL())
	for i := range 10 {
		if got := thief.signIn(form, userEmail, "wrong"); got.status != http.StatusUnprocessableEntity {
			t.Errorf("guess %d: %d", i+1, got.status)
		}
	}
	if got := thief.signIn(form, userEmail, userPassword); got.status != http.StatusTooManyRequests {
		t.Errorf("more guesses with the cookie: %d", got.status)
	}
	for range 12 {
		stranger.signIn(stranger.get(p.authorizeURL()), "bob@app.test", "wrong")
	}
	if got := thief.signIn(form, "bob@app.test", userPassword); got.status != http.StatusTooManyRequests {
		t.Errorf("another user's lock: %d", got.status)
	}
}

// 30 names from one address are stopped, each of them guessed at once.
func TestManyNamesFromOneAddressAreStopped(t *testing.T) {
	p, checked := newGuarded(t)
	owner, _ := p.signedIn(userEmail)
	p.clock.forward(time.Second)
	ownerForm := owner.get(p.authorizeURL("prompt", "login"))
	before := checked.Load()
	b := p.browser()
	form := b.get(p.authorizeURL())
	var stopped atomic.Int64
	together(30, func(i int) {
		if got := b.signIn(form, fmt.Sprintf("name %d", i), "Winter2026!"); got.status != http.StatusUnprocessableEntity {
			stopped.Add(1)
			if got.header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After with %d", got.status)
			}
		}
	})
	if n := checked.Load() - before; n > 20 || stopped.Load() < 10 {
		t.Errorf("%d passwords checked, %d stopped", n, stopped.Load())
	}
	if got := b.signIn(form, userEmail, userPassword); got.status != http.StatusTooManyRequests {
		t.Errorf("one more name: %d", got.status)
	}
	// The address may be an office's: who has signed in before is not stopped, and nobody is once the window is over.
	if got := owner.signIn(ownerForm, userEmail, userPassword); got.status != http.StatusSeeOther {
		t.Errorf("who has signed in before: %d", got.status)
	}
	p.clock.forward(15 * time.Minute)
	if got := b.signIn(form, userEmail, userPassword); got.status != http.StatusSeeOther {
		t.Errorf("after the window: %d", got.status)
	}
}

// An account of one's own is of no use for trying those of others.
func TestSigningInDoesNotForgiveTheAddress(t *testing.T) {
	p, _ := newGuarded(t)
	b := p.browser()
	form, locked := b.get(p.authorizeURL()), 0
	for i := range 40 {
		if got := b.signIn(form, fmt.Sprintf("name %d", i), "x"); got.status == http.StatusTooManyRequests {
			locked++
		}
		if got := b.signIn(form, userEmail, userPassword); got.status != http.StatusSeeOther {
			t.Fatalf("the right password after %d names: %d", i+1, got.status)
		}
	}
	if locked < 19 {
		t.Errorf("%d of 40 names were stopped", locked)
	}
}

// X-Forwarded-For is read from trusted proxies alone, from its end.
func TestForwardedAddresses(t *testing.T) {
	tries := func(p *idp, address func(i int) string) (stopped int) {
		b := p.browser()
		form := b.get(p.authorizeURL())
		for i := range 30 {
			if got := b.from(address(i), form, fmt.Sprintf("name %d", i), "x"); got.status == http.StatusTooManyRequests {
				stopped++
			}
		}
		return stopped
	}
	other := func(i int) string { return fmt.Sprintf("198.51.100.%d", i) }
	loopback := trusting("127.0.0.0/8", "::1/128", "10.0.0.0/8")
	for _, c := range []struct {
		rule    string
		config  func(*server.Config)
		address func(i int) string
		stopped int
	}{
		{"no proxy is trusted", trusting(), other, 10},
		{"another proxy is trusted", trusting("10.0.0.0/8"), other, 10},
		{"users of a trusted proxy", loopback, other, 0},
		{"users of two trusted proxies", loopback, func(i int) string { return other(i) + ", 10.1.2.3" }, 0},
		{"one user, with a port", loopback, func(i int) string { return fmt.Sprintf("198.51.100.7:%d", 1000+i) }, 10},
		{"what a user invents stands before", loopback, func(i int) string { return other(i) + ", 203.0.113.9" }, 10},
		{"what a user invents as a proxy's", loopback, func(i int) string { return other(i) + ", 203.0.113.9, 10.1.2.3" },
			10},
		{"garbage", loopback, func(i int) string { return other(i) + ", x" }, 10},
		{"addresses of one IPv6 network", loopback, func(i int) string { return fmt.Sprintf("2001:db8:1:2::%x", i+1) }, 10},
		{"IPv6 networks", loopback, func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i+1) }, 0},
		{"IPv4 written as IPv6", loopback, func(int) string { return "::ffff:198.51.100.7" }, 10},
	} {
		p := newIDP(t, c.config)
		p.clock.stop()
		if got := tries(p, c.address); got != c.stopped {
			t.Errorf("%s: %d of 30 were stopped, want %d", c.rule, got, c.stopped)
		}
	}
}

// Names that nobody has are guessed at without a single request to storage, and leave nothing there.
func TestNamesThatNobodyHasAreNotStored(t *testing.T) {
	p := newIDP(t, trusting("127.0.0.0/8", "::1/128"))
	p.clock.stop()
	b := p.browser()
	form := b.get(p.authorizeURL())
	asked := p.etcd.Count(func() {
		for i := range 300 {
			b.from(fmt.Sprintf("198.51.%d.%d", i/200, i%200), form, fmt.Sprintf("name %d", i), "x")
		}
	})
	if asked != (storagetest.Counts{}) {
		t.Errorf("300 guesses asked of storage: %+v", asked)
	}
	if strings.Contains(p.etcd.Dump(), "limits/") {
		t.Error("a guess was stored")
	}
}

// occupied is a connector whose checks wait until they are let go.
type occupied struct {
	connector.Password
	begun chan string
	let   chan struct{}
}

func (o occupied) Login(ctx context.Context, login, password string) (connector.Identity, bool, error) {
	o.begun <- login
	<-o.let
	return o.Password.Login(ctx, login, password)
}

// Many sign-ins at once: few are checked at a time, some wait, and the others are told at once. One address does not
// keep others out.
func TestTheQueueOfSignInsIsBoundedAndFair(t *testing.T) {
	o := occupied{begun: make(chan string, 1000), let: make(chan struct{})}
	p := newIDP(t, trusting("127.0.0.0/8", "::1/128"), func(c *server.Config) {
		o.Password = c.Connectors[0].Password
		c.Connectors = local(o)
	})
	b := p.browser()
	form := b.get(p.authorizeURL())
	type answer struct {
		from string
		got  page
	}
	answers := make(chan answer, 1000)
	var all sync.WaitGroup
	ask := func(from, login, password string) {
		all.Go(func() { answers <- answer{from, b.from(from, form, login, password)} })
	}
	const flood = 500
	for i := range flood {
		ask("198.51.100.7", "bob@app.test", "wrong "+strconv.Itoa(i%5))
	}
	busy := 0
	for busy < flood/4 { // nobody has been let go: whoever is answered was told at once
		a := <-answers
		if a.got.status == http.StatusServiceUnavailable {
			busy++
			if a.got.header.Get("Retry-After") == "" || !strings.Contains(a.got.body, "Many people are signing in") ||
				a.got.asks() != "password" {
				t.Errorf("%v %s", a.got.header, shown(a.got.body))
			}
		} else {
			t.Fatalf("answered without a check: %d", a.got.status)
		}
	}
	ask("203.0.113.9", userEmail, userPassword)
	close(o.let)
	all.Wait()
	close(answers)
	in := 0
	for a := range answers {
		switch {
		case a.from != "198.51.100.7":
			if a.got.status != http.StatusSeeOther {
				t.Errorf("another address: %d", a.got.status)
			}
			in++
		case a.got.status == http.StatusServiceUnavailable:
			busy++
		}
	}
	if in != 1 || busy < flood/4 || busy == flood {
		t.Errorf("%d from the other address, %d of %d told to come back", in, busy, flood)
	}
}

// What people and strangers do is in the log and in the audit log, with address and client; what they typed is not.
func TestSignInsAreInTheLogAndInTheAuditLog(t *testing.T) {
	p := newIDP(t, trusting("127.0.0.0/8", "::1/128"))
	p.clock.stop()
	b := p.browser()
	form := b.get(p.authorizeURL())
	b.from("198.51.100.7", form, userEmail, "pa55word-of-another")
	b.from("198.51.100.7", form, "my-own-pa55word", "pa55word-once-more")
	for range 11 {
		b.from("198.51.100.8", form, "bob@app.test", "pa55word-guess")
	}
	page := b.follow(b.from("198.51.100.7", form, userEmail, userPassword))
	b.decide(page, "allow")
	b.decide(b.get(p.authorizeURL("prompt", "consent")), "deny")
	p.handler.(*server.Server).WriteJournal(t.Context())
	entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range entries {
		if e.Action != storage.AuditApply {
			told = append(told, strings.Join([]string{e.Actor, e.Action, e.Outcome, e.Reason, strings.ReplaceAll(e.Client,
				p.client.ID, "CLIENT"), e.App, e.Address}, " "))
		}
	}
	all := strings.Join(told, "\n")
	for _, want := range []string{
		"user:user-ann sign-in refused wrong password CLIENT my-app 198.51.100.7",
		"user:user-bob sign-in refused wrong password CLIENT my-app 198.51.100.8",
		"user:user-bob sign-in-locked refused too many guesses at this name CLIENT my-app 198.51.100.8",
		"stranger sign-in refused sign-ins with unknown names",
		"user:user-ann sign-in done  CLIENT my-app 198.51.100.7",
		"user:user-ann consent-given done  CLIENT my-app 127.0.0.1",
		"user:user-ann consent-denied done  CLIENT my-app 127.0.0.1",
	} {
		if !slices.ContainsFunc(told, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("the audit log lacks %q:\n%s", want, all)
		}
	}
	log := p.log.String()
	for _, want := range []string{"msg=sign-in ", "msg=sign-in-locked", "msg=consent-given", "msg=consent-denied",
		"address=198.51.100.7", `reason="no user has this name"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	for _, typed := range []string{"pa55word", userPassword} {
		if strings.Contains(log, typed) || strings.Contains(p.etcd.Dump(), typed) {
			t.Errorf("%q was kept", typed)
		}
	}
}

// A stranger can flood neither the log nor the audit log, and causes no line that wakes an operator.
func TestStrangersCannotFloodTheLogs(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	b := p.browser()
	b.get(p.issuer + "/" + strings.Repeat("long/", 4000))
	form := b.get(p.authorizeURL())
	for i := range 1500 {
		b.get(p.authorizeURL("redirect_uri", "https://evil.test/"+strconv.Itoa(i)))
		b.signIn(form, userEmail, "wrong")
	}
	p.handler.(*server.Server).WriteJournal(t.Context())
	log := p.log.String()
	if n := strings.Count(log, "msg=\"request refused\""); n == 0 || n > 300 {
		t.Errorf("%d lines about refused requests", n)
	}
	for line := range strings.Lines(log) {
		if len(line) > 4096 {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
	}
	if n := strings.Count(log, "msg=sign-in"); n == 0 || n > 40 {
		t.Errorf("%d lines about sign-ins", n)
	}
	if strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
		t.Error("a stranger's request was logged as an ERROR, or as a WARN")
	}
	if !strings.Contains(log, "further refused requests were left out of the log") {
		t.Error("what was left out is not told")
	}
	entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{})
	if err != nil || len(entries) > 50 {
		t.Errorf("%d entries in the audit log, %v", len(entries), err)
	}
}

// Nor can somebody who has a password, by signing in again and again.
func TestUsersCannotFloodTheLogs(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	for range 100 {
		b := p.browser()
		b.signIn(b.get(p.authorizeURL()), userEmail, userPassword)
	}
	p.handler.(*server.Server).WriteJournal(t.Context())
	entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{})
	if lines := strings.Count(p.log.String(), "msg=sign-in"); err != nil || lines > 60 || len(entries) > 65 ||
		len(entries) < 20 {
		t.Errorf("%d lines, %d entries in the audit log, %v", lines, len(entries), err)
	}
}

// A caller that does not wait for the answer is no fault of this server's.
func TestACallerThatGoesAwayIsNoError(t *testing.T) {
	p := newIDP(t)
	code := p.code("scope", "openid")
	ctx, leave := context.WithCancel(t.Context())
	p.etcd.Inject(func(_, sent bool) error {
		if !sent {
			leave()
			return context.Canceled
		}
		return nil
	})
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback},
		"client_id": {p.client.ID}, "client_secret": {p.secret}}
	req := p.request(http.MethodPost, p.issuer+"/oauth/token", form.Encode(), "Content-Type", formType).WithContext(ctx)
	_, _ = direct{p}.RoundTrip(req)
	p.etcd.Inject(nil)
	if log := p.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
		t.Errorf("%s", log)
	}
}
