package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What others than operators cause is bounded in number, and what is never used expires:
//
//   - Clients that registered themselves: [MaxRegistrations]. One that was never used, and not changed for
//     [UnusedRegistration], is removed; when there is little room left, after a day.
//   - Entries of the audit log about what users, clients and strangers did: the last [MaxActivity].
//   - Device codes: package server hands out so many in their lifetime (see its device.go); they have leases.
//   - Guesses of passwords: a counter for each user who exists and each browser that a user signed in with, and window
//     of time, with leases; what concerns names that nobody has is not stored.
//   - Sessions: the last [MaxSessions] of a user, with leases.
//   - Consents: one for each user and client, the last [MaxConsents] of a user.
//   - Users: those of the configuration, and one for each person whom a connector vouches for, with one record of when
//     they last signed in, and one to ask the connector again, which goes once all has ended that they began.
//   - Sign-ins in the history of a user: the last [MaxSignIns], and the last [MaxFailedSignIns] that failed, in one
//     record.
//   - What a user has to prove who they are: one record, with at most [MaxPasskeys].
//   - Grants, codes that were redeemed, assertions and challenges for passkeys that were used: they need a session, a
//     client's credentials or a passkey, and have leases.
const (
	MaxSessions        = 500
	MaxConsents        = 1000
	MaxRegistrations   = 10_000
	UnusedRegistration = 30 * 24 * time.Hour
	MaxActivity        = 100_000
)

// leastLately are the n notes below a prefix that were written least lately. How many notes there are is counted in the
// transaction that writes one, so a bound costs a read only where it is exceeded.
func (s *Store) leastLately(ctx context.Context, prefix string, n int64) ([]*mvccpb.KeyValue, error) {
	resp, err := s.kv.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend), clientv3.WithLimit(n))
	if err != nil {
		return nil, err
	}
	return resp.Kvs, nil
}

// ErrTooMany means that there are as many records of a kind as there may be.
var ErrTooMany = errors.New("there are too many")

// scarce is how many registrations there may be before those that were never used go sooner, scarceUnused how much
// sooner.
const (
	scarce       = MaxRegistrations * 9 / 10
	scarceUnused = 24 * time.Hour
	// mostSwept are the registrations that one sweep looks at.
	mostSwept = 200
)

// registered are the clients that registered themselves, the one that has not changed for longest first.
func (s *Store) registered() []*Client {
	list := slices.DeleteFunc(s.mem.all(), func(c *Client) bool { return c.App != "" || len(c.RegistrationToken) == 0 })
	slices.SortFunc(list, func(a, b *Client) int {
		return cmp.Or(a.UpdatedAt.Compare(b.UpdatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Sweep removes what is beyond the bounds and what was never used, and adds notes that an older version has not put.
// Any number of replicas may call it at any time.
func (s *Store) Sweep(ctx context.Context) error {
	return errors.Join(s.sweepRegistrations(ctx), s.sweepActivity(ctx, MaxActivity), s.addNotes(ctx))
}

func (s *Store) sweepRegistrations(ctx context.Context) error {
	list := s.registered()
	unused := UnusedRegistration
	if len(list) > scarce {
		unused = scarceUnused
	}
	now, looked := s.now(), 0
	for _, c := range list {
		if now.Sub(c.UpdatedAt) < unused || looked == mostSwept {
			break
		}
		if now.Before(s.swept[c.ID]) {
			continue // it was in use when it was looked at
		}
		looked++
		removed, err := s.removeUnused(ctx, c)
		if err != nil {
			return fmt.Errorf("remove unused registrations: %w", err)
		}
		if !removed {
			if s.swept == nil || len(s.swept) > MaxRegistrations {
				s.swept = make(map[string]time.Time)
			}
			s.swept[c.ID] = now.Add(24 * time.Hour)
		}
	}
	return nil
}

// removeUnused removes a client from which nothing ever came: no grant is there, nor the remains of one, no consent,
// and no use of its secret.
func (s *Store) removeUnused(ctx context.Context, c *Client) (bool, error) {
	t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		t.onlyIf(atRevision(clientKey(c.ID), c.Revision))
		for _, of := range []string{"grants", "chains", "consents", "secretuse"} {
			t.onlyIf(clientv3.Compare(clientv3.Version(under(of, c.ID)), "=", 0).WithPrefix())
		}
		t.then.do(s.removeClient(c.ID, c, nil)...)
		t.then.do(s.auditOps(ctx, []AuditEntry{
			{Actor: ActorServer, Action: AuditUnregistered, Reason: "it was never used", Detail: c.ID},
		})...)
		return nil
	})
	if err != nil {
		return false, err
	}
	if t.held {
		s.Forget(c.ID)
		s.clear(ctx, c.ID)
	}
	return t.held, nil
}

// sweepActivity drops the oldest entries of the audit log about what others than operators did, beyond most.
func (s *Store) sweepActivity(ctx context.Context, most int64) error {
	const atOnce = 5000
	place := under("activity")
	for {
		resp, err := s.kv.Get(ctx, place, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return fmt.Errorf("count audit entries: %w", err)
		}
		over := resp.Count - most
		if over <= 0 {
			return nil
		}
		resp, err = s.kv.Get(ctx, place, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
			clientv3.WithLimit(min(over, atOnce)))
		if err != nil {
			return fmt.Errorf("read audit entries: %w", err)
		}
		if len(resp.Kvs) == 0 {
			return nil
		}
		last := string(resp.Kvs[len(resp.Kvs)-1].Key)
		if _, err := s.kv.Delete(ctx, place, clientv3.WithRange(last+"\x00")); err != nil {
			return fmt.Errorf("drop audit entries: %w", err)
		}
	}
}
