package pages

import (
	"cmp"
	"html/template"
	"net/netip"
	"net/url"
	"strings"
	"unicode"

	"golang.org/x/net/idna"

	"github.com/warifu/warifu/server/oauth"
)

// Longest texts shown, in characters. More is cut, with an ellipsis.
const (
	maxName   = 60
	maxDetail = 600
)

// app is an App as a template shows it: every field is safe to put where the
// template puts it.
type app struct {
	Name    string // made plain
	Initial string // stands in for the logo
	Logo    string // "" when there is none that may be shown
	Tos     string
	Policy  string
	Host    string       // host of the redirect URI, in ASCII; of an installed app the scheme, with its colon
	Local   bool         // the app is on this very machine
	Return  template.URL // the redirect URI when it may be linked
	Asks    string       // host of the document that the app is known by, in ASCII; "" for a registered app
}

func (a App) view() app {
	v := app{Name: plain(a.ClientName, maxName), Logo: linkable(a.LogoURI), Tos: linkable(a.TosURI),
		Policy: linkable(a.PolicyURI)}
	if u, ok := webURL(a.RedirectURI); ok {
		v.Host, v.Local, v.Return = u.Host, oauth.IsLoopback(u.Hostname()), template.URL(u.String())
	} else if scheme, ok := oauth.PrivateScheme(a.RedirectURI); ok {
		v.Host, v.Local, v.Return = scheme+":", true, template.URL(a.RedirectURI)
	}
	if u, ok := webURL(a.DescribedAt); ok {
		v.Asks = u.Host
	}
	if v.Name == "" {
		v.Name = cmp.Or(v.Asks, v.Host)
	}
	v.Initial = initial(v.Name)
	return v
}

// linkable is raw when a page may link to it or load it, else "".
func linkable(raw string) string {
	u, ok := webURL(raw)
	if !ok {
		return ""
	}
	return u.String()
}

// webURL parses an address that came from an app. It is good when it is https,
// or http on loopback, without user info, and its host is a plain ASCII name or
// address (an internationalised name is turned into ASCII, so that a look-alike
// cannot pass for another). The host it returns is lower case and holds
// nothing but letters, digits, "-", ".", and the ":" and brackets of ports and
// IPv6: safe inside a policy header.
func webURL(raw string) (*url.URL, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.User != nil || u.Opaque != "" || u.Host == "" {
		return nil, false
	}
	name, port := u.Hostname(), u.Port()
	switch ip, err := netip.ParseAddr(name); {
	case err == nil && ip.Zone() != "":
		return nil, false
	case err == nil:
		name = ip.String()
		if ip.Is6() {
			name = "[" + name + "]"
		}
	default:
		if name, err = idna.Lookup.ToASCII(name); err != nil || name == "" {
			return nil, false
		}
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !oauth.IsLoopback(u.Hostname())) {
		return nil, false
	}
	u.Host = strings.ToLower(name)
	if port != "" {
		u.Host += ":" + port
	}
	return u, true
}

// plain makes a foreign text fit to be shown in one line of at most max characters.
func plain(s string, max int) string { return oauth.Plain(s, max) }

// initial is the first letter or digit of name, in upper case.
func initial(name string) string {
	for _, r := range name {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return "?"
}
