//go:build e2e

package runtimecontainers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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

// podman is a real engine with storage of its own.
type podman struct {
	dir    string
	socket string
}

const testImage = "localhost/warifu-test-app:1"

// startPodman runs `podman system service` on a temporary socket and builds the
// test's image.
func startPodman(t testing.TB) *podman {
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
	p := &podman{dir: dir, socket: filepath.Join(dir, "podman.sock")}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	write(t, filepath.Join(dir, "containers.conf"), containersConf)
	p.build(t)
	var said bytes.Buffer
	service := p.command(context.Background(), "system", "service", "--time", "0", "unix://"+p.socket)
	service.Stdout, service.Stderr = &said, &said
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- service.Wait() }()
	t.Cleanup(func() {
		p.run(t, "rm", "--force", "--all", "--time", "0")
		if err := service.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Logf("podman system service: %v", err)
		}
	})
	eventually(t, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("podman system service: %v\n%s", err, said.String())
		default:
		}
		_, err := os.Stat(p.socket)
		return err
	})
	return p
}

func (p *podman) build(t testing.TB) {
	t.Helper()
	context := filepath.Join(p.dir, "image")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(context, "app"), "./testdata/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	write(t, filepath.Join(context, "Containerfile"), "FROM scratch\nCOPY app /app\nENV FROM_IMAGE=yes\nVOLUME /data\nENTRYPOINT [\"/app\"]\n")
	p.run(t, "build", "--quiet", "--tag", testImage, context)
}

func (p *podman) command(ctx context.Context, args ...string) *exec.Cmd {
	global := []string{"--root", filepath.Join(p.dir, "root"), "--runroot", filepath.Join(p.dir, "run"), "--storage-driver", "vfs"}
	cmd := exec.CommandContext(ctx, "podman", append(global, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(p.dir, "containers.conf"))
	return cmd
}

// try runs a command and gives what it prints.
func (p *podman) try(ctx context.Context, args ...string) (string, error) {
	cmd := p.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("podman %s: %w: %s", args[0], err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

func (p *podman) run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.try(context.WithoutCancel(t.Context()), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// app starts a container of the test's image on the host's network, with options
// and arguments of its own, and gives the directory where its instances announce
// themselves.
func (p *podman) app(t testing.TB, name string, options, arguments []string) instances {
	t.Helper()
	dir := string(p.instancesDir(t, name))
	args := []string{"run", "--detach", "--name", name, "--network", "host", "--volume", dir + ":/instances",
		"--label", labelApp + "=app", "--label", labelContainer + "=web"}
	args = append(append(append(args, options...), testImage), arguments...)
	p.run(t, args...)
	return instances(dir)
}

func (p *podman) instancesDir(t testing.TB, name string) instances {
	t.Helper()
	dir := filepath.Join(p.dir, "instances-"+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return instances(dir)
}

// instances is a directory with a file for each address that serves.
type instances string

func (d instances) addresses() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	var out []string
	for _, entry := range entries {
		out = append(out, entry.Name())
	}
	return out, err
}

// env asks the only instance for its environment.
func (d instances) env(t testing.TB) map[string]string {
	t.Helper()
	var at []string
	eventually(t, func() (err error) {
		if at, err = d.addresses(); err == nil && len(at) != 1 {
			err = fmt.Errorf("%d instances are announced, want 1", len(at))
		}
		return err
	})
	env, err := ask(t.Context(), at[0])
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func ask(ctx context.Context, address string) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/?pause=20ms", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	var env map[string]string
	return env, errors.Join(json.NewDecoder(resp.Body).Decode(&env), resp.Body.Close())
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what another process does.
func eventually(t testing.TB, check func() error) {
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
