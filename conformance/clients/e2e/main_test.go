package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/warifu/warifu/conformance/local"
)

// server is what all clients share. Only TestMain writes it.
var server *local.Server

// life is that of tokens.
const life = 5 * time.Second

func TestMain(m *testing.M) {
	code, err := runSuite(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "clients:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (_ int, err error) {
	binary := os.Getenv("WARIFU_E2E_BINARY")
	if binary == "" {
		return 0, errors.New("WARIFU_E2E_BINARY is empty: run make clients")
	}
	server, err = local.Start(context.Background(), local.Options{
		Binary: binary, Config: fmt.Sprintf("expiry: {accessTokens: %[1]s, idTokens: %[1]s}\n", life),
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	return m.Run(), nil
}

// register deploys an app with further lines of spec.oauth, and gives its credentials.
func register(t testing.TB, name string, lines ...string) local.Credentials {
	t.Helper()
	c, err := server.Deploy(name, append([]string{"clientName: " + name,
		`redirectUris: ["http://127.0.0.1:*", "http://localhost:*"]`,
		`scopes: [openid, profile, email, groups, offline_access, "threads:read"]`}, lines...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tokens signs the user in to an app, and gives what the app gets.
func tokens(t testing.TB, c local.Credentials, scopes []string, more ...oauth2.AuthCodeOption) *oauth2.Token {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.Roots}}}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, client)
	codes := make(chan string, 1)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		codes <- r.FormValue("code")
	}))
	defer app.Close()
	config := oauth2.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret, RedirectURL: app.URL + "/callback", Scopes: scopes,
		Endpoint: oauth2.Endpoint{AuthURL: c.Issuer + "/oauth/authorize", TokenURL: c.Issuer + "/oauth/token"},
	}
	verifier := oauth2.GenerateVerifier()
	address := config.AuthCodeURL(rand.Text(), append(more, oauth2.S256ChallengeOption(verifier))...)
	if _, err := server.Browser().Visit(address); err != nil {
		t.Fatal(err)
	}
	got, err := config.Exchange(ctx, <-codes, append(more, oauth2.VerifierOption(verifier))...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func freeAddress(t testing.TB) string {
	t.Helper()
	address, err := local.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// cache is where clients are built, so that they are built once.
func cache(t testing.TB) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "warifu-test", "clients")
}

// need fails the test when a program is missing.
func need(t testing.TB, program, install string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is missing; install it with: %s", program, install)
	}
}

// build runs a command that makes a client, in a directory.
func build(t testing.TB, dir string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// run starts a program until the test ends, and gives the first line that it prints to first, unless that is nil.
func run(t testing.TB, env []string, first chan<- string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	// The context of a test ends before what it has to clean up is run.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second // its children end later
	said := &output{first: first}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", command[0], said.text.Bytes())
		}
	})
}

// output is what a program says.
type output struct {
	text  bytes.Buffer
	first chan<- string
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.text.Write(p)
	if line, _, whole := strings.Cut(o.text.String(), "\n"); whole && o.first != nil {
		o.first <- line
		o.first = nil
	}
	return n, err
}

// until waits for something to become true.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within a minute", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// answers reports whether somebody answers at an address.
func answers(address string) func() bool {
	return func() bool {
		resp, err := http.Get(address)
		return err == nil && resp.Body.Close() == nil
	}
}

// expiry is when a JWT expires, which somebody else verifies.
func expiry(t testing.TB, token string) time.Time {
	t.Helper()
	parts := strings.Split(token, ".")
	var claims struct {
		Expires int64 `json:"exp"`
	}
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return time.Unix(claims.Expires, 0)
}

// shows checks members of the JSON that an app shows.
func shows(t testing.TB, page string, want map[string]any) {
	t.Helper()
	got := make(map[string]any)
	if err := json.Unmarshal([]byte(page), &got); err != nil {
		t.Fatalf("%q: %v", page, err)
	}
	for name, value := range want {
		if fmt.Sprint(got[name]) != fmt.Sprint(value) {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
}
