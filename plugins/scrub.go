package plugins

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/warifu/warifu/server/oauth"
)

const (
	// Shorter values than this ("true", "8080") are in every log for other
	// reasons.
	minSecret = 6
	// Old values are forgotten beyond this many.
	maxSecrets = 4096
)

// Keys of a plugin's config whose values are taken for secrets.
var secretKey = regexp.MustCompile(`(?i)secret|token|passw|credential|api_?key|private`)

// scrubber takes secrets out of text that comes from a plugin. It knows the
// values that the host has handed out, and package oauth what a credential looks like.
type scrubber struct {
	mu       sync.Mutex        // owns all below
	known    map[string]bool   // values
	order    []string          // values, oldest first
	replacer *strings.Replacer // nil: to be built from known
}

func (s *scrubber) learn(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		if len(v) < minSecret || s.known[v] {
			continue
		}
		if s.known == nil {
			s.known = map[string]bool{}
		}
		s.known[v] = true
		s.order = append(s.order, v)
		s.replacer = nil
	}
	for len(s.order) > maxSecrets {
		delete(s.known, s.order[0])
		s.order = s.order[1:]
	}
}

// learnConfig learns the strings below keys of a JSON config that sound secret.
func (s *scrubber) learnConfig(config json.RawMessage) {
	var value any
	if json.Unmarshal(config, &value) == nil {
		s.learnTree(value, false)
	}
}

func (s *scrubber) learnTree(value any, secret bool) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			s.learnTree(inner, secret || secretKey.MatchString(key))
		}
	case []any:
		for _, inner := range v {
			s.learnTree(inner, secret)
		}
	case string:
		if secret {
			s.learn(v)
		}
	}
}

// clean takes secrets and control characters out of text.
func (s *scrubber) clean(text string) string {
	text = s.current().Replace(text)
	text = oauth.RedactCredentials(text)
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) && r != '\t' && r != '\n' {
			return '?'
		}
		return r
	}, text)
}

// cleanLine is clean, cut to limit bytes. Cutting comes last, so that half a
// secret is never left over.
func (s *scrubber) cleanLine(text string, limit int) string {
	text = s.clean(text)
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "... (cut)"
}

func (s *scrubber) current() *strings.Replacer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replacer == nil {
		var forms []string
		for v := range s.known {
			forms = append(forms, spellings(v)...)
		}
		// At one place the first match wins, so the longest comes first.
		slices.SortFunc(forms, func(a, b string) int {
			if len(a) != len(b) {
				return len(b) - len(a)
			}
			return strings.Compare(a, b)
		})
		pairs := make([]string, 0, 2*len(forms))
		for _, form := range slices.Compact(forms) {
			pairs = append(pairs, form, oauth.Redacted)
		}
		s.replacer = strings.NewReplacer(pairs...)
	}
	return s.replacer
}

// spellings gives the forms in which a value usually reaches a log.
func spellings(v string) []string {
	quoted := strconv.Quote(v)
	forms := []string{
		v,
		quoted[1 : len(quoted)-1],
		url.QueryEscape(v), url.PathEscape(v),
		base64.StdEncoding.EncodeToString([]byte(v)),
		base64.RawStdEncoding.EncodeToString([]byte(v)),
		base64.RawURLEncoding.EncodeToString([]byte(v)),
	}
	for _, escapeHTML := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escapeHTML)
		if enc.Encode(v) == nil && b.Len() > 3 {
			forms = append(forms, string(b.Bytes()[1:b.Len()-2])) // without quotes and newline
		}
	}
	return forms
}
