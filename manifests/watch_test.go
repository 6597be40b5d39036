package manifests

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// watched runs a Watch and gives its changes.
func watched(t *testing.T, paths ...string) <-chan struct{} {
	t.Helper()
	w, err := NewWatch(paths)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	changes, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- w.Run(ctx, func(context.Context) { changes <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return changes
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace is how most editors save.
func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+"~", text)
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

func TestWatchNoticesEverySave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.yml")
	write(t, path, appYML("app"))
	changes := watched(t, path)
	write(t, path, appYML("app", "1.0.0", "1.0.1"))
	receive(t, changes, "a file that was written")
	for _, version := range []string{"1.0.2", "1.0.3"} { // a watched file would be lost with the first
		replace(t, path, appYML("app", "1.0.0", version))
		receive(t, changes, "a file that was replaced")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	receive(t, changes, "a file that was removed")
	write(t, path, appYML("app"))
	receive(t, changes, "a file that came back")
}

func TestWatchOfDirectories(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "apps")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	changes := watched(t, dir)
	write(t, filepath.Join(dir, "one.yml"), appYML("one"))
	receive(t, changes, "a new file")
	if err := os.Mkdir(filepath.Join(dir, ".takos"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ".takos", "app.yml"), appYML("two"))
	receive(t, changes, "a file in a new directory")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	receive(t, changes, "a directory that was removed")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "three.yml"), appYML("three"))
	receive(t, changes, "a directory that came back")
}

// Two changes are told apart by contents: saving the same again is none, and neither is a file that is no manifest.
func TestWatchComparesContents(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.yml")
	write(t, path, appYML("app"))
	w, err := NewWatch([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.notify.Close() }()
	write(t, path, appYML("app"))
	write(t, filepath.Join(dir, "notes.txt"), "x")
	if w.fingerprint() != w.seen {
		t.Error("saving the same is a change")
	}
	write(t, path, appYML("app")+"\n")
	if w.fingerprint() == w.seen {
		t.Error("a change is none")
	}
}

// What changed between loading and watching is not missed.
func TestWatchSeesWhatHappenedBeforeItRan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.yml")
	write(t, path, appYML("app"))
	w, err := NewWatch([]string{path, "-"})
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, "faulty: [")
	ctx, cancel := context.WithCancel(t.Context())
	if err := w.Run(ctx, func(context.Context) { cancel() }); err != nil {
		t.Error(err)
	}
}

func TestWatchOfNothing(t *testing.T) {
	if _, err := NewWatch([]string{filepath.Join(t.TempDir(), "gone", "app.yml")}); err != nil {
		t.Errorf("the directory above can be watched: %v", err)
	}
	if _, err := NewWatch([]string{filepath.Join(t.TempDir(), "a", "b", "c", "app.yml")}); err == nil {
		t.Error("nothing there can be watched")
	}
}
