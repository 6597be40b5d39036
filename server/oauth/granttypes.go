package oauth

import "slices"

// Grant types by their registered names (RFC 7591 section 2, RFC 8628 section 3.4, RFC 8693 section 2.1).
const (
	GrantAuthorizationCode = "authorization_code"
	GrantRefreshToken      = "refresh_token"
	GrantClientCredentials = "client_credentials"
	GrantDeviceCode        = grantURN + "device_code"
	GrantTokenExchange     = grantURN + "token-exchange"

	grantURN = "urn:ietf:params:oauth:grant-type:"
)

// GrantTypes returns those that this server can serve, in the order of discovery. A grant type joins them together with
// what serves it.
func GrantTypes() []string {
	return []string{GrantAuthorizationCode, GrantRefreshToken, GrantClientCredentials, GrantDeviceCode, GrantTokenExchange}
}

// usualGrants are those of the flow that app developers were promised.
var usualGrants = []string{GrantAuthorizationCode, GrantRefreshToken}

// UsualGrantTypes returns those that are always on, and those of a client whose registration names none.
func UsualGrantTypes() []string { return slices.Clone(usualGrants) }

// ownGrants are those with which a client gets a token because it is who it is, without a user who allows it. A public
// client, which anybody could say to be, may use none of them (RFC 6749 section 4.4).
var ownGrants = []string{GrantClientCredentials, GrantTokenExchange}

// RegisteredGrants are the grant types that the client registered, or else the usual ones; none of a client that is
// only a resource server. They are not to be modified.
func (c *Client) RegisteredGrants() []string {
	if len(c.GrantTypes) == 0 && !c.OnlyResource() {
		return usualGrants
	}
	return c.GrantTypes
}

// MayUse reports whether the client registered a grant type, and it is for its kind of client.
func (c *Client) MayUse(grantType string) bool {
	return slices.Contains(c.RegisteredGrants(), grantType) && !(c.Public && slices.Contains(ownGrants, grantType))
}
