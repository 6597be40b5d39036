package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/html"

	"github.com/warifu/warifu/conformance/local"
)

// relying is warifu as a relying party: a server whose people sign in at the suite, by connectors of type oidc. Each
// module has a connector of its own, which has asked nobody anything yet, because the suite is another provider in
// each.
type relying struct {
	server *local.Server
	suite  string
	app    local.Credentials
	roots  *x509.CertPool
	log    *os.File
	used   int // connectors
}

const (
	// connectorCount is how many modules can be run in a plan, those counted twice that are run once more.
	connectorCount = 64
	// suiteClient is what the suite calls this server.
	suiteClient = "warifu"
	// appAddress is where the app's browser ends. Nobody goes there.
	appAddress = "https://app.example/callback"
)

// How a sign-in ends, as plans say what is expected of it.
const (
	signedIn    = "signed in"
	refused     = "refused"     // a page says that the provider's answer is not believed
	unavailable = "unavailable" // a page says that there is something wrong with the provider
	sentAway    = "sent away"   // the browser was on its way to the provider, and has not gone on
)

// newRelying starts a server whose connectors have these keys beside those that all have, and completes the
// configuration of a plan with what the suite has to know of it.
func newRelying(ctx context.Context, opts options, s *suite, p *plan) (_ *relying, err error) {
	r := &relying{suite: s.base}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.log, err = os.Create(filepath.Join(opts.report, "warifu-relying.log")); err != nil {
		return nil, err
	}
	var authorities []byte
	for _, c := range s.certificates {
		authorities = append(authorities, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	secret := rand.Text() + rand.Text()
	keys := map[string]any{
		"issuer": r.suite + "/test/a/warifu/", "clientID": suiteClient, "clientSecret": secret,
		"redirectURI": "$ISSUER/callback", "rootCAs": []string{string(authorities)},
	}
	merge(keys, p.Connector)
	var connectors []any
	for i := range connectorCount {
		connectors = append(connectors, map[string]any{"type": "oidc", "id": connectorID(i), "name": "Suite", "config": keys})
	}
	settings, err := json.Marshal(connectors)
	if err != nil {
		return nil, err
	}
	if r.server, err = local.Start(ctx, local.Options{
		Binary: opts.warifu, Log: r.log, Config: fmt.Sprintf("trusted: [oidf-app]\nconnectors: %s\n", settings),
	}); err != nil {
		return nil, err
	}
	if r.app, err = r.server.Deploy("oidf-app", "clientName: App", "redirectUris: ["+appAddress+"]", "scopes: [openid]",
		"consent: skip"); err != nil {
		return nil, err
	}
	r.roots = r.server.Roots.Clone()
	for _, c := range s.certificates {
		r.roots.AddCert(c)
	}
	p.Config = map[string]any{
		"alias": "warifu", "description": "warifu as a relying party", "waitTimeoutSeconds": 3,
		"client": map[string]any{
			"client_id": suiteClient, "client_secret": secret, "redirect_uri": r.server.Issuer + "/callback",
		},
	}
	return r, nil
}

func (r *relying) close() error {
	var errs []error
	if r.server != nil {
		errs = append(errs, r.server.Stop())
	}
	if r.log != nil {
		errs = append(errs, r.log.Close())
	}
	return errors.Join(errs...)
}

func connectorID(i int) string { return fmt.Sprintf("suite-%d", i) }

// signIn has somebody sign in by the next connector, and says how it differs from what is expected, "" when it does
// not. "twice" is to be signed in twice, each time with a browser that knows nobody.
func (r *relying) signIn(ctx context.Context, want string) (string, error) {
	times := 1
	switch want {
	case "":
		want = signedIn
	case "twice":
		want, times = signedIn, 2
	}
	id := connectorID(r.used)
	r.used++
	for range times {
		got, err := r.visit(ctx, id, want == sentAway)
		if err != nil {
			return "", err
		}
		if got != want {
			return fmt.Sprintf("the sign-in ends as %s, not as %s", got, want), nil
		}
	}
	return "", nil
}

// visit goes from an app to where the sign-in ends.
func (r *relying) visit(ctx context.Context, connector string, stopAtSuite bool) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	browser := &http.Client{
		Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots}},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			to := next.URL.String()
			if len(via) > 10 || strings.HasPrefix(to, appAddress) || stopAtSuite && strings.HasPrefix(to, r.suite) {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	verifier := sha256.Sum256([]byte(rand.Text()))
	address := r.server.Issuer + "/oauth/authorize?" + url.Values{
		"client_id": {r.app.ClientID}, "redirect_uri": {appAddress}, "response_type": {"code"}, "scope": {"openid"},
		"state": {rand.Text()}, "code_challenge_method": {"S256"}, "idp_hint": {connector},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(verifier[:])},
	}.Encode()
	method, fields := http.MethodGet, url.Values{}
	for range 5 {
		req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(fields.Encode()))
		if err != nil {
			return "", err
		}
		req.Header.Set("Accept", "text/html")
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		resp, err := browser.Do(req)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return "", err
		}
		if ends := r.ended(resp, string(body)); ends != "" {
			return ends, nil
		}
		if address, fields = r.onward(body); address == "" {
			return fmt.Sprintf("status %d at %s", resp.StatusCode, resp.Request.URL.Path), nil
		}
		method = http.MethodPost
	}
	return "a page that posts itself for ever", nil
}

// ended says how a sign-in has ended, if it has. After a form, a page leads on to the app.
func (r *relying) ended(resp *http.Response, body string) string {
	to, err := url.Parse(cmp.Or(resp.Header.Get("Location"), local.Onward(body)))
	switch {
	case err == nil && strings.HasPrefix(to.String(), appAddress) && to.Query().Get("code") != "":
		return signedIn
	case err == nil && strings.HasPrefix(to.String(), r.suite):
		return sentAway
	case !strings.HasPrefix(resp.Request.URL.String(), r.server.Issuer):
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusUnprocessableEntity:
		return refused
	case resp.StatusCode == http.StatusServiceUnavailable:
		return unavailable
	}
	return ""
}

// onward is the form of a page that posts itself to the callback: that of the suite for form_post, and ours, by which
// what came from elsewhere comes from here.
func (r *relying) onward(page []byte) (string, url.Values) {
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		return "", nil
	}
	for form := range root.Descendants() {
		action, err := url.Parse(attribute(form, "action"))
		if form.Data != "form" || err != nil || !strings.HasPrefix(action.Path, "/callback") {
			continue
		}
		fields := url.Values{}
		for input := range form.Descendants() {
			if name := attribute(input, "name"); input.Data == "input" && name != "" {
				fields.Set(name, attribute(input, "value"))
			}
		}
		return r.server.Issuer + action.Path, fields
	}
	return "", nil
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}
