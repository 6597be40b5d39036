package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/warifu/warifu/server/oauth"
)

// maxPages is how many pages a walk visits at most: sign-in and consent are two, and the redirects between them a few
// more.
const maxPages = 12

// walk signs in with a password and allows the request, as a user with a browser would, and returns the parameters of
// the redirect to the app, which it does not follow. Without a redirect URI it ends at the page that says that all is
// done.
func (a *authorization) walk(ctx context.Context, address, login, password string) (url.Values, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("sign in: %w", err)
	}
	visitor := &http.Client{Jar: jar, Timeout: a.http.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	back, err := url.Parse(a.redirectURI)
	if err != nil {
		return nil, fmt.Errorf("sign in: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	signedIn, allowed := false, false
	for range maxPages {
		if err != nil {
			return nil, fmt.Errorf("sign in: %w", err)
		}
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Accept-Language", "en")
		resp, err2 := visitor.Do(req)
		if err2 != nil {
			return nil, fmt.Errorf("sign in: %w", err2)
		}
		a.requestID = resp.Header.Get("X-Request-Id")
		body, err2 := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		_ = resp.Body.Close()
		if err2 != nil {
			return nil, fmt.Errorf("sign in: %w", err2)
		}
		page, err2 := readPage(req.URL, body)
		if err2 != nil {
			return nil, fmt.Errorf("sign in: %w", err2)
		}
		next := page.onward
		if resp.StatusCode >= 300 && resp.StatusCode < 400 {
			if next, err2 = resp.Location(); err2 != nil {
				return nil, fmt.Errorf("sign in: %w", err2)
			}
		}
		if next != nil {
			if a.redirectURI != "" && next.Scheme == back.Scheme && next.Host == back.Host && next.Path == back.Path {
				return next.Query(), nil
			}
			if next.Host != req.URL.Host {
				return nil, fmt.Errorf("sign in: the server redirects to %s, where a person has to continue", next.Host)
			}
			req, _ = http.NewRequestWithContext(ctx, http.MethodGet, next.String(), nil) // a URL that was parsed already
			continue
		}
		form := page.form
		switch {
		case form == nil && allowed && a.redirectURI == "" && resp.StatusCode == http.StatusOK:
			return nil, nil
		case form == nil, form.values.Has("user_code") && resp.StatusCode != http.StatusOK:
			return nil, fmt.Errorf("sign in: the server answers %s: %s", resp.Status, page.words())
		case resp.StatusCode == http.StatusForbidden: // the user may not use the app
			return nil, fmt.Errorf("sign in as %s: %s: %w", login, page.words(),
				a.refused(refusal{Code: oauth.CodeAccessDenied}))
		case form.password != "" && signedIn:
			return nil, fmt.Errorf("sign in as %s: %s", login, page.words())
		case form.password != "":
			signedIn = true
			form.values.Set(form.login, login)
			form.values.Set(form.password, password)
		case form.values.Has("user_code"): // it came with the address
		case form.allow == (button{}):
			return nil, errors.New("sign in: one of the pages needs a person to answer it: leave out --login")
		default:
			allowed = true
			form.values.Set(form.allow.name, form.allow.value)
		}
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, form.action.String(),
			strings.NewReader(form.values.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", page.url.Scheme+"://"+page.url.Host)
		}
	}
	return nil, errors.New("sign in: the pages form a loop")
}

// button is the name and value of a button to press.
type button struct{ name, value string }

// page is what a walk understands of an HTML page.
type page struct {
	url     *url.URL
	form    *form    // nil if there is none that can be submitted
	onward  *url.URL // where the page goes by itself; nil when it stays
	heading string
	alert   string
}

// form is a form that is submitted with POST.
type form struct {
	action          *url.URL
	values          url.Values // what is filled in already
	login, password string     // names of the fields
	allow           button     // the button that says yes
}

// words are what the page says to its reader.
func (p *page) words() string {
	text := p.heading
	if p.alert != "" {
		text = p.alert
	}
	if text == "" {
		text = "a page without text"
	}
	return harmless(text)
}

func readPage(at *url.URL, body []byte) (*page, error) {
	root, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		return nil, fmt.Errorf("read page: %w", err)
	}
	p := &page{url: at}
	for n := range root.Descendants() {
		switch {
		case n.Type != html.ElementNode:
		case n.DataAtom == atom.Meta && attribute(n, "http-equiv") == "refresh":
			if address, goes := strings.CutPrefix(attribute(n, "content"), "0;url="); goes {
				if p.onward, err = at.Parse(address); err != nil {
					return nil, fmt.Errorf("read page: %w", err)
				}
			}
		case n.DataAtom == atom.H1 && p.heading == "":
			p.heading = textOf(n)
		case attribute(n, "role") == "alert" && p.alert == "":
			var said []string
			for child := range n.ChildNodes() {
				if text := textOf(child); text != "" {
					said = append(said, text)
				}
			}
			p.alert = strings.Join(said, ": ")
		case n.DataAtom == atom.Form && strings.EqualFold(attribute(n, "method"), "post"):
			f, err := readForm(at, n)
			if err != nil {
				return nil, err
			}
			if p.form == nil || !p.form.answerable() && f.answerable() { // not that of a passkey, before the one of a password
				p.form = f
			}
		}
	}
	return p, nil
}

func readForm(at *url.URL, node *html.Node) (*form, error) {
	action, err := at.Parse(attribute(node, "action"))
	if err != nil {
		return nil, fmt.Errorf("read form: %w", err)
	}
	f := &form{action: action, values: make(url.Values)}
	for n := range node.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		name, value := attribute(n, "name"), attribute(n, "value")
		switch {
		case n.DataAtom == atom.Button && value == "allow":
			f.allow = button{name, value}
		case n.DataAtom != atom.Input || name == "":
		case attribute(n, "type") == "password":
			f.password = name
		case attribute(n, "type") == "hidden":
			f.values.Set(name, value)
		case slices.Contains(strings.Fields(attribute(n, "autocomplete")), "username"):
			f.login = name
		case value != "":
			f.values.Set(name, value)
		}
	}
	return f, nil
}

// answerable reports whether a program can fill the form in.
func (f *form) answerable() bool {
	return f.password != "" || f.allow != (button{}) || f.values.Has("user_code")
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// textOf is the text below a node, in one line.
func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
