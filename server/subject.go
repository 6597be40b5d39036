package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// subject is what tokens, userinfo and introspection call a user when they speak to a client: the id, or for a client that is
// registered as pairwise what that is in its sector (OpenID Connect Core 1.0 section 8).
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

// sessionFor is what a client knows a browser's session by (sid of OpenID Connect Back-Channel Logout 1.0). One name for all clients
// would tell those of different sectors that their users are one, so it is pairwise as well.
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

// userOf is the user behind a subject that this server has signed, of whatever type: it asks no record, and goes on working when
// the client's registration changes.
func (iss *issuer) userOf(subject string) string {
	if id, pairwise := iss.store.PairwiseUser(subject); pairwise {
		return id
	}
	return subject
}

// sessionOf is the session behind a sid that this server has signed.
func (iss *issuer) sessionOf(sid string) string { return iss.userOf(sid) }

// CheckSectorIdentifier says what is wrong when a client with these redirect URIs is registered with a sector identifier.
func (s *Server) CheckSectorIdentifier(ctx context.Context, uri string, redirectURIs []string) error {
	return s.checkSectorIdentifier(ctx, uri, redirectURIs)
}

// maxSectorDocument is the longest sector identifier document, in bytes.
const maxSectorDocument = 64 << 10

// checkSectorIdentifier fetches the document at sector_identifier_uri: a JSON array that lists all redirect URIs of the client
// (OpenID Connect Core 1.0 section 8.1, Dynamic Client Registration 1.0 section 5). Otherwise anybody could take part in somebody
// else's sector. The error says what is wrong, for whoever registers.
func (s *Server) checkSectorIdentifier(ctx context.Context, uri string, redirectURIs []string) error {
	if u, err := url.Parse(uri); err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return errors.New("sector_identifier_uri must be an https URL")
	}
	reply, err := s.cfg.Outbound.Get(ctx, uri, "application/json", maxSectorDocument)
	if err != nil {
		return fmt.Errorf("sector_identifier_uri cannot be fetched: %w", err)
	}
	var listed []string
	if err := json.Unmarshal(reply.Body, &listed); err != nil || listed == nil {
		return errors.New("sector_identifier_uri must lead to a JSON array of redirect URIs")
	}
	for _, redirect := range redirectURIs {
		if !slices.Contains(listed, redirect) {
			return fmt.Errorf("the document at sector_identifier_uri does not list the redirect URI %s", printable(redirect))
		}
	}
	return nil
}
