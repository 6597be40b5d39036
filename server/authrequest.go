package server

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// AuthRequest is an authorization request that has been found valid (RFC 6749 section 4.1.1, OpenID Connect Core 1.0
// section 3.1.2.1). Sealed, it travels through the pages until it is answered.
type AuthRequest struct {
	ClientID     string   `json:"c"`
	RedirectURI  string   `json:"d"`
	ResponseMode string   `json:"r,omitempty"` // the default of the response type, query, when empty
	State        string   `json:"t,omitempty"`
	Scopes       []string `json:"s"`
	Nonce        string   `json:"n,omitempty"`
	Challenge    string   `json:"p,omitempty"`
	Prompt       []string `json:"o,omitempty"`
	MaxAge       *int64   `json:"m,omitempty"` // seconds
	LoginHint    string   `json:"h,omitempty"`
	UILocales    string   `json:"l,omitempty"`
	// Connector is the way to sign in that the client suggests (connector_id, or idp_hint).
	Connector string `json:"f,omitempty"`
	// Choose: the sign-in page is shown, even if the way is clear: the user has been on it, and is back. Other: as
	// somebody else.
	Choose bool `json:"y,omitempty"`
	Other  bool `json:"x,omitempty"`
	// Here is the page of this server, below the issuer and with its query, to which a sign-in leads that no client has
	// asked for; the front page if it is empty.
	Here string `json:"i,omitempty"`
	// Users are the ids of those who may answer, if the client asked for certain users (id_token_hint, or a value of
	// the claim sub).
	Users []string `json:"u,omitempty"`
	// Claims asked for one by one, as far as they are permitted.
	Claims *claimsRequest `json:"q,omitempty"`
	// ACR says that the client asked how the user signed in, so the ID token tells it (acr).
	ACR bool `json:"v,omitempty"`
	// ACRs are those one of which it has to be, and Classes those that the client wishes for, the most wanted first.
	ACRs    []string `json:"j,omitempty"`
	Classes []string `json:"z,omitempty"`
	// DPoPKey is the thumbprint of the key to which the code will be bound (dpop_jkt, RFC 9449 section 10).
	DPoPKey string `json:"k,omitempty"`
	// Resources are the resource indicators (RFC 8707).
	Resources []string `json:"w,omitempty"`

	// Pushed is there when the client pushed the request.
	Pushed *pushed `json:"g,omitempty"`
	// Device is set when no client asks for a code, but a user enters what a device shows.
	Device *deviceRequest `json:"e,omitempty"`

	// Started is when the request came, Unix nanoseconds: as exact as the time of a sign-in, which may be just before
	// it.
	Started int64 `json:"a"`
	// Browser is the hash of the cookie of the browser that it came from.
	Browser string `json:"b"`
}

func (a *AuthRequest) started() time.Time { return time.Unix(0, a.Started) }

func (a *AuthRequest) prompts(value string) bool { return slices.Contains(a.Prompt, value) }

// replyTo is where the answer goes.
func (a *AuthRequest) replyTo() replyTo {
	return replyTo{a.RedirectURI, a.State, a.ResponseMode, a.UILocales}
}

// fromApp reports whether there is an app to go back to: none waits for a device, nor for a sign-in at the front page.
func (a *AuthRequest) fromApp() bool { return a.RedirectURI != "" }

// tells is the class by which the client calls the sign-in of a session: the first of those that it named which the
// sign-in is of. It is empty if that is none of them, or the sign-in's own.
func (a *AuthRequest) tells(session *storage.Session) string {
	for _, class := range slices.Concat(a.ACRs, a.Classes) {
		if oauth.IsOfACR(class, session.ACR, session.AMR) {
			if class == oauth.ACROf(session.ACR, session.AMR) {
				return ""
			}
			return class
		}
	}
	return ""
}

// asks are the scopes that the user has to allow: those of the request, and those to which claims belong that it asks
// for one by one.
func (a *AuthRequest) asks() []string {
	return append(slices.Clone(a.Scopes), oauth.Without(a.Claims.scopes(), a.Scopes)...)
}

// parseAuthRequest checks a request that a browser brought: first what decides where its errors go, then the rest.
func (s *Server) parseAuthRequest(ctx context.Context, params url.Values) (*storage.Client, *AuthRequest, error) {
	if len(params["client_id"]) > 1 {
		return nil, nil, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleParameterRepeated,
			"client_id comes more than once"))
	}
	id := params.Get("client_id")
	if id == "" {
		return nil, nil, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleClientMissing, "client_id is missing"))
	}
	v := visitOf(ctx)
	v.client, v.params = id, params
	c, err := s.clients.Client(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil, onPage(pages.ReasonInvalidClient, clients.Unknown(id, err))
	}
	if err != nil {
		return nil, nil, err
	}
	v.noteClient(c)
	if uris := params["request_uri"]; len(uris) == 1 && strings.HasPrefix(uris[0], pushedURI) {
		a, err := s.pushedRequest(c, uris[0]) // the other parameters do not count (RFC 9126 section 4)
		return c, a, err
	}
	a, to, err := s.checkRequest(ctx, c, params, false)
	return c, a, tellable(c, err, to)
}

// tellable is an error of checkRequest as one of a browser's request: the client is told, when its redirect URI is
// known to be good.
func tellable(c *storage.Client, err error, to replyTo) error {
	e := refused(err)
	switch {
	case e == nil:
		return err
	case to.redirectURI != "":
		return toClient(c, to, e)
	case e.Code == oauth.CodeUnauthorizedClient:
		return onPage(pages.ReasonUnauthorizedClient, e)
	}
	return onPage(pages.ReasonInvalidRequest, e)
}

// checkRequest checks what a client asks for; pushed says that it has authenticated and pushes the request. Its error
// is a refusal, or a fault; replyTo is where the client may be told of it, without a redirect URI if that is not known
// to be good.
func (s *Server) checkRequest(ctx context.Context, c *storage.Client, came url.Values, pushed bool) (*AuthRequest,
	replyTo, error) {
	params, unwrapped := s.unwrap(ctx, c, came, pushed)
	if unwrapped != nil {
		params = came
	}
	redirectURI, err := checkRedirectURI(c, params["redirect_uri"])
	if err != nil {
		return nil, replyTo{}, cmp.Or(unwrapped, err)
	}
	// The first state, should there be several: the client can find its request by it, unless it is too long.
	to := replyTo{redirectURI: redirectURI, state: params.Get("state"),
		uiLocales: oauth.Cut(params.Get("ui_locales"), maxHint)}
	if len(to.state) > maxState {
		to.state = ""
	}
	if modes := params["response_mode"]; len(modes) == 1 && modes[0] == modeFormPost && postable(redirectURI) {
		to.mode = modeFormPost // errors are posted as well
	}
	a := &AuthRequest{ClientID: c.ID, RedirectURI: redirectURI, ResponseMode: to.mode}
	if err := cmp.Or(unwrapped, checkOnce(came), checkOnce(params)); err != nil {
		return nil, to, err
	}
	if c.RequirePushedAuthorizationRequests && !pushed {
		return nil, to, invalidRequest(oauth.RulePushRequired, "this client must push its requests (RFC 9126)").
			About("", "", whereOf(c, "requirePushedAuthorizationRequests", "require_pushed_authorization_requests"))
	}
	if err := s.checkParams(c, params, a); err != nil {
		return nil, to, err
	}
	if asksEachTime(c, redirectURI) {
		a.Prompt = append(a.Prompt, "consent")
	}
	if whole, err := plainJSON(a); err != nil || len(whole) > maxRequest {
		return nil, to, invalidRequest(oauth.RuleRequestTooLong, "the request is too long in all")
	}
	return a, to, nil
}

// postable reports whether a browser can post a form to a redirect URI.
func postable(redirectURI string) bool {
	_, private := oauth.PrivateScheme(redirectURI)
	return !private
}

// asksEachTime reports whether the user is asked whatever they allowed before, so that prompt=none is answered with
// consent_required: a public client that is answered on the user's own machine can be any program there, as nothing but
// its id says who it is, and ids are no secrets (RFC 8252 section 8.6). That goes for an operator's own command line
// tool as well: it keeps a refresh token, or a secret, and need not come back silently.
func asksEachTime(c *storage.Client, redirectURI string) bool {
	return c.Public && oauth.IsNativeRedirect(redirectURI)
}

// checkOnce refuses parameters that come more than once (RFC 6749 section 3.1), and those that are no text.
func checkOnce(params url.Values) error {
	for name, values := range params {
		if len(values) > 1 && !slices.Contains(severalTimes, name) {
			return repeated(name)
		}
		for _, value := range values {
			if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
				return invalidRequest(oauth.RuleParameterMalformed, "a parameter is not text")
			}
		}
	}
	return nil
}

// stillGood checks again what can have changed since a request was sealed.
func (s *Server) stillGood(c *storage.Client, a *AuthRequest) error {
	if !c.MayReturnTo(a.RedirectURI) {
		return onPage(pages.ReasonUnauthorizedClient, oauth.Refuse(oauth.CodeUnauthorizedClient,
			oauth.RuleRedirectURIWithdrawn, "the redirect URI was removed since the request was made").
			About(shownURI(a.RedirectURI), "", whereOf(c, "redirectUris", "redirect_uris")))
	}
	if _, err := s.checkScopes(c, oauth.JoinScopes(a.Scopes)); err != nil || len(s.offered(c, a.Scopes)) < len(a.Scopes) {
		return toClient(c, a.replyTo(), oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeWithdrawn,
			"the app may no longer ask for these scopes").
			About(oauth.JoinScopes(a.Scopes), "", whereOf(c, "scopes", "scope")))
	}
	return nil
}

// checkRedirectURI finds the redirect URI good for the client, or says why not (RFC 6749 section 3.1.2.3).
func checkRedirectURI(c *storage.Client, values []string) (string, error) {
	switch {
	case len(values) > 1:
		return "", invalidRequest(oauth.RuleParameterRepeated, "redirect_uri comes more than once")
	case len(values) == 0 || values[0] == "":
		return "", invalidRequest(oauth.RuleRedirectURIMissing, "redirect_uri is missing").
			About("", "", whereOf(c, "redirectUris", "redirect_uris"))
	case !c.MayReturnTo(values[0]):
		return "", oauth.Refuse(oauth.CodeUnauthorizedClient, oauth.RuleRedirectURIUnregistered,
			"redirect_uri %q is not registered for %s; %s",
			shownURI(values[0]), c.ID, whereToAdd(c, "redirectUris", "redirect_uris")).
			About(shownURI(values[0]), oauth.Nearest(values[0], c.RedirectURIs), whereOf(c, "redirectUris", "redirect_uris"))
	}
	return values[0], nil
}

// maxShownURI is how much of an address that was sent is shown again, in bytes.
const maxShownURI = 200

// whereOf is where the registration of a client says something: by the key's name in a manifest, and in other
// registrations.
func whereOf(c *storage.Client, inManifest, inMetadata string) string {
	if c.App != "" {
		return "spec.oauth." + inManifest
	}
	return inMetadata
}

// whereToAdd tells the developer of a client where what is missing belongs.
func whereToAdd(c *storage.Client, inManifest, inMetadata string) string {
	where := whereOf(c, inManifest, inMetadata)
	switch {
	case c.App != "":
		return "add it to " + where + " in app.yml and apply again"
	case clients.Described(c):
		return "add it to " + where + " of the client's document"
	}
	return "add it to " + where + " of the client's registration"
}
