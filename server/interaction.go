package server

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/text/language"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Guesses of passwords: at most so many for an account in each window of time. A lock ends with its window.
const (
	mostGuesses = 10
	guessWindow = 15 * time.Minute
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
	bad := onPage(pages.ReasonInvalidRequest, "invalid_request", "the parameters are not well-formed")
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
		return turn{}, onPage(pages.ReasonInvalidRequest, "invalid_request", "the pending authorization request was altered or is too old")
	} else if err != nil {
		return turn{}, err
	}
	if !s.sameBrowser(r, &a) {
		return turn{}, onPage(pages.ReasonOtherBrowser, "invalid_request", "the authorization request was started in another browser, or the browser keeps no cookies")
	}
	if s.now().After(a.started().Add(s.life.AuthRequest)) {
		return turn{}, onPage(pages.ReasonExpired, "invalid_request", "the authorization request has expired")
	}
	if a.Device != nil && a.Device.Grant == "" {
		return turn{client: &storage.Client{}, request: &a, sealed: sealed}, nil // nobody has looked yet whose code it is
	}
	c, err := s.client(r.Context(), a.ClientID)
	if errors.Is(err, storage.ErrNotFound) {
		return turn{}, onPage(pages.ReasonInvalidClient, "invalid_client", "the client was removed while the user was asked")
	} else if err != nil {
		return turn{}, err
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
		return turn{}, onPage(pages.ReasonInvalidRequest, "invalid_request", "the form is not well-formed")
	}
	t, err := s.pending(r, r.PostForm.Get(fieldRequest))
	if err != nil {
		return turn{}, err
	}
	if !s.checkFormToken(r.PostForm.Get(fieldForm), t.request.Browser, t.sealed) {
		return turn{}, onPage(pages.ReasonForbidden, "invalid_request", "the form is not one that this server made for this browser")
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
		s.refuse(w, r, &redirectError{t.request.to(), d.code, d.why})
	case stepDone:
		s.answer(w, r, t, p)
	}
}

// answer gives the client its code. The code holds everything; nothing is stored, but that a pushed request is answered.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence) {
	a := t.request
	if err := s.answerOnce(r.Context(), t); err != nil {
		s.refuse(w, r, err)
		return
	}
	code, err := s.seal(storage.SealCode, authCode{
		approval: approvalOf(a, p, storage.NewGrantID()), RedirectURI: a.RedirectURI, Nonce: a.Nonce, Challenge: a.Challenge,
		Expires: s.now().Add(s.life.Code).UnixMilli(), Told: s.userClaims(t.client, p.User, nil, a.Claims.forIDToken()),
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

// signIn takes the sign-in form.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	t, err := s.form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.PostForm.Get(pages.FieldCancel) != "" && t.request.Device == nil {
		s.refuse(w, r, &redirectError{t.request.to(), codeAccessDenied, "the user did not want to sign in"})
		return
	}
	login, password := r.PostForm.Get(pages.FieldLogin), r.PostForm.Get(pages.FieldPassword)
	t.login = cut(login, maxHint)
	if s.cfg.Passwords == nil || len(login) > maxHint || len(password) > 1024 {
		t.problem = pages.ProblemCredentials
		s.showSignIn(w, r, t)
		return
	}
	// The guess is counted before it is checked, so guesses in parallel gain nothing.
	account := s.cfg.Passwords.Account(login)
	free, retry, err := s.store.TakeGuess(r.Context(), account, mostGuesses, guessWindow)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if !free {
		t.problem, t.retry = pages.ProblemTooMany, retry.Sub(s.now())
		s.showSignIn(w, r, t)
		return
	}
	who, right, err := s.cfg.Passwords.Login(r.Context(), login, password)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if right {
		right, err = s.begin(w, r, who)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	if !right {
		s.log.InfoContext(r.Context(), "sign-in failed", "client", t.client.ID)
		t.problem = pages.ProblemCredentials
		s.showSignIn(w, r, t)
		return
	}
	if err := s.store.ForgiveGuesses(r.Context(), account, guessWindow); err != nil {
		s.log.WarnContext(r.Context(), "forgiving guesses", "error", err)
	}
	s.backTo(w, r, t)
}

// begin starts a session under a new id, in the place of the one that the browser had: that of the same user goes on, that of
// another ends. False: the account is disabled.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, who connector.Identity) (bool, error) {
	u, err := s.store.User(r.Context(), who.UserID)
	if errors.Is(err, storage.ErrNotFound) || (err == nil && !u.Active()) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	old, _ := s.session(r)
	now := s.now().UTC()
	id, err := s.store.CreateSession(r.Context(), storage.Session{
		UserID: u.ID, AuthTime: now, AMR: []string{"pwd"}, ExpiresAt: now.Add(s.life.Session)}, old.ID)
	if err != nil {
		return false, err
	}
	if old.ID != "" {
		s.wakeSender() // another user's session may have ended
	}
	return true, s.setSession(w, sessionRef{ID: id, User: u.ID})
}

// consent takes the consent form.
func (s *Server) consent(w http.ResponseWriter, r *http.Request) {
	t, err := s.form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ref, ok := s.session(r)
	decision := r.PostForm.Get(pages.FieldDecision)
	if t.request.Device != nil && (decision == pages.DecisionAllow || decision == pages.DecisionDeny) {
		s.decideDevice(w, r, t, decision)
		return
	}
	switch decision {
	case pages.DecisionDeny:
		s.refuse(w, r, &redirectError{t.request.to(), codeAccessDenied, "the user denied the request"})
	case pages.DecisionSwitch:
		if ok {
			if _, err := s.endSession(r.Context(), ref, "the user switched accounts"); err != nil {
				s.refuse(w, r, err)
				return
			}
		}
		s.setCookie(w, cookieSession, "", -1)
		s.backTo(w, r, t)
	case pages.DecisionAllow:
		// The form says for whom it was shown: somebody else may have signed in meanwhile, in another tab.
		if !ok || r.PostForm.Get(fieldUser) != hashed(ref.User) {
			s.advance(w, r, t)
			return
		}
		s.allow(w, r, t, ref)
	default:
		s.refuse(w, r, onPage(pages.ReasonInvalidRequest, "invalid_request", "the form says neither allow nor deny"))
	}
}

// fieldUser is the hash of the user id for whom a consent page was shown.
const fieldUser = "user"

// allow remembers what the user allowed, provided that the session still stands, and answers.
func (s *Server) allow(w http.ResponseWriter, r *http.Request, t turn, ref sessionRef) {
	p, err := s.store.Presence(r.Context(), ref.ID, ref.User, t.client.ID)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	t.allowed = true
	if next(t.request, p, true, s.now()).step != stepDone {
		t.allowed = false
		s.advance(w, r, t)
		return
	}
	if asks := t.request.asks(); !p.Consent.Covers(asks) {
		if err := s.store.AddConsent(r.Context(), t.client.ID, ref.User, asks); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	s.answer(w, r, t, p)
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

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request, t turn) {
	hidden, err := s.hidden(t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.SignIn{
		Frame: s.frame(r, t), App: shownApp(t), Action: s.base + pathSignIn, Hidden: hidden,
		Login: t.request.LoginHint, Problem: t.problem, RetryAfter: t.retry, CanCancel: t.request.Device == nil,
	}
	if t.login != "" {
		page.Login = t.login
	}
	status := http.StatusOK
	switch t.problem {
	case pages.ProblemCredentials:
		status = http.StatusUnprocessableEntity
	case pages.ProblemTooMany:
		status = http.StatusTooManyRequests
	}
	s.pages.Render(w, status, page)
}

func (s *Server) showConsent(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence, fresh []string) {
	hidden, err := s.hidden(t, pages.Field{Name: fieldUser, Value: hashed(p.User.ID)})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Consent{
		Frame: s.frame(r, t), App: shownApp(t), Action: s.base + pathConsent, Hidden: hidden,
		UserName: shownName(p.User), UserEmail: p.User.Email,
		UnusedFor: s.life.RefreshIdle, AtMost: s.life.RefreshAbsolute,
	}
	page.New = s.describe(fresh, page.Lang)
	page.Granted = s.describe(oauth.Without(t.request.asks(), fresh), page.Lang)
	s.pages.Render(w, http.StatusOK, page)
}

// describe puts scopes into words.
func (s *Server) describe(names []string, lang language.Tag) []pages.Scope {
	var out []pages.Scope
	for _, name := range names {
		scope := s.scopes.scopes[name]
		text := scope.Description[lang.String()]
		if text == "" {
			text = scope.Description["en"]
		}
		if text == "" {
			text = name
		}
		out = append(out, pages.Scope{Name: name, Description: text, Risk: pages.Risk(scope.Risk)})
	}
	return out
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
	if described(t.client) {
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
