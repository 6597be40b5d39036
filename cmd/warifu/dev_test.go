package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// startDev runs `warifu dev` with a manifest of its own until the test ends.
func startDev(t *testing.T, args ...string) (readyLine, *lines) {
	t.Helper()
	dir := t.TempDir()
	manifest := strings.NewReplacer("APP", "board", "URI", "http://127.0.0.1:*", "threads:read", "boards:read",
		"EXTRA", "autoEnv").
		Replace(loopbackApp)
	for name, text := range map[string]string{"app.yml": manifest, "dev.yaml": devFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, said, ended := newLines(), newLines(), make(chan struct{})
	args = append([]string{"dev", "-o", "json", "-f", filepath.Join(dir, "app.yml"), "--data", filepath.Join(dir, "data"),
		"--config", filepath.Join(dir, "dev.yaml")}, args...)
	go func() { // ends with ctx
		defer close(ended)
		run(ctx, args, strings.NewReader(""), out, said)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	waiting, enough := context.WithTimeout(ctx, patience)
	defer enough()
	line, err := out.await(waiting, ended, regexp.MustCompile(`{.*}`))
	if err != nil {
		t.Fatal(err, said)
	}
	var ready readyLine
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		t.Fatal(err)
	}
	return ready, said
}

const devFile = `
scopes:
  - name: boards:read
    risk: low
    description: {en: Read your boards, ja: ボードの閲覧}
staticPasswords:
  - email: bob@example.com
    userID: bob
    hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W
    attributes: {department: Sales}
claims: [{name: department, scope: openid}]
oauth2:
  registration: {enabled: true}
expiry:
  refreshTokens: {reuseInterval: 10s}
`

// What real work needs beyond one user and the built-in scopes: its own scopes and claims, more users, registration, a
// reuse interval. The server is localhost, at both addresses of this machine.
func TestDevForRealWork(t *testing.T) {
	t.Setenv("WARIFU_ISSUER", "https://id.example.com")
	ready, said := startDev(t, "--listen", "localhost:0", "--user", "ann@example.com")
	if len(ready.Users) != 2 || ready.Users[1].Email != "ann@example.com" ||
		ready.Users[0].Password == ready.Users[1].Password {
		t.Fatalf("users: %v", ready.Users)
	}
	if !strings.Contains(said.String(), "the variable WARIFU_ISSUER overrides nothing (warifu dev takes") {
		t.Errorf("a variable that overrides nothing: %s", said)
	}
	issuer, err := url.Parse(ready.Issuer)
	if err != nil || issuer.Hostname() != "localhost" {
		t.Fatalf("the issuer is %s", ready.Issuer)
	}
	var metadata struct{ Issuer, Registration_endpoint string }
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]"} {
		resp, err := http.Get("http://" + host + ":" + issuer.Port() + "/.well-known/openid-configuration")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewDecoder(resp.Body).Decode(&metadata); err != nil || metadata.Issuer != ready.Issuer {
			t.Errorf("%s: %v, issuer %s", host, err, metadata.Issuer)
		}
		_ = resp.Body.Close()
	}
	resp, err := http.Post(metadata.Registration_endpoint, "application/json",
		strings.NewReader(`{"redirect_uris":["https://client.example.com/cb"],"scope":"openid boards:read"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("registration: %s", resp.Status)
	}
	for email, password := range map[string]string{"ann@example.com": ready.Users[1].Password,
		"bob@example.com": "password"} {
		var reply struct{ Scope, Refresh_token, Id_token string }
		got := newLines()
		token := []string{"--admin", ready.Admin, "token", "board", "--login", email, "--password-stdin"}
		if code := run(t.Context(), token, strings.NewReader(password), got, said); code != exitDone ||
			json.Unmarshal([]byte(got.String()), &reply) != nil || reply.Scope != "openid boards:read" {
			t.Fatalf("%s: exit code %d, %s%s", email, code, got, said)
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(reply.Id_token+"..", ".")[1])
		if got := strings.Contains(string(payload), `"department":"Sales"`); err != nil ||
			got != (email == "bob@example.com") {
			t.Errorf("the ID token of %s says %s", email, payload)
		}
		creds := newLines()
		run(t.Context(), []string{"--admin", ready.Admin, "credentials", "board"}, strings.NewReader(""), creds, said)
		var app struct{ ClientID, ClientSecret string }
		if err := json.Unmarshal([]byte(creds.String()), &app); err != nil {
			t.Fatal(err)
		}
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {reply.Refresh_token},
			"client_id": {app.ClientID}, "client_secret": {app.ClientSecret}}
		for range 2 { // the second comes within the interval
			resp, err := http.PostForm(ready.Issuer+"/oauth/token", form)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("refresh: %s", resp.Status)
			}
		}
	}
	// What an app is refused is on the terminal.
	_, _ = http.PostForm(ready.Issuer+"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {"nobody"},
		"client_secret": {"x"}})
	if _, err := said.await(t.Context(), nil, regexp.MustCompile(
		`refused /oauth/token for nobody: invalid_client: .* \[client-unknown\]; more: warifu explain [0-9a-f]{16}`)); err != nil {
		t.Error(err, said)
	}
}

// A file for dev says nothing of what dev decides by itself.
func TestDevRefusesWhatItDecidesItself(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dev.yaml")
	for text, want := range map[string]string{
		"issuer: https://id.example.com\nweb: {http: 127.0.0.1:1, https: 127.0.0.1:2, allowedOrigins: [http://localhost:3000]}": "dev.yaml:1:9: issuer is for warifu serve|dev.yaml:2:13: web.http is|dev.yaml:2:33: web.https is",
		"storage: {config: {dataDir: x}}":            "dev.yaml:1:10: storage is for warifu serve",
		"scopes: [{name: a b}]\nexpiry: {codes: 1h}": "scopes[0].name|expiry.codes",
		"scope: []": "did you mean",
		"staticPasswords: [{email: ann@example.com, userID: dev, hash: x}]": "must be a bcrypt hash|staticPasswords[1].userID is the same as staticPasswords[0].userID",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		said := newLines()
		code := run(t.Context(), []string{"dev", "-f", "testdata/app.yml", "--listen", "127.0.0.1:0", "--data",
			filepath.Join(dir, "data"), "--config", file},
			strings.NewReader(""), newLines(), said)
		for part := range strings.SplitSeq(want, "|") {
			if code != exitInvalid || !strings.Contains(said.String(), part) {
				t.Errorf("%q: exit code %d without %q:\n%s", text, code, part, said)
			}
		}
	}
	said := newLines()
	if code := run(t.Context(), []string{"dev", "-f", "testdata/app.yml", "--listen", "127.0.0.1:0", "--data",
		filepath.Join(dir, "data"), "--user", "ann"},
		strings.NewReader(""), newLines(), said); code != exitInvalid || !strings.Contains(said.String(),
		"--user ann: it must be an e-mail address") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// An app behind forward auth can be developed: the proxy on this machine is trusted when the file says so.
func TestDevTrustsTheProxyOfAnApp(t *testing.T) {
	dir := t.TempDir()
	manifest, file := filepath.Join(dir, "app.yml"), filepath.Join(dir, "dev.yaml")
	for name, text := range map[string]string{
		manifest: "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: wiki}\nspec:\n  version: 1.0.0\n" +
			"  oauth: {clientName: Wiki, scopes: [openid], forwardAuth: {hosts: ['localhost:8080']}}\n",
		file: devFile + "\nweb: {trustedProxies: [127.0.0.1, '::1']}\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ready, _ := startDev(t, "-f", manifest, "--listen", "localhost:0", "--data", filepath.Join(dir, "data"),
		"--config", file)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ready.Issuer+"/auth/verify", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"X-Forwarded-Host": "localhost:8080", "X-Forwarded-Proto": "http",
		"X-Forwarded-Uri": "/", "Accept": "text/html"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, ready.Issuer+
		"/oauth/authorize?") {
		t.Errorf("%s %s", resp.Status, to)
	}
}

// A dev server invites somebody, whose account is kept in the database, until they have chosen how to sign in.
func TestDevInvitesSomebody(t *testing.T) {
	data := t.TempDir()
	t.Run("the link", func(t *testing.T) {
		ready, _ := startDev(t, "--listen", "localhost:0", "--data", data)
		if ready.Invitation == nil || ready.Invitation.Email != "you@example.com" {
			t.Fatalf("invited: %+v", ready.Invitation)
		}
		jar, _ := cookiejar.New(nil) // never fails
		browser := &http.Client{Jar: jar}
		status, text := visit(t, browser, ready.Invitation.Link, nil)
		if status != http.StatusOK || !strings.Contains(text, "you@example.com") {
			t.Fatalf("the page of the link: %d %s", status, text)
		}
		address, err := url.Parse(ready.Invitation.Link)
		if err != nil {
			t.Fatal(err)
		}
		page, err := readPage(address, []byte(text))
		if err != nil || page.form == nil {
			t.Fatal(err, text)
		}
		form := page.form.values
		form.Set("password", "slow boats carry nine lamps")
		form.Set("again", "slow boats carry nine lamps")
		status, text = visit(t, browser, page.form.action.String(), form)
		if status != http.StatusOK || !strings.Contains(text, "you@example.com") {
			t.Errorf("their account: %d %s", status, text)
		}
		if status, _ = visit(t, browser, ready.Invitation.Link, nil); status != http.StatusGone {
			t.Errorf("the link a second time: %d", status)
		}
	})
	t.Run("the next start", func(t *testing.T) {
		if ready, _ := startDev(t, "--listen", "localhost:0", "--data", data); ready.Invitation != nil {
			t.Errorf("invited again: %+v", ready.Invitation)
		}
	})
	t.Run("somebody else has the address", func(t *testing.T) {
		if ready, _ := startDev(t, "--listen", "localhost:0", "--user", "You@example.com"); ready.Invitation != nil {
			t.Errorf("invited: %+v", ready.Invitation)
		}
	})
}

// visit fetches a page, or sends a form, and follows redirects.
func visit(t *testing.T, browser *http.Client, address string, form url.Values) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if form != nil {
		req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if err != nil {
		t.Fatal(err)
	}
	resp, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
