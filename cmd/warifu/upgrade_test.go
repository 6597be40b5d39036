package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var earlier = flag.String("earlier", "", "program of an earlier release, to make testdata/upgrade with")

// eraIssuer is the issuer of the data of an earlier release, which is in its tokens. Nobody need listen there.
const eraIssuer = "http://127.0.0.1:38471"

const eraManifest = `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: board}
spec:
  version: 1.0.0
  oauth: {clientName: Board, redirectUris: ["https://board.example.com/cb"], scopes: [openid, "threads:read"], autoEnv: true}
  workers: {web: {}}
`

// eraLasts: whatever the data holds has not expired when this test runs.
const eraLasts = `expiry: {accessTokens: 175200h, idTokens: 175200h, sessions: 175200h, signingKeys: 175200h, sealingKeys: 175200h,
  refreshTokens: {validIfNotUsedFor: 175200h, absoluteLifetime: 175200h}}
`

// keepsake is what an app and people had when the earlier release ended.
type keepsake struct {
	ClientID, ClientSecret string
	// Refresh is the newest refresh token of Ann's grant. Used was used, and Newest is what came for it.
	Refresh, Used, Newest string
	Access                string
	Cookies               []*http.Cookie // of Ann's browser
	Keys                  []string       // that sign
}

// era is a server on such data.
type era struct {
	*serving
	t       *testing.T
	address string
	http    *http.Client
}

// RoundTrip sends what is for the issuer to where the server listens.
func (e *era) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = r.URL.Host
	r.URL.Host = e.address
	return http.DefaultTransport.RoundTrip(r)
}

func startEra(t *testing.T, program, dir, address string) *era {
	t.Helper()
	e := &era{t: t, address: address, serving: &serving{issuer: eraIssuer, dir: dir}}
	jar, _ := cookiejar.New(nil) // never fails
	e.http = &http.Client{Jar: jar, Transport: e, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	text := fmt.Sprintf("issuer: %s\nstorage: {config: {dataDir: %s}}\nweb: {http: %s}\nenablePasswordDB: true\n"+
		"staticPasswords: [{email: ann@example.com, userID: ann, hash: "+
		"$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}]\n"+
		"plugins: {runtimes: [{name: file, config: {dir: %s}}]}\n",
		eraIssuer, filepath.Join(dir, "data"), address, filepath.Join(dir, "env")) + eraLasts
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", file)
	p := &process{cmd: cmd, ended: make(chan struct{}), out: newLines(), said: newLines()}
	e.process, cmd.Stdout, cmd.Stderr = p, p.out, p.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		p.err = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(e.stop)
	e.says(t, `msg="warifu serves"`)
	return e
}

func (e *era) stop() {
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	<-e.ended
}

// ask sends a request, and returns what is answered.
func (e *era) ask(r *http.Request) (*http.Response, []byte) {
	e.t.Helper()
	resp, err := e.http.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		e.t.Fatal(err)
	}
	return resp, body
}

// code signs in, if that is needed, and returns the code, or the error that the app gets.
func (e *era) code(login, password, prompt string) string {
	e.t.Helper()
	address := eraIssuer + "/oauth/authorize?" + url.Values{"client_id": {"board"},
		"redirect_uri":  {"https://board.example.com/cb"},
		"response_type": {"code"}, "scope": {"openid threads:read"}, "state": {"x"}, "code_challenge_method": {"S256"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "prompt": {prompt}}.Encode()
	req, err := http.NewRequest(http.MethodGet, strings.TrimSuffix(address, "prompt="), http.NoBody)
	for range maxPages {
		if err != nil {
			e.t.Fatal(err)
		}
		resp, body := e.ask(req)
		page, err2 := readPage(req.URL, body)
		if err2 != nil {
			e.t.Fatal(err2)
		}
		next := page.onward
		if at, err := resp.Location(); err == nil {
			next = at
		}
		if next != nil && next.Host == "board.example.com" {
			return next.Query().Get("code") + next.Query().Get("error")
		}
		if next != nil {
			req, err = http.NewRequest(http.MethodGet, next.String(), http.NoBody)
			continue
		}
		if page.form == nil {
			e.t.Fatalf("%s: %s", resp.Status, page.words())
		}
		if page.form.password != "" {
			page.form.values.Set(page.form.login, login)
			page.form.values.Set(page.form.password, password)
		} else {
			page.form.values.Set(page.form.allow.name, page.form.allow.value)
		}
		req, err = http.NewRequest(http.MethodPost, page.form.action.String(), strings.NewReader(page.form.values.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", eraIssuer)
		}
	}
	e.t.Fatal("the pages form a loop")
	return ""
}

// tokens are those of a token request of the app.
func (e *era) tokens(h *keepsake, form url.Values) (tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	ID      string `json:"id_token"`
	Error   string `json:"error"`
}) {
	e.t.Helper()
	req, err := http.NewRequest(http.MethodPost, eraIssuer+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(h.ClientID), url.QueryEscape(h.ClientSecret))
	resp, body := e.ask(req)
	if err := json.Unmarshal(body, &tokens); err != nil {
		e.t.Fatalf("%s: %v: %s", resp.Status, err, body)
	}
	return tokens
}

func redemption(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri":  {"https://board.example.com/cb"},
		"code_verifier": {"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}}
}

func refreshing(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
}

// keys are the names of the keys that apps verify with.
func (e *era) keys() (kids []string) {
	e.t.Helper()
	req, err := http.NewRequest(http.MethodGet, eraIssuer+"/oauth/jwks", http.NoBody)
	if err != nil {
		e.t.Fatal(err)
	}
	_, body := e.ask(req)
	var set struct{ Keys []struct{ KID string } }
	if err := json.Unmarshal(body, &set); err != nil {
		e.t.Fatalf("%v: %s", err, body)
	}
	for _, k := range set.Keys {
		kids = append(kids, k.KID)
	}
	return kids
}

// run runs a command of a program on the server, with something on stdin.
func (e *era) run(program, stdin string, args ...string) string {
	e.t.Helper()
	cmd := exec.CommandContext(e.t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "WARIFU_ADMIN="+filepath.Join(e.dir, "data", "admin.sock"))
	cmd.Stdin = strings.NewReader(stdin)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		e.t.Fatalf("warifu %s: %v: %s", strings.Join(args, " "), err, said.String())
	}
	return string(out) + said.String()
}

// The data that TestDataOfAnEarlierReleaseIsServed serves: testdata/upgrade/make.sh makes it.
func TestDataOfAnEarlierReleaseIsMade(t *testing.T) {
	if *earlier == "" {
		t.Skip("make.sh gives -earlier")
	}
	dir, h := t.TempDir(), &keepsake{ClientID: "board"}
	e := startEra(t, *earlier, dir, strings.TrimPrefix(eraIssuer, "http://"))
	manifest := filepath.Join(dir, "app.yml")
	text := strings.Replace(eraManifest, "redirectUris", "clientId: board, redirectUris", 1)
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e.run(*earlier, "", "apply", "-f", manifest, "--yes", "--wait")
	var credentials struct{ ClientSecret string }
	if err := json.Unmarshal([]byte(e.run(*earlier, "", "credentials", "board", "-o", "json")), &credentials); err != nil {
		t.Fatal(err)
	}
	h.ClientSecret = credentials.ClientSecret
	e.run(*earlier, "", "invite", "user", "ben@example.com")
	e.run(*earlier, crowdPassword, "set-password", "ben@example.com")
	first := e.tokens(h, redemption(e.code("ann@example.com", "password", "")))
	h.Access = first.Access
	h.Refresh = e.tokens(h, refreshing(first.Refresh)).Refresh
	second := e.tokens(h, redemption(e.code("", "", "none")))
	h.Used, h.Newest = second.Refresh, e.tokens(h, refreshing(second.Refresh)).Refresh
	at, err := url.Parse(eraIssuer + "/oauth/authorize")
	if err != nil {
		t.Fatal(err)
	}
	h.Cookies, h.Keys = e.http.Jar.Cookies(at), e.keys()
	e.stop()
	to := filepath.Join("testdata", "upgrade")
	packed, err := os.Create(filepath.Join(to, "data.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	said, _ := json.MarshalIndent(h, "", "  ") // never fails
	if err := errors.Join(pack(packed, dir), packed.Close(), os.WriteFile(filepath.Join(to, "held.json"), said,
		0o600)); err != nil {
		t.Fatal(err)
	}
}

// pack writes the regular files below data and env.
func pack(to io.Writer, dir string) error {
	compressed, err := gzip.NewWriterLevel(to, gzip.BestCompression)
	if err != nil {
		return err
	}
	out := tar.NewWriter(compressed)
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		inside, err2 := filepath.Rel(dir, name)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if !d.Type().IsRegular() || !strings.HasPrefix(inside, "data/") && !strings.HasPrefix(inside, "env/") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		err = out.WriteHeader(&tar.Header{Name: filepath.ToSlash(inside), Mode: 0o600, Size: int64(len(text)),
			Typeflag: tar.TypeReg})
		if err == nil {
			_, err = out.Write(text)
		}
		return err
	})
	return errors.Join(err, out.Close(), compressed.Close())
}

func unpack(t *testing.T, file, dir string) {
	t.Helper()
	packed, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }()
	plain, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	for in := tar.NewReader(plain); ; {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		name := filepath.Join(dir, filepath.FromSlash(head.Name))
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// This release serves what an earlier one has written, and nobody notices: not the app, whose secret, tokens and env
// stay, nor people, who stay signed in. What was used stays used, and no key, secret or env is replaced for it.
func TestDataOfAnEarlierReleaseIsServed(t *testing.T) {
	t.Parallel()
	dir, h := t.TempDir(), new(keepsake)
	unpack(t, "testdata/upgrade/data.tar.gz", dir)
	said, err := os.ReadFile("testdata/upgrade/held.json")
	if err == nil {
		err = json.Unmarshal(said, h)
	}
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	env := func() string {
		text, err := os.ReadFile(filepath.Join(dir, "env", "board", "worker-web.env"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := env()
	e := startEra(t, "warifu", dir, address)

	if kids := e.keys(); !slices.Equal(kids, h.Keys) {
		t.Errorf("apps verify with %s, and did with %s", kids, h.Keys)
	}
	userinfo := func(token string) int {
		req, err := http.NewRequest(http.MethodGet, eraIssuer+"/oauth/userinfo", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, _ := e.ask(req)
		return resp.StatusCode
	}
	if code := userinfo(h.Access); code != http.StatusOK {
		t.Errorf("an access token: %d", code)
	}
	next := e.tokens(h, refreshing(h.Refresh))
	if next.Refresh == "" || next.Error != "" || userinfo(next.Access) != http.StatusOK {
		t.Errorf("the refresh token: %+v", next)
	}
	at, err := url.Parse(eraIssuer + "/")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range h.Cookies {
		c.Path = "/"
	}
	e.http.Jar.SetCookies(at, h.Cookies)
	if got := e.tokens(h, redemption(e.code("", "", "none"))); got.ID == "" {
		t.Errorf("by the session: %+v", got)
	}
	if got := e.tokens(h, refreshing(h.Used)); got.Error != "invalid_grant" {
		t.Errorf("a refresh token that was used: %+v", got)
	}
	if got := e.tokens(h, refreshing(h.Newest)); got.Error != "invalid_grant" {
		t.Errorf("what came for it, after that: %+v", got)
	}
	e.http.Jar, _ = cookiejar.New(nil) // somebody else; never fails
	if got := e.tokens(h, redemption(e.code("ben@example.com", crowdPassword, ""))); got.ID == "" {
		t.Errorf("an account with a password: %+v", got)
	}
	if out := e.run("warifu", "", "credentials", "board", "-o", "json"); !strings.Contains(out, h.ClientSecret) {
		t.Errorf("the secret is another one: %s", out)
	}
	if out := e.run("warifu", "", "get", "deliveries", "-o", "json"); !strings.Contains(out, `"state": "ready"`) ||
		env() != before {
		t.Errorf("env: %s", out)
	}
	if out := e.run("warifu", "", "audit", "-o", "json"); strings.Contains(out, "key-rotated") ||
		strings.Contains(out, `"rotate"`) {
		t.Errorf("something was replaced: %s", out)
	}
	for _, line := range strings.Split(e.said.String(), "\n") {
		if strings.Contains(line, "level=ERROR") {
			t.Error(line)
		}
	}
	e.stop()
	if out := e.run("warifu", "", "verify", "--config", filepath.Join(dir, "config.yaml")); !strings.Contains(out,
		"nothing is wrong") {
		t.Error(out)
	}
}
