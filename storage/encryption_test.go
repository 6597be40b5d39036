package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// keyed are the options of a store that has encryption keys, newest first.
func keyed(kek *storage.KEK) func(*storage.Options) {
	return func(o *storage.Options) { o.KEK = kek }
}

func kekOf(t *testing.T, keys ...[]byte) *storage.KEK {
	t.Helper()
	kek, err := storage.NewKEK(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// Two replicas get a new encryption key one after the other while people use them: nothing fails, nothing is sealed
// under a key that another replica does not have, and in the end the old one can go.
func TestEncryptionKeyIsReplacedUnderLoad(t *testing.T) {
	etcd := storagetest.New(t)
	older, newer := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	replicas := []*storage.Store{etcd.Store(keyed(kekOf(t, older))), etcd.Store(keyed(kekOf(t, older)))}
	var changes atomic.Int64
	for n, s := range replicas {
		storage.NothingInFlight(s)
		if err := s.Announce(ctx, storage.Announcement{}); err != nil {
			t.Fatal(err)
		}
		all.Go(func() { s.KeepSealed(ctx) })
		for worker := range 4 {
			id := fmt.Sprint("user", n, "-", worker)
			equipped(t, s, id)
			all.Go(func() {
				for step := int64(11); ctx.Err() == nil; step++ {
					other := replicas[(n+int(step))%2] // what one seals, the other opens
					err := storage.Again(50, func() (bool, error) {
						a, err := other.Account(ctx, id)
						if err != nil {
							return false, err
						}
						next := a.Factors.Clone()
						next.TOTP.Step = step
						_, _, err = other.ChangeFactors(ctx, a, storage.FactorChange{Next: next})
						return errors.Is(err, storage.ErrConflict), ignored(err, storage.ErrConflict)
					})
					if err != nil && ctx.Err() == nil {
						t.Errorf("%s: %v", id, err)
						return
					}
					changes.Add(1)
				}
			})
		}
	}
	busy := func() {
		t.Helper()
		from := changes.Load()
		eventually(t, "more changes", func() bool { return changes.Load() > from+50 })
	}
	state := func(s *storage.Store) *storage.Encryption {
		t.Helper()
		e, err := s.Encryption(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	set := func(s *storage.Store, keys ...[]byte) error { return s.SetKEK(t.Context(), kekOf(t, keys...), "") }

	eventually(t, "the old key seals all", func() bool { return !state(replicas[0]).Complete.IsZero() })
	if err := replicas[0].RotateEncryption(t.Context(), false); !errors.Is(err, storage.ErrNoNewKey) {
		t.Errorf("without a new key: %v", err)
	}
	var inUse *storage.KEKInUseError
	if err := set(replicas[0], newer); !errors.As(err, &inUse) {
		t.Errorf("without the key that seals: %v", err)
	}
	if err := set(replicas[0], newer, older); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits for the other replica", func() bool { return len(state(replicas[0]).Waiting) == 1 })
	busy()
	if at := state(replicas[0]); at.Keys[0].Seals || !at.Keys[1].Seals {
		t.Errorf("it seals under a key that the other does not have: %+v", at)
	}
	if err := set(replicas[1], newer, older); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is under the new key", func() bool {
		return !state(replicas[0]).Complete.IsZero() && !state(replicas[1]).Complete.IsZero()
	})
	for _, s := range replicas {
		if err := set(s, newer); err != nil {
			t.Error(err)
		}
	}
	busy()
	stop()
	all.Wait()
	only := etcd.Store(keyed(kekOf(t, newer)))
	counts, err := storage.SealedUnder(t.Context(), only)
	if at := state(only).Keys[0].Fingerprint; err != nil || len(counts) != 1 || counts[at] < 8 {
		t.Errorf("sealed under %v, %v", counts, err)
	}
	entries, _, err := only.Audit(t.Context(), storage.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{storage.AuditEncryptionTurned, storage.AuditResealed} {
		if !slices.ContainsFunc(entries, func(e storage.AuditEntry) bool { return e.Action == action }) {
			t.Errorf("the audit log has no %s", action)
		}
	}
	_, err = storage.New(t.Context(), etcd.Client, storage.Options{Prefix: etcd.Prefix,
		KEK: kekOf(t, older), Logger: discard})
	if err == nil {
		t.Error("a replica with the old key alone opens")
	}
}

func ignored(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// A rotation of the key that this program keeps is cut off after each of its writes, before or behind etcd. Whoever
// starts then has all keys that it needs, and goes on.
func TestEncryptionRotationGoesOnFromEachStep(t *testing.T) {
	for cut := 1; ; cut++ {
		for _, behind := range []bool{false, true} {
			if !rotationCutAt(t, cut, behind) {
				if cut < 5 {
					t.Errorf("a rotation has %d writes", cut-1)
				}
				return
			}
		}
	}
}

// rotationCutAt reports whether the rotation had as many writes.
func rotationCutAt(t *testing.T, cut int, behind bool) bool {
	t.Helper()
	etcd := storagetest.New(t)
	file := filepath.Join(t.TempDir(), "encryption.key")
	if err := storage.CreateKEKFile(file); err != nil {
		t.Fatal(err)
	}
	open := func() *storage.Store {
		kek, err := storage.ReadKEK(file)
		if err != nil {
			t.Fatal(err)
		}
		s := etcd.Store(keyed(kek), func(o *storage.Options) { o.OwnKey = file })
		storage.NothingInFlight(s)
		return s
	}
	s := open()
	equipped(t, s, "ann")
	equipped(t, s, "bob")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	var writes atomic.Int64
	gone := errors.New("the process is gone")
	etcd.Inject(func(write, sent bool) error {
		if at := writes.Load(); at >= int64(cut) {
			return gone
		}
		if write && sent == behind {
			if writes.Add(1) == int64(cut) {
				return gone
			}
		}
		return nil
	})
	err = errors.Join(s.RotateEncryption(t.Context(), false), s.Reseal(t.Context()))
	etcd.Inject(nil)
	died := err != nil
	if died {
		if _, err := etcd.Client.Delete(t.Context(), etcd.Prefix+"clocks/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		s = open()
		for range 3 { // a turn that nobody has heard of needs another time
			if err := s.Reseal(t.Context()); err != nil {
				t.Fatalf("after write %d (behind etcd: %t): %v", cut, behind, err)
			}
		}
		if now, err := s.Encryption(t.Context()); err != nil || len(now.Former) == 0 {
			// It has died before there was a new key; the rotation is asked for again.
			if err := errors.Join(s.RotateEncryption(t.Context(), false), s.Reseal(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
	}
	now, err := s.Encryption(t.Context())
	if err != nil || now.Complete.IsZero() || len(now.Keys) != 1 || len(now.Former) != 1 {
		t.Fatalf("after write %d (behind etcd: %t): %+v, %v", cut, behind, now, err)
	}
	counts, err := storage.SealedUnder(t.Context(), s)
	if err != nil || len(counts) != 1 || counts[now.Keys[0].Fingerprint] != 2 {
		t.Errorf("after write %d: sealed under %v, %v", cut, counts, err)
	}
	if account(t, s, "ann").Factors.TOTP.Secret == nil {
		t.Error("it cannot be opened")
	}
	// The old key is beside the new one, for backups from before.
	old, err := os.ReadFile(file + "." + now.Former[0].Fingerprint)
	if err != nil || !bytes.Equal(old, before) {
		t.Errorf("the old key: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	return died
}

// A key file is complete whenever a process ends, and a new key counts only once it is in there.
func TestKeyFileHoldsAllKeysNewestFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "encryption.key")
	if err := storage.CreateKEKFile(file); err != nil {
		t.Fatal(err)
	}
	one, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := storage.RenewKeyFile(file); err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(file)
	if err != nil || !bytes.HasSuffix(two, one) || len(two) != 2*len(one) {
		t.Errorf("%d bytes after %d, %v", len(two), len(one), err)
	}
	if err := os.WriteFile(file, two[:len(two)-9], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.ReadKEK(file); err == nil {
		t.Error("a file that was cut off is read")
	}
}
