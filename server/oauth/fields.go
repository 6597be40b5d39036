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
	// Required fields have no default. A client that is nothing but a resource server needs none of them, see
	// [Client.OnlyResource].
	Required bool
	// About says what it is for, to the author of a manifest.
	About string

	at func(*Client) any
	// member is its name in the JSON of a [Client], where that is not the last part of the key.
	member string
}

// Kind is what a field holds, and so how it is checked and written down.
type Kind int

// Kinds, with the type of the field in [Client].
const (
	KindName      Kind = iota // string: what users call the client
	KindRedirects             // []string: redirect URIs
	KindScopes                // []string; one text with spaces in a registration (RFC 7591 section 2)
	KindGrants                // []string: grant types
	KindOrigins               // []string: origins of pages (RFC 6454)
	KindResource              // string: a resource identifier (RFC 8707 section 2)
	KindResources             // []string: resource identifiers
	KindFlag                  // bool
	KindSeconds               // *int64
	KindInterval              // string: a duration, as in 30s, from 0s to [MaxReuseInterval]
	KindChoice                // string: one of Choices
	KindKeys                  // string: a JWK Set as JSON text; the set itself in a manifest and a registration
	KindAddress               // string: an address of the client's, where a browser is sent or this server sends requests
	KindSector                // string: such an address, at https
	KindPage                  // string: what the consent page links to or shows

	KindGroups        // []string: names of groups
	KindGroupPatterns // []string: the same, and stars for any text
	KindConnectors    // []string: ids of connectors
	KindEmails        // []string: e-mail addresses, and *@ before a domain
	KindClaims        // []string: names of claims about users
	KindApps          // []string: names of apps, of which those that are not there yet may come
	KindHosts         // []string: hosts behind forward auth

	KindIdentities // []WorkloadIdentity: workloads that may be the client
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

// Member is its name in the JSON of a [Client], and in the .proto in camelCase: the last part of the key, unless that
// would not say enough.
func (f *Field) Member() string {
	if f.member != "" {
		return f.member
	}
	for i := len(f.Key) - 1; i >= 0; i-- {
		if f.Key[i] == '.' {
			return f.Key[i+1:]
		}
	}
	return f.Key
}

// Of points to the field of a client: *string, *bool, *[]string, *[]WorkloadIdentity or **int64, by its kind.
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
	case *[]WorkloadIdentity:
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
		Key: "clientName", Name: "client_name", Kind: KindName, Required: true,
		at:    func(c *Client) any { return &c.ClientName },
		About: "What users see on the consent page.",
	},
	{
		Key: "redirectUris", Name: "redirect_uris", Kind: KindRedirects, at: func(c *Client) any { return &c.RedirectURIs },
		About: "Where users return to with a code: https; or http on localhost, 127.0.0.1 or [::1], on any port where " +
			"none is named (http://127.0.0.1/callback) or it is * (http://localhost:*); or, for an installed app that is " +
			"public, a scheme of its own (com.example.app:/callback). Required, unless grantTypes has no " +
			"authorization_code, or the app is nothing but a resource server (resource).",
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
		Key: "postLogoutRedirectUris", Name: "post_logout_redirect_uris", Kind: KindRedirects,
		at:    func(c *Client) any { return &c.PostLogoutRedirectURIs },
		About: "Where users may return to after signing out.",
	},
	{
		Key: "grantTypes", Name: "grant_types", Kind: KindGrants, at: func(c *Client) any { return &c.GrantTypes },
		About: "How the app gets tokens. Without it: authorization_code and refresh_token.",
	},
	{
		Key: "tokenEndpointAuthMethod", Name: "token_endpoint_auth_method", Kind: KindChoice, Choices: manifestAuthMethods(),
		at: func(c *Client) any { return &c.TokenEndpointAuthMethod },
		About: "How the app authenticates. Without it: with its secret in either way; public apps not at all. " +
			"With private_key_jwt it signs with a key of its own (jwks or jwksUri) and has no secret. With workload it has " +
			"neither: it shows the token that the platform on which it runs has issued to it (identities).",
	},
	{
		Key: "identities", Kind: KindIdentities, By: Operator, at: func(c *Client) any { return &c.Identities },
		About: "The workloads that may be the app, with tokenEndpointAuthMethod: workload: of each the issuer and the " +
			"subject of its tokens, to the letter. A workload is one app's.",
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
		Key: "idTokenClaims", Kind: KindChoice, By: Operator, Choices: IDTokenContents(),
		at: func(c *Client) any { return &c.IDTokenClaims },
		About: "What ID tokens say about users. scopes: the claims of the scopes that were granted. standard: those are " +
			"at userinfo alone (OpenID Connect Core 1.0 section 5.4). Without it: as the server's configuration says, " +
			"which is scopes by default.",
	},
	{
		Key: "idTokenOnRefresh", Kind: KindChoice, By: Operator, Choices: IDTokenRefreshes(),
		at: func(c *Client) any { return &c.IDTokenOnRefresh },
		About: "Whether a refresh brings an ID token when the grant has the scope openid: always (the default), or " +
			"never. Its signature costs little with idTokenSignedResponseAlg: ES256.",
	},
	{
		Key: "userinfoSignedResponseAlg", Name: "userinfo_signed_response_alg", Kind: KindChoice, Choices: ServerAlgs(),
		at:    func(c *Client) any { return &c.UserinfoSignedResponseAlg },
		About: "How userinfo is signed. Without it, it is plain JSON.",
	},
	{
		Key: "introspectionSignedResponseAlg", Name: "introspection_signed_response_alg", Kind: KindChoice,
		Choices: ServerAlgs(),
		at:      func(c *Client) any { return &c.IntrospectionSignedResponseAlg },
		About:   "How replies of introspection are signed when the app asks for a JWT (RFC 9701).",
	},
	{
		Key: "requestObjectSigningAlg", Name: "request_object_signing_alg", Kind: KindChoice, Choices: RequestObjectAlgs(),
		at: func(c *Client) any { return &c.RequestObjectSigningAlg },
		About: "The only algorithm of the app's request objects; none stands for unsigned ones (OpenID " +
			"Connect Core 1.0 section 6.1).",
	},
	{
		Key: "requireSignedRequestObject", Name: "require_signed_request_object", Kind: KindFlag,
		at:    func(c *Client) any { return &c.RequireSignedRequestObject },
		About: "Only accept sign-in requests that are recent, signed request objects (RFC 9101).",
	},
	{
		Key: "requirePushedAuthorizationRequests", Name: "require_pushed_authorization_requests", Kind: KindFlag,
		at:    func(c *Client) any { return &c.RequirePushedAuthorizationRequests },
		About: "Only accept sign-in requests that were pushed (RFC 9126).",
	},
	{
		Key: "dpopBoundAccessTokens", Name: "dpop_bound_access_tokens", Kind: KindFlag,
		at:    func(c *Client) any { return &c.DPoPBoundAccessTokens },
		About: "Always bind access tokens to a key of the app (DPoP, RFC 9449).",
	},
	{
		Key: "subjectType", Name: "subject_type", Kind: KindChoice, Choices: SubjectTypes(),
		at: func(c *Client) any { return &c.SubjectType },
		About: "public: all apps know a user by the same sub. pairwise: apps of other sectors know another one, so they " +
			"cannot compare.",
	},
	{
		Key: "sectorIdentifierUri", Name: "sector_identifier_uri", Kind: KindSector,
		at:    func(c *Client) any { return &c.SectorIdentifierURI },
		About: "A JSON list of all redirect URIs, at https; its host is the sector of pairwise subjects.",
	},
	{
		Key: "defaultMaxAge", Name: "default_max_age", Kind: KindSeconds,
		at:    func(c *Client) any { return &c.DefaultMaxAge },
		About: "Users sign in again if their last sign-in was longer ago than this, in seconds.",
	},
	{
		Key: "requireAuthTime", Name: "require_auth_time", Kind: KindFlag,
		at:    func(c *Client) any { return &c.RequireAuthTime },
		About: "ID tokens always say when the user signed in (auth_time).",
	},
	{
		Key: "initiateLoginUri", Name: "initiate_login_uri", Kind: KindAddress,
		at:    func(c *Client) any { return &c.InitiateLoginURI },
		About: "Where others may send users to be signed in to the app (OpenID Connect Core 1.0 section 4).",
	},
	{
		Key: "allowedOrigins", Kind: KindOrigins, By: Operator, at: func(c *Client) any { return &c.AllowedOrigins },
		About: "Pages of the app that call this server with scripts (CORS), beside those of its redirect URIs: " +
			"origins, as in https://app.example.com. On loopback the port may be * (http://localhost:*).",
	},
	{
		Key: "backchannelLogoutUri", Name: "backchannel_logout_uri", Kind: KindAddress,
		at:    func(c *Client) any { return &c.BackchannelLogoutURI },
		About: "Where this server posts a logout token when a user signs out.",
	},
	{
		Key: "backchannelLogoutSessionRequired", Name: "backchannel_logout_session_required", Kind: KindFlag,
		at:    func(c *Client) any { return &c.BackchannelLogoutSessionRequired },
		About: "Logout tokens name the session (sid).",
	},
	{
		Key: "frontchannelLogoutUri", Name: "frontchannel_logout_uri", Kind: KindAddress,
		at: func(c *Client) any { return &c.FrontchannelLogoutURI },
		About: "A page that is loaded in the user's browser when the user signs out; on the same scheme, host and port " +
			"as a redirect URI.",
	},
	{
		Key: "frontchannelLogoutSessionRequired", Name: "frontchannel_logout_session_required", Kind: KindFlag,
		at:    func(c *Client) any { return &c.FrontchannelLogoutSessionRequired },
		About: "That page is told the issuer and the session (iss and sid).",
	},
	{
		Key: "accessTokenType", Kind: KindChoice, By: Operator, Choices: AccessTokenTypes(),
		at: func(c *Client) any { return &c.AccessTokenType },
		About: "The type of access tokens for the resource servers that the app is, and of those that it gets when it " +
			"names none: at+jwt (RFC 9068, the default), JWT for verifiers that refuse that type, or opaque, which only " +
			"this server can read.",
	},
	{
		Key: "accessTokenAlg", Kind: KindChoice, By: Operator, Choices: AccessTokenAlgs(),
		at: func(c *Client) any { return &c.AccessTokenAlg },
		About: "How these are signed: ES256 (the default), or RS256 for verifiers that know nothing else, which costs " +
			"more.",
	},
	{
		Key: "resource", Kind: KindResource, By: Operator, at: func(c *Client) any { return &c.Resource },
		About: "The resource server (RFC 8707) that the app is, as in https://mcp.example.com/mcp: the audience of its " +
			"access tokens, which it may introspect. With autoEnv it is in the env as OAUTH_RESOURCE, and " +
			"OAUTH_RESOURCE_METADATA is the address of its metadata (RFC 9728), whose scopes are those of scopes. An app " +
			"that is nothing else needs no other key.",
	},
	{
		Key: "resourceIdentifiers", Kind: KindResources, By: Operator,
		at: func(c *Client) any { return &c.ResourceIdentifiers },
		About: "More resource servers (RFC 8707) that the app is: it may introspect the access tokens that are issued " +
			"for them.",
	},
	{
		Key: "tokenExchangeAudiences", Kind: KindResources, By: Operator,
		at: func(c *Client) any { return &c.TokenExchangeAudiences },
		About: "Resource servers that the app may call for users who called it (token exchange, RFC 8693). Without it: " +
			"none.",
	},
	{
		Key: "trustedPeers", Kind: KindApps, By: Operator, at: func(c *Client) any { return &c.TrustedPeers },
		About: "Apps, by metadata.name, that may get ID tokens which this app takes as well: they ask for the scope " +
			"audience:server:client_id:ID with the client id of this app (cross-client trust, as in Dex). Without it: none.",
	},
	{
		Key: "refreshTokens.reuseInterval", Kind: KindInterval, By: Operator,
		at: func(c *Client) any { return &c.ReuseInterval },
		About: "How long a refresh token that was used gets the newest one of its chain again, for an app that sends one " +
			"twice at once, from 0s to 1m: for that long a stolen one is not noticed. Without it: as the server's " +
			"configuration says.",
	},
	{
		Key: "access.groups", Kind: KindGroups, By: Operator, member: "accessGroups",
		at:    func(c *Client) any { return &c.AccessGroups },
		About: "People who are in one of these groups may use the app.",
	},
	{
		Key: "access.connectors", Kind: KindConnectors, By: Operator, member: "accessConnectors",
		at: func(c *Client) any { return &c.AccessConnectors },
		About: "Only people for whom one of these connectors vouches may use the app; local is that of the " +
			"configuration's staticPasswords. With groups or emails, they must be among those as well.",
	},
	{
		Key: "access.emails", Kind: KindEmails, By: Operator, member: "accessEmails",
		at: func(c *Client) any { return &c.AccessEmails },
		About: "People with one of these e-mail addresses may use the app, as those in groups; the address must be " +
			"verified. *@example.com is everybody in a domain.",
	},
	{
		Key: "access.mfa", Kind: KindChoice, By: Operator, Choices: MFADemands(), member: "accessMfa",
		at: func(c *Client) any { return &c.AccessMFA },
		About: "How people have to prove who they are to use the app. required: by a second factor beside their " +
			"password or connector, such as the code of an authenticator app, or by a passkey. phishing-resistant: by a " +
			"passkey. Without it: as the server's configuration says for all (mfa).",
	},
	{
		Key: "forwardAuth.hosts", Kind: KindHosts, By: Operator, member: "forwardAuthHosts",
		at: func(c *Client) any { return &c.ForwardAuthHosts },
		About: "Hosts at which the app is, as in wiki.example.com, with its port if that is not the usual one. The " +
			"proxy in front of it (nginx, Caddy, Traefik) asks this server about each request, at /auth/verify, and " +
			"tells the app who the user is by the headers Remote-User, Remote-Name, Remote-Email and Remote-Groups, " +
			"as far as scopes go. An app that is only behind forward auth needs no redirectUris, and has no secret.",
	},
	{
		Key: "forwardAuth.user", Kind: KindChoice, By: Operator, Choices: ForwardUsers(), member: "forwardAuthUser",
		at: func(c *Client) any { return &c.ForwardAuthUser },
		About: "What Remote-User says. sub (the default) is never reused for anybody else. username and email (a " +
			"verified one) are unique only among the people of one connector: with several, " +
			"list one in access.connectors.",
	},
	{
		Key: "consent", Kind: KindChoice, Choices: []string{ConsentAsk, ConsentSkip}, By: Operator,
		at: func(c *Client) any { return &c.Consent },
		About: "skip: users are not asked what the app may do, because it is the operator's own. Needs the operator's " +
			"word: trusted in the server's configuration, or warifu apply --trust. Without it: ask.",
	},
	{
		Key: "groupFilter", Kind: KindGroupPatterns, By: Operator, at: func(c *Client) any { return &c.GroupFilter },
		About: "Which of a user's groups the app is told (scope groups), by name or with stars, as in " +
			"team-*. Without it: all.",
	},
	{
		Key: "claims", Kind: KindClaims, By: Operator, at: func(c *Client) any { return &c.Claims },
		About: "Claims about users that the app is told beside those of its scopes: those of the server's configuration " +
			"that come to the apps which list them.",
	},
	{
		Key: "accessTokenClaims", Kind: KindClaims, By: Operator, at: func(c *Client) any { return &c.AccessTokenClaims },
		About: "Claims about users, such as groups, that access tokens of the app hold as well, for APIs that look at " +
			"nothing else. Each needs its scope.",
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
