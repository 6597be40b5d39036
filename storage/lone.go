package storage

import (
	"context"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// loneKV is the KV of an etcd of one member, in this process. It reads what that member has applied, without asking
// raft whether there is more (a serializable read): a write is confirmed only once the only member has applied it, so a
// read that comes after sees it, as a linearizable one does. Asking costs more than the read.
type loneKV struct{ clientv3.KV }

func (l loneKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return l.KV.Get(ctx, key, append(slices.Clone(opts), clientv3.WithSerializable())...)
}

func (l loneKV) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	return l.KV.Do(ctx, applied(op))
}

func (l loneKV) Txn(ctx context.Context) clientv3.Txn { return loneTxn{l.KV.Txn(ctx)} }

// loneTxn is a transaction of a loneKV. One that only reads does not go through raft then.
type loneTxn struct{ clientv3.Txn }

func (t loneTxn) If(cmps ...clientv3.Cmp) clientv3.Txn { return loneTxn{t.Txn.If(cmps...)} }

func (t loneTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	return loneTxn{t.Txn.Then(allApplied(ops)...)}
}

func (t loneTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	return loneTxn{t.Txn.Else(allApplied(ops)...)}
}

func allApplied(ops []clientv3.Op) []clientv3.Op {
	out := slices.Clone(ops)
	for i := range out {
		out[i] = applied(out[i])
	}
	return out
}

// applied is an operation that reads, if it does, what the member has applied.
func applied(op clientv3.Op) clientv3.Op {
	if op.IsGet() {
		clientv3.WithSerializable()(&op)
	}
	return op
}
