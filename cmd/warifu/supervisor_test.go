package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSupervisorIsTold: a supervisor hears by sd_notify(3) that the server is ready when it is, that it lives, and that
// it ends when it has begun to.
func TestSupervisorIsTold(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := web.Addr().String()
	if err := web.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("issuer: http://%[1]s\nweb: {http: %[1]q, drainDelay: 2s}\nenablePasswordDB: true\n"+
		"storage: {config: {dataDir: %[2]s}}\nadmin: {socket: %[3]s}\n", address, filepath.Join(dir, "data"),
		filepath.Join(dir, "a.sock"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("warifu", "serve", file)
	cmd.Stderr = t.Output()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket.LocalAddr().String(), "WATCHDOG_USEC=400000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process
	defer func() { _ = cmd.Process.Kill() }()

	hears := func(want string) {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if got, _, _ := strings.Cut(string(buf[:n]), "\n"); got != want {
			t.Fatalf("the supervisor hears %q, want %s", buf[:n], want)
		}
	}
	answers := func(path string, want int) {
		t.Helper()
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("%s answers %s, want %d", path, resp.Status, want)
		}
	}
	hears("READY=1")
	answers("/readyz", http.StatusOK)
	health := exec.Command("warifu", "healthcheck", "--admin", filepath.Join(dir, "a.sock"))
	if out, err := health.CombinedOutput(); err != nil || !strings.Contains(string(out), "http://"+address) {
		t.Fatalf("warifu healthcheck: %v\n%s", err, out)
	}
	hears("WATCHDOG=1")
	hears("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for told := false; !told; { // the watchdog may have been told once more
		buf := make([]byte, 4096)
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		told = strings.HasPrefix(string(buf[:n]), "STOPPING=1\n")
	}
	answers("/readyz", http.StatusServiceUnavailable) // proxies can notice
	if err := <-ended; err != nil {
		t.Errorf("warifu serve ends with %v", err)
	}
	health = exec.Command("warifu", "healthcheck", "--admin", filepath.Join(dir, "a.sock"))
	if out, err := health.CombinedOutput(); err == nil {
		t.Errorf("warifu healthcheck succeeds without a server: %s", out)
	}
}
