// Package kubetest gives tests a real kube-apiserver on a real etcd: with RBAC, field managers, and tokens of service
// accounts as a cluster has them. No other part of a cluster runs, so nothing acts on what is written:
// [Cluster.RollOut] says of a workload what its controller would.
//
// One server serves all tests of a process and dies with it; each test has a namespace of its own. It takes some
// seconds to start, and its program takes minutes to build, so tests that need it have the build tag kubernetes and are
// run by make kubernetes. A package that uses it has this TestMain, which also removes its files:
//
//	func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
package kubetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Cluster is a kube-apiserver. What it is asked here, it is asked by an administrator.
type Cluster struct {
	URL        string // https://127.0.0.1:port
	Issuer     string // of the tokens of its service accounts; the same as URL, so its discovery document can be found
	CAFile     string // PEM
	Token      string // of an administrator
	Kubeconfig string // file of an administrator

	dir    string
	client *http.Client
	stop   func()
}

var shared struct {
	once    sync.Once
	mu      sync.Mutex // guards cluster against Stop
	cluster *Cluster
	err     error
}

var namespaces atomic.Int64

// Main runs the tests of a package and ends the server.
func Main(m *testing.M) int {
	defer Stop()
	return m.Run()
}

// Stop ends the server, if a test has started it, and removes its files. For a TestMain that does more than [Main].
func Stop() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster != nil {
		shared.cluster.stop()
		shared.cluster = nil
	}
}

// Start gives the server of this process.
func Start(tb testing.TB) *Cluster {
	tb.Helper()
	shared.once.Do(func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		shared.cluster, shared.err = start()
	})
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.cluster
}

// Namespace makes a namespace that a test has for itself.
func (c *Cluster) Namespace(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test-%d", namespaces.Add(1))
	c.Do(tb, http.MethodPost, "/api/v1/namespaces", object("v1", "Namespace", name, nil))
	return name
}

// ServiceAccount makes a service account.
func (c *Cluster) ServiceAccount(tb testing.TB, namespace, name string) {
	tb.Helper()
	c.Do(tb, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts",
		object("v1", "ServiceAccount", name, nil))
}

// TokenOf gives a token of a service account, as a kubelet would project it into a pod: for an audience (empty: the
// server itself), valid for a time that the server wants to be ten minutes or more.
func (c *Cluster) TokenOf(tb testing.TB, namespace, serviceAccount, audience string, valid time.Duration) string {
	tb.Helper()
	spec := map[string]any{"expirationSeconds": int(valid.Seconds())}
	if audience != "" {
		spec["audiences"] = []string{audience}
	}
	path := "/api/v1/namespaces/" + namespace + "/serviceaccounts/" + serviceAccount + "/token"
	answer := c.Do(tb, http.MethodPost, path, map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
	})
	token, _ := Field(answer, "status", "token").(string)
	if token == "" {
		tb.Fatalf("POST %s: the answer has no token", path)
	}
	return token
}

// KubeconfigOf writes a file with which somebody is whoever a token is of, in a namespace.
func (c *Cluster) KubeconfigOf(tb testing.TB, namespace, token string) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "kubeconfig")
	if err := c.writeKubeconfig(file, namespace, token); err != nil {
		tb.Fatal(err)
	}
	return file
}

func (c *Cluster) writeKubeconfig(file, namespace, token string) error {
	type named map[string]any
	content, err := json.Marshal(named{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []named{{"name": "test", "cluster": named{"server": c.URL, "certificate-authority": c.CAFile}}},
		"users":    []named{{"name": "test", "user": named{"token": token}}},
		"contexts": []named{{"name": "test", "context": named{"cluster": "test", "user": "test", "namespace": namespace}}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600) // YAML reads JSON
}

// Do asks and fails the test unless the server says yes. The body is an object, or bytes that are sent as they are.
// A PATCH whose path names a fieldManager is a server-side apply, any other one a merge patch.
func (c *Cluster) Do(tb testing.TB, method, path string, body any) map[string]any {
	tb.Helper()
	status, answer, err := c.Ask(context.WithoutCancel(tb.Context()), c.Token, method, path, body)
	if err != nil {
		tb.Fatal(err)
	}
	if status >= 300 {
		tb.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	var out map[string]any
	if err := json.Unmarshal(answer, &out); err != nil {
		tb.Fatalf("%s %s: %v", method, path, err)
	}
	return out
}

// Get is Do for what may not be there: then it gives nil.
func (c *Cluster) Get(tb testing.TB, path string) map[string]any {
	tb.Helper()
	status, answer, err := c.Ask(context.WithoutCancel(tb.Context()), c.Token, http.MethodGet, path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if status == http.StatusNotFound {
		return nil
	}
	var out map[string]any
	if err := json.Unmarshal(answer, &out); err != nil || status != http.StatusOK {
		tb.Fatalf("GET %s: %d %s", path, status, answer)
	}
	return out
}

// Ask is Do as whoever the token is of, and gives whatever is answered.
func (c *Cluster) Ask(ctx context.Context, token, method, path string, body any) (int, []byte, error) {
	var content []byte
	switch b := body.(type) {
	case nil:
	case []byte:
		content = b
	default:
		var err error
		if content, err = json.Marshal(body); err != nil {
			return 0, nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(content))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	switch {
	case method == http.MethodPatch && req.URL.Query().Has("fieldManager"):
		req.Header.Set("Content-Type", "application/apply-patch+yaml")
	case method == http.MethodPatch:
		req.Header.Set("Content-Type", "application/merge-patch+json")
	default:
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// Client trusts the server's certificate, and says nothing of who asks.
func (c *Cluster) Client() *http.Client { return c.client }

// Field gives what is below the keys of an object; nil if there is nothing.
func Field(object map[string]any, keys ...string) any {
	var at any = object
	for _, key := range keys {
		inner, _ := at.(map[string]any)
		at = inner[key]
	}
	return at
}

func object(version, kind, name string, more map[string]any) map[string]any {
	out := map[string]any{"apiVersion": version, "kind": kind, "metadata": map[string]any{"name": name}}
	for key, value := range more {
		out[key] = value
	}
	return out
}

// program finds the kube-apiserver: the one that the environment names, or that of this repository.
func program() (string, error) {
	missing := errors.New("kube-apiserver is missing; run make bin/kube-apiserver")
	if file := os.Getenv("WARIFU_KUBE_APISERVER"); file != "" {
		if _, err := os.Stat(file); err != nil {
			return "", fmt.Errorf("%w: %w", missing, err)
		}
		return file, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		file := filepath.Join(dir, "bin", "kube-apiserver")
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
		if dir == filepath.Dir(dir) {
			return "", missing
		}
		dir = filepath.Dir(dir)
	}
}

func trusting(certificate []byte) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots,
		MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true}}
}

func hostURL(scheme string, port int) url.URL {
	return url.URL{Scheme: scheme, Host: fmt.Sprintf("127.0.0.1:%d", port)}
}

// lastLines is the end of a log, for people.
func lastLines(text string, most int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
