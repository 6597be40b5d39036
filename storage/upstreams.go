package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Some connectors can be asked again about a user who has signed in before: whether they still may, and what has
// changed. What they need for that is kept sealed, upstreams/<user>, with a note of when they are to be asked,
// asks/<time>/<user>, so that whoever looks for what is due reads that alone.
//
// One replica at a time asks: it claims the record by moving it to a little later, in a transaction that compares it.
// If the replica dies, the record is due again then. What the connector says is written only if what it was asked with
// is still what is kept; an answer that comes later than a new sign-in, or than another answer, counts for nothing.
//
// A record goes with what it is for: when the user's term has ended, when the user or the connector is gone, and when
// all has ended that was begun at the last sign-in. That is found when it is due.

// Upstream is what is kept of a user so that their connector can be asked about them again.
type Upstream struct {
	UserID    string `json:"userId"`
	Connector string `json:"connector"`
	Sealed    []byte `json:"sealed"`
	// Term of the user in which they signed in, see [User.Stands].
	Term int64 `json:"term,omitempty"`
	// Due is when the connector is to be asked; Until, when that is of no use any longer.
	Due   time.Time `json:"due"`
	Until time.Time `json:"until"`
	// Failed is how often in a row it could not be asked.
	Failed int `json:"failed,omitempty"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

// maxUpstreamData bounds what is kept of a user, in bytes.
const maxUpstreamData = 64 << 10

func upstreamKey(userID string) string { return key("upstreams", userID) }

func (u *Upstream) noteKey() string { return key("asks", auditName(u.Due), u.UserID) }

func (u *Upstream) purpose() string { return "upstream/" + u.Connector + "/" + u.UserID }

func decodeUpstreams(kvs []*mvccpb.KeyValue) (*Upstream, error) {
	if len(kvs) == 0 {
		return nil, nil
	}
	u, err := decode[Upstream]("upstream", kvs[0].Value)
	if err != nil {
		return nil, err
	}
	u.Revision = kvs[0].ModRevision
	return u, nil
}

// putUpstream adds to a transaction that next, with its data, takes the place of held, which may be nil.
func (s *Store) putUpstream(t *transaction, held *Upstream, next Upstream, data []byte) {
	next.Sealed = s.kek().seal(next.purpose(), data)
	s.moveUpstream(t, held, next)
}

func (s *Store) moveUpstream(t *transaction, held *Upstream, next Upstream) {
	k := upstreamKey(next.UserID)
	if held == nil {
		t.onlyIf(absent(k))
	} else {
		t.onlyIf(atRevision(k, held.Revision))
		if held.noteKey() != next.noteKey() {
			t.then.do(clientv3.OpDelete(held.noteKey()))
		}
	}
	t.then.do(clientv3.OpPut(k, encode(next)), clientv3.OpPut(next.noteKey(), ""))
}

func (s *Store) dropUpstream(t *transaction, held *Upstream) {
	k := upstreamKey(held.UserID)
	t.onlyIf(atRevision(k, held.Revision))
	t.then.do(clientv3.OpDelete(k), clientv3.OpDelete(held.noteKey()))
}

// Question is a claim on a record that is due: what to ask a connector.
type Question struct {
	Upstream
	User *User
	Data []byte
}

// mostQuestions are those that one claim takes.
const mostQuestions = 50

// ClaimQuestions takes questions that are due, for a while in which nobody else has them, of connectors that can be
// asked; what is of no use any longer is deleted. more: there may be others. It costs one or two reads, and one
// proposal for each question.
func (s *Store) ClaimQuestions(ctx context.Context, askable func(connector string) bool,
	hold time.Duration) (claimed []*Question, more bool, err error) {
	claimed, more, err = s.claimQuestions(ctx, askable, hold)
	if err != nil {
		return claimed, false, fmt.Errorf("claim questions to connectors: %w", err)
	}
	return claimed, more, nil
}

func (s *Store) claimQuestions(ctx context.Context, askable func(connector string) bool,
	hold time.Duration) (claimed []*Question, more bool, err error) {
	now := s.now().UTC()
	notes, err := s.kv.Get(ctx, under("asks"), clientv3.WithRange(key("asks", auditName(now))), clientv3.WithKeysOnly(),
		clientv3.WithLimit(mostQuestions))
	if err != nil || len(notes.Kvs) == 0 {
		return nil, false, err
	}
	var look transaction
	users, upstreams := make([]*found, len(notes.Kvs)), make([]*found, len(notes.Kvs))
	for i, note := range notes.Kvs {
		id := lastSegment(note.Key)
		users[i], upstreams[i] = look.then.get(userKey(id)), look.then.get(upstreamKey(id))
	}
	if err := s.run(ctx, &look); err != nil {
		return nil, false, err
	}
	for i, note := range notes.Kvs {
		q, err := s.claimQuestion(ctx, string(note.Key), users[i].kvs, upstreams[i].kvs, now, askable, hold)
		switch {
		case errors.Is(err, ErrConflict): // another replica has it, or they have signed in
		case err != nil:
			return claimed, false, err
		case q != nil:
			claimed = append(claimed, q)
		}
	}
	return claimed, notes.More, nil
}

// claimQuestion claims the one of a note, or deletes what is of no use.
func (s *Store) claimQuestion(ctx context.Context, note string, user, upstream []*mvccpb.KeyValue, now time.Time,
	askable func(connector string) bool, hold time.Duration) (*Question, error) {
	u, err := decodeUsers(user)
	if err != nil {
		return nil, err
	}
	held, err := decodeUpstreams(upstream)
	if err != nil {
		return nil, err
	}
	var t transaction
	if held == nil || held.noteKey() != note {
		t.then.do(clientv3.OpDelete(note))
		return nil, s.change(ctx, &t)
	}
	if !u.Stands(held.Term) || u.Connector != held.Connector || now.After(held.Until) || !askable(held.Connector) {
		s.dropUpstream(&t, held)
		return nil, s.change(ctx, &t)
	}
	next := *held
	next.Due = now.Add(hold)
	s.moveUpstream(&t, held, next)
	if err := s.change(ctx, &t); err != nil {
		return nil, err
	}
	next.Revision = t.revision
	data, err := s.kek().open(held.purpose(), held.Sealed)
	if err != nil {
		s.log.WarnContext(ctx, "the sealed data for asking a connector about a user cannot be opened", "error", err)
		return nil, nil
	}
	return &Question{Upstream: next, User: u, Data: data}, nil
}

// Answered takes what a connector says of the user of a question: the record, with an id or without, and what it needs
// to be asked next, after a while. It costs one proposal. An answer to a question that is no longer open counts for
// nothing.
func (s *Store) Answered(ctx context.Context, q *Question, who User, data []byte, ask time.Duration) error {
	if len(data) == 0 || len(data) > maxUpstreamData {
		data = q.Data
	}
	held := q.User
	err := Again(attempts, func() (again bool, err error) {
		if held == nil {
			if held, _, err = s.readUser(ctx, q.UserID); err != nil {
				return false, err
			}
		}
		if !held.Stands(q.Term) || held.Connector != q.Connector {
			return false, nil
		}
		var t transaction
		next := who
		next.ID, next.Connector, next.UpstreamID = held.ID, held.Connector, held.UpstreamID
		next.Disabled, next.Left = held.Disabled, held.Left
		next.keep(held)
		next.Credential = held.Credential
		if next != *held {
			next.UpdatedAt = s.now().UTC()
			s.putUser(ctx, &t, held, next, "", AuditEntry{})
		}
		later := q.Upstream
		later.Due, later.Failed = s.now().Add(ask).UTC(), 0
		s.putUpstream(&t, &q.Upstream, later, data)
		if err = s.change(ctx, &t); errors.Is(err, ErrConflict) {
			held = nil
			return s.reopen(ctx, q)
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("store what a connector says: %w", err)
	}
	return nil
}

// reopen reads a question again, and reports whether it is still open: what the connector was asked with is still what
// is kept of the user.
func (s *Store) reopen(ctx context.Context, q *Question) (bool, error) {
	resp, err := s.kv.Get(ctx, upstreamKey(q.UserID))
	if err != nil {
		return false, err
	}
	now, err := decodeUpstreams(resp.Kvs)
	if err != nil || now == nil || !bytes.Equal(now.Sealed, q.Sealed) {
		return false, err
	}
	q.Upstream = *now
	return true, nil
}

// Unanswered says that a connector could not be asked. The question is due again after a while.
func (s *Store) Unanswered(ctx context.Context, q *Question, wait time.Duration) error {
	var t transaction
	later := q.Upstream
	later.Due = s.now().Add(wait).UTC()
	later.Failed++
	s.moveUpstream(&t, &q.Upstream, later)
	if err := s.change(ctx, &t); ignore(err, ErrConflict) != nil {
		return fmt.Errorf("put off a question: %w", err)
	}
	return nil
}

// Refused says that a connector has answered that the user may not sign in any longer: all that was begun for them
// ends, as by [Store.EndUser]. False: the question is no longer open, because they have signed in since, or all has
// ended before.
func (s *Store) Refused(ctx context.Context, q *Question, why AuditEntry) (Ended, bool, error) {
	open, err := s.reopen(ctx, q)
	if err != nil || !open {
		return Ended{}, false, err
	}
	ended, err := s.endUser(ctx, q.UserID, why, func(t *transaction) { s.dropUpstream(t, &q.Upstream) })
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
		return Ended{}, false, nil
	}
	return ended, err == nil, err
}
