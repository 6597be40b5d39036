package manifests

import "github.com/warifu/warifu/server/oauth"

// oauthShape is spec.oauth. Its keys are those of RFC 7591 section 2 and of the documents that add to it, in camelCase; autoEnv,
// public and resourceIdentifiers are this project's own. checkOAuth holds them against each other.
var oauthShape = &shape{
	kind: objectKind, describe: describeOAuth, about: "The OAuth client that is registered when the app is deployed.",
	fields: []field{
		{"clientName", true, &shape{
			kind: textKind, rule: checkClientName, describe: describeClientName,
			about: "What users see on the consent page.",
		}},
		{"redirectUris", false, redirectURIs(true, // checkOAuth says when it is required
			"Where users return to with a code: https, or http on localhost, 127.0.0.1 or [::1], "+
				"where the port may be * (http://localhost:*). Required, unless grantTypes has no authorization_code.")},
		{"scopes", true, &shape{
			kind: listKind, nonEmpty: true, unique: true, about: "The most that the app may ask for.",
			each: &shape{kind: textKind, rule: checkScope, describe: describeScope, about: "A scope of the server's catalogue."},
		}},
		{"autoEnv", false, &shape{
			kind: flagKind, about: "Set OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET and OAUTH_ISSUER in every worker, container and " +
				"service. Off unless written.",
		}},
		{"public", false, &shape{
			kind: flagKind, about: "The app cannot keep a secret (it runs in a browser or on a phone): no client secret, PKCE required.",
		}},
		{"postLogoutRedirectUris", false, redirectURIs(false, "Where users may return to after signing out.")},
		{"grantTypes", false, &shape{
			kind: listKind, nonEmpty: true, nullable: true, unique: true,
			about: "How the app gets tokens. Without it: authorization_code and refresh_token.",
			each:  &shape{kind: textKind, rule: checkGrantType, describe: describeGrantType, about: "A grant type."},
		}},
		{"tokenEndpointAuthMethod", false, oneOf(oauth.AuthMethods(),
			"How the app authenticates. Without it: with its secret in either way; public apps not at all. "+
				"With private_key_jwt it signs with a key of its own (jwks or jwksUri) and has no secret.")},
		{"tokenEndpointAuthSigningAlg", false, oneOf(oauth.ClientAlgs(), "The only algorithm with which the app signs to authenticate (private_key_jwt).")},
		{"jwks", false, jwksShape},
		{"jwksUri", false, appAddress("Where the app's public keys are fetched from, in place of jwks.")},
		{"idTokenSignedResponseAlg", false, oneOf(oauth.ServerAlgs(), "How ID tokens are signed. Without it: RS256.")},
		{"userinfoSignedResponseAlg", false, oneOf(oauth.ServerAlgs(), "How userinfo is signed. Without it, it is plain JSON.")},
		{"introspectionSignedResponseAlg", false, oneOf(oauth.ServerAlgs(),
			"How replies of introspection are signed when the app asks for a JWT (RFC 9701).")},
		{"requestObjectSigningAlg", false, oneOf(oauth.RequestObjectAlgs(),
			"The only algorithm of the app's request objects; none are unsigned ones (OpenID Connect Core 1.0 section 6.1).")},
		{"requirePushedAuthorizationRequests", false, yesOrNo("Only take sign-in requests that were pushed (RFC 9126).")},
		{"dpopBoundAccessTokens", false, yesOrNo("Always bind access tokens to a key of the app (DPoP, RFC 9449).")},
		{"subjectType", false, oneOf([]string{"public", "pairwise"},
			"public: all apps know a user by the same sub. pairwise: apps of other sectors know another one, so they cannot compare.")},
		{"sectorIdentifierUri", false, &shape{
			kind: textKind, nullable: true, rule: checkSectorIdentifier, describe: describeAppAddress,
			about: "A JSON list of all redirect URIs, at https; its host is the sector of pairwise subjects.",
		}},
		{"defaultMaxAge", false, &shape{
			kind: numberKind, nullable: true, most: 1<<31 - 1, about: "Users sign in again when they did so longer ago, in seconds.",
		}},
		{"requireAuthTime", false, yesOrNo("ID tokens always say when the user signed in (auth_time).")},
		{"initiateLoginUri", false, appAddress("Where others may send users to be signed in to the app (OpenID Connect Core 1.0 section 4).")},
		{"backchannelLogoutUri", false, appAddress("Where this server posts a logout token when a user signs out.")},
		{"backchannelLogoutSessionRequired", false, yesOrNo("Logout tokens name the session (sid).")},
		{"frontchannelLogoutUri", false, appAddress(
			"A page that is loaded in the user's browser when the user signs out; on the same scheme, host and port as a redirect URI.")},
		{"frontchannelLogoutSessionRequired", false, yesOrNo("That page is told the issuer and the session (iss and sid).")},
		{"resourceIdentifiers", false, &shape{
			kind: listKind, nullable: true, unique: true,
			about: "Resource servers (RFC 8707) that the app is: it may introspect the access tokens that are issued for them.",
			each:  &shape{kind: textKind, rule: checkResourceIdentifier, describe: describeResourceIdentifier, about: "An absolute URI without a fragment."},
		}},
		{"metadata", false, &shape{
			kind: objectKind, nullable: true, about: "Shown on the consent page.",
			fields: []field{
				{"logoUri", false, webAddress("The app's logo, an https URL.")},
				{"tosUri", false, webAddress("The app's terms of service, an https URL.")},
				{"policyUri", false, webAddress("The app's privacy policy, an https URL.")},
			},
		}},
	},
}

// jwksShape is a JWK Set (RFC 7517 section 5).
var jwksShape = &shape{
	kind: objectKind, nullable: true, others: warnUnknown, rule: checkJWKS,
	about: "The app's public keys, with which its signatures are verified (RFC 7517).",
	fields: []field{
		{"keys", true, &shape{
			kind: listKind, nonEmpty: true, about: "The keys.",
			each: &shape{
				kind: mappingKind, rule: checkJWK, describe: describeJWK, about: "A public key: RSA of 2048 bits or more, EC P-256 or Ed25519.",
				each: passing("A member of the key."),
			},
		}},
	},
}

func redirectURIs(required bool, about string) *shape {
	return &shape{
		kind: listKind, nonEmpty: required, nullable: !required, unique: true, about: about,
		each: &shape{kind: textKind, rule: checkRedirectURI, describe: describeRedirectURI, about: "A redirect URI."},
	}
}

func webAddress(about string) *shape {
	return &shape{kind: textKind, rule: checkWebAddress, describe: describeWebAddress, about: about}
}

// appAddress is an address of the app itself.
func appAddress(about string) *shape {
	return &shape{kind: textKind, nullable: true, rule: checkAppAddress, describe: describeAppAddress, about: about}
}

func oneOf(choices []string, about string) *shape {
	return &shape{kind: textKind, nullable: true, choices: choices, about: about}
}

func yesOrNo(about string) *shape { return &shape{kind: flagKind, nullable: true, about: about} }
