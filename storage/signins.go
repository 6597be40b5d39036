package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Users can look up when and from where somebody has signed in as them, or has tried to. Of each user one record has
// the last of these: a sign-in that succeeds is put there in the transaction that begins its session. If another has
// been put there at the same moment, it is put after that one, in a transaction of its own: no sign-in fails for its
// history.

// SignIn is an entry of a user's history.
type SignIn struct {
	At      time.Time `json:"at"`
	AMR     []string  `json:"amr,omitempty"`
	Address string    `json:"address,omitempty"`
	Agent   string    `json:"agent,omitempty"`
	// Failed is what was wrong: a word that stays the same, such as password. Empty: the user has signed in.
	Failed string `json:"failed,omitempty"`
	// Times is how often in a row it has failed in the same way from the same place, the last time at At; 0 is once.
	Times int `json:"times,omitempty"`
}

// history is the record, oldest first.
type history struct {
	List []SignIn `json:"list"`

	revision int64
}

// Bounds of a history: how many sign-ins it has, how many that failed beside these, and how old they are.
const (
	MaxSignIns       = 20
	MaxFailedSignIns = 10
	SignInsKept      = 90 * 24 * time.Hour
)

func signInsKey(userID string) string { return key("signins", userID) }

func decodeHistory(kvs []*mvccpb.KeyValue) (history, error) {
	if len(kvs) == 0 {
		return history{}, nil
	}
	h, err := decode[history]("history of sign-ins", kvs[0].Value)
	if err != nil {
		return history{}, err
	}
	h.revision = kvs[0].ModRevision
	return *h, nil
}

// add puts entries to a history, and drops what is beyond its bounds.
func (h *history) add(now time.Time, more ...SignIn) {
	list := slices.Clone(h.List)
	for _, m := range more {
		if n := len(list); n > 0 && m.Failed != "" {
			last := &list[n-1]
			if last.Failed == m.Failed && last.Address == m.Address && last.Agent == m.Agent {
				last.At, last.Times = m.At, max(last.Times, 1)+max(m.Times, 1)
				continue
			}
		}
		list = append(list, m)
	}
	succeeded, failed := 0, 0
	kept := list[:0:0]
	for _, e := range slices.Backward(list) {
		n, most := &succeeded, MaxSignIns
		if e.Failed != "" {
			n, most = &failed, MaxFailedSignIns
		}
		if *n++; *n <= most && now.Sub(e.At) < SignInsKept {
			kept = append(kept, e)
		}
	}
	slices.Reverse(kept)
	h.List = kept
}

// putHistory is the transaction that puts entries to a history, if it is as it was read, and its user is there: nobody
// who gets the id later sees where another came from.
func (s *Store) putHistory(ctx context.Context, userID string, h history, more ...SignIn) (*transaction, error) {
	lease, err := s.leases.until(ctx, s.now().Add(SignInsKept))
	if err != nil {
		return nil, err
	}
	h.add(s.now(), more...)
	k := signInsKey(userID)
	t := new(transaction)
	t.onlyIf(atRevision(k, h.revision), present(userKey(userID)))
	t.then.do(clientv3.OpPut(k, encode(h), clientv3.WithLease(lease)))
	return t, nil
}

func (s *Store) history(ctx context.Context, userID string) (history, error) {
	resp, err := s.kv.Get(ctx, signInsKey(userID))
	if err != nil {
		return history{}, err
	}
	return decodeHistory(resp.Kvs)
}

// signedIn is the entry of a session that begins.
func (s *Store) signedIn(session *Session) SignIn {
	return SignIn{At: s.now().UTC().Truncate(time.Second), AMR: session.AMR, Address: session.Address,
		Agent: session.Agent}
}

// SignIns are the last entries of a user's history, the newest first, at most limit; 0: all that are kept.
func (s *Store) SignIns(ctx context.Context, userID string, limit int) ([]SignIn, error) {
	h, err := s.history(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("read sign-ins: %w", err)
	}
	h.add(s.now())
	slices.Reverse(h.List)
	if limit > 0 {
		h.List = h.List[:min(limit, len(h.List))]
	}
	return h.List, nil
}

// AddSignIns puts entries to a user's history that come with no session, oldest first: those that failed. It is for
// what goes on beside requests, and costs a read and a proposal. [ErrNotFound]: there is no such user.
func (s *Store) AddSignIns(ctx context.Context, userID string, list ...SignIn) error {
	err := Again(attempts, func() (again bool, err error) {
		var look transaction
		user, record := look.then.get(userKey(userID), clientv3.WithCountOnly()), look.then.get(signInsKey(userID))
		if err := s.run(ctx, &look); err != nil {
			return false, err
		}
		if user.count == 0 {
			return false, ErrNotFound
		}
		h, err := decodeHistory(record.kvs)
		if err != nil {
			return false, err
		}
		t, err := s.commit(ctx, func(t *transaction) error {
			put, err := s.putHistory(ctx, userID, h, list...)
			if err == nil {
				*t = *put
			}
			return err
		})
		if err != nil {
			return false, err
		}
		return !t.held, nil
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("store sign-ins: %w", err)
	}
	return err
}
