package server

import (
	"fmt"

	"github.com/warifu/warifu/storage"
)

var errNotOurIDToken = fmt.Errorf("id token: %w", storage.ErrNotFound)

// ownIDToken reads an ID token that this server issued, whether it has expired or not (OpenID Connect Core 1.0 section
// 3.1.2.1 of id_token_hint, RP-Initiated Logout 1.0 section 4): it says which user it was about, and opens nothing.
// Anything else is [storage.ErrNotFound]. Our keys are kept long enough to verify the ID tokens of every sign-in that
// still stands.
func (iss *issuer) ownIDToken(token string) (idClaims, error) {
	var claims struct {
		idClaims
		ClientID string `json:"client_id"` // an access token has it
	}
	if !iss.readJWT(token, &claims, serverAlgs, typID) || claims.Issuer != iss.name || claims.Subject == "" ||
		claims.client() == "" || claims.ClientID != "" ||
		claims.Expires == 0 { // without an end it is signed userinfo
		return idClaims{}, errNotOurIDToken
	}
	return claims.idClaims, nil
}
