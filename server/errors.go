package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// How this server says no. A check gives an [*oauth.Error], whatever it checks, and refuse is the one place that tells
// it: as JSON to a program, as text to a proxy that asks about a request to an app, at the redirect URI to a client, or
// on a page to the user, when the client must not be told. The types below, and [cameToNothing], say which, where the
// endpoint alone does not. Any other error is a fault of this server: it goes to the log, and the answer is 503 and
// says nothing about a token, a code or a client.

// pageError is a refusal that is told to the user, because what the request says of the client is not known to be good,
// or because the user is the one who can do something about it.
type pageError struct {
	reason  pages.Reason
	refused *oauth.Error
	of      *redirectError // how the client is told when the user goes back to it; nil when the client is not known
}

func (e *pageError) Error() string { return e.refused.Error() }
func (e *pageError) Unwrap() error { return e.refused }

func onPage(reason pages.Reason, refused *oauth.Error) error {
	return &pageError{reason: reason, refused: refused}
}

// redirectError is a refusal that the client is told at its redirect URI (RFC 6749 section 4.1.2.1), see [Server.tell].
type redirectError struct {
	client  *storage.Client
	to      replyTo
	refused *oauth.Error
}

func toClient(c *storage.Client, to replyTo, refused *oauth.Error) error {
	return &redirectError{c, to, refused}
}

func (e *redirectError) Error() string { return e.refused.Error() }
func (e *redirectError) Unwrap() error { return e.refused }

// statusError is a refusal with a status other than that of its code.
type statusError struct {
	status  int
	refused *oauth.Error
}

func (e *statusError) Error() string { return e.refused.Error() }
func (e *statusError) Unwrap() error { return e.refused }

// refused is the refusal in an error; nil when it is a fault.
func refused(err error) *oauth.Error {
	e, _ := errors.AsType[*oauth.Error](err)
	return e
}

// serverFault is the refusal after a fault in the program itself.
func serverFault(ctx context.Context) error {
	e := oauth.Refuse(oauth.CodeServerError, oauth.RuleServerFault, "the server has met an unexpected condition")
	if visitOf(ctx).endpoint == nil {
		return onPage(pages.ReasonServerError, e)
	}
	return &statusError{http.StatusInternalServerError, e}
}

func invalidRequest(rule, description string) *oauth.Error {
	return oauth.Refuse(oauth.CodeInvalidRequest, rule, "%s", description)
}

func invalidGrant(rule, description string) *oauth.Error {
	return oauth.Refuse(oauth.CodeInvalidGrant, rule, "%s", description)
}

// invalidClient is the one answer to a wrong secret and to an unknown client (RFC 6749 section 5.2). Only the rule
// tells them apart, and clients do not see it.
func invalidClient(rule string) *oauth.Error {
	return oauth.Refuse(oauth.CodeInvalidClient, rule, "unknown client, or wrong client credentials")
}

// refuse answers a request that was refused, or that met a fault.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	v := visitOf(r.Context())
	e := refused(err)
	v.failed = e == nil && !gone(r)
	if e != nil {
		s.logRefusal(r, v, e)
	} else {
		s.logFault(r, err)
		e = oauth.Refuse(oauth.CodeTemporarilyUnavailable, oauth.RuleStorageUnavailable,
			"storage does not answer; try again later")
		if v.endpoint == nil {
			err = onPage(pages.ReasonUnavailable, e)
		} else {
			err = e
		}
	}
	s.record(r, v, e)
	var page *pageError
	var back *redirectError
	var nothing *cameToNothing
	switch {
	case errors.As(err, &page):
		s.fault(w, r, s.errorPage(page.reason, page.of, e))
	case errors.As(err, &back):
		s.tell(w, r, back, e)
	case errors.As(err, &nothing):
		redirect(w, s.stopped(nothing, v.id[0]))
	case v.endpoint == nil:
		s.fault(w, r, s.errorPage(pages.ReasonInvalidRequest, nil, e))
	default:
		v.endpoint.refuse(w, r, err, e)
	}
}

// tell tells a client at its redirect URI that it was refused.
//
// Whoever can register a client, or publish a document that describes one, can make this server send browsers to a site
// of theirs, by a link that begins with this server's address: a request with a mistake in it, one that the user is
// bound to deny, one with prompt=none (RFC 9700 section 4.11.2). So a browser goes there by itself only with what an
// operator answers for ([clients.Vouched]), and with a code, which means that the user has allowed exactly this client
// and host. In all other cases, also when the user has said no, the answer is a link on a page, and the user decides.
//
// A frame is an exception: it is inside a page of the client, which can show there what it likes, and none of ours can
// be shown in it. So silent requests (prompt=none) of browser apps end. The browser itself says that it is a frame.
func (s *Server) tell(w http.ResponseWriter, r *http.Request, e *redirectError, refused *oauth.Error) {
	if clients.Vouched(e.client) || r.Header.Get("Sec-Fetch-Dest") == "iframe" {
		s.respond(w, r, e.to, errorAnswer(refused))
		return
	}
	s.fault(w, r, s.errorPage(reasonOf(refused.Rule), e, refused))
}

// errorPage tells the user of a refusal. With a client, it says which app that is, and leads back there with the error,
// provided that its redirect URI is still good.
func (s *Server) errorPage(reason pages.Reason, of *redirectError, refused *oauth.Error) pages.Error {
	page := pages.Error{Reason: reason, Code: refused.Code, Rule: refused.Rule, Developer: refused.Description}
	if of == nil {
		return page
	}
	page.App = appOf(of.client)
	if of.client.MayReturnTo(of.to.redirectURI) {
		page.Back = s.back(of.to, errorAnswer(refused))
	}
	return page
}

// fault renders an error page. One that was reached by GET has the language links of the other pages: they lead to the
// same request, which need not be sent twice for that. An address in it that holds a credential is not said again.
func (s *Server) fault(w http.ResponseWriter, r *http.Request, page pages.Error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	page.Lang = s.lang(r, query.Get("ui_locales"))
	if r.Method == http.MethodGet && err == nil && len(r.URL.RawQuery) <= maxQuery && !tellsSecret(query) {
		query.Set(fieldLang, "en")
		page.English = "?" + query.Encode()
		query.Set(fieldLang, "ja")
		page.Japanese = "?" + query.Encode()
	}
	if page.RequestID == "" { // or that of the request that failed
		page.RequestID = visitOf(r.Context()).id[0]
	}
	if err := s.pages.Render(w, page.Reason.Status(), page); err != nil { // no other page will do better
		s.log.ErrorContext(r.Context(), "cannot show an error page", "error", err)
		const status = http.StatusInternalServerError
		http.Error(w, http.StatusText(status)+"\nrequest "+page.RequestID, status)
	}
}

// tellsSecret reports whether an address among the parameters holds what is not to be shown.
func tellsSecret(query url.Values) bool {
	for name, values := range query {
		if name != "client_id" && !oauth.TellsURI(name) {
			continue
		}
		if slices.ContainsFunc(values, func(value string) bool { return oauth.ShownURI(value) != value }) {
			return true
		}
	}
	return false
}

// broken answers a request that met a fault in the program itself, before anything of the answer was sent.
func (s *Server) broken(w http.ResponseWriter, r *http.Request, err error) {
	s.log.ErrorContext(r.Context(), "cannot answer", "endpoint", s.pathOf(r), "error", err)
	s.refuse(w, r, serverFault(r.Context()))
}

// errorAnswer is how a client is told that it was refused (RFC 6749 section 4.1.2.1).
func errorAnswer(refused *oauth.Error) url.Values {
	return url.Values{"error": {refused.Code}, "error_description": {refused.Description}}
}

// reasonOf is what a page says in the place of the client, by the rule that refused.
func reasonOf(rule string) pages.Reason {
	switch rule {
	case oauth.RuleUserDenied, oauth.RuleSignInCancelled:
		return pages.ReasonDenied
	case oauth.RuleRequestExpired:
		return pages.ReasonExpired
	case oauth.RuleSignInNeeded, oauth.RuleConsentNeeded, oauth.RuleOtherUser:
		return pages.ReasonSilent
	}
	return pages.ReasonInvalidRequest
}

// logRefusal tells the operator of a refusal, as far as the address has not caused too many. A step of a protocol is
// only told to those who want to know everything.
func (s *Server) logRefusal(r *http.Request, v *visit, e *oauth.Error) {
	level := slog.LevelInfo
	if e.Step() {
		level = slog.LevelDebug
	}
	if !s.log.Enabled(r.Context(), level) {
		return
	}
	from := s.addressOf(r)
	if level == slog.LevelInfo && !s.journal.refusals.spend(networkOf(from).String(), s.now()) {
		return
	}
	s.log.LogAttrs(r.Context(), level, "request refused", slog.String("endpoint", shownText(s.pathOf(r), maxShownPath)),
		slog.String("code", e.Code), slog.String("rule", e.Rule),
		slog.String("client", shownClient(v.client, maxShownClient)),
		slog.String("why", shownText(e.Description, maxShownWhy)),
		slog.String("address", shownAddress(from)))
}

// record keeps a refusal for the operator.
func (s *Server) record(r *http.Request, v *visit, e *oauth.Error) {
	v.rule = e.Rule
	s.cfg.Metrics.Refused(e.Rule)
	if s.cfg.Refused == nil {
		return
	}
	s.cfg.Refused(oauth.Refusal{
		RequestID: v.id[0], At: s.now(), Endpoint: s.pathOf(r), ClientID: shownClient(v.client, maxShownClient),
		App: v.app(), Error: *e, Params: oauth.TellingParams(v.params),
		Beyond: e.Step() || !s.journal.kept.spend(networkOf(s.addressOf(r)).String(), s.now()),
	})
}

// recordSlip keeps for the operator why a form is shown again.
func (s *Server) recordSlip(r *http.Request, rule, description string) {
	s.record(r, visitOf(r.Context()), oauth.Refuse("", rule, "%s", description))
}

// pathOf is the path of a request below the issuer.
func (s *Server) pathOf(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, s.base) }

// shownClient is a client_id that may be anything, also an address, in at most n bytes.
func shownClient(id string, n int) string { return oauth.Cut(oauth.ShownURI(id), n) }

// shownURI is an address that was sent, as it is shown again.
func shownURI(uri string) string { return oauth.Cut(oauth.ShownURI(uri), maxShownURI) }

// shownText is a text that may hold what was sent, without credentials and in at most n bytes.
func shownText(text string, n int) string { return oauth.Cut(oauth.Redact(text), n) }

// maxShownPath and maxShownWhy are how much of a path and of a reason the log has.
const (
	maxShownPath = 256
	maxShownWhy  = 1024
)

// maxShownClient is how much of a client_id is shown again that may be anything.
const maxShownClient = 256

// statusOf is the status of a refusal at an endpoint that programs call.
func (e *endpoint) statusOf(err error, refused *oauth.Error) int {
	var own *statusError
	if errors.As(err, &own) {
		return own.status
	}
	switch refused.Code {
	case oauth.CodeInvalidClient, oauth.CodeInvalidToken: // RFC 6749 section 5.2, RFC 6750 section 3.1
		return http.StatusUnauthorized
	case oauth.CodeInvalidDPoPProof, oauth.CodeUseDPoPNonce:
		if e.challenge == challengeToken { // RFC 9449 section 7.1, and section 5 of the others
			return http.StatusUnauthorized
		}
	case oauth.CodeInsufficientScope:
		return http.StatusForbidden
	case oauth.CodeTemporarilyUnavailable, oauth.CodeServerError:
		return http.StatusServiceUnavailable
	}
	if e == verifyEndpoint {
		return http.StatusForbidden
	}
	return http.StatusBadRequest
}

// refuse tells a program (RFC 6749 section 5.2). A refusal without a code has no body (RFC 6750 section 3.1). A proxy
// may hand what it is told to a browser that is at the app: it is a text, and no page of ours.
func (e *endpoint) refuse(w http.ResponseWriter, r *http.Request, err error, refused *oauth.Error) {
	status := e.statusOf(err, refused)
	if e == verifyEndpoint {
		http.Error(w, refused.Description+"\nrequest "+visitOf(r.Context()).id[0], status)
		return
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.challenge.set(w.Header(), r, status, refused.Code)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "2")
	}
	if refused.Code == "" {
		w.WriteHeader(status)
		return
	}
	writeJSON(w, status, struct {
		Code        string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{refused.Code, refused.Description})
}

// challenge is how an endpoint asks for credentials (RFC 9110 section 11.6.1).
type challenge int

const (
	// challengeClient: clients authenticate here (RFC 7617 section 2).
	challengeClient challenge = iota
	// challengeToken: an access token is shown here, by Bearer or, when the request did so, by DPoP. The scheme that
	// was used names the error (RFC 6750 section 3, RFC 9449 section 7.1); the other is offered beside it.
	challengeToken
	// challengeRegistration: a token that allows to register, or to manage a registration (RFC 7591 section 3, RFC 7592
	// section 2).
	challengeRegistration
)

func (c challenge) set(h http.Header, r *http.Request, status int, code string) {
	const basic, bearer = `Basic realm="warifu", charset="UTF-8"`, `Bearer realm="warifu"`
	switch {
	case c == challengeRegistration:
		h.Set("WWW-Authenticate", bearer+`, error="`+code+`"`)
		return
	case c == challengeClient:
		if status == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", basic)
		}
		return
	}
	mine, other := bearer, `DPoP algs="`+strings.Join(oauth.ProofAlgs(), " ")+`"`
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, tokenTypeDPoP) {
		mine, other = other, mine
	}
	if code != "" {
		mine += `, error="` + code + `"`
	}
	if status == http.StatusForbidden {
		h.Set("WWW-Authenticate", mine+`, scope="`+oauth.ScopeOpenID+`"`)
		return
	}
	h.Set("WWW-Authenticate", mine)
	h.Add("WWW-Authenticate", other)
}

// writeJSON answers a program. A reply that package json does not take is a fault of this one, which the middleware
// answers as it does every panic.
func writeJSON(w http.ResponseWriter, status int, reply any) {
	body, err := marshal(reply)
	if err != nil {
		panic(err)
	}
	writeBody(w, status, typeJSON, body)
}

// typeJSON is the Content-Type of answers to programs, which share it.
var typeJSON = []string{"application/json"}

func writeBody(w http.ResponseWriter, status int, contentType []string, body []byte) {
	w.Header()["Content-Type"] = contentType
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client has gone
}

// logFault tells the operator of a fault, as far as the address has not met too many. That a flood of unknown clients
// was slowed down is only worth a warning. A caller that does not wait for the answer causes no fault, and no line.
func (s *Server) logFault(r *http.Request, err error) {
	level := slog.LevelError
	switch {
	case gone(r):
		level = slog.LevelDebug
	case !s.journal.faults.spend(networkOf(s.addressOf(r)).String(), s.now()):
		return
	case errors.Is(err, storage.ErrBusy):
		level = slog.LevelWarn
	}
	s.log.Log(r.Context(), level, "request failed", "endpoint", s.pathOf(r), "error", err)
}
