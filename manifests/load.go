package manifests

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// Load reads manifests from what the command line names: files, directories, or "-" for stdin. Of a directory it
// takes *.yml and *.yaml (hidden files left out, no deeper directories) and .takos/app.yml, sorted; a file named
// twice is read once. Files that cannot be read and directories without a manifest are faults as well. As with
// [Parse], look at [Faults.Err] before acting on the documents.
func Load(paths []string, stdin io.Reader, opts Options) ([]*Document, Faults) {
	var documents []*Document
	var faults Faults
	seen := map[string]bool{}
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			faults = append(faults, unreadable(path, err))
		}
		for _, file := range files {
			if clean := filepath.Clean(file); seen[clean] {
				continue
			} else {
				seen[clean] = true
			}
			name, data, err := readFile(file, stdin, file == path)
			if err != nil {
				faults = append(faults, unreadable(name, err))
				continue
			}
			d, f := parseFile(name, data, opts)
			documents, faults = append(documents, d...), append(faults, f...)
		}
	}
	if len(paths) == 0 {
		faults = append(faults, unreadable("", errors.New("no file or directory to read manifests from")))
	}
	faults = append(faults, checkNames(documents)...)
	faults.Sort()
	return documents, faults
}

var errNoManifest = errors.New("no manifest in this directory: looked for *.yml, *.yaml and .takos/app.yml")

// filesOf expands a directory to the manifests in it.
func filesOf(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		name, extension := entry.Name(), filepath.Ext(entry.Name())
		if (extension == ".yml" || extension == ".yaml") && !strings.HasPrefix(name, ".") && !entry.IsDir() {
			files = append(files, filepath.Join(path, name))
		}
	}
	hidden := filepath.Join(path, ".takos", "app.yml")
	if _, err := os.Stat(hidden); err == nil {
		files = append(files, hidden)
	}
	if len(files) == 0 {
		return nil, errNoManifest
	}
	slices.Sort(files)
	return files, nil
}

// readFile reads at most one byte more than is allowed, which Parse then refuses. Of what a directory holds it takes
// files alone: a named pipe there would make its reader wait. One that was named itself may be one.
func readFile(path string, stdin io.Reader, named bool) (name string, data []byte, err error) {
	if path == "-" {
		name = "stdin"
		if stdin == nil {
			return name, nil, errors.New("there is no standard input")
		}
		data, err = io.ReadAll(io.LimitReader(stdin, strictyaml.MaxBytes+1))
		return name, data, err
	}
	if info, err := os.Stat(path); err == nil && !named && !info.Mode().IsRegular() {
		return path, nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return path, nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	data, err = io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	return path, data, err
}

func unreadable(path string, err error) Fault {
	if path == "" {
		return Fault{File: "manifests", Code: "unreadable", Message: err.Error(), Severity: SeverityError}
	}
	return strictyaml.Unreadable(path, err)
}
