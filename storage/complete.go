package storage

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Some things hold for all records of a database, once somebody has gone through them: that they have their notes
// (indexes.go), and that they are sealed under the newest encryption key ([Store.Reseal]). A mark says so,
// complete/..., so that a start need not go through all again.
//
// A replica of an older version, or one that seals under another key, writes records of which that does not hold. Each
// replica tells with its clock what it does (clocks.go). So no mark is put while another kind of replica is heard, and
// who hears one takes the mark away.

// complete is a mark.
type complete struct {
	At  time.Time `json:"at"`
	KEK string    `json:"kek,omitempty"` // the encryption key, of complete/seals
}

const (
	completeNotes = "notes"
	completeSeals = "seals"
)

func completeKey(what string) string { return key("complete", what) }

// completed is a mark, nil if there is none.
func (s *Store) completed(ctx context.Context, what string) (*complete, error) {
	resp, err := s.kv.Get(ctx, completeKey(what))
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return decode[complete]("mark", resp.Kvs[0].Value)
}

// complete puts a mark, unless a replica is heard that would make it false.
func (s *Store) complete(ctx context.Context, what string, mark complete) error {
	var look transaction
	clocks := look.then.get(under("clocks"), clientv3.WithPrefix())
	before := look.then.get(completeKey(what))
	if err := s.run(ctx, &look); err != nil {
		return err
	}
	if s.contradicted(clocks.kvs, what) {
		return nil
	}
	mark.At = s.now().UTC()
	var t transaction
	t.then.do(clientv3.OpPut(completeKey(what), encode(mark)))
	if what == completeSeals {
		s.sealing.mu.Lock()
		t.onlyIf(atRevision(turnKey(), s.sealing.revision))
		s.sealing.mu.Unlock()
		revision := int64(0)
		if kv := before.one(); kv != nil {
			held, err := decode[complete]("mark", kv.Value)
			if err != nil || held.KEK == mark.KEK {
				return err // another replica was first, and has said so
			}
			revision = kv.ModRevision
		}
		t.onlyIf(atRevision(completeKey(what), revision))
	}
	if what == completeSeals && len(s.currentTurn().Before) > 0 {
		t.then.do(s.auditOps(ctx, []AuditEntry{{Action: AuditResealed,
			Detail: "everything is sealed under key " + mark.KEK + "; older keys are needed for backups from before only"}})...)
	}
	if err := s.run(ctx, &t); err != nil {
		return err
	}
	if what == completeNotes {
		s.indexes.whole.Store(true)
	}
	return nil
}

// contradicted reports whether one of the replicas that are heard writes records of which a mark does not hold.
func (s *Store) contradicted(clocks []*mvccpb.KeyValue, what string) bool {
	for _, kv := range clocks {
		told, err := decode[clock]("clock", kv.Value)
		if err != nil || what == completeNotes && !told.Notes || what == completeSeals && told.KEK != s.kek().id() {
			return true
		}
	}
	return false
}

// completeOnly takes marks away that do not hold, because of a replica that is heard or of this one.
func (s *Store) completeOnly(ctx context.Context, clocks, marks []*mvccpb.KeyValue) error {
	whole := false
	for _, kv := range marks {
		what := lastSegment(kv.Key)
		mark, err := decode[complete]("mark", kv.Value)
		if err != nil {
			return err
		}
		if s.contradicted(clocks, what) || what == completeSeals && mark.KEK != s.kek().id() {
			if _, err := s.kv.Delete(ctx, string(kv.Key)); err != nil {
				return err
			}
			continue
		}
		whole = whole || what == completeNotes
	}
	s.indexes.whole.Store(whole)
	return nil
}

// openComplete finds out what holds when a store opens. Where there is nothing yet, everything has its notes.
func (s *Store) openComplete(ctx context.Context) error {
	var look transaction
	clocks := look.then.get(under("clocks"), clientv3.WithPrefix())
	marks := look.then.get(under("complete"), clientv3.WithPrefix())
	empty := int64(0)
	var kinds []*found
	for _, kind := range []string{"users", "sessions", "grants", "consents"} {
		kinds = append(kinds, look.then.get(under(kind), clientv3.WithPrefix(), clientv3.WithKeysOnly(),
			clientv3.WithLimit(1)))
	}
	if err := s.run(ctx, &look); err != nil {
		return fmt.Errorf("read marks: %w", err)
	}
	for _, f := range kinds {
		empty += int64(len(f.kvs))
	}
	if err := s.completeOnly(ctx, clocks.kvs, marks.kvs); err != nil {
		return fmt.Errorf("read marks: %w", err)
	}
	if empty == 0 && !s.indexes.whole.Load() {
		return ignore(s.complete(ctx, completeNotes, complete{}), ErrFull)
	}
	return nil
}

// addNotes adds the notes that an older version has not put, once: it goes through all users, sessions, consents and
// grants.
func (s *Store) addNotes(ctx context.Context) error {
	if s.indexes.whole.Load() {
		return nil
	}
	if err := s.addAllNotes(ctx); err != nil {
		return fmt.Errorf("add notes: %w", err)
	}
	return nil
}

func (s *Store) addAllNotes(ctx context.Context) error {
	var look transaction
	mark := look.then.get(completeKey(completeNotes), clientv3.WithCountOnly())
	clocks := look.then.get(under("clocks"), clientv3.WithPrefix())
	if err := s.run(ctx, &look); err != nil || s.contradicted(clocks.kvs, completeNotes) {
		return err // there will be more to add, so it can wait
	}
	if mark.count > 0 {
		s.indexes.whole.Store(true)
		return nil
	}
	a := &adding{s: s}
	err := s.eachUser(ctx, func(u *User) error {
		for _, k := range u.notes() {
			if err := a.add(ctx, userKey(u.ID), u.Revision, missing(k)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = s.each(ctx, under("sessions"), func(kv *mvccpb.KeyValue) error {
		session, err := decode[Session]("session", kv.Value)
		if err != nil {
			return err
		}
		lease, err := s.leases.until(ctx, session.ExpiresAt)
		if err != nil {
			return err
		}
		k := sessionOfUserKey(session.UserID, lastSegment(kv.Key))
		return a.add(ctx, string(kv.Key), kv.ModRevision, missing(k, clientv3.WithLease(lease)))
	})
	if err != nil {
		return err
	}
	err = s.each(ctx, under("consents"), func(kv *mvccpb.KeyValue) error {
		k := consentOfUserKey(lastSegment(kv.Key), clientOfKey(kv.Key))
		return a.add(ctx, string(kv.Key), kv.ModRevision, missing(k))
	})
	if err != nil {
		return err
	}
	err = s.EachGrant(ctx, "", func(g *Grant) error {
		lease, err := s.leases.until(ctx, remembered(g.ExpiresAt, s.now()))
		if err != nil {
			return err
		}
		note, err := s.noteGrant(ctx, g, lease)
		if err != nil {
			return err
		}
		return a.add(ctx, chainKey(g.ClientID, g.ID), 0, note)
	})
	if err == nil {
		err = a.flush(ctx)
	}
	if err != nil || a.left {
		return err
	}
	return s.complete(ctx, completeNotes, complete{})
}

// missing puts a note that is not there.
func missing(k string, opts ...clientv3.OpOption) clientv3.Op {
	return clientv3.OpTxn([]clientv3.Cmp{absent(k)}, []clientv3.Op{clientv3.OpPut(k, "", opts...)}, nil)
}

// adding puts notes, some in a transaction.
type adding struct {
	s    *Store
	ops  []clientv3.Op
	left bool // something has changed meanwhile, and is left to the next time
}

// add puts a note of the record under a key, if that is still at a revision; 0: if it is still there.
func (a *adding) add(ctx context.Context, of string, revision int64, note clientv3.Op) error {
	still := present(of)
	if revision > 0 {
		still = atRevision(of, revision)
	}
	a.ops = append(a.ops, clientv3.OpTxn([]clientv3.Cmp{still}, []clientv3.Op{note},
		[]clientv3.Op{clientv3.OpGet(of, clientv3.WithCountOnly())}))
	if len(a.ops) < bundleOps {
		return nil
	}
	return a.flush(ctx)
}

func (a *adding) flush(ctx context.Context) error {
	if len(a.ops) == 0 {
		return nil
	}
	resp, err := a.s.kv.Txn(ctx).Then(a.ops...).Commit()
	a.ops = nil
	if err != nil {
		return a.s.refused(err)
	}
	for _, r := range resp.Responses {
		each := r.GetResponseTxn()
		a.left = a.left || !each.Succeeded && each.Responses[0].GetResponseRange().Count > 0
	}
	return nil
}
