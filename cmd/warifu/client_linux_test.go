package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// listenAs listens at a socket as another user: what the kernel tells of a server is who it was when it began to
// listen, which is up to the thread that did.
func listenAs(t *testing.T, uid int, path string) net.Listener {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const same = ^uintptr(0)
	become := func(uid int) {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			t.Fatal(errno)
		}
	}
	self := os.Geteuid()
	become(uid)
	defer become(self)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestThreatSocketOfAStrangerInTheCurrentDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir(filepath.Dir(defaultSocket), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(defaultSocket), 0o777); err != nil {
		t.Fatal(err)
	}
	var told atomic.Int32
	stranger := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		told.Add(1)
		_, _ = w.Write([]byte("{}")) // the client sees what is missing
	})}
	listener := listenAs(t, 65534, defaultSocket)
	go func() { _ = stranger.Serve(listener) }() // ends with Close
	defer func() { _ = stranger.Close() }()

	ask := func(c *cli) error {
		api, err := c.client()
		if err != nil {
			t.Fatal(err)
		}
		var out struct{}
		return api.do(t.Context(), http.MethodGet, "/v1/apps", nil, &out)
	}
	if err := ask(&cli{}); err == nil || !strings.Contains(err.Error(), "another user (uid:65534)") || told.Load() != 0 {
		t.Errorf("asked in that directory: %v, after %d requests", err, told.Load())
	}
	if err := ask(&cli{admin: defaultSocket}); err != nil || told.Load() != 1 {
		t.Errorf("asked where it was said to be: %v, after %d requests", err, told.Load())
	}
}
