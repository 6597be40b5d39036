package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// All replicas seal under one encryption key, and which one that is stands in a record, the turn. A newer key has its
// turn once every replica that is heard has it, first in its list, so what one of them seals every other can open. The
// turn compares that no other replica has been heard meanwhile; and a replica that starts tells its keys in the
// transaction in which it reads the turn ([Store.Announce]).
//
// Then everything is resealed under it, and looked at once more. A mark (complete.go) says that nothing is sealed under
// another key, and with that the older ones may go. Whoever dies on the way leaves records under both keys, which all
// replicas have, and the next one goes on: what has been done is found in the records alone.

// turn is the record.
type turn struct {
	KEK   string    `json:"kek"` // fingerprint of the key that seals
	Since time.Time `json:"since"`
	// Before are those that have sealed before, newest first.
	Before []formerKEK `json:"before,omitempty"`
}

type formerKEK struct {
	KEK   string    `json:"kek"`
	Until time.Time `json:"until"`
}

// mostFormer is how many former keys a turn names.
const mostFormer = 20

func turnKey() string { return key("encryption", "key") }

// inFlight is how long what was sealed a moment ago may take to be written: no request lasts longer.
const inFlight = 20 * time.Second

// sealing is what a store knows of the turn, and of what it reseals.
type sealing struct {
	inFlight time.Duration
	wake     chan struct{} // has a value when there may be something to reseal
	run      sync.Mutex    // is held by who reseals
	list     sync.Mutex    // is held by who changes the list of keys, or their file

	mu       sync.Mutex // guards the rest
	own      string     // the file of the key, if this program keeps it
	turn     *turn
	revision int64
	turned   time.Time // when this store began to seal under another key, while it ran
	progress Resealing
}

func (x *sealing) init(own string) { x.wake, x.inFlight, x.own = make(chan struct{}, 1), inFlight, own }

// ownKey is the file of the encryption key that this program keeps; empty if its operators do.
func (s *Store) ownKey() string {
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	return s.sealing.own
}

func (s *Store) kek() *KEK { return s.keks.Load() }

func (x *sealing) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// KEKMissingError says that replicas seal under a key that this one does not have.
type KEKMissingError struct {
	Key   string // fingerprint
	Since time.Time
}

func (e *KEKMissingError) Error() string {
	return fmt.Sprintf("what is secret here is sealed, since %s, under %s", e.Since.Format(time.RFC3339),
		missingKey(e.Key))
}

// takeTurn has the store seal under the key of a turn that was read at a revision.
func (s *Store) takeTurn(t *turn, revision int64) error {
	x := &s.sealing
	x.mu.Lock()
	defer x.mu.Unlock()
	if t == nil || revision < x.revision {
		return nil
	}
	x.turn, x.revision = t, revision
	k := s.kek()
	if k.id() == t.KEK {
		return nil
	}
	next := k.at(t.KEK)
	if next == nil {
		return &KEKMissingError{t.KEK, t.Since}
	}
	s.keks.Store(next)
	x.turned = time.Now()
	return nil
}

// followedTurn hears of turns. A replica says at once that it seals under another key.
func (s *Store) followedTurn() followed {
	take := func(kv *mvccpb.KeyValue) error {
		t, err := decode[turn]("turn of encryption keys", kv.Value)
		if err != nil {
			return err
		}
		before := s.kek().id()
		if err := s.takeTurn(t, kv.ModRevision); err != nil {
			s.log.Error("another replica seals under an encryption key that this one does not have", "error", err)
			return nil // records that cannot be opened say so themselves
		}
		if s.kek().id() != before {
			s.sealing.signal()
		}
		return nil
	}
	return followed{prefix: under("encryption"), put: take, del: func([]byte, int64) {},
		reset: func(kvs []*mvccpb.KeyValue) error {
			for _, kv := range kvs {
				if err := take(kv); err != nil {
					return err
				}
			}
			return nil
		}}
}

// openTurn makes the first turn of a database, and refuses one whose turn is of a key that is not there.
func (s *Store) openTurn(ctx context.Context) error {
	s.sealing.mu.Lock()
	held, revision := s.sealing.turn, s.sealing.revision
	s.sealing.turned = time.Time{} // nothing was sealed before
	s.sealing.mu.Unlock()
	if held != nil && s.kek().at(held.KEK) != nil {
		return nil
	}
	first := s.kek().fingerprints()[0]
	if held != nil {
		// Records that were brought here were resealed on the way, and only the mark says so.
		mark, err := s.completed(ctx, completeSeals)
		if err != nil {
			return err
		}
		if mark == nil || s.kek().at(mark.KEK) == nil {
			return &KEKMissingError{held.KEK, held.Since}
		}
		first = mark.KEK
	} else {
		replicas, err := s.Replicas(ctx)
		if err != nil {
			return err
		}
		for _, r := range replicas { // of a version that knows no turns
			if !slices.Contains(r.Keys, first) && s.kek().at(r.SealsUnder) != nil {
				first = r.SealsUnder
			}
		}
	}
	next := turn{KEK: first, Since: s.now().UTC()}
	var t transaction
	t.onlyIf(atRevision(turnKey(), revision))
	t.then.do(clientv3.OpPut(turnKey(), encode(next)))
	now := t.otherwise.get(turnKey())
	if err := s.run(ctx, &t); err != nil {
		if errors.Is(err, ErrFull) {
			return s.takeTurn(&next, revision)
		}
		return err
	}
	if t.held {
		return s.takeTurn(&next, t.revision)
	}
	return s.heardTurn(now)
}

// heardTurn takes a turn that was read.
func (s *Store) heardTurn(f *found) error {
	kv := f.one()
	if kv == nil {
		return nil
	}
	t, err := decode[turn]("turn of encryption keys", kv.Value)
	if err != nil {
		return err
	}
	return s.takeTurn(t, kv.ModRevision)
}

// lacking are the replicas that do not have a key first in their list.
func lacking(replicas []Replica, fingerprint string) (names []string) {
	for _, r := range replicas {
		if len(r.Keys) == 0 || r.Keys[0] != fingerprint {
			names = append(names, r.Name)
		}
	}
	return names
}

// turnKEK gives the newest key its turn, if every replica has it. It returns those that do not.
func (s *Store) turnKEK(ctx context.Context) (waiting []string, err error) {
	newest := s.kek().fingerprints()[0]
	for range 5 {
		var look, t transaction
		clocks := look.then.get(under("clocks"), clientv3.WithPrefix())
		held := look.then.get(turnKey())
		if err := s.run(ctx, &look); err != nil {
			return nil, err
		}
		if err := s.heardTurn(held); err != nil || s.kek().id() == newest {
			return nil, err
		}
		replicas, err := s.replicasOf(clocks.kvs)
		if err != nil {
			return nil, err
		}
		replicas = slices.DeleteFunc(replicas, func(r Replica) bool { return r.Self }) // it may not have said so yet
		if waiting := lacking(replicas, newest); len(waiting) > 0 {
			return waiting, nil
		}
		now, was := s.now().UTC(), s.currentTurn()
		next := turn{KEK: newest, Since: now, Before: append([]formerKEK{{KEK: was.KEK, Until: now}}, was.Before...)}
		next.Before = slices.DeleteFunc(next.Before, func(f formerKEK) bool { return f.KEK == newest })
		next.Before = next.Before[:min(len(next.Before), mostFormer)]
		t.onlyIf(atRevision(turnKey(), held.one().ModRevision),
			clientv3.Compare(clientv3.ModRevision(under("clocks")), "<", look.revision+1).WithPrefix())
		t.then.do(clientv3.OpPut(turnKey(), encode(next)))
		t.then.do(s.auditOps(ctx, []AuditEntry{{Action: AuditEncryptionTurned,
			Detail: "secrets are sealed under key " + newest + " from now on; before, under " + was.KEK}})...)
		if err := s.run(ctx, &t); err != nil {
			return nil, err
		}
		if t.held {
			s.log.InfoContext(ctx, "secrets are sealed under another encryption key from now on", "key", newest,
				"before", was.KEK)
			return nil, s.takeTurn(&next, t.revision)
		}
	}
	return nil, nil // replicas come and go: another time
}

func (s *Store) currentTurn() turn {
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	if s.sealing.turn == nil {
		return turn{KEK: s.kek().id()}
	}
	return *s.sealing.turn
}

// KEKInUseError says that a key is to leave the list while secrets are sealed under it.
type KEKInUseError struct {
	Keys    []string // fingerprints
	Records int      // 0: it is the key that seals
}

func (e *KEKInUseError) Error() string {
	what := "what is secret is sealed under it"
	if e.Records > 0 {
		what = counted(e.Records, "record") + " are sealed under it"
	}
	return fmt.Sprintf("encryption key %s cannot leave encryptionKeyFiles yet: %s. Leave its file in the list "+
		"behind the newest "+
		"one; warifu keys rotate --encryption says when it may go", strings.Join(e.Keys, ", "), what)
}

// SetKEK replaces the list of encryption keys while the store runs. A key that is new in front has its turn when all
// replicas have it. One that is left out while something is sealed under it is a [KEKInUseError]; then nothing changes.
// own is as [Options.OwnKey]; a file that the store keeps already is left to it.
func (s *Store) SetKEK(ctx context.Context, next *KEK, own string) error {
	s.sealing.list.Lock()
	defer s.sealing.list.Unlock()
	if own != "" && own == s.ownKey() {
		return nil
	}
	if err := s.setKEK(ctx, next); err != nil {
		return err
	}
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	s.sealing.own = own
	return nil
}

func (s *Store) setKEK(ctx context.Context, next *KEK) error {
	held, names := s.kek(), next.fingerprints()
	if slices.Equal(held.fingerprints(), names) {
		return nil
	}
	active := next.at(held.id())
	if active == nil {
		return &KEKInUseError{Keys: []string{held.id()}}
	}
	gone := slices.DeleteFunc(held.fingerprints(), func(k string) bool { return slices.Contains(names, k) })
	if len(gone) > 0 {
		mark, err := s.completed(ctx, completeSeals)
		if err != nil {
			return fmt.Errorf("change encryption keys: %w", err)
		}
		if mark == nil || mark.KEK != held.id() {
			counts, err := s.sealedUnder(ctx)
			if err != nil {
				return fmt.Errorf("change encryption keys: %w", err)
			}
			inUse := &KEKInUseError{}
			for _, k := range gone {
				if counts[k] > 0 {
					inUse.Keys, inUse.Records = append(inUse.Keys, k), inUse.Records+counts[k]
				}
			}
			if len(inUse.Keys) > 0 {
				return inUse
			}
		}
	}
	s.sealing.mu.Lock()
	if again := next.at(s.kek().id()); again != nil { // a turn may have come meanwhile
		active = again
		s.keks.Store(active)
	}
	s.sealing.mu.Unlock()
	s.sealing.signal()
	if err := s.announceAgain(ctx); err != nil {
		s.log.WarnContext(ctx, "the other replicas do not know yet which encryption keys this one has",
			"error", err) // they do within a minute
	}
	return nil
}
