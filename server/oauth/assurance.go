package oauth

import "slices"

// Assurance is how surely somebody has proven who they are. A higher one contains the lower ones.
type Assurance int

// Assurances.
const (
	AssuranceUnknown           Assurance = iota // nothing is known of how
	AssurancePassword                           // by something that can be guessed, phished or copied
	AssuranceMFA                                // by two different things, one of which they have
	AssurancePhishingResistant                  // by a key that is bound to this server's address, and something beside it
)

// Authentication context classes (acr) of them, in that order. The last is that of the OpenID Connect Extended
// Authentication Profile 1.0.
const (
	ACRPassword          = "urn:warifu:acr:pwd"
	ACRMFA               = "urn:warifu:acr:mfa"
	ACRPhishingResistant = "phr"
	acrHardware          = "phrh" // of the same profile; told by identity providers alone
)

// Authentication methods (amr, RFC 8176 section 2) of this server.
const (
	AMRPassword   = "pwd"
	AMROTP        = "otp"  // a code of an authenticator app, or a recovery code
	AMRPossession = "pop"  // a key that they have: a passkey
	AMRPresence   = "user" // they touched it
	AMRMultiple   = "mfa"  // more than one kind of factor
)

// Demands of a second factor, as manifests and the configuration write them.
const (
	MFARequired          = "required"
	MFAPhishingResistant = "phishing-resistant"
)

// MFADemands are all of them.
func MFADemands() []string { return []string{MFARequired, MFAPhishingResistant} }

// AssuranceOfDemand is what a demand asks for; "" asks for nothing.
func AssuranceOfDemand(demand string) Assurance {
	switch demand {
	case MFARequired:
		return AssuranceMFA
	case MFAPhishingResistant:
		return AssurancePhishingResistant
	}
	return AssuranceUnknown
}

// AssuranceOf is that of a sign-in: by the methods that were used, and the class that an identity provider told.
func AssuranceOf(acr string, amr []string) Assurance {
	has := func(methods ...string) bool {
		return slices.ContainsFunc(methods, func(m string) bool { return slices.Contains(amr, m) })
	}
	switch {
	case acr == ACRPhishingResistant, acr == acrHardware, has(AMRMultiple) && has(AMRPossession, "hwk", "swk"):
		return AssurancePhishingResistant
	case acr == ACRMFA, has(AMRMultiple):
		return AssuranceMFA
	case acr == ACRPassword, has(AMRPassword, AMROTP, AMRPossession):
		return AssurancePassword
	}
	return AssuranceUnknown
}

// ACROf is the authentication context class of a sign-in: one that an identity provider told and that only it can
// explain, or else that of its assurance; "" if nothing is known.
func ACROf(acr string, amr []string) string {
	if _, ours := AssuranceOfACR(acr); acr != "" && !ours {
		return acr
	}
	return AssuranceOf(acr, amr).ACR()
}

// IsOfACR reports whether a sign-in is of a class: of a higher one of this server, too.
func IsOfACR(class, acr string, amr []string) bool {
	least, ours := AssuranceOfACR(class)
	return class == acr || ours && AssuranceOf(acr, amr) >= least
}

// ACR is the authentication context class of an assurance, "" of an unknown one.
func (a Assurance) ACR() string {
	switch a {
	case AssurancePassword:
		return ACRPassword
	case AssuranceMFA:
		return ACRMFA
	case AssurancePhishingResistant:
		return ACRPhishingResistant
	}
	return ""
}

// AssuranceOfACR is the assurance that a class of this server stands for; false for another class.
func AssuranceOfACR(acr string) (Assurance, bool) {
	for _, a := range []Assurance{AssurancePassword, AssuranceMFA, AssurancePhishingResistant} {
		if a.ACR() == acr {
			return a, true
		}
	}
	return AssuranceUnknown, false
}
