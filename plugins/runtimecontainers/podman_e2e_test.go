//go:build e2e

package runtimecontainers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/warifu/warifu/plugins/runtimecontainers/podmantest"
)

// podman is a real engine with the test's image.
type podman struct{ *podmantest.Engine }

const testImage = "localhost/warifu-test-app:1"

func startPodman(t testing.TB) *podman {
	t.Helper()
	p := &podman{podmantest.Start(t)}
	p.Build(t, testImage, "./testdata/app", "app")
	return p
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
	p.Run(t, args...)
	return instances(dir)
}

func (p *podman) instancesDir(t testing.TB, name string) instances {
	t.Helper()
	dir := filepath.Join(p.Dir, "instances-"+name)
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
	podmantest.Eventually(t, func() (err error) {
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
