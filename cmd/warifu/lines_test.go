package main

import (
	"bytes"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	// longestLine is how many characters a line of Go has at most.
	longestLine = 120
	// wholeText is how long a string is that somebody may look for in one piece. A line that holds one may be longer, and
	// so may one of a raw string, as struct tags are: those cannot be cut.
	wholeText = 72
)

func TestHouseHasLinesThatFit(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if name := entry.Name(); name == "node_modules" || name != ".." && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go"):
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		lasting := linesThatCannotBeCut(src)
		for i, line := range strings.Split(string(src), "\n") {
			if n := utf8.RuneCountInString(line); n > longestLine && !lasting[i+1] {
				t.Errorf("%s:%d has %d characters: cut it after a comma or an operator", path, i+1, n)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// linesThatCannotBeCut are the numbers of the lines that hold raw strings and long ones.
func linesThatCannotBeCut(src []byte) map[int]bool {
	file := token.NewFileSet().AddFile("", -1, len(src))
	var tokens scanner.Scanner
	tokens.Init(file, src, nil, 0)
	lines := make(map[int]bool)
	for pos, kind, text := tokens.Scan(); kind != token.EOF; pos, kind, text = tokens.Scan() {
		if kind != token.STRING || text[0] == '"' && utf8.RuneCountInString(text) < wholeText {
			continue
		}
		first := file.Line(pos)
		for i := range bytes.Count(src[file.Offset(pos):][:len(text)], []byte("\n")) + 1 {
			lines[first+i] = true
		}
	}
	return lines
}
