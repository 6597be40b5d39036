package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A client can have any number of grants and consents, and etcd does nothing else while it deletes. So the transaction
// that removes or disables a client puts one key, endings/<client>, with which all of them are dead: whatever reads a
// grant reads this key as well, and a client's record cannot be stored anew while it is there. The records are deleted
// afterwards, so many at a time that nobody waits for it, and the key goes with the last of them. The verb that put it
// begins with that at once; if its replica does not get to the end, another one, or the next start, goes on.

// ending is the value of the key that ends everything of a client.
type ending struct {
	At time.Time `json:"at"`
}

func endingKey(clientID string) string { return key("endings", clientID) }

const (
	// portion is how many records a transaction deletes.
	portion = 1000
	// glance is how many keys are read to find out where portions begin. It is more than a portion because etcd counts all
	// keys that follow, even for a few.
	glance = 10 * portion
	// clearTime is how long whoever ends a client waits for the deletion: most have ended by then.
	clearTime = 3 * time.Second
	// endingPatience is how long a replica leaves an ending to the one that put it.
	endingPatience = 10 * time.Second
)

// endAll is the operation that ends all grants and consents of a client. Whatever commits it calls [Store.clear] next.
func (s *Store) endAll(clientID string) clientv3.Op {
	return clientv3.OpPut(endingKey(clientID), encode(ending{At: s.now().UTC()}))
}

// clear deletes what has ended with a client, as much as fits into a while. The verb that ended it has succeeded,
// whatever comes of this; [Store.finishEndings] does the rest.
func (s *Store) clear(ctx context.Context, clientID string) {
	ctx, cancel := context.WithTimeout(ctx, clearTime)
	defer cancel()
	if err := s.clearEnded(ctx, clientID); err != nil && ctx.Err() == nil {
		s.log.Warn("not all ended grants could be deleted yet; continuing in the background",
			"client", clientID, "error", err)
	}
}

// clearEnded deletes the records that an ending has left, in portions, and the ending itself with the last of them; it
// does nothing where there is none.
func (s *Store) clearEnded(ctx context.Context, clientID string) error {
	err := Again(attempts, func() (again bool, err error) {
		k := endingKey(clientID)
		end, err := s.kv.Get(ctx, k, clientv3.WithKeysOnly())
		if err != nil || len(end.Kvs) == 0 {
			return false, err
		}
		still := atRevision(k, end.Kvs[0].ModRevision)
		var deletes []clientv3.Op
		keys := 0
		del := func(n int, ops ...clientv3.Op) error {
			if keys+n > portion {
				t := transaction{ifs: []clientv3.Cmp{still}, then: branch{ops: deletes}}
				if err := s.change(ctx, &t); err != nil {
					return err
				}
				deletes, keys = nil, 0
			}
			deletes, keys = append(deletes, ops...), keys+n
			return nil
		}
		for _, kind := range []string{"chains", "grants", "consents"} {
			err := s.inPortions(ctx, under(kind, clientID), func(from, to string, some []*mvccpb.KeyValue) error {
				if err := del(len(some), clientv3.OpDelete(from, clientv3.WithRange(to))); err != nil {
					return err
				}
				notes, err := s.notesOf(ctx, kind, clientID, from, to, some)
				if err != nil {
					return err
				}
				return del(len(notes), bundled(notes)...)
			})
			if err != nil {
				return errors.Is(err, ErrConflict), ignore(err, ErrConflict)
			}
		}
		t := transaction{ifs: []clientv3.Cmp{still}, then: branch{ops: append(deletes, clientv3.OpDelete(k))}}
		err = s.change(ctx, &t)
		return errors.Is(err, ErrConflict), ignore(err, ErrConflict)
	})
	if err != nil {
		return fmt.Errorf("delete what has ended: %w", err)
	}
	return nil
}

// notesOf are the operations that delete the notes of users which lead to some records of a client.
func (s *Store) notesOf(ctx context.Context, kind, clientID, from, to string, some []*mvccpb.KeyValue) (
	notes []clientv3.Op, err error) {
	switch kind {
	case "consents":
		for _, kv := range some {
			notes = append(notes, clientv3.OpDelete(consentOfUserKey(lastSegment(kv.Key), clientID)))
		}
	case "grants":
		bodies, err := s.kv.Get(ctx, from, clientv3.WithRange(to))
		if err != nil {
			return nil, err
		}
		seen := make(map[string]bool)
		for _, kv := range bodies.Kvs {
			g, err := decodeGrant(kv)
			if ignore(err, ErrNotFound) != nil {
				return nil, err
			}
			if g != nil && !seen[g.UserID] {
				seen[g.UserID] = true
				notes = append(notes, clientv3.OpDelete(under("usergrants", g.UserID, clientID), clientv3.WithPrefix()))
			}
		}
	}
	return notes, nil
}

// inPortions divides the keys under a prefix, and gives do the range of each portion and its keys.
func (s *Store) inPortions(ctx context.Context, prefix string,
	do func(from, to string, some []*mvccpb.KeyValue) error) error {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		seen, err := s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(glance))
		if err != nil {
			return err
		}
		for some := range slices.Chunk(seen.Kvs, portion) {
			to := string(some[len(some)-1].Key) + "\x00"
			if err := do(from, to, some); err != nil {
				return err
			}
			from = to
		}
		if !seen.More {
			return nil
		}
	}
}

// endings are the clients whose grants have ended and are still to be deleted, as memory knows them.
type endings struct {
	mu      sync.Mutex // guards clients
	clients map[string]bool
	changed chan struct{}
}

func (e *endings) followed() followed {
	return followed{
		prefix: under("endings"),
		reset: func(kvs []*mvccpb.KeyValue) error {
			e.mu.Lock()
			e.clients = make(map[string]bool, len(kvs))
			for _, kv := range kvs {
				e.clients[lastSegment(kv.Key)] = true
			}
			e.mu.Unlock()
			e.signal()
			return nil
		},
		put: func(kv *mvccpb.KeyValue) error {
			e.mu.Lock()
			e.clients[lastSegment(kv.Key)] = true
			e.mu.Unlock()
			e.signal()
			return nil
		},
		del: func(key []byte, _ int64) {
			e.mu.Lock()
			delete(e.clients, lastSegment(key))
			e.mu.Unlock()
		},
	}
}

func (e *endings) signal() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

func (e *endings) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []string
	for id := range e.clients {
		ids = append(ids, id)
	}
	return ids
}

// finishEndings goes on with what was left when a replica stopped: at the start, and whenever an ending is still there
// when the one that put it has had its time. It runs until ctx ends.
func (s *Store) finishEndings(ctx context.Context) {
	for wait := time.Duration(0); ; wait = endingPatience {
		select {
		case <-ctx.Done():
			return
		case <-s.endings.changed:
		}
		for left := s.endings.list(); len(left) > 0 && ctx.Err() == nil; left = s.endings.list() {
			Pause(ctx, wait)
			wait = endingPatience
			for _, id := range s.endings.list() {
				if err := s.clearEnded(ctx, id); err != nil && ctx.Err() == nil {
					s.log.Warn("grants that have ended cannot be deleted; trying again", "client", id, "error", err)
				}
			}
		}
	}
}
