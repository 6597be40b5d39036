//go:build faults

package faults

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The user, and the app that the histories are about.
const (
	login    = "ann@example.com"
	password = "password"
	callback = "https://shop.example.com/callback"
)

// config takes issuer, storage, address, and further keys. The hash is of password.
const config = `issuer: %[1]s
storage: %[2]s
web: {http: "%[3]s"}
enablePasswordDB: true
staticPasswords:
  - email: ` + login + `
    username: ann
    userID: 08a8684b-db88-4b73-90a9-3cd1661f5466
    hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W
expiry: {codes: 10m}
logger: {level: info}
%[4]s`

// shop is the manifest of the app.
const shop = `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: shop}
spec:
  version: 1.0.0
  oauth:
    clientName: Shop
    redirectUris: [` + callback + `]
    scopes: [openid, offline_access, "threads:read"]
    grantTypes: [authorization_code, refresh_token, client_credentials]
    autoEnv: false
`

// replica is a running `warifu serve`.
type replica struct {
	process
	dir    string
	binary string // that the next start runs
	base   string // of its address, as in http://127.0.0.1:5556
	// links are those to the members of etcd, in their order.
	links []*link

	admin *http.Client
}

// options of a replica.
type options struct {
	storage string // as YAML
	issuer  string // empty: its own address
	config  string // further keys
	key     string // file of the encryption key; empty: its own
}

// newReplica writes the configuration of a replica; start and ready run it.
func newReplica(t testing.TB, dir string, o options) *replica {
	t.Helper()
	address := freeAddresses(t, 1)[0]
	r := &replica{dir: dir, binary: suite.binary, base: "http://" + address}
	r.name, r.log = filepath.Base(dir), dir+".log"
	if o.issuer == "" {
		o.issuer = r.base
	}
	if o.key != "" {
		o.config += fmt.Sprintf("encryptionKeyFiles: [%q]\n", o.key)
	}
	file := writeFile(t, filepath.Join(dir, "config.yaml"),
		fmt.Sprintf(config, o.issuer, o.storage, address, o.config))
	r.make = func() *exec.Cmd {
		cmd := exec.Command(r.binary, "serve", file)
		cmd.Dir = dir
		return cmd
	}
	socket := r.socket()
	r.admin = &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
	t.Cleanup(func() {
		r.continues()
		r.kill()
		r.admin.CloseIdleConnections()
	})
	return r
}

func (r *replica) data() string   { return filepath.Join(r.dir, "data") }
func (r *replica) socket() string { return filepath.Join(r.data(), "admin.sock") }

// starts it, and waits until it serves.
func (r *replica) starts(t testing.TB) time.Duration {
	t.Helper()
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	return r.serves(t)
}

// serves waits until it is ready.
func (r *replica) serves(t testing.TB) time.Duration {
	t.Helper()
	return until(t, r.name+" is ready", patience, func() error {
		if !r.running() {
			t.Fatalf("%s has ended: %v\n%s", r.name, r.err, r.words(20))
		}
		return r.ready()
	})
}

// ready asks for readiness once.
func (r *replica) ready() error {
	client := http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get(r.base + "/readyz")
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", resp.StatusCode, bytes.TrimSpace(body))
	}
	return err
}

// asked is a reply of the admin API.
type asked struct {
	status int // 0: there was none, see err
	code   string
	body   []byte
	err    error
	took   time.Duration
}

func (a asked) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %s", a.status, bytes.TrimSpace(a.body))
}

// into decodes the reply.
func (a asked) into(t testing.TB, to any) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("admin API: %s", a)
	}
	if err := json.Unmarshal(a.body, to); err != nil {
		t.Fatal(err)
	}
}

// ask asks the admin API.
func (r *replica) ask(ctx context.Context, method, path string, body any) asked {
	var sent io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return asked{err: err}
		}
		sent = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, sent)
	if err != nil {
		return asked{err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	start := time.Now()
	resp, err := r.admin.Do(req)
	if err != nil {
		return asked{err: err, took: time.Since(start)}
	}
	defer func() { _ = resp.Body.Close() }()
	a := asked{status: resp.StatusCode}
	a.body, a.err = io.ReadAll(resp.Body)
	a.took = time.Since(start)
	if a.err != nil {
		a.status = 0
	}
	var problem struct {
		Code string `json:"code"`
	}
	if strings.HasSuffix(resp.Header.Get("Content-Type"), "problem+json") && json.Unmarshal(a.body, &problem) == nil {
		a.code = problem.Code
	}
	return a
}

type document struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// applying is the body that applies a manifest.
func applying(manifest string) map[string]any {
	return map[string]any{"documents": []document{{"app.yml", manifest}}}
}

// apply deploys a manifest that must be taken.
func (r *replica) apply(t testing.TB, manifest string) {
	t.Helper()
	if a := r.ask(t.Context(), http.MethodPost, "/v1/apply", applying(manifest)); a.status != http.StatusOK {
		t.Fatalf("apply: %s\n%s", a, r.words(20))
	}
}

// credentials of an app.
type credentials struct {
	ID     string `json:"clientId"`
	Secret string `json:"clientSecret"`
}

func (r *replica) credentials(t testing.TB, app string) credentials {
	t.Helper()
	var c credentials
	r.ask(t.Context(), http.MethodGet, "/v1/apps/"+app+"/credentials", nil).into(t, &c)
	return c
}

// stage is two replicas on an etcd of three members, every connection in its own link, with the app and somebody who is
// signed in.
type stage struct {
	t        testing.TB
	dir      string
	cluster  *cluster
	replicas []*replica
	issuer   string
	app      credentials
	person   *person
	made     int // replicas so far
}

// staging changes a stage before it starts.
type staging struct {
	quota  int64
	config string // further keys of both replicas
	issuer string
	first  string // a binary that runs before all others, and ends
}

// newStage starts everything.
func newStage(t testing.TB, how staging) *stage {
	t.Helper()
	s := &stage{t: t, dir: tempDir(t), issuer: how.issuer}
	t.Cleanup(func() { s.keepLogs() })
	s.cluster = newCluster(t, s.dir, how.quota)
	writeFile(t, s.keyFile(), newKey()+"\n")
	for range 2 {
		r := s.another(t, how.config)
		if s.issuer == "" {
			s.issuer = r.base
		}
		if len(s.replicas) == 0 && how.first != "" {
			r.binary = how.first
			r.starts(t)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r.binary = suite.binary
		}
		s.replicas = append(s.replicas, r)
		r.starts(t)
	}
	s.replicas[0].apply(t, shop)
	s.app = s.replicas[0].credentials(t, "shop")
	s.person = newPerson(s.issuer, s.app)
	until(t, "somebody signs in at both replicas", patience, func() error {
		for _, r := range s.replicas {
			if _, err := s.person.code(t.Context(), r.base); err != nil {
				return err
			}
		}
		return nil
	})
	return s
}

func (s *stage) keyFile() string { return filepath.Join(s.dir, "encryption.key") }

// another makes one more replica on the same etcd. It is neither started nor one of replicas.
func (s *stage) another(t testing.TB, more string) *replica {
	t.Helper()
	var links []*link
	var endpoints []string
	for _, m := range s.cluster.members {
		l := newLink(t, m.client, false)
		links, endpoints = append(links, l), append(endpoints, fmt.Sprintf("%q", "http://"+l.addr()))
	}
	dir := filepath.Join(s.dir, fmt.Sprintf("replica-%d", s.made))
	s.made++
	r := newReplica(t, dir, options{issuer: s.issuer, key: s.keyFile(), config: strings.ReplaceAll(more, "$DIR", s.dir),
		storage: fmt.Sprintf("{type: etcd, config: {dataDir: %q, endpoints: [%s]}}",
			filepath.Join(dir, "data"), strings.Join(endpoints, ", "))})
	r.links = links
	return r
}

// keepLogs saves what everybody said, when something was wrong.
func (s *stage) keepLogs() {
	artifacts := os.Getenv("WARIFU_ARTIFACTS")
	if !s.t.Failed() || artifacts == "" {
		return
	}
	to := filepath.Join(artifacts, "faults", strings.ReplaceAll(s.t.Name(), "/", "-"))
	if err := os.MkdirAll(to, 0o755); err != nil {
		s.t.Error(err)
		return
	}
	logs, _ := filepath.Glob(filepath.Join(s.dir, "*.log")) // the pattern is right
	for _, log := range logs {
		if text, err := os.ReadFile(log); err == nil {
			_ = os.WriteFile(filepath.Join(to, filepath.Base(log)), text, 0o644) // it is only for people to read
		}
	}
}

// toEtcd gives all links of a replica to one member this weather.
func (r *replica) toEtcd(member int, w weather) { r.links[member].set(w) }

// index of a member.
func (c *cluster) index(m *member) int {
	for i := range c.members {
		if c.members[i] == m {
			return i
		}
	}
	return -1
}

// tempDir is a directory with a short name, in which sockets can be made, and that goes with the test.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}
