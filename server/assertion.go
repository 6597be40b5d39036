package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// A client with keys authenticates with a JWT that it signs (private_key_jwt: RFC 7523 section 2.2, OpenID Connect Core
// 1.0 section 9).
//
// Issuer and subject are the client; it ends within an hour and has a jti, which works once at all replicas together. A
// forged assertion uses up nothing: the jti counts only once the signature and everything else is right. A key that was
// registered a moment ago is refused at a replica that has not heard of it yet; one that was removed gets no token
// there either.
//
// # Audience
//
// The issuer, the token endpoint, or the endpoint that was called (RFC 7523 section 3, RFC 9126 section 2); several of
// these at once, but nobody else: an assertion that others take as well could have come from them. A client that is
// told a false token endpoint by another authorization server can be made to sign an assertion for ours. That is why
// the update of RFC 7523 (draft-ietf-oauth-rfc7523bis) allows the issuer alone, as a string; libraries in use still
// send the token endpoint, as OpenID Connect Core says. So a client that is registered as FAPI 2.0 demands (PAR and
// DPoP required) must send the issuer as a string, and may not use RS256 (FAPI 2.0 Security Profile sections 5.3.2.1
// and 5.4.1); all others should send the issuer.

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 section 2.2

// Limits of assertions.
const (
	maxAssertionLife = time.Hour        // until exp: some libraries take that much
	clockSkew        = 30 * time.Second // by which a client's clock may be ahead
	maxJTI           = 256              // bytes
	maxSigned        = 16 << 10         // bytes of what a client signs
)

// Each assertion leaves a mark in storage until it would have expired. Where strangers make clients, they make the
// marks as well: so many per second and at once from such a client, and of all of them, at each replica.
const (
	strangersAssertions      = 5
	strangersAssertionsBurst = 200
	allAssertions            = 50
	allAssertionsBurst       = 2000
)

// assertionTypes are the typ headers of an assertion: other JWTs that a client signs (request objects, DPoP proofs) are
// not accepted. The last one is of the update of RFC 7523.
var assertionTypes = []string{"", "jwt", "client-authentication+jwt"}

// fapi reports whether a client is registered as FAPI 2.0 demands, so that the rules of that profile hold for it.
func fapi(c *storage.Client) bool {
	return c.RequirePushedAuthorizationRequests && c.DPoPBoundAccessTokens
}

// assertion is one that was verified.
type assertion struct {
	once  storage.Once
	spent bool // by this request
}

// assertionClaims are the claims of RFC 7523 section 3.
type assertionClaims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub"`
	Audience  json.RawMessage `json:"aud"`
	Expires   *float64        `json:"exp"`
	NotBefore *float64        `json:"nbf"`
	IssuedAt  *float64        `json:"iat"`
	ID        string          `json:"jti"`
}

// errNotSigned: the client's keys did not sign this.
var errNotSigned = errors.New("not signed by the client")

// verifySigned gives the payload and the typ header, in lower case, of a JWS that a client signed, with one of algs.
// The key is the client's, whatever the JWS brings along. [errNotSigned] is a verdict; anything else is a fault.
func (s *Server) verifySigned(ctx context.Context, c *storage.Client, token string, algs []string) (payload []byte,
	typ string, err error) {
	if len(token) > maxSigned || strings.Count(token, ".") != 2 {
		return nil, "", errNotSigned
	}
	parsed, err := jose.ParseSignedCompact(token, algorithms(algs))
	if err != nil || len(parsed.Signatures) != 1 {
		return nil, "", errNotSigned
	}
	header := parsed.Signatures[0].Protected
	keys, err := s.clients.Keys(ctx, c, header.KeyID)
	if err != nil {
		return nil, "", err
	}
	for _, key := range keys {
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := parsed.Verify(key.Key); err == nil {
			typ, _ := header.ExtraHeaders[jose.HeaderType].(string)
			return payload, strings.ToLower(typ), nil
		}
	}
	return nil, "", errNotSigned
}

// verifyAssertion checks the assertion of a client. Before the signature is known to be good, the answer is that to a
// wrong secret; the operator finds the rule by the id of the request.
func (s *Server) verifyAssertion(ctx context.Context, c *storage.Client, shown credentials) (*assertion, error) {
	algs := oauth.ClientAlgs()
	if fapi(c) {
		algs = oauth.Without(algs, []string{oauth.AlgRS256})
	}
	if pinned := c.TokenEndpointAuthSigningAlg; pinned != "" {
		algs = oauth.Within([]string{pinned}, algs)
	}
	payload, typ, err := s.verifySigned(ctx, c, shown.assertion, algs)
	if errors.Is(err, errNotSigned) {
		return nil, invalidClient(oauth.RuleAssertionSignature)
	}
	if err != nil {
		return nil, fmt.Errorf("look for a client's keys: %w", err)
	}
	var claims assertionClaims
	if err := json.Unmarshal(payload, &claims); err != nil { // strict about names: each once, in its own spelling
		return nil, assertionRefused(oauth.RuleAssertionClaims, "its claims cannot be read")
	}
	if fault := s.checkAssertion(c, shown, typ, claims); fault != "" {
		return nil, assertionRefused(oauth.RuleAssertionClaims, fault)
	}
	if !clients.Vouched(c) && !s.asserting.spend(c.ID, s.now()) {
		return nil, oauth.Refuse(oauth.CodeTemporarilyUnavailable, oauth.RuleRateLimit,
			"too many assertions of a client that no operator answers for; try again later")
	}
	until := time.UnixMilli(int64(*claims.Expires * 1000))
	return &assertion{once: storage.Once{ID: "assertion\n" + c.ID + "\n" + claims.ID, Until: until}}, nil
}

// checkAssertion says what is wrong with an assertion that the client has signed.
func (s *Server) checkAssertion(c *storage.Client, shown credentials, typ string, claims assertionClaims) string {
	now := float64(s.now().UnixMilli()) / 1000
	ahead := now + clockSkew.Seconds()
	switch {
	case !slices.Contains(assertionTypes, typ):
		return "its typ is that of something else"
	case claims.Issuer != c.ID || claims.Subject != c.ID:
		return "iss and sub must be the client_id"
	case !s.forUs(c, claims.Audience, shown.endpoint):
		return "aud must be " + s.cfg.Issuer
	case claims.Expires == nil:
		return "exp is missing"
	case *claims.Expires <= now:
		return "it has expired"
	case *claims.Expires > ahead+maxAssertionLife.Seconds():
		return "exp is more than an hour ahead"
	case claims.NotBefore != nil && *claims.NotBefore > ahead:
		return "nbf is in the future"
	case claims.IssuedAt != nil && *claims.IssuedAt > ahead:
		return "iat is in the future"
	case claims.ID == "":
		return "jti is missing"
	case len(claims.ID) > maxJTI:
		return "jti is longer than 256 bytes"
	}
	return ""
}

// forUs reports whether an aud claim names this server and no other.
func (s *Server) forUs(c *storage.Client, aud []byte, endpoint string) bool {
	var names []string
	if aud = bytes.TrimSpace(aud); len(aud) > 0 && aud[0] == '"' {
		names = make([]string, 1)
		if json.Unmarshal(aud, &names[0]) != nil {
			return false
		}
	} else if fapi(c) || json.Unmarshal(aud, &names) != nil {
		return false
	}
	accepted := []string{s.cfg.Issuer}
	if !fapi(c) {
		accepted = append(accepted, s.endpoint(pathToken), s.endpoint(endpoint))
	}
	return len(names) > 0 && len(oauth.Without(names, accepted)) == 0
}

// assertionRefused says what is wrong to a client that has proved to be the one (RFC 7521 section 4.2.1).
func assertionRefused(rule, fault string) *oauth.Error {
	return oauth.Refuse(oauth.CodeInvalidClient, rule, "the client assertion was refused: %s", fault)
}

func assertionReplayed() *oauth.Error {
	return assertionRefused(oauth.RuleAssertionUsed, "its jti was used before")
}

// assertedClient is whom an assertion claims to be of; nothing is verified yet.
func assertedClient(assertion string) string {
	if len(assertion) > maxSigned {
		return ""
	}
	_, rest, _ := strings.Cut(assertion, ".")
	middle, _, _ := strings.Cut(rest, ".")
	payload, err := base64.RawURLEncoding.DecodeString(middle)
	if err != nil {
		return ""
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Subject
}
