package pages

import (
	"strings"
	"testing"
)

// The answer goes to the very redirect URI that is registered, and what an app said is text in it.
func TestFormPost(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	const evil = `"'></form><script>alert(1)</script><form action="https://evil.example"><!--`
	for _, redirect := range []string{"https://app.example/cb", "https://app.example/(a)'b;c/%63?x=1&y=%20",
		"http://localhost:8080/cb", "http://[::1]:1/"} {
		w := get(s, Onward{Back: Back{RedirectURI: redirect, Fields: []Field{{"code", "c1"}, {"state", evil},
			{"iss", "https://id.example.com"}}}})
		doc := parse(t, w.Body.Bytes())
		forms := elements(doc, "form")
		if len(forms) != 1 || !has(forms[0], "action", redirect) || !has(forms[0], "method", "post") {
			t.Fatalf("%s: %d forms, attributes %v", redirect, len(forms), forms[0].Attr)
		}
		got := map[string]string{}
		for _, in := range elements(forms[0], "input") {
			name, _ := attr(in, "name")
			got[name], _ = attr(in, "value")
		}
		if len(got) != 3 || got["code"] != "c1" || got["state"] != evil || got["iss"] != "https://id.example.com" {
			t.Errorf("%s: fields %v", redirect, got)
		}
		checkScripts(t, doc, Onward{Back: Back{Fields: []Field{{"code", "c1"}}}})
		for _, b := range elements(forms[0], "button") {
			if _, named := attr(b, "name"); named {
				t.Error("the button adds a parameter, or hides submit() of the form")
			}
		}
		if policy := w.Header().Get("Content-Security-Policy"); strings.Contains(policy, "form-action") {
			t.Errorf("%s: where the app goes on to is held against %q", redirect, policy)
		}
	}
	for _, redirect := range []string{"javascript:alert(1)", "data:text/html,x", "", "/relative", "com.example.app:/cb"} {
		page := Onward{Back: Back{RedirectURI: redirect, Fields: []Field{{"code", "c1"}}}}
		if form := elements(parse(t, get(s, page).Body.Bytes()), "form")[0]; len(form.Attr) != 1 {
			t.Errorf("%q: attributes %v", redirect, form.Attr)
		}
	}
}

// It goes to the very address, and to none that a browser would run.
func TestOnward(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	const answer = `?code=c1&state=a%20b'"><b>;url=https://evil.example`
	for redirect, host := range map[string]string{
		"https://app.example/cb": "app.example", "https://app.example/(a)'b;c/%63": "app.example",
		"http://localhost:8080/cb": "localhost:8080",
		"com.example.app:/cb":      "com.example.app:", "com.example.app://cb": "com.example.app:",
	} {
		w := get(s, Onward{Back: Back{RedirectURI: redirect, Link: redirect + answer}})
		doc := parse(t, w.Body.Bytes())
		for _, n := range elements(doc, "meta") {
			if has(n, "http-equiv", "refresh") && !has(n, "content", "0;url="+redirect+answer) {
				t.Errorf("%s: goes to %v", redirect, n.Attr)
			}
		}
		links := 0
		for _, n := range elements(doc, "a") {
			if has(n, "class", "button") {
				links++
				if !has(n, "href", redirect+answer) {
					t.Errorf("%s: leads to %v", redirect, n.Attr)
				}
			}
		}
		if links != 1 || len(elements(doc, "b")) > 0 || !strings.Contains(w.Body.String(), host) {
			t.Errorf("%s: %d links\n%s", redirect, links, w.Body)
		}
	}
	for _, link := range []string{"javascript:alert(1)", "javascript://app.example/%0aalert(1)", "data:text/html,x",
		"/relative", "//evil.example", "file:///etc/passwd", ""} {
		body := get(s, Onward{Back: Back{RedirectURI: "https://app.example/", Link: link}}).Body.String()
		if strings.Contains(body, "http-equiv") || link != "" && strings.Contains(body, link) {
			t.Errorf("leads to %q", link)
		}
	}
}

func TestOnlyPagesThatPostOrAskForSecretsHaveAScript(t *testing.T) {
	for name, page := range everyPage(Frame{}) {
		want := ""
		switch p := page.(type) {
		case Onward:
			if len(p.Fields) > 0 {
				want = submitForm
			}
		case Carry:
			want = submitForm
		case SignIn:
			if !p.NoForm {
				want = reveal
			}
			if p.Passkey.Options != "" {
				want += "\n" + askPasskey
			}
		case Passkeys:
			if !p.Full {
				want = askPasskey
			}
		case Factor:
			if p.Passkey.Options != "" {
				want = askPasskey
			}
		}
		if page.script() != want {
			t.Errorf("%s: script of %d bytes, want %d", name, len(page.script()), len(want))
		}
	}
}
