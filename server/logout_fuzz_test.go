package server_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

// FuzzLogout sends parameters to the end_session_endpoint, by GET and POST, of a browser without a session: no fault of
// ours, and nobody is sent anywhere but to where the app has registered.
func FuzzLogout(f *testing.F) {
	p := newFuzzed(f)
	p.update("my-app", func(c *storage.Client) { c.PostLogoutRedirectURIs = []string{afterLogout, "http://localhost:*"} })
	registered := regexp.MustCompile(`^(https://app\.test/bye([?]state=|$)|http://localhost(:[0-9]{1,5})?([/?]|$))`)
	id := p.tokens("scope", "openid").text("id_token")
	for _, query := range []string{
		"", "state=x", "id_token_hint=" + id, "id_token_hint=" + id[:len(id)-4],
		"id_token_hint=a.b.c&post_logout_redirect_uri=https://evil.test/", "id_token_hint=..",
		"client_id=" + p.client.ID + "&post_logout_redirect_uri=" + url.QueryEscape(afterLogout), "client_id=x&client_id=y",
		"post_logout_redirect_uri=//evil.test", "%zz", "a;b", "state=%00&ui_locales=ja",
		"client_id=" + p.client.ID + "&post_logout_redirect_uri=http%3A%2F%2Flocalhost%3A1%2F&state=%0d%0aSet-Cookie:x",
		"lang=ja&logout_hint=%ff", "id_token_hint=eyJhbGciOiJub25lIn0.e30.",
	} {
		f.Add(query, false)
		f.Add(query, true)
	}
	f.Fuzz(func(t *testing.T, query string, post bool) {
		req := httptest.NewRequest(http.MethodGet, "/oauth/logout", nil)
		if post {
			req = httptest.NewRequest(http.MethodPost, "/oauth/logout", strings.NewReader(query))
			req.Header.Set("Content-Type", formType)
		} else {
			req.URL.RawQuery = query
		}
		got := p.serveOnce(req)
		if faults := p.log.faults(); faults != "" || got.Code >= 500 && got.Code != http.StatusServiceUnavailable {
			t.Errorf("%d %s\n%s", got.Code, got.Body, faults)
		}
		if to := got.Header().Get("Location"); to != "" && (!post || !strings.HasPrefix(to, p.issuer+"/oauth/logout?")) &&
			!registered.MatchString(to) {
			t.Errorf("sent to %q", to)
		}
	})
}
