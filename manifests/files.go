package manifests

import (
	"errors"
	"io"
	"path/filepath"
)

// File is a manifest file that was read and not yet parsed. Commands send it to the server, which knows the catalogue
// of scopes.
type File struct {
	Name string
	Data []byte
}

// Read reads what a person names, as [Load] does, and parses nothing. The faults are files that cannot be read.
func Read(paths []string, stdin io.Reader) ([]File, Faults) {
	var read []File
	var faults Faults
	seen := map[string]bool{}
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			faults = append(faults, unreadable(path, err))
		}
		for _, file := range files {
			clean := filepath.Clean(file)
			if seen[clean] {
				continue
			}
			seen[clean] = true
			name, data, err := readFile(file, stdin, file == path)
			if err != nil {
				faults = append(faults, unreadable(name, err))
				continue
			}
			read = append(read, File{Name: name, Data: data})
		}
	}
	if len(paths) == 0 {
		faults = append(faults, unreadable("", errors.New("no file or directory to read manifests from")))
	}
	return read, faults
}

// ParseFiles is [Parse] for several files. It also reports an app that is in two of them.
func ParseFiles(files []File, opts Options) ([]*Document, Faults) {
	var documents []*Document
	var faults Faults
	for _, file := range files {
		d, f := parseFile(file.Name, file.Data, opts)
		documents, faults = append(documents, d...), append(faults, f...)
	}
	faults = append(faults, checkNames(documents)...)
	faults.Sort()
	return documents, faults
}
