package server_test

import (
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

// The scopes that tell who somebody is share one line of the consent page, which names what there is to tell of this
// user; but for those that the operator has put into words of their own.
func TestConsentNamesWhatIsKnown(t *testing.T) {
	p := newIDP(t, func(c *server.Config) {
		c.Scopes = append(c.Scopes[:0:0], server.Scope{Name: "address",
			Description: map[string]string{"en": "Send you parcels", "ja": "荷物の発送"}, Risk: server.RiskWrite})
	})
	p.update("my-app", func(c *storage.Client) {
		c.Scopes = []string{"openid", "profile", "email", "phone", "address", "offline_access"}
	})
	for login, c := range map[string]struct{ scope, line, names string }{
		userEmail: {"openid profile email phone", "Confirm who you are, and see your name, user name, picture, web " +
			"pages, gender, " +
			"date of birth, time zone, language, e-mail address and phone number<", ">openid profile email phone<"},
		"bob@app.test": {"openid profile email phone", "Confirm who you are, and see your e-mail address<",
			">openid profile email phone<"},
		"ann": {"openid offline_access", "Confirm who you are<", ">openid<"},
	} {
		b := p.browser()
		got := b.follow(b.signIn(b.get(p.authorizeURL("scope", c.scope)), login, userPassword))
		if !strings.Contains(got.body, c.line) || !strings.Contains(got.body, c.names) ||
			strings.Contains(got.body, "View your") {
			t.Errorf("%s, %s: no %q\n%s", login, c.scope, c.line, got.body)
		}
	}
	b := p.browser()
	got := b.follow(b.signIn(b.get(p.authorizeURL("scope", "email address phone", "ui_locales", "ja")), "bob@app.test",
		userPassword))
	for _, want := range []string{"メールアドレスの閲覧<", ">email phone<", "荷物の発送<", ">address<"} {
		if !strings.Contains(got.body, want) {
			t.Errorf("no %q\n%s", want, got.body)
		}
	}
	// Nothing is known, so the line says what it would be.
	got = b.get(p.authorizeURL("scope", "phone", "ui_locales", "ja"))
	if !strings.Contains(got.body, "電話番号の閲覧<") {
		t.Error(shown(got.body))
	}
}

// The front page is no dead end: it leads to a sign-in, and from there to the apps that say where they begin.
func TestLandingLeadsOn(t *testing.T) {
	p := newIDP(t)
	p.update("my-app", func(c *storage.Client) { c.InitiateLoginURI = "https://app.test/login" })
	p.register("quiet-app", func(c *storage.Client) { c.ClientName = "Quiet App" })
	b := p.browser()
	front := b.get(p.issuer + "/")
	if !strings.Contains(front.body, `href="/signin"`) || strings.Contains(front.body, "My App") {
		t.Fatal(front.body)
	}
	signIn := b.get(p.issuer + "/signin")
	if signIn.asks() != "password" || strings.Contains(signIn.body, `name="cancel"`) ||
		strings.Contains(signIn.body, "to continue to") {
		t.Fatalf("%d\n%s", signIn.status, shown(signIn.body))
	}
	p.clock.forward(overtime)
	wrong := b.signIn(signIn, userEmail, "wrong")
	home := b.follow(b.signIn(wrong, userEmail, userPassword))
	if home.address != p.issuer+"/" || !strings.Contains(home.body, userEmail) ||
		!strings.Contains(home.body, ">My App<") ||
		strings.Contains(home.body, "Quiet App") {
		t.Fatalf("at %s\n%s", home.address, home.body)
	}
	if got := b.follow(b.get(p.issuer + "/signin")); got.address != p.issuer+"/" {
		t.Errorf("signed in already: at %s", got.address)
	}
	start := b.get(p.issuer + "/oauth/start?client_id=" + p.client.ID)
	if start.location == nil || start.location.Host != "app.test" ||
		!strings.Contains(home.body, "/oauth/start?client_id="+p.client.ID) {
		t.Errorf("the app begins at %v", start.location)
	}
}
