//go:build faults

package faults

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// verifier is the PKCE verifier of every code here.
const verifier = "a-verifier-of-PKCE-that-is-long-enough-for-RFC-7636"

// person is somebody with a browser, who signs in when asked and allows everything. A cookie is for all ports of a
// host, so the person is signed in at both replicas.
type person struct {
	issuer string
	app    credentials
	client *http.Client
}

func newPerson(issuer string, app credentials) *person {
	jar, _ := cookiejar.New(nil) // never fails
	return &person{issuer: issuer, app: app, client: &http.Client{
		Jar: jar, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}}
}

// code walks through an authorization at one replica. Nobody writes anything for it once the person is signed in and
// has consented.
func (p *person) code(ctx context.Context, base string) (string, error) {
	digest := sha256.Sum256([]byte(verifier))
	query := url.Values{"response_type": {"code"}, "client_id": {p.app.ID}, "redirect_uri": {callback},
		"scope": {"openid offline_access threads:read"}, "state": {"s"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(digest[:])}, "code_challenge_method": {"S256"}}
	method, address, form := http.MethodGet, base+"/oauth/authorize?"+query.Encode(), url.Values(nil)
	for range 10 {
		req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
		if err != nil {
			return "", err
		}
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		resp, err := p.client.Do(req)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return "", err
		}
		action, fields, onward := readPage(string(body))
		if location := cmp.Or(resp.Header.Get("Location"), onward); location != "" {
			next, err := req.URL.Parse(location)
			if err != nil {
				return "", err
			}
			if strings.HasPrefix(next.String(), callback) {
				if code := next.Query().Get("code"); code != "" {
					return code, nil
				}
				return "", fmt.Errorf("the app is told %s", next.Query().Get("error"))
			}
			method, form = http.MethodGet, nil
			address = base + strings.TrimPrefix(strings.TrimPrefix(next.String(), p.issuer), base)
			continue
		}
		switch {
		case resp.StatusCode >= 500:
			return "", fmt.Errorf("authorize: %d", resp.StatusCode)
		case fields.Has("password"):
			fields.Set("login", login)
			fields.Set("password", password)
			fields.Del("cancel")
		case fields.Has("decision"):
			fields.Set("decision", "allow")
		default:
			return "", fmt.Errorf("authorize: %d with a page that asks nothing", resp.StatusCode)
		}
		to, err := req.URL.Parse(action)
		if err != nil {
			return "", err
		}
		method, address, form = http.MethodPost, to.String(), fields
	}
	return "", errors.New("authorize goes in circles")
}

// readPage finds the form of a page: where it goes, and its fields; or the address to which the page goes by itself.
func readPage(page string) (action string, fields url.Values, onward string) {
	fields = url.Values{}
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return "", fields, ""
	}
	for n := range root.Descendants() {
		attribute := make(map[string]string)
		for _, a := range n.Attr {
			attribute[a.Key] = a.Val
		}
		switch {
		case n.DataAtom == atom.Meta && attribute["http-equiv"] == "refresh":
			_, onward, _ = strings.Cut(attribute["content"], "url=")
		case n.DataAtom == atom.Form && action == "":
			action = attribute["action"]
		case (n.DataAtom == atom.Input || n.DataAtom == atom.Button) && attribute["name"] != "":
			fields.Set(attribute["name"], attribute["value"])
		}
	}
	return action, fields, onward
}
