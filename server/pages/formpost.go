package pages

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"html/template"
)

// FormPost brings an answer to the app in a form that posts itself (OAuth 2.0
// Form Post Response Mode). It has the one script of all pages: a browser that
// runs none, or refuses this one, shows the button.
type FormPost struct {
	Frame
	RedirectURI string  // where the form goes: the checked redirect URI
	Fields      []Field // the parameters of the answer
}

func (FormPost) template() string             { return "formpost" }
func (p FormPost) app() app                   { return App{RedirectURI: p.RedirectURI}.view() }
func (p FormPost) formTarget() (string, bool) { return p.RedirectURI, true }
func (FormPost) script() string               { return submitForm }

// submitForm posts the page's only form. Old browsers run it as well.
const submitForm = "document.forms[0].submit()"

// Script is what the page runs.
func (p FormPost) Script() template.JS { return template.JS(p.script()) }

// Action is the attribute of the form, with the redirect URI byte for byte:
// html/template would encode some characters that a registered URI may hold.
// What is no web address is left out.
func (p FormPost) Action() template.HTMLAttr {
	if _, ok := webURL(p.RedirectURI); !ok {
		return ""
	}
	return template.HTMLAttr(`action="` + html.EscapeString(p.RedirectURI) + `"`)
}

// scriptSource allows exactly that script (CSP level 2).
func scriptSource(script string) string {
	sum := sha256.Sum256([]byte(script))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
