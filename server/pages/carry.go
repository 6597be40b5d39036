package pages

import (
	"html/template"
	"net/url"
	"strings"
)

// Carry posts fields: to an identity provider that takes its questions that way (the POST binding of SAML 2.0), or once
// more to this server, because browsers send its cookies along with a form of another site only if a page of its own
// sends it. It has a script for that, and a button.
type Carry struct {
	Frame
	To     string // a path of this server, or the http or https URL of an identity provider of the configuration
	Fields []Field
}

func (Carry) template() string { return "carry" }
func (Carry) script() string   { return submitForm }

// forms: an identity provider may send the browser on to another host before it shows anything, and browsers hold that
// against the policy of this page, see [Onward].
func (p Carry) forms() formPolicy {
	if strings.HasPrefix(p.To, "/") {
		return formsToHere
	}
	return formsAway
}

// Host is that of an identity provider, in the place of which this server is "".
func (p Carry) Host() string {
	u, err := url.Parse(p.To)
	if err != nil {
		return ""
	}
	return u.Host
}

// Action is the attribute of the form, with the address byte for byte. What no form can be posted to is left out.
func (p Carry) Action() template.HTMLAttr {
	u, err := url.Parse(p.To)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" && !strings.HasPrefix(p.To, "/") {
		return ""
	}
	return attributeOf("action", p.To)
}
