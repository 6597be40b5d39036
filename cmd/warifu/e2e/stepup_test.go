//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/pquerna/otp/totp"
)

// threads asks the API of the example Worker to delete everything, with an access token or without, and gives its
// status and its challenge.
func (d *deployed) threads(t *testing.T, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, d.url+"/threads", nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate")
}

// accessToken is the one that the app keeps for somebody who is signed in.
func (d *deployed) accessToken(b *tab) string {
	b.t.Helper()
	var kept struct {
		AccessToken string `json:"access_token"`
	}
	text, err := url.PathUnescape(b.cookie(d.session))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		b.t.Fatal(err)
	}
	return kept.AccessToken
}

// TestWorkerStepUp: the API of the example Worker takes a second factor for one thing and says so (RFC 9470 section 3).
// Who has none is led to set it up, who has one is asked for it, and both come back to what they wanted.
func TestWorkerStepUp(t *testing.T) {
	t.Parallel()
	d := startWorker(t)
	refused := func(what, token, want string) {
		t.Helper()
		if status, got := d.threads(t, token); status != http.StatusUnauthorized || got != want {
			t.Errorf("%s: %d %s", what, status, got)
		}
	}
	const unsure = `Bearer error="insufficient_user_authentication", ` +
		`error_description="deleting everything takes a second factor", acr_values="urn:warifu:acr:mfa"`
	cleared := func(b *tab) {
		t.Helper()
		if !b.has("#cleared") {
			t.Fatalf("not back at the board: %s: %s", b.address(), b.text("body"))
		}
		if status, got := d.threads(t, d.accessToken(b)); status != http.StatusNoContent {
			t.Errorf("with a second factor: %d %s", status, got)
		}
		b.press("#clear") // from now on without a question
		if !b.has("#cleared") {
			t.Errorf("asked again: %s: %s", b.address(), b.text("body"))
		}
	}
	refused("no token", "", "Bearer")
	refused("no token of this server", "made-up", `Bearer error="invalid_token"`)

	// Two browsers of one person, who has signed in with a password alone.
	_, b := newPerson(t, "en")
	_, c := newPerson(t, "en")
	d.signIn(b, false)
	d.signIn(c, true)
	refused("a password alone", d.accessToken(b), unsure)

	b.press("#clear")
	b.press(`a[href*="/account/totp?"]`)
	secret := strings.ReplaceAll(run(b, chromedp.Evaluate[string](`document.querySelector('.steps .code').textContent`)),
		" ", "")
	code := func(at time.Time) string {
		t.Helper()
		code, err := totp.GenerateCode(secret, at)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	b.fill("#code", code(time.Now()))
	b.press(`button[value="confirm"]`)
	b.press("main a.primary") // from the recovery codes, back to the request
	cleared(b)

	refused("a token of before", d.accessToken(c), unsure)
	c.press("#clear")
	c.press(cancel)
	if got := c.text("code"); got != "unmet_authentication_requirements" {
		t.Errorf("who does not want to: %q at %s", got, c.address())
	}
	c.open(d.url + "/")
	c.press("#clear")
	c.fill("#code", code(time.Now().Add(30*time.Second))) // the one before was used
	c.press(submit)
	cleared(c)
}
