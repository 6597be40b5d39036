package manifests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change is reported once the files have been quiet for a while, because editors and checkouts write in several
// steps, but after the longer time in any case.
const (
	quiet     = 100 * time.Millisecond
	impatient = time.Second
	// lookAnyway is how often the files are looked at though nothing was told of them: of what is mounted, of a file
	// that a link leads to, and of what other machines write, nobody is told.
	lookAnyway = 15 * time.Second
)

// Watch notices changes of manifests: of the files and directories that [Load] would read from the same paths. It
// watches directories, because editors replace files instead of writing them, and compares contents, so that saving a
// file unchanged is not reported. The caller loads what has changed, and reports a faulty file.
type Watch struct {
	paths  []string
	notify *fsnotify.Watcher
	seen   [sha256.Size]byte
	anyway time.Duration // see lookAnyway
}

// NewWatch begins to watch. Load the manifests after it, so that no later change is missed.
func NewWatch(paths []string) (*Watch, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch manifests: %w", err)
	}
	w := &Watch{notify: notify, anyway: lookAnyway}
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

// Run calls look at once, and after every change, one call at a time, until ctx ends. look returns after what time to
// call it again even if nothing has changed; 0 means never.
func (w *Watch) Run(ctx context.Context, look func(ctx context.Context, changed bool) (again time.Duration)) {
	defer func() { _ = w.notify.Close() }()
	timer := time.NewTimer(0) // what happened between NewWatch and Run
	defer timer.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	call := func(changed bool) {
		if again.Stop(); ctx.Err() != nil {
			return
		}
		if wait := look(ctx, changed); wait > 0 {
			again.Reset(wait)
		}
	}
	anyway := time.NewTicker(w.anyway)
	defer anyway.Stop()
	see := func() {
		for _, dir := range w.directories() {
			_ = w.notify.Add(dir) // for one that was replaced or created; the others are watched already
		}
		if is := w.fingerprint(); is != w.seen {
			w.seen = is
			call(true)
		}
	}
	var since time.Time // of the first event that was not reported yet
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			call(false)
		case <-anyway.C:
			if since.IsZero() { // else somebody is writing
				see()
			}
		case err := <-w.notify.Errors:
			if err != nil { // events were lost: look
				timer.Reset(quiet)
			}
		case <-w.notify.Events:
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			timer.Reset(max(0, min(quiet, since.Add(impatient).Sub(now))))
		case <-timer.C:
			since = time.Time{}
			see()
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
		files, err := filesOf(path)
		if err != nil {
			files = []string{path}
		}
		for _, file := range files {
			dirs = append(dirs, linked(file)...)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// linked are the directories in which a symbolic link is on the way to a file, or a link that it leads to, and the one
// in which the file is after all of them. There it is swapped: a release by its link current, or the files of a
// Kubernetes ConfigMap by ..data. Without links there are none.
func linked(file string) (dirs []string) {
	rest, err := filepath.Abs(file)
	if err != nil {
		return nil
	}
	const most = 40 // as many as Linux follows
	at := "/"
	for len(dirs) < most {
		name, after, more := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		if name == "" {
			break
		}
		rest = after
		next := filepath.Join(at, name)
		target, err := os.Readlink(next)
		switch {
		case err != nil && !more:
			if len(dirs) > 0 {
				dirs = append(dirs, at)
			}
			return dirs
		case err != nil: // no link
			at = next
		default:
			dirs = append(dirs, at)
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = filepath.Join(target, rest)
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
			_, data, err := readFile(file, nil, file == path)
			_, _ = fmt.Fprintf(h, "%v\x00%d\x00", err, len(data))
			_, _ = h.Write(data)
		}
	}
	h.Sum(sum[:0])
	return sum
}
