package storage_test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const day = 24 * time.Hour

// signs and seals are schedules of a month.
var (
	signing  = storage.KeySchedule{Use: storage.UseES256, Period: 30 * day, Overlap: 25 * time.Hour}
	sealing  = storage.KeySchedule{Use: storage.UseSeal, Period: 30 * day, Overlap: 165 * day}
	ofKeys   = []storage.KeySchedule{signing, sealing}
	rotated  = func(e storage.AuditEntry) bool { return e.Action == storage.AuditKeyRotated }
	stateful = func(k storage.KeyView) string { return k.Use + " " + string(k.State) }
)

// replica is a store with a clock of its own.
type replica struct {
	*storage.Store
	t   *testing.T
	mu  sync.Mutex
	now time.Time
}

// newReplica is a replica whose clock says now.
func newReplica(t *testing.T, etcd *storagetest.Etcd, now time.Time) *replica {
	t.Helper()
	r := &replica{t: t, now: now}
	r.Store = etcd.Store(func(o *storage.Options) {
		o.Now = func() time.Time {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.now
		}
	})
	return r
}

func (r *replica) forward(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *replica) rotate(schedules ...storage.KeySchedule) {
	r.t.Helper()
	if len(schedules) == 0 {
		schedules = ofKeys
	}
	if err := r.RotateKeys(r.t.Context(), false, schedules...); err != nil {
		r.t.Fatal(err)
	}
}

// signs is the sequence of the key that signs.
func (r *replica) signs(use string) int64 {
	r.t.Helper()
	var k *storage.Key
	eventually(r.t, "a key signs", func() bool { // a replica may hear of the end of one before it hears of the next
		var err error
		k, err = r.SigningKey(use)
		return err == nil
	})
	return k.Sequence
}

// sequences are those of all keys, newest first.
func (r *replica) sequences(use string) []int64 {
	var out []int64
	for _, k := range r.Keys(use) {
		out = append(out, k.Sequence)
	}
	return out
}

func (r *replica) seal(plain string) string {
	r.t.Helper()
	var sealed string
	eventually(r.t, "a key seals", func() bool {
		var err error
		sealed, err = r.Seal(storage.SealCode, []byte(plain))
		return err == nil
	})
	return sealed
}

// together forwards all clocks step by step, and has all replicas rotate each time, as they do each minute.
func together(d time.Duration, replicas ...*replica) { step(10*time.Minute, d, replicas...) }

func step(by, d time.Duration, replicas ...*replica) {
	for ; d > 0; d -= by {
		for _, r := range replicas {
			r.forward(by)
			r.rotate()
		}
	}
}

// gone takes away what a replica has said of the time, as its lease does once it has ended.
func gone(t *testing.T, etcd *storagetest.Etcd) {
	t.Helper()
	if _, err := etcd.Client.Delete(t.Context(), etcd.Prefix+"clocks/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
}

// One replica starts with its clock ahead by more than a key signs for. Before, it dropped the key that all others
// signed with.
func TestClockAheadDropsNoKey(t *testing.T) {
	for _, ahead := range []time.Duration{31 * day, 400 * day, 2 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			etcd := storagetest.New(t)
			start := time.Now()
			a := newReplica(t, etcd, start)
			a.rotate()
			sealed := a.seal("by the right one")
			b := newReplica(t, etcd, start.Add(ahead))
			together(3*time.Hour, b, a)
			for _, use := range []string{storage.UseES256, storage.UseSeal} {
				for _, r := range []*replica{a, b} {
					if r.signs(use) != 1 || !slices.Equal(r.sequences(use), []int64{2, 1}) {
						t.Errorf("%s: key %d signs, of %v", use, r.signs(use), r.sequences(use))
					}
				}
			}
			for _, r := range []*replica{a, b} {
				for _, s := range []string{sealed, a.seal("x"), b.seal("x")} {
					if _, err := r.Open(storage.SealCode, s); err != nil {
						t.Errorf("sealed by one replica, opened by another: %v", err)
					}
				}
			}
			for r, by := range map[*replica]time.Duration{a: ahead, b: -ahead} {
				found := r.ClockDifferences()
				if len(found) != 1 || (found[0].By-by).Abs() > 11*time.Minute {
					t.Errorf("the difference of %s is told as %v", by, found)
				}
			}
		})
	}
}

// The first replica of all starts with its clock ahead. Before, the others had no key until their clocks had come
// there.
func TestFirstStartAhead(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, 31 * day} {
		t.Run(ahead.String(), func(t *testing.T) {
			etcd := storagetest.New(t)
			start := time.Now()
			b := newReplica(t, etcd, start.Add(ahead))
			b.rotate()
			a := newReplica(t, etcd, start)
			if a.signs(storage.UseES256) != 1 || a.signs(storage.UseSeal) != 1 {
				t.Error("another key signs")
			}
			if plain, err := a.Open(storage.SealCode, b.seal("x")); err != nil || string(plain) != "x" {
				t.Errorf("%q, %v", plain, err)
			}
			if plain, err := b.Open(storage.SealCode, a.seal("x")); err != nil || string(plain) != "x" {
				t.Errorf("%q, %v", plain, err)
			}
			// When the clock is set, the schedule is what it would have been.
			gone(t, etcd)
			together(2*time.Hour, a)
			a.forward(30 * day)
			a.rotate()
			if a.signs(storage.UseES256) != 2 {
				t.Error("the wrong clock has held up the next key")
			}
		})
	}
}

// A clock that is behind neither finds that no key may sign yet, nor makes the others drop one early.
func TestClockBehind(t *testing.T) {
	etcd := storagetest.New(t)
	start := time.Now()
	a := newReplica(t, etcd, start)
	a.rotate()
	together(2*time.Hour, a)
	a.forward(30 * day)
	a.rotate() // 2 signs, and 1 verifies for a day
	b := newReplica(t, etcd, start.Add(-400*day))
	together(3*time.Hour, b, a)
	if b.signs(storage.UseES256) != 2 || !slices.Equal(b.sequences(storage.UseES256), []int64{3, 2, 1}) {
		t.Errorf("key %d signs, of %v", b.signs(storage.UseES256), b.sequences(storage.UseES256))
	}
	if _, err := a.Open(storage.SealCode, b.seal("x")); err != nil {
		t.Error(err)
	}
	gone(t, etcd)
	together(20*time.Hour, a)
	if !slices.Equal(a.sequences(storage.UseES256), []int64{3, 2, 1}) {
		t.Errorf("dropped early: %v", a.sequences(storage.UseES256))
	}
	together(3*time.Hour, a)
	if !slices.Equal(a.sequences(storage.UseES256), []int64{3, 2}) {
		t.Errorf("not dropped in time: %v", a.sequences(storage.UseES256))
	}
}

// A replica that starts when no other is there to compare with does not drop keys at once, whatever its clock says.
func TestStartAloneWithAWrongClock(t *testing.T) {
	etcd := storagetest.New(t)
	start := time.Now()
	a := newReplica(t, etcd, start)
	a.rotate()
	together(2*time.Hour, a)
	a.forward(30 * day)
	a.rotate()
	gone(t, etcd)
	b := newReplica(t, etcd, start.Add(400*day)) // 1 should have been dropped, and 3 should sign
	together(50*time.Minute, b)
	if !slices.Equal(b.sequences(storage.UseES256), []int64{3, 2, 1}) || b.signs(storage.UseES256) != 2 {
		t.Errorf("key %d signs, of %v", b.signs(storage.UseES256), b.sequences(storage.UseES256))
	}
	together(2*time.Hour, a, b) // the other one is back, and they differ
	if !slices.Equal(b.sequences(storage.UseES256), []int64{3, 2, 1}) || a.signs(storage.UseES256) != 2 {
		t.Errorf("key %d signs, of %v", a.signs(storage.UseES256), b.sequences(storage.UseES256))
	}
}

// Clocks that are a little apart are normal, and a replica that has gone is no difference.
func TestClocksAgree(t *testing.T) {
	etcd := storagetest.New(t)
	start := time.Now()
	a, b := newReplica(t, etcd, start), newReplica(t, etcd, start.Add(40*time.Second))
	together(2*time.Hour, a, b)
	if found := append(a.ClockDifferences(), b.ClockDifferences()...); len(found) > 0 {
		t.Errorf("%v", found)
	}
	together(2*time.Hour, a) // b is gone, and its last word still there
	if found := a.ClockDifferences(); len(found) > 0 {
		t.Errorf("%v", found)
	}
	c := newReplica(t, etcd, start.Add(4*time.Hour+5*time.Minute))
	step(time.Minute, 3*time.Minute, c, a)
	if found := a.ClockDifferences(); len(found) != 1 || !strings.Contains(found[0].String(),
		"another replica is 5m0s ahead of this") {
		t.Errorf("%v", found)
	}
}

// A schedule that changes counts at once, in both directions.
func TestChangedScheduleActsAtOnce(t *testing.T) {
	etcd := storagetest.New(t)
	a := newReplica(t, etcd, time.Now())
	a.rotate()
	together(2*time.Hour, a)
	a.forward(5 * day)
	shorter := signing
	shorter.Period = 4 * day
	a.rotate(shorter)
	if a.signs(storage.UseES256) != 2 {
		t.Error("a shorter schedule waits for the longer one")
	}
	longer := signing
	longer.Period = 40 * day
	a.forward(35 * day)
	a.rotate(longer)
	if a.signs(storage.UseES256) != 2 {
		t.Error("a longer schedule does not count")
	}
	a.forward(6 * day)
	a.rotate(longer)
	if a.signs(storage.UseES256) != 3 {
		t.Error("a longer schedule never comes")
	}
}

// Of many replicas that find it is time, one gives the next key its turn.
func TestReplicasGiveOneTurn(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	replicas := []*replica{newReplica(t, etcd, now), newReplica(t, etcd, now), newReplica(t, etcd, now)}
	together(2*time.Hour, replicas...)
	for _, r := range replicas {
		r.forward(30 * day)
	}
	turn := make(chan *replica, len(replicas))
	for _, r := range replicas {
		turn <- r
	}
	race(t, len(replicas), func() error { return (<-turn).RotateKeys(t.Context(), false, ofKeys...) })
	for _, r := range replicas {
		eventually(t, "all know", func() bool {
			return r.signs(storage.UseES256) == 2 && slices.Equal(r.sequences(storage.UseES256), []int64{3, 2, 1})
		})
	}
	entries, _, err := replicas[0].Audit(t.Context(), storage.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(slices.Collect(filter(entries, rotated))); n != len(ofKeys) {
		t.Errorf("%d turns, want %d: %+v", n, len(ofKeys), entries)
	}
}

func filter[T any](in []T, ok func(T) bool) func(func(T) bool) {
	return func(yield func(T) bool) {
		for _, v := range in {
			if ok(v) && !yield(v) {
				return
			}
		}
	}
}

// An operator gives the next key its turn: once it is known, or at once.
func TestOperatorRotatesKeys(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	a, b := newReplica(t, etcd, now), newReplica(t, etcd, now)
	a.rotate()
	got, err := a.RotateKey(t.Context(), signing, storage.TurnPublished)
	if err != nil || a.signs(storage.UseES256) != 1 || !got.From.Equal(got.Published.Add(time.Hour)) {
		t.Fatalf("%+v, %v", got, err)
	}
	b.rotate()
	together(50*time.Minute, a, b)
	if a.signs(storage.UseES256) != 1 {
		t.Error("signs before it was published long enough")
	}
	together(20*time.Minute, a, b)
	eventually(t, "the other replica knows", func() bool { return b.signs(storage.UseES256) == 2 })
	if k, _ := a.SigningKey(storage.UseES256); k.Sequence != 2 || k.Name() != got.Key {
		t.Errorf("%s signs, want %s", k.Name(), got.Key)
	}
	together(2*time.Hour, a, b)
	got, err = b.RotateKey(t.Context(), signing, storage.TurnPublished)
	if err != nil || b.signs(storage.UseES256) != 3 || got.From.Sub(got.Published) < time.Hour {
		t.Errorf("a key that has been published for long waits: %+v, %v", got, err)
	}
	got, err = b.RotateKey(t.Context(), signing, storage.TurnNow)
	if err != nil || b.signs(storage.UseES256) != 4 || !slices.Equal(b.sequences(storage.UseES256),
		[]int64{5, 4, 3, 2, 1}) {
		t.Errorf("at once: %+v, %v, %v", got, err, b.sequences(storage.UseES256))
	}
	// With no next key, one is made.
	lone := newReplica(t, storagetest.New(t), now)
	if err := lone.RotateKeys(t.Context(), true, ofKeys...); err != nil {
		t.Fatal(err)
	}
	if _, err := lone.RotateKey(t.Context(), sealing, storage.TurnNow); err != nil || lone.signs(storage.UseSeal) != 2 {
		t.Error(err)
	}
	if _, err := lone.RotateKey(t.Context(), permanent, storage.TurnNow); !errors.Is(err, storage.ErrPermanent) {
		t.Errorf("the key of pairwise subjects: %v", err)
	}
	views, err := b.KeyViews(t.Context(), signing, sealing)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, v := range views {
		states = append(states, stateful(v))
		if v.Since.IsZero() || v.Until.IsZero() || v.Until.Before(v.Since) {
			t.Errorf("%+v", v)
		}
	}
	want := "ES256 next,ES256 active,ES256 verifying,ES256 verifying,ES256 verifying,seal next,seal active"
	if strings.Join(states, ",") != want {
		t.Errorf("states %v, want %s", states, want)
	}
}

// A compromised key is dead at every replica, after a restart, and after an older backup has brought its record back.
func TestCompromisedKeyStaysDead(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	a, b := newReplica(t, etcd, now), newReplica(t, etcd, now)
	a.rotate()
	eventually(t, "the other replica knows the keys", func() bool { return len(b.sequences(storage.UseSeal)) == 2 })
	backup, err := etcd.Client.Get(t.Context(), etcd.Prefix+"keys/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	sealed, old := b.seal("x"), a.Keys(storage.UseES256)[1]
	for _, schedule := range ofKeys {
		got, err := a.RotateKey(t.Context(), schedule, storage.TurnCompromised)
		if err != nil || len(got.Previous) != 2 || a.signs(schedule.Use) != 3 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	dead := func(what string, r *replica) {
		t.Helper()
		if _, err := r.Open(storage.SealCode, sealed); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: opens what a compromised key has sealed: %v", what, err)
		}
		for _, k := range r.Keys(storage.UseES256) {
			if k.Name() == old.Name() || k.Sequence < 3 {
				t.Errorf("%s: key %d is there", what, k.Sequence)
			}
		}
		if s := r.seal("y"); r.signs(storage.UseES256) < 3 || s == "" {
			t.Errorf("%s: key %d signs", what, r.signs(storage.UseES256))
		}
	}
	dead("here", a)
	eventually(t, "the other replica has heard of it", func() bool {
		_, err := b.Open(storage.SealCode, sealed)
		return errors.Is(err, storage.ErrNotFound) && !slices.Contains(b.sequences(storage.UseES256), 1)
	})
	dead("at the other replica", b)
	dead("after a restart", newReplica(t, etcd, now))
	if dump := etcd.Dump(); !strings.Contains(dump, old.Name()) ||
		strings.Contains(dump, base64.StdEncoding.EncodeToString(old.Sealed)) {
		t.Error("the private key is still stored")
	}

	restore := func() {
		t.Helper()
		for _, kv := range backup.Kvs {
			if _, err := etcd.Client.Put(t.Context(), string(kv.Key), string(kv.Value)); err != nil {
				t.Fatal(err)
			}
		}
	}
	restore()
	c := newReplica(t, etcd, now)
	c.rotate()
	dead("beside its record from a backup", c)
	if _, err := etcd.Client.Delete(t.Context(), etcd.Prefix+"keys/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	restore()
	c = newReplica(t, etcd, now)
	c.rotate()
	dead("in a database from before it ended", c)
	kept, err := etcd.Client.Get(t.Context(), etcd.Prefix+"keys/ES256/", clientv3.WithPrefix())
	if err != nil || len(kept.Kvs) != 2 {
		t.Errorf("%d records of keys, %v", len(kept.Kvs), err)
	}
	views, err := c.KeyViews(t.Context(), signing)
	if err != nil || len(views) != 4 || views[2].State != storage.KeyCompromised ||
		!slices.ContainsFunc(views, func(v storage.KeyView) bool { return v.Name == old.Name() }) {
		t.Errorf("%+v, %v", views, err)
	}
}

// Racing operators end every key that they have seen, and leave one that signs.
func TestRacingCompromises(t *testing.T) {
	etcd := storagetest.New(t)
	a, b := newReplica(t, etcd, time.Now()), newReplica(t, etcd, time.Now())
	a.rotate(sealing)
	sealed := a.seal("x")
	race(t, 6, func() error {
		for _, r := range []*replica{a, b} {
			if _, err := r.RotateKey(t.Context(), sealing, storage.TurnCompromised); err != nil &&
				!errors.Is(err, storage.ErrConflict) {
				return err
			}
			if err := r.RotateKeys(t.Context(), false, sealing); err != nil {
				return err
			}
		}
		return nil
	})
	if _, err := a.Open(storage.SealCode, sealed); err == nil {
		t.Error("opens")
	}
	for _, r := range []*replica{a, b} {
		eventually(t, "both replicas seal with one key", func() bool {
			return a.signs(storage.UseSeal) == b.signs(storage.UseSeal) && slices.Equal(a.sequences(storage.UseSeal),
				b.sequences(storage.UseSeal))
		})
		if _, err := r.Open(storage.SealCode, a.seal("x")); err != nil {
			t.Error(err)
		}
	}
}

// A new key has the thumbprint as its kid, which no key of another database has. Those that an older version made keep
// theirs, sign in their time, and are given their turn.
func TestKeysOfOlderVersions(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	a := newReplica(t, etcd, now)
	a.rotate(signing)
	thumbprints := func(r *replica) (named int) {
		t.Helper()
		for _, k := range r.Keys(storage.UseES256) {
			public := jose.JSONWebKey{Key: k.Private.(crypto.Signer).Public()}
			sum, err := public.Thumbprint(crypto.SHA256) // RFC 7638
			if err != nil {
				t.Fatal(err)
			}
			if k.Name() == base64.RawURLEncoding.EncodeToString(sum) {
				named++
			}
		}
		return named
	}
	if got := thumbprints(a); got != 2 {
		t.Errorf("%d of two keys are named by their thumbprint", got)
	}
	stored, err := etcd.Client.Get(t.Context(), etcd.Prefix+"keys/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range stored.Kvs {
		var record map[string]any
		if err := json.Unmarshal(kv.Value, &record); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"kid", "created", "signs"} {
			delete(record, field)
		}
		old, _ := json.Marshal(record)
		if _, err := etcd.Client.Put(t.Context(), string(kv.Key), string(old)); err != nil {
			t.Fatal(err)
		}
	}
	b := newReplica(t, etcd, now)
	if k, err := b.SigningKey(storage.UseES256); err != nil || k.Name() != "ES256-1" {
		t.Fatalf("%v, %v", k, err)
	}
	behind := newReplica(t, etcd, now.Add(-day))
	if behind.signs(storage.UseES256) != 1 {
		t.Error("a clock that is behind finds no key")
	}
	together(2*time.Hour, b)
	if ahead := newReplica(t, etcd, now.Add(31*day)); ahead.signs(storage.UseES256) != 1 {
		t.Error("the turn was not written down")
	}
	b.forward(30 * day)
	b.rotate(signing)
	if k, err := b.SigningKey(storage.UseES256); err != nil || k.Name() != "ES256-2" {
		t.Errorf("%v, %v", k, err)
	}
	if got := thumbprints(b); got != 1 {
		t.Errorf("%d keys are named by their thumbprint; the one that signs next has to be", got)
	}
}

// A use on demand has no keys before something is to be signed with them. Of many that want the first one at once, all
// get the same.
func TestKeysOnDemand(t *testing.T) {
	s := storagetest.New(t).Store()
	demanded := storage.KeySchedule{Use: storage.UseEdDSA, Period: 30 * day, Overlap: time.Hour, OnDemand: true}
	rotate := func() int {
		t.Helper()
		if err := s.RotateKeys(t.Context(), false, demanded); err != nil {
			t.Fatal(err)
		}
		return len(s.Keys(storage.UseEdDSA))
	}
	if n := rotate(); n != 0 {
		t.Errorf("%d keys that nobody needs", n)
	}
	names := make(chan string, 16)
	var all sync.WaitGroup
	for range cap(names) {
		all.Go(func() {
			k, err := s.DemandKey(t.Context(), storage.UseEdDSA)
			if err != nil {
				t.Error(err)
				return
			}
			names <- k.Name()
		})
	}
	all.Wait()
	close(names)
	for name := range names {
		if keys := s.Keys(storage.UseEdDSA); len(keys) != 1 || name != keys[0].Name() {
			t.Errorf("signed by %s, of %d keys", name, len(keys))
		}
	}
	if n := rotate(); n != 2 {
		t.Errorf("%d keys, and not the next one", n)
	}
}
