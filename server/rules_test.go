package server_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage/storagetest"
)

// seen is what the servers of all tests have refused: the rules, by the error code; "" is none.
var seen = struct {
	sync.Mutex
	rules map[string]map[string]bool
}{rules: make(map[string]map[string]bool)}

// seeing is a hook for refusals that remembers them, for all tests, before it tells next, which may be nil.
func seeing(next func(oauth.Refusal)) func(oauth.Refusal) {
	return func(r oauth.Refusal) {
		seen.Lock()
		if seen.rules[r.Error.Code] == nil {
			seen.rules[r.Error.Code] = make(map[string]bool)
		}
		seen.rules[r.Error.Code][r.Error.Rule] = true
		seen.Unlock()
		if next != nil {
			next(r)
		}
	}
}

// runAll runs the tests. If these were all of the package, and have passed, they were refused by every rule of requests
// with every code that the table of errors has, and by nothing that it does not have.
func runAll(m *testing.M) int {
	code := storagetest.Main(m)
	if code != 0 || !flag.Parsed() { // or this process only serves those that test
		return code
	}
	for _, name := range []string{"run", "skip", "short", "list", "fuzz", "bench"} {
		if f := flag.Lookup("test." + name); f.Value.String() != f.DefValue {
			return code
		}
	}
	table, err := errorTable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	seen.Lock() // whatever is still under way
	defer seen.Unlock()
	requests := make(map[string]bool)
	for _, rule := range oauth.RequestRules() {
		requests[rule.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		for _, rule := range slices.Sorted(maps.Keys(table[name])) {
			if !seen.rules[name][rule] {
				fmt.Fprintf(os.Stderr, "no test was refused with %q by the rule %s: is a test missing, or is the rule dead?\n",
					name, rule)
				code = 1
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(seen.rules)) {
		for _, rule := range slices.Sorted(maps.Keys(seen.rules[name])) {
			if requests[rule] && !table[name][rule] {
				fmt.Fprintf(os.Stderr, "%s: a test was refused with %q by the rule %s, which is not in the table\n",
					tableOfErrors, name, rule)
				code = 1
			}
		}
	}
	return code
}

// tableOfErrors is where users find what each error code means: see [errorTable].
const tableOfErrors = "../conformance/README.md"

// errorTable are the rules in the rows of the table, by the error code.
func errorTable() (map[string]map[string]bool, error) {
	text, err := os.ReadFile(tableOfErrors)
	if err != nil {
		return nil, err
	}
	_, after, _ := strings.Cut(string(text), "\n## Errors\n")
	section, _, _ := strings.Cut(after, "\n## ")
	table := make(map[string]map[string]bool)
	quoted := regexp.MustCompile("`([a-z-]+)`")
	for row := range strings.Lines(section) {
		cells := strings.Split(row, " | ")
		if len(cells) != 4 || cells[0] == "| error" {
			continue
		}
		code := strings.Trim(strings.TrimPrefix(cells[0], "| "), "`")
		if code == "none" {
			code = ""
		}
		if table[code] != nil {
			return nil, fmt.Errorf("%s: %q has two rows", tableOfErrors, code)
		}
		table[code] = make(map[string]bool)
		for _, name := range quoted.FindAllStringSubmatch(cells[2], -1) {
			table[code][name[1]] = true
		}
	}
	return table, nil
}

// The table of errors has a row for each code, with rules that there are, and each rule is in it. That these are the
// rules with which the code comes is what all tests together show.
func TestTheTableOfErrorsHasEveryCodeAndRule(t *testing.T) {
	table, err := errorTable()
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, rules := range table {
		maps.Copy(listed, rules)
	}
	for _, rule := range oauth.RequestRules() {
		if !listed[rule.Name] {
			t.Errorf("no row has the rule %s", rule.Name)
		}
		delete(listed, rule.Name)
	}
	for rule := range listed {
		t.Errorf("there is no rule %s", rule)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "oauth/error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	delete(table, "")
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.ValueSpec)
		if !is || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if table[code] == nil {
			t.Errorf("no row has the code %s", code)
		}
		delete(table, code)
		return true
	})
	for code := range table {
		t.Errorf("there is no code %s", code)
	}
}
