package oauth

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Policy says for whom a client is checked: in what the ways to become a client differ on purpose. The zero value is
// the strictest.
type Policy struct {
	// GrantTypes are those that the server has on. When empty, all that there are may be asked for.
	GrantTypes []string
	// Scopes is the server's scope catalogue. When empty, scopes are only checked for their syntax, as a command
	// without a server at hand must.
	Scopes []string
	// MaxRedirectURIs bounds each list of redirect URIs, MaxScopes the scopes; 0 is no limit.
	MaxRedirectURIs, MaxScopes int
	// Repeats lets a list say something twice, which does no harm: elsewhere it is a slip of whoever writes the list.
	Repeats bool
	// WildcardPort lets the port of a redirect URI on loopback be left open (http://localhost:*).
	WildcardPort bool
	// Loopback lets the client's own addresses be plain http on loopback: there its operator decides where this server
	// sends requests.
	Loopback bool
	// Development lets what the consent page shows be plain http on loopback.
	Development bool
	// ForeignKeys passes over the keys of a set that this server cannot use, as long as it can use one (RFC 7517
	// section 5): the set was written for other servers as well.
	ForeignKeys bool
	// Strangers refuses the grant types with which a client gets tokens of its own: anybody may become such a client,
	// and a registration must not be enough for a token.
	Strangers bool
}

// Violation is one thing that is wrong with a client.
type Violation struct {
	// Key is that of the [Field]. At is where below it, as in [2] or .keys[0].crv; empty for the whole.
	Key, At string
	// Code is stable, in kebab case.
	Code string
	// Message completes the sentence "the field ...". It calls fields by their keys, and repeats no URI and no part of
	// a key of the client, which may hold a secret.
	Message string
	// Nearest is what was probably meant. Or else Choices are what could have been meant by Asked.
	Nearest string
	Asked   string
	Choices []string
	// Surplus: the very presence of what is at At is wrong, whatever its value.
	Surplus bool
	// Warning: nothing follows from the field. It is wrong to say so, but no reason to refuse.
	Warning bool
}

// maxViolations bounds what is said of one client, since a hostile one could make us say a lot.
const maxViolations = 1000

// Check checks a client against all rules, which are the same for all clients except for the [Policy]. It reports all
// violations at once, in the order of the table and then what fields say of each other.
func Check(c *Client, p Policy) []Violation {
	k := &checker{Policy: p, c: c}
	for _, f := range fields {
		k.check(f)
	}
	k.together()
	return slices.DeleteFunc(k.found, func(v Violation) bool { return v.Code == "" })
}

// checker collects the violations of one client.
type checker struct {
	Policy
	c     *Client
	found []Violation
	keys  []clientKey // of jwks
}

// violates adds a violation. It can be added to until the next one is.
func (k *checker) violates(f *Field, at, code, format string, args ...any) *Violation {
	if len(k.found) >= maxViolations {
		return new(Violation)
	}
	k.found = append(k.found, Violation{Key: f.Key, At: at, Code: code, Message: fmt.Sprintf(format, args...)})
	return &k.found[len(k.found)-1]
}

func (v *Violation) mended(nearest string) { v.Nearest = nearest }

func (v *Violation) among(asked string, choices []string) { v.Asked, v.Choices = asked, choices }

// check holds one field against its kind.
func (k *checker) check(f *Field) {
	if !f.IsSet(k.c) {
		if f.Required {
			k.violates(f, "", "required", "is required")
		}
		return
	}
	switch v := f.Of(k.c).(type) {
	case *string:
		k.checkText(f, *v)
	case *[]string:
		k.checkList(f, *v)
	case **int64:
		if **v < 0 || **v > MaxSeconds {
			k.violates(f, "", "wrong-value", "must be from 0 to %d", MaxSeconds)
		}
	}
}

// MaxSeconds is the most of default_max_age and max_age.
const MaxSeconds = 1<<31 - 1

func (k *checker) checkText(f *Field, text string) {
	switch f.Kind {
	case KindName:
		k.checkName(f, text)
	case KindChoice:
		if !slices.Contains(f.Choices, text) {
			k.violates(f, "", "wrong-value", "must be one of %s", strings.Join(f.Choices, ", ")).among(text, f.Choices)
		}
	case KindKeys:
		k.checkKeySet(f, text)
	case KindAddress, KindSector:
		k.checkAddress(f, text)
	case KindPage:
		k.checkPage(f, text)
	}
}

func (k *checker) checkList(f *Field, list []string) {
	most, items := 0, ""
	switch f.Kind {
	case KindRedirects:
		most, items = k.MaxRedirectURIs, "URIs"
	case KindScopes:
		most, items = k.MaxScopes, "scopes"
	}
	if most > 0 && len(list) > most {
		k.violates(f, "", "too-many", "has more than %d %s", most, items)
		return
	}
	seen := make(map[string]bool, len(list))
	for i, item := range list {
		at := "[" + strconv.Itoa(i) + "]"
		if item != "" && seen[item] {
			if !k.Repeats {
				k.violates(f, at, "duplicate", "is in the list twice")
			}
			continue
		}
		seen[item] = true
		switch f.Kind {
		case KindRedirects:
			k.checkRedirect(f, at, item)
		case KindScopes:
			k.checkScope(f, at, item)
		case KindGrants:
			k.checkGrant(f, at, item)
		case KindResources:
			k.checkResource(f, at, item)
		}
	}
}

// checkRedirect holds a redirect URI against what will be matched later. Each broken rule has a code of its own,
// redirect-uri-<rule>, with the rules of [RedirectURIError].
func (k *checker) checkRedirect(f *Field, at, uri string) {
	var refused *RedirectURIError
	switch {
	case errors.As(CheckRedirectURI(uri), &refused):
		k.violates(f, at, "redirect-uri-"+refused.Rule, "%s", refused.Reason).mended(MendRedirectURI(uri, refused.Rule))
	case !k.WildcardPort && strings.Contains(uri, "*"):
		k.violates(f, at, "redirect-uri-wildcard", "must name a port: leaving it open is for an operator to allow")
	}
}

// MaxScope is in bytes.
const MaxScope = 128

// checkScope holds a scope against the catalogue, or without one against RFC 6749 section 3.3.
func (k *checker) checkScope(f *Field, at, scope string) {
	switch {
	case scope == "":
		k.violates(f, at, "required", "is empty")
	case len(scope) > MaxScope || !ValidScope(scope):
		k.violates(f, at, "scope-syntax", "is not a scope: printable ASCII without spaces, quotes and backslashes, and one scope per item")
	case len(k.Scopes) > 0 && !slices.Contains(k.Scopes, scope):
		k.violates(f, at, "unknown-scope", "is %q, which is not a scope of this server", short(scope)).among(scope, k.Scopes)
	}
}

func (k *checker) checkGrant(f *Field, at, name string) {
	on := k.GrantTypes
	if len(on) == 0 {
		on = GrantTypes()
	}
	switch {
	case slices.Contains(on, name):
	case name == "":
		k.violates(f, at, "required", "is empty")
	case slices.Contains(GrantTypes(), name):
		k.violates(f, at, "grant-type", "is %s, which this server has not switched on (oauth2.grantTypes of its configuration)", name)
	default:
		k.violates(f, at, "grant-type", "is %q, which is not a grant type of this server", short(name)).among(name, on)
	}
}

// short cuts a value to a length that can be repeated.
func short(text string) string {
	const most = 80
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
