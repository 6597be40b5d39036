// Package workload verifies the tokens that platforms issue to what runs on them: service accounts of Kubernetes,
// JWT-SVIDs of SPIFFE, jobs of GitHub Actions and of GitLab CI. By such a token a workload is a client that has no
// secret (RFC 7523 section 2.2, with an assertion of somebody else's).
//
// # Whom it trusts
//
// The issuers of the configuration, each by its name to the letter, and their keys: from where the configuration says
// they are, and from nowhere that a token names (jwk, jku and x5u in its header are not looked at, RFC 8725 section
// 3.10). An issuer vouches for subjects under its own name alone: a client lists issuer and subject together, so the
// same subject, or the same kid, at another cluster is another workload. A JWT-SVID has no iss; its issuer is the trust
// domain of its SPIFFE ID, whose keys sign for no other one.
//
// # What a token must say
//
// For whom it is: the audience, and no other beside it, because whoever else takes the token could come here with it.
// When it ends: within a day, which suits tokens that a platform replaces when they are older than that. It is shown
// many times, so its jti is not used up, and nothing is kept of it.
//
// # Keys
//
// [Issuers.Refresh] fetches them in the background, so that no request waits for an issuer while its keys are current.
// A kid that they do not have is looked for once more, not oftener than [pause] says: an issuer that replaces its keys
// needs no restart of this server. While an issuer does not answer, its keys are good for some hours; then, and for a
// kid that nobody knows, its workloads are told to come back, which is no verdict about their tokens. A few requests
// wait for an issuer that hangs, and nobody else does.
package workload

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
)

// Issuer is one whose workloads may be clients. Its keys are at one of JWKSURI, JWKSFile and Kubernetes, or where its
// metadata says (OpenID Connect Discovery 1.0 section 4).
type Issuer struct {
	// Name is the iss of its tokens, or a SPIFFE trust domain, see [oauth.CheckTrustedIssuer].
	Name       string
	JWKSURI    string
	JWKSFile   string
	Kubernetes *Kubernetes
	// Algorithms with which it signs; all of [oauth.IssuerAlgs] when empty.
	Algorithms []string
	// Audience of its tokens, where an identity says none; this server's issuer when empty.
	Audience string
}

// Kubernetes is the API of a cluster. Its metadata names the address that the cluster is advertised at, which often
// cannot be reached from here; the keys are at the one that the operator names as well.
type Kubernetes struct {
	Server    string // https://host:port
	CAFile    string // certificates that vouch for it (PEM)
	TokenFile string // bearer token; empty where the keys are public
}

// Options say whom to trust.
type Options struct {
	Issuers []Issuer
	// Audience is this server's own issuer, for which tokens are unless something else is said.
	Audience string
	Outbound *outbound.Client // fetches what is at addresses
	Logger   *slog.Logger
	Now      func() time.Time
}

// Issuers are those that are trusted.
type Issuers struct {
	Options
	rings map[string]*keyring // by the issuer's name
}

// New trusts the issuers of some options, and knows none of their keys yet.
func New(o Options) *Issuers { return (&Issuers{}).With(o) }

// With trusts the issuers of other options. Whoever is the same keeps the keys that are known.
func (s *Issuers) With(o Options) *Issuers {
	next := &Issuers{Options: o, rings: make(map[string]*keyring, len(o.Issuers))}
	for _, issuer := range o.Issuers {
		ring := &keyring{issuer: issuer, fetch: func(ctx context.Context) ([]jose.JSONWebKey, error) {
			keys, err := next.fetchKeys(ctx, issuer)
			if err != nil { // told here, because strangers can ask, and this is done but every now and then
				o.Logger.WarnContext(ctx, "the keys of a trusted issuer cannot be fetched; trying again",
					"issuer", issuer.Name, "error", err)
			}
			return keys, err
		}}
		if before := s.rings[issuer.Name]; before != nil && reflect.DeepEqual(before.issuer, issuer) {
			ring.learn(before)
		}
		next.rings[issuer.Name] = ring
	}
	return next
}

// Refresh fetches the keys that are no longer current, of each issuer that has not failed a moment ago, and returns
// when all have answered or taken too long.
func (s *Issuers) Refresh(ctx context.Context) {
	var all sync.WaitGroup
	for _, ring := range s.rings {
		if !ring.due(s.Now()) {
			continue
		}
		all.Go(func() { _ = ring.look(ctx, s.Now()) }) // what went wrong is in the log
	}
	all.Wait()
}

// Workload is what a token says of whom it was issued to.
type Workload struct {
	Issuer, Subject string
	Expires         time.Time
}

// MaxToken is the most of a token, in bytes: those of CI have a few thousand.
const MaxToken = 16 << 10

// Limits of times.
const (
	maxLife   = 24 * time.Hour   // until exp
	clockSkew = 30 * time.Second // by which an issuer's clock may be ahead
)

// types are the typ headers of such tokens: access tokens, proofs and other JWTs of the same issuer are none. JOSE is
// of JWT-SVIDs.
var types = []string{"", "jwt", "jose"}

// claims are those of RFC 7523 section 3.
type claims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub"`
	Audience  json.RawMessage `json:"aud"`
	Expires   *float64        `json:"exp"`
	NotBefore *float64        `json:"nbf"`
	IssuedAt  *float64        `json:"iat"`
}

// workload is whom a token is about. One without an issuer may be a JWT-SVID.
func (c claims) workload() Workload {
	w := Workload{Issuer: c.Issuer, Subject: c.Subject}
	if w.Issuer == "" {
		w.Issuer = oauth.TrustDomain(c.Subject)
	}
	return w
}

// Claimed is whom a token claims to be about: nothing is verified. It is empty where that cannot be read.
func Claimed(token string) Workload {
	if len(token) > MaxToken {
		return Workload{}
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Workload{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var said claims
	if err != nil || json.Unmarshal(payload, &said) != nil {
		return Workload{}
	}
	return said.workload()
}

// Trusts reports whether an issuer is trusted.
func (s *Issuers) Trusts(issuer string) bool { return s.rings[issuer] != nil }

// Names are those of all issuers.
func (s *Issuers) Names() []string {
	names := make([]string, len(s.Issuers))
	for i, issuer := range s.Issuers {
		names[i] = issuer.Name
	}
	return names
}

// Verify takes a token of a workload that an app lists. What it refuses is an [oauth.Error]: invalid_client until it is
// known that the issuer has signed, and then with the reason; temporarily_unavailable where that cannot be known now.
func (s *Issuers) Verify(ctx context.Context, token string, listed oauth.WorkloadIdentity) (Workload, error) {
	claimed := Claimed(token)
	ring := s.rings[claimed.Issuer]
	switch {
	case ring == nil:
		return claimed, oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleWorkloadIssuer, "%s", failed).
			About(oauth.Printable(claimed.Issuer), oauth.Nearest(claimed.Issuer, s.Names()), "trustedIssuers")
	case !listed.Is(oauth.WorkloadIdentity{Issuer: claimed.Issuer, Subject: claimed.Subject}):
		return claimed, oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleWorkloadIdentity, "%s", failed)
	}
	said, typ, err := s.signed(ctx, ring, token)
	if errors.Is(err, errNotSigned) {
		return claimed, oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleWorkloadSignature, "%s", failed).
			About(oauth.Printable(claimed.Issuer), "", "trustedIssuers")
	}
	if err != nil { // the log has the reason, once
		return claimed, oauth.Refuse(oauth.CodeTemporarilyUnavailable, oauth.RuleWorkloadKeys,
			"the keys of the issuer of the assertion cannot be fetched now; try again later").
			About(oauth.Printable(claimed.Issuer), "", "trustedIssuers")
	}
	if at := said.workload(); at != claimed {
		return claimed, oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleWorkloadSignature, "%s", failed)
	}
	if fault := s.wrong(ring.issuer, listed, said, typ); fault != "" {
		return claimed, oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleWorkloadClaims,
			"the token of the workload was refused: %s", fault)
	}
	claimed.Expires = time.UnixMilli(int64(*said.Expires * 1000))
	return claimed, nil
}

// failed is what whoever has not proved to be anybody is told, the same as after a wrong secret.
const failed = "unknown client, or wrong client credentials"

// errNotSigned is a verdict: the issuer has not signed this.
var errNotSigned = errors.New("not signed by the issuer")

// signed gives what the issuer has signed, and the typ header in lower case.
func (s *Issuers) signed(ctx context.Context, ring *keyring, token string) (said claims, typ string, err error) {
	algs := ring.issuer.Algorithms
	if len(algs) == 0 {
		algs = oauth.IssuerAlgs()
	}
	allowed := make([]jose.SignatureAlgorithm, len(algs))
	for i, alg := range algs {
		allowed[i] = jose.SignatureAlgorithm(alg)
	}
	parsed, err := jose.ParseSignedCompact(token, allowed)
	if err != nil || len(parsed.Signatures) != 1 {
		return said, "", errNotSigned
	}
	header := parsed.Signatures[0].Protected
	keys, err := ring.named(ctx, header.KeyID, s.Now)
	if err != nil {
		return said, "", err
	}
	for _, key := range keys {
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		payload, err := parsed.Verify(key.Key)
		if err != nil {
			continue
		}
		if json.Unmarshal(payload, &said) != nil { // strict about names: each once, in its own spelling
			return said, "", errNotSigned
		}
		typ, _ := header.ExtraHeaders[jose.HeaderType].(string)
		return said, strings.ToLower(typ), nil
	}
	return said, "", errNotSigned
}

// wrong says what is wrong with a token that its issuer has signed; empty if nothing is.
func (s *Issuers) wrong(issuer Issuer, listed oauth.WorkloadIdentity, said claims, typ string) string {
	audience := listed.Audience
	if audience == "" {
		audience = issuer.Audience
	}
	if audience == "" {
		audience = s.Audience
	}
	now := float64(s.Now().UnixMilli()) / 1000
	ahead := now + clockSkew.Seconds()
	switch {
	case !slices.Contains(types, typ):
		return "its typ is that of something else"
	case oauth.IsTrustDomain(issuer.Name) && oauth.TrustDomain(said.Subject) != issuer.Name:
		return "sub is no SPIFFE ID of the trust domain"
	case !forAlone(said.Audience, audience):
		return fmt.Sprintf("aud must be %s and nothing else", audience)
	case said.Expires == nil:
		return "exp is missing"
	case *said.Expires <= now:
		return "it has expired"
	case *said.Expires > ahead+maxLife.Seconds():
		return "exp is more than a day ahead"
	case said.NotBefore != nil && *said.NotBefore > ahead:
		return "nbf is in the future"
	case said.IssuedAt != nil && *said.IssuedAt > ahead:
		return "iat is in the future"
	}
	return ""
}

// forAlone reports whether an aud claim, a text or a list, names one audience and no other.
func forAlone(aud []byte, audience string) bool {
	var one string
	if json.Unmarshal(aud, &one) == nil {
		return one == audience
	}
	var list []string
	return json.Unmarshal(aud, &list) == nil && len(list) == 1 && list[0] == audience
}
