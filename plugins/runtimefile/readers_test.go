package runtimefile

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// The three readers of the dialect, as their sources have it, for values that do
// not refer to other variables. They stand here so that the table of values is
// held by what the readers do, not by what quote believes.

// readSystemd is parse_env_file_internal of systemd's src/basic/env-file.c.
func readSystemd(content string) map[string]string {
	out := map[string]string{}
	var key, value strings.Builder
	state, trailing := "pre-key", -1
	push := func(chomp bool) {
		v := value.String()
		if chomp && trailing >= 0 {
			v = v[:trailing]
		}
		out[strings.TrimRight(key.String(), " \t")] = v
		key.Reset()
		value.Reset()
		state = "pre-key"
	}
	for i := range len(content) {
		c := content[i]
		newline, space := c == '\n' || c == '\r', strings.IndexByte(" \t\n\r", c) >= 0
		switch state {
		case "pre-key":
			if c == '#' || c == ';' {
				state = "comment"
			} else if !space {
				state = "key"
				key.WriteByte(c)
			}
		case "key":
			if newline {
				key.Reset()
				state = "pre-key"
			} else if c == '=' {
				state, trailing = "pre-value", -1
			} else {
				key.WriteByte(c)
			}
		case "pre-value":
			switch {
			case newline:
				push(false)
			case c == '\'':
				state = "single"
			case c == '"':
				state = "double"
			case c == '\\':
				state = "escape"
			case !space:
				state = "value"
				value.WriteByte(c)
			}
		case "value":
			switch {
			case newline:
				push(true)
			case c == '\\':
				state, trailing = "escape", -1
			default:
				if !space {
					trailing = -1
				} else if trailing < 0 {
					trailing = value.Len()
				}
				value.WriteByte(c)
			}
		case "escape":
			state = "value"
			if !newline {
				value.WriteByte(c)
			}
		case "single":
			if c == '\'' {
				state = "pre-value"
			} else {
				value.WriteByte(c)
			}
		case "double":
			switch c {
			case '"':
				state = "pre-value"
			case '\\':
				state = "double-escape"
			default:
				value.WriteByte(c)
			}
		case "double-escape":
			state = "double"
			if strings.IndexByte("\"\\`$", c) >= 0 {
				value.WriteByte(c)
			} else if c != '\n' {
				value.WriteString(`\` + string(c))
			}
		case "comment":
			if c == '\\' {
				state = "comment-escape"
			} else if newline {
				state = "pre-key"
			}
		case "comment-escape":
			state = "comment"
			if newline {
				state = "pre-key"
			}
		}
	}
	if state != "pre-key" && state != "key" && !strings.HasPrefix(state, "comment") {
		push(state == "value")
	}
	return out
}

var composeExpands = regexp.MustCompile(`\$[A-Za-z_{$]`)

// readCompose is compose-go's dotenv parser. Whatever it would expand becomes
// "<expanded>".
func readCompose(t *testing.T, content string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for {
		content = strings.TrimLeftFunc(content, unicode.IsSpace)
		if content == "" {
			return out
		}
		if content[0] == '#' {
			_, content, _ = strings.Cut(content, "\n")
			continue
		}
		key, rest, found := strings.Cut(content, "=")
		if !found || strings.ContainsAny(key, "\n ") {
			t.Fatalf("compose cannot read %q", content)
		}
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" || rest[0] != '"' && rest[0] != '\'' {
			value, after, _ := strings.Cut(rest, "\n")
			value, _, _ = strings.Cut(value, " #")
			out[key], content = composeExpand(strings.TrimRightFunc(value, unicode.IsSpace)), after
			continue
		}
		value, after, closed := composeQuoted(rest)
		if !closed {
			t.Fatalf("compose finds an open quote in %q", rest)
		}
		if rest[0] == '"' {
			value = composeExpand(value)
			if strings.Contains(value, `\`) {
				value = "<escape>"
			}
		}
		out[key], content = value, after
	}
}

func composeExpand(value string) string {
	if composeExpands.MatchString(value) {
		return "<expanded>"
	}
	return value
}

func composeQuoted(text string) (value, rest string, closed bool) {
	var chars []byte
	escaped := false
	for i := 1; i < len(text); i++ {
		c := text[i]
		switch {
		case c == text[0] && escaped:
			chars, escaped = append(chars, c), false
		case c == text[0]:
			return string(chars), text[i+1:], true
		case c == '\\' && !escaped:
			escaped = true
		default:
			if escaped {
				chars, escaped = append(chars, '\\'), false
			}
			chars = append(chars, c)
		}
	}
	return "", "", false
}

// The expressions of npm's dotenv 16, which wrangler reads .dev.vars with.
var (
	dotenvLine = regexp.MustCompile(
		`(?m)^\s*(?:export\s+)?([\w.-]+)(?:\s*=\s*?|:\s+?)(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*` + "`(?:\\\\`|[^`])*`" +
			`|[^#\r\n]+)?\s*(?:#.*)?$`)
	dotenvTrim = func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' }
)

func readDotenv(content string) map[string]string {
	out := map[string]string{}
	content = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(content)
	for _, m := range dotenvLine.FindAllStringSubmatch(content, -1) {
		value := strings.TrimFunc(m[2], dotenvTrim)
		double := strings.HasPrefix(value, `"`)
		if n := len(value); n >= 2 && strings.IndexByte("'\"`", value[0]) >= 0 && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		if double {
			value = strings.NewReplacer(`\n`, "\n", `\r`, "\r").Replace(value)
		}
		out[m[1]] = value
	}
	return out
}
