package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func decodeUsers(kvs []*mvccpb.KeyValue) (*User, error) {
	if len(kvs) == 0 {
		return nil, nil
	}
	u, err := decode[User]("user", kvs[0].Value)
	if err != nil {
		return nil, err
	}
	u.Revision = kvs[0].ModRevision
	return u, nil
}

// Users lists all users, by id.
func (s *Store) Users(ctx context.Context) ([]*User, error) {
	resp, err := s.kv.Get(ctx, under("users"), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	users := make([]*User, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		u, err := decodeUsers([]*mvccpb.KeyValue{kv})
		if err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		users = append(users, u)
	}
	return users, nil
}

// User reads a user. It returns [ErrNotFound] for an unknown one.
func (s *Store) User(ctx context.Context, id string) (*User, error) {
	resp, err := s.kv.Get(ctx, userKey(id))
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	u, err := decodeUsers(resp.Kvs)
	if err == nil && u == nil {
		err = ErrNotFound
	}
	return u, err
}

// PutUser stores a user, new or changed, whatever was stored before. A user that did not change keeps its revision.
func (s *Store) PutUser(ctx context.Context, user User) (*User, error) {
	held, err := s.User(ctx, user.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if held != nil {
		user.UpdatedAt, user.Revision = held.UpdatedAt, held.Revision
		if user == *held {
			return held, nil
		}
	}
	user.UpdatedAt = s.now().UTC()
	resp, err := s.kv.Put(ctx, userKey(user.ID), encode(user))
	if err != nil {
		return nil, fmt.Errorf("store user: %w", err)
	}
	user.Revision = resp.Header.Revision
	return &user, nil
}

// SyncUsers makes the users of a connector those that are given: new ones are stored, changed ones updated, and those
// that the connector no longer has are disabled, which ends their tokens at the next use.
func (s *Store) SyncUsers(ctx context.Context, connector string, users []User) error {
	for _, u := range users {
		u.Connector = connector
		if _, err := s.PutUser(ctx, u); err != nil {
			return err
		}
	}
	held, err := s.Users(ctx)
	if err != nil {
		return err
	}
	for _, u := range held {
		gone := !slices.ContainsFunc(users, func(have User) bool { return have.ID == u.ID })
		if u.Connector == connector && gone && !u.Disabled {
			u.Disabled = true
			if _, err := s.PutUser(ctx, *u); err != nil {
				return err
			}
		}
	}
	return nil
}

func consentKey(clientID, userID string) string { return key("consents", clientID, userID) }

// AddConsent remembers that a user allowed a client these scopes, beside those that were allowed before.
func (s *Store) AddConsent(ctx context.Context, clientID, userID string, scopes []string) error {
	k := consentKey(clientID, userID)
	err := Again(8, func() (again bool, err error) {
		resp, err := s.kv.Get(ctx, k)
		if err != nil {
			return false, err
		}
		consent, revision := &Consent{ClientID: clientID, UserID: userID}, int64(0)
		if len(resp.Kvs) > 0 {
			if consent, err = decode[Consent]("consent", resp.Kvs[0].Value); err != nil {
				return false, err
			}
			revision = resp.Kvs[0].ModRevision
		}
		for _, scope := range scopes {
			if !slices.Contains(consent.Scopes, scope) {
				consent.Scopes = append(consent.Scopes, scope)
			}
		}
		consent.UpdatedAt = s.now().UTC()
		_, err = s.replace(ctx, k, revision, clientv3.OpPut(k, encode(consent)), nil)
		if errors.Is(err, ErrConflict) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("store consent: %w", err)
	}
	return nil
}

// TakeGuess counts one guess of a password against account and reports whether it may be made. Counting comes first, so
// guesses in parallel cannot outrun it: at most most guesses are allowed in each window of time. If none is left, retry
// is when the next window opens, which ends the lock.
func (s *Store) TakeGuess(ctx context.Context, account string, most int64, window time.Duration) (allowed bool, retry time.Time, err error) {
	start := s.now().Truncate(window)
	k := guessKey(account, start)
	t, err := s.commit(ctx, func(t *transaction) error {
		lease, err := s.leases.until(ctx, start.Add(window))
		t.onlyIf(clientv3.Compare(clientv3.Version(k), "<", most))
		t.then.do(clientv3.OpPut(k, "", clientv3.WithLease(lease)))
		return err
	})
	if err != nil {
		return false, time.Time{}, fmt.Errorf("count guess: %w", err)
	}
	return t.held, start.Add(window), nil
}

// ForgiveGuesses resets the guesses of this window after the right password was given.
func (s *Store) ForgiveGuesses(ctx context.Context, account string, window time.Duration) error {
	if _, err := s.kv.Delete(ctx, guessKey(account, s.now().Truncate(window))); err != nil {
		return fmt.Errorf("forgive guesses: %w", err)
	}
	return nil
}

// guessKey counts all spellings of a user name or e-mail address as one account.
func guessKey(account string, start time.Time) string {
	sum := sha256.Sum256([]byte(strings.ToLower(strings.TrimSpace(account))))
	return key("limits", hex.EncodeToString(sum[:16]), strconv.FormatInt(start.Unix(), 10))
}
