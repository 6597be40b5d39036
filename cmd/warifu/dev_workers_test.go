package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins/runtimeworkers"
)

const boardManifest = `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: board}
spec:
  version: 1.0.0
  oauth:
    clientName: Board
    redirectUris: [https://board.example.com/callback, REDIRECT]
    scopes: [openid]
    autoEnv: true
  workers:
    elsewhere: {build: {fromWorkflow: {artifactPath: dist/missing}}}
    outside: {build: {fromWorkflow: {artifactPath: ../dist}}}
    plain: {}
    web: {build: {fromWorkflow: {artifactPath: dist/worker}}}
`

// board writes the manifest at path below a new directory, with the script of the Worker web, and looks for Workers as
// dev does.
func board(t *testing.T, path, redirect, workerd string) (string, devWorkers) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		path:                   strings.Replace(boardManifest, "REDIRECT", redirect, 1),
		"dist/worker/index.js": "export default {}", "workerd": "",
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	docs, faults := manifests.Load([]string{filepath.Join(dir, path)}, nil, manifests.Options{Dev: true})
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	c := &cli{environ: []string{workerdVariable + "=" + filepath.Join(dir, workerd)}}
	found, err := c.findWorkers(docs)
	if err != nil {
		t.Fatal(err)
	}
	return dir, found
}

func TestDevRunsWorkersThatHaveAScript(t *testing.T) {
	for _, tt := range []struct{ rule, path, redirect, listen, address string }{
		{"any port", "app.yml", "'http://127.0.0.1:*/callback'", "", "http://127.0.0.1:7777"},
		{"any port, any path", "app.yml", "'http://localhost:*'", "", "http://localhost:7777"},
		{"the redirect URI's port", "app.yml", "http://localhost:3000/callback", "localhost:3000", "http://localhost:7777"},
		{"an address of version 6", "app.yml", "'http://[::1]:3000/callback'", "[::1]:3000", "http://[::1]:7777"},
		{"no redirect URI on this machine", "app.yml", "https://board.example.org/callback", "", "http://127.0.0.1:7777"},
		{"a manifest in .takos", ".takos/app.yml", "'http://127.0.0.1:*/callback'", "", "http://127.0.0.1:7777"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			dir, found := board(t, tt.path, tt.redirect, "workerd")
			cfg := found.settings()
			if len(cfg.Targets) != 2 || cfg.Targets[0] != (config.Target{Kind: "worker", App: "board", Name: "web",
				Runtime: config.RuntimeWorkers}) ||
				cfg.Targets[1] != (config.Target{Runtime: config.RuntimeFile}) {
				t.Fatalf("targets are assigned as %+v", cfg.Targets)
			}
			workers, _ := cfg.Runtimes[1].Config["workers"].(map[string]any)
			web, _ := workers["board/web"].(map[string]any)
			listen, _ := web["listen"].(string)
			if web["script"] != filepath.Join(dir, "dist", "worker") || listen != tt.listen {
				t.Errorf("the Worker is run as %v", web)
			}
			if got := found.address("board", "web", "http://127.0.0.1:7777"); got != tt.address {
				t.Errorf("people are told %s, want %s", got, tt.address)
			}
		})
	}
}

func TestDevWritesFilesWithoutWorkerd(t *testing.T) {
	_, found := board(t, "app.yml", "'http://127.0.0.1:*'", "workerd")
	found.workerd = ""
	if cfg := found.settings(); len(cfg.Runtimes) != 0 || len(cfg.Targets) != 0 {
		t.Errorf("without workerd plugins are %+v", cfg)
	}
	if idle := strings.Join(found.idle(), " "); idle != "board/web" {
		t.Errorf("Workers without workerd: %q", idle)
	}
}

func TestDevRefusesAWorkerdThatIsNotThere(t *testing.T) {
	c := &cli{environ: []string{workerdVariable + "=/nowhere/workerd"}}
	if _, err := c.findWorkers(nil); exitCode(err) != exitInvalid {
		t.Errorf("error %v", err)
	}
}

// The example Worker brings the workerd that the runtime is tested with.
func TestExampleWorkerPinsWorkerd(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "worker", "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"workerd": "`+runtimeworkers.WorkerdVersion+`"`) {
		t.Errorf("package.json does not pin workerd %s", runtimeworkers.WorkerdVersion)
	}
}
