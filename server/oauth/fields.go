package oauth

// Field is a row of the table of what a client may say of itself: one key, by every name that it has, and what is
// needed to read, write and check it. Manifests and their JSON Schema, the contract of plugins, the registration
// endpoint, client ID metadata documents, plans and the commands that show a client loop over the table. So a new field
// is a row here and a field of [Client], one in the .proto, and the code that acts on it.
type Field struct {
	// Key is the name in a manifest, below spec.oauth. A dot is a mapping: metadata.logoUri.
	Key string
	// Name is the member of RFC 7591 and its kin; empty: no registration has it.
	Name string
	Kind Kind
	By   Setter
	// Choices are the only values of a [KindChoice].
	Choices []string
	// Required fields have no default.
	Required bool
	// About says what it is for, to the author of a manifest.
	About string

	at func(*Client) any
}

// Kind is what a field holds, and so how it is checked and written down.
type Kind int

// Kinds, with the type of the field in [Client].
const (
	KindName      Kind = iota // string: what users call the client
	KindRedirects             // []string: redirect URIs
	KindScopes                // []string; one text with spaces in a registration (RFC 7591 section 2)
	KindGrants                // []string: grant types
	KindResources             // []string: resource identifiers (RFC 8707 section 2)
	KindFlag                  // bool
	KindSeconds               // *int64
	KindChoice                // string: one of Choices
	KindKeys                  // string: a JWK Set as JSON text; the set itself in a manifest and a registration
	KindAddress               // string: an address of the client's, where a browser is sent or this server sends requests
	KindSector                // string: such an address, at https
	KindPage                  // string: what the consent page links to or shows
)

// Setter says who may set a field.
type Setter int

// Setters.
const (
	// Anybody: an operator in a manifest, and a client that registers itself or is described by its document.
	Anybody Setter = iota
	// Operator: a manifest alone. What a client says of it itself is ignored, as an unknown member is (RFC 7591 section
	// 2).
	Operator
)

// Last is the last part of the key: its name in the JSON of a [Client], and in the .proto in camelCase.
func (f *Field) Last() string {
	for i := len(f.Key) - 1; i >= 0; i-- {
		if f.Key[i] == '.' {
			return f.Key[i+1:]
		}
	}
	return f.Key
}

// Of points to the field of a client: *string, *bool, *[]string or **int64, by its kind.
func (f *Field) Of(c *Client) any { return f.at(c) }

// IsSet reports whether a client has something else than the zero value.
func (f *Field) IsSet(c *Client) bool {
	switch v := f.at(c).(type) {
	case *string:
		return *v != ""
	case *bool:
		return *v
	case *[]string:
		return len(*v) > 0
	case **int64:
		return *v != nil
	}
	return false
}

// Fields returns the table, in the order in which authors of manifests read it.
func Fields() []*Field { return fields }

// FieldOf returns the row of a key; nil if there is none.
func FieldOf(key string) *Field { return fieldsByKey[key] }

var fieldsByKey = func() map[string]*Field {
	byKey := make(map[string]*Field, len(fields))
	for _, f := range fields {
		byKey[f.Key] = f
	}
	return byKey
}()

var fields = []*Field{
	{
		Key: "clientName", Name: "client_name", Kind: KindName, Required: true, at: func(c *Client) any { return &c.ClientName },
		About: "What users see on the consent page.",
	},
	{
		Key: "redirectUris", Name: "redirect_uris", Kind: KindRedirects, at: func(c *Client) any { return &c.RedirectURIs },
		About: "Where users return to with a code: https, or http on localhost, 127.0.0.1 or [::1], where the port may be * (http://localhost:*). " +
			"Required, unless grantTypes has no authorization_code.",
	},
	{
		Key: "scopes", Name: "scope", Kind: KindScopes, Required: true, at: func(c *Client) any { return &c.Scopes },
		About: "The most that the app may ask for.",
	},
	{
		Key: "public", Kind: KindFlag, By: Operator, at: func(c *Client) any { return &c.Public },
		About: "The app cannot keep a secret (it runs in a browser or on a phone): no client secret, PKCE required.",
	},
	{
		Key: "postLogoutRedirectUris", Name: "post_logout_redirect_uris", Kind: KindRedirects, at: func(c *Client) any { return &c.PostLogoutRedirectURIs },
		About: "Where users may return to after signing out.",
	},
	{
		Key: "grantTypes", Name: "grant_types", Kind: KindGrants, at: func(c *Client) any { return &c.GrantTypes },
		About: "How the app gets tokens. Without it: authorization_code and refresh_token.",
	},
	{
		Key: "tokenEndpointAuthMethod", Name: "token_endpoint_auth_method", Kind: KindChoice, Choices: AuthMethods(),
		at: func(c *Client) any { return &c.TokenEndpointAuthMethod },
		About: "How the app authenticates. Without it: with its secret in either way; public apps not at all. " +
			"With private_key_jwt it signs with a key of its own (jwks or jwksUri) and has no secret.",
	},
	{
		Key: "tokenEndpointAuthSigningAlg", Name: "token_endpoint_auth_signing_alg", Kind: KindChoice, Choices: ClientAlgs(),
		at:    func(c *Client) any { return &c.TokenEndpointAuthSigningAlg },
		About: "The only algorithm with which the app signs to authenticate (private_key_jwt).",
	},
	{
		Key: "jwks", Name: "jwks", Kind: KindKeys, at: func(c *Client) any { return &c.JWKS },
		About: "The app's public keys, with which its signatures are verified (RFC 7517).",
	},
	{
		Key: "jwksUri", Name: "jwks_uri", Kind: KindAddress, at: func(c *Client) any { return &c.JWKSURI },
		About: "Where the app's public keys are fetched from, in place of jwks.",
	},
	{
		Key: "idTokenSignedResponseAlg", Name: "id_token_signed_response_alg", Kind: KindChoice, Choices: ServerAlgs(),
		at:    func(c *Client) any { return &c.IDTokenSignedResponseAlg },
		About: "How ID tokens are signed. Without it: RS256.",
	},
	{
		Key: "userinfoSignedResponseAlg", Name: "userinfo_signed_response_alg", Kind: KindChoice, Choices: ServerAlgs(),
		at:    func(c *Client) any { return &c.UserinfoSignedResponseAlg },
		About: "How userinfo is signed. Without it, it is plain JSON.",
	},
	{
		Key: "introspectionSignedResponseAlg", Name: "introspection_signed_response_alg", Kind: KindChoice, Choices: ServerAlgs(),
		at:    func(c *Client) any { return &c.IntrospectionSignedResponseAlg },
		About: "How replies of introspection are signed when the app asks for a JWT (RFC 9701).",
	},
	{
		Key: "requestObjectSigningAlg", Name: "request_object_signing_alg", Kind: KindChoice, Choices: RequestObjectAlgs(),
		at:    func(c *Client) any { return &c.RequestObjectSigningAlg },
		About: "The only algorithm of the app's request objects; none are unsigned ones (OpenID Connect Core 1.0 section 6.1).",
	},
	{
		Key: "requirePushedAuthorizationRequests", Name: "require_pushed_authorization_requests", Kind: KindFlag,
		at:    func(c *Client) any { return &c.RequirePushedAuthorizationRequests },
		About: "Only take sign-in requests that were pushed (RFC 9126).",
	},
	{
		Key: "dpopBoundAccessTokens", Name: "dpop_bound_access_tokens", Kind: KindFlag, at: func(c *Client) any { return &c.DPoPBoundAccessTokens },
		About: "Always bind access tokens to a key of the app (DPoP, RFC 9449).",
	},
	{
		Key: "subjectType", Name: "subject_type", Kind: KindChoice, Choices: SubjectTypes(), at: func(c *Client) any { return &c.SubjectType },
		About: "public: all apps know a user by the same sub. pairwise: apps of other sectors know another one, so they cannot compare.",
	},
	{
		Key: "sectorIdentifierUri", Name: "sector_identifier_uri", Kind: KindSector, at: func(c *Client) any { return &c.SectorIdentifierURI },
		About: "A JSON list of all redirect URIs, at https; its host is the sector of pairwise subjects.",
	},
	{
		Key: "defaultMaxAge", Name: "default_max_age", Kind: KindSeconds, at: func(c *Client) any { return &c.DefaultMaxAge },
		About: "Users sign in again when they did so longer ago, in seconds.",
	},
	{
		Key: "requireAuthTime", Name: "require_auth_time", Kind: KindFlag, at: func(c *Client) any { return &c.RequireAuthTime },
		About: "ID tokens always say when the user signed in (auth_time).",
	},
	{
		Key: "initiateLoginUri", Name: "initiate_login_uri", Kind: KindAddress, at: func(c *Client) any { return &c.InitiateLoginURI },
		About: "Where others may send users to be signed in to the app (OpenID Connect Core 1.0 section 4).",
	},
	{
		Key: "backchannelLogoutUri", Name: "backchannel_logout_uri", Kind: KindAddress, at: func(c *Client) any { return &c.BackchannelLogoutURI },
		About: "Where this server posts a logout token when a user signs out.",
	},
	{
		Key: "backchannelLogoutSessionRequired", Name: "backchannel_logout_session_required", Kind: KindFlag,
		at:    func(c *Client) any { return &c.BackchannelLogoutSessionRequired },
		About: "Logout tokens name the session (sid).",
	},
	{
		Key: "frontchannelLogoutUri", Name: "frontchannel_logout_uri", Kind: KindAddress, at: func(c *Client) any { return &c.FrontchannelLogoutURI },
		About: "A page that is loaded in the user's browser when the user signs out; on the same scheme, host and port as a redirect URI.",
	},
	{
		Key: "frontchannelLogoutSessionRequired", Name: "frontchannel_logout_session_required", Kind: KindFlag,
		at:    func(c *Client) any { return &c.FrontchannelLogoutSessionRequired },
		About: "That page is told the issuer and the session (iss and sid).",
	},
	{
		Key: "resourceIdentifiers", Kind: KindResources, By: Operator, at: func(c *Client) any { return &c.ResourceIdentifiers },
		About: "Resource servers (RFC 8707) that the app is: it may introspect the access tokens that are issued for them.",
	},
	{
		Key: "metadata.logoUri", Name: "logo_uri", Kind: KindPage, at: func(c *Client) any { return &c.LogoURI },
		About: "The app's logo, an https URL.",
	},
	{
		Key: "metadata.tosUri", Name: "tos_uri", Kind: KindPage, at: func(c *Client) any { return &c.TOSURI },
		About: "The app's terms of service, an https URL.",
	},
	{
		Key: "metadata.policyUri", Name: "policy_uri", Kind: KindPage, at: func(c *Client) any { return &c.PolicyURI },
		About: "The app's privacy policy, an https URL.",
	},
}
