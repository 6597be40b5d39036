package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cli/browser"
	"github.com/spf13/cobra"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
)

// tokenOptions are the flags of `warifu token`.
type tokenOptions struct {
	scopes        []string
	login         string
	passwordStdin bool
	noBrowser     bool
	device        bool
	timeout       time.Duration
}

func (c *cli) token() *cobra.Command {
	var opts tokenOptions
	command := &cobra.Command{
		Use: "token APP", Short: "Get a first token without writing an app",
		Long: `token acts as the app: it listens on a loopback port that the app's redirect URIs allow, prints (and on a
terminal opens) the address at which to sign in, and prints the token response as JSON.
With --device it acts as an app without a browser: it shows a code, and a QR code to scan with another device.
With --login it goes through the pages itself and allows what the app asks for; nothing listens then.`,
		Example: `  warifu token my-oauth-app
  warifu token my-oauth-app --scope threads:read --scope openid
  warifu token my-tv-app --device
  echo "$PASSWORD" | warifu token my-oauth-app --login dev@example.com --password-stdin`,
		Args: operands(1), ValidArgsFunction: c.completeApps,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (opts.login != "") != opts.passwordStdin {
				return usagef("--login and --password-stdin must be used together")
			}
			return c.getToken(cmd.Context(), args[0], opts)
		},
	}
	flags := command.Flags()
	flags.StringSliceVar(&opts.scopes, "scope", nil,
		"scope to ask for; can be repeated, or a list separated by commas (default: all scopes of the app)")
	flags.StringVar(&opts.login, "login", "", "sign in as this user")
	flags.BoolVar(&opts.passwordStdin, "password-stdin", false, "read the user's password from stdin")
	flags.BoolVar(&opts.device, "device", false, "use the device grant: show a code and wait until a user has entered it")
	flags.BoolVar(&opts.noBrowser, "no-browser", false, "print the address, and do not open it")
	flags.DurationVar(&opts.timeout, "timeout", 10*time.Minute, "how long to wait until somebody has signed in")
	return command
}

// authorization is one run of the authorization code flow (RFC 6749 section 4.1, with PKCE, RFC 7636).
type authorization struct {
	http        *http.Client
	issuer      string
	credentials admin.Credentials
	method      string // the registered token_endpoint_auth_method; empty: the secret in either way
	redirectURI string
	state       string
	verifier    string
	requestID   string // of the last response, by which warifu explain finds it

	authorizeAt, tokenAt, deviceAt string // endpoints, from the issuer's metadata; deviceAt is empty when there is none
}

func (c *cli) getToken(ctx context.Context, app string, opts tokenOptions) error {
	detail, err := fetch[admin.AppDetail](ctx, c, appPath(app))
	if err != nil {
		return err
	}
	creds, err := fetch[admin.Credentials](ctx, c, appPath(app)+"/credentials")
	if err != nil {
		return err
	}
	if err := canStandIn(app, detail.Client, opts.device); err != nil {
		return err
	}
	a := &authorization{
		http: &http.Client{Timeout: 30 * time.Second}, issuer: creds.Issuer, credentials: creds,
		method: detail.Client.TokenEndpointAuthMethod,
		state:  rand.Text(), verifier: rand.Text() + rand.Text(),
	}
	if err := a.discover(ctx); err != nil {
		return err
	}
	scopes := opts.scopes
	if len(scopes) == 0 {
		scopes = detail.Client.Scopes
	}
	var reply []byte
	if opts.device {
		reply, err = c.deviceTokens(ctx, device{a, sleep}, scopes, opts)
	} else {
		reply, err = c.codeTokens(ctx, a, app, detail.Client.RedirectURIs, scopes, opts)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.stdout, string(reply))
	return err
}

// codeTokens gets an authorization code, from a browser or by walking the pages, and redeems it.
func (c *cli) codeTokens(ctx context.Context, a *authorization, app string, redirectURIs, scopes []string,
	opts tokenOptions) ([]byte, error) {
	loopback := oauth.LoopbackRedirects(redirectURIs)
	var answer url.Values
	switch {
	case opts.login != "":
		password, err := c.readPassword()
		if err != nil {
			return nil, err
		}
		// The walk stops before the redirect is followed, so any registered URI will do.
		if a.redirectURI = redirectURIs[0]; len(loopback) > 0 {
			a.redirectURI = loopback[0].URI(anyPort)
		}
		if answer, err = a.walk(ctx, a.url(scopes), opts.login, password); err != nil {
			return nil, err
		}
	case len(loopback) == 0:
		return nil, fmt.Errorf("%s has no redirect URI on this machine: add http://localhost:* to spec.oauth.redirectUris "+
			"of its manifest, apply it, and take it out before production", app)
	default:
		var err error
		if answer, err = c.waitForAnswer(ctx, a, loopback, scopes, opts); err != nil {
			return nil, err
		}
	}
	return a.redeem(ctx, answer)
}

// readPassword reads the password from stdin.
func (c *cli) readPassword() (string, error) {
	password, err := io.ReadAll(io.LimitReader(c.stdin, 4096))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return strings.TrimRight(string(password), "\r\n"), nil
}

// canStandIn returns an error that says why this command cannot act as the app, if it cannot.
func canStandIn(app string, client *admin.Client, device bool) error {
	switch {
	case client.TokenEndpointAuthMethod == plugins.AuthMethodWorkload:
		return fmt.Errorf("%s authenticates with the token of a workload (spec.oauth.identities), which only that "+
			"workload has", app)
	case client.TokenEndpointAuthMethod == plugins.AuthMethodPrivateKeyJWT:
		return fmt.Errorf("%s signs its token requests with a private key (private_key_jwt) that only the app has", app)
	case onlyForwardAuth(*client):
		return fmt.Errorf("%s is behind forward auth and asks for no tokens: open %s/ in a browser to sign in to it", app,
			oauth.ForwardOrigin(client.ForwardAuthHosts[0]))
	case device && !slices.Contains(client.GrantTypes, oauth.GrantDeviceCode):
		return fmt.Errorf("%s may not use the device grant: add %s to spec.oauth.grantTypes of its manifest, beside those "+
			"that it uses already, and apply it", app, oauth.GrantDeviceCode)
	case device:
	case len(client.RedirectURIs) == 0 && slices.Contains(client.GrantTypes, oauth.GrantDeviceCode):
		return fmt.Errorf("%s has no redirect URI: use --device", app)
	case len(client.RedirectURIs) == 0:
		return fmt.Errorf("%s has no redirect URI: users do not sign in to it (see spec.oauth.grantTypes of its manifest)",
			app)
	}
	return nil
}

// anyPort is the port for a redirect URI that leaves it open, when nothing listens there.
const anyPort = 49152

// discover reads where the endpoints are (OpenID Connect Discovery section 4).
func (a *authorization) discover(ctx context.Context) error {
	var metadata struct {
		Issuer    string `json:"issuer"`
		Authorize string `json:"authorization_endpoint"`
		Token     string `json:"token_endpoint"`
		Device    string `json:"device_authorization_endpoint"`
	}
	where := a.issuer + "/.well-known/openid-configuration"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return fmt.Errorf("read %s: %w", where, err)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return &unreachableError{a.issuer, err}
	}
	defer func() { _ = resp.Body.Close() }()
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&metadata)
	if err != nil || resp.StatusCode != http.StatusOK || metadata.Issuer != a.issuer {
		return fmt.Errorf("read %s: it is not the metadata of this issuer (%s)", where, resp.Status)
	}
	a.authorizeAt, a.tokenAt, a.deviceAt = metadata.Authorize, metadata.Token, metadata.Device
	return nil
}

// url is the address of the authorization request.
func (a *authorization) url(scopes []string) string {
	return a.authorizeAt + "?" + url.Values{
		"response_type": {"code"}, "client_id": {a.credentials.ClientID}, "redirect_uri": {a.redirectURI},
		"scope": {strings.Join(scopes, " ")}, "state": {a.state},
		"code_challenge": {oauth.PKCEChallenge(a.verifier)}, "code_challenge_method": {oauth.ChallengeS256},
	}.Encode()
}

// redeem checks the authorization response and exchanges its code. It returns the token response as it came.
func (a *authorization) redeem(ctx context.Context, answer url.Values) ([]byte, error) {
	switch {
	case subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(a.state)) != 1:
		return nil, errors.New("the response belongs to another request (its state differs)")
	case answer.Get("iss") != a.issuer: // RFC 9207
		return nil, fmt.Errorf("the response is from another issuer (%q)", answer.Get("iss"))
	case answer.Get("error") != "":
		return nil, a.refused(refusal{answer.Get("error"), answer.Get("error_description")})
	}
	status, body, err := a.post(ctx, "redeem the code", a.tokenAt, url.Values{
		"grant_type": {"authorization_code"}, "code": {answer.Get("code")}, "redirect_uri": {a.redirectURI},
		"code_verifier": {a.verifier},
	})
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, a.refused(refusalIn(body))
	}
	return body, nil
}

// post sends a form to an endpoint, with the app's credentials, and returns the JSON that it answers.
func (a *authorization) post(ctx context.Context, what, where string, form url.Values) (
	status int, body []byte, err error) {
	form.Set("client_id", a.credentials.ClientID)
	inHeader := a.method == "client_secret_basic"
	if a.credentials.ClientSecret != "" && !inHeader {
		form.Set("client_secret", a.credentials.ClientSecret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", what, err)
	}
	if inHeader { // each form-encoded first (RFC 6749 section 2.3.1)
		req.SetBasicAuth(url.QueryEscape(a.credentials.ClientID), url.QueryEscape(a.credentials.ClientSecret))
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = resp.Body.Close() }()
	a.requestID = resp.Header.Get("X-Request-Id")
	if body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", what, err)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // one that cannot be parsed does not match below
	if !json.Valid(body) || kind != "application/json" {
		return 0, nil, fmt.Errorf("%s: the server answers %s without JSON", what, resp.Status)
	}
	return resp.StatusCode, []byte(strings.TrimSpace(string(body))), nil
}

// refusal is an error reply (RFC 6749 section 5.2).
type refusal struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// refusalIn is the refusal in a reply; anything else has no code.
func refusalIn(body []byte) (r refusal) {
	_ = json.Unmarshal(body, &r)
	return r
}

// refusedError is a refusal by the server, with the id of the request.
type refusedError struct {
	refusal
	requestID string
}

func (e *refusedError) Error() string {
	if e.Description == "" {
		return "the server answers " + harmless(e.Code)
	}
	return "the server answers " + harmless(e.Code) + ": " + harmless(e.Description)
}

// refused is the error of the last request.
func (a *authorization) refused(r refusal) error { return &refusedError{r, a.requestID} }

// waitForAnswer listens where the app would, sends the user to the server, and waits until they come back.
func (c *cli) waitForAnswer(ctx context.Context, a *authorization, redirects []oauth.LoopbackRedirect, scopes []string,
	opts tokenOptions) (url.Values, error) {
	listener, redirect, err := listenForAnswer(ctx, redirects)
	if err != nil {
		return nil, err
	}
	a.redirectURI = redirect.URI(listener.Addr().(*net.TCPAddr).Port)
	answers := make(chan url.Values, 1)
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: answerPage(redirect.Path, a.state, answers)}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }() // ends with Shutdown below
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.Shutdown(end) != nil {
			_ = s.Close()
		}
	}()
	address := a.url(scopes)
	c.say("Sign in and allow the app at:\n\n  %s\n", address)
	if !opts.noBrowser && isTerminal(c.stderr) {
		browser.Stdout, browser.Stderr = io.Discard, io.Discard
		if err := browser.OpenURL(address); err != nil {
			c.say("(No browser could be opened: open the address yourself.)")
		}
	}
	late := time.NewTimer(opts.timeout)
	defer late.Stop()
	select {
	case answer := <-answers:
		return answer, nil
	case <-late.C:
		return nil, fmt.Errorf("nobody has signed in for %s: run it again, or have it wait longer with --timeout",
			opts.timeout)
	case err := <-served:
		return nil, fmt.Errorf("wait for the response: %w", err)
	case <-ctx.Done():
		return nil, errors.New("interrupted before anyone signed in")
	}
}

// listenForAnswer takes the first redirect URI whose port is free.
func listenForAnswer(ctx context.Context, redirects []oauth.LoopbackRedirect) (
	net.Listener, oauth.LoopbackRedirect, error) {
	var errs []error
	for _, redirect := range redirects {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", redirect.Address())
		if err == nil {
			return listener, redirect, nil
		}
		errs = append(errs, err)
	}
	return nil, oauth.LoopbackRedirect{}, fmt.Errorf("listen for the response: no port that the app's redirect URIs "+
		"allow is free (stop the program that uses it, or add http://localhost:* to them): %w", errors.Join(errs...))
}

// answerPage accepts the redirect with the right state, once, and tells the user that they are done.
func answerPage(path, state string, answers chan<- url.Values) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		query := r.URL.Query()
		if r.Method != http.MethodGet || r.URL.EscapedPath() != path || query.Get("state") != state {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "This is not the address that warifu token is waiting at.\n")
			return
		}
		_, _ = io.WriteString(w, "Done. You can close this page and go back to the terminal.\n")
		select {
		case answers <- query:
		default: // the page was loaded again
		}
	})
}
