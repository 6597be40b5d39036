//go:build e2e

package clients

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/conformance/local"
)

// walk is what an app shows at one of its addresses.
type walk struct {
	path string
	want map[string]any
}

// Everything that an app can show.
var (
	everything = map[string]any{"sub": local.UserID, "email": local.Login, "refreshed": true, "active": true,
		"revoked": true}
	signOut = walk{"/logout", map[string]any{"state": "bye"}}
	own     = walk{"/service", map[string]any{"active": true}}
)

// libraries are the apps of other languages, with what each can do.
var libraries = []struct {
	name    string
	program []string
	walks   []walk
}{
	{"openid-client", []string{"node", "openid-client.js"}, []walk{{"/", everything}, signOut, own,
		{"/par-dpop", map[string]any{"sub": local.UserID, "email": local.Login, "tokenType": "dpop"}}}},
	{"oauth4webapi", []string{"node", "oauth4webapi.js"}, []walk{{"/", everything}, signOut, own}},
	{"passport", []string{"node", "passport.js"}, []walk{{"/", map[string]any{"sub": local.UserID,
		"email": local.Login}}}},
	{"authlib", []string{"python", "authlib_flask.py"}, []walk{{"/", everything}, signOut, own}},
	{"requests-oauthlib", []string{"python", "requests_oauthlib_flask.py"}, []walk{
		{"/", map[string]any{"sub": local.UserID, "email": local.Login, "refreshed": true}}, own}},
}

func TestLibrary(t *testing.T) {
	for _, l := range libraries {
		t.Run(l.name, func(t *testing.T) {
			address := start(t, l.program, register(t, l.name))
			b := newBrowser(t)
			for _, w := range l.walks {
				checkPage(t, w, b.visit(address+w.path))
			}
		})
	}
}

func checkPage(t testing.TB, w walk, body string) {
	t.Helper()
	got := make(map[string]any)
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%s shows %q: %v", w.path, body, err)
	}
	for name, want := range w.want {
		if got[name] != want {
			t.Errorf("%s: %s is %v, want %v", w.path, name, got[name], want)
		}
	}
}

// Auth.js has a page of its own, where the user chooses the provider.
func TestLibraryOfAuthJS(t *testing.T) {
	address := start(t, []string{"node", "authjs.js"}, register(t, "authjs"))
	b := newBrowser(t)
	page, err := b.Press(address+"/auth/signin", b.visit(address+"/"), "/auth/signin/warifu")
	if err != nil {
		t.Fatal(err)
	}
	checkPage(t, walk{"/", map[string]any{"email": local.Login, "name": local.Name}}, page)
}

// start runs an app until the test ends and gives its address.
func start(t testing.TB, program []string, c local.Credentials) string {
	t.Helper()
	runner := program[0]
	if runner == "python" {
		runner = python(t)
	} else {
		modules(t)
	}
	return announced(t, c, runner, filepath.Join(program...))
}

// announced runs a program, in its directory and with the credentials of an app in its env and what else is given,
// until the test ends, and gives the line that it says first.
func announced(t testing.TB, c local.Credentials, runner, file string, env ...string) string {
	t.Helper()
	app := exec.CommandContext(t.Context(), runner, filepath.Base(file))
	app.Dir = filepath.Dir(file)
	app.Env = append(os.Environ(), "OAUTH_ISSUER="+server.Issuer, "OAUTH_CLIENT_ID="+c.ClientID,
		"OAUTH_CLIENT_SECRET="+c.ClientSecret,
		// How each of them is told to trust a certificate, …
		"NODE_EXTRA_CA_CERTS="+server.CAFile, "SSL_CERT_FILE="+server.CAFile, "REQUESTS_CA_BUNDLE="+server.CAFile,
		// … and that the app itself, on loopback, is reached without TLS, which oauthlib otherwise refuses.
		"OAUTHLIB_INSECURE_TRANSPORT=1")
	app.Env = append(app.Env, env...)
	var said bytes.Buffer
	app.Stderr = &said
	stdout, err := app.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = app.Process.Kill() // it may have ended by itself
		_ = app.Wait()
		if t.Failed() {
			t.Logf("%v said:\n%s", app.Args, &said)
		}
	})
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("%v did not start: %v", app.Args, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }() // ends with the process
	return strings.TrimSpace(line)
}

// modules installs the pinned packages of Node, unless they are there.
func modules(t testing.TB) { modulesIn(t, "node") }

func modulesIn(t testing.TB, dir string) {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Fatal("npm is missing; install it with: apt-get install nodejs npm")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules/.package-lock.json")); err == nil {
		return
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// python gives a Python with the pinned packages, made once and kept for the next test.
func python(t testing.TB) string { return pythonWith(t, "python/requirements.txt") }

func pythonWith(t testing.TB, requirements string) string {
	t.Helper()
	text, err := os.ReadFile(requirements)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "warifu-test", fmt.Sprintf("python-%.12x", sha256.Sum256(text)))
	interpreter, complete := filepath.Join(dir, "bin", "python"), filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err == nil {
		return interpreter
	}
	if err := os.RemoveAll(dir); err != nil { // half of one
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"python3", "-m", "venv", dir},
		{interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", requirements},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s\nneeds Python 3.10 or later: apt-get install --no-install-recommends python3 python3-venv",
				command, err, out)
		}
	}
	if err := os.WriteFile(complete, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return interpreter
}
