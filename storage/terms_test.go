package storage_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func synced(t *testing.T, s *storage.Store, users ...storage.User) {
	t.Helper()
	if err := s.SyncUsers(t.Context(), "local", users); err != nil {
		t.Fatal(err)
	}
}

func user(t *testing.T, s *storage.Store, id string) *storage.User {
	t.Helper()
	u, err := s.User(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// What ends a user's term, and what does not. A later term is a higher number, whatever the clock says.
func TestTermsOfAUser(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	ann := storage.User{ID: "ann", Credential: "1"}
	synced(t, s, ann)
	for _, c := range []struct {
		rule   string
		users  []storage.User
		ends   bool
		active bool
	}{
		{"nothing changed", []storage.User{ann}, false, true},
		{"a name", []storage.User{{ID: "ann", Name: "Ann", Credential: "1"}}, false, true},
		{"no credential is known", []storage.User{{ID: "ann", Name: "Ann"}}, false, true},
		{"the same as before", []storage.User{{ID: "ann", Credential: "1"}}, false, true},
		{"another password", []storage.User{{ID: "ann", Credential: "2"}}, true, true},
		{"the password of before", []storage.User{{ID: "ann", Credential: "1"}}, true, true},
		{"removed", nil, true, false},
		{"still removed", nil, false, false},
		{"back", []storage.User{{ID: "ann", Credential: "1"}}, true, true},
		{"disabled", []storage.User{{ID: "ann", Credential: "1", Disabled: true}}, true, false},
		{"still disabled, and another password", []storage.User{{ID: "ann", Credential: "2", Disabled: true}}, true, false},
		{"enabled", []storage.User{{ID: "ann", Credential: "2"}}, true, true},
	} {
		before := user(t, s, "ann")
		now = now.Add(-time.Hour) // the clock goes back all the time
		synced(t, s, c.users...)
		after := user(t, s, "ann")
		if ends := after.Term > before.Term; ends != c.ends || after.Term < before.Term || after.Active() != c.active {
			t.Errorf("%s: term %d, then %d, active: %v", c.rule, before.Term, after.Term, after.Active())
		}
		if c.ends && (after.Stands(before.Term) || after.Stands(after.Term) != c.active) {
			t.Errorf("%s: what was begun before stands, or what begins does not", c.rule)
		}
	}
	if n := len(audited(t, s, storage.AuditUserEnded)); n != 7 {
		t.Errorf("%d entries in the audit log", n)
	}
}

// The first start of this version finds records that say nothing of terms and passwords: everything goes on.
func TestRecordsOfOlderVersionsStand(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	session := signedIn(t, s, &storage.User{ID: "u-1"}, "")
	for key, value := range map[string]string{
		"users/u-1":      `{"id":"u-1","connector":"local","updatedAt":"2026-11-27T09:30:15.123456789Z"}`,
		"consents/c/u-1": `{"clientId":"c","userId":"u-1","scopes":["openid"],"updatedAt":"2026-11-27T09:30:15.123456789Z"}`,
	} {
		if _, err := etcd.Client.Put(t.Context(), etcd.Prefix+key, value); err != nil {
			t.Fatal(err)
		}
	}
	stands := func() string {
		t.Helper()
		p, err := s.Presence(t.Context(), session, "u-1", "c")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(p.Session != nil, p.Consent != nil, p.User.Stands(0))
	}
	synced(t, s, storage.User{ID: "u-1", Credential: "1"})
	if got := stands(); got != "true true true" {
		t.Errorf("after the first start: %s", got)
	}
	synced(t, s, storage.User{ID: "u-1", Credential: "2"})
	if got := stands(); got != "false false false" {
		t.Errorf("after a change of the password: %s", got)
	}
}

// Replicas that were started with different lists have each its way once, and then there is peace.
func TestReplicasWithDifferentUsers(t *testing.T) {
	etcd := storagetest.New(t)
	a, b := etcd.Store(), etcd.Store()
	listA, listB := []storage.User{{ID: "ann", Credential: "1"}, {ID: "bob", Credential: "1"}},
		[]storage.User{{ID: "ann", Credential: "2"}}
	synced(t, a, listA...)
	synced(t, b, listB...)
	for _, store := range []*storage.Store{a, b} {
		if _, err := store.ClearPastTerms(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := etcd.Dump()
	for range 3 { // while they run, and when one of them starts again
		if ended, err := a.ClearPastTerms(t.Context()); err != nil || ended != (storage.Ended{}) {
			t.Fatal(ended, err)
		}
		synced(t, b, listB...)
	}
	if etcd.Dump() != before {
		t.Error("there is no peace")
	}
	if u := user(t, a, "ann"); u.Credential != "2" || user(t, a, "bob").Active() {
		t.Errorf("%+v", u)
	}
	// Both at once: one of them comes last.
	race(t, 8, func() error { return a.SyncUsers(t.Context(), "local", listB) })
}

// A user's record that is gone and comes back begins another term, so nothing of before counts.
func TestUserWhoseRecordWasDeleted(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	synced(t, s, storage.User{ID: "ann"})
	before := user(t, s, "ann")
	if _, err := etcd.Client.Delete(t.Context(), etcd.Prefix+"users/ann"); err != nil {
		t.Fatal(err)
	}
	synced(t, s, storage.User{ID: "ann"})
	if after := user(t, s, "ann"); after.Stands(before.Term) || after.Stands(0) {
		t.Errorf("term %d, then %d", before.Term, after.Term)
	}
}

// Whatever races with the end of a user: what was begun before does not count after it.
func TestEndUserBeatsEverything(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, u := registered(t, s)
	session := signedIn(t, s, u, "")
	kept := from(session, true, c, u)
	mustGrant(t, s, kept, c, u)
	var grants [24]storage.Grant
	for i := range grants {
		grants[i] = from(session, i%2 == 0, c, u)
	}
	p, err := s.Presence(t.Context(), session, u.ID, c.ID)
	if err != nil || p.Session == nil {
		t.Fatal(err)
	}
	var next, ended atomic.Int64
	race(t, 48, func() error {
		i := next.Add(1) - 1
		switch {
		case i == 7 || i == 20:
			_, err := s.EndUser(t.Context(), u.ID, storage.AuditEntry{Reason: "revoked by an operator"})
			ended.Add(1)
			return err
		case i%4 == 0:
			_, err := s.CreateSession(t.Context(), storage.Session{UserID: u.ID, Term: u.Term,
				ExpiresAt: time.Now().Add(time.Hour)}, "")
			return err
		case i%4 == 1:
			return s.AddConsent(t.Context(), c.ID, p, appAsks("a"))
		}
		_, err := s.CreateGrant(t.Context(), grants[i/4*2+i%4-2], time.Now().Add(time.Hour), on(c, u))
		var stale *storage.StaleError
		if errors.As(err, &stale) {
			return storage.ErrNotFound
		}
		return err
	}, storage.ErrNotFound, storage.ErrSessionEnded, storage.ErrConflict)
	now := user(t, s, u.ID)
	if ended.Load() != 2 || now.Stands(u.Term) {
		t.Fatalf("ended %d times", ended.Load())
	}
	if list, _, err := s.Sessions(t.Context(), "", storage.Part{}); err != nil || len(list) != 0 {
		t.Errorf("%d sessions are listed, %v", len(list), err)
	}
	if p, err = s.Presence(t.Context(), session, u.ID, c.ID); err != nil || p.Session != nil || p.Consent != nil {
		t.Errorf("%+v, %v", p, err)
	}
	for _, g := range append(grants[:], kept) {
		if view, err := s.Grant(t.Context(), g.ClientID, g.ID, g.UserID); err == nil && view.User.Stands(view.Grant.Term) {
			t.Error("a grant stands")
		}
	}
	// One more end clears away what came in between.
	if _, err := s.EndUser(t.Context(), u.ID, storage.AuditEntry{Reason: "revoked by an operator"}); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"sessions/", "sessiongrants/", "chains/", "consents/", "pastterms/"} {
		if strings.Contains(etcd.Dump(), etcd.Prefix+prefix) {
			t.Errorf("%s are left", prefix)
		}
	}
	// And the user begins anew.
	session = signedIn(t, s, user(t, s, u.ID), "")
	if p, err = s.Presence(t.Context(), session, u.ID, c.ID); err != nil || p.Session == nil {
		t.Errorf("the user cannot begin anew: %v", err)
	}
}

// A replica that dies in the middle of it leaves the rest to the next look of any.
func TestFaultsWhileAUserEnds(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	_, u := registered(t, s)
	c := wantsToBeTold(t, s)
	for n := int64(1); ; n++ {
		u = user(t, s, u.ID)
		session := signedIn(t, s, u, "")
		mustGrant(t, s, from(session, false, c, u), c, u)
		mustGrant(t, s, newGrant(c, u), c, u)
		if err := s.AddConsent(t.Context(), c.ID, storage.Presence{User: u}, appAsks("a")); err != nil {
			t.Fatal(err)
		}
		told := len(outbox(t, s))
		var seen atomic.Int64
		etcd.Inject(func(write, after bool) error {
			if write && !after && seen.Add(1) >= n {
				return errors.New("injected")
			}
			return nil
		})
		_, failed := s.EndUser(t.Context(), u.ID, storage.AuditEntry{Reason: "revoked by an operator"})
		etcd.Inject(nil)
		if failed == nil {
			break
		}
		if n == 1 {
			if !user(t, s, u.ID).Stands(u.Term) {
				t.Error("ended although nothing was written")
			}
			continue
		}
		if p, err := s.Presence(t.Context(), session, u.ID, c.ID); err != nil || p.Session != nil || p.Consent != nil {
			t.Errorf("fault %d: something stands: %+v, %v", n, p, err)
		}
		if _, err := etcd.Store().ClearPastTerms(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(outbox(t, s)) <= told || strings.Contains(etcd.Dump(), etcd.Prefix+"chains/") ||
			strings.Contains(etcd.Dump(), etcd.Prefix+"pastterms/") {
			t.Errorf("fault %d: not cleared away", n)
		}
	}
}

// No code or consent from before a withdrawal is worth anything after it.
func TestRevokeConsentBeatsCodes(t *testing.T) {
	s := storagetest.New(t).Store()
	c, u := registered(t, s)
	session := signedIn(t, s, u, "")
	presence := func() storage.Presence {
		t.Helper()
		p, err := s.Presence(t.Context(), session, u.ID, c.ID)
		if err != nil || p.Session == nil {
			t.Fatal(err)
		}
		return p
	}
	for range 10 {
		p := presence()
		if err := s.AddConsent(t.Context(), c.ID, p, appAsks("a")); err != nil {
			t.Fatal(err)
		}
		var next atomic.Int64
		race(t, 16, func() error {
			switch i := next.Add(1); {
			case i == 5:
				_, err := s.RevokeConsent(t.Context(), c.ID, u.ID, storage.AuditEntry{Reason: "revoked by an operator"})
				return err
			case i%4 == 0:
				return s.AddConsent(t.Context(), c.ID, p, appAsks("b"))
			}
			g := newGrant(c, u)
			g.AsOf = p.AsOf
			return failure(s.CreateGrant(t.Context(), g, time.Now().Add(time.Hour), on(c, u)))
		}, storage.ErrWithdrawn, storage.ErrConflict)
		if list := grantsOf(t, s); list != 0 || presence().Consent != nil {
			t.Errorf("%d grants live, consent %+v", list, presence().Consent)
		}
		late := newGrant(c, u)
		late.AsOf = p.AsOf
		if _, err := s.CreateGrant(t.Context(), late, time.Now().Add(time.Hour), on(c, u)); !errors.Is(err,
			storage.ErrWithdrawn) {
			t.Errorf("a code from before: %v", err)
		}
		late.AsOf = presence().AsOf
		mustGrant(t, s, late, c, u) // of a user who was asked again
		if _, err := s.RevokeConsent(t.Context(), c.ID, u.ID,
			storage.AuditEntry{Reason: "revoked by an operator"}); err != nil {
			t.Errorf("a grant without a consent: %v", err)
		}
		if ended, err := s.RevokeConsent(t.Context(), c.ID, u.ID, storage.AuditEntry{}); err != nil ||
			ended != (storage.Ended{}) {
			t.Errorf("nothing to revoke: %v, %v", ended, err)
		}
		if _, err := s.RevokeConsent(t.Context(), "nobody", u.ID, storage.AuditEntry{}); !errors.Is(err,
			storage.ErrNotFound) {
			t.Errorf("of a client that nobody knows: %v", err)
		}
	}
}

func grantsOf(t *testing.T, s *storage.Store) int {
	t.Helper()
	list, _, err := s.Grants(t.Context(), storage.GrantQuery{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Parts of the sessions hold each of them once, whoever else has some.
func TestSessionsHaveParts(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, ann := registered(t, s)
	bob, err := s.PutUser(t.Context(), storage.User{ID: "bob", Connector: "local"})
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]bool)
	for i := range 130 {
		id := signedIn(t, s, []*storage.User{ann, bob}[i%2], "")
		want[storage.SID(id)] = true
		if i == 0 {
			mustGrant(t, s, from(id, false, c, ann), c, ann)
		}
	}
	for _, q := range []struct {
		user string
		want int
	}{{"", 130}, {"bob", 65}, {"nobody", 0}} {
		seen, clients := make(map[string]bool), 0
		part := storage.Part{Limit: 60}
		for {
			page, next, err := s.Sessions(t.Context(), q.user, part)
			if err != nil || len(page) > 60 {
				t.Fatal(len(page), err)
			}
			for _, v := range page {
				if seen[v.SID] || !want[v.SID] || v.User.ID != v.UserID || (q.user != "" && v.UserID != q.user) {
					t.Errorf("%+v", v)
				}
				seen[v.SID] = true
				clients += len(v.Clients)
			}
			if part.After = next; next == "" {
				break
			}
		}
		if len(seen) != q.want || clients != map[string]int{"": 1}[q.user] {
			t.Errorf("of %q: %d sessions, %d clients", q.user, len(seen), clients)
		}
	}
	if n, err := s.RevokeSessions(t.Context(), "bob", storage.AuditEntry{Reason: "revoked by an operator"}); err != nil ||
		n != 65 {
		t.Errorf("%d ended, %v", n, err)
	}
	if strings.Count(etcd.Dump(), etcd.Prefix+"sessions/") != 65 {
		t.Error("the wrong sessions ended")
	}
}

// An operator ends things of a database that is full, too.
func TestFullDatabaseStillEndsUsers(t *testing.T) {
	kek, log, ctx := storagetest.New(t).KEK, new(logged), t.Context()
	dir := t.TempDir()
	embedded, s := small(t, dir, 8<<20, kek, log.logger())
	c, ann := registered(t, s)
	bob, err := s.PutUser(ctx, storage.User{ID: "bob", Connector: "local"})
	if err != nil {
		t.Fatal(err)
	}
	sessions := make(map[string]string)
	grants := make(map[string][]storage.Grant)
	for _, u := range []*storage.User{ann, bob} {
		sessions[u.ID] = signedIn(t, s, u, "")
		grants[u.ID] = []storage.Grant{from(sessions[u.ID], false, c, u), newGrant(c, u), newGrant(c, u)}
		for _, g := range grants[u.ID] {
			mustGrant(t, s, g, c, u)
		}
		if err := s.AddConsent(ctx, c.ID, storage.Presence{User: u}, appAsks("a")); err != nil {
			t.Fatal(err)
		}
	}
	changed, removed := newChanging(t, s, c, "changed"), newChanging(t, s, c, "removed")
	described := "https://app.test/client.json"
	ofDescribed := newGrant(&storage.Client{ID: described}, bob)
	mustGrant(t, s, ofDescribed, &storage.Client{ID: described}, bob)
	eventually(t, "the store is full", func() bool {
		fill(t, embedded, false)
		return errors.Is(failure(s.CreateGrant(ctx, newGrant(c, ann), time.Now().Add(time.Hour), on(c, ann))),
			storage.ErrFull)
	})
	why := storage.AuditEntry{Reason: "revoked by an operator"}
	if err := s.SyncUsers(ctx, "other", []storage.User{{ID: changed.ID, Credential: "another"}}); !errors.Is(err,
		storage.ErrFull) {
		t.Errorf("changed users: %v", err)
	}
	changed.ended(t, s, "another password, without room")
	removed.ended(t, s, "removed, without room")
	if ended, err := s.EndDescribed(ctx, described, why); err != nil || !ended || alive(t, s, ofDescribed) {
		t.Errorf("end a described client: %v, %v", ended, err)
	}
	if alive, err := s.RevokeGrant(ctx, grants["bob"][1], why); err != nil || !alive {
		t.Errorf("revoke a grant: %v, %v", alive, err)
	}
	if ended, err := s.EndUser(ctx, ann.ID, why); err != nil ||
		ended != (storage.Ended{Sessions: 1, Grants: 3, Consents: 1}) {
		t.Errorf("end a user: %v, %v", ended, err)
	}
	present := func(u *storage.User) string {
		p, err := s.Presence(ctx, sessions[u.ID], u.ID, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		living := 0
		for _, g := range grants[u.ID] {
			if alive(t, s, g) {
				living++
			}
		}
		return fmt.Sprint(p.Session != nil, p.Consent != nil, living)
	}
	if got := present(ann); got != "false false 0" {
		t.Errorf("of the user who was ended: %s", got)
	}
	if got := present(bob); got != "true false 2" {
		t.Errorf("of the user one of whose grants was revoked: %s", got)
	}
	if ended, err := s.RevokeConsent(ctx, c.ID, bob.ID, why); err != nil || ended.Grants != 2 {
		t.Errorf("revoke a consent: %v, %v", ended, err)
	}
	if n, err := s.RevokeSessions(ctx, bob.ID, why); err != nil || n != 1 || present(bob) != "false false 0" {
		t.Errorf("%d sessions ended, %v; left: %s", n, err, present(bob))
	}
	s.Close()
	embedded.Close()

	embedded, s = small(t, dir, 64<<20, kek, discard)
	defer embedded.Close()
	defer s.Close()
	if err := s.SyncUsers(ctx, "other", []storage.User{{ID: changed.ID, Credential: "another"},
		{ID: removed.ID, Credential: "one"}}); err != nil {
		t.Fatal(err)
	}
	changed.ended(t, s, "another password")
	removed.ended(t, s, "removed and added again")
}

// changing is somebody whose record will change, with what they have.
type changing struct {
	*storage.User
	grant   storage.Grant
	session string
}

func newChanging(t *testing.T, s *storage.Store, c *storage.Client, id string) changing {
	t.Helper()
	u, err := s.PutUser(t.Context(), storage.User{ID: id, Connector: "other", Credential: "one"})
	if err != nil {
		t.Fatal(err)
	}
	x := changing{User: u, session: signedIn(t, s, u, "")}
	x.grant = from(x.session, true, c, u)
	mustGrant(t, s, x.grant, c, u)
	return x
}

// ended checks that nothing stands of what the user had.
func (x changing) ended(t *testing.T, s *storage.Store, what string) {
	t.Helper()
	view, err := s.Grant(t.Context(), x.grant.ClientID, x.grant.ID, x.ID)
	if err == nil && view.User.Stands(view.Grant.Term) {
		t.Errorf("%s: the grant stands", what)
	} else if err != nil && !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
	p, err := s.Presence(t.Context(), x.session, x.ID, x.grant.ClientID)
	if err != nil || p.Session != nil {
		t.Errorf("%s: the session stands: %v", what, err)
	}
}
