package oauth

import (
	"errors"
	"slices"
)

// What the fields of a client say of each other. What has a value that its own rules refuse was reported before, and counts as not
// written here where that would only say the same again.

func (k *checker) together() {
	k.checkGrants()
	k.checkAuthentication()
	k.checkKeys()
	k.checkSubjects()
	k.checkLogout()
	if k.c.Public && len(k.c.ResourceIdentifiers) > 0 {
		k.about("resourceIdentifiers", "public-client", "is for clients that authenticate: a public one cannot introspect tokens")
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
	signsIn := len(types) == 0 || slices.Contains(types, GrantAuthorizationCode) // with a browser
	switch {
	case signsIn && len(k.c.RedirectURIs) == 0:
		k.about("redirectUris", "required", "is required")
	case !signsIn && len(k.c.RedirectURIs) > 0:
		k.unused("redirectUris", "is of no use: grantTypes has no authorization_code")
	}
	if slices.Contains(types, GrantRefreshToken) && !signsIn && !slices.Contains(types, GrantDeviceCode) {
		k.unused("grantTypes", "has refresh_token, and none of the grants that give one (authorization_code and the device grant)")
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
	known := slices.Contains(AuthMethods(), method)
	switch {
	case method == AuthNone && !k.c.Public:
		k.about("tokenEndpointAuthMethod", "auth-method", "is none, which is for public clients: add public: true, or leave it out to use the secret")
	case k.c.Public && method != AuthNone && known:
		k.about("tokenEndpointAuthMethod", "auth-method", "is %s, and a public client has nothing to authenticate with: take out one of the two", method)
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
		k.about("tokenEndpointAuthMethod", "keys", "is private_key_jwt, which needs jwks or jwksUri: the public keys of the client")
	case !set && !fetched && slices.Contains(ClientAlgs(), request):
		k.about("requestObjectSigningAlg", "keys", "needs jwks or jwksUri: the public keys of the client")
	}
	if !set || fetched {
		return
	}
	for _, signed := range [...]struct {
		key, alg string
		used     bool
	}{
		{"tokenEndpointAuthSigningAlg", k.c.TokenEndpointAuthSigningAlg, authenticates}, {"requestObjectSigningAlg", request, true},
	} {
		if signed.used && slices.Contains(ClientAlgs(), signed.alg) && !k.canSign(signed.alg) {
			k.about(signed.key, "keys", "is %s, and no key of jwks can sign so", signed.alg)
		}
	}
	if authenticates && !k.ForeignKeys && !k.canSign("") {
		k.about("jwks", "keys", "has no key that signs: they are all for encryption")
	}
}

func (k *checker) checkSubjects() {
	switch subject := k.c.SubjectType; {
	case subject == SubjectPairwise:
		if _, err := k.c.Sector(""); errors.Is(err, ErrSectors) {
			k.about("subjectType", "sector", "is pairwise, and redirectUris are on several hosts: add sectorIdentifierUri (OpenID Connect Core 1.0 section 8.1)")
		}
	case k.c.SectorIdentifierURI != "" && (subject == "" || subject == SubjectPublic):
		k.unused("sectorIdentifierUri", "is of no use without subjectType: pairwise")
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
		k.about("frontchannelLogoutUri", "front-channel", "must have scheme, host and port of a redirect URI (OpenID Connect Front-Channel Logout 1.0 section 2)")
	}
}
