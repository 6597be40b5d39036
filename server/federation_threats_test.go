package server_test

import (
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// somebody is an upstream that believes every answer, so that what the server itself checks is all that there is.
func (u *upstream) somebody(id string) { u.always = &connector.Identity{UserID: id, Name: "Some Body"} }

// signedIn reports whether the browser has a session.
func (b *browser) signedIn() bool { return b.cookie("session") != "" }

// RFC 6749 section 10.12: whoever brings a browser to the callback with an answer that they got themselves signs nobody
// in, and neither does the answer that somebody else has got.
func TestAnAnswerIsOnlyForTheBrowserThatAsked(t *testing.T) {
	up := newUpstream(t, "up")
	up.somebody("mallory")
	p := federated(t, []*upstream{up})
	attacker := p.browser()
	answer := attacker.through(up, attacker.press(attacker.get(p.authorizeURL()), "up"), userEmail).location.String()
	for name, victim := range map[string]*browser{"a browser that is new": p.browser(),
		"one that waits itself": p.browser()} {
		if name == "one that waits itself" {
			victim.press(victim.get(p.authorizeURL()), "up")
		}
		victim.get(answer).wants(t, name, http.StatusBadRequest, "invalid_request")
		if victim.signedIn() {
			t.Errorf("%s is signed in", name)
		}
	}
	// The cookie alone is not enough, either: the request belongs to the browser that began.
	thief := p.browser()
	for _, c := range attacker.http.Jar.Cookies(mustURL(t, p.issuer+"/")) {
		if strings.Contains(c.Name, "away") {
			thief.plantAs(c.Name, c.Value)
		}
	}
	thief.get(answer).wants(t, "the cookie of another browser", http.StatusBadRequest, "invalid_request")
	if thief.signedIn() {
		t.Error("signed in with a cookie of another browser")
	}
	if got := attacker.follow(attacker.get(answer)); got.asks() != "decision" {
		t.Errorf("the browser that asked: %d %s", got.status, shown(got.body))
	}
}

// HEAD is safe (RFC 9110 section 9.2.1): whatever looks at the address with it leaves the answer to the person.
func TestHEADTakesNoAnswer(t *testing.T) {
	up := newUpstream(t, "up")
	up.somebody("mallory")
	p := federated(t, []*upstream{up})
	b := p.browser()
	answer := b.through(up, b.press(b.get(p.authorizeURL()), "up"), userEmail).location.String()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.do(req); got.status != http.StatusOK || b.signedIn() {
		t.Errorf("%d, signed in %v", got.status, b.signedIn())
	}
	if got := b.follow(b.get(answer)); got.asks() != "decision" {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
}

// A state is good for one answer, also for a browser that keeps the cookie, and at another replica.
func TestAStateIsUsedOnce(t *testing.T) {
	up := newUpstream(t, "up")
	up.somebody("mallory")
	p := federated(t, []*upstream{up})
	b := p.browser()
	answer := b.through(up, b.press(b.get(p.authorizeURL()), "up"), userEmail).location.String()
	at := mustURL(t, p.issuer+"/")
	kept := b.http.Jar.Cookies(at)
	if got := b.follow(b.get(answer)); got.asks() != "decision" {
		t.Fatalf("%d %s", got.status, shown(got.body))
	}
	b.get(answer).wants(t, "again", http.StatusBadRequest, "invalid_request")
	for name, one := range map[string]*idp{"here": p, "at another replica": p.replica(p.etcd.Client)} {
		b := one.browser()
		b.http.Jar.SetCookies(at, kept)
		if got := b.get(answer); got.status != http.StatusForbidden || !strings.Contains(got.body, "UP did not sign you in") {
			t.Errorf("%s, with the cookie: %d %s", name, got.status, shown(got.body))
		}
		if b.signedIn() {
			t.Errorf("%s: signed in", name)
		}
	}
	if got := p.browser().get(p.issuer + "/callback?state=&code=x"); got.status != http.StatusBadRequest {
		t.Errorf("without a state: %d", got.status)
	}
}

// RFC 9700 section 4.4: the answer of one identity provider is none to a question that another was asked.
func TestMixUpOfIdentityProviders(t *testing.T) {
	honest, evil := newUpstream(t, "honest"), newUpstream(t, "evil")
	p := federated(t, []*upstream{honest, evil})
	b := p.browser()
	got := b.press(b.get(p.authorizeURL()), "honest")
	// What the user has at the honest one comes back to the callback of the other, by the same state.
	answer := b.through(honest, got, userEmail).location
	answer.Path = "/callback/evil"
	b.get(answer.String()).wants(t, "at the callback of another", http.StatusBadRequest, "invalid_request")
	// At the callback that all share, the connector finds who has answered.
	got = b.press(b.get(p.authorizeURL()), "evil")
	asked := got.location.Query()
	b.get(p.issuer + "/callback?" + url.Values{"state": {asked.Get("state")}, "code": {"x"},
		"iss": {honest.issuer}}.Encode())
	if b.signedIn() {
		t.Error("signed in")
	}
	if got := b.by(honest, "bob@app.test"); got == "" {
		t.Error("and then nothing works")
	}
}

// Whatever idp_hint or connector_id say, the browser goes to no address but that of a connector.
func TestHintsLeadNowhereElse(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	b := p.browser()
	for _, hint := range []string{"https://evil.example/", "//evil.example", "evil.example", "..", "../up", "up/", "UP",
		"local", "\x00", strings.Repeat("u", 5000)} {
		for _, param := range []string{"idp_hint", "connector_id"} {
			if got := b.get(p.authorizeURL(param, hint)); got.location != nil &&
				!strings.HasPrefix(got.location.String(), callback) ||
				got.location == nil && got.asks() != "password" {
				t.Errorf("%s %.20q: %d to %v", param, hint, got.status, got.location)
			}
		}
		if hint := url.PathEscape(hint); hint != ".." {
			got := b.get(p.issuer + "/oauth/connect/" + hint + "?request=x")
			if got.status == http.StatusOK || got.location != nil {
				t.Errorf("connect %.20q: %d to %v", hint, got.status, got.location)
			}
		}
	}
	for _, param := range []string{"idp_hint", "connector_id"} {
		if got := b.get(p.authorizeURL(param, "up")); got.location == nil ||
			!strings.HasPrefix(got.location.String(), up.issuer) {
			t.Errorf("%s: %d to %v", param, got.status, got.location)
		}
	}
}

// A silent request is answered here, whoever could be asked elsewhere.
func TestSilentRequestsGoNowhere(t *testing.T) {
	up := newUpstream(t, "up")
	p := newIDP(t, func(c *server.Config) { c.Connectors = []connector.Connector{up.of(c.Issuer)} })
	b := p.browser()
	p.redirected(b.get(p.authorizeURL("prompt", "none")), "one connector alone", "login_required")
	p.redirected(b.get(p.authorizeURL("prompt", "none", "idp_hint", "up")), "a hint", "login_required")
	if len(up.started) > 0 {
		t.Error("the identity provider was asked")
	}
}

// Until somebody has proven who they are, nothing is written, whatever comes back.
func TestNothingIsWrittenBeforeSomebodyHasSignedIn(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	p.clock.stop()
	p.browser().code()
	b := p.browser()
	page := b.get(p.authorizeURL())
	away := func() url.Values {
		return b.press(page, "up").location.Query()
	}
	for name, do := range map[string]func(){
		"going there":         func() { away() },
		"a refusal":           func() { b.get(p.issuer + "/callback/up?error=server_error&state=" + away().Get("state")) },
		"another issuer":      func() { b.get(p.issuer + "/callback/up?code=x&iss=x&state=" + away().Get("state")) },
		"a state of nobody":   func() { b.get(p.issuer + "/callback/up?code=x&state=x") },
		"a form":              func() { b.post(p.issuer+"/callback/up", url.Values{"state": {"x"}}) },
		"a form of this page": func() { b.post(p.issuer+"/callback/up?here=1", url.Values{"state": {"x"}}) },
	} {
		if got := p.etcd.Count(do); got != (storagetest.Counts{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A form of another site brings none of our cookies. A page of ours posts it again, and nothing but that.
func TestAnAnswerByAFormOfAnotherSite(t *testing.T) {
	up := newUpstream(t, "up")
	up.somebody("ann")
	p := federated(t, []*upstream{up})
	b := p.browser()
	state := b.press(b.get(p.authorizeURL()), "up").location.Query().Get("state")
	for _, name := range []string{"state", "RelayState"} {
		cross := p.browser() // without cookies
		form := url.Values{name: {state}, "code": {`"><script>alert(1)</script>`}}
		got := cross.post(p.issuer+"/callback/up", form)
		if got.status != http.StatusOK || strings.Contains(got.body, "<script>alert") ||
			!strings.Contains(got.header.Get("Content-Security-Policy"), "form-action 'self'") {
			t.Fatalf("%d %v %s", got.status, got.header, shown(got.body))
		}
		action, fields := cross.form(got, name)
		if action != p.issuer+"/callback/up?here=1" || fields.Get("code") != form.Get("code") || fields.Get(name) != state {
			t.Errorf("%s %v", action, fields)
		}
		if again := cross.post(action, fields); again.status != http.StatusBadRequest {
			t.Errorf("a browser that has no cookies: %d", again.status)
		}
		if name == "state" {
			continue
		}
		if got := b.follow(b.post(action, fields)); got.asks() != "decision" {
			t.Errorf("%d %s", got.status, shown(got.body))
		}
	}
}

// What goes wrong with one connector is said on the sign-in page, without what is not for users, and the others work.
func TestFaultsAndRefusalsOfAConnector(t *testing.T) {
	up, other := newUpstream(t, "up"), newUpstream(t, "other")
	p := federated(t, []*upstream{up, other})
	b := p.browser()
	says := func(name string, got page, status int, text string) {
		t.Helper()
		if got.status != status || !strings.Contains(html.UnescapeString(got.body), text) || got.location != nil {
			t.Errorf("%s: %d to %v %s", name, got.status, got.location, shown(got.body))
		}
		if strings.Contains(got.body, "192.0.2.1") || strings.Contains(got.body, "the reason") {
			t.Errorf("%s: the page says what only the operator is to know", name)
		}
		if got.asks() != "password" || !strings.Contains(got.body, "/oauth/connect/other?") {
			t.Errorf("%s: the other ways are gone", name)
		}
		if b.signedIn() {
			t.Errorf("%s: signed in", name)
		}
	}
	begin := func() page { return b.press(b.get(p.authorizeURL()), "up") }
	up.startErr = errAway
	says("it is away", begin(), http.StatusServiceUnavailable, "UP does not answer")
	says("it is away, by a hint", b.get(p.authorizeURL("idp_hint", "up")), http.StatusServiceUnavailable,
		"UP does not answer")
	up.startErr = connector.Refuse("the reason")
	says("it refuses at once", begin(), http.StatusForbidden, "UP did not sign you in")
	up.startErr, up.doneErr = nil, errAway
	answer := func() page { return b.get(b.through(up, begin(), userEmail).location.String()) }
	says("it is away when the user is back", answer(), http.StatusServiceUnavailable, "UP does not answer")
	up.doneErr = connector.Refuse("the reason")
	says("it refuses", answer(), http.StatusForbidden, "UP did not sign you in")
	up.doneErr = nil
	up.somebody("")
	says("it says nobody", answer(), http.StatusForbidden, "UP did not sign you in")
	up.somebody(strings.Repeat("x", 1025))
	says("an id that is too long", answer(), http.StatusForbidden, "UP did not sign you in")
	up.somebody("x")
	for range 10_000 {
		up.always.Groups = append(up.always.Groups, "group "+randomText())
	}
	says("10,000 groups", answer(), http.StatusForbidden, "more groups than this service can take")
	up.always.Groups = []string{strings.Repeat("g", 201)}
	says("a group that is too long", answer(), http.StatusForbidden, "UP did not sign you in")
	up.always.Groups, up.always.Attributes = nil, map[string]any{"x": strings.Repeat("a", 3000)}
	says("attributes that are too long", answer(), http.StatusForbidden, "UP did not sign you in")
	log := p.log.String()
	for _, line := range []string{"no route to host", "the reason", "10000 groups were told", "connector=up"} {
		if !strings.Contains(log, line) {
			t.Errorf("the operator is not told %q", line)
		}
	}
	// A user who says no there comes back to the page, and nothing is wrong.
	up.always, up.doneErr = nil, &connector.RefusedError{Cancelled: true, Reason: "the reason"}
	got := b.follow(answer())
	says("cancelled", got, http.StatusOK, "Sign in with UP")
	if strings.Contains(got.body, `role="alert"`) {
		t.Errorf("cancelled: %s", shown(got.body))
	}
	up.doneErr = nil
	if code := b.by(up, "bob@app.test"); code == "" {
		t.Error("it does not recover")
	}
}

// A connector that is no longer configured signs nobody in, whether they are on its page, or away.
func TestAConnectorIsRemovedWhileItsUsersSignIn(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	b := p.browser()
	page := b.get(p.authorizeURL())
	answer := b.through(up, b.press(page, "up"), userEmail)
	p.reload(func(c *server.Config) { c.Connectors = p.cfg.Connectors[:1] })
	if got := b.follow(b.get(answer.location.String())); got.status != http.StatusOK || got.asks() != "password" ||
		strings.Contains(got.body, "/oauth/connect/") || b.signedIn() {
		t.Errorf("back: %d %s", got.status, shown(got.body))
	}
	if got := b.press(page, "up"); got.status != http.StatusOK || got.asks() != "password" || got.location != nil {
		t.Errorf("from its page: %d to %v", got.status, got.location)
	}
	if got := b.get(p.authorizeURL("idp_hint", "up")); got.asks() != "password" {
		t.Errorf("by a hint: %d", got.status)
	}
	p.reload(func(c *server.Config) { c.Connectors = nil })
	if got := b.get(p.authorizeURL()); got.status != http.StatusServiceUnavailable ||
		!strings.Contains(got.body, "Nobody can sign in here now") || got.asks() != "" {
		t.Errorf("without any: %d %s", got.status, shown(got.body))
	}
	if got := b.get(p.issuer + "/"); strings.Contains(got.body, `href="/signin"`) {
		t.Error("the front page leads to a sign-in")
	}
	p.reload(func(c *server.Config) { c.Connectors = p.cfg.Connectors })
	if code := b.by(up, "bob@app.test"); code == "" {
		t.Error("it does not come back")
	}
}

// Someone who takes long at the identity provider goes on; one who takes longer begins again, and nobody is signed in.
func TestComingBackLate(t *testing.T) {
	up := newUpstream(t, "up")
	up.somebody("late")
	p := federated(t, []*upstream{up}, func(c *server.Config) { c.Lifetimes.AuthRequest = time.Minute })
	b := p.browser()
	answer := b.through(up, b.press(b.get(p.authorizeURL()), "up"), userEmail)
	p.clock.forward(10 * time.Minute)
	if got := b.follow(b.get(answer.location.String())); got.asks() != "decision" {
		t.Errorf("10 minutes: %d %s", got.status, shown(got.body))
	}
	late := p.browser()
	answer = late.through(up, late.press(late.get(p.authorizeURL()), "up"), userEmail)
	p.clock.forward(16 * time.Minute)
	late.get(answer.location.String()).wants(t, "16 minutes", http.StatusBadRequest, "invalid_request")
	if late.signedIn() {
		t.Error("signed in")
	}
	// A pushed request cannot be renewed: the app is told, and need only begin again.
	pushed := p.browser()
	answer = pushed.through(up, pushed.press(pushed.get(p.pushedURL(p.push())), "up"), userEmail)
	p.clock.forward(10 * time.Minute)
	p.redirected(pushed.follow(pushed.get(answer.location.String())), "a pushed request", "temporarily_unavailable")
	if !pushed.signedIn() {
		t.Error("not signed in")
	}
}

// A browser keeps the latest few, in as many tabs, within what a proxy takes, and each comes back to its own request.
func TestManyTabsAreAway(t *testing.T) {
	up := newUpstream(t, "up")
	up.somebody("ann")
	p := federated(t, []*upstream{up})
	b := p.browser()
	var answers []page
	for i := range 6 {
		got := b.press(b.get(p.authorizeURL("state", "tab-"+string(rune('0'+i)))), "up")
		answers = append(answers, b.through(up, got, userEmail))
		p.clock.forward(time.Second)
	}
	held := 0
	for _, c := range b.http.Jar.Cookies(mustURL(t, p.issuer+"/")) {
		if strings.Contains(c.Name, "away") {
			held += len(c.Value)
		}
	}
	if held == 0 || held > 6<<10 {
		t.Errorf("%d bytes of cookies", held)
	}
	b.get(answers[0].location.String()).wants(t, "the oldest", http.StatusBadRequest, "invalid_request")
	for i := 5; i > 2; i-- {
		got := b.follow(b.get(answers[i].location.String()))
		if got.asks() == "decision" {
			got = b.follow(b.decide(got, "allow"))
		}
		if got.location == nil || got.location.Query().Get("state") != "tab-"+string(rune('0'+i)) {
			t.Errorf("tab %d: %d to %v", i, got.status, got.location)
		}
	}
}

// A request that is too long for one cookie is in several.
func TestALongRequestIsAwayInSeveralCookies(t *testing.T) {
	up := newUpstream(t, "up")
	up.somebody("ann")
	p := federated(t, []*upstream{up})
	b := p.browser()
	state := base64.RawURLEncoding.EncodeToString(randomBytes(3000))
	got := b.get(p.authorizeURL("state", state))
	_, rest, _ := strings.Cut(got.body, `href="/oauth/connect/up?`)
	query, _, _ := strings.Cut(rest, `"`)
	resp, err := b.http.Get(p.issuer + "/oauth/connect/up?" + html.UnescapeString(query))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if set := resp.Header["Set-Cookie"]; len(set) != 2 || len(set[0]) > 4096 {
		t.Fatalf("%d cookies", len(set))
	}
	got = b.follow(b.get(p.issuer + "/callback?code=x&state=" + url.QueryEscape(up.started[0].State)))
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	if got.location == nil || got.location.Query().Get("state") != state {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
	for _, c := range b.http.Jar.Cookies(mustURL(t, p.issuer+"/")) {
		if strings.Contains(c.Name, "away") {
			t.Errorf("%s is still there", c.Name)
		}
	}
	// Where it is too long even for that, no browser is left with cookies that no proxy lets through.
	nonce := base64.RawURLEncoding.EncodeToString(randomBytes(380))
	hint := base64.RawURLEncoding.EncodeToString(randomBytes(190))
	claims := `{"id_token":{"name":{"value":"` + base64.RawURLEncoding.EncodeToString(randomBytes(1450)) + `"}}}`
	got = b.get(p.authorizeURL("scope", "openid profile", "state", state, "nonce", nonce, "login_hint", hint, "claims",
		claims, "idp_hint", "up", "prompt", "login"))
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "shorten its state") ||
		strings.Contains(strings.Join(got.header["Set-Cookie"], " "), "away") {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
}

// An e-mail address is no proof of who somebody is, verified or not: it opens nobody's account, and no app that is for
// certain addresses unless it is verified.
func TestTheEmailAddressOfSomebodyElseOpensNothing(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	ann := claimsOf(t, p.exchange(p.browser().code("scope", "openid email")).text("id_token"))
	for _, verified := range []bool{false, true} {
		up.somebody("mallory")
		up.always.Email, up.always.EmailVerified = userEmail, verified
		b := p.browser()
		claims := claimsOf(t, p.exchange(b.by(up, userEmail, "scope", "openid email")).text("id_token"))
		if claims["sub"] == ann["sub"] || claims["email_verified"] == true != verified {
			t.Errorf("verified %v: %v", verified, claims)
		}
	}
	p.update("my-app", func(c *storage.Client) { c.AccessEmails = []string{userEmail} })
	up.somebody("mallory")
	up.always.Email = userEmail
	b := p.browser()
	if got := b.follow(b.through(up, b.press(b.get(p.authorizeURL()), "up"),
		userEmail)); got.status != http.StatusForbidden {
		t.Errorf("an address that is not verified: %d %s", got.status, shown(got.body))
	}
}

// Whom the operator has disabled does not come back by signing in, and neither does who belongs to another connector.
func TestWhoMayNotSignInStaysOut(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	p.browser().by(up, "bob@app.test")
	u, err := p.store.User(t.Context(), connector.SubjectsHashed.Of("up", "user-bob"))
	if err != nil {
		t.Fatal(err)
	}
	disabled := *u
	disabled.Disabled = true
	p.putUser(disabled)
	b := p.browser()
	got := b.get(b.through(up, b.press(b.get(p.authorizeURL()), "up"), "bob@app.test").location.String())
	if got.status != http.StatusForbidden || b.signedIn() || !strings.Contains(got.body, "UP did not sign you in") {
		t.Errorf("disabled: %d %s", got.status, shown(got.body))
	}
	disabled.Disabled, disabled.Connector = false, "other"
	p.putUser(disabled)
	got = b.get(b.through(up, b.press(b.get(p.authorizeURL()), "up"), "bob@app.test").location.String())
	if got.status != http.StatusForbidden || b.signedIn() {
		t.Errorf("of another connector: %d %s", got.status, shown(got.body))
	}
}

// An operator is told by the id of a page what was wrong with a connector.
func TestExplainTellsOfConnectors(t *testing.T) {
	up := newUpstream(t, "up")
	e := newExplained(t, func(c *server.Config) { c.Connectors = append(c.Connectors, up.of(c.Issuer)) })
	b := e.browser()
	up.startErr = errAway
	if r := e.of(b.press(b.get(e.authorizeURL()), "up").header).Reasons[0]; r.Rule != oauth.RuleConnectorUnavailable {
		t.Errorf("%+v", r)
	}
	up.startErr, up.doneErr = nil, connector.Refuse("the nonce is missing")
	got := b.get(b.through(up, b.press(b.get(e.authorizeURL()), "up"), userEmail).location.String())
	if r := e.of(got.header).Reasons[0]; r.Rule != oauth.RuleConnectorRefused ||
		!strings.Contains(e.said[1], "the nonce is missing") {
		t.Errorf("%+v", r)
	}
}
