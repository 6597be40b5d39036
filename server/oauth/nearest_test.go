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
		"a slip": {"runs:reed", "threads:read runs:read runs:write", "runs:read"},
		"case":   {"https://App.test/callback", "https://app.test/callback", "https://app.test/callback"},
		"one slash": {"https://app.test/callback/", "https://app.test/ https://app.test/callback",
			"https://app.test/callback"},
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

func TestNearestName(t *testing.T) {
	const urn = "urn:ietf:params:oauth:grant-type:"
	for asked, want := range map[string]string{
		"device_code": oauth.GrantDeviceCode, "device-code": oauth.GrantDeviceCode, urn +
			"device-code": oauth.GrantDeviceCode,
		"token_exchange": oauth.GrantTokenExchange, "token-exchang": oauth.GrantTokenExchange, urn +
			"token-exchang": oauth.GrantTokenExchange,
		"urn:ietf:params:oauth:grant_type:device_code": oauth.GrantDeviceCode,
		"urn:ietf:params:oauth:granttype:device_code":  oauth.GrantDeviceCode,
		"client-credentials":                           oauth.GrantClientCredentials, "refresh_tokn": oauth.GrantRefreshToken,
		urn +
			"refresh_token": oauth.GrantRefreshToken,
		"password": "", "": "",
	} {
		if got := oauth.NearestName(asked, oauth.GrantTypes(), oauth.Nearest); got != want {
			t.Errorf("%s: %q, want %q", asked, got, want)
		}
	}
	if got := oauth.NearestName("write", []string{"runs:write", "threads:read"}, oauth.Nearest); got != "" {
		t.Errorf("the end of a scope stands for %s", got)
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
