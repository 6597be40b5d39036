// Package podmantest runs a real podman for tests, with storage of its own, so that nothing of a machine's other
// containers is touched. What a test leaves running is removed at its end.
package podmantest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const install = "apt-get install --no-install-recommends podman runc conmon netavark aardvark-dns iptables"

// What podman needs on a machine without systemd and with little privilege.
const containersConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
[network]
network_backend = "netavark"
`

// Engine is a podman that serves the Docker Engine API.
type Engine struct {
	Dir    string // for what a test keeps beside it; removed at the end
	Socket string // path of the API's Unix socket
}

// Start runs `podman system service` until the test ends.
func Start(t testing.TB) *Engine {
	t.Helper()
	for _, program := range []string{"podman", "runc", "conmon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing; install it with: %s", program, install)
		}
	}
	dir, err := os.MkdirTemp("", "warifu-podman") // short: sockets are made in it
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{Dir: dir, Socket: filepath.Join(dir, "podman.sock")}
	// A container that ends is cleaned up by a podman of its own, which may outlive the container: as long as one works in
	// the directory, removing that fails and is tried again.
	t.Cleanup(func() { Eventually(t, func() error { return os.RemoveAll(dir) }) })
	if err := os.WriteFile(filepath.Join(dir, "containers.conf"), []byte(containersConf), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	service := e.command(context.Background(), "system", "service", "--time", "0", "unix://"+e.Socket)
	service.Stdout, service.Stderr = &said, &said
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- service.Wait() }() // ends with the process
	t.Cleanup(func() {
		e.Run(t, "rm", "--force", "--all", "--time", "0")
		if err := service.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Logf("podman system service: %v", err)
		}
	})
	Eventually(t, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("podman system service: %v\n%s", err, said.String())
		default:
		}
		_, err := os.Stat(e.Socket)
		return err
	})
	return e
}

// Build makes an image of one static Go program: pkg is its package, program the name under which the Containerfile in
// the package's directory copies it.
func (e *Engine) Build(t testing.TB, image, pkg, program string) {
	t.Helper()
	dir := filepath.Join(e.Dir, "image")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, program), pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	e.Run(t, "build", "--quiet", "--tag", image, "--file", filepath.Join(pkg, "Containerfile"), dir)
}

func (e *Engine) command(ctx context.Context, args ...string) *exec.Cmd {
	global := []string{"--root", filepath.Join(e.Dir, "root"), "--runroot", filepath.Join(e.Dir, "run"),
		"--storage-driver", "vfs"}
	cmd := exec.CommandContext(ctx, "podman", append(global, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(e.Dir, "containers.conf"))
	return cmd
}

// Try runs a podman command and gives what it prints.
func (e *Engine) Try(ctx context.Context, args ...string) (string, error) {
	cmd := e.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("podman %s: %w: %s", args[0], err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

// Run is Try for a command that must not fail.
func (e *Engine) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := e.Try(context.WithoutCancel(t.Context()), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Eventually waits for what another process does.
func Eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
