package oauth

import (
	"slices"
	"time"
)

// Client is what is registered of a client: all that a manifest, a deploy hook, the registration endpoint or a client's
// own document can say of it. Its id, its secrets and its dates are for whoever keeps it. The names are those of RFC
// 7591 section 2, OpenID Connect Dynamic Client Registration 1.0 section 2, and the documents named; what is empty has
// its default.
//
// Each field has a row in [Fields], which says what it is for and who may set it.
type Client struct {
	ClientName   string   `json:"clientName"`
	RedirectURIs []string `json:"redirectUris"`
	Scopes       []string `json:"scopes"` // the most that it may ask for
	// Public clients have no secret and must use PKCE (RFC 6749 section 2.1).
	Public                 bool     `json:"public,omitempty"`
	LogoURI                string   `json:"logoUri,omitempty"`
	TOSURI                 string   `json:"tosUri,omitempty"`
	PolicyURI              string   `json:"policyUri,omitempty"`
	PostLogoutRedirectURIs []string `json:"postLogoutRedirectUris,omitempty"`
	ClientMetadata
}

// ClientMetadata is how a client gets tokens, authenticates, signs and is told of logouts: all of a [Client] but what
// users see of it, where they return to, its scopes and whether it is public.
type ClientMetadata struct {
	// GrantTypes that the client may use; authorization_code and refresh_token when empty.
	GrantTypes []string `json:"grantTypes,omitempty"`
	// TokenEndpointAuthMethod is client_secret_basic, client_secret_post, private_key_jwt, none or workload. Empty: none
	// for a public client, otherwise its secret in either way.
	TokenEndpointAuthMethod     string `json:"tokenEndpointAuthMethod,omitempty"`
	TokenEndpointAuthSigningAlg string `json:"tokenEndpointAuthSigningAlg,omitempty"`
	// JWKS is the client's JWK Set as JSON text, JWKSURI where it is fetched from; at most one of them. Public keys only.
	JWKS    string `json:"jwks,omitempty"`
	JWKSURI string `json:"jwksUri,omitempty"`
	// Identities are the workloads that are the client, for the method workload. No two clients have one of them.
	Identities []WorkloadIdentity `json:"identities,omitempty"`

	IDTokenSignedResponseAlg  string `json:"idTokenSignedResponseAlg,omitempty"`  // RS256 when empty
	UserinfoSignedResponseAlg string `json:"userinfoSignedResponseAlg,omitempty"` // plain JSON when empty
	// RFC 9701; plain JSON when empty
	IntrospectionSignedResponseAlg string `json:"introspectionSignedResponseAlg,omitempty"`
	RequestObjectSigningAlg        string `json:"requestObjectSigningAlg,omitempty"` // any that we know when empty

	// IDTokenClaims is [IDTokenScopes] or [IDTokenStandard]; as the server says for all when empty.
	IDTokenClaims string `json:"idTokenClaims,omitempty"`
	// IDTokenOnRefresh is [IDTokenAlways], also when empty, or [IDTokenNever].
	IDTokenOnRefresh string `json:"idTokenOnRefresh,omitempty"`

	RequireSignedRequestObject         bool `json:"requireSignedRequestObject,omitempty"`         // RFC 9101 section 10.5
	RequirePushedAuthorizationRequests bool `json:"requirePushedAuthorizationRequests,omitempty"` // RFC 9126 section 6
	DPoPBoundAccessTokens              bool `json:"dpopBoundAccessTokens,omitempty"`              // RFC 9449 section 5.2

	// SubjectType is public or pairwise (OpenID Connect Core 1.0 section 8); public when empty.
	SubjectType         string `json:"subjectType,omitempty"`
	SectorIdentifierURI string `json:"sectorIdentifierUri,omitempty"`
	DefaultMaxAge       *int64 `json:"defaultMaxAge,omitempty"` // seconds
	RequireAuthTime     bool   `json:"requireAuthTime,omitempty"`
	InitiateLoginURI    string `json:"initiateLoginUri,omitempty"` // OpenID Connect Core 1.0 section 4

	// AllowedOrigins are those of pages of the client beside its redirect URIs (CORS).
	AllowedOrigins []string `json:"allowedOrigins,omitempty"`

	BackchannelLogoutURI              string `json:"backchannelLogoutUri,omitempty"`
	BackchannelLogoutSessionRequired  bool   `json:"backchannelLogoutSessionRequired,omitempty"`
	FrontchannelLogoutURI             string `json:"frontchannelLogoutUri,omitempty"`
	FrontchannelLogoutSessionRequired bool   `json:"frontchannelLogoutSessionRequired,omitempty"`

	// AccessTokenType and AccessTokenAlg are the form of access tokens for the resource servers that this client speaks
	// for, and of those that it gets for none: one of [AccessTokenTypes] and of [AccessTokenAlgs]. The first when empty.
	AccessTokenType string `json:"accessTokenType,omitempty"`
	AccessTokenAlg  string `json:"accessTokenAlg,omitempty"`
	// Resource is the resource server (RFC 8707) that this client is: it may introspect its tokens. ResourceIdentifiers
	// are more of them.
	Resource            string   `json:"resource,omitempty"`
	ResourceIdentifiers []string `json:"resourceIdentifiers,omitempty"`
	// ReuseInterval is how long a refresh token that was used gets the newest one of its chain again, as in "30s", see
	// [Client.ReuseIntervalOr]. Empty: as the server says for all.
	ReuseInterval string `json:"reuseInterval,omitempty"`

	// TrustedPeers are names of apps whose ID tokens may be for this client as well: cross-client trust, as Dex has it.
	TrustedPeers []string `json:"trustedPeers,omitempty"`

	// TokenExchangeAudiences are those for which it may exchange the tokens of users who called it (RFC 8693).
	TokenExchangeAudiences []string `json:"tokenExchangeAudiences,omitempty"`

	// Consent is skip when users are not asked, provided that an operator has given their word for it.
	Consent string `json:"consent,omitempty"`
	// Who may use the client, see [Client.Admits].
	AccessGroups     []string `json:"accessGroups,omitempty"`
	AccessConnectors []string `json:"accessConnectors,omitempty"`
	AccessEmails     []string `json:"accessEmails,omitempty"`
	// AccessMFA is how surely they have to prove who they are: one of [MFADemands], "" for as they like.
	AccessMFA string `json:"accessMfa,omitempty"`
	// ForwardAuthHosts are those at which the app is behind a proxy that asks this server about each request, and
	// ForwardAuthUser is one of [ForwardUsers], "" for the first.
	ForwardAuthHosts []string `json:"forwardAuthHosts,omitempty"`
	ForwardAuthUser  string   `json:"forwardAuthUser,omitempty"`
	// GroupFilter are patterns of the groups that it is told, see [Client.ToldGroups].
	GroupFilter []string `json:"groupFilter,omitempty"`
	// Claims beside those that its scopes bring, of those that the configuration gives to apps which list them.
	Claims []string `json:"claims,omitempty"`
	// AccessTokenClaims are in its access tokens as well, as far as the scopes of a token cover them.
	AccessTokenClaims []string `json:"accessTokenClaims,omitempty"`
}

// Values of Consent.
const (
	ConsentAsk  = "ask" // as without it
	ConsentSkip = "skip"
)

// SignedWith are the algorithms that the client registers of what is signed for it.
func (c *Client) SignedWith() []string {
	return []string{
		c.IDTokenSignedResponseAlg, c.UserinfoSignedResponseAlg, c.IntrospectionSignedResponseAlg, c.AccessTokenAlg,
	}
}

// SignsRequests reports whether the client has registered that it signs its request objects.
func (c *Client) SignsRequests() bool {
	return c.RequireSignedRequestObject || c.RequestObjectSigningAlg != "" && c.RequestObjectSigningAlg != AlgNone
}

// TakesPartInLogouts reports whether the client has an address for logouts: to be told of them, or to come back to.
func (c *Client) TakesPartInLogouts() bool {
	return c.BackchannelLogoutURI != "" || c.FrontchannelLogoutURI != "" || len(c.PostLogoutRedirectURIs) > 0
}

// IsNative reports whether the client is an app on the devices of its users and nothing else (RFC 8252): public, and
// all its redirect URIs lead there.
func (c *Client) IsNative() bool {
	return c.Public && !slices.ContainsFunc(c.RedirectURIs, func(uri string) bool { return !IsNativeRedirect(uri) })
}

// HasSecret reports whether the client authenticates with a secret that it shares with this server.
func (c *Client) HasSecret() bool {
	return !c.Public && c.TokenEndpointAuthMethod != AuthPrivateKeyJWT && c.TokenEndpointAuthMethod != AuthWorkload &&
		!c.OnlyForwardAuth()
}

// ReuseIntervalOr is the client's reuse interval of refresh tokens; otherwise, if it has none of its own.
func (c *Client) ReuseIntervalOr(otherwise time.Duration) time.Duration {
	if c.ReuseInterval == "" {
		return otherwise
	}
	own, err := time.ParseDuration(c.ReuseInterval)
	if err != nil { // [Check] refuses it
		return 0
	}
	return own
}
