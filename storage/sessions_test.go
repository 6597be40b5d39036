package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func signedIn(t *testing.T, s *storage.Store, u *storage.User, replaces string) string {
	t.Helper()
	id, err := s.CreateSession(t.Context(), storage.Session{UserID: u.ID, ExpiresAt: time.Now().Add(time.Hour),
		Term: u.Term}, replaces)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// from is a grant that came from a session.
func from(session string, outlives bool, c *storage.Client, u *storage.User) storage.Grant {
	g := newGrant(c, u)
	g.Session, g.OutlivesSession, g.SessionEnds = storage.SID(session), outlives, time.Now().Add(time.Hour)
	return g
}

func mustGrant(t *testing.T, s *storage.Store, g storage.Grant, c *storage.Client, u *storage.User) {
	t.Helper()
	if _, err := s.CreateGrant(t.Context(), g, time.Now().Add(time.Hour), on(c, u)); err != nil {
		t.Fatal(err)
	}
}

func alive(t *testing.T, s *storage.Store, g storage.Grant) bool {
	t.Helper()
	_, err := s.Grant(t.Context(), g.ClientID, g.ID, g.UserID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func audited(t *testing.T, s *storage.Store, action string) []storage.AuditEntry {
	t.Helper()
	entries, _, err := s.Audit(t.Context(), storage.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var out []storage.AuditEntry
	for _, e := range entries {
		if e.Action == action {
			out = append(out, e)
		}
	}
	return out
}

// wantsToBeTold gives a client an address for logout tokens.
func wantsToBeTold(t *testing.T, s *storage.Store) *storage.Client {
	t.Helper()
	view, err := s.App(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	c := *view.Client
	c.BackchannelLogoutURI = "https://app.test/logout"
	if err := s.CommitRelease(t.Context(), storage.Release{App: *view.App, Client: &c}); err != nil {
		t.Fatal(err)
	}
	current, err := s.Client(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	return current
}

func outbox(t *testing.T, s *storage.Store) []storage.Logout {
	t.Helper()
	list, err := s.Logouts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A session takes with it what came from it, and nothing else.
func TestEndOfASession(t *testing.T) {
	s := storagetest.New(t).Store()
	_, u := registered(t, s)
	c := wantsToBeTold(t, s)
	id, other := signedIn(t, s, u, ""), signedIn(t, s, u, "")
	dies, stays, apart, elsewhere := from(id, false, c, u), from(id, true, c, u), newGrant(c, u), from(other, false, c, u)
	for _, g := range []storage.Grant{dies, stays, apart, elsewhere} {
		mustGrant(t, s, g, c, u)
	}
	ended, err := s.EndSession(t.Context(), id, "the user signed out")
	if err != nil || ended.SID != storage.SID(id) || ended.UserID != u.ID || len(ended.Clients) != 1 ||
		ended.Clients[0] != c.ID {
		t.Fatalf("%+v, %v", ended, err)
	}
	if alive(t, s, dies) || !alive(t, s, stays) || !alive(t, s, apart) || !alive(t, s, elsewhere) {
		t.Error("the wrong grants ended")
	}
	if p, err := s.Presence(t.Context(), id, u.ID, c.ID); err != nil || p.Session != nil {
		t.Errorf("the session stands: %v", err)
	}
	list := outbox(t, s)
	if len(list) != 1 || list[0].ClientID != c.ID || list[0].UserID != u.ID || list[0].SID != storage.SID(id) {
		t.Errorf("outbox: %+v", list)
	}
	if e := audited(t, s, storage.AuditSessionEnded); len(e) != 1 || e[0].Actor != "user:"+u.ID ||
		e[0].Reason != "the user signed out" {
		t.Errorf("audit: %+v", e)
	}
	if e := audited(t, s, storage.AuditGrantRevoked); len(e) != 1 || e[0].Detail != "grant "+dies.ID || e[0].App != "app" {
		t.Errorf("audit: %+v", e)
	}
	if _, err := s.EndSession(t.Context(), id, ""); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("ended twice: %v", err)
	}
	// A code that came from it is worth nothing now, and writes nothing.
	late := from(id, true, c, u)
	if _, err := s.CreateGrant(t.Context(), late, time.Now().Add(time.Hour), on(c, u)); !errors.Is(err,
		storage.ErrSessionEnded) {
		t.Errorf("a code of the session: %v", err)
	}
	if alive(t, s, late) {
		t.Error("it made a grant")
	}
}

// The name of a session opens nothing, and neither does an id that was renewed since.
func TestSessionOpensWithItsIDOnly(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, u := registered(t, s)
	first := signedIn(t, s, u, "")
	g := from(first, false, c, u)
	mustGrant(t, s, g, c, u)
	second := signedIn(t, s, u, first)
	if storage.SID(second) != storage.SID(first) || second == first {
		t.Fatalf("%s, then %s", first, second)
	}
	for rule, id := range map[string]string{
		"before it was renewed": first, "its name": storage.SID(second), "its name and a dot": storage.SID(second) + ".",
		"another's secret": storage.SID(second) + first[strings.Index(first, "."):], "nothing": "",
		"a dot": ".", "unknown": "x.y",
	} {
		if p, err := s.Presence(t.Context(), id, u.ID, c.ID); err != nil || p.Session != nil {
			t.Errorf("%s: opens, %v", rule, err)
		}
		if _, err := s.EndSession(t.Context(), id, ""); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: ends: %v", rule, err)
		}
	}
	if strings.Contains(etcd.Dump(), second) || len(outbox(t, s)) != 0 || !alive(t, s, g) {
		t.Error("the database holds the id, or the renewal ended something")
	}
	// What came from it before it was renewed still ends with it.
	if _, err := s.EndSession(t.Context(), second, ""); err != nil || alive(t, s, g) {
		t.Errorf("alive after the end: %v", err)
	}
}

// Somebody else who signs in ends the session before, everywhere.
func TestAnotherUserEndsTheSessionBefore(t *testing.T) {
	s := storagetest.New(t).Store()
	_, u := registered(t, s)
	c := wantsToBeTold(t, s)
	bob, err := s.PutUser(t.Context(), storage.User{ID: "user-2", Connector: "local"})
	if err != nil {
		t.Fatal(err)
	}
	before := signedIn(t, s, u, "")
	g := from(before, false, c, u)
	mustGrant(t, s, g, c, u)
	after := signedIn(t, s, bob, before)
	if storage.SID(after) == storage.SID(before) || alive(t, s, g) || len(outbox(t, s)) != 1 {
		t.Errorf("the session of %s goes on as bob's", u.ID)
	}
	if p, err := s.Presence(t.Context(), before, u.ID, c.ID); err != nil || p.Session != nil {
		t.Errorf("the one before stands: %v", err)
	}
	if p, err := s.Presence(t.Context(), after, bob.ID, c.ID); err != nil || p.Session == nil ||
		p.Session.SID != storage.SID(after) {
		t.Errorf("bob is not signed in: %v", err)
	}
}

// However many end it at once, it ends once; and no code that races with that leaves a grant behind.
func TestRacingLogouts(t *testing.T) {
	s := storagetest.New(t).Store()
	_, u := registered(t, s)
	c := wantsToBeTold(t, s)
	id := signedIn(t, s, u, "")
	for range 3 {
		mustGrant(t, s, from(id, false, c, u), c, u)
	}
	var grants [16]storage.Grant
	for i := range grants {
		grants[i] = from(id, false, c, u)
	}
	var next, ended atomic.Int64
	race(t, 48, func() error {
		i := next.Add(1) - 1
		if i%3 == 0 {
			return failure(s.CreateGrant(t.Context(), grants[i/3], time.Now().Add(time.Hour), on(c, u)))
		}
		_, err := s.EndSession(t.Context(), id, "the user signed out")
		if err == nil {
			ended.Add(1)
		}
		return err
	}, storage.ErrNotFound, storage.ErrSessionEnded)
	if ended.Load() != 1 || len(outbox(t, s)) != 1 || len(audited(t, s, storage.AuditSessionEnded)) != 1 {
		t.Errorf("ended %d times, %d logouts", ended.Load(), len(outbox(t, s)))
	}
	if list, _, err := s.Grants(t.Context(), storage.GrantQuery{}); err != nil || len(list) != 0 {
		t.Errorf("%d grants survived, %v", len(list), err)
	}
}

// A session that an app has asked for tokens all day long ends like any other.
func TestEndOfASessionWithManyGrants(t *testing.T) {
	etcd := storagetest.Many(t)
	s := etcd.Store()
	_, u := registered(t, s)
	c := wantsToBeTold(t, s)
	id := signedIn(t, s, u, "")
	const many = 950
	for range many {
		mustGrant(t, s, from(id, false, c, u), c, u)
	}
	id = signedIn(t, s, u, id) // carries all of them along
	if _, err := s.EndSession(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	if list, _, err := s.Grants(t.Context(), storage.GrantQuery{}); err != nil || len(list) != 0 ||
		len(outbox(t, s)) != 1 {
		t.Errorf("%d grants, %d logouts, %v", len(list), len(outbox(t, s)), err)
	}
	if strings.Contains(etcd.Dump(), "sessiongrants/") {
		t.Error("records of the session are left")
	}
}

// A browser that signs in at a host once more has one grant there; what is of another host, app or session stays, and
// so does what came at the same time.
func TestGrantOfAHostReplacesThoseBefore(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, u := registered(t, s)
	id, other := signedIn(t, s, u, ""), signedIn(t, s, u, "")
	at := func(session, host string, ago time.Duration) storage.Grant {
		g := from(session, false, c, u)
		g.Host, g.CreatedAt = host, g.CreatedAt.Add(-ago)
		return g
	}
	const wiki, blog = "wiki.test", "blog.test"
	old, older := at(id, wiki, 2*time.Minute), at(id, wiki, time.Hour)
	stay := []storage.Grant{at(id, blog, time.Hour), at(other, wiki, time.Hour), from(id, false, c, u),
		from(id, true, c, u)}
	for _, g := range append(stay, older, old) {
		mustGrant(t, s, g, c, u)
	}
	if alive(t, s, older) || !alive(t, s, old) {
		t.Fatal("the second one has not replaced the first")
	}
	id = signedIn(t, s, u, id) // the session goes on, and still knows
	var tabs [16]storage.Grant
	for i := range tabs {
		tabs[i] = at(id, wiki, 0)
	}
	var next atomic.Int64
	race(t, len(tabs), func() error {
		return failure(s.CreateGrant(t.Context(), tabs[next.Add(1)-1], time.Now().Add(time.Hour), on(c, u)))
	})
	if alive(t, s, old) || len(audited(t, s, storage.AuditGrantRevoked)) != 2 {
		t.Errorf("the one before is alive: %v; audited: %v", alive(t, s, old), audited(t, s, storage.AuditGrantRevoked))
	}
	for _, g := range append(stay, tabs[:]...) {
		if !alive(t, s, g) {
			t.Errorf("%s at %q of session %s has ended", g.ID, g.Host, g.Session)
		}
	}
	last := at(id, wiki, -2*time.Minute)
	if got := etcd.Count(func() { mustGrant(t, s, last, c, u) }); got.Proposals != 1 || got.Reads != 1 {
		t.Errorf("replacing them costs %+v", got)
	}
	if list, _, err := s.Grants(t.Context(), storage.GrantQuery{}); err != nil || len(list) != len(stay)+
		1 || !alive(t, s, last) {
		t.Errorf("%d grants, %v", len(list), err)
	}
	if err := failure(s.CreateGrant(t.Context(), tabs[0], time.Now().Add(time.Hour), on(c, u))); !errors.Is(err,
		storage.ErrReplayed) {
		t.Errorf("the code of one that was replaced: %v", err)
	}
	if _, err := s.EndSession(t.Context(), id, "the user signed out"); err != nil || alive(t, s, last) {
		t.Errorf("after the end of the session: %v", err)
	}
}

// Names with slashes in them are not taken apart.
func TestSessionsOfOddClients(t *testing.T) {
	s := storagetest.New(t).Store()
	u, err := s.PutUser(t.Context(), storage.User{ID: "a/b%2f..", Connector: "local"})
	if err != nil {
		t.Fatal(err)
	}
	var clients []*storage.Client
	for _, name := range []string{"x", "x/y", "x%2Fy", "..", "ü \x00"} {
		c := &storage.Client{ID: name, App: name, Client: oauth.Client{ClientName: name,
			RedirectURIs: []string{"https://app.test/cb"}}}
		c.BackchannelLogoutURI = "https://app.test/logout"
		if err := s.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: name, ClientID: name},
			Client: c}); err != nil {
			t.Fatal(err)
		}
		if c, err = s.Client(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	id := signedIn(t, s, u, "")
	for _, c := range clients {
		mustGrant(t, s, from(id, false, c, u), c, u)
	}
	ended, err := s.EndSession(t.Context(), id, "")
	if err != nil || len(ended.Clients) != len(clients) || len(outbox(t, s)) != len(clients) {
		t.Errorf("%+v, %v", ended, err)
	}
	if list, _, err := s.Grants(t.Context(), storage.GrantQuery{}); err != nil || len(list) != 0 {
		t.Errorf("%d grants, %v", len(list), err)
	}
}

// silent never brings anything.
type silent struct{ clientv3.Watcher }

func (silent) Watch(ctx context.Context, _ string, _ ...clientv3.OpOption) clientv3.WatchChan {
	events := make(chan clientv3.WatchResponse)
	context.AfterFunc(ctx, func() { close(events) })
	return events
}

// Memory may lag: a client whose record it does not have as it is now gets its outbox entry all the same.
func TestLogoutOfAClientThatMemoryHasNotHeardOf(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	old, u := registered(t, s)
	id := signedIn(t, s, u, "")
	mustGrant(t, s, from(id, false, old, u), old, u)
	client := clientv3.NewCtxClient(context.Background())
	client.KV, client.Lease, client.Watcher = etcd.Client.KV, etcd.Client.Lease, silent{etcd.Client.Watcher}
	lagging, err := storage.New(t.Context(), client, storage.Options{Prefix: etcd.Prefix, KEK: etcd.KEK, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer lagging.Close()
	wantsToBeTold(t, s)
	if _, err := lagging.EndSession(t.Context(), id, ""); err != nil || len(outbox(t, s)) != 1 {
		t.Errorf("%d logouts, %v", len(outbox(t, s)), err)
	}
}

// A client that does not want to be told costs the outbox nothing.
func TestLogoutOfAClientThatNeedNotBeTold(t *testing.T) {
	s := storagetest.New(t).Store()
	c, u := registered(t, s)
	id := signedIn(t, s, u, "")
	mustGrant(t, s, from(id, false, c, u), c, u)
	if _, err := s.EndSession(t.Context(), id, ""); err != nil || len(outbox(t, s)) != 0 {
		t.Errorf("%d logouts, %v", len(outbox(t, s)), err)
	}
}

// One of many replicas gets an entry of the outbox, and only it can say what came of that.
func TestLogoutIsClaimedOnce(t *testing.T) {
	s := storagetest.New(t).Store()
	_, u := registered(t, s)
	c := wantsToBeTold(t, s)
	id := signedIn(t, s, u, "")
	mustGrant(t, s, from(id, false, c, u), c, u)
	if _, err := s.EndSession(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	l := outbox(t, s)[0]
	var claimed storage.Logout
	if won := race(t, 32, func() error {
		mine, err := s.ClaimLogout(t.Context(), l, time.Now().Add(time.Minute))
		if err == nil {
			claimed = mine
		}
		return err
	}, storage.ErrConflict); won != 1 {
		t.Fatalf("claimed %d times", won)
	}
	if now := outbox(t, s)[0]; !now.Due().After(time.Now()) {
		t.Error("due although it is claimed")
	}
	for rule, err := range map[string]error{
		"drop":     s.DropLogout(t.Context(), l),
		"postpone": func() error { _, err := s.PostponeLogout(t.Context(), l, time.Now()); return err }(),
	} {
		if !errors.Is(err, storage.ErrConflict) {
			t.Errorf("%s without the claim: %v", rule, err)
		}
	}
	next := time.Now().Add(time.Hour)
	claimed, err := s.PostponeLogout(t.Context(), claimed, next)
	if err != nil || claimed.Attempts != 1 || !claimed.Due().Equal(next.UTC()) {
		t.Errorf("%+v, %v", claimed, err)
	}
	if err := s.DropLogout(t.Context(), claimed, storage.AuditEntry{Action: storage.AuditLogoutFailed}); err != nil ||
		len(outbox(t, s)) != 0 {
		t.Errorf("%v", err)
	}
	if len(audited(t, s, storage.AuditLogoutFailed)) != 1 {
		t.Error("not in the audit log")
	}
}

// A fault at any step of an end: nothing has happened, or all of it.
func TestFaultsWhileASessionEnds(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } }) // no lease ends in between
	_, u := registered(t, s)
	c := wantsToBeTold(t, s)
	bob, err := s.PutUser(t.Context(), storage.User{ID: "user-2", Connector: "local"})
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]int64{"sign-out": 2, "another user": 3} // reads, and one proposal
	for what, end := range map[string]func(ctx context.Context, id string) error{
		"sign-out": func(ctx context.Context, id string) error { _, err := s.EndSession(ctx, id, ""); return err },
		"another user": func(ctx context.Context, id string) error {
			_, err := s.CreateSession(ctx, storage.Session{UserID: bob.ID, ExpiresAt: time.Now().Add(time.Hour)}, id)
			return err
		},
	} {
		for n := int64(1); n <= steps[what]; n++ {
			for _, sent := range []bool{false, true} {
				id := signedIn(t, s, u, "")
				g := from(id, false, c, u)
				mustGrant(t, s, g, c, u)
				before := len(outbox(t, s))
				var seen atomic.Int64
				etcd.Inject(func(_, after bool) error {
					if after == sent && seen.Add(1) == n {
						return errors.New("injected")
					}
					return nil
				})
				failed := end(t.Context(), id)
				etcd.Inject(nil)
				if failed == nil || errors.Is(failed, storage.ErrNotFound) {
					t.Fatalf("%s: fault %d was not met: %v", what, n, failed)
				}
				p, err := s.Presence(t.Context(), id, u.ID, c.ID)
				if err != nil {
					t.Fatal(err)
				}
				state := fmt.Sprint(p.Session != nil, alive(t, s, g), len(outbox(t, s))-before)
				if want := map[bool]string{false: "true true 0", true: "false false 1"}[n == steps[what] && sent]; state != want {
					t.Errorf("%s, fault %d, sent %v: %s, want %s", what, n, sent, state, want)
				}
			}
		}
	}
}

// A sign-in that was under way when its user was deleted is in no history.
func TestHistoryOfADeletedUser(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := t.Context()
	gone := managed(t, s, "ann", "ann@app.test").User
	if _, err := s.DeleteUser(ctx, "ann", storage.AuditEntry{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateSession(ctx, storage.Session{UserID: "ann", Term: gone.Term, Address: "192.0.2.1",
		ExpiresAt: time.Now().Add(time.Hour)}, ""); err != nil {
		t.Fatal(err)
	}
	managed(t, s, "ann", "another-ann@app.test")
	if list, err := s.SignIns(ctx, "ann", 0); err != nil || len(list) != 0 {
		t.Errorf("%+v %v", list, err)
	}
}
