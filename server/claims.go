package server

import (
	"maps"
	"slices"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// UserRecord is the record of a user whom a connector knows.
func UserRecord(who connector.Identity) storage.User {
	return storage.User{
		ID: who.UserID, Username: who.Username, Name: who.Name, Email: who.Email, EmailVerified: who.EmailVerified,
		Profile: storage.Profile(who.Profile), Address: storage.Address(who.Address),
	}
}

// claim is something that can be said about a user.
type claim struct {
	name  string
	scope string // that covers it
	// of is the value, as JSON encodes it; nil when it is not known.
	of func(u *storage.User) any
}

// standardClaims are those of OpenID Connect Core 1.0 section 5.1 but for sub, with the scopes of section 5.4.
var standardClaims = []claim{
	{"name", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Name) }},
	{"given_name", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.GivenName) }},
	{"family_name", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.FamilyName) }},
	{"middle_name", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.MiddleName) }},
	{"nickname", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Nickname) }},
	{"preferred_username", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Username) }},
	{"profile", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.ProfileURL) }},
	{"picture", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.PictureURL) }},
	{"website", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.WebsiteURL) }},
	{"gender", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Gender) }},
	{"birthdate", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Birthdate) }},
	{"zoneinfo", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Zoneinfo) }},
	{"locale", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Locale) }},
	{"updated_at", oauth.ScopeProfile, func(u *storage.User) any { return u.UpdatedAt.Unix() }},
	{"email", oauth.ScopeEmail, func(u *storage.User) any { return nonEmpty(u.Email) }},
	{"email_verified", oauth.ScopeEmail, func(u *storage.User) any { return verified(u.Email, u.EmailVerified) }},
	{"address", oauth.ScopeAddress, addressOf},
	{"phone_number", oauth.ScopePhone, func(u *storage.User) any { return nonEmpty(u.PhoneNumber) }},
	{"phone_number_verified", oauth.ScopePhone, func(u *storage.User) any { return verified(u.PhoneNumber, u.PhoneNumberVerified) }},
}

// claimNames are all claims that an ID token or userinfo can have.
func claimNames() []string {
	names := []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "amr", "acr", "nonce", "at_hash", "sid"}
	for _, c := range standardClaims {
		names = append(names, c.name)
	}
	return names
}

// nonEmpty is the value of a claim; nil when it is not known.
func nonEmpty(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// verified says nothing about what is not there.
func verified(text string, is bool) any {
	if text == "" {
		return nil
	}
	return is
}

// addressOf is the claim address (OpenID Connect Core 1.0 section 5.1.1).
func addressOf(u *storage.User) any {
	if u.Address == (storage.Address{}) {
		return nil
	}
	return struct {
		Formatted     string `json:"formatted,omitempty"`
		StreetAddress string `json:"street_address,omitempty"`
		Locality      string `json:"locality,omitempty"`
		Region        string `json:"region,omitempty"`
		PostalCode    string `json:"postal_code,omitempty"`
		Country       string `json:"country,omitempty"`
	}(u.Address)
}

// userClaims are what is known about a user: the claims of scopes, and wishes for others as far as they are permitted now. What is
// not known is left out.
func (k *catalogue) userClaims(c *storage.Client, u *storage.User, scopes []string, wishes claimWishes) map[string]any {
	out := make(map[string]any)
	for _, claim := range standardClaims {
		value := claim.of(u)
		if value != nil && (slices.Contains(scopes, claim.scope) ||
			wishes.wants(claim.name, value) && len(k.offered(c, []string{claim.scope})) > 0) {
			out[claim.name] = value
		}
	}
	return out
}

// stillTold leaves of what an ID token was to tell only what the client may still ask for: app.yml may have lost a scope since the code
// was issued.
func (k *catalogue) stillTold(c *storage.Client, told map[string]any) map[string]any {
	if len(told) == 0 {
		return nil
	}
	out := maps.Clone(told)
	maps.DeleteFunc(out, func(name string, _ any) bool { return len(k.offered(c, []string{claimScope(name)})) == 0 })
	return out
}
