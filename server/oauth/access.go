package oauth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"unicode"
)

// Who may use a client (access). Without a rule everybody may who can sign in. With connectors, only people for whom
// one of these vouches: a group or an e-mail address means only as much as whoever says it. With groups or emails, only
// people who are in one of the groups or have one of the addresses. An address counts when it is known to be the
// person's.

// Person is what such a rule looks at.
type Person struct {
	Connector     string // that vouches for them
	Groups        []string
	Email         string
	EmailVerified bool
}

// Restricted reports whether there is a rule.
func (c *Client) Restricted() bool {
	return len(c.AccessGroups)+len(c.AccessConnectors)+len(c.AccessEmails) > 0
}

// Admits reports whether a person may use the client.
func (c *Client) Admits(p Person) bool {
	if len(c.AccessConnectors) > 0 && !slices.Contains(c.AccessConnectors, p.Connector) {
		return false
	}
	if len(c.AccessGroups)+len(c.AccessEmails) == 0 {
		return true
	}
	in := func(group string) bool { return slices.Contains(c.AccessGroups, group) }
	means := func(pattern string) bool { return meansEmail(pattern, p.Email) }
	return slices.ContainsFunc(p.Groups, in) || p.EmailVerified && slices.ContainsFunc(c.AccessEmails, means)
}

// meansEmail reports whether a pattern stands for an address: it is the address, or a star and its domain. Letters of
// ASCII count in either case; no others are folded, because what folds to a letter is not that letter.
func meansEmail(pattern, email string) bool {
	pattern, email = lowerASCII(pattern), lowerASCII(email)
	if domain, any := strings.CutPrefix(pattern, "*@"); any {
		at := strings.LastIndexByte(email, '@')
		return at > 0 && email[at+1:] == domain
	}
	return pattern == email && email != ""
}

func lowerASCII(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}

// AccessDigest tells one rule from another; it is empty when there is none. What is issued carries it, so that a person
// who was admitted, and has not changed since, need not be looked at again until the rule changes.
func (c *Client) AccessDigest() string {
	if !c.Restricted() {
		return ""
	}
	rule, _ := json.Marshal([...][]string{c.AccessGroups, c.AccessConnectors, c.AccessEmails}) // texts
	sum := sha256.Sum256(rule)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// checkConnector holds an item of access.connectors against the connectors of the server.
func (k *checker) checkConnector(f *Field, at, name string) {
	switch {
	case name == "":
		k.violates(f, at, "required", "is empty")
	case k.Connectors != nil && !slices.Contains(k.Connectors, name):
		k.violates(f, at, "unknown-connector", "is %q, which is not a connector of this server: it has %s", short(name),
			strings.Join(k.Connectors, ", ")).among(name, k.Connectors)
	}
}

// MaxEmail bounds an address, in bytes.
const MaxEmail = 200

// checkEmail holds an item of access.emails against what can be the address of somebody.
func (k *checker) checkEmail(f *Field, at, pattern string) {
	local, domain, found := strings.Cut(pattern, "@")
	odd := func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`@*<>",;`, r)
	}
	if !found || local == "" || domain == "" || local != "*" && strings.ContainsFunc(local, odd) ||
		strings.ContainsFunc(domain, odd) || len(pattern) > MaxEmail {
		k.violates(f, at, "email",
			"must be an e-mail address, as in ann@example.com, or all of a domain, as in *@example.com")
	}
}
