package manifests

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// seeds are the fixtures, for fuzzing.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/*/*.yml")
	if err != nil {
		tb.Fatal(err)
	}
	var texts [][]byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		texts = append(texts, data)
	}
	return texts
}

// trimMark leaves out the byte order mark, which positions do not count.
func trimMark(data []byte) []byte { return bytes.TrimPrefix(data, []byte("\ufeff")) }

func manifest(name string) string { return strings.Replace(envelope, "name: a", "name: "+name, 1) }

// tree writes files below a new directory and returns it.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func names(documents []*Document) []string {
	var names []string
	for _, d := range documents {
		names = append(names, d.App.Metadata.Name)
	}
	return names
}

func TestLoadDirectory(t *testing.T) {
	dir := tree(t, map[string]string{
		"b.yaml": manifest("b"), "a.yml": manifest("a") + "---\n" + manifest("a2"), ".takos/app.yml": manifest("t"),
		".hidden.yml": "faulty", "deeper/c.yml": "faulty", "README.md": "faulty", "dir.yml/x": "faulty",
	})
	documents, faults := Load([]string{dir}, nil, Options{})
	if got := names(documents); len(faults) > 0 || !slices.Equal(got, []string{"t", "a", "a2", "b"}) {
		t.Errorf("got %q, faults: %v", got, faults)
	}
	if documents[3].Path != filepath.Join(dir, "b.yaml") {
		t.Errorf("path: %s", documents[3].Path)
	}
}

func TestLoadStandardInput(t *testing.T) {
	documents, faults := Load([]string{"-"}, strings.NewReader(manifest("piped")), Options{})
	if len(faults) > 0 || len(documents) != 1 || documents[0].Path != "stdin" {
		t.Errorf("documents %q, faults: %v", names(documents), faults)
	}
	_, faults = Load([]string{"-"}, strings.NewReader("a: b: c"), Options{})
	if err := faults.Err(); err == nil || !strings.HasPrefix(err.Error(), "stdin:1:1: ") {
		t.Errorf("error: %v", err)
	}
	if _, faults = Load([]string{"-"}, nil, Options{}); faults.Err() == nil {
		t.Error("no standard input, no error")
	}
}

func TestLoadReadsAFileOnce(t *testing.T) {
	dir := tree(t, map[string]string{"a.yml": manifest("a")})
	file := filepath.Join(dir, "a.yml")
	documents, faults := Load([]string{file, dir, dir + "/./a.yml"}, nil, Options{})
	if len(faults) > 0 || len(documents) != 1 {
		t.Errorf("%d documents, faults: %v", len(documents), faults)
	}
}

func TestLoadReportsAllFilesTogether(t *testing.T) {
	dir := tree(t, map[string]string{
		"a.yml": manifest("same"), "b.yml": "kind: App\n", "c.yml": "\n" + manifest("same"), "empty/x.txt": "",
	})
	missing, empty := filepath.Join(dir, "missing.yml"), filepath.Join(dir, "empty")
	_, faults := Load([]string{dir, missing, empty}, nil, Options{})
	var got []string
	for _, f := range faults.Errors() {
		got = append(got, strings.ReplaceAll(f.String(), dir, "DIR"))
	}
	want := []string{
		"DIR/b.yml:1:1: apiVersion is required",
		"DIR/b.yml:1:1: metadata is required",
		"DIR/b.yml:1:1: spec is required",
		`DIR/c.yml:4:18: metadata.name "same" is already described at DIR/a.yml:3:18`,
		"DIR/empty: cannot be read: no manifest in this directory: looked for *.yml, *.yaml and .takos/app.yml",
		"DIR/missing.yml: cannot be read: no such file or directory",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLoadNothing(t *testing.T) {
	if _, faults := Load(nil, nil, Options{}); faults.Err() == nil {
		t.Error("no error")
	}
}

func TestLoadStopsReadingEndlessInput(t *testing.T) {
	_, faults := Load([]string{"/dev/zero"}, nil, Options{})
	if len(faults) != 1 || faults[0].Code != "too-large" {
		t.Errorf("faults: %v", faults)
	}
}
