package server

import (
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/storage"
)

// idHint are the claims of an ID token that came back as a hint (OpenID Connect Core 1.0 section 3.1.2.1, RP-Initiated Logout
// 1.0 section 2). It may have expired: it says who somebody was, and opens nothing.
type idHint struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"` // our ID tokens have one
	Session  string `json:"sid"`
}

// proves says whether the hint is an ID token of this very session, of its user.
func (s *Server) proves(h idHint, ref sessionRef) bool {
	return h.Session != "" && h.Session == storage.SID(ref.ID) && s.userOf(h.Subject) == ref.User
}

// verifyIDTokenHint checks that an ID token is one of ours, whether it has expired or not. The algorithm, the type and the key
// are ours to choose. Anything else is [storage.ErrNotFound].
func (s *Server) verifyIDTokenHint(token string) (idHint, error) {
	var hint idHint
	if len(token) > maxJWT || strings.Count(token, ".") != 2 {
		return idHint{}, storage.ErrNotFound
	}
	var algs []jose.SignatureAlgorithm
	for _, use := range idTokenAlgs {
		algs = append(algs, jose.SignatureAlgorithm(use))
	}
	parsed, err := jwt.ParseSigned(token, algs)
	if err != nil || len(parsed.Headers) != 1 {
		return idHint{}, storage.ErrNotFound
	}
	header := parsed.Headers[0]
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != typID {
		return idHint{}, storage.ErrNotFound
	}
	keys := s.store.Keys(header.Algorithm)
	i := slices.IndexFunc(keys, func(k *storage.Key) bool { return k.Name() == header.KeyID })
	if i < 0 || parsed.Claims(publicKey(keys[i]), &hint) != nil || hint.Issuer != s.cfg.Issuer || hint.Audience == "" {
		return idHint{}, storage.ErrNotFound
	}
	return hint, nil
}
