package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// draft is a file that is written, and has its name when all of it is there. It is locked meanwhile, by which others
// know that somebody writes it: the kernel ends the lock with the process, however that ends. An unnamed file
// (O_TMPFILE) would need no tidying, but there are none where backups often go, as on NFS.
type draft struct {
	*os.File // mode 0600
	name     string
}

// draftPrefix is that of the names of drafts; digits follow.
const draftPrefix = ".warifu-unfinished-"

// draft begins a file, in the directory where it will be, and removes there what was left of those that were killed.
func (c *cli) draft(name string) (*draft, error) {
	dir := filepath.Dir(name)
	for _, left := range removeDrafts(dir) {
		c.say("%s removed: it was left behind by a backup or an export that did not finish", left)
	}
	for {
		file, err := os.CreateTemp(dir, draftPrefix+"*")
		if err != nil {
			return nil, err
		}
		err = lockDraft(file)
		_, gone := os.Lstat(file.Name())
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(gone, os.ErrNotExist) {
			return &draft{file, name}, nil // where a file system knows no locks, nobody removes it either
		}
		_ = file.Close() // before it was locked, another process has taken it for one that was left
	}
}

// publish gives the file its name, which replaces nothing.
func (d *draft) publish() error {
	if err := d.Sync(); err != nil {
		return err
	}
	return os.Link(d.File.Name(), d.name)
}

// end ends the work on the file, published or not.
func (d *draft) end() {
	_ = os.Remove(d.File.Name())
	_ = d.Close() // it was synced, or is gone
}

// removeDrafts removes the drafts in a directory that nobody writes any more. What cannot be removed stays.
func removeDrafts(dir string) (removed []string) {
	entries, _ := os.ReadDir(dir) // whoever writes a file there learns why not
	for _, e := range entries {
		digits, is := strings.CutPrefix(e.Name(), draftPrefix)
		if !is || digits == "" || strings.Trim(digits, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		file, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0) // NFS locks only what can be written
		if err != nil {
			continue
		}
		if lockDraft(file) == nil && os.Remove(path) == nil {
			removed = append(removed, path)
		}
		_ = file.Close() // nothing was written
	}
	return removed
}

// lockDraft fails if another process has locked the file.
func lockDraft(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
