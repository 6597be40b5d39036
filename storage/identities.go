package storage

import (
	"context"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
)

// A workload ([oauth.WorkloadIdentity]) is one client: which one, its tokens do not say. So it is a key, as a resource
// identifier is, whose value names the client, and the transaction that stores a client compares and puts the keys of
// the workloads that are new in it, and removes those that it gives up.
//
// As with resource identifiers, the client's record is the truth, and the key counts only as long as that confirms it.

func identityKey(id oauth.WorkloadIdentity) string { return key("identities", id.Issuer, id.Subject) }

// claimIdentities adds to the transaction that stores c, and compares its revision, the operations that take the
// workloads that are new in c, and free those that it gives up. One that is another client, which c does not replace,
// is a [TakenError]. Of several clients that claim one at the same time, one succeeds; the others get [ErrConflict]
// from the transaction and, when they claim again, learn from here which client it is.
func (s *Store) claimIdentities(ctx context.Context, t *transaction, c *Client, replaced string) error {
	held, err := s.held(ctx, c)
	if err != nil {
		return err
	}
	t.then.do(freeIdentities(held, c)...)
	for _, id := range c.Identities {
		if held != nil && held.IdentityOf(id.Issuer, id.Subject) != nil {
			continue // its record is compared
		}
		if err := s.claimIdentity(ctx, t, c, id, replaced); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) claimIdentity(ctx context.Context, t *transaction, c *Client, id oauth.WorkloadIdentity,
	replaced string) error {
	k := identityKey(id)
	resp, err := s.kv.Get(ctx, k)
	if err != nil {
		return fmt.Errorf("read the client of a workload: %w", err)
	}
	var revision int64
	others := s.mem.workload(id)
	if len(resp.Kvs) > 0 {
		owner, err := decode[resourceOwner]("client of a workload", resp.Kvs[0].Value)
		if err != nil {
			return err
		}
		revision = resp.Kvs[0].ModRevision
		others = append(others, owner.ClientID)
	}
	for _, other := range others {
		if other == c.ID || other == replaced {
			continue
		}
		stored, err := s.storedClient(ctx, other)
		if err != nil {
			return err
		}
		if stored != nil && stored.IdentityOf(id.Issuer, id.Subject) != nil {
			return &TakenError{What: "workload", Identifier: id.Name(), Owner: stored.Owner()}
		}
		var seen int64
		if stored != nil {
			seen = stored.Revision
		}
		t.onlyIf(atRevision(clientKey(other), seen)) // it is not that client, whatever the key or memory says
	}
	t.onlyIf(atRevision(k, revision))
	t.then.do(clientv3.OpPut(k, ownerValue(c)))
	return nil
}

// adoptIdentities gives every workload that has no key, or the key of a client that it is not, to the client whose
// record lists it: the records may have come from elsewhere without it. Any number of replicas may do so at a time.
func (s *Store) adoptIdentities(ctx context.Context) error {
	clients := slices.DeleteFunc(s.mem.all(), func(c *Client) bool { return len(c.Identities) == 0 })
	if len(clients) == 0 {
		return nil
	}
	resp, err := s.kv.Get(ctx, under("identities"), clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("list workloads: %w", err)
	}
	owners, revisions := make(map[string]string), make(map[string]int64)
	for _, kv := range resp.Kvs {
		owner, err := decode[resourceOwner]("client of a workload", kv.Value)
		if err != nil {
			return err
		}
		at := string(kv.Key)
		owners[at], revisions[at] = owner.ClientID, kv.ModRevision
	}
	for _, c := range clients {
		for _, id := range c.Identities {
			k := identityKey(id)
			if owner := s.mem.client(owners[k]); owner != nil && owner.IdentityOf(id.Issuer, id.Subject) != nil {
				continue
			}
			var t transaction
			t.onlyIf(atRevision(k, revisions[k]), atRevision(clientKey(c.ID), c.Revision))
			t.then.do(clientv3.OpPut(k, ownerValue(c)))
			if err := s.run(ctx, &t); err != nil {
				s.log.Warn("a workload could not be indexed; the next start tries again",
					"workload", id.Name(), "owner", c.Owner(), "error", err)
			}
		}
	}
	return nil
}

// freeIdentities are the operations that free the workloads of a client except those of next. Each does nothing if the
// key is not the client's. A nil client has none.
func freeIdentities(c, next *Client) []clientv3.Op {
	if c == nil {
		return nil
	}
	var ops []clientv3.Op
	for _, id := range c.Identities {
		if next != nil && next.IdentityOf(id.Issuer, id.Subject) != nil {
			continue
		}
		k := identityKey(id)
		mine := clientv3.Compare(clientv3.Value(k), "=", ownerValue(c))
		ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{mine}, []clientv3.Op{clientv3.OpDelete(k)}, nil))
	}
	return ops
}

// identities is what memory holds of workloads: by the name of each, the clients that it is. There is one, unless
// memory lags behind.
type identities map[string]map[string]bool

// replace replaces the record before of a client by now; nil means no record. A disabled client is no workload.
func (m identities) replace(before, now *Client) {
	if before != nil {
		for _, id := range before.Identities {
			if delete(m[id.Name()], before.ID); len(m[id.Name()]) == 0 {
				delete(m, id.Name())
			}
		}
	}
	if !now.Active() {
		return
	}
	for _, id := range now.Identities {
		if m[id.Name()] == nil {
			m[id.Name()] = make(map[string]bool)
		}
		m[id.Name()][now.ID] = true
	}
}

// workload are the clients that a workload is, as far as memory knows.
func (m *memory) workload(id oauth.WorkloadIdentity) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Sorted(maps.Keys(m.identities[id.Name()]))
}

// ClientOf is the client that a workload is: by memory, or by what etcd has where memory knows none or several. That
// takes up to two reads, which are limited as look-ups of clients are. It returns [ErrNotFound] if it is none.
func (s *Store) ClientOf(ctx context.Context, issuer, subject string) (*Client, error) {
	id := oauth.WorkloadIdentity{Issuer: issuer, Subject: subject}
	if known := s.mem.workload(id); len(known) == 1 {
		if c := s.mem.client(known[0]); c.Active() {
			return c, nil
		}
	}
	if len(issuer) > oauth.MaxIdentityPart || len(subject) > oauth.MaxIdentityPart {
		return nil, ErrNotFound
	}
	if !s.unknown.Allow() {
		return nil, ErrBusy
	}
	resp, err := s.kv.Get(ctx, identityKey(id))
	if err != nil {
		return nil, fmt.Errorf("read the client of a workload: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return nil, ErrNotFound
	}
	owner, err := decode[resourceOwner]("client of a workload", resp.Kvs[0].Value)
	if err != nil {
		return nil, err
	}
	c, err := s.storedClient(ctx, owner.ClientID)
	if err != nil {
		return nil, err
	}
	if !c.Active() || c.IdentityOf(issuer, subject) == nil {
		return nil, ErrNotFound
	}
	s.mem.learn(c)
	return c, nil
}
