package oauth

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestMatchRedirectURI(t *testing.T) {
	const web = "https://app.example.com/cb"
	tests := []struct {
		rule       string
		registered string
		got        string
		want       bool
	}{
		{"same bytes", web, web, true},
		{"same bytes with a query", web + "?tenant=1", web + "?tenant=1", true},
		{"same bytes on a fixed loopback port", "http://localhost:3000/cb", "http://localhost:3000/cb", true},
		{"empty never matches", web, "", false},
		{"empty never matches an empty registration", "", "", false},
		{"path case is not folded (GHSA-grfp-q2mm-hfp6)", web, "https://app.example.com/CB", false},
		{"host case is not folded", web, "https://APP.example.com/cb", false},
		{"scheme case is not folded", web, "HTTPS://app.example.com/cb", false},
		{"percent-encoded twin (engine note 9)", web, "https://app.example.com/%63b", false},
		{"percent-encoded slash", web, "https://app.example.com%2Fcb", false},
		{"dot-segment twin", web, "https://app.example.com/x/../cb", false},
		{"dot-segment with parameters (CVE-2026-3872)", web, "https://app.example.com/..;/cb", false},
		{"trailing slash", web, web + "/", false},
		{"path prefix", web, web + "/more", false},
		{"added query", web, web + "?x=1", false},
		{"added empty query", web, web + "?", false},
		{"added fragment", web, web + "#x", false},
		{"added userinfo", web, "https://app.example.com@evil.test/cb", false},
		{"added default port", web, "https://app.example.com:443/cb", false},
		{"added trailing dot", web, "https://app.example.com./cb", false},
		{"http for https", web, "http://app.example.com/cb", false},
		{"another port for a fixed loopback port", "http://localhost:3000/cb", "http://localhost:3001/cb", false},
		{"a fixed loopback port crosses no host", "http://localhost:3000/cb", "http://127.0.0.1:3000/cb", false},

		{"any port", "http://localhost:*", "http://localhost:49152", true},
		{"any port, lowest", "http://localhost:*", "http://localhost:1/", true},
		{"any port, highest", "http://localhost:*", "http://localhost:65535/", true},
		{"absent port", "http://localhost:*", "http://localhost/cb", true},
		{"any path without a registered one", "http://localhost:*", "http://localhost:3000/any/path", true},
		{"exactly the registered path", "http://localhost:*/cb", "http://localhost:3000/cb", true},
		{"exactly the registered root", "http://localhost:*/", "http://localhost:3000/", true},
		{"root is not no path", "http://localhost:*/", "http://localhost:3000", false},
		{"127.0.0.1", "http://127.0.0.1:*/cb", "http://127.0.0.1:9/cb", true},
		{"[::1]", "http://[::1]:*/cb", "http://[::1]:9/cb", true},
		{"[::1] without a port", "http://[::1]:*/cb", "http://[::1]/cb", true},

		{"any port where none is named", "http://127.0.0.1/cb", "http://127.0.0.1:49152/cb", true},
		{"none where none is named", "http://127.0.0.1/cb", "http://127.0.0.1/cb", true},
		{"any port of [::1] where none is named", "http://[::1]/cb", "http://[::1]:49152/cb", true},
		{"any port with the registered query", "http://localhost/cb?x=1", "http://localhost:3000/cb?x=1", true},
		{"any port without a path", "http://localhost", "http://localhost:3000", true},
		{"another path where no port is named", "http://localhost", "http://localhost:3000/", false},
		{"another query where no port is named", "http://localhost/cb?x=1", "http://localhost:3000/cb?x=2", false},
		{"a query added where no port is named", "http://localhost/cb", "http://localhost:3000/cb?x=1", false},
		{"a wildcard path where no port is named", "http://localhost/*", "http://localhost:3000/*", false},
		{"userinfo where no port is named", "http://localhost/cb", "http://localhost:80@evil.test/cb", false},
		{"hosts are not crossed where no port is named", "http://127.0.0.1/cb", "http://localhost:3000/cb", false},
		{"https where no port is named", "http://127.0.0.1/cb", "https://127.0.0.1:3000/cb", false},
		{"port 0 where none is named", "http://127.0.0.1/cb", "http://127.0.0.1:0/cb", false},
		{"a wildcard is no port", "http://127.0.0.1/cb", "http://127.0.0.1:*/cb", false},
		{"an installed app", "com.example.app:/cb", "com.example.app:/cb", true},
		{"another app", "com.example.app:/cb", "com.example.app2:/cb", false},

		{"another path", "http://localhost:*/cb", "http://localhost:3000/other", false},
		{"no path", "http://localhost:*/cb", "http://localhost:3000", false},
		{"path case under a wildcard", "http://localhost:*/cb", "http://localhost:3000/CB", false},
		{"encoded path under a wildcard (engine note 9)", "http://localhost:*/cb", "http://localhost:3000/%63b", false},
		{"dot segments under a wildcard", "http://localhost:*/cb", "http://localhost:3000/x/../cb", false},
		{"deeper path under a wildcard", "http://localhost:*/cb", "http://localhost:3000/cb/x", false},
		{"query under a wildcard", "http://localhost:*/cb", "http://localhost:3000/cb?x=1", false},
		{"query under a wildcard without a path", "http://localhost:*", "http://localhost:3000?code=x", false},
		{"fragment under a wildcard", "http://localhost:*", "http://localhost:3000/#x", false},
		{"the wildcard never matches itself", "http://localhost:*", "http://localhost:*", false},
		{"the wildcard with a path never matches itself", "http://localhost:*/cb", "http://localhost:*/cb", false},
		{"userinfo for a port (engine note 9)", "http://localhost:*", "http://localhost:@evil.test", false},
		{"userinfo behind a port", "http://localhost:*", "http://localhost:3000@evil.test/", false},
		{"user and password", "http://localhost:*", "http://user:pw@localhost:3000/", false},
		{"several @ (CVE-2026-7504)", "http://localhost:*", "http://localhost:80@localhost:80@evil.test/", false},
		{"encoded @", "http://localhost:*", "http://localhost:80%40evil.test/", false},
		{"localhost as a prefix (CVE-2024-8883)", "http://localhost:*", "http://localhost.evil.test:80/", false},
		{"localhost as a longer name", "http://localhost:*", "http://localhosts:80/", false},
		{"localhost with a trailing dot", "http://localhost:*", "http://localhost.:80/", false},
		{"localhost in capitals", "http://localhost:*", "http://LOCALHOST:80/", false},
		{"a label before localhost", "http://localhost:*", "http://evil.localhost:80/", false},
		{"https for a loopback registration", "http://localhost:*", "https://localhost:3000/", false},
		{"another scheme", "http://localhost:*", "javascript://localhost:3000/", false},
		{"scheme in capitals", "http://localhost:*", "HTTP://localhost:3000/", false},
		{"hosts are not crossed to an address", "http://localhost:*", "http://127.0.0.1:3000/", false},
		{"hosts are not crossed to a name", "http://127.0.0.1:*", "http://localhost:3000/", false},
		{"hosts are not crossed to IPv6", "http://127.0.0.1:*", "http://[::1]:3000/", false},
		{"127.9.9.9 is another address", "http://127.0.0.1:*", "http://127.9.9.9:3000/", false},
		{"127.1 is another spelling", "http://127.0.0.1:*", "http://127.1:3000/", false},
		{"127.0.0.1 as a prefix", "http://127.0.0.1:*", "http://127.0.0.1.evil.test/", false},
		{"127.0.0.10 as a prefix", "http://127.0.0.1:*", "http://127.0.0.10/", false},
		{"a long spelling of [::1]", "http://[::1]:*", "http://[0:0:0:0:0:0:0:1]:3000/", false},
		{"a mapped address", "http://[::1]:*", "http://[::ffff:127.0.0.1]:3000/", false},
		{"something behind the bracket", "http://[::1]:*", "http://[::1].evil.test/", false},
		{"port 0", "http://localhost:*", "http://localhost:0/", false},
		{"port 65536", "http://localhost:*", "http://localhost:65536/", false},
		{"empty port", "http://localhost:*", "http://localhost:/", false},
		{"port with a sign", "http://localhost:*", "http://localhost:+80/", false},
		{"port with a leading zero", "http://localhost:*", "http://localhost:080/", false},
		{"port with letters", "http://localhost:*", "http://localhost:80a/", false},
		{"port in other digits", "http://localhost:*", "http://localhost:８０/", false},
		{"two ports", "http://localhost:*", "http://localhost:80:90/", false},
		{"backslash for a slash", "http://localhost:*", `http://localhost:80\@evil.test/`, false},
		{"backslash in the path", "http://localhost:*", `http://localhost:80/\evil.test`, false},
		{"newline", "http://localhost:*", "http://localhost:80/\r\nLocation: x", false},
		{"tab", "http://localhost:*", "http://local\thost:80/", false},
		{"space before", "http://localhost:*", " http://localhost:80/", false},
		{"broken percent-encoding", "http://localhost:*", "http://localhost:80/%zz", false},
		{"one slash", "http://localhost:*", "http:/localhost:80/", false},
		{"three slashes", "http://localhost:*", "http:///localhost:80/", false},
		{"longer than any redirect URI", "http://localhost:*", "http://localhost:80/" +
			strings.Repeat("a", MaxRedirectURI), false},

		{"a wildcard host is no wildcard", "https://*.example.com/cb", "https://evil.example.com/cb", false},
		{"a wildcard path is no wildcard", "https://app.example.com/*", "https://app.example.com/x", false},
		{"a wildcard path never matches itself", "https://app.example.com/*", "https://app.example.com/*", false},
		{"a wildcard loopback path is no wildcard", "http://localhost:*/*", "http://localhost:80/x", false},
		{"a wildcard port elsewhere is no wildcard", "https://app.example.com:*/", "https://app.example.com:444/", false},
		{"a wildcard port of https loopback is no wildcard", "https://localhost:*", "https://localhost:444", false},
		{"a wildcard with userinfo is no wildcard", "http://localhost:*@evil.test", "http://localhost:80@evil.test", false},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := MatchRedirectURI([]string{"https://first.example.com/", tt.registered}, tt.got); got != tt.want {
				t.Errorf("MatchRedirectURI(%q, %q) = %t, want %t", tt.registered, tt.got, got, tt.want)
			}
		})
	}
	if MatchRedirectURI(nil, web) {
		t.Error("something matched with nothing registered")
	}
}

func TestCheckRedirectURI(t *testing.T) {
	tests := []struct{ uri, rule string }{
		{"https://example.com/callback", ""},
		{"https://example.com", ""},
		{"https://example.com:8443/cb?tenant=1", ""},
		{"https://[2001:db8::1]:8443/cb", ""},
		{"https://xn--r8jz45g.xn--zckzah/cb", ""},
		{"https://localhost/cb", ""},
		{"https://example.com/a%2Fb", ""},
		{"http://localhost:3000/callback", ""},
		{"http://localhost", ""},
		{"http://localhost:*", ""},
		{"http://localhost:*/cb", ""},
		{"http://127.0.0.1:*", ""},
		{"http://[::1]:*/cb", ""},

		{"", "empty"},
		{"https://example.com/" + strings.Repeat("a", MaxRedirectURI), "length"},
		{"https://example.com/a b", "syntax"},
		{"https://example.com/\x00", "syntax"},
		{"https://例え.テスト/cb", "syntax"},
		{`https://example.com\cb`, "syntax"},
		{"https://example.com/%6", "syntax"},
		{"https://example.com/a[0]", "syntax"},
		{"https:example.com", "syntax"},
		{"https:/example.com", "syntax"},
		{"/callback", "scheme"},
		{"app.example.com/callback", "scheme"},
		{"javascript:alert(1)", "scheme"},
		{"javascript://example.com/%0aalert(1)", "scheme"},
		{"data:text/html,x", "scheme"},
		{"com.example.app://callback", "scheme"},
		{"urn:ietf:wg:oauth:2.0:oob", "scheme"},
		{"HTTPS://example.com/cb", "scheme"},
		{"ftp://example.com/", "scheme"},
		{"https://example.com/cb#", "fragment"},
		{"https://example.com/cb#x", "fragment"},
		{"http://localhost:*#x", "fragment"},
		{"https://user@example.com/cb", "userinfo"},
		{"https://user:pw@example.com/cb", "userinfo"},
		{"http://localhost:*@evil.test", "userinfo"},
		{"https://", "host"},
		{"https:///cb", "host"},
		{"https://:443/cb", "host"},
		{"https://?x", "host"},
		{"https://example..com/", "host"},
		{"https://example.com./", "host"},
		{"https://exa%6dple.com/", "host"},
		{"https://[::1/", "host"},
		{"https://[::1]x/", "host"},
		{"https://[fe80::1%25eth0]/", "host"},
		{"https://[127.0.0.1]/", "host"},
		{"https://example.com:/cb", "port"},
		{"https://example.com:0/cb", "port"},
		{"https://example.com:65536/cb", "port"},
		{"https://example.com:0443/cb", "port"},
		{"https://example.com:1:2/cb", "port"},
		{"http://localhost:**", "port"},
		{"http://example.com/cb", "loopback"},
		{"http://localhost.evil.test/cb", "loopback"},
		{"http://LOCALHOST:3000/cb", "loopback"},
		{"http://127.9.9.9/cb", "loopback"},
		{"http://[0:0:0:0:0:0:0:1]/cb", "loopback"},
		{"http://192.168.0.1/cb", "loopback"},
		{"https://*.example.com/cb", "wildcard"},
		{"https://*", "wildcard"},
		{"https://example.com:*/cb", "wildcard"},
		{"https://localhost:*", "wildcard"},
		{"https://example.com/*", "wildcard"},
		{"https://example.com/cb?x=*", "wildcard"},
		{"http://localhost:*/*", "wildcard"},
		{"http://*:3000", "wildcard"},
		{"http://localhost:*/cb?x=1", "query"},
		{"https://example.com/a/../cb", "path"},
		{"https://example.com/./cb", "path"},
		{"https://example.com/%2E%2e/cb", "path"},
		{"https://example.com/..;/cb", "path"},
		{"https://example.com/cb/..", "path"},
	}
	for _, tt := range tests {
		t.Run(tt.uri, func(t *testing.T) {
			err := CheckRedirectURI(tt.uri)
			var refused *RedirectURIError
			switch {
			case tt.rule == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.rule != "" && (!errors.As(err, &refused) || refused.Rule != tt.rule):
				t.Errorf("got %#v, want a refusal by the rule %q", err, tt.rule)
			case strings.Contains(tt.uri, "pw@") && strings.Contains(err.Error(), "pw"):
				t.Errorf("the refusal repeats a password: %v", err)
			}
		})
	}
}

func TestLoopbackRedirects(t *testing.T) {
	got := LoopbackRedirects([]string{
		"https://app.example.com/cb", "http://localhost:3000/cb", "http://localhost/plain?x=1",
		"http://[::1]:*/six", "http://127.0.0.1:*", "http://example.com/", "http://localhost:*@evil.test",
	})
	type served struct{ uri, address, path string }
	var have []served
	for _, l := range got {
		uri := l.URI(4711)
		if l.Port == 0 && !MatchRedirectURI([]string{l.registered}, uri) {
			t.Errorf("%q does not match its own registration %q", uri, l.registered)
		}
		if !IsLoopbackRedirect(l.registered) {
			t.Errorf("%q is not called a loopback URI", l.registered)
		}
		have = append(have, served{uri, l.Address(), l.Path})
	}
	want := []served{
		{"http://localhost:4711/plain?x=1", "localhost:0", "/plain"},
		{"http://[::1]:4711/six", "[::1]:0", "/six"},
		{"http://127.0.0.1:4711/", "127.0.0.1:0", "/"},
		{"http://localhost:3000/cb", "localhost:3000", "/cb"},
	}
	if !slices.Equal(have, want) {
		t.Errorf("got  %q\nwant %q", have, want)
	}
	if IsLoopbackRedirect("https://localhost/") || IsLoopbackRedirect("http://localhost.evil.test/") {
		t.Error("a URI that is not plain http on a loopback host is called one")
	}
}

// FuzzMatchRedirectURI holds the one promise that matters: whatever matches is a registered URI byte for byte, or leads
// to the very loopback host that was registered, also in the eyes of another parser.
func FuzzMatchRedirectURI(f *testing.F) {
	f.Add("http://localhost:*", "http://localhost:@evil.test")
	f.Add("http://127.0.0.1:*/cb", "http://127.0.0.1:80/cb")
	f.Add("http://[::1]:*", "http://[::1]:80/%2e%2e")
	f.Add("https://a.example/cb", "https://a.example/%63b")
	f.Add("http://localhost:*/*", "http://localhost:*/*")
	f.Add("http://127.0.0.1/cb?x", "http://127.0.0.1:80/cb?x")
	f.Add("com.example.app:/cb", "com.example.app://cb")
	f.Fuzz(func(t *testing.T, registered, got string) {
		if !MatchRedirectURI([]string{registered}, got) || registered == got {
			return
		}
		if CheckRedirectURI(registered) != nil && !strings.HasPrefix(registered, "http://") {
			t.Fatalf("%q matched by the unregistrable %q", got, registered)
		}
		u, err := url.Parse(got)
		if err != nil {
			t.Fatalf("%q matched %q and does not parse: %v", got, registered, err)
		}
		_, query, _ := strings.Cut(registered, "?")
		if u.Scheme != "http" || u.User != nil || u.Fragment != "" || u.RawQuery != query {
			t.Fatalf("%q matched %q", got, registered)
		}
		if name := u.Hostname(); name != "localhost" && name != "127.0.0.1" && name != "::1" {
			t.Fatalf("%q leads to %q", got, name)
		}
		if !strings.HasPrefix(registered, "http://") || !strings.Contains(registered, u.Hostname()) {
			t.Fatalf("%q matched another host's %q", got, registered)
		}
	})
}

func FuzzCheckRedirectURI(f *testing.F) {
	for _, s := range []string{"https://example.com/cb", "http://localhost:*/cb", "http://[::1]:*", "https://a@b/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckRedirectURI(s) != nil {
			return
		}
		u, err := url.Parse(strings.Replace(s, ":*", "", 1))
		if err != nil {
			t.Fatalf("registrable, but does not parse: %q: %v", s, err)
		}
		if u.User != nil || u.Fragment != "" || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			t.Fatalf("registrable: %q", s)
		}
		if u.Scheme == "http" && !IsLoopbackRedirect(s) {
			t.Fatalf("plain http beyond loopback is registrable: %q", s)
		}
		if !strings.Contains(s, "*") && !MatchRedirectURI([]string{s}, s) {
			t.Fatalf("registrable, but does not match itself: %q", s)
		}
	})
}

func TestRedirectHost(t *testing.T) {
	for uri, want := range map[string]string{
		"https://app.example.com/cb?x=y": "app.example.com", "https://APP.example.com/": "app.example.com",
		"https://app.example.com:8443/": "app.example.com:8443",
		"http://localhost:3000/":        "localhost", "http://127.0.0.1:1/cb": "localhost", "http://[::1]/": "localhost",
		"http://localhost:*":  "localhost",
		"com.example.app:/cb": "com.example.app:", "com.example.app://cb/": "com.example.app:", "javascript://x/": "x",
		"https://localhost/cb": "localhost", "https://[2001:db8::1]:8443/": "[2001:db8::1]:8443", "": "", "https://%zz/": "",
	} {
		if got := RedirectHost(uri); got != want {
			t.Errorf("%q: %q, want %q", uri, got, want)
		}
	}
}

func TestHostRules(t *testing.T) {
	for _, c := range []struct {
		rules HostRules
		host  string
		want  bool
	}{
		{HostRules{}, "a.test", true},
		{HostRules{Allow: []string{"a.test"}}, "a.test", true},
		{HostRules{Allow: []string{"a.test"}}, "A.TEST", true},
		{HostRules{Allow: []string{"a.test"}}, "b.a.test", false},
		{HostRules{Allow: []string{"*.a.test"}}, "b.a.test", true},
		{HostRules{Allow: []string{"*.a.test"}}, "c.b.a.test", true},
		{HostRules{Allow: []string{"*.a.test"}}, "a.test", false},
		{HostRules{Allow: []string{"*.a.test"}}, ".a.test", false},
		{HostRules{Allow: []string{"*.a.test"}}, "eva.test", false},
		{HostRules{Deny: []string{"a.test"}}, "a.test", false},
		{HostRules{Deny: []string{"a.test"}}, "b.test", true},
		{HostRules{Allow: []string{"*.test"}, Deny: []string{"*.a.test"}}, "b.a.test", false},
		{HostRules{Allow: []string{"*.test"}, Deny: []string{"*.a.test"}}, "a.test", true},
		{HostRules{Deny: []string{"::1"}}, "::1", false},
	} {
		if got := c.rules.Admits(c.host); got != c.want {
			t.Errorf("%+v admits %s: %v", c.rules, c.host, got)
		}
	}
}

func TestCheckHostPattern(t *testing.T) {
	for pattern, mended := range map[string]string{
		"example.com": "", "*.example.com": "", "localhost": "", "10.0.0.1": "", "::1": "", "xn--r8jz45g.jp": "", "*.com": "",
	} {
		if got, ok := CheckHostPattern(pattern); !ok || got != mended {
			t.Errorf("%q is refused, %q", pattern, got)
		}
	}
	for pattern, mended := range map[string]string{
		"": "", "*": "", "*.": "", "*.*.example.com": "", "a*.example.com": "", "例え.jp": "", "a b": "", "*.10.0.0.1": "",
		"Example.com": "example.com", "*.Example.com": "*.example.com", "https://example.com": "example.com",
		"https://example.com:8443/x?y": "example.com",
		"example.com:8443":             "example.com", "example.com.": "example.com", ".example.com": "*.example.com",
		"[::1]":        "::1",
		"example.com/": "example.com",
	} {
		if got, ok := CheckHostPattern(pattern); ok || got != mended {
			t.Errorf("%q: %v, meant %q, want %q", pattern, ok, got, mended)
		}
	}
}
