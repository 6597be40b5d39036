package storage

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Uses of keys. Each use has a sequence of keys of its own.
const (
	UseSeal     = "seal"     // 32 random bytes: sealed strings, see Store.Seal
	UseRS256    = "RS256"    // RSA 2048: ID tokens
	UseES256    = "ES256"    // ECDSA P-256: access tokens, and ID tokens of clients that want it
	UseEdDSA    = "EdDSA"    // Ed25519: ID tokens of clients that want it
	UsePairwise = "pairwise" // 32 random bytes, never replaced: pairwise subjects, see Store.PairwiseSubject
)

// symmetric reports whether keys of a use are random bytes.
func symmetric(use string) bool { return use == UseSeal || use == UsePairwise }

// Key is a signing or sealing key. A key signs from NotBefore until the next key's NotBefore.
type Key struct {
	Use       string    `json:"use"`
	Sequence  int64     `json:"sequence"`
	NotBefore time.Time `json:"notBefore"`
	Sealed    []byte    `json:"sealed"`

	// Private is *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey or, for UseSeal and UsePairwise, []byte.
	Private any `json:"-"`

	revision int64
}

// Name is unique among all keys: the kid of signing keys.
func (k *Key) Name() string { return k.Use + "-" + strconv.FormatInt(k.Sequence, 10) }

func (k *Key) purpose() string { return "key/" + k.Name() }

func (k *Key) storageKey() string { return key("keys", k.Use, strconv.FormatInt(k.Sequence, 10)) }

// KeySchedule says how keys of one use follow each other.
type KeySchedule struct {
	Use string
	// Period is how long a key signs; 0 means for ever. Its successor is made, and so published, a whole period before
	// it signs.
	Period time.Duration
	// Overlap is how long a key verifies after it has stopped signing: the longest life of what it signed.
	Overlap time.Duration
}

// Keys are the keys of a use that sign, will sign, or still verify, newest first. The slice must not be modified.
func (s *Store) Keys(use string) []*Key {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return s.mem.byUse[use]
}

// SigningKey is the key of a use that signs now.
func (s *Store) SigningKey(use string) (*Key, error) {
	now := s.now()
	for _, k := range s.Keys(use) {
		if !k.NotBefore.After(now) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("there is no %s signing key yet", use)
}

// RotateKeys makes the keys that the schedules ask for and drops those that have expired. Any number of replicas may
// call it at any time: a key is created once, by compare. The very first key of a use signs at once; all others are
// published before they sign. onlyFirst leaves the successors to a later call (making an RSA key takes a moment, in
// which the others are made and stored).
func (s *Store) RotateKeys(ctx context.Context, onlyFirst bool, schedules ...KeySchedule) error {
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
	now := s.now()
	keys := s.Keys(schedule.Use)
	if len(keys) == 0 {
		first, err := s.createKey(ctx, schedule.Use, 1, now)
		if err != nil {
			return err
		}
		keys = []*Key{first}
	}
	if onlyFirst || schedule.Period == 0 {
		return nil
	}
	if newest := keys[0]; !newest.NotBefore.After(now) {
		from := newest.NotBefore.Add(schedule.Period)
		// After a long stop the successor is due already; it is still published for a while before it signs.
		if soonest := now.Add(min(schedule.Period, time.Hour)); from.Before(soonest) {
			from = soonest
		}
		next, err := s.createKey(ctx, schedule.Use, newest.Sequence+1, from)
		if err != nil {
			return err
		}
		keys = append([]*Key{next}, keys...)
	}
	for i := 1; i < len(keys); i++ {
		if keys[i-1].NotBefore.Add(schedule.Overlap).Before(now) {
			resp, err := s.kv.Delete(ctx, keys[i].storageKey())
			if err != nil {
				return fmt.Errorf("drop key: %w", err)
			}
			s.dropKey([]byte(keys[i].storageKey()), resp.Header.Revision) // without waiting for the watch
		}
	}
	return nil
}

// createKey makes the key unless another replica has done so. Either way it returns the one that is stored.
func (s *Store) createKey(ctx context.Context, use string, sequence int64, notBefore time.Time) (*Key, error) {
	k := &Key{Use: use, Sequence: sequence, NotBefore: notBefore.UTC()}
	plain, err := newPrivate(use)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	k.Sealed = s.kek.seal(k.purpose(), plain)
	var t transaction
	t.onlyIf(absent(k.storageKey()))
	t.then.do(clientv3.OpPut(k.storageKey(), encode(k)))
	stored, other := t.then.get(k.storageKey()), t.otherwise.get(k.storageKey())
	if err := s.run(ctx, &t); err != nil {
		return nil, fmt.Errorf("store key: %w", err)
	}
	if !t.held {
		stored = other
	}
	if err := s.putKey(stored.one()); err != nil {
		return nil, err
	}
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return s.mem.keys[k.Name()], nil
}

func newPrivate(use string) ([]byte, error) {
	switch use {
	case UseRS256:
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(private)
	case UseES256:
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(private)
	case UseEdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(private)
	case UseSeal, UsePairwise:
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails: crypto/rand ends the process instead
		return secret, nil
	}
	return nil, fmt.Errorf("unknown use %q", use)
}

func (s *Store) decodeKey(kv *mvccpb.KeyValue) (*Key, error) {
	k, err := decode[Key]("key", kv.Value)
	if err != nil {
		return nil, err
	}
	plain, err := s.kek.open(k.purpose(), k.Sealed)
	if err != nil {
		return nil, err
	}
	if k.Private = any(plain); !symmetric(k.Use) {
		if k.Private, err = x509.ParsePKCS8PrivateKey(plain); err != nil {
			return nil, fmt.Errorf("decode key %s: %w", k.Name(), err)
		}
	}
	k.revision = kv.ModRevision
	return k, nil
}

func (s *Store) resetKeys(kvs []*mvccpb.KeyValue) error {
	keys := make(map[string]*Key, len(kvs))
	for _, kv := range kvs {
		k, err := s.decodeKey(kv)
		if err != nil {
			return err
		}
		keys[k.Name()] = k
	}
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	s.mem.keys = keys
	s.mem.derive()
	return nil
}

func (s *Store) putKey(kv *mvccpb.KeyValue) error {
	k, err := s.decodeKey(kv)
	if err != nil {
		return err
	}
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	if held := s.mem.keys[k.Name()]; held != nil && held.revision >= k.revision {
		return nil
	}
	s.mem.keys[k.Name()] = k
	s.mem.derive()
	return nil
}

func (s *Store) dropKey(storageKey []byte, revision int64) {
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	for name, k := range s.mem.keys {
		if k.storageKey() == string(storageKey) && k.revision < revision {
			delete(s.mem.keys, name)
		}
	}
	s.mem.derive()
}

// Reseal moves everything that is sealed under an older encryption key to the newest one, so that the older ones can be
// removed from the configuration afterwards. It may be called at any time; records that change in the meantime are left
// to the next call.
func (s *Store) Reseal(ctx context.Context) error {
	for _, prefix := range []string{under("keys"), under("clients"), under("deliveries")} {
		resp, err := s.kv.Get(ctx, prefix, clientv3.WithPrefix())
		if err != nil {
			return fmt.Errorf("reseal: %w", err)
		}
		for _, kv := range resp.Kvs {
			value, err := s.resealed(prefix, kv.Value)
			if err != nil {
				return fmt.Errorf("reseal %s: %w", kv.Key, err)
			}
			if value == "" {
				continue
			}
			_, err = s.replace(ctx, string(kv.Key), kv.ModRevision, clientv3.OpPut(string(kv.Key), value), nil)
			if err != nil && !errors.Is(err, ErrConflict) {
				return fmt.Errorf("reseal %s: %w", kv.Key, err)
			}
		}
	}
	return nil
}

// resealed is the record with its secrets under the newest key, or "" if they are already.
func (s *Store) resealed(prefix string, value []byte) (string, error) {
	changed := false
	reseal := func(purpose string, sealed *[]byte) error {
		if len(*sealed) == 0 || s.kek.current(*sealed) {
			return nil
		}
		again, err := s.kek.reseal(purpose, *sealed)
		if err != nil {
			return err
		}
		*sealed, changed = again, true
		return nil
	}
	var record any
	switch prefix {
	case under("keys"):
		k, err := decode[Key]("key", value)
		if err != nil {
			return "", err
		}
		if err := reseal(k.purpose(), &k.Sealed); err != nil {
			return "", err
		}
		record = k
	case under("clients"):
		c, err := decode[Client]("client", value)
		if err != nil {
			return "", err
		}
		for i := range c.Secrets {
			if err := reseal(secretPurpose(c.ID, c.Secrets[i].ID), &c.Secrets[i].Sealed); err != nil {
				return "", err
			}
		}
		record = c
	case under("deliveries"):
		d, err := decode[Delivery]("delivery", value)
		if err != nil {
			return "", err
		}
		if err := reseal(envPurpose(d), &d.Sealed); err != nil {
			return "", err
		}
		record = d
	}
	if !changed {
		return "", nil
	}
	return encode(record), nil
}
