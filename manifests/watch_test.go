package manifests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watched runs a Watch and gives its changes.
func watched(t *testing.T, paths ...string) <-chan struct{} {
	t.Helper()
	w, err := NewWatch(paths)
	if err != nil {
		t.Fatal(err)
	}
	return seen(t, w)
}

// seen are the changes that a Watch notices.
func seen(t *testing.T, w *Watch) <-chan struct{} {
	ctx, cancel := context.WithCancel(context.Background())
	changes, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx, func(_ context.Context, changed bool) time.Duration {
			if changed {
				changes <- struct{}{}
			}
			return 0
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
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

// Of some changes nobody is told: of a file that a link leads to, and of what is mounted or comes by a network.
func TestWatchLooksAnyway(t *testing.T) {
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "app.yml")
	write(t, elsewhere, appYML("app"))
	if err := os.Symlink(elsewhere, filepath.Join(dir, "app.yml")); err != nil {
		t.Fatal(err)
	}
	w, err := NewWatch([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	w.anyway = 10 * time.Millisecond
	changes := seen(t, w)
	write(t, elsewhere, appYML("app", "1.0.0", "1.0.1"))
	receive(t, changes, "a file that a link leads to")
}

// A named pipe in a directory is a fault, and nobody waits for its writer.
func TestNamedPipeInADirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "app.yml"), appYML("app"))
	changes := watched(t, dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yml"), 0o600); err != nil {
		t.Fatal(err)
	}
	receive(t, changes, "a named pipe")
	docs, faults := Load([]string{dir}, nil, Options{})
	if len(docs) != 1 || len(faults) != 1 || !strings.Contains(faults[0].String(), "pipe.yml") ||
		!strings.Contains(faults[0].String(), "not a regular file") {
		t.Errorf("%d documents, %v", len(docs), faults)
	}
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

// A manifest is swapped by a link that leads to it, wherever on the way that is: Kubernetes mounts each file of a
// ConfigMap as a link into ..data, which is a link to a directory that is replaced; deployments turn their link current
// to the next release.
func TestWatchFollowsLinksThatAreSwapped(t *testing.T) {
	link := func(target, name string) {
		t.Helper()
		_ = os.Remove(name + "~")
		if err := errors.Join(os.Symlink(target, name+"~"), os.Rename(name+"~", name)); err != nil {
			t.Fatal(err)
		}
	}
	release := func(dir, version string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "app.yml"), appYML("app", "1.0.0", version))
	}
	t.Run("a file of a ConfigMap", func(t *testing.T) {
		mount := t.TempDir()
		release(filepath.Join(mount, "..1"), "1.0.1")
		release(filepath.Join(mount, "..2"), "1.0.2")
		link("..1", filepath.Join(mount, "..data"))
		link("..data/app.yml", filepath.Join(mount, "app.yml"))
		elsewhere := filepath.Join(t.TempDir(), "a", "b") // from where the mount is far
		if err := os.MkdirAll(elsewhere, 0o700); err != nil {
			t.Fatal(err)
		}
		link(filepath.Join(mount, "app.yml"), filepath.Join(elsewhere, "app.yml"))
		direct, far := watched(t, filepath.Join(mount, "app.yml")), watched(t, filepath.Join(elsewhere, "app.yml"))
		link("..2", filepath.Join(mount, "..data"))
		receive(t, direct, "a swapped ConfigMap")
		receive(t, far, "a swapped ConfigMap behind another link")
		release(filepath.Join(mount, "..3"), "1.0.3")
		link("..3", filepath.Join(mount, "..data"))
		if err := os.RemoveAll(filepath.Join(mount, "..1")); err != nil {
			t.Fatal(err)
		}
		receive(t, direct, "the next one")
		receive(t, far, "the next one behind another link")
	})
	t.Run("the link to a release", func(t *testing.T) {
		top := t.TempDir()
		release(filepath.Join(top, "releases", "1", "apps"), "1.0.1")
		release(filepath.Join(top, "releases", "2", "apps"), "1.0.2")
		link(filepath.Join("releases", "1"), filepath.Join(top, "current"))
		changes := watched(t, filepath.Join(top, "current", "apps"))
		link(filepath.Join("releases", "2"), filepath.Join(top, "current"))
		receive(t, changes, "the next release")
		write(t, filepath.Join(top, "releases", "2", "apps", "app.yml"), appYML("app", "1.0.0", "1.0.4"))
		receive(t, changes, "a change in that release")
	})
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
	noticed := false
	w.Run(ctx, func(_ context.Context, changed bool) time.Duration {
		if noticed = changed; changed {
			cancel()
		}
		return 0
	})
	if !noticed {
		t.Error("it is missed")
	}
}

// What is to be looked at again is, though nothing changes.
func TestWatchLooksAgain(t *testing.T) {
	w, err := NewWatch([]string{t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	w.Run(ctx, func(context.Context, bool) time.Duration {
		if looks++; looks == 3 {
			cancel()
		}
		return time.Millisecond
	})
	if looks != 3 {
		t.Error(looks)
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
