package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
)

func TestAdminSocketIsTheOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "deep", "admin.sock")
	listener, err := listenSocket(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), mode)
		}
	}
	if _, err := listenSocket(t.Context(), socket); err == nil ||
		!strings.Contains(err.Error(), "another server answers") {
		t.Errorf("a living socket was taken: %v", err)
	}
	// A server that was killed leaves its socket; the next one takes it.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := listenSocket(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(t.Context(), file); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

func TestAdminSocketPathThatIsTooLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 25))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "admin.sock")
	if _, err := listenSocket(t.Context(), socket); err == nil ||
		!strings.Contains(err.Error(), "a Unix socket takes at most 107") {
		t.Errorf("from elsewhere: %v", err)
	}
	t.Chdir(dir) // a relative path is short enough
	listener, err := listenSocket(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	conn, err := net.Dial("unix", "admin.sock")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestClientThatIsNotAWarifuServer(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &cli{admin: other.URL, tokenFile: token}
	if _, err := fetch[admin.Info](t.Context(), c, "/v1/info"); err == nil ||
		!strings.Contains(err.Error(), "is this the admin API of warifu?") {
		t.Error(err)
	}
}

// Connections to the socket are bounded as well, and who is at the other end is known all the same.
func TestIdleConnectionsAtTheAdminSocket(t *testing.T) {
	i := testInstance(t)
	for range mostAdmin + 20 {
		conn, err := net.Dial("unix", i.cfg.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	if resp := i.ask(t, http.MethodGet, "/v1/apps", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("an operator gets %s", resp.Status)
	}
	if resp := i.ask(t, http.MethodPost, "/v1/keys/ES256/rotate", `{"now":true}`); resp.StatusCode != http.StatusOK {
		t.Errorf("a rotation: %s", resp.Status)
	}
	for _, e := range i.endpoints {
		if open := e.connections.now(); open > mostAdmin {
			t.Errorf("%s has %d connections", e.name, open)
		}
	}
	entries, _, err := i.store.Audit(t.Context(), storage.AuditQuery{})
	if err != nil || len(entries) == 0 || !strings.HasPrefix(entries[len(entries)-1].Actor, "uid:") {
		t.Errorf("who rotated is not known: %+v, %v", entries, err)
	}
}
