package oauth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Bounds of a client's JWK Set, whether it is registered or fetched: each key may be tried on a signature without kid.
const (
	MaxKeySet = 64 << 10 // bytes
	MaxKeys   = 20
)

// Bounds of an RSA key in bits: below, it can be broken (RFC 7518 section 3.3); above, go-jose reads none, because
// verifying costs too much.
const minRSA, maxRSA = 2048, 4096

// maxKeyID is in bytes.
const maxKeyID = 256

// privateMembers are of private and symmetric keys (RFC 7518 section 6). Whoever reads where they are written would
// have the key.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// PrivateMembers returns the members of a JWK that no public key has.
func PrivateMembers() []string { return slices.Clone(privateMembers) }

// keyTypes are those of keys that this server verifies with, and keyMembers the members that each must have, and its
// curve.
var (
	keyTypes   = []string{"EC", "OKP", "RSA"}
	keyMembers = map[string]struct {
		members []string
		curve   string
	}{
		"RSA": {members: []string{"n", "e"}},
		"EC":  {members: []string{"crv", "x", "y"}, curve: "P-256"},
		"OKP": {members: []string{"crv", "x"}, curve: "Ed25519"},
	}
)

// KeyTypes returns the types of keys that this server verifies signatures with.
func KeyTypes() []string { return slices.Clone(keyTypes) }

// Verifies reports whether a public key is one of those that clients may sign with: RSA (RS256, PS256), P-256 (ES256)
// or Ed25519 (EdDSA), and strong enough.
func Verifies(key any) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		return key.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return len(key) == ed25519.PublicKeySize
	}
	return false
}

// ParseKeys reads the public keys of a JWK Set (RFC 7517 section 5) that can verify a signature. Private and symmetric
// keys, keys for something else and keys that are too weak or of an unknown kind are left out; they do not spoil the
// others.
func ParseKeys(text []byte) ([]jose.JSONWebKey, error) {
	return parseKeys(text, Verifies, "", "sig")
}

// ParseIssuerKeys reads those of an issuer of workloads' tokens, who may sign with the larger curves as well, and in a
// SPIFFE bundle says of its keys that they are for JWT-SVIDs (SPIFFE Trust Domain and Bundle section 4.2.2).
func ParseIssuerKeys(text []byte) ([]jose.JSONWebKey, error) {
	return parseKeys(text, func(key any) bool {
		ec, is := key.(*ecdsa.PublicKey)
		return Verifies(key) || is && (ec.Curve == elliptic.P384() || ec.Curve == elliptic.P521())
	}, "", "sig", "jwt-svid")
}

func parseKeys(text []byte, verifies func(any) bool, uses ...string) ([]jose.JSONWebKey, error) {
	if len(text) > MaxKeySet {
		return nil, fmt.Errorf("a key set of more than %d bytes", MaxKeySet)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("not a JWK Set") // the error would quote what is there
	}
	if len(set.Keys) > MaxKeys {
		return nil, fmt.Errorf("a key set of more than %d keys", MaxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var secret struct {
			D json.RawMessage `json:"d"`
			K json.RawMessage `json:"k"`
		}
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &secret) != nil || secret.D != nil || secret.K != nil || json.Unmarshal(raw, &key) != nil {
			continue
		}
		if slices.Contains(uses, key.Use) && verifies(key.Key) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// KeysNamed are the keys of that name, or else those without a name. Without kid, all.
func KeysNamed(keys []jose.JSONWebKey, kid string) []jose.JSONWebKey {
	if kid == "" {
		return keys
	}
	var same, nameless []jose.JSONWebKey
	for _, key := range keys {
		switch key.KeyID {
		case kid:
			same = append(same, key)
		case "":
			nameless = append(nameless, key)
		}
	}
	if len(same) > 0 {
		return same
	}
	return nameless
}

// clientKey is a key of a client's set while the set is checked.
type clientKey struct {
	members map[string]json.RawMessage // nil if it is not an object
	usable  bool                       // this server can verify a signature with it
}

// text is a member that is text.
func (k clientKey) text(name string) string {
	var text string
	_ = json.Unmarshal(k.members[name], &text) // what is not text was reported
	return text
}

// signs reports whether the key is for an algorithm, or for any when it is empty.
func (k clientKey) signs(alg string) bool {
	only, kty := k.text("alg"), k.text("kty")
	return k.text("use") != "enc" && (alg == "" || kty == keyType(alg) && (only == "" || only == alg))
}

// canSign reports whether the client's set has a key for signatures of an algorithm, or for any when it is empty. A key
// that was refused counts: what is wrong with it has been said.
func (k *checker) canSign(alg string) bool {
	if len(k.keys) == 0 {
		return true
	}
	return slices.ContainsFunc(k.keys, func(key clientKey) bool {
		if k.ForeignKeys {
			return key.usable && key.signs(alg)
		}
		_, known := keyMembers[key.text("kty")]
		return key.members == nil || key.signs(alg) || alg != "" && !known && key.signs("")
	})
}

// checkKeySet checks a JWK Set, and keeps its keys for what is signed with them.
func (k *checker) checkKeySet(f *Field, text string) {
	var set map[string]json.RawMessage
	var keys []json.RawMessage
	switch {
	case len(text) > MaxKeySet:
		k.violates(f, "", "key", "is larger than %d KiB", MaxKeySet>>10)
		return
	case json.Unmarshal([]byte(text), &set) != nil || set == nil:
		k.violates(f, "", "wrong-type", "must be a JWK Set, a JSON object")
		return
	case set["keys"] == nil:
		k.violates(f, ".keys", "required", "is required")
		return
	case json.Unmarshal(set["keys"], &keys) != nil:
		k.violates(f, ".keys", "wrong-type", "must be a list")
		return
	case len(keys) == 0:
		k.violates(f, ".keys", "required", "is empty: list at least one")
		return
	case len(keys) > MaxKeys:
		k.violates(f, ".keys", "key", "holds %d keys, and a client may have %d", len(keys), MaxKeys)
		return
	}
	before, names := len(k.found), make(map[string]bool)
	for i, raw := range keys {
		at := ".keys[" + strconv.Itoa(i) + "]"
		key := k.checkKey(f, at, raw)
		k.keys = append(k.keys, key)
		kid := key.text("kid")
		if kid != "" && names[kid] && !k.ForeignKeys {
			k.violates(f, at+".kid", "duplicate",
				"is also the kid of another key, so a signature could not be assigned to one of them")
		}
		names[kid] = true
	}
	switch {
	case !k.ForeignKeys || len(k.found) > before ||
		slices.ContainsFunc(k.keys, func(key clientKey) bool { return key.usable }):
	case len(k.foreign) > 0: // no key is usable: what is wrong with each
		k.found = append(k.found, k.foreign...)
	default:
		k.violates(f, "", "keys", "has no key with which this server can verify a signature")
	}
}

// checkKey holds one key against RFC 7517 and 7518, and against what this server verifies. No violation repeats a part
// of a key.
func (k *checker) checkKey(f *Field, at string, raw json.RawMessage) clientKey {
	var key clientKey
	if json.Unmarshal(raw, &key.members) != nil || key.members == nil {
		k.violates(f, at, "wrong-type", "must be a mapping of keys to values")
		return key
	}
	for _, name := range privateMembers {
		if _, there := key.members[name]; there {
			k.violates(f, at+"."+name, "private-key",
				"is part of a private key, which must not leave the app: register only a public key, "+
					"and replace this one, because it has been exposed").Surplus = true
			return key
		}
	}
	if key.text("kty") == "oct" {
		k.violates(f, at+".kty", "private-key", "is oct, a shared secret: use a key pair (RSA, EC or OKP)")
		return key
	}
	silent := &checker{Policy: k.Policy}
	if !k.ForeignKeys {
		silent = k
	}
	key.usable = silent.checkPublicKey(f, at, key)
	if k.ForeignKeys {
		k.foreign = append(k.foreign, silent.found...)
	}
	return key
}

// checkPublicKey reports whether this server can verify signatures with a key, and what is wrong with it if not.
func (k *checker) checkPublicKey(f *Field, at string, key clientKey) bool {
	before := len(k.found)
	kty := k.keyText(f, at, key, "kty", true)
	shape, known := keyMembers[kty]
	if kty != "" && !known {
		k.violates(f, at+".kty", "key-type", "must be one of %s", strings.Join(keyTypes, ", ")).among(kty, keyTypes)
	}
	if !known {
		return false
	}
	for _, member := range shape.members {
		text := k.keyText(f, at, key, member, true)
		if member == "crv" && text != "" && text != shape.curve {
			k.violates(f, at+".crv", "key-type", "must be %s for a key of the type %s", shape.curve, kty).mended(shape.curve)
		}
	}
	forSignatures := k.checkKeyUse(f, at, key, kty)
	if len(k.found) > before {
		return false
	}
	if bits := rsaBits(key); kty == "RSA" && (bits < minRSA || bits > maxRSA) {
		k.violates(f, at, "key-size", "has %d bits; an RSA key must have %d to %d", bits, minRSA, maxRSA)
		return false
	}
	var parsed jose.JSONWebKey
	once, _ := json.Marshal(key.members) // it came from JSON, and may have had members twice
	if parsed.UnmarshalJSON(once) != nil {
		k.violates(f, at, "key", "is not a public key of the type %s", kty)
		return false
	}
	return forSignatures && Verifies(parsed.Key)
}

// rsaBits is the length of an RSA key's modulus.
func rsaBits(key clientKey) int {
	n, err := base64.RawURLEncoding.DecodeString(key.text("n"))
	if err != nil {
		return 0
	}
	return new(big.Int).SetBytes(n).BitLen()
}

// keyText is a member of a key that must be text.
func (k *checker) keyText(f *Field, at string, key clientKey, name string, required bool) string {
	raw, there := key.members[name]
	var text string
	switch {
	case !there && required:
		k.violates(f, at+"."+name, "required", "is required")
	case !there:
	case json.Unmarshal(raw, &text) != nil || string(raw) == "null":
		k.violates(f, at+"."+name, "wrong-type", "must be text: put it in quotes")
	case text == "":
		k.violates(f, at+"."+name, "required", "is empty")
	}
	return text
}

// checkKeyUse checks what a key says that it is for (RFC 7517 sections 4.2, 4.4 and 4.5), and whether that is
// signatures.
func (k *checker) checkKeyUse(f *Field, at string, key clientKey, kty string) bool {
	if len(k.keyText(f, at, key, "kid", false)) > maxKeyID {
		k.violates(f, at+".kid", "key", "is longer than %d bytes", maxKeyID)
	}
	switch use := k.keyText(f, at, key, "use", false); use {
	case "enc":
		return false // not for us
	case "", "sig":
	default:
		k.violates(f, at+".use", "wrong-value", "must be sig or enc").among(use, []string{"sig", "enc"})
	}
	alg := k.keyText(f, at, key, "alg", false)
	algs := slices.DeleteFunc(ClientAlgs(), func(alg string) bool { return keyType(alg) != kty })
	if alg != "" && !slices.Contains(algs, alg) {
		k.violates(f, at+".alg", "wrong-value",
			"must be an algorithm of a key of the type %s that this server verifies: %s", kty, strings.Join(algs, ", "))
	}
	return true
}
