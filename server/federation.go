package server

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Signing in by a connector other than the users of the configuration.
//
//	sign-in page ─ GET /oauth/connect/{id} ─┬─ Password: its form ─ POST /oauth/signin/{id} ─────────────┐
//	app ─ connector_id, idp_hint, only way ─┘                                                            ├─ arrive
//	                                        └─ Redirect: Start ─ cookie, away ─ /callback/{id} ─ Finish ─┘
//
// What is needed on the way back is in a cookie of the browser that went away (away.go), sealed, and found by the state
// that the identity provider sends back. So nothing is written before somebody has proven who they are, another browser
// can do nothing with the answer, and the answer to one question is none to another. A state is good for one answer:
// the browser loses the cookie, and storage remembers the state until the cookie would have ended.
//
// An identity provider that answers by a form of its own (SAML, form_post) brings none of our cookies, which are
// SameSite=Lax. A page of ours then posts the same fields again (pages.Carry).
//
// Ways are links, not forms: a form's policy would hold where the identity provider sends the browser.
//
// Whatever goes wrong with one connector is said on the sign-in page, with the other ways beside it. A fault is a 503
// and says nothing about the user; a [connector.RefusedError] is a 403. Its reason is for the log alone.

// connectURL is where a sign-in by a connector begins.
func (s *Server) connectURL(way connector.Connector, t turn, lang string) string {
	query := url.Values{fieldRequest: {t.sealed}}
	if lang != "" {
		query.Set(fieldLang, lang)
	}
	return s.base + "/oauth/connect/" + way.ID + "?" + query.Encode()
}

// wayOf is the connector of an id, if it may be used for the request.
func (s *Server) wayOf(t turn, id string) (connector.Connector, bool) {
	for _, w := range s.waysTo(t.client) {
		if w.ID == id {
			return w.Connector, true
		}
	}
	return connector.Connector{}, false
}

// connect begins a sign-in by a connector.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	t, err := s.pending(r, r.URL.Query().Get(fieldRequest))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.keepLang(w, r)
	way, is := s.wayOf(t, r.PathValue("id"))
	switch {
	case t.over != nil:
		s.refuse(w, r, t.onPage(pages.ReasonExpired, t.over))
	case t.request.prompts("none"): // such a request is on no page
		s.advance(w, r, t)
	case !is: // it was there when the page was shown
		if err := s.change(&t, func(a *AuthRequest) { a.Choose = true }); err != nil {
			s.refuse(w, r, err)
			return
		}
		s.showSignIn(w, r, t)
	default:
		s.goBy(w, r, t, way)
	}
}

// goBy signs somebody in by a connector: it shows its form, or sends the browser away.
func (s *Server) goBy(w http.ResponseWriter, r *http.Request, t turn, way connector.Connector) {
	t.way = way
	if way.Redirect != nil {
		s.goAway(w, r, t)
		return
	}
	if n, can := way.Password.(connector.Negotiator); can {
		ctx, cancel := context.WithTimeout(r.Context(), callTime)
		defer cancel()
		who, done, err := n.Negotiate(ctx, w, r)
		switch {
		case err != nil:
			s.notSignedIn(w, r, t, faultOf(way, err))
			return
		case who != nil:
			s.arrived(w, r, t, *who)
			return
		case done:
			return
		}
	}
	s.signInPage(w, r, t, s.waysTo(t.client))
}

// goAway sends the browser to the identity provider.
func (s *Server) goAway(w http.ResponseWriter, r *http.Request, t turn) {
	a := t.request
	ask := connector.Ask{
		State: randomState(), Nonce: randomState(), Fresh: a.prompts("login") || a.MaxAge != nil,
		SelectAccount: a.prompts("select_account") || a.Other, LoginHint: a.LoginHint, UILocales: a.UILocales,
	}
	if a.Other {
		ask.LoginHint = ""
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	to, err := t.way.Redirect.Start(ctx, ask)
	if err != nil {
		s.notSignedIn(w, r, t, faultOf(t.way, err))
		return
	}
	if err := s.keepAway(w, r, away{Connector: t.way.ID, Ask: ask, Keep: to.Keep, Request: *a}); err != nil {
		s.refuse(w, r, err)
		return
	}
	if to.Post != nil {
		s.carry(w, r, a.UILocales, to.URL, to.Post)
		return
	}
	back := pages.Back{RedirectURI: to.URL, Link: to.URL}
	cookies := 0
	for _, cookie := range w.Header()["Set-Cookie"] {
		cookies += len(cookie)
	}
	if cookies+len(to.URL) > maxAwayHeader {
		s.onward(w, r, a.UILocales, back)
		return
	}
	s.goToApp(w, r, a.UILocales, back)
}

// maxAwayHeader bounds address and cookies in one header, see [maxLocation].
const maxAwayHeader = 3 << 10

// carry shows the page that posts fields by itself.
func (s *Server) carry(w http.ResponseWriter, r *http.Request, uiLocales, to string, fields map[string]string) {
	page := pages.Carry{Frame: pages.Frame{Lang: s.lang(r, uiLocales)}, To: to}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		page.Fields = append(page.Fields, pages.Field{Name: name, Value: fields[name]})
	}
	s.render(w, r, http.StatusOK, page)
}

// fieldHere is in the address to which a page of ours posts what the form of an identity provider brought.
const fieldHere = "here"

// callback takes the answer of an identity provider, at the address that all of them share or at the connector's own.
func (s *Server) callback(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.refuse(w, r, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleBodyMalformed,
			"the answer of the identity provider is not well-formed, or larger than 256 KiB")))
		return
	}
	a, is := s.away(r, cmp.Or(r.Form.Get("state"), r.Form.Get("RelayState")))
	if !is && r.Method == http.MethodPost && !r.URL.Query().Has(fieldHere) {
		fields := make(map[string]string, len(r.PostForm))
		for name := range r.PostForm {
			fields[name] = r.PostForm.Get(name)
		}
		s.carry(w, r, "", r.URL.EscapedPath()+"?"+fieldHere+"=1", fields)
		return
	}
	if id := r.PathValue("id"); !is || id != "" && id != a.Connector {
		s.refuse(w, r, onPage(pages.ReasonOtherBrowser, invalidRequest(oauth.RuleOtherBrowser,
			"the identity provider's answer does not belong to a sign-in that this browser began, or was used before")))
		return
	}
	if r.Method == http.MethodHead { // it asks whether there is an answer, and takes none
		return
	}
	s.dropAway(w, a)
	a.Request.Choose = true // whatever the answer is, it must not lead there again by itself
	sealed, err := s.seal(storage.SealRequest, a.Request)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	t, err := s.waiting(r, a.Request, sealed)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if t.way, is = s.wayOf(t, a.Connector); !is || t.way.Redirect == nil {
		s.backTo(w, r, t) // it is no longer configured
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	who, err := t.way.Redirect.Finish(ctx, a.Ask, a.Keep, r)
	if err != nil {
		s.notSignedIn(w, r, t, faultOf(t.way, err))
		return
	}
	t.state = storage.Once{ID: "state " + a.Ask.State, Until: time.UnixMilli(a.Ends)}
	s.arrived(w, r, t, who)
}

// describeHere tells an identity provider of this server, if it is of a kind that can be told so.
func (s *Server) describeHere(w http.ResponseWriter, r *http.Request) {
	way, _ := s.ways.find(r.PathValue("id"))
	describer, is := way.Redirect.(connector.Describer)
	if !is {
		s.nowhere(w, r)
		return
	}
	mediaType, document, err := describer.Describe()
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	noStore(w)
	w.Header().Set("Content-Type", mediaType)
	_, _ = w.Write(document)
}

// arrived goes on with somebody who has come back, or was known without being asked.
func (s *Server) arrived(w http.ResponseWriter, r *http.Request, t turn, who connector.Identity) {
	came, err := s.arrive(w, r, t, who, "")
	if err == nil && came == turnedAway {
		err = connector.Refuse("the account is disabled")
	}
	if err != nil {
		s.notSignedIn(w, r, t, err)
		return
	}
	proven := storage.Presence{Session: &storage.Session{AuthTime: who.AuthTime}, User: &storage.User{}}
	if !who.AuthTime.IsZero() && !signedIn(t.request, proven, s.now()) {
		t.problem = pages.ProblemNotAgain
		s.recordSlip(r, oauth.RuleConnectorRefused,
			"the identity provider relied on an earlier sign-in, which is too old for the request")
		s.signInPage(w, r, t, s.waysTo(t.client))
		return
	}
	told := storage.Presence{Session: &storage.Session{AMR: who.AMR, ACR: who.ACR}, User: &storage.User{}}
	if came == signedInNow && s.circumstances(t).sureness(t.client, t.request, told).otherwise {
		s.refuse(w, r, toClient(t.client, t.request.replyTo(), acrUnmet()))
		return
	}
	s.goOnSignedIn(w, r, t)
}

// goOnSignedIn goes on with a request whose user has signed in.
func (s *Server) goOnSignedIn(w http.ResponseWriter, r *http.Request, t turn) {
	if t.over != nil { // the app need only begin again
		s.advance(w, r, t)
		return
	}
	s.backTo(w, r, t)
}

// notSignedIn tells why nobody was signed in: on the sign-in page, what is about a connector, and there the other ways
// are, too.
func (s *Server) notSignedIn(w http.ResponseWriter, r *http.Request, t turn, err error) {
	var verdict *connector.RefusedError
	var fault *connectorFault
	if !errors.As(err, &verdict) && (!errors.As(err, &fault) || t.way.ID == connector.StaticName) {
		s.countSignIn(t.way, countedFailed)
		s.refuse(w, r, err)
		return
	}
	if err := s.change(&t, func(a *AuthRequest) { a.Choose = true }); err != nil {
		s.refuse(w, r, err)
		return
	}
	switch {
	case verdict != nil && verdict.Cancelled:
		s.countSignIn(t.way, countedCancelled)
	case verdict != nil:
		s.countSignIn(t.way, countedRefused)
	default:
		s.countSignIn(t.way, countedFailed)
	}
	if verdict != nil && verdict.Cancelled {
		s.recordSlip(r, oauth.RuleSignInCancelled, "the user came back from the identity provider without signing in")
		s.backTo(w, r, t)
		return
	}
	from := s.addressOf(r)
	var groups *connector.TooManyGroups
	switch {
	case errors.As(err, &groups):
		t.problem = pages.ProblemGroups
	case verdict != nil:
		t.problem = pages.ProblemRefused
	default:
		t.problem, t.retry = pages.ProblemUnavailable, busyRetry
	}
	if verdict != nil {
		s.recordSlip(r, oauth.RuleConnectorRefused, "connector "+t.way.ID+": "+verdict.Reason)
		if s.journal.refusals.spend(networkOf(from).String(), s.now()) {
			s.log.InfoContext(r.Context(), "sign-in refused", "connector", t.way.ID, "why", verdict.Reason,
				"client", t.client.ID, "address", shownAddress(from))
		}
	} else {
		s.recordSlip(r, oauth.RuleConnectorUnavailable, "connector "+t.way.ID+" does not answer as it should")
		if !gone(r) && s.journal.faults.spend(networkOf(from).String(), s.now()) {
			s.log.WarnContext(r.Context(), "a connector does not answer as it should", "connector", t.way.ID,
				"error", fault.error)
		}
	}
	s.signInPage(w, r, t, s.waysTo(t.client))
}
