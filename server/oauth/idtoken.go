package oauth

// What ID tokens say about users.
const (
	// IDTokenScopes are the claims of the scopes that were granted.
	IDTokenScopes = "scopes"
	// IDTokenStandard is what OpenID Connect Core 1.0 section 5.4 says of flows that have an access token: the claims of
	// scopes are at userinfo, and an ID token has only those that were requested of it one by one.
	IDTokenStandard = "standard"
)

// IDTokenContents returns what ID tokens can say about users; the first is the default.
func IDTokenContents() []string { return []string{IDTokenScopes, IDTokenStandard} }

// Whether a refresh brings an ID token (OpenID Connect Core 1.0 section 12.2).
const (
	IDTokenAlways = "always"
	IDTokenNever  = "never"
)

// IDTokenRefreshes returns whether a refresh can bring an ID token; the first is the default.
func IDTokenRefreshes() []string { return []string{IDTokenAlways, IDTokenNever} }
