package server

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// approval is what a user allowed a client. The sealed code and every refresh token of the grant carry it, so that issuing
// tokens reads nothing. Times are Unix milliseconds.
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
	// DPoPKey is the JWK thumbprint of the key that must prove possession (RFC 9449): of a code, the one that the authorization
	// request named (section 10); of a refresh token, the one to which a public client bound it (section 5).
	DPoPKey   string   `json:"k,omitempty"`
	Resources []string `json:"w,omitempty"` // resource indicators of the authorization request (RFC 8707), see audienceOf
}

// authCode is what an authorization code holds, sealed.
type authCode struct {
	approval
	RedirectURI string `json:"d"`
	Nonce       string `json:"n,omitempty"`
	Challenge   string `json:"p,omitempty"` // PKCE, always S256
	Expires     int64  `json:"x"`
	// Told is what the ID token says about the user, who is read when the code is issued and not when it is redeemed.
	Told map[string]any `json:"t,omitempty"`
}

// refreshToken is what a refresh token holds, sealed.
type refreshToken struct {
	approval
	Generation int64 `json:"v"`
	Issued     int64 `json:"i"`
	Ends       int64 `json:"e"` // of the grant
}

// expires is when the token ends if it is not used.
func (t refreshToken) expires(life Lifetimes) time.Time {
	return earlier(time.UnixMilli(t.Issued).Add(life.RefreshIdle), time.UnixMilli(t.Ends))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *Server) seal(t storage.SealType, v any) (string, error) {
	plain, err := plainJSON(v)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return s.store.Seal(t, plain)
}

// plainJSON leaves <, > and & as they are: six bytes in the place of one would make a long state too long for a URL.
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
func (s *Server) open(t storage.SealType, sealed string, v any) error {
	plain, err := s.store.Open(t, sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("open sealed string: %w", err)
	}
	return nil
}

// sealRefresh seals the same token to the same string, so that a reuse interval hands out the very same successor.
func (s *Server) sealRefresh(t refreshToken) (string, error) {
	plain, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return s.store.SealFixed(storage.SealRefresh, plain)
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

// signers makes one signer for each key and type.
type signers struct{ made sync.Map }

func (c *signers) of(k *storage.Key, alg jose.SignatureAlgorithm, typ string) (jose.Signer, error) {
	id := k.Name() + " " + typ
	if signer, ok := c.made.Load(id); ok {
		return signer.(jose.Signer), nil
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: k.Private, KeyID: k.Name()}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return nil, fmt.Errorf("make signer: %w", err)
	}
	c.made.Store(id, signer)
	return signer, nil
}

func (s *Server) sign(use, typ string, claims any) (string, error) {
	k, err := s.store.SigningKey(use)
	if err != nil {
		return "", err
	}
	signer, err := s.signers.of(k, jose.SignatureAlgorithm(use), typ)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	// Not through package jwt, which would take the claims apart and put them together again.
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return signed.CompactSerialize()
}

// maxJWT is longer than any token that we sign.
const maxJWT = 8 << 10

var errNotOurs = fmt.Errorf("access token: %w", storage.ErrNotFound)

// verifyAccess checks an access token without asking storage. The algorithm, the type and the key are ours to choose: the
// token's header only says which of our keys.
func (s *Server) verifyAccess(token string) (accessClaims, error) {
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
	i := slices.IndexFunc(s.store.Keys(storage.UseES256), func(k *storage.Key) bool { return k.Name() == header.KeyID })
	if i < 0 {
		return claims, errNotOurs
	}
	public := publicKey(s.store.Keys(storage.UseES256)[i])
	if err := parsed.Claims(public, &claims); err != nil || claims.Issuer != s.cfg.Issuer || !s.now().Before(time.Unix(claims.Expires, 0)) {
		return claims, errNotOurs
	}
	return claims, nil
}

// issued is the token reply of RFC 6749 section 5.1.
type issued struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope"`
	IDToken      string `json:"id_token,omitempty"`
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
	withID   bool           // an ID token is due: signing RSA costs more than all the rest, so nobody gets one who did not ask
	nonce    string         // of the authorization request, for the ID token
	told     map[string]any // what the ID token says about the user, because the request asked for it claim by claim
}

// signAhead begins to sign and gives the function that waits for it: signing takes about as long as storing, and both fit on
// two cores.
func (s *Server) signAhead(i issue) func() (signed, error) {
	out := signed{kind: kindOf(i.key)}
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		if out.access, err = s.accessToken(i); err == nil && i.withID {
			out.id, err = s.idToken(i, out.access)
		}
	}()
	return func() (signed, error) {
		<-done
		return out, err
	}
}

func (s *Server) accessToken(i issue) (string, error) {
	sub, err := s.subject(i.client, i.User)
	if err != nil {
		return "", err
	}
	now := s.now()
	claims := accessClaims{
		Issuer: s.cfg.Issuer, Subject: sub, Audience: i.audience,
		Expires: now.Add(s.life.AccessToken).Unix(), IssuedAt: now.Unix(),
		ID: i.Grant + "." + randomHex(8), ClientID: i.Client,
		Scope: oauth.JoinScopes(i.scopes), AuthTime: i.AuthTime / 1000, AMR: i.AMR, Confirm: confirm(i.key),
	}
	if i.audience == nil {
		claims.Audience = audience{s.cfg.Issuer}
	}
	if i.AuthTime != 0 {
		claims.ACR = acrPassword // of everybody who signs in; a client that acts for itself does not
	}
	return s.sign(storage.UseES256, typAccess, claims)
}

// reply is the answer of the token endpoint, once the grant stands as refresh says. Without a generation there is no refresh token.
func (s *Server) reply(refresh refreshToken, scopes []string, wait func() (signed, error)) (issued, error) {
	sealed := ""
	if refresh.Generation > 0 {
		var err error
		if sealed, err = s.sealRefresh(refresh); err != nil {
			return issued{}, err
		}
	}
	jwts, err := wait()
	if err != nil {
		return issued{}, err
	}
	return issued{
		AccessToken: jwts.access, TokenType: jwts.kind, ExpiresIn: int64(s.life.AccessToken / time.Second),
		RefreshToken: sealed, Scope: oauth.JoinScopes(scopes), IDToken: jwts.id,
	}, nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}
