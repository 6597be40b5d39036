package oauth

import "strings"

// Cut shortens to at most n bytes, at a character.
func Cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && text[n]&0xc0 == 0x80 {
		n--
	}
	return text[:n]
}

// Printable is what an error_description may hold of foreign text (RFC 6749 section 4.1.2.1), shortened, and without
// credentials.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, Cut(Redact(text), 64))
}
