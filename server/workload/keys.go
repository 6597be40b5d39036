package workload

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
)

const (
	// fresh is how long keys are current: one that an issuer has taken back is good for as long.
	fresh = 10 * time.Minute
	// usable is how long keys are used while the issuer gives no others.
	usable = 4 * time.Hour
	// pause is the least time between two looks at an issuer, whatever they brought; after some that have failed the next
	// one in the background comes later, up to backOff.
	pause   = 10 * time.Second
	backOff = 5 * time.Minute
	// lookTime bounds a look.
	lookTime = 8 * time.Second
	// mostWaiting requests wait for one issuer at once: each has a place among those at work, and an issuer that hangs
	// must not have all of them.
	mostWaiting = 8
)

// errBusy: as many requests wait for this issuer as may.
var errBusy = errors.New("too many requests wait for its keys")

// keyring are the keys of one issuer.
type keyring struct {
	issuer Issuer
	fetch  func(context.Context) ([]jose.JSONWebKey, error)

	mu     sync.Mutex        // guards the rest
	keys   []jose.JSONWebKey // never modified
	at     time.Time         // when they were fetched
	tried  time.Time         // when a look began last
	failed int               // looks since then that brought nothing
	err    error             // of the last look
	// looking is closed when the look that is under way has ended; nil when none is.
	looking chan struct{}
	waiting int // requests that wait for it
}

// learn takes over what is known of the same issuer.
func (r *keyring) learn(before *keyring) {
	before.mu.Lock()
	defer before.mu.Unlock()
	r.keys, r.at, r.tried, r.failed, r.err = before.keys, before.at, before.tried, before.failed, before.err
}

// due reports whether the background is to look again.
func (r *keyring) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := min(pause<<min(r.failed, 6), backOff)
	current := !r.at.IsZero() && now.Sub(r.at) < fresh
	return r.looking == nil && !current && (r.tried.IsZero() || now.Sub(r.tried) >= wait)
}

// held are the keys that may be used.
func (r *keyring) held(now time.Time) []jose.JSONWebKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.IsZero() || now.Sub(r.at) >= usable {
		return nil
	}
	return r.keys
}

// named are the keys that may have signed what names kid in its header. None is a verdict: the issuer has no such key.
// An error is a fault: what it has is not known.
func (r *keyring) named(ctx context.Context, kid string, now func() time.Time) ([]jose.JSONWebKey, error) {
	if found := oauth.KeysNamed(r.held(now()), kid); len(found) > 0 {
		return found, nil
	}
	err := r.look(ctx, now())
	if found := oauth.KeysNamed(r.held(now()), kid); len(found) > 0 {
		return found, nil
	}
	return nil, err
}

// look fetches the keys, unless that was done a moment ago, or is being done: then it waits for that. The error is that
// of the last look.
func (r *keyring) look(ctx context.Context, now time.Time) error {
	r.mu.Lock()
	if other := r.looking; other != nil {
		if r.waiting >= mostWaiting {
			r.mu.Unlock()
			return errBusy
		}
		r.waiting++
		r.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.waiting--; ctx.Err() != nil {
			return fmt.Errorf("wait for keys: %w", ctx.Err())
		}
		return r.err
	}
	if !r.tried.IsZero() && now.Sub(r.tried) < pause {
		defer r.mu.Unlock()
		return r.err
	}
	done := make(chan struct{})
	r.looking, r.tried = done, now
	r.mu.Unlock()

	// A request that goes away takes nothing from those that wait.
	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	defer cancel()
	keys, err := r.fetch(looking)
	r.mu.Lock()
	defer r.mu.Unlock()
	close(done)
	r.looking, r.err = nil, err
	if err != nil {
		r.failed++
		return err
	}
	r.keys, r.at, r.failed = keys, now, 0
	return nil
}

// fetchKeys gets the keys of an issuer from where they are. An issuer without keys is an error: that keeps those
// of before in use.
func (s *Issuers) fetchKeys(ctx context.Context, issuer Issuer) ([]jose.JSONWebKey, error) {
	text, err := s.keySet(ctx, issuer)
	if err != nil {
		return nil, err
	}
	keys, err := oauth.ParseIssuerKeys(text)
	if err == nil && len(keys) == 0 {
		err = errors.New("the key set has no key that verifies signatures of tokens")
	}
	return keys, err
}

// keyTypes is what is asked for at the address of keys.
const keyTypes = "application/jwk-set+json, application/json"

func (s *Issuers) keySet(ctx context.Context, issuer Issuer) ([]byte, error) {
	switch {
	case issuer.JWKSFile != "":
		return readBounded(issuer.JWKSFile)
	case issuer.Kubernetes != nil:
		return clusterKeys(ctx, *issuer.Kubernetes)
	case issuer.JWKSURI != "":
		reply, err := s.Outbound.Get(ctx, issuer.JWKSURI, keyTypes, oauth.MaxKeySet)
		return reply.Body, err
	}
	address, err := s.discover(ctx, issuer.Name)
	if err != nil {
		return nil, err
	}
	reply, err := s.Outbound.Get(ctx, address, keyTypes, oauth.MaxKeySet)
	return reply.Body, err
}

// discover finds where the keys of an issuer are (OpenID Connect Discovery 1.0 section 4).
func (s *Issuers) discover(ctx context.Context, issuer string) (string, error) {
	at := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	reply, err := s.Outbound.Get(ctx, at, "application/json", oauth.MaxKeySet)
	if err != nil {
		return "", fmt.Errorf("discovery: %w", err)
	}
	var found struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	switch {
	case json.Unmarshal(reply.Body, &found) != nil:
		return "", errors.New("discovery: what is there is not metadata")
	case found.Issuer != issuer: // section 4.3
		return "", fmt.Errorf("discovery: it is the metadata of another issuer, %q", oauth.Printable(found.Issuer))
	case found.Keys == "":
		return "", errors.New("discovery: the metadata has no jwks_uri")
	}
	return found.Keys, nil
}

// clusterKeys asks the API of a cluster. The files are read each time: a cluster replaces its tokens every hour.
func clusterKeys(ctx context.Context, k Kubernetes) ([]byte, error) {
	opts := outbound.Options{Own: true}
	if k.CAFile != "" {
		pem, err := readBounded(k.CAFile)
		if err != nil {
			return nil, err
		}
		if opts.RootCAs = x509.NewCertPool(); !opts.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate (PEM)", k.CAFile)
		}
	}
	bearer := ""
	if k.TokenFile != "" {
		token, err := readBounded(k.TokenFile)
		if err != nil {
			return nil, err
		}
		bearer = strings.TrimSpace(string(token))
	}
	client := outbound.New(opts)
	defer client.Close()
	reply, err := client.GetAs(ctx, bearer, strings.TrimSuffix(k.Server, "/")+"/openid/v1/jwks", keyTypes, oauth.MaxKeySet)
	return reply.Body, err
}

// maxFile is in bytes.
const maxFile = 1 << 20

func readBounded(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && (info.Size() > maxFile || !info.Mode().IsRegular()) {
		err = fmt.Errorf("%s is not a file of at most 1 MiB", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	return text, nil
}
