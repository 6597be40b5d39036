//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestFormPost: the answer is in a form that posts itself to the app, under a policy that allows nothing else. The
// browser would tell of a script or a form that it stopped.
func TestFormPost(t *testing.T) {
	t.Parallel()
	a := newApp(t, "formpost")
	_, b := newPerson(t, "en")
	b.open(a.url("/login?response_mode=form_post"))
	b.signInAs(suite.server)
	b.onConsent()
	b.press(allow)
	if result := b.text("#result"); result != "signed in" { // waits for it
		t.Fatalf("the app says %q", result)
	}
	if address := b.address(); address != a.url("/callback") {
		t.Errorf("the answer is in the address: %s", address)
	}
	b.open(a.url("/login?response_mode=form_post&scope=no:such"))
	if result := b.text("#result"); result != "error: invalid_scope" {
		t.Errorf("the app says %q", result)
	}
	if a.came() != 2 {
		t.Errorf("%d came back", a.came())
	}
}

// TestFormPostWithoutScripts: a browser that runs none shows a button.
func TestFormPostWithoutScripts(t *testing.T) {
	t.Parallel()
	a := newApp(t, "formpost-plain")
	_, b := newPerson(t, "en")
	b.scripts(false)
	b.open(a.url("/login?response_mode=form_post"))
	b.signInAs(suite.server)
	b.onConsent()
	b.press(allow)
	if text := b.text("main"); !strings.Contains(text, strings.TrimPrefix(a.url(""), "http://")) ||
		!strings.Contains(text, "Continue") {
		t.Fatalf("the page says %q", text)
	}
	b.press(submit)
	b.onApp("signed in")
}
