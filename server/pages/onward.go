package pages

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"html/template"

	"github.com/warifu/warifu/server/oauth"
)

// Back is the way back to an app, with an answer for it, that a person may take or leave.
type Back struct {
	RedirectURI string  // the checked redirect URI; its host is shown
	Link        string  // it with the answer; "" when Fields are posted there
	Fields      []Field // the answer
}

// Action is the attribute of a form that posts the answer, with the redirect URI byte for byte: html/template would
// encode some characters that a registered URI may hold. What a page must not lead to is left out.
func (b Back) Action() template.HTMLAttr {
	if _, ok := webURL(b.RedirectURI); !ok {
		return ""
	}
	return attributeOf("action", b.RedirectURI)
}

// Href is the attribute of a link with the answer, likewise.
func (b Back) Href() template.HTMLAttr {
	if !mayLeadTo(b.Link) {
		return ""
	}
	return attributeOf("href", b.Link)
}

// Refresh is the attribute of the element by which a page goes there at once, likewise.
func (b Back) Refresh() template.HTMLAttr {
	if !mayLeadTo(b.Link) {
		return ""
	}
	return attributeOf("content", "0;url="+b.Link)
}

func attributeOf(name, value string) template.HTMLAttr {
	return template.HTMLAttr(name + `="` + html.EscapeString(value) + `"`)
}

// mayLeadTo reports whether a page may lead to the address of an app: on the web, or by a scheme of its own.
func mayLeadTo(raw string) bool {
	if _, ok := oauth.PrivateScheme(raw); ok {
		return true
	}
	_, ok := webURL(raw)
	return ok
}

// Onward brings the browser to the app by itself: it goes to an address, or posts a form (OAuth 2.0 Form Post Response
// Mode), for which it has a script. A browser that does neither shows a link or a button.
//
// It stands where a redirect would do, but for the form before it: Chromium and Safari hold every redirect after a form
// against the policy of the form's page (https://github.com/w3c/webappsec-csp/issues/8), also those that the app's
// callback makes, which nobody here knows. This page is where the form ends, so the policy of ours says 'self'. Nor do
// addresses fit into the header of every reply that fit into a page.
type Onward struct {
	Frame
	Back
}

func (Onward) template() string { return "onward" }
func (p Onward) app() app       { return App{RedirectURI: p.RedirectURI}.view() }

// framed: a silent request of a browser app is answered in a frame. Nothing can be pressed here that does not happen.
func (p Onward) framed() bool { return p.Link != "" }

func (p Onward) forms() formPolicy {
	if len(p.Fields) > 0 {
		return formsAway
	}
	return noForms
}

func (p Onward) script() string {
	if len(p.Fields) > 0 {
		return submitForm
	}
	return ""
}

// submitForm posts the page's only form. Old browsers run it as well.
const submitForm = "document.forms[0].submit()"

// scriptSource allows exactly that script (CSP level 2).
func scriptSource(script string) string {
	sum := sha256.Sum256([]byte(script))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
