//go:build e2e

package runtimecontainers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A real engine tells the labels of an image as the container's. They get no secret; those of the container do.
func TestPodmanImageWithOurLabelsGetsNoSecret(t *testing.T) {
	p := startPodman(t)
	const labelled = "localhost/warifu-test-labelled:1"
	file := filepath.Join(p.Dir, "Containerfile")
	text := "FROM " + testImage + "\nLABEL " + labelApp + "=app " + labelContainer + "=web " + labelProbe +
		"=http://127.0.0.1:1/\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Run(t, "build", "--quiet", "--tag", labelled, "--file", file, t.TempDir())
	r := served(t, "unix://"+p.Socket, t.TempDir())
	p.Run(t, "run", "--detach", "--name", "evil", "--network", "none", labelled, "-listen", "127.0.0.1:1")
	if st := failed(t, r, push(1, credentials)); !strings.Contains(st.Diagnostic.Message, "container evil has the labels "+
		"dev.takos.app=app") {
		t.Errorf("%+v", st.Diagnostic)
	}
	if env := p.inspected(t, "evil").Config.Env; strings.Contains(strings.Join(env, " "),
		credentials["OAUTH_CLIENT_SECRET"]) {
		t.Errorf("the container got %v", env)
	}
	app := p.app(t, "web", nil, nil)
	ready(t, r, push(2, credentials))
	if got := app.env(t)["OAUTH_CLIENT_SECRET"]; got != credentials["OAUTH_CLIENT_SECRET"] {
		t.Errorf("the app sees %q", got)
	}
}
