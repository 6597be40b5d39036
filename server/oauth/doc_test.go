package oauth

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Whoever looks for a rule finds it by the package doc: that lists each file here, and none that has gone.
func TestTheDocListsEachFile(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(file string) bool {
		return file == "doc.go" ||
			strings.HasSuffix(file, "_test.go")
	})
	listed := regexp.MustCompile(`[a-z_]+\.go\b`).FindAllString(string(doc), -1)
	slices.Sort(listed)
	if !slices.Equal(listed, files) {
		t.Errorf("doc.go lists\n%s, and the files are\n%s", strings.Join(listed, " "), strings.Join(files, " "))
	}
}
