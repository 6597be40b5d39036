package oauth

import (
	"slices"
	"strings"
)

// Rule is a rule by which this server refuses, in words. Its name is what an [Error] carries; the words are for
// whoever operates the server, or writes the app that was refused.
type Rule struct {
	Name    string
	Meaning string // what has happened, in one sentence
	Remedy  string // what to do, and who
}

// Key is the key of app.yml (spec.oauth.redirectUris), or of the server's configuration (oauth2.grantTypes), that
// decides what the rule allows; empty when there is none.
func (r Rule) Key() string { return ruleKeys[r.Name] }

// FindRule looks a rule up by its name. The codes of problems and denials are found as well, which are in snake case.
func FindRule(name string) (Rule, bool) {
	i, known := ruleIndex[strings.ReplaceAll(name, "_", "-")]
	if !known {
		return Rule{}, false
	}
	return rules[i], true
}

// Rules are all of them, in the order of the table.
func Rules() []Rule { return slices.Clone(rules) }

// RequestRules are those of what programs and browsers send, in the order of the table.
func RequestRules() []Rule { return slices.Clone(requestRules) }

// rules is the one table of rules.
var rules = slices.Concat(requestRules, manifestRules, adminRules)

var ruleIndex = func() map[string]int {
	index := make(map[string]int, len(rules))
	for i, rule := range rules {
		index[rule.Name] = i
	}
	return index
}()

// Rules about who the client is, and how it authenticates.
const (
	RuleClientMissing         = "client-missing"
	RuleClientUnknown         = "client-unknown"
	RuleClientDisabled        = "client-disabled"
	RuleClientRemoved         = "client-removed"
	RuleClientReturned        = "client-returned"
	RuleClientDocument        = "client-document"
	RuleClientDocumentHost    = "client-document-host"
	RuleClientSecretWrong     = "client-secret-wrong"
	RuleResourceServerSecret  = "resource-server-secret-wrong"
	RuleClientAuthMethod      = "client-auth-method"
	RuleIntrospectionPublic   = "introspection-public"
	RuleClientAuthMalformed   = "client-auth-malformed"
	RuleClientAuthTwice       = "client-auth-twice"
	RuleClientOther           = "client-other"
	RuleAssertionSignature    = "assertion-signature"
	RuleAssertionClaims       = "assertion-claims"
	RuleAssertionUsed         = "assertion-used"
	RuleWorkloadIssuer        = "workload-issuer"
	RuleWorkloadIdentity      = "workload-identity"
	RuleWorkloadSignature     = "workload-signature"
	RuleWorkloadClaims        = "workload-claims"
	RuleWorkloadKeys          = "workload-keys"
	RuleGrantTypeMissing      = "grant-type-missing"
	RuleGrantTypeUnknown      = "grant-type-unknown"
	RuleGrantTypeOff          = "grant-type-off"
	RuleGrantTypeUnregistered = "grant-type-unregistered"
)

// Rules about the form of a request.
const (
	RuleMethodNotAllowed    = "method-not-allowed"
	RulePathUnknown         = "path-unknown"
	RuleContentType         = "content-type"
	RuleBodyMalformed       = "body-malformed"
	RuleRequestTooLong      = "request-too-long"
	RuleParameterInQuery    = "parameter-in-query"
	RuleParameterMissing    = "parameter-missing"
	RuleParameterRepeated   = "parameter-repeated"
	RuleParameterMalformed  = "parameter-malformed"
	RuleParameterValue      = "parameter-value"
	RuleParameterConflict   = "parameter-conflict"
	RuleResponseType        = "response-type"
	RuleRequestURIForeign   = "request-uri-foreign"
	RuleRegistrationByValue = "registration-by-value"
	RuleObjectMalformed     = "request-object-malformed"
	RuleObjectSignature     = "request-object-signature"
	RuleObjectClaims        = "request-object-claims"
	RuleObjectMissing       = "request-object-missing"
	RuleIDTokenHint         = "id-token-hint"
	RuleACRUnmet            = "acr-unmet"
)

// Rules about authorization requests, from the redirect URI to the answer of the user.
const (
	RuleRedirectURIMissing      = "redirect-uri-missing"
	RuleRedirectURIUnregistered = "redirect-uri-unregistered"
	RuleRedirectURIWithdrawn    = "redirect-uri-withdrawn"
	RuleRedirectURIDiffers      = "redirect-uri-differs"
	RulePKCERequired            = "pkce-required"
	RulePKCEMethod              = "pkce-method"
	RulePKCEMismatch            = "pkce-mismatch"
	RulePKCEUnexpected          = "pkce-unexpected"
	RulePushRequired            = "push-required"
	RulePushedUnknown           = "pushed-request-unknown"
	RulePushedOtherClient       = "pushed-request-other-client"
	RulePushedExpired           = "pushed-request-expired"
	RulePushedUsed              = "pushed-request-used"
	RuleSignInNeeded            = "sign-in-needed"
	RuleConsentNeeded           = "consent-needed"
	RuleOtherUser               = "other-user"
	RuleUserDenied              = "user-denied"
	RuleSignInCancelled         = "sign-in-cancelled"
	RuleSignInWrong             = "sign-in-wrong"
	RuleSignInLocked            = "sign-in-locked"
	RuleSignInBusy              = "sign-in-busy"
	RuleFactorWrong             = "factor-wrong"
	RuleLinkGone                = "link-gone"
	RulePasskeyWrong            = "passkey-wrong"
	RuleConnectorUnavailable    = "connector-unavailable"
	RuleConnectorRefused        = "connector-refused"
	RuleUserCode                = "user-code-wrong"
	RuleUserNotAdmitted         = "user-not-admitted"
	RulePeerNotAdmitted         = "peer-not-admitted"
	RuleFactorNeeded            = "factor-needed"
	RuleUserInactive            = "user-inactive"
	RuleSessionEnded            = "session-ended"
	RuleUserEnded               = "user-ended"
	RuleConsentWithdrawn        = "consent-withdrawn"
	RuleRequestExpired          = "request-expired"
	RuleRequestAltered          = "request-altered"
	RuleOtherBrowser            = "other-browser"
	RuleFormForeign             = "form-foreign"
)

// Rules about scopes and resources.
const (
	RuleScopeMissing        = "scope-missing"
	RuleScopeTooMany        = "scope-too-many"
	RuleScopeNotInManifest  = "scope-not-in-manifest"
	RuleScopeNotInCatalogue = "scope-not-in-catalogue"
	RuleScopeCeiling        = "scope-ceiling"
	RuleScopeUnregistered   = "scope-unregistered"
	RuleScopeBeyondGrant    = "scope-beyond-grant"
	RuleScopeAboutUser      = "scope-about-user"
	RuleScopeWithdrawn      = "scope-withdrawn"
	RuleScopeOpenID         = "scope-openid"
	RuleScopePeer           = "scope-peer"
	RuleResourceMissing     = "resource-missing"
	RuleResourceUnknown     = "resource-unknown"
	RuleResourceTooMany     = "resource-too-many"
	RuleResourceNotGranted  = "resource-not-granted"
	RuleResourceWithdrawn   = "resource-withdrawn"
	RuleResourceForms       = "resource-forms"
	RuleExchangeAudience    = "exchange-audience-unlisted"
)

// Rules about codes and tokens.
const (
	RuleCodeInvalid             = "code-invalid"
	RuleCodeExpired             = "code-expired"
	RuleCodeUsed                = "code-used"
	RuleCodeOtherClient         = "code-other-client"
	RuleRefreshTokenInvalid     = "refresh-token-invalid"
	RuleRefreshTokenExpired     = "refresh-token-expired"
	RuleRefreshTokenUsed        = "refresh-token-used"
	RuleRefreshTokenRevoked     = "refresh-token-revoked"
	RuleRefreshTokenOtherClient = "refresh-token-other-client"
	RuleDeviceCodeInvalid       = "device-code-invalid"
	RuleDeviceCodeExpired       = "device-code-expired"
	RuleDeviceCodeUsed          = "device-code-used"
	RuleDeviceCodeOtherClient   = "device-code-other-client"
	RuleDeviceCodePending       = "device-code-pending"
	RuleDevicePollEarly         = "device-poll-early"
	RuleTokenOtherClient        = "token-other-client"
	RuleAccessTokenMissing      = "access-token-missing"
	RuleAccessTokenInvalid      = "access-token-invalid"
	RuleAccessTokenTwice        = "access-token-twice"
	RuleAccessTokenScheme       = "access-token-scheme"
	RuleSubjectTokenInvalid     = "subject-token-invalid"
	RuleSubjectTokenAudience    = "subject-token-audience"
	RuleSubjectTokenOwn         = "subject-token-own"
	RuleSubjectTokenChain       = "subject-token-chain"
	RuleTokenType               = "token-type"
	RuleActorToken              = "actor-token"
)

// Rules about keys to which codes and tokens are bound (RFC 9449).
const (
	RuleProofMissing = "dpop-proof-missing"
	RuleProofInvalid = "dpop-proof-invalid"
	RuleProofUsed    = "dpop-proof-used"
	RuleProofNonce   = "dpop-nonce"
	RuleProofKey     = "dpop-key-differs"
)

// Rules about logout, about a sign-in that a portal begins, and about registration.
const (
	RuleLogoutURIUnregistered = "logout-uri-unregistered"
	RuleLogoutClient          = "logout-client"
	RuleStartUnregistered     = "start-unregistered"
	RuleStartTarget           = "start-target"
	RuleRegistrationToken     = "registration-token"

	RuleRegistrationAccessToken = "registration-access-token"

	// Of forward auth.
	RuleForwardProxy   = "forward-auth-proxy"
	RuleForwardHeaders = "forward-auth-headers"
	RuleForwardHost    = "forward-auth-host"
	RuleForwardRequest = "forward-auth-request"
	RuleForwardSignIn  = "forward-auth-sign-in"
	RuleForwardUser    = "forward-auth-user"
	RuleForwardCookies = "forward-auth-cookie"
	RuleForwardReturn  = "forward-auth-return"
	RuleForwardAnswer  = "forward-auth-answer"

	RuleRegistrationMetadata = "registration-metadata"
	RuleRegistrationConflict = "registration-conflict"
	RuleRegistrationsFull    = "registrations-full"
	RuleRateLimit            = "rate-limit"
	RuleStorageUnavailable   = "storage-unavailable"
	RuleServerFault          = "server-fault"
)

// ruleKeys are the keys of app.yml and of the configuration that decide, by the name of the rule.
var ruleKeys = map[string]string{
	RuleClientAuthMethod:        "spec.oauth.tokenEndpointAuthMethod",
	RuleAssertionSignature:      "spec.oauth.jwks",
	RuleObjectSignature:         "spec.oauth.jwks",
	RuleWorkloadIdentity:        "spec.oauth.identities",
	RuleWorkloadClaims:          "spec.oauth.identities",
	RuleObjectMissing:           "spec.oauth.requireSignedRequestObject",
	RuleGrantTypeUnregistered:   "spec.oauth.grantTypes",
	RuleIntrospectionPublic:     "spec.oauth.public",
	RulePKCERequired:            "spec.oauth.public",
	RulePushRequired:            "spec.oauth.requirePushedAuthorizationRequests",
	RuleRedirectURIUnregistered: "spec.oauth.redirectUris",
	RuleRedirectURIWithdrawn:    "spec.oauth.redirectUris",
	RuleScopeMissing:            "spec.oauth.scopes",
	RuleScopeNotInManifest:      "spec.oauth.scopes",
	RuleScopeWithdrawn:          "spec.oauth.scopes",
	RuleScopeOpenID:             "spec.oauth.scopes",
	RuleSubjectTokenAudience:    "spec.oauth.resource",
	RuleExchangeAudience:        "spec.oauth.tokenExchangeAudiences",
	RuleLogoutURIUnregistered:   "spec.oauth.postLogoutRedirectUris",
	RuleUserNotAdmitted:         "spec.oauth.access",
	RuleFactorNeeded:            "spec.oauth.access.mfa",
	RuleStartUnregistered:       "spec.oauth.initiateLoginUri",
	RuleStartTarget:             "spec.oauth.initiateLoginUri",

	RuleWorkloadIssuer:       "trustedIssuers",
	RuleWorkloadSignature:    "trustedIssuers",
	RuleWorkloadKeys:         "trustedIssuers",
	RuleForwardHost:          "spec.oauth.forwardAuth.hosts",
	RuleForwardUser:          "spec.oauth.forwardAuth.user",
	RuleForwardProxy:         "web.trustedProxies",
	RuleClientDocument:       "oauth2.clientIDMetadataDocuments",
	RuleClientDocumentHost:   "oauth2.clientIDMetadataDocuments",
	RuleResourceServerSecret: "oauth2.resourceServers",
	RuleGrantTypeOff:         "oauth2.grantTypes",
	RuleResourceUnknown:      "oauth2.resourceServers",
	RuleRegistrationToken:    "oauth2.registration.initialAccessTokenFiles",
	RuleScopeCeiling:         "oauth2.registration.scopes",
	RuleScopeNotInCatalogue:  "scopes",
	RuleCodeExpired:          "expiry.codes",
	RuleRefreshTokenExpired:  "expiry.refreshTokens",
	RuleDeviceCodeExpired:    "expiry.deviceRequests",
	RuleRequestExpired:       "expiry.authRequests",
}
