package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// adminAt is a command line for a server that answers what it is told, and how many connections it has had.
func adminAt(t *testing.T, answer http.HandlerFunc) (c *cli, said *bytes.Buffer, opened *atomic.Int64) {
	t.Helper()
	said, opened = &bytes.Buffer{}, new(atomic.Int64)
	server := httptest.NewUnstartedServer(answer)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &cli{admin: server.URL, tokenFile: token, stdout: io.Discard, stderr: said}, said, opened
}

// Who waits for a rotation asks over one connection, goes on when the server is another one, and says how it ends.
func TestRotationOfTheEncryptionKeyIsWaitedFor(t *testing.T) {
	t.Parallel()
	const (
		underWay = `{"keys": [{"fingerprint": "aa", "seals": true}], "phase": "verifying"}`
		done     = `{"keys": [{"fingerprint": "aa", "seals": true}], "complete": "2026-11-29T09:00:00Z"}`
	)
	var asked atomic.Int64
	c, said, opened := adminAt(t, func(w http.ResponseWriter, _ *http.Request) {
		answer := underWay
		switch n := asked.Add(1); {
		case n == 4 || n == 5:
			panic(http.ErrAbortHandler) // it is killed
		case n == 8:
			answer = done
		}
		_, _ = io.WriteString(w, answer)
	})
	if err := c.rotateEncryption(t.Context(), false, waiting{wait: true, timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "everything is sealed") ||
		strings.Count(said.String(), "waiting for the next one") != 1 {
		t.Errorf("it says %s", said)
	}
	if n := opened.Load(); n > 4 { // the first, and one for each that was lost
		t.Errorf("%d connections for %d requests", n, asked.Load())
	}

	interrupted, stop := context.WithCancel(t.Context())
	c, _, _ = adminAt(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			stop()
		}
		_, _ = io.WriteString(w, underWay)
	})
	err := c.rotateEncryption(interrupted, false, waiting{wait: true, timeout: time.Minute})
	if err == nil || !strings.Contains(err.Error(), "interrupted") || !strings.Contains(err.Error(), "the servers go on") {
		t.Errorf("interrupted: %v", err)
	}
}

// A backup that cannot be written says of which file, and why.
func TestBackupThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	c, _, _ := adminAt(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the beginning")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	api, err := c.client()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, why := range map[string]string{
		filepath.Join(dir, "backup"):         "was not written: read the reply of " + c.admin + ": it ended the connection",
		filepath.Join(dir, "none", "backup"): "cannot be written: no such file or directory",
	} {
		_, err := c.writeBackup(t.Context(), api, file)
		if err == nil || !strings.Contains(err.Error(), file+" "+why) {
			t.Errorf("%v\nwant %s %s", err, file, why)
		}
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("there is no disk that is always full: %v", err)
	}
	defer func() { _ = full.Close() }()
	if _, err = api.download(t.Context(), http.MethodPost, "/v1/backup", full); err == nil {
		t.Fatal("a full disk took it")
	}
	if err = unwritten("backup.db", err); !strings.HasPrefix(err.Error(), "backup.db cannot be written: no space left") {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}
