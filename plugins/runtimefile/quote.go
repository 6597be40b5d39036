package runtimefile

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The dialect. Three readers must see the same value:
//
//   - systemd's EnvironmentFile= (src/basic/env-file.c): '...' is literal; "..."
//     takes a backslash before " \ ` $ away; outside quotes every backslash goes
//     and a trailing one joins the next line; nothing is expanded.
//   - compose's env_file (compose-go, dotenv): '...' is literal but for \';
//     "..." knows \n and friends and expands $NAME; outside quotes $NAME is
//     expanded and " #" begins a comment.
//   - wrangler's .dev.vars (npm dotenv): '...' and `...` are literal; "..." turns
//     \n and \r into line ends; a backslash before a closing quote makes it read
//     on; outside quotes any # begins a comment.
//
// So a value is written in the first of these forms that all three read alike:
//
//	plain       ASCII letters, digits and _ . / : @ % + , = -
//	'single'    no ' in it, no backslash at its end
//	"double"    no " \ $ ` in it
//	bare        ' and " both in it, but an ASCII value that starts with neither a
//	            quote nor a space, ends with no space, and holds no # \ $ `
//
// What is left, and every value with a line end or another control character
// but tab, is refused rather than written so that one of them reads it wrong.

var errUnwritable = errors.New("the value has a form that systemd, compose and wrangler do not read alike")

// quote writes a value in the dialect. The error never holds the value.
func quote(value string) (string, error) {
	switch {
	case !readable(value):
		return "", errUnwritable
	case value != "" && strings.IndexFunc(value, notPlain) < 0:
		return value, nil
	case !strings.Contains(value, "'") && !strings.HasSuffix(value, `\`):
		return "'" + value + "'", nil
	case !strings.ContainsAny(value, "\"\\$`"):
		return `"` + value + `"`, nil
	case bare(value):
		return value, nil
	default:
		return "", errUnwritable
	}
}

func readable(value string) bool {
	return utf8.ValidString(value) && !strings.ContainsFunc(value, func(r rune) bool {
		// The last three end a line for a JavaScript regular expression or are
		// dropped from the start of a file.
		return unicode.IsControl(r) && r != '\t' || r == '\u2028' || r == '\u2029' || r == '\ufeff'
	})
}

func notPlain(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	default:
		return !strings.ContainsRune("_./:@%+,=-", r)
	}
}

func bare(value string) bool {
	if strings.ContainsAny(value, "#\\$`") || strings.TrimSpace(value) != value || strings.ContainsAny(value[:1], `'"`) {
		return false
	}
	return !strings.ContainsFunc(value, func(r rune) bool { return r >= utf8.RuneSelf })
}
