package storage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Once is a name that can be used one time, at whichever replica: the jti of an assertion, a pushed request, a token that was
// revoked. A verb that takes one compares in its transaction that nobody has used it, and marks it used together with what
// else it writes.
type Once struct {
	// ID is what is used, and whose it is, so that nobody uses up another's. Only its hash is stored.
	ID string
	// Until is when what it names ends by itself; nobody may take it after that. The mark is kept a little longer.
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
		cmps = append(cmps, clientv3.Compare(clientv3.Version(spentKey(o.ID)), "=", 0))
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

// Spend uses a name: one raft proposal. [ErrSpent] when that was done before; then the entries for the audit log are not
// written either.
func (s *Store) Spend(ctx context.Context, once Once, why ...AuditEntry) error {
	resp, err := s.commit(ctx, func() (clientv3.Txn, error) {
		ops, err := s.spend(ctx, []Once{once})
		if err != nil {
			return nil, err
		}
		return s.kv.Txn(ctx).If(unspent([]Once{once})...).Then(append(ops, s.auditOps(ctx, why)...)...), nil
	})
	if err != nil {
		return fmt.Errorf("use once: %w", err)
	}
	if !resp.Succeeded {
		return ErrSpent
	}
	return nil
}

// SpendBy uses a name for somebody, who may do so again: whose answer was lost, or who sent a form twice. Anybody else gets
// [ErrSpent] after that. One raft proposal.
func (s *Store) SpendBy(ctx context.Context, once Once, by string) error {
	hash := sha256.Sum256([]byte(by))
	mine := mark{Until: once.Until.UnixMilli(), By: lowerBase32.EncodeToString(hash[:])}
	resp, err := s.commit(ctx, func() (clientv3.Txn, error) {
		lease, err := s.leases.until(ctx, once.Until)
		if err != nil {
			return nil, err
		}
		return s.kv.Txn(ctx).If(unspent([]Once{once})...).
			Then(clientv3.OpPut(spentKey(once.ID), encode(mine), clientv3.WithLease(lease))).
			Else(clientv3.OpGet(spentKey(once.ID))), nil
	})
	if err != nil {
		return fmt.Errorf("use once: %w", err)
	}
	if resp.Succeeded {
		return nil
	}
	found := resp.Responses[0].GetResponseRange().Kvs
	if len(found) == 0 {
		return ErrSpent // it cannot come to this: what is compared and what is read is one state
	}
	held, err := decode[mark]("mark", found[0].Value)
	if err != nil {
		return fmt.Errorf("use once: %w", err)
	}
	if held.By != mine.By {
		return ErrSpent
	}
	return nil
}

// CurrentClient reads a client as etcd has it, where memory may lag behind: one read. A disabled or unknown one is
// [ErrNotFound]; with the ID of a [Once] that has been used, the error is [ErrSpent].
func (s *Store) CurrentClient(ctx context.Context, clientID, onceID string) (*Client, error) {
	ops := []clientv3.Op{clientv3.OpGet(clientKey(clientID))}
	if onceID != "" {
		ops = append(ops, clientv3.OpGet(spentKey(onceID), clientv3.WithCountOnly()))
	}
	resp, err := s.kv.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, fmt.Errorf("read client: %w", err)
	}
	c, err := s.current(resp.Responses[0].GetResponseRange().Kvs)
	if err != nil {
		return nil, err
	}
	if onceID != "" && resp.Responses[1].GetResponseRange().Count > 0 {
		return nil, ErrSpent
	}
	return c, nil
}

// current is the client that was read, of which memory learns. A disabled or unknown one is [ErrNotFound].
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
