package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// member puts a user into groups, and into no others.
func (p *idp) member(id string, groups ...string) {
	p.t.Helper()
	u, err := p.store.User(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	u.Groups = storage.NamesOf(groups)
	p.putUser(*u)
}

// restricted is a server whose app is for the group staff, in which Ann is.
func restricted(t *testing.T, change ...func(*server.Config)) *explained {
	e := newExplained(t, change...)
	e.member("user-ann", "staff", "team-a")
	e.update("my-app", func(c *storage.Client) { c.AccessGroups = []string{"staff"} })
	e.written("apps/app.yml", map[string]storage.Place{"spec": {4, 1}, "spec.oauth": {6, 3}, "spec.oauth.access": {14, 5}})
	return e
}

// refusedBy checks that a request was refused because of who may use the app, and that an operator is told where it
// says so.
func (e *explained) refusedBy(header http.Header, about string) {
	e.t.Helper()
	why := e.of(header)
	if r := why.Reasons[0]; r.Rule != oauth.RuleUserNotAdmitted || r.Key != "spec.oauth.access" ||
		r.Place != "apps/app.yml:14:5" || !strings.Contains(r.Asked, about) {
		e.t.Errorf("%+v", r)
	}
}

// Who may not use an app is told so, in both languages, and can be somebody else, or go back to the app, which is told.
func TestWhoMayNotUseTheAppIsToldSo(t *testing.T) {
	e := restricted(t)
	for lang, says := range map[string]string{
		"en": "You cannot use “My App” with this account", "ja": "このアカウントでは「My App」を利用できません",
	} {
		b := e.browser()
		got := b.follow(b.signIn(b.get(e.authorizeURL("ui_locales", lang, "state", "s-1")), "bob@app.test", userPassword))
		if got.status != http.StatusForbidden || !strings.Contains(got.body, says) ||
			!strings.Contains(got.body, "bob@app.test") {
			t.Fatalf("%s: %d %s", lang, got.status, shown(got.body))
		}
		if id := got.header.Get("X-Request-Id"); id == "" || !strings.Contains(got.body, id) {
			t.Errorf("%s: the page does not name its request", lang)
		}
		e.refusedBy(got.header, "no groups; bob@app.test (not verified)")
		e.redirected(b.decide(got, "back"), lang+", back to the app", "access_denied")
		if got = b.follow(b.decide(got, "switch")); got.asks() != "password" {
			t.Fatalf("%s: nobody else can sign in: %d %s", lang, got.status, shown(got.body))
		}
		if got = b.follow(b.signIn(got, userEmail, userPassword)); got.asks() != "decision" {
			t.Errorf("%s: Ann is not asked: %d %s", lang, got.status, shown(got.body))
		}
		if again := b.decide(got, "deny"); again.location == nil {
			t.Errorf("%s: %d", lang, again.status)
		}
	}
	b := e.browser()
	b.signIn(b.get(e.authorizeURL()), "bob@app.test", userPassword)
	silent := b.get(e.authorizeURL("prompt", "none"))
	e.redirected(silent, "without a question", "access_denied")
	e.refusedBy(silent.header, "no groups")
	ended, end := context.WithCancel(t.Context())
	end()
	if err := e.handler.(*server.Server).Run(ended); err != nil { // what waits for the audit log is written
		t.Error(err)
	}
	if entries := e.audited(storage.AuditAccessRefused); len(entries) == 0 || entries[0].Actor != "user:user-bob" ||
		entries[0].App != "my-app" || entries[0].Outcome != storage.OutcomeRefused {
		t.Errorf("%+v", entries)
	}
}

// The front page leads to the apps that somebody may use, and not to those that would turn them away.
func TestFrontPageLeadsToAppsThatTheUserMayUse(t *testing.T) {
	e := restricted(t)
	begins := func(c *storage.Client) { c.InitiateLoginURI = "https://app.test/login" }
	e.update("my-app", begins)
	e.register("open-app", func(c *storage.Client) { c.ClientName = "Open App"; begins(c) })
	front := func(login string) string {
		b := e.browser()
		b.signIn(b.get(e.issuer+"/signin"), login, userPassword)
		return b.get(e.issuer + "/").body
	}
	if ann := front(userEmail); !strings.Contains(ann, ">My App<") || !strings.Contains(ann, ">Open App<") {
		t.Errorf("Ann, who may use both: %s", ann)
	}
	if bob := front("bob@app.test"); strings.Contains(bob, ">My App<") || !strings.Contains(bob, ">Open App<") {
		t.Errorf("Bob, who may use one of them: %s", bob)
	}
}

// Who may use an app is checked wherever something is issued, and not only at sign-in.
func TestWhoMayUseTheAppIsCheckedAtEveryGrant(t *testing.T) {
	e := restricted(t)
	issued := e.tokens("scope", "openid threads:read")
	if issued.status != http.StatusOK {
		t.Fatalf("Ann: %d %s", issued.status, issued.raw)
	}
	refreshed := e.refresh(issued.text("refresh_token"))
	code := e.code()
	e.member("user-ann", "team-a")
	got := e.exchange(code)
	got.wants(t, "a code, after the user has left the group", http.StatusBadRequest, "invalid_grant")
	e.refusedBy(got.header, "groups team-a; "+userEmail)
	got = e.refresh(refreshed.text("refresh_token"))
	got.wants(t, "a refresh", http.StatusBadRequest, "invalid_grant")
	e.refusedBy(got.header, "team-a")
	got = e.userinfo(refreshed.text("access_token"))
	got.wants(t, "userinfo", http.StatusUnauthorized, "invalid_token")
	if why := e.of(got.header).Reasons[0].Rule; why != oauth.RuleUserNotAdmitted {
		t.Errorf("userinfo was refused by %s", why)
	}
	for name, token := range map[string]string{"access": refreshed.text("access_token"),
		"refresh": refreshed.text("refresh_token")} {
		if e.active(token) {
			t.Errorf("the %s token is active", name)
		}
	}
	e.member("user-ann", "staff")
	if got := e.exchange(code); got.status != http.StatusOK {
		t.Errorf("the code was used up by the refusal: %s", got.raw)
	}
	if got := e.refresh(refreshed.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("the refresh token was used up by the refusal: %s", got.raw)
	}
}

// A rule of app.yml that changes counts for what was issued before. It is looked at once for each grant, and costs
// nothing after that, as it costs nothing while it stays.
func TestARuleThatChangesIsAskedOnce(t *testing.T) {
	e := restricted(t)
	e.clock.stop()
	newest := e.tokens()
	refresh := func(rule string, want storagetest.Counts, status int) {
		t.Helper()
		var got reply
		counts := e.etcd.Count(func() { got = e.refresh(newest.text("refresh_token")) })
		if counts != want || got.status != status {
			t.Errorf("%s: %+v, %d %s", rule, counts, got.status, got.raw)
		}
		if got.status == http.StatusOK {
			newest = got
		}
	}
	usual := storagetest.Counts{Proposals: 1}
	refresh("the rule of the sign-in", usual, http.StatusOK)
	e.update("my-app", func(c *storage.Client) { c.AccessGroups = []string{"team-a"} })
	code := e.code()
	refresh("another rule, that lets Ann in", storagetest.Counts{Proposals: 1, Reads: 1}, http.StatusOK)
	refresh("the same rule", usual, http.StatusOK)
	e.update("my-app", func(c *storage.Client) { c.AccessGroups = []string{"admins"} })
	refresh("a rule that does not", storagetest.Counts{Reads: 1}, http.StatusBadRequest)
	e.exchange(code).wants(t, "a code from before", http.StatusBadRequest, "invalid_grant")
	e.update("my-app", func(c *storage.Client) { c.AccessGroups = nil })
	refresh("no rule", usual, http.StatusOK)
	e.update("my-app", func(c *storage.Client) { c.AccessEmails = []string{"*@APP.test"} })
	refresh("by address", storagetest.Counts{Proposals: 1, Reads: 1}, http.StatusOK)
	u, err := e.store.User(t.Context(), "user-ann")
	if err != nil {
		t.Fatal(err)
	}
	u.EmailVerified = false
	e.putUser(*u)
	got := e.refresh(newest.text("refresh_token"))
	got.wants(t, "an address that is not verified", http.StatusBadRequest, "invalid_grant")
	e.refusedBy(got.header, "(not verified)")
	e.update("my-app", func(c *storage.Client) { c.AccessEmails, c.AccessConnectors = nil, []string{"github"} })
	e.refresh(newest.text("refresh_token")).wants(t, "another connector", http.StatusBadRequest, "invalid_grant")
	e.update("my-app", func(c *storage.Client) {
		c.AccessConnectors, c.AccessGroups = []string{"local"},
			[]string{"team-a"}
	})
	if got := e.refresh(newest.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("both: %s", got.raw)
	}
}

// A device is nobody's before somebody approves it who may use the app, and gets nothing once they may not any more.
func TestWhoMayUseTheAppIsCheckedOfDevices(t *testing.T) {
	e := restricted(t)
	e.idp = withDevices(e.idp)
	e.clock.stop()
	device := e.device()
	b := e.browser()
	got := b.enter(device.text("user_code"))
	got = b.follow(b.signIn(got, "bob@app.test", userPassword))
	if got.status != http.StatusForbidden || strings.Contains(got.body, "error=") {
		t.Fatalf("%d %s", got.status, shown(got.body))
	}
	e.refusedBy(got.header, "no groups")
	e.poll(device).wants(t, "after somebody who may not", http.StatusBadRequest, "authorization_pending")
	e.approve(device)
	e.member("user-ann")
	polled := e.poll(device)
	polled.wants(t, "after the user has left the group", http.StatusBadRequest, "access_denied")
	e.refusedBy(polled.header, "no groups")
	e.member("user-ann", "staff")
	issued := e.poll(device)
	if issued.status != http.StatusOK {
		t.Fatalf("%s", issued.raw)
	}
	e.member("user-ann")
	e.refresh(issued.text("refresh_token")).wants(t, "a refresh", http.StatusBadRequest, "invalid_grant")
}

// A service gets no token of a user who may not use it, nor of one who may no longer use the app that called it.
func TestWhoMayUseTheAppIsCheckedOfExchanges(t *testing.T) {
	p, runs := newExchanger(t)
	refusals := admin.NewRefusals(10)
	p.cfg.Refused = refusals.Add
	p.serve(p.store)
	p.member("user-ann", "staff")
	subject := p.tokens("scope", "threads:read", "resource", runsAPI).text("access_token")
	for _, c := range []struct {
		rule, app string
		groups    []string
		status    int
	}{
		{"the service is for others", "runs-api", []string{"admins"}, http.StatusBadRequest},
		{"the service is for staff", "runs-api", []string{"staff"}, http.StatusOK},
		{"the app that called it is for others", "my-app", []string{"admins"}, http.StatusBadRequest},
		{"the app is for staff", "my-app", []string{"staff"}, http.StatusOK},
	} {
		p.update(c.app, func(client *storage.Client) { client.AccessGroups = c.groups })
		if got := runs.swap(subject); got.status != c.status || c.status != http.StatusOK &&
			got.text("error") != "invalid_request" {
			t.Errorf("%s: %d %s", c.rule, got.status, got.raw)
		}
	}
	issued := runs.swap(subject).text("access_token")
	p.files(issued).active(t, "a token from an exchange", nil)
	p.update("runs-api", func(c *storage.Client) { c.AccessGroups = []string{"admins"} })
	p.files(issued).inactive(t, "once the user may not use the service")
	p.update("runs-api", func(c *storage.Client) { c.AccessGroups = nil })
	p.update("my-app", func(c *storage.Client) { c.AccessGroups = []string{"admins"} })
	p.files(issued).inactive(t, "once the user may not use the app")
}

// Users of a trusted app are not asked. Everything that the operator has not given their word for is asked.
func TestConsentIsSkippedOnTheOperatorsWord(t *testing.T) {
	p := newIDP(t, withFilesAPI, func(c *server.Config) { c.Trusted = []string{"listed"} })
	skipping := func(change func(*storage.Client)) func(*storage.Client) {
		return func(c *storage.Client) {
			c.Consent = oauth.ConsentSkip
			change(c)
		}
	}
	given := func(c *storage.Client) { c.Trusted = true }
	none := func(*storage.Client) {}
	for _, c := range []struct {
		rule, app string
		change    func(*storage.Client)
		params    []string
		asked     bool
	}{
		{"trusted in the configuration", "listed", skipping(none), nil, false},
		{"by the operator's word", "given", skipping(given), nil, false},
		{"without a word", "nobodys", skipping(none), nil, true},
		{"the manifest does not want it", "asking", given, nil, true},
		{"the client wants to ask", "prompting", skipping(given), []string{"prompt", "consent"}, true},
		{"on the user's machine", "public", skipping(func(c *storage.Client) { c.Trusted, c.Public = true, true }),
			[]string{"redirect_uri", "http://localhost:7/", "code_challenge", challengeOf(verifier), "code_challenge_method",
				"S256"}, true},
		{"at a resource that the manifest does not name", "reaching", skipping(given), []string{"resource", filesAPI}, true},
		{"at a resource that it names", "exchanging", skipping(func(c *storage.Client) {
			c.Trusted, c.TokenExchangeAudiences = true, []string{filesAPI}
		}), []string{"resource", filesAPI}, false},
	} {
		q := p.as(p.register(c.app, c.change))
		b := q.browser()
		silent := append([]string{"prompt", "none"}, c.params...)
		got := b.follow(b.signIn(b.get(q.authorizeURL(c.params...)), userEmail, userPassword))
		if asked := got.asks() == "decision"; asked != c.asked || !asked &&
			(got.location == nil || !got.location.Query().Has("code")) {
			t.Errorf("%s: asked is %v: %d %s", c.rule, asked, got.status, shown(got.body))
		}
		if c.rule == "the client wants to ask" {
			continue
		}
		got = b.get(q.authorizeURL(silent...))
		if got.location == nil || got.location.Query().Has("code") == c.asked {
			t.Errorf("%s, silently: %d %v", c.rule, got.status, got.location)
		}
	}
}
