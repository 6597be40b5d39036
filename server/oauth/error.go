package oauth

import (
	"fmt"
	"strings"
)

// Error codes, by the documents that register them.
const (
	CodeInvalidRequest          = "invalid_request" // RFC 6749 sections 4.1.2.1 and 5.2
	CodeInvalidClient           = "invalid_client"
	CodeInvalidGrant            = "invalid_grant"
	CodeInvalidScope            = "invalid_scope"
	CodeUnauthorizedClient      = "unauthorized_client"
	CodeUnsupportedGrantType    = "unsupported_grant_type"
	CodeAccessDenied            = "access_denied"
	CodeUnsupportedResponseType = "unsupported_response_type"
	CodeServerError             = "server_error"
	CodeTemporarilyUnavailable  = "temporarily_unavailable"

	CodeInvalidToken      = "invalid_token" // RFC 6750 section 3.1
	CodeInsufficientScope = "insufficient_scope"

	CodeInvalidTarget    = "invalid_target"     // RFC 8707 section 2
	CodeInvalidDPoPProof = "invalid_dpop_proof" // RFC 9449 section 5
	CodeUseDPoPNonce     = "use_dpop_nonce"     // RFC 9449 section 8

	CodeAuthorizationPending = "authorization_pending" // RFC 8628 section 3.5
	CodeSlowDown             = "slow_down"
	CodeExpiredToken         = "expired_token"

	CodeInvalidRedirectURI    = "invalid_redirect_uri" // RFC 7591 section 3.2.2
	CodeInvalidClientMetadata = "invalid_client_metadata"

	CodeLoginRequired            = "login_required" // OpenID Connect Core 1.0 section 3.1.2.6
	CodeConsentRequired          = "consent_required"
	CodeInvalidRequestObject     = "invalid_request_object"
	CodeInvalidRequestURI        = "invalid_request_uri"
	CodeRequestURINotSupported   = "request_uri_not_supported"
	CodeRegistrationNotSupported = "registration_not_supported"

	// OpenID Connect Core Error Code unmet_authentication_requirements 1.0.
	CodeUnmetAuthentication = "unmet_authentication_requirements"
)

// Error is a refusal: the one form in which every endpoint says no. It holds nothing secret. Whoever asks is told Code
// and Description alone.
type Error struct {
	// Code and Description are what the client is told (RFC 6749 section 5.2). Description is ASCII without double quotes
	// and backslashes: [Refuse] sees to it.
	Code        string
	Description string
	// Rule is the stable name of the rule that refused, in kebab case, such as redirect-uri-unregistered. Operators find
	// it by the id of the request; clients do not see it.
	Rule string
	// Asked is the value that the rule looked at, cut short; empty when it is secret or there is none.
	Asked string
	// Nearest is what was probably meant: the registered value that is most like Asked. Empty when nothing is like it.
	Nearest string
	// Where names what caused the refusal: a key of app.yml (spec.oauth.redirectUris), or of the configuration
	// (oauth2.grantTypes). Empty when no line of either did.
	Where string
}

// Step reports whether the refusal is a step of a protocol, after which the client goes on: it takes the nonce that it
// was given, polls again, or shows its user the pages that it tried to do without. Nobody has done anything wrong.
func (e *Error) Step() bool {
	switch e.Code {
	case CodeUseDPoPNonce, CodeAuthorizationPending, CodeSlowDown, CodeLoginRequired, CodeConsentRequired:
		return true
	}
	return false
}

// Error tells the code and the description.
func (e *Error) Error() string { return e.Code + ": " + e.Description }

// Refuse makes an [Error] of a code, a rule and a description with its arguments. Credentials in it are blanked, and
// it gets the characters that an error_description may have.
func Refuse(code, rule, format string, args ...any) *Error {
	return &Error{Code: code, Rule: rule, Description: strings.Map(descriptive, Redact(fmt.Sprintf(format, args...)))}
}

// descriptive is what an error_description may hold (RFC 6749 section 5.2).
func descriptive(r rune) rune {
	switch {
	case r == '"':
		return '\''
	case r < 0x20, r > 0x7e, r == '\\':
		return '?'
	}
	return r
}

// About adds the value that the rule looked at, with credentials blanked, and where the rule is written down.
func (e *Error) About(asked, nearest, where string) *Error {
	e.Asked, e.Nearest, e.Where = Redact(asked), nearest, where
	return e
}
