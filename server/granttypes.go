package server

import (
	"slices"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// offers reports whether a grant type is on: it can be served, and the configuration wants it.
func (s *Server) offers(grantType string) bool {
	return slices.Contains(s.offeredGrants(), grantType)
}

// offeredGrants are the grant types that are on. Nobody changes the list.
func (s *Server) offeredGrants() []string { return s.grantTypes }

// unsupportedGrantType names what is on. A grant type that this server can serve may be turned on; any other cannot.
func (s *Server) unsupportedGrantType(grantType string) error {
	if grantNamed(grantType) == nil {
		return oauth.Refuse(oauth.CodeUnsupportedGrantType, oauth.RuleGrantTypeUnknown, "grant_type must be one of %s",
			strings.Join(s.offeredGrants(), ", ")).
			About(oauth.Printable(grantType), oauth.NearestName(grantType, oauth.GrantTypes(), oauth.Nearest), "")
	}
	return oauth.Refuse(oauth.CodeUnsupportedGrantType, oauth.RuleGrantTypeOff, "grant_type must be one of %s",
		strings.Join(s.offeredGrants(), ", ")).
		About(oauth.Printable(grantType), "", "oauth2.grantTypes")
}

// unauthorizedClient is the answer to a client that did not register a grant type (RFC 6749 section 5.2).
func unauthorizedClient(c *storage.Client, grantType string) *oauth.Error {
	return oauth.Refuse(oauth.CodeUnauthorizedClient, oauth.RuleGrantTypeUnregistered,
		"the client did not register the grant type %s", grantType).
		About(grantType, "", whereOf(c, "grantTypes", "grant_types"))
}
