package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// overtime is longer than a request may wait for its user.
const overtime = 61 * time.Minute

// Whoever comes back to a sign-in page after its time has not come for nothing: the same browser goes on.
func TestSignInPageOpenTooLong(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL("prompt", "login"))
	p.clock.forward(overtime)
	wrong := b.signIn(signIn, userEmail, "wrong horse")
	if wrong.status != http.StatusUnprocessableEntity || wrong.asks() != "password" {
		t.Errorf("a wrong password: %d\n%s", wrong.status, shown(wrong.body))
	}
	consent := b.follow(b.signIn(signIn, userEmail, userPassword))
	if consent.asks() != "decision" || strings.Contains(consent.body, "open for a long time") {
		t.Fatalf("a right password: %d\n%s", consent.status, shown(consent.body))
	}
	if issued := p.exchange(b.answered(b.decide(consent, "allow"), "a right password")); issued.status != http.StatusOK {
		t.Errorf("%d %s", issued.status, issued.raw)
	}
	b.answered(b.follow(b.signIn(wrong, userEmail, userPassword)), "a right one after a wrong one")
	// A reload, too, and the address is that of the new request.
	c := p.browser()
	_, form := c.form(c.get(p.authorizeURL()), "password")
	p.clock.forward(overtime)
	again := c.get(p.issuer + "/oauth/continue?request=" + url.QueryEscape(form.Get("request")))
	if again.location == nil || strings.Contains(again.location.String(), url.QueryEscape(form.Get("request"))) {
		t.Fatalf("a reload: %d to %v", again.status, again.location)
	}
	if got := c.follow(again); got.asks() != "password" {
		t.Errorf("a reload: %d\n%s", got.status, shown(got.body))
	}
	// That it was late opens nothing to other browsers and other sites.
	action, form := b.form(signIn, "password")
	form.Set("login", userEmail)
	form.Set("password", userPassword)
	p.browser().post(action, form).wants(t, "another browser", http.StatusBadRequest, "invalid_request")
	form.Set("form", "forged")
	b.post(action, form).wants(t, "a forged form", http.StatusForbidden, "invalid_request")
}

// A consent page that was open for too long asks again, and says why; a no is a no whenever it comes.
func TestConsentPageOpenTooLong(t *testing.T) {
	p := newIDP(t)
	b, consent := p.signedIn(userEmail)
	p.clock.forward(overtime)
	again := b.decide(consent, "allow")
	if again.asks() != "decision" || !strings.Contains(again.body, "open for a long time") {
		t.Fatalf("%d to %v\n%s", again.status, again.location, shown(again.body))
	}
	b.answered(b.decide(again, "allow"), "the second time")
	b, consent = p.signedIn("bob@app.test")
	p.clock.forward(overtime)
	p.redirected(b.decide(consent, "deny"), "denied late", "access_denied")
	if got := b.follow(b.decide(consent, "switch")); got.asks() != "password" {
		t.Errorf("switched late: %d\n%s", got.status, shown(got.body))
	}
}

// What is a day old does not go on: the app gets its error, or the user the way back to it. Whoever has signed in is
// signed in.
func TestPageOpenForADay(t *testing.T) {
	p := newIDP(t, openToAll)
	open := p.itself(p.registration(`{"redirect_uris":["` + callback + `"],"client_name":"Itself"}`))
	b, c := p.browser(), p.browser()
	signIn, unvouched := b.get(p.authorizeURL()), c.get(open.authorizeURL("scope", "openid"))
	p.clock.forward(24*time.Hour + time.Second)
	_, form := b.form(signIn, "password")
	expired := b.get(p.issuer + "/oauth/continue?request=" + url.QueryEscape(form.Get("request")))
	expired.wants(t, "opened again", http.StatusBadRequest, "temporarily_unavailable")
	b.leadsBack(expired, "opened again", "This page has expired", "temporarily_unavailable")
	p.redirected(b.signIn(signIn, userEmail, userPassword), "a right password", "temporarily_unavailable")
	if got := b.get(p.authorizeURL()); got.asks() != "decision" {
		t.Errorf("begun again: %d\n%s", got.status, shown(got.body))
	}
	// Nobody answers for this one, so its user decides whether to go back.
	page := c.signIn(unvouched, userEmail, userPassword)
	if back := c.link(page, "unvouched"); back.Query().Get("error") != "temporarily_unavailable" ||
		!strings.Contains(page.body, "Nobody here has checked") || !strings.Contains(page.body, "<bdi>Itself</bdi>") {
		t.Errorf("unvouched: %s\n%s", back, shown(page.body))
	}
}

// leadsBack checks an error page that says which app it is about, and leads back there with the error.
func (b *browser) leadsBack(got page, rule, title, code string) {
	b.p.t.Helper()
	back := b.link(got, rule)
	if !strings.Contains(got.body, title) || !strings.Contains(got.body, "<bdi>My App</bdi>") ||
		!strings.HasPrefix(back.String(), callback+"?") || back.Query().Get("error") != code ||
		strings.Contains(got.body, "Nobody here has checked") {
		b.p.t.Errorf("%s: back to %s\n%s", rule, back, shown(got.body))
	}
}

// A pushed request is answered once, for which its time is remembered: so it does not begin anew, but its app is told.
// One that was answered is not called late.
func TestPushedRequestOpenTooLong(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	signIn := b.get(p.pushedURL(p.push()))
	p.clock.forward(overtime)
	p.redirected(b.signIn(signIn, userEmail, userPassword), "a right password", "temporarily_unavailable")
	once := p.pushedURL(p.push())
	consent := b.get(once)
	b.answered(b.decide(consent, "allow"), "in time")
	b.leadsBack(b.get(once), "a second time", "This was finished before", "invalid_request_uri")
	unused := p.pushedURL(p.push())
	p.clock.forward(2 * time.Minute)
	b.leadsBack(b.get(unused), "came too late", "This page has expired", "invalid_request_uri")
}

// Whoever presses "sign out" is signed out, however long the question was open.
func TestLogoutPageOpenTooLong(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	b.code("scope", "openid")
	late := b.get(p.issuer + "/oauth/logout")
	p.clock.forward(overtime)
	b.decide(late, "signout").signedOut(t, "late")
	if b.get(p.authorizeURL()).asks() != "password" {
		t.Error("still signed in")
	}
}
