package oauth

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// WorkloadIdentity is a workload that may be a client: whoever shows a token of that issuer about that subject is the
// client, and no secret is shared (RFC 7523 section 2.2, with an assertion that somebody else has issued).
//
// Issuer and subject are compared byte for byte, as RFC 7523 section 3 and RFC 8725 section 3.8 want it. There are no
// patterns: how the subjects of an issuer are made up is for that issuer to say, so that a star which is right today
// takes in strangers tomorrow (repo:org/app* is repo:org/app-of-somebody as well). What differs from run to run is said
// by an identity that does not, such as GitHub's repo:org/app:environment:production.
type WorkloadIdentity struct {
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
	// Audience is for whom its tokens are, and nobody else. Empty: as the configuration says of the issuer.
	Audience string `json:"audience,omitempty"`
}

// Is reports whether it is the same workload: who that is does not depend on the audience.
func (i WorkloadIdentity) Is(other WorkloadIdentity) bool {
	return i.Issuer == other.Issuer && i.Subject == other.Subject
}

// Name is the workload in one text, another one for each: neither part has a space.
func (i WorkloadIdentity) Name() string { return i.Issuer + " " + i.Subject }

// String is for people.
func (i WorkloadIdentity) String() string {
	if i.Audience == "" {
		return i.Name()
	}
	return i.Name() + " for " + i.Audience
}

// IdentityOf is the identity of the client that a token of an issuer about a subject is of; nil if it has none.
func (c *Client) IdentityOf(issuer, subject string) *WorkloadIdentity {
	for i := range c.Identities {
		if c.Identities[i].Is(WorkloadIdentity{Issuer: issuer, Subject: subject}) {
			return &c.Identities[i]
		}
	}
	return nil
}

// Bounds of identities.
const (
	MaxIdentities = 20
	// MaxIdentityPart is in bytes: a subject of RFC 7519 has no bound, those of CI hold the names of repositories and
	// branches.
	MaxIdentityPart = 512
)

// AssertionFile is where a workload finds the token by which it is the client: where a runtime that has such tokens
// puts it, and says so in the env.
const AssertionFile = "/var/run/secrets/warifu/token"

const spiffeScheme = "spiffe://"

// CheckTrustedIssuer says what is wrong with the name of an issuer of workloads' tokens, completing "the issuer ...".
// Empty: nothing is. It is the iss of its tokens as it stands there, or a SPIFFE trust domain, whose tokens have none.
func CheckTrustedIssuer(issuer string) string {
	if domain, is := strings.CutPrefix(issuer, spiffeScheme); is {
		if domain == "" || strings.ContainsFunc(domain, notOfTrustDomain) {
			return "must be a SPIFFE trust domain, as in spiffe://example.org: a-z, 0-9, dots, hyphens and underscores, " +
				"without a path"
		}
		return ""
	}
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.ContainsAny(issuer, "?#") || !printableASCII(issuer) || len(issuer) > MaxIdentityPart {
		return "must be the iss of its tokens, an https URL without query and fragment, or a SPIFFE trust domain " +
			"(spiffe://example.org)"
	}
	return ""
}

// notOfTrustDomain is about characters (SPIFFE-ID section 2.1).
func notOfTrustDomain(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

// IsTrustDomain reports whether an issuer is a SPIFFE trust domain.
func IsTrustDomain(issuer string) bool { return strings.HasPrefix(issuer, spiffeScheme) }

// TrustDomain is that of a SPIFFE ID, as an issuer is called; empty if it is none (SPIFFE-ID section 2).
func TrustDomain(subject string) string {
	rest, is := strings.CutPrefix(subject, spiffeScheme)
	domain, path, below := strings.Cut(rest, "/")
	if !is || !below || path == "" || CheckTrustedIssuer(spiffeScheme+domain) != "" {
		return ""
	}
	return spiffeScheme + domain
}

// printableASCII reports whether text has neither spaces nor anything that looks like something else.
func printableASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// checkIdentities holds the workloads of a client against the issuers that the server trusts.
func (k *checker) checkIdentities(f *Field, list []WorkloadIdentity) {
	if len(list) > MaxIdentities {
		k.violates(f, "", "too-many", "has more than %d entries", MaxIdentities)
		return
	}
	for i, id := range list {
		at := "[" + strconv.Itoa(i) + "]"
		before := len(k.found)
		k.checkIdentityIssuer(f, at+".issuer", id.Issuer)
		k.checkIdentitySubject(f, at+".subject", id)
		k.checkIdentityAudience(f, at+".audience", id)
		if len(k.found) == before && slices.ContainsFunc(list[:i], id.Is) {
			k.violates(f, at, "duplicate", "is in the list twice: one workload has one audience")
		}
	}
}

func (k *checker) checkIdentityIssuer(f *Field, at, issuer string) {
	switch wrong := CheckTrustedIssuer(issuer); {
	case issuer == "":
		k.violates(f, at, "required", "is required: the iss of the workload's tokens")
	case wrong != "":
		k.violates(f, at, "identity-issuer", "%s", wrong).among(issuer, k.Issuers)
	case k.Issuers == nil || slices.Contains(k.Issuers, issuer):
	case len(k.Issuers) == 0:
		k.violates(f, at, "untrusted-issuer",
			"is not trusted by this server: no issuer is (trustedIssuers of its configuration)")
	default:
		nearest := ""
		if i := slices.IndexFunc(k.Issuers, func(t string) bool { return sameButSlash(t, issuer) }); i >= 0 {
			nearest = k.Issuers[i]
		}
		v := k.violates(f, at, "untrusted-issuer",
			"is not one that this server trusts: it must be one of trustedIssuers in its configuration, "+
				"character for character")
		v.Nearest = nearest
		v.among(short(issuer), k.Issuers)
	}
}

// sameButSlash reports whether two issuers differ in a slash at the end, or in case: to a server they are two.
func sameButSlash(a, b string) bool {
	return strings.EqualFold(strings.TrimRight(a, "/"), strings.TrimRight(b, "/"))
}

func (k *checker) checkIdentitySubject(f *Field, at string, id WorkloadIdentity) {
	switch subject := id.Subject; {
	case subject == "":
		k.violates(f, at, "required", "is required: the sub of the workload's tokens, as in system:serviceaccount:shop:web")
	case len(subject) > MaxIdentityPart || !printableASCII(subject):
		k.violates(f, at, "identity-subject", "must be 1 to %d printable ASCII characters without spaces", MaxIdentityPart)
	case strings.Contains(subject, "*"):
		k.violates(f, at, "identity-subject", "must be the whole sub of the workload's tokens: there are no "+
			"wildcards, so list each workload; if the sub differs from run to run, use one that does not, "+
			"such as that of a GitHub environment")
	case IsTrustDomain(id.Issuer) && TrustDomain(subject) != id.Issuer:
		k.violates(f, at, "identity-subject",
			"must be a SPIFFE ID of the trust domain that is its issuer, as in spiffe://example.org/web")
	}
}

func (k *checker) checkIdentityAudience(f *Field, at string, id WorkloadIdentity) {
	switch audience := id.Audience; {
	case audience == "":
	case len(audience) > MaxIdentityPart || !printableASCII(audience):
		k.violates(f, at, "identity-audience", "must be 1 to %d printable ASCII characters without spaces", MaxIdentityPart)
	case audience == id.Issuer:
		k.violates(f, at, "identity-audience", "must not be the issuer: tokens for it go to the issuer's own services, and "+
			"anyone who gets one there could act as the app here")
	}
}

// checkWorkload holds what a client without a secret or key of its own says against what else it says.
func (k *checker) checkWorkload() {
	workload, keys := k.c.TokenEndpointAuthMethod == AuthWorkload, k.c.JWKS != "" || k.c.JWKSURI != ""
	switch {
	case !k.Workloads: // then there is no such method, and nobody could set identities
	case workload && len(k.c.Identities) == 0:
		k.about("tokenEndpointAuthMethod", "identities",
			"is workload, which needs identities: the workloads that may be the app")
	case workload && keys && !k.c.SignsRequests():
		k.about("tokenEndpointAuthMethod", "auth-method",
			"is workload, and jwks and jwksUri are keys of the app's own, with which it would authenticate by private_key_jwt: "+
				"take out one of the two")
	case !workload && len(k.c.Identities) > 0 &&
		(k.c.TokenEndpointAuthMethod == "" || slices.Contains(AuthMethods(), k.c.TokenEndpointAuthMethod)):
		k.about("identities", "auth-method",
			"is for tokenEndpointAuthMethod: workload, and the app %s: take out one of the two", k.otherwise())
	}
}

// otherwise is how a client authenticates that is no workload, in words.
func (k *checker) otherwise() string {
	switch {
	case k.c.Public:
		return "is public"
	case k.c.HasSecret():
		return "has a secret"
	}
	return "has a key of its own"
}
