package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// There can be any number of people, so nothing that is asked about one of them, or about those of one connector, goes
// through all. Notes lead there: keys that say nothing but that something is to be found. A note is put and deleted in
// the transaction that stores what it leads to, and it is no more than a hint: what it leads to is read, and decides.
//
//	standing/<connector>/<user>         an active user whom a connector or the configuration vouches for
//	names/<hash of name>/<user>         a user with this e-mail address or user name; managed ones have logins/<login>
//	usersessions/<user>/<sid>           a session
//	userconsents/<user>/<client>        a consent
//	usergrants/<user>/<client>/<mark>   grants whose ids begin like that, see [Store.NewGrantIDOf]; leased
//
// Older versions put only some of them. Until those that are missing have been added, see complete.go, whoever looks
// for something goes through all, as those versions did.

// indexes are what a store knows of the notes.
type indexes struct {
	whole atomic.Bool // each record has its notes
}

// nameKey leads from an e-mail address or user name, which may be long, to those who have it.
func nameKey(name, userID string) string { return namePrefix(name) + key(userID) }

func namePrefix(name string) string {
	sum := sha256.Sum256([]byte(NormalLogin(name)))
	return under("names", lowerBase32.EncodeToString(sum[:16]))
}

// noteTime is how much later than a note is needed it may go: so there are few for many grants.
const noteTime = 30 * 24 * time.Hour

// noteGrant is the operation that notes a grant with its user. Where ids have a mark, it puts a note only if there is
// none from the last grants yet: each has the time after which it goes in its key, which is later than they end.
func (s *Store) noteGrant(ctx context.Context, g *Grant, lease clientv3.LeaseID) (op clientv3.Op, err error) {
	mark := markOf(g.ID)
	if mark == g.ID {
		return clientv3.OpPut(key("usergrants", g.UserID, g.ClientID, g.ID), "", clientv3.WithLease(lease)), nil
	}
	end := remembered(g.ExpiresAt, s.now()).Truncate(noteTime).Add(noteTime)
	if lease, err = s.leases.until(ctx, end); err != nil {
		return op, err
	}
	k := key("usergrants", g.UserID, g.ClientID, mark+noteEnd+
		strconv.FormatInt(end.Unix()/int64(noteTime/time.Second), 10))
	return missing(k, clientv3.WithLease(lease)), nil
}

// noteEnd separates a mark from when the note goes.
const noteEnd = "~"

// notes are those that lead to a user who is not managed.
func (u *User) notes() []string {
	if u == nil || u.Managed {
		return nil
	}
	var keys []string
	if u.Active() && u.Connector != "" {
		keys = append(keys, key("standing", u.Connector, u.ID))
	}
	for _, name := range u.names() {
		keys = append(keys, nameKey(name, u.ID))
	}
	return keys
}

// names are what a user is called, beside the id, as all their spellings.
func (u *User) names() []string {
	if u == nil {
		return nil
	}
	var all []string
	for _, name := range []string{NormalLogin(u.Email), NormalLogin(u.Username)} {
		if name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// moveNotes adds to the transaction that puts next in the place of held, of which either may be nil, what leads there.
// Nobody gets a login that another has.
func moveNotes(t *transaction, held, next *User) {
	had, has := held.notes(), next.notes()
	for _, k := range has {
		if !slices.Contains(had, k) {
			t.then.do(clientv3.OpPut(k, ""))
		}
	}
	for _, k := range had {
		if !slices.Contains(has, k) {
			t.then.do(clientv3.OpDelete(k))
		}
	}
	for _, login := range next.logins() {
		if !slices.Contains(held.logins(), login) {
			t.onlyIf(absent(loginKey(login)))
			t.then.do(clientv3.OpPut(loginKey(login), encode(handleRecord{UserID: next.ID})))
		}
	}
	for _, login := range held.logins() {
		if !slices.Contains(next.logins(), login) {
			t.then.do(clientv3.OpDelete(loginKey(login)))
		}
	}
}

// eachKey calls do with the last segment of each key under a prefix, in order. It reads portions.
func (s *Store) eachKey(ctx context.Context, prefix string, do func(last string, k []byte) error) error {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		resp, err := s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(mostListed))
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if err := do(lastSegment(kv.Key), kv.Key); err != nil {
				return err
			}
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return nil
		}
	}
}

// lasts are the last segments of all keys under a prefix.
func (s *Store) lasts(ctx context.Context, prefix string) (all []string, err error) {
	err = s.eachKey(ctx, prefix, func(last string, _ []byte) error {
		all = append(all, last)
		return nil
	})
	return all, err
}

// eachStanding calls do with each active user of a connector; managed ones are none of it.
func (s *Store) eachStanding(ctx context.Context, connector string, do func(u *User) error) error {
	of := func(u *User) error {
		if u.Active() && !u.Managed && u.Connector == connector {
			return do(u)
		}
		return nil
	}
	if !s.indexes.whole.Load() {
		return s.eachUser(ctx, of)
	}
	ids, err := s.lasts(ctx, under("standing", connector))
	if err != nil {
		return err
	}
	for some := range slices.Chunk(ids, 100) {
		users, err := s.UsersOf(ctx, some)
		if err != nil {
			return err
		}
		for _, id := range some {
			if u := users[id]; u != nil {
				if err := of(u); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// eachUser calls do with every user.
func (s *Store) eachUser(ctx context.Context, do func(u *User) error) error {
	return s.each(ctx, under("users"), func(kv *mvccpb.KeyValue) error {
		u, err := decodeUsers([]*mvccpb.KeyValue{kv})
		if err != nil {
			return err
		}
		return do(u)
	})
}

// standingConnectors are the connectors that have active users: one read for each.
func (s *Store) standingConnectors(ctx context.Context) (connectors []string, err error) {
	if !s.indexes.whole.Load() {
		err = s.eachUser(ctx, func(u *User) error {
			if u.Active() && !u.Managed && u.Connector != "" && !slices.Contains(connectors, u.Connector) {
				connectors = append(connectors, u.Connector)
			}
			return nil
		})
		return connectors, err
	}
	end := clientv3.GetPrefixRangeEnd(under("standing"))
	for from := under("standing"); ; {
		resp, err := s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
		if err != nil || len(resp.Kvs) == 0 {
			return connectors, err
		}
		connector := clientOfKey(resp.Kvs[0].Key)
		connectors = append(connectors, connector)
		from = clientv3.GetPrefixRangeEnd(under("standing", connector))
	}
}

// ErrAmbiguous means that several users have an e-mail address or user name.
var ErrAmbiguous = errors.New("several users have that e-mail address or name")

// FindUser finds a user by id, or else by e-mail address or user name: up to three reads. It returns [ErrNotFound] for
// an unknown one. Of several, it is the one who is active, or else [ErrAmbiguous].
func (s *Store) FindUser(ctx context.Context, name string) (*User, error) {
	if u, err := s.User(ctx, name); !errors.Is(err, ErrNotFound) {
		return u, err
	}
	var called, active []*User
	consider := func(u *User) error {
		if slices.Contains(u.names(), NormalLogin(name)) {
			if called = append(called, u); u.Active() {
				active = append(active, u)
			}
		}
		return nil
	}
	err := s.eachCalled(ctx, name, consider)
	switch {
	case err != nil:
		return nil, fmt.Errorf("find user: %w", err)
	case len(active) == 1:
		return active[0], nil
	case len(called) > 1:
		return nil, ErrAmbiguous
	case len(called) == 1:
		return called[0], nil
	}
	return nil, ErrNotFound
}

// eachCalled calls do with everybody who may have a name.
func (s *Store) eachCalled(ctx context.Context, name string, do func(u *User) error) error {
	if !s.indexes.whole.Load() {
		return s.eachUser(ctx, do)
	}
	var t transaction
	login := t.then.get(loginKey(name))
	notes := t.then.get(namePrefix(name), clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(mostListed))
	if err := s.run(ctx, &t); err != nil {
		return err
	}
	var ids []string
	if kv := login.one(); kv != nil {
		to, err := decode[handleRecord]("index of accounts", kv.Value)
		if err != nil {
			return err
		}
		ids = append(ids, to.UserID)
	}
	for _, kv := range notes.kvs {
		ids = append(ids, lastSegment(kv.Key))
	}
	users, err := s.UsersOf(ctx, ids)
	if err != nil {
		return err
	}
	for _, u := range users {
		if u != nil {
			if err := do(u); err != nil {
				return err
			}
		}
	}
	return nil
}

// mostSought is for how many users notes are followed one by one; for more of them it is less to go through all.
const mostSought = 200

// seek reports whether notes of so many users are to be followed.
func (s *Store) seek(users int) bool { return s.indexes.whole.Load() && users <= mostSought }

// eachOf calls do with the records of a kind of users, to which notes lead: sessions or consents.
func (s *Store) eachOf(ctx context.Context, users map[string]*leaver, notes, kind string,
	do func(kv *mvccpb.KeyValue) error) error {
	if !s.seek(len(users)) {
		return s.each(ctx, under(kind), do)
	}
	for userID := range users {
		names, err := s.lasts(ctx, under(notes, userID))
		if err != nil {
			return err
		}
		keyOf := sessionKey
		if kind == "consents" {
			keyOf = func(clientID string) string { return consentKey(clientID, userID) }
		}
		if err := s.manyOf(ctx, names, keyOf, func(_ string, kv *mvccpb.KeyValue) error { return do(kv) }); err != nil {
			return err
		}
	}
	return nil
}

// GrantsOf are the live grants of a user, by client: two reads for each client that has some.
func (s *Store) GrantsOf(ctx context.Context, userID string) ([]Grant, error) {
	return s.allGrants(ctx, GrantQuery{UserID: userID}, nil)
}

// grantsOf is a page of the live grants of a user, to one client or to all.
func (s *Store) grantsOf(ctx context.Context, q GrantQuery) (grants []Grant, next string, err error) {
	all := under("usergrants", q.UserID)
	prefix := all
	if q.ClientID != "" {
		prefix = under("usergrants", q.UserID, q.ClientID)
	}
	var places []string // where such grants are: <client>/<mark>
	err = s.eachKey(ctx, prefix, func(_ string, k []byte) error {
		place, _, _ := strings.Cut(string(k[len(all):]), noteEnd)
		if (place > q.After || strings.HasPrefix(q.After, place)) && !slices.Contains(places, place) {
			places = append(places, place)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	for _, place := range places {
		from, end := "chains/"+place, clientv3.GetPrefixRangeEnd("chains/"+place)
		if strings.HasPrefix(q.After, place) {
			from = "chains/" + q.After + "\x00"
		}
		for more := true; more; {
			resp, err := s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(q.Limit-len(grants))))
			if err != nil {
				return nil, "", err
			}
			page, err := s.grantsAt(ctx, resp.Kvs)
			if err != nil {
				return nil, "", err
			}
			for _, g := range page {
				if g != nil && g.UserID == q.UserID {
					grants = append(grants, *g)
				}
			}
			if more = resp.More; len(resp.Kvs) > 0 {
				from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
			}
			if len(grants) == q.Limit {
				return grants, placeOf(resp.Kvs[len(resp.Kvs)-1].Key), nil
			}
		}
	}
	return grants, "", nil
}
