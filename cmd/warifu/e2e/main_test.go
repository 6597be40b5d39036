//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// suite is what all tests share. Only TestMain writes it.
var suite struct {
	binary  string          // the program under test
	site    *site           // the pages that manifests link to
	server  *process        // a dev server that runs the spec's example, and to which tests deploy apps of their own
	idle    footprint       // of server, before anybody came
	browser context.Context // chromedp context of the one Chromium
	agent   string          // its User-Agent
}

// exampleFile is the full example of the spec, as it stands; `make run` runs it, too.
const exampleFile = "../testdata/app.yml"

func TestMain(m *testing.M) {
	code, err := runSuite(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (_ int, err error) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		return 0, fmt.Errorf("the tests drive Chromium, and there is none: apt-get install chromium (%w)", err)
	}
	dir, err := os.MkdirTemp("", "warifu-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	if suite.binary = os.Getenv("WARIFU_E2E_BINARY"); suite.binary == "" {
		suite.binary = filepath.Join(dir, "warifu")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", suite.binary,
			"github.com/warifu/warifu/cmd/warifu")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build the binary: %w\n%s", err, out)
		}
	}
	suite.site = newSite()
	defer suite.site.Close()

	if suite.server, err = startDev(filepath.Join(dir, "data"), "127.0.0.1:0", exampleFile); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, suite.server.end()) }()
	if suite.idle, err = suite.server.footprint(); err != nil {
		return 0, err
	}
	closeBrowser, err := startBrowser(chromium)
	if err != nil {
		return 0, err
	}
	defer closeBrowser()
	return m.Run(), nil
}

// manifest is an app.yml of one app with a Worker, as its developer would write it. site is where its logo and its
// terms are; "" for none. more is what else it registers.
func manifest(name, site string, more ...string) string {
	text := fmt.Sprintf(`---
apiVersion: takos.dev/v1alpha1
kind: App
metadata:
  name: %s
spec:
  version: 1.0.0
  workers:
    web: {}
  oauth:
    clientName: Board
    redirectUris:
      - http://localhost:*/callback
    scopes: [openid, profile, email, address, phone, offline_access, threads:read, threads:write, runs:read, files:write]
    autoEnv: true
`, name)
	if site != "" {
		text += fmt.Sprintf(`    metadata:
      logoUri: %[1]s/logo.svg
      tosUri: %[1]s/terms
      policyUri: %[1]s/privacy
`, site)
	}
	for _, line := range more {
		text += "    " + line + "\n"
	}
	return text
}

// artifact is where a test leaves a file for people to look at.
func artifact(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("WARIFU_ARTIFACTS")
	if dir == "" {
		dir = t.ArtifactDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}
