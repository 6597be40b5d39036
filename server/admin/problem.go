package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// Problem is an error reply of the admin API (RFC 9457). Its code is stable; its texts are for people.
type Problem struct {
	Type   string `json:"type" doc:"A URI for the kind of problem; it ends with the code." example:"urn:warifu:problem:stale_plan"`
	Title  string `json:"title" doc:"The HTTP status, in words."`
	Status int    `json:"status" doc:"The HTTP status."`
	Code   string `json:"code" doc:"A stable name for the kind of problem." example:"stale_plan"`
	Detail string `json:"detail" doc:"What happened."`
	Remedy string `json:"remedy,omitempty" doc:"What to do about it."`
	// RequestID finds the log lines of the request, and its explanation.
	RequestID string `json:"requestId,omitempty" doc:"The id of the request, also in the header X-Request-Id."`
	// Faults is everything that is wrong in what was sent.
	Faults []Fault `json:"faults,omitempty" doc:"Everything that is wrong with what was sent."`

	cause error // the fault that the log is to tell of; nil for a verdict
}

// Fault is one thing that is wrong in a document.
type Fault struct {
	File       string `json:"file,omitempty" doc:"Name of the document, as it was sent."`
	Line       int    `json:"line,omitempty" doc:"Line, from 1; left out when the fault is about the whole."`
	Column     int    `json:"column,omitempty" doc:"Column, from 1."`
	Path       string `json:"path,omitempty" doc:"Place inside the document, such as spec.oauth.redirectUris[1]."`
	Code       string `json:"code" doc:"A stable name for the rule that was broken."`
	Message    string `json:"message" doc:"What is wrong, for people."`
	Suggestion string `json:"suggestion,omitempty" doc:"What was probably meant."`
	Severity   string `json:"severity" enum:"error,warning" doc:"A warning stops nothing."`
}

// Error is the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus makes it a huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of RFC 9457 section 3.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// code names a kind of problem. It is stable, and a rule (package oauth) has its words.
type code string

// The codes of all problems.
const (
	codeInvalidManifest code = "invalid_manifest"
	codeDenied          code = "denied"
	codeWouldDelete     code = "would_delete"
	codeNeedsTrust      code = "needs_trust"
	codeDeleting        code = "deleting"
	codeStalePlan       code = "stale_plan"
	codeResourceTaken   code = "resource_taken"
	codeClientIDTaken   code = "client_id_taken"
	codeHostTaken       code = "host_taken"
	codePartlyApplied   code = "partly_applied"
	codePluginFailed    code = "plugin_failed"
	codeNoClient        code = "no_client"
	codeClientOfAnApp   code = "client_of_an_app"

	codeRotating     code = "rotating"
	codeNoSecret     code = "no_secret"
	codeClientSecret code = "client_secret"
	codeNoNewKey     code = "no_new_key"
	codeKeyFile      code = "key_file"
	codeSealedEnv    code = "sealed_env"
	codePermanentKey code = "permanent_key"

	codeInvalidPeople   code = "invalid_people"
	codeTooMany         code = "too_many"
	codeAmbiguousUser   code = "ambiguous_user"
	codeNoConnector     code = "no_connector"
	codeLinkedElsewhere code = "linked_elsewhere"
	codeOwnAccount      code = "own_account"
	codeNotManaged      code = "not_managed"
	codeUserLeft        code = "user_left"
	codeUserDisabled    code = "user_disabled"
	codeInvalidPassword code = "invalid_password"
	codeWeakPassword    code = "weak_password"

	codeNoConfiguration      code = "no_configuration"
	codeInvalidConfiguration code = "invalid_configuration"
	codeStorageFull          code = "storage_full"
	codeStorageUnavailable   code = "storage_unavailable"
	codeCancelled            code = "cancelled"
	codeTimeout              code = "timeout"
	codeInternal             code = "internal"

	codeUnauthorized         code = "unauthorized"
	codeNoSuchPath           code = "no_such_path"
	codeMethodNotAllowed     code = "method_not_allowed"
	codeBadRequest           code = "bad_request"
	codeInvalidRequest       code = "invalid_request"
	codeTooLarge             code = "too_large"
	codeUnsupportedMediaType code = "unsupported_media_type"
	codeNotFound             code = "not_found"
	codeUnknownRequest       code = "unknown_request"
)

func problem(status int, kind code, detail, remedy string) *Problem {
	return &Problem{
		Type: "urn:warifu:problem:" + string(kind), Title: http.StatusText(status),
		Status: status, Code: string(kind), Detail: detail, Remedy: remedy,
	}
}

// InvalidManifest is the problem of documents with faults.
func InvalidManifest(faults []Fault) *Problem {
	p := problem(http.StatusUnprocessableEntity, codeInvalidManifest,
		"The manifest has faults; nothing was changed.", "Correct them and try again.")
	p.Faults = faults
	return p
}

// Denied is the problem of a manifest that a deploy hook, or the server's configuration, does not allow.
func Denied(faults []Fault) *Problem {
	p := problem(http.StatusUnprocessableEntity, codeDenied, "The manifest is not allowed here; nothing was changed.", "")
	p.Faults = faults
	return p
}

// PartlyApplied is the problem of several apps of which only the first ones could be applied, and why that is: a
// [*Problem], or a fault.
func PartlyApplied(applied []string, failed string, why error) *Problem {
	p := problem(http.StatusServiceUnavailable, codePartlyApplied,
		"Applied: "+strings.Join(applied, ", ")+". Not applied: "+failed+" and what comes after it.",
		"Apply again; the server's log says what stopped it.")
	p.cause = why
	var known *Problem
	if errors.As(why, &known) {
		p.cause = known.cause
		p.Detail += " " + known.Detail
		p.Remedy = strings.TrimSpace(known.Remedy + " Then apply again.")
	}
	if p.cause == nil || verdict(why) {
		p.Status, p.Title, p.cause = http.StatusConflict, http.StatusText(http.StatusConflict), nil
	}
	return p
}

// PluginFailed is the problem of a plugin that did not do what it was asked: why in words, and what to do, which may be
// empty. The error itself is for the log.
func PluginFailed(name, why, remedy string, err error) *Problem {
	if remedy == "" {
		remedy = "Try again; the plugin's messages are in the server's log."
	}
	p := problem(http.StatusServiceUnavailable, codePluginFailed, fmt.Sprintf("The plugin %q failed: %s.", name, why),
		remedy)
	p.cause = err
	return p
}

// WouldDelete is the problem of documents that remove clients, without the word of the caller that they may.
func WouldDelete(ends []Ending) *Problem {
	var clients []string
	for _, e := range ends {
		clients = append(clients, fmt.Sprintf("client %s of the app %s (%s)", e.ClientID, e.App, grantsEnd(e.Grants)))
	}
	return problem(http.StatusConflict, codeWouldDelete,
		"Applying this removes "+strings.Join(clients, ", ")+"; nothing was changed.",
		"Correct the manifest if that is not what you want; otherwise apply it with --allow-delete (allowDelete in the API).")
}

// NeedsTrust is the problem of documents that need the operator's word, without it; why completes "applying this ...".
func NeedsTrust(why string) *Problem {
	return problem(http.StatusConflict, codeNeedsTrust, "Applying this "+why+"; nothing was changed.",
		"If the app is the operator's own, apply it with --trust (trust in the API), or add it to trusted in the server's "+
			"configuration; otherwise take consent out of spec.oauth.")
}

// grantsEnd is how many grants end, in words.
func grantsEnd(n int) string {
	if n == 1 {
		return "1 grant ends"
	}
	return fmt.Sprintf("%d grants end", n)
}

// Deleting is the problem of an app that cannot be applied because it is on its way out.
func Deleting() *Problem {
	return problem(http.StatusConflict, codeDeleting,
		"The app is being deleted.", "Apply it again once it is gone; warifu get deliveries shows what is left.")
}

func internalProblem() *Problem {
	return problem(http.StatusInternalServerError, codeInternal, "The server could not do this.", "Its log says why.")
}

// codes name the problems that huma finds on its own; others are [codeBadRequest].
var codes = map[int]code{
	http.StatusRequestTimeout:        codeTimeout,
	http.StatusRequestEntityTooLarge: codeTooLarge,
	http.StatusUnsupportedMediaType:  codeUnsupportedMediaType,
	http.StatusUnprocessableEntity:   codeInvalidRequest,
}

// newProblem is huma's constructor of errors. What it says about a server error is not shown: it may be any error's
// text.
func newProblem(status int, msg string, errs []error) *Problem {
	if status >= http.StatusInternalServerError {
		return internalProblem()
	}
	p := problem(status, cmp.Or(codes[status], codeBadRequest), msg, "See /openapi.json.")
	for _, err := range errs {
		var detailed huma.ErrorDetailer
		switch {
		case err == nil:
		case errors.As(err, &detailed):
			d := detailed.ErrorDetail() // its value is left out, because it echoes what was sent
			p.Faults = append(p.Faults, Fault{Path: d.Location, Code: p.Code, Message: d.Message, Severity: "error"})
		default:
			p.Faults = append(p.Faults, Fault{Code: p.Code, Message: err.Error(), Severity: "error"})
		}
	}
	return p
}

// failed makes the reply of an error. what names the record that was asked for. What is not a verdict about a record or
// about what was sent is a fault, and so a 503: of a plugin, or else of storage.
func (a *operations) failed(ctx context.Context, what string, err error) error {
	var known *Problem
	var taken *storage.TakenError
	switch {
	case errors.As(err, &known):
		if known.cause != nil {
			a.logFault(ctx, "admin API", what, known.cause)
		}
		return known
	case errors.Is(err, storage.ErrNotFound):
		return problem(http.StatusNotFound, codeNotFound, "There is no "+what+".", "")
	case errors.As(err, &taken):
		kind, remedy := codeResourceTaken, "Choose another identifier, or remove it from its present owner first."
		if taken.What == "client id" {
			kind, remedy = codeClientIDTaken, "Choose another one: a client id is never given to a second app."
		}
		if taken.What == "host" {
			kind, remedy = codeHostTaken, "Choose another host, or remove it from its present owner first."
		}
		return problem(http.StatusConflict, kind,
			"The "+taken.What+" "+taken.Identifier+" has gone to "+taken.Owner+
				" since this was planned; nothing was changed now.", remedy)
	case errors.Is(err, storage.ErrConflict):
		return problem(http.StatusConflict, codeStalePlan,
			"Something has changed since this was planned; nothing was changed now.", "Plan again.")
	case errors.Is(ctx.Err(), context.Canceled):
		return problem(http.StatusServiceUnavailable, codeCancelled, "The request ended before this was done.", "Try again.")
	}
	a.logFault(ctx, "admin API", what, err)
	if ctx.Err() != nil {
		return problem(http.StatusServiceUnavailable, codeTimeout, fmt.Sprintf(
			"This was not done within %s: the server's storage is slow or does not answer.", a.Patience),
			"Try again; if it was to change something, see first whether it has.")
	}
	if errors.Is(err, storage.ErrFull) {
		return problem(http.StatusServiceUnavailable, codeStorageFull,
			"The server's storage is full: nothing can be written, but what is revoked or removed ends.",
			"/readyz says what to do about it. An app that was to be deleted, or to lose its client, has lost it with all "+
				"grants: do it again when there is room.")
	}
	return problem(http.StatusServiceUnavailable, codeStorageUnavailable,
		"The server's storage does not answer, or not as it should.", "Try again; the server's log says more.")
}

// verdict says whether an error is about a record, and not a fault.
func verdict(err error) bool {
	return errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrConflict)
}

// logFault tells the operator of a fault, by the id that the caller was told.
func (a *operations) logFault(ctx context.Context, message, what string, err error) {
	a.Logger.ErrorContext(ctx, message, "what", what, "error", err, "request_id", requestID(ctx))
}

// refuse answers with a problem that huma was not asked about, and keeps it.
func (a *operations) refuse(w http.ResponseWriter, r *http.Request, p *Problem) {
	a.keep(r.Context(), r.Method, r.URL.Path, "", p)
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // an error means that the caller has gone
}
