package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/factor/factortest"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// passkeyHost is an issuer at which there are passkeys.
const passkeyHost = "https://id.app.test"

func atHost(c *server.Config) { c.Issuer = passkeyHost }

// holding gives a user a passkey on a device.
func (p *idp) holding(userID string) *factortest.Authenticator {
	p.t.Helper()
	device := &factortest.Authenticator{Origin: p.issuer}
	p.hold(userID, device)
	return device
}

func (p *idp) hold(userID string, device *factortest.Authenticator) {
	p.t.Helper()
	issuer, err := url.Parse(p.issuer)
	if err != nil {
		p.t.Fatal(err)
	}
	a, err := p.store.Account(p.t.Context(), userID)
	if err != nil {
		p.t.Fatal(err)
	}
	next := a.Factors.Clone()
	if next.Handle == nil {
		next.Handle = storage.NewHandle()
	}
	keys, challenge := factor.NewPasskeys(issuer, "Example"), factor.NewChallenge()
	h := factor.Holder{Handle: next.Handle, Name: userID}
	options, err := keys.CreationOptions(challenge, h)
	if err != nil {
		p.t.Fatal(err)
	}
	answer, err := device.Create(options)
	if err != nil {
		p.t.Fatal(err)
	}
	made, err := keys.Create(challenge, h, answer, p.clock.now())
	if err != nil {
		p.t.Fatal(err)
	}
	next.Passkeys = append(next.Passkeys, made)
	if _, _, err := p.store.ChangeFactors(p.t.Context(), a, storage.FactorChange{Next: next}); err != nil {
		p.t.Fatal(err)
	}
}

// passkeys are those that a user has.
func (p *idp) passkeys(userID string) []storage.Passkey {
	p.t.Helper()
	a, err := p.store.Account(p.t.Context(), userID)
	if err != nil {
		p.t.Fatal(err)
	}
	return a.Factors.Passkeys
}

var askedOf = regexp.MustCompile(`data-ask="([^"]*)"`)

var acceptedOf = regexp.MustCompile(`data-accepted="[^"]*"`)

// asked is what a page has the browser ask for.
func (got page) asked(t testing.TB) string {
	t.Helper()
	found := askedOf.FindStringSubmatch(got.body)
	if found == nil {
		t.Fatalf("the page asks for no passkey: %d %s", got.status, shown(got.body))
	}
	return html.UnescapeString(found[1])
}

// answer is the form of a page with what a device answers.
func (b *browser) answer(got page, device *factortest.Authenticator) (action string, form url.Values) {
	b.p.t.Helper()
	answer, err := device.Get(got.asked(b.p.t))
	if err != nil {
		b.p.t.Fatal(err)
	}
	action, form = b.form(got, "answer")
	form.Set("answer", answer)
	return action, form
}

// touch uses a passkey on a page.
func (b *browser) touch(got page, device *factortest.Authenticator) page {
	b.p.t.Helper()
	return b.post(b.answer(got, device))
}

// A passkey alone signs somebody in, without a name and without a password, and what is told of it is true.
func TestPasskeySignsIn(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	device := p.holding("user-ann")
	b := p.browser()
	got := b.follow(b.touch(b.get(p.authorizeURL("scope", "openid")), device))
	if got.asks() != "decision" || !strings.Contains(got.body, userEmail) {
		t.Fatalf("%d %s", got.status, shown(got.body))
	}
	sessions := p.sessions("user-ann")
	if len(sessions) != 1 || !slices.Equal(sessions[0].AMR, []string{"pop", "user", "mfa"}) ||
		!sessions[0].AuthTime.Equal(p.clock.now()) || oauth.AssuranceOf("",
		sessions[0].AMR) != oauth.AssurancePhishingResistant {
		t.Errorf("sessions: %+v", sessions)
	}
	keys := p.passkeys("user-ann")
	if len(keys) != 1 || keys[0].Count != 2 || !keys[0].UsedAt.Equal(p.clock.now()) {
		t.Errorf("the passkey afterwards: %+v", keys)
	}
	entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{})
	if err != nil || !slices.ContainsFunc(entries, func(e storage.AuditEntry) bool {
		return e.Action == storage.AuditSignIn && e.Actor == storage.UserActor("user-ann") && e.Detail == "passkey"
	}) {
		t.Errorf("audit: %+v, %v", entries, err)
	}
	code := b.answered(b.decide(got, "allow"), "passkey")
	if amr := fmt.Sprint(claimsOf(t, p.exchange(code).text("id_token"))["amr"]); amr != "[pop user mfa]" {
		t.Errorf("the ID token says amr %s", amr)
	}
}

// What proves nothing signs nobody in, and nothing is written.
func TestPasskeyThatSignsNobodyIn(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	for name, c := range map[string]struct {
		change func(*factortest.Authenticator)
		says   string
		log    string
	}{
		"nobody verified": {func(d *factortest.Authenticator) { d.NoVerification = true }, "That passkey did not work",
			"user verification"},
		"bogus signature": {func(d *factortest.Authenticator) { d.Forges = true }, "That passkey did not work", "signature"},
		"other origin": {func(d *factortest.Authenticator) { d.Origin = "https://id.app.test.evil.test" },
			"That passkey did not work", "origin"},
		"other RP ID": {func(d *factortest.Authenticator) { d.Elsewhere = "app.test" }, "That passkey did not work",
			"validating the authenticator response"},
		"cloned counter": {func(d *factortest.Authenticator) { d.Count = 0 }, "There may be a copy of this passkey",
			"somebody may have a copy"},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.at(t)
			device := p.holding("user-ann")
			before := p.passkeys("user-ann")
			c.change(device)
			b := p.browser()
			got := b.touch(b.get(p.authorizeURL()), device)
			if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, c.says) || b.cookie("session") != "" {
				t.Errorf("%d %s", got.status, shown(got.body))
			}
			if after := p.passkeys("user-ann"); after[len(after)-1].Count != before[len(before)-1].Count {
				t.Error("the counter has moved on")
			}
			if !strings.Contains(p.log.String(), c.log) {
				t.Errorf("the log does not say %q", c.log)
			}
			// The page asks anew, and the owner's own device is as good as ever.
			if c.change(&factortest.Authenticator{}); name == "nobody verified" {
				device.NoVerification = false
				if got := b.touch(got, device); got.status != http.StatusSeeOther {
					t.Errorf("again: %d %s", got.status, shown(got.body))
				}
			}
		})
	}
	t.Run("replayed challenge", func(t *testing.T) {
		p := p.at(t)
		device, b := p.holding("user-bob"), p.browser()
		action, form := b.answer(b.get(p.authorizeURL()), device)
		if got := b.post(action, form); got.status != http.StatusSeeOther {
			t.Fatalf("%d %s", got.status, shown(got.body))
		}
		held := len(p.sessions("user-bob"))
		got := b.post(action, form)
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, "Please try again") {
			t.Errorf("the same answer again: %d %s", got.status, shown(got.body))
		}
		if n := len(p.sessions("user-bob")); n != held {
			t.Errorf("%d sessions, were %d", n, held)
		}
	})
	t.Run("replayed challenge of a device without a counter", func(t *testing.T) {
		p := p.at(t)
		device, b := &factortest.Authenticator{Origin: p.issuer, NoCounter: true}, p.browser()
		p.hold("user-bob", device)
		action, form := b.answer(b.get(p.authorizeURL()), device)
		if got := b.post(action, form); got.status != http.StatusSeeOther {
			t.Fatalf("%d %s", got.status, shown(got.body))
		}
		got := b.post(action, form)
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, "Please try again") {
			t.Errorf("the same answer again: %d %s", got.status, shown(got.body))
		}
	})
	t.Run("challenge of another browser", func(t *testing.T) {
		p := p.at(t)
		device, victim, thief := p.holding("user-bob"), p.browser(), p.browser()
		_, stolen := victim.answer(victim.get(p.authorizeURL()), device)
		action, form := thief.form(thief.get(p.authorizeURL()), "answer")
		form.Set("answer", stolen.Get("answer"))
		if got := thief.post(action, form); got.status != http.StatusUnprocessableEntity {
			t.Errorf("to their own question: %d", got.status)
		}
		form.Set("challenge", stolen.Get("challenge"))
		if got := thief.post(action, form); got.status != http.StatusUnprocessableEntity || thief.cookie("session") != "" {
			t.Errorf("with the victim's question: %d", got.status)
		}
	})
	t.Run("removed key", func(t *testing.T) {
		p := p.at(t)
		device, b := p.holding("user-bob"), p.browser()
		a, err := p.store.Account(t.Context(), "user-bob")
		if err != nil {
			t.Fatal(err)
		}
		next := a.Factors.Clone()
		next.Passkeys = nil
		if _, _, err := p.store.ChangeFactors(t.Context(), a, storage.FactorChange{Next: next}); err != nil {
			t.Fatal(err)
		}
		if got := b.touch(b.get(p.authorizeURL()), device); got.status != http.StatusUnprocessableEntity ||
			b.cookie("session") != "" {
			t.Errorf("%d %s", got.status, shown(got.body))
		}
	})
	t.Run("page that was open for too long", func(t *testing.T) {
		p := p.at(t)
		device, b := p.holding("user-bob"), p.browser()
		open := b.get(p.authorizeURL())
		p.clock.forward(61 * time.Minute)
		got := b.touch(open, device)
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, "Please try again") {
			t.Errorf("%d %s", got.status, shown(got.body))
		}
		if got := b.touch(got, device); got.status != http.StatusSeeOther {
			t.Errorf("again: %d %s", got.status, shown(got.body))
		}
	})
	t.Run("disabled user", func(t *testing.T) {
		p := p.at(t)
		device, b := p.holding("user-bob"), p.browser()
		open := b.get(p.authorizeURL())
		if err := p.store.SyncUsers(t.Context(), "local", []storage.User{{ID: "user-ann", Email: userEmail}}); err != nil {
			t.Fatal(err)
		}
		if got := b.touch(open, device); got.status != http.StatusUnprocessableEntity || b.cookie("session") != "" {
			t.Errorf("%d %s", got.status, shown(got.body))
		}
	})
	t.Run("no answer", func(t *testing.T) {
		p := p.at(t)
		b := p.browser()
		action, form := b.form(b.get(p.authorizeURL()), "answer")
		for _, answer := range []string{"", "{}", "null", strings.Repeat("a", 60<<10),
			`{"id":"AA","rawId":"AA","type":"public-key","response":{}}`} {
			form.Set("answer", answer)
			if got := b.post(action, form); got.status != http.StatusUnprocessableEntity {
				t.Errorf("%.20q: %d", answer, got.status)
			}
		}
	})
}

// A sign-in with a passkey is one proposal: the session, the counter and the challenge that is used up.
func TestPasskeyAsksOneProposalOfEtcd(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	device := p.holding("user-ann")
	var n storagetest.Counts
	for range 2 { // the leases are there afterwards
		b := p.browser()
		action, form := b.answer(b.get(p.authorizeURL()), device)
		n = p.etcd.Count(func() {
			if got := b.post(action, form); got.status != http.StatusSeeOther {
				t.Fatalf("%d %s", got.status, shown(got.body))
			}
		})
	}
	if n.Proposals != 1 || n.Reads > 3 {
		t.Errorf("%+v", n)
	}
}

// One answer that arrives many times at two replicas signs in once.
func TestPasskeyAnswerCountsOnce(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	device, b := &factortest.Authenticator{Origin: p.issuer, NoCounter: true}, p.browser()
	p.hold("user-ann", device)
	action, form := b.answer(b.get(p.authorizeURL()), device)
	replicas := []*idp{p, p.replica(p.etcd.Client)}
	var won atomic.Int64
	together(32, func(i int) {
		switch status := replicas[i%2].postAs(b, action, form); status {
		case http.StatusSeeOther:
			won.Add(1)
		case http.StatusUnprocessableEntity:
		default:
			t.Errorf("status %d", status)
		}
	})
	if n := won.Load(); n != 1 || len(p.sessions("user-ann")) != 1 {
		t.Errorf("%d sign-ins, %d sessions", n, len(p.sessions("user-ann")))
	}
}

// On the factor page a passkey does as well as a code.
func TestPasskeyIsASecondFactor(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	p.enrol("user-ann")
	device := p.holding("user-ann")
	b, asked := p.halfSignedIn("scope", "openid")
	var options struct {
		Allow []struct{ ID string } `json:"allowCredentials"`
	}
	if err := json.Unmarshal([]byte(asked.asked(t)), &options); err != nil || len(options.Allow) != 1 {
		t.Errorf("asked for %v, %v", options, err)
	}
	other := p.holding("user-bob")
	device.Forges = true
	got := b.touch(asked, device)
	device.Forges = false
	if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, "That passkey did not work") ||
		!strings.Contains(got.body, `name="code"`) {
		t.Errorf("a bogus signature: %d %s", got.status, shown(got.body))
	}
	theirs, err := other.Get(strings.Replace(asked.asked(t), "allowCredentials", "x", 1))
	if err != nil {
		t.Fatal(err)
	}
	action, form := b.form(asked, "answer")
	form.Set("answer", theirs)
	if got := b.post(action, form); got.status != http.StatusUnprocessableEntity || b.cookie("session") != "" {
		t.Errorf("somebody else's passkey: %d", got.status)
	}
	if got := b.follow(b.touch(got, device)); got.asks() != "decision" {
		t.Fatalf("%d %s", got.status, shown(got.body))
	}
	if s := p.sessions("user-ann"); len(s) != 1 || !slices.Equal(s[0].AMR, []string{"pwd", "pop", "user", "mfa"}) {
		t.Errorf("sessions: %+v", s)
	}
}

// Where the issuer's host is an address there are no passkeys, and nothing speaks of them.
func TestNoPasskeysWhereTheIssuerIsAnAddress(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	b := p.browser()
	got := b.get(p.authorizeURL())
	if strings.Contains(got.body, "asskey") || strings.Contains(got.body, "webauthn") {
		t.Errorf("the sign-in page speaks of passkeys: %s", shown(got.body))
	}
	for _, path := range []string{"/.well-known/passkey-endpoints", "/account/passkeys"} {
		if got := b.get(p.issuer + path); got.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	p = newIDP(t, atHost)
	got = p.browser().get(p.issuer + "/.well-known/passkey-endpoints")
	if want :=
		`{"enroll":"https://id.app.test/account/passkeys","manage":"https://id.app.test/account/passkeys"}`; strings.TrimSpace(got.body) != want {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// A fault while a passkey is checked is no verdict on it.
func TestPasskeyAndAFault(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	device, b := p.holding("user-ann"), p.browser()
	action, form := b.answer(b.get(p.authorizeURL()), device)
	for name, fault := range map[string]storagetest.Fault{
		"reads": func(bool, bool) error { return errors.New(faultText) },
		"writes": func(write, sent bool) error {
			if write && !sent {
				return errors.New(faultText)
			}
			return nil
		},
	} {
		p.etcd.Inject(fault)
		got := b.post(action, form)
		p.etcd.Inject(nil)
		if got.status != http.StatusServiceUnavailable || strings.Contains(got.body, "That passkey") {
			t.Errorf("%s: %d %s", name, got.status, shown(got.body))
		}
	}
	if got := b.post(action, form); got.status != http.StatusSeeOther {
		t.Errorf("the same answer afterwards: %d %s", got.status, shown(got.body))
	}
}

// A session that began with a password is raised by a passkey, where a request takes one: it goes on, and is asked for
// nothing else.
func TestPasskeyRaisesASession(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	device := p.holding("user-ann")
	b := p.browser()
	b.code("scope", "openid")
	before := p.sessions("user-ann")
	if len(before) != 1 || !slices.Equal(before[0].AMR, []string{"pwd"}) {
		t.Fatalf("sessions: %+v", before)
	}
	phr := []string{"scope", "openid", "claims", `{"id_token": {"acr": {"essential": true, "values": ["phr"]}}}`}
	asked := b.follow(b.get(p.authorizeURL(phr...)))
	if strings.Contains(asked.body, `name="password"`) || strings.Contains(asked.body, `name="code"`) {
		t.Fatalf("%d %s", asked.status, shown(asked.body))
	}
	p.clock.forward(time.Minute)
	got := b.follow(b.touch(asked, device))
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	claims := claimsOf(t, p.exchange(b.answered(got, "raised")).text("id_token"))
	if amr := fmt.Sprint(claims["amr"]); claims["acr"] != "phr" || amr != "[pwd pop user mfa]" ||
		claims["auth_time"] != float64(p.clock.now().Unix()) {
		t.Errorf("the ID token says %v", claims)
	}
	if after := p.sessions("user-ann"); len(after) != 1 || after[0].SID != before[0].SID {
		t.Errorf("sessions: %+v, was %+v", after, before)
	}
}

// Whether somebody may still come is up to their connector: a passkey alone does not sign them in.
func TestPasskeyAloneIsNotForUsersOfConnectors(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	if _, err := p.store.ArriveUser(t.Context(), storage.Arrival{
		User:  storage.User{ID: "upstream-eve", Email: "eve@app.test", Connector: "github", UpstreamID: "eve"},
		Until: p.clock.now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	device, b := p.holding("upstream-eve"), p.browser()
	got := b.touch(b.get(p.authorizeURL()), device)
	if got.status != http.StatusUnprocessableEntity || b.cookie("session") != "" {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
	if !strings.Contains(p.log.String(), "a passkey alone does not sign in users of connector github") {
		t.Error("the log does not say why")
	}
}
