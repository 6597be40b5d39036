package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// AuthRequest is an authorization request that has been found valid (RFC 6749 section 4.1.1, OpenID Connect Core 1.0
// section 3.1.2.1). Sealed, it travels through the pages until it is answered.
type AuthRequest struct {
	ClientID    string   `json:"c"`
	RedirectURI string   `json:"d"`
	State       string   `json:"t,omitempty"`
	Scopes      []string `json:"s"`
	Nonce       string   `json:"n,omitempty"`
	Challenge   string   `json:"p,omitempty"`
	Prompt      []string `json:"o,omitempty"`
	MaxAge      *int64   `json:"m,omitempty"` // seconds
	LoginHint   string   `json:"h,omitempty"`
	UILocales   string   `json:"l,omitempty"`
	// Claims asked for one by one, as far as they are permitted.
	Claims *claimsRequest `json:"q,omitempty"`
	// ACR says that the client asked how the user signed in, so the ID token tells it (acr).
	ACR bool `json:"v,omitempty"`
	// DPoPKey is the thumbprint of the key to which the code will be bound (dpop_jkt, RFC 9449 section 10).
	DPoPKey string `json:"k,omitempty"`
	// Resources are the resource indicators (RFC 8707).
	Resources []string `json:"w,omitempty"`

	// Device is there when no client asks for a code, but somebody types in what a device shows.
	Device *deviceRequest `json:"e,omitempty"`

	// Started is when the request came, Unix nanoseconds: as exact as the time of a sign-in, which may be just before it.
	Started int64 `json:"a"`
	// Browser is the hash of the cookie of the browser that it came from.
	Browser string `json:"b"`
}

func (a AuthRequest) started() time.Time { return time.Unix(0, a.Started) }

func (a AuthRequest) prompts(value string) bool { return slices.Contains(a.Prompt, value) }

// pageError is a fault that must not be sent to the redirect URI, because that is not known to be good.
type pageError struct{ page pages.Error }

func (e *pageError) Error() string { return e.page.Developer }

func onPage(reason pages.Reason, code, developer string) error {
	return &pageError{pages.Error{Reason: reason, Code: code, Developer: developer}}
}

// redirectError is a fault that the client is told at its redirect URI (RFC 6749 section 4.1.2.1).
type redirectError struct {
	redirectURI, state string
	code, description  string
}

func (e *redirectError) Error() string { return e.code + ": " + e.description }

// Longest parameters, in bytes. Sealed, a request of such parameters still fits into a URL.
const (
	maxState  = 2048
	maxNonce  = 512
	maxHint   = 256
	maxScopes = 64
)

// parseAuthRequest checks a request: first what decides where its errors go, then the rest.
func (s *Server) parseAuthRequest(ctx context.Context, params url.Values) (*storage.Client, *AuthRequest, error) {
	for _, name := range []string{"client_id", "redirect_uri"} {
		if len(params[name]) > 1 {
			return nil, nil, onPage(pages.ReasonInvalidRequest, "invalid_request", name+" comes more than once")
		}
	}
	id := params.Get("client_id")
	if id == "" {
		return nil, nil, onPage(pages.ReasonInvalidRequest, "invalid_request", "client_id is missing")
	}
	c, err := s.store.Client(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil, onPage(pages.ReasonInvalidClient, "invalid_client", fmt.Sprintf("no client has the client_id %q; check OAUTH_CLIENT_ID, or apply app.yml again", cut(id, 80)))
	}
	if err != nil {
		s.logFault(ctx, "reading a client", err)
		return nil, nil, onPage(pages.ReasonUnavailable, codeTemporarilyUnavailable, "storage does not answer")
	}
	redirectURI := params.Get("redirect_uri")
	if redirectURI == "" {
		return nil, nil, onPage(pages.ReasonInvalidRequest, "invalid_request", "redirect_uri is missing")
	}
	if !storage.MatchRedirectURI(c.RedirectURIs, redirectURI) {
		return nil, nil, onPage(pages.ReasonUnauthorizedClient, "unauthorized_client",
			fmt.Sprintf("redirect_uri %q is not registered for %s; add it to spec.oauth.redirectUris in app.yml and apply again", cut(redirectURI, 200), c.ID))
	}
	a, err := s.checkAuthRequest(c, params)
	var fault *oauthFault
	if errors.As(err, &fault) {
		// The first state, should there be several: the client can find its request by it.
		return nil, nil, &redirectError{redirectURI, cut(params.Get("state"), maxState), fault.code, fault.description}
	}
	a.ClientID, a.RedirectURI = c.ID, redirectURI
	return c, a, nil
}

// oauthFault is an error code with its description.
type oauthFault struct{ code, description string }

func (e *oauthFault) Error() string { return e.code + ": " + e.description }

// checkAuthRequest checks everything but client and redirect URI; its error is always an oauthFault.
func (s *Server) checkAuthRequest(c *storage.Client, params url.Values) (*AuthRequest, error) {
	invalid := func(description string) error { return &oauthFault{"invalid_request", description} }
	for name, values := range params {
		if len(values) > 1 {
			return nil, invalid("a parameter comes more than once: " + printable(name))
		}
		if !utf8.ValidString(values[0]) || strings.ContainsRune(values[0], 0) {
			return nil, invalid("a parameter is not text")
		}
	}
	switch {
	case !mayUse(c, GrantAuthorizationCode):
		return nil, &oauthFault{string(oidc.UnauthorizedClient), "the client did not register the grant type authorization_code"}
	case params.Get("request") != "":
		return nil, &oauthFault{codeRequestNotSupported, "request objects are not supported"}
	case params.Get("request_uri") != "":
		return nil, &oauthFault{codeRequestURINotSupported, "request_uri is not supported"}
	case params.Get("registration") != "":
		return nil, &oauthFault{codeRegistrationUnsupported, "registration is not supported"}
	case params.Get("response_type") == "":
		return nil, invalid("response_type is missing; it must be code")
	case params.Get("response_type") != "code":
		return nil, &oauthFault{codeUnsupportedResponseType, "response_type must be code"}
	case params.Get("response_mode") != "" && params.Get("response_mode") != "query":
		return nil, invalid("response_mode must be query")
	case len(params.Get("state")) > maxState:
		return nil, invalid("state is longer than 2048 bytes")
	case len(params.Get("nonce")) > maxNonce:
		return nil, invalid("nonce is longer than 512 bytes")
	case strings.ContainsFunc(params.Get("state")+params.Get("nonce"), unicode.IsControl):
		return nil, invalid("state and nonce must not have control characters") // RFC 6749 appendix A.5
	}
	a := &AuthRequest{
		State: params.Get("state"), Nonce: params.Get("nonce"), Challenge: params.Get("code_challenge"),
		LoginHint: cut(params.Get("login_hint"), maxHint), UILocales: cut(params.Get("ui_locales"), maxHint),
	}
	if err := checkChallenge(c, a.Challenge, params.Get("code_challenge_method")); err != nil {
		return nil, err
	}
	var err error
	if a.Scopes, err = s.checkScopes(c, params.Get("scope")); err != nil {
		return nil, err
	}
	if a.Prompt, err = checkPrompt(params.Get("prompt")); err != nil {
		return nil, err
	}
	if param := params.Get("claims"); param != "" {
		asked, err := parseClaims(param)
		if err != nil {
			return nil, invalid(err.Error())
		}
		a.Claims = s.permitted(c, asked)
	}
	if param := params.Get("max_age"); param != "" {
		seconds, err := strconv.ParseInt(param, 10, 64)
		if err != nil || seconds < 0 || seconds > 1<<31 {
			return nil, invalid("max_age must be a number of seconds")
		}
		a.MaxAge = &seconds
	}
	return a, nil
}

// checkChallenge allows S256 and nothing else (RFC 7636 section 4.3, RFC 9700 section 2.1.1).
func checkChallenge(c *storage.Client, challenge, method string) error {
	switch {
	case challenge == "" && method != "":
		return &oauthFault{"invalid_request", "code_challenge_method without code_challenge"}
	case challenge == "" && c.Public:
		return &oauthFault{"invalid_request", "a public client must use PKCE: code_challenge is missing"}
	case challenge == "":
		return nil
	case method != "S256":
		return &oauthFault{"invalid_request", "code_challenge_method must be S256"}
	case len(challenge) != 43 || !validVerifier(challenge):
		return &oauthFault{"invalid_request", "code_challenge must be 43 characters of base64url"}
	}
	return nil
}

func (s *Server) checkScopes(c *storage.Client, param string) ([]string, error) {
	scopes := parseScopes(param)
	switch {
	case len(scopes) == 0:
		return nil, &oauthFault{"invalid_scope", "scope is missing; ask for one or more of those that app.yml lists"}
	case len(scopes) > maxScopes:
		return nil, &oauthFault{"invalid_scope", "scope lists more than 64 scopes"}
	}
	if beyond := without(scopes, c.Scopes); len(beyond) > 0 {
		return nil, &oauthFault{"invalid_scope", "not in spec.oauth.scopes of app.yml: " + printable(beyond[0])}
	}
	if gone := without(scopes, s.scopes.names); len(gone) > 0 {
		return nil, &oauthFault{"invalid_scope", "not in this server's catalogue of scopes: " + printable(gone[0])}
	}
	return scopes, nil
}

func checkPrompt(param string) ([]string, error) {
	prompt := parseScopes(param)
	for _, p := range prompt {
		if !slices.Contains([]string{"none", "login", "consent", "select_account"}, p) {
			return nil, &oauthFault{"invalid_request", "prompt must be none, login, consent or select_account"}
		}
	}
	if slices.Contains(prompt, "none") && len(prompt) > 1 {
		return nil, &oauthFault{"invalid_request", "prompt none goes with no other"}
	}
	return prompt, nil
}

// respond sends the browser back to the client with parameters, iss among them (RFC 9207). Always 303: the browser may come
// from a form, and its password must not be sent on.
func (s *Server) respond(w http.ResponseWriter, redirectURI, state string, params url.Values) {
	u, err := url.Parse(redirectURI)
	if err != nil {
		// It was registered, so it parses.
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	if state != "" {
		params.Set("state", state)
	}
	params.Set("iss", s.cfg.Issuer)
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += params.Encode()
	noStore(w)
	w.Header().Set("Location", u.String())
	w.WriteHeader(http.StatusSeeOther)
}

// refuse tells the client, or the user when the client cannot be told.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var page *pageError
	var redirect *redirectError
	switch {
	case errors.As(err, &page):
		s.fault(w, r, page.page)
	case errors.As(err, &redirect):
		s.respond(w, redirect.redirectURI, redirect.state, url.Values{
			"error": {redirect.code}, "error_description": {redirect.description}})
	default:
		s.logFault(r.Context(), "authorization", err)
		s.fault(w, r, pages.Error{Reason: pages.ReasonUnavailable, Code: codeTemporarilyUnavailable, Developer: "storage does not answer"})
	}
}

// cut shortens to at most n bytes, at a character.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && text[n]&0xc0 == 0x80 {
		n--
	}
	return text[:n]
}

// printable is what an error_description may hold of foreign text (RFC 6749 section 4.1.2.1), shortened.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, cut(text, 64))
}
