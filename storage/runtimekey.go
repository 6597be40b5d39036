package storage

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// RuntimeKey is a key of 32 bytes for the runtime with a name: secret, the same on all replicas, and never replaced. It
// comes from the one key in storage that is never replaced either, that of pairwise subjects.
func (s *Store) RuntimeKey(runtime string) ([]byte, error) { return s.derived("runtime " + runtime) }

// ConfigKey is one for digests of configurations, of the same kind: whoever reads such a digest in storage cannot guess
// what was digested.
func (s *Store) ConfigKey() ([]byte, error) { return s.derived("configuration") }

func (s *Store) derived(what string) ([]byte, error) {
	keys := s.Keys(UsePairwise)
	if len(keys) == 0 {
		return nil, errors.New("derive a key: there is no key to derive it from yet")
	}
	secret := keys[len(keys)-1].Private.([]byte)
	key, err := hkdf.Key(sha256.New, secret, nil, "warifu "+what, 32)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	return key, nil
}
