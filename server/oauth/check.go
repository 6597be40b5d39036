package oauth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Policy says for whom a client is checked: in what the ways to become a client differ on purpose. The zero value makes
// no exception for anybody, but bounds nothing either: without GrantTypes, Scopes and limits, a client may ask for all
// that there is.
//
// Two differences are not here, since a [Client] does not show them. What is written with nothing in it (an empty
// grantTypes or logoUri) is a slip in a manifest, which is refused; in a registration or a document it is left out.
// And a registration or a document is refused when its sector identifier does not list the redirect URIs, whatever its
// subjects are (OpenID Connect Dynamic Client Registration 1.0 section 5), whereas a manifest is warned of one that
// nothing follows from.
type Policy struct {
	// GrantTypes are those that the server has on. When empty, all that there are may be asked for.
	GrantTypes []string
	// Scopes is the server's scope catalogue. When empty, scopes are only checked for their syntax, as a command
	// without a server at hand must.
	Scopes []string
	// Claims are the claims about users that there are, by name, with the scope that covers each. Connectors and Groups
	// are the connectors of the server and the groups in which somebody is. Of those that are nil, nothing is known.
	Claims             map[string]string
	Connectors, Groups []string
	// Issuers are those whose workloads may be clients, and Workloads says that an operator speaks, who alone may say that
	// one is. Nil: nothing is known of issuers.
	Issuers   []string
	Workloads bool
	// MaxRedirectURIs bounds each list of redirect URIs, MaxScopes the scopes; 0 is no limit.
	MaxRedirectURIs, MaxScopes int
	// Repeats lets a list say something twice, which does no harm: elsewhere it is a slip of whoever writes the list.
	Repeats bool
	// WildcardPort lets the port of a redirect URI on loopback be a wildcard (http://localhost:*), and with it the path.
	WildcardPort bool
	// Native lets redirect URIs have the scheme of an installed app, with a dot in it (com.example.app:/callback).
	// AnyScheme warns of one without a dot, which is anybody's, and does not refuse it.
	Native, AnyScheme bool
	// Loopback lets the client's own addresses be plain http on loopback: there its operator decides where this server
	// sends requests.
	Loopback bool
	// Development lets what the consent page shows be plain http on loopback.
	Development bool
	// ForeignKeys passes over the keys of a set that this server cannot use, as long as it can use one (RFC 7517
	// section 5): the set was written for other servers as well. For the same reason, several keys of a set may have one
	// kid, and each of them is tried (section 4.5); to the author of a manifest that is a slip.
	ForeignKeys bool
	// OwnSector keeps a client that nobody here knows from having the pairwise subjects of somebody else's sector. A
	// sector is whose the redirect URIs are, and anybody may name those of another app; so tokens must come by way of
	// them, and by no other. An operator who writes a manifest knows whose the hosts are.
	OwnSector bool
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
	// Warning: it is no reason to refuse, such as a field from which nothing follows.
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

	foreign []Violation // of keys that are passed over
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
		if f.Required && !k.c.OnlyResource() {
			k.violates(f, "", "required", "is required")
		}
		return
	}
	switch v := f.Of(k.c).(type) {
	case *string:
		k.checkText(f, *v)
	case *[]string:
		k.checkList(f, *v)
	case *[]WorkloadIdentity:
		k.checkIdentities(f, *v)
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
		choices := f.Choices
		if !k.Workloads {
			choices = Without(choices, []string{AuthWorkload})
		}
		if !slices.Contains(choices, text) {
			k.violates(f, "", "wrong-value", "must be one of %s", strings.Join(choices, ", ")).among(text, choices)
		}
	case KindInterval:
		k.checkInterval(f, text)
	case KindResource:
		k.checkResource(f, "", text)
	case KindKeys:
		k.checkKeySet(f, text)
	case KindAddress, KindSector:
		k.checkAddress(f, text)
	case KindPage:
		k.checkPage(f, text)
	}
}

// MaxReuseInterval bounds how long a refresh token that was stolen is not noticed.
const MaxReuseInterval = time.Minute

func (k *checker) checkInterval(f *Field, text string) {
	switch d, err := time.ParseDuration(text); {
	case err != nil:
		k.violates(f, "", "wrong-value", "must be a duration from 0s to 1m, as in 30s")
	case d < 0 || d > MaxReuseInterval:
		k.violates(f, "", "wrong-value", "must be from 0s to 1m, but is %s", d)
	}
}

// maxNames bounds each list of people, groups, claims and the like.
const maxNames = 100

func (k *checker) checkList(f *Field, list []string) {
	most, items := 0, ""
	switch f.Kind {
	case KindRedirects:
		most, items = k.MaxRedirectURIs, "URIs"
	case KindScopes:
		most, items = k.MaxScopes, "scopes"
	case KindGroups, KindGroupPatterns, KindConnectors, KindEmails, KindClaims, KindApps, KindHosts:
		most, items = maxNames, "entries"
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
		case KindOrigins:
			k.checkOrigin(f, at, item)
		case KindResources:
			k.checkResource(f, at, item)
		case KindGroups, KindGroupPatterns:
			k.checkGroup(f, at, item)
		case KindConnectors:
			k.checkConnector(f, at, item)
		case KindEmails:
			k.checkEmail(f, at, item)
		case KindClaims:
			k.checkClaim(f, at, item)
		case KindHosts:
			if reason, mended := CheckForwardHost(item); reason != "" {
				k.violates(f, at, "forward-host", "%s", reason).mended(mended)
			}
		case KindApps:
			if !ValidAppName(item) {
				k.violates(f, at, "app-name", "must be the name of an app, as in its metadata.name")
			}
		}
	}
}

// checkRedirect holds a redirect URI against what will be matched later. Each broken rule has a code of its own,
// redirect-uri-<rule>, with the rules of [RedirectURIError].
func (k *checker) checkRedirect(f *Field, at, uri string) {
	if scheme, ok := PrivateScheme(uri); ok {
		k.checkPrivate(f, at, uri, scheme)
		return
	}
	var refused *RedirectURIError
	switch {
	case errors.As(CheckRedirectURI(uri), &refused):
		k.violates(f, at, "redirect-uri-"+refused.Rule, "%s", refused.Reason).mended(MendRedirectURI(uri, refused.Rule))
	case !k.WildcardPort && strings.Contains(uri, "*"):
		k.violates(f, at, "redirect-uri-wildcard",
			"must not have a wildcard: to leave the port open, name none (http://127.0.0.1/callback)").
			mended(strings.Replace(uri, ":*", "", 1))
	}
}

// checkPrivate holds a redirect URI of an installed app against RFC 8252 sections 7.1 and 8.4.
func (k *checker) checkPrivate(f *Field, at, uri, scheme string) {
	var refused *RedirectURIError
	switch dotted := strings.Contains(scheme, "."); {
	case errors.As(CheckPrivateURI(uri), &refused):
		k.violates(f, at, "redirect-uri-"+refused.Rule, "%s", refused.Reason)
	case !k.Native:
		k.violates(f, at, "redirect-uri-scheme", "has the scheme of an installed app: application_type must be native")
	case !k.c.Public:
		k.violates(f, at, "redirect-uri-private", "has the scheme of an installed app, which is for public clients: "+
			"such an app cannot keep a secret")
	case !dotted && !k.AnyScheme:
		k.violates(f, at, "redirect-uri-scheme", "must have a dot in its scheme: a domain of yours, turned around, as in "+
			"com.example.app:/callback")
	case !dotted:
		k.violates(f, at, "redirect-uri-one-word", "has a scheme that any app may claim as well: use a domain of yours, "+
			"turned around, as in com.example.app:/callback").Warning = true
	}
}

// MaxScope bounds a scope, in bytes: tokens and consent pages hold many of them.
const MaxScope = 100

// checkScope holds a scope against the catalogue, or without one against RFC 6749 section 3.3.
func (k *checker) checkScope(f *Field, at, scope string) {
	switch {
	case scope == "":
		k.violates(f, at, "required", "is empty")
	case len(scope) > MaxScope || !ValidScope(scope):
		k.violates(f, at, "scope-syntax", "is not a scope: printable ASCII without spaces, quotes and backslashes, and "+
			"one scope per item")
	case len(k.Scopes) > 0 && !slices.Contains(k.Scopes, scope):
		k.violates(f, at, "unknown-scope", "is %q, which is not a scope of this server", short(scope)).among(scope, k.Scopes)
	}
}

// checkClaim holds an item of claims or accessTokenClaims against the claims of the server.
func (k *checker) checkClaim(f *Field, at, name string) {
	scope, known := k.Claims[name]
	switch {
	case name == "":
		k.violates(f, at, "required", "is empty")
	case k.Claims == nil:
	case !known:
		k.violates(f, at, "unknown-claim", "is %q, which is not a claim about users that this server knows", short(name)).
			among(name, slices.Sorted(maps.Keys(k.Claims)))
	case !slices.Contains(k.c.Scopes, scope):
		k.violates(f, at, "unused", "is of no use: %s comes with the scope %s, which scopes does not have", short(name),
			scope).Warning = true
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
		k.violates(f, at, "grant-type", "is %s, which this server has not switched on (oauth2.grantTypes of its "+
			"configuration)", name)
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
