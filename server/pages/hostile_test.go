package pages

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/language"
)

// TestHTMLInForeignText is CVE-2019-8400's lesson: what an app or a request says is text.
func TestHTMLInForeignText(t *testing.T) {
	const evil = `"'><script>alert(1)</script><img src=x onerror=alert(2)>{{.}}</title></textarea><!--`
	s := newSet(t, "https://id.example.com")
	app := App{ClientName: evil, LogoURI: evil, TosURI: "javascript:alert(1)", PolicyURI: "data:text/html," +
		evil, RedirectURI: "https://ok.example/" + evil}
	sc := []Scope{{Name: evil, Description: evil, Risk: Risk(evil)}, {Name: evil, Peer: evil}}
	for _, page := range []Page{
		SignIn{App: app, Action: "/a", Login: evil, Hidden: []Field{{evil, evil}}},
		Factor{App: app, Action: "/a", Person: Person{evil, evil}, Hidden: []Field{{evil, evil}}, Code: true, Recovery: true},
		Consent{App: app, Action: "/a", Person: Person{evil, evil}, New: sc, Granted: sc, Hidden: []Field{{evil, evil}}},
		Error{Reason: ReasonInvalidRequest, Code: evil, Developer: evil, RequestID: evil},
		Error{App: app, Reason: ReasonExpired, Back: Back{RedirectURI: "https://ok.example/", Link: "https://ok.example/"}},
		Error{Reason: ReasonDenied, Back: Back{RedirectURI: "https://ok.example/" +
			evil, Link: "https://ok.example/" + evil}},
		Error{Reason: ReasonDenied, Back: Back{RedirectURI: "https://ok.example/", Link: "javascript:alert(1)"}},
		Error{Reason: ReasonDenied, Back: Back{RedirectURI: "https://ok.example/" + evil, Fields: []Field{{evil, evil}}}},
		Consent{App: app, Action: "/a", New: sc, Resources: []Resource{{Name: evil, Identifier: evil}}},
		ConfirmDevice{App: app, Action: "/a", Scopes: sc, Resources: []Resource{{Name: evil, Identifier: evil}}},
		Device{Action: "/a", UserCode: evil, Hidden: []Field{{evil, evil}}},
		ConfirmDevice{App: app, Action: "/a", UserCode: evil, Person: Person{evil, evil}, Scopes: sc,
			Hidden: []Field{{evil, evil}}},
		DeviceDone{App: app, Approved: true},
		NoAccess{App: app, Action: "/a", Person: Person{evil, evil}, Hidden: []Field{{evil, evil}}, RequestID: evil,
			CanGoBack: true, Closed: evil},
		Enrol{App: app, Action: "/a", Person: Person{evil, evil}, Hidden: []Field{{evil, evil}}, Passkeys: "/p",
			Codes: "/c", CanCancel: true},
		SignOut{App: app, Action: "/a", Person: Person{evil, evil}, Hidden: []Field{{evil, evil}}},
		SignedOut{ClientName: evil, ReturnURI: "javascript:alert(1)", Frames: []string{"javascript:alert(1)",
			"data:text/html,x", "http://plain.example/", evil}},
		SignedOut{ClientName: evil, ReturnURI: "https://ok.example/" + evil, Frames: []string{"https://ok.example/" + evil}},
		Landing{Frame: Frame{English: "javascript:alert(1)", Japanese: "data:text/html,x"}, Person: Person{evil, evil},
			SignOut: "/logout",
			Apps:    []Start{{evil, "/start"}}},
	} {
		name := page.template()
		body := get(s, page).Body.Bytes()
		for _, n := range elements(parse(t, body)) {
			if n.Data == "script" && n.FirstChild.Data != page.script() {
				t.Errorf("%s: a script element", name)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: attribute %s", name, a.Key)
				}
				if v := strings.ToLower(strings.TrimSpace(a.Val)); (a.Key == "href" || a.Key == "src" || a.Key == "action") &&
					(strings.HasPrefix(v, "javascript:") || strings.HasPrefix(v, "data:")) {
					t.Errorf("%s: %s=%q", name, a.Key, a.Val)
				}
			}
		}
	}
}

func TestSignInKeepsTheLoginHint(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	const hint = `<b>"x"</b>@example.com`
	for _, in := range elements(parse(t, get(s, SignIn{Login: hint}).Body.Bytes()), "input") {
		if has(in, "name", FieldLogin) && !has(in, "value", hint) {
			t.Errorf("value is %v", in.Attr)
		}
	}
}

func TestWebURL(t *testing.T) {
	for _, c := range []struct{ raw, host string }{
		{"https://example.com/logo.png", "example.com"},
		{"https://EXAMPLE.com:8443", "example.com:8443"},
		{"https://例え.jp/", "xn--r8jz45g.jp"},
		{"http://localhost:3000/x", "localhost:3000"},
		{"http://127.0.0.1/x", "127.0.0.1"},
		{"http://[::1]:3000/x", "[::1]:3000"},
		{"http://example.com/", ""},
		{"http://127.9.9.9/", ""},
		{"http://localhost.evil.example/", ""},
		{"http://localhost:@evil.example/", ""},
		{"https://user@example.com/", ""},
		{"https://user:pw@example.com/", ""},
		{"https:example.com", ""},
		{"https:///x", ""},
		{"//example.com/x", ""},
		{"/x", ""},
		{"", ""},
		{"javascript:alert(1)", ""},
		{"data:image/png;base64,x", ""},
		{"https://a;b/", ""},
		{"https://a,b/", ""},
		{"https://a'b/", ""},
		{"https://*.example.com/", ""},
		{"https://[fe80::1%25eth0]/", ""},
	} {
		u, ok := webURL(c.raw)
		switch {
		case c.host == "" && ok:
			t.Errorf("%q is taken as %s", c.raw, u)
		case c.host != "" && (!ok || u.Host != c.host):
			t.Errorf("%q: %v %v", c.raw, u, ok)
		}
	}
}

func TestPlain(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"kept":              {"My OAuth App", "My OAuth App"},
		"other scripts":     {"割符 عربي é", "割符 عربي é"},
		"white space":       {"  a \t\r\n b\u00a0 c ", "a b c"},
		"reordering":        {"\u202eppA\u202c live\u2066d\u2069", "ppA lived"},
		"hidden":            {"a\u200bb\ufeffc\u00add", "abcd"},
		"control":           {"a\x00b\x1b[31mc", "ab[31mc"},
		"not UTF-8":         {"a\xffb", "ab"},
		"nothing left":      {"\u200b \u202e", ""},
		"exactly as long":   {"1234567890", "1234567890"},
		"longer by one":     {"12345678901", "1234567890…"},
		"longer in Unicode": {strings.Repeat("割", 11), strings.Repeat("割", 10) + "…"},
	} {
		got := plain(c.in, 10)
		if name == "kept" || name == "other scripts" || name == "reordering" {
			got = plain(c.in, 40)
		}
		if got != c.want || !utf8.ValidString(got) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAppWithoutAName(t *testing.T) {
	v := App{ClientName: "\u202e\u200b", RedirectURI: "https://my-app.example.com/cb"}.view()
	if v.Name != "my-app.example.com" || v.Initial != "M" {
		t.Errorf("shown as %q %q", v.Name, v.Initial)
	}
}

func TestRightToLeftNameIsIsolated(t *testing.T) {
	if got := isolated("שלום"); got != "\u2068שלום\u2069" {
		t.Errorf("%q", got)
	}
	if got := isolated("My App"); got != "My App" {
		t.Errorf("%q", got)
	}
}

// An app that nobody has registered is named by where its document is; a registered one is not said to describe itself.
func TestWhoAsks(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	for lang, text := range map[string]string{"en": "in a document of agent.example.", "ja": "agent.example にある文書"} {
		for name, page := range everyPage(Frame{Lang: language.MustParse(lang)}) {
			body := get(s, page).Body.String()
			asks, host := strings.Contains(body, text), strings.Contains(body, `<span class="host">agent.example</span>`)
			switch name {
			case "consent, described app", "confirm described app":
				if !asks || !host {
					t.Errorf("%s, %s: does not say who asks", name, lang)
				}
			case "sign-in, described app": // it has no name of its own
				if !strings.Contains(body, "<bdi>agent.example</bdi>") {
					t.Errorf("%s, %s: does not say who asks", name, lang)
				}
			default:
				if asks || host {
					t.Errorf("%s, %s: says that it describes itself", name, lang)
				}
			}
		}
	}
	for _, at := range []string{"javascript:alert(1)", "https://a@evil.example/", "https://äpfel.example/\"><b>",
		"//evil.example"} {
		body := get(s, Consent{App: App{ClientName: "x", DescribedAt: at, RedirectURI: "https://app.example/"},
			Action: "/consent"}).Body.String()
		if strings.Contains(body, "evil.example") || strings.Contains(body, "äpfel") || strings.Contains(body, "<b>\"") {
			t.Errorf("%q: %s", at, body)
		}
	}
}
