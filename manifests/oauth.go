package manifests

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

// maxClientName is in characters: longer names do not fit a consent page on a phone.
const maxClientName = 100

func checkClientName(c *checker, v *strictyaml.Value, path string) {
	switch {
	case strings.TrimSpace(v.Text) == "":
		c.Errorf(v.Position, path, "required", "", "is empty")
	case utf8.RuneCountInString(v.Text) > maxClientName:
		c.Errorf(v.Position, path, "client-name", "", "is longer than %d characters", maxClientName)
	case strings.ContainsFunc(v.Text, isDeceptive):
		c.Errorf(v.Position, path, "client-name", "",
			"has control characters or marks that change the direction of the text around it")
	}
}

// isDeceptive reports characters that could make the consent page appear to say something else.
func isDeceptive(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// maxScope is in bytes.
const maxScope = 128

// checkScope checks a scope against the catalogue, or without one against RFC 6749 section 3.3.
func checkScope(c *checker, v *strictyaml.Value, path string) {
	switch {
	case v.Text == "":
		c.Errorf(v.Position, path, "required", "", "is empty")
	case len(v.Text) > maxScope || strings.ContainsFunc(v.Text, func(r rune) bool {
		return r < 0x21 || r > 0x7E || r == '"' || r == '\\'
	}):
		c.Errorf(v.Position, path, "scope-syntax", "",
			"is not a scope: printable ASCII without spaces, quotes and backslashes, and one scope per item")
	case len(c.opts.Scopes) > 0 && !slices.Contains(c.opts.Scopes, v.Text):
		c.Errorf(v.Position, path, "unknown-scope", c.nearest(v.Text, c.opts.Scopes),
			"is %s, which is not a scope of this server", strictyaml.Quote(v.Text))
	}
}

// maxWebAddress is in bytes.
const maxWebAddress = 2048

// checkWebAddress allows what a page may link to or show: https, in development also http on loopback hosts.
func checkWebAddress(c *checker, v *strictyaml.Value, path string) {
	wanted := "must be an https URL"
	if c.opts.Dev {
		wanted = "must be an https URL (or http on localhost, while developing)"
	}
	if v.Text == "" {
		c.Errorf(v.Position, path, "required", "", "is empty")
		return
	}
	u, err := url.Parse(v.Text)
	if err != nil || len(v.Text) > maxWebAddress || !isPlainASCII(v.Text) || u.Hostname() == "" {
		c.Errorf(v.Position, path, "url", "", "%s", wanted)
		return
	}
	switch {
	case u.User != nil:
		c.Errorf(v.Position, path, "url", "", "must not hold a user name or password")
	case u.Scheme == "https", c.opts.Dev && u.Scheme == "http" && oauth.IsLoopback(u.Hostname()):
	case u.Scheme == "http":
		c.Errorf(v.Position, path, "url", "https"+strings.TrimPrefix(v.Text, u.Scheme), "%s", wanted)
	default:
		c.Errorf(v.Position, path, "url", "", "%s", wanted)
	}
}

// isPlainASCII reports whether s is free of what browsers strip or rewrite.
func isPlainASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= 0x20 || r >= 0x7F || strings.ContainsRune("\\\"<>^`{|}", r) })
}
