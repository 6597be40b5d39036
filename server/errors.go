package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// How this server says no. A check gives an [*oauth.Error], whatever it checks, and refuse is the one place that tells
// it: as JSON to a program, at the redirect URI to a client, or on a page to the user, when the client must not be
// told. The types below say which, where the endpoint alone does not. Any other error is a fault of this server: it
// goes to the log, and the answer is 503 and says nothing about a token, a code or a client.

// pageError is a refusal that is told to the user, because what the request says of the client is not known to be good.
type pageError struct {
	reason  pages.Reason
	refused *oauth.Error
}

func (e *pageError) Error() string { return e.refused.Error() }
func (e *pageError) Unwrap() error { return e.refused }

func onPage(reason pages.Reason, refused *oauth.Error) error { return &pageError{reason, refused} }

// redirectError is a refusal that the client is told at its redirect URI (RFC 6749 section 4.1.2.1).
type redirectError struct {
	to      replyTo
	refused *oauth.Error
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
	var e *oauth.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
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
	if e != nil {
		s.logRefusal(r, v, e)
	} else {
		s.logFault(r.Context(), "request failed", err, "endpoint", s.pathOf(r))
		e = oauth.Refuse(oauth.CodeTemporarilyUnavailable, oauth.RuleStorageUnavailable, "storage does not answer; try again later")
		if v.endpoint == nil {
			err = onPage(pages.ReasonUnavailable, e)
		} else {
			err = e
		}
	}
	s.record(r, v, e)
	var page *pageError
	var redirect *redirectError
	switch {
	case errors.As(err, &page):
		s.fault(w, r, pages.Error{Reason: page.reason, Code: e.Code, Developer: e.Description})
	case errors.As(err, &redirect):
		s.respond(w, r, redirect.to, url.Values{"error": {e.Code}, "error_description": {e.Description}})
	case v.endpoint == nil:
		s.fault(w, r, pages.Error{Reason: pages.ReasonInvalidRequest, Code: e.Code, Developer: e.Description})
	default:
		v.endpoint.refuse(w, r, err, e)
	}
}

func (s *Server) logRefusal(r *http.Request, v *visit, e *oauth.Error) {
	s.log.LogAttrs(r.Context(), slog.LevelInfo, "request refused", slog.String("endpoint", s.pathOf(r)), slog.String("code", e.Code),
		slog.String("rule", e.Rule), slog.String("client", oauth.Redact(cut(v.client, maxShownClient))), slog.String("why", oauth.Redact(e.Description)))
}

// record keeps a refusal for the operator.
func (s *Server) record(r *http.Request, v *visit, e *oauth.Error) {
	if s.cfg.Refused == nil {
		return
	}
	s.cfg.Refused(oauth.Refusal{
		RequestID: v.id[0], At: s.now(), Endpoint: s.pathOf(r), ClientID: cut(v.client, maxShownClient), App: v.app, Error: *e,
		Params: oauth.TellingParams(v.params),
	})
}

// pathOf is the path of a request below the issuer.
func (s *Server) pathOf(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, s.base) }

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
	return http.StatusBadRequest
}

// refuse tells a program (RFC 6749 section 5.2). A refusal without a code has no body (RFC 6750 section 3.1).
func (e *endpoint) refuse(w http.ResponseWriter, r *http.Request, err error, refused *oauth.Error) {
	status := e.statusOf(err, refused)
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
	mine, other := bearer, `DPoP algs="`+strings.Join(dpopAlgNames(), " ")+`"`
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

// writeJSON answers a program.
func writeJSON(w http.ResponseWriter, status int, reply any) {
	body, err := json.Marshal(reply)
	if err != nil { // our own structs, of strings and numbers
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	writeBody(w, status, "application/json", body)
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client has gone
}

// logFault tells the operator of a fault. That a flood of unknown clients was slowed down is only worth a warning.
func (s *Server) logFault(ctx context.Context, what string, err error, more ...any) {
	level := slog.LevelError
	if errors.Is(err, storage.ErrBusy) {
		level = slog.LevelWarn
	}
	s.log.Log(ctx, level, what, append([]any{"error", err}, more...)...)
}
