//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSpecExample runs the full example of the spec and gets tokens for it by one command. It also reports how much
// memory an idle `warifu dev` takes and how long it took to be ready. It judges neither: both depend on the machine.
func TestSpecExample(t *testing.T) {
	p := suite.server
	report := fmt.Sprintf("warifu dev with the spec's example: ready after %d ms, idle %s\n", p.took.Milliseconds(),
		suite.idle)
	t.Log(report)
	if err := os.WriteFile(artifact(t, "footprint.txt"), []byte(report), 0o644); err != nil {
		t.Fatal(err)
	}
	out := command(t, p.ready.User.Password+"\n", "token", "my-oauth-app", "--admin", p.ready.Admin,
		"--login", p.ready.User.Email, "--password-stdin")
	wantReply(t, out, "threads:read threads:write runs:read")
	path, err := p.envFile("my-oauth-app")
	if err != nil {
		t.Fatal(err)
	}
	readEnv(t, path)
}

// wantReply checks the reply of the token endpoint as the spec promises it.
func wantReply(t *testing.T, text, scopes string) {
	t.Helper()
	var reply struct {
		AccessToken  string `json:"access_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int    `json:"expires_in"`
		RefreshToken string `json:"refresh_token"`
		Scope        string `json:"scope"`
	}
	if err := json.Unmarshal([]byte(text), &reply); err != nil {
		t.Fatalf("the reply is not JSON: %v", err)
	}
	if reply.AccessToken == "" || reply.RefreshToken == "" || !strings.EqualFold(reply.TokenType, "bearer") ||
		reply.ExpiresIn != 3600 || reply.Scope != scopes {
		t.Errorf("type %q, expires in %d, scope %q, access token %t, refresh token %t", reply.TokenType, reply.ExpiresIn,
			reply.Scope, reply.AccessToken != "", reply.RefreshToken != "")
	}
}

// TestTokenCommand is `warifu token` with a person in front of it, who opens the address that it prints.
func TestTokenCommand(t *testing.T) {
	t.Parallel()
	a := newApp(t, "terminal")
	cmd := exec.CommandContext(t.Context(), suite.binary, "token", a.name, "--admin", suite.server.ready.Admin,
		"--scope", "threads:read,files:write")
	var stdout strings.Builder
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	words := bufio.NewReader(stderr)
	var address string
	for address == "" {
		line, err := words.ReadString('\n')
		if err != nil {
			t.Fatalf("warifu token prints no address: %v", err)
		}
		if line = strings.TrimSpace(line); strings.HasPrefix(line, suite.server.ready.Issuer) {
			address = line
		}
	}
	_, b := newPerson(t, "en")
	b.open(address)
	b.signInAs(suite.server)
	if asked := b.readConsent(); !slices.Equal(names(asked.New), []string{"threads:read", "files:write"}) {
		t.Errorf("asks for %v", names(asked.New))
	}
	b.press(allow)
	if text := b.text("body"); !strings.Contains(text, "go back to the terminal") {
		t.Errorf("at the end the browser shows %q", text)
	}
	if rest, err := io.ReadAll(words); err != nil {
		t.Errorf("read stderr: %v (%s)", err, rest)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	wantReply(t, stdout.String(), "threads:read files:write")
	b.took() // the terminal's own page has no icon
}

// TestRestart ends the server between one page and the next as a power cut would. Nobody notices: what travels is
// sealed under keys that are stored, and what was allowed or begun is stored as well.
func TestRestart(t *testing.T) {
	t.Parallel()
	data, file := t.TempDir(), t.TempDir()+"/app.yml"
	if err := os.WriteFile(file, []byte(manifest("phoenix", suite.site.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := dev(t, data, "127.0.0.1:0", file)
	first := p.ready
	listen := strings.TrimPrefix(first.Issuer, "http://")
	again := func() {
		t.Helper()
		p.kill(t)
		p = dev(t, data, listen, file)
		if p.ready.Issuer != first.Issuer || p.ready.User != first.User ||
			p.ready.Apps[0].ClientID != first.Apps[0].ClientID {
			t.Fatalf("after a restart everything is different: %+v", p.ready.Issuer)
		}
	}
	path, err := p.envFile("phoenix")
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a := startApp(t, "phoenix", path)
	_, b := newPerson(t, "en")

	b.open(a.url("/login"))
	b.onSignIn()
	again() // the pending request and its form are good
	b.signInAs(p)
	b.onConsent()
	again() // so are the session and the consent form
	b.press(allow)
	b.onApp("signed in")
	token := a.last(t).Token
	again() // what was allowed stays allowed, and tokens stay good
	b.open(a.url("/login"))
	b.onApp("signed in")
	if a.came() != 2 {
		t.Errorf("came back %d times", a.came())
	}
	next, err := a.refresh(t.Context(), token.RefreshToken)
	if err != nil {
		t.Fatalf("refresh after a restart: %v", err)
	}
	if next.RefreshToken == token.RefreshToken || time.Until(next.Expiry) < 0 {
		t.Error("the refresh gives no new tokens")
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(env) {
		t.Errorf("the env file changed over restarts (%v)", err)
	}
}
