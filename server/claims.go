package server

import (
	"cmp"
	"maps"
	"slices"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// UserRecord is the record of a user whom a connector knows.
func UserRecord(who connector.Identity) storage.User {
	attributes, _ := storage.AttributesOf(who.Attributes) // the connector has held them to connector.CheckAttributes
	return storage.User{
		ID: who.UserID, Username: who.Username, PreferredUsername: who.PreferredUsername, Name: who.Name,
		Email: who.Email, EmailVerified: who.EmailVerified, Groups: storage.NamesOf(who.Groups), Attributes: attributes,
		Profile: storage.Profile(who.Profile), Address: storage.Address(who.Address), Credential: who.Credential,
	}
}

// claim is something that can be said about a user.
type claim struct {
	name  string
	scope string // that covers it
	// of is the value, as JSON encodes it; nil when it is not known.
	of func(u *storage.User) any
}

// standardClaims are those of OpenID Connect Core 1.0 section 5.1 but for sub, with the scopes of section 5.4, and
// groups. Those that the configuration makes of attributes come after them, see [Claim].
var standardClaims = []claim{
	{"name", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Name) }},
	{"given_name", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.GivenName) }},
	{"family_name", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.FamilyName) }},
	{"middle_name", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.MiddleName) }},
	{"nickname", oauth.ScopeProfile, func(u *storage.User) any { return nonEmpty(u.Nickname) }},
	{"preferred_username", oauth.ScopeProfile, func(u *storage.User) any {
		return nonEmpty(cmp.Or(u.PreferredUsername, u.Username))
	}},
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
	{"phone_number_verified", oauth.ScopePhone, func(u *storage.User) any {
		return verified(u.PhoneNumber, u.PhoneNumberVerified)
	}},
	{claimGroups, oauth.ScopeGroups, func(u *storage.User) any { return u.GroupNames() }},
}

// claimGroups is an array always, also of one group and of none. It depends on who asks: see [oauth.Client.ToldGroups].
const claimGroups = "groups"

// claimNames are all claims that an ID token or userinfo can have.
func (k *catalogue) claimNames() []string {
	names := []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "amr", "acr", "nonce", "at_hash", "sid"}
	for _, c := range k.claims {
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

// userClaims are what is known about a user: the claims of scopes, and wishes for others as far as they are permitted
// now. What is not known is left out. Userinfo and ID tokens say what this gives, and nothing else about a user.
func (k *catalogue) userClaims(c *storage.Client, u *storage.User, scopes []string, wishes claimWishes) map[string]any {
	out := make(map[string]any)
	for _, about := range k.claims {
		covered := slices.Contains(scopes, about.scope) && k.lists(c, about.name)
		if _, wished := wishes[about.name]; !covered && !wished {
			continue // finding the value of some takes reading JSON
		}
		value := about.of(u)
		if about.name == claimGroups {
			value = c.ToldGroups(value.([]string))
		}
		if value != nil && (covered || wishes.wants(about.name, value) && k.mayTell(c, about)) {
			out[about.name] = value
		}
	}
	return out
}

// idTokenTells gives the claims about the user in an ID token; nil when there are none, whoever the user is. They are
// those of the scopes, because most clients look nowhere else; or for a client or a server that wants it sparse, as
// OpenID Connect Core 1.0 section 5.4 has it where there is userinfo, only what was asked for claim by claim.
func (k *catalogue) idTokenTells(c *storage.Client, scopes []string,
	wishes claimWishes) func(*storage.User) map[string]any {
	if cmp.Or(c.IDTokenClaims, k.idTokenClaims) == oauth.IDTokenStandard {
		scopes = nil
	}
	if !slices.ContainsFunc(k.claims, func(about claim) bool {
		_, wished := wishes[about.name]
		return wished || slices.Contains(scopes, about.scope)
	}) {
		return nil
	}
	return func(u *storage.User) map[string]any {
		if u == nil {
			return nil
		}
		return k.userClaims(c, u, scopes, wishes)
	}
}

// lists reports whether a client lists a claim that comes to nobody else; of all other claims, every client does.
func (k *catalogue) lists(c *storage.Client, name string) bool {
	return !k.listed[name] || slices.Contains(c.Claims, name)
}

// mayTell reports whether a client may ask for a claim.
func (k *catalogue) mayTell(c *storage.Client, about claim) bool {
	return len(k.offered(c, []string{about.scope})) > 0 && k.lists(c, about.name)
}

// tokenTells gives the claims about a user that an access token with these scopes has, and its introspection: those of
// names, which are what the client's manifest lists for that (accessTokenClaims). Nil when there are none, whoever the
// user is.
func (k *catalogue) tokenTells(c *storage.Client, scopes, names []string) func(*storage.User) map[string]any {
	covered := func(about claim) bool {
		return slices.Contains(names, about.name) && slices.Contains(scopes, about.scope) && k.lists(c, about.name)
	}
	if !slices.ContainsFunc(k.claims, covered) {
		return nil
	}
	return func(u *storage.User) map[string]any {
		if u == nil {
			return nil
		}
		told := k.userClaims(c, u, scopes, nil)
		maps.DeleteFunc(told, func(name string, _ any) bool { return !slices.Contains(names, name) })
		return told
	}
}
