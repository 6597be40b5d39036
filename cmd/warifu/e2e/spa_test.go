//go:build e2e

package e2e

import (
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
)

// TestOIDCClientTS: a page without a server of its own signs people in with oidc-client-ts, as its documentation says,
// at a dev server that was told nothing of it but a manifest: discovery, code and PKCE, userinfo, refresh, a silent
// request in a frame, revocation and sign-out. All of them are requests of another origin.
func TestOIDCClientTS(t *testing.T) {
	t.Parallel()
	installSPA(t)
	client := publicApp(t, "spa", "http://localhost/callback", "postLogoutRedirectUris: ['http://localhost/bye']")
	page, err := template.ParseFiles("testdata/spa/index.html")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, client) // a browser that has gone is no fault of ours
	})
	mux.HandleFunc("GET /oidc-client-ts.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "testdata/spa/node_modules/oidc-client-ts/dist/browser/oidc-client-ts.min.js")
	})
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)
	home := fmt.Sprintf("http://localhost:%d", app.Listener.Addr().(*net.TCPAddr).Port)

	_, b := newPerson(t, "en")
	says := func(want string) {
		t.Helper()
		b.until(`(document.querySelector('#result')?.innerText ?? '') !== ''`)
		if text := b.text("#result"); text != want {
			t.Fatalf("at %s the page says %q, want %q", b.address(), text, want)
		}
	}
	calls := func(function, want string) {
		t.Helper()
		b.eval(`show('')`)
		b.eval(function + `().catch(fail); undefined`)
		says(want)
	}
	b.open(home + "/")
	b.eval(`manager.signinRedirect().catch(fail); undefined`)
	b.until(`document.querySelector('#password') !== null`)
	b.signInAs(suite.server)
	b.onConsent()
	b.press(allow)
	says("signed in: " + suite.server.ready.User.Email)
	calls("renew", "renewed")
	// A frame of another site gets no cookies, so the server says that somebody would have to sign in; what counts is
	// that the answer comes.
	calls("renewInAFrame", "fault: login_required")
	calls("revoke", "revoked")
	b.eval(`manager.signoutRedirect().catch(fail); undefined`)
	says("signed out")
	b.excuse("ExcludeSameSiteLax", "NavigationEntryMarkedSkippable")
}

// installSPA installs the pinned library, unless it is there.
func installSPA(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("testdata/spa/node_modules/.package-lock.json"); err == nil {
		return
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = "testdata/spa"
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}
