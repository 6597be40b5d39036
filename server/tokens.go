package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// approval is what a user allowed a client. The sealed code and every refresh token of the grant carry it, so that
// issuing tokens reads nothing. Times are Unix milliseconds.
type approval struct {
	Grant        string `json:"g"` // the grant that redeeming the code creates
	Client       string `json:"c"`
	User         string `json:"u"`
	UserRevision int64  `json:"r"`
	UserTerm     int64  `json:"y,omitempty"` // see storage.User.Stands
	// The revision at which the user allowed it, see storage.Grant; not in refresh tokens
	AsOf     int64    `json:"o,omitempty"`
	Scopes   []string `json:"s"` // of the grant
	AuthTime int64    `json:"a"`
	AMR      []string `json:"m,omitempty"` // how the user signed in (RFC 8176)
	Session  string   `json:"b,omitempty"` // the browser's sign-in, as sid (OpenID Connect Back-Channel Logout 1.0)
	// Claims that the authorization request asked for one by one, as far as they are permitted; nil when none.
	Claims *claimsRequest `json:"q,omitempty"`
	ACR    bool           `json:"h,omitempty"` // the authorization request asked for the claim acr
	// Class is the authentication context class that an identity provider told, and Told that by which the client wanted
	// the sign-in to be called, if that is another than it has by itself, see [approval.acr].
	Class string `json:"acr,omitempty"`
	Told  string `json:"t,omitempty"`
	// DPoPKey is the JWK thumbprint of the key that must prove possession (RFC 9449): of a code, the one that the
	// authorization request named (section 10); of a refresh token, the one to which a public client bound it (section
	// 5).
	DPoPKey string `json:"k,omitempty"`
	// Access is the digest of the rule under which the user was found to be one who may use the client, see access.go.
	Access    string   `json:"z,omitempty"`
	Resources []string `json:"w,omitempty"` // resource indicators of the authorization request (RFC 8707), see audienceOf
}

// acr is the authentication context class of the sign-in: the one by which the client asked for it, if it is of that
// class, or else its own. It is empty where nothing is known, and of a client that acts for itself.
func (a approval) acr() string { return cmp.Or(a.Told, oauth.ACROf(a.Class, a.AMR)) }

// issuer makes tokens and opens those that it made. It knows keys, lifetimes and the clock, and nothing of requests.
type issuer struct {
	name  string // the issuer of tokens, as everybody knows it
	store *storage.Store
	life  Lifetimes
	now   func() time.Time
	*working
}

// working is what lasts of an issuer when the configuration changes.
type working struct {
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
	read := cbor.Unmarshal
	if bytes.HasPrefix(plain, []byte("{")) {
		read = json.Unmarshal
	}
	if err := read(plain, v); err != nil {
		return fmt.Errorf("open sealed string: %w", err)
	}
	return nil
}

// refreshForm is how refresh tokens are written: as CBOR (RFC 8949), because that takes half the time of JSON, in which
// older ones are; and the same one always in the same way.
var refreshForm = func() cbor.EncMode {
	form, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic("server: " + err.Error()) // the options are constant
	}
	return form
}()

// sealRefresh seals the same token to the same string, so that a reuse interval hands out the very same successor.
func (iss *issuer) sealRefresh(t refreshToken) (string, error) {
	plain, err := refreshForm.Marshal(&t)
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
	typAccess = oauth.AccessTokenRFC9068 // RFC 9068 section 2.1
	// typID is also that of access tokens for verifiers that refuse at+jwt. These have client_id and jti, which an ID
	// token never has.
	typID    = "JWT"
	typProof = "dpop+jwt" // RFC 9449 section 4.2
)

// sign makes a JWS in compact form (RFC 7515 section 7.1) of claims, with the present key of an algorithm.
func (iss *issuer) sign(ctx context.Context, alg, typ string, claims any) (string, error) {
	k, err := iss.store.DemandKey(ctx, alg)
	if err != nil {
		return "", err
	}
	payload, err := marshal(claims)
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
const maxJWT = 16 << 10

var errNotOurs = fmt.Errorf("access token: %w", storage.ErrNotFound)

// verifyAccess checks an access token without asking storage.
func (iss *issuer) verifyAccess(token string) (accessClaims, error) {
	claims, err := iss.readAccess(token)
	if err != nil || claims.Issuer != iss.name || claims.ClientID == "" || claims.ID == "" ||
		!iss.now().Before(time.Unix(claims.Expires, 0)) {
		return accessClaims{}, cmp.Or(err, errNotOurs)
	}
	return claims, nil
}

// readAccess reads an access token of whatever form.
func (iss *issuer) readAccess(token string) (claims accessClaims, err error) {
	if strings.HasPrefix(token, string(storage.SealAccess)) {
		err = iss.open(storage.SealAccess, token, &claims)
		return claims, err
	}
	if !iss.readJWT(token, &claims, accessAlgs, typAccess, typID) {
		err = errNotOurs
	}
	return claims, err
}

// readJWT reads a JWT that this server has signed, of one of these types, and reports whether it is one. Algorithm,
// type and key are ours to choose: its header only says which of our keys.
func (iss *issuer) readJWT(token string, claims any, algs []jose.SignatureAlgorithm, types ...string) bool {
	if len(token) > maxJWT || strings.Count(token, ".") != 2 {
		return false
	}
	parsed, err := jwt.ParseSigned(token, algs)
	if err != nil || len(parsed.Headers) != 1 {
		return false
	}
	header := parsed.Headers[0]
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); !slices.Contains(types, typ) {
		return false
	}
	k := keyNamed(iss.store.Keys(header.Algorithm), header.KeyID)
	return k != nil && parsed.Claims(publicKey(k), claims) == nil
}

// accessAlgs and serverAlgs are the algorithms of access tokens, and of whatever else this server signs; proofAlgs
// those of DPoP proofs.
var (
	accessAlgs = algorithms(oauth.AccessTokenAlgs())
	serverAlgs = algorithms(oauth.ServerAlgs())
	proofAlgs  = algorithms(oauth.ProofAlgs())
)

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

// signedTokens are the JWTs of a reply.
type signedTokens struct {
	access, id string
	kind       string // token_type of the access token
}

// tokenSpec is what the JWTs of one reply are made of.
type tokenSpec struct {
	approval
	client *storage.Client
	scopes []string // of this reply; within those of the grant
	// audience of the access token, see audienceOf and clientAudience; the issuer when nil.
	audience audience
	form     tokenForm // of the access token, see formOf
	// key is the thumbprint of the key that the access token is bound to, see tokenKey; "" when it is bound to none.
	key    string
	withID bool   // an ID token is due: signing RSA costs more than all the rest, so it is only made on request
	nonce  string // of the authorization request, for the ID token
	// peers are the other clients that the ID token is for, see peersOf.
	peers []*storage.Client
	// told and toldAPI are what the ID token and the access token say about the user, see idTokenTells and tokenTells;
	// nil if that is nothing.
	told, toldAPI func(*storage.User) map[string]any
}

// waits reports whether the user is needed for what is signed.
func (spec tokenSpec) waits() bool { return spec.toldAPI != nil || spec.idWaits() }

// idWaits reports whether the user is needed for the ID token: for what it tells, or for whom it is.
func (spec tokenSpec) idWaits() bool {
	restricted := func(p *storage.Client) bool { return p.Restricted() }
	return spec.withID && (spec.told != nil || slices.ContainsFunc(spec.peers, restricted))
}

// signing gives what was signed. user is the one that the transaction has found: nobody else says what is true now.
type signing func(user *storage.User) (signedTokens, error)

// signAhead gives the function that signs. While there is a processor for each request that wants tokens, it begins at
// once, beside what the caller does meanwhile: signing takes about as long as storing. When there are more, that would
// only cost changes of goroutines. A token that tells about the user waits for the transaction.
func (iss *issuer) signAhead(ctx context.Context, spec tokenSpec) signing {
	if int(iss.serving.Load()) > runtime.GOMAXPROCS(0) {
		return func(user *storage.User) (signedTokens, error) {
			return iss.signRest(ctx, spec, user, iss.signFirst(ctx, spec))
		}
	}
	done := make(chan signedFirst, 1)
	go func() { done <- iss.signFirst(ctx, spec) }()
	return func(user *storage.User) (signedTokens, error) { return iss.signRest(ctx, spec, user, <-done) }
}

// signedFirst is what could be signed without the user.
type signedFirst struct {
	signedTokens
	err error
}

func (iss *issuer) signFirst(ctx context.Context, spec tokenSpec) (out signedFirst) {
	out.kind = kindOf(spec.key)
	if spec.toldAPI != nil {
		return out // the ID token has a hash of the access token
	}
	if out.access, out.err = iss.accessToken(ctx, spec, nil); out.err == nil && spec.withID && !spec.idWaits() {
		out.id, out.err = iss.idToken(ctx, spec, out.access, nil)
	}
	return out
}

func (iss *issuer) signRest(ctx context.Context, spec tokenSpec, user *storage.User,
	first signedFirst) (signedTokens, error) {
	out, err := first.signedTokens, first.err
	if err == nil && spec.toldAPI != nil {
		out.access, err = iss.accessToken(ctx, spec, spec.toldAPI(user))
	}
	if err == nil && spec.withID && spec.waits() {
		out.id, err = iss.idToken(ctx, spec, out.access, user)
	}
	return out, err
}

// accessToken makes an access token, with what it tells about the user.
func (iss *issuer) accessToken(ctx context.Context, spec tokenSpec, told map[string]any) (string, error) {
	sub, err := iss.subject(spec.client, spec.User)
	if err != nil {
		return "", err
	}
	now := iss.now()
	claims := accessClaims{
		Issuer: iss.name, Subject: sub, Audience: spec.audience,
		Expires: now.Add(iss.life.AccessToken).Unix(), IssuedAt: now.Unix(),
		ID: spec.Grant + "." + randomHex(8), ClientID: spec.Client,
		Scope: oauth.JoinScopes(spec.scopes), AuthTime: spec.AuthTime / 1000, AMR: spec.AMR, Confirm: confirm(spec.key),
	}
	if spec.audience == nil {
		claims.Audience = audience{iss.name}
	}
	claims.ACR = spec.acr()
	return iss.dress(ctx, spec.form, claims, told)
}

func randomHex(bytes int) string {
	b := make([]byte, bytes, 3*bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return string(hex.AppendEncode(b, b)[bytes:])
}
