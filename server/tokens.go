package server

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// approval is what a user allowed a client. The sealed code and every refresh token of the grant carry it, so that
// issuing tokens reads nothing. Times are Unix milliseconds.
type approval struct {
	Grant        string   `json:"g"` // the grant that redeeming the code creates
	Client       string   `json:"c"`
	User         string   `json:"u"`
	UserRevision int64    `json:"r"`
	Scopes       []string `json:"s"` // of the grant
	AuthTime     int64    `json:"a"`
	AMR          []string `json:"m,omitempty"` // how the user signed in (RFC 8176)
	Session      string   `json:"b,omitempty"` // the browser's sign-in, as sid (OpenID Connect Back-Channel Logout 1.0)
	// Claims that the authorization request asked for one by one, as far as they are permitted; nil when none.
	Claims *claimsRequest `json:"q,omitempty"`
	ACR    bool           `json:"h,omitempty"` // the authorization request asked for the claim acr
	// DPoPKey is the JWK thumbprint of the key that must prove possession (RFC 9449): of a code, the one that the
	// authorization request named (section 10); of a refresh token, the one to which a public client bound it (section
	// 5).
	DPoPKey   string   `json:"k,omitempty"`
	Resources []string `json:"w,omitempty"` // resource indicators of the authorization request (RFC 8707), see audienceOf
}

// issuer makes tokens and opens those that it made. It knows keys, lifetimes and the clock, and nothing of requests.
type issuer struct {
	name    string // the issuer of tokens, as everybody knows it
	store   *storage.Store
	life    Lifetimes
	now     func() time.Time
	signers signers
	serving atomic.Int32 // requests for tokens, at this moment
}

func (iss *issuer) seal(t storage.SealType, v any) (string, error) {
	plain, err := plainJSON(v)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return iss.store.Seal(t, plain)
}

// plainJSON leaves <, > and & as they are: six bytes instead of one would make a long state too long for a URL.
func plainJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// open reads a sealed string; anything that this server did not seal as that type is [storage.ErrNotFound].
func (iss *issuer) open(t storage.SealType, sealed string, v any) error {
	plain, err := iss.store.Open(t, sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("open sealed string: %w", err)
	}
	return nil
}

// sealRefresh seals the same token to the same string, so that a reuse interval hands out the very same successor.
func (iss *issuer) sealRefresh(t refreshToken) (string, error) {
	plain, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return iss.store.SealFixed(storage.SealRefresh, plain)
}

// accessClaims are the claims of an access token (RFC 9068 section 2.2).
type accessClaims struct {
	Issuer   string        `json:"iss"`
	Subject  string        `json:"sub"`
	Audience audience      `json:"aud"`
	Expires  int64         `json:"exp"`
	IssuedAt int64         `json:"iat"`
	ID       string        `json:"jti"` // the grant's id, a dot, and random
	ClientID string        `json:"client_id"`
	Scope    string        `json:"scope"`
	AuthTime int64         `json:"auth_time,omitempty"`
	Confirm  *confirmation `json:"cnf,omitempty"`
	ACR      string        `json:"acr,omitempty"`
	AMR      []string      `json:"amr,omitempty"`
	Actor    *actor        `json:"act,omitempty"` // RFC 8693 section 4.1
	// Origin is the client of the grant, when another one has got the token in a token exchange.
	Origin string `json:"origin_client_id,omitempty"`
}

// audience is a string when it is one, an array otherwise (RFC 7519 section 4.1.3).
type audience []string

func (a audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// grantClient is the client of the grant that the token belongs to.
func (c accessClaims) grantClient() string {
	if c.Origin != "" {
		return c.Origin
	}
	return c.ClientID
}

// grant is the id of the grant that the token belongs to.
func (c accessClaims) grant() string {
	id, _, _ := strings.Cut(c.ID, ".")
	return id
}

// Types of JWTs, their typ header: one type is never taken for another (RFC 8725 section 3.11).
const (
	typAccess = "at+jwt" // RFC 9068 section 2.1
	typID     = "JWT"
	typProof  = "dpop+jwt" // RFC 9449 section 4.2
)

// sign makes a JWS in compact form (RFC 7515 section 7.1) of claims, with the present key of an algorithm.
func (iss *issuer) sign(alg, typ string, claims any) (string, error) {
	k, err := iss.store.SigningKey(alg)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	signed, err := iss.signers.of(k, alg, typ).sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return signed, nil
}

// maxJWT is longer than any token that we sign.
const maxJWT = 8 << 10

var errNotOurs = fmt.Errorf("access token: %w", storage.ErrNotFound)

// verifyAccess checks an access token without asking storage. The algorithm, the type and the key are ours to choose:
// the token's header only says which of our keys.
func (iss *issuer) verifyAccess(token string) (accessClaims, error) {
	var claims accessClaims
	if len(token) > maxJWT || strings.Count(token, ".") != 2 {
		return claims, errNotOurs
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || len(parsed.Headers) != 1 {
		return claims, errNotOurs
	}
	header := parsed.Headers[0]
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != typAccess {
		return claims, errNotOurs
	}
	k := keyNamed(iss.store.Keys(storage.UseES256), header.KeyID)
	if k == nil || parsed.Claims(publicKey(k), &claims) != nil || claims.Issuer != iss.name || !iss.now().Before(time.Unix(claims.Expires, 0)) {
		return accessClaims{}, errNotOurs
	}
	return claims, nil
}

// keyNamed is the key that a JWT names in its header; nil if it is not one of those.
func keyNamed(keys []*storage.Key, name string) *storage.Key {
	for _, k := range keys {
		if k.Name() == name {
			return k
		}
	}
	return nil
}

func publicKey(k *storage.Key) crypto.PublicKey {
	return k.Private.(crypto.Signer).Public()
}

// signed are the JWTs of a reply.
type signed struct {
	access, id string
	kind       string // token_type of the access token
}

// issue is what the JWTs of one reply are made of.
type issue struct {
	approval
	client *storage.Client
	scopes []string // of this reply; within those of the grant
	// audience of the access token, see audienceOf and clientAudience; the issuer when nil.
	audience audience
	key      string         // the thumbprint of the key that the access token is bound to, see tokenKey; "" when it is bound to none
	withID   bool           // an ID token is due: signing RSA costs more than all the rest, so it is only made on request
	nonce    string         // of the authorization request, for the ID token
	told     map[string]any // what the ID token says about the user, because the request asked for it claim by claim
}

// signAhead gives the function that signs. While there is a processor for each request that wants tokens, it begins at
// once, beside what the caller does meanwhile: signing takes about as long as storing. When there are more, that would
// only cost changes of goroutines.
func (iss *issuer) signAhead(i issue) func() (signed, error) {
	if int(iss.serving.Load()) > runtime.GOMAXPROCS(0) {
		return func() (signed, error) { return iss.signAll(i) }
	}
	var (
		out  signed
		err  error
		done = make(chan struct{})
	)
	go func() {
		defer close(done)
		out, err = iss.signAll(i)
	}()
	return func() (signed, error) {
		<-done
		return out, err
	}
}

// signAll signs the JWTs of one reply.
func (iss *issuer) signAll(i issue) (signed, error) {
	out := signed{kind: kindOf(i.key)}
	var err error
	if out.access, err = iss.accessToken(i); err == nil && i.withID {
		out.id, err = iss.idToken(i, out.access)
	}
	return out, err
}

func (iss *issuer) accessToken(i issue) (string, error) {
	sub, err := iss.subject(i.client, i.User)
	if err != nil {
		return "", err
	}
	now := iss.now()
	claims := accessClaims{
		Issuer: iss.name, Subject: sub, Audience: i.audience,
		Expires: now.Add(iss.life.AccessToken).Unix(), IssuedAt: now.Unix(),
		ID: i.Grant + "." + randomHex(8), ClientID: i.Client,
		Scope: oauth.JoinScopes(i.scopes), AuthTime: i.AuthTime / 1000, AMR: i.AMR, Confirm: confirm(i.key),
	}
	if i.audience == nil {
		claims.Audience = audience{iss.name}
	}
	if i.AuthTime != 0 {
		claims.ACR = acrPassword // of everybody who signs in; a client that acts for itself does not
	}
	return iss.sign(storage.UseES256, typAccess, claims)
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}
