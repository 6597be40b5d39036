package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/warifu/warifu/storage"
)

// Error codes of the protocol that zitadel/oidc has no constant for.
const (
	codeInvalidToken            = "invalid_token"             // RFC 6750 section 3.1
	codeInsufficientScope       = "insufficient_scope"        // RFC 6750 section 3.1
	codeTemporarilyUnavailable  = "temporarily_unavailable"   // RFC 6749 section 4.1.2.1
	codeUnsupportedResponseType = "unsupported_response_type" // RFC 6749 section 4.1.2.1
	codeInvalidRequestObject    = "invalid_request_object"    // OpenID Connect Core 1.0 section 3.1.2.6
	codeInvalidRequestURI       = "invalid_request_uri"
	codeRequestURINotSupported  = "request_uri_not_supported"
	codeRegistrationUnsupported = "registration_not_supported"
	codeLoginRequired           = "login_required"
	codeConsentRequired         = "consent_required"
	codeUnmetAuthentication     = "unmet_authentication_requirements" // OpenID Connect Core Error Code unmet_authentication_requirements 1.0
	codeAccessDenied            = "access_denied"
	codeInvalidTarget           = "invalid_target"     // RFC 8707 section 2
	codeInvalidProof            = "invalid_dpop_proof" // RFC 9449 section 5
	codeUseNonce                = "use_dpop_nonce"     // RFC 9449 section 8
)

// fail makes an OAuth error with its status for the endpoints that machines call.
func fail(status int, code, description string) error {
	e := &oidc.Error{Description: description}
	setText(&e.ErrorType, code)
	return op.NewStatusError(e, status)
}

// setText sets a string whose type's name the library does not export.
func setText[T ~string](to *T, text string) { *to = T(text) }

// codeOf is the error code of an error that fail has made.
func codeOf(err error) string {
	var e *oidc.Error
	if !errors.As(err, &e) {
		return ""
	}
	return string(e.ErrorType)
}

func invalidRequest(description string) error {
	return fail(http.StatusBadRequest, string(oidc.InvalidRequest), description)
}

func invalidGrant(description string) error {
	return fail(http.StatusBadRequest, string(oidc.InvalidGrant), description)
}

// invalidClient is the one answer to a wrong secret and to an unknown client (RFC 6749 section 5.2).
func invalidClient() error {
	return fail(http.StatusUnauthorized, string(oidc.InvalidClient), "unknown client, or wrong client credentials")
}

// logFault tells the operator of a fault; that a flood of unknown clients was slowed down is none.
func (s *Server) logFault(ctx context.Context, what string, err error) {
	level := slog.LevelError
	if errors.Is(err, storage.ErrBusy) {
		level = slog.LevelWarn
	}
	s.log.Log(ctx, level, what, "error", err)
}

// unavailable is the answer to a fault of storage. The fault itself is for the log.
func (s *Server) unavailable(ctx context.Context, what string, err error) error {
	s.logFault(ctx, what, err)
	return fail(http.StatusServiceUnavailable, codeTemporarilyUnavailable, "storage does not answer; try again later")
}
