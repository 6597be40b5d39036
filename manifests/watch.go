package manifests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change is reported once the files have been quiet for a while, because editors and checkouts write in several
// steps, but after the longer time in any case.
const (
	quiet     = 100 * time.Millisecond
	impatient = time.Second
)

// Watch notices changes of manifests: of the files and directories that [Load] would read from the same paths. It
// watches directories, because editors replace files instead of writing them, and compares contents, so that saving a
// file unchanged is not reported. The caller loads what has changed, and reports a faulty file.
type Watch struct {
	paths  []string
	notify *fsnotify.Watcher
	seen   [sha256.Size]byte
}

// NewWatch begins to watch. Load the manifests after it, so that no later change is missed.
func NewWatch(paths []string) (*Watch, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch manifests: %w", err)
	}
	w := &Watch{notify: notify}
	for _, path := range paths {
		if path != "-" { // standard input is read once
			w.paths = append(w.paths, path)
		}
	}
	watched := 0
	var failed error
	for _, dir := range w.directories() {
		if err := notify.Add(dir); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", dir, err))
			continue
		}
		watched++
	}
	if watched == 0 && failed != nil {
		_ = notify.Close()
		return nil, fmt.Errorf("watch manifests: %w", failed)
	}
	w.seen = w.fingerprint()
	return w, nil
}

// Run calls changed after every change, one call at a time, until ctx ends. Its errors are those of watching files.
func (w *Watch) Run(ctx context.Context, changed func(ctx context.Context)) error {
	defer func() { _ = w.notify.Close() }()
	timer := time.NewTimer(0) // what happened between NewWatch and Run
	defer timer.Stop()
	var since time.Time // of the first event that was not reported yet
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.notify.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch manifests: %w", err)
			}
			timer.Reset(quiet) // events were lost: look
		case <-w.notify.Events:
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			timer.Reset(max(0, min(quiet, since.Add(impatient).Sub(now))))
		case <-timer.C:
			since = time.Time{}
			for _, dir := range w.directories() {
				_ = w.notify.Add(dir) // for one that was replaced or created; the others are watched already
			}
			if is := w.fingerprint(); is != w.seen {
				w.seen = is
				changed(ctx)
			}
		}
	}
}

// directories are those of the manifests, and those above, where a directory that is replaced reappears.
func (w *Watch) directories() []string {
	var dirs []string
	for _, path := range w.paths {
		dir := filepath.Dir(path)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			dirs = append(dirs, path, filepath.Dir(filepath.Clean(path)))
			dir = filepath.Join(path, ".takos")
			if _, err := os.Stat(dir); err != nil {
				continue
			}
		}
		dirs = append(dirs, dir)
		if above := filepath.Dir(dir); above != "/" {
			dirs = append(dirs, above)
		}
	}
	return dirs
}

// fingerprint covers everything that Load would read. For a file that cannot be read it covers the reason.
func (w *Watch) fingerprint() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, path := range w.paths {
		files, err := filesOf(path)
		if err != nil {
			_, _ = fmt.Fprintf(h, "%s\x00%v\x00", path, err)
		}
		for _, file := range files {
			_, _ = fmt.Fprintf(h, "%s\x00", file)
			_, data, err := readFile(file, nil)
			_, _ = fmt.Fprintf(h, "%v\x00%d\x00", err, len(data))
			_, _ = h.Write(data)
		}
	}
	h.Sum(sum[:0])
	return sum
}
