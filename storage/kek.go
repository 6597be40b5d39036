package storage

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"
)

// KEK is the list of key-encryption keys that seal secrets in records, newest first. New secrets are sealed under the
// first; the others open what has not been resealed yet, so a key is rotated by putting a new one in front of it.
type KEK struct {
	ids    []string // the first 8 bytes of each key's SHA-256
	aeads  []cipher.AEAD
	newest []byte
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
	}
	return k, nil
}

// ReadKEK reads key files, newest first: each holds 32 bytes in base64, such as `openssl rand -base64 32` prints.
func ReadKEK(files ...string) (*KEK, error) {
	keys := make([][]byte, 0, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read encryption key: %w", err)
		}
		key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
		if err != nil || len(key) != chacha20poly1305.KeySize {
			return nil, fmt.Errorf("read encryption key: %s must hold 32 bytes in base64 (make one with: openssl rand -base64 32)", file)
		}
		keys = append(keys, key)
	}
	return NewKEK(keys...)
}

// CreateKEKFile writes a new random key to file, mode 0600, unless the file exists. The directory must exist.
func CreateKEKFile(file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	key := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	tmp, err := os.CreateTemp(filepath.Dir(file), ".key-*")
	if err != nil {
		return fmt.Errorf("create encryption key: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		// Link fails if the file has appeared in the meantime, so a key that is in use already is never replaced.
		if err = os.Link(tmp.Name(), file); errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("create encryption key: %w", err)
	}
	return nil
}

// seal encrypts plain for one purpose; it opens for that purpose only. Layout: key id, nonce, ciphertext.
func (k *KEK) seal(purpose string, plain []byte) []byte {
	out := make([]byte, kekIDLen+chacha20poly1305.NonceSizeX, kekIDLen+chacha20poly1305.NonceSizeX+len(plain)+chacha20poly1305.Overhead)
	copy(out, k.ids[0])
	_, _ = rand.Read(out[kekIDLen:])
	return k.aeads[0].Seal(out, out[kekIDLen:], plain, []byte(purpose))
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
	return nil, fmt.Errorf("open %s: it is sealed under encryption key %s, which is not in encryptionKeyFiles: add the file of that key", purpose, hex.EncodeToString([]byte(id)))
}

// current reports whether sealed is under the newest key.
func (k *KEK) current(sealed []byte) bool {
	return len(sealed) >= kekIDLen && string(sealed[:kekIDLen]) == k.ids[0]
}

// reseal moves sealed to the newest key.
func (k *KEK) reseal(purpose string, sealed []byte) ([]byte, error) {
	plain, err := k.open(purpose, sealed)
	if err != nil {
		return nil, err
	}
	return k.seal(purpose, plain), nil
}

// derive makes a key for one purpose from the newest key.
func (k *KEK) derive(purpose string) []byte {
	key, err := hkdf.Key(sha256.New, k.newest, nil, "warifu "+purpose, 32)
	if err != nil {
		panic("storage: derive key: " + err.Error()) // the length is constant
	}
	return key
}
