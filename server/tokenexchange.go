package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Token exchange (RFC 8693): a resource server that was called for a user calls on for that user.
//
// It is off unless the configuration turns it on and the client registers the grant type. The client must authenticate,
// and the subject token must be for it: an access token of this server whose audience has one of the identifiers for
// which the client speaks. So a client cannot exchange a token that was not sent to it. It gets an access token
//
//   - for the resource servers that it names (resource or audience), of those that its manifest lists
//     (tokenExchangeAudiences): the user did not choose where their token is going to be used, so an operator does;
//   - with the subject token's scopes, or fewer, among those that the client itself may ask for;
//   - whose client_id is the client, and whose act says that it acts, and for whom it did: delegation, never
//     impersonation. The subject is the user, called as in the subject token;
//   - that ends with the subject token, and before if the user's grant does. Its jti begins with that grant's id, and
//     origin_client_id names the grant's client. The client can revoke it, which ends nothing else.
//
// A client that is a workload exchanges the token of its platform instead, for a token of its own (workload.go).
//
// There is no refresh token: when the token ends, the next call of the user brings another. Only access tokens are
// taken and given, and no actor_token: the client is the actor. A subject token that is bound to a key (RFC 9449) needs
// a proof of that key, which the resource server does not have: it is refused, unless the client is itself the holder
// of the key. A client's own token is refused as well, because it is for no user.
//
// An exchange costs one read: the grant, its user and the client as etcd has them.

// typeAccessToken is the token type of RFC 8693 section 3 that goes in and comes out.
const typeAccessToken = string(oidc.AccessTokenType)

// actor is who acts for the subject of a token, and who acted before (RFC 8693 section 4.1).
type actor struct {
	Subject string `json:"sub"`
	Actor   *actor `json:"act,omitempty"`
}

// maxActors is how many may act one after the other.
const maxActors = 8

func (a *actor) depth() int {
	if a == nil {
		return 0
	}
	return 1 + a.Actor.depth()
}

// exchanged is the reply of RFC 8693 section 2.2.1.
type exchanged struct {
	AccessToken string `json:"access_token"`
	IssuedType  string `json:"issued_token_type"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"` // seconds
	Scope       string `json:"scope"`
}

// exchangeToken gives a client a token of the user for whom it was called.
func (s *Server) exchangeToken(ctx context.Context, q *clientRequest) (any, error) {
	sent, err := decode[oidc.TokenExchangeRequest](q.form)
	if err != nil {
		return nil, err
	}
	if err := checkExchange(sent); err != nil {
		return nil, err
	}
	if sent.SubjectTokenType == oidc.JWTTokenType {
		return s.exchangeWorkload(ctx, q, sent.SubjectToken)
	}
	subject, err := s.subjectToken(ctx, q.client.Client, sent.SubjectToken)
	if err != nil {
		return nil, err
	}
	key, err := s.tokenKey(q, "")
	if err != nil {
		return nil, err
	}
	if bound := subject.key(); bound != "" && bound != key {
		return nil, invalidRequest(oauth.RuleProofKey,
			"subject_token is bound to a key: the DPoP proof of that key is missing")
	}
	return s.decide(ctx, q.client, approval{}, func(c *client, _ storage.Revisions) (any, error) {
		if !c.Client.MayUse(oauth.GrantTokenExchange) {
			return nil, unauthorizedClient(c.Client, oauth.GrantTokenExchange)
		}
		if err := mustProve(c.Client, key); err != nil {
			return nil, err
		}
		claims, err := s.exchange(c.Client, subject, key, q.form)
		if err != nil {
			return nil, err
		}
		form, err := s.formOf(c.Client, claims.Audience)
		if err != nil {
			return nil, err
		}
		view, current, err := s.liveGrantThrough(ctx, subject, c.ID)
		if err == nil { // memory may not have heard of what the client of the grant has lost
			var holder *storage.Client
			scopes := oauth.ParseScopes(claims.Scope)
			switch holder, err = s.clientAt(ctx, nil, subject.grantClient(), view.ClientRevision); {
			case err != nil:
			case len(s.offered(holder, scopes)) < len(scopes):
				err = storage.ErrNotFound
			default:
				err = s.mayExchange(subject, view.User.User, holder, current)
			}
		}
		switch {
		case refused(err) != nil:
			return nil, err
		case err != nil && !verdict(err):
			return nil, fmt.Errorf("exchange a token: %w", err)
		case err != nil:
			return nil, invalidRequest(oauth.RuleSubjectTokenInvalid, "subject_token was revoked")
		case current == nil || current.Revision != c.Revision:
			return nil, &storage.StaleError{Client: current}
		}
		var told map[string]any
		if tells := s.tokenTells(current, oauth.ParseScopes(claims.Scope), current.AccessTokenClaims); tells != nil {
			told = tells(view.User.User)
		}
		token, err := s.dress(ctx, form, claims, told)
		if err != nil {
			return nil, err
		}
		return exchanged{
			AccessToken: token, IssuedType: typeAccessToken, TokenType: kindOf(key), ExpiresIn: claims.Expires - claims.IssuedAt,
			Scope: claims.Scope,
		}, nil
	})
}

// mayExchange reports whether the user of a subject token may use the client of the grant, and the one that exchanges
// it, which is nil if it has gone.
func (s *Server) mayExchange(subject accessClaims, u *storage.User, through ...*storage.Client) error {
	for _, c := range through {
		if c == nil {
			continue
		}
		switch err := s.mayUse(c, u, subject); {
		case errors.Is(err, errNotAdmitted):
			return notAdmitted(oauth.CodeInvalidRequest, c, u)
		case err != nil:
			return factorNeeded(oauth.CodeInvalidRequest, c, subject.ACR, subject.AMR)
		}
	}
	return nil
}

// checkExchange checks what can be said without a look at the subject token.
func checkExchange(sent *oidc.TokenExchangeRequest) error {
	switch {
	case sent.ActorToken != "" || sent.ActorTokenType != "":
		return invalidRequest(oauth.RuleActorToken, "actor_token is not supported: the requesting client is the actor")
	case sent.SubjectTokenType != oidc.AccessTokenType && sent.SubjectTokenType != oidc.JWTTokenType:
		return invalidRequest(oauth.RuleTokenType, "subject_token_type must be "+typeAccessToken)
	case sent.RequestedTokenType != "" && sent.RequestedTokenType != oidc.AccessTokenType:
		return invalidRequest(oauth.RuleTokenType, "requested_token_type must be "+typeAccessToken)
	}
	return nil
}

// subjectToken takes a token that the client may exchange, but for the look at its grant. A token that is not good is
// invalid_request (RFC 8693 section 2.2.2).
func (s *Server) subjectToken(ctx context.Context, c *storage.Client, token string) (accessClaims, error) {
	claims, err := s.verifyAccess(token)
	switch {
	case err != nil && !verdict(err):
		return claims, fmt.Errorf("read subject token: %w", err)
	case err != nil:
		return claims, invalidRequest(oauth.RuleSubjectTokenInvalid,
			"subject_token is not an access token of this server, or has expired")
	case !oauth.ShareResource(s.speaksFor(c), claims.Audience):
		return claims, invalidRequest(oauth.RuleSubjectTokenAudience,
			"subject_token is not for a resource server of this client")
	case claims.own():
		return claims, invalidRequest(oauth.RuleSubjectTokenOwn,
			"subject_token is a client's own: there is no user to act for")
	case claims.Actor.depth() >= maxActors:
		return claims, invalidRequest(oauth.RuleSubjectTokenChain, "subject_token has come through too many exchanges")
	}
	// Its client may be gone, or have lost scopes since, and the grant another's.
	for _, id := range distinct([]string{claims.ClientID, claims.grantClient()}) {
		holder, err := s.clients.Client(ctx, id)
		if errors.Is(err, storage.ErrNotFound) || err == nil && !claims.issuedTo(holder) {
			return claims, invalidRequest(oauth.RuleSubjectTokenInvalid, "subject_token was revoked")
		} else if err != nil {
			return claims, fmt.Errorf("read client: %w", err)
		}
		claims.Scope = oauth.JoinScopes(s.offered(holder, oauth.ParseScopes(claims.Scope)))
	}
	return claims, nil
}

// exchange are the claims of the token that c gets for a subject token.
func (s *Server) exchange(c *storage.Client, subject accessClaims, key string, form url.Values) (accessClaims, error) {
	aud, err := s.exchangeAudience(c, form)
	if err != nil {
		return accessClaims{}, err
	}
	mine := s.ownOffered(c, oauth.ParseScopes(subject.Scope))
	scopes := mine
	if param := form.Get("scope"); param != "" {
		scopes = oauth.ParseScopes(param)
	}
	if beyond := oauth.Without(scopes, mine); len(beyond) > 0 {
		return accessClaims{}, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeBeyondGrant,
			"not a scope of subject_token that this client may use: %s", oauth.Printable(beyond[0])).
			About(oauth.Printable(beyond[0]), oauth.Nearest(beyond[0], mine), "")
	}
	if len(scopes) == 0 {
		return accessClaims{}, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeBeyondGrant,
			"subject_token has no scope that this client may use")
	}
	now := s.now()
	claims := subject // what is known of the user and how they signed in
	claims.Audience, claims.Scope = aud, oauth.JoinScopes(scopes)
	claims.IssuedAt, claims.Expires = now.Unix(), min(subject.Expires, now.Add(s.life.AccessToken).Unix())
	claims.ID, claims.ClientID, claims.Origin = subject.grant()+"."+randomHex(8), c.ID, subject.grantClient()
	claims.Confirm, claims.Actor = confirm(key), &actor{Subject: c.ID, Actor: subject.Actor}
	return claims, nil
}

// exchangeAudience are the resource servers that a client asks for, each of which its manifest must list.
func (s *Server) exchangeAudience(c *storage.Client, form url.Values) (audience, error) {
	asked := append(slices.Clone(form["resource"]), form["audience"]...)
	if len(asked) == 0 {
		return nil, invalidTarget(oauth.RuleResourceMissing,
			"resource or audience must name the resource server that the token is for")
	}
	for _, identifier := range asked {
		if _, listed := oauth.FindResource(c.TokenExchangeAudiences, identifier); !listed {
			unlisted := oauth.Printable(oauth.ShownURI(identifier))
			return nil, invalidTarget(oauth.RuleExchangeAudience,
				"the client may not exchange tokens for "+unlisted).
				About(unlisted, oauth.Nearest(identifier, c.TokenExchangeAudiences),
					whereOf(c, "tokenExchangeAudiences", ""))
		}
	}
	return s.clientAudience(asked)
}
