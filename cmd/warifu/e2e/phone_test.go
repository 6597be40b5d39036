//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestConsentFitsAPhone: six scopes, with a logo and links of the developer, and the buttons are on the screen without
// scrolling, not over anything. With everything that an app can ask for they are in reach all the same.
func TestConsentFitsAPhone(t *testing.T) {
	t.Parallel()
	a := newApp(t, "phone")
	type reach struct {
		Form   float64 // where the form ends, from the top of the page
		Height float64 // of the window
		Button float64 // where the button ends, from the top of the window
	}
	for _, lang := range []string{"en", "ja"} {
		_, b := newPerson(t, lang)
		b.open(a.url("/login?scope=openid+profile+email+threads:read+threads:write+runs:read"))
		b.signInAs(suite.server)
		b.onConsent()
		for scopes, fits := range map[string]bool{
			"openid+profile+email+threads:read+threads:write+runs:read":                                          true,
			"openid+profile+email+address+phone+offline_access+threads:read+threads:write+runs:read+files:write": false,
		} {
			b.open(a.url("/login?scope=" + scopes))
			b.onConsent()
			for _, size := range [][2]int64{{390, 844}, {360, 640}} {
				b.resize(size[0], size[1], true)
				got := run(b, chromedp.Evaluate[reach](`(() => ({
					Form: document.querySelector('main form').getBoundingClientRect().bottom + scrollY, Height: innerHeight,
					Button: document.querySelector('button[value="allow"]').getBoundingClientRect().bottom,
				}))()`))
				if fits {
					b.picture(fmt.Sprintf("consent-six-%s-%d.png", lang, size[0]))
				}
				if fits && got.Form > got.Height || got.Button > got.Height {
					t.Errorf("%s, %d x %d, %s: %+v", lang, size[0], size[1], scopes, got)
				}
			}
		}
		b.resize(390, 844, true)
		// Enter decides nothing for somebody who is not at a button.
		b.do(chromedp.KeyEvent(kb.Enter))
		b.onConsent()
	}
}

// picture keeps what the window shows.
func (b *tab) picture(file string) {
	b.t.Helper()
	shot := run(b, func(ctx context.Context, target *chromedp.Target) ([]byte, error) {
		got, err := cdp.Call(ctx, target, page.CaptureScreenshot, page.CaptureScreenshotParams{OptimizeForSpeed: new(true)})
		return got.Data, err
	})
	if err := os.WriteFile(artifact(b.t, file), shot, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// TestShowPassword: a button shows the password that is being typed, Enter still means to sign in, and where scripts do
// not run there is no such button.
func TestShowPassword(t *testing.T) {
	t.Parallel()
	a := newApp(t, "reveal")
	_, b := newPerson(t, "en")
	user := suite.server.ready.User
	const reveal = "#reveal"
	b.open(a.url("/login"))
	b.fill("#login", user.Email)
	b.fill("#password", user.Password)
	state := func(kind, label string) {
		t.Helper()
		if got := run(b,
			chromedp.Evaluate[string](
				`document.querySelector('#password').type + ' ' + document.querySelector('#reveal span:not([hidden])').innerText`)); got != kind+" "+label {
			t.Errorf("the field and its button are %q, want %s and %s", got, kind, label)
		}
		if _, there := heard(b.speak(), "button", label+" password"); !there {
			t.Errorf("no button is called %q", label+" password")
		}
	}
	state("password", "Show")
	b.do(chromedp.Click(chromedp.CSS(reveal)))
	state("text", "Hide")
	b.shoot("signin-revealed", "en")
	b.do(chromedp.Click(chromedp.CSS(reveal)))
	state("password", "Show")
	b.do(chromedp.Click(chromedp.CSS(reveal)), chromedp.Focus(chromedp.CSS("#password")))
	b.key(kb.Enter)
	b.onConsent()

	_, b = newPerson(t, "en")
	b.scripts(false)
	b.open(a.url("/login"))
	b.onSignIn()
	b.scripts(true)
	if shown := run(b, chromedp.Evaluate[bool](`document.querySelector('#reveal').getClientRects().length > 0`)); shown {
		t.Error("a button that does nothing")
	}
}

// TestBranding: pages of an operator with a name, a logo, and places to go for help.
func TestBranding(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logo := filepath.Join(dir, "logo.svg")
	if err := os.WriteFile(logo,
		[]byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 32"><style>.a{fill:#0b6e4f}</style>`+
			`<circle class="a" cx="16" cy="16" r="15"/><path class="a" d="M40 6h70v8H40zM40 18h44v8H40z"/></svg>`),
		0o600); err != nil {
		t.Fatal(err)
	}
	server := serve(t, dir, map[string]string{"ann": "correct horse"}, fmt.Sprintf(
		"branding: {name: Example Identity, logoFile: %s, supportURL: 'mailto:help@example.com', privacyURL: "+
			"'https://example.com/privacy'}\n", logo))
	a := server.deploy(t, "branded", "", "initiateLoginUri: '{app}/login'")
	for _, lang := range []string{"en", "ja"} {
		_, b := newPerson(t, lang)
		b.open(server.ready.Issuer + "/")
		b.shoot("branded-landing", lang)
		if loaded := run(b,
			chromedp.Evaluate[bool](
				`[...document.querySelectorAll('img.mark')].every(i => i.complete && i.naturalWidth > 0)`)); !loaded {
			t.Error("the logo does not show")
		}
		b.press("main a.primary")
		b.shoot("branded-signin", lang)
		b.signIn("ann", "correct horse")
		if b.address() != server.ready.Issuer+"/" {
			t.Errorf("signed in at %s", b.address())
		}
		b.shoot("branded-landing-signed-in", lang)
		b.open(a.url("/login?scope=openid+profile+email+threads:read+threads:write+runs:read"))
		b.onConsent()
		b.shoot("branded-consent", lang)
		b.onError(b.open(server.ready.Issuer+"/nowhere"), http.StatusNotFound, "invalid_request")
		b.shoot("branded-error", lang)
	}
}
