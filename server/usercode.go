package server

import (
	"crypto/rand"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// A user code is typed by a user who looks at another screen (RFC 8628 section 6.1): eight letters in two groups,
// without vowels, so that no words come about, without digits, and without letters that look alike. Of 20^8 codes (34
// bits) at most a handful are good at a time, and an account has few guesses, see mostUserCodes.
const (
	userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength  = 8
)

// newUserCode is one as it is stored: letters alone.
func newUserCode() string {
	const fair = 256 - 256%len(userCodeLetters) // a byte beyond would favour some letters
	code := make([]byte, 0, userCodeLength)
	for len(code) < userCodeLength {
		var b [2 * userCodeLength]byte
		_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		for _, random := range b {
			if int(random) < fair && len(code) < userCodeLength {
				code = append(code, userCodeLetters[int(random)%len(userCodeLetters)])
			}
		}
	}
	return string(code)
}

// shownUserCode is one as people see it.
func shownUserCode(code string) string {
	return code[:userCodeLength/2] + "-" + code[userCodeLength/2:]
}

// parseUserCode reads what a user typed: in capitals or not, in full-width letters, with spaces and dashes anywhere. It
// says whether a code can look like that.
func parseUserCode(typed string) (string, bool) {
	if len(typed) > maxHint {
		return "", false
	}
	code := strings.Map(func(r rune) rune {
		// Dashes, and what keyboards give for one
		if unicode.IsSpace(r) || unicode.Is(unicode.Pd, r) || r == '−' || r == 'ｰ' {
			return -1
		}
		return unicode.ToUpper(r)
	}, width.Narrow.String(typed))
	if len(code) != userCodeLength || strings.Trim(code, userCodeLetters) != "" {
		return "", false
	}
	return code, true
}
