package server

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Claim is a claim that the configuration makes of an attribute of users.
type Claim struct {
	Name string
	// Attribute that it tells; Name when empty.
	Attribute string
	// Scope that brings it to every client. When empty, it comes with the scope profile to the clients that list it
	// (claims of [oauth.ClientMetadata]).
	Scope string
}

// ClaimError is a [Claim] that cannot be there.
type ClaimError struct {
	Index   int    // of the claim
	Key     string // name, attribute or scope
	Twin    int    // the claim with the same name, or -1
	Reason  string // completes the sentence "the name ..."
	Nearest string // what was probably meant
}

func (e *ClaimError) Error() string {
	return fmt.Sprintf("claim %d: %s %s", e.Index+1, e.Key, e.Reason)
}

// takenClaims are those that tokens, userinfo and introspection have themselves (RFC 7519 section 4.1, OpenID Connect
// Core 1.0 section 2, RFC 9068 section 2.2, RFC 7662 section 2.2, and what this server adds).
var takenClaims = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "auth_time", "nonce", "acr", "amr", "azp", "at_hash", "c_hash",
	"s_hash", "sid", "events", "scope", "client_id", "cnf", "act", "may_act", "origin_client_id", "active",
	"username", "token_type", "token_introspection", "sub_jwk", "sub_id", "_claim_names", "_claim_sources",
}

// CheckClaims finds everything that is wrong in claims of a configuration with this scope catalogue. A [Server] is only
// made of one in which nothing is.
func CheckClaims(claims []Claim, scopes []string) []ClaimError {
	var wrong []ClaimError
	first := make(map[string]int)
	for i, c := range claims {
		add := func(key, reason string, twin int, nearest string) {
			wrong = append(wrong, ClaimError{Index: i, Key: key, Twin: twin, Reason: reason, Nearest: nearest})
		}
		const spelling = "must be 1 to 100 visible ASCII characters without spaces, quotes and backslashes"
		switch twin, twice := first[c.Name]; {
		case !connector.ValidAttribute(c.Name):
			add("name", spelling, -1, "")
		case slices.Contains(takenClaims, c.Name):
			add("name", "is a claim that tokens have themselves", -1, "")
		case slices.ContainsFunc(standardClaims, func(s claim) bool { return s.name == c.Name }):
			add("name", "is a claim that this server tells already, of what it knows of users", -1, "")
		case twice:
			add("name", "is listed twice", twin, "")
		default:
			first[c.Name] = i
		}
		if c.Attribute != "" && !connector.ValidAttribute(c.Attribute) {
			add("attribute", spelling, -1, "")
		}
		if c.Scope != "" && !slices.Contains(scopes, c.Scope) {
			add("scope", "is not a scope of this server", -1, oauth.Nearest(c.Scope, scopes))
		}
	}
	return wrong
}

// customClaim is a claim as the configuration has it.
func customClaim(c Claim) claim {
	return claim{c.Name, cmp.Or(c.Scope, oauth.ScopeProfile), func(u *storage.User) any {
		if value := u.Attribute(cmp.Or(c.Attribute, c.Name)); value != nil {
			return value
		}
		return nil
	}}
}

// claimNamed is a claim about users; nil if there is none of that name.
func (k *catalogue) claimNamed(name string) *claim {
	i := slices.IndexFunc(k.claims, func(c claim) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return &k.claims[i]
}

// ClaimScopes are the claims about users that this server can tell, with the scope that covers each.
func (k *catalogue) ClaimScopes() map[string]string {
	scopes := make(map[string]string, len(k.claims))
	for _, c := range k.claims {
		scopes[c.name] = c.scope
	}
	return scopes
}
