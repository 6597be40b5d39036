package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
)

// keyed is a server of whose configuration a test changes one key after the other.
type keyed struct {
	*serving
	t     *testing.T
	parts map[string]string // by key: the text of that section
}

func (k *keyed) put(file, text string) string {
	k.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return file
}

// set writes the configuration with other sections. The server does not watch it meanwhile: reload says when.
func (k *keyed) set(parts map[string]string) {
	k.t.Helper()
	maps.Copy(k.parts, parts)
	text := ""
	for _, key := range slices.Sorted(maps.Keys(k.parts)) {
		text += k.parts[key] + "\n"
	}
	file := filepath.Join(k.dir, "config.yaml")
	k.put(file+".new", text)
	if err := os.Rename(file+".new", file); err != nil {
		k.t.Fatal(err)
	}
}

// get is what an address answers, as text, with its status before it.
func (k *keyed) get(client *http.Client, address string, header ...string) string {
	k.t.Helper()
	req, err := http.NewRequest(http.MethodGet, address, http.NoBody)
	if err != nil {
		k.t.Fatal(err)
	}
	return k.send(client, req, header...)
}

func (k *keyed) send(client *http.Client, req *http.Request, header ...string) string {
	k.t.Helper()
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	var head bytes.Buffer
	_ = resp.Header.Write(&head) // to memory
	return resp.Status + "\n" + head.String() + string(body)
}

func (k *keyed) discovery() string {
	return k.get(http.DefaultClient, k.issuer+"/.well-known/openid-configuration")
}

// restart starts it anew, on the configuration that there is now.
func (k *keyed) restart() {
	k.t.Helper()
	_ = k.cmd.Process.Signal(syscall.SIGTERM)
	<-k.ended
	k.start(k.t)
}

// until waits, as long as the log goes on, for what follows from a reload behind it.
func (k *keyed) until(key string, holds func() bool) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	for {
		k.said.mu.Lock()
		changed := k.said.changed
		k.said.mu.Unlock()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			k.t.Fatalf("%s does not count\n%s", key, k.said.String())
		}
	}
}

// signsInWith tries a password.
func (k *keyed) signsInWith(login string) (code int, out string) {
	k.t.Helper()
	cmd := exec.CommandContext(k.t.Context(), "warifu", "--admin", filepath.Join(k.dir, "data", "admin.sock"), "token",
		"board",
		"--login", login, "--password-stdin")
	cmd.Stdin = strings.NewReader("password")
	said, _ := cmd.CombinedOutput() // the exit code tells
	return cmd.ProcessState.ExitCode(), string(said)
}

// cookieAges notes for how long cookies of sessions are kept, in seconds.
type cookieAges struct{ session string }

func (c *cookieAges) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		for _, cookie := range resp.Cookies() {
			if strings.HasPrefix(cookie.Name, "warifu_session") {
				c.session = fmt.Sprint(cookie.MaxAge)
			}
		}
	}
	return resp, err
}

// sessionLasts is how long a new sign-in by a connector lasts, in seconds.
func (k *keyed) sessionLasts(connector string) string {
	ages := &cookieAges{}
	browser := person()
	browser.Transport = ages
	k.authorize(browser, "board", connector)
	return ages.session
}

// Every key of the configuration counts without a restart, or is named among those that cannot.
func TestEveryKeyCountsWithoutARestart(t *testing.T) {
	k := &keyed{t: t}
	sector := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `["https://pair.example.com/cb"]`)
	}))
	defer sector.Close()
	var admin, secure string
	cert, key := writeCertificate(t, t.TempDir(), 1)
	next, nextKey := writeCertificate(t, t.TempDir(), 2)
	other := filepath.Join(t.TempDir(), "token")
	more, env := t.TempDir(), t.TempDir()
	k.serving = serveReloadable(t, func(s *serving) string { return "connectors:\n" + s.connector("one", "One", "ann") })
	web := fmt.Sprintf("http: %s, https: 127.0.0.1:0, drainDelay: 0s", strings.TrimPrefix(k.issuer, "http://"))
	k.parts = map[string]string{
		"issuer": "issuer: " + k.issuer, "storage": "storage: {config: {dataDir: " + filepath.Join(k.dir, "data") + "}}",
		"web":        "web: {" + web + ", tlsCert: " + cert + ", tlsKey: " + key + "}",
		"trusted":    "trusted: [board]",
		"manifests":  "manifests: {directories: [" + filepath.Join(k.dir, "apps") + "]}",
		"admin":      "admin: {listen: 127.0.0.1:0, tokenFile: " + k.token + "}",
		"connectors": "connectors:\n" + k.connector("one", "One", "ann"),
	}
	k.put(filepath.Join(k.dir, "apps", "extra.yml"),
		strings.NewReplacer("NAME", "extra", "ACCESS", "autoEnv: false").Replace(reloadedManifest))
	k.put(filepath.Join(k.dir, "apps", "work.yml"), strings.NewReplacer("NAME", "work", "consent: skip, ACCESS",
		"tokenEndpointAuthMethod: workload, identities: [{issuer: 'https://jobs.example.com', subject: me}]").Replace(
		reloadedManifest))
	k.put(filepath.Join(more, "third.yml"), strings.NewReplacer("NAME", "third", "consent: skip, ACCESS", "autoEnv: true").
		Replace(reloadedManifest)+"  workers: {web: {}}\n")
	k.set(nil)
	k.restart()
	listeners := k.said.String()
	admin = "http://" + regexp.MustCompile(`admin\.listen ([0-9.:]+)`).FindStringSubmatch(listeners)[1]
	secure = regexp.MustCompile(`web\.https ([0-9.:]+)`).FindStringSubmatch(listeners)[1]
	ann := person()
	if got := k.authorize(ann, "board", "one"); got != "code" {
		t.Fatal(got)
	}

	type row struct {
		key, part string
		holds     func() bool // what is so afterwards, and is not before
	}
	has := func(text func() string, part string) func() bool {
		return func() bool { return strings.Contains(text(), part) }
	}
	front := func() string { return k.get(http.DefaultClient, k.issuer+"/") }
	signIn := func() string {
		return k.get(http.DefaultClient, k.issuer+"/oauth/authorize?response_type=code&client_id=board&scope=openid&state=x&"+
			"redirect_uri=https%3A%2F%2Fboard.example.com%2Fcb")
	}
	said := func(pattern string) func() bool {
		return func() bool { return regexp.MustCompile(pattern).MatchString(k.said.String()) }
	}
	const hash = "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"
	rows := []row{
		{"branding", "branding: {name: Somebody Else}", has(front, "Somebody Else")},
		{"scopes", "scopes: [{name: openid, description: {en: a, ja: b}, risk: low}, {name: pigs:fly, description: {en: a, " +
			"ja: b}, risk: write}]",
			has(k.discovery, "pigs:fly")},
		{"claims", "claims: [{name: 'https://example.com/floor', attribute: floor, scope: openid}]",
			has(k.discovery, "example.com/floor")},
		{"oauth2", "oauth2: {registration: {enabled: true}}", has(k.discovery, "registration_endpoint")},
		{"outbound", "outbound: {allow: [127.0.0.0/8], caFile: " + k.put(filepath.Join(k.dir, "ca.pem"),
			string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sector.Certificate().Raw}))) + "}", func() bool {
			body, _ := json.Marshal(map[string]any{"redirect_uris": []string{"https://pair.example.com/cb"},
				"subject_type":          "pairwise",
				"sector_identifier_uri": sector.URL + "/sector"}) // never fails
			req, err := http.NewRequest(http.MethodPost, k.issuer+"/oauth/register", bytes.NewReader(body))
			return err == nil && strings.HasPrefix(k.send(http.DefaultClient, req, "Content-Type", "application/json"), "201")
		}},
		{"enablePasswordDB", "enablePasswordDB: true", has(signIn, `type="password"`)},
		{"staticPasswords", "staticPasswords: [{email: eve@example.com, userID: eve, hash: " + hash + "}]", func() bool {
			code, _ := k.signsInWith("eve@example.com")
			return code == 0
		}},
		{"connectors", "connectors:\n" + k.connector("one", "One", "ann") + k.connector("two", "Two", "ben"),
			func() bool { return k.authorize(person(), "board", "two") == "code" }},
		{"mail", "mail: {server: 'localhost:1', tls: none, from: warifu@example.com}", func() bool {
			return strings.HasPrefix(k.get(http.DefaultClient, k.issuer+"/forgot"), "200")
		}},
		{"expiry", "expiry: {sessions: 12345s}", func() bool { return k.sessionLasts("one") == "12345" }},
		{"web", "web: {" + web + ", tlsCert: " + next + ", tlsKey: " + nextKey +
			", allowedOrigins: ['https://page.example.com']}", func() bool {
			conn, err := tls.Dial("tcp", secure, &tls.Config{InsecureSkipVerify: true}) // which one it is, is seen here
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			req, err := http.NewRequest(http.MethodOptions, k.issuer+"/oauth/token", http.NoBody)
			return err == nil && conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64() == 2 &&
				strings.Contains(k.send(http.DefaultClient, req, "Origin", "https://page.example.com",
					"Access-Control-Request-Method", "POST"),
					"Access-Control-Allow-Origin")
		}},
		{"admin", "admin: {listen: 127.0.0.1:0, tokenFile: " + k.put(other, strings.Repeat("n", 40)) + "}", func() bool {
			return strings.HasPrefix(k.get(http.DefaultClient, admin+"/v1/info", "Authorization", "Bearer "+
				strings.Repeat("n", 40)), "200") &&
				strings.HasPrefix(k.get(http.DefaultClient, admin+"/v1/info", "Authorization", "Bearer "+
					strings.Repeat("t", 40)), "401")
		}},
		{"trusted", "trusted: [board, extra]", said(`msg="app applied" app=extra`)},
		{"trustedIssuers", "trustedIssuers: [{issuer: 'https://jobs.example.com', jwksURI: 'https://jobs.example.com/keys'}]",
			said(`msg="app applied" app=work`)},
		{"manifests", "manifests: {directories: [" + filepath.Join(k.dir, "apps") + ", " + more +
			"]}", said(`msg="env delivered" app=third`)},
		{"plugins", "plugins: {runtimes: [{name: file, config: {dir: " + env + "}}]}", func() bool {
			left, err := os.ReadDir(env)
			return err == nil && len(left) > 0
		}},
		{"mfa", "mfa: {demand: required}", func() bool { return k.authorize(ann, "board", "", "prompt", "none") != "code" }},
		{"logger", "logger: {level: debug, format: json}", said(`"msg":"the configuration was read again"`)},
	}
	for _, r := range rows {
		if r.holds() {
			t.Errorf("%s: it is so before", r.key)
		}
		k.set(map[string]string{r.key: r.part})
		if code, out := k.warifu(t, "reload"); code != 0 {
			t.Errorf("%s: reload: %d %s", r.key, code, out)
		}
		k.until(r.key, r.holds)
	}

	// What cannot count is named, and keeps nothing else from it.
	k.set(map[string]string{"storage": "storage: {config: {dataDir: " + filepath.Join(k.dir, "data") + ", quota: 3GiB}}",
		"branding": "branding: {name: Third Name}"})
	if code, out := k.warifu(t, "reload"); code != 0 ||
		!strings.Contains(out, "storage.config.quota waits for a restart: the records are there") ||
		!strings.Contains(front(), "Third Name") {
		t.Errorf("storage: %d %s", code, out)
	}
	k.set(map[string]string{"subject": "subject: dex", "branding": "branding: {name: Fourth Name}"})
	if code, out := k.warifu(t, "reload"); code != 3 || !strings.Contains(out, "subject cannot change while the "+
		"server runs") || !strings.Contains(front(), "Third Name") {
		t.Errorf("subject: %d %s", code, out)
	}
	delete(k.parts, "subject")

	// Whatever is wrong, nothing of it counts.
	for name, parts := range map[string]map[string]string{
		"a typo":                   {"brandling": "brandling: {name: x}"},
		"no YAML":                  {"zzz": "zzz: ["},
		"a file that is not there": {"web": "web: {" + web + ", tlsCert: " + cert + ", tlsKey: " + key + ".gone}"},
		"a secret that is too short": {"admin": "admin: {listen: 127.0.0.1:0, tokenFile: " +
			k.put(filepath.Join(k.dir, "short"), "x") + "}"},
		"a plugin that is not there": {"plugins": "plugins: {runtimes: [{name: other, path: /nowhere/plugin}]}"},
		"a plugin that is none":      {"plugins": "plugins: {runtimes: [{name: other, path: /bin/true}]}"},
		"settings that it refuses": {"plugins": "plugins: {runtimes: [{name: file, config: {dir: " +
			env + ", what: 1}}]}"},
		"a connector that is twice": {"connectors": "connectors:\n" + k.connector("one", "One", "ann") +
			k.connector("one", "One", "ann")},
		"a scope that nobody can ask": {"scopes": "scopes: [{name: 'a b', description: {en: a, ja: b}, risk: low}]"},
	} {
		before := maps.Clone(k.parts)
		parts["branding"] = "branding: {name: Never Seen}" // at once: the server reads what there is in between as well
		k.set(parts)
		code, out := k.warifu(t, "reload")
		if code != 3 || !strings.Contains(out, "stays in use") {
			t.Errorf("%s: %d %s", name, code, out)
		}
		if strings.Contains(front(), "Never Seen") {
			t.Errorf("%s: something of it counts", name)
		}
		if got := k.authorize(person(), "board", "two"); got == "503 Service Unavailable" {
			t.Errorf("%s: then %s", name, got)
		}
		k.parts = before
	}
	k.set(nil)
	var reply struct{ Restart []struct{ Key string } }
	code, out := k.warifu(t, "reload", "-o", "json")
	if err := json.Unmarshal([]byte(out), &reply); code != 0 || err != nil || len(reply.Restart) != 1 ||
		reply.Restart[0].Key != "storage.config.quota" {
		t.Errorf("afterwards: %d %s", code, out)
	}

	// encryptionKeyFiles: testdata/script/encryption.txtar.
	tried := map[string]bool{"issuer": true, "storage": true, "subject": true, "encryptionKeyFiles": true,
		"telemetry": true}
	for _, r := range rows {
		tried[r.key] = true
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config.Config]()) {
		if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); !tried[key] {
			t.Errorf("nothing shows whether %s counts without a restart", key)
		}
	}
}
