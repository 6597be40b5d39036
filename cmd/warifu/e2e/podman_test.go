//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins/runtimecontainers/podmantest"
)

// containerDir is the example container.
const containerDir = "../testdata/container"

const containerImage = "localhost/shop:1"

// podman is a real engine that has the example's image.
type podman struct{ *podmantest.Engine }

func startPodman(t testing.TB) *podman {
	t.Helper()
	p := &podman{podmantest.Start(t)}
	p.Build(t, containerImage, containerDir, "shop")
	return p
}

// create makes the container of an app as its owner would. It is not started: without credentials it has nothing to do.
// It gives the directory where instances say that they serve.
func (p *podman) create(t testing.TB, app string) string {
	t.Helper()
	dir := filepath.Join(p.Dir, "instances", app)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p.Run(t, "create", "--name", app, "--network", "host", "--volume", dir+":/instances",
		"--label", "dev.takos.app="+app, "--label", "dev.takos.container=web", containerImage)
	return dir
}

// route sends who comes to one of the instances that are announced in a directory, as a platform's router would; when
// there is none it waits for one.
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
