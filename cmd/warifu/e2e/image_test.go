//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins/runtimecontainers/podmantest"
)

// TestImage: the image that people make of the Dockerfile serves as it is told to be run: by no user of the machine,
// with no capability, on a root that nobody can write to. It is healthy, it ends when it is asked to, and what it knows
// is in the volume.
func TestImage(t *testing.T) {
	const image = "localhost/warifu-test:1"
	engine := podmantest.Start(t)
	buildImage(t, engine, image)
	t.Run("container", func(t *testing.T) { runAsContainer(t, engine, image) })
	t.Run("pod", func(t *testing.T) { runAsPod(t, engine, image) })
}

func runAsContainer(t *testing.T, engine *podmantest.Engine, image string) {
	address := freeAddress(t)
	dir := t.TempDir()
	config := fmt.Sprintf("issuer: http://%[1]s\nenablePasswordDB: true\nweb: {http: %[1]q, drainDelay: 0s}\n"+
		"manifests: {directories: [apps], watch: true, localhostRedirects: allow}\n"+
		"plugins: {runtimes: [{name: file}]}\n", address)
	if err := os.Mkdir(filepath.Join(dir, "apps"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.yaml": config, "apps/app.yml": manifest("board", "")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { // another user reads it
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(name string) {
		t.Helper()
		engine.Run(t, "run", "--detach", "--name", name, "--network", "host", "--read-only", "--read-only-tmpfs=false",
			"--cap-drop", "all", "--security-opt", "no-new-privileges", "--volume", dir+":/etc/warifu:ro",
			"--volume", "warifu:/var/lib/warifu", image)
		podmantest.Eventually(t, func() error { return healthy(engine, name, "http://"+address) })
	}
	run("first")
	pid := engine.Run(t, "inspect", "--format", "{{.State.Pid}}", "first")
	for _, line := range []string{"Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil || !strings.Contains(string(status), line+"\n") {
			t.Errorf("the process is not %q (%v):\n%s", line, err, status)
		}
	}
	// Its own commands work in it; so do plugins, which need a place for sockets.
	podmantest.Eventually(t, func() error {
		states, err := engine.Try(t.Context(), "exec", "first", "warifu", "get", "deliveries", "--app", "board")
		if err == nil && !strings.Contains(states, "ready") {
			err = fmt.Errorf("the deliveries are\n%s", states)
		}
		return err
	})
	keys := engine.Run(t, "exec", "first", "warifu", "keys", "list", "-o", "json")

	engine.Run(t, "stop", "--time", "30", "first")
	if code := engine.Run(t, "inspect", "--format", "{{.State.ExitCode}}", "first"); code != "0" {
		t.Errorf("on SIGTERM it ends with %s\n%s", code, engine.Run(t, "logs", "first"))
	}
	changed := engine.Run(t, "diff", "first")
	if strings.Contains(changed, "/usr") || strings.Contains(changed, "/var/lib/warifu/") {
		t.Errorf("it has written beside its volume:\n%s", changed)
	}
	if _, err := engine.Try(t.Context(), "healthcheck", "run", "first"); err == nil {
		t.Error("a container that has ended is healthy")
	}
	engine.Run(t, "rm", "first")
	run("second")
	if now := engine.Run(t, "exec", "second", "warifu", "keys", "list", "-o", "json"); now != keys {
		t.Errorf("a new container on the same volume has other keys:\n%s\n%s", keys, now)
	}
	engine.Run(t, "stop", "--time", "30", "second")
}

// runAsPod runs it as a kubelet runs the pods of the chart: on volumes that belong to root and to the group of the pod,
// with files behind links that are swapped when a Secret changes, and with the chart's ports.
func runAsPod(t *testing.T, engine *podmantest.Engine, image string) {
	const group = 65532
	web, metrics := freeAddress(t), freeAddress(t)
	dir, config, secret := t.TempDir(), fmt.Sprintf("issuer: http://%s\nenablePasswordDB: true\nweb: {drainDelay: 0s}\n"+
		"manifests: {directories: [/etc/warifu-apps], watch: true, localhostRedirects: allow}\n"+
		"encryptionKeyFiles: [/etc/warifu/encryption.key]\n", web), filepath.Join(t.TempDir(), "secret")
	data, apps := filepath.Join(dir, "data"), filepath.Join(dir, "apps")
	for _, volume := range []string{data, apps, secret} {
		mount(t, volume, group, nil)
	}
	files := map[string]string{"config.yaml": config, "encryption.key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"}
	mount(t, secret, group, files)
	mount(t, apps, group, map[string]string{"board.yml": manifest("board", "")})
	_, webPort, _ := strings.Cut(web, ":")
	_, metricsPort, _ := strings.Cut(metrics, ":")
	engine.Run(t, "run", "--detach", "--name", "pod", "--network", "host", "--read-only", "--read-only-tmpfs=false",
		"--user", "65532:65532", "--cap-drop", "all", "--security-opt", "no-new-privileges",
		"--volume", secret+":/etc/warifu:ro", "--volume", apps+":/etc/warifu-apps:ro", "--volume", data+":/var/lib/warifu",
		"--env", "WARIFU_WEB_HTTP=:"+webPort,
		"--env", "WARIFU_TELEMETRY_HTTP=:"+metricsPort, image)
	podmantest.Eventually(t, func() error { return healthy(engine, "pod", "http://"+metrics) })
	podmantest.Eventually(t, func() error { return healthy(engine, "pod", "http://"+web) })
	log := engine.Run(t, "inspect", "--format", "{{.HostConfig.LogConfig.Path}}", "pod")
	logged := func(want string) {
		t.Helper()
		podmantest.Eventually(t, func() error {
			logs, err := os.ReadFile(log)
			if err == nil && !strings.Contains(string(logs), want) {
				err = fmt.Errorf("the log has no %q:\n%s", want, logs)
			}
			return err
		})
	}
	logged("app applied")
	files["config.yaml"] = config + "subject: [dex]\n"
	mount(t, secret, group, files)
	logged("is faulty; the previous one stays in use")
	files["config.yaml"] = config + "branding: {name: Example}\n"
	mount(t, secret, group, files)
	logged("changed=[branding")
	engine.Run(t, "stop", "--time", "30", "pod")
}

// mount lays files into a volume as a kubelet does: a directory of them, which the link ..data names, and links through
// it. Nobody else reads them.
func mount(t *testing.T, volume string, group int, files map[string]string) {
	t.Helper()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(volume, 0o755), os.Chown(volume, 0, group), os.Chmod(volume, 0o775|os.ModeSetgid))
	if files == nil {
		return
	}
	fresh, err := os.MkdirTemp(volume, "..")
	must(err, os.Chmod(fresh, 0o755))
	for name, text := range files {
		file := filepath.Join(fresh, name)
		must(os.WriteFile(file, []byte(text), 0o440), os.Chown(file, 0, group))
		if _, err := os.Lstat(filepath.Join(volume, name)); err != nil {
			must(os.Symlink("..data/"+name, filepath.Join(volume, name)))
		}
	}
	must(os.Symlink(filepath.Base(fresh), filepath.Join(volume, "..data_tmp")),
		os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
}

// healthy asks what the engine asks, and what a proxy or a kubelet does.
func healthy(engine *podmantest.Engine, name, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := engine.Try(ctx, "healthcheck", "run", name); err != nil {
		logs, _ := engine.Try(ctx, "logs", name) // it is the other error that counts
		return fmt.Errorf("%w\n%s", err, logs)
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(address + "/readyz")
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz answers %s", resp.Status)
	}
	return nil
}

// buildImage does what make image does, with the program under test.
func buildImage(t *testing.T, engine *podmantest.Engine, image string) {
	t.Helper()
	const root = "../../.."
	context := filepath.Join(engine.Dir, "image")
	lay := exec.CommandContext(t.Context(), filepath.Join(root, ".ci", "image"), suite.binary, context,
		"/etc/ssl/certs/ca-certificates.crt")
	if out, err := lay.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	engine.Run(t, "build", "--quiet", "--format", "docker", "--tag", image,
		"--file", filepath.Join(root, "Dockerfile"), context)
	var health struct{ Test []string }
	said := engine.Run(t, "inspect", "--format", "{{json .HealthCheck}}", image)
	if err := json.Unmarshal([]byte(said), &health); err != nil || len(health.Test) == 0 {
		t.Errorf("the image has the health check %+v (%v)", health, err)
	}
}
