//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
)

// TestContainer: somebody signs in to a real container in podman, gets new tokens there, and notices nothing of
// rotations.
func TestContainer(t *testing.T) {
	engine := startPodman(t)
	d := startContainer(t, engine)
	d.survives(t, 2)
	// Who owns the container finds it under a name of its own, with the credentials in nothing but its environment.
	if name := engine.Run(t, "ps", "--format", "{{.Names}}"); name == "" || name == "shop" {
		t.Errorf("after rotations podman runs %q", name)
	}
}

// startContainer runs the example container, by a server that reaches the engine.
func startContainer(t testing.TB, engine *podman) *deployed {
	t.Helper()
	server := serve(t, t.TempDir(), map[string]string{"ann": "correct horse"}, containersRuntime(engine))
	d := &deployed{name: "shop", server: server, session: "shop_session", login: "ann@example.com",
		password: "correct horse"}
	d.url = route(t, engine.create(t, d.name))
	d.warifu(t, "apply", "-f", filepath.Join(containerDir, "app.yml"), "--yes", "--wait")
	return d
}

func containersRuntime(engine *podman) string {
	return fmt.Sprintf(`plugins:
  runtimes:
    - {name: containers, config: {host: "unix://%s"}}
`, engine.Socket)
}
