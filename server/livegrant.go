package server

import (
	"context"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// grantView is a live grant that stands for its user.
type grantView struct {
	storage.GrantView
	User activeUser
	// holder is the client of the access token by which it was found, see liveGrantOf.
	holder *storage.Client
}

type activeUser struct{ *storage.User }

// login is the name under which people know the account.
func (u activeUser) login() string {
	if u.Username != "" {
		return u.Username
	}
	return u.Email
}

// liveGrant reads a grant whose tokens are good: it lives, and stands for its user. Otherwise [storage.ErrNotFound].
func (s *Server) liveGrant(ctx context.Context, clientID, grantID, userID string) (grantView, error) {
	view, err := s.store.Grant(ctx, clientID, grantID, userID)
	if err != nil {
		return grantView{}, err
	}
	return standingGrant(view, userID)
}

// liveGrantThrough is liveGrant for an access token that another client than the grant's may have got, in a token
// exchange, and may have revoked. It reads along a client that uses the token; nil means that no such client may.
func (s *Server) liveGrantThrough(ctx context.Context, claims accessClaims, clientID string) (grantView,
	*storage.Client, error) {
	userID := s.userOf(claims.Subject)
	view, c, err := s.store.GrantThrough(ctx, claims.grantClient(), claims.grant(), userID, clientID, claims.ended().ID)
	if err != nil {
		return grantView{}, nil, err
	}
	live, err := standingGrant(view, userID)
	return live, c, err
}

// liveGrantOf is the grant of an access token that is not a client's own, and the scopes that the token still has.
// known is its client, when that was found already.
func (s *Server) liveGrantOf(ctx context.Context, claims accessClaims, known *storage.Client) (view grantView,
	scopes []string, err error) {
	c := known
	if known != nil && claims.Origin == "" {
		if view, err = s.liveGrant(ctx, claims.ClientID, claims.grant(), s.userOf(claims.Subject)); err == nil {
			c, err = s.clientAt(ctx, known, known.ID, view.ClientRevision)
		}
	} else if view, c, err = s.liveGrantThrough(ctx, claims, claims.ClientID); err == nil && c == nil &&
		clients.IsDocumentURL(claims.ClientID) {
		c, err = s.clients.Client(ctx, claims.ClientID) // it has no record
	}
	switch {
	case err != nil:
		return grantView{}, nil, err
	case c == nil || !claims.issuedTo(c):
		return grantView{}, nil, storage.ErrNotFound
	}
	if err := s.mayUse(c, view.User.User, claims); err != nil {
		return grantView{}, nil, err
	}
	scopes = s.offered(c, oauth.ParseScopes(claims.Scope))
	if claims.Origin != "" {
		origin, err := s.clientAt(ctx, nil, claims.Origin, view.ClientRevision)
		if err != nil {
			return grantView{}, nil, err
		}
		if err := s.mayUse(origin, view.User.User, claims); err != nil {
			return grantView{}, nil, err
		}
		scopes = s.offered(origin, scopes)
	}
	view.holder = c
	if len(scopes) == 0 {
		return grantView{}, nil, storage.ErrNotFound // nothing is left of what the user allowed
	}
	return view, scopes, nil
}

// clientAt is a client as etcd has it at a revision: known, or else what memory knows, unless that is of another
// revision.
func (s *Server) clientAt(ctx context.Context, known *storage.Client, id string, revision int64) (*storage.Client,
	error) {
	var err error
	if known == nil {
		known, err = s.clients.Client(ctx, id)
	}
	if err != nil || known.Revision == revision {
		return known, err
	}
	return s.store.CurrentClient(ctx, id, "")
}

// standingGrant is the view of a grant of that user, for whom it stands.
func standingGrant(view storage.GrantView, userID string) (grantView, error) {
	if !view.User.Stands(view.Grant.Term) || view.Grant.UserID != userID {
		return grantView{}, storage.ErrNotFound
	}
	return grantView{GrantView: view, User: activeUser{view.User}}, nil
}
