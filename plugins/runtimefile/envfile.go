package runtimefile

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An env file is a block of ours at the top and other people's lines below it,
// byte for byte as they were. At the top, because an unclosed quote or a
// trailing backslash of theirs cannot swallow it there. A byte order mark before
// their lines is left out: below our block readers take it for part of a name,
// and at the top systemd does.
//
//	# >>> warifu: kept by warifu; changes between these marks are overwritten
//	# warifu-generation: 3
//	# warifu-fence: 17
//	# warifu-digest: 5f0c...
//	# warifu-names: OAUTH_CLIENT_ID OAUTH_CLIENT_SECRET OAUTH_ISSUER
//	# warifu-seal: 9a41...
//	OAUTH_CLIENT_ID=my-app-k3v9...
//	...
//	# <<< warifu
//
// The seal is a keyed fingerprint of the rest of the block. It tells an edited
// block from ours without storing a bare hash of a secret.
const (
	beginMark = "# >>> warifu: kept by warifu; changes between these marks are overwritten\n"
	beginHead = "# >>> warifu"
	endMark   = "# <<< warifu"
	fieldHead = "# warifu-"
)

// header is what the block says about itself.
type header struct {
	generation int64
	fence      int64
	digest     string
	names      []string // sorted
	seal       string
}

// envFile is a file taken apart.
type envFile struct {
	header  *header // nil: there is no block of ours, or nobody can read it any more
	marked  bool    // there is a block, readable or not
	torn    bool    // the block's end mark is gone: its assignments are among foreign
	bom     bool    // a byte order mark was before foreign
	body    string  // the block's assignments as written
	foreign string  // everything else
}

// parseEnvFile never fails: what is not ours is somebody's.
func parseEnvFile(content string) envFile {
	lines := strings.SplitAfter(content, "\n")
	begin := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, beginHead) })
	if begin < 0 {
		var f envFile
		f.foreign, f.bom = withoutBOM(content)
		return f
	}
	end := begin + 1
	for end < len(lines) && !strings.HasPrefix(lines[end], endMark) {
		end++
	}
	rest := end + 1
	if end == len(lines) {
		end = begin + 1
		for end < len(lines) && strings.HasPrefix(lines[end], fieldHead) {
			end++
		}
		rest = end
	}
	f := envFile{marked: true, torn: rest == end}
	f.foreign, f.bom = withoutBOM(strings.Join(lines[:begin], "") + strings.Join(lines[rest:], ""))
	block := strings.Join(lines[begin+1:end], "")
	f.header, f.body = parseBlock(block)
	return f
}

// withoutBOM is text without a byte order mark, and whether it had one.
func withoutBOM(text string) (string, bool) { return strings.CutPrefix(text, "\ufeff") }

func parseBlock(block string) (*header, string) {
	var h header
	var ok [5]bool
	rest := block
	for {
		line, after, _ := strings.Cut(rest, "\n")
		key, value, found := strings.Cut(strings.TrimPrefix(line, fieldHead), ": ")
		if !strings.HasPrefix(line, fieldHead) || !found {
			break
		}
		rest = after
		var err error
		switch key {
		case "generation":
			h.generation, err = strconv.ParseInt(value, 10, 64)
			ok[0] = err == nil && h.generation > 0
		case "fence":
			h.fence, err = strconv.ParseInt(value, 10, 64)
			ok[1] = err == nil && h.fence >= 0
		case "digest":
			h.digest, ok[2] = value, value != ""
		case "names":
			h.names, ok[3] = strings.Fields(value), true
		case "seal":
			h.seal, ok[4] = value, value != ""
		}
	}
	if ok != [5]bool{true, true, true, true, true} {
		return nil, rest
	}
	return &h, rest
}

// intact reports whether the block is as it was written with one of these keys,
// and nobody sets one of our names outside it.
func (f envFile) intact(keys [][]byte) bool {
	if f.header == nil || f.torn || f.bom {
		return false
	}
	sealed := slices.ContainsFunc(keys, func(key []byte) bool {
		return hmac.Equal([]byte(f.header.seal), []byte(sealBlock(key, *f.header, f.body)))
	})
	return sealed && !assigns(f.foreign, f.header.names)
}

func sealBlock(key []byte, h header, body string) string {
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%d\n%d\n%s\n%s\n%s", h.generation, h.fence, h.digest, strings.Join(h.names, " "), body)
	return hex.EncodeToString(mac.Sum(nil))
}

// others gives what is not ours. Of a torn block the assignments are told from
// other people's by their names alone.
func (f envFile) others() string {
	if f.torn && f.header != nil {
		return without(f.foreign, f.header.names)
	}
	return f.foreign
}

// writeBody writes the assignments in the order of their names. The error names
// the variable, never its value.
func writeBody(env map[string]string) (string, error) {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value, err := quote(env[name])
		if err != nil {
			return "", fmt.Errorf("variable %s: %w", name, err)
		}
		b.WriteString(name + "=" + value + "\n")
	}
	return b.String(), nil
}

// render writes a file: the block with body, then foreign without assignments to
// our names.
func render(key []byte, h header, body, foreign string) string {
	h.seal = sealBlock(key, h, body)
	return beginMark +
		fmt.Sprintf("# warifu-generation: %d\n# warifu-fence: %d\n# warifu-digest: %s\n# warifu-names: %s\n"+
			"# warifu-seal: %s\n",
			h.generation, h.fence, h.digest, strings.Join(h.names, " "), h.seal) +
		body + endMark + "\n" + without(foreign, h.names)
}

var assignment = regexp.MustCompile(`^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*[=:][ \t]*(['"]?)`)

// entries cuts text into assignments and other lines. A quoted value may go on
// over several lines; a quote that never closes is one line.
func entries(text string, yield func(name, entry string)) {
	for text != "" {
		line, _, _ := strings.Cut(text, "\n")
		length := min(len(line)+1, len(text))
		name := ""
		if m := assignment.FindStringSubmatchIndex(line); m != nil {
			name = line[m[2]:m[3]]
			if m[4] != m[5] {
				length = quotedEnd(text, m[5], text[m[4]], length)
			}
		}
		yield(name, text[:length])
		text = text[length:]
	}
}

// quotedEnd gives where the line ends that closes the quote opened before from.
func quotedEnd(text string, from int, mark byte, oneLine int) int {
	for i := from; i < len(text); i++ {
		switch {
		case text[i] == '\\' && mark == '"':
			i++
		case text[i] == mark:
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				return i + end + 1
			}
			return len(text)
		}
	}
	return oneLine
}

func assigns(text string, names []string) bool {
	found := false
	entries(text, func(name, _ string) { found = found || slices.Contains(names, name) })
	return found
}

// without leaves out the assignments to names and keeps the rest byte for byte.
func without(text string, names []string) string {
	var b strings.Builder
	entries(text, func(name, entry string) {
		if !slices.Contains(names, name) {
			b.WriteString(entry)
		}
	})
	return b.String()
}
