package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A replica that serves with another configuration says so, stays ready, and says when that is over.
func TestReplicasThatServeOtherwiseAreTold(t *testing.T) {
	_, etcd, certificates := etcdProcess(t)
	replica := func(rest string) *serving {
		t.Helper()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = listener.Close()
		s := &serving{issuer: "http://" + listener.Addr().String(), dir: t.TempDir()}
		s.configure(t, etcd, certificates, rest)
		s.start(t)
		return s
	}
	first := replica("expiry: {sessions: 1h}\nlogger: {level: debug}\n")
	second := replica("expiry: {sessions: 2h}\n")
	ready := func() (int, string) {
		t.Helper()
		resp, err := http.Get(second.issuer + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	second.says(t, `level=WARN msg="other replicas run with a different configuration.*" replicas=\[\S+\]\n`)
	if status, said := ready(); status != http.StatusOK || !strings.Contains(said, "replicas that run with a "+
		"different configuration: ") {
		t.Errorf("%d %s", status, said)
	}
	second.configure(t, etcd, certificates, "# one hour, as elsewhere\nexpiry:\n  sessions: 1h\n")
	second.says(t, `msg="all replicas run with the same configuration again"`)
	if status, said := ready(); status != http.StatusOK || strings.Contains(said, "configurations") {
		t.Errorf("%d %s", status, said)
	}
	if n := strings.Count(second.said.String(), "other replicas run with a different"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	if strings.Contains(first.said.String(), "level=ERROR") {
		t.Error(first.said.String())
	}
}

// configure writes the configuration of a replica that shares an etcd with others, and their issuer.
func (s *serving) configure(t *testing.T, etcd, certificates, rest string) {
	t.Helper()
	file := filepath.Join(s.dir, "config.yaml")
	text := fmt.Sprintf(`issuer: https://id.example.com
storage: {type: etcd, config: {dataDir: %s, endpoints: [%s], ssl: {caFile: %s}}}
encryptionKeyFiles: [%s]
web: {http: %s, drainDelay: 0s}
`, filepath.Join(s.dir, "data"), etcd, filepath.Join(certificates, "cert.pem"), filepath.Join(certificates, "encryption.key"),
		strings.TrimPrefix(s.issuer, "http://")) + rest
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}
