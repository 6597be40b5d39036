package differential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// redirectURI is where the client gets its codes. Nobody listens there.
const redirectURI = "http://127.0.0.1:5555/callback"

// signIn goes to an address as a browser without scripts does, types a name and a password into the form that asks for
// them, consents, and comes back with the parameters that the client gets.
func signIn(t *testing.T, address, login, password string) (url.Values, error) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), redirectURI) {
			return http.ErrUseLastResponse
		}
		if len(via) > 10 {
			return errors.New("redirects without end")
		}
		return nil
	}}
	response, err := browser.Get(address)
	for range 10 {
		if err != nil {
			return nil, err
		}
		page, readErr := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if readErr != nil {
			return nil, readErr
		}
		if to := response.Header.Get("Location"); strings.HasPrefix(to, redirectURI) {
			back, err := url.Parse(to)
			if err != nil {
				return nil, err
			}
			return back.Query(), nil
		}
		root, parseErr := html.Parse(bytes.NewReader(page))
		if parseErr != nil {
			return nil, parseErr
		}
		if to := refresh(root); to != "" {
			onward, parseErr := response.Request.URL.Parse(to)
			if parseErr != nil {
				return nil, parseErr
			}
			if strings.HasPrefix(onward.String(), redirectURI) {
				return onward.Query(), nil
			}
			response, err = browser.Get(onward.String())
			continue
		}
		form, is := formOf(root)
		if !is || form.filled && response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s at %s", response.Status, response.Request.URL.Path)
		}
		if form.password != "" {
			form.values.Set(form.login, login)
			form.values.Set(form.password, password)
		}
		to, parseErr := response.Request.URL.Parse(form.action)
		if parseErr != nil {
			return nil, parseErr
		}
		response, err = browser.PostForm(to.String(), form.values)
	}
	return nil, errors.New("the form comes again and again")
}

// refresh is where a page leads on to by itself.
func refresh(root *html.Node) string {
	for n := range root.Descendants() {
		if n.Data == "meta" && strings.EqualFold(attribute(n, "http-equiv"), "refresh") {
			_, to, _ := strings.Cut(attribute(n, "content"), "url=")
			return to
		}
	}
	return ""
}

// form is what a page asks.
type form struct {
	action string
	values url.Values
	// login and password are what it calls them, if it asks for them.
	login, password string
	filled          bool // it knows the name already: it comes for another time
}

// formOf is the form of a page that asks for a password, by which Dex asks for consent, or that goes on by itself.
func formOf(root *html.Node) (form, bool) {
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" {
			continue
		}
		f := form{action: attribute(n, "action"), values: url.Values{}}
		for in := range n.Descendants() {
			if in.Type != html.ElementNode || in.Data != "input" {
				continue
			}
			name, value := attribute(in, "name"), attribute(in, "value")
			switch attribute(in, "type") {
			case "hidden":
				f.values.Add(name, value)
			case "password":
				f.password = name
			case "text":
				f.login, f.filled = name, value != ""
			}
		}
		if f.password != "" || f.values.Get("approval") == "approve" || f.values.Has("SAMLRequest") ||
			f.values.Has("SAMLResponse") {
			return f, true
		}
	}
	return form{}, false
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
