//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// Elements that people press.
const (
	submit       = "main form button.primary"
	allow        = `button[value="allow"]`
	deny         = `button[value="deny"]`
	cancel       = `button[name="cancel"]`
	notYou       = `button[value="switch"]`
	problem      = `[role="alert"]`
	linkEnglish  = `nav a[hreflang="en"]`
	linkJapanese = `nav a[hreflang="ja"]`
)

// signIn fills in the sign-in form and sends it.
func (b *tab) signIn(login, password string) *network.Response {
	b.t.Helper()
	b.onSignIn()
	b.fill("#login", login)
	b.fill("#password", password)
	return b.press(submit)
}

// signInAs is signIn as the user of a dev server.
func (b *tab) signInAs(p *process) *network.Response {
	b.t.Helper()
	return b.signIn(p.ready.User.Email, p.ready.User.Password)
}

// onSignIn, onConsent and onApp end the test when the tab shows another page.

func (b *tab) onSignIn() {
	b.t.Helper()
	if !b.has("#password") {
		b.t.Fatalf("not the sign-in page: %s: %s", b.address(), b.text("body"))
	}
}

func (b *tab) onConsent() {
	b.t.Helper()
	if !b.has(allow) {
		b.t.Fatalf("not the consent page: %s: %s", b.address(), b.text("body"))
	}
}

func (b *tab) onApp(result string) {
	b.t.Helper()
	if !b.has("#result") {
		b.t.Fatalf("not back at the app: %s: %s", b.address(), b.text("body"))
	}
	if text := b.text("#result"); text != result {
		b.t.Fatalf("the app says %q, want %q", text, result)
	}
}

// onError ends the test unless the tab shows an error page with this code, status and a request id.
func (b *tab) onError(response *network.Response, status int64, code string) {
	b.t.Helper()
	if response.Status != status {
		b.t.Fatalf("status %d, want %d: %s", response.Status, status, b.text("main"))
	}
	shown := run(b,
		chromedp.Evaluate[[]string](`[...document.querySelectorAll('.report code, .trace code')].map(e => e.textContent)`))
	if len(shown) != 2 || shown[0] != code || len(shown[1]) < 8 {
		b.t.Fatalf("the error page shows %q, want the code %s and a request id", shown, code)
	}
}

// consent is what the consent page says.
type consent struct {
	Heading string
	Host    string
	Who     string
	New     []scope
	Granted []scope
	Links   map[string]string
	Rel     []string
	Logo    bool // it is there and has loaded
}

// scope is how the consent page shows a scope.
type scope struct {
	Name, Words, Risk string
}

func (b *tab) readConsent() consent {
	b.t.Helper()
	b.onConsent()
	return run(b, chromedp.Evaluate[consent](`(() => {
		const all = (s) => [...document.querySelectorAll(s)];
		const text = (e, s) => { const f = e.querySelector(s); return f ? f.innerText.trim() : '' };
		const scope = (e) => ({ Name: text(e, 'code'), Words: text(e, '.what'), Risk: text(e, '.risk') });
		const logo = document.querySelector('.logo img');
		return {
			Heading: text(document, 'h1'), Host: text(document, 'dd .host'), Who: text(document, '.who > span'),
			New: all('.scopes:not(.granted) .scope').map(scope), Granted: all('.granted .scope').map(scope),
			Links: Object.fromEntries(all('.legal a').map(a => [a.firstChild.textContent.trim(), a.href])),
			Rel: all('.legal a').map(a => a.rel + ' ' + a.target),
			Logo: logo !== null && logo.complete && logo.naturalWidth > 0,
		};
	})()`))
}

// names are those of scopes; several may share a line.
func names(scopes []scope) []string {
	var out []string
	for _, s := range scopes {
		out = append(out, strings.Fields(s.Name)...)
	}
	return out
}

// spoken is an element as a screen reader gets it.
type spoken struct {
	role, name, description string
	focused, invalid        bool
}

// speak lists what a screen reader gets of the page, in order.
func (b *tab) speak() []spoken {
	b.t.Helper()
	tree := run(b, func(ctx context.Context, target *chromedp.Target) (accessibility.GetFullAXTreeResult, error) {
		return cdp.Call(ctx, target, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	})
	var out []spoken
	for _, n := range tree.Nodes {
		if n.Ignored {
			continue
		}
		s := spoken{role: word(b.t, n.Role), name: word(b.t, n.Name), description: word(b.t, n.Description)}
		for _, p := range n.Properties {
			switch p.Name {
			case accessibility.PropertyNameFocused:
				s.focused = string(p.Value.Value) == "true"
			case accessibility.PropertyNameInvalid:
				s.invalid = word(b.t, p.Value) == "true"
			}
		}
		out = append(out, s)
	}
	return out
}

// heard finds an element by role and name; with "" for the name, by role alone.
func heard(all []spoken, role, name string) (spoken, bool) {
	for _, s := range all {
		if s.role == role && (name == "" || s.name == name) {
			return s, true
		}
	}
	return spoken{}, false
}

func word(t testing.TB, v *accessibility.Value) string {
	t.Helper()
	if v == nil || len(v.Value) == 0 {
		return ""
	}
	var text string
	if err := json.Unmarshal([]byte(v.Value), &text); err != nil {
		t.Fatalf("read the accessibility tree: %v", err)
	}
	return text
}
