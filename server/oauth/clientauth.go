package oauth

// Methods of client authentication at the token endpoint and its kin (RFC 7591 section 2, OpenID Connect Core 1.0 section 9).
const (
	AuthBasic         = "client_secret_basic"
	AuthPost          = "client_secret_post"
	AuthPrivateKeyJWT = "private_key_jwt"
	AuthNone          = "none" // of public clients
)

// AuthMethods returns all of them, in the order of discovery.
func AuthMethods() []string { return []string{AuthBasic, AuthPost, AuthPrivateKeyJWT, AuthNone} }

// AuthenticatesBy reports whether the client may use a method: the one that it registered, and no other.
func (c *Client) AuthenticatesBy(method string) bool {
	switch registered := c.TokenEndpointAuthMethod; {
	case c.Public:
		return method == AuthNone && (registered == "" || registered == AuthNone)
	case registered == AuthNone:
		return false // a record that contradicts itself opens nothing
	case registered == "":
		return method == AuthBasic || method == AuthPost
	default:
		return method == registered
	}
}
