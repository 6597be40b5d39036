package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
)

// KeySchedule says how keys of one use follow each other.
type KeySchedule struct {
	Use string
	// Period is how long a key signs; 0 means for ever. Its successor is made, and so published, when it begins to.
	Period time.Duration
	// Overlap is how long a key verifies after it has stopped signing: the longest life of what it signed.
	Overlap time.Duration
	// OnDemand: there are no keys before a client asks for their algorithm, see [Store.PublishKeys].
	OnDemand bool
}

// patience is how long a key is published before it signs, and how long the clocks have to agree before a key has its
// turn or is dropped because it is time.
func (k KeySchedule) patience() time.Duration { return min(k.Period, time.Hour) }

// turn is when the turn of the next key comes. It follows from the records and from the schedule as it is now, so that
// a change of the schedule counts at once.
func (k KeySchedule) turn(active, next *Key) time.Time {
	published := next.Created.Add(k.patience())
	if scheduled := active.NotBefore.Add(k.Period); !next.Asked && scheduled.After(published) {
		return scheduled
	}
	return published
}

// RotateKeys makes the keys that the schedules ask for, gives the next ones their turn and drops those that nothing
// needs any more. Any number of replicas may call it at any time: what it does is one transaction each, which compares
// the keys on which it was decided. The very first key of a use signs at once; all others are published before they
// sign.
//
// A wrong clock does no harm here. It does not say which key signs, because that is in the records, see [activeKey];
// and what depends on the time happens only while all clocks agree, see [Store.settled].
//
// onlyFirst leaves everything but first keys to a later call (making an RSA key takes a moment, in which the others are
// made and stored).
func (s *Store) RotateKeys(ctx context.Context, onlyFirst bool, schedules ...KeySchedule) error {
	if !onlyFirst {
		if err := s.compareClocks(ctx); err != nil {
			return fmt.Errorf("compare clocks: %w", err)
		}
	}
	errs := make([]error, len(schedules))
	var all sync.WaitGroup
	for i, schedule := range schedules {
		all.Go(func() {
			if err := s.rotateKeys(ctx, onlyFirst, schedule); err != nil {
				errs[i] = fmt.Errorf("rotate %s keys: %w", schedule.Use, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (s *Store) rotateKeys(ctx context.Context, onlyFirst bool, schedule KeySchedule) error {
	if schedule.OnDemand && len(s.Keys(schedule.Use)) == 0 {
		return nil
	}
	if err := s.firstKey(ctx, schedule.Use); err != nil || onlyFirst || schedule.Period == 0 {
		return err
	}
	if s.settled(schedule.patience()) {
		if err := s.turnKeys(ctx, schedule); err != nil && !errors.Is(err, ErrConflict) { // another replica was faster
			return err
		}
	}
	return s.nextKey(ctx, schedule)
}

// ring is what there is of the keys of one use.
type ring struct {
	keys    []*Key   // newest first, without those that are compromised
	remains []string // where records of compromised keys are, in a database that was restored from a backup
	free    int64    // the first sequence that was never used, as far as is known
}

func (s *Store) ring(use string) ring {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return newRing(use, slices.Collect(maps.Values(s.mem.keys)), s.mem.compromised)
}

func newRing(use string, keys []*Key, compromised map[string]*CompromisedKey) ring {
	r := ring{free: 1}
	for _, c := range compromised {
		if c.Use == use {
			r.free = max(r.free, c.Sequence+1)
		}
	}
	for _, k := range keys {
		if k.Use != use {
			continue
		}
		r.free = max(r.free, k.Sequence+1)
		if compromised[k.thumbprint] != nil {
			r.remains = append(r.remains, k.storageKey())
			continue
		}
		r.keys = append(r.keys, k)
	}
	slices.SortFunc(r.keys, func(a, b *Key) int { return cmp.Compare(b.Sequence, a.Sequence) })
	return r
}

// firstKey makes a key that signs, if the use has none.
func (s *Store) firstKey(ctx context.Context, use string) error {
	if len(s.Keys(use)) > 0 {
		return nil
	}
	r := s.ring(use)
	first, err := s.newKey(use, r.free, true, s.now())
	if err != nil {
		return err
	}
	return s.createKey(ctx, first, r.remains)
}

// DemandKey is [Store.SigningKey] for a use that may have no key yet: then it makes one, which signs at once.
func (s *Store) DemandKey(ctx context.Context, use string) (*Key, error) {
	k, err := s.SigningKey(use)
	if err == nil {
		return k, nil
	}
	if err := s.firstKey(ctx, use); err != nil {
		return nil, fmt.Errorf("make the first %s key: %w", use, err)
	}
	return s.SigningKey(use)
}

// PublishKeys makes the keys with which something is to be signed for a client and that there are only on demand: who
// reads the JWK Set before the first token, and keeps it, has to find them there.
func (s *Store) PublishKeys(ctx context.Context, c *oauth.Client) error {
	if !slices.Contains(c.SignedWith(), UsePS256) {
		return nil
	}
	_, err := s.DemandKey(ctx, UsePS256)
	return err
}

// nextKey makes the key that signs after the present one, if there is none.
func (s *Store) nextKey(ctx context.Context, schedule KeySchedule) error {
	r, now := s.ring(schedule.Use), s.now()
	if activeKey(r.keys, now) != 0 {
		return nil
	}
	next, err := s.newKey(schedule.Use, r.free, false, now)
	if err != nil {
		return err
	}
	next.NotBefore = schedule.turn(r.keys[0], next).UTC()
	return s.createKey(ctx, next, r.remains)
}

// createKey stores a key, unless another replica has stored one in its place; either way memory then knows that one.
// Records of compromised keys go.
func (s *Store) createKey(ctx context.Context, k *Key, remains []string) error {
	var t transaction
	t.onlyIf(absent(k.storageKey()))
	t.then.do(clientv3.OpPut(k.storageKey(), encode(k)))
	for _, place := range remains {
		t.then.do(clientv3.OpDelete(place))
	}
	stored, other := t.then.get(k.storageKey()), t.otherwise.get(k.storageKey())
	if err := s.run(ctx, &t); err != nil {
		return fmt.Errorf("store key: %w", err)
	}
	if !t.held {
		stored = other
	}
	return s.putKey(stored.one())
}

// turnKeys does what it is time for. The error is [ErrConflict] if another replica has done so.
func (s *Store) turnKeys(ctx context.Context, schedule KeySchedule) error {
	keys, now := s.Keys(schedule.Use), s.now()
	i := activeKey(keys, now)
	if i < 0 {
		return nil
	}
	if changed := mended(keys, i, now); changed != nil { // one per call
		return s.changeKeys(ctx, []*Key{changed}, nil)
	}
	if i > 0 {
		if active, next := keys[i], keys[i-1]; !schedule.turn(active, next).After(now) {
			return s.giveTurn(ctx, next, now, []*Key{active}, AuditEntry{Action: AuditKeyRotated, Reason: "scheduled"})
		}
	}
	for ; i+1 < len(keys); i++ {
		stopped, old := keys[i].NotBefore, keys[i+1]
		if stopped.Add(schedule.Overlap).After(now) {
			continue
		}
		if err := s.changeKeys(ctx, nil, []*Key{old}); err != nil {
			return fmt.Errorf("drop key: %w", err)
		}
	}
	return nil
}

// mended is one of the keys with what the clock of another replica, or an older version, has left to mend; nil if there
// is nothing. The turn of the key at active is committed. And a time that has not come was told by a clock that was
// ahead: it would hold up the keys that follow. The time at which a key began to sign stays as it is for as long as it
// also says until when the one before it did.
func mended(keys []*Key, active int, now time.Time) *Key {
	latest := now.Add(clockTolerance)
	signs := *keys[active]
	if early := signs.NotBefore.After(latest) && active == len(keys)-1; early || !signs.Signs {
		if signs.Signs = true; early {
			signs.NotBefore = now.UTC()
		}
		return &signs
	}
	for _, k := range keys[:active] {
		if k.Created.After(latest) {
			next := *k
			next.Created = now.UTC()
			return &next
		}
	}
	return nil
}

// giveTurn lets a key sign from now on, provided that it and the others are as they were.
func (s *Store) giveTurn(ctx context.Context, next *Key, now time.Time, others []*Key, why AuditEntry) error {
	signs := *next
	signs.Signs, signs.Asked, signs.NotBefore = true, false, now.UTC()
	why.Target, why.Detail = next.Use, "key "+next.Name()+" signs"
	err := s.changeKeys(ctx, []*Key{&signs}, nil, withKeys(others), withAudit(why))
	if err == nil {
		s.measures.KeyTurn(next.Use)
	}
	return err
}

// keyChange is what else belongs to a change of keys.
type keyChange func(s *Store, ctx context.Context, t *transaction)

func withKeys(same []*Key) keyChange {
	return func(_ *Store, _ context.Context, t *transaction) {
		for _, k := range same {
			t.onlyIf(atRevision(k.storageKey(), k.revision))
		}
	}
}

func withAudit(entries ...AuditEntry) keyChange {
	return func(s *Store, ctx context.Context, t *transaction) { t.then.do(s.auditOps(ctx, entries)...) }
}

func withOps(ops ...clientv3.Op) keyChange {
	return func(_ *Store, _ context.Context, t *transaction) { t.then.do(ops...) }
}

// changeKeys stores keys and drops others in one transaction, provided that all are at the revisions at which they were
// read (0: not stored). Memory learns of it without waiting for the watch. The error is [ErrConflict] if one has
// changed.
func (s *Store) changeKeys(ctx context.Context, put, drop []*Key, more ...keyChange) error {
	var t transaction
	withKeys(put)(s, ctx, &t)
	withKeys(drop)(s, ctx, &t)
	stored := make([]*found, len(put))
	for i, k := range put { // before others go, so that no watch ever sees a use without keys
		t.then.do(clientv3.OpPut(k.storageKey(), encode(k)))
		stored[i] = t.then.get(k.storageKey())
	}
	for _, k := range drop {
		t.then.do(clientv3.OpDelete(k.storageKey()))
	}
	for _, m := range more {
		m(s, ctx, &t)
	}
	if err := s.change(ctx, &t); err != nil {
		return err
	}
	for _, f := range stored {
		if err := s.putKey(f.one()); err != nil {
			return err
		}
	}
	for _, k := range drop {
		s.dropKey([]byte(k.storageKey()), t.revision)
	}
	return nil
}

// KeyTurn is how an operator wants the next key to have its turn.
type KeyTurn int

// Turns.
const (
	TurnPublished   KeyTurn = iota // once it has been published long enough
	TurnNow                        // at once
	TurnCompromised                // a new key at once, and all others of the use end
)

// KeyRotation is what [Store.RotateKey] has done.
type KeyRotation struct {
	Use string
	// Key is the name of the key that signs from From on, and Published when it was.
	Key             string
	Published, From time.Time
	// Previous are the names of the keys that were there before: they verify what they have signed until Until, or have
	// ended.
	Previous []string
	Until    time.Time
}

// Sentinels of [Store.RotateKey].
var (
	// ErrPermanent means that the keys of a use are never rotated.
	ErrPermanent = errors.New("the key is never replaced")
	// ErrKeysEnded is beside [ErrFull] when the compromised keys that have signed have ended, and no more was possible.
	ErrKeysEnded = errors.New("the keys that have signed have ended, and the next one signs")
)

// RotateKey gives the next key of a use its turn, as an operator wants it. With [TurnCompromised] every key that the
// use has had so far ends in the transaction in which a new one comes: they were stored side by side, and who has got
// one of them has got them all. Replicas hear of it by their watch. The records of what has ended remain, see
// [CompromisedKey].
//
// It returns [ErrPermanent] for [UsePairwise]. When storage is full, compromised keys end if there is a next one, and
// the error is [ErrFull] with [ErrKeysEnded].
func (s *Store) RotateKey(ctx context.Context, schedule KeySchedule, turn KeyTurn) (KeyRotation, error) {
	var out KeyRotation
	if schedule.Use == UsePairwise {
		return out, ErrPermanent
	}
	err := Again(5, func() (bool, error) {
		r, err := s.storedRing(ctx, schedule.Use)
		if err != nil {
			return false, err
		}
		if out, err = s.rotateKey(ctx, schedule, turn, r); errors.Is(err, ErrConflict) {
			return true, nil
		}
		return false, err
	})
	if errors.Is(err, ErrFull) && turn == TurnCompromised {
		err = s.endKeys(ctx, schedule.Use, err)
	}
	if err != nil {
		return KeyRotation{}, fmt.Errorf("rotate %s key: %w", schedule.Use, err)
	}
	if err := s.nextKey(ctx, schedule); err != nil {
		s.log.WarnContext(ctx, "the next key could not be made yet; trying again", "use", schedule.Use, "error", err)
	}
	return out, nil
}

func (s *Store) rotateKey(ctx context.Context, schedule KeySchedule, turn KeyTurn, r ring) (KeyRotation, error) {
	now := s.now().UTC()
	i := activeKey(r.keys, now)
	if turn == TurnCompromised || i < 0 {
		return s.replaceKeys(ctx, schedule.Use, r)
	}
	active := r.keys[i]
	out := KeyRotation{Use: schedule.Use, From: now, Previous: []string{active.Name()}, Until: now.Add(schedule.Overlap)}
	var next *Key
	if i > 0 {
		next = r.keys[i-1]
	} else {
		var err error
		if next, err = s.newKey(schedule.Use, r.free, false, now); err != nil {
			return KeyRotation{}, err
		}
	}
	out.Key, out.Published = next.Name(), next.Created
	asked := *next
	asked.Asked = true
	if from := schedule.turn(active, &asked).UTC(); turn == TurnPublished && from.After(now) {
		out.From, out.Until = from, from.Add(schedule.Overlap)
		asked.NotBefore = from
		entry := AuditEntry{Action: AuditKeyRotated, Target: schedule.Use,
			Detail: "key " + next.Name() + " signs from " + from.Format(time.RFC3339)}
		return out, s.changeKeys(ctx, []*Key{&asked}, nil, withKeys([]*Key{active}), withAudit(entry))
	}
	return out, s.giveTurn(ctx, next, now, []*Key{active}, AuditEntry{Action: AuditKeyRotated})
}

// replaceKeys makes a key that signs, in place of all others of its use, which are compromised.
func (s *Store) replaceKeys(ctx context.Context, use string, r ring) (KeyRotation, error) {
	now := s.now().UTC()
	fresh, err := s.newKey(use, r.free, true, now)
	if err != nil {
		return KeyRotation{}, err
	}
	out := KeyRotation{Use: use, Key: fresh.Name(), Published: now, From: now, Until: now}
	var records []clientv3.Op
	for _, place := range r.remains {
		records = append(records, clientv3.OpDelete(place))
	}
	entries := []AuditEntry{{Action: AuditKeyRotated, Target: use, Reason: "compromised",
		Detail: "key " + fresh.Name() + " signs"}}
	for _, k := range r.keys {
		record := CompromisedKey{Use: use, Sequence: k.Sequence, KID: k.Name(), At: now}
		records = append(records, clientv3.OpPut(compromisedKey(k.thumbprint), encode(record)))
		entries = append(entries, AuditEntry{Action: AuditKeyEnded, Target: use, Reason: "compromised",
			Detail: "key " + k.Name()})
		out.Previous = append(out.Previous, k.Name())
	}
	return out, s.changeKeys(ctx, []*Key{fresh}, r.keys, withOps(records...), withAudit(entries...))
}

// endKeys ends the keys of a use that have signed when storage is full: etcd deletes, and stores nothing. The next one,
// which waits beside them, then signs, see [activeKey]. To end that one as well, and to remember what has ended, has to
// wait until there is room.
func (s *Store) endKeys(ctx context.Context, use string, full error) error {
	r, err := s.storedRing(ctx, use)
	if err != nil {
		return err
	}
	i := activeKey(r.keys, s.now())
	if i < 1 {
		return full
	}
	var entries []AuditEntry
	for _, k := range r.keys[i:] {
		entries = append(entries, AuditEntry{Action: AuditKeyEnded, Target: use, Reason: "compromised",
			Detail: "key " + k.Name()})
	}
	t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		withKeys(r.keys)(s, ctx, t)
		for _, k := range r.keys[i:] {
			t.then.do(clientv3.OpDelete(k.storageKey()))
		}
		t.then.do(s.auditOps(ctx, entries)...)
		return nil
	})
	switch {
	case err != nil:
		return err
	case !t.held:
		return full // they have changed meanwhile
	}
	for _, k := range r.keys[i:] {
		s.dropKey([]byte(k.storageKey()), t.revision)
	}
	return fmt.Errorf("%w: %w", ErrKeysEnded, full)
}

// storedRing is the ring as etcd has it, because memory may lag behind. Memory is left alone.
func (s *Store) storedRing(ctx context.Context, use string) (ring, error) {
	var t transaction
	stored := t.then.get(under("keys", use), clientv3.WithPrefix())
	ended := t.then.get(under("compromised"), clientv3.WithPrefix())
	if err := s.run(ctx, &t); err != nil {
		return ring{}, fmt.Errorf("read keys: %w", err)
	}
	return s.decodeRing(use, stored, ended)
}

func (s *Store) decodeRing(use string, stored, ended *found) (ring, error) {
	compromised, err := decodeCompromised(ended.kvs)
	if err != nil {
		return ring{}, err
	}
	keys := make([]*Key, 0, len(stored.kvs))
	for _, kv := range stored.kvs {
		k, err := s.decodeKey(kv)
		if err != nil {
			return ring{}, err
		}
		keys = append(keys, k)
	}
	return newRing(use, keys, compromised), nil
}

// KeyState is what a key is for.
type KeyState string

// States of keys.
const (
	KeyNext        KeyState = "next"        // published, and does not sign yet
	KeyActive      KeyState = "active"      // signs
	KeyVerifying   KeyState = "verifying"   // verifies what it has signed
	KeyCompromised KeyState = "compromised" // ended by an operator
)

// KeyView is a key as operators see it, without anything secret.
type KeyView struct {
	Use, Name string
	State     KeyState
	// Since is when the state began, as far as is known; Until when it ends, zero if that is not known or never.
	Since, Until time.Time
}

// KeyViews lists the keys of the uses, newest first, and those that were compromised.
func (s *Store) KeyViews(ctx context.Context, schedules ...KeySchedule) ([]KeyView, error) {
	var t transaction
	stored := make([]*found, len(schedules))
	for i, schedule := range schedules {
		stored[i] = t.then.get(under("keys", schedule.Use), clientv3.WithPrefix())
	}
	ended := t.then.get(under("compromised"), clientv3.WithPrefix())
	if err := s.run(ctx, &t); err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	compromised, err := decodeCompromised(ended.kvs)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	former := slices.SortedFunc(maps.Values(compromised), func(a, b *CompromisedKey) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.Sequence, a.Sequence))
	})
	var out []KeyView
	for i, schedule := range schedules {
		r, err := s.decodeRing(schedule.Use, stored[i], ended)
		if err != nil {
			return nil, fmt.Errorf("list keys: %w", err)
		}
		out = append(out, viewKeys(r.keys, schedule, s.now())...)
		for _, c := range former {
			if c.Use == schedule.Use {
				out = append(out, KeyView{Use: c.Use, Name: c.KID, State: KeyCompromised, Since: c.At})
			}
		}
	}
	return out, nil
}

func viewKeys(keys []*Key, schedule KeySchedule, now time.Time) []KeyView {
	var out []KeyView
	at := activeKey(keys, now)
	for i, k := range keys {
		view := KeyView{Use: k.Use, Name: k.Name(), State: KeyActive, Since: k.NotBefore}
		switch {
		case i < at:
			view.State, view.Since, view.Until = KeyNext, k.Created, schedule.turn(keys[at], k)
		case i > at:
			view.State, view.Since = KeyVerifying, keys[i-1].NotBefore
			view.Until = view.Since.Add(schedule.Overlap)
		case i > 0:
			view.Until = schedule.turn(k, keys[i-1])
		case schedule.Period > 0:
			view.Until = k.NotBefore.Add(schedule.Period)
		}
		out = append(out, view)
	}
	return out
}
