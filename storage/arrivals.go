package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Somebody arrives who has just proven to a connector who they are. Their record is made or brought up to date
// ([Store.ArriveUser]), and what the connector needs to be asked again is kept beside it (see upstreams.go). An
// identity that an operator has joined to an account signs in as that (see links.go); nothing else joins accounts,
// whatever they have in common.

// Arrival is somebody who has just proven to a connector who they are.
type Arrival struct {
	// User is what the connector knows of them, with Connector and UpstreamID.
	User User
	// Data is what the connector needs to be asked again; nil if it cannot be. It is a secret.
	Data []byte
	// Ask is how long from now it is to be asked, 0 for never, and Until when that is of no use any longer, because by
	// then all has ended that begins now.
	Ask   time.Duration
	Until time.Time
}

// longerUntil is how much later all that begins has to end before that is noted where the account's own connector is
// asked: so it is not at each sign-in by a joined identity.
const longerUntil = 24 * time.Hour

// ErrOtherConnector means that the account is one of another connector. It is a verdict: nobody takes over an account.
var ErrOtherConnector = errors.New("the account belongs to another connector")

// maxUpstreamID bounds what a connector calls a user, in bytes.
const maxUpstreamID = 1024

// ArriveUser stores what a connector knows of somebody who has just proven to it who they are, new or changed, in one
// transaction; it writes nothing when nothing has changed. It returns the account with which they sign in, which may be
// disabled: an operator's word stays. One that was disabled because its connector was not there is back, and begins a
// new term.
//
// The account is that of the record's id, unless the identity is joined to another ([Store.LinkUser]). That one keeps
// what its own connector says; if that is no longer there, it belongs to the arriving one from now on. Should the first
// one come back, its identity takes the account back, and the joined one goes on to sign in as it.
//
// Verdicts are [ErrOtherConnector], [ErrUserID], and [ErrNotFound]: the account is gone to which the identity is
// joined.
func (s *Store) ArriveUser(ctx context.Context, a Arrival) (*User, error) {
	who := a.User
	if err := CheckUserID(who.ID); err != nil {
		return nil, err
	}
	if who.Connector == "" || who.UpstreamID == "" || len(who.UpstreamID) > maxUpstreamID {
		return nil, fmt.Errorf("%w: what the connector calls the user must be 1 to %d bytes", ErrUserID, maxUpstreamID)
	}
	if len(a.Data) > maxUpstreamData {
		s.log.WarnContext(ctx, "the data that the connector keeps about a user is too large, so it cannot be asked "+
			"about them again", "connector", who.Connector, "bytes", len(a.Data), "most", maxUpstreamData)
		a.Data = nil
	}
	if a.Ask <= 0 {
		a.Data = nil
	}
	var arrived *User
	err := Again(attempts, func() (again bool, err error) {
		at, err := s.lookUpArrival(ctx, who)
		if err != nil {
			return false, err
		}
		var t transaction
		if arrived, err = s.arrive(ctx, &t, at, a); err != nil || len(t.then.ops) == 0 {
			return false, err
		}
		t.onlyIf(atRevision(linkKey(who.Connector, who.UpstreamID), at.link.revision()))
		if err := s.change(ctx, &t); err != nil {
			return errors.Is(err, ErrConflict), ignore(err, ErrConflict)
		}
		if arrived.Revision == 0 {
			arrived.Revision = t.revision
		}
		return false, nil
	})
	if err != nil {
		return nil, fmt.Errorf("user arrives: %w", err)
	}
	return arrived, nil
}

// arriving is what there is of somebody who arrives: the link of their identity, the account, and what is kept of it to
// ask its connector.
type arriving struct {
	link     *Link
	account  *User
	upstream *Upstream
	asOf     int64
}

func (s *Store) lookUpArrival(ctx context.Context, who User) (at arriving, err error) {
	var t transaction
	link := t.then.get(linkKey(who.Connector, who.UpstreamID))
	account, upstream := t.then.get(userKey(who.ID)), t.then.get(upstreamKey(who.ID))
	if err := s.run(ctx, &t); err != nil {
		return at, err
	}
	if at.link, err = decodeLinks(link.kvs); err != nil {
		return at, err
	}
	if at.link != nil {
		t = transaction{}
		account, upstream = t.then.get(userKey(at.link.UserID)), t.then.get(upstreamKey(at.link.UserID))
		if err := s.run(ctx, &t); err != nil {
			return at, err
		}
	}
	at.asOf = t.revision
	if at.account, err = decodeUsers(account.kvs); err != nil {
		return at, err
	}
	at.upstream, err = decodeUpstreams(upstream.kvs)
	return at, err
}

// arrive decides what becomes of an arrival, and adds it to a transaction: nothing if all is as it was. The account has
// no revision if it is put.
func (s *Store) arrive(ctx context.Context, t *transaction, at arriving, a Arrival) (*User, error) {
	held, next := at.account, a.User
	own := held != nil && held.Connector == next.Connector && held.UpstreamID == next.UpstreamID
	switch {
	case at.link != nil && held == nil:
		return nil, ErrNotFound
	case held != nil && held.Disabled && !held.Left:
		return held, nil
	case at.link != nil && !own && !held.Left:
		if u := at.upstream; u != nil && a.Until.Sub(u.Until) > longerUntil {
			later := *u
			later.Until = a.Until
			s.moveUpstream(t, u, later)
		}
		return held, nil
	case at.link == nil && held != nil && !own && (held.Origin == "" || held.Origin != next.identity()):
		return nil, ErrOtherConnector
	}
	next.Disabled, next.Left = false, false
	if held != nil {
		next.ID = held.ID
		next.keep(held)
		if next.Origin = cmp.Or(held.Origin, held.identity()); next.Origin == next.identity() {
			next.Origin = ""
		}
	}
	if held == nil || next != *held {
		ends := ""
		if held != nil {
			ends = endsTerm(held, &next)
		}
		if held == nil || ends != "" {
			next.Term = newTerm(held, at.asOf)
		}
		next.UpdatedAt = s.now().UTC()
		s.putUser(ctx, t, held, next, ends, AuditEntry{Actor: ActorServer})
		next.Revision = 0
	}
	switch {
	case a.Data != nil:
		s.putUpstream(t, at.upstream, Upstream{UserID: next.ID, Connector: next.Connector, Term: next.Term,
			Until: a.Until, Due: s.now().Add(a.Ask).UTC()}, a.Data)
	case at.upstream != nil:
		s.dropUpstream(t, at.upstream)
	}
	return &next, nil
}

// keep takes over what a new version of a user's record has of the one before.
func (u *User) keep(held *User) {
	u.UpdatedAt, u.Revision, u.Term = held.UpdatedAt, held.Revision, held.Term
	u.Credential = cmp.Or(u.Credential, held.Credential)
	u.Origin = cmp.Or(u.Origin, held.Origin)
}

// identity is what the user's connector calls them, and which connector that is; empty for who does not arrive.
func (u *User) identity() string {
	if u.UpstreamID == "" {
		return ""
	}
	return key(u.Connector, u.UpstreamID)
}

// LeaveUsers disables the users of connectors other than these, so that all that was begun for them has ended. It
// returns how many there were; those who were disabled before are not counted. Any number of replicas may do it: each
// user is written once. When one of them has the connector still, its users come back when they sign in there.
//
// The error is [ErrFull] when storage had no room for some of them, see [Store.SyncUsers].
func (s *Store) LeaveUsers(ctx context.Context, connectors map[string]bool) (left int, err error) {
	left, err = s.leaveUsers(ctx, connectors)
	if ignore(err, ErrFull) != nil {
		err = fmt.Errorf("disable users of connectors that are gone: %w", err)
	}
	return left, err
}

func (s *Store) leaveUsers(ctx context.Context, connectors map[string]bool) (left int, err error) {
	standing, err := s.standingConnectors(ctx)
	if err != nil {
		return 0, err
	}
	var full error
	var some []*User
	leave := func(least int) error {
		if len(some) < max(least, 1) {
			return nil
		}
		if err := s.leave(ctx, some); errors.Is(err, ErrFull) {
			full = err
		} else if err != nil {
			return err
		}
		left += len(some)
		some = nil
		return nil
	}
	for _, connector := range standing {
		if connectors[connector] {
			continue
		}
		err := s.eachStanding(ctx, connector, func(u *User) error {
			some = append(some, u)
			return leave(mostLeave)
		})
		if err != nil {
			return left, err
		}
	}
	return left, cmp.Or(leave(1), full)
}

// mostLeave is how many users are disabled in one transaction.
const mostLeave = 25

// leave disables some users in one transaction, or, if one of them has changed or there is no room, one by one.
func (s *Store) leave(ctx context.Context, some []*User) error {
	var t transaction
	for _, u := range some {
		next := *u
		next.Disabled, next.Left, next.UpdatedAt = true, true, s.now().UTC()
		next.Term = newTerm(u, u.Revision)
		s.putUser(ctx, &t, u, next, "the user's connector is no longer in the configuration", AuditEntry{Actor: ActorServer})
	}
	err := s.change(ctx, &t)
	if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrFull) {
		return err
	}
	var full error
	for _, u := range some {
		u.Disabled, u.Left = true, true
		if _, err := s.PutUser(ctx, *u); errors.Is(err, ErrFull) {
			full = err
		} else if err != nil {
			return err
		}
	}
	return full
}

// arrival is when somebody last signed in. It is written with their session, and stays when that has ended.
type arrival struct {
	At time.Time `json:"at"`
}

func arrivalKey(userID string) string { return key("arrivals", userID) }

func (s *Store) arrivalOp(userID string) clientv3.Op {
	return clientv3.OpPut(arrivalKey(userID), encode(arrival{At: s.now().UTC().Truncate(time.Second)}))
}

// LastArrivals says when users last signed in, of those who have since there is such a record; one read for each
// hundred.
func (s *Store) LastArrivals(ctx context.Context, ids []string) (map[string]time.Time, error) {
	at := make(map[string]time.Time)
	err := s.manyOf(ctx, ids, arrivalKey, func(id string, kv *mvccpb.KeyValue) error {
		a, err := decode[arrival]("arrival", kv.Value)
		if err == nil {
			at[id] = a.At
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read arrivals: %w", err)
	}
	return at, nil
}
