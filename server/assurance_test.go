package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/factor/factortest"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// demands has an app demand of its users how they sign in.
func (p *idp) demands(app, mfa string) {
	p.t.Helper()
	p.update(app, func(c *storage.Client) { c.AccessMFA = mfa })
}

// shortOf checks that a request was refused for want of a factor, and what an operator is told of it.
func (e *explained) shortOf(header http.Header, key, how string) {
	e.t.Helper()
	if r := e.of(header).Reasons[0]; r.Rule != oauth.RuleFactorNeeded || r.Key != key || !strings.Contains(r.Asked, how) {
		e.t.Errorf("%+v", r)
	}
}

// asksCode reports whether a page asks for the code of an authenticator app.
func (got page) asksCode() bool { return strings.Contains(got.body, `name="code"`) }

// leadsTo is where a page leads to set up a factor; "" if it does not.
func (got page) leadsTo(what string) string {
	_, rest, is := strings.Cut(got.body, `href="/account/`+what+`?`)
	address, _, _ := strings.Cut(rest, `"`)
	if !is {
		return ""
	}
	return "/account/" + what + "?" + address
}

// A browser that has signed in without a second factor is asked for it by an app that demands one, and is not signed in
// anew: Dex let such sessions pass.
func TestASessionWithoutTheFactorIsAskedForIt(t *testing.T) {
	e := newExplained(t, atHost)
	e.clock.stop()
	plain := e.as(e.register("plain", func(c *storage.Client) { c.ClientName = "Plain" }))
	e.demands("my-app", oauth.MFARequired)
	b := plain.browser()
	plain.exchange(b.code())
	e.clock.forward(time.Hour)
	signedIn := e.sessions("user-ann")[0].AuthTime

	silent := b.get(e.authorizeURL("prompt", "none"))
	e.redirected(silent, "silently", "login_required")
	e.shortOf(silent.header, "spec.oauth.access.mfa", "signed in by pwd")
	got := b.follow(b.get(e.authorizeURL("scope", "openid")))
	if got.asksCode() || got.leadsTo("totp") == "" || got.leadsTo("passkeys") == "" ||
		!strings.Contains(got.body, "“My App” asks everybody to prove") {
		t.Fatalf("without any factor: %d %s", got.status, shown(got.body))
	}
	action, form := b.form(got, "cancel")
	form.Set("cancel", "yes")
	e.redirected(b.post(action, form), "who does not want to", "access_denied")

	secret, _ := e.enrol("user-ann")
	if got = b.follow(b.get(e.issuer + "/oauth/continue?" +
		url.Values{"request": form["request"]}.Encode())); !got.asksCode() {
		t.Fatalf("once there is a factor: %d %s", got.status, shown(got.body))
	}
	if wrong := b.prove(got, "code", "000000"); wrong.status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong code: %d", wrong.status)
	}
	got = b.follow(b.prove(got, "code", e.codeNow(secret)))
	if got.asks() != "decision" {
		t.Fatalf("the right code: %d %s", got.status, shown(got.body))
	}
	claims := claimsOf(t, e.exchange(b.answered(b.decide(got, "allow"), "allowed")).text("id_token"))
	if fmt.Sprint(claims["amr"]) != "[pwd otp mfa]" || claims["auth_time"] != float64(signedIn.Unix()) {
		t.Errorf("%v %v: a code given later is no other sign-in", claims["amr"], claims["auth_time"])
	}
	if all := e.sessions("user-ann"); len(all) != 1 || !all[0].AuthTime.Equal(signedIn) {
		t.Errorf("%+v", all)
	}
	b.answered(b.get(e.authorizeURL("prompt", "none", "scope", "openid")), "silently, with the factor")

	// By itself the sign-in asks for it at once.
	if got = e.browser().get(e.authorizeURL()); got.asks() != "password" {
		t.Errorf("a new browser: %s", shown(got.body))
	}
}

// Nothing that was issued without the factor goes on once an app demands one, and all of it does when it no longer
// does: a refusal uses nothing up. No request is dearer for it.
func TestTokensWithoutTheFactorAreRefused(t *testing.T) {
	e := newExplained(t, atHost)
	e.clock.stop()
	issued := e.tokens("scope", "openid threads:read")
	code := e.code()
	e.demands("my-app", oauth.MFARequired)
	none := storagetest.Counts{}
	for rule, do := range map[string]func() reply{
		"a code": func() reply { return e.exchange(code) }, "a refresh": func() reply {
			return e.refresh(issued.text("refresh_token"))
		},
	} {
		var got reply
		if counts := e.etcd.Count(func() { got = do() }); counts != none {
			t.Errorf("%s: %+v", rule, counts)
		}
		got.wants(t, rule, http.StatusBadRequest, "invalid_grant")
		e.shortOf(got.header, "spec.oauth.access.mfa", "signed in by pwd")
	}
	got := e.userinfo(issued.text("access_token"))
	got.wants(t, "userinfo", http.StatusUnauthorized, "invalid_token")
	if rule := e.of(got.header).Reasons[0].Rule; rule != oauth.RuleFactorNeeded {
		t.Errorf("userinfo was refused by %s", rule)
	}
	if e.active(issued.text("access_token")) || e.active(issued.text("refresh_token")) {
		t.Error("introspection says that the tokens are good")
	}

	secret, _ := e.enrol("user-ann")
	b, asked := e.halfSignedIn("scope", "openid threads:read")
	with := e.exchange(b.answered(b.follow(b.prove(asked, "code", e.codeNow(secret))), "with the factor"))
	if fmt.Sprint(claimsOf(t, with.text("access_token"))["acr"]) != oauth.ACRMFA || !e.active(with.text("access_token")) {
		t.Errorf("%s", with.raw)
	}
	if counts := e.etcd.Count(func() {
		with = e.refresh(
			with.text("refresh_token"))
	}); counts != (storagetest.Counts{Proposals: 1}) ||
		with.status != http.StatusOK {
		t.Errorf("a refresh with the factor: %+v, %s", counts, with.raw)
	}
	e.demands("my-app", oauth.MFAPhishingResistant)
	got = e.refresh(with.text("refresh_token"))
	got.wants(t, "a code, where a passkey is demanded", http.StatusBadRequest, "invalid_grant")
	e.shortOf(got.header, "spec.oauth.access.mfa", "signed in by pwd, otp, mfa")

	e.demands("my-app", "")
	for rule, got := range map[string]reply{"the code": e.exchange(code),
		"the refresh token": e.refresh(issued.text("refresh_token"))} {
		if got.status != http.StatusOK {
			t.Errorf("%s was used up by the refusal: %s", rule, got.raw)
		}
	}
}

// What the configuration demands counts from its start on, of everybody or of a group; for that, the user is read once.
func TestDemandsOfTheConfiguration(t *testing.T) {
	e := newExplained(t, atHost)
	e.clock.stop()
	e.member("user-ann", "staff", "admins")
	newest := e.tokens("scope", "openid threads:read")
	begin := func(d server.Demands) {
		t.Helper()
		e.cfg.Demands = d
		e.serve(e.store)
	}
	refresh := func(rule string, want storagetest.Counts, status int) reply {
		t.Helper()
		var got reply
		counts := e.etcd.Count(func() { got = e.refresh(newest.text("refresh_token")) })
		if counts != want || got.status != status {
			t.Errorf("%s: %+v, %d %s", rule, counts, got.status, got.raw)
		}
		if got.status == http.StatusOK {
			newest = got
		}
		return got
	}
	begin(server.Demands{Everybody: oauth.AssuranceMFA})
	e.shortOf(refresh("of everybody", storagetest.Counts{}, http.StatusBadRequest).header, "mfa", "pwd")
	of := func(group string) server.Demands {
		return server.Demands{Groups: map[string]oauth.Assurance{group: oauth.AssurancePhishingResistant}}
	}
	begin(of("others"))
	refresh("of a group in which Ann is not", storagetest.Counts{Proposals: 1, Reads: 1}, http.StatusOK)
	refresh("of that group, again", storagetest.Counts{Proposals: 1}, http.StatusOK)
	if got := e.userinfo(newest.text("access_token")); got.status != http.StatusOK {
		t.Errorf("userinfo: %d", got.status)
	}
	e.member("user-ann", "staff", "others")
	e.shortOf(refresh("she joins it", storagetest.Counts{Proposals: 1, Reads: 1}, http.StatusBadRequest).header,
		"mfa", "pwd")
	e.userinfo(newest.text("access_token")).wants(t, "userinfo, in the group", http.StatusUnauthorized, "invalid_token")
	e.member("user-ann", "staff")
	begin(of("admins"))
	refresh("of another group", storagetest.Counts{Proposals: 1, Reads: 1}, http.StatusOK)
	begin(server.Demands{})
	refresh("nothing", storagetest.Counts{Proposals: 1}, http.StatusOK)

	// At a sign-in: the front page, too, leads to what is missing, and a page of the account does not.
	e.member("user-ann", "admins")
	begin(of("admins"))
	b := e.browser()
	got := b.follow(b.signIn(b.get(e.issuer+"/signin"), userEmail, userPassword))
	if got.leadsTo("passkeys") == "" || got.leadsTo("totp") != "" ||
		!strings.Contains(got.body, "asks you to prove who you are with a passkey") {
		t.Errorf("at the front page: %d %s", got.status, shown(got.body))
	}
	if got = b.follow(b.get(e.issuer + "/account")); got.status != http.StatusOK || got.asks() != "" ||
		got.leadsTo("passkeys") != "" {
		t.Errorf("her account: %d %s", got.status, shown(got.body))
	}
}

// A sign-in is called by the class that the app wanted, if it is of that class, and by its own otherwise (RFC 9470); an
// app that wants more than the session has gets it, or is told so.
func TestStepUpByACRValues(t *testing.T) {
	p := newIDP(t, atHost)
	p.clock.stop()
	secret, _ := p.enrol("user-bob")
	step := func(b *browser, changes ...string) (page, string) {
		t.Helper()
		got := b.follow(b.get(p.authorizeURL(append(changes, "scope", "openid")...)))
		if got.asks() == "password" {
			got = b.follow(b.signIn(got, "bob@app.test", userPassword))
		}
		if got.asksCode() {
			p.clock.forward(30 * time.Second)
			got = b.follow(b.prove(got, "code", p.codeNow(secret)))
		}
		if got.asks() == "decision" && got.leadsTo("passkeys") == "" {
			got = b.follow(b.decide(got, "allow"))
		}
		if got.location == nil {
			return got, ""
		}
		return got, got.location.Query().Get("code")
	}
	b := p.browser()
	for _, c := range []struct{ wanted, acr string }{
		{"", oauth.ACRMFA}, {oauth.ACRMFA, oauth.ACRMFA}, {"phr " + oauth.ACRMFA, oauth.ACRMFA},
		{oauth.ACRPassword, oauth.ACRPassword}, {oauth.ACRPassword + " " + oauth.ACRMFA, oauth.ACRPassword},
		{"urn:x", oauth.ACRMFA},
	} {
		_, code := step(b, "acr_values", c.wanted)
		issued := p.exchange(code)
		access, id := claimsOf(t, issued.text("access_token")), claimsOf(t, issued.text("id_token"))
		if access["acr"] != c.acr || c.wanted != "" && id["acr"] != c.acr || fmt.Sprint(access["amr"]) != "[pwd otp mfa]" {
			t.Errorf("%q: access token %v, ID token %v", c.wanted, access["acr"], id["acr"])
		}
		if again := p.refresh(issued.text("refresh_token")); claimsOf(t, again.text("access_token"))["acr"] != c.acr {
			t.Errorf("%q: after a refresh %s", c.wanted, again.raw)
		}
		if told := p.introspect(issued.text("access_token")); told.json["acr"] != c.acr || told.json["auth_time"] == nil {
			t.Errorf("%q: introspection %s", c.wanted, told.raw)
		}
	}
	got, _ := step(b, "acr_values", "phr")
	if got.leadsTo("passkeys") == "" || got.leadsTo("totp") != "" {
		t.Errorf("a passkey is wanted: %d %s", got.status, shown(got.body))
	}
	action, form := b.form(got, "cancel")
	form.Set("cancel", "yes")
	p.redirected(b.post(action, form), "who has none, and wants none", "unmet_authentication_requirements")
	p.redirected(b.get(p.authorizeURL("prompt", "none", "acr_values", "phr")), "silently",
		"unmet_authentication_requirements")
	p.redirected(b.get(p.authorizeURL("prompt", "none", "claims",
		`{"id_token":{"acr":{"essential":true,"value":"phr"}}}`)),
		"silently, essential", "unmet_authentication_requirements")

	// A password that an app asks for anew (max_age) is asked for together with the code.
	p.clock.forward(time.Hour)
	if got = b.follow(b.get(p.authorizeURL("max_age", "60", "acr_values", oauth.ACRMFA))); got.asks() != "password" {
		t.Errorf("max_age: %s", shown(got.body))
	}
	if _, code := step(b, "max_age", "60", "acr_values", oauth.ACRMFA); code == "" {
		t.Error("max_age and acr_values")
	}
}

// A device that was approved without the factor gets nothing from an app that demands it, and its user is asked for it
// before they can approve.
func TestDevicesOfAppsThatDemandAFactor(t *testing.T) {
	e := newExplained(t, atHost)
	e.idp = withDevices(e.idp)
	e.clock.stop()
	before := e.device()
	e.approve(before)
	e.demands("my-app", oauth.MFARequired)
	got := e.poll(before)
	got.wants(t, "approved before", http.StatusBadRequest, "access_denied")
	e.shortOf(got.header, "spec.oauth.access.mfa", "pwd")

	device := e.device()
	b := e.browser()
	shownPage := b.enter(device.text("user_code"))
	shownPage = b.follow(b.signIn(shownPage, userEmail, userPassword))
	if shownPage.leadsTo("totp") == "" || strings.Contains(shownPage.body, `name="cancel"`) {
		t.Fatalf("without any factor: %d %s", shownPage.status, shown(shownPage.body))
	}
	secret, _ := e.enrol("user-ann")
	b = e.browser()
	shownPage = b.follow(b.signIn(b.enter(device.text("user_code")), userEmail, userPassword))
	shownPage = b.follow(b.prove(shownPage, "code", e.codeNow(secret)))
	if shownPage.asks() != "decision" {
		t.Fatalf("with the factor: %d %s", shownPage.status, shown(shownPage.body))
	}
	b.follow(b.decide(shownPage, "allow"))
	issued := e.poll(device)
	if issued.status != http.StatusOK || fmt.Sprint(claimsOf(t, issued.text("access_token"))["amr"]) != "[pwd otp mfa]" {
		t.Errorf("%s", issued.raw)
	}
}

// A service gets no token of a user who has not proven as surely as it demands, or as the app demands that called it.
func TestExchangesOfAppsThatDemandAFactor(t *testing.T) {
	p, runs := newExchanger(t)
	subject := p.tokens("scope", "threads:read", "resource", runsAPI).text("access_token")
	issued := runs.swap(subject).text("access_token")
	for _, app := range []string{"runs-api", "my-app"} {
		p.demands(app, oauth.MFARequired)
		runs.swap(subject).wants(t, app+" demands", http.StatusBadRequest, "invalid_request")
		p.files(issued).inactive(t, app+" demands, and a token from an exchange")
		p.demands(app, "")
	}
	if got := runs.swap(subject); got.status != http.StatusOK {
		t.Errorf("%s", got.raw)
	}
	p.files(issued).active(t, "nothing is demanded", nil)
}

// What a trusted identity provider says of a sign-in counts; what nobody vouches for does not.
func TestWhatAnIdentityProviderSaysOfTheSignIn(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	p.demands("my-app", oauth.MFAPhishingResistant)
	for _, c := range []struct {
		rule, acr string
		amr       []string
		enough    bool
	}{
		{"nothing", "", nil, false}, {"a code", "", []string{"pwd", "otp", "mfa"}, false},
		{"a class of its own", "urn:gold", nil, false},
		{"by its class", "phr", nil, true}, {"by its methods", "", []string{"hwk", "pin", "mfa"}, true},
	} {
		up.somebody("user-bob")
		up.always.ACR, up.always.AMR = c.acr, c.amr
		b := p.browser()
		got := b.follow(b.get(p.authorizeURL("idp_hint", "up")))
		got = b.follow(b.through(up, got, "bob@app.test"))
		if enough := !strings.Contains(got.body, "Passkeys cannot be used at this address"); enough != c.enough || enough &&
			got.asks() != "decision" {
			t.Errorf("%s: %d %s", c.rule, got.status, shown(got.body))
		}
	}
}

// Who has no second factor sets one up on the way to the app, and goes on from there: the session is as good as one
// that was begun with it, and nothing is asked twice.
func TestAFactorIsSetUpOnTheWayToTheApp(t *testing.T) {
	p := newIDP(t, atHost)
	p.clock.stop()
	p.demands("my-app", oauth.MFARequired)
	wanted := func(login string) (*browser, page) {
		t.Helper()
		b := p.browser()
		got := b.follow(b.signIn(b.get(p.authorizeURL("scope", "openid", "state", "s-1")), login, userPassword))
		if got.leadsTo("totp") == "" || got.leadsTo("passkeys") == "" {
			t.Fatalf("%d %s", got.status, shown(got.body))
		}
		return b, got
	}
	goesOn := func(b *browser, got page, amr string) {
		t.Helper()
		if got.asks() != "decision" {
			t.Fatalf("%d %s", got.status, shown(got.body))
		}
		got = b.decide(got, "allow")
		if issued := p.exchange(b.answered(got, amr)); fmt.Sprint(claimsOf(t, issued.text("id_token"))["amr"]) != amr ||
			got.location.Query().Get("state") != "s-1" {
			t.Errorf("%v %s", got.location, issued.raw)
		}
	}

	b, got := wanted(userEmail)
	got = b.get(p.issuer + got.leadsTo("totp"))
	_, code := p.shows(got)
	got = b.submit(got, "confirm", "code", code)
	_, rest, _ := strings.Cut(got.body, `href="/oauth/continue?`)
	onward, _, is := strings.Cut(rest, `"`)
	if got.status != http.StatusOK || !is { // the recovery codes, to be kept first
		t.Fatalf("%d %s", got.status, shown(got.body))
	}
	goesOn(b, b.follow(b.get(p.issuer+"/oauth/continue?"+onward)), "[pwd otp mfa]")

	p.demands("my-app", oauth.MFAPhishingResistant)
	b = p.browser()
	got = b.follow(b.signIn(b.get(p.authorizeURL("scope", "openid", "state", "s-1")), "bob@app.test", userPassword))
	got = b.get(p.issuer + got.leadsTo("passkeys"))
	device := &factortest.Authenticator{Origin: p.issuer}
	goesOn(b, b.follow(b.make(got, device)), "[pwd pop user mfa]")

	// From then on the passkey is asked for, and by itself it is enough.
	b = p.browser()
	got = b.follow(b.signIn(b.get(p.authorizeURL("scope", "openid", "state", "s-1")), "bob@app.test", userPassword))
	if b.cookie("session") != "" || got.asksCode() {
		t.Errorf("a password alone, where a passkey is demanded: %s", shown(got.body))
	}
	b.answered(b.follow(b.touch(got, device)), "with the passkey")
	b = p.browser()
	b.answered(b.follow(b.touch(b.get(p.authorizeURL("scope", "openid")), device)), "with the passkey alone")
}

// Whoever opened the page of a new factor with the password alone, before its owner has set one up, adds nothing with
// it afterwards.
func TestNoFactorIsAddedBesideOneThatWasNotProven(t *testing.T) {
	p := newIDP(t, atHost)
	p.clock.stop()
	b := p.browser()
	got := b.account("/account/totp", userEmail)
	_, code := p.shows(got)
	thief := p.browser()
	stolen := thief.account("/account/totp", userEmail)
	_, theirs := p.shows(stolen)
	made := thief.account("/account/passkeys", userEmail)
	b.submit(got, "confirm", "code", code)
	held := p.factors("user-ann")
	if got := thief.follow(thief.submit(stolen, "confirm", "code", theirs)); !got.asksCode() {
		t.Errorf("an authenticator app, by the password alone: %d %s", got.status, shown(got.body))
	}
	if got := thief.follow(thief.make(made, &factortest.Authenticator{Origin: p.issuer})); !got.asksCode() {
		t.Errorf("a passkey, by the password alone: %d %s", got.status, shown(got.body))
	}
	if now := p.factors("user-ann"); now.Revision != held.Revision || len(held.TOTP.Secret) == 0 {
		t.Error("the thief has changed something")
	}
}

// A resource server asks for a surer sign-in, or a younger one, by the challenge of RFC 9470, and gets it: the app
// takes the challenge to the authorization endpoint as it is, and its user is asked for what is missing and for nothing
// else.
func TestStepUpAtAResourceServer(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.clock.stop()
	secret, _ := p.enrol("user-ann")
	stored := p.factors("user-ann")
	// Somebody who has no authenticator app signs in by the password alone.
	a, err := p.store.Account(t.Context(), "user-bob")
	if err != nil {
		t.Fatal(err)
	}
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := p.files(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")).json
		acr, _ := token["acr"].(string)
		at, _ := token["auth_time"].(float64)
		why := ""
		switch {
		case token["active"] != true:
			why = `error="invalid_token"`
		case r.Method == http.MethodDelete && acr != oauth.ACRMFA && acr != oauth.ACRPhishingResistant:
			why = `error="insufficient_user_authentication", acr_values="` + oauth.ACRMFA + ` ` +
				oauth.ACRPhishingResistant + `"`
		case r.Method == http.MethodPut && p.clock.now().Sub(time.Unix(int64(at), 0)) > 5*time.Minute:
			why = `error="insufficient_user_authentication", max_age="300"`
		}
		if why != "" {
			w.Header().Set("WWW-Authenticate", "Bearer "+why)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(files.Close)
	call := func(method, token string) (status int, challenge map[string]string) {
		t.Helper()
		resp, err := http.DefaultTransport.RoundTrip(p.request(method, files.URL, "", "Authorization", "Bearer "+token))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		challenge = make(map[string]string)
		for _, found := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(resp.Header.Get("WWW-Authenticate"),
			-1) {
			challenge[found[1]] = found[2]
		}
		return resp.StatusCode, challenge
	}
	b := p.browser()
	token := func(changes ...string) string {
		t.Helper()
		got := b.follow(b.get(p.authorizeURL(append(changes, "resource", filesAPI)...)))
		if got.asks() == "password" {
			got = b.follow(b.signIn(got, "bob@app.test", userPassword))
		}
		if got.asksCode() {
			p.clock.forward(30 * time.Second)
			got = b.follow(b.prove(got, "code", p.codeNow(secret)))
		}
		if got.asks() == "decision" {
			got = b.follow(b.decide(got, "allow"))
		}
		return p.exchange(b.answered(got, strings.Join(changes, " "))).text("access_token")
	}
	plain := token()
	if status, _ := call(http.MethodGet, plain); status != http.StatusOK {
		t.Errorf("to read: %d", status)
	}
	// The user sets up an app of their own; the session and the token stay what they are.
	if _, _, err := p.store.ChangeFactors(t.Context(), a,
		storage.FactorChange{Next: storage.Factors{TOTP: stored.TOTP}}); err != nil {
		t.Fatal(err)
	}
	status, asked := call(http.MethodDelete, plain)
	if status != http.StatusUnauthorized || asked["error"] != "insufficient_user_authentication" {
		t.Fatalf("%d %v", status, asked)
	}
	surer := token("acr_values", asked["acr_values"])
	if status, asked = call(http.MethodDelete, surer); status != http.StatusOK {
		t.Errorf("after the step up: %d %v", status, asked)
	}
	p.clock.forward(20 * time.Minute)
	if status, asked = call(http.MethodPut, surer); status != http.StatusUnauthorized || asked["max_age"] != "300" {
		t.Fatalf("%d %v", status, asked)
	}
	if status, asked = call(http.MethodPut, token("max_age", asked["max_age"])); status != http.StatusOK {
		t.Errorf("after another sign-in: %d %v", status, asked)
	}
}
