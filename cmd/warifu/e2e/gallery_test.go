//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"golang.org/x/oauth2"
)

// windows are the sizes of which pictures are kept. A page has to fit into a narrower one, too (WCAG 2.2, 1.4.10).
var windows = []struct {
	name          string
	width, height int64
	phone         bool
}{
	{"desktop", 1280, 800, false},
	{"phone", 390, 844, true},
}

// TestGallery shows every page in both languages, light and dark, on desktops and phones, keeps a picture of each, and
// checks what can be measured of how it is laid out.
func TestGallery(t *testing.T) {
	t.Parallel()
	a := newApp(t, "gallery", logout...)
	var people []*tab
	for _, lang := range []string{"en", "ja"} {
		_, b := newPerson(t, lang)
		people = append(people, b)
		signInPages(t, a, b, lang)
		b.signInAs(suite.server)
		b.shoot("consent", lang)
		errorPages(t, a, b, lang)
	}
	// What is allowed is the account's, in whichever browser.
	first := people[0]
	first.open(a.url("/login?scope=openid+profile+threads:read"))
	first.press(allow)
	first.onApp("signed in")
	for i, lang := range []string{"en", "ja"} {
		b := people[i]
		b.open(a.url("/login"))
		b.shoot("consent-more", lang)
		b.open(a.url("/login?prompt=consent&scope=openid+threads:read"))
		b.shoot("consent-again", lang)
	}
	people[1].open(a.url("/login"))
	pending := run(people[1], chromedp.Value(chromedp.CSS(`input[name="request"]`)))
	issuer := suite.server.ready.Issuer
	first.onError(first.open(issuer+"/oauth/continue?request="+url.QueryEscape(pending)), http.StatusBadRequest,
		"invalid_request")
	first.shoot("error-other-browser", "en")
	for i, lang := range []string{"en", "ja"} {
		signOutPages(t, a, people[i], lang)
	}
}

func signOutPages(t *testing.T, a *app, b *tab, lang string) {
	t.Helper()
	issuer := suite.server.ready.Issuer
	b.open(a.url("/login?scope=openid"))
	b.onApp("signed in")
	b.onError(b.open(issuer+"/oauth/logout?id_token_hint=forged"), http.StatusBadRequest, "invalid_request")
	b.shoot("error-logout", lang)
	b.open(issuer + "/")
	b.shoot("landing-signed-in", lang)
	b.press(leave)
	b.shoot("signout", lang)
	b.press(`button[value="stay"]`)
	b.shoot("signout-stay", lang)
	b.open(a.url("/logout?hint=none&back=/nothing"))
	b.shoot("signout-app", lang)
	b.press(`button[value="stay"]`)
	b.shoot("signout-app-stay", lang)
	b.back()
	b.press(`button[value="signout"]`)
	b.shoot("signedout-frames", lang) // it would go on by itself, but nothing is where it goes
	b.open(issuer + "/oauth/logout?client_id=" + a.oauth.ClientID)
	b.shoot("signedout", lang)
	b.excuse(framesCost...)
}

// TestGalleryOfDevices is TestGallery for the pages of devices, of a form that brings the answer to the app, and of
// permissions that those of TestGallery do not show. Its server is its own, as somebody types in wrong codes until no
// more are taken.
func TestGalleryOfDevices(t *testing.T) {
	t.Parallel()
	server := serve(t, t.TempDir(), map[string]string{"en": "correct horse", "ja": "battery staple"})
	a := server.deploy(t, "devices", "", devices)
	for lang, password := range map[string]string{"en": "correct horse", "ja": "battery staple"} {
		_, b := newPerson(t, lang)
		codes := [3]string{}
		for i := range codes {
			codes[i] = a.code(t)
		}
		b.open(server.ready.Issuer + "/device")
		b.shoot("device", lang)
		b.enter("0123")
		b.shoot("device-malformed", lang)
		b.enter(codes[0])
		b.shoot("device-signin", lang)
		b.signIn(lang, password)
		b.shoot("device-confirm", lang)
		b.press(allow)
		b.shoot("device-done", lang)
		b.open(server.ready.Issuer + "/device?user_code=" + codes[1])
		b.shoot("device-filled", lang)
		b.press(submit)
		b.press(deny)
		b.shoot("device-denied", lang)
		b.open(server.ready.Issuer + "/device")
		b.enter(codes[1])
		b.shoot("device-used", lang)

		b.open(a.url("/login?scope=openid+profile+email+address+phone+offline_access"))
		b.shoot("consent-personal", lang)
		claims := url.QueryEscape(`{"userinfo": {"phone_number": null, "birthdate": null}}`)
		b.open(a.url("/login?scope=openid&claims=" + claims))
		b.shoot("consent-claims", lang)
		b.scripts(false)
		b.open(a.url("/login?response_mode=form_post&scope=no:such"))
		b.shoot("formpost", lang)
		b.scripts(true)

		limited := false
		for range 41 { // twice as many as one may type in, as the count may begin anew meanwhile
			b.open(server.ready.Issuer + "/device")
			if limited = b.enter("BBBB-BBBB").Status == http.StatusTooManyRequests; limited {
				break
			}
			if !b.has(problem) {
				t.Fatal("there is such a device")
			}
		}
		b.shoot("device-too-many", lang)
		if !limited {
			t.Error("one may guess for ever")
		}
	}
}

// code asks for a user code as a device does (RFC 8628 section 3.1).
func (a *app) code(t *testing.T) string {
	t.Helper()
	config := a.oauth
	config.Scopes = []string{"openid", "profile", "threads:write"}
	asked, err := config.DeviceAuth(t.Context(), oauth2.SetAuthURLParam("client_secret", a.oauth.ClientSecret))
	if err != nil {
		t.Fatal(err)
	}
	return asked.UserCode
}

// scripts says whether pages may run any.
func (b *tab) scripts(may bool) {
	b.t.Helper()
	b.do(func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled,
			emulation.SetScriptExecutionDisabledParams{Value: !may})
		return chromedp.Void{}, err
	})
}

func signInPages(t *testing.T, a *app, b *tab, lang string) {
	t.Helper()
	b.open(suite.server.ready.Issuer + "/")
	b.shoot("landing", lang)
	b.open(a.url("/login"))
	b.shoot("signin", lang)
	b.signIn("somebody@example.com", "wrong")
	b.shoot("signin-problem", lang)
	for range 12 { // too many; the lock is of an account that nobody has
		b.eval(`document.querySelector('#login').value = 'locked'; document.querySelector('#password').value = 'wrong'`)
		if b.press(submit).Status == http.StatusTooManyRequests {
			b.shoot("signin-too-many", lang)
			return
		}
	}
	t.Error("one may guess for ever")
}

func errorPages(t *testing.T, a *app, b *tab, lang string) {
	t.Helper()
	issuer := suite.server.ready.Issuer
	authorize := func(change func(url.Values)) string {
		query := url.Values{"response_type": {"code"}, "client_id": {a.oauth.ClientID}, "redirect_uri": {a.url("/callback")},
			"scope": {"openid"}}
		change(query)
		return issuer + "/oauth/authorize?" + query.Encode()
	}
	for _, fault := range []struct {
		name, address string
		status        int64
		code          string
	}{
		{"unauthorized-client", authorize(func(q url.Values) { q.Set("redirect_uri", "https://elsewhere.example/callback") }),
			400, "unauthorized_client"},
		{"invalid-client", authorize(func(q url.Values) { q.Set("client_id", "nobody") }), 400, "invalid_client"},
		{"invalid-request", authorize(func(q url.Values) { q.Del("redirect_uri") }), 400, "invalid_request"},
		{"altered", issuer + "/oauth/continue?request=altered", 400, "invalid_request"},
		{"not-found", issuer + "/nowhere", 404, "invalid_request"},
		{"method", issuer + "/oauth/signin", 405, "invalid_request"},
	} {
		response := b.open(fault.address)
		b.onError(response, fault.status, fault.code)
		b.shoot("error-"+fault.name, lang)
	}
	b.open(authorize(func(q url.Values) { q.Set("client_id", "nobody") }))
	b.do(chromedp.Click(chromedp.CSS(".report summary")))
	b.shoot("error-invalid-client-unfolded", lang)
	b.open(a.url("/login"))
	b.eval(`document.querySelector('input[name=form]').value = 'forged'`)
	b.onError(b.press(allow), http.StatusForbidden, "invalid_request")
	b.shoot("error-forbidden", lang)
}

// layout is what can be measured of a page.
type layout struct {
	Lang     string
	Headings int      // h1
	Width    int64    // of what is there, in pixels
	Small    []string // what is too small for a finger (WCAG 2.2, 2.5.8)
	Unnamed  int      // fields without a label
}

const measure = `(() => {
	const all = (s) => [...document.querySelectorAll(s)];
	const shown = (e) => e.getClientRects().length > 0;
	return {
		Lang: document.documentElement.lang, Headings: all('h1').length,
		Width: document.documentElement.scrollWidth,
		Small: all('button, input:not([type=hidden]), nav a, a.brand').filter(shown)
			.filter(e => { const r = e.getBoundingClientRect(); return r.height < 24 || r.width < 24 }).map(e => e.outerHTML.slice(0, 80)),
		Unnamed: all('input:not([type=hidden])').filter(e => e.labels.length === 0).length,
	};
})()`

// shoot keeps pictures of the page in every window, light and dark, and measures it.
func (b *tab) shoot(name, lang string) {
	b.t.Helper()
	b.resize(320, 568, true)
	b.measure(name+" in a narrow window", lang, 320)
	for _, w := range windows {
		b.resize(w.width, w.height, w.phone)
		b.measure(name+" on a "+w.name, lang, w.width)
		for _, scheme := range []string{"light", "dark"} {
			picture := run(b, func(ctx context.Context, target *chromedp.Target) ([]byte, error) {
				if _, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
					// Without motion, so that no picture shows a colour on its way to another.
					Features: []*emulation.MediaFeature{
						{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
					}}); err != nil {
					return nil, err
				}
				size, err := cdp.Call(ctx, target, page.GetLayoutMetrics, cdp.Empty{})
				if err != nil {
					return nil, err
				}
				// In a window of its height, so that what sticks to the window's end covers nothing.
				height := max(w.height, int64(size.CSSContentSize.Height))
				if _, err := cdp.Call(ctx, target, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
					Width: w.width, Height: height, DeviceScaleFactor: 1, Mobile: w.phone}); err != nil {
					return nil, err
				}
				shot, err := cdp.Call(ctx, target, page.CaptureScreenshot, page.CaptureScreenshotParams{
					CaptureBeyondViewport: new(true), OptimizeForSpeed: new(true), Clip: &page.Viewport{
						Width: float64(w.width), Height: float64(height), Scale: 1}})
				return shot.Data, err
			})
			file := fmt.Sprintf("%s-%s-%s-%s.png", name, lang, w.name, scheme)
			if err := os.WriteFile(artifact(b.t, file), picture, 0o644); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	run(b, func(ctx context.Context, target *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, target, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
	})
}

func (b *tab) resize(width, height int64, phone bool) {
	b.t.Helper()
	run(b, func(ctx context.Context, target *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, target, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: height, DeviceScaleFactor: 1, Mobile: phone})
	})
}

func (b *tab) measure(where, lang string, width int64) {
	b.t.Helper()
	l := run(b, chromedp.Evaluate[layout](measure))
	if l.Lang != lang || l.Headings != 1 || l.Width > width || len(l.Small) > 0 || l.Unnamed > 0 {
		b.t.Errorf("%s: %+v", where, l)
	}
}
