package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
)

// Records can move to another etcd ([Importing]), which counts revisions and versions anew. But some of etcd's numbers
// are held where no move gets at them, or are compared with such: a refresh token names the revision of its user and
// the generation of its chain, a code the revision at which it was allowed, and the term of a user is the revision at
// which it began. So a store on records that were moved goes on counting where their last one was:
//
//   - Revisions are etcd's plus a number that is more than every revision before ([shifted]). None comes twice, so what
//     was decided on records of the earlier etcd is decided anew, and no later record is taken for one of those.
//   - The generation of a chain is etcd's version of its key plus the base in its value ([link]). Tokens that are
//     issued after the move name base and move, so that a refresh is still one transaction which reads nothing; the
//     first one of a chain, with a token from before, takes two.
//
// The record of the move says so, [moved]. It stands from the first record of an import to the last as unfinished, and
// no store opens on that.

// moved is the record of a move.
type moved struct {
	// At stands where a time stood in the records of that place. So a version that knows no moves does not open the
	// database, on which it would count wrong: it says that it cannot read this, and quotes it.
	At string `json:"at"`
	// Unfinished: not all of the records are there yet. Nobody may use them.
	Unfinished bool `json:"unfinished,omitempty"`
	// Shift is what is added to etcd's revisions.
	Shift int64 `json:"shift"`
	// Exported is when the records were read, Imported when they were all there.
	Exported time.Time `json:"exported,omitzero"`
	Imported time.Time `json:"imported,omitzero"`
}

// movedKey is among the compromised keys because every version reads these first. No thumbprint is as short.
func movedKey() string { return key("compromised", movedName) }

const movedName = "moved"

// Words in [moved.At], which a version that knows no moves quotes.
const (
	unfinishedWords = "an import into this database is not finished; run warifu import again, or with --discard"
	movedWords      = "this database was imported; it needs a version of warifu that has the command import"
)

// ErrUnfinished means that an import into the database was begun and has not come to its end.
var ErrUnfinished = fmt.Errorf("%w: run it again, or warifu import --discard to remove what it has left", errHalf)

var errHalf = errors.New("an import into this database, or a restore, was not finished")

// readMoved is the record of a move with etcd's own revision of it; nil if there is none.
func readMoved(ctx context.Context, kv clientv3.KV) (*moved, int64, error) {
	resp, err := kv.Get(ctx, movedKey())
	if err != nil {
		return nil, 0, fmt.Errorf("read whether the records were moved: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return nil, 0, nil
	}
	m, err := decode[moved]("move", resp.Kvs[0].Value)
	if err != nil {
		return nil, 0, err
	}
	return m, resp.Kvs[0].ModRevision, nil
}

// PretendMoved has the stores that open on an empty prefix count as if records had moved there: for tests, which have
// to pass on such a database as well.
func PretendMoved(ctx context.Context, client *clientv3.Client, prefix string) error {
	kv := client.KV
	if prefix != "" {
		kv = namespace.NewKV(kv, prefix)
	}
	_, err := kv.Txn(ctx).If(nothing()).Then(
		clientv3.OpPut(movedKey(), encode(moved{At: movedWords, Shift: shiftRoom}))).Commit()
	return err
}

// openMoved has the store count on where the records that were moved here have stopped.
func (s *Store) openMoved(ctx context.Context, restoring bool) error {
	m, at, err := readMoved(ctx, s.kv)
	switch {
	case err != nil || m == nil:
		return err
	case m.Unfinished && !restoring:
		return ErrUnfinished
	}
	s.shift, s.moved = m.Shift, at+m.Shift
	s.kv = shifted{s.kv, m.Shift}
	return nil
}

// counted is what a token says of how its chain counts, if that is of this move.
func (ref GrantRef) counted(move int64) (base, known int64) {
	if move == 0 || ref.Move != move {
		return 0, 0
	}
	return ref.Base, ref.Move
}

// move is the one with which the chain came, in a store whose records have moved; 0 if it began later.
func (c chainState) move(of int64) int64 {
	if c.created > of {
		return 0
	}
	return of
}

// nothing compares that there are no records: no key is less than the first, and this end stands for that of all keys.
func nothing() clientv3.Cmp {
	return clientv3.Compare(clientv3.Version("\x00"), "=", 0).WithRange("\x00")
}

// atGeneration compares that the chain under a key is at the generation of a token. A token that does not say how its
// chain counts is good for one that began after the move: of one that came with it, version and generation differ.
func (s *Store) atGeneration(key string, ref GrantRef) []clientv3.Cmp {
	at := atVersion(key, ref.Generation-ref.Base)
	if ref.Move == s.moved {
		return []clientv3.Cmp{at}
	}
	return []clientv3.Cmp{at, clientv3.Compare(clientv3.CreateRevision(key), ">", s.moved)}
}

// shifted is a KV whose revisions are etcd's plus a number.
type shifted struct {
	clientv3.KV
	by int64
}

func (k shifted) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if rev := clientv3.OpGet(key, opts...).Rev(); rev > 0 {
		if rev <= k.by { // of the etcd before
			return nil, rpctypes.ErrCompacted
		}
		opts = append(slices.Clip(opts), clientv3.WithRev(rev-k.by))
	}
	resp, err := k.KV.Get(ctx, key, opts...)
	if err == nil {
		resp.Header.Revision += k.by
		k.records(resp.Kvs)
	}
	return resp, err
}

func (k shifted) Put(ctx context.Context, key, value string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	resp, err := k.KV.Put(ctx, key, value, opts...)
	if err == nil {
		resp.Header.Revision += k.by
	}
	return resp, err
}

func (k shifted) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	resp, err := k.KV.Delete(ctx, key, opts...)
	if err == nil {
		resp.Header.Revision += k.by
	}
	return resp, err
}

func (k shifted) Txn(ctx context.Context) clientv3.Txn { return &shiftedTxn{k.KV.Txn(ctx), k} }

func (k shifted) records(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		kv.ModRevision += k.by
		kv.CreateRevision += k.by
	}
}

// compares are comparisons with etcd's own revisions.
func (k shifted) compares(cmps []clientv3.Cmp) []clientv3.Cmp {
	out := make([]clientv3.Cmp, len(cmps))
	for i, cmp := range cmps {
		c := cmp.GetCompare()
		var rev int64
		switch union := c.TargetUnion.(type) {
		case *etcdserverpb.Compare_ModRevision:
			rev = union.ModRevision
		case *etcdserverpb.Compare_CreateRevision:
			rev = union.CreateRevision
		default:
			out[i] = cmp
			continue
		}
		out[i] = cmp.Clone()
		own := k.own(rev, c.Result)
		if to := out[i].GetCompare(); to.Target == etcdserverpb.Compare_MOD {
			to.TargetUnion = &etcdserverpb.Compare_ModRevision{ModRevision: own}
		} else {
			to.TargetUnion = &etcdserverpb.Compare_CreateRevision{CreateRevision: own}
		}
	}
	return out
}

// own is etcd's own revision with which a comparison comes out as it should. Revisions of the etcd before are less than
// all that there are here, and 0, which stands for a record that is not there, is less than these.
func (k shifted) own(rev int64, result etcdserverpb.Compare_CompareResult) int64 {
	switch {
	case rev == 0:
		return 0
	case rev > k.by:
		return rev - k.by
	case result == etcdserverpb.Compare_LESS:
		return 1 // holds where there is no record
	case result == etcdserverpb.Compare_GREATER:
		return 0 // holds where there is one
	}
	return -1 // equals none
}

func (k shifted) ops(ops []clientv3.Op) []clientv3.Op {
	out := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		if op.IsTxn() {
			ifs, then, otherwise := op.Txn()
			op = clientv3.OpTxn(k.compares(ifs), k.ops(then), k.ops(otherwise))
		}
		if op.Rev() > k.by {
			clientv3.WithRev(op.Rev() - k.by)(&op) // of a copy
		}
		out[i] = op
	}
	return out
}

func (k shifted) responses(responses []*etcdserverpb.ResponseOp) {
	for _, r := range responses {
		if got := r.GetResponseRange(); got != nil {
			k.records(got.Kvs)
		}
		if inner := r.GetResponseTxn(); inner != nil {
			k.responses(inner.Responses)
		}
	}
}

type shiftedTxn struct {
	clientv3.Txn
	kv shifted
}

func (t *shiftedTxn) If(cmps ...clientv3.Cmp) clientv3.Txn {
	t.Txn = t.Txn.If(t.kv.compares(cmps)...)
	return t
}

func (t *shiftedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.Txn = t.Txn.Then(t.kv.ops(ops)...)
	return t
}

func (t *shiftedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.Txn = t.Txn.Else(t.kv.ops(ops)...)
	return t
}

func (t *shiftedTxn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := t.Txn.Commit()
	if err == nil {
		resp.Header.Revision += t.kv.by
		t.kv.responses(resp.Responses)
	}
	return resp, err
}

// shiftedEvents are the events of a watch. They are copied, because watchers share them.
func (s *Store) shiftedEvents(ctx context.Context, from clientv3.WatchChan) clientv3.WatchChan {
	to := make(chan clientv3.WatchResponse)
	go func() { // ends with the watch
		defer close(to)
		for resp := range from {
			resp.Header = &etcdserverpb.ResponseHeader{Revision: resp.Header.GetRevision() + s.shift}
			if resp.CompactRevision > 0 {
				resp.CompactRevision += s.shift
			}
			events := make([]*clientv3.Event, len(resp.Events))
			for i, ev := range resp.Events {
				kv := &mvccpb.KeyValue{Key: ev.Kv.Key, Value: ev.Kv.Value, Version: ev.Kv.Version, Lease: ev.Kv.Lease,
					ModRevision: ev.Kv.ModRevision + s.shift, CreateRevision: ev.Kv.CreateRevision}
				if kv.CreateRevision > 0 {
					kv.CreateRevision += s.shift
				}
				events[i] = &clientv3.Event{Type: ev.Type, Kv: kv}
			}
			resp.Events = events
			select {
			case to <- resp:
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}
