package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	ctx, req := request(ctx, s.measures.writes, "etcd txn")
	resp, err := s.kv.Txn(ctx).If(t.ifs...).Then(t.then.ops...).Else(t.otherwise.ops...).Commit()
	req.answered(err)
	if err != nil {
		return s.refused(err)
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
func (s *Store) replace(ctx context.Context, key string, revision int64, by clientv3.Op,
	audit []AuditEntry) (int64, error) {
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
			return nil, s.refused(err)
		}
		err := s.run(ctx, t)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) && attempt == 0 {
			s.leases.forget()
			continue
		}
		return t, err
	}
}

// refused is an error of etcd as this package returns it.
func (s *Store) refused(err error) error {
	if errors.Is(err, rpctypes.ErrNoSpace) {
		s.keeper.full()
		return fmt.Errorf("%w (%w)", ErrFull, err)
	}
	return err
}

// commitEnd is commit for what ends something. An etcd that is full lets nothing through that could put, not even on a
// branch that is not taken, and no lease; but it does delete. So the transaction is built once more without leases, and
// sent without what it puts, and still compares all that it compares: what grants access is gone then, and what would
// have told of it (tombstones, logouts, the audit log) is not written. The entries of the audit log are logged instead.
//
// That suffices because nothing is alive by a record alone that cannot be deleted: a grant needs its chain, and its
// body, which stays without a tombstone, still keeps its code from being redeemed again.
func (s *Store) commitEnd(ctx context.Context,
	build func(ctx context.Context, t *transaction) error) (*transaction, error) {
	t, err := s.commit(ctx, func(t *transaction) error { return build(ctx, t) })
	if !errors.Is(err, ErrFull) {
		return t, err
	}
	t = new(transaction)
	if err := build(context.WithValue(ctx, leaseless{}, true), t); err != nil {
		return nil, err
	}
	var unsaid []AuditEntry
	t.then.ops = withoutPuts(t.then.ops, &unsaid)
	t.otherwise.ops = withoutPuts(t.otherwise.ops, new([]AuditEntry))
	if err := s.run(ctx, t); err != nil {
		return nil, err
	}
	if t.held {
		for _, e := range unsaid {
			s.log.WarnContext(ctx, "storage is full, so this entry is missing from the audit log", "actor", e.Actor,
				"action", e.Action, "app", e.App, "target", e.Target, "reason", e.Reason, "detail", e.Detail)
		}
	}
	return t, nil
}

// leaseless is in the context of a transaction that is built for an etcd which is full.
type leaseless struct{}

// withoutPuts are operations without those that put. Their number stays, so that the answers to the others are where
// they were. Entries for the audit log among them are collected. A put that ends all of a client becomes the deletion
// of its grants, which takes longer, for all others as well.
func withoutPuts(ops []clientv3.Op, audit *[]AuditEntry) []clientv3.Op {
	out := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		switch {
		case op.IsPut():
			k, instead := string(op.KeyBytes()), []clientv3.Op(nil)
			if slices.ContainsFunc(auditPlaces(), func(prefix string) bool { return strings.HasPrefix(k, prefix) }) {
				if e, err := decode[AuditEntry]("audit entry", op.ValueBytes()); err == nil {
					*audit = append(*audit, *e)
				}
			}
			if client, all := strings.CutPrefix(k, under("endings")); all { // see endAll
				for _, kind := range []string{"chains", "grants", "consents"} {
					instead = append(instead, clientv3.OpDelete(under(kind)+client+"/", clientv3.WithPrefix()))
				}
			}
			op = clientv3.OpTxn(nil, instead, nil)
		case op.IsTxn():
			ifs, then, otherwise := op.Txn()
			op = clientv3.OpTxn(ifs, withoutPuts(then, audit), withoutPuts(otherwise, audit))
		}
		out[i] = op
	}
	return out
}

// atRevision compares that the record under a key is still at a revision; 0 means that there is none.
func atRevision(key string, revision int64) clientv3.Cmp {
	return compare(key, &etcdserverpb.Compare{Target: etcdserverpb.Compare_MOD,
		TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: revision}})
}

// atVersion compares that the record under a key was written that many times.
func atVersion(key string, version int64) clientv3.Cmp {
	return compare(key, &etcdserverpb.Compare{Target: etcdserverpb.Compare_VERSION,
		TargetUnion: &etcdserverpb.Compare_Version{Version: version}})
}

// compare is clientv3.Compare for equality, which is in every request for a token: without a copy of what it makes.
func compare(key string, to *etcdserverpb.Compare) clientv3.Cmp {
	var cmp clientv3.Cmp
	c := cmp.GetCompare()
	c.Key, c.Result, c.Target, c.TargetUnion = []byte(key), etcdserverpb.Compare_EQUAL, to.Target, to.TargetUnion
	return cmp
}

// absent compares that there is no record under a key.
func absent(key string) clientv3.Cmp { return atVersion(key, 0) }

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
