package e2e

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/conformance/local"
)

// proxy runs oauth2-proxy for an app, as the page "OpenID Connect" of its documentation says, and gives its address. It
// refreshes with every request, and so with each of several that come at once.
func proxy(t *testing.T, c local.Credentials) string {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{
			"email": r.Header.Get("X-Forwarded-Email"), "user": r.Header.Get("X-Forwarded-Preferred-Username"),
		})
	}))
	t.Cleanup(upstream.Close)
	dir := t.TempDir()
	program, secret := filepath.Join(cache(t), "oauth2-proxy"), filepath.Join(dir, "secret")
	build(t, ".", "go", "build", "-o", program, "github.com/oauth2-proxy/oauth2-proxy/v7")
	if err := os.WriteFile(secret, []byte(c.ClientSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := freeAddress(t)
	run(t, nil, nil, program, "--provider=oidc", "--oidc-issuer-url="+c.Issuer, "--provider-ca-file="+server.CAFile,
		"--client-id="+c.ClientID, "--client-secret-file="+secret, "--redirect-url=http://"+listen+"/oauth2/callback",
		"--scope=openid email profile groups", "--code-challenge-method=S256", "--email-domain=*", "--allowed-group=admins",
		"--cookie-secret="+rand.Text()[:16], "--cookie-secure=false", "--cookie-refresh=1ms",
		"--set-authorization-header", "--skip-provider-button", "--upstream="+upstream.URL, "--http-address="+listen)
	until(t, "oauth2-proxy listens", answers("http://"+listen+"/ping"))
	return "http://" + listen
}

// signedIn gives the cookies of a browser that signed in to the app behind oauth2-proxy, and what the app shows. The ID
// token has expired since.
func signedIn(t *testing.T, address string) ([]*http.Cookie, string) {
	t.Helper()
	b := server.Browser()
	page, err := b.Visit(address + "/")
	if err != nil {
		t.Fatal(err)
	}
	cookies, err := b.Cookies(address)
	if err != nil {
		t.Fatal(err)
	}
	_, first, _ := asked(t, address+"/oauth2/auth", cookies)
	expires(t, first)
	return cookies, page
}

// expires waits for the end of a token.
func expires(t *testing.T, token string) {
	t.Helper()
	until(t, "an ID token expires", func() bool { return time.Now().After(expiry(t, token)) })
}

// asked is what oauth2-proxy says to the nginx before it, of a browser with cookies.
func asked(t *testing.T, address string, cookies []*http.Cookie) (status int, token string, next []*http.Cookie) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cookies {
		req.AddCookie(c)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, strings.TrimPrefix(resp.Header.Get("Authorization"), "Bearer "), resp.Cookies()
}

// eight asks eight times at once, as the tabs of a browser do.
func eight(t *testing.T, address string, cookies []*http.Cookie) (good int, tokens []string, next [][]*http.Cookie) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range 8 {
		wg.Go(func() {
			status, token, cookies := asked(t, address, cookies)
			mu.Lock()
			defer mu.Unlock()
			if status == http.StatusAccepted {
				good++
			}
			tokens, next = append(tokens, token), append(next, cookies)
		})
	}
	wg.Wait()
	return good, tokens, next
}

func TestOAuth2Proxy(t *testing.T) {
	address := proxy(t, register(t, "oauth2-proxy", "refreshTokens: {reuseInterval: 1m}"))
	cookies, page := signedIn(t, address)
	shows(t, page, map[string]any{"email": local.Login, "user": "ann"})
	good, tokens, next := eight(t, address+"/oauth2/auth", cookies)
	if good != 8 {
		t.Fatalf("%d of eight parallel requests are let through", good)
	}
	for _, token := range tokens {
		if !expiry(t, token).After(time.Now()) {
			t.Error("past the end of an ID token, the Authorization header has an expired one")
		}
	}
	expires(t, tokens[0])
	for i := range next {
		// Whichever reply the browser took for its cookie, it goes on, also when others have gone on before.
		if status, _, _ := asked(t, address+"/oauth2/auth", next[i]); status != http.StatusAccepted {
			t.Errorf("with the cookie of reply %d: status %d", i, status)
		}
	}
	if status, _, _ := asked(t, address+"/oauth2/auth", cookies); status != http.StatusAccepted {
		t.Errorf("a tab that is late: status %d", status)
	}
	if status, _, _ := asked(t, address+"/oauth2/auth?allowed_groups=owners", next[0]); status != http.StatusForbidden {
		t.Errorf("a group in which the user is not: status %d", status)
	}
}

// Without a reuse interval, that is what happens to parallel requests; so README says that oauth2-proxy needs one.
func TestOAuth2ProxyNeedsAReuseInterval(t *testing.T) {
	address := proxy(t, register(t, "oauth2-proxy-without"))
	cookies, _ := signedIn(t, address)
	if good, _, _ := eight(t, address+"/oauth2/auth", cookies); good == 8 {
		t.Error("eight parallel requests are let through")
	}
}
