//go:build e2e

package examplepython

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/plugintest"
)

func TestContract(t *testing.T) {
	python := environment(t)
	program := generate(t, python)
	dir := t.TempDir()
	path := func(app string, target plugins.Target) string {
		return filepath.Join(dir, app+","+target.Kind+","+target.Name+".json")
	}
	type file struct {
		Env    map[string]string `json:"env"`
		Pushed json.RawMessage   `json:"pushed"`
	}
	read := func(app string, target plugins.Target) (f file, err error) {
		content, err := os.ReadFile(path(app, target))
		if errors.Is(err, os.ErrNotExist) {
			return file{}, nil
		}
		return f, errors.Join(err, json.Unmarshal(content, &f))
	}
	// What the app's owner does by hand.
	change := func(app string, target plugins.Target, name, value string) error {
		f, err := read(app, target)
		if err != nil {
			return err
		}
		env := map[string]string{}
		maps.Copy(env, f.Env)
		env[name] = value
		f.Env = env
		content, err := json.Marshal(f)
		return errors.Join(err, os.WriteFile(path(app, target), content, 0o600))
	}
	plugintest.Run(t, python, plugintest.Harness{
		Args:   []string{program},
		Config: json.RawMessage(fmt.Sprintf(`{"dir": %q}`, dir)),
		Serving: func(_ context.Context, app string, target plugins.Target) (map[string]string, error) {
			f, err := read(app, target)
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

// environment gives a Python with the pinned packages, made once and kept for the
// next test.
func environment(t *testing.T) string {
	t.Helper()
	requirements, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "warifu-test", fmt.Sprintf("python-%.12x", sha256.Sum256(requirements)))
	python, complete := filepath.Join(dir, "bin", "python"), filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err == nil {
		return python
	}
	if err := os.RemoveAll(dir); err != nil { // half of one
		t.Fatal(err)
	}
	run(t, "python3", "-m", "venv", dir)
	run(t, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", "requirements.txt")
	if err := os.WriteFile(complete, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return python
}

// generate puts the program beside the code of the contract.
func generate(t *testing.T, python string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, python, "-m", "grpc_tools.protoc", "-I", "../pluginpb", "--python_out="+dir, "--grpc_python_out="+dir,
		"warifu/plugin/v1/common.proto", "warifu/plugin/v1/runtime.proto")
	source, err := os.ReadFile("plugin.py")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "plugin.py")
	if err := os.WriteFile(program, source, 0o600); err != nil {
		t.Fatal(err)
	}
	return program
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s\nneeds Python 3.10 or later: apt-get install --no-install-recommends python3 python3-venv",
			name, args, err, out)
	}
}
