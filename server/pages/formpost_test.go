package pages

import (
	"strings"
	"testing"
)

// The answer goes to the very redirect URI that is registered, and what an app said is text in it.
func TestFormPost(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	const evil = `"'></form><script>alert(1)</script><form action="https://evil.example"><!--`
	for _, redirect := range []string{"https://app.example/cb", "https://app.example/(a)'b;c/%63?x=1&y=%20", "http://localhost:8080/cb", "http://[::1]:1/"} {
		w := get(s, FormPost{RedirectURI: redirect, Fields: []Field{{"code", "c1"}, {"state", evil}, {"iss", "https://id.example.com"}}})
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
		checkScripts(t, doc, FormPost{})
		for _, b := range elements(forms[0], "button") {
			if _, named := attr(b, "name"); named {
				t.Error("the button adds a parameter, or hides submit() of the form")
			}
		}
		if policy := directives(w.Header().Get("Content-Security-Policy")); !strings.HasPrefix(policy["form-action"], "'self' http") {
			t.Errorf("%s: form-action %q", redirect, policy["form-action"])
		}
	}
	for _, redirect := range []string{"javascript:alert(1)", "data:text/html,x", "", "/relative"} {
		if form := elements(parse(t, get(s, FormPost{RedirectURI: redirect}).Body.Bytes()), "form")[0]; len(form.Attr) != 1 {
			t.Errorf("%q: attributes %v", redirect, form.Attr)
		}
	}
}

func TestOnlyFormPostHasAScript(t *testing.T) {
	for name, page := range everyPage(Frame{}) {
		if _, posts := page.(FormPost); (page.script() != "") != posts {
			t.Errorf("%s: script %q", name, page.script())
		}
	}
}
