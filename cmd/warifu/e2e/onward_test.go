//go:build e2e

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// TestCallbackGoesOnToAnotherSite: what an app does with a person who comes back is its own affair. Browsers hold each
// redirect after a form against the policy of the form's page, and this one would say so.
func TestCallbackGoesOnToAnotherSite(t *testing.T) {
	t.Parallel()
	a := newApp(t, "goes-on", "postLogoutRedirectUris: ['{app}/bye']")
	a.sendsOn(t)
	_, b := newPerson(t, "en")
	arrives := func(rule, code string) {
		t.Helper()
		if text := b.text("h1"); text != "Terms" || b.address() != a.onward+"?error="+code {
			t.Fatalf("%s: at %s: %s", rule, b.address(), b.text("body"))
		}
	}
	b.open(a.url("/login"))
	b.press(cancel)
	arrives("cancel", "access_denied")
	b.open(a.url("/login"))
	b.signInAs(suite.server)
	b.onConsent()
	b.press(deny)
	arrives("deny", "access_denied")
	b.open(a.url("/login"))
	b.press(allow)
	arrives("allow", "")
	b.open(a.url("/login"))
	arrives("allowed before", "")
	b.open(a.url("/login?prompt=login"))
	b.signInAs(suite.server)
	arrives("sign in again", "")
	b.open(a.url("/login?prompt=consent&response_mode=form_post"))
	b.press(allow)
	b.text("h1")
	arrives("form_post", "")
	if a.came() != 6 {
		t.Errorf("%d came back", a.came())
	}
	b.open(a.url("/logout?hint=none"))
	b.press(`button[value="signout"]`)
	arrives("sign out", "")
	if policies := strings.Join(b.took(), "\n"); strings.Contains(policies, "form-action") {
		t.Error(policies)
	}
}

// publicApp registers an app with the shared server that keeps no secret and has one redirect URI, under a name that no
// other test has. more is what else its manifest registers.
func publicApp(t *testing.T, name, redirectURI string, more ...string) credentials {
	t.Helper()
	name += "-" + strings.ToLower(rand.Text()[:8])
	text := strings.NewReplacer("http://localhost:*/callback", redirectURI, "autoEnv: true", "public: true").
		Replace(manifest(name, "", more...))
	command(t, text, "apply", "-f", "-", "--yes", "--admin", suite.server.ready.Admin)
	var c credentials
	said := command(t, "", "credentials", name, "-o", "json", "--admin", suite.server.ready.Admin)
	if err := json.Unmarshal([]byte(said), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestInstalledApp: the page after the consent leaves for the app by itself, and has a link for browsers that want a
// person to press.
func TestInstalledApp(t *testing.T) {
	t.Parallel()
	const redirectURI = "com.example.app:/cb"
	client := publicApp(t, "installed", redirectURI)
	_, b := newPerson(t, "en")
	b.open(client.Issuer + "/oauth/authorize?" + url.Values{
		"client_id": {client.ClientID}, "redirect_uri": {redirectURI}, "response_type": {"code"}, "scope": {"openid"},
		"state": {"s"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"},
		"code_challenge_method": {"S256"},
	}.Encode())
	b.signInAs(suite.server)
	b.onConsent()
	if host := b.readConsent().Host; host != "com.example.app:" {
		t.Errorf("access goes to %q", host)
	}
	leaves := func(e page.EventFrameRequestedNavigation) bool { return strings.HasPrefix(e.URL, redirectURI+"?code=") }
	run(b, chromedp.WaitEvent(page.FrameRequestedNavigation, leaves, chromedp.Click(chromedp.CSS(allow))))
	link := run(b, chromedp.Evaluate[string](`document.querySelector('main a.button').href`))
	if !strings.HasPrefix(link, redirectURI+"?code=") || !strings.Contains(link, "&state=s") {
		t.Errorf("the link leads to %s", link)
	}
	if text := b.text("main"); !strings.Contains(text, "com.example.app:") {
		t.Errorf("the page says %q", text)
	}
	b.excuse("com.example.app") // nobody has installed it
}
