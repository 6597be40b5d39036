package plugins

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// socketDirs makes the private directories for sockets, one for each start of a
// plugin, and removes them. While it lives it holds a lock in its root, by which
// the next host tells what a killed one left from what is in use.
type socketDirs struct {
	root string
	lock *os.File
	n    atomic.Int64
}

const (
	// A socket's path has room for about 100 bytes; a start's number and
	// go-plugin's two names come after ours.
	maxSocketRoot = 58
	socketsPrefix = "wp-"
	lockName      = "lock"
)

// newSocketDirs makes a directory of mode 0700 below dir, or below the system's
// directory for temporary files when dir is empty or its path too long. What
// killed hosts left there is removed.
func newSocketDirs(dir string) (*socketDirs, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the plugin directory: %w", err)
		}
	}
	if dir == "" || len(dir)+len("/"+socketsPrefix)+10 > maxSocketRoot {
		dir = os.TempDir()
	}
	removeLeftovers(dir)
	// It gets the name that leftovers have once it is locked.
	fresh, err := os.MkdirTemp(dir, "new-"+socketsPrefix)
	if err != nil {
		return nil, fmt.Errorf("make the plugin socket directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(fresh, lockName))
	if err != nil {
		_ = os.Remove(fresh) // it is empty
		return nil, fmt.Errorf("lock the plugin socket directory: %w", err)
	}
	root := filepath.Join(dir, strings.TrimPrefix(filepath.Base(fresh), "new-"))
	if err := os.Rename(fresh, root); err != nil {
		_, _ = lock.Close(), os.RemoveAll(fresh) // the rename's error is the one to tell
		return nil, fmt.Errorf("name the plugin socket directory: %w", err)
	}
	return &socketDirs{root: root, lock: lock}, nil
}

// removeLeftovers removes what nobody holds a lock on. What cannot be removed,
// because it is another user's or at work, stays.
func removeLeftovers(dir string) {
	roots, _ := filepath.Glob(filepath.Join(dir, socketsPrefix+"*")) // the pattern is right
	for _, root := range roots {
		path := filepath.Join(root, lockName)
		if _, err := os.Lstat(path); err != nil {
			continue // not a host's
		}
		if lock, err := lockFile(path); err == nil {
			_, _ = os.RemoveAll(root), lock.Close()
		}
	}
}

// make gives a directory for one start.
func (d *socketDirs) make() (string, error) {
	dir := filepath.Join(d.root, strconv.FormatInt(d.n.Add(1), 10))
	return dir, os.Mkdir(dir, 0o700)
}

func (d *socketDirs) remove() error {
	err := os.RemoveAll(d.root)
	_ = d.lock.Close() // opened only to be locked
	return err
}
