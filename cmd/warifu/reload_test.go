package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// imitation is an identity provider for the connector oauth. Whoever comes to /authorize/WHO is WHO.
func imitation(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize/{who}", func(w http.ResponseWriter, r *http.Request) {
		q := url.Values{"state": {r.FormValue("state")}, "code": {r.PathValue("who")}}
		http.Redirect(w, r, r.FormValue("redirect_uri")+"?"+q.Encode(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer"}`, r.FormValue("code"))
	})
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, r *http.Request) {
		who := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		_, _ = fmt.Fprintf(w, `{"id":%q,"user_name":%q,"email":"%s@example.com","groups":[]}`, who, who, who)
	})
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(server.Close)
	return server
}

// serving is `warifu serve` on a configuration that a test changes.
type serving struct {
	*process
	issuer, dir, upstream string
	token                 string // file of a token
}

const reloadedManifest = `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: NAME}
spec:
  version: 1.0.0
  oauth: {clientName: NAME, clientId: NAME, redirectUris: ["https://NAME.example.com/cb"], scopes: [openid], consent: skip, ACCESS}
`

// upstream is a connector of the configuration, by which people are who.
func (s *serving) connector(id, name, who string) string {
	return fmt.Sprintf(`  - type: oauth
    id: %s
    name: %s
    config:
      clientID: warifu
      clientSecret: $UPSTREAM_SECRET
      authorizationURL: %s/authorize/%s
      tokenURL: %s/token
      userInfoURL: %s/userinfo
`, id, name, s.upstream, who, s.upstream, s.upstream)
}

// write replaces the configuration, in one step.
func (s *serving) write(t *testing.T, rest string) {
	t.Helper()
	file := filepath.Join(s.dir, "config.yaml")
	text := fmt.Sprintf(`issuer: %s
storage: {config: {dataDir: %s}}
web: {http: %s, drainDelay: 0s}
trusted: [board, late]
manifests: {directories: [%s], watch: true}
`, s.issuer, filepath.Join(s.dir, "data"), strings.TrimPrefix(s.issuer, "http://"), filepath.Join(s.dir, "apps")) + rest
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// says waits for a line of the log after those that it has waited for.
func (s *serving) says(t *testing.T, pattern string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := s.said.await(ctx, s.ended, regexp.MustCompile(pattern)); err != nil {
		t.Fatalf("it does not say %q: %v\n%s", pattern, err, regexp.MustCompile(`.*msg=sign-in.*\n`).ReplaceAllString(
			s.said.String(), ""))
	}
}

func serveReloadable(t *testing.T, rest func(*serving) string) *serving {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	upstream := imitation(t)
	upstream.Start()
	s := &serving{issuer: "http://" + listener.Addr().String(), dir: t.TempDir(), upstream: upstream.URL}
	_ = listener.Close()
	s.token = filepath.Join(s.dir, "token")
	if err := os.WriteFile(s.token, []byte(strings.Repeat("t", 40)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "apps"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, access := range map[string]string{"board": "autoEnv: false", "late": "access: {connectors: [two]}"} {
		manifest := strings.NewReplacer("NAME", name, "ACCESS", access).Replace(reloadedManifest)
		if err := os.WriteFile(filepath.Join(s.dir, "apps", name+".yml"), []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, rest(s))
	s.start(t)
	s.says(t, `msg="app applied" app=board`)
	return s
}

// start starts a server on the configuration that there is now.
func (s *serving) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command("warifu", "serve", filepath.Join(s.dir, "config.yaml"))
	cmd.Env = append(os.Environ(), "UPSTREAM_SECRET=the-secret-of-the-upstream")
	p := &process{cmd: cmd, ended: make(chan struct{}), out: newLines(), said: newLines()}
	s.process, cmd.Stdout, cmd.Stderr = p, p.out, p.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		p.err = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-p.ended
		if strings.Contains(p.said.String(), "the-secret-of-the-upstream") {
			t.Error("the log has a secret")
		}
	})
	s.says(t, `msg="warifu serves"`)
}

// person is somebody with a browser of their own.
func person() *http.Client {
	jar, _ := cookiejar.New(nil) // never fails
	return &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasSuffix(r.URL.Host, ".example.com") {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// authorize asks for a code of an app, by a connector, and returns what the app is told: the code or an error, or the
// status of the page at which it ends.
func (s *serving) authorize(browser *http.Client, app, connector string, more ...string) string {
	q := url.Values{"response_type": {"code"}, "client_id": {app}, "redirect_uri": {"https://" + app + ".example.com/cb"},
		"scope": {"openid"}, "state": {"x"}}
	if connector != "" {
		q.Set("connector_id", connector)
	}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	resp, err := browser.Get(s.issuer + "/oauth/authorize?" + q.Encode())
	if err != nil {
		return err.Error()
	}
	page, _ := io.ReadAll(resp.Body) // what is missing is found below
	_ = resp.Body.Close()
	to, err := resp.Location()
	if onward := html.UnescapeString(string(regexp.MustCompile(`https://` + app + `\.example\.com/cb\?[^"]*`).Find(
		page))); err != nil {
		to, err = url.Parse(onward)
	}
	switch {
	case err != nil || to.Host == "":
		return resp.Status
	case to.Query().Get("code") != "":
		return "code"
	}
	return to.Query().Get("error")
}

// Connectors are added, changed and removed while people sign in by another, and nobody there notices.
func TestConnectorsChangeWhilePeopleSignIn(t *testing.T) {
	s := serveReloadable(t, func(s *serving) string { return "connectors:\n" + s.connector("one", "One", "ann") })
	one := "connectors:\n" + s.connector("one", "One", "ann")

	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	var signedIn atomic.Int64
	defer func() {
		stop()
		others.Wait()
		if signedIn.Load() == 0 {
			t.Error("nobody has signed in meanwhile")
		}
	}()
	for range 2 {
		others.Go(func() {
			for ctx.Err() == nil {
				if got := s.authorize(person(), "board", "one"); got != "code" && ctx.Err() == nil {
					t.Errorf("meanwhile, by the other connector: %s", got)
					return
				}
				signedIn.Add(1)
			}
		})
	}

	// One that is added works at once, and apps may name it.
	s.says(t, `apps/late.yml:\S+ spec.oauth.access.connectors\[0\] is \\"two\\", which is not a connector`)
	s.write(t, one+s.connector("two", "Two", "ben"))
	s.says(t, `msg="the configuration was read again" connectors_added=\[two\]\n`)
	s.says(t, `msg="app applied" app=late`)
	ben := person()
	if got := s.authorize(ben, "late", "two"); got != "code" {
		t.Errorf("by the new connector: %s", got)
	}
	if got := s.authorize(ben, "board", "", "prompt", "none"); got != "code" {
		t.Errorf("signed in by the new connector: %s", got)
	}

	// One that is changed is another one for whoever comes next.
	s.write(t, one+s.connector("two", "Two", "bob"))
	s.says(t, `msg="the configuration was read again" connectors_changed=\[two\]\n`)
	if got := s.authorize(person(), "board", "two"); got != "code" {
		t.Errorf("by the changed connector: %s", got)
	}

	// A faulty file changes nothing, and its faults have their place.
	s.write(t, one+s.connector("two", "Two", "ben")+s.connector("two", "Again", "cat")+"enablePasswordDb: true\n")
	s.says(t, `msg="the configuration was read again and is faulty; the previous one stays in use" `+
		`fault="\S+config.yaml:\d+:9: connectors\[2\].id is the same as connectors\[1\].id"`)
	s.says(t, `fault="\S+config.yaml:\d+:1: enablePasswordDb is not a key of the configuration`)
	if got := s.authorize(ben, "board", "", "prompt", "none"); got != "code" {
		t.Errorf("after a faulty file: %s", got)
	}

	// With one that is removed its people leave; the others stay. Keys that wait for a restart are named.
	s.write(t, one+"expiry: {codes: 30s}\nadmin: {listen: 127.0.0.1:0, tokenFile: "+s.token+"}\n")
	s.says(t,
		`msg="the configuration was read again" connectors_removed=\[two\] changed="?\[admin.tokenFile expiry.codes\]"? restart_for=\[admin.listen\]`)
	s.says(t, `msg="users of connectors that are no longer in the configuration were signed out; .*users=2`)
	if got := s.authorize(ben, "board", "", "prompt", "none"); got != "login_required" {
		t.Errorf("by the removed connector: %s", got)
	}

	// When it is back, so are they.
	s.write(t, one+s.connector("two", "Two", "ben"))
	s.says(t, `connectors_added=\[two\]\n(?s:.*)connectors_added=\[two\] changed=`)
	if got := s.authorize(ben, "board", "two"); got != "code" {
		t.Errorf("by the connector that is back: %s", got)
	}

	// A signal reads it again as well.
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.says(t, `msg="the configuration was read again" changed=nothing`)

	// Another issuer would be another server.
	s.write(t, strings.Replace(one, "One", "Uno", 1)+"subject: dex\n")
	s.says(t, `changes keys that need a restart: none of it takes effect until then" restart_for=\[subject\]`)
}

// People of staticPasswords come and go without a restart, too.
func TestStaticPasswordsAreReadAgain(t *testing.T) {
	const ann = "enablePasswordDB: true\nstaticPasswords:\n" +
		"  - {email: ann@example.com, userID: ann, hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n"
	const bob = "  - {email: bob@example.com, userID: bob, hash: " +
		"$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n"
	s := serveReloadable(t, func(*serving) string { return ann })
	token := func(login string) error {
		cmd := exec.Command("warifu", "--admin", filepath.Join(s.dir, "data", "admin.sock"), "token",
			"board", "--login", login,
			"--password-stdin")
		cmd.Stdin = strings.NewReader("password")
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
	if err := token("bob@example.com"); err == nil {
		t.Error("somebody who is not there has signed in")
	}
	s.write(t, ann+bob)
	s.says(t, `msg="the configuration was read again" changed=\[staticPasswords\]\n`)
	for _, login := range []string{"ann@example.com", "bob@example.com"} {
		if err := token(login); err != nil {
			t.Errorf("%s: %v", login, err)
		}
	}
	s.write(t, ann)
	s.says(t, `changed=\[staticPasswords\]\n(?s:.*)changed=\[staticPasswords\]\n`)
	if err := token("bob@example.com"); err == nil {
		t.Error("somebody who has gone has signed in")
	}
}

// A configuration that is half written, or without most of its people, ends nothing: what nobody has asked for waits
// for somebody who does, and is told of wherever an operator looks.
func TestASlipInTheConfigurationEndsNothing(t *testing.T) {
	const hash = ", hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n"
	const people = "enablePasswordDB: true\nstaticPasswords:\n  - {email: ann@example.com, userID: ann" + hash +
		"  - {email: bob@example.com, userID: bob" + hash
	s := serveReloadable(t, func(*serving) string { return people })
	says := func(what string, args ...string) {
		t.Helper()
		if _, said := s.warifu(t, args...); !strings.Contains(said, what) {
			t.Errorf("%s does not say %q: %s", args[0], what, said)
		}
	}
	says("nothing has changed since the server started", "reload")

	file := filepath.Join(s.dir, "config.yaml")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{whole[:bytes.Index(whole, []byte("enablePasswordDB"))], whole} { // in place, as cp does
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if len(text) < len(whole) {
			s.says(t, `so it waits for warifu reload; .*config.yaml is the beginning of what it was`)
			says("the server goes on with an older configuration", "doctor")
		}
	}
	s.says(t, `is the beginning of what it was(?s:.*)msg="the configuration was read again" changed=nothing`)
	says("the configuration that was read last is in use", "doctor")

	s.write(t, "admin: {listen: 127.0.0.1:0, tokenFile: "+s.token+"}\n")
	s.says(t, `so it waits for warifu reload; .*2 of 2 people of staticPasswords`)
	says("2 of 2 people of staticPasswords", "get", "replicas")
	says("it would end sign-in by password (enablePasswordDB), 2 of 2 people of staticPasswords", "doctor")
	says("if it is intended, run warifu reload", "doctor")
	if !s.passes(t, "ann@example.com") || strings.Contains(s.said.String(), "signed out") {
		t.Error("somebody has gone")
	}
	says("changed: admin.tokenFile, enablePasswordDB, staticPasswords", "reload")
	says("these wait for a restart: admin.listen", "doctor")
	says("when this was taken over: changed: admin.tokenFile, enablePasswordDB, staticPasswords", "reload")
	if s.passes(t, "ann@example.com") {
		t.Error("what was asked for is not taken over")
	}
}

// Somebody who comes into staticPasswords may have the address of an account: the operator is told who gets in no more.
func TestAccountBehindSomebodyOfTheConfiguration(t *testing.T) {
	const ann = "enablePasswordDB: true\nstaticPasswords:\n" +
		"  - {email: ann@example.com, userID: ann, hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n"
	s := serveReloadable(t, func(*serving) string { return ann })
	file := filepath.Join(t.TempDir(), "people.yaml")
	if err := os.WriteFile(file, []byte("{email: bob@example.com, userID: b}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := s.warifu(t, "apply", "user", "-f", file, "--yes"); code != 0 {
		t.Fatal(said)
	}
	s.write(t, ann+strings.ReplaceAll(strings.SplitAfter(ann, "staticPasswords:\n")[1], "ann", "Bob"))
	s.says(t, `an entry of staticPasswords has the e-mail address or user name.* configured=Bob account=b\n`)
}

// What only a connector reads, such as the authorities that vouch for its upstream, is read again on SIGHUP.
func TestFilesOfConnectorsAreReadAgain(t *testing.T) {
	upstream := imitation(t)
	upstream.StartTLS()
	authority := func(certificate []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	wrong, err := x509.CreateCertificate(rand.Reader, other, other, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	var file string
	s := serveReloadable(t, func(s *serving) string {
		file, s.upstream = filepath.Join(s.dir, "ca.pem"), upstream.URL
		if err := os.WriteFile(file, authority(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		return "connectors:\n" + s.connector("one", "One", "ann") + "      rootCAs: [" + file + "]\n"
	})
	ann := func() *http.Client {
		browser := person()
		browser.Transport = upstream.Client().Transport // which is for the upstream; others are reached as usual
		return browser
	}
	if got := s.authorize(ann(), "board", "one"); got != "503 Service Unavailable" {
		t.Errorf("at an upstream for which nobody vouches: %s", got)
	}
	if err := os.WriteFile(file, authority(upstream.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.says(t, `msg="the configuration was read again" changed=nothing`)
	if got := s.authorize(ann(), "board", "one"); got != "code" {
		t.Errorf("with the right authority: %s", got)
	}
}
