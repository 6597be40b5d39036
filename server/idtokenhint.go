package server

import (
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

var errNotOurIDToken = fmt.Errorf("id token: %w", storage.ErrNotFound)

// ownIDToken reads an ID token that this server issued, whether it has expired or not (OpenID Connect Core 1.0 section
// 3.1.2.1 of id_token_hint, RP-Initiated Logout 1.0 section 4): it says which user it was about, and opens nothing.
// Anything else is [storage.ErrNotFound]. Our keys are kept long enough to verify the ID tokens of every sign-in that
// still stands.
func (iss *issuer) ownIDToken(token string) (idClaims, error) {
	var claims idClaims
	if len(token) > maxJWT || strings.Count(token, ".") != 2 {
		return idClaims{}, errNotOurIDToken
	}
	var algs []jose.SignatureAlgorithm
	for _, alg := range oauth.ServerAlgs() {
		algs = append(algs, jose.SignatureAlgorithm(alg))
	}
	parsed, err := jwt.ParseSigned(token, algs)
	if err != nil || len(parsed.Headers) != 1 {
		return idClaims{}, errNotOurIDToken
	}
	header := parsed.Headers[0]
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != typID {
		return idClaims{}, errNotOurIDToken
	}
	// The algorithm, the type and the key are ours to choose: the header only says which of our keys.
	k := keyNamed(iss.store.Keys(header.Algorithm), header.KeyID)
	if k == nil || parsed.Claims(publicKey(k), &claims) != nil || claims.Issuer != iss.name || claims.Subject == "" || claims.Audience == "" ||
		claims.Expires == 0 { // without an end it is signed userinfo
		return idClaims{}, errNotOurIDToken
	}
	return claims, nil
}
