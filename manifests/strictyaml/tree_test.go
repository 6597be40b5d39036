package strictyaml

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// readAll is what a caller does: every document, as JSON, and all faults.
func readAll(data string) (trees []string, faults Faults) {
	r := &Report{File: "a.yml"}
	for _, d := range Split(r, []byte(data)) {
		if root := d.Tree(r); root != nil {
			text, err := json.Marshal(root.JSON())
			if err != nil {
				text = []byte(err.Error())
			}
			trees = append(trees, string(text))
		}
	}
	return trees, r.Faults
}

func TestWhatIsRead(t *testing.T) {
	for _, tt := range []struct {
		rule, data string
		want       []string
	}{
		{"types", "{a: x, b: 1, c: 1.5, d: true, e: ~, f: , g: [], h: {}}",
			[]string{`{"a":"x","b":1,"c":1.5,"d":true,"e":null,"f":null,"g":[],"h":{}}`}},
		{"what YAML 1.1 calls a truth value is text", "[yes, on, no, off]", []string{`["yes","on","no","off"]`}},
		{"a date is text", "2026-01-31", []string{`"2026-01-31"`}},
		{"quotes make text", `["1", 'true']`, []string{`["1","true"]`}},
		{"several documents", "a: 1\n---\nb: 2\n...\n# nothing\n---\n---\nc: 3", []string{`{"a":1}`, `{"b":2}`, `{"c":3}`}},
		{"nothing", "# nothing\n---\n\n", nil},
		{"aliases", "a: &a [1]\nb: *a", []string{`{"a":[1],"b":[1]}`}},
		{"merge keys, what is written winning", "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}",
			[]string{`{"a":{"x":1,"y":2},"b":{"x":1,"y":3}}`}},
		{"merge keys, the first winning", "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}",
			[]string{`{"a":{"x":1},"b":{"x":2,"y":2},"c":{"x":1,"y":2}}`}},
		{"keys that are not text", "{1: a, true: b, ~: c}", []string{`{"1":"a","true":"b","~":"c"}`}},
		{"a directive", "%YAML 1.2\n---\na: 1", []string{`{"a":1}`}},
	} {
		if got, faults := readAll(tt.data); len(faults) > 0 || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, faults %v", tt.rule, got, faults)
		}
	}
}

func TestEveryFaultHasItsPlace(t *testing.T) {
	many := strings.Repeat
	for _, tt := range []struct{ rule, data, want string }{
		{"a key twice", "a: 1\nb: 2\na: 3", `3:1 duplicate-key a: a is written twice, first on line 1`},
		{"a key twice, deeper and after letters of several bytes", "あ: {x: 1, x: 2}",
			`1:11 duplicate-key ["あ"].x: ["あ"].x is written twice, first on line 1`},
		{"a key that is a list", "[a]: 1", `1:1 wrong-type : has a key that is not plain text`},
		{"a tag", "a: !Ref x", `1:4 tag a: a has the tag "!Ref", which is not supported`},
		{"bytes", "a:\n  - !!binary eA==", `2:5 tag a[0]: a[0] has the tag "!!binary", which is not supported`},
		{"a number that JSON has not", "a: .inf", `1:4 wrong-type a: a is not a value of its type (!!float)`},
		{"an alias inside its anchor", "a: &a [*a]", `1:8 alias a[0]: a[0] refers to "a" from inside it, without end`},
		{"an alias of a key", "&a k: 1\nb: *a", `2:4 alias b: b refers to the key anchored as "a": anchor a value instead`},
		{"a merge of text", "a: {<<: x}", `1:9 merge a: a merges (<<) something that is not a mapping`},
		{"an anchor that there is not", "a: *b", `1:4 syntax : refers to 'b', but nothing above it is anchored by that name`},
		{"a tab", "a:\n\tb: 1", `2:1 syntax : YAML cannot be indented with tabs: use spaces`},
		{"too deep", many("[", MaxDepth+1) + many("]", MaxDepth+1),
			fmt.Sprintf("1:%d too-deep : nested deeper than 64 levels", MaxDepth+1)},
		{"too many values", "[" + many("x,", MaxNodes) + "]", "1:1 too-many-nodes"},
		{"too many documents", many("---\na: 1\n", MaxDocuments+1), fmt.Sprintf("%d:1 too-many-documents", 2*MaxDocuments+1)},
		{"too large", many("#", MaxBytes+1), "0:0 too-large"},
		{"not UTF-8", "a: \xff", "1:4 not-utf8"},
		{"UTF-16", "\xff\xfea\x00", "1:1 not-utf8"},
		{"a control character", "a: \x1b", "1:4 control-character"},
	} {
		_, faults := readAll(tt.data)
		found := slices.ContainsFunc(faults, func(f Fault) bool {
			return strings.HasPrefix(fmt.Sprintf("%d:%d %s %s: %s", f.Line, f.Column, f.Code, f.Path, f.Message), tt.want)
		})
		if !found {
			t.Errorf("%s: want %s\ngot %+v", tt.rule, tt.want, faults)
		}
	}
}

// A syntax error in one document leaves the others readable.
func TestDocumentsAreReadByThemselves(t *testing.T) {
	trees, faults := readAll("a: {\n---\nb: 1\n---\nc: }\n---\nd: 2\nd: 3\n")
	if !slices.Equal(trees, []string{`{"b":1}`, `{"d":2}`}) || len(faults) != 3 || faults[2].Line != 8 ||
		faults[2].Code != "duplicate-key" {
		t.Errorf("%q, %v", trees, faults)
	}
}

func TestAByteOrderMarkIsAWarning(t *testing.T) {
	trees, faults := readAll("\ufeffa: 1")
	if len(trees) != 1 || faults.Err() != nil || len(faults.Warnings()) != 1 {
		t.Errorf("%q, %v", trees, faults)
	}
}

func TestWarningsNeverCrowdOutAnError(t *testing.T) {
	r := &Report{}
	for range 2 * MaxFaults {
		r.Warnf(Position{}, "a", "c", "", "is strange")
	}
	r.Errorf(Position{}, "b", "c", "", "is wrong")
	if len(r.Faults.Warnings()) != MaxFaults+1 || len(r.Faults.Errors()) != 1 || r.Errors() != 1 {
		t.Errorf("%d warnings, %d errors", len(r.Faults.Warnings()), len(r.Faults.Errors()))
	}
}

func TestPathsAreUnambiguous(t *testing.T) {
	for key, want := range map[string]string{
		"a": "x.a", "a-b_C9": "x.a-b_C9", "a.b": `x["a.b"]`, "": `x[""]`, "あ": `x["あ"]`, "[0]": `x["[0]"]`,
		strings.Repeat("k", MaxQuoted+1): `x["` + strings.Repeat("k", MaxQuoted) + `..."]`,
	} {
		if got := Join("x", key); got != want {
			t.Errorf("%q: %s, want %s", key, got, want)
		}
	}
	if got := Join("", "a"); got != "a" {
		t.Error(got)
	}
}

// Whatever the bytes: reading ends, faults are inside the file, and a document without a tree has a fault that says
// why.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		"a: 1\n---\n- b\n", "a: &a {<<: *a}\n--- \n%YAML 1.2\n...\n\xc2\x85\xe2\x80\xa8x: [*b", strings.Repeat("[", 100),
		"\ufeff? a\n: |\n  b\n", "a: !!set {b}",
		"&a k: *a", "a: 0x_1\r\rb: .nan",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &Report{File: "a.yml"}
		for _, d := range Split(r, data) {
			before := r.Errors()
			root := d.Tree(r)
			if root == nil && r.Errors() == before {
				t.Error("neither a tree nor a fault")
			}
			if root == nil {
				continue
			}
			if _, err := json.Marshal(root.JSON()); err != nil {
				t.Errorf("not JSON: %v", err)
			}
			if start := d.Start(); root.Line < start.Line {
				t.Errorf("a document that starts on line %d has a value on line %d", start.Line, root.Line)
			}
		}
		lines := lineStarts(data)
		for _, fault := range r.Faults {
			if fault.Code == "too-large" {
				continue
			}
			if fault.Line < 1 || fault.Line > len(lines) || fault.Column < 1 || !utf8.ValidString(fault.Message) {
				t.Errorf("outside the file of %d lines: %+v", len(lines), fault)
			}
		}
	})
}
