//go:build e2e

package runtimeworkers

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/plugintest"
)

func TestWorkerdKeepsThePluginContract(t *testing.T) {
	root, state := t.TempDir(), t.TempDir()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"driver": "workerd", "workerd": workerdBinary(t), "root": root})
	if err != nil {
		t.Fatal(err)
	}
	script := func(app string, target plugins.Target) string { return filepath.Join(root, app, target.Name+".js") }
	write := func(app string, target plugins.Target, text string) error {
		if err := os.MkdirAll(filepath.Dir(script(app, target)), 0o700); err != nil {
			return err
		}
		return os.WriteFile(script(app, target), []byte(text), 0o600)
	}
	// ask gives nothing for a Worker that does not run.
	ask := func(ctx context.Context, app string, target plugins.Target, path string) (map[string]string, error) {
		records, err := openStore(state)
		if err != nil {
			return nil, err
		}
		rec, err := records.load(app, target.Name)
		if err != nil || rec == nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+rec.Listen+path, nil)
		if err != nil {
			return nil, err
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		var answer map[string]string
		return answer, json.NewDecoder(resp.Body).Decode(&answer)
	}
	plugintest.Run(t, binary, plugintest.Harness{
		Args: []string{"serve"}, Config: config, StateDir: state,
		Prepare: func(_ context.Context, app string, target plugins.Target) error { return write(app, target, echo) },
		Serving: func(ctx context.Context, app string, target plugins.Target) (map[string]string, error) {
			return ask(ctx, app, target, "/")
		},
		Rollout: func(ctx context.Context, app string, target plugins.Target) (string, error) {
			answer, err := ask(ctx, app, target, "/id")
			return answer["id"], err
		},
		Break: func(_ context.Context, app string, target plugins.Target) error {
			return os.Remove(filepath.Join(state, "workers", base(app, target.Name)))
		},
		Fail: func(_ context.Context, app string, target plugins.Target, _ map[string]string) (func(context.Context) error,
			error) {
			return func(context.Context) error { return write(app, target, echo) }, write(app, target, "export default { fetch(")
		},
	})
}
