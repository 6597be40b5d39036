//go:build e2e

package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mcpDir is the example MCP server and its agent; `make worker` gets them their libraries.
const mcpDir = "../testdata/mcp"

// TestMCPWorker is the README's tour: an agent is told the address of an MCP server, a real Worker, and of nothing
// else. It registers itself, a person signs in and allows it, and the tools answer.
func TestMCPWorker(t *testing.T) {
	needWorker(t)
	if _, err := os.Stat(filepath.Join(mcpDir, "dist", "worker", "index.js")); err != nil {
		t.Fatalf("the example MCP server is not built (%v); build it with: make worker", err)
	}
	p := dev(t, t.TempDir(), "127.0.0.1:0", filepath.Join(mcpDir, "app.yml"), "--config",
		filepath.Join(mcpDir, "dev.yaml"))
	target := p.ready.Apps[0].Targets[0]
	if target.URL != "http://127.0.0.1:8787" { // where app.yml says that the resource is
		t.Fatalf("the MCP server runs at %q\n%s", target.URL, p.words)
	}
	agent := exec.CommandContext(t.Context(), "node", "agent.js", target.URL+"/mcp")
	agent.Dir = mcpDir
	var stderr strings.Builder
	agent.Stderr = &stderr
	stdout, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	words := bufio.NewReader(stdout)
	var address string
	for address == "" {
		line, err := words.ReadString('\n')
		if err != nil {
			t.Fatalf("the agent prints no address: %v\n%s", err, &stderr)
		}
		if line = strings.TrimSpace(line); strings.HasPrefix(line, p.ready.Issuer) {
			address = line
		}
	}
	_, b := newPerson(t, "en")
	b.open(address)
	b.signInAs(p)
	if asked := b.readConsent(); !slices.Equal(names(asked.New), []string{"threads:read", "threads:write"}) ||
		!strings.Contains(asked.Heading, "Example agent") || !strings.Contains(b.text("main"), "Notes") {
		t.Errorf("the page asks: %+v", asked)
	}
	b.press(allow)
	if text := b.text("body"); !strings.Contains(text, "Go back to the terminal") {
		t.Errorf("at the end the browser shows %q", text)
	}
	rest, err := io.ReadAll(words)
	if err := agent.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if said := string(rest); err != nil || !strings.Contains(said, "list: There are no notes of") ||
		!strings.Contains(said, "add: Added for") {
		t.Errorf("the agent says %q, %v", said, err)
	}
}
