package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/warifu/warifu/server/oauth"
)

// maxSectorDocument is the longest sector identifier document, in bytes.
const maxSectorDocument = 64 << 10

// CheckSector fetches the document at sector_identifier_uri: a JSON array that lists all redirect URIs of the client
// (OpenID Connect Core 1.0 section 8.1, Dynamic Client Registration 1.0 section 5). Otherwise anybody could take part
// in somebody else's sector. The error says what is wrong, for whoever registers.
func (s *Clients) CheckSector(ctx context.Context, uri string, redirectURIs []string) error {
	// The outbound client may be allowed plain http to some address, for other purposes.
	if u, err := url.Parse(uri); err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return errors.New("sector_identifier_uri must be an https URL")
	}
	reply, err := s.Outbound.Get(ctx, uri, "application/json", maxSectorDocument)
	if err != nil {
		return fmt.Errorf("sector_identifier_uri cannot be fetched: %w", err)
	}
	var listed []string
	if err := json.Unmarshal(reply.Body, &listed); err != nil || listed == nil {
		return errors.New("sector_identifier_uri must lead to a JSON array of redirect URIs")
	}
	for _, redirect := range redirectURIs {
		if !slices.Contains(listed, redirect) {
			return fmt.Errorf("the document at sector_identifier_uri does not list the redirect URI %s",
				oauth.Printable(redirect))
		}
	}
	return nil
}
