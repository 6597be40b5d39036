package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// The refresh token grant (RFC 6749 section 6, RFC 9700 section 4.14.2). A refresh token is a sealed place in the chain
// of its grant. Using it is one transaction, which moves the chain on, so it works once: one that comes again ends the
// grant.
//
// Some clients send one refresh token several times at once: they share a cookie between browser tabs, or between
// replicas, without a lock. For those there is the reuse interval, see [storage.Store.RotateGrant]: all of their
// requests get the same next refresh token, and each an access token of its own.

// refreshToken is what a refresh token holds, sealed.
type refreshToken struct {
	approval
	Generation int64 `json:"v"`
	Issued     int64 `json:"i"`
	Ends       int64 `json:"e"` // of the grant
	// Before is what the chain remembers for the client's reuse interval.
	Before []storage.Step `json:"p,omitempty"`
	// Base and Move say how the generation is counted in a chain that came from another etcd, see [storage.Rotation].
	Base int64 `json:"d,omitempty"`
	Move int64 `json:"f,omitempty"`
}

// expires is when the token ends if it is not used.
func (t refreshToken) expires(life Lifetimes) time.Time {
	idle, ends := time.UnixMilli(t.Issued).Add(life.RefreshIdle), time.UnixMilli(t.Ends)
	if idle.Before(ends) {
		return idle
	}
	return ends
}

// refresh gives tokens for a refresh token, the next refresh token among them.
func (s *Server) refresh(ctx context.Context, q *clientRequest) (any, error) {
	sent := oidc.RefreshTokenRequest{RefreshToken: q.form.Get("refresh_token"),
		Scopes: oauth.ParseScopes(q.form.Get("scope"))}
	var token refreshToken
	if err := s.open(storage.SealRefresh, sent.RefreshToken, &token); errors.Is(err, storage.ErrNotFound) {
		return nil, invalidGrant(oauth.RuleRefreshTokenInvalid, "the refresh token is invalid")
	} else if err != nil {
		return nil, fmt.Errorf("open refresh token: %w", err)
	}
	now := s.now()
	switch {
	case token.Client != q.client.ID:
		return nil, invalidGrant(oauth.RuleRefreshTokenOtherClient, "the refresh token was issued to another client")
	case now.After(token.expires(s.life)):
		return nil, invalidGrant(oauth.RuleRefreshTokenExpired, "the refresh token has expired")
	}
	asked := token.Scopes
	if q.form.Has("scope") {
		asked = sent.Scopes
		if beyond := oauth.Without(asked, token.Scopes); len(beyond) > 0 {
			return nil, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeBeyondGrant, "scope asks for more than was granted").
				About(oauth.Printable(beyond[0]), oauth.Nearest(beyond[0], token.Scopes), "")
		}
	}
	key, err := s.tokenKey(q, token.DPoPKey)
	if err != nil {
		return nil, err
	}
	ref := storage.GrantRef{ClientID: q.client.ID, GrantID: token.Grant, UserID: token.User,
		Generation: token.Generation, At: time.UnixMilli(token.Issued), Before: token.Before,
		Base: token.Base, Move: token.Move}
	next := token
	next.Issued = now.UnixMilli()
	reply, err := s.decide(ctx, q.client, token.approval, func(c *client, at storage.Revisions) (any, error) {
		next.UserRevision, next.Access = at.User, s.ruleDigest(c.Client)
		return s.rotateGrant(ctx, c, q, asked, key, ref, next)
	})
	if e := refused(err); e != nil && e.Rule == oauth.RuleRefreshTokenRevoked && !q.client.Issued(ref.At) {
		return nil, invalidGrant(oauth.RuleClientReturned, "the refresh token is older than the client")
	}
	return reply, err
}

// rotateGrant is the transaction of a refresh token: it moves the chain of the grant from ref to the next one.
func (s *Server) rotateGrant(ctx context.Context, c *client, q *clientRequest, asked []string, key string,
	ref storage.GrantRef, next refreshToken) (any, error) {
	if !c.Client.MayUse(oauth.GrantRefreshToken) {
		return nil, unauthorizedClient(c.Client, oauth.GrantRefreshToken)
	}
	scopes := s.offered(c.Client, asked)
	if len(scopes) == 0 {
		return nil, scopesWithdrawn(c.Client)
	}
	if err := mustProve(c.Client, key); err != nil {
		return nil, err
	}
	audience, err := s.audienceOf(ctx, next.Resources, scopes, q.form["resource"])
	if err != nil {
		return nil, err
	}
	form, err := s.formOf(c.Client, audience)
	if err != nil {
		return nil, err
	}
	due := tokenSpec{approval: next.approval, client: c.Client, scopes: scopes, audience: audience, form: form, key: key,
		toldAPI: s.tokenTells(c.Client, scopes, c.AccessTokenClaims)}
	if due.withID = slices.Contains(scopes, oauth.ScopeOpenID) && c.IDTokenOnRefresh != oauth.IDTokenNever; due.withID {
		due.told, due.peers = s.idTokenTells(c.Client, scopes, next.Claims.forIDToken()), s.peersOf(c.Client, scopes)
	}
	sign := s.signAhead(ctx, due)
	ref.WithUser = due.waits()
	rotation, err := s.store.RotateGrant(ctx, ref, next.expires(s.life), c.Client.ReuseIntervalOr(s.life.RefreshReuse),
		storage.Revisions{Client: c.Revision, User: next.UserRevision}, c.usesUp()...)
	c.noteSpent(err)
	switch {
	case err == nil:
		next.Generation, next.Issued, next.Before = rotation.Generation, rotation.At.UnixMilli(), rotation.Before
		next.Base, next.Move = rotation.Base, rotation.Move
		return s.tokens(next, scopes, rotation.User, sign)
	case errors.Is(err, storage.ErrReplayed):
		s.journal.replayed(ctx, "refresh token", c.ID, next.Grant)
		return nil, invalidGrant(oauth.RuleRefreshTokenUsed,
			"the refresh token was used before; everything issued from it is revoked")
	case errors.Is(err, storage.ErrNotFound):
		return nil, invalidGrant(oauth.RuleRefreshTokenRevoked, "the refresh token was revoked")
	case errors.Is(err, storage.ErrSpent):
		return nil, assertionReplayed()
	}
	return nil, fmt.Errorf("refresh: %w", err)
}
