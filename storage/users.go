package storage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func (u *User) revision() int64 {
	if u == nil {
		return 0
	}
	return u.Revision
}

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

// User reads a user. It returns [ErrNotFound] for an unknown one.
func (s *Store) User(ctx context.Context, id string) (*User, error) {
	u, _, err := s.readUser(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	if u == nil {
		return nil, ErrNotFound
	}
	return u, nil
}

// PutUser stores what a connector knows of a user, new or changed. A user that did not change keeps its revision. A
// user who is disabled, comes back, or signs in with something else now ([User.Credential]; empty is not known, and
// changes nothing) begins a new term: everything that was begun before has ended, in the same transaction.
//
// When storage is full, what was begun before ends all the same: the record goes, so that nothing is left for which
// anything could stand, and with it what there is of the user. The error is [ErrFull], and the record has to be stored
// again once there is room; until then the user cannot sign in.
func (s *Store) PutUser(ctx context.Context, user User) (*User, error) {
	var stored *User
	err := Again(attempts, func() (again bool, err error) {
		held, asOf, err := s.readUser(ctx, user.ID)
		if err != nil {
			return false, err
		}
		next := user
		next.Revision = 0
		ends := ""
		if held != nil {
			next.keep(held)
			if next == *held {
				stored = held
				return false, nil
			}
			ends = endsTerm(held, &next)
		}
		if held == nil || ends != "" {
			next.Term = newTerm(held, asOf)
		}
		next.UpdatedAt = s.now().UTC()
		stored, err = s.storeUser(ctx, held, next, ends, AuditEntry{Actor: ActorServer})
		if errors.Is(err, ErrFull) && ends != "" {
			err = s.dropUser(ctx, held, ends, err)
		}
		if errors.Is(err, ErrConflict) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return nil, fmt.Errorf("store user: %w", err)
	}
	return stored, nil
}

// dropUser ends everything of a user whose changed record finds no room: etcd deletes, and stores nothing. The error is
// the one that says so, or [ErrConflict].
func (s *Store) dropUser(ctx context.Context, held *User, why string, full error) error {
	t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		t.onlyIf(atRevision(userKey(held.ID), held.Revision))
		t.then.do(clientv3.OpDelete(userKey(held.ID)), clientv3.OpDelete(upstreamKey(held.ID)),
			clientv3.OpDelete(arrivalKey(held.ID)))
		moveNotes(t, held, nil)
		t.then.do(s.auditOps(ctx, []AuditEntry{{Actor: ActorServer, Action: AuditUserEnded, Reason: why,
			User: held.ID, Detail: "user " + held.ID}})...)
		return nil
	})
	switch {
	case err != nil:
		return err
	case !t.held:
		return ErrConflict
	}
	if _, err := s.clearUser(ctx, held.ID, pastTerm{Actor: ActorServer, Reason: why}); err != nil {
		return err
	}
	return full
}

// readUser reads a user, nil if there is none, and the revision of the read.
func (s *Store) readUser(ctx context.Context, id string) (user *User, asOf int64, err error) {
	resp, err := s.kv.Get(ctx, userKey(id))
	if err != nil {
		return nil, 0, err
	}
	user, err = decodeUsers(resp.Kvs)
	return user, resp.Header.Revision, err
}

// SyncUsers makes the users of a connector those that are given: new ones are stored, changed ones updated, and those
// that the connector no longer has are disabled. Managed ones are none of it, except that one with the id of a user who
// is given is the connector's from now on. It writes once for each change, however many replicas do it; if their
// lists differ, the one that did it last has its way.
//
// The error is [ErrFull] when storage had no room for some of the changes. What these end has ended, see
// [Store.PutUser], and they have to be made again once there is room.
func (s *Store) SyncUsers(ctx context.Context, connector string, users []User) error {
	var full error
	put := func(u User) error {
		_, err := s.PutUser(ctx, u)
		if errors.Is(err, ErrFull) {
			full = err
			return nil
		}
		return err
	}
	for _, u := range users {
		u.Connector = connector
		if err := put(u); err != nil {
			return err
		}
	}
	there := make(map[string]bool, len(users))
	for _, u := range users {
		there[u.ID] = true
	}
	err := s.eachStanding(ctx, connector, func(u *User) error {
		if there[u.ID] {
			return nil
		}
		u.Disabled = true
		return put(*u)
	})
	return cmp.Or(err, full)
}

// TakeGuess counts one guess of a password against account and reports whether it may be made. Counting comes first, so
// guesses in parallel cannot outrun it: at most most guesses are allowed in each window of time. If none is left, retry
// is when the next window opens, which ends the lock.
func (s *Store) TakeGuess(ctx context.Context, account string, most int64, window time.Duration) (
	allowed bool, retry time.Time, err error) {
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
