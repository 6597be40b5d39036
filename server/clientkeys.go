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
	"sync"
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

// keySets are the sets that were fetched, by address.
type keySets struct {
	fetches *rate.Limiter // of all addresses

	mu   sync.Mutex // guards sets and the fields of each
	sets map[string]*keySet
}

type keySet struct {
	keys    []jose.JSONWebKey // never modified
	fetched time.Time         // when keys were; zero: never
	tried   time.Time         // when a fetch was begun last
	// fetching is closed when the fetch that is under way has ended; nil when none is.
	fetching chan struct{}
}

func newKeySets() *keySets {
	return &keySets{fetches: rate.NewLimiter(20, 100), sets: make(map[string]*keySet)}
}

var errManyFetches = errors.New("too many fetches of client keys")

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
	keys, err := s.fetchKeys(ctx, c)
	if found := named(keys, kid); len(found) > 0 {
		return found, nil
	}
	return nil, err
}

// held are the keys of a set, and whether they are current.
func (k *keySets) held(address string, now time.Time) ([]jose.JSONWebKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := k.sets[address]
	if set == nil {
		return nil, false
	}
	return set.keys, now.Sub(set.fetched) < keySetFresh
}

// usable are the keys of a set that may still be used. The mutex is held.
func (set *keySet) usable(now time.Time) []jose.JSONWebKey {
	if now.Sub(set.fetched) >= keySetStale {
		return nil
	}
	return set.keys
}

// fetchKeys fetches the keys of c, unless that was done a moment ago, or is being done: then it waits for that. Its error is a
// fault of ours; keys may come with it.
func (s *Server) fetchKeys(ctx context.Context, c *storage.Client) ([]jose.JSONWebKey, error) {
	k, now := s.keySets, s.now()
	k.mu.Lock()
	set := k.set(c.JWKSURI)
	if other := set.fetching; other != nil {
		k.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for client keys: %w", ctx.Err())
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		return set.usable(now), nil
	}
	if now.Sub(set.tried) < keySetPause {
		defer k.mu.Unlock()
		return set.usable(now), nil
	}
	if !k.fetches.AllowN(now, 1) {
		defer k.mu.Unlock()
		return set.usable(now), errManyFetches
	}
	set.fetching, set.tried = make(chan struct{}), now
	k.mu.Unlock()

	defer k.fetched(set)
	// Others may wait for this, so it does not end with the request that began it. It has a short time limit of its own.
	keys, err := s.fetchKeySet(context.WithoutCancel(ctx), c.JWKSURI)
	if err != nil {
		s.log.WarnContext(ctx, "a client's keys cannot be fetched from its jwks_uri", "client", c.ID, "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		set.keys, set.fetched = keys, now
	}
	return set.usable(now), nil
}

// fetched ends a fetch for those that wait for it.
func (k *keySets) fetched(set *keySet) {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(set.fetching)
	set.fetching = nil
}

// set is the set of an address. When there are too many, the one that was fetched longest ago makes room. The mutex is held.
func (k *keySets) set(address string) *keySet {
	if set := k.sets[address]; set != nil {
		return set
	}
	if len(k.sets) >= maxKeySets {
		oldest := ""
		for at, set := range k.sets {
			if set.fetching == nil && (oldest == "" || set.tried.Before(k.sets[oldest].tried)) {
				oldest = at
			}
		}
		delete(k.sets, oldest)
	}
	set := &keySet{}
	k.sets[address] = set
	return set
}

func (s *Server) fetchKeySet(ctx context.Context, address string) ([]jose.JSONWebKey, error) {
	reply, err := s.cfg.Outbound.Get(ctx, address, "application/jwk-set+json, application/json", maxKeySet)
	if err != nil {
		return nil, err
	}
	return parseKeySet(reply.Body)
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
