package server

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// DPoP (RFC 9449): tokens that only the holder of a key can use.
//
// A client proves possession of a key by a JWT in the header DPoP, made for one request. At the token endpoint the
// access token is then bound to the key (its claim cnf), and so is the refresh token of a public client, which has no
// other secret (section 5). A refresh token that was issued without a proof stays unbound, whatever its access tokens
// are. At userinfo a bound token needs the scheme DPoP and a proof of the same key for that token; the schemes Bearer
// and DPoP are no substitute for each other.
//
// Each proof holds a nonce of this server, which comes with every reply of these endpoints: a proof that was made ahead
// of time is worth nothing, and what has to be remembered of proofs is bounded by the life of a nonce. A proof is used
// once at a replica; no record is written for it. What a second replica would take again within those minutes is a
// request that is authenticated otherwise and once only (a code, a refresh token), or shows the same userinfo once
// more.
//
// Where the request went is compared with the configured issuer, never with the Host header.

const (
	headerDPoP      = "DPoP"
	headerDPoPNonce = "Dpop-Nonce" // as package net/http spells it

	tokenTypeBearer = "Bearer"
	tokenTypeDPoP   = "DPoP"

	// A proof's clock may be behind by proofPast and ahead by proofAhead. The nonce says more about its age, so this is
	// generous.
	proofPast  = 5 * time.Minute
	proofAhead = time.Minute

	maxProofID = 256 // bytes of jti
)

// confirmation is the claim cnf (RFC 7800 section 3.1) of a token that is bound to a key.
type confirmation struct {
	Thumbprint string `json:"jkt"` // RFC 9449 section 6.1
}

// confirm is the confirmation of a key; none for "".
func confirm(thumbprint string) *confirmation {
	if thumbprint == "" {
		return nil
	}
	return &confirmation{thumbprint}
}

// key is the thumbprint of the key that a token is bound to.
func (c accessClaims) key() string {
	if c.Confirm == nil {
		return ""
	}
	return c.Confirm.Thumbprint
}

// kindOf is the token_type of an access token that is bound to a key, or to none if key is "".
func kindOf(key string) string {
	if key == "" {
		return tokenTypeBearer
	}
	return tokenTypeDPoP
}

// proofClaims are the claims of a proof (RFC 9449 section 4.2).
type proofClaims struct {
	ID        string  `json:"jti"`
	Method    string  `json:"htm"`
	Address   string  `json:"htu"`
	IssuedAt  float64 `json:"iat"`
	TokenHash string  `json:"ath"`
	Nonce     string  `json:"nonce"`
}

// maxProof is longer than any proof needs to be.
const maxProof = 8 << 10

func badProof(rule, description string) *oauth.Error {
	return oauth.Refuse(oauth.CodeInvalidDPoPProof, rule, "%s", description)
}

// proof checks the proof of a request to an endpoint, path below the issuer, and gives the thumbprint of its key (RFC
// 9449 section 4.3). accessToken is the one that is shown with it, if any. A refusal is a verdict, any other error a
// fault.
func (p *proofs) proof(header http.Header, method, path, accessToken string) (string, error) {
	values := header.Values(headerDPoP)
	if len(values) != 1 || len(values[0]) > maxProof {
		return "", badProof(oauth.RuleProofInvalid, "send one DPoP proof")
	}
	key, claims, err := parseProof(values[0])
	if err != nil {
		return "", err
	}
	now := float64(p.now().UnixMilli()) / 1000
	hash := sha256.Sum256([]byte(accessToken))
	switch {
	case claims.ID == "" || len(claims.ID) > maxProofID:
		return "", badProof(oauth.RuleProofInvalid, "jti of the DPoP proof is missing or too long")
	case claims.Method != method:
		return "", badProof(oauth.RuleProofInvalid, "htm of the DPoP proof is not the method of the request")
	case !sameAddress(claims.Address, p.name+path):
		return "", badProof(oauth.RuleProofInvalid, "htu of the DPoP proof is not the address of the request")
	case claims.IssuedAt < now-proofPast.Seconds() || claims.IssuedAt > now+proofAhead.Seconds():
		return "", badProof(oauth.RuleProofInvalid, "iat of the DPoP proof is not the time of the request")
	case accessToken != "" && subtle.ConstantTimeCompare([]byte(claims.TokenHash),
		[]byte(base64.RawURLEncoding.EncodeToString(hash[:]))) == 0:
		return "", badProof(oauth.RuleProofInvalid, "ath of the DPoP proof is not the hash of the access token")
	}
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", badProof(oauth.RuleProofInvalid, "the jwk of the DPoP proof is not a usable key")
	}
	thumbprint := base64.RawURLEncoding.EncodeToString(sum)
	return thumbprint, p.useProof(claims.Nonce, thumbprint, claims.ID)
}

// parseProof verifies a proof by the key in its own header (RFC 9449 section 4.2): a public one, that fits the
// algorithm. All that could point to another key is refused.
func parseProof(proof string) (*jose.JSONWebKey, proofClaims, error) {
	var claims proofClaims
	parsed, err := jwt.ParseSigned(proof, proofAlgs)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, claims, badProof(oauth.RuleProofInvalid,
			"the DPoP proof is not a signed JWT of a supported algorithm with a public jwk")
	}
	header := parsed.Headers[0]
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != typProof {
		return nil, claims, badProof(oauth.RuleProofInvalid, "typ of the DPoP proof must be "+typProof)
	}
	if _, critical := header.ExtraHeaders["crit"]; critical {
		return nil, claims, badProof(oauth.RuleProofInvalid, "the DPoP proof has critical headers")
	}
	key := header.JSONWebKey
	if key == nil || !key.IsPublic() || len(key.Certificates) > 0 || key.CertificatesURL != nil ||
		key.Algorithm != "" && key.Algorithm != header.Algorithm || key.Use != "" && key.Use != "sig" {
		return nil, claims, badProof(oauth.RuleProofInvalid, "the jwk of the DPoP proof does not fit its algorithm")
	}
	// Weak keys prove little, and huge ones cost us more than them.
	if public, is := key.Key.(*rsa.PublicKey); is && (public.N.BitLen() < 2048 || public.N.BitLen() > 4096) {
		return nil, claims, badProof(oauth.RuleProofInvalid, "an RSA key of the DPoP proof must have 2048 to 4096 bits")
	}
	if err := parsed.Claims(key.Key, &claims); err != nil {
		return nil, claims, badProof(oauth.RuleProofInvalid, "the signature or the claims of the DPoP proof are not valid")
	}
	return key, claims, nil
}

// sameAddress compares an htu with the address of an endpoint, after the normalization of RFC 3986 sections 6.2.2 and
// 6.2.3 and without query and fragment (RFC 9449 section 4.3).
func sameAddress(htu, endpoint string) bool {
	if end := strings.IndexAny(htu, "?#"); end >= 0 {
		htu = htu[:end]
	}
	return htu == endpoint || oauth.CanonicalURI(htu) == oauth.CanonicalURI(endpoint)
}

// tokenKey is the thumbprint of the key whose possession a request to the token endpoint proves; "" when it does not
// try, and need not. bound is the thumbprint to which the code or the refresh token is bound, if it is.
func (p *proofs) tokenKey(q *clientRequest, bound string) (string, error) {
	if len(q.header.Values(headerDPoP)) == 0 {
		if bound != "" {
			return "", invalidGrant(oauth.RuleProofMissing, "it is bound to a key, and the DPoP proof of that key is missing")
		}
		return "", mustProve(q.client.Client, "")
	}
	key, err := p.proof(q.header, http.MethodPost, pathToken, "")
	switch {
	case err != nil:
		return "", err
	case bound != "" && key != bound:
		return "", invalidGrant(oauth.RuleProofKey, "it is bound to another key than that of the DPoP proof")
	}
	return key, nil
}

// boundTo is the key to which the refresh token of a client is bound that proved possession of key (RFC 9449 section
// 5): clients that authenticate have their secret for that, and may change the key.
func boundTo(c *storage.Client, key string) string {
	if c.Public {
		return key
	}
	return ""
}

// checkPossession checks that the caller who presents an access token at an endpoint of this server, path below the
// issuer, holds the key that the token is bound to (RFC 9449 section 7). proven says that it came by the scheme DPoP,
// which is for such tokens alone.
func (p *proofs) checkPossession(r *http.Request, path, token string, claims accessClaims, proven bool) error {
	invalid := func(rule, description string) error {
		return oauth.Refuse(oauth.CodeInvalidToken, rule, "%s", description)
	}
	switch bound := claims.key(); {
	case bound == "" && !proven:
		return nil
	case bound == "":
		return invalid(oauth.RuleAccessTokenScheme, "the access token is not bound to a key: use the scheme Bearer")
	case !proven:
		return invalid(oauth.RuleAccessTokenScheme, "the access token is bound to a key: use the scheme DPoP, with a proof")
	}
	key, err := p.proof(r.Header, r.Method, path, token)
	if err != nil {
		return err
	}
	if key != claims.key() {
		return invalid(oauth.RuleProofKey, "the access token is bound to a key other than that of the DPoP proof")
	}
	return nil
}

// mustProve refuses a client that has registered to use DPoP always (RFC 9449 section 5.2) and did not.
func mustProve(c *storage.Client, key string) error {
	if c.DPoPBoundAccessTokens && key == "" {
		return badProof(oauth.RuleProofMissing, "the client is registered for DPoP: the DPoP proof is missing").
			About("", "", whereOf(c, "dpopBoundAccessTokens", "dpop_bound_access_tokens"))
	}
	return nil
}
