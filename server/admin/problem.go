package admin

import (
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

func problem(status int, code, detail, remedy string) *Problem {
	return &Problem{
		Type: "urn:warifu:problem:" + code, Title: http.StatusText(status),
		Status: status, Code: code, Detail: detail, Remedy: remedy,
	}
}

// InvalidManifest is the problem of documents with faults.
func InvalidManifest(faults []Fault) *Problem {
	p := problem(http.StatusUnprocessableEntity, "invalid_manifest",
		"The manifest has faults; nothing was changed.", "Correct them and try again.")
	p.Faults = faults
	return p
}

// Denied is the problem of a manifest that a deploy hook, or the server's configuration, does not allow.
func Denied(faults []Fault) *Problem {
	p := problem(http.StatusUnprocessableEntity, "denied", "The manifest is not allowed here; nothing was changed.", "")
	p.Faults = faults
	return p
}

// PartlyApplied is the problem of several apps of which only the first ones could be applied.
func PartlyApplied(applied []string, failed string) *Problem {
	return problem(http.StatusConflict, "partly_applied",
		"Applied: "+strings.Join(applied, ", ")+". Not applied: "+failed+" and what comes after it.",
		"Apply again; the server's log says what stopped it.")
}

// WouldDelete is the problem of documents that remove clients, without the word of the caller that they may.
func WouldDelete(ends []Ending) *Problem {
	var clients []string
	for _, e := range ends {
		grants := fmt.Sprintf("%d grants end", e.Grants)
		if e.Grants == 1 {
			grants = "1 grant ends"
		}
		clients = append(clients, fmt.Sprintf("client %s of the app %s (%s)", e.ClientID, e.App, grants))
	}
	return problem(http.StatusConflict, "would_delete", "Applying this removes "+strings.Join(clients, ", ")+"; nothing was changed.",
		"Correct the manifest if that is not what you want; otherwise apply it with --allow-delete (allowDelete in the API).")
}

// Deleting is the problem of an app that cannot be applied because it is on its way out.
func Deleting() *Problem {
	return problem(http.StatusConflict, "deleting",
		"The app is being deleted.", "Apply it again once it is gone; warifu get deliveries shows what is left.")
}

func internalProblem() *Problem {
	return problem(http.StatusInternalServerError, "internal", "The server could not do this.", "Its log says why.")
}

// codes name the problems that huma finds on its own.
var codes = map[int]string{
	http.StatusBadRequest:            "bad_request",
	http.StatusRequestTimeout:        "timeout",
	http.StatusRequestEntityTooLarge: "too_large",
	http.StatusUnsupportedMediaType:  "unsupported_media_type",
	http.StatusUnprocessableEntity:   "invalid_request",
}

// newProblem is huma's constructor of errors. What it says about a server error is not shown: it may be any error's
// text.
func newProblem(status int, msg string, errs []error) *Problem {
	if status >= http.StatusInternalServerError {
		return internalProblem()
	}
	code := codes[status]
	if code == "" {
		code = strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_")
	}
	p := problem(status, code, msg, "See /openapi.json.")
	for _, err := range errs {
		var detailed huma.ErrorDetailer
		switch {
		case err == nil:
		case errors.As(err, &detailed):
			d := detailed.ErrorDetail() // its value is left out, because it echoes what was sent
			p.Faults = append(p.Faults, Fault{Path: d.Location, Code: code, Message: d.Message, Severity: "error"})
		default:
			p.Faults = append(p.Faults, Fault{Code: code, Message: err.Error(), Severity: "error"})
		}
	}
	return p
}

// failed makes the reply of an error. what names the record that was asked for.
func (a *operations) failed(ctx context.Context, what string, err error) error {
	var known *Problem
	var taken *storage.TakenError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, storage.ErrNotFound):
		return problem(http.StatusNotFound, "not_found", "There is no "+what+".", "")
	case errors.As(err, &taken):
		return problem(http.StatusConflict, "resource_taken",
			"The resource identifier "+taken.Identifier+" has gone to "+taken.Owner+
				" since this was planned; nothing was changed now.",
			"Choose another identifier, or remove it from its present owner first.")
	case errors.Is(err, storage.ErrConflict):
		return problem(http.StatusConflict, "stale_plan",
			"Something has changed since this was planned; nothing was changed now.", "Plan again.")
	case ctx.Err() != nil:
		return problem(http.StatusServiceUnavailable, "cancelled", "The request ended before this was done.", "Try again.")
	}
	a.logFault(ctx, "admin API", what, err)
	return internalProblem()
}

// stored makes the reply of an error of storage: unless it is a verdict about a record, storage is at fault.
func (a *operations) stored(ctx context.Context, what string, err error) error {
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrConflict) || ctx.Err() != nil {
		return a.failed(ctx, what, err)
	}
	a.logFault(ctx, "admin API: storage failed", what, err)
	return problem(http.StatusServiceUnavailable, "storage_unavailable",
		"The server cannot reach its storage.", "Try again; the server's log says more.")
}

// logFault tells the operator of a fault, by the id that the caller was told.
func (a *operations) logFault(ctx context.Context, message, what string, err error) {
	a.Logger.ErrorContext(ctx, message, "what", what, "error", err, "request_id", requestID(ctx))
}

// writeProblem writes a problem that was found before huma was asked.
func writeProblem(w http.ResponseWriter, p *Problem) {
	p.RequestID = w.Header().Get("X-Request-Id")
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // an error means that the caller has gone
}
