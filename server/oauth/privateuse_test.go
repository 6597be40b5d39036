package oauth

import (
	"slices"
	"strings"
	"testing"
)

// What browsers and systems act on themselves is no app's scheme, however it is written.
func TestPrivateScheme(t *testing.T) {
	for uri, want := range map[string]string{
		"com.example.app:/cb": "com.example.app", "com.example.app://cb": "com.example.app",
		"com.example.app:/":                             "com.example.app",
		"net.openid.appauthdemo:/oauth2redirect":        "net.openid.appauthdemo",
		"com.googleusercontent.apps.1-a:/oauthredirect": "com.googleusercontent.apps.1-a",
		"vscode://publisher.extension/cb":               "vscode", "cursor://a/b": "cursor", "operator:/cb": "operator",
		"com.example.app:cb": "", "com.example.app:": "", "com.example.app": "", "Com.Example.App:/cb": "", ":/cb": "",
		"1com.example:/cb": "",
		"com example:/cb":  "", "com.exämple:/cb": "", "/cb": "", "": "", "//host/cb": "",
		"https://a.test/": "", "http://a.test/": "", "HTTPS://a.test/": "",
	} {
		if got, ok := PrivateScheme(uri); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v", uri, got, ok)
		}
	}
	for _, scheme := range []string{
		"javascript", "data", "file", "vbscript", "blob", "filesystem", "about", "view-source", "ftp", "ws", "wss",
		"mailto", "tel", "intent",
		"chrome", "chrome-extension", "moz-extension", "ms-msdt", "ms-settings", "search-ms", "ldap", "urn", "jar",
		"resource", "web+app", "shell",
	} {
		for _, uri := range []string{scheme + ":/cb", scheme + "://cb", scheme + ":///etc/passwd", scheme + ":alert(1)",
			strings.ToUpper(scheme) + ":/cb"} {
			if got, ok := PrivateScheme(uri); ok {
				t.Errorf("%q is the app %q", uri, got)
			}
		}
	}
}

func TestRedirectURIsOfInstalledApps(t *testing.T) {
	for _, c := range []struct {
		rule   string
		policy Policy
		secret bool
		uri    string
		code   string
		warns  bool
	}{
		{"a domain turned around", Policy{Native: true}, false, "com.example.app:/cb?x=1", "", false},
		{"with an authority", Policy{Native: true}, false, "com.example.app://cb/x", "", false},
		{"not a native app", Policy{}, false, "com.example.app:/cb", "redirect-uri-scheme", false},
		{"with a secret", Policy{Native: true}, true, "com.example.app:/cb", "redirect-uri-private", false},
		{"one word", Policy{Native: true}, false, "example:/cb", "redirect-uri-scheme", false},
		{"one word, by an operator", Policy{Native: true, AnyScheme: true}, false, "example:/cb",
			"redirect-uri-one-word", true},
		{"a script", Policy{Native: true, AnyScheme: true}, false, "javascript:alert(1)", "redirect-uri-scheme", false},
		{"a script with slashes", Policy{Native: true, AnyScheme: true}, false, "javascript://a/%0aalert(1)",
			"redirect-uri-scheme", false},
		{"data", Policy{Native: true, AnyScheme: true}, false, "data:/text/html,x", "redirect-uri-scheme", false},
		{"a file", Policy{Native: true, AnyScheme: true}, false, "file:///etc/passwd", "redirect-uri-scheme", false},
		{"fragment", Policy{Native: true}, false, "com.example.app:/cb#x", "redirect-uri-fragment", false},
		{"wildcard", Policy{Native: true}, false, "com.example.app:/*", "redirect-uri-wildcard", false},
		{"userinfo", Policy{Native: true}, false, "com.example.app://user:pw@cb/", "redirect-uri-userinfo", false},
		{"dot segment", Policy{Native: true}, false, "com.example.app:/a/../cb", "redirect-uri-path", false},
		{"no URI", Policy{Native: true}, false, "com.example.app:/a b", "redirect-uri-syntax", false},
		{"too long", Policy{Native: true}, false, "com.example.app:/" + strings.Repeat("a", MaxRedirectURI),
			"redirect-uri-length", false},
		{"capitals", Policy{Native: true}, false, "com.example.App:/cb", "redirect-uri-scheme", false},
	} {
		client := &Client{ClientName: "x", Scopes: []string{"openid"}, Public: !c.secret, RedirectURIs: []string{c.uri}}
		found := slices.DeleteFunc(Check(client, c.policy), func(v Violation) bool { return v.Key != "redirectUris" })
		switch {
		case c.code == "" && len(found) > 0, c.code != "" && (len(found) != 1 || found[0].Code != c.code ||
			found[0].Warning != c.warns):
			t.Errorf("%s: %+v", c.rule, found)
		case len(found) > 0 && strings.Contains(found[0].Message, "pw"):
			t.Errorf("%s repeats a password: %s", c.rule, found[0].Message)
		}
	}
}

func TestNativeClients(t *testing.T) {
	for _, c := range []struct {
		public bool
		uris   string
		want   bool
	}{
		{true, "http://127.0.0.1:*", true},
		{true, "http://127.0.0.1/cb com.example.app:/cb", true},
		{true, "http://localhost:* https://app.test/cb", false},
		{false, "http://127.0.0.1:*", false},
	} {
		client := &Client{Public: c.public, RedirectURIs: strings.Fields(c.uris)}
		if client.IsNative() != c.want {
			t.Errorf("%+v: %v", c, !c.want)
		}
	}
}
