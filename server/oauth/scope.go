package oauth

import (
	"slices"
	"strings"
)

// Scopes of OpenID Connect Core 1.0 sections 3.1.2.1, 5.4 and 11, and groups, which is not in it and understood widely.
const (
	ScopeOpenID        = "openid"
	ScopeProfile       = "profile"
	ScopeEmail         = "email"
	ScopeAddress       = "address"
	ScopePhone         = "phone"
	ScopeOfflineAccess = "offline_access"
	ScopeGroups        = "groups"
)

// StandardScopes returns these, which are part of every catalogue.
func StandardScopes() []string {
	return []string{ScopeOpenID, ScopeProfile, ScopeEmail, ScopeAddress, ScopePhone, ScopeGroups, ScopeOfflineAccess}
}

// PeerScope begins the scope with which a client asks for an ID token that another client takes as well; the id of that
// one follows. The name is Dex's.
const PeerScope = "audience:server:client_id:"

// ScopePattern is [ValidScope] for JSON Schema.
const ScopePattern = `^[!#-\[\]-~]+$`

// ValidScope is the syntax of a scope-token (RFC 6749 section 3.3): printable ASCII but space, quote and backslash.
func ValidScope(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r < 0x21 || r == '"' || r == '\\' || r > 0x7e
	})
}

// ParseScopes splits a scope parameter (RFC 6749 section 3.3), or any list that is separated by spaces; each item comes
// once.
func ParseScopes(param string) []string {
	var out []string
	for scope := range strings.SplitSeq(param, " ") {
		if scope != "" && !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	return out
}

// JoinScopes is the scope parameter of scopes.
func JoinScopes(scopes []string) string { return strings.Join(scopes, " ") }

// Within is those of list that are in all, in the order of list: list itself, if all of them are.
func Within(list, all []string) []string {
	if !slices.ContainsFunc(list, func(item string) bool { return !slices.Contains(all, item) }) {
		return slices.Clip(list)
	}
	var out []string
	for _, item := range list {
		if slices.Contains(all, item) {
			out = append(out, item)
		}
	}
	return out
}

// Without is those of list that are not in taken, in the order of list.
func Without(list, taken []string) []string {
	var out []string
	for _, item := range list {
		if !slices.Contains(taken, item) {
			out = append(out, item)
		}
	}
	return out
}
