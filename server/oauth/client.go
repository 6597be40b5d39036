package oauth

// Client is what is registered of a client: all that a manifest, a deploy hook, the registration endpoint or a client's own document
// can say of it. Its id, its secrets and its dates are for whoever keeps it. The names are those of RFC 7591 section 2, OpenID
// Connect Dynamic Client Registration 1.0 section 2, and the documents named; what is empty has its default.
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

// ClientMetadata is what a registration may say beyond the name, the addresses and the scopes.
type ClientMetadata struct {
	// GrantTypes that the client may use; authorization_code and refresh_token when empty.
	GrantTypes []string `json:"grantTypes,omitempty"`
	// TokenEndpointAuthMethod is client_secret_basic, client_secret_post, private_key_jwt or none. Empty: none for a public
	// client, otherwise its secret in either way.
	TokenEndpointAuthMethod     string `json:"tokenEndpointAuthMethod,omitempty"`
	TokenEndpointAuthSigningAlg string `json:"tokenEndpointAuthSigningAlg,omitempty"`
	// JWKS is the client's JWK Set as JSON text, JWKSURI where it is fetched from; at most one of them. Public keys only.
	JWKS    string `json:"jwks,omitempty"`
	JWKSURI string `json:"jwksUri,omitempty"`

	IDTokenSignedResponseAlg       string `json:"idTokenSignedResponseAlg,omitempty"`       // RS256 when empty
	UserinfoSignedResponseAlg      string `json:"userinfoSignedResponseAlg,omitempty"`      // plain JSON when empty
	IntrospectionSignedResponseAlg string `json:"introspectionSignedResponseAlg,omitempty"` // RFC 9701; plain JSON when empty
	RequestObjectSigningAlg        string `json:"requestObjectSigningAlg,omitempty"`        // any that we know when empty

	RequirePushedAuthorizationRequests bool `json:"requirePushedAuthorizationRequests,omitempty"` // RFC 9126 section 6
	DPoPBoundAccessTokens              bool `json:"dpopBoundAccessTokens,omitempty"`              // RFC 9449 section 5.2

	// SubjectType is public or pairwise (OpenID Connect Core 1.0 section 8); public when empty.
	SubjectType         string `json:"subjectType,omitempty"`
	SectorIdentifierURI string `json:"sectorIdentifierUri,omitempty"`
	DefaultMaxAge       *int64 `json:"defaultMaxAge,omitempty"` // seconds
	RequireAuthTime     bool   `json:"requireAuthTime,omitempty"`
	InitiateLoginURI    string `json:"initiateLoginUri,omitempty"` // OpenID Connect Core 1.0 section 4

	BackchannelLogoutURI              string `json:"backchannelLogoutUri,omitempty"`
	BackchannelLogoutSessionRequired  bool   `json:"backchannelLogoutSessionRequired,omitempty"`
	FrontchannelLogoutURI             string `json:"frontchannelLogoutUri,omitempty"`
	FrontchannelLogoutSessionRequired bool   `json:"frontchannelLogoutSessionRequired,omitempty"`

	// ResourceIdentifiers are the resource servers (RFC 8707) that this client speaks for: it may introspect their tokens.
	ResourceIdentifiers []string `json:"resourceIdentifiers,omitempty"`
}

// HasSecret reports whether the client authenticates with a secret that it shares with this server.
func (c *Client) HasSecret() bool { return !c.Public && c.TokenEndpointAuthMethod != AuthPrivateKeyJWT }
