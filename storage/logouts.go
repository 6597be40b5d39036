package storage

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Logout is an outbox entry: a client is to be told that a session has ended. It is written in the transaction that
// ends the session ([Store.EndSession]), and removed when the client has confirmed or the server has given up.
type Logout struct {
	ClientID string `json:"clientId"`
	UserID   string `json:"userId"`
	SID      string `json:"sid"`
	// At is when the session ended.
	At time.Time `json:"at"`

	// Attempts is how many have failed; NextAttempt is when the next one is due.
	Attempts    int       `json:"attempts,omitempty"`
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	// ClaimedUntil is when the claim of the replica that is sending the entry ends.
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

// logoutOp writes an entry, unless the client's record is the one that memory holds and asks for no logout. Where
// memory is not certain, the sender finds out.
func (s *Store) logoutOp(l Logout) clientv3.Op {
	put := clientv3.OpPut(l.key(), encode(l))
	c := s.mem.client(l.ClientID)
	if c == nil || c.BackchannelLogoutURI != "" {
		return put
	}
	return clientv3.OpTxn([]clientv3.Cmp{atRevision(clientKey(c.ID), c.Revision)}, nil, []clientv3.Op{put})
}

// Logouts lists the outbox of logouts, read in parts. An entry that cannot be decoded does not keep the others from
// being sent.
func (s *Store) Logouts(ctx context.Context) ([]Logout, error) {
	list := []Logout{}
	err := s.each(ctx, under("logouts"), func(kv *mvccpb.KeyValue) error {
		l, err := decode[Logout]("logout", kv.Value)
		if err != nil {
			s.log.Error("a stored logout cannot be decoded", "key", string(kv.Key), "error", err)
			return nil
		}
		l.Revision = kv.ModRevision
		list = append(list, *l)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list logouts: %w", err)
	}
	return list, nil
}

// ClaimLogout makes the caller the only one to send l until the given time. It returns [ErrConflict] if l changed since
// it was read, because another replica has claimed or finished it.
func (s *Store) ClaimLogout(ctx context.Context, l Logout, until time.Time) (Logout, error) {
	l.ClaimedUntil = until.UTC()
	return s.updateLogout(ctx, l)
}

// PostponeLogout stores that another attempt has failed, and when the next one is due. It returns [ErrConflict] if l
// changed.
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

// DropLogout removes an entry from the outbox. It returns [ErrConflict] if the entry changed.
func (s *Store) DropLogout(ctx context.Context, l Logout, audit ...AuditEntry) error {
	if _, err := s.replace(ctx, l.key(), l.Revision, clientv3.OpDelete(l.key()), audit); err != nil {
		return fmt.Errorf("drop logout: %w", err)
	}
	return nil
}
