package manifests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

const envelope = "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: a}\nspec:\n  version: 1.0.0\n"

// nested is n levels of lists inside spec.takos, which is level 3 itself.
func nested(n int) string {
	return envelope + "  takos: " + strings.Repeat("[", n) + strings.Repeat("]", n) + "\n"
}

func TestBytesThatAreRefused(t *testing.T) {
	many := func(n int, text string) string { return strings.Repeat(text, n) }
	tests := []struct {
		rule string
		data string
		want string // position and code of the only error; empty when there must be none
	}{
		{"the largest file", envelope + "#" + many(strictyaml.MaxBytes-len(envelope)-1, "x"), ""},
		{"a byte more", envelope + "#" + many(strictyaml.MaxBytes-len(envelope), "x"), "0:0 too-large"},
		{"ten megabytes", many(10<<20, "a"), "0:0 too-large"},
		{"empty", "", "1:1 empty"},
		{"white space", " \n\t\n", "1:1 empty"},
		{"UTF-16, little endian", "\xff\xfea\x00p\x00", "1:1 not-utf8"},
		{"UTF-16, big endian", "\xfe\xff\x00a\x00p", "1:1 not-utf8"},
		{"UTF-32, big endian", "\x00\x00\xfe\xff\x00\x00\x00a", "1:1 not-utf8"},
		{"UTF-16 without a mark", "a\x00p\x00", "1:2 control-character"},
		{"not UTF-8", envelope + "  icon: caf\xe9\n", "6:12 not-utf8"},
		{"a surrogate", envelope + "  icon: \xed\xa0\x80\n", "6:9 not-utf8"},
		{"NUL", envelope + "  icon: あ\x00\n", "6:10 control-character"},
		{"escape", "# \x1b[31m\n" + envelope, "1:3 control-character"},
		{"delete", envelope + "  icon: \x7f\n", "6:9 control-character"},
		{"a byte order mark in the middle", envelope + "  icon: \ufeff\n", "6:9 control-character"},
		{"a byte order mark", "\ufeff" + envelope, ""},
		{"carriage returns", strings.ReplaceAll(envelope, "\n", "\r\n"), ""},
		{"old carriage returns", strings.ReplaceAll(envelope, "\n", "\r"), ""},

		{"the deepest list", nested(strictyaml.MaxDepth - 2), ""},
		{"a level more", nested(strictyaml.MaxDepth - 1), fmt.Sprintf("6:%d too-deep", 10+strictyaml.MaxDepth-2)},
		{"deeper than the library reads", nested(20_000), "6:3 too-deep"},
		{"deep by indentation", envelope + "  takos:\n" + func() string {
			var b strings.Builder
			for i := range 100 {
				fmt.Fprintf(&b, "%sa:\n", many(i+3, " "))
			}
			return b.String()
		}(), fmt.Sprintf("%d:%d too-deep", 6+strictyaml.MaxDepth-1, strictyaml.MaxDepth+2)},
		{"deep by aliases", envelope + "  takos:\n    a: &a " + many(40, "[") + many(40, "]") +
			"\n    b: " + many(40, "[") + "*a" + many(40, "]") + "\n", "8:48 too-deep"},
		{"an alias bomb by merge keys", envelope + "  takos:\n    a: &a {k: v}\n    b: &b [" + many(1000, "*a,") + "]\n" +
			"    c: [" + many(100, "{<<: *b},") + "]\n", "9:239 too-many-nodes"},
		{"many values", envelope + "  tags: [" + many(strictyaml.MaxNodes, "x,") + "]\n", "6:9 too-many-nodes"},

		{"the most documents", many(strictyaml.MaxDocuments-1, "---\n# none\n") + "---\n" + envelope, ""},
		{"the most documents with content", many(strictyaml.MaxDocuments, "---\nx\n"), "2:1 wrong-type"},
		{"a document more", many(strictyaml.MaxDocuments+1, "---\nx\n"), fmt.Sprintf("%d:1 too-many-documents",
			2*strictyaml.MaxDocuments+1)},
		{"a client name that turns the text around", envelope + "  oauth:\n    clientName: \"a\\u202eb\"\n" +
			"    redirectUris: [https://a.example/]\n    scopes: [a]\n", "7:17 client-name"},
		{"a client name with a line break", envelope + "  oauth:\n    clientName: \"a\\nb\"\n" +
			"    redirectUris: [https://a.example/]\n    scopes: [a]\n", "7:17 client-name"},
		{"a client name that fits no page", envelope + "  oauth:\n    clientName: " +
			many(oauth.MaxClientName+1, "あ") + "\n" +
			"    redirectUris: [https://a.example/]\n    scopes: [a]\n", "7:17 client-name"},
		{"a long client name", envelope + "  oauth:\n    clientName: " + many(oauth.MaxClientName, "あ") + "\n" +
			"    redirectUris: [https://a.example/]\n    scopes: [a]\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			documents, faults := Parse("app.yml", []byte(tt.data), Options{})
			checkFaults(t, []byte(tt.data), faults)
			errs := faults.Errors()
			if tt.want == "" {
				if len(errs) > 0 || len(documents) != 1 {
					t.Errorf("%d documents, errors: %v", len(documents), errs)
				}
				return
			}
			if len(errs) == 0 || len(documents) != 0 {
				t.Fatalf("%d documents, errors: %v", len(documents), errs)
			}
			if got := fmt.Sprintf("%d:%d %s", errs[0].Line, errs[0].Column, errs[0].Code); got != tt.want {
				t.Errorf("got %s (%v), want %s", got, errs[0], tt.want)
			}
		})
	}
}

// Warnings are counted by themselves: a hundred of them must not hide the one error.
func TestManyWarningsNeverHideAnError(t *testing.T) {
	var b strings.Builder
	b.WriteString(envelope)
	for i := range 3 * strictyaml.MaxFaults {
		fmt.Fprintf(&b, "  zz%d: x\n", i)
	}
	b.WriteString("  routes: [{target: nowhere}]\n")
	_, faults := Parse("app.yml", []byte(b.String()), Options{})
	if got := len(faults.Warnings()); got != strictyaml.MaxFaults+1 {
		t.Errorf("%d warnings", got)
	}
	if err := faults.Err(); err == nil || len(faults.Errors()) != 1 || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("errors: %v", err)
	}
}

func TestManyErrorsAreCut(t *testing.T) {
	_, faults := Parse("app.yml", []byte(envelope+"  oauth:\n    scopes: ["+strings.Repeat("[],", 5000)+"]\n"), Options{})
	last := faults[len(faults)-1]
	if len(faults) != strictyaml.MaxFaults+1 || last.Code != "too-many-faults" || last.Severity != SeverityError {
		t.Errorf("%d faults, the last: %v", len(faults), last)
	}
}

// FuzzParse: whatever the bytes, faults are inside the file, and what is accepted is a whole app.
func FuzzParse(f *testing.F) {
	f.Add([]byte(envelope))
	f.Add([]byte(nested(70)))
	f.Add([]byte("a: &a {<<: *a}\n--- \n%YAML 1.2\n...\n\xc2\x85\xe2\x80\xa8x: [*b"))
	for _, text := range seeds(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		documents, faults := Parse("app.yml", data, Options{Scopes: catalogue})
		checkFaults(t, trimMark(data), faults)
		if len(documents) == 0 && faults.Err() == nil {
			t.Error("no document and no error")
		}
		for _, d := range documents {
			if d.App.APIVersion != APIVersion || d.App.Kind != Kind || !dnsLabel.MatchString(d.App.Metadata.Name) {
				t.Errorf("accepted: %+v", d.App)
			}
			if _, err := d.App.JSON(); err != nil {
				t.Error(err)
			}
			o := d.App.Spec.OAuth
			if o == nil || o.Resource != "" && len(o.GrantTypes) == 0 && len(o.RedirectURIs) == 0 { // a resource server alone
				continue
			}
			signsIn := len(o.GrantTypes) == 0 || slices.Contains(o.GrantTypes, oauth.GrantAuthorizationCode)
			comesBack := len(o.RedirectURIs) > 0 || len(o.ForwardAuth.Hosts) > 0
			if o.ClientName == "" || signsIn && !comesBack || len(o.Scopes) == 0 {
				t.Errorf("accepted: %+v", o)
			}
		}
	})
}
