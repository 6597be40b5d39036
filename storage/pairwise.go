package storage

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// MaxUserID is the longest id of a user, in bytes: a pairwise subject holds it, and has at most 255 characters (OpenID
// Connect Core 1.0 section 2).
const MaxUserID = 144

// pairwiseBlock is the multiple to which the id is padded in a pairwise subject, so that its length tells little to
// apps that compare their users.
const pairwiseBlock = 48

// pairwise are the keys of pairwise subjects.
//
// A subject is the id of the user, encrypted under a nonce that is a MAC over sector and id: the same for the same two,
// and unrelated otherwise. So one sector cannot recognize the users of another (OpenID Connect Core 1.0 section 8.1),
// and this server needs no table to recognize its own. The key is made once and never replaced, because apps keep
// subjects for ever; only the encryption key that seals it in etcd is rotated.
type pairwise struct {
	aead  cipher.AEAD
	nonce []byte
}

// newPairwise takes the keys of the use, of which there is only one.
func newPairwise(keys []*Key) *pairwise {
	if len(keys) == 0 {
		return nil
	}
	secret, _ := keys[len(keys)-1].Private.([]byte)
	material, err := hkdf.Key(sha256.New, secret, nil, "warifu pairwise subject", 2*chacha20poly1305.KeySize)
	if err != nil {
		panic("storage: derive key: " + err.Error()) // the length is constant
	}
	aead, err := chacha20poly1305.NewX(material[:chacha20poly1305.KeySize])
	if err != nil {
		panic("storage: derive key: " + err.Error()) // and so is this one
	}
	return &pairwise{aead: aead, nonce: material[chacha20poly1305.KeySize:]}
}

var errNoPairwise = errors.New("there is no key for pairwise subjects yet")

func (s *Store) pairwise() *pairwise {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return s.mem.pairwise
}

// PairwiseSubject is the subject of a user for the clients of a sector. It is the same each time.
func (s *Store) PairwiseSubject(sector, userID string) (string, error) {
	p := s.pairwise()
	switch {
	case p == nil:
		return "", errNoPairwise
	case userID == "" || len(userID) > MaxUserID || strings.Contains(userID, "\x00"):
		return "", fmt.Errorf("a user id of %d bytes is too long for a pairwise subject", len(userID))
	}
	mac := hmac.New(sha256.New, p.nonce)
	_ = binary.Write(mac, binary.BigEndian, uint64(len(sector))) // so that no two pairs have the same encoding
	mac.Write([]byte(sector + userID))
	nonce := mac.Sum(nil)[:chacha20poly1305.NonceSizeX]
	padded := make([]byte, (len(userID)+pairwiseBlock-1)/pairwiseBlock*pairwiseBlock)
	copy(padded, userID)
	return base64.RawURLEncoding.EncodeToString(p.aead.Seal(nonce, nonce, padded, nil)), nil
}

// PairwiseUser returns the user whose pairwise subject this is, for any sector; false if it is not one.
func (s *Store) PairwiseUser(subject string) (userID string, ok bool) {
	p := s.pairwise()
	if p == nil || len(subject) > 255 || strings.ContainsAny(subject, "\r\n") {
		return "", false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(subject)
	if err != nil || len(raw) < chacha20poly1305.NonceSizeX {
		return "", false
	}
	padded, err := p.aead.Open(nil, raw[:chacha20poly1305.NonceSizeX], raw[chacha20poly1305.NonceSizeX:], nil)
	if err != nil {
		return "", false
	}
	return strings.TrimRight(string(padded), "\x00"), true
}
