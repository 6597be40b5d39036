package oauth

import "slices"

// Methods of client authentication at the token endpoint and its kin (RFC 7591 section 2, OpenID Connect Core 1.0
// section 9).
const (
	AuthBasic         = "client_secret_basic"
	AuthPost          = "client_secret_post"
	AuthPrivateKeyJWT = "private_key_jwt"
	AuthNone          = "none" // of public clients

	// AuthWorkload is this server's own word for an assertion that somebody else has issued about the workload that is the
	// client (RFC 7523 section 2.2). Only an operator can say it of a client: it is in no list of methods that the RFCs
	// keep, and clients know it as private_key_jwt, which looks the same on the wire.
	AuthWorkload = "workload"
)

// AuthMethods returns those that clients can register, in the order of discovery.
func AuthMethods() []string { return []string{AuthBasic, AuthPost, AuthPrivateKeyJWT, AuthNone} }

// manifestAuthMethods are those of manifests.
func manifestAuthMethods() []string { return append(AuthMethods(), AuthWorkload) }

// UsableAuthMethods are those that the client may use: the one that it registered, and no other.
func (c *Client) UsableAuthMethods() []string {
	switch registered := c.TokenEndpointAuthMethod; {
	case c.OnlyForwardAuth():
		return nil // nobody but this server asks for its tokens
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
