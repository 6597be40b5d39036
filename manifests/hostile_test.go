package manifests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// Whatever is repeated a hundred thousand times, Parse ends, says something, and says it inside the file. Nothing is
// timed: what is quadratic here runs into the test's own deadline.
func TestHostileInputEnds(t *testing.T) {
	const size = strictyaml.MaxBytes / 4
	repeat := func(text string) string { return strings.Repeat(text, size/len(text)) }
	countTo := func(size int, format string) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	count := func(format string) string { return countTo(size, format) }
	for name, text := range map[string]string{
		"open lists": repeat("["), "open mappings": repeat("{"), "open pairs": repeat("{a: "), "compact lists": repeat("- "),
		"complex keys": repeat("? "), "comments": repeat("#\n"), "commented items": repeat("- #\n"),
		"line breaks":   repeat("\n"),
		"an open quote": "\"" + repeat("\n"), "anchors": count("- &a%d x\n"), "aliases": "- &a x\n" + repeat("- *a\n"),
		"tags": repeat("!"), "colons": repeat(": "), "directives": repeat("%a\n"), "documents": repeat("---\n"),
		"ends":        repeat("...\n"),
		"scopes":      envelope + "  oauth:\n    scopes:\n" + count("    - s%d\n"),
		"grant types": envelope + "  oauth:\n    grantTypes:\n" + count("    - g%d\n"),
		"keys":        envelope + "  oauth:\n    jwks:\n      keys:\n" + count("      - {kty: RSA, e: AQAB, n: n%d}\n"),
		"sectors": envelope + "  oauth:\n    subjectType: pairwise\n    frontchannelLogoutUri: https://a.example/\n" +
			"    redirectUris:\n" + count("    - https://h%d.example/\n"),
		"one huge key":   envelope + "  oauth: {jwks: {keys: [{kty: RSA, e: AQAB, n: " + repeat("A") + "}]}}\n",
		"top-level keys": envelope + count("k%d: x\n"),
		"spec keys":      envelope + count("  k%d: x\n"),
		"routes": envelope + "  workers:\n" + countTo(size/3, "    w%d:\n") + "  routes:\n" +
			countTo(size/2, "  - target: r%d\n"),
		"one long key":   envelope + "  oauth:\n    " + repeat("k") + ": x\n",
		"one long value": envelope + "  oauth: {clientName: x, redirectUris: [\"https://a.example/" + repeat("a") + "\"]}\n",
		"merge keys": envelope + "  takos:\n    a: &a {" + countTo(size/4, "k%d: x,") + "}\n    b: [" +
			repeat("{<<: *a},")[:size/2/9*9] + "]\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, faults := Parse("app.yml", []byte(text), Options{Scopes: catalogue})
			if faults.Err() == nil && name != "spec keys" {
				t.Error("no error")
			}
			if len(faults) > 2*strictyaml.MaxFaults+2 {
				t.Errorf("%d faults", len(faults))
			}
			for _, f := range faults {
				if len(f.String()) > 4*1024 {
					t.Errorf("a fault of %d bytes", len(f.String()))
				}
			}
			checkFaults(t, []byte(text), faults)
		})
	}
}
