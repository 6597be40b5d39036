package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Logout (OpenID Connect RP-Initiated Logout 1.0, Back-Channel Logout 1.0, Front-Channel Logout 1.0).
//
// A session ends when its user signs out, and also when they switch accounts or another user signs in, in that browser.
// One transaction ends it: with it go the grants with openid that came from it, unless they have offline_access, and
// the outbox of logout tokens is filled (see backchannel.go). Grants without openid are no sign-in and stay.
//
//	GET /oauth/logout ─ an ID token of this very session? ─ yes ─┐
//	                         └ no ─ the question ─ POST /oauth/signout ─ end ─ frames of the apps ─┐
//	                                                           signed out, or back to the app ─────┘
//
// A browser is sent nowhere before the address was found to be registered for the client that the hint or client_id
// names: a request with a fault ends on a page.

// logoutRequest is a logout request that has been found valid. Sealed, it travels through the question.
type logoutRequest struct {
	ClientID    string `json:"c,omitempty"`
	RedirectURI string `json:"d,omitempty"` // registered for the client
	State       string `json:"t,omitempty"`
	UILocales   string `json:"l,omitempty"`
	// Browser is the hash of the cookie of the browser that it came from, SID the session that the question is about.
	Browser string `json:"b"`
	SID     string `json:"s"`
}

// returnURI is where the user goes afterwards, with the state; "" when the app named no address.
func (l logoutRequest) returnURI() string {
	if l.RedirectURI == "" || l.State == "" {
		return l.RedirectURI
	}
	return withQuery(l.RedirectURI, url.Values{"state": {l.State}})
}

func badLogout(rule, developer string) error {
	return onPage(pages.ReasonLogout, invalidRequest(rule, developer))
}

// logout is the end_session_endpoint (OpenID Connect RP-Initiated Logout 1.0 section 2).
func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	params, err := authorizeParams(r)
	if err != nil {
		s.refuse(w, r, badLogout(oauth.RuleParameterMalformed, "the parameters are not well-formed"))
		return
	}
	if r.Method == http.MethodPost {
		// A form of another site brings no SameSite cookies; the GET that follows does.
		s.goOn(w, r, pathLogout, params)
		return
	}
	l, hint, err := s.parseLogout(r.Context(), params)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.keepLang(w, r)
	ref, user, err := s.whoIsHere(r)
	switch {
	case err != nil:
		s.refuse(w, r, err)
	case user == nil:
		s.afterLogout(w, r, l, nil, nil)
	case s.proves(hint, ref) && r.Method == http.MethodGet: // HEAD asks what GET would do
		s.end(w, r, l, ref, user)
	default:
		l.Browser, l.SID = s.browser(w, r), storage.SID(ref.ID)
		s.askLogout(w, r, l, user)
	}
}

// parseLogout checks a logout request. Its errors are for a page: the client is not to be trusted with the user yet.
func (s *Server) parseLogout(ctx context.Context, params url.Values) (l logoutRequest, hint idClaims, err error) {
	for name, values := range params {
		if len(values) > 1 || !utf8.ValidString(values[0]) || strings.ContainsRune(values[0], 0) {
			return l, hint, badLogout(oauth.RuleParameterRepeated,
				"a parameter is not text, or comes more than once: "+oauth.Printable(name))
		}
	}
	visitOf(ctx).params = params
	l = logoutRequest{
		ClientID: params.Get("client_id"), RedirectURI: params.Get("post_logout_redirect_uri"), State: params.Get("state"),
		UILocales: oauth.Cut(params.Get("ui_locales"), maxHint),
	}
	if len(l.State) > maxState {
		return l, hint, badLogout(oauth.RuleRequestTooLong, "state is longer than 4096 bytes")
	}
	if token := params.Get("id_token_hint"); token != "" {
		if hint, err = s.ownIDToken(token); err != nil {
			return l, hint, badLogout(oauth.RuleIDTokenHint, "id_token_hint is not an ID token of this server, or too old")
		}
		if l.ClientID != "" && l.ClientID != hint.client() {
			return l, hint, badLogout(oauth.RuleIDTokenHint, "client_id is not the client that id_token_hint was issued to")
		}
		l.ClientID = hint.client()
	}
	if l.ClientID == "" {
		if l.RedirectURI != "" {
			return l, hint, badLogout(oauth.RuleLogoutClient, "post_logout_redirect_uri needs id_token_hint or client_id")
		}
		return l, hint, nil
	}
	v := visitOf(ctx)
	v.client = l.ClientID
	c, err := s.clients.Client(ctx, l.ClientID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return l, hint, err
	}
	if err == nil {
		v.noteClient(c)
	}
	switch {
	case err == nil && (l.RedirectURI == "" || oauth.MatchRedirectURI(c.PostLogoutRedirectURIs, l.RedirectURI)):
		return l, hint, nil
	case err == nil:
		return l, hint, onPage(pages.ReasonLogout, oauth.Refuse(oauth.CodeInvalidRequest, oauth.RuleLogoutURIUnregistered,
			"post_logout_redirect_uri %q is not registered for %s; %s",
			shownURI(l.RedirectURI), c.ID, whereToAdd(c, "postLogoutRedirectUris", "post_logout_redirect_uris")).
			About(shownURI(l.RedirectURI), oauth.Nearest(l.RedirectURI, c.PostLogoutRedirectURIs),
				whereOf(c, "postLogoutRedirectUris", "post_logout_redirect_uris")))
	case l.RedirectURI != "" || hint.client() == "":
		unknown := clients.Unknown(l.ClientID, err)
		unknown.Code = oauth.CodeInvalidRequest
		return l, hint, onPage(pages.ReasonLogout, unknown)
	}
	l.ClientID = "" // a client that was removed since it got its ID token no longer decides anything
	return l, idClaims{}, nil
}

// proves reports whether a hint is an ID token of this very session, of its user.
func (s *Server) proves(hint idClaims, ref sessionRef) bool {
	return hint.Session != "" && s.sessionOf(hint.Session) == storage.SID(ref.ID) && s.userOf(hint.Subject) == ref.User
}

// whoIsHere returns the browser's session and its user; nil if there is none.
func (s *Server) whoIsHere(r *http.Request) (sessionRef, *storage.User, error) {
	ref, ok := s.session(r)
	if !ok {
		return ref, nil, nil
	}
	p, err := s.store.Presence(r.Context(), ref.ID, ref.User, "")
	if err != nil || p.Session == nil {
		return ref, nil, err
	}
	return ref, p.User, nil
}

// askLogout asks whether to sign out: nothing has proved yet that the user wants that (section 2, and section 6 of
// RP-Initiated Logout 1.0).
func (s *Server) askLogout(w http.ResponseWriter, r *http.Request, l logoutRequest, user *storage.User) {
	sealed, err := s.seal(storage.SealLogout, l)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	token, err := s.formToken(l.Browser, sealed)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.SignOut{
		Frame: pages.Frame{Lang: s.lang(r, l.UILocales)}, App: s.logoutApp(r.Context(), l), Action: s.base + pathSignOut,
		Hidden: []pages.Field{{Name: fieldRequest, Value: sealed}, {Name: fieldForm, Value: token}},
		Person: shownPerson(user),
	}
	if r.Method != http.MethodPost {
		page.English, page.Japanese = inLang(r, "en"), inLang(r, "ja")
	}
	s.render(w, r, http.StatusOK, page)
}

// inLang is the address of this very page in another language.
func inLang(r *http.Request, lang string) string {
	query := r.URL.Query()
	query.Set(fieldLang, lang)
	return r.URL.EscapedPath() + "?" + query.Encode()
}

// logoutApp is what the pages say about the app that asked.
func (s *Server) logoutApp(ctx context.Context, l logoutRequest) pages.App {
	if l.ClientID == "" {
		return pages.App{}
	}
	c, err := s.clients.Client(ctx, l.ClientID)
	if err != nil { // gone within this moment: the page does without
		return pages.App{}
	}
	app := appOf(c)
	app.RedirectURI = l.returnURI()
	return app
}

// signOut takes the answer to the question.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	l, err := s.logoutForm(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ref, user, err := s.whoIsHere(r)
	switch decision := r.PostForm.Get(pages.FieldDecision); {
	case err != nil:
		s.refuse(w, r, err)
	case decision == pages.DecisionStay:
		s.render(w, r, http.StatusOK, s.signedOutPage(r, l, true))
	case decision != pages.DecisionSignOut:
		s.refuse(w, r, badLogout(oauth.RuleParameterValue, "the form says neither sign out nor stay signed in"))
	case user == nil:
		s.afterLogout(w, r, l, nil, nil)
	case storage.SID(ref.ID) != l.SID:
		// Another user has signed in since, in another tab, and was not asked.
		l.SID = storage.SID(ref.ID)
		s.askLogout(w, r, l, user)
	default:
		s.end(w, r, l, ref, user)
	}
}

// logoutForm opens the request of a posted form, provided that we made the form for this browser, and checks again what
// may have changed since. It may come late: whoever wants to sign out is signed out, of the session that was asked
// about.
func (s *Server) logoutForm(r *http.Request) (logoutRequest, error) {
	var l logoutRequest
	if err := r.ParseForm(); err != nil {
		return l, badLogout(oauth.RuleBodyMalformed, "the form is not well-formed")
	}
	sealed := r.PostForm.Get(fieldRequest)
	if err := s.open(storage.SealLogout, sealed, &l); errors.Is(err, storage.ErrNotFound) {
		return l, badLogout(oauth.RuleRequestAltered, "the pending logout request was altered or is too old")
	} else if err != nil {
		return l, err
	}
	held := s.cookie(r, cookieBrowser)
	if len(held) < 32 || !s.checkFormToken(r.PostForm.Get(fieldForm), hashOf(held), sealed) {
		return l, onPage(pages.ReasonForbidden, invalidRequest(oauth.RuleFormForeign,
			"the form is not one that this server made for this browser"))
	}
	if l.RedirectURI == "" {
		return l, nil
	}
	c, err := s.clients.Client(r.Context(), l.ClientID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return l, err
	}
	if err != nil || !oauth.MatchRedirectURI(c.PostLogoutRedirectURIs, l.RedirectURI) {
		l.RedirectURI = "" // removed while the user was asked, who still wants to sign out
	}
	return l, nil
}

// end ends the session and shows what comes after it.
func (s *Server) end(w http.ResponseWriter, r *http.Request, l logoutRequest, ref sessionRef, user *storage.User) {
	ended, err := s.endSession(r.Context(), ref, "the user signed out")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.afterLogout(w, r, l, ended, user)
}

// endSession ends a session everywhere; nil when it had ended already.
func (s *Server) endSession(ctx context.Context, ref sessionRef, why string) (*storage.EndedSession, error) {
	ended, err := s.store.EndSession(ctx, ref.ID, why)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "session ended", "session", ended.SID, "why", why)
	s.wakeSender()
	return ended, nil
}

// afterLogout tells the browser that it is signed out: it loses the cookie, shows the apps in frames that want to be
// told that way, and goes back to the app that asked.
func (s *Server) afterLogout(w http.ResponseWriter, r *http.Request, l logoutRequest, ended *storage.EndedSession,
	user *storage.User) {
	s.setCookie(w, cookieSession, "", -1)
	page := s.signedOutPage(r, l, false)
	if ended != nil {
		page.Frames = s.logoutFrames(r.Context(), ended)
	}
	if page.ReturnURI != "" && len(page.Shown()) == 0 {
		s.goToApp(w, r, l.UILocales, pages.Back{RedirectURI: l.RedirectURI, Link: page.ReturnURI})
		return
	}
	if user != nil {
		page.There = s.signOutThere(r.Context(), user)
	}
	s.render(w, r, http.StatusOK, page)
}

// signOutThere is where a user can sign out of the identity provider that they came by, as a link; it comes back to the
// page that says so. Nobody waits long for it.
func (s *Server) signOutThere(ctx context.Context, user *storage.User) pages.Way {
	way, _ := s.ways.find(user.Connector)
	there, can := way.Redirect.(connector.SignOuter)
	if !can {
		return pages.Way{}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	address, err := there.SignOutURL(ctx, s.endpoint(pathLogout))
	if err != nil {
		s.log.InfoContext(ctx, "signing out at the identity provider is not offered: it does not answer", "connector", way.ID,
			"error", err)
		return pages.Way{}
	}
	return pages.Way{Name: way.Name, Address: address}
}

func (s *Server) signedOutPage(r *http.Request, l logoutRequest, stays bool) pages.SignedOut {
	if stays {
		l.State = "" // it would tell the app that the logout is done
	}
	return pages.SignedOut{
		Frame: pages.Frame{Lang: s.lang(r, l.UILocales)}, ClientName: s.logoutApp(r.Context(), l).ClientName,
		ReturnURI: l.returnURI(), Stays: stays,
	}
}

// logoutFrames are the addresses of the apps that the session was used with and that want to be told in a frame (OpenID
// Connect Front-Channel Logout 1.0 section 2).
func (s *Server) logoutFrames(ctx context.Context, ended *storage.EndedSession) []string {
	var frames []string
	for _, id := range ended.Clients {
		c, err := s.clients.Client(ctx, id)
		if err != nil || c.FrontchannelLogoutURI == "" {
			continue
		}
		frame := c.FrontchannelLogoutURI
		if c.FrontchannelLogoutSessionRequired {
			session, err := s.sessionFor(c, ended.SID)
			if err != nil {
				s.log.ErrorContext(ctx, "cannot prepare the front-channel logout", "client", c.ID, "error", err)
				continue
			}
			frame = withQuery(frame, url.Values{"iss": {s.cfg.Issuer}, "sid": {session}})
		}
		frames = append(frames, frame)
	}
	return frames
}

// bindToSession makes a grant with openid one of the session that it came from.
func (iss *issuer) bindToSession(grant *storage.Grant, a approval) {
	grant.Session, grant.OutlivesSession = "", false
	if a.Session == "" || !slices.Contains(grant.Scopes, oauth.ScopeOpenID) {
		return
	}
	grant.Session, grant.OutlivesSession = a.Session, slices.Contains(grant.Scopes, oauth.ScopeOfflineAccess)
	// At the latest: the user may have signed in again since the code was made, and the session go on.
	grant.SessionEnds = iss.now().Add(iss.life.Session)
}
