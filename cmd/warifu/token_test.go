package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/admin"
)

const loopbackApp = `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: APP}
spec:
  version: 1.0.0
  oauth:
    clientName: Loopback
    redirectUris: ["URI"]
    scopes: [openid, threads:read]
    EXTRA: true
`

// applied applies a manifest with the given name, redirect URI and one more key.
func (i *instance) applied(t *testing.T, app, uri, extra string) {
	t.Helper()
	text := strings.NewReplacer("APP", app, "URI", uri, "EXTRA", extra).Replace(loopbackApp)
	if _, _, err := i.apps.Apply(t.Context(), []admin.Document{{Name: app + ".yml", Content: text}},
		admin.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
}

// tokenRun is `warifu token` that waits for a browser.
type tokenRun struct {
	address *url.URL // to sign in at
	back    string   // redirect URI
	out     *bytes.Buffer
	said    *lines
	code    chan int
}

func startToken(t *testing.T, i *instance, args ...string) *tokenRun {
	t.Helper()
	r := &tokenRun{out: &bytes.Buffer{}, said: newLines(), code: make(chan int, 1)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		r.code <- run(ctx, append([]string{"--admin", i.cfg.Socket, "token"}, args...), strings.NewReader(""), r.out, r.said)
	}()
	found, err := r.said.await(ctx, ended, regexp.MustCompile(`http://\S+`))
	if err != nil {
		t.Fatal(err, r.said)
	}
	if r.address, err = url.Parse(found); err != nil {
		t.Fatal(err)
	}
	r.back = r.address.Query().Get("redirect_uri")
	return r
}

// visit follows a redirect to the waiting command.
func (r *tokenRun) visit(t *testing.T, query url.Values) int {
	t.Helper()
	resp, err := (&http.Client{Timeout: patience}).Get(r.back + "?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestTokenWaitsForTheBrowser(t *testing.T) {
	i := testInstance(t)
	i.applied(t, "confidential", "http://127.0.0.1:*/cb", "autoEnv")
	i.applied(t, "public", "http://localhost:*", "public")
	for _, app := range []string{"confidential", "public"} {
		r := startToken(t, i, app)
		if q := r.address.Query(); q.Get("code_challenge_method") != "S256" || len(q.Get("state")) < 20 ||
			q.Get("scope") != "openid threads:read" {
			t.Errorf("%s: asks with %v", app, q)
		}
		a := &authorization{http: http.DefaultClient, issuer: i.cfg.Issuer, redirectURI: r.back}
		answer, err := a.walk(t.Context(), r.address.String(), "ann@example.com", "password")
		if err != nil {
			t.Fatal(err)
		}
		// Somebody else's page that guesses the port gets nowhere.
		forged := url.Values{"code": {"x"}, "state": {"y"}, "iss": {i.cfg.Issuer}}
		if status := r.visit(t, forged); status != http.StatusNotFound {
			t.Errorf("%s: a forged answer gets %d", app, status)
		}
		if status := r.visit(t, answer); status != http.StatusOK {
			t.Errorf("%s: the answer gets %d", app, status)
		}
		if code := <-r.code; code != exitDone {
			t.Fatalf("%s: exit code %d: %s", app, code, r.said)
		}
		var reply map[string]any
		if err := json.Unmarshal(r.out.Bytes(), &reply); err != nil || reply["id_token"] == nil ||
			reply["token_type"] != "Bearer" {
			t.Errorf("%s: %v in %s", app, err, r.out)
		}
	}
}

func TestTokenRefusesAnswersThatAreNotItsOwn(t *testing.T) {
	i := testInstance(t)
	i.applied(t, "app", "http://127.0.0.1:*", "autoEnv")
	for name, c := range map[string]struct {
		change func(url.Values)
		says   string
	}{
		"another issuer":  {func(q url.Values) { q.Set("iss", "https://evil.example") }, "from another issuer"},
		"no issuer":       {func(q url.Values) { q.Del("iss") }, "from another issuer"},
		"a refusal":       {func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }, "access_denied"},
		"a broken code":   {func(q url.Values) { q.Set("code", "wfc_nothing") }, "invalid_grant"},
		"hostile wording": {func(q url.Values) { q.Set("error", "\x1b[2Jx") }, "\uFFFD[2Jx"},
	} {
		r := startToken(t, i, "app", "--scope", "threads:read")
		query := url.Values{"code": {"x"}, "state": {r.address.Query().Get("state")}, "iss": {i.cfg.Issuer}}
		c.change(query)
		r.visit(t, query)
		if code := <-r.code; code != exitFailed || !strings.Contains(r.said.String(), c.says) || r.out.Len() > 0 {
			t.Errorf("%s: exit code %d, %q, %q", name, code, r.said, r.out)
		}
	}
}

func TestTokenWithoutALoopbackRedirectSaysWhatToAdd(t *testing.T) {
	i := testInstance(t)
	i.applied(t, "web", "https://web.example.com/cb", "autoEnv")
	var out bytes.Buffer
	said := newLines()
	code := run(t.Context(), []string{"--admin", i.cfg.Socket, "token", "web"}, strings.NewReader(""), &out, said)
	if code != exitFailed || !strings.Contains(said.String(), "add http://localhost:* to spec.oauth.redirectUris") {
		t.Errorf("exit code %d: %s", code, said)
	}
	// Walking the pages needs no listener.
	code = run(t.Context(), []string{"--admin", i.cfg.Socket, "token", "web", "--login", "ann@example.com",
		"--password-stdin"}, strings.NewReader("password\n"), &out, said)
	if code != exitDone || !strings.Contains(out.String(), `"access_token"`) {
		t.Errorf("exit code %d: %s", code, said)
	}
}

func TestTokenWhosePortIsTakenSaysSo(t *testing.T) {
	i := testInstance(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	i.applied(t, "app", "http://"+busy.Addr().String()+"/cb", "autoEnv")
	said := newLines()
	code := run(t.Context(), []string{"--admin", i.cfg.Socket, "token", "app"}, strings.NewReader(""),
		&bytes.Buffer{}, said)
	if code != exitFailed || !strings.Contains(said.String(), "no port that the app's redirect URIs allow is free") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

func TestTokenGivesUpWhenNobodySignsIn(t *testing.T) {
	i := testInstance(t)
	i.applied(t, "app", "http://127.0.0.1:*", "autoEnv")
	r := startToken(t, i, "app", "--no-browser", "--timeout", "1ms")
	if code := <-r.code; code != exitFailed || !strings.Contains(r.said.String(), "nobody has signed in for 1ms") {
		t.Errorf("exit code %d: %s", code, r.said)
	}
}

func TestInterruptedTokenEnds(t *testing.T) {
	i := testInstance(t)
	i.applied(t, "app", "http://127.0.0.1:*", "autoEnv")
	ctx, cancel := context.WithCancel(t.Context())
	said := newLines()
	code := make(chan int, 1)
	go func() { // ends with ctx
		code <- run(ctx, []string{"--admin", i.cfg.Socket, "token", "app"}, strings.NewReader(""), &bytes.Buffer{}, said)
	}()
	if _, err := said.await(t.Context(), nil, regexp.MustCompile(`http://\S+`)); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case got := <-code:
		if got != exitFailed {
			t.Error("exit code", got)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}
