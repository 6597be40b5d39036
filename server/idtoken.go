package server

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"slices"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// registeredAlg is the algorithm that a client asked for, or else the default. Registration refuses what is not in the list.
func registeredAlg(alg string) string {
	if slices.Contains(oauth.ServerAlgs(), alg) {
		return alg
	}
	return oauth.AlgRS256
}

// idClaims are the claims of an ID token (OpenID Connect Core 1.0 section 2).
type idClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	Expires  int64    `json:"exp"`
	IssuedAt int64    `json:"iat"`
	AuthTime int64    `json:"auth_time"`
	AMR      []string `json:"amr,omitempty"`
	ACR      string   `json:"acr,omitempty"` // when the request asked for it
	Nonce    string   `json:"nonce,omitempty"`
	AtHash   string   `json:"at_hash"`
	Session  string   `json:"sid,omitempty"`
}

// idToken makes the ID token of a code exchange. A refresh brings none, which OpenID Connect Core 1.0 section 12.2 leaves open: it
// would say the same again, and signing it would cost more than the refresh. Claims about the user are in it only where the request
// asked for them one by one: those of scopes are at userinfo (OpenID Connect Core 1.0 section 5.4).
func (iss *issuer) idToken(i issue, accessToken string) (string, error) {
	sub, err := iss.subject(i.client, i.User)
	if err != nil {
		return "", err
	}
	session, err := iss.sessionFor(i.client, i.Session)
	if err != nil {
		return "", err
	}
	now, alg := iss.now(), registeredAlg(i.client.IDTokenSignedResponseAlg)
	claims := idClaims{
		Issuer: iss.name, Subject: sub, Audience: i.Client,
		Expires: now.Add(iss.life.IDToken).Unix(), IssuedAt: now.Unix(), AuthTime: i.AuthTime / 1000, AMR: i.AMR,
		Nonce: i.nonce, AtHash: halfHash(alg, accessToken), Session: session,
	}
	if i.ACR {
		claims.ACR = acrPassword
	}
	return iss.sign(alg, typID, withClaims{claims, i.told})
}

// halfHash is at_hash: the left half of the hash that belongs to the algorithm (OpenID Connect Core 1.0 section 3.1.3.6). Of Ed25519
// that is SHA-512, the hash inside the signature.
func halfHash(alg, token string) string {
	if alg == storage.UseEdDSA {
		sum := sha512.Sum512([]byte(token))
		return base64.RawURLEncoding.EncodeToString(sum[:32])
	}
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// withClaims is a struct of claims with more of them beside it. No name is in both.
type withClaims struct {
	claims any
	more   map[string]any
}

func (w withClaims) MarshalJSON() ([]byte, error) {
	out, err := json.Marshal(w.claims)
	if err != nil || len(w.more) == 0 {
		return out, err
	}
	more, err := json.Marshal(w.more)
	if err != nil {
		return nil, err
	}
	return append(append(out[:len(out)-1], ','), more[1:]...), nil
}
