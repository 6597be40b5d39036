package storage

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Logout is an outbox entry: a client is to be told that a session has ended. It is written in the transaction that ends the
// session ([Store.EndSession]) and goes when the client has confirmed, or when the server has given up.
type Logout struct {
	ClientID string `json:"clientId"`
	UserID   string `json:"userId"`
	SID      string `json:"sid"`
	// At is when the session ended.
	At time.Time `json:"at"`

	// Attempts that failed, and when the next one is due.
	Attempts    int       `json:"attempts,omitempty"`
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	// ClaimedUntil is until when the replica that claimed the entry has it for itself.
	ClaimedUntil time.Time `json:"claimedUntil,omitzero"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

// Due is when the entry may be claimed.
func (l *Logout) Due() time.Time {
	if l.ClaimedUntil.After(l.NextAttempt) {
		return l.ClaimedUntil
	}
	return l.NextAttempt
}

func (l *Logout) key() string { return key("logouts", l.SID, l.ClientID) }

// logoutOp writes an entry, unless the client's record is the one that memory holds and does not want to be told. What memory
// does not know for certain is for the sender to find out.
func (s *Store) logoutOp(l Logout) clientv3.Op {
	put := clientv3.OpPut(l.key(), encode(l))
	c := s.mem.client(l.ClientID)
	if c == nil || c.BackchannelLogoutURI != "" {
		return put
	}
	return clientv3.OpTxn([]clientv3.Cmp{atRevision(clientKey(c.ID), c.Revision)}, nil, []clientv3.Op{put})
}

// Logouts lists the outbox of logouts. An entry that does not decode keeps no other from being sent.
func (s *Store) Logouts(ctx context.Context) ([]Logout, error) {
	resp, err := s.kv.Get(ctx, under("logouts"), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list logouts: %w", err)
	}
	list := make([]Logout, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		l, err := decode[Logout]("logout", kv.Value)
		if err != nil {
			s.log.Error("stored logout does not decode", "key", string(kv.Key), "error", err)
			continue
		}
		l.Revision = kv.ModRevision
		list = append(list, *l)
	}
	return list, nil
}

// ClaimLogout makes the caller the only one to send l until the given time. [ErrConflict]: it changed since it was read, so
// another replica has claimed it or is done with it.
func (s *Store) ClaimLogout(ctx context.Context, l Logout, until time.Time) (Logout, error) {
	l.ClaimedUntil = until.UTC()
	return s.updateLogout(ctx, l)
}

// PostponeLogout stores that another attempt has failed, and when the next one is due, provided that l did not change:
// [ErrConflict].
func (s *Store) PostponeLogout(ctx context.Context, l Logout, next time.Time) (Logout, error) {
	l.Attempts++
	l.NextAttempt, l.ClaimedUntil = next.UTC(), time.Time{}
	return s.updateLogout(ctx, l)
}

func (s *Store) updateLogout(ctx context.Context, l Logout) (Logout, error) {
	revision, err := s.replace(ctx, l.key(), l.Revision, clientv3.OpPut(l.key(), encode(l)), nil)
	if err != nil {
		return Logout{}, fmt.Errorf("store logout: %w", err)
	}
	l.Revision = revision
	return l, nil
}

// DropLogout takes an entry out of the outbox, provided that it did not change: [ErrConflict].
func (s *Store) DropLogout(ctx context.Context, l Logout, audit ...AuditEntry) error {
	if _, err := s.replace(ctx, l.key(), l.Revision, clientv3.OpDelete(l.key()), audit); err != nil {
		return fmt.Errorf("drop logout: %w", err)
	}
	return nil
}
