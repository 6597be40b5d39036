package oauth

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestIssuer(t *testing.T) {
	for _, good := range []string{
		"https://id.example.com", "https://id.example.com:8443", "https://id.example.com/a/b-c.d_e~f", "https://192.0.2.7",
		"https://[2001:db8::1]:8443",
		"http://localhost:5556", "http://127.0.0.1", "http://[::1]:5556/id",
	} {
		if _, err := ParseIssuer(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, tt := range []struct{ rule, issuer, nearest string }{
		{"empty", "", ""},
		{"no URL", "id.example.com", ""},
		{"no host", "https://", ""},
		{"no host but a port", "https://:443", ""},
		{"other scheme", "ftp://id.example.com", ""},
		{"opaque", "https:id.example.com", ""},
		{"user info", "https://ann:pw@id.example.com", ""},
		{"query", "https://id.example.com?x=1", ""},
		{"empty query", "https://id.example.com?", ""},
		{"fragment", "https://id.example.com#x", ""},
		{"empty fragment", "https://id.example.com#", ""},
		{"port that is no number", "https://id.example.com:0", ""},
		{"empty port", "https://id.example.com:", ""},
		{"port too large", "https://id.example.com:65536", ""},
		{"host that is no name", "https://id_.exa mple.com", ""},
		{"slash at the end", "https://id.example.com/", "https://id.example.com"},
		{"slash at the end of a path", "https://id.example.com/a/", "https://id.example.com/a"},
		{"double slash", "https://id.example.com/a//b", "https://id.example.com/a/b"},
		{"dot segment", "https://id.example.com/a/../b", "https://id.example.com/b"},
		{"umlaut", "https://id.example.com/ü", ""},
		{"percent", "https://id.example.com/%61", ""},
		{"upper case", "HTTPS://ID.Example.com:443", "https://id.example.com"},
		{"upper case host", "https://ID.example.com/A", "https://id.example.com/A"},
		{"default port", "https://id.example.com:443/a", "https://id.example.com/a"},
		{"default port of http", "http://localhost:80", "http://localhost"},
		{"dot after the host", "https://id.example.com./a", "https://id.example.com/a"},
		{"dot after localhost", "http://localhost.:5556", "http://localhost:5556"},
		{"international name", "https://bücher.example", ""},
		{"long address", "http://[0:0:0:0:0:0:0:1]:5556", "http://[::1]:5556"},
		{"discovery document", "https://id.example.com/.well-known/openid-configuration", ""},
		{"server metadata", "https://id.example.com/.well-known/oauth-authorization-server", ""},
		{"well-known below", "https://id.example.com/a/.well-known", ""},
		{"plain http", "http://id.example.com", "https://id.example.com"},
		{"plain http and a slash at the end", "http://id.example.com/", "https://id.example.com"},
		{"plain http on another loopback address", "http://127.0.0.2:5599", "https://127.0.0.2:5599"},
	} {
		_, err := ParseIssuer(tt.issuer)
		var wrong *IssuerError
		if !errors.As(err, &wrong) || wrong.Reason == "" {
			t.Errorf("%s: %q gives %v", tt.rule, tt.issuer, err)
			continue
		}
		if wrong.Nearest != tt.nearest {
			t.Errorf("%s: nearest to %q is %q, want %q", tt.rule, tt.issuer, wrong.Nearest, tt.nearest)
		}
		if strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: the error repeats the password", tt.rule)
		}
		if wrong.Nearest != "" {
			if _, err := ParseIssuer(wrong.Nearest); err != nil {
				t.Errorf("%s: nearest %q is none: %v", tt.rule, wrong.Nearest, err)
			}
		}
	}
}

func TestLoopbackHasOneMeaning(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "[::1]"} {
		if !IsLoopback(host) {
			t.Errorf("%s is not loopback", host)
		}
	}
	for _, host := range []string{"", "LOCALHOST", "localhost.", "localhost:80", "127.0.0.2", "127.9.9.9", "0.0.0.0",
		"[0:0:0:0:0:0:0:1]", "::", "[::1", "localhost.evil.test"} {
		if IsLoopback(host) {
			t.Errorf("%s is loopback", host)
		}
	}
}

// To what this process connects is another matter: no browser reads it.
func TestThisMachineHasAllOfItsAddresses(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1", "127.9.9.9", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"} {
		if !IsThisMachine(host) {
			t.Errorf("%s is another machine", host)
		}
	}
	for _, host := range []string{"", "0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "localhost.evil.test",
		"127.0.0.1.evil.test", "127.1"} {
		if IsThisMachine(host) {
			t.Errorf("%s is this machine", host)
		}
	}
}

func TestOrigin(t *testing.T) {
	for _, good := range []string{"https://app.example.com", "http://localhost:3000", "https://[::1]:8443",
		"https://app.example.com:8443", "app://localhost"} {
		if reason, mended := CheckOrigin(good); reason != "" {
			t.Errorf("%s: %s %s", good, reason, mended)
		}
	}
	for origin, nearest := range map[string]string{
		"https://A.example": "https://a.example", "https://a.example:443": "https://a.example",
		"http://a.example:80": "http://a.example",
		"https://*.example":   "", "https://a.example.": "https://a.example", "https://bücher.example": "",
		"https://a.example/": "https://a.example", "https://u:pw@a.example": "", "a.example": "", "": "",
		"HTTPS://a.example": "https://a.example",
	} {
		if reason, mended := CheckOrigin(origin); reason == "" || mended != nearest {
			t.Errorf("%s: %q, nearest %q, want %q", origin, reason, mended, nearest)
		}
	}
}

// Editors hold a scope to the pattern, and servers to the rule.
func TestThePatternOfScopesIsTheirRule(t *testing.T) {
	pattern := regexp.MustCompile(ScopePattern)
	for b := range 256 {
		for _, name := range []string{string([]byte{byte(b)}), "a" + string([]byte{byte(b)}) + "a"} {
			if ValidScope(name) != pattern.MatchString(name) {
				t.Errorf("%q: the rule says %t", name, ValidScope(name))
			}
		}
	}
	if ValidScope("") || pattern.MatchString("") {
		t.Error("no scope at all is one")
	}
}
