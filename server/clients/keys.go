package clients

import (
	"context"
	"log/slog"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// A client's keys verify what it signs: assertions that authenticate it (RFC 7523) and request objects (RFC 9101). They
// are in its registration (jwks), or at an address of the client's (jwks_uri), from where they are fetched when they
// are needed and kept for a while. Whoever knows a client's id can make this server fetch, so each address is asked
// rarely, and all of them together not often.
const (
	// keySetFresh is how long a fetched set is taken for current: a key that its client has removed is good for as
	// long.
	keySetFresh = 10 * time.Minute
	// keySetStale is how long a set is used while its address gives nothing better.
	keySetStale = time.Hour
	// keySetPause is the least time between two fetches from one address, whatever they brought.
	keySetPause = 10 * time.Second

	maxKeySets = 1000 // sets that are kept
)

// newKeySets keeps the sets that were fetched, by address.
func newKeySets() *fetches[[]jose.JSONWebKey] {
	return newFetches[[]jose.JSONWebKey](keySetPause, maxKeySets, rate.NewLimiter(20, 100), nil)
}

// Keys are the public keys of c that may have signed what names kid in its header: those of that name, or those without
// a name when the set has none of that name; all of them when kid is empty. No key at all is a verdict: nothing that c
// is said to have signed is good. That includes an address that cannot be reached, or holds no key set, which the log
// tells: what is wrong there is for the client to put right, and a reply that tells the difference would tell strangers
// what this server can reach. An error is a fault of this server, a 503.
//
// A key that the set does not have is looked for at the address once more, at most once per [keySetPause]: the client
// may have rotated its keys.
func (s *Clients) Keys(ctx context.Context, c *storage.Client, kid string) ([]jose.JSONWebKey, error) {
	if c.JWKSURI == "" {
		if c.JWKS == "" {
			return nil, nil
		}
		keys, err := oauth.ParseKeys([]byte(c.JWKS))
		if err != nil {
			s.tell(ctx, slog.LevelWarn, "a client's jwks cannot be read", "client", c.ID, "error", err)
		}
		return oauth.KeysNamed(keys, kid), nil
	}
	keys, current := s.keySets.held(c.JWKSURI, s.Now())
	if found := oauth.KeysNamed(keys, kid); current && len(found) > 0 {
		return found, nil
	}
	keys, err := s.keySets.again(ctx, c.JWKSURI, s.Now(), s.fetchKeySet)
	if found := oauth.KeysNamed(keys, kid); len(found) > 0 {
		return found, nil
	}
	return nil, err
}

func (s *Clients) fetchKeySet(ctx context.Context, address string) ([]jose.JSONWebKey, lifetime, error) {
	reply, err := s.Outbound.Get(ctx, address, "application/jwk-set+json, application/json", oauth.MaxKeySet)
	var keys []jose.JSONWebKey
	if err == nil {
		keys, err = oauth.ParseKeys(reply.Body)
	}
	if err != nil {
		s.tell(ctx, slog.LevelWarn, "a client's keys cannot be fetched from its jwks_uri",
			"address", oauth.ShownURI(address), "error", err)
	}
	return keys, lifetime{fresh: keySetFresh, usable: keySetStale}, err
}
