package runtimefile

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
)

// reloading is a fixture whose reload command notes its arguments in a file, and fails while a file named broken exists.
func reloading(t *testing.T) (f *fixture, runs func() []string, broken string) {
	t.Helper()
	f = newFixture(t)
	dir := t.TempDir()
	log, broken := filepath.Join(dir, "log"), filepath.Join(dir, "broken")
	program := filepath.Join(dir, "reload")
	script := "#!/bin/sh\nif [ -e " + broken + " ]; then echo unit is masked >&2; exit 3; fi\necho \"$@\" >>" + log + "\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(map[string]any{"dir": f.dir, "reload": []string{program, "{app}-{name}", "{kind}; $HOME", "{file}"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Configure(t.Context(), settings, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return f, func() []string {
		content, err := os.ReadFile(log)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(content)), "\n")
	}, broken
}

func TestReloadRunsAfterEachChangeAndOnlyThen(t *testing.T) {
	f, runs, _ := reloading(t)
	env := map[string]string{"A": "1"}
	for range 2 { // the second one changes nothing
		if st := f.push(want(1, env)); st.State != plugins.StateReady || st.ServingGeneration != 1 {
			t.Fatalf("%+v", st)
		}
	}
	if got := runs(); len(got) != 1 || got[0] != "app-web worker; $HOME "+f.file() {
		t.Errorf("reloads: %q (no shell may have seen the arguments)", got)
	}
	f.push(want(2, map[string]string{"A": "2"}))
	if got := runs(); len(got) != 2 {
		t.Errorf("reloads after a change: %q", got)
	}
	remove(t, f, 3)
	if got := runs(); len(got) != 3 {
		t.Errorf("reloads after the removal: %q", got)
	}
}

func TestFailedReloadIsReportedAndTriedAgain(t *testing.T) {
	f, runs, broken := reloading(t)
	f.push(want(1, map[string]string{"A": "1"}))
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st := f.push(want(2, map[string]string{"A": "2"}))
	if st.State != plugins.StateFailed || st.AcceptedGeneration != 2 || st.ServingGeneration != 1 || !st.Diagnostic.Retryable ||
		!strings.Contains(st.Diagnostic.Message, "unit is masked") {
		t.Fatalf("%+v %+v", st, st.Diagnostic)
	}
	if st := f.observe(); st.State != plugins.StateFailed || st.ServingGeneration != 1 {
		t.Errorf("observed: %+v", st)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if st := f.push(want(2, map[string]string{"A": "2"})); st.State != plugins.StateReady || st.ServingGeneration != 2 {
		t.Errorf("after the mending: %+v", st)
	}
	if st := f.observe(); st.State != plugins.StateReady {
		t.Errorf("observed: %+v", st)
	}
	if got := runs(); len(got) != 2 {
		t.Errorf("reloads: %q", got)
	}
}

func TestFailedReloadDoesNotHoldUpARemoval(t *testing.T) {
	f, _, broken := reloading(t)
	f.push(want(1, map[string]string{"A": "1"}))
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	remove(t, f, 2)
	if _, err := os.Stat(f.file()); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file is still there")
	}
}

func TestReloadIsAProgramWithAnAbsolutePath(t *testing.T) {
	for _, argv := range [][]string{{"systemctl", "reload", "x"}, {"/no/such/program"}, {""}} {
		settings, err := json.Marshal(map[string]any{"dir": t.TempDir(), "reload": argv})
		if err != nil {
			t.Fatal(err)
		}
		if err := (&fileRuntime{}).Configure(t.Context(), settings, t.TempDir()); !errors.Is(err, plugins.ErrInvalid) {
			t.Errorf("%q: %v", argv, err)
		}
	}
}
