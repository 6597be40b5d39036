package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Clients that registered themselves (RFC 7591) are records like those of apps, except that they belong to no app and carry the
// hash of a registration access token, with which their owner reads, replaces and removes them (RFC 7592).

// registrationPrefix begins every registration access token, as each kind of secret has a beginning of its own ([SealType]).
const registrationPrefix = "wft_"

// NewRegistrationToken makes a registration access token of 256 random bits: its hash to store, and the value.
func NewRegistrationToken() (hash []byte, value string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	value = registrationPrefix + base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(value))
	return sum[:], value
}

// OwnedBy says whether a registration access token is the client's. It takes the same time for every wrong one; call it on nil
// for an unknown client.
func (c *Client) OwnedBy(token string) bool {
	var held []byte
	if c != nil {
		held = c.RegistrationToken
	}
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], held) == 1
}

// RegisterClient stores a client that no app asked for. Its id is new: [ErrConflict] when it is not.
func (s *Store) RegisterClient(ctx context.Context, c Client, audit ...AuditEntry) (*Client, error) {
	return s.putRegistered(ctx, c, 0, "register client", audit)
}

// ReplaceClient stores another registration in the place of one, provided that this is still at c.Revision: [ErrConflict].
func (s *Store) ReplaceClient(ctx context.Context, c Client, audit ...AuditEntry) (*Client, error) {
	return s.putRegistered(ctx, c, c.Revision, "replace client", audit)
}

func (s *Store) putRegistered(ctx context.Context, c Client, revision int64, what string, audit []AuditEntry) (*Client, error) {
	stored, err := s.replace(ctx, clientKey(c.ID), revision, clientv3.OpPut(clientKey(c.ID), encode(c)), audit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	c.Revision = stored
	s.mem.learn(&c)
	return &c, nil
}

// UnregisterClient removes a client that no app asked for, its grants and consents, provided that it is still at c.Revision:
// [ErrConflict].
func (s *Store) UnregisterClient(ctx context.Context, c *Client, audit ...AuditEntry) error {
	var t transaction
	t.onlyIf(atRevision(clientKey(c.ID), c.Revision))
	t.then.do(removeClient(c.ID)...)
	t.then.do(s.auditOps(ctx, audit)...)
	if err := s.change(ctx, &t); err != nil {
		return fmt.Errorf("remove client: %w", err)
	}
	s.Forget(c.ID)
	return nil
}
