package storage

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// KEK is the list of key-encryption keys that seal secrets in records, newest first. Secrets are sealed under the one
// whose turn it is, which is the first where nothing else is said (encryption.go); the others open what is sealed under
// them. So a key is rotated by putting a new one in front of it.
type KEK struct {
	ids     []string // the first 8 bytes of each key's SHA-256
	aeads   []cipher.AEAD
	newest  []byte
	secrets [][]byte
	active  int // the one that seals
}

const kekIDLen = 8

// NewKEK takes 32-byte keys, newest first.
func NewKEK(keys ...[]byte) (*KEK, error) {
	if len(keys) == 0 {
		return nil, errors.New("no encryption key")
	}
	k := &KEK{newest: bytes.Clone(keys[0])}
	for i, key := range keys {
		aead, err := chacha20poly1305.NewX(key)
		if err != nil {
			return nil, fmt.Errorf("encryption key %d has %d bytes, want %d", i+1, len(key), chacha20poly1305.KeySize)
		}
		sum := sha256.Sum256(key)
		k.ids = append(k.ids, string(sum[:kekIDLen]))
		k.aeads = append(k.aeads, aead)
		k.secrets = append(k.secrets, bytes.Clone(key))
	}
	return k, nil
}

// at is the same list, in which the key with a fingerprint seals; nil if it is not in there.
func (k *KEK) at(fingerprint string) *KEK {
	for i, name := range k.fingerprints() {
		if name == fingerprint {
			next := *k
			next.active = i
			return &next
		}
	}
	return nil
}

// seal encrypts plain for one purpose; it opens for that purpose only. Layout: key id, nonce, ciphertext.
func (k *KEK) seal(purpose string, plain []byte) []byte {
	out := make([]byte, kekIDLen+chacha20poly1305.NonceSizeX,
		kekIDLen+chacha20poly1305.NonceSizeX+len(plain)+chacha20poly1305.Overhead)
	copy(out, k.ids[k.active])
	_, _ = rand.Read(out[kekIDLen:])
	return k.aeads[k.active].Seal(out, out[kekIDLen:], plain, []byte(purpose))
}

func (k *KEK) open(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < kekIDLen+chacha20poly1305.NonceSizeX {
		return nil, fmt.Errorf("open %s: too short", purpose)
	}
	id, nonce := string(sealed[:kekIDLen]), sealed[kekIDLen:kekIDLen+chacha20poly1305.NonceSizeX]
	for i := range k.ids {
		if k.ids[i] == id {
			plain, err := k.aeads[i].Open(nil, nonce, sealed[kekIDLen+chacha20poly1305.NonceSizeX:], []byte(purpose))
			if err != nil {
				return nil, fmt.Errorf("open %s: the sealed value was altered", purpose)
			}
			return plain, nil
		}
	}
	return nil, fmt.Errorf("open %s: it is sealed under %s", purpose, missingKey(hex.EncodeToString([]byte(id))))
}

// missingKey names a key that is not there, and says where to put it.
func missingKey(fingerprint string) string {
	return fmt.Sprintf("encryption key %s, which is not there: add its file to encryptionKeyFiles, or where "+
		"the server keeps "+
		"its key itself, put a copy of it into dataDir: as encryption.key, or for an older backup as encryption.key.%s",
		fingerprint, fingerprint)
}

// id names the key that seals, and says nothing about it.
func (k *KEK) id() string { return hex.EncodeToString([]byte(k.ids[k.active])) }

// fingerprints name all keys, newest first.
func (k *KEK) fingerprints() []string {
	names := make([]string, len(k.ids))
	for i, id := range k.ids {
		names[i] = hex.EncodeToString([]byte(id))
	}
	return names
}

// current reports whether sealed is under the key that seals.
func (k *KEK) current(sealed []byte) bool {
	return len(sealed) >= kekIDLen && string(sealed[:kekIDLen]) == k.ids[k.active]
}

// reseal moves sealed to the key that seals.
func (k *KEK) reseal(purpose string, sealed []byte) ([]byte, error) {
	plain, err := k.open(purpose, sealed)
	if err != nil {
		return nil, err
	}
	return k.seal(purpose, plain), nil
}

// derive makes a key for one purpose from the key that seals.
func (k *KEK) derive(purpose string) []byte { return k.derived(k.active, purpose) }

func (k *KEK) derived(i int, purpose string) []byte {
	secret := k.newest
	if i > 0 {
		secret = k.secrets[i]
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "warifu "+purpose, 32)
	if err != nil {
		panic("storage: derive key: " + err.Error()) // the length is constant
	}
	return key
}
