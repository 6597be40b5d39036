package conformance

import (
	"bytes"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// page is an HTML page as a browser without scripts sees it.
type page struct {
	status  int
	address *url.URL
	root    *html.Node
}

func parsePage(r *reply) *page {
	root, err := html.Parse(bytes.NewReader(r.body))
	if err != nil { // only of the reader
		root = &html.Node{Type: html.DocumentNode}
	}
	return &page{status: r.status, address: r.address, root: root}
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func isSet(n *html.Node, key string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == key })
}

// elements are those of a kind, in the order of the page.
func (p *page) elements(kind atom.Atom) []*html.Node {
	var found []*html.Node
	for n := range p.root.Descendants() {
		if n.DataAtom == kind {
			found = append(found, n)
		}
	}
	return found
}

// resolve makes an address of the page absolute; nil when it is none.
func (p *page) resolve(ref string) *url.URL {
	u, err := p.address.Parse(strings.TrimSpace(ref))
	if err != nil {
		return nil
	}
	return u
}

// frames are what the page embeds: what Front-Channel Logout renders.
func (p *page) frames() []*url.URL {
	var found []*url.URL
	for _, n := range slices.Concat(p.elements(atom.Iframe), p.elements(atom.Img)) {
		if src := attribute(n, "src"); src != "" {
			if u := p.resolve(src); u != nil && (u.Scheme == "http" || u.Scheme == "https") {
				found = append(found, u)
			}
		}
	}
	return found
}

// refresh is where the page goes by itself (meta refresh), or nil.
func (p *page) refresh() *url.URL {
	for _, n := range p.elements(atom.Meta) {
		if strings.EqualFold(attribute(n, "http-equiv"), "refresh") {
			if _, target, ok := strings.Cut(attribute(n, "content"), ";"); ok {
				name, value, _ := strings.Cut(strings.TrimSpace(target), "=")
				if strings.EqualFold(strings.TrimSpace(name), "url") {
					return p.resolve(strings.Trim(strings.TrimSpace(value), `'"`))
				}
			}
		}
	}
	return nil
}

// has says whether an element names an address.
func (p *page) has(address string) bool {
	for n := range p.root.Descendants() {
		if slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Val == address }) {
			return true
		}
	}
	return false
}

// form is one of a page.
type form struct {
	action  *url.URL
	method  string
	fields  url.Values // as they are sent when nothing is changed and no button counts
	buttons []button
	names   []string // of all fields and buttons; of buttons also name=value
	typed   bool     // something can be typed or chosen
}

type button struct{ name, value string }

func (p *page) forms() []form {
	var found []form
	for _, n := range p.elements(atom.Form) {
		f := form{action: p.resolve(attribute(n, "action")), method: strings.ToUpper(attribute(n, "method")),
			fields: url.Values{}}
		if f.action == nil {
			continue
		}
		for c := range n.Descendants() {
			f.control(c)
		}
		found = append(found, f)
	}
	return found
}

func (f *form) control(n *html.Node) {
	name, value := attribute(n, "name"), attribute(n, "value")
	kind := strings.ToLower(attribute(n, "type"))
	switch {
	case n.DataAtom == atom.Button && kind != "button" && kind != "reset", n.DataAtom == atom.Input &&
		(kind == "submit" || kind == "image"):
		f.buttons = append(f.buttons, button{name, value})
		f.names = append(f.names, name+"="+value)
	case n.DataAtom == atom.Input && (kind == "button" || kind == "reset" || kind == "file"):
		return
	case n.DataAtom == atom.Input && (kind == "checkbox" || kind == "radio"):
		f.typed = true
		if isSet(n, "checked") && name != "" {
			if !isSet(n, "value") {
				value = "on"
			}
			f.fields.Add(name, value)
		}
	case n.DataAtom == atom.Input, n.DataAtom == atom.Textarea:
		f.typed = f.typed || kind != "hidden"
		if name != "" {
			f.fields.Add(name, value)
		}
	case n.DataAtom == atom.Select:
		f.typed = true
		for o := range n.Descendants() {
			if o.DataAtom == atom.Option && isSet(o, "selected") && name != "" {
				f.fields.Add(name, attribute(o, "value"))
			}
		}
	default:
		return
	}
	if name != "" {
		f.names = append(f.names, name)
	}
}

// onward says that a form only carries something on: nothing to fill in, and at most one button.
func (f *form) onward() bool { return !f.typed && len(f.buttons) <= 1 && f.method == "POST" }

// text is what the page says.
func (p *page) text() string {
	var b strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		switch {
		case n.DataAtom == atom.Script, n.DataAtom == atom.Style, n.DataAtom == atom.Svg, n.DataAtom == atom.Nav:
			return
		case n.Type == html.TextNode:
			if text := strings.Join(strings.Fields(n.Data), " "); text != "" {
				b.WriteString(text + "\n")
			}
		}
		for c := range n.ChildNodes() {
			walk(c)
		}
	}
	walk(p.root)
	const most = 4000 // bytes: enough to see what a page is about
	return shorten(b.String(), most)
}
