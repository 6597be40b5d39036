package server

import (
	"context"

	"github.com/warifu/warifu/storage"
)

// grantView is a live grant with its active user.
type grantView struct {
	storage.GrantView
	User activeUser
}

type activeUser struct{ *storage.User }

// login is the name under which people know the account.
func (u activeUser) login() string {
	if u.Username != "" {
		return u.Username
	}
	return u.Email
}

// liveGrant reads a grant whose tokens are good: it lives and its user is active. Otherwise [storage.ErrNotFound].
func (s *Server) liveGrant(ctx context.Context, clientID, grantID, userID string) (grantView, error) {
	view, err := s.store.Grant(ctx, clientID, grantID, userID)
	if err != nil {
		return grantView{}, err
	}
	return active(view, userID)
}

// liveGrantThrough is liveGrant for an access token that another client than the grant's may have got, in a token
// exchange, and may have revoked. It reads along a client that uses the token; nil is none that may.
func (s *Server) liveGrantThrough(ctx context.Context, claims accessClaims, clientID string) (grantView, *storage.Client, error) {
	userID := s.userOf(claims.Subject)
	view, c, err := s.store.GrantThrough(ctx, claims.grantClient(), claims.grant(), userID, clientID, claims.ended().ID)
	if err != nil {
		return grantView{}, nil, err
	}
	live, err := active(view, userID)
	return live, c, err
}

// liveGrantOf is the grant of an access token that is not a client's own. known means that its client was found.
func (s *Server) liveGrantOf(ctx context.Context, claims accessClaims, known bool) (grantView, error) {
	if known && claims.Origin == "" {
		return s.liveGrant(ctx, claims.ClientID, claims.grant(), s.userOf(claims.Subject))
	}
	view, c, err := s.liveGrantThrough(ctx, claims, claims.ClientID)
	if err == nil && (c == nil || !claims.issuedTo(c)) {
		err = storage.ErrNotFound
	}
	return view, err
}

// active is the view of a grant of that user, who is active.
func active(view storage.GrantView, userID string) (grantView, error) {
	if !view.User.Active() || view.Grant.UserID != userID {
		return grantView{}, storage.ErrNotFound
	}
	return grantView{view, activeUser{view.User}}, nil
}
