package storage

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Uses of keys. Each use has a sequence of keys of its own.
const (
	UseSeal     = "seal"     // 32 random bytes: sealed strings, see Store.Seal
	UseRS256    = "RS256"    // RSA 2048: ID tokens
	UsePS256    = "PS256"    // RSA 2048: what clients want signed with it, which few do
	UseES256    = "ES256"    // ECDSA P-256: access tokens, and ID tokens of clients that want it
	UseEdDSA    = "EdDSA"    // Ed25519: ID tokens of clients that want it
	UsePairwise = "pairwise" // 32 random bytes, never replaced: pairwise subjects, see Store.PairwiseSubject
)

// symmetric reports whether keys of a use are random bytes.
func symmetric(use string) bool { return use == UseSeal || use == UsePairwise }

// Key is a signing or sealing key. Which key of its use signs is said by the records, see [activeKey], and by no clock.
type Key struct {
	Use      string `json:"use"`
	Sequence int64  `json:"sequence"`
	// NotBefore is when the key began to sign; until then, when it was expected to. A key signs until the next one does.
	NotBefore time.Time `json:"notBefore"`
	Sealed    []byte    `json:"sealed"`
	// KID is the thumbprint; keys that an older version made have none.
	KID string `json:"kid,omitempty"`
	// Created is when the key was published; zero if an older version made it.
	Created time.Time `json:"created,omitzero"`
	// Signs is set when the key's turn comes, and stays.
	Signs bool `json:"signs,omitempty"`
	// Asked means that an operator wants it to sign as soon as it has been published long enough.
	Asked bool `json:"asked,omitempty"`

	// Private is *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey or, for UseSeal and UsePairwise, []byte.
	Private any `json:"-"`

	thumbprint string // tells this key from all others, also of other databases
	revision   int64
}

// Name is unique among all keys: the kid of signing keys.
func (k *Key) Name() string {
	if k.KID != "" {
		return k.KID
	}
	return k.place()
}

// place is unique in a database, as long as no older backup takes its place.
func (k *Key) place() string { return k.Use + "-" + strconv.FormatInt(k.Sequence, 10) }

func (k *Key) purpose() string { return "key/" + k.place() }

func (k *Key) storageKey() string { return key("keys", k.Use, strconv.FormatInt(k.Sequence, 10)) }

// Keys are the keys of a use that sign, will sign, or still verify, newest first. The slice must not be modified.
func (s *Store) Keys(use string) []*Key {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return s.mem.byUse[use]
}

// SigningKey is the key of a use that signs now.
func (s *Store) SigningKey(use string) (*Key, error) {
	keys := s.Keys(use)
	i := activeKey(keys, s.now())
	if i < 0 {
		return nil, fmt.Errorf("there is no %s signing key yet", use)
	}
	return keys[i], nil
}

// activeKey is the index of the key that signs, of the keys of a use, newest first; -1 if there are none. Those before
// it are published and wait for their turn, and those after it verify what they have signed.
//
// Once a key has been given its turn, that is the same for every replica, whatever its clock says. Keys of which an
// older version has left the turn to the clock are chosen by it; if it says that it is nobody's turn, it is wrong, and
// the oldest signs, which everybody knows.
func activeKey(keys []*Key, now time.Time) int {
	if i := slices.IndexFunc(keys, func(k *Key) bool { return k.Signs }); i >= 0 {
		return i
	}
	if i := slices.IndexFunc(keys, func(k *Key) bool { return !k.NotBefore.After(now) }); i >= 0 {
		return i
	}
	return len(keys) - 1
}

// CompromisedKey is what remains of a key that was ended because others may have it. The record is kept for ever, by
// the thumbprint of the key, so that the key does not come back from a backup either.
type CompromisedKey struct {
	Use      string    `json:"use"`
	Sequence int64     `json:"sequence"`
	KID      string    `json:"kid"` // its name
	At       time.Time `json:"at"`
}

func compromisedKey(thumbprint string) string { return key("compromised", thumbprint) }

func (s *Store) newPrivate(use string) ([]byte, error) {
	switch use {
	case UseRS256, UsePS256:
		private, err := s.newRSA()
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

// newKey makes a key that is not stored yet. One that signs does so from now on.
func (s *Store) newKey(use string, sequence int64, signs bool, notBefore time.Time) (*Key, error) {
	now := s.now().UTC()
	k := &Key{Use: use, Sequence: sequence, NotBefore: notBefore.UTC(), Created: now, Signs: signs}
	plain, err := s.newPrivate(use)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := k.take(plain); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	k.KID = k.thumbprint
	k.Sealed = s.kek().seal(k.purpose(), plain)
	return k, nil
}

// take gives the key its private part.
func (k *Key) take(plain []byte) error {
	if symmetric(k.Use) {
		id, err := hkdf.Key(sha256.New, plain, nil, "warifu key id", sha256.Size)
		if err != nil {
			return err
		}
		k.Private, k.thumbprint = plain, base64.RawURLEncoding.EncodeToString(id)
		return nil
	}
	private, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%T cannot sign", private)
	}
	public := jose.JSONWebKey{Key: signer.Public()}
	sum, err := public.Thumbprint(crypto.SHA256) // RFC 7638
	if err != nil {
		return err
	}
	k.Private, k.thumbprint = private, base64.RawURLEncoding.EncodeToString(sum)
	return nil
}

func (s *Store) decodeKey(kv *mvccpb.KeyValue) (*Key, error) {
	k, err := decode[Key]("key", kv.Value)
	if err != nil {
		return nil, err
	}
	plain, err := s.kek().open(k.purpose(), k.Sealed)
	if err != nil {
		return nil, err
	}
	if err := k.take(plain); err != nil {
		return nil, fmt.Errorf("decode key %s: %w", k.place(), err)
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
		keys[k.storageKey()] = k
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
	if held := s.mem.keys[k.storageKey()]; held != nil && held.revision >= k.revision {
		return nil
	}
	s.mem.keys[k.storageKey()] = k
	s.mem.derive()
	return nil
}

func (s *Store) dropKey(storageKey []byte, revision int64) {
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	if k := s.mem.keys[string(storageKey)]; k != nil && k.revision < revision {
		delete(s.mem.keys, string(storageKey))
		s.mem.derive()
	}
}

func decodeCompromised(kvs []*mvccpb.KeyValue) (map[string]*CompromisedKey, error) {
	out := make(map[string]*CompromisedKey, len(kvs))
	for _, kv := range kvs {
		if lastSegment(kv.Key) == movedName {
			continue
		}
		c, err := decode[CompromisedKey]("compromised key", kv.Value)
		if err != nil {
			return nil, err
		}
		out[lastSegment(kv.Key)] = c
	}
	return out, nil
}

func (s *Store) resetCompromised(kvs []*mvccpb.KeyValue) error {
	compromised, err := decodeCompromised(kvs)
	if err != nil {
		return err
	}
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	s.mem.compromised = compromised
	s.mem.derive()
	return nil
}

func (s *Store) putCompromised(kv *mvccpb.KeyValue) error {
	if lastSegment(kv.Key) == movedName {
		return nil // it is written before a store opens
	}
	c, err := decode[CompromisedKey]("compromised key", kv.Value)
	if err != nil {
		return err
	}
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	s.mem.compromised[lastSegment(kv.Key)] = c
	s.mem.derive()
	return nil
}
