package local

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// Browser is the user's browser: it keeps cookies, follows redirects, and fills in the forms of the server.
type Browser struct {
	http    *http.Client
	issuers []string
}

// Browser opens one that knows nobody. It also fills in the forms of others, as of one that is an identity provider.
func (s *Server) Browser(others ...*Server) *Browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // it never fails without options
	}
	roots, issuers := s.Roots.Clone(), []string{s.Issuer}
	for _, other := range others {
		authority, err := os.ReadFile(other.CAFile)
		if err != nil {
			panic(err) // Start has written it
		}
		roots.AppendCertsFromPEM(authority)
		issuers = append(issuers, other.Issuer)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return &Browser{&http.Client{Jar: jar, Transport: navigation{transport}}, issuers}
}

// navigation asks for pages, as a browser does that goes to an address.
type navigation struct{ http.RoundTripper }

func (n navigation) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	return n.RoundTripper.RoundTrip(r)
}

// Visit opens an address, presses the main button of each page of the server, and gives the page of the app where that
// ends, with status 200.
func (b *Browser) Visit(address string) (string, error) {
	resp, err := b.http.Get(address)
	if err != nil {
		return "", err
	}
	return b.walk(resp)
}

// walk goes from a response to the page of the app.
func (b *Browser) walk(resp *http.Response) (string, error) {
	for range 8 {
		at := resp.Request.URL
		body, err := read(resp)
		switch {
		case err != nil:
			return "", err
		case slices.ContainsFunc(b.issuers, func(issuer string) bool { return strings.HasPrefix(at.String(), issuer) }):
		case resp.StatusCode != http.StatusOK:
			return "", fmt.Errorf("%s: status %d\n%s", at.Path, resp.StatusCode, body)
		default:
			return body, nil
		}
		if onward := Onward(body); onward != "" {
			if resp, err = b.http.Get(onward); err != nil {
				return "", err
			}
			continue
		}
		action, fields, err := mainForm(at, body)
		if err != nil {
			return "", err
		}
		if resp, err = b.http.PostForm(action, fields); err != nil {
			return "", err
		}
	}
	return "", errors.Join(fmt.Errorf("still at the server: %s", resp.Request.URL.Path), resp.Body.Close())
}

// Press fills in the form with an action on a page of the app, and goes on as [Browser.Visit] does.
func (b *Browser) Press(page, body, action string) (string, error) {
	at, err := url.Parse(page)
	if err != nil {
		return "", err
	}
	root, err := html.Parse(strings.NewReader(body))
	if err != nil {
		return "", err
	}
	for form := range root.Descendants() {
		if to, err := at.Parse(attribute(form, "action")); form.Data == "form" && err == nil && to.Path == action {
			fields, _ := filled(form)
			resp, err := b.http.PostForm(to.String(), fields)
			if err != nil {
				return "", err
			}
			return b.walk(resp)
		}
	}
	return "", fmt.Errorf("no form with the action %s at %s:\n%s", action, page, body)
}

// Cookies are those that the browser sends to an address.
func (b *Browser) Cookies(address string) ([]*http.Cookie, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return b.http.Jar.Cookies(u), nil
}

func read(resp *http.Response) (string, error) {
	body, err := io.ReadAll(resp.Body)
	return string(body), errors.Join(err, resp.Body.Close())
}

// Onward is the address to which a page goes by itself, "" when it stays.
func Onward(body string) string {
	_, content, goes := strings.Cut(body, `<meta http-equiv="refresh" content="0;url=`)
	if !goes {
		return ""
	}
	address, _, _ := strings.Cut(content, `"`)
	return html.UnescapeString(address)
}

// mainForm finds the form with the main button of a page, and fills it in.
func mainForm(at *url.URL, body string) (string, url.Values, error) {
	root, err := html.Parse(strings.NewReader(body))
	if err != nil {
		return "", nil, err
	}
	for form := range root.Descendants() {
		if form.Data != "form" {
			continue
		}
		if fields, main := filled(form); main {
			action, err := at.Parse(attribute(form, "action"))
			if err != nil {
				return "", nil, err
			}
			return action.String(), fields, nil
		}
	}
	return "", nil, fmt.Errorf("no form with a main button at %s:\n%s", at.Path, body)
}

// filled fills in a form, as the user would, and reports whether it has a main button, which is then pressed.
func filled(form *html.Node) (fields url.Values, main bool) {
	fields = url.Values{}
	for n := range form.Descendants() {
		name := attribute(n, "name")
		switch {
		case n.Data == "button" && strings.Contains(attribute(n, "class"), "primary"):
			main = true
			if name != "" {
				fields.Set(name, attribute(n, "value"))
			}
		case n.Data == "input" && name == "login":
			fields.Set(name, Login)
		case n.Data == "input" && name == "password":
			fields.Set(name, Password)
		case n.Data == "input":
			fields.Set(name, attribute(n, "value"))
		}
	}
	return fields, main
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}
