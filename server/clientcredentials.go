package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// A client's own tokens (RFC 6749 section 4.4): for confidential clients that registered the grant type
// client_credentials. Such a token belongs to no grant, so its jti begins with a dot; its subject is the client (RFC
// 9068 section 2.2). There is no refresh token, and nothing about a user: no OpenID Connect scope, no ID token, no
// userinfo. The scope must be said, as at the authorization endpoint.
//
// Issuing one stores nothing. One read makes sure that the client's record is the one on which this was decided, so
// that a client that was disabled or whose secret was ended gets no token, not even at a replica that has not heard of
// it. With an assertion there is one write, which uses that up.
//
// A token lives until it expires, or until the client revokes it, is disabled or is removed: introspection says so at
// once, with one read. The end of a secret, also of one that is compromised, does not end the tokens that were got with
// it; whoever checks them without introspection takes them for as long as they last (accessToken of [Lifetimes]).

// clientCredentials gives a client a token of its own.
func (s *Server) clientCredentials(ctx context.Context, q *clientRequest) (any, error) {
	key, err := s.tokenKey(q, "")
	if err != nil {
		return nil, err
	}
	return s.decide(ctx, q.client, approval{}, func(c *client, _ storage.Revisions) (any, error) {
		if !c.Client.MayUse(oauth.GrantClientCredentials) {
			return nil, unauthorizedClient(c.Client, oauth.GrantClientCredentials)
		}
		if err := mustProve(c.Client, key); err != nil {
			return nil, err
		}
		scopes, err := s.ownScopes(c.Client, q.form.Get("scope"))
		if err != nil {
			return nil, err
		}
		audience, err := s.clientAudience(q.form["resource"])
		if err != nil {
			return nil, err
		}
		form, err := s.formOf(c.Client, audience)
		if err != nil {
			return nil, err
		}
		if err := s.store.ClientSince(ctx, c.ID, c.Revision); err != nil {
			return nil, fmt.Errorf("issue a client's own token: %w", err)
		}
		own := tokenSpec{approval: approval{Client: c.ID, User: c.ID}, client: c.Client, scopes: scopes, audience: audience,
			form: form, key: key}
		return s.tokens(refreshToken{}, scopes, nil, func(*storage.User) (signedTokens, error) {
			first := s.signFirst(ctx, own)
			return first.signedTokens, first.err
		})
	})
}

// ownScopes are the scopes that a client asks for itself. OpenID Connect's are about a user, and there is none.
func (k *catalogue) ownScopes(c *storage.Client, param string) ([]string, error) {
	scopes := oauth.ParseScopes(param)
	if len(scopes) > maxScopes {
		return nil, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeTooMany, "scope lists more than 64 scopes")
	}
	scopes, err := k.checkListed(c, scopes)
	if err != nil {
		return nil, err
	}
	for _, about := range standardScopes {
		if slices.Contains(scopes, about.Name) {
			return nil, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeAboutUser,
				"the scope %s is about a user, and the client asks for itself", about.Name).
				About(about.Name, "", "")
		}
	}
	return scopes, nil
}

// own says that a token is a client's own.
func (c accessClaims) own() bool { return strings.HasPrefix(c.ID, ".") && c.Subject == c.ClientID }

// issuedTo says whether the token was issued to c, and not to a client that had its id before.
func (c accessClaims) issuedTo(client *storage.Client) bool {
	return client.Issued(time.Unix(c.IssuedAt, 0))
}

// ended is what is used up when a client revokes this token alone.
func (c accessClaims) ended() storage.Once {
	return storage.Once{ID: "token\n" + c.ClientID + "\n" + c.ID, Until: time.Unix(c.Expires, 0)}
}

// revokeAlone ends one access token and nothing else (RFC 7009): that it was revoked is remembered for as long as it
// would have lasted.
func (s *Server) revokeAlone(ctx context.Context, c *client, claims accessClaims) error {
	err := s.store.Spend(ctx, claims.ended(), storage.AuditEntry{
		Actor: storage.ClientActor(c.ID), Action: storage.AuditTokenRevoked, App: c.App,
		Reason: "revoked by the client", Detail: "access token " + claims.ID})
	if err != nil && !errors.Is(err, storage.ErrSpent) {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}
