package storagetest

import (
	"context"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Counts is how many requests etcd got.
type Counts struct {
	// Proposals are the requests that go through raft: puts, deletes, lease grants and transactions that may write.
	Proposals int64
	// Reads are the requests that only read.
	Reads int64
}

type counts struct {
	proposals, reads atomic.Int64
	bytes, deleted   atomic.Int64 // see Weight
}

// Weight is how much requests carried.
type Weight struct {
	// Bytes of the keys and values that etcd sent.
	Bytes int64
	// Deleted is the most keys that one request deleted.
	Deleted int64
}

// Weigh runs do and returns how much its requests carried. Nothing else may use this etcd in the meantime.
func (e *Etcd) Weigh(do func()) Weight {
	e.counts.bytes.Store(0)
	e.counts.deleted.Store(0)
	do()
	return Weight{e.counts.bytes.Load(), e.counts.deleted.Load()}
}

// weigh notes a reply.
func (e *Etcd) weigh(reply clientv3.OpResponse) {
	var deleted int64
	var in func(reply clientv3.OpResponse)
	in = func(reply clientv3.OpResponse) {
		if got := reply.Get(); got != nil {
			for _, kv := range got.Kvs {
				e.counts.bytes.Add(int64(len(kv.Key) + len(kv.Value)))
			}
		}
		if del := reply.Del(); del != nil {
			deleted += del.Deleted
		}
		if txn := reply.Txn(); txn != nil {
			for _, r := range txn.Responses {
				switch {
				case r.GetResponseRange() != nil:
					in((*clientv3.GetResponse)(r.GetResponseRange()).OpResponse())
				case r.GetResponseDeleteRange() != nil:
					in((*clientv3.DeleteResponse)(r.GetResponseDeleteRange()).OpResponse())
				case r.GetResponseTxn() != nil:
					in((*clientv3.TxnResponse)(r.GetResponseTxn()).OpResponse())
				}
			}
		}
	}
	in(reply)
	for most := e.counts.deleted.Load(); deleted > most && !e.counts.deleted.CompareAndSwap(most, deleted); {
		most = e.counts.deleted.Load()
	}
}

// Count runs do and returns how many requests it made. Nothing else may use this etcd in the meantime.
func (e *Etcd) Count(do func()) Counts {
	proposals, reads := e.counts.proposals.Load(), e.counts.reads.Load()
	do()
	return Counts{e.counts.proposals.Load() - proposals, e.counts.reads.Load() - reads}
}

// Fault decides about each request before it is sent (sent false) and after it was answered (sent true): an error from
// it is what the caller gets. An error after sending is the ambiguous kind: etcd has carried out the request.
type Fault func(write, sent bool) error

// Inject sets the fault that every following request meets; nil heals.
func (e *Etcd) Inject(f Fault) {
	if f == nil {
		e.fault.Store(nil)
		return
	}
	e.fault.Store(&f)
}

func (e *Etcd) meet(write, sent bool) error {
	if !sent {
		if write {
			e.counts.proposals.Add(1)
		} else {
			e.counts.reads.Add(1)
		}
	}
	if f := e.fault.Load(); f != nil {
		return (*f)(write, sent)
	}
	return nil
}

// around runs one request between the two decisions of the fault.
func around[R any](e *Etcd, write bool, request func() (R, error)) (R, error) {
	var none R
	if err := e.meet(write, false); err != nil {
		return none, err
	}
	r, err := request()
	if err != nil {
		return r, err
	}
	switch reply := any(r).(type) {
	case interface{ OpResponse() clientv3.OpResponse }:
		e.weigh(reply.OpResponse())
	case clientv3.OpResponse:
		e.weigh(reply)
	}
	if err := e.meet(write, true); err != nil {
		return none, err
	}
	return r, nil
}

type kv struct {
	clientv3.KV
	etcd *Etcd
}

func (k *kv) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	return around(k.etcd, true, func() (*clientv3.PutResponse, error) { return k.KV.Put(ctx, key, val, opts...) })
}

func (k *kv) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return around(k.etcd, false, func() (*clientv3.GetResponse, error) { return k.KV.Get(ctx, key, opts...) })
}

func (k *kv) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	return around(k.etcd, true, func() (*clientv3.DeleteResponse, error) { return k.KV.Delete(ctx, key, opts...) })
}

// Do is how the namespaced client sends everything but transactions.
func (k *kv) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	return around(k.etcd, writes(op), func() (clientv3.OpResponse, error) { return k.KV.Do(ctx, op) })
}

func (k *kv) Txn(ctx context.Context) clientv3.Txn { return &txn{Txn: k.KV.Txn(ctx), etcd: k.etcd} }

type txn struct {
	clientv3.Txn
	etcd  *Etcd
	write bool
}

func (t *txn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.Txn = t.Txn.If(cs...)
	return t
}

func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.note(ops)
	t.Txn = t.Txn.Then(ops...)
	return t
}

func (t *txn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.note(ops)
	t.Txn = t.Txn.Else(ops...)
	return t
}

func (t *txn) note(ops []clientv3.Op) {
	for _, op := range ops {
		t.write = t.write || writes(op)
	}
}

func (t *txn) Commit() (*clientv3.TxnResponse, error) {
	return around(t.etcd, t.write, t.Txn.Commit)
}

// writes says whether an operation goes through raft, as etcd decides that: a transaction inside another does in any
// case.
func writes(op clientv3.Op) bool { return op.IsPut() || op.IsDelete() || op.IsTxn() }

type lease struct {
	clientv3.Lease
	etcd *Etcd
}

func (l *lease) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	return around(l.etcd, true, func() (*clientv3.LeaseGrantResponse, error) { return l.Lease.Grant(ctx, ttl) })
}
