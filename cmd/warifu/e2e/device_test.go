//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// devices is what the manifest of an app says that also runs on devices without a browser.
const devices = `grantTypes: [authorization_code, refresh_token, "urn:ietf:params:oauth:grant-type:device_code"]`

// television is a device without a browser: `warifu token --device`.
type television struct {
	*process
	page, code string // what it shows
	printed    bytes.Buffer
}

// turnOn starts a device and reads what it shows.
func turnOn(t *testing.T, server *process, a *app, scopes ...string) *television {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), suite.binary, "token", a.name, "--device", "--admin", server.ready.Admin,
		"--scope", strings.Join(scopes, ","))
	tv := &television{process: &process{cmd: cmd, words: &transcript{}, ended: make(chan struct{})}}
	cmd.Stdout, cmd.Stderr = &tv.printed, tv.words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process, and that with the test
		tv.err = cmd.Wait()
		close(tv.ended)
	}()
	tv.words.await(t, tv.process, "Or scan this")
	said := tv.words.String()
	tv.page, tv.code = regexp.MustCompile(`http://\S+`).FindString(said),
		regexp.MustCompile(`[A-Z]{4}-[A-Z]{4}`).FindString(said)
	if tv.page == "" || tv.code == "" {
		t.Fatalf("the device shows\n%s", said)
	}
	return tv
}

// tokens waits until the device has ended, and gives the scope that it has, or what it says instead.
func (tv *television) tokens(t *testing.T) (scope, fault string) {
	t.Helper()
	<-tv.ended
	if tv.err != nil {
		return "", tv.words.String()
	}
	var reply struct {
		AccessToken string `json:"access_token"`
		Scope       string `json:"scope"`
	}
	if err := json.Unmarshal(tv.printed.Bytes(), &reply); err != nil || reply.AccessToken == "" {
		t.Fatalf("the device has %s (%v)", &tv.printed, err)
	}
	return reply.Scope, ""
}

// enter types a user code and sends it.
func (b *tab) enter(code string) *network.Response {
	b.t.Helper()
	b.fill("#user_code", code)
	return b.key(kb.Enter)
}

// TestDevice: the code of a device is typed in, after slips that are told, by somebody who signs in and is asked
// whether the device is theirs; then the device has what it asked for, and the code is used up.
func TestDevice(t *testing.T) {
	t.Parallel()
	a := newApp(t, "tv", devices)
	tv := turnOn(t, suite.server, a, "openid", "threads:read")
	_, b := newPerson(t, "en")
	b.open(tv.page)
	if at := b.begins(); at.ID != "user_code" || at.Ring < 2 {
		t.Errorf("the page begins at %+v", at)
	}
	if field, there := heard(b.speak(), "textbox", "Code on the device"); !there || !strings.Contains(field.description,
		"Eight letters") {
		t.Errorf("the field is described as %q", field.description)
	}
	if response := b.enter("0123"); response.Status != http.StatusUnprocessableEntity || !strings.Contains(b.text(problem),
		"This is not a code") {
		t.Errorf("status %d: %q", response.Status, b.text(problem))
	}
	if field, _ := heard(b.speak(), "textbox", "Code on the device"); !field.invalid ||
		!strings.Contains(field.description, "eight letters") {
		t.Errorf("the field is invalid %t, described as %q", field.invalid, field.description)
	}
	wrong := "BBBB-BBBB"
	if tv.code == wrong {
		wrong = "CCCC-CCCC"
	}
	b.enter(wrong)
	b.signInAs(suite.server) // whether there is such a device is told to nobody else
	if text := b.text(problem); !strings.Contains(text, "fits no device") {
		t.Errorf("the page says %q", text)
	}

	b.enter(strings.ToLower(strings.ReplaceAll(tv.code, "-", ""))) // as one types on a phone
	if text := b.text("main"); !strings.Contains(text, "Board") ||
		!strings.Contains(text, suite.server.ready.User.Email) || !strings.Contains(text, "Did you start this yourself?") {
		t.Errorf("the page asks %q", text)
	}
	if text := b.text("dd .code"); text != tv.code {
		t.Errorf("the page shows the code %q, and the device %s", text, tv.code)
	}
	stops, want := b.stops(t), []string{"日本語", "English", "Not you?", "What happens next", "Terms of service",
		"Privacy policy", "Deny", "Allow"}
	if !slices.Equal(stops[1:], want) { // the first is the name of the site
		t.Errorf("the keyboard stops at %q", stops)
	}
	b.press(linkJapanese)
	if b.lang() != "ja" || b.text("dd .code") != tv.code {
		t.Errorf("in Japanese: %q", b.text("main"))
	}
	b.press(linkEnglish)
	b.press(allow)
	if b.text("h1") != "Your device is connected" {
		t.Errorf("the page says %q", b.text("main"))
	}
	if scope, fault := tv.tokens(t); scope != "openid threads:read" {
		t.Errorf("the device has the scope %q: %s", scope, fault)
	}
	b.back() // to a question that has been answered
	if b.has(allow) {
		b.press(allow)
	}
	if text := b.text("main"); strings.Contains(text, "Allow") {
		t.Errorf("the question comes again: %q", text)
	}
	b.open(tv.page)
	b.enter(tv.code)
	if text := b.text(problem); !strings.Contains(text, "fits no device") && !strings.Contains(text, "has been used") {
		t.Errorf("the page says %q", text)
	}
}

// TestDeviceDenied: the address in the QR code fills the code in, and who denies gets the device nothing.
func TestDeviceDenied(t *testing.T) {
	t.Parallel()
	a := newApp(t, "tv-denied", devices)
	tv := turnOn(t, suite.server, a, "openid")
	_, b := newPerson(t, "en")
	b.open(tv.page + "?user_code=" + tv.code)
	if code := run(b, chromedp.Value(chromedp.CSS("#user_code"))); code != tv.code {
		t.Errorf("the field holds %q", code)
	}
	b.press(submit)
	b.signInAs(suite.server)
	b.press(deny)
	if b.text("h1") != "The device was not connected" {
		t.Errorf("the page says %q", b.text("main"))
	}
	if _, fault := tv.tokens(t); !strings.Contains(fault, "access_denied") {
		t.Errorf("the device says %s", fault)
	}
}
