// Notices writes the licences of all that programs are linked with, which have to come along wherever they go:
//
//	go run ./manifests/deploy/notices PROGRAM... > third-party-licenses.txt
//
// What is linked is what a program itself says (go version -m), each module in its version; its texts are all files of
// the module that are named as licences are, also below its root, where code of others is. A module without any is an
// error: whoever adds it has to find out on what terms it is given. A program that Go has not made is named on stderr
// and left out: its notices are up to whoever packages it.
package main

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const ours = "github.com/warifu/warifu"

// module is one that is linked; its source, with the sum that go.sum has, is in dir.
type module struct{ path, version, sum, dir string }

func (m module) String() string { return strings.TrimSpace(m.path + " " + m.version) }

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, programs []string) error {
	linked := make(map[string]module) // by String
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			fmt.Fprintf(os.Stderr, "notices: %s has to bring its own: %v\n", program, err)
			continue
		}
		for _, m := range modules(info) {
			linked[m.String()] = m
		}
	}
	all := slices.SortedFunc(maps.Values(linked), func(a, b module) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.version, b.version))
	})
	if len(all) == 0 {
		return fmt.Errorf("no program of %q says what it is linked with", programs)
	}
	if err := locate(all); err != nil {
		return err
	}
	return write(w, all)
}

// modules are those that a program is linked with, and Go's own library, but for what is of this repository.
func modules(info *buildinfo.BuildInfo) []module {
	all := []module{{path: "std", version: strings.Fields(info.GoVersion)[0]}}
	for _, dep := range append(slices.Clone(info.Deps), &info.Main) {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		isOurs := dep.Path == ours || strings.HasPrefix(dep.Path, ours+"/")
		if !isOurs && !strings.HasPrefix(dep.Path, ".") { // beside this one, by a replacement
			all = append(all, module{path: dep.Path, version: dep.Version, sum: dep.Sum})
		}
	}
	return all
}

// locate finds the sources, by the cache of modules or from where Go fetches them, and compares their sums.
func locate(all []module) error {
	var wanted []string
	for _, m := range all {
		if m.path != "std" {
			wanted = append(wanted, m.path+"@"+m.version)
		}
	}
	dirs := make(map[string]module)
	if len(wanted) > 0 {
		cmd := exec.Command("go", append([]string{"mod", "download", "-json"}, wanted...)...)
		cmd.Stderr = os.Stderr
		// Its exit status says less than the answers do, which are read below.
		out, failed := cmd.Output()
		for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
			var one struct{ Path, Version, Error, Sum, Dir string }
			if err := decoder.Decode(&one); err != nil {
				return fmt.Errorf("read what go mod download says: %w", err)
			}
			if one.Error != "" {
				return fmt.Errorf("fetch %s %s: %s", one.Path, one.Version, one.Error)
			}
			dirs[one.Path+" "+one.Version] = module{sum: one.Sum, dir: one.Dir}
		}
		if failed != nil {
			return fmt.Errorf("go mod download: %w", failed)
		}
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	for i := range all {
		m := &all[i]
		if m.path == "std" {
			m.dir = strings.TrimSpace(string(root))
			continue
		}
		found := dirs[m.String()]
		if found.dir == "" || m.sum != "" && found.sum != m.sum {
			return fmt.Errorf("the source of %s is not what is linked: its sum is %q, want %q", m, found.sum, m.sum)
		}
		m.dir = found.dir
	}
	return nil
}

var named = regexp.MustCompile(`(?i)^(un)?(licen[sc]e|copying|copyright|notice|patents)s?([-._].*)?$`)

// texts are a module's files with terms and notices, by their path in it.
func texts(m module) (map[string]string, error) {
	found := make(map[string]string)
	read := func(name string) error {
		text, err := os.ReadFile(filepath.Join(m.dir, filepath.FromSlash(name)))
		if err == nil {
			found[name] = strings.TrimRight(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n \t")
		}
		return err
	}
	tree := os.DirFS(m.dir)
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || m.path == "std" && name != "."):
			return fs.SkipDir
		case !entry.Type().IsRegular() || path.Ext(name) == ".go":
			return nil
		case named.MatchString(entry.Name()), strings.EqualFold(path.Base(path.Dir(name)), "licenses"):
			return read(name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	for name := range found { // one at the root is of the whole module; one below it, of what is there
		if path.Dir(name) == "." {
			return found, nil
		}
	}
	return nil, fmt.Errorf("%s has no file with its licence: find out its terms before it is linked", m)
}

// write writes the modules and then their texts, each text once.
func write(w io.Writer, all []module) error {
	var out strings.Builder
	out.WriteString("warifu is given under the Apache License, version 2.0. It is linked with what follows, " +
		"under the terms\n" +
		"that are below by number. go mod download MODULE@VERSION fetches the source of each.\n\n")
	numbers := make(map[string]int)
	var order []string
	for _, m := range all {
		found, err := texts(m)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s\n", m)
		for _, name := range slices.Sorted(maps.Keys(found)) {
			text := found[name]
			if numbers[text] == 0 {
				order = append(order, text)
				numbers[text] = len(order)
			}
			fmt.Fprintf(&out, "    [%d] %s\n", numbers[text], name)
		}
	}
	for i, text := range order {
		fmt.Fprintf(&out, "\n%s\n[%d]\n\n%s\n", strings.Repeat("=", 80), i+1, text)
	}
	_, err := io.WriteString(w, out.String())
	return err
}
