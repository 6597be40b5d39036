package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"

	"github.com/warifu/warifu/storage"
)

// A client's keys verify what it signs: assertions that authenticate it (RFC 7523) and request objects (RFC 9101). They are in
// its registration (jwks), or at an address of the client's (jwks_uri), from where they are fetched when they are needed and
// kept for a while. Whoever knows a client's id can make this server fetch, so each address is asked rarely, and all of them
// together not often.
const (
	// keySetFresh is how long a fetched set is taken for current: a key that its client has removed is good for as long.
	keySetFresh = 10 * time.Minute
	// keySetStale is how long a set is used while its address gives nothing better.
	keySetStale = time.Hour
	// keySetPause is the least time between two fetches from one address, whatever they brought.
	keySetPause = 10 * time.Second

	maxKeySet  = 64 << 10 // bytes of a set
	maxKeys    = 20       // keys in a set
	maxKeySets = 1000     // sets that are kept
	minRSA     = 2048     // bits (RFC 7518 section 3.3); go-jose takes no key of more than 4096
)

// newKeySets keeps the sets that were fetched, by address.
func (s *Server) newKeySets() *fetches[[]jose.JSONWebKey] {
	return newFetches(s.fetchKeySet, keySetPause, maxKeySets, rate.NewLimiter(20, 100), nil)
}

// clientKeys are the public keys of c that may have signed what names kid in its header: those of that name, or those without
// a name when the set has none of that name; all of them when kid is empty. No key at all is a verdict: nothing that c is said
// to have signed is good. That includes an address that cannot be reached, or holds no key set, which the log tells: what is
// wrong there is for the client to put right, and a reply that tells the difference would tell strangers what this
// server can reach. An error is a fault of ours, a 503.
//
// A key that the set does not have is looked for at the address once more, at the most each [keySetPause]: the client may have
// rotated its keys.
func (s *Server) clientKeys(ctx context.Context, c *storage.Client, kid string) ([]jose.JSONWebKey, error) {
	if c.JWKSURI == "" {
		if c.JWKS == "" {
			return nil, nil
		}
		keys, err := parseKeySet([]byte(c.JWKS))
		if err != nil {
			s.log.WarnContext(ctx, "a client's jwks cannot be read", "client", c.ID, "error", err)
		}
		return named(keys, kid), nil
	}
	keys, current := s.keySets.held(c.JWKSURI, s.now())
	if found := named(keys, kid); current && len(found) > 0 {
		return found, nil
	}
	keys, err := s.keySets.again(ctx, c.JWKSURI, s.now())
	if found := named(keys, kid); len(found) > 0 {
		return found, nil
	}
	return nil, err
}

func (s *Server) fetchKeySet(ctx context.Context, address string) ([]jose.JSONWebKey, lifetime, error) {
	reply, err := s.cfg.Outbound.Get(ctx, address, "application/jwk-set+json, application/json", maxKeySet)
	var keys []jose.JSONWebKey
	if err == nil {
		keys, err = parseKeySet(reply.Body)
	}
	if err != nil {
		s.log.WarnContext(ctx, "a client's keys cannot be fetched from its jwks_uri", "address", address, "error", err)
	}
	return keys, lifetime{fresh: keySetFresh, usable: keySetStale}, err
}

// parseKeySet reads the public keys of a JWK Set (RFC 7517 section 5) that can verify a signature. Private and symmetric keys,
// keys for something else and keys that are too weak or of an unknown kind are left out; they do not spoil the others.
func parseKeySet(text []byte) ([]jose.JSONWebKey, error) {
	if len(text) > maxKeySet {
		return nil, fmt.Errorf("a key set of more than %d bytes", maxKeySet)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("not a JWK Set") // the error would quote what is there
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("a key set of more than %d keys", maxKeys)
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
		if (key.Use == "" || key.Use == "sig") && verifies(key.Key) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// holdsSecrets says whether a key of a JWK Set is private or symmetric (RFC 7518 section 6): nothing to be stored in the open.
func holdsSecrets(text []byte) bool {
	var set struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	return json.Unmarshal(text, &set) == nil && slices.ContainsFunc(set.Keys, func(key map[string]json.RawMessage) bool {
		return slices.ContainsFunc([]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}, func(name string) bool { return key[name] != nil })
	})
}

// verifies says whether a key is one of those that clients may sign with: RSA (RS256, PS256), P-256 (ES256) or Ed25519 (EdDSA).
func verifies(key any) bool {
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

// named are the keys of that name, or else those without a name. Without kid, all.
func named(keys []jose.JSONWebKey, kid string) []jose.JSONWebKey {
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
