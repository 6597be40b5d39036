package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree is a module with these files.
func tree(t *testing.T, path string, files map[string]string) module {
	t.Helper()
	m := module{path: path, version: "v1.0.0", dir: t.TempDir()}
	for name, text := range files {
		file := filepath.Join(m.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// TestNoticesHaveEachText: of the root and of code of others below it, each once.
func TestNoticesHaveEachText(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	err := write(&out, []module{
		tree(t, "example.com/a", map[string]string{"LICENSE": "terms of A\n", "NOTICE": "made by A", "license.go": "no 1",
			"internal/b/COPYING.txt": "terms of B", "testdata/LICENSE": "no 2", "LICENSES/MIT.txt": "terms of M"}),
		tree(t, "example.com/c", map[string]string{"LICENCE.md": "terms of A", "noticeboard": "no 3"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"example.com/a v1.0.0\n    [1] LICENSE\n    [2] LICENSES/MIT.txt\n    [3] NOTICE\n" +
		"    [4] internal/b/COPYING.txt\nexample.com/c v1.0.0\n    [1] LICENCE.md\n", "\n[4]\n\nterms of B\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("they do not have %q:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "no ") || strings.Count(out.String(), "terms of A") != 1 {
		t.Errorf("they have what is no licence, or one twice:\n%s", &out)
	}
}

// TestNoticesRefuseAModuleWithoutTerms: one below its root is not of the module.
func TestNoticesRefuseAModuleWithoutTerms(t *testing.T) {
	t.Parallel()
	err := write(&strings.Builder{}, []module{tree(t, "example.com/a", map[string]string{"x/LICENSE": "terms"})})
	if err == nil || !strings.Contains(err.Error(), "example.com/a v1.0.0 has no file with its licence") {
		t.Errorf("it says %v", err)
	}
}

// TestNoticesOfAProgram: of this one, which is linked with Go's library, from where Go has it.
func TestNoticesOfAProgram(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(&out, []string{self}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\nstd go1.") || !strings.Contains(out.String(), "The Go Authors") {
		t.Errorf("it has no notice of Go:\n%s", &out)
	}
	if err := run(&out, []string{os.DevNull}); err == nil {
		t.Error("of a program that says nothing there are notices")
	}
}
