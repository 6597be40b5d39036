//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// focus is the element that has the keyboard.
type focus struct {
	ID, Label string
	Ring      float64 // width of the outline that shows it, in pixels
	Seen      bool    // it is inside the window
}

func (b *tab) focus() focus {
	b.t.Helper()
	return run(b, chromedp.Evaluate[focus](`(() => {
		const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
		return {
			ID: e.id, Label: e.innerText.trim().split('\n')[0], Ring: s.outlineStyle === 'none' ? 0 : parseFloat(s.outlineWidth),
			Seen: r.top >= 0 && r.bottom <= innerHeight && r.height > 0,
		};
	})()`))
}

// begins is focus once the page has one of its own. A browser gives it when it first paints, which may be after the
// page has loaded.
func (b *tab) begins() (at focus) {
	b.t.Helper()
	eventually(b.t, func() error {
		if at = b.focus(); at.ID == "" {
			return fmt.Errorf("the page begins at %+v", at)
		}
		return nil
	})
	return at
}

// TestKeyboard signs in and consents without a mouse.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	a := newApp(t, "keyboard")
	_, b := newPerson(t, "en")
	user := suite.server.ready.User
	b.open(a.url("/login"))
	if at := b.begins(); at.ID != "login" || at.Ring < 2 {
		t.Errorf("the page begins at %+v", at)
	}
	b.do(chromedp.KeyEvent(user.Email), chromedp.KeyEvent(kb.Tab))
	if at := b.focus(); at.ID != "password" || at.Ring < 2 {
		t.Errorf("after the login comes %+v", at)
	}
	b.do(chromedp.KeyEvent("wrong"))
	b.key(kb.Enter)
	if at := b.begins(); at.ID != "password" {
		t.Errorf("after a slip the page begins at %+v", at)
	}
	b.do(chromedp.KeyEvent(user.Password))
	b.key(kb.Enter)

	b.onConsent()
	stops := b.stops(t)
	want := []string{"日本語", "English", "Not you?", "What happens next", "Terms of service", "Privacy policy", "Deny",
		"Allow"}
	if !slices.Equal(stops[1:], want) { // the first is the name of the site
		t.Errorf("the keyboard stops at %q", stops)
	}
	b.key(kb.Enter)
	b.onApp("signed in")
	if got := a.last(t); got.User.Email != user.Email {
		t.Errorf("the app got %s", got.User.Email)
	}
}

// stops presses Tab until the button that allows has the keyboard, and gives where the keyboard was on the way.
func (b *tab) stops(t *testing.T) []string {
	t.Helper()
	var labels []string
	for range 20 {
		b.do(chromedp.KeyEvent(kb.Tab))
		at := b.focus()
		labels = append(labels, at.Label)
		if at.Ring < 2 || !at.Seen {
			t.Errorf("nobody sees that the keyboard is at %+v", at)
		}
		if at.Label == "Allow" {
			return labels
		}
	}
	t.Fatalf("the keyboard never comes to the button that allows: %q", labels)
	return nil
}

// TestPhoneWithoutScripts walks with a thumb, on a phone whose browser runs no scripts.
func TestPhoneWithoutScripts(t *testing.T) {
	t.Parallel()
	a := newApp(t, "scriptless")
	_, b := newPerson(t, "ja")
	b.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulatePortrait),
		chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled,
				emulation.SetScriptExecutionDisabledParams{Value: true})
			return err
		}))
	b.open(a.url("/login"))
	b.onSignIn()
	user := suite.server.ready.User
	b.fill("#login", user.Email)
	b.fill("#password", user.Password)
	b.tap(submit)
	b.onConsent()
	b.tap(linkEnglish)
	if b.lang() != "en" {
		t.Errorf("the page is in %s", b.lang())
	}
	b.tap(allow)
	b.onApp("signed in")
}

// tap is press with a thumb.
func (b *tab) tap(selector string) *network.Response {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	response, err := chromedp.RunResponse(ctx, chromedp.Tap(chromedp.CSS(selector)))
	if err != nil {
		b.lost(err)
	}
	b.passOn()
	return response
}

// TestPopup: apps that sign people in in a window of its own wait there for the result, so that no page on the way may
// cut the tie between the windows (Cross-Origin-Opener-Policy).
func TestPopup(t *testing.T) {
	t.Parallel()
	a := newApp(t, "popup")
	p, b := newPerson(t, "en")
	b.open(a.url("/popup"))
	opened := chromedp.WaitNewTarget(b.ctx, func(info *target.Info) bool {
		return strings.Contains(info.URL, "/login") ||
			info.OpenerID != ""
	})
	b.do(chromedp.Click(chromedp.CSS("button")))
	ctx, cancel := chromedp.NewContext(p.ctx, chromedp.WithTargetID(<-opened))
	t.Cleanup(cancel)
	popup := p.open(t, ctx)
	popup.do(chromedp.WaitVisible(chromedp.CSS("#password")))
	popup.signInAs(suite.server)
	popup.onConsent()
	popup.press(allow)
	popup.onApp("signed in")
	if !run(popup, chromedp.Evaluate[bool](`window.opener !== null`)) {
		t.Error("the popup has lost the window that opened it")
	}
}
