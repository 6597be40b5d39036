package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
)

// Clients that registered themselves (RFC 7591) are records like those of apps, except that they belong to no app and
// carry the hash of a registration access token, with which their owner reads, replaces and removes them (RFC 7592).

// registrationPrefix begins every registration access token: each kind of secret has its own prefix ([SealType]).
const registrationPrefix = "wft_"

// NewRegistrationToken makes a registration access token of 256 random bits: its hash to store, and the value.
func NewRegistrationToken() (hash []byte, value string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	value = registrationPrefix + base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(value))
	return sum[:], value
}

// OwnedBy reports whether a registration access token is the client's. It takes the same time for every wrong one; call
// it on nil for an unknown client.
func (c *Client) OwnedBy(token string) bool {
	var held []byte
	if c != nil {
		held = c.RegistrationToken
	}
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], held) == 1
}

// RegisterClient stores a client that registered itself. It returns [ErrConflict] if its id is not new, and a
// [TakenError] if one of its resource identifiers belongs to another, and [ErrTooMany] if there are [MaxRegistrations].
func (s *Store) RegisterClient(ctx context.Context, c Client, audit ...AuditEntry) (*Client, error) {
	if len(s.registered()) >= MaxRegistrations {
		return nil, fmt.Errorf("register client: %w", ErrTooMany)
	}
	return s.putRegistered(ctx, c, 0, "register client", audit)
}

// ReplaceClient replaces a registration. It returns [ErrConflict] if the registration is no longer at c.Revision, and a
// [TakenError] as above.
func (s *Store) ReplaceClient(ctx context.Context, c Client, audit ...AuditEntry) (*Client, error) {
	return s.putRegistered(ctx, c, c.Revision, "replace client", audit)
}

func (s *Store) putRegistered(ctx context.Context, c Client, revision int64, what string,
	audit []AuditEntry) (*Client, error) {
	c.Revision = revision
	var stored int64
	err := Again(attempts, func() (again bool, err error) {
		var t transaction
		if err := s.storeClient(ctx, &t, &c, ""); err != nil {
			return false, err
		}
		t.then.do(s.auditOps(ctx, audit)...)
		if err := s.run(ctx, &t); err != nil {
			return false, err
		}
		stored = t.revision
		if t.held {
			return false, nil
		}
		if len(c.Resources()) == 0 {
			return false, ErrConflict
		}
		return true, nil // the record changed, or another client took an identifier first: claim finds out which
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	c.Revision = stored
	s.mem.learn(&c)
	return &c, nil
}

// UnregisterClient removes a client that registered itself, with its grants and consents. It returns [ErrConflict] if
// the client is no longer at c.Revision.
func (s *Store) UnregisterClient(ctx context.Context, c *Client, audit ...AuditEntry) error {
	t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		t.onlyIf(atRevision(clientKey(c.ID), c.Revision))
		t.then.do(s.removeClient(c.ID, c, nil)...)
		t.then.do(s.auditOps(ctx, audit)...)
		return nil
	})
	if err == nil && !t.held {
		err = ErrConflict
	}
	if err != nil {
		return fmt.Errorf("remove client: %w", err)
	}
	s.Forget(c.ID)
	s.clear(ctx, c.ID)
	return nil
}
