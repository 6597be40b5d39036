package server

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/text/language"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Fields of our forms beside those of package pages.
const (
	fieldRequest = "request"
	fieldForm    = "form"
)

// authorize is the authorization endpoint (RFC 6749 section 3.1).
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	params, err := s.authorizeParams(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.Method == http.MethodPost {
		// A form of another site brings no SameSite cookies; the GET that follows does.
		noStore(w)
		http.Redirect(w, r, s.endpoint(pathAuthorize)+"?"+params.Encode(), http.StatusSeeOther)
		return
	}
	c, a, err := s.parseAuthRequest(r.Context(), params)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	a.Started = s.now().UnixNano()
	a.Browser = s.browser(w, r)
	sealed, err := s.seal(storage.SealRequest, a)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.advance(w, r, turn{client: c, request: a, sealed: sealed})
}

func (s *Server) authorizeParams(r *http.Request) (url.Values, error) {
	bad := onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleParameterMalformed, "the parameters are not well-formed"))
	if r.Method != http.MethodPost { // GET or HEAD
		params, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return nil, bad
		}
		return params, nil
	}
	if err := r.ParseForm(); err != nil || len(r.PostForm.Encode()) > maxQuery || r.URL.RawQuery != "" {
		return nil, bad
	}
	return r.PostForm, nil
}

// resume shows a pending request again: after a form, after a change of language, after a reload.
func (s *Server) resume(w http.ResponseWriter, r *http.Request) {
	t, err := s.pending(r, r.URL.Query().Get(fieldRequest))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.keepLang(w, r)
	s.advance(w, r, t)
}

// turn is one request of a browser about a pending authorization request.
type turn struct {
	client  *storage.Client
	request *AuthRequest
	sealed  string

	allowed bool          // the user has just pressed allow
	problem pages.Problem // of a sign-in that failed
	login   string        // what was typed then
	retry   time.Duration
}

// pending opens a sealed request and checks again everything that can have changed since it was sealed.
func (s *Server) pending(r *http.Request, sealed string) (turn, error) {
	var a AuthRequest
	if err := s.open(storage.SealRequest, sealed, &a); errors.Is(err, storage.ErrNotFound) {
		return turn{}, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleRequestAltered, "the pending authorization request was altered or is too old"))
	} else if err != nil {
		return turn{}, err
	}
	if !s.sameBrowser(r, &a) {
		return turn{}, onPage(pages.ReasonOtherBrowser, invalidRequest(oauth.RuleOtherBrowser,
			"the authorization request was started in another browser, or the browser keeps no cookies"))
	}
	if s.now().After(a.started().Add(s.life.AuthRequest)) {
		return turn{}, onPage(pages.ReasonExpired, invalidRequest(oauth.RuleRequestExpired, "the authorization request has expired"))
	}
	if a.Device != nil && a.Device.Grant == "" {
		return turn{client: &storage.Client{}, request: &a, sealed: sealed}, nil // the code has not been looked up yet
	}
	v := visitOf(r.Context())
	v.client = a.ClientID
	c, err := s.clients.Client(r.Context(), a.ClientID)
	if errors.Is(err, storage.ErrNotFound) {
		return turn{}, onPage(pages.ReasonInvalidClient, oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleClientRemoved, "the client was removed while the user was asked"))
	} else if err != nil {
		return turn{}, err
	}
	v.of(c)
	if !c.Issued(a.started()) || a.Device != nil && !a.Device.Created.IsZero() && !c.Issued(a.Device.Created) {
		return turn{}, onPage(pages.ReasonExpired, oauth.Refuse(oauth.CodeInvalidRequest, oauth.RuleClientReturned, "the request is older than the client"))
	}
	if a.Device != nil {
		return turn{client: c, request: &a, sealed: sealed}, nil
	}
	if err := s.stillGood(c, &a); err != nil {
		return turn{}, err
	}
	return turn{client: c, request: &a, sealed: sealed}, nil
}

// form opens the pending request of a posted form, provided that we made the form for this browser.
func (s *Server) form(r *http.Request) (turn, error) {
	if err := r.ParseForm(); err != nil {
		return turn{}, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleBodyMalformed, "the form is not well-formed"))
	}
	t, err := s.pending(r, r.PostForm.Get(fieldRequest))
	if err != nil {
		return turn{}, err
	}
	if !s.checkFormToken(r.PostForm.Get(fieldForm), t.request.Browser, t.sealed) {
		return turn{}, onPage(pages.ReasonForbidden, invalidRequest(oauth.RuleFormForeign, "the form is not one that this server made for this browser"))
	}
	return t, nil
}

// advance reads who is there, asks next what to do, and does it.
func (s *Server) advance(w http.ResponseWriter, r *http.Request, t turn) {
	if t.request.Device != nil && t.request.Device.Decision != "" {
		s.showDeviceDone(w, r, t)
		return
	}
	var p storage.Presence
	if ref, ok := s.session(r); ok {
		var err error
		if p, err = s.store.Presence(r.Context(), ref.ID, ref.User, t.client.ID); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	switch d := next(t.request, p, t.allowed, s.now()); d.step {
	case stepSignIn:
		s.showSignIn(w, r, t)
	case stepConsent:
		if t.request.Device != nil {
			s.confirmDevice(w, r, t, p)
			return
		}
		s.showConsent(w, r, t, p, d.fresh)
	case stepRefuse:
		s.refuse(w, r, &redirectError{t.request.to(), d.refused})
	case stepDone:
		s.answer(w, r, t, p)
	}
}

// answer gives the client its code. The code holds everything; nothing is stored, but that a pushed request is
// answered.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence) {
	a := t.request
	if err := s.answerOnce(r.Context(), t); err != nil {
		s.refuse(w, r, err)
		return
	}
	now := s.now()
	code, err := s.seal(storage.SealCode, authCode{
		approval: approvalOf(a, p, storage.NewGrantID()), RedirectURI: a.RedirectURI, Nonce: a.Nonce, Challenge: a.Challenge,
		Issued: now.UnixMilli(), Expires: now.Add(s.life.Code).UnixMilli(), Told: s.userClaims(t.client, p.User, nil, a.Claims.forIDToken()),
	})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.respond(w, r, a.to(), url.Values{"code": {code}})
}

// approvalOf is what the user who is present allows with a request.
func approvalOf(a *AuthRequest, p storage.Presence, grant string) approval {
	return approval{
		Grant: grant, Client: a.ClientID, User: p.User.ID, UserRevision: p.User.Revision, Scopes: a.Scopes,
		AuthTime: p.Session.AuthTime.UnixMilli(), AMR: p.Session.AMR, Session: p.Session.SID,
		Claims: a.Claims, ACR: a.ACR, DPoPKey: a.DPoPKey, Resources: a.Resources,
	}
}

// backTo shows the pending request again, by GET, so that a reload sends no form twice.
func (s *Server) backTo(w http.ResponseWriter, r *http.Request, t turn) {
	noStore(w)
	http.Redirect(w, r, s.continueURL(t, ""), http.StatusSeeOther)
}

func (s *Server) continueURL(t turn, lang string) string {
	query := url.Values{fieldRequest: {t.sealed}}
	if lang != "" {
		query.Set(fieldLang, lang)
	}
	return s.base + pathContinue + "?" + query.Encode()
}

func (s *Server) hidden(t turn, more ...pages.Field) ([]pages.Field, error) {
	token, err := s.formToken(t.request.Browser, t.sealed)
	if err != nil {
		return nil, err
	}
	return append([]pages.Field{{Name: fieldRequest, Value: t.sealed}, {Name: fieldForm, Value: token}}, more...), nil
}

func shownApp(t turn) pages.App {
	app := pages.App{
		ClientName: t.client.ClientName, LogoURI: t.client.LogoURI, TosURI: t.client.TOSURI, PolicyURI: t.client.PolicyURI,
		RedirectURI: t.request.RedirectURI,
	}
	if clients.Described(t.client) {
		app.DescribedAt = t.client.ID
	}
	return app
}

func (s *Server) frame(r *http.Request, t turn) pages.Frame {
	return pages.Frame{
		Lang: s.lang(r, t.request.UILocales), English: s.continueURL(t, "en"), Japanese: s.continueURL(t, "ja"),
	}
}

// lang is the language of a page: the one that the user chose on a page, else the one that the app asked for, else the
// browser's.
func (s *Server) lang(r *http.Request, uiLocales string) language.Tag {
	if chosen := chosenLang(r); chosen != "" {
		uiLocales = chosen
	} else if chosen := s.cookie(r, cookieLang); chosen != "" {
		uiLocales = chosen
	}
	return s.pages.Lang(uiLocales, r.Header.Get("Accept-Language"))
}

// fieldLang is in the addresses of our own language links.
const fieldLang = "lang"

func chosenLang(r *http.Request) string { return r.URL.Query().Get(fieldLang) }

// keepLang remembers the choice for the pages that follow.
func (s *Server) keepLang(w http.ResponseWriter, r *http.Request) {
	if chosen := chosenLang(r); chosen == "en" || chosen == "ja" {
		s.setCookie(w, cookieLang, chosen, 365*24*time.Hour)
	}
}

// shownName is how a page names a user, beside the e-mail address if there is one.
func shownName(user *storage.User) string {
	switch {
	case user.Name != "":
		return user.Name
	case user.Email != "":
		return ""
	case user.Username != "":
		return user.Username
	}
	return user.ID
}
