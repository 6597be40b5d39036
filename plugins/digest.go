package plugins

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"
)

// Digest is the fingerprint of an environment: hex HMAC-SHA-256 over the names
// and values in the order of the names, each with its length before it. It is
// keyed because a bare hash of a guessable value gives the value away.
func Digest(key []byte, env map[string]string) string {
	mac := hmac.New(sha256.New, key)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		writeSized(mac, name)
		writeSized(mac, env[name])
	}
	return hex.EncodeToString(mac.Sum(nil))
}

func writeSized(h hash.Hash, s string) {
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(len(s)))
	_, _ = h.Write(size[:]) // a hash never fails
	_, _ = h.Write([]byte(s))
}
