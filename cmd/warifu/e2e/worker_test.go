//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// workerDir is the example Worker; `make worker` gets it its library and workerd.
const workerDir = "../testdata/worker"

// startWorker runs the example Worker the way the README tells newcomers to.
func startWorker(t testing.TB) *deployed {
	t.Helper()
	needWorker(t)
	p := dev(t, t.TempDir(), "127.0.0.1:0", filepath.Join(workerDir, "app.yml"))
	if len(p.ready.Apps) != 1 || len(p.ready.Apps[0].Targets) != 1 {
		t.Fatalf("the ready line has the apps %+v", p.ready.Apps)
	}
	target := p.ready.Apps[0].Targets[0]
	if target.Runtime != "workers" || target.URL == "" {
		t.Fatalf("the Worker does not run: %+v\n%s", target, p.words)
	}
	return &deployed{name: "board", url: target.URL, server: p, session: "board_session",
		login: p.ready.User.Email, password: p.ready.User.Password}
}

// needWorker fails a test when workerd or the built example is not there.
func needWorker(t testing.TB) string {
	t.Helper()
	const install = "make worker"
	if _, err := os.Stat(filepath.Join(workerDir, "dist", "worker", "oauth4webapi.js")); err != nil {
		t.Fatalf("the example Worker is not built (%v); build it with: %s", err, install)
	}
	if path := os.Getenv("WARIFU_WORKERD"); path != "" {
		return path
	}
	if path, err := exec.LookPath("workerd"); err == nil {
		return path
	}
	found, err := filepath.Glob(filepath.Join(workerDir, "node_modules", "@cloudflare", "workerd-*", "bin", "workerd"))
	if err != nil || len(found) == 0 {
		t.Fatalf("there is no workerd; install it with: %s", install)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWorker: somebody signs in to a real Worker in workerd, gets new tokens there, and notices nothing of rotations.
func TestWorker(t *testing.T) {
	startWorker(t).survives(t, 3)
}
