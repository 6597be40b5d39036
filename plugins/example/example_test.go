package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/plugintest"
)

// The test binary is the plugin, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestContract(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := func(app string, target plugins.Target) string {
		return filepath.Join(dir, app+","+target.Kind+","+target.Name+".json")
	}
	// What the app's owner does by hand: read the file, and change it.
	change := func(app string, target plugins.Target, name, value string) error {
		_, f, err := load(path(app, target))
		if err != nil {
			return err
		}
		f.Env[name] = value
		return write(path(app, target), f)
	}
	plugintest.Run(t, binary, plugintest.Harness{
		Args:   []string{"serve"},
		Config: json.RawMessage(fmt.Sprintf(`{"dir": %q}`, dir)),
		Serving: func(_ context.Context, app string, target plugins.Target) (map[string]string, error) {
			_, f, err := load(path(app, target))
			return f.Env, err
		},
		Rollout: func(_ context.Context, app string, target plugins.Target) (string, error) {
			info, err := os.Stat(path(app, target))
			if err != nil {
				return "", err
			}
			return info.ModTime().String(), nil
		},
		Foreign: func(_ context.Context, app string, target plugins.Target, name, value string) error {
			return change(app, target, name, value)
		},
		Break: func(_ context.Context, app string, target plugins.Target) error {
			return change(app, target, "OAUTH_CLIENT_ID", "somebody was here")
		},
		Fail: func(_ context.Context, _ string, _ plugins.Target, env map[string]string) (func(context.Context) error,
			error) {
			env["NOT_FOR_AN_ENVIRONMENT"] = "a\x00b"
			return nil, nil
		},
	})
}
