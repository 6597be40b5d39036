//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// containerDir is the example container.
const containerDir = "../testdata/container"

const (
	containerImage = "localhost/shop:1"
	installPodman  = "apt-get install --no-install-recommends podman runc conmon netavark aardvark-dns iptables"
)

// What podman needs on a machine without systemd and with little privilege.
const containersConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
[network]
network_backend = "netavark"
`

// podman is a real engine with a storage of its own that has the example's image.
type podman struct {
	dir    string
	socket string
}

// startPodman runs `podman system service` until the test ends, and builds the example's image from scratch.
func startPodman(t testing.TB) *podman {
	t.Helper()
	for _, program := range []string{"podman", "runc", "conmon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing; install it with: %s", program, installPodman)
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
	if err := os.WriteFile(filepath.Join(dir, "containers.conf"), []byte(containersConf), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "image", "shop"), "./"+containerDir)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the example container's program: %v\n%s", err, out)
	}
	p.run(t, "build", "--quiet", "--tag", containerImage, "--file", filepath.Join(containerDir, "Containerfile"), filepath.Join(dir, "image"))

	var said bytes.Buffer
	service := p.command("system", "service", "--time", "0", "unix://"+p.socket)
	service.Stdout, service.Stderr = &said, &said
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = service.Wait() // how it ends on SIGTERM says nothing
		close(ended)
	}()
	t.Cleanup(func() {
		p.run(t, "rm", "--force", "--all", "--time", "0")
		if err := service.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-ended
	})
	eventually(t, func() error {
		_, err := os.Stat(p.socket)
		return err
	})
	return p
}

func (p *podman) command(args ...string) *exec.Cmd {
	cmd := exec.Command("podman", append([]string{"--root", filepath.Join(p.dir, "root"), "--runroot", filepath.Join(p.dir, "run"),
		"--storage-driver", "vfs"}, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(p.dir, "containers.conf"))
	return cmd
}

func (p *podman) run(t testing.TB, args ...string) string {
	t.Helper()
	cmd := p.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("podman %s: %v\n%s", args[0], err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// create makes the container of an app as its owner would. It is not started: without credentials it has nothing to do. It
// gives the directory where instances say that they serve.
func (p *podman) create(t testing.TB, app string) string {
	t.Helper()
	dir := filepath.Join(p.dir, "instances", app)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p.run(t, "create", "--name", app, "--network", "host", "--volume", dir+":/instances",
		"--label", "dev.takos.app="+app, "--label", "dev.takos.container=web", containerImage)
	return dir
}

// route sends who comes to one of the instances that are announced in a directory, as a platform's router would; when there is
// none it waits for one.
func route(t testing.TB, instances string) string {
	t.Helper()
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{DisableKeepAlives: true},
		Rewrite: func(r *httputil.ProxyRequest) {
			if to, err := pick(r.In.Context(), instances); err == nil {
				r.SetURL(&url.URL{Scheme: "http", Host: to})
			}
			r.Out.Host = r.In.Host
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return fmt.Sprintf("http://127.0.0.1:%d", server.Listener.Addr().(*net.TCPAddr).Port)
}

func pick(ctx context.Context, instances string) (string, error) {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		entries, err := os.ReadDir(instances)
		if err != nil {
			return "", err
		}
		if len(entries) > 0 {
			return entries[0].Name(), nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
