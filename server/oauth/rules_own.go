package oauth

import "cmp"

// RemedyFor is what to do about a refusal of a client that belongs to an app, or of one that does not: it registered
// itself, or a document describes it, or nobody knows it, and no manifest has a line about it.
func (r Rule) RemedyFor(app bool) string {
	if app {
		return r.Remedy
	}
	return cmp.Or(ownRemedies[r.Name], r.Remedy)
}

// ownRemedies are the remedies for clients without a manifest, by the name of the rule, where it makes a difference.
var ownRemedies = map[string]string{
	RuleForwardHost:   "An operator has to list the host for an app, see the proxy's host name.",
	RuleForwardUser:   "Give the account a user name or a verified e-mail address.",
	RuleClientMissing: "Send client_id, or authenticate.",
	RuleClientUnknown: "Compare it with warifu get clients. An app finds its own in OAUTH_CLIENT_ID. A client that " +
		"registered itself registers again: a registration that is not used ends after a while.",
	RuleClientDisabled: "See warifu get clients.",
	RuleClientRemoved:  "Register again, and begin anew.",
	RuleClientSecretWrong: "Use the client_secret that came with the registration: whoever registered the " +
		"client finds it at registration_client_uri.",
	RuleClientAuthMethod: "Authenticate as token_endpoint_auth_method of the registration or the document " +
		"says, or change that. A client with none sends no secret.",
	RuleWorkloadIdentity:   "Only apps of an operator are workloads: authenticate as the client has registered.",
	RuleAssertionSignature: "Name the public key in jwks or jwks_uri, and sign with an algorithm that fits it.",
	RuleGrantTypeUnregistered: "Add it to grant_types of the registration or the document. Tokens without " +
		"a user are only for clients with an initial access token.",
	RuleObjectSignature: "Name the public key in jwks or jwks_uri, and sign as request_object_signing_alg says.",
	RuleObjectMissing: "Send the parameters as claims of a signed JWT (request, RFC 9101), or take " +
		"require_signed_request_object and request_object_signing_alg out of the registration or the document.",
	RuleRedirectURIUnregistered: "Add it to redirect_uris of the registration or the document, or make the " +
		"client send one that is there.",
	RuleRedirectURIWithdrawn: "Begin anew with a redirect URI that is registered, or add it to redirect_uris again.",
	RulePushRequired: "Push the request first (RFC 9126), or take require_pushed_authorization_requests out of the " +
		"registration or the document.",
	RuleScopeMissing:        "Ask for one or more of scopes_supported.",
	RuleScopeNotInManifest:  "Ask for one or more of scopes_supported.",
	RuleScopeNotInCatalogue: "Add it to scopes of the server's configuration, or ask for another.",
	RuleScopeWithdrawn:      "Send the user through authorization with the current scopes.",
	RuleRefreshTokenUsed: "Store the new refresh token of every reply, and refresh from one place at a " +
		"time. Send the user through authorization again.",
	RuleResourceUnknown: "Use the identifier that the resource server says of itself. An operator registers it: in " +
		"oauth2.resourceServers of the configuration, or as an app that is this resource.",
	RuleLogoutURIUnregistered: "Add it to post_logout_redirect_uris of the registration or the document.",
	RuleStartUnregistered:     "Add initiate_login_uri to the registration or the document, or link to the client itself.",
	RuleSubjectTokenAudience:  "Tokens are exchanged by apps that are resource servers.",
	RuleFactorNeeded: "Send the user through an authorization request without prompt=none: they are asked " +
		"for it, or led to set one up. What is demanded is mfa in the server's configuration.",
	RuleUserNotAdmitted:  "Only apps can be limited to certain people.",
	RuleScopePeer:        "Leave the scope out: only apps are trusted by others.",
	RulePeerNotAdmitted:  "Leave the scope out: only apps are trusted by others.",
	RuleExchangeAudience: "Tokens are exchanged by apps that are resource servers.",
}
