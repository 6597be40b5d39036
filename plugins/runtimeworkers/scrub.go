package runtimeworkers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/warifu/warifu/server/oauth"
)

const (
	// Shorter values ("true", "8080") are in every log for other reasons.
	minSecret = 6
	// A longer line is read to its end but only this much of it is looked at, and
	// maxLineShown of that is shown. Bytes.
	maxLineRead  = 256 << 10
	maxLineShown = 4 << 10
	// What a diagnostic quotes of a Worker's words, bytes.
	maxQuoted = 800
)

// scrubber takes the values of an environment out of what others say.
type scrubber struct{ replacer *strings.Replacer }

func newScrubber(values ...string) scrubber {
	var forms []string
	learn := func(value string) {
		if len(value) < minSecret {
			return
		}
		forms = append(forms, value, url.QueryEscape(value))
		if quoted, err := json.Marshal(value); err == nil {
			forms = append(forms, string(quoted[1:len(quoted)-1]))
		}
	}
	for _, value := range values {
		learn(value)
		if lines := strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' }); len(lines) > 1 {
			for _, line := range lines {
				learn(line)
			}
		}
	}
	// At one place the first match wins, so the longest comes first.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(forms))
	for _, form := range forms {
		pairs = append(pairs, form, oauth.Redacted)
	}
	return scrubber{strings.NewReplacer(pairs...)}
}

// clean gives text without values and control characters, cut to limit bytes.
func (s scrubber) clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' && r != '\n' {
			return '?'
		}
		return r
	}, s.replacer.Replace(text))
	if len(text) > limit {
		text = text[:limit] + "... (cut)"
	}
	return strings.ToValidUTF8(text, "?")
}

// output takes what a Worker prints: it passes the lines on, cleaned and with the
// Worker's name, and remembers the last of them.
type output struct {
	scrub scrubber
	name  string
	to    func() io.Writer // asked for each line: go-plugin changes os.Stderr

	mu   sync.Mutex // owns what follows
	line []byte     // begun, not ended
	last []string   // the newest at the end
}

// maxLast is how many lines a diagnostic may quote.
const maxLast = 6

// Write never fails: a Worker is not ended because nobody hears it.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := p
	for {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		o.line = append(o.line, line[:min(len(line), maxLineRead-len(o.line))]...)
		if !ended {
			return len(p), nil
		}
		o.flush()
		rest = after
	}
}

// flush ends the line; mu is held.
func (o *output) flush() {
	text := o.scrub.clean(strings.TrimRight(string(o.line), "\r"), maxLineShown)
	o.line = o.line[:0]
	if text == "" {
		return
	}
	if o.last = append(o.last, text); len(o.last) > maxLast {
		o.last = o.last[1:]
	}
	_, _ = fmt.Fprintf(o.to(), "%s: %s\n", o.name, text) // nobody hears it
}

// said is the last of what it printed, in one line; the scrubber has seen it.
func (o *output) said() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.line) > 0 {
		o.flush()
	}
	lines := make([]string, len(o.last))
	for i, line := range o.last {
		lines[i] = strings.TrimSpace(line)
	}
	text := strings.Join(lines, " ")
	if len(text) > maxQuoted {
		text = strings.ToValidUTF8(text[:maxQuoted], "") + "... (cut)"
	}
	return text
}
