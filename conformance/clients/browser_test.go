//go:build e2e

package clients

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/warifu/warifu/conformance/local"
)

// browser is a person's browser: it keeps cookies, follows redirects, and fills in the forms of the server.
type browser struct {
	t    testing.TB
	http *http.Client
}

func newBrowser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.Roots}}}}
}

// visit opens an address, presses the main button of each page of the server, and gives the page of the app where that ends.
func (b *browser) visit(address string) string {
	b.t.Helper()
	resp, err := b.http.Get(address)
	for range 5 {
		if err != nil {
			b.t.Fatal(err)
		}
		body := b.read(resp)
		if !strings.HasPrefix(resp.Request.URL.String(), server.Issuer) {
			if resp.StatusCode != http.StatusOK {
				b.t.Fatalf("%s: status %d\n%s", resp.Request.URL.Path, resp.StatusCode, body)
			}
			return body
		}
		action, fields := mainForm(b.t, resp.Request.URL, body)
		resp, err = b.http.PostForm(action, fields)
	}
	b.t.Fatalf("still at the server: %s", resp.Request.URL.Path)
	return ""
}

func (b *browser) read(resp *http.Response) string {
	b.t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		b.t.Fatal(err)
	}
	return string(body)
}

// mainForm finds the form with the main button of a page, and fills it in.
func mainForm(t testing.TB, at *url.URL, body string) (string, url.Values) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	attr := func(n *html.Node, key string) string {
		for _, a := range n.Attr {
			if a.Key == key {
				return a.Val
			}
		}
		return ""
	}
	for form := range root.Descendants() {
		if form.Data != "form" {
			continue
		}
		fields, main := url.Values{}, false
		for n := range form.Descendants() {
			name := attr(n, "name")
			switch {
			case n.Data == "button" && strings.Contains(attr(n, "class"), "primary"):
				main = true
				if name != "" {
					fields.Set(name, attr(n, "value"))
				}
			case n.Data == "input" && name == "login":
				fields.Set(name, local.Login)
			case n.Data == "input" && name == "password":
				fields.Set(name, local.Password)
			case n.Data == "input":
				fields.Set(name, attr(n, "value"))
			}
		}
		if main {
			action, err := at.Parse(attr(form, "action"))
			if err != nil {
				t.Fatal(err)
			}
			return action.String(), fields
		}
	}
	t.Fatalf("no form with a main button at %s:\n%s", at.Path, body)
	return "", nil
}
