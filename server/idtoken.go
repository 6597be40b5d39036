package server

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"slices"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// registeredAlg is the algorithm that a client asked for, or else the default. Registration refuses what is not in the
// list.
func registeredAlg(alg string) string {
	if slices.Contains(oauth.ServerAlgs(), alg) {
		return alg
	}
	return oauth.DefaultAlg
}

// idClaims are the claims of an ID token (OpenID Connect Core 1.0 section 2).
type idClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience audience `json:"aud"`
	// Authorized is the client that it was issued to, where the audience is more than that one.
	Authorized string   `json:"azp,omitempty"`
	Expires    int64    `json:"exp"`
	IssuedAt   int64    `json:"iat"`
	AuthTime   int64    `json:"auth_time"`
	AMR        []string `json:"amr,omitempty"`
	ACR        string   `json:"acr,omitempty"` // when the request asked for it
	Nonce      string   `json:"nonce,omitempty"`
	AtHash     string   `json:"at_hash"`
	Session    string   `json:"sid,omitempty"`
}

// client is the one that the ID token was issued to; empty for that of nobody.
func (c idClaims) client() string {
	if len(c.Audience) == 1 && c.Authorized == "" {
		return c.Audience[0]
	}
	return c.Authorized
}

// idToken makes an ID token, with what it tells about the user, for the client and those of its peers that the user may
// use. That of a refresh says the same of the sign-in as the first one, without a nonce (OpenID Connect Core 1.0
// section 12.2). Only clients that take part in logouts get a sid: to others it means nothing.
func (iss *issuer) idToken(ctx context.Context, spec tokenSpec, accessToken string, user *storage.User) (string,
	error) {
	sub, err := iss.subject(spec.client, spec.User)
	if err != nil {
		return "", err
	}
	session := ""
	if spec.client.TakesPartInLogouts() {
		if session, err = iss.sessionFor(spec.client, spec.Session); err != nil {
			return "", err
		}
	}
	now, alg := iss.now(), registeredAlg(spec.client.IDTokenSignedResponseAlg)
	claims := idClaims{
		Issuer: iss.name, Subject: sub, Audience: audience{spec.Client},
		Expires: now.Add(iss.life.IDToken).Unix(), IssuedAt: now.Unix(), AuthTime: spec.AuthTime / 1000, AMR: spec.AMR,
		Nonce: spec.nonce, AtHash: halfHash(alg, accessToken), Session: session,
	}
	if spec.ACR {
		claims.ACR = spec.acr()
	}
	if peers := openTo(spec.peers, user, spec.Class, spec.AMR); len(peers) > 0 {
		claims.Audience, claims.Authorized = append(peers, spec.Client), spec.Client
	}
	var told map[string]any
	if spec.told != nil {
		told = spec.told(user)
	}
	return iss.sign(ctx, alg, typID, withClaims{claims, told})
}

// halfHash is at_hash: the left half of the hash that belongs to the algorithm (OpenID Connect Core 1.0 section
// 3.1.3.6). Of Ed25519 that is SHA-512, the hash inside the signature.
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
	out, err := marshal(w.claims)
	if err != nil || len(w.more) == 0 {
		return out, err
	}
	more, err := json.Marshal(w.more)
	if err != nil {
		return nil, err
	}
	return append(append(out[:len(out)-1], ','), more[1:]...), nil
}
