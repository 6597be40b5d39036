// Command shop is a container that lets people sign in. All that it knows of the server is in its env, and standard
// libraries (golang.org/x/oauth2, coreos/go-oidc) find the rest by discovery: nothing here is warifu's.
//
// It is replaced when its env changes, so what it remembers of a person travels in cookies that scripts cannot read. It
// serves on a free port of 127.0.0.1 and announces it with a file in /instances, for a router; on SIGTERM it takes the
// file away, answers the requests that still come, and ends once there are no more.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// quiet is how long there must have been no request before it is certain that the router has noticed.
const quiet = 300 * time.Millisecond

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	provider, err := oidc.NewProvider(ctx, os.Getenv("OAUTH_ISSUER"))
	if err != nil {
		return fmt.Errorf("discover the issuer: %w", err)
	}
	s := &shop{provider: provider, oauth: oauth2.Config{
		ClientID: os.Getenv("OAUTH_CLIENT_ID"), ClientSecret: os.Getenv("OAUTH_CLIENT_SECRET"), Endpoint: provider.Endpoint(),
		Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess, "threads:read"},
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /callback", s.callback)
	mux.HandleFunc("POST /refresh", s.refresh)

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var last atomic.Int64 // the time of the last request, in nanoseconds
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			last.Store(time.Now().UnixNano())
			mux.ServeHTTP(w, r)
		})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	entry := filepath.Join("/instances", listener.Addr().String())
	if err := os.WriteFile(entry, nil, 0o600); err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	if err := os.Remove(entry); err != nil {
		return err
	}
	last.Store(time.Now().UnixNano())
	for time.Since(time.Unix(0, last.Load())) < quiet {
		time.Sleep(quiet / 4)
	}
	return server.Shutdown(context.Background())
}

type shop struct {
	provider *oidc.Provider
	oauth    oauth2.Config
}

// sent is what an answer of the server has to fit.
type sent struct{ State, Nonce, Verifier string }

// session is a user who is signed in.
type session struct {
	Access, Refresh string
	Refreshes       int
}

const sentCookie, sessionCookie = "shop_login", "shop_session"

func (s *shop) home(w http.ResponseWriter, r *http.Request) {
	var of session
	if !read(r, sessionCookie, &of) {
		show(w, http.StatusOK, "nobody", nil)
		return
	}
	user, err := s.provider.UserInfo(r.Context(), oauth2.StaticTokenSource(&oauth2.Token{AccessToken: of.Access}))
	if err != nil {
		fail(w, err)
		return
	}
	show(w, http.StatusOK, "user", map[string]any{"Email": user.Email, "Refreshes": of.Refreshes})
}

// at is the client for the address that this request came to.
func (s *shop) at(r *http.Request) *oauth2.Config {
	config := s.oauth
	config.RedirectURL = "http://" + r.Host + "/callback"
	return &config
}

func (s *shop) login(w http.ResponseWriter, r *http.Request) {
	to := sent{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier()}
	keep(w, sentCookie, to)
	http.Redirect(w, r, s.at(r).AuthCodeURL(to.State, oidc.Nonce(to.Nonce), oauth2.S256ChallengeOption(to.Verifier)),
		http.StatusSeeOther)
}

func (s *shop) callback(w http.ResponseWriter, r *http.Request) {
	var to sent
	if !read(r, sentCookie, &to) || r.URL.Query().Get("state") != to.State {
		fail(w, errors.New("this browser was not on its way to sign in"))
		return
	}
	if code := r.URL.Query().Get("error"); code != "" {
		fail(w, errors.New(code))
		return
	}
	token, err := s.at(r).Exchange(r.Context(), r.URL.Query().Get("code"), oauth2.VerifierOption(to.Verifier))
	if err != nil {
		fail(w, err)
		return
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := s.provider.Verifier(&oidc.Config{ClientID: s.oauth.ClientID}).Verify(r.Context(), raw)
	if err != nil || id.Nonce != to.Nonce {
		fail(w, fmt.Errorf("the ID token is not for this sign-in: %w", err))
		return
	}
	keep(w, sessionCookie, session{Access: token.AccessToken, Refresh: token.RefreshToken})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// refresh trades the refresh token for the next tokens. A refresh token works once.
func (s *shop) refresh(w http.ResponseWriter, r *http.Request) {
	var of session
	if !read(r, sessionCookie, &of) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	token, err := s.oauth.TokenSource(r.Context(), &oauth2.Token{RefreshToken: of.Refresh}).Token()
	if err != nil {
		fail(w, err)
		return
	}
	keep(w, sessionCookie, session{Access: token.AccessToken, Refresh: token.RefreshToken, Refreshes: of.Refreshes + 1})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func keep(w http.ResponseWriter, name string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and a number
	}
	http.SetCookie(w, &http.Cookie{Name: name, Value: base64.RawURLEncoding.EncodeToString(text), Path: "/",
		HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func read(r *http.Request, name string, into any) bool {
	cookie, err := r.Cookie(name)
	if err != nil {
		return false
	}
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	return err == nil && json.Unmarshal(text, into) == nil
}

// fail shows what went wrong; the libraries' errors hold no token that was issued.
func fail(w http.ResponseWriter, err error) { show(w, http.StatusBadRequest, "fault", err.Error()) }

func show(w http.ResponseWriter, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = pages.ExecuteTemplate(w, name, data) // an error means that the browser has gone
}

var pages = template.Must(template.New("").Parse(`
{{define "top"}}<!doctype html><html lang="en"><meta charset="utf-8"><title>Shop</title><link rel="icon" href="data:,">{{end}}
{{define "nobody"}}{{template "top"}}<h1>Nobody is signed in</h1><form method="post" action="/login"><button id="signin">Sign in</button></form>{{end}}
{{define "user"}}{{template "top"}}<h1>Hello, <span id="user">{{.Email}}</span></h1>
<p>New tokens so far: <span id="refreshes">{{.Refreshes}}</span></p>
<form method="post" action="/refresh"><button id="refresh">Get new tokens</button></form>{{end}}
{{define "fault"}}{{template "top"}}<h1 id="error">{{.}}</h1><p><a href="/">Back</a></p>{{end}}`))
