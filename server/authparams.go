package server

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Most of parameters: their length in bytes, and that of all of them together as we seal them, so that it still fits into a URL.
const (
	maxState   = 2048
	maxNonce   = 512
	maxHint    = 256
	maxScopes  = 64
	maxMaxAge  = 1<<31 - 1 // seconds of max_age
	maxRequest = 8 << 10
)

// checkParams puts the parameters into a, each of which comes once; its error is always a refusal.
func (s *Server) checkParams(c *storage.Client, params url.Values, a *AuthRequest) error {
	if !c.MayUse(oauth.GrantAuthorizationCode) {
		return unauthorizedClient(c, oauth.GrantAuthorizationCode)
	}
	if err := checkResponse(params); err != nil {
		return err
	}
	a.State, a.Nonce, a.Challenge = params.Get("state"), params.Get("nonce"), params.Get("code_challenge")
	a.LoginHint, a.UILocales = cut(params.Get("login_hint"), maxHint), cut(params.Get("ui_locales"), maxHint)
	if err := checkChallenge(c, a.Challenge, params.Get("code_challenge_method")); err != nil {
		return err
	}
	var err error
	if a.Scopes, err = s.checkScopes(c, params.Get("scope")); err != nil {
		return err
	}
	if a.Prompt, err = checkPrompt(params.Get("prompt")); err != nil {
		return err
	}
	if a.MaxAge, err = checkMaxAge(c, params.Get("max_age")); err != nil {
		return err
	}
	if a.DPoPKey = params.Get("dpop_jkt"); a.DPoPKey != "" && !oauth.ValidThumbprint(a.DPoPKey) {
		return invalidRequest(oauth.RuleParameterMalformed, "dpop_jkt must be a SHA-256 thumbprint in base64url") // RFC 9449 section 10
	}
	a.Resources = slices.DeleteFunc(slices.Clone(params["resource"]), func(value string) bool { return value == "" })
	if err := s.checkResources(c, a.Resources); err != nil {
		return err
	}
	return s.checkIdentity(c, params, a)
}

// checkResponse checks what decides the kind of answer, and what comes back with it.
func checkResponse(params url.Values) error {
	switch {
	case params.Get("request_uri") != "":
		return oauth.Refuse(oauth.CodeRequestURINotSupported, oauth.RuleRequestURIForeign, "request_uri must be one that this server gave for a pushed request")
	case params.Get("registration") != "":
		return oauth.Refuse(oauth.CodeRegistrationNotSupported, oauth.RuleRegistrationByValue, "registration is not supported")
	case params.Get("response_type") == "":
		return invalidRequest(oauth.RuleResponseType, "response_type is missing; it must be code")
	case params.Get("response_type") != "code":
		return oauth.Refuse(oauth.CodeUnsupportedResponseType, oauth.RuleResponseType, "response_type must be code").
			About(printable(params.Get("response_type")), "code", "")
	case params.Get("response_mode") != "" && params.Get("response_mode") != modeQuery && params.Get("response_mode") != modeFormPost:
		return invalidRequest(oauth.RuleParameterValue, "response_mode must be query or form_post")
	case params.Get("display") != "" && !slices.Contains(displays, params.Get("display")):
		return invalidRequest(oauth.RuleParameterValue, "display must be page, popup, touch or wap")
	case len(params.Get("state")) > maxState:
		return invalidRequest(oauth.RuleRequestTooLong, "state is longer than 2048 bytes")
	case len(params.Get("nonce")) > maxNonce:
		return invalidRequest(oauth.RuleRequestTooLong, "nonce is longer than 512 bytes")
	case strings.ContainsFunc(params.Get("state")+params.Get("nonce"), unicode.IsControl):
		return invalidRequest(oauth.RuleParameterMalformed, "state and nonce must not have control characters") // RFC 6749 appendix A.5
	}
	return nil
}

// displays are the values of display (OpenID Connect Core 1.0 section 3.1.2.1). Our pages are the same for all of them: they fit
// into a popup and onto a phone.
var displays = []string{"page", "popup", "touch", "wap"}

// checkChallenge allows S256 and nothing else (RFC 7636 section 4.3, RFC 9700 section 2.1.1). Public clients must use PKCE, and so
// must those of FAPI 2.0 (Security Profile section 5.3.2.2).
func checkChallenge(c *storage.Client, challenge, method string) error {
	switch {
	case challenge == "" && method != "":
		return invalidRequest(oauth.RulePKCEMethod, "code_challenge_method without code_challenge")
	case challenge == "" && c.Public:
		return invalidRequest(oauth.RulePKCERequired, "a public client must use PKCE: code_challenge is missing")
	case challenge == "" && fapi(c):
		return invalidRequest(oauth.RulePKCERequired, "a client of FAPI 2.0 must use PKCE: code_challenge is missing").
			About("", "", whereOf(c, "requirePushedAuthorizationRequests", "require_pushed_authorization_requests"))
	case challenge == "":
		return nil
	case method != "S256":
		return invalidRequest(oauth.RulePKCEMethod, "code_challenge_method must be S256")
	case !oauth.ValidThumbprint(challenge):
		return invalidRequest(oauth.RuleParameterMalformed, "code_challenge must be 43 characters of base64url")
	}
	return nil
}

// checkScopes checks a scope parameter against what the client and the server offer (RFC 6749 section 3.3).
func (k *catalogue) checkScopes(c *storage.Client, param string) ([]string, error) {
	refuse := func(rule, description, asked, nearest, where string) ([]string, error) {
		return nil, oauth.Refuse(oauth.CodeInvalidScope, rule, "%s", description).About(asked, nearest, where)
	}
	scopes, where := oauth.ParseScopes(param), whereOf(c, "scopes", "scope")
	switch {
	case len(scopes) == 0:
		return refuse(oauth.RuleScopeMissing, "scope is missing; ask for one or more of those that app.yml lists", "", "", where)
	case len(scopes) > maxScopes:
		return refuse(oauth.RuleScopeTooMany, "scope lists more than 64 scopes", "", "", "")
	}
	if beyond := oauth.Without(scopes, c.Scopes); len(beyond) > 0 {
		asked := printable(beyond[0])
		return refuse(oauth.RuleScopeNotInManifest, "not in spec.oauth.scopes of app.yml: "+asked, asked, oauth.Nearest(beyond[0], c.Scopes), where)
	}
	if gone := oauth.Without(scopes, k.names); len(gone) > 0 {
		asked := printable(gone[0])
		return refuse(oauth.RuleScopeNotInCatalogue, "not in this server's catalogue of scopes: "+asked, asked, oauth.Nearest(gone[0], k.names), "scopes")
	}
	return scopes, nil
}

// prompts are the values of prompt (OpenID Connect Core 1.0 section 3.1.2.1).
var prompts = []string{"none", "login", "consent", "select_account"}

func checkPrompt(param string) ([]string, error) {
	prompt := oauth.ParseScopes(param)
	if len(oauth.Without(prompt, prompts)) > 0 {
		return nil, invalidRequest(oauth.RuleParameterValue, "prompt must be none, login, consent or select_account")
	}
	if slices.Contains(prompt, "none") && len(prompt) > 1 {
		return nil, invalidRequest(oauth.RuleParameterConflict, "prompt none goes with no other")
	}
	return prompt, nil
}

// checkMaxAge is the greatest age of a sign-in: of this request, or else of the client's registration. Nil is any.
func checkMaxAge(c *storage.Client, param string) (*int64, error) {
	if param == "" {
		return c.DefaultMaxAge, nil
	}
	seconds, err := strconv.ParseInt(param, 10, 64)
	if err != nil || seconds < 0 || seconds > maxMaxAge {
		return nil, invalidRequest(oauth.RuleParameterMalformed, "max_age must be a number of seconds")
	}
	return &seconds, nil
}

// acrPassword is the authentication context class of everybody who signs in here: a password, and nothing beside it.
const acrPassword = "urn:warifu:acr:pwd"

// checkIdentity checks what is asked about the user: who it is, how they signed in, and what is to be told.
func (s *Server) checkIdentity(c *storage.Client, params url.Values, a *AuthRequest) error {
	a.ACR = params.Get("acr_values") != "" // voluntary: it is told what it gets (section 3.1.2.1)
	if token := params.Get("id_token_hint"); token != "" {
		hint, err := s.ownIDToken(token)
		if err != nil || hint.Audience != c.ID {
			return invalidRequest(oauth.RuleIDTokenHint, "id_token_hint is not an ID token that this server issued to this client")
		}
		a.Users = []string{s.userOf(hint.Subject)}
	}
	if params.Get("claims") == "" {
		return nil
	}
	asked, err := parseClaims(params.Get("claims"))
	if err != nil {
		return invalidRequest(oauth.RuleParameterMalformed, err.Error())
	}
	if acr, named := asked.IDToken["acr"]; named {
		a.ACR = true
		// Section 5.5.1.1: an essential one that cannot be met is a failed sign-in.
		if acr.Essential && len(acr.Values) > 0 && !slices.Contains(acr.texts(), acrPassword) {
			return oauth.Refuse(oauth.CodeUnmetAuthentication, oauth.RuleACRUnmet, "this server does not offer the acr that claims asks for")
		}
	}
	for _, wishes := range []claimWishes{asked.IDToken, asked.Userinfo} {
		if sub := wishes["sub"]; len(sub.Values) > 0 {
			if err := a.onlyFor(s.usersOf(c, sub.texts())); err != nil {
				return err
			}
		}
	}
	a.Claims = s.permitted(c, asked)
	return nil
}

// usersOf are the users whom a client calls by these subjects. What another sector calls somebody, or we ourselves, is nobody's name
// to this client: the answer would tell it that two of them are one (OpenID Connect Core 1.0 section 8.1).
func (s *Server) usersOf(c *storage.Client, subjects []string) []string {
	users := make([]string, len(subjects)) // "" is no user
	for i, subject := range subjects {
		user := s.userOf(subject)
		if own, err := s.subject(c, user); err == nil && own == subject {
			users[i] = user
		}
	}
	return users
}

// onlyFor leaves only those users, of the ones that may answer.
func (a *AuthRequest) onlyFor(users []string) error {
	if a.Users != nil {
		users = oauth.Within(users, a.Users)
	}
	if len(users) == 0 {
		return invalidRequest(oauth.RuleOtherUser, "id_token_hint and the sub of claims name different users, or none")
	}
	a.Users = users
	return nil
}
