package plugintest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
)

// fileHarness is what an operator could do to the files of the runtime `file`.
func fileHarness(t *testing.T) Harness {
	dir := t.TempDir()
	path := func(app string, target plugins.Target) string {
		return filepath.Join(dir, app, target.Kind+"-"+target.Name+".env")
	}
	return Harness{
		Args:   []string{asPlugin, "file"},
		Config: json.RawMessage(fmt.Sprintf(`{"dir": %q}`, dir)),
		Serving: func(_ context.Context, app string, target plugins.Target) (map[string]string, error) {
			content, err := os.ReadFile(path(app, target))
			if os.IsNotExist(err) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			return readLiteral(content)
		},
		Rollout: func(_ context.Context, app string, target plugins.Target) (string, error) {
			info, err := os.Stat(path(app, target))
			if err != nil {
				return "", err
			}
			return info.ModTime().String(), nil
		},
		Foreign: func(_ context.Context, app string, target plugins.Target, name, value string) error {
			if err := os.MkdirAll(filepath.Dir(path(app, target)), 0o700); err != nil {
				return err
			}
			f, err := os.OpenFile(path(app, target), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // the write's error counts
			_, err = fmt.Fprintf(f, "%s=%q\n", name, value)
			return err
		},
		Break: func(_ context.Context, app string, target plugins.Target) error {
			content, err := os.ReadFile(path(app, target))
			if err != nil {
				return err
			}
			return os.WriteFile(path(app, target), bytes.ReplaceAll(content, []byte("OAUTH_CLIENT_ID=app"),
				[]byte("OAUTH_CLIENT_ID=oops")), 0o600)
		},
		Fail: func(_ context.Context, _ string, _ plugins.Target, env map[string]string) (func(context.Context) error,
			error) {
			env["NOT_FOR_A_FILE"] = "two\nlines"
			return nil, nil
		},
	}
}

// readLiteral reads an env file as the runtime's documentation says that all its
// readers do: plain, 'single', "double" or bare, none with an escape in it.
func readLiteral(content []byte) (map[string]string, error) {
	env := map[string]string{}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		name, value, found := strings.Cut(line, "=")
		if !found || strings.HasPrefix(line, "#") {
			continue
		}
		if len(value) > 1 && (value[0] == '\'' || value[0] == '"') && value[len(value)-1] == value[0] {
			value = value[1 : len(value)-1]
		}
		env[name] = value
	}
	return env, nil
}

func TestFileRuntimeKeepsTheContractAndNothingIsUnchecked(t *testing.T) {
	t.Parallel()
	results := Verify(t.Context(), self(t), fileHarness(t), nil)
	for _, r := range results {
		if r.Outcome != Passed {
			t.Error(r)
		}
	}
	if len(results) != len(Checks(plugins.RuntimeKind)) {
		t.Errorf("%d checks were made of %d", len(results), len(Checks(plugins.RuntimeKind)))
	}
}

func TestOAuthHookKeepsTheContract(t *testing.T) {
	t.Parallel()
	Run(t, self(t), Harness{Args: []string{asPlugin, "oauth"}})
}
