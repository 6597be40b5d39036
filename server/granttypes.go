package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"

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

// GrantTypes are those for which the library does not answer unauthorized_client.
func (c *client) GrantTypes() []oidc.GrantType {
	var types []oidc.GrantType
	for _, grantType := range registeredGrants(c.Client) {
		types = append(types, oidc.GrantType(grantType))
	}
	return types
}

// unsupportedGrantType names what is on.
func (s *Server) unsupportedGrantType() error {
	return fail(http.StatusBadRequest, string(oidc.UnsupportedGrantType), "grant_type must be one of "+strings.Join(s.offeredGrants(), ", "))
}

// unauthorizedClient is the answer to a client that did not register a grant type (RFC 6749 section 5.2).
func unauthorizedClient(grantType string) error {
	return fail(http.StatusBadRequest, string(oidc.UnauthorizedClient), "the client did not register the grant type "+grantType)
}
