package server_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// sentTo reports whether an answer sends the browser to an identity provider.
func (got page) sentTo(u *upstream) bool {
	return got.location != nil && strings.HasPrefix(got.location.String(), u.issuer+"/")
}

// One connector alone needs no page, unless the operator wants it, or the user is back from there.
func TestOneConnectorAloneNeedsNoPage(t *testing.T) {
	up := newUpstream(t, "up")
	p := newIDP(t, func(c *server.Config) { c.Connectors = []connector.Connector{up.of(c.Issuer)} })
	metadata := p.send(p.request(http.MethodGet, p.issuer+"/.well-known/openid-configuration", ""))
	if told := texts(metadata.json["acr_values_supported"]); !slices.Equal(told, []string{"urn:warifu:acr:mfa"}) {
		t.Errorf("nobody has a password, and the metadata says %v", metadata.json["acr_values_supported"])
	}
	b := p.browser()
	got := b.get(p.authorizeURL())
	if !got.sentTo(up) {
		t.Fatalf("%d to %v", got.status, got.location)
	}
	up.doneErr = connector.Refuse("no")
	got = b.get(b.through(up, got, "bob@app.test").location.String())
	if got.status != http.StatusForbidden || got.asks() == "password" || !strings.Contains(got.body, "Sign in with UP") {
		t.Errorf("after a refusal: %d %s", got.status, shown(got.body))
	}
	_, form := b.form(got, "cancel")
	for name, address := range map[string]string{
		"a reload": p.issuer + "/oauth/continue?" + url.Values{"request": {form.Get("request")}}.Encode(),
		"a new language": p.issuer + "/oauth/continue?" + url.Values{"request": {form.Get("request")},
			"lang": {"en"}}.Encode(),
	} {
		if again := b.get(address); again.location != nil || again.status != http.StatusOK {
			t.Errorf("%s after a refusal: %d to %v", name, again.status, again.location)
		}
	}
	action, form := b.form(got, "cancel")
	form.Set("cancel", "yes")
	p.redirected(b.post(action, form), "cancelled", "access_denied")
	up.doneErr = nil
	// Who wants to be somebody else is not taken back at once to where they are signed in.
	got = b.follow(b.through(up, b.press(b.follow(b.get(b.p.issuer+"/oauth/continue?request="+
		url.QueryEscape(form.Get("request")))), "up"), "bob@app.test"))
	got = b.follow(b.decide(got, "switch"))
	if got.location != nil || !strings.Contains(got.body, "Sign in with UP") {
		t.Errorf("somebody else: %d to %v %s", got.status, got.location, shown(got.body))
	}
	if b.press(got, "up"); !up.started[len(up.started)-1].SelectAccount {
		t.Errorf("%+v", up.started[len(up.started)-1])
	}
	// The front page, and a device.
	front := p.browser()
	if got := front.get(p.issuer + "/"); !strings.Contains(got.body, `href="/signin"`) {
		t.Error("the front page leads to no sign-in")
	}
	if got := front.follow(front.through(up, front.get(p.issuer+"/signin"),
		"bob@app.test")); got.status != http.StatusOK || !strings.Contains(got.body, "bob@app.test") {
		t.Errorf("the front page: %d %s", got.status, shown(got.body))
	}
	p.update("my-app", func(c *storage.Client) { c.GrantTypes = append(oauth.UsualGrantTypes(), oauth.GrantDeviceCode) })
	device := p.device()
	person := p.browser()
	got = person.get(p.issuer + "/device")
	action, form = person.form(got, "user_code")
	form.Set("user_code", device.text("user_code"))
	got = person.follow(person.post(action, form))
	if got.status != http.StatusOK && got.status != http.StatusSeeOther || !got.sentTo(up) {
		t.Fatalf("a device: %d to %v", got.status, got.location)
	}
	if got = person.follow(person.through(up, got, "bob@app.test")); got.asks() != "decision" {
		t.Fatalf("a device: %d %s", got.status, shown(got.body))
	}
	if got = person.follow(person.decide(got, "allow")); got.status != http.StatusOK ||
		!strings.Contains(got.body, "Your device is connected") {
		t.Errorf("a device: %d %s", got.status, shown(got.body))
	}
	p.cfg.AlwaysShowLoginScreen = true
	p.restart()
	p.transport = direct{p}
	if got := p.browser().get(p.authorizeURL()); got.location != nil || !strings.Contains(got.body, "Sign in with UP") {
		t.Errorf("alwaysShowLoginScreen: %d to %v", got.status, got.location)
	}
}

// What the app wants of the sign-in goes along, and is held against what comes back.
func TestFreshSignInsAtAnIdentityProvider(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	for param, value := range map[string]string{"prompt": "login", "max_age": "60"} {
		b := p.browser()
		up.always = nil
		b.by(up, "bob@app.test")
		got := b.follow(b.get(p.authorizeURL(param, value, "idp_hint", "up")))
		if param == "max_age" {
			if got.location == nil || got.location.Query().Get("code") == "" {
				t.Errorf("a fresh one is there: %d to %v", got.status, got.location)
			}
			p.clock.forward(2 * time.Minute)
			got = b.get(p.authorizeURL(param, value, "idp_hint", "up"))
		}
		if ask := up.started[len(up.started)-1]; !got.sentTo(up) || !ask.Fresh {
			t.Errorf("%s: %+v, %d to %v", param, ask, got.status, got.location)
		}
		// It says that this was long ago: then it does not count, and nobody is sent in a circle.
		up.somebody("user-bob")
		up.always.AuthTime = time.Now().Add(-time.Hour)
		got = b.get(b.through(up, got, "bob@app.test").location.String())
		if got.status != http.StatusForbidden || !strings.Contains(got.body, "UP did not ask who you are") ||
			got.location != nil {
			t.Errorf("%s: %d to %v %s", param, got.status, got.location, shown(got.body))
		}
	}
	// Without such a wish it counts, and the app is told when it was, and how.
	up.always.AMR, up.always.ACR = []string{"hwk", "mfa"}, "urn:example:loa3"
	b := p.browser()
	claims := claimsOf(t, p.exchange(b.by(up, "bob@app.test", "scope", "openid", "acr_values", "x")).text("id_token"))
	amr, _ := claims["amr"].([]any)
	if at, _ := claims["auth_time"].(float64); int64(at) != up.always.AuthTime.Unix() || len(amr) != 2 ||
		claims["acr"] != up.always.ACR {
		t.Errorf("%v", claims)
	}
	essential := func(values string) string { return `{"id_token":{"acr":{"essential":true,"values":[` + values + `]}}}` }
	if code := p.browser().by(up, "bob@app.test", "scope", "openid", "claims",
		essential(`"urn:example:loa3"`)); code == "" {
		t.Error("an acr that the upstream has")
	}
	up.always.AMR = nil // by methods that are known to be surer than a password, it would be one as well
	other := p.browser()
	got := other.press(other.get(p.authorizeURL("scope", "openid", "claims", essential(`"urn:warifu:acr:pwd"`))), "up")
	p.redirected(other.follow(other.through(up, got, "bob@app.test")), "an acr that it has not",
		"unmet_authentication_requirements")
	// Who has signed in by another way before can still do so by the one that is asked for.
	b = p.browser()
	b.by(up, "bob@app.test")
	if got := b.get(p.authorizeURL("scope", "openid", "claims",
		essential(`"urn:warifu:acr:pwd"`))); got.asks() != "password" {
		t.Errorf("a password is asked for: %d to %v", got.status, got.location)
	}
}

// An app that is for users of certain connectors offers those alone.
func TestAppsOfCertainConnectors(t *testing.T) {
	up, other := newUpstream(t, "up"), newUpstream(t, "other")
	p := federated(t, []*upstream{up, other})
	p.update("my-app", func(c *storage.Client) { c.AccessConnectors = []string{"other", connector.StaticName} })
	b := p.browser()
	got := b.get(p.authorizeURL())
	if strings.Contains(got.body, "/oauth/connect/up?") || !strings.Contains(got.body, "/oauth/connect/other?") ||
		got.asks() != "password" {
		t.Error(shown(got.body))
	}
	if got := b.get(p.authorizeURL("connector_id", "up")); got.location != nil {
		t.Errorf("a hint to the other: %v", got.location)
	}
	p.update("my-app", func(c *storage.Client) { c.AccessConnectors = []string{"other"} })
	if got := b.get(p.authorizeURL()); !got.sentTo(other) {
		t.Errorf("only one is left: %d to %v", got.status, got.location)
	}
	p.update("my-app", func(c *storage.Client) { c.AccessConnectors = []string{"gone"} })
	if got := b.get(p.authorizeURL()); got.status != http.StatusServiceUnavailable ||
		!strings.Contains(got.body, "no way to sign in") {
		t.Errorf("none is left: %d %s", got.status, shown(got.body))
	}
}

// A directory has a form of its own, with the words of its people, and its own count of guesses.
func TestSigningInByADirectory(t *testing.T) {
	dir := &directory{people: map[string]string{"ann": "secret of ann", "bob": "secret of bob"}}
	p := newIDP(t, func(c *server.Config) {
		c.Connectors = append(c.Connectors, connector.Connector{ID: "ldap", Name: "University",
			Prompt: "Matriculation number", Password: dir})
	})
	p.clock.begin()
	b := p.browser()
	signIn := b.press(b.get(p.authorizeURL("scope", "openid", "acr_values", "x")), "ldap")
	action, _ := b.form(signIn, "password")
	if !strings.Contains(signIn.body, "Matriculation number") || action != p.issuer+"/oauth/signin/ldap" ||
		!strings.Contains(signIn.body, "Sign in with a password") {
		t.Fatal(shown(signIn.body))
	}
	if got := b.signIn(signIn, "ann", "wrong"); got.status != http.StatusUnprocessableEntity ||
		!strings.Contains(got.body, "Matriculation number") || !strings.Contains(got.body, `value="ann"`) {
		t.Errorf("a wrong password: %d %s", got.status, shown(got.body))
	}
	got := b.follow(b.signIn(signIn, "ann", "secret of ann"))
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	claims := claimsOf(t, p.exchange(b.answered(got, "signed in")).text("id_token"))
	amr, _ := claims["amr"].([]any)
	if claims["sub"] != connector.SubjectsHashed.Of("ldap", "uid=ann") || len(amr) != 1 || amr[0] != "pwd" ||
		claims["acr"] != "urn:warifu:acr:pwd" {
		t.Errorf("%v", claims)
	}
	stranger := p.browser()
	signIn = stranger.press(stranger.get(p.authorizeURL()), "ldap")
	for i := range 10 {
		if got := stranger.signIn(signIn, []string{"ann", "ANN"}[i%2],
			"guess"); got.status != http.StatusUnprocessableEntity {
			t.Fatalf("guess %d: %d", i, got.status)
		}
	}
	asked := dir.asked.Load()
	if got := stranger.signIn(signIn, "ann", "secret of ann"); got.status != http.StatusTooManyRequests ||
		dir.asked.Load() != asked {
		t.Errorf("the eleventh guess: %d", got.status)
	}
	if got := stranger.follow(stranger.signIn(signIn, "bob", "secret of bob")); got.asks() != "decision" {
		t.Errorf("another name: %d", got.status)
	}
	if p.browser().code() == "" { // the user of this name here is another
		t.Error("a user of the configuration is locked")
	}
	p.clock.forward(time.Second)
	again := b.press(b.get(p.authorizeURL("prompt", "login")), "ldap")
	if got := b.follow(b.signIn(again, "ann", "secret of ann")); got.status == http.StatusTooManyRequests {
		t.Error("the browser in which they sign in always is locked, too")
	}
	// It is away: that is no wrong password, and nobody else suffers.
	dir.err = errAway
	fresh := p.browser()
	if got := fresh.signIn(fresh.press(fresh.get(p.authorizeURL()), "ldap"), "bob",
		"secret of bob"); got.status != http.StatusServiceUnavailable ||
		!strings.Contains(got.body, "University does not answer") || !strings.Contains(got.body, "Matriculation number") {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
	dir.err = connector.Refuse("the reason")
	if got := fresh.signIn(fresh.press(fresh.get(p.authorizeURL()), "ldap"), "bob",
		"secret of bob"); got.status != http.StatusForbidden ||
		strings.Contains(got.body, "the reason") {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
	p.browser().code()
	// Alone, its form is the page.
	p.reload(func(c *server.Config) { c.Connectors = p.cfg.Connectors[1:] })
	dir.err = nil
	alone := p.browser()
	got = alone.get(p.authorizeURL())
	if !strings.Contains(got.body, "Matriculation number") || strings.Contains(got.body, "/oauth/connect/ldap?request=") &&
		strings.Contains(got.body, "Sign in with") {
		t.Fatal(shown(got.body))
	}
	if got := alone.follow(alone.signIn(got, "bob", "secret of bob")); got.asks() != "decision" {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
	if got := alone.post(p.issuer+"/oauth/signin", url.Values{}); got.status != http.StatusBadRequest {
		t.Errorf("%d", got.status)
	}
}

// A browser that has a ticket is asked for no password.
func TestSigningInByATicket(t *testing.T) {
	p := newIDP(t, func(c *server.Config) {
		c.Connectors = append(c.Connectors, connector.Connector{ID: "ldap", Name: "University",
			Password: ticketed{&directory{}}})
	})
	b := p.browser()
	got := b.press(b.get(p.authorizeURL("scope", "openid")), "ldap")
	if got.asks() != "password" {
		t.Fatalf("without a ticket: %d %s", got.status, shown(got.body))
	}
	with := func(authorization string) page {
		return b.do(p.request(http.MethodGet, got.address, "", "Authorization", "Negotiate "+authorization))
	}
	if got := with("ask"); got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != "Negotiate" {
		t.Errorf("%d", got.status)
	}
	if got := with("fault"); got.status != http.StatusServiceUnavailable || got.asks() != "password" {
		t.Errorf("%d", got.status)
	}
	got = b.follow(with("good"))
	claims := claimsOf(t, p.exchange(b.answered(b.follow(b.decide(got, "allow")), "a ticket")).text("id_token"))
	if amr, _ := claims["amr"].([]any); len(amr) != 1 || amr[0] != "kerberos" {
		t.Errorf("%v", claims)
	}
}

// An identity provider that is asked by a form gets it from a page of ours.
func TestAskingByAForm(t *testing.T) {
	up := newUpstream(t, "saml")
	up.somebody("ann")
	var asked connector.Away
	p := newIDP(t, func(c *server.Config) {
		made := up.of(c.Issuer)
		made.Redirect = posting{up, &asked}
		c.Connectors = append(c.Connectors, made)
	})
	asked = connector.Away{URL: "https://idp.example/saml?x=1&y=2", Post: map[string]string{"SAMLRequest": `"><script>`,
		"RelayState": "r"}}
	b := p.browser()
	got := b.press(b.get(p.authorizeURL()), "saml")
	action, fields := b.form(got, "SAMLRequest")
	policy := got.header.Get("Content-Security-Policy")
	if action != asked.URL || fields.Get("SAMLRequest") != `"><script>` ||
		!strings.Contains(policy, "script-src 'sha256-") ||
		strings.Contains(html.UnescapeString(got.body), `action="javascript`) {
		t.Errorf("%s %v %s", action, fields, policy)
	}
	asked.URL = "javascript:alert(1)"
	if got := b.press(b.get(p.authorizeURL()), "saml"); strings.Contains(got.body, "javascript:") {
		t.Error(shown(got.body))
	}
}

// Whoever signs out is offered to sign out of their identity provider as well, and comes back from there.
func TestSigningOutOfTheIdentityProviderAsWell(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	up.update("my-app", func(c *storage.Client) { c.PostLogoutRedirectURIs = []string{p.issuer + "/oauth/logout"} })
	link := func(got page) string {
		_, rest, _ := strings.Cut(got.body, `href="`+up.issuer)
		address, _, _ := strings.Cut(rest, `"`)
		return up.issuer + html.UnescapeString(address)
	}
	b := p.browser()
	b.by(up, "bob@app.test")
	got := b.decide(b.get(p.issuer+"/oauth/logout"), "signout")
	if !strings.Contains(got.body, "Sign out of UP as well") || b.signedIn() {
		t.Fatal(shown(got.body))
	}
	there := &browser{up.idp, b.http}
	got = there.decide(there.get(link(got)), "signout")
	if got.location == nil || got.location.String() != p.issuer+"/oauth/logout" {
		t.Fatalf("%d to %v %s", got.status, got.location, shown(got.body))
	}
	if got := b.get(got.location.String()); !strings.Contains(got.body, "You are signed out") {
		t.Error(shown(got.body))
	}
	// One that is away keeps nobody from signing out here, and neither does another way to sign in.
	b.by(up, "bob@app.test")
	up.startErr = errAway
	if got := b.decide(b.get(p.issuer+"/oauth/logout"), "signout"); strings.Contains(got.body, "Sign out of UP") ||
		b.signedIn() {
		t.Error(shown(got.body))
	}
	b = p.browser()
	b.code()
	if got := b.decide(b.get(p.issuer+"/oauth/logout"), "signout"); strings.Contains(got.body, "Sign out of UP") {
		t.Error(shown(got.body))
	}
}

// A directory that hangs keeps nobody waiting but those who sign in by it.
func TestADirectoryThatHangsKeepsNobodyElseWaiting(t *testing.T) {
	const hanging = 40 // more passwords than are checked at once
	dir := occupied{Password: &directory{}, begun: make(chan string, hanging), let: make(chan struct{})}
	p := newIDP(t, trusting("127.0.0.0/8", "::1/128"), func(c *server.Config) {
		c.Connectors = append(c.Connectors, connector.Connector{ID: "ldap", Name: "University", Password: dir})
	})
	b := p.browser()
	form := b.press(b.get(p.authorizeURL()), "ldap")
	var all sync.WaitGroup
	for i := range hanging {
		all.Go(func() { b.from(fmt.Sprintf("198.51.100.%d", i+1), form, fmt.Sprint("user ", i), "secret") })
	}
	for range hanging {
		<-dir.begun
	}
	if p.browser().code() == "" {
		t.Error("a user of the configuration cannot sign in")
	}
	close(dir.let)
	all.Wait()
}
