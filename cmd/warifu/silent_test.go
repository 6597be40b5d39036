package main

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/admin"
)

// etcdProcess is an etcd that can be made silent: it keeps its connections, and does not answer.
func etcdProcess(t testing.TB) (process *exec.Cmd, address, dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, args := range []string{
		"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=etcd -addext " +
			"subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem",
		"rand -base64 -out encryption.key 32",
	} {
		make := exec.Command("openssl", strings.Fields(args)...)
		make.Dir = dir
		if out, err := make.CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v: %s (apt-get install openssl)", err, out)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "encryption.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	process = exec.Command("warifu-etcd", strconv.Itoa(port))
	process.Dir = dir
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("etcd does not start: %s %v", line, err)
	}
	return process, "https://127.0.0.1:" + strconv.Itoa(port), dir
}

// When storage does not answer, every operation that needs it does, in time and with a code.
func TestWithASilentStorageEveryAdminCallIsAnswered(t *testing.T) {
	process, address, dir := etcdProcess(t)
	i := builtInstance(t, building{patience: 500 * time.Millisecond}, func(c *config.Config) {
		c.Storage.Type = config.StorageEtcd
		c.Storage.Config.Endpoints = []string{address}
		c.Storage.Config.SSL.CAFile = filepath.Join(dir, "cert.pem")
		c.EncryptionKeyFiles = []string{filepath.Join(dir, "encryption.key")}
	})
	for i.ask(t, "POST", "/v1/apply", documents(t, nil, exampleManifest(t))).StatusCode != 200 {
		if t.Context().Err() != nil { // starting the deploy hook takes longer than a request may here
			t.Fatal("cannot be applied")
		}
	}
	var doc openAPI
	if err := json.NewDecoder(i.ask(t, "GET", "/openapi.json", "").Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if err := process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for i.ask(t, "GET", "/v1/apps", "").StatusCode == http.StatusOK { // a signal takes a moment
		if t.Context().Err() != nil {
			t.Fatal("etcd does not stop")
		}
	}
	bodies := map[string]string{
		"/v1/plan": documents(t, nil, exampleManifest(t)), "/v1/apply": documents(t, map[string]any{"wait": 1},
			exampleManifest(t)),
		"/v1/users/{user}/links":    `{"connector":"ldap","upstreamId":"x"}`,
		"/v1/users":                 documents(t, nil, "email: eve@example.com"),
		"/v1/users/{user}/link":     `{"for":"reset"}`,
		"/v1/users/{user}/password": `{"password":"quartz tangerine lighthouse"}`,
	}
	values := strings.NewReplacer("{name}", "my-oauth-app", "{id}", "nobody", "{use}", "ES256")
	// These ask nothing of storage, or tell of its silence themselves.
	silent := []string{"/v1/info", "/schemas/{name}", "/v1/refusals/{id}", "/v1/reload", "/v1/doctor"}
	asked := 0
	for path, methods := range doc.Paths {
		for method := range methods {
			body := bodies[path]
			if body == "" && method != "get" && method != "delete" {
				body = "{}"
			}
			resp := i.ask(t, strings.ToUpper(method), values.Replace(path), body)
			if slices.Contains(silent, path) {
				continue
			}
			asked++
			var p admin.Problem
			if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
				t.Errorf("%s %s: %s %v", method, path, resp.Status, err)
				continue
			}
			if resp.StatusCode == http.StatusUnprocessableEntity {
				t.Errorf("%s %s takes another body: %+v", method, path, p)
				continue
			}
			if resp.StatusCode != http.StatusServiceUnavailable || p.Code != "timeout" && p.Code != "storage_unavailable" {
				t.Errorf("%s %s: %s %q", method, path, resp.Status, p.Code)
			}
		}
	}
	if asked < 14 {
		t.Errorf("only %d operations were asked", asked)
	}
	if err := process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for {
		resp := i.ask(t, "GET", "/v1/apps", "")
		if resp.StatusCode == 200 {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("it does not recover")
		}
	}
}
