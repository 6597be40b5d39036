package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Once is a name that can be used once across all replicas: the jti of an assertion, a pushed request, a token that was
// revoked. A verb that takes one compares in its transaction that it has not been used, and marks it used together with
// what else it writes.
type Once struct {
	// ID names what is used and whose it is, so that one client cannot use up another's. Only its hash is stored.
	ID string
	// Until is when what it names expires; it must not be accepted after that. The mark is kept a little longer.
	Until time.Time
}

// mark is the value of a name that was used.
type mark struct {
	Until int64  `json:"until"`        // Unix milliseconds
	By    string `json:"by,omitempty"` // hash of who used it, see SpendBy
}

func spentKey(id string) string {
	hash := sha256.Sum256([]byte(id))
	return key("spent", lowerBase32.EncodeToString(hash[:]))
}

// unspent compares that none of the names has been used.
func unspent(once []Once) []clientv3.Cmp {
	var cmps []clientv3.Cmp
	for _, o := range once {
		cmps = append(cmps, absent(spentKey(o.ID)))
	}
	return cmps
}

// spend are the operations that mark the names used.
func (s *Store) spend(ctx context.Context, once []Once) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	for _, o := range once {
		lease, err := s.leases.until(ctx, o.Until)
		if err != nil {
			return nil, err
		}
		ops = append(ops, clientv3.OpPut(spentKey(o.ID), encode(mark{Until: o.Until.UnixMilli()}), clientv3.WithLease(lease)))
	}
	return ops, nil
}

// ifUnspent adds a transaction that happens if once is unused, which is what held of its answer says. Without any it is
// added as it is: every level costs, also in a branch that is seldom taken, because all of a transaction goes through
// raft.
func (b *branch) ifUnspent(once []Once, t *transaction) *transaction {
	unused := &transaction{ifs: unspent(once), held: true}
	if len(once) == 0 {
		b.inside(t)
		return unused
	}
	unused.then.inside(t)
	b.inside(unused)
	return unused
}

// Spend uses a name: one raft proposal. It returns [ErrSpent] if the name was used before; then the entries for the
// audit log are not written either.
func (s *Store) Spend(ctx context.Context, once Once, why ...AuditEntry) error {
	t, err := s.commit(ctx, func(t *transaction) error {
		spend, err := s.spend(ctx, []Once{once})
		t.onlyIf(unspent([]Once{once})...)
		t.then.do(spend...)
		t.then.do(s.auditOps(ctx, why)...)
		return err
	})
	if err != nil {
		return fmt.Errorf("use once: %w", err)
	}
	if !t.held {
		return ErrSpent
	}
	return nil
}

// SpendBy uses a name on behalf of by, who may use it again, because an answer was lost or a form was sent twice. All
// others get [ErrSpent] from then on. It costs one raft proposal.
func (s *Store) SpendBy(ctx context.Context, once Once, by string) error {
	hash := sha256.Sum256([]byte(by))
	mine := mark{Until: once.Until.UnixMilli(), By: lowerBase32.EncodeToString(hash[:])}
	k := spentKey(once.ID)
	var spent *found
	t, err := s.commit(ctx, func(t *transaction) error {
		lease, err := s.leases.until(ctx, once.Until)
		t.onlyIf(absent(k))
		t.then.do(clientv3.OpPut(k, encode(mine), clientv3.WithLease(lease)))
		spent = t.otherwise.get(k)
		return err
	})
	if err != nil {
		return fmt.Errorf("use once: %w", err)
	}
	if t.held {
		return nil
	}
	// What was compared and what was read is one state, so it is there
	held, err := decode[mark]("mark", spent.one().Value)
	if err != nil {
		return fmt.Errorf("use once: %w", err)
	}
	if held.By != mine.By {
		return ErrSpent
	}
	return nil
}

// ClientSince asks etcd, because memory may lag behind, whether a client is still at a revision. If it is not, the
// error is a [StaleError] with the client as it is now, or without one if it is gone or disabled. It costs one read, of
// a revision alone unless the client has changed.
func (s *Store) ClientSince(ctx context.Context, clientID string, revision int64) error {
	opts := []clientv3.OpOption{clientv3.WithKeysOnly()}
	if s.lone {
		opts = append(opts, clientv3.WithSerializable()) // see Options.OneMember
	}
	resp, err := s.kv.Get(ctx, clientKey(clientID), opts...)
	if err != nil {
		return fmt.Errorf("read client: %w", err)
	}
	if len(resp.Kvs) == 0 && revision == 0 || len(resp.Kvs) == 1 && resp.Kvs[0].ModRevision == revision {
		return nil
	}
	c, err := s.CurrentClient(ctx, clientID, "")
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return &StaleError{Client: c}
}

// CurrentClient reads a client from etcd, because memory may lag behind: one read. It returns [ErrNotFound] for a
// disabled or unknown one, and [ErrSpent] if onceID is the ID of a [Once] that has been used.
func (s *Store) CurrentClient(ctx context.Context, clientID, onceID string) (*Client, error) {
	var t transaction
	client, spent := t.then.get(clientKey(clientID)), getSpent(&t, onceID)
	if err := s.run(ctx, &t); err != nil {
		return nil, fmt.Errorf("read client: %w", err)
	}
	c, err := s.current(client.kvs)
	if err != nil {
		return nil, err
	}
	if spent.count > 0 {
		return nil, ErrSpent
	}
	return c, nil
}

// getSpent asks whether a name has been used; "" asks nothing and counts as unused.
func getSpent(t *transaction, onceID string) *found {
	if onceID == "" {
		return new(found)
	}
	return t.then.get(spentKey(onceID), clientv3.WithCountOnly())
}

// current returns the client that was read, and updates memory. It returns [ErrNotFound] for a disabled or unknown one.
func (s *Store) current(found []*mvccpb.KeyValue) (*Client, error) {
	if len(found) == 0 {
		return nil, ErrNotFound
	}
	c, err := decodeClient(found[0])
	if err != nil {
		return nil, err
	}
	s.mem.learn(c)
	if c.Disabled {
		return nil, ErrNotFound
	}
	return c, nil
}
