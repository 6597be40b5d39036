package server

import (
	"context"
	"fmt"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// subject is what tokens, userinfo and introspection call a user when they speak to a client: the id, or for a client
// that is registered as pairwise what that is in its sector (OpenID Connect Core 1.0 section 8).
func (iss *issuer) subject(c *storage.Client, userID string) (string, error) {
	if c.SubjectType != oauth.SubjectPairwise || userID == c.ID { // a client that acts for itself is no user
		return userID, nil
	}
	sub, err := iss.store.PairwiseSubject(sectorOf(c), userID)
	if err != nil {
		return "", fmt.Errorf("make subject: %w", err)
	}
	return sub, nil
}

// sessionFor is what a client knows a browser's session by (sid of OpenID Connect Back-Channel Logout 1.0). One name
// for all clients would tell those of different sectors that their users are one, so it is pairwise as well.
func (iss *issuer) sessionFor(c *storage.Client, sid string) (string, error) {
	if c.SubjectType != oauth.SubjectPairwise || sid == "" {
		return sid, nil
	}
	name, err := iss.store.PairwiseSubject("sessions of "+sectorOf(c), sid)
	if err != nil {
		return "", fmt.Errorf("name session: %w", err)
	}
	return name, nil
}

func sectorOf(c *storage.Client) string {
	sector, err := c.Sector(c.ID)
	if err != nil {
		// Registration refuses such a client. Should one be there all the same, it shares its subjects with no other.
		return "client " + c.ID
	}
	return sector
}

// userOf is the user behind a subject that this server has signed, of whatever type: it asks no record, and goes on
// working when the client's registration changes.
func (iss *issuer) userOf(subject string) string {
	if id, pairwise := iss.store.PairwiseUser(subject); pairwise {
		return id
	}
	return subject
}

// sessionOf is the session behind a sid that this server has signed.
func (iss *issuer) sessionOf(sid string) string { return iss.userOf(sid) }

// CheckSectorIdentifier says what is wrong when a client with these redirect URIs is registered with a sector
// identifier.
func (s *Server) CheckSectorIdentifier(ctx context.Context, uri string, redirectURIs []string) error {
	return s.clients.CheckSector(ctx, uri, redirectURIs)
}
