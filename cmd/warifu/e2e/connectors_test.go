//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestConnectors: people sign in at another identity provider, which is a warifu as well, of another site. It does so
// by a link, by a form of that site, straight away when there is no choice, and it may be away.
func TestConnectors(t *testing.T) {
	t.Parallel()
	upstream := serve(t, t.TempDir(), map[string]string{"ann": "correct horse"})
	dir := t.TempDir()
	logo := filepath.Join(dir, "logo.svg")
	if err := os.WriteFile(logo,
		[]byte(
			`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path fill="#0b6e4f" d="M16 1l15 15-15 15L1 16z"/></svg>`), 0o600); err != nil {
		t.Fatal(err)
	}
	// Of another site than the upstream, which is 127.0.0.1, so that cookies are what they are on the web.
	_, port, _ := strings.Cut(freeAddress(t), ":")
	issuer := "http://localhost:" + port
	client, secret := upstream.client(t, "gate", issuer+"/callback/corp", issuer+"/callback")
	corp := fmt.Sprintf("{type: oidc, id: corp, name: Example Corp., logoFile: %s, config: {issuer: %s, clientID: %s, "+
		"clientSecret: %s, redirectURI: %s/callback/corp, userNameKey: email}}",
		logo, upstream.ready.Issuer, client, secret, issuer)
	away := fmt.Sprintf("{type: oidc, id: away, name: 大学の認証サーバー, config: {issuer: 'http://127.0.0.1:1', clientID: x, "+
		"clientSecret: x, redirectURI: %s/callback}}", issuer)
	ldap := "{type: ldap, id: ldap, name: Staff directory, config: {host: '127.0.0.1:1', insecureNoSSL: true, " +
		"usernamePrompt: Personnel number, userSearch: {baseDN: 'dc=example', username: uid, idAttr: uid, emailAttr: " +
		"mail, nameAttr: cn}}}"
	all := []string{corp, away, ldap}
	for _, name := range []string{"GitHub", "GitLab", "A name that is longer than what anybody would call it here",
		"Gitea", "Bitbucket"} {
		id := strings.ToLower(strings.Fields(name)[0])
		all = append(all, fmt.Sprintf("{type: github, id: g-%s, name: %s, config: {clientID: x, clientSecret: x, "+
			"redirectURI: %s/callback}}", id, name, issuer))
	}
	gate := serveAt(t, t.TempDir(), issuer, map[string]string{"bob": "battery staple"}, "connectors: ["+
		strings.Join(all, ", ")+"]\n")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(gate.words)
		}
	})
	a := gate.deploy(t, "board", "")
	const byCorp, byAway, byLDAP = `a[href*="/connect/corp"]`, `a[href*="/connect/away"]`, `a[href*="/connect/ldap"]`
	for _, lang := range []string{"en", "ja"} {
		_, b := newPerson(t, lang)
		b.open(a.url("/login"))
		b.onSignIn()
		if loaded := run(b,
			chromedp.Evaluate[bool](
				`[...document.querySelectorAll('.ways img')].some(i => i.complete && i.naturalWidth > 0)`)); !loaded {
			t.Error("the logo does not show")
		}
		b.shoot("connectors-eight", lang)
		b.press(byLDAP)
		b.shoot("connectors-directory", lang)
		b.fill("#login", "4711")
		b.fill("#password", "secret")
		if got := b.press(submit); got.Status != http.StatusServiceUnavailable {
			t.Errorf("a directory that is away: %d", got.Status)
		}
		b.shoot("connectors-directory-away", lang)
		if got := b.press(byAway); got.Status != http.StatusServiceUnavailable || b.text(problem) == "" {
			t.Errorf("an identity provider that is away: %d", got.Status)
		}
		b.shoot("connectors-away", lang)
		// The links of the page lead to it in the other language, and not away again.
		b.press(linkEnglish)
		b.onSignIn()
		b.press(byCorp)
		if !strings.HasPrefix(b.address(), upstream.ready.Issuer) {
			t.Fatalf("not there, but at %s", b.address())
		}
		// It answers by a form of its own site, which brings no cookies of ours.
		if lang == "ja" {
			b.open(b.address() + "&response_mode=form_post")
		}
		b.signIn("ann", "correct horse")
		if lang == "en" { // the other time it is the same person, whom both have asked
			if strings.HasPrefix(b.address(), upstream.ready.Issuer) {
				b.press(allow)
			}
			b.onConsent()
			b.shoot("connectors-consent", "en")
			if !strings.HasPrefix(b.address(), issuer) || !strings.Contains(b.readConsent().Who, "ann@example.com") {
				t.Errorf("not back, but at %s", b.address())
			}
			b.press(allow)
		}
		if result := b.text("#result"); result != "signed in" { // waits for it
			t.Fatalf("the app says %q", result)
		}
		// Whoever signs out is offered to sign out there, too.
		b.open(issuer + "/oauth/logout")
		b.press(`button[value="signout"]`)
		b.shoot("connectors-signedout", "en")
		if !b.has(`a[href^="` + upstream.ready.Issuer + `"]`) {
			t.Error("no way to sign out there")
		}
	}
	// One connector alone needs no page.
	_, port, _ = strings.Cut(freeAddress(t), ":")
	alone := "http://localhost:" + port
	client, secret = upstream.client(t, "alone", alone+"/callback")
	file := serveAt(t, t.TempDir(), alone, nil, fmt.Sprintf("connectors: [{type: oidc, id: corp, name: Example Corp., "+
		"config: {issuer: %s, clientID: %s, clientSecret: %s, redirectURI: %s/callback, userNameKey: email}}]\n",
		upstream.ready.Issuer, client, secret, alone))
	a = file.deploy(t, "sole", "")
	_, b := newPerson(t, "en")
	b.open(a.url("/login?scope=openid+email"))
	b.signIn("ann", "correct horse")
	if b.has(allow) && strings.HasPrefix(b.address(), upstream.ready.Issuer) {
		b.press(allow)
	}
	b.onConsent()
	b.press(notYou)
	if !strings.HasPrefix(b.address(), alone) || b.has("#password") {
		t.Errorf("somebody else is at %s", b.address())
	}
	b.shoot("connectors-one", "en")
	b.press(`a[href*="/connect/corp"]`)
	if !strings.HasPrefix(b.address(), upstream.ready.Issuer) {
		t.Errorf("at %s", b.address())
	}
}

// client registers a client with its redirect URIs, and returns its id and secret.
func (p *process) client(t *testing.T, name string, redirectURIs ...string) (id, secret string) {
	t.Helper()
	text := fmt.Sprintf("---\napiVersion: takos.dev/v1alpha1\nkind: App\nmetadata:\n  name: %s\nspec:\n"+
		"  version: 1.0.0\n  workers:\n    web: {}\n  oauth:\n    clientName: Gate\n"+
		"    redirectUris: ['%s']\n    postLogoutRedirectUris: ['%s']\n    scopes: [openid, profile, email]\n"+
		"    autoEnv: true\n", name, strings.Join(redirectURIs, "', '"), strings.Split(redirectURIs[0], "/callback")[0]+
		"/oauth/logout")
	command(t, text, "apply", "-f", "-", "--yes", "--wait", "--admin", p.ready.Admin)
	var deliveries []struct {
		Location string `json:"location"`
	}
	out := command(t, "", "get", "deliveries", "--app", name, "-o", "json", "--admin", p.ready.Admin)
	if err := json.Unmarshal([]byte(out), &deliveries); err != nil || len(deliveries) != 1 {
		t.Fatalf("deliveries of %s: %s (%v)", name, out, err)
	}
	env := readEnv(t, deliveries[0].Location)
	return env["OAUTH_CLIENT_ID"], env["OAUTH_CLIENT_SECRET"]
}
