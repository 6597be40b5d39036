package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// What an operator ends: a session ([Store.RevokeSession]), a grant ([Store.RevokeGrant]), a consent with its grants
// ([Store.RevokeConsent]), or everything of a user ([Store.EndUser]). Each of them has ended for good when the verb
// returns, whatever was on its way:
//
//   - A user's term is in the record, and in everything that was begun in it; every path compares them ([User.Stands]).
//     So one put of the user's record ends all of that, see terms.go.
//   - A consent that is withdrawn leaves a mark. A code, or the approval of a device, says at which revision the user
//     allowed it, and is not redeemed after a later mark.

// ErrWithdrawn means that the consent was withdrawn on which a code or the approval of a device rests.
var ErrWithdrawn = errors.New("the consent was withdrawn")

// withdrawnKey is the mark of a consent that was withdrawn. It outlives every code and device code.
func withdrawnKey(clientID, userID string) string { return key("withdrawn", clientID, userID) }

// notWithdrawn compares that no consent of the user to the client was withdrawn after a revision.
func notWithdrawn(clientID, userID string, asOf int64) []clientv3.Cmp {
	if asOf == 0 {
		return nil
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(withdrawnKey(clientID, userID)), "<", asOf+1)}
}

// withdraw are the operations that withdraw a consent.
func (s *Store) withdraw(ctx context.Context, clientID, userID string) ([]clientv3.Op, error) {
	lease, err := s.leases.until(ctx, s.now().Add(tombstoneLife))
	if err != nil {
		return nil, err
	}
	return []clientv3.Op{
		clientv3.OpDelete(consentKey(clientID, userID)),
		clientv3.OpDelete(consentOfUserKey(userID, clientID)),
		clientv3.OpPut(withdrawnKey(clientID, userID), "", clientv3.WithLease(lease)),
	}, nil
}

// RevokeGrant is [Store.KillGrant] for an operator: the same transaction withdraws the consent on which the grant
// rests, so that no other follows without a question. The user's other grants to the client stay.
func (s *Store) RevokeGrant(ctx context.Context, grant Grant, why AuditEntry) (alive bool, err error) {
	why.User = grant.UserID
	alive, err = s.killGrant(ctx, grant.ClientID, grant.ID, why, func(ctx context.Context) ([]clientv3.Op, error) {
		return s.withdraw(ctx, grant.ClientID, grant.UserID)
	})
	if err != nil {
		return false, fmt.Errorf("revoke grant: %w", err)
	}
	return alive, nil
}

// Ended counts what ended.
type Ended struct {
	Sessions, Grants, Consents int
}

func (e Ended) String() string {
	return strings.Join([]string{counted(e.Sessions, "session"), counted(e.Grants, "grant"),
		counted(e.Consents, "consent")}, ", ")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprint(n, " ", what, "s")
}

// RevokeConsent withdraws what a user allowed a client: the consent, and the grants that it led to. What is on its way,
// such as the approval of a device, leaves no trace to look for, so it is no error if there is neither. [ErrNotFound]:
// there is no such client either.
func (s *Store) RevokeConsent(ctx context.Context, clientID, userID string, why AuditEntry) (Ended, error) {
	ended, err := s.revokeConsent(ctx, clientID, userID, why)
	if err != nil {
		return Ended{}, fmt.Errorf("revoke consent: %w", err)
	}
	return ended, nil
}

func (s *Store) revokeConsent(ctx context.Context, clientID, userID string, why AuditEntry) (ended Ended, err error) {
	held, err := s.kv.Get(ctx, consentKey(clientID, userID), clientv3.WithCountOnly())
	if err != nil {
		return ended, err
	}
	ended.Consents = int(held.Count)
	for first := true; ; first = false {
		grants, err := s.allGrants(ctx, GrantQuery{ClientID: clientID, UserID: userID}, nil)
		switch {
		case err != nil:
			return ended, err
		case len(grants) == 0 && !first:
			return ended, nil
		case len(grants) == 0 && ended.Consents == 0:
			if c, err := s.storedClient(ctx, clientID); err != nil || c == nil {
				return ended, cmp.Or(err, ErrNotFound)
			}
		}
		if first {
			// From here on no code leads to another grant: the next look finds those that came in before.
			entry := why
			entry.Action, entry.App, entry.User = AuditConsentRevoked, s.AppOf(clientID), userID
			entry.Detail = fmt.Sprintf("client %s, user %s, %s", clientID, userID, counted(len(grants), "grant"))
			_, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
				withdraw, err := s.withdraw(ctx, clientID, userID)
				t.then.do(withdraw...)
				t.then.do(s.auditOps(ctx, []AuditEntry{entry})...)
				return err
			})
			if err != nil {
				return ended, err
			}
		}
		if err := s.buryAll(ctx, grants, why); err != nil {
			return ended, err
		}
		ended.Grants += len(grants)
	}
}

// allGrants are the live grants of all pages; without those that are not wanted, if wanted is not nil.
func (s *Store) allGrants(ctx context.Context, q GrantQuery, wanted func(*Grant) bool) (all []Grant, err error) {
	for {
		page, next, err := s.Grants(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, g := range page {
			if wanted == nil || wanted(&g) {
				all = append(all, g)
			}
		}
		if next == "" {
			return all, nil
		}
		q.After = next
	}
}

// mostBuried is how many grants end in one transaction.
const mostBuried = 100

// buryAll ends grants, a portion at a time.
func (s *Store) buryAll(ctx context.Context, grants []Grant, why AuditEntry) error {
	why.Action = AuditGrantRevoked
	for some := range slices.Chunk(grants, mostBuried) {
		_, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
			var each []clientv3.Op
			for _, g := range some {
				why.User = g.UserID
				bury, err := s.bury(ctx, g.ClientID, g.ID, why)
				if err != nil {
					return err
				}
				each = append(each, bury...)
			}
			t.then.do(bundled(each)...)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
