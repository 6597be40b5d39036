package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/warifu/warifu/storage"
)

// algorithms are those of these names, for package jose.
func algorithms(names []string) []jose.SignatureAlgorithm {
	algs := make([]jose.SignatureAlgorithm, len(names))
	for i, name := range names {
		algs[i] = jose.SignatureAlgorithm(name)
	}
	return algs
}

// signers keeps one signer for each key and type.
type signers struct{ made sync.Map }

type signerName struct{ key, typ string }

func (c *signers) of(k *storage.Key, alg, typ string) *signer {
	name := signerName{k.Name(), typ}
	if made, ok := c.made.Load(name); ok && made.(*signer).of == k {
		return made.(*signer)
	}
	made := newSigner(k, alg, typ)
	c.made.Store(name, made)
	return made
}

// signer makes JWSs in compact form (RFC 7515 section 7.1) with one key and one type. Their protected header is always
// the same, so it is encoded once: package jose would build, encode and copy it for each token, which costs more than
// half of what ES256 does.
type signer struct {
	of     *storage.Key
	alg    string
	header string // encoded, with the dot behind it
}

func newSigner(k *storage.Key, alg, typ string) *signer {
	header, _ := json.Marshal(struct { // strings: it cannot fail
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{alg, k.Name(), typ})
	return &signer{of: k, alg: alg, header: base64.RawURLEncoding.EncodeToString(header) + "."}
}

func (s *signer) sign(payload []byte) (string, error) {
	encoding := base64.RawURLEncoding
	out := make([]byte, 0, len(s.header)+encoding.EncodedLen(len(payload))+1+encoding.EncodedLen(s.size()))
	out = append(out, s.header...)
	out = encoding.AppendEncode(out, payload)
	signature, err := s.signature(out)
	if err != nil {
		return "", err
	}
	return string(encoding.AppendEncode(append(out, '.'), signature)), nil
}

// size is that of a signature, in bytes.
func (s *signer) size() int {
	if key, is := s.of.Private.(*rsa.PrivateKey); is {
		return key.Size()
	}
	return 64 // ES256 and EdDSA
}

// signature is that of RFC 7518 sections 3.3, 3.4 and 3.5, and RFC 8037 section 3.1.
func (s *signer) signature(text []byte) ([]byte, error) {
	if s.alg == storage.UseEdDSA {
		return s.of.Private.(crypto.Signer).Sign(nil, text, crypto.Hash(0))
	}
	digest := sha256.Sum256(text)
	switch key := s.of.Private.(type) {
	case *ecdsa.PrivateKey:
		// Deterministic (RFC 6979), as RFC 8725 section 3.2 recommends: poor random numbers cannot give the key away. It
		// also takes a quarter less time, and an ES256 signature is the dearest part of a request for tokens.
		der, err := key.Sign(nil, digest[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		return fixedSize(der)
	default: // RSASSA-PKCS1-v1_5, or RSASSA-PSS with a salt as long as the hash
		opts := crypto.SignerOpts(crypto.SHA256)
		if s.alg == storage.UsePS256 {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		}
		signature, err := key.(crypto.Signer).Sign(rand.Reader, digest[:], opts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.alg, err)
		}
		return signature, nil
	}
}

// fixedSize is the signature of ES256 (RFC 7518 section 3.4) that has the form of RFC 3279 section 2.2.3.
func fixedSize(der []byte) ([]byte, error) {
	const size = 32
	text, sequence := cryptobyte.String(der), cryptobyte.String(nil)
	var r, s []byte
	if !text.ReadASN1(&sequence, asn1.SEQUENCE) || !sequence.ReadASN1Integer(&r) || !sequence.ReadASN1Integer(&s) ||
		len(r) > size || len(s) > size {
		return nil, errors.New("the signature is malformed")
	}
	signature := make([]byte, 2*size)
	copy(signature[size-len(r):], r)
	copy(signature[2*size-len(s):], s)
	return signature, nil
}
