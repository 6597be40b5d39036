package oauth

import (
	"strings"
	"testing"
)

func TestCheckSecret(t *testing.T) {
	const hex64 = "8f14e45fceea167a5a36dedd4bea2543c9f0f895fb98ab9159f51fd0297e236d"
	for name, c := range map[string]struct {
		secret        string
		made, brought string // what is wrong; empty: nothing
	}{
		"32 bytes in hex":       {hex64, "", ""},
		"32 bytes in base64":    {"n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=", "", ""},
		"32 bytes in base64url": {"n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg", "", ""},
		"16 bytes in hex":       {hex64[:32], "has 128 bits at most", ""},
		"of another server":     {"ZXhhbXBsZS1hcHAtc2VjcmV0", "has 144 bits at most", ""},
		"a word":                {"secret", "bits at most", "can be guessed"},
		"one character":         {strings.Repeat("a", 64), "has 0 bits at most", "can be guessed"},
		"two characters":        {strings.Repeat("ab", 64), "has 128 bits", ""},
		"none":                  {"", "is empty", "is empty"},
		"a line break":          {hex64 + "\n", "line breaks", "line breaks"},
		"not ASCII":             {hex64 + "ü", "not ASCII", "not ASCII"},
		"too long":              {strings.Repeat(hex64, 9), "longer than 512", "longer than 512"},
	} {
		for want, imported := range map[string]bool{c.made + "|": false, c.brought: true} {
			want = strings.TrimSuffix(want, "|")
			err := CheckSecret(c.secret, imported)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s, imported %t: %v, want %q", name, imported, err, want)
			}
			if err != nil && len(c.secret) > 6 && strings.Contains(err.Error(), c.secret) {
				t.Errorf("%s: the error repeats it", name)
			}
		}
	}
}
