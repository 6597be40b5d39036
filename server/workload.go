package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/workload"
	"github.com/warifu/warifu/storage"
)

// A client that is a workload has no secret: it shows the token that the platform on which it runs has issued to it, as
// a client assertion (RFC 7523 section 2.2) whose iss is not the client but an issuer that the configuration trusts,
// and whose sub is a workload that the manifest lists. What makes such a token good is in package workload; here is
// which client it is, and what it gets.
//
// On the wire that is private_key_jwt, so clients say that, and discovery advertises nothing else: workload is no
// method that the RFCs know. Whoever sends no client_id is found by issuer and subject. A platform's token is good for
// an hour and shown until then, so its jti is not used up; whoever steals it is the client for as long. A client that
// binds its tokens to a key (DPoP) leaves little to them.
//
// An issuer that is taken out of the configuration proves nothing any more: its workloads get no tokens, by no grant.
// What they have got before lasts as long as access tokens do.
//
// # Token exchange
//
// A job that knows no more than the token in its hand exchanges it (RFC 8693, subject_token_type jwt) for an access
// token of an API. The token is who asks then, and takes the place of a client assertion; where one is sent as well,
// both must be of this client. What comes back is the client's own token, as with client credentials: its sub is the
// client, and not the subject at the platform. That one is named by whoever names repositories and service accounts
// there, and must never be taken for a user of this server (RFC 9068 section 5). It has no act, because nobody acts for
// somebody else; it is for those of tokenExchangeAudiences that are asked for, and ends when the platform's token ends,
// or before. Exchanging it stores nothing.

// typeJWT is the token type of RFC 8693 section 3 of a workload's token.
const typeJWT = string(oidc.JWTTokenType)

// lookForKeys is how often it is looked whether keys of issuers are to be fetched.
const lookForKeys = 5 * time.Second

// refreshIssuers keeps the keys of the issuers in force current until ctx ends.
func (s *Server) refreshIssuers(ctx context.Context) {
	for ctx.Err() == nil {
		s.InForce().workloads.Refresh(ctx)
		storage.Pause(ctx, lookForKeys)
	}
}

// exchangesWorkload reports whether a token request has the token of a workload as its subject, which may say who asks.
func exchangesWorkload(form url.Values) bool {
	return form.Get("grant_type") == oauth.GrantTokenExchange && form.Get("subject_token_type") == typeJWT &&
		form.Has("subject_token")
}

// shownClient is the client that a request says it is of: by its id, or by whom its assertion claims to be. Nothing is
// verified yet.
func (s *Server) shownClient(ctx context.Context, shown *credentials) (*storage.Client, error) {
	if shown.id == "" {
		claimed := workload.Claimed(shown.assertion)
		if claimed.Issuer != claimed.Subject && s.workloads.Trusts(claimed.Issuer) {
			c, err := s.store.ClientOf(ctx, claimed.Issuer, claimed.Subject)
			if errors.Is(err, storage.ErrNotFound) {
				return nil, invalidClient(oauth.RuleWorkloadIdentity).About(shownWorkload(claimed), "", "spec.oauth.identities")
			}
			if err != nil {
				return nil, fmt.Errorf("read the client of a workload: %w", err)
			}
			shown.id = c.ID
			return c, nil
		}
		shown.id = assertedClient(shown.assertion)
	}
	c, err := s.clients.Client(ctx, shown.id)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, fmt.Errorf("read client: %w", err)
	}
	shown.unknown = err
	return c, nil
}

// shownWorkload is whom a token claims to be about, for the operator.
func shownWorkload(w workload.Workload) string {
	return oauth.Printable(oauth.Cut(w.Issuer+" "+w.Subject, maxShownClient))
}

// verifyWorkload checks that a token is of one of a client's workloads.
func (s *Server) verifyWorkload(ctx context.Context, c *storage.Client, token string) (*workload.Workload, error) {
	claimed := workload.Claimed(token)
	listed := c.IdentityOf(claimed.Issuer, claimed.Subject)
	if listed == nil {
		names := make([]string, len(c.Identities))
		for i, id := range c.Identities {
			names[i] = id.Name()
		}
		about := shownWorkload(claimed)
		return nil, invalidClient(oauth.RuleWorkloadIdentity).
			About(about, oauth.Nearest(about, names), whereOf(c, "identities", ""))
	}
	verified, err := s.workloads.Verify(ctx, token, *listed)
	if err != nil {
		return nil, err
	}
	return &verified, nil
}

// exchangeWorkload gives a client that is a workload a token of its own for the token of the workload.
func (s *Server) exchangeWorkload(ctx context.Context, q *clientRequest, token string) (any, error) {
	if q.client.TokenEndpointAuthMethod != oauth.AuthWorkload {
		return nil, invalidRequest(oauth.RuleTokenType, "subject_token_type must be "+typeAccessToken+
			": a token that somebody else has issued is for clients that authenticate by such a one").
			About(typeJWT, "", whereOfMethod(q.client.Client))
	}
	key, err := s.tokenKey(q, "")
	if err != nil {
		return nil, err
	}
	return s.decide(ctx, q.client, approval{}, func(c *client, _ storage.Revisions) (any, error) {
		if !c.Client.MayUse(oauth.GrantTokenExchange) {
			return nil, unauthorizedClient(c.Client, oauth.GrantTokenExchange)
		}
		if err := mustProve(c.Client, key); err != nil {
			return nil, err
		}
		subject, err := s.subjectWorkload(ctx, c, token)
		if err != nil {
			return nil, err
		}
		aud, err := s.exchangeAudience(c.Client, q.form)
		if err != nil {
			return nil, err
		}
		scopes, err := s.exchangeScopes(c.Client, q.form.Get("scope"))
		if err != nil {
			return nil, err
		}
		form, err := s.formOf(c.Client, aud)
		if err != nil {
			return nil, err
		}
		if err := s.store.ClientSince(ctx, c.ID, c.Revision); err != nil {
			return nil, fmt.Errorf("exchange the token of a workload: %w", err)
		}
		now := s.now()
		claims := accessClaims{
			Issuer: s.cfg.Issuer, Subject: c.ID, Audience: aud, IssuedAt: now.Unix(),
			Expires: min(subject.Expires.Unix(), now.Add(s.life.AccessToken).Unix()),
			ID:      "." + randomHex(8), ClientID: c.ID, Scope: oauth.JoinScopes(scopes), Confirm: confirm(key),
		}
		access, err := s.dress(ctx, form, claims, nil)
		if err != nil {
			return nil, err
		}
		return exchanged{
			AccessToken: access, IssuedType: typeAccessToken, TokenType: kindOf(key),
			ExpiresIn: claims.Expires - claims.IssuedAt, Scope: claims.Scope,
		}, nil
	})
}

// subjectWorkload is the workload of a subject token: the one by which the client has authenticated, or another of its
// workloads. A token that is not good is invalid_request (RFC 8693 section 2.2.2).
func (s *Server) subjectWorkload(ctx context.Context, c *client, token string) (*workload.Workload, error) {
	if token == c.shown.assertion && c.workload != nil {
		return c.workload, nil
	}
	subject, err := s.verifyWorkload(ctx, c.Client, token)
	if e := refused(err); e != nil && e.Code == oauth.CodeInvalidClient {
		return nil, invalidRequest(e.Rule, "subject_token is not the token of a workload of this client").
			About(e.Asked, e.Nearest, e.Where)
	}
	return subject, err
}

// exchangeScopes are the scopes that a workload asks for, or else all that it may have for itself.
func (s *Server) exchangeScopes(c *storage.Client, param string) ([]string, error) {
	if param != "" {
		return s.ownScopes(c, param)
	}
	var own []string
	for _, scope := range s.ownOffered(c, c.Scopes) {
		if !slices.Contains(standardScopeNames(), scope) {
			own = append(own, scope)
		}
	}
	if len(own) == 0 {
		return nil, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeAboutUser,
			"all scopes of the client are about users, and it asks for itself").About("", "", whereOf(c, "scopes", "scope"))
	}
	return own, nil
}
