//go:build packages

package deploy

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packages is the directory that make packages has filled.
func packages(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("WARIFU_PACKAGES")
	if dir == "" {
		t.Fatal("these tests are of what make packages makes: run that")
	}
	return dir
}

func program(t *testing.T) string { return filepath.Join(packages(t), "warifu") }

// run runs a command to its end, and gives what it prints on stdout.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr strings.Builder
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), env...), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}

func sum(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(content))
}

// TestProgramIsReproducible: somebody else, with a clone elsewhere and nothing built before, gets the same bytes from
// the same commit.
func TestProgramIsReproducible(t *testing.T) {
	root := strings.TrimSpace(run(t, ".", nil, "git", "rev-parse", "--show-toplevel"))
	built := map[string]string{}
	for _, place := range []struct{ name, dir, cache string }{
		{"here", filepath.Join(t.TempDir(), "a"), ""},
		{"elsewhere", filepath.Join(t.TempDir(), "somewhere else", "that is deeper"), t.TempDir()},
	} {
		run(t, ".", nil, "git", "clone", "--quiet", "--no-checkout", root, place.dir)
		run(t, place.dir, nil, "git", "checkout", "--quiet", strings.TrimSpace(run(t, root, nil, "git", "rev-parse", "HEAD")))
		env := []string{"MAKEFLAGS=", "MFLAGS="}
		if place.cache != "" {
			env = append(env, "GOCACHE="+place.cache)
		}
		run(t, place.dir, env, "make", "build")
		built[place.name] = sum(t, filepath.Join(place.dir, "bin", "warifu"))
	}
	if built["here"] != built["elsewhere"] {
		t.Errorf("the same commit gives different programs: %v", built)
	}
	t.Logf("sha256 %s", built["here"])
	// What is in a work tree with changes says so in its version, and is no commit's.
	changes := run(t, root, nil, "git", "status", "--porcelain", "--untracked-files=no")
	if changes == "" && sum(t, program(t)) != built["here"] {
		t.Errorf("the package has a program that is not that of this commit: sha256 %s", sum(t, program(t)))
	}
}

// TestBillOfMaterialsIsComplete: it names each module that is linked, in its version, and no other.
func TestBillOfMaterialsIsComplete(t *testing.T) {
	content, err := os.ReadFile(program(t) + ".cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		BOMFormat  string
		Metadata   struct{ Component struct{ Version string } }
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(content, &bill); err != nil {
		t.Fatal(err)
	}
	if said := run(t, ".", nil, program(t), "version"); bill.BOMFormat != "CycloneDX" ||
		!strings.HasPrefix(said, "warifu "+bill.Metadata.Component.Version+"\n") {
		t.Errorf("it is %s of version %s, and the program says %s", bill.BOMFormat, bill.Metadata.Component.Version, said)
	}
	info, err := buildinfo.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"std": strings.TrimPrefix(info.GoVersion, "go")}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		want[module.Path] = module.Version
	}
	for _, c := range bill.Components {
		if strings.TrimPrefix(c.Version, "go") != want[c.Name] || !strings.HasPrefix(c.PURL, "pkg:golang/") {
			t.Errorf("it has %s %s (%s), linked is %q", c.Name, c.Version, c.PURL, want[c.Name])
		}
		delete(want, c.Name)
	}
	for name, version := range want {
		t.Errorf("it does not have %s %s", name, version)
	}
	t.Logf("%d modules", len(bill.Components))
}

// TestPackageHasTheLicences of each module that is linked, and what its documentation names.
func TestPackageHasTheLicences(t *testing.T) {
	debs, err := filepath.Glob(filepath.Join(packages(t), "warifu_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("packages: %v (%v)", debs, err)
	}
	tree := t.TempDir()
	run(t, ".", nil, "dpkg-deb", "--extract", debs[0], tree)
	text, err := os.ReadFile(filepath.Join(tree, "usr/share/doc/warifu/third-party-licenses.txt"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(filepath.Join(tree, "usr/bin/warifu"))
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		if !strings.Contains(string(text), "\n"+module.Path+" "+module.Version+"\n    [") {
			t.Errorf("it has no licence of %s %s", module.Path, module.Version)
		}
	}
	for _, name := range []string{"warifu/app.schema.json", "doc/warifu/INSTALL.md", "doc/warifu/examples/app.yml",
		"doc/warifu/examples/prometheus/warifu.rules.yml", "doc/warifu/examples/grafana/warifu.json"} {
		if _, err := os.Stat(filepath.Join(tree, "usr/share", name)); err != nil {
			t.Error(err)
		}
	}
}
