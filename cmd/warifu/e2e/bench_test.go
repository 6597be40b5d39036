//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkRotate replaces the client secret of an app that people use, from the command to the end of the older
// secret. It reports how many requests there were meanwhile, and how many of them failed.
func BenchmarkRotate(b *testing.B) {
	for _, kind := range []struct {
		name  string
		start func(b *testing.B) *deployed
	}{
		{"workerd", func(b *testing.B) *deployed { return startWorker(b) }},
		{"podman", func(b *testing.B) *deployed { return startContainer(b, startPodman(b)) }},
	} {
		b.Run(kind.name, func(b *testing.B) {
			d := kind.start(b)
			l := d.inUse(b)
			defer l.cancel()
			for b.Loop() {
				d.rotate(b)
			}
			lost := len(l.end())
			b.ReportMetric(float64(lost), "lost")
			b.ReportMetric(float64(l.asked.Load()), "requests")
		})
	}
}

// BenchmarkApplyToReady deploys new apps, from the command until their runtime serves the env.
func BenchmarkApplyToReady(b *testing.B) {
	b.Run("workerd", func(b *testing.B) {
		script, err := filepath.Abs(filepath.Join(workerDir, "dist", "worker"))
		if err != nil {
			b.Fatal(err)
		}
		runtime := fmt.Sprintf(`plugins:
  runtimes:
    - {name: workers, config: {driver: workerd, workerd: %q, script: %q}}
`, needWorker(b), script)
		applyToReady(b, "workers", runtime, func(string) {}, func(string) {})
	})
	b.Run("podman", func(b *testing.B) {
		engine := startPodman(b)
		applyToReady(b, "containers", containersRuntime(engine), func(app string) { engine.create(b, app) },
			func(app string) {
				engine.Run(b, "rm", "--force", "--time", "0", "--filter", "label=dev.takos.app="+app)
			})
	})
}

func applyToReady(b *testing.B, kind, runtime string, before, after func(app string)) {
	server := serve(b, b.TempDir(), map[string]string{"ann": "correct horse"}, runtime)
	api := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", server.ready.Admin)
	}}}
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		d := &deployed{name: fmt.Sprintf("app-%d", n), server: server}
		before(d.name)
		text := strings.Replace(manifest(d.name, ""), "workers:", kind+":", 1)
		b.StartTimer()
		command(b, text, "apply", "-f", "-", "--yes", "--admin", server.ready.Admin)
		for !d.isReady(b, api) {
			time.Sleep(5 * time.Millisecond) // the time that is measured is no finer
		}
		b.StopTimer()
		d.warifu(b, "delete", "app", d.name, "--yes")
		after(d.name)
		b.StartTimer()
	}
}

// isReady asks the admin API, as `apply --wait` does, but more often.
func (d *deployed) isReady(t testing.TB, api *http.Client) bool {
	t.Helper()
	resp, err := api.Get("http://admin/v1/deliveries?app=" + d.name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var deliveries []struct {
		State string `json:"state"`
		Error string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&deliveries); err != nil || len(deliveries) != 1 {
		t.Fatalf("deliveries of %s: %+v (%v)", d.name, deliveries, err)
	}
	if deliveries[0].State == "failed" {
		t.Fatalf("%s: %s", d.name, deliveries[0].Error)
	}
	return deliveries[0].State == "ready"
}
