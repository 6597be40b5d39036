//go:build e2e

package clients

import (
	"testing"

	"github.com/warifu/warifu/conformance/local"
)

// browser is a person's, in a test.
type browser struct {
	t testing.TB
	*local.Browser
}

func newBrowser(t testing.TB) *browser {
	t.Helper()
	return &browser{t, server.Browser()}
}

// visit gives the page of the app where an address leads, see [local.Browser.Visit].
func (b *browser) visit(address string) string {
	b.t.Helper()
	page, err := b.Visit(address)
	if err != nil {
		b.t.Fatal(err)
	}
	return page
}
