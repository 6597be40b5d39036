//go:build e2e

package e2e

import (
	"errors"
	"testing"
)

// TestPageOpenTooLong: whoever comes back to a page after the time of its request goes on from there.
func TestPageOpenTooLong(t *testing.T) {
	t.Parallel()
	server := serve(t, t.TempDir(), map[string]string{"ann": "correct horse"}, "expiry: {authRequests: 2s}\n")
	a := server.deploy(t, "late", "")
	p, b := newPerson(t, "en")
	other := p.another(t)
	late := func() {
		t.Helper()
		address := b.address()
		eventually(t, func() error { // once its time is over, the browser is sent to a new request
			if other.open(address); other.address() == address {
				return errors.New("the page does not become too old")
			}
			return nil
		})
	}
	b.open(a.url("/login"))
	b.onSignIn()
	b.reload() // under the address of its request
	b.press(linkEnglish)
	late()
	b.signIn("ann", "correct horse")
	b.onConsent()
	late()
	b.press(allow)
	b.onConsent()
	if !b.has(problem) {
		t.Error("asked again without a word")
	}
	b.shoot("consent-late", "en")
	for b.has(allow) {
		b.press(allow)
	}
	b.onApp("signed in")
}
