package clients

import (
	"context"
	"fmt"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// EndDenied ends the grants and consents of all clients that are described by documents of a denied host. They are
// refused before that: this is so that nothing of it comes back when the host is no longer denied.
func (s *Clients) EndDenied(ctx context.Context) error {
	if len(s.Hosts.Deny) == 0 {
		return nil
	}
	for after, more := "", true; more; more = after != "" {
		list, next, err := s.Store.DescribedClients(ctx, storage.Part{After: after})
		if err != nil {
			return err
		}
		after = next
		for _, c := range list {
			if !IsDocumentURL(c.ID) || !s.Hosts.Denies(oauth.HostOf(c.ID)) {
				continue
			}
			ended, err := s.Store.EndDescribed(ctx, c.ID, storage.AuditEntry{
				Actor: storage.ActorServer, Action: storage.AuditClientDenied, Detail: c.ID,
				Reason: fmt.Sprintf("the host of its document is denied; grants: %d, consents: %d", c.Grants, c.Consents)})
			if err != nil {
				return err
			}
			if ended {
				s.Logger.InfoContext(ctx, "grants and consents of a client ended: the host of its document is denied",
					"client", c.ID, "grants", c.Grants, "consents", c.Consents)
			}
		}
	}
	return nil
}
