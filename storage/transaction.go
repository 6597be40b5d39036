package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// transaction is an etcd transaction that is put together piece by piece. What it reads has a name: [branch.get]
// returns the place where the answer will be, so that no operations have to be counted to find it. [Store.run] and
// [Store.commit] fill in the answers.
type transaction struct {
	ifs       []clientv3.Cmp
	then      branch // done when all of ifs hold
	otherwise branch

	held     bool  // all of ifs held
	revision int64 // of the store, after the transaction
}

// branch is one side of a transaction.
type branch struct {
	ops     []clientv3.Op
	answers []answer
}

// answer says where the answer to the operation at an index goes: one of the two is set.
type answer struct {
	at    int
	found *found
	inner *transaction
}

// found is the result of a read in a transaction.
type found struct {
	kvs   []*mvccpb.KeyValue
	count int64
}

// one is the record of a read that names a single key; nil if there is none.
func (f *found) one() *mvccpb.KeyValue {
	if len(f.kvs) == 0 {
		return nil
	}
	return f.kvs[0]
}

func (t *transaction) onlyIf(cmps ...clientv3.Cmp) {
	if t.ifs == nil {
		t.ifs = make([]clientv3.Cmp, 0, max(usually, len(cmps)))
	}
	t.ifs = append(t.ifs, cmps...)
}

// usually is how much a transaction compares, or does in a branch, more often than not: room for that is made at once.
const usually = 4

// do adds operations without a result.
func (b *branch) do(ops ...clientv3.Op) {
	if b.ops == nil && len(ops) > 0 {
		b.ops = make([]clientv3.Op, 0, max(usually, len(ops)))
	}
	b.ops = append(b.ops, ops...)
}

// get adds a read.
func (b *branch) get(key string, opts ...clientv3.OpOption) *found {
	f := new(found)
	b.answers = append(b.answers, answer{at: len(b.ops), found: f})
	b.ops = append(b.ops, clientv3.OpGet(key, opts...))
	return f
}

// inside adds a transaction, which must be complete.
func (b *branch) inside(t *transaction) {
	b.answers = append(b.answers, answer{at: len(b.ops), inner: t})
	b.ops = append(b.ops, clientv3.OpTxn(t.ifs, t.then.ops, t.otherwise.ops))
}

func (t *transaction) answered(held bool, responses []*etcdserverpb.ResponseOp) {
	t.held = held
	side := &t.otherwise
	if held {
		side = &t.then
	}
	for _, a := range side.answers {
		if a.inner != nil {
			inner := responses[a.at].GetResponseTxn()
			a.inner.answered(inner.Succeeded, inner.Responses)
			continue
		}
		got := responses[a.at].GetResponseRange()
		a.found.kvs, a.found.count = got.Kvs, got.Count
	}
}

// run sends a transaction and fills in its answers.
func (s *Store) run(ctx context.Context, t *transaction) error {
	resp, err := s.kv.Txn(ctx).If(t.ifs...).Then(t.then.ops...).Else(t.otherwise.ops...).Commit()
	if err != nil {
		return err
	}
	t.revision = resp.Header.Revision
	t.answered(resp.Succeeded, resp.Responses)
	return nil
}

// change runs a transaction that writes nothing if a record has changed; then the error is [ErrConflict].
func (s *Store) change(ctx context.Context, t *transaction) error {
	if err := s.run(ctx, t); err != nil {
		return err
	}
	if !t.held {
		return ErrConflict
	}
	return nil
}

// replace does one operation on a record that is still at a revision, and returns its new revision. Otherwise the error
// is [ErrConflict].
func (s *Store) replace(ctx context.Context, key string, revision int64, by clientv3.Op, audit []AuditEntry) (int64, error) {
	var t transaction
	t.onlyIf(atRevision(key, revision))
	t.then.do(by)
	t.then.do(s.auditOps(ctx, audit)...)
	err := s.change(ctx, &t)
	return t.revision, err
}

// commit runs a transaction that uses leases. If etcd no longer knows a lease, the transaction is built once more, with
// fresh leases: one that names an unknown lease has changed nothing.
func (s *Store) commit(ctx context.Context, build func(t *transaction) error) (*transaction, error) {
	for attempt := 0; ; attempt++ {
		t := new(transaction)
		if err := build(t); err != nil {
			return nil, err
		}
		err := s.run(ctx, t)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) && attempt == 0 {
			s.leases.forget()
			continue
		}
		return t, err
	}
}

// atRevision compares that the record under a key is still at a revision; 0 means that there is none.
func atRevision(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// absent compares that there is no record under a key.
func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.Version(key), "=", 0) }

// present compares that there is a record under a key.
func present(key string) clientv3.Cmp { return clientv3.Compare(clientv3.Version(key), ">", 0) }

// Pause waits before something that failed is tried again, or ends early with ctx.
func Pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Again repeats a decision while the records on which it was made turn out to have changed when it is written, at most
// times times in all; after that the error is [ErrConflict]. decide reads the records, or uses those that came back
// with the last refusal; again means that they were stale and that nothing was written. Its error is final.
func Again(times int, decide func() (again bool, err error)) error {
	for range times {
		if again, err := decide(); err != nil || !again {
			return err
		}
	}
	return fmt.Errorf("gave up after %d attempts: %w", times, ErrConflict)
}
