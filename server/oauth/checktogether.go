package oauth

import (
	"errors"
	"slices"
)

// What the fields of a client say of each other. What has a value that its own rules refuse was reported before, and
// counts as not written here where that would only say the same again.

func (k *checker) together() {
	k.checkGrants()
	k.checkAuthentication()
	k.checkWorkload()
	k.checkKeys()
	k.checkSubjects()
	k.checkLogout()
	k.checkConsent()
	k.checkGroupsTold()
	k.checkForwardAuth()
	if k.c.AccessTokenType == AccessTokenOpaque && k.c.AccessTokenAlg != "" {
		k.unused("accessTokenAlg", "is of no use: opaque access tokens are not signed")
	}
	for _, key := range []string{"resource", "resourceIdentifiers"} {
		if k.c.Public && fieldsByKey[key].IsSet(k.c) {
			k.about(key, "public-client", "is for clients that authenticate: a public one cannot introspect tokens")
		}
	}
}

// about adds a violation of a field as a whole.
func (k *checker) about(key, code, format string, args ...any) *Violation {
	return k.violates(fieldsByKey[key], "", code, format, args...)
}

// unused adds a warning about a field that nothing follows from.
func (k *checker) unused(key, format string) { k.about(key, "unused", "%s", format).Warning = true }

func (k *checker) checkGrants() {
	types := Within(k.c.GrantTypes, GrantTypes())
	signsIn := slices.Contains(types, GrantAuthorizationCode) || // with a browser
		len(types) == 0 && !k.c.OnlyResource()
	switch {
	case signsIn && len(k.c.RedirectURIs) == 0 && len(k.c.ForwardAuthHosts) == 0:
		k.about("redirectUris", "required", "is required")
	case !signsIn && len(k.c.ForwardAuthHosts) > 0:
		k.about("forwardAuth.hosts", "pair", "needs the grant type %s, which grantTypes leaves out", GrantAuthorizationCode)
	case !signsIn && len(k.c.RedirectURIs) > 0:
		k.unused("redirectUris", "is of no use: grantTypes has no authorization_code")
	}
	if slices.Contains(types, GrantRefreshToken) && !signsIn && !slices.Contains(types, GrantDeviceCode) {
		k.unused("grantTypes", "has refresh_token, and none of the grants that give one (authorization_code and "+
			"the device grant)")
	}
	switch exchanges := slices.Contains(types, GrantTokenExchange); {
	case k.c.Public || k.Strangers: // it may not at all, see below
	case exchanges && len(k.c.TokenExchangeAudiences) == 0:
		k.unused("grantTypes", "has "+GrantTokenExchange+", which is of no use without tokenExchangeAudiences: the resource "+
			"servers that the app may call")
	case !exchanges && len(k.c.TokenExchangeAudiences) > 0:
		k.unused("tokenExchangeAudiences", "is of no use: grantTypes has no "+GrantTokenExchange)
	}
	for _, name := range Within(types, ownGrants) {
		switch {
		case k.c.Public:
			k.about("grantTypes", "public-client", "has %s, which is for clients that authenticate: a public one cannot", name)
		case k.Strangers:
			k.about("grantTypes", "grant-type", "has %s, which is not for clients that anybody may register", name)
		}
	}
}

func (k *checker) checkAuthentication() {
	method := k.c.TokenEndpointAuthMethod
	known := slices.Contains(manifestAuthMethods(), method)
	switch {
	case method == AuthNone && !k.c.Public:
		k.about("tokenEndpointAuthMethod", "auth-method",
			"is none, which is for public clients: add public: true, or leave it out to use the secret")
	case k.c.Public && method != AuthNone && known:
		k.about("tokenEndpointAuthMethod", "auth-method",
			"is %s, and a public client has nothing to authenticate with: take out one of the two", method)
	}
	if k.c.TokenEndpointAuthSigningAlg != "" && method != AuthPrivateKeyJWT && (method == "" || known) {
		k.about("tokenEndpointAuthSigningAlg", "auth-method", "is for tokenEndpointAuthMethod: private_key_jwt")
	}
}

// checkKeys holds what the client signs against the keys that it names.
func (k *checker) checkKeys() {
	set, fetched := k.c.JWKS != "", k.c.JWKSURI != ""
	authenticates := k.c.TokenEndpointAuthMethod == AuthPrivateKeyJWT
	request := k.c.RequestObjectSigningAlg
	switch {
	case set && fetched:
		k.about("jwksUri", "pair", "and jwks exclude each other (RFC 7591 section 2)")
	case !set && !fetched && authenticates:
		k.about("tokenEndpointAuthMethod", "keys",
			"is private_key_jwt, which needs jwks or jwksUri: the public keys of the client")
	case !set && !fetched && slices.Contains(ClientAlgs(), request):
		k.about("requestObjectSigningAlg", "keys", "needs jwks or jwksUri: the public keys of the client")
	case !set && !fetched && k.c.RequireSignedRequestObject:
		k.about("requireSignedRequestObject", "keys", "needs jwks or jwksUri: the public keys of the client")
	}
	if k.c.RequireSignedRequestObject && request == AlgNone {
		k.about("requireSignedRequestObject", "pair", "and requestObjectSigningAlg: none exclude each other")
	}
	if !set || fetched {
		return
	}
	for _, signed := range [...]struct {
		key, alg string
		used     bool
	}{
		{"tokenEndpointAuthSigningAlg", k.c.TokenEndpointAuthSigningAlg, authenticates},
		{"requestObjectSigningAlg", request, true},
	} {
		if signed.used && slices.Contains(ClientAlgs(), signed.alg) && !k.canSign(signed.alg) {
			k.about(signed.key, "keys", "is %s, and no key of jwks can sign that way", signed.alg)
		}
	}
	if authenticates && !k.ForeignKeys && !k.canSign("") {
		k.about("jwks", "keys", "has no key that signs: they are all for encryption")
	}
}

func (k *checker) checkSubjects() {
	switch subject := k.c.SubjectType; {
	case subject == SubjectPairwise:
		k.checkSector()
	case k.c.SectorIdentifierURI != "" && (subject == "" || subject == SubjectPublic):
		k.unused("sectorIdentifierUri", "is of no use without subjectType: pairwise")
	}
}

// checkSector is about pairwise subjects: to which sector they belong, and how its tokens come to the client.
func (k *checker) checkSector() {
	sector, err := k.c.Sector("")
	switch {
	case errors.Is(err, ErrSectors):
		k.about("subjectType", "sector", "is pairwise, and redirectUris are on several hosts: add sectorIdentifierUri "+
			"(OpenID Connect Core 1.0 section 8.1)")
	case err != nil || !k.OwnSector || sector == OwnSector(""):
	case slices.Contains(k.c.GrantTypes, GrantDeviceCode):
		k.about("subjectType", "sector", "is pairwise, and grantTypes has %s: they exclude each other", GrantDeviceCode)
	case k.c.SectorIdentifierURI == "" && slices.ContainsFunc(k.c.RedirectURIs, IsNativeRedirect):
		k.about("subjectType", "sector",
			"is pairwise, and redirectUris are on the user's own device and elsewhere: add sectorIdentifierUri")
	}
}

func (k *checker) checkLogout() {
	if k.c.BackchannelLogoutSessionRequired && k.c.BackchannelLogoutURI == "" {
		k.about("backchannelLogoutSessionRequired", "pair", "needs backchannelLogoutUri")
	}
	if k.c.FrontchannelLogoutSessionRequired && k.c.FrontchannelLogoutURI == "" {
		k.about("frontchannelLogoutSessionRequired", "pair", "needs frontchannelLogoutUri")
	}
	uri := k.c.FrontchannelLogoutURI
	if uri == "" || CheckRedirectURI(uri) != nil {
		return
	}
	if !slices.ContainsFunc(k.c.RedirectURIs, func(redirect string) bool { return SameOrigin(redirect, uri) }) {
		k.about("frontchannelLogoutUri", "front-channel",
			"must have scheme, host and port of a redirect URI (OpenID Connect Front-Channel Logout 1.0 section 2)")
	}
}

// checkConsent is about users who are not asked: where any program can be the client, they are (RFC 8252 section 8.6).
func (k *checker) checkConsent() {
	if k.c.Consent == ConsentSkip && k.c.IsNative() && len(k.c.RedirectURIs) > 0 {
		k.unused("consent", "is of no use: users of a public app on their own device are asked in any case")
	}
}

func (k *checker) checkGroupsTold() {
	if len(k.c.GroupFilter) > 0 && !slices.Contains(k.c.Scopes, ScopeGroups) {
		k.unused("groupFilter", "is of no use: scopes has no "+ScopeGroups)
	}
}

// checkForwardAuth is about apps behind forward auth: their sessions end with the sign-in of the browser, as grants
// with openid do, and their headers are what scopes allow.
func (k *checker) checkForwardAuth() {
	if len(k.c.ForwardAuthHosts) == 0 {
		if k.c.ForwardAuthUser != "" {
			k.about("forwardAuth.hosts", "required", "is required: the hosts at which the app is")
		}
		return
	}
	needed := []string{ScopeOpenID}
	switch k.c.ForwardAuthUser {
	case ForwardUserUsername:
		needed = append(needed, ScopeProfile)
	case ForwardUserEmail:
		needed = append(needed, ScopeEmail)
	}
	for _, scope := range Without(needed, k.c.Scopes) {
		k.about("scopes", "forward-scope", "needs %s for forwardAuth", scope)
	}
	for _, key := range []string{"requirePushedAuthorizationRequests", "requireSignedRequestObject",
		"dpopBoundAccessTokens"} {
		if fieldsByKey[key].IsSet(k.c) {
			k.about(key, "pair", "and forwardAuth exclude each other: this server is the client there, and has no key")
		}
	}
	if k.c.OnlyForwardAuth() && k.c.TokenEndpointAuthMethod != "" {
		k.unused("tokenEndpointAuthMethod",
			"is of no use: an app behind forward auth that is nothing else has nothing to authenticate with")
	}
}
