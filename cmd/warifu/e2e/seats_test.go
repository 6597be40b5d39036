//go:build e2e

package e2e

import (
	"crypto/rand"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"testing"
)

// logout is what the manifest of an app says that signs people out on both sides.
var logout = []string{
	"postLogoutRedirectUris: ['{app}/bye', '{app}/nothing']",
	"frontchannelLogoutUri: '{app}/frontchannel'",
	"frontchannelLogoutSessionRequired: true",
}

// seat is a session of somebody at the app, which belongs to one at the server.
type seat struct {
	issuer, sid string // of the ID token
	email       string
	token       string // the ID token itself
}

// serveSeats serves what the app has for those who are signed in.
func (a *app) serveSeats(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /logout", a.logout)
	mux.HandleFunc("GET /frontchannel", a.frontchannel)
	mux.HandleFunc("GET /bye", a.bye)
	// Who is sent here stays on the page that they have.
	mux.HandleFunc("GET /nothing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
}

// sit gives somebody who has signed in a session at the app. All apps are on one host, so each has a cookie of its own.
func (a *app) sit(w http.ResponseWriter, v visit) {
	var claims struct {
		SID string `json:"sid"`
	}
	if v.ID == nil || v.User == nil || v.ID.Claims(&claims) != nil {
		return
	}
	raw, _ := v.Token.Extra("id_token").(string)
	cookie := rand.Text()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seats[cookie] = seat{issuer: v.ID.Issuer, sid: claims.SID, email: v.User.Email, token: raw}
	http.SetCookie(w, &http.Cookie{Name: a.name, Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func (a *app) sits(r *http.Request) seat {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cookie, err := r.Cookie(a.name); err == nil {
		return a.seats[cookie.Value]
	}
	return seat{}
}

// seated is how many people are signed in.
func (a *app) seated() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seats)
}

var seatPage = template.Must(template.New("seat").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>App</title><link rel="icon" href="data:,">
<h1 id="{{.ID}}">{{.Text}}</h1>`))

func (a *app) show(w http.ResponseWriter, id, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = seatPage.Execute(w, struct{ ID, Text string }{id, text}) // a browser that has gone is no fault of ours
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	if who := a.sits(r).email; who != "" {
		a.show(w, "user", who)
		return
	}
	a.show(w, "nobody", "nobody is signed in")
}

// logout sends somebody who wants to sign out to the server, with their ID token (OpenID Connect RP-Initiated Logout
// 1.0). The query may name another way back than /bye, or ask to leave the ID token out.
func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	var metadata struct {
		End string `json:"end_session_endpoint"`
	}
	if err := a.provider.Claims(&metadata); err != nil || metadata.End == "" {
		http.Error(w, "the server offers no logout", http.StatusInternalServerError)
		return
	}
	query := url.Values{"client_id": {a.oauth.ClientID}, "post_logout_redirect_uri": {a.url("/bye")}, "state": {"a b"}}
	if back := r.FormValue("back"); back != "" {
		query.Set("post_logout_redirect_uri", a.url(back))
	}
	if r.FormValue("hint") != "none" {
		query.Set("id_token_hint", a.sits(r).token)
	}
	http.Redirect(w, r, metadata.End+"?"+query.Encode(), http.StatusFound)
}

// frontchannel ends sessions by the session id of the server, as the page in the frame of another site gets no cookies
// (OpenID Connect Front-Channel Logout 1.0 section 3).
func (a *app) frontchannel(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	for cookie, s := range a.seats {
		if s.sid != "" && s.sid == r.FormValue("sid") && s.issuer == r.FormValue("iss") {
			delete(a.seats, cookie)
		}
	}
	a.mu.Unlock()
	a.show(w, "ended", "signed out here")
}

// bye is where people come back to when they are signed out.
func (a *app) bye(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.left = append(a.left, r.FormValue("state"))
	a.mu.Unlock()
	if !a.sendOn(w, r, "") {
		a.show(w, "bye", "goodbye")
	}
}

// saidBye checks with which states people came back signed out.
func (a *app) saidBye(t *testing.T, states ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.left, states) {
		t.Errorf("came back signed out with %q, want %q", a.left, states)
	}
}
