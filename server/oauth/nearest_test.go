package oauth_test

import (
	"strings"
	"testing"

	"github.com/warifu/warifu/server/oauth"
)

func TestNearest(t *testing.T) {
	for name, c := range map[string]struct {
		asked string
		among string
		want  string
	}{
		"a slip":             {"runs:reed", "threads:read runs:read runs:write", "runs:read"},
		"case":               {"https://App.test/callback", "https://app.test/callback", "https://app.test/callback"},
		"one slash":          {"https://app.test/callback/", "https://app.test/ https://app.test/callback", "https://app.test/callback"},
		"http":               {"http://app.test/callback", "https://app.test/callback", "https://app.test/callback"},
		"itself is none":     {"openid", "openid", ""},
		"nothing like it":    {"openid", "threads:read", ""},
		"nothing at all":     {"", "a b", ""},
		"the earlier of two": {"abcd", "abce abcf", "abce"},
		"too long":           {strings.Repeat("a", 257), strings.Repeat("a", 256), ""},
	} {
		if got := oauth.Nearest(c.asked, strings.Fields(c.among)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		one, other string
		want       int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"oauth", "ouath", 1}, {"oauth", "oauht", 1}, {"kitten", "sitting", 3},
		{"割符", "割府", 1}, {"abcd", "badc", 2}, {"ca", "abc", 3},
	} {
		if got := oauth.Edits(c.one, c.other); got != c.want {
			t.Errorf("from %q to %q: %d edits, want %d", c.one, c.other, got, c.want)
		}
	}
}
