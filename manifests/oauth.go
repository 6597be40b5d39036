package manifests

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/warifu/warifu/server/oauth"
)

// maxClientName is in characters: longer names do not fit a consent page on a phone.
const maxClientName = 100

func checkClientName(c *checker, v *value, path string) {
	switch {
	case strings.TrimSpace(v.text) == "":
		c.errorf(v.position, path, "required", "", "is empty")
	case utf8.RuneCountInString(v.text) > maxClientName:
		c.errorf(v.position, path, "client-name", "", "is longer than %d characters", maxClientName)
	case strings.ContainsFunc(v.text, isDeceptive):
		c.errorf(v.position, path, "client-name", "",
			"has control characters or marks that change the direction of the text around it")
	}
}

// isDeceptive finds characters that could make the consent page say something else than it holds.
func isDeceptive(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// maxScope is in bytes.
const maxScope = 128

// checkScope holds a scope against the catalogue, or without one against RFC 6749 section 3.3.
func checkScope(c *checker, v *value, path string) {
	switch {
	case v.text == "":
		c.errorf(v.position, path, "required", "", "is empty")
	case len(v.text) > maxScope || strings.ContainsFunc(v.text, func(r rune) bool {
		return r < 0x21 || r > 0x7E || r == '"' || r == '\\'
	}):
		c.errorf(v.position, path, "scope-syntax", "",
			"is not a scope: printable ASCII without spaces, quotes and backslashes; one scope an item")
	case len(c.opts.Scopes) > 0 && !slices.Contains(c.opts.Scopes, v.text):
		c.errorf(v.position, path, "unknown-scope", c.nearest(v.text, c.opts.Scopes),
			"is %s, which is not a scope of this server", quote(v.text))
	}
}

// maxWebAddress is in bytes.
const maxWebAddress = 2048

// checkWebAddress allows what a page may link to or show: https, in development also http on loopback hosts.
func checkWebAddress(c *checker, v *value, path string) {
	wanted := "must be an https URL"
	if c.opts.Dev {
		wanted = "must be an https URL (or http on localhost, while developing)"
	}
	if v.text == "" {
		c.errorf(v.position, path, "required", "", "is empty")
		return
	}
	u, err := url.Parse(v.text)
	if err != nil || len(v.text) > maxWebAddress || !isPlainASCII(v.text) || u.Hostname() == "" {
		c.errorf(v.position, path, "url", "", "%s", wanted)
		return
	}
	switch {
	case u.User != nil:
		c.errorf(v.position, path, "url", "", "must not hold a user name or password")
	case u.Scheme == "https", c.opts.Dev && u.Scheme == "http" && oauth.IsLoopback(u.Hostname()):
	case u.Scheme == "http":
		c.errorf(v.position, path, "url", "https"+strings.TrimPrefix(v.text, u.Scheme), "%s", wanted)
	default:
		c.errorf(v.position, path, "url", "", "%s", wanted)
	}
}

// isPlainASCII leaves out what browsers strip or turn into something else.
func isPlainASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= 0x20 || r >= 0x7F || strings.ContainsRune("\\\"<>^`{|}", r) })
}
