package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
)

// A program at a wrong address gets JSON that says which was meant, or the document that it wants; a person gets a
// page.
func TestProgramsAtWrongAddresses(t *testing.T) {
	p := newIDP(t)
	below := newIDP(t, func(c *server.Config) { c.Issuer += "/id" })
	root := strings.TrimSuffix(below.issuer, "/id")
	for _, c := range []struct {
		p               *idp
		method, address string
		status          int
		says            string
	}{
		{p, http.MethodPost, p.issuer + "/oauth/token/", 404, p.issuer + "/oauth/token"},
		{p, http.MethodPost, p.issuer + "//oauth/token", 404, p.issuer + "/oauth/token"},
		{p, http.MethodGet, p.issuer + "/oauth//userinfo", 404, p.issuer + "/oauth/userinfo"},
		{p, http.MethodPost, p.issuer + "/token", 404, "/.well-known/openid-configuration"},
		{p, http.MethodGet, p.issuer + "/.well-known/jwks.json", 404, "/.well-known/openid-configuration"},
		{p, http.MethodGet, p.issuer + "/assets/nope", 404, "/.well-known/openid-configuration"},
		{below, http.MethodGet, below.issuer + "/assets/", 404, below.issuer + "/.well-known/openid-configuration"},
		{p, http.MethodPost, p.issuer + "/", 405, "GET, HEAD"},
		{p, http.MethodPut, p.issuer + "/oauth/authorize", 405, "GET, HEAD, POST"},
		{p, http.MethodGet, p.issuer + "/oauth/token", 405, "use POST"},
		{below, http.MethodPost, root + "/oauth/token", 404, below.issuer + "/oauth/token"},
		{below, http.MethodPost, below.issuer + "/oauth/token/", 404, below.issuer + "/oauth/token"},
		{below, http.MethodGet, root + "/.well-known/openid-configuration", 404, below.issuer +
			"/.well-known/openid-configuration"},
		{below, http.MethodGet, root + "/.well-known/oauth-authorization-server/other", 404, below.issuer +
			"/.well-known/openid-configuration"},
	} {
		for _, accept := range []string{"application/json", "*/*", ""} {
			got := c.p.send(c.p.request(c.method, c.address, "", "Accept", accept))
			if got.status != c.status || got.text("error") != "invalid_request" ||
				!strings.Contains(got.text("error_description"), c.says) ||
				got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.address, got.status, got.raw, c.status, c.says)
			}
		}
		if c.status == http.StatusNotFound {
			got := c.p.send(c.p.request(c.method, c.address, "", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8"))
			if got.status != c.status || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") {
				t.Errorf("%s %s by a browser: %d %v", c.method, c.address, got.status, got.header)
			}
		}
	}
	for _, c := range []struct {
		p       *idp
		address string
	}{
		{p, p.issuer + "//.well-known/openid-configuration"},
		{p, p.issuer + "/.well-known/openid-configuration/"},
		{p, p.issuer + "//.well-known/oauth-authorization-server"},
		{below, below.issuer + "//.well-known/openid-configuration"},
		{below, root + "/.well-known/oauth-authorization-server/id/"},
		{below, root + "//.well-known/openid-configuration/id"},
	} {
		got := c.p.document(c.address)
		if got.text("issuer") != c.p.issuer {
			t.Errorf("%s: %s", c.address, got.raw)
		}
	}
}
