package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A file that is not there yet belongs to who writes it; only those of nobody are removed, and nothing else.
func TestDraftsOfNobodyAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	names := func() (all []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	mine := []string{draftPrefix, draftPrefix + "notes", ".backup-20261129", "backup.db"}
	for _, name := range mine {
		if err := os.WriteFile(in(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{draftPrefix + "4", draftPrefix + "5"} {
		if err := os.Symlink(in("backup.db"), in(link)); err != nil {
			t.Fatal(err)
		}
		mine = append(mine, link)
	}
	c := &cli{stderr: io.Discard}
	first, err := c.draft(in("first"))
	if err != nil {
		t.Fatal(err)
	}
	killed, err := c.draft(in("killed"))
	if err != nil {
		t.Fatal(err)
	}
	_ = killed.Close() // as the kernel does it
	said := &strings.Builder{}
	second, err := (&cli{stderr: said}).draft(in("second"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(killed.File.Name()); err == nil || !strings.Contains(said.String(), killed.File.Name()+
		" removed") {
		t.Errorf("it is there after %q", said)
	}
	for _, d := range []*draft{first, second} {
		if _, err := d.WriteString(d.name); err != nil {
			t.Error(err)
		}
		if err := d.publish(); err != nil {
			t.Error(err)
		}
		d.end()
		if text, err := os.ReadFile(d.name); err != nil || string(text) != d.name {
			t.Errorf("%s holds %q, %v", d.name, text, err)
		}
	}
	want := append(mine, "first", "second")
	slices.Sort(want)
	if there := names(); !slices.Equal(there, want) {
		t.Errorf("there are %q, want %q", there, want)
	}
	taken, err := c.draft(in("first"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.end()
	if err := taken.publish(); err == nil {
		t.Error("it has replaced a file")
	}
}
