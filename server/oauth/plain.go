package oauth

import (
	"strings"
	"unicode"
)

// Plain makes a text that comes from others fit to be shown in one line, on a page or in a letter: control characters
// and the invisible ones that reorder, join or hide text are taken out, white space is folded, and what is longer than
// most characters is cut.
func Plain(text string, most int) string {
	var b strings.Builder
	n, space := 0, false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			space = n > 0
			continue
		case r == unicode.ReplacementChar, unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs):
			continue
		}
		if n >= most {
			b.WriteRune('…')
			return b.String()
		}
		if space {
			b.WriteByte(' ')
			n, space = n+1, false
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
