package runtimefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
)

// reloading is a fixture whose reload command notes its arguments in a file, and fails while a file named broken
// exists.
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
	settings, err := json.Marshal(map[string]any{"dir": f.dir, "sealKey": []byte("0123456789abcdef0123456789abcdef"),
		"reload": []string{program, "{app}-{name}", "{kind}; $HOME", "{file}"}})
	if err != nil {
		t.Fatal(err)
	}
	f.settings = settings
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
	if st.State != plugins.StateFailed || st.AcceptedGeneration != 2 || st.ServingGeneration != 1 ||
		!st.Diagnostic.Retryable ||
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

// The replica that has written the file dies before it could reload; the one that takes over sees that it is due.
func TestAnotherReplicaReloads(t *testing.T) {
	f, runs, broken := reloading(t)
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.push(want(1, map[string]string{"A": "1"}))
	other := &fixture{fileRuntime: &fileRuntime{}, t: t, dir: f.dir}
	if err := other.Configure(t.Context(), f.settings, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if st := other.observe(); st.State != plugins.StateFailed || st.AcceptedGeneration != 1 || st.ServingGeneration != 0 {
		t.Errorf("before: %+v", st)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if st := other.push(want(1, map[string]string{"A": "1"})); st.State != plugins.StateReady {
		t.Errorf("after: %+v", st)
	}
	if st := f.observe(); st.State != plugins.StateReady {
		t.Errorf("at the first one: %+v", st)
	}
	if got := runs(); len(got) != 1 {
		t.Errorf("reloads: %q", got)
	}
}

// The command of one push still runs, with the file as it was, while the next one replaces the file: the command runs
// again for that, and the first push learns that it was overtaken.
func TestFileThatChangesDuringAReloadIsReloadedAgain(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	program, log, gate := filepath.Join(dir, "reload"), filepath.Join(dir, "log"), filepath.Join(dir, "gate")
	script := "#!/bin/sh\ngrep ^A= \"$1\" >>" + log + "\nwhile [ ! -e " + gate + " ]; do sleep 0.02; done\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(map[string]any{"dir": f.dir, "reload": []string{program, "{file}"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Configure(t.Context(), settings, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	push := func(req plugins.PushRequest) chan error {
		done := make(chan error, 1)
		go func() {
			st, err := f.PushEnv(t.Context(), req)
			if err == nil && (st.State != plugins.StateReady || st.AcceptedGeneration != req.Generation) {
				err = fmt.Errorf("generation %d: %+v", req.Generation, st)
			}
			done <- err
		}()
		return done
	}
	awaitContent := func(path, want string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if content, err := os.ReadFile(path); err == nil && strings.Contains(string(content), want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s never had %q", path, want)
			}
		}
	}
	first := push(want(1, map[string]string{"A": "one"}))
	awaitContent(log, "one")
	second := push(want(2, map[string]string{"A": "two"}))
	awaitContent(f.file(), "two")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-first; !errors.Is(err, plugins.ErrStale) {
		t.Errorf("the push that was overtaken: %v", err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	awaitContent(log, "two")
}

// What an older version has noted in the state directory is not forgotten.
func TestReloadThatAnOlderVersionHasNotedIsDue(t *testing.T) {
	f, runs, _ := reloading(t)
	f.push(want(1, map[string]string{"A": "1"}))
	if err := os.MkdirAll(f.reload.old, 0o700); err != nil {
		t.Fatal(err)
	}
	note := f.reload.notes(f.file())[1]
	if err := os.WriteFile(note, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st := f.observe(); st.State != plugins.StateFailed {
		t.Errorf("%+v", st)
	}
	f.push(want(1, map[string]string{"A": "1"}))
	if _, err := os.Stat(note); !errors.Is(err, os.ErrNotExist) || len(runs()) != 2 {
		t.Errorf("%v, reloads: %q", err, runs())
	}
}
