//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/hashicorp/go-envparse"
	"golang.org/x/oauth2"
)

// app is a small web app that lets people sign in: an ordinary OAuth client on a loopback port. All it knows of the
// server is in its environment.
type app struct {
	name     string // in its app.yml
	server   *httptest.Server
	oauth    oauth2.Config
	provider *oidc.Provider

	mu      sync.Mutex // guards what follows
	pending map[string]pending
	visits  []visit
	seats   map[string]seat // by cookie
	left    []string        // state of those who came back signed out
	onward  string          // where everybody is sent on who comes back; nowhere when empty
}

// pending is what the app remembers of a person whom it sent away.
type pending struct{ nonce, verifier string }

// visit is what a person came back with.
type visit struct {
	Code, Description string // error and error_description of the redirect
	Fault             error  // anything else that went wrong
	Token             *oauth2.Token
	ID                *oidc.IDToken
	User              *oidc.UserInfo
}

// defaultScopes are those that the app asks for unless its address says otherwise.
const defaultScopes = "openid profile email threads:read threads:write"

// newApp deploys an app to the shared server and starts it. No other test and no other run of this one has the same, so
// what a person allowed there says nothing here. more is what else its manifest registers.
func newApp(t *testing.T, name string, more ...string) *app {
	t.Helper()
	return suite.server.deploy(t, name+"-"+strings.ToLower(rand.Text()[:8]), suite.site.URL, more...)
}

// deploy applies the manifest of an app and starts the app with what the server delivered to it. In the lines of more,
// {app} is where the app will be.
func (p *process) deploy(t *testing.T, name, site string, more ...string) *app {
	t.Helper()
	a := unstarted(t, name)
	text := strings.ReplaceAll(manifest(name, site, more...), "{app}", a.url(""))
	command(t, text, "apply", "-f", "-", "--yes", "--wait", "--admin", p.ready.Admin)
	var deliveries []struct {
		App      string `json:"app"`
		Location string `json:"location"`
	}
	out := command(t, "", "get", "deliveries", "--app", name, "-o", "json", "--admin", p.ready.Admin)
	if err := json.Unmarshal([]byte(out), &deliveries); err != nil || len(deliveries) != 1 {
		t.Fatalf("deliveries of %s: %s (%v)", name, out, err)
	}
	a.start(t, deliveries[0].Location)
	return a
}

// unstarted is an app that has its port already.
func unstarted(t *testing.T, name string) *app {
	t.Helper()
	a := &app{name: name, server: httptest.NewUnstartedServer(nil), pending: make(map[string]pending),
		seats: make(map[string]seat)}
	t.Cleanup(a.server.Close)
	return a
}

// readEnv reads an env file, which must set what the spec promises, the issuer, and nothing else.
func readEnv(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	env, err := envparse.Parse(file)
	if err != nil {
		t.Fatalf("read env file: %v", err)
	}
	if names := slices.Sorted(maps.Keys(env)); strings.Join(names, " ") != "OAUTH_CLIENT_ID OAUTH_CLIENT_SECRET "+
		"OAUTH_ISSUER" {
		t.Fatalf("the env file sets %v", names)
	}
	return env
}

// startApp starts an app whose environment is the env file at path.
func startApp(t *testing.T, name, path string) *app {
	t.Helper()
	a := unstarted(t, name)
	a.start(t, path)
	return a
}

func (a *app) start(t *testing.T, path string) {
	t.Helper()
	env := readEnv(t, path)
	var err error
	if a.provider, err = oidc.NewProvider(t.Context(), env["OAUTH_ISSUER"]); err != nil {
		t.Fatalf("discover the issuer: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", a.login)
	mux.HandleFunc("GET /callback", a.callback)
	mux.HandleFunc("POST /callback", a.callback) // response_mode=form_post
	mux.HandleFunc("GET /popup", popup)
	a.serveSeats(mux)
	a.server.Config.Handler = mux
	a.server.Start()
	a.oauth = oauth2.Config{
		ClientID: env["OAUTH_CLIENT_ID"], ClientSecret: env["OAUTH_CLIENT_SECRET"], Endpoint: a.provider.Endpoint(),
		RedirectURL: a.url("/callback"),
	}
}

// url is an address of the app, as a browser on this machine spells it.
func (a *app) url(path string) string {
	return fmt.Sprintf("http://localhost:%d%s", a.server.Listener.Addr().(*net.TCPAddr).Port, path)
}

// last is how the last visit ended.
func (a *app) last(t *testing.T) visit {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.visits) == 0 {
		t.Fatal("nobody came back to the app")
	}
	return a.visits[len(a.visits)-1]
}

// came is how many people came back.
func (a *app) came() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.visits)
}

// login sends a person to the server. Its query says which scopes to ask for and what else to send along.
func (a *app) login(w http.ResponseWriter, r *http.Request) {
	state, wait := rand.Text(), pending{nonce: rand.Text(), verifier: oauth2.GenerateVerifier()}
	a.mu.Lock()
	a.pending[state] = wait
	a.mu.Unlock()
	config := a.oauth
	config.Scopes = []string{defaultScopes}
	options := []oauth2.AuthCodeOption{oidc.Nonce(wait.nonce), oauth2.S256ChallengeOption(wait.verifier)}
	for name, values := range r.URL.Query() {
		if name == "scope" {
			config.Scopes = values
		} else {
			options = append(options, oauth2.SetAuthURLParam(name, values[0]))
		}
	}
	http.Redirect(w, r, config.AuthCodeURL(state, options...), http.StatusFound)
}

var resultPage = template.Must(template.New("result").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>App</title><link rel="icon" href="data:,">
<h1 id="result">{{if .Fault}}fault: {{.Fault}}{{else if .Code}}error: {{.Code}}{{else}}signed in{{end}}</h1>
{{with .User}}<p id="user">{{.Email}}</p>{{end}}`))

func (a *app) callback(w http.ResponseWriter, r *http.Request) {
	v := a.receive(r)
	a.mu.Lock()
	a.visits = append(a.visits, v)
	a.mu.Unlock()
	a.sit(w, v)
	if a.sendOn(w, r, v.Code) {
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if v.Code != "" || v.Fault != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = resultPage.Execute(w, v) // a browser that has gone is no fault of ours
}

// sendsOn makes the app send those who come back on to a page of another site, as a callback on loopback does that
// leads to "you can close this window" on the web.
func (a *app) sendsOn(t *testing.T) {
	t.Helper()
	_, port, err := net.SplitHostPort(suite.site.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a.onward = "http://" + elsewhere + ":" + port + "/terms"
}

func (a *app) sendOn(w http.ResponseWriter, r *http.Request, code string) bool {
	if a.onward != "" {
		http.Redirect(w, r, a.onward+"?error="+code, http.StatusSeeOther)
	}
	return a.onward != ""
}

// popup is a page that signs people in in a window of its own.
func popup(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, `<!doctype html><html lang="en"><meta charset="utf-8"><title>App</title><link rel="icon" href="data:,">
<button onclick="window.open('/login', 'signin', 'width=500,height=700')">sign in</button>`) // as above
}

// receive is what every callback does: check who answers to what, redeem the code, verify, ask who it is.
func (a *app) receive(r *http.Request) visit {
	if err := r.ParseForm(); err != nil {
		return visit{Fault: err}
	}
	query := r.Form
	a.mu.Lock()
	wait, known := a.pending[query.Get("state")]
	delete(a.pending, query.Get("state"))
	a.mu.Unlock()
	if !known {
		return visit{Fault: fmt.Errorf("nobody was sent away with this state")}
	}
	var metadata struct {
		Issuer string `json:"issuer"`
	}
	if err := a.provider.Claims(&metadata); err != nil || query.Get("iss") != metadata.Issuer {
		return visit{Fault: fmt.Errorf("the answer is from the issuer %q", query.Get("iss"))}
	}
	if code := query.Get("error"); code != "" {
		return visit{Code: code, Description: query.Get("error_description")}
	}
	token, err := a.oauth.Exchange(r.Context(), query.Get("code"), oauth2.VerifierOption(wait.verifier))
	if err != nil {
		return visit{Fault: fmt.Errorf("redeem the code: %w", err)}
	}
	v := visit{Token: token}
	if raw, ok := token.Extra("id_token").(string); ok {
		if v.ID, v.Fault = a.verify(r.Context(), raw, token.AccessToken, wait.nonce); v.Fault != nil {
			return v
		}
		v.User, v.Fault = a.provider.UserInfo(r.Context(), oauth2.StaticTokenSource(token))
	}
	return v
}

func (a *app) verify(ctx context.Context, raw, accessToken, nonce string) (*oidc.IDToken, error) {
	id, err := a.provider.Verifier(&oidc.Config{ClientID: a.oauth.ClientID}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("verify the ID token: %w", err)
	}
	if id.Nonce != nonce {
		return nil, fmt.Errorf("the ID token has another nonce")
	}
	if err := id.VerifyAccessToken(accessToken); err != nil {
		return nil, fmt.Errorf("verify the access token's hash: %w", err)
	}
	return id, nil
}

// refresh trades a refresh token for the next tokens.
func (a *app) refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error) {
	return a.oauth.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
}

// site serves what the metadata of apps links to, and pages that break rules, to see that a tab notices.
type site struct{ *httptest.Server }

func newSite() *site {
	page := func(kind, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			_, _ = io.WriteString(w, body)
		}
	}
	const html, icon = "text/html; charset=utf-8",
		`<!doctype html><html lang="en"><meta charset="utf-8"><title>Site</title><link rel="icon" href="data:,">`
	mux := http.NewServeMux()
	mux.HandleFunc("GET /logo.svg", page("image/svg+xml",
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 56 56" width="56" height="56"><rect width="56" height="56" fill="#2a6f5b"/><path d="M14 18h28v6H14zM14 29h18v6H14z" fill="#fff"/><circle cx="41" cy="41" r="7" fill="#f2c14e"/></svg>`))
	mux.HandleFunc("GET /terms", page(html, icon+`<h1>Terms</h1>`))
	mux.HandleFunc("GET /privacy", page(html, icon+`<h1>Privacy</h1>`))
	mux.HandleFunc("GET /strict", page(html, icon+
		`<form method="get" action="/terms"><button>go</button></form><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="">`,
		"Content-Security-Policy", "default-src 'none'; form-action 'none'"))
	mux.HandleFunc("GET /throws", page(html, icon+`<script>throw new Error("thrown")</script>`))
	mux.HandleFunc("GET /missing", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", html)
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, icon+`<h1>Missing</h1>`)
	})
	return &site{httptest.NewServer(mux)}
}
