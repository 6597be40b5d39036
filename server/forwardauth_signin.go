package server

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// The sign-in of forward auth, of which this server is the client: to the pages and back to the app's host, with what
// the browser keeps there. See forwardauth.go for the whole.

// forwardAway is what the state of a sign-in holds, sealed, while the browser is away from the app.
type forwardAway struct {
	Host     string `json:"h"`
	Here     string `json:"u"`
	Browser  string `json:"b"` // hash of the browser's cookie at that host
	Verifier string `json:"v"` // of PKCE
	Expires  int64  `json:"x"` // Unix milliseconds
}

// cameToNothing is why a sign-in for an app came to nothing, which people are told at a page of this server.
type cameToNothing struct {
	host    string // of the app
	reason  pages.Reason
	refused *oauth.Error
}

func (e *cameToNothing) Error() string { return e.refused.Error() }
func (e *cameToNothing) Unwrap() error { return e.refused }

// signInForwarded sends a browser to sign in for an app.
func (s *Server) signInForwarded(w http.ResponseWriter, r *http.Request, f *forwarded) error {
	away := forwardAway{Host: f.host, Here: f.here(), Browser: f.browser(w, r), Verifier: rand.Text() + rand.Text(),
		Expires: s.now().Add(s.life.AuthRequest).UnixMilli()}
	state, err := s.seal(storage.SealAppAway, away)
	if err != nil {
		return err
	}
	scopes := s.offered(f.client, f.client.Scopes)
	redirect(w, s.endpoint(pathAuthorize)+"?"+url.Values{
		"client_id": {f.client.ID}, "response_type": {"code"}, "redirect_uri": {oauth.ForwardCallback(f.host)},
		"scope": {oauth.JoinScopes(oauth.Without(scopes, []string{oauth.ScopeOfflineAccess}))}, "state": {state},
		"code_challenge": {oauth.PKCEChallenge(away.Verifier)}, "code_challenge_method": {oauth.ChallengeS256},
	}.Encode())
	return nil
}

// forwardPage answers what is asked below [oauth.PathForward] of an app's host, which belongs to this server.
func (s *Server) forwardPage(w http.ResponseWriter, r *http.Request, f *forwarded, below string) error {
	switch below {
	case "callback":
		return s.forwardedBack(w, r, f)
	case "logout": // it ends with the session, and nobody is signed out who does not say so
		redirect(w, s.endpoint(pathLogout)+"?"+url.Values{"client_id": {f.client.ID}}.Encode())
		return nil
	}
	return &statusError{http.StatusNotFound, nothingHere()}
}

func nothingHere() *oauth.Error {
	return refuseForward(oauth.RuleForwardRequest, "there is nothing at this address")
}

// forwardedBack takes a browser back that has been away to sign in.
func (s *Server) forwardedBack(w http.ResponseWriter, r *http.Request, f *forwarded) error {
	sent := f.uri.Query()
	var away forwardAway
	if err := s.open(storage.SealAppAway, sent.Get("state"), &away); err != nil && !verdict(err) {
		return err
	}
	switch {
	case away.Host != f.host:
		return f.nothing(pages.ReasonAppReturn, invalidRequest(oauth.RuleForwardReturn,
			"the state is not that of a sign-in which began at this host"))
	case !s.now().Before(time.UnixMilli(away.Expires)):
		return f.nothing(pages.ReasonAppReturn, invalidRequest(oauth.RuleForwardReturn,
			"the sign-in took longer than expiry.authRequests"))
	case sent.Has("error"):
		code := sent.Get("error")
		return f.nothing(reasonOfAnswer(code), oauth.Refuse(knownAnswer(code), oauth.RuleForwardAnswer,
			"the sign-in ended with %s", oauth.Printable(oauth.Cut(code, maxShownClient))))
	}
	switch _, _, err := s.forwardedUser(r, f); {
	case err == nil: // another tab was faster, or the browser asks once more: a code is not used twice
		redirect(w, f.origin()+away.Here)
		return nil
	case !verdict(err):
		return err
	}
	switch held := f.cookie(r, cookieAppBrowser); {
	case held == "": // which cookies would it keep?
		return f.nothing(pages.ReasonAppCookies, invalidRequest(oauth.RuleForwardCookies,
			"the browser came back without the cookie of this host with which the sign-in began"))
	case subtle.ConstantTimeCompare([]byte(hashOf(held)), []byte(away.Browser)) == 0:
		// Of several tabs that were opened at once, each was given a cookie, and the last one is there.
		redirect(w, f.origin()+away.Here)
		return nil
	}
	session, err := s.redeemForwarded(r.Context(), f, sent.Get("code"), away.Verifier)
	if e := refused(err); e != nil {
		return f.nothing(pages.ReasonAppReturn, e)
	} else if err != nil {
		return err
	}
	sealed, err := s.seal(storage.SealApp, session)
	if err != nil {
		return err
	}
	f.setCookie(w, cookieApp, sealed, time.UnixMilli(session.Expires).Sub(s.now()))
	f.setCookie(w, cookieAppBrowser, "", -1)
	redirect(w, f.origin()+away.Here)
	return nil
}

// redeemForwarded redeems a code in the place of the app, and gives what its cookie holds.
func (s *Server) redeemForwarded(ctx context.Context, f *forwarded, sent, verifier string) (forwardSession, error) {
	q := &clientRequest{
		client: &client{Client: f.client, shown: credentials{id: f.client.ID, forward: true}},
		form: url.Values{
			"code": {sent}, "redirect_uri": {oauth.ForwardCallback(f.host)}, "code_verifier": {verifier}}}
	if _, err := s.redeemCode(ctx, q); err != nil { // its tokens are for nobody
		return forwardSession{}, err
	}
	var code authCode
	if err := s.open(storage.SealCode, sent, &code); err != nil {
		return forwardSession{}, err
	}
	return forwardSession{
		Host: f.host, Client: code.Client, Grant: code.Grant, User: code.User, AMR: code.AMR, Class: code.Class,
		Expires: s.forwardEnds(code).UnixMilli(),
	}, nil
}

// bindToHost makes a grant one of the browser at the host where the code came back to: it ends with the session, also
// if somebody has written offline_access into the address on the way. A session that goes on, because its user has
// signed in once more, makes the grant no longer: then the browser gets another one.
func (iss *issuer) bindToHost(grant *storage.Grant, code authCode) {
	grant.Host, grant.OutlivesSession = oauth.ForwardHost(code.RedirectURI), false
	grant.ExpiresAt = iss.forwardEnds(code).UTC()
}

// forwardEnds is when a sign-in to an app behind forward auth ends: with the session, at the latest.
func (iss *issuer) forwardEnds(code authCode) time.Time {
	if code.SessionEnds == 0 {
		return time.UnixMilli(code.Issued).Add(iss.life.Session)
	}
	return time.UnixMilli(code.SessionEnds)
}

// nothing is why a sign-in for the app has come to nothing.
func (f *forwarded) nothing(reason pages.Reason, e *oauth.Error) error {
	return &cameToNothing{f.host, reason, e}
}

// knownAnswer is the code of an answer in the place of a code, of those that this server gives: anybody can write one
// into an address.
func knownAnswer(code string) string {
	switch code {
	case oauth.CodeAccessDenied, oauth.CodeTemporarilyUnavailable, oauth.CodeServerError:
		return code
	}
	return oauth.CodeInvalidRequest
}

func reasonOfAnswer(code string) pages.Reason {
	switch code {
	case oauth.CodeAccessDenied:
		return pages.ReasonAppDenied
	case oauth.CodeTemporarilyUnavailable, oauth.CodeServerError:
		return pages.ReasonUnavailable
	}
	return pages.ReasonAppReturn
}

// stopped is the address of a page that says that a sign-in has come to nothing, why, at which app, and by which id the
// operator finds it. At the app there is no page of ours.
func (s *Server) stopped(e *cameToNothing, requestID string) string {
	return s.endpoint(pathStopped) + "?" + url.Values{"error": {knownAnswer(e.refused.Code)}, "reason": {string(e.reason)},
		"host": {e.host}, "request": {requestID}}.Encode()
}

// stoppedPage tells people that a sign-in to an app behind forward auth has come to nothing. Anybody can write such an
// address, so it says and leads to nothing but what this server knows.
func (s *Server) stoppedPage(w http.ResponseWriter, r *http.Request) {
	s.keepLang(w, r)
	sent := r.URL.Query()
	page := pages.Error{Reason: pages.ReasonAppReturn, Code: knownAnswer(sent.Get("error"))}
	switch reason := pages.Reason(sent.Get("reason")); reason {
	case pages.ReasonAppCookies, pages.ReasonAppDenied, pages.ReasonUnavailable:
		page.Reason = reason
	}
	if host := sent.Get("host"); host != "" {
		if c := s.store.AtHost(host); c != nil {
			home := oauth.ForwardOrigin(host) + "/"
			page.App, page.Back = appOf(c), pages.Back{RedirectURI: home, Link: home}
		}
	}
	if id := sent.Get("request"); isRequestID(id) {
		page.RequestID = id
	}
	s.fault(w, r, page)
}

// Cookies at the hosts of apps. Ports of one host share them, so where a host has one, their names end with it.
const (
	cookieApp        = "warifu_app"
	cookieAppBrowser = "warifu_away"
)

func (f *forwarded) cookieName(name string) string {
	at, err := url.Parse(f.origin())
	if err != nil {
		return name // no host that a manifest may list
	}
	if at.Scheme == "https" {
		name = "__Host-" + name
	}
	if port := at.Port(); port != "" {
		name += "_" + port
	}
	return name
}

func (f *forwarded) setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := &http.Cookie{Name: f.cookieName(name), Value: value, Path: "/", HttpOnly: true,
		MaxAge:   int((life + time.Second - 1) / time.Second), // up: 0 would be for as long as the browser runs
		SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(f.origin(), "https://")}
	if life < 0 {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// cookie is what the browser keeps for the app's host; if there are two of one name, one was planted, and neither
// counts.
func (f *forwarded) cookie(r *http.Request, name string) string {
	held := r.CookiesNamed(f.cookieName(name))
	if len(held) != 1 || len(held[0].Value) > maxForwardCookie {
		return ""
	}
	return held[0].Value
}

// maxForwardCookie bounds what is opened.
const maxForwardCookie = 3072

// browser is the hash of the cookie that ties a sign-in to the browser in which it began, at the app's host.
func (f *forwarded) browser(w http.ResponseWriter, r *http.Request) string {
	held := f.cookie(r, cookieAppBrowser)
	if len(held) < 32 {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
		held = base64.RawURLEncoding.EncodeToString(b)
		f.setCookie(w, cookieAppBrowser, held, 0)
	}
	return hashOf(held)
}
