package storage

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

// SealType separates sealed strings: one type never opens as another, because each has a key of its own (HKDF, RFC
// 5869). It is also the string's prefix, so that secret scanners find what leaked.
type SealType string

// The types of sealed strings.
const (
	SealCode    SealType = "wfc_" // authorization codes
	SealAccess  SealType = "wfa_" // opaque access tokens
	SealRefresh SealType = "wfr_" // refresh tokens
	SealRequest SealType = "wfq_" // pending authorization requests
	SealPushed  SealType = "wfp_" // pushed authorization requests
	SealSession SealType = "wfk_" // session cookies
	SealForm    SealType = "wff_" // anti-forgery tokens of forms
	SealNonce   SealType = "wfn_" // nonces of DPoP proofs
	SealDevice  SealType = "wfd_" // device codes
	SealLogout  SealType = "wfl_" // pending logout requests
	SealKnown   SealType = "wfb_" // cookies of browsers in which somebody has signed in
	SealAway    SealType = "wfi_" // cookies of browsers that are away at an identity provider
	SealHalf    SealType = "wfh_" // cookies of browsers in which somebody has proven a part of who they are
	SealPasskey SealType = "wfw_" // challenges for passkeys
	SealSecret  SealType = "wfo_" // what a page of an account shows and its form brings back
	SealProbe   SealType = "wft_" // probes of operators, who ask what arrives of a request
	SealApp     SealType = "wfg_" // cookies of hosts of apps behind forward auth
	SealAppAway SealType = "wfv_" // state of browsers that are away from such a host to sign in
	SealLink    SealType = "wfe_" // links in invitations, and in mails to those who cannot sign in
)

// maxSealed is longer than anything that is sealed.
const maxSealed = 16 << 10

// errNotSealed is the answer for any string that this server did not seal for that type, under a key that it still has.
var errNotSealed = fmt.Errorf("sealed string: %w", ErrNotFound)

// seals are the keys of sealed strings, derived from the sealing keys that memory holds.
type seals struct {
	keys map[uint32]*sealKey
}

type sealKey struct {
	sequence uint32
	secret   []byte
	aeads    sync.Map // SealType -> derived
}

// derived are the keys of one type: the AEAD, and that from which fixed nonces come, as HMACs ready to be used.
type derived struct {
	aead   cipher.AEAD
	nonces *sync.Pool
}

func newSeals(keys []*Key) *seals {
	s := &seals{keys: make(map[uint32]*sealKey, len(keys))}
	for _, k := range keys {
		seq := uint32(k.Sequence)
		s.keys[seq] = &sealKey{sequence: seq, secret: k.Private.([]byte)}
	}
	return s
}

func (k *sealKey) derive(t SealType) (derived, error) {
	if d, ok := k.aeads.Load(t); ok {
		return d.(derived), nil
	}
	material, err := hkdf.Key(sha256.New, k.secret, nil, "warifu sealed string "+string(t), 2*chacha20poly1305.KeySize)
	if err != nil {
		return derived{}, fmt.Errorf("derive sealing key: %w", err)
	}
	aead, err := chacha20poly1305.NewX(material[:chacha20poly1305.KeySize])
	if err != nil {
		return derived{}, fmt.Errorf("derive sealing key: %w", err)
	}
	nonce := material[chacha20poly1305.KeySize:]
	d := derived{aead: aead, nonces: &sync.Pool{New: func() any { return hmac.New(sha256.New, nonce) }}}
	k.aeads.Store(t, d)
	return d, nil
}

func (s *Store) sealingKey() (*sealKey, error) {
	now := s.now()
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	keys := s.mem.byUse[UseSeal]
	i := activeKey(keys, now)
	if i < 0 {
		return nil, errors.New("there is no sealing key yet")
	}
	return s.mem.seals.keys[uint32(keys[i].Sequence)], nil
}

// Seal makes an opaque, authenticated, URL-safe string of plain. Sealing the same plain twice gives two strings.
func (s *Store) Seal(t SealType, plain []byte) (string, error) { return s.seal(t, plain, false) }

// SealFixed is Seal, but the same plain gives the same string while the sealing key stays: the nonce is a keyed hash of
// plain, so nonces repeat only together with what they encrypt.
func (s *Store) SealFixed(t SealType, plain []byte) (string, error) { return s.seal(t, plain, true) }

func (s *Store) seal(t SealType, plain []byte, fixed bool) (string, error) {
	k, err := s.sealingKey()
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	d, err := k.derive(t)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	const head = 4 + chacha20poly1305.NonceSizeX
	out := make([]byte, head, head+len(plain)+chacha20poly1305.Overhead)
	binary.BigEndian.PutUint32(out, k.sequence)
	if fixed {
		mac := d.nonces.Get().(hash.Hash)
		mac.Reset()
		mac.Write(plain)
		mac.Sum(out[4:4]) // is longer than a nonce: what is too much is overwritten
		d.nonces.Put(mac)
	} else {
		_, _ = rand.Read(out[4:]) // never fails: crypto/rand ends the process instead
	}
	out = d.aead.Seal(out, out[4:head], plain, out[:4])
	text := make([]byte, len(t), len(t)+base64.RawURLEncoding.EncodedLen(len(out)))
	copy(text, t)
	return string(base64.RawURLEncoding.AppendEncode(text, out)), nil
}

// Open returns what Seal took. For any string that did not come from Seal for this type, or whose key is gone, it
// returns [ErrNotFound]; etcd is never asked.
func (s *Store) Open(t SealType, sealed string) ([]byte, error) {
	if len(sealed) > maxSealed || len(sealed) < len(t) || sealed[:len(t)] != string(t) {
		return nil, errNotSealed
	}
	// A string has one spelling: strict about trailing bits, and no line breaks, which the decoder would skip.
	if strings.ContainsAny(sealed, "\r\n") {
		return nil, errNotSealed
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed[len(t):])
	const head = 4 + chacha20poly1305.NonceSizeX
	if err != nil || len(raw) < head {
		return nil, errNotSealed
	}
	s.mem.mu.RLock()
	k := s.mem.seals.keys[binary.BigEndian.Uint32(raw)]
	s.mem.mu.RUnlock()
	if k == nil {
		return nil, errNotSealed
	}
	d, err := k.derive(t)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	plain, err := d.aead.Open(raw[head:head], raw[4:head], raw[head:], raw[:4])
	if err != nil {
		return nil, errNotSealed
	}
	return plain, nil
}
