package server

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/text/language"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/connector"
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
	params, err := authorizeParams(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.Method == http.MethodPost {
		// A form of another site brings no SameSite cookies; the GET that follows does.
		s.goOn(w, r, pathAuthorize, params)
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

func authorizeParams(r *http.Request) (url.Values, error) {
	bad := onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleParameterMalformed,
		"the parameters are not well-formed"))
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

// resume shows a pending request again: after a form, after a change of language, after a reload. One that is late goes
// on under a new address.
func (s *Server) resume(w http.ResponseWriter, r *http.Request) {
	t, err := s.pending(r, r.URL.Query().Get(fieldRequest))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.keepLang(w, r)
	switch {
	case t.over != nil:
		s.refuse(w, r, t.onPage(pages.ReasonExpired, t.over))
	case t.late:
		s.backTo(w, r, t)
	default:
		s.advance(w, r, t)
	}
}

// turn is one request of a browser about a pending authorization request.
type turn struct {
	client  *storage.Client
	request *AuthRequest
	sealed  string
	late    bool         // it has waited for longer than a request may
	over    *oauth.Error // says so, when it cannot be renewed

	factors *storage.Factors    // of the user, where they have to prove more; nil if nobody has looked
	allowed bool                // the user has just pressed allow
	problem pages.Problem       // of a sign-in that failed
	way     connector.Connector // by which it was tried, or is asked for
	state   storage.Once        // of the question that an identity provider has answered: signing in uses it up
	login   string              // what was typed then
	retry   time.Duration

	factorProblem pages.FactorProblem // of a second factor that failed
}

// renewable is for how long the browser that began a request may go on with it although its time is over: for a page
// that was left open, and not for one that was bookmarked.
const renewable = 24 * time.Hour

// renew lets a request that is late begin anew: the user is asked whatever they were asked, and answers in time. It is
// over when it is too old, or was pushed: that such a request is answered once is remembered for as long as its time.
// One that no client waits for is never over.
func (s *Server) renew(t *turn) error {
	age := s.now().Sub(t.request.started())
	if t.late = age > s.life.AuthRequest; !t.late {
		return nil
	}
	if t.request.fromApp() && (t.request.Pushed != nil || age > renewable) {
		t.over = oauth.Refuse(oauth.CodeTemporarilyUnavailable, oauth.RuleRequestExpired,
			"the user took longer than an authorization request may wait; begin again")
		return nil
	}
	return s.change(t, func(a *AuthRequest) { a.Started = s.now().UnixNano() })
}

// change alters the pending request of a turn.
func (s *Server) change(t *turn, change func(*AuthRequest)) error {
	changed := *t.request
	change(&changed)
	sealed, err := s.seal(storage.SealRequest, changed)
	if err != nil {
		return err
	}
	t.request, t.sealed = &changed, sealed
	return nil
}

// onPage is a refusal that is told to the user, with a way back to the client, which gets it as its error then.
func (t turn) onPage(reason pages.Reason, refused *oauth.Error) error {
	return &pageError{reason: reason, refused: refused, of: &redirectError{t.client, t.request.replyTo(), refused}}
}

// pending opens a sealed request and checks again everything that can have changed since it was sealed. One that is
// late is renewed.
func (s *Server) pending(r *http.Request, sealed string) (turn, error) {
	var a AuthRequest
	if err := s.open(storage.SealRequest, sealed, &a); errors.Is(err, storage.ErrNotFound) {
		return turn{}, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleRequestAltered,
			"the pending authorization request was altered or is too old"))
	} else if err != nil {
		return turn{}, err
	}
	return s.waiting(r, a, sealed)
}

// waiting checks a pending request again, see [Server.pending].
func (s *Server) waiting(r *http.Request, a AuthRequest, sealed string) (turn, error) {
	if !s.sameBrowser(r, &a) {
		return turn{}, onPage(pages.ReasonOtherBrowser, invalidRequest(oauth.RuleOtherBrowser,
			"the authorization request was started in another browser, or the browser keeps no cookies"))
	}
	t := turn{client: &storage.Client{}, request: &a, sealed: sealed}
	if a.ClientID == "" { // no client has asked, or a device whose code has not been looked up yet
		err := s.renew(&t)
		return t, err
	}
	v := visitOf(r.Context())
	v.client = a.ClientID
	c, err := s.clients.Client(r.Context(), a.ClientID)
	if errors.Is(err, storage.ErrNotFound) {
		return turn{}, onPage(pages.ReasonInvalidClient, oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleClientRemoved,
			"the client was removed while the user was asked"))
	} else if err != nil {
		return turn{}, err
	}
	v.noteClient(c)
	t.client = c
	if !c.Issued(a.started()) || a.Device != nil && !a.Device.Created.IsZero() && !c.Issued(a.Device.Created) {
		return turn{}, t.onPage(pages.ReasonExpired, oauth.Refuse(oauth.CodeInvalidRequest, oauth.RuleClientReturned,
			"the request is older than the client"))
	}
	if a.Device == nil {
		if err := s.stillGood(c, &a); err != nil {
			return turn{}, err
		}
	}
	err = s.renew(&t)
	return t, err
}

// form opens the pending request of a posted form, provided that we made the form for this browser.
func (s *Server) form(r *http.Request) (turn, error) {
	if err := r.ParseForm(); err != nil {
		return turn{}, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleBodyMalformed,
			"the form is not well-formed"))
	}
	posted := r.PostForm.Get(fieldRequest)
	t, err := s.pending(r, posted)
	if err != nil {
		return turn{}, err
	}
	if !s.checkFormToken(r.PostForm.Get(fieldForm), t.request.Browser, posted) {
		return turn{}, onPage(pages.ReasonForbidden, invalidRequest(oauth.RuleFormForeign,
			"the form is not one that this server made for this browser"))
	}
	return t, nil
}

// next is what the request of a turn needs next, see the function of that name.
func (s *Server) next(t turn, p storage.Presence) decision {
	return next(t.client, t.request, p, s.circumstances(t))
}

func (s *Server) circumstances(t turn) circumstances {
	return circumstances{peers: s.peersOf(t.client, t.request.Scopes), trusted: s.trusts(t.client), demands: s.cfg.Demands,
		factors: t.factors, passkeys: s.passkeys != nil, allowed: t.allowed, now: s.now()}
}

// advance reads who is there, asks next what to do, and does it.
func (s *Server) advance(w http.ResponseWriter, r *http.Request, t turn) {
	if t.over != nil {
		s.refuse(w, r, toClient(t.client, t.request.replyTo(), t.over))
		return
	}
	if t.request.Device != nil && t.request.Device.Decision != "" {
		s.showDeviceDone(w, r, t)
		return
	}
	var p storage.Presence
	ref, ok := s.session(r)
	if ok {
		var err error
		if p, err = s.presence(r.Context(), ref, t); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	d := s.next(t, p)
	if d.step == stepFactor {
		account, err := s.store.Account(r.Context(), p.User.ID)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		t.factors = &account.Factors
		d = s.next(t, p)
	}
	switch d.step {
	case stepSignIn:
		if half, is := s.keptHalf(r, t.request); is {
			s.showFactor(w, r, t, half)
			return
		}
		s.showSignIn(w, r, t)
	case stepFactor:
		s.showFactor(w, r, t, proofOf(p.Session, ref.ID))
	case stepEnrol:
		s.showEnrol(w, r, t, p, d)
	case stepConsent:
		if t.request.Device != nil {
			s.confirmDevice(w, r, t, p)
			return
		}
		s.showConsent(w, r, t, p, d.fresh)
	case stepNoAccess:
		s.showNoAccess(w, r, t, p.User, d)
	case stepRefuse:
		s.refuse(w, r, toClient(t.client, t.request.replyTo(), d.refused))
	case stepDone:
		s.answer(w, r, t, p)
	}
}

// answer gives the client its code. The code holds everything; nothing is stored, but that a pushed request is
// answered.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence) {
	a := t.request
	if a.ClientID == "" {
		redirect(w, s.endpoint(cmp.Or(a.Here, "/")))
		return
	}
	if err := s.answerOnce(r.Context(), t); err != nil {
		s.refuse(w, r, err)
		return
	}
	now := s.now()
	code, err := s.seal(storage.SealCode, authCode{
		approval: s.approvalOf(t, p, s.store.NewGrantIDOf(a.ClientID, p.User.ID)), RedirectURI: a.RedirectURI,
		Nonce: a.Nonce, Challenge: a.Challenge,
		Issued: now.UnixMilli(), Expires: now.Add(s.life.Code).UnixMilli(),
		SessionEnds: p.Session.ExpiresAt.UnixMilli(),
	})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.respond(w, r, a.replyTo(), url.Values{"code": {code}})
}

// approvalOf is what the user who is present, and may use the client, allows with a request.
func (s *Server) approvalOf(t turn, p storage.Presence, grant string) approval {
	a := t.request
	return approval{
		Grant: grant, Client: a.ClientID, User: p.User.ID, UserRevision: p.User.Revision, UserTerm: p.User.Term,
		AsOf: p.AsOf, Scopes: a.Scopes,
		AuthTime: p.Session.AuthTime.UnixMilli(), AMR: p.Session.AMR, Class: p.Session.ACR, Session: p.Session.SID,
		Claims: a.Claims, ACR: a.ACR, Told: a.tells(p.Session), DPoPKey: a.DPoPKey, Resources: a.Resources,
		Access: s.ruleDigest(t.client),
	}
}

// backTo shows the pending request again, by GET, so that a reload sends no form twice.
func (s *Server) backTo(w http.ResponseWriter, r *http.Request, t turn) {
	s.goOn(w, r, pathContinue, url.Values{fieldRequest: {t.sealed}})
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
	app := appOf(t.client)
	app.RedirectURI = t.request.RedirectURI
	return app
}

// appOf is what a client says about itself.
func appOf(c *storage.Client) pages.App {
	app := pages.App{
		ClientName: c.ClientName, LogoURI: c.LogoURI, TosURI: c.TOSURI, PolicyURI: c.PolicyURI,
		Unvouched: !clients.Vouched(c),
	}
	if clients.Described(c) {
		app.DescribedAt = c.ID
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

// shownPerson is how pages name a user: one who has neither name nor e-mail address has another name there.
func shownPerson(user *storage.User) pages.Person {
	who := pages.Person{UserName: user.Name, UserEmail: user.Email}
	if who.Who() == "" {
		who.UserName = cmp.Or(user.Username, user.ID)
	}
	return who
}
