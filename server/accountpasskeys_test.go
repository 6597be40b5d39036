package server_test

import (
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/factor/factortest"
	"github.com/warifu/warifu/storage"
)

// make makes a passkey on the page of somebody's passkeys.
func (b *browser) make(got page, device *factortest.Authenticator) page {
	b.p.t.Helper()
	answer, err := device.Create(got.asked(b.p.t))
	if err != nil {
		b.p.t.Fatal(err)
	}
	action, form := b.form(got, "answer")
	form.Set("answer", answer)
	return b.post(action, form)
}

// People make, name and remove their passkeys themselves.
func TestPasskeysOfAnAccount(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	b := p.browser()
	got := b.account("/account/passkeys", userEmail)
	if got.status != http.StatusOK || !strings.Contains(got.body, "Add a passkey") ||
		strings.Contains(got.body, "Your passkeys") {
		t.Fatalf("%d %s", got.status, shown(got.body))
	}
	var o struct {
		RP, User struct{ ID, Name, DisplayName string }
	}
	if err := json.Unmarshal([]byte(got.asked(t)), &o); err != nil || o.RP.ID != "id.app.test" ||
		o.User.Name != userEmail || o.User.DisplayName != "Ann" {
		t.Errorf("asked for %+v, %v", o, err)
	}
	if a, err := p.store.Account(t.Context(), "user-ann"); err != nil || a.Factors.Revision != 0 {
		t.Errorf("something is stored before there is a passkey: %+v, %v", a.Factors, err)
	}
	laptop, phone := &factortest.Authenticator{Origin: p.issuer}, &factortest.Authenticator{Origin: p.issuer,
		NoCounter: true}
	copy(laptop.AAGUID[:], "\xd5\x48\x82\x6e\x79\xb4\xdb\x40\xa3\xd8\x11\x11\x6f\x7e\x83\x49")
	first := got
	got = b.follow(b.make(got, laptop))
	if got.status != http.StatusOK || !strings.Contains(got.body, "Your passkey is set up") ||
		!strings.Contains(got.body, "Bitwarden") {
		t.Fatalf("%d %s", got.status, shown(got.body))
	}
	if s := p.sessions("user-ann"); len(s) != 1 || !slices.Equal(s[0].AMR, []string{"pwd", "pop", "user", "mfa"}) {
		t.Errorf("sessions: %+v", s)
	}
	if _, err := laptop.Create(got.asked(t)); err == nil {
		t.Error("the device makes a second passkey")
	}
	// The page from before knows of no user handle, and its device would sign in nobody.
	if got := b.make(first, &factortest.Authenticator{Origin: p.issuer}); got.status != http.StatusUnprocessableEntity ||
		len(p.passkeys("user-ann")) != 1 {
		t.Errorf("from a page with another user handle: %d %s", got.status, shown(got.body))
	}
	answer, err := phone.Create(got.asked(t))
	if err != nil {
		t.Fatal(err)
	}
	action, form := b.form(got, "answer")
	form.Set("answer", answer)
	if got := b.post(action, form); got.status != http.StatusSeeOther {
		t.Fatalf("a second passkey: %d %s", got.status, shown(got.body))
	}
	if got := b.post(action, form); got.status != http.StatusUnprocessableEntity || len(p.passkeys("user-ann")) != 2 {
		t.Errorf("the same answer again: %d %s", got.status, shown(got.body))
	}
	for _, device := range []*factortest.Authenticator{laptop, phone} {
		other := p.browser()
		if got := other.touch(other.get(p.authorizeURL()), device); got.status != http.StatusSeeOther {
			t.Errorf("it does not sign in: %d %s", got.status, shown(got.body))
		}
	}
	got = b.get(p.issuer + "/account/passkeys")
	if got := b.get(p.issuer + "/account"); !strings.Contains(got.body, "2 passkeys") {
		t.Errorf("the account's page: %s", shown(got.body))
	}

	t.Run("named", func(t *testing.T) {
		p := p.at(t)
		action, form := b.form(got, "name")
		for name, want := range map[string]string{
			"  My \t phone\n ": "My phone", "<b>x</b>": "<b>x</b>", "\u202egnp.exe\u0000": "gnp.exe",
			strings.Repeat("あ", 5_000): strings.Repeat("あ", 64),
			"\xff\xfe":                 "", "": "",
		} {
			form.Set("name", name)
			form.Set("decision", "rename")
			got := b.follow(b.post(action, form))
			if has := p.passkeys("user-ann")[0].Name; has != want {
				t.Errorf("named %.20q, it is called %.20q", name, has)
			}
			if strings.Contains(got.body, "<b>x</b>") || want != "" && !strings.Contains(got.body, html.EscapeString(want)) {
				t.Errorf("named %.20q: %s", name, shown(got.body))
			}
		}
	})
	t.Run("removed", func(t *testing.T) {
		p := p.at(t)
		action, form := b.form(got, "name")
		form.Set("decision", "remove")
		after := b.follow(b.post(action, form))
		if keys := p.passkeys("user-ann"); len(keys) != 1 || !strings.Contains(after.body, "The passkey is removed") {
			t.Errorf("%d passkeys: %s", len(keys), shown(after.body))
		}
		if ids := []string{base64.RawURLEncoding.EncodeToString(laptop.Keys()[0].ID),
			base64.RawURLEncoding.EncodeToString(phone.Keys()[0].ID)}; strings.Contains(acceptedOf.FindString(after.body),
			ids[0]) || !strings.Contains(acceptedOf.FindString(after.body), ids[1]) {
			t.Errorf("the browser is told that these count: %s", acceptedOf.FindString(after.body))
		}
		if got := b.post(action, form); got.status != http.StatusSeeOther || len(p.passkeys("user-ann")) != 1 {
			t.Errorf("again: %d", got.status)
		}
		other := p.browser()
		if got := other.touch(other.get(p.authorizeURL()), laptop); got.status != http.StatusUnprocessableEntity {
			t.Errorf("it still signs in: %d", got.status)
		}
	})
	t.Run("told", func(t *testing.T) {
		entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{})
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, e := range entries {
			if e.Action == storage.AuditFactorAdded || e.Action == storage.AuditFactorRemoved {
				told = append(told, e.Action+" "+e.Detail)
			}
		}
		slices.Sort(told) // the clock stands
		if !slices.Equal(told, []string{"factor-added passkey", "factor-added passkey of Bitwarden",
			"factor-removed passkey of Bitwarden"}) {
			t.Errorf("audit: %q", told)
		}
	})
	t.Run("not in another session", func(t *testing.T) {
		p := p.at(t)
		got := b.get(p.issuer + "/account/passkeys")
		bob := p.browser()
		bobs := bob.account("/account/passkeys", "bob@app.test")
		action, form := bob.form(bobs, "answer")
		_, anns := b.form(got, "answer")
		form.Set("challenge", anns.Get("challenge"))
		device := &factortest.Authenticator{Origin: p.issuer}
		answer, err := device.Create(got.asked(t))
		if err != nil {
			t.Fatal(err)
		}
		form.Set("answer", answer)
		if got := bob.post(action, form); got.status != http.StatusUnprocessableEntity || len(p.passkeys("user-bob")) != 0 {
			t.Errorf("with the question of somebody else: %d", got.status)
		}
		form.Set("form", anns.Get("form"))
		if got := bob.post(action, form); got.status != http.StatusForbidden {
			t.Errorf("with the form of somebody else: %d", got.status)
		}
	})
	t.Run("after a recent sign-in", func(t *testing.T) {
		p := p.at(t)
		open := b.get(p.issuer + "/account/passkeys")
		p.clock.forward(11 * time.Minute)
		if got := b.follow(b.get(p.issuer + "/account/passkeys")); got.asks() != "password" {
			t.Errorf("%d %s", got.status, shown(got.body))
		}
		if got := b.follow(b.make(open, &factortest.Authenticator{Origin: p.issuer})); got.asks() != "password" ||
			len(p.passkeys("user-ann")) != 1 {
			t.Errorf("the form of before: %d %s", got.status, shown(got.body))
		}
	})
	t.Run("as many as there may be", func(t *testing.T) {
		p := p.at(t)
		bob := p.browser()
		open := bob.account("/account/passkeys", "bob@app.test")
		a, err := p.store.Account(t.Context(), "user-bob")
		if err != nil {
			t.Fatal(err)
		}
		next := a.Factors.Clone()
		for i := range storage.MaxPasskeys {
			next.Passkeys = append(next.Passkeys, storage.Passkey{ID: []byte{byte(i)}})
		}
		if err := json.Unmarshal([]byte(open.asked(t)), &o); err != nil {
			t.Fatal(err)
		}
		if next.Handle, err = base64.RawURLEncoding.DecodeString(o.User.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.store.ChangeFactors(t.Context(), a, storage.FactorChange{Next: next}); err != nil {
			t.Fatal(err)
		}
		// With a passkey, a change takes a sign-in with one. This session was there before.
		got := bob.make(open, &factortest.Authenticator{Origin: p.issuer})
		if n := len(p.passkeys("user-bob")); n != storage.MaxPasskeys || got.status == http.StatusOK {
			t.Errorf("%d passkeys: %d %s", n, got.status, shown(got.body))
		}
	})
}

// 64 answers at two replicas make one passkey of each challenge.
func TestPasskeyIsEnrolledOnce(t *testing.T) {
	t.Parallel()
	p := newIDP(t, atHost)
	p.clock.stop()
	b := p.browser()
	got := b.account("/account/passkeys", userEmail)
	answer, err := (&factortest.Authenticator{Origin: p.issuer}).Create(got.asked(t))
	if err != nil {
		t.Fatal(err)
	}
	action, form := b.form(got, "answer")
	form.Set("answer", answer)
	replicas := []*idp{p, p.replica(p.etcd.Client)}
	together(64, func(i int) { replicas[i%2].postAs(b, action, form) })
	if n := len(p.passkeys("user-ann")); n != 1 {
		t.Errorf("%d passkeys", n)
	}
}

// postAs posts a form at p with the cookies of a browser, and gives the status.
func (p *idp) postAs(b *browser, action string, form url.Values) int {
	address, err := url.Parse(action)
	if err != nil {
		p.t.Error(err)
		return 0
	}
	req := p.request(http.MethodPost, action, form.Encode(), "Content-Type", formType, "Accept", "text/html")
	for _, c := range b.http.Jar.Cookies(address) {
		req.AddCookie(c)
	}
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		p.t.Error(err)
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
