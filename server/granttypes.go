package server

import (
	"slices"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// grantTypes are those that the token endpoint can serve, in the order of discovery. A grant type joins them together with what
// serves it.
var grantTypes = []string{GrantAuthorizationCode, GrantRefreshToken, GrantClientCredentials, GrantDeviceCode, GrantTokenExchange}

// promised are the grant types of the flow that app developers were promised: always on, and those of a client whose
// registration names none.
var promised = []string{GrantAuthorizationCode, GrantRefreshToken}

// offers says whether a grant type is on: it can be served, and the configuration wants it.
func (s *Server) offers(grantType string) bool {
	return slices.Contains(s.offeredGrants(), grantType)
}

// offeredGrants are the grant types that are on.
func (s *Server) offeredGrants() []string {
	return oauth.Within(grantTypes, append(slices.Clone(promised), s.cfg.GrantTypes...))
}

// mayUse says whether a client registered a grant type (grant_types of RFC 7591 section 2) that is for its kind of client.
func mayUse(c *storage.Client, grantType string) bool {
	return slices.Contains(registeredGrants(c), grantType)
}

func registeredGrants(c *storage.Client) []string {
	switch {
	case len(c.GrantTypes) == 0:
		return promised
	case c.Public: // anybody could say to be it (RFC 6749 section 4.4)
		return oauth.Without(c.GrantTypes, []string{GrantClientCredentials})
	}
	return c.GrantTypes
}

// unsupportedGrantType names what is on.
func (s *Server) unsupportedGrantType(grantType string) error {
	return oauth.Refuse(oauth.CodeUnsupportedGrantType, oauth.RuleGrantTypeOff, "grant_type must be one of %s", strings.Join(s.offeredGrants(), ", ")).
		About(printable(grantType), oauth.Nearest(grantType, s.offeredGrants()), "oauth2.grantTypes")
}

// unauthorizedClient is the answer to a client that did not register a grant type (RFC 6749 section 5.2).
func unauthorizedClient(c *storage.Client, grantType string) *oauth.Error {
	return oauth.Refuse(oauth.CodeUnauthorizedClient, oauth.RuleGrantTypeUnregistered, "the client did not register the grant type %s", grantType).
		About(grantType, "", whereOf(c, "grantTypes", "grant_types"))
}
