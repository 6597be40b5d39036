package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A user's term ends. One put of the user's record ends everything that was begun in it, because each of these things
// carries its term; the same transaction writes an outbox entry, pastterms/<user>, which stands until what is left of
// it has been cleared away: sessions, whose clients are told; grants; consents.

// endsTerm says why a change of a user ends the present term; empty if it does not.
func endsTerm(held, next *User) string {
	switch {
	case !held.Disabled && next.Disabled:
		return "the user was disabled or removed"
	case held.Disabled && !next.Disabled:
		return "the user is back" // from a time when disabling ended nothing, perhaps
	case held.Credential != "" && held.Credential != next.Credential:
		return "the password has changed"
	}
	return ""
}

// newTerm is a term that the user has never had, even if the record was gone for a time: what the revision of the
// store is.
func newTerm(held *User, asOf int64) int64 {
	if held == nil {
		return asOf
	}
	return max(asOf, held.Term+1)
}

// pastTerm is an outbox entry: what was begun in earlier terms of a user is to be cleared away.
type pastTerm struct {
	Actor  string `json:"actor"`
	Reason string `json:"reason"`

	revision int64
}

func pastTermKey(userID string) string { return key("pastterms", userID) }

// storeUser stores a user in the place of held, which is still at its revision; nil: there is none. With ends, why the
// term before has ended, the same transaction writes to the outbox and to the audit log.
func (s *Store) storeUser(ctx context.Context, held *User, u User, ends string, by AuditEntry) (*User, error) {
	var t transaction
	s.putUser(ctx, &t, held, u, ends, by)
	if err := s.change(ctx, &t); err != nil {
		return nil, err
	}
	u.Revision = t.revision
	return &u, nil
}

// putUser adds that to a transaction.
func (s *Store) putUser(ctx context.Context, t *transaction, held *User, u User, ends string, by AuditEntry) {
	k := userKey(u.ID)
	t.onlyIf(atRevision(k, held.revision()))
	t.then.do(clientv3.OpPut(k, encode(u)))
	moveNotes(t, held, &u)
	if ends != "" {
		if by.Actor == "" {
			by.Actor = ActorOf(ctx)
		}
		by.Action, by.Reason, by.User, by.Detail = AuditUserEnded, ends, u.ID, "user "+u.ID
		t.then.do(clientv3.OpPut(pastTermKey(u.ID), encode(pastTerm{Actor: by.Actor, Reason: ends})))
		t.then.do(s.auditOps(ctx, []AuditEntry{by})...)
	}
}

// EndUser ends everything that was begun for a user: sessions, grants, consents, and what is on its way. The user may
// begin anew. It returns what was cleared away; on an error after all has ended, [Store.ClearPastTerms] does that
// later. [ErrNotFound]: there is no such user.
//
// When storage is full, the user's record stays as it is, and what there is of the user is deleted: nothing new can be
// begun in the meantime.
func (s *Store) EndUser(ctx context.Context, userID string, why AuditEntry) (Ended, error) {
	return s.endUser(ctx, userID, why, nil)
}

// endUser is [Store.EndUser]; the transaction does what also adds, if that is not nil. When a comparison of that does
// not hold, nothing ends: [ErrConflict].
func (s *Store) endUser(ctx context.Context, userID string, why AuditEntry, also func(t *transaction)) (Ended, error) {
	err := Again(attempts, func() (again bool, err error) {
		held, asOf, err := s.readUser(ctx, userID)
		switch {
		case err != nil:
			return false, err
		case held == nil:
			return false, ErrNotFound
		}
		next := *held
		next.Term = newTerm(held, asOf)
		var t transaction
		s.putUser(ctx, &t, held, next, why.Reason, why)
		if also != nil {
			also(&t)
		}
		err = s.change(ctx, &t)
		return errors.Is(err, ErrConflict), ignore(err, ErrConflict)
	})
	var cleared Ended
	switch {
	case errors.Is(err, ErrFull):
		if also != nil {
			var t transaction
			also(&t)
			t.then.ops = withoutPuts(t.then.ops, new([]AuditEntry))
			if err := s.change(ctx, &t); err != nil {
				return Ended{}, fmt.Errorf("end user: %w", err)
			}
		}
		cleared, err = s.clearUser(ctx, userID, pastTerm{Actor: cmp.Or(why.Actor, ActorOf(ctx)), Reason: why.Reason})
	case err == nil:
		cleared, err = s.clearPastTerms(ctx, pastTermKey(userID))
	}
	if err != nil {
		return Ended{}, fmt.Errorf("end user: %w", err)
	}
	return cleared, nil
}

// clearUser deletes what there is of a user, of whatever term.
func (s *Store) clearUser(ctx context.Context, userID string, why pastTerm) (Ended, error) {
	l := &leaver{pastTerm: why, term: math.MaxInt64}
	leavers := map[string]*leaver{userID: l}
	err := cmp.Or(s.clearAway(ctx, leavers), s.clearDevices(ctx, leavers))
	return l.cleared, err
}

// ClearPastTerms clears away what users have left whose term has ended: their clients are told of the sessions. Any
// replica may do it at any time.
func (s *Store) ClearPastTerms(ctx context.Context) (Ended, error) {
	cleared, err := s.clearPastTerms(ctx, under("pastterms"), clientv3.WithPrefix())
	if err != nil {
		return cleared, fmt.Errorf("clear away what has ended: %w", err)
	}
	return cleared, nil
}

// leaver is a user whose earlier terms are cleared away.
type leaver struct {
	pastTerm
	term    int64 // the present one
	gone    bool  // the record was deleted
	cleared Ended
}

// clearPastTerms takes outbox entries, and clears away what they name in one pass.
func (s *Store) clearPastTerms(ctx context.Context, entries string, opts ...clientv3.OpOption) (all Ended, err error) {
	leavers := make(map[string]*leaver)
	outbox, err := s.kv.Get(ctx, entries, opts...)
	if err != nil {
		return all, err
	}
	for _, kv := range outbox.Kvs {
		e, err := decode[pastTerm]("past term", kv.Value)
		if err != nil {
			return all, err
		}
		id := lastSegment(kv.Key)
		user, asOf, err := s.readUser(ctx, id)
		if err != nil {
			return all, err
		}
		e.revision = kv.ModRevision
		l := &leaver{pastTerm: *e, term: asOf} // no term of a record that comes later is less
		if l.gone = user == nil; !l.gone {
			l.term = user.Term
		}
		leavers[id] = l
	}
	if len(leavers) == 0 {
		return all, nil
	}
	if err := s.clearAway(ctx, leavers); err != nil {
		return all, err
	}
	for userID, l := range leavers {
		entry := AuditEntry{Actor: l.Actor, Action: AuditUserCleared, Reason: l.Reason,
			User: userID, Detail: "user " + userID + ": " + l.cleared.String()}
		k := pastTermKey(userID)
		if l.gone { // what it led to is cleared away
			if _, err := s.kv.Delete(ctx, under("usergrants", userID), clientv3.WithPrefix()); err != nil {
				return all, err
			}
		}
		// A conflict: the user's term has ended once more, or another replica was faster.
		if _, err := s.replace(ctx, k, l.revision, clientv3.OpDelete(k), []AuditEntry{entry}); err != nil &&
			!errors.Is(err, ErrConflict) {
			return all, err
		}
		all.Sessions += l.cleared.Sessions
		all.Grants += l.cleared.Grants
		all.Consents += l.cleared.Consents
	}
	return all, nil
}

// clearAway clears away what leavers have left.
func (s *Store) clearAway(ctx context.Context, leavers map[string]*leaver) error {
	for _, clear := range []func(context.Context, map[string]*leaver) error{
		s.clearGrants, s.clearSessions, s.clearConsents} {
		if err := clear(ctx, leavers); err != nil {
			return err
		}
	}
	return nil
}

// of is the leaver to whom something of an earlier term belongs, or nil.
func of(leavers map[string]*leaver, userID string, term int64) *leaver {
	if l := leavers[userID]; l != nil && term < l.term {
		return l
	}
	return nil
}

func (s *Store) clearGrants(ctx context.Context, leavers map[string]*leaver) error {
	queries := []GrantQuery{{}}
	if s.seek(len(leavers)) {
		queries = nil
		for userID := range leavers {
			queries = append(queries, GrantQuery{UserID: userID})
		}
	}
	var grants []Grant
	for _, q := range queries {
		some, err := s.allGrants(ctx, q, func(g *Grant) bool { return of(leavers, g.UserID, g.Term) != nil })
		if err != nil {
			return err
		}
		grants = append(grants, some...)
	}
	byUser := make(map[string][]Grant)
	for _, g := range grants {
		byUser[g.UserID] = append(byUser[g.UserID], g)
	}
	for userID, grants := range byUser {
		l := leavers[userID]
		if err := s.buryAll(ctx, grants, AuditEntry{Actor: l.Actor, Reason: l.Reason}); err != nil {
			return err
		}
		l.cleared.Grants += len(grants)
	}
	return nil
}

func (s *Store) clearSessions(ctx context.Context, leavers map[string]*leaver) error {
	return s.eachOf(ctx, leavers, "usersessions", "sessions", func(kv *mvccpb.KeyValue) error {
		session, err := decode[Session]("session", kv.Value)
		if err != nil {
			return err
		}
		l := of(leavers, session.UserID, session.Term)
		if l == nil {
			return nil
		}
		_, err = s.endSession(ctx, lastSegment(kv.Key), func(now *Session) (AuditEntry, bool) {
			return AuditEntry{Actor: l.Actor, Reason: l.Reason}, of(leavers, now.UserID, now.Term) == l
		})
		if err == nil {
			l.cleared.Sessions++
		}
		return ignore(err, ErrNotFound)
	})
}

func (s *Store) clearConsents(ctx context.Context, leavers map[string]*leaver) error {
	return s.eachOf(ctx, leavers, "userconsents", "consents", func(kv *mvccpb.KeyValue) error {
		if leavers[lastSegment(kv.Key)] == nil {
			return nil
		}
		c, err := decode[Consent]("consent", kv.Value)
		if err != nil {
			return err
		}
		l := of(leavers, c.UserID, c.Term)
		if l == nil {
			return nil
		}
		t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
			t.onlyIf(atRevision(string(kv.Key), kv.ModRevision))
			t.then.do(clientv3.OpDelete(string(kv.Key)), clientv3.OpDelete(consentOfUserKey(c.UserID, c.ClientID)))
			t.then.do(s.auditOps(ctx, []AuditEntry{{
				Actor: l.Actor, Action: AuditConsentRevoked, App: s.AppOf(c.ClientID), Reason: l.Reason, User: c.UserID,
				Detail: fmt.Sprintf("client %s, user %s", c.ClientID, c.UserID)}})...)
			return nil
		})
		if err == nil && t.held {
			l.cleared.Consents++
		}
		return err
	})
}

// clearDevices deletes what devices were allowed and have not fetched yet, whatever its term.
func (s *Store) clearDevices(ctx context.Context, leavers map[string]*leaver) error {
	return s.each(ctx, under("devices"), func(kv *mvccpb.KeyValue) error {
		d, err := decodeDevice(kv.Value, kv.ModRevision)
		if err != nil || leavers[d.UserID] == nil {
			return err
		}
		var t transaction
		t.onlyIf(atRevision(string(kv.Key), d.Revision))
		t.then.do(clientv3.OpDelete(string(kv.Key)))
		return s.run(ctx, &t)
	})
}

// ignore is an error, unless it is the one that does not matter.
func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// each calls do with every record under a prefix, in the order of the keys. It reads portions, each as it is then.
func (s *Store) each(ctx context.Context, prefix string, do func(kv *mvccpb.KeyValue) error) error {
	for p := (Part{}); ; {
		_, next, err := part(ctx, s, prefix, p, func(kv *mvccpb.KeyValue) (struct{}, error) { return struct{}{}, do(kv) })
		if p.After = next; err != nil || next == "" {
			return err
		}
	}
}
