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

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// A pairwise subject holds the id of the user, and has at most 255 characters (OpenID Connect Core 1.0 section 2). So
// MaxUserID is the longest id of a user, in bytes. One that is base64url, as the subjects of Dex are, may have
// MaxEncodedUserID: its bytes are held in place of its characters.
const (
	MaxUserID        = 144
	MaxEncodedUserID = 222
)

// ErrUserID means that an id cannot be one of a user: the error says why.
var ErrUserID = errors.New("not an id of a user")

// CheckUserID says what is wrong with an id of a user: [ErrUserID], with words that complete "the id ...".
func CheckUserID(id string) error {
	_, encoded := longUserID(id)
	switch {
	case id == "":
		return fmt.Errorf("%w: it is empty", ErrUserID)
	case strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }):
		return fmt.Errorf("%w: it has other characters than visible ASCII (OpenID Connect Core section 2)", ErrUserID)
	case len(id) > MaxUserID && !encoded:
		return fmt.Errorf("%w: it has %d characters, and pairwise subjects hold %d, or %d of base64url", ErrUserID, len(id),
			MaxUserID, MaxEncodedUserID)
	}
	return nil
}

// longUserID are the bytes of an id that is too long to be held as it is.
func longUserID(id string) (raw []byte, is bool) {
	if len(id) <= MaxUserID || len(id) > MaxEncodedUserID || strings.ContainsAny(id, "\r\n") {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	return raw, err == nil
}

// pairwiseBlock is the multiple to which the id is padded in a pairwise subject, so that its length tells little to
// apps that compare their users.
const pairwiseBlock = 48

// pairwise are the keys of pairwise subjects.
//
// A subject is the id of the user, encrypted under a nonce that is a MAC over sector and id: the same for the same two,
// and unrelated otherwise. So one sector cannot recognize the users of another (OpenID Connect Core 1.0 section 8.1),
// and this server needs no table to recognize its own. The key is made once and never replaced, because apps keep
// subjects for ever; only the encryption key that seals it in etcd is rotated.
//
// A nonce and a tag leave room for [MaxUserID] bytes. A longer id is encrypted under keys of its own, as in SIV (RFC
// 5297): the MAC over what is encrypted, which names the sector, is both nonce and tag. Such subjects all have 255
// characters, which no other has.
type pairwise struct {
	aead  cipher.AEAD
	nonce []byte
	long  longPairwise
	grant []byte // of marks, see [Store.NewGrantIDOf]
}

// longPairwise are the keys for long ids: what is encrypted is the sector's mark, the length of the id's bytes, and
// these, with zeros up to a size that is always the same.
type longPairwise struct {
	cipher, mac, sector []byte
}

// Sizes of the subjects of long ids, in bytes.
const (
	longTag    = 16
	longSector = 8
	longPlain  = longSector + 1 + MaxEncodedUserID*3/4
	longWhole  = longTag + longPlain // 191, which are 255 characters
)

func (l longPairwise) tag(plain []byte) []byte {
	mac := hmac.New(sha256.New, l.mac)
	mac.Write(plain)
	return mac.Sum(nil)[:longTag]
}

// turn encrypts what is plain, or decrypts what is not.
func (l longPairwise) turn(tag, text []byte) []byte {
	nonce := make([]byte, chacha20.NonceSizeX)
	copy(nonce, tag)
	stream, err := chacha20.NewUnauthenticatedCipher(l.cipher, nonce)
	if err != nil {
		panic("storage: pairwise subject: " + err.Error()) // the sizes are constant
	}
	out := make([]byte, len(text))
	stream.XORKeyStream(out, text)
	return out
}

func (l longPairwise) subject(sector string, id []byte) string {
	mac := hmac.New(sha256.New, l.sector)
	mac.Write([]byte(sector))
	plain := make([]byte, longPlain)
	copy(plain, mac.Sum(nil)[:longSector])
	plain[longSector] = byte(len(id))
	copy(plain[longSector+1:], id)
	tag := l.tag(plain)
	return base64.RawURLEncoding.EncodeToString(append(tag, l.turn(tag, plain)...))
}

func (l longPairwise) user(whole []byte) (id string, ok bool) {
	tag := whole[:longTag]
	plain := l.turn(tag, whole[longTag:])
	if !hmac.Equal(tag, l.tag(plain)) {
		return "", false
	}
	raw := plain[longSector+1:]
	return base64.RawURLEncoding.EncodeToString(raw[:plain[longSector]]), true
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
	const size = chacha20poly1305.KeySize
	long, err := hkdf.Key(sha256.New, secret, nil, "warifu pairwise subject of a long id", 3*size)
	if err != nil {
		panic("storage: derive key: " + err.Error()) // and so is this one
	}
	grant, err := hkdf.Key(sha256.New, secret, nil, "warifu grant of a user", size)
	if err != nil {
		panic("storage: derive key: " + err.Error()) // and so is this one
	}
	return &pairwise{aead: aead, nonce: material[size:], grant: grant,
		long: longPairwise{cipher: long[:size], mac: long[size : 2*size], sector: long[2*size:]}}
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
	if p == nil {
		return "", errNoPairwise
	}
	if raw, is := longUserID(userID); is {
		return p.long.subject(sector, raw), nil
	}
	if userID == "" || len(userID) > MaxUserID || strings.Contains(userID, "\x00") {
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
	if len(raw) == longWhole {
		return p.long.user(raw)
	}
	padded, err := p.aead.Open(nil, raw[:chacha20poly1305.NonceSizeX], raw[chacha20poly1305.NonceSizeX:], nil)
	if err != nil {
		return "", false
	}
	return strings.TrimRight(string(padded), "\x00"), true
}
