package oauth

import "slices"

// Methods of client authentication at the token endpoint and its kin (RFC 7591 section 2, OpenID Connect Core 1.0 section 9).
const (
	AuthBasic         = "client_secret_basic"
	AuthPost          = "client_secret_post"
	AuthPrivateKeyJWT = "private_key_jwt"
	AuthNone          = "none" // of public clients
)

// AuthMethods returns all of them, in the order of discovery.
func AuthMethods() []string { return []string{AuthBasic, AuthPost, AuthPrivateKeyJWT, AuthNone} }

// UsableAuthMethods are those that the client may use: the one that it registered, and no other.
func (c *Client) UsableAuthMethods() []string {
	switch registered := c.TokenEndpointAuthMethod; {
	case c.Public && (registered == "" || registered == AuthNone):
		return []string{AuthNone}
	case c.Public, registered == AuthNone:
		return nil // a record that contradicts itself opens nothing
	case registered == "":
		return []string{AuthBasic, AuthPost}
	default:
		return []string{registered}
	}
}

// AuthenticatesBy reports whether the client may use a method.
func (c *Client) AuthenticatesBy(method string) bool {
	return slices.Contains(c.UsableAuthMethods(), method)
}
