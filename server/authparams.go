package server

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Most of parameters: their length in bytes, and that of all of them together as we seal them, so that it still fits
// into a URL.
const (
	maxState   = 4096
	maxNonce   = 512
	maxHint    = 256
	maxScopes  = 64
	maxMaxAge  = 1<<31 - 1 // seconds of max_age
	maxRequest = 12 << 10
)

// checkParams puts the parameters into a, each of which comes once; its error is always a refusal.
func (s *Server) checkParams(c *storage.Client, params url.Values, a *AuthRequest) error {
	if !c.MayUse(oauth.GrantAuthorizationCode) {
		return unauthorizedClient(c, oauth.GrantAuthorizationCode)
	}
	if err := checkResponse(params); err != nil {
		return err
	}
	if params.Get("response_mode") == modeFormPost && !postable(a.RedirectURI) {
		return invalidRequest(oauth.RuleParameterValue,
			"response_mode form_post is for redirect URIs on the web: nothing can be posted to an installed app")
	}
	a.State, a.Nonce, a.Challenge = params.Get("state"), params.Get("nonce"), params.Get("code_challenge")
	a.LoginHint, a.UILocales = oauth.Cut(params.Get("login_hint"), maxHint), oauth.Cut(params.Get("ui_locales"), maxHint)
	if hint := cmp.Or(params.Get("connector_id"), params.Get("idp_hint")); connector.ValidID(hint) {
		a.Connector = hint
	}
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
		// RFC 9449 section 10
		return invalidRequest(oauth.RuleParameterMalformed, "dpop_jkt must be a SHA-256 thumbprint in base64url")
	}
	asked := slices.DeleteFunc(slices.Clone(params["resource"]), func(value string) bool { return value == "" })
	if a.Resources, err = s.checkResources(asked); err != nil {
		return err
	}
	if slices.Equal(a.Resources, []string{s.name}) {
		a.Resources = nil // it says what is meant without it, and is no other consent
	}
	return s.checkIdentity(c, params, a)
}

// checkResponse checks what decides the kind of answer, and what comes back with it.
func checkResponse(params url.Values) error {
	switch {
	case params.Get("request_uri") != "":
		return oauth.Refuse(oauth.CodeRequestURINotSupported, oauth.RuleRequestURIForeign,
			"request_uri must be one that this server gave for a pushed request")
	case params.Get("registration") != "":
		return oauth.Refuse(oauth.CodeRegistrationNotSupported, oauth.RuleRegistrationByValue,
			"registration is not supported")
	case params.Get("response_type") == "":
		return invalidRequest(oauth.RuleResponseType, "response_type is missing; it must be code")
	case params.Get("response_type") != "code":
		return oauth.Refuse(oauth.CodeUnsupportedResponseType, oauth.RuleResponseType, "response_type must be code").
			About(oauth.Printable(params.Get("response_type")), "code", "")
	case params.Get("response_mode") != "" && params.Get("response_mode") != modeQuery &&
		params.Get("response_mode") != modeFormPost:
		return invalidRequest(oauth.RuleParameterValue, "response_mode must be query or form_post")
	case params.Get("display") != "" && !slices.Contains(displays, params.Get("display")):
		return invalidRequest(oauth.RuleParameterValue, "display must be page, popup, touch or wap")
	case len(params.Get("state")) > maxState:
		return invalidRequest(oauth.RuleRequestTooLong, "state is longer than 4096 bytes")
	case len(params.Get("nonce")) > maxNonce:
		return invalidRequest(oauth.RuleRequestTooLong, "nonce is longer than 512 bytes")
	case strings.ContainsFunc(params.Get("state")+params.Get("nonce"), unicode.IsControl):
		// RFC 6749 appendix A.5
		return invalidRequest(oauth.RuleParameterMalformed, "state and nonce must not have control characters")
	}
	return nil
}

// displays are the values of display (OpenID Connect Core 1.0 section 3.1.2.1). Our pages are the same for all of them:
// they fit into a popup and onto a phone.
var displays = []string{"page", "popup", "touch", "wap"}

// checkChallenge allows S256 and nothing else (RFC 7636 section 4.3, RFC 9700 section 2.1.1). Public clients must use
// PKCE, and so must those of FAPI 2.0 (Security Profile section 5.3.2.2).
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
	case method != oauth.ChallengeS256:
		return invalidRequest(oauth.RulePKCEMethod, "code_challenge_method must be "+oauth.ChallengeS256)
	case !oauth.ValidThumbprint(challenge):
		return invalidRequest(oauth.RuleParameterMalformed, "code_challenge must be 43 characters of base64url")
	}
	return nil
}

// checkScopes finds the scopes that a client asks a user for (RFC 6749 section 3.3), or says why it may not ask.
//
// An app says which it wants, and every one is in its app.yml. Agents and their like ask for what a resource server
// told them, or for nothing, and go on by themselves or not at all. So of a client without a manifest, what this server
// does not have for it is left out, as the reply to its registration has left it out, and the reply with the token says
// which scopes it has got; and where it names none, it asks for those that it registered.
func (k *catalogue) checkScopes(c *storage.Client, param string) ([]string, error) {
	scopes := oauth.ParseScopes(param)
	if len(scopes) > maxScopes {
		return nil, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeTooMany, "scope lists more than 64 scopes")
	}
	peers, err := k.checkPeers(c, scopes)
	if err != nil {
		return nil, err
	}
	if c.App != "" {
		if _, err := k.checkListed(c, oauth.Without(scopes, peers)); err != nil {
			return nil, err
		}
		return scopes, nil
	}
	if len(scopes) == 0 {
		scopes = c.Scopes
	}
	known := oauth.Within(scopes, k.ceiling)
	switch {
	case len(known) == 0 && len(scopes) > 0:
		asked := oauth.Printable(scopes[0])
		return nil, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeCeiling,
			"not a scope that this server has for clients that register themselves or are described by a document: %s", asked).
			About(asked, oauth.Nearest(scopes[0], k.ceiling), "")
	case len(known) > 0 && c.AnyScope:
		return known, nil
	}
	return k.checkListed(c, known)
}

// checkListed holds scopes against what a client registered and what the server offers.
func (k *catalogue) checkListed(c *storage.Client, scopes []string) ([]string, error) {
	refuse := func(rule, description, asked, nearest, where string) ([]string, error) {
		return nil, oauth.Refuse(oauth.CodeInvalidScope, rule, "%s", description).About(asked, nearest, where)
	}
	where := whereOf(c, "scopes", "scope")
	if len(scopes) == 0 {
		return refuse(oauth.RuleScopeMissing, "scope is missing; ask for one or more of those in "+placeOfScopes(c), "", "",
			where)
	}
	if beyond := oauth.Without(scopes, c.Scopes); len(beyond) > 0 {
		asked, rule := oauth.Printable(beyond[0]), oauth.RuleScopeNotInManifest
		if c.App == "" {
			rule = oauth.RuleScopeUnregistered
		}
		return refuse(rule, "not in "+placeOfScopes(c)+": "+asked, asked,
			oauth.Nearest(beyond[0], c.Scopes), where)
	}
	if gone := oauth.Without(scopes, k.names); len(gone) > 0 {
		asked := oauth.Printable(gone[0])
		return refuse(oauth.RuleScopeNotInCatalogue, "not in this server's catalogue of scopes: "+asked, asked,
			oauth.Nearest(gone[0], k.names), "scopes")
	}
	return scopes, nil
}

// placeOfScopes is where a client's scopes are listed, in words.
func placeOfScopes(c *storage.Client) string {
	where := whereOf(c, "scopes", "scope")
	switch {
	case c.App != "":
		return where + " of app.yml"
	case clients.Described(c):
		return where + " of the client's document"
	}
	return where + " of the client's registration"
}

// prompts are the values of prompt (OpenID Connect Core 1.0 section 3.1.2.1).
var prompts = []string{"none", "login", "consent", "select_account"}

func checkPrompt(param string) ([]string, error) {
	prompt := oauth.ParseScopes(param)
	if len(oauth.Without(prompt, prompts)) > 0 {
		return nil, invalidRequest(oauth.RuleParameterValue, "prompt must be none, login, consent or select_account")
	}
	if slices.Contains(prompt, "none") && len(prompt) > 1 {
		return nil, invalidRequest(oauth.RuleParameterConflict, "prompt none cannot be combined with another value")
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

// checkIdentity checks what is asked about the user: who it is, how they signed in, and what is to be told.
func (s *Server) checkIdentity(c *storage.Client, params url.Values, a *AuthRequest) error {
	a.Classes = oauth.ParseScopes(params.Get("acr_values")) // each class once, with spaces between, as scopes are
	a.ACR = len(a.Classes) > 0
	if token := params.Get("id_token_hint"); token != "" {
		hint, err := s.ownIDToken(token)
		if err != nil || hint.client() != c.ID {
			return invalidRequest(oauth.RuleIDTokenHint,
				"id_token_hint is not an ID token that this server issued to this client")
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
		switch {
		case !acr.Essential:
			a.Classes = append(a.Classes, acr.texts()...)
		case len(acr.Values) > 0:
			// Section 5.5.1.1: an essential one that cannot be met is a failed sign-in.
			if a.ACRs = acr.texts(); len(oauth.Within(a.ACRs, s.acrs())) == 0 && !s.ways.lead() {
				return acrUnmet()
			}
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

func acrUnmet() *oauth.Error {
	return oauth.Refuse(oauth.CodeUnmetAuthentication, oauth.RuleACRUnmet,
		"the user cannot sign in, or has not signed in, in the way that acr_values or claims asks for")
}

// usersOf are the users whom a client calls by these subjects. What another sector calls somebody, or we ourselves, is
// nobody's name to this client: the answer would tell it that two of them are one (OpenID Connect Core 1.0 section
// 8.1).
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
