package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// A client's own tokens (RFC 6749 section 4.4): for confidential clients that registered the grant type client_credentials. Such
// a token belongs to no grant, so its jti begins with a dot; its subject is the client (RFC 9068 section 2.2). There is no refresh
// token, and nothing about a user: no OpenID Connect scope, no ID token, no userinfo. The scope must be said, as at the
// authorization endpoint.
//
// Issuing one stores nothing. One read makes sure, while the token is being signed, that the client's record is the one on which
// this was decided, so that a client that was disabled or whose secret was ended gets no token, not even at a replica that
// has not heard of it. With an assertion there is one write, which uses that up.
//
// A token lives until it expires, or until the client revokes it, is disabled or is removed: introspection says so at
// once, with one read. The end of a secret, also of one that is compromised, does not end the tokens that were got with it;
// whoever checks them without introspection takes them for as long as they last (accessToken of [Lifetimes]).

// ClientCredentialsExchange gives a client a token of its own.
func (p *provider) ClientCredentialsExchange(ctx context.Context, r *op.ClientRequest[oidc.ClientCredentialsRequest]) (*op.Response, error) {
	c := r.Client.(*client)
	reply, err := p.ownToken(ctx, c, r.Form, r.Header)
	return p.settled(ctx, c, reply, err)
}

func (p *provider) ownToken(ctx context.Context, c *client, form url.Values, header http.Header) (*op.Response, error) {
	key, err := p.tokenKey(ctx, c.Client, header, "")
	if err != nil {
		return nil, err
	}
	var reply *op.Response
	err = storage.Again(changes, func() (again bool, err error) {
		if !mayUse(c.Client, GrantClientCredentials) {
			return false, unauthorizedClient(GrantClientCredentials)
		}
		if err := mustProve(c.Client, key); err != nil {
			return false, err
		}
		scopes, err := p.ownScopes(c.Client, form.Get("scope"))
		if err != nil {
			return false, err
		}
		audience, err := p.clientAudience(c.Client, form["resource"])
		if err != nil {
			return false, err
		}
		signing := p.signAhead(issue{approval: approval{Client: c.ID, User: c.ID}, client: c.Client, scopes: scopes, audience: audience, key: key})
		current, err := p.store.CurrentClient(ctx, c.ID, "")
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return false, p.unavailable(ctx, "reading a client", err)
		}
		if current == nil || current.Revision != c.Revision {
			c, err = p.reauthenticate(ctx, c, current)
			return true, err
		}
		reply, err = p.tokens(ctx, refreshToken{}, scopes, signing)
		return false, err
	})
	if errors.Is(err, storage.ErrConflict) {
		err = p.unavailable(ctx, "issuing tokens", err)
	}
	return reply, err
}

// ownScopes are the scopes that a client asks for itself. OpenID Connect's are about a user, and there is none.
func (s *Server) ownScopes(c *storage.Client, param string) ([]string, error) {
	scopes, err := s.checkScopes(c, param)
	var fault *oauthFault
	if errors.As(err, &fault) {
		return nil, fail(http.StatusBadRequest, fault.code, fault.description)
	}
	for _, about := range standardScopes() {
		if len(oauth.Within([]string{about.Name}, scopes)) > 0 {
			return nil, fail(http.StatusBadRequest, string(oidc.InvalidScope), "the scope "+about.Name+" is about a user, and the client asks for itself")
		}
	}
	return scopes, nil
}

// own says that a token is a client's own.
func (c accessClaims) own() bool { return strings.HasPrefix(c.ID, ".") && c.Subject == c.ClientID }

// ended is what is used up when a client revokes this token alone.
func (c accessClaims) ended() storage.Once {
	return storage.Once{ID: "token\n" + c.ClientID + "\n" + c.ID, Until: time.Unix(c.Expires, 0)}
}

// revokeOne ends one access token and nothing else (RFC 7009): that it was revoked is remembered for as long as it would have
// lasted.
func (p *provider) revokeOne(ctx context.Context, c *client, claims accessClaims) error {
	err := p.store.Spend(ctx, claims.ended(), storage.AuditEntry{
		Actor: storage.ClientActor(c.ID), Action: storage.AuditTokenRevoked, App: c.App,
		Reason: "revoked by the client", Detail: "access token " + claims.ID})
	if err != nil && !errors.Is(err, storage.ErrSpent) {
		return p.unavailable(ctx, "revoking", err)
	}
	return nil
}
