package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// What is asked of one grant, or of one client, must not cost more because there are many grants. So these tests count
// what etcd sends and deletes, and not the time that it takes.

// manyGrants stores so many grants of a client, each of a user of its own, whose records are not there.
func manyGrants(t testing.TB, s *storage.Store, c *storage.Client, n int) []storage.Grant {
	t.Helper()
	grants := make([]storage.Grant, n)
	var group errgroup.Group
	group.SetLimit(64)
	for i := range grants {
		g := newGrant(c, &storage.User{ID: fmt.Sprintf("many-%d", i)})
		grants[i] = g
		group.Go(func() error {
			return failure(s.CreateGrant(context.Background(), g, g.ExpiresAt, storage.Revisions{Client: c.Revision}))
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return grants
}

// appWithClient stores an app with a client of that id.
func appWithClient(t testing.TB, s *storage.Store, app, id string) *storage.Client {
	t.Helper()
	err := s.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: app, ClientID: id},
		Client: &storage.Client{ID: id, App: app, Client: oauth.Client{ClientName: app, Scopes: []string{"a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Client(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOneOfManyGrantsIsFoundWithoutReadingTheOthers(t *testing.T) {
	etcd := storagetest.Many(t)
	s := etcd.Store()
	first, last := appWithClient(t, s, "a", "a-1"), appWithClient(t, s, "z", "z-1")
	described := &storage.Client{ID: "https://agent.example/client.json"} // it has no record
	for range 150 {
		id := storage.NewClientID("other")
		appWithClient(t, s, id, id)
	}
	for _, c := range []*storage.Client{first, described, last} {
		grants := manyGrants(t, s, c, 400)
		want := grants[200]
		var found *storage.Grant
		var err error
		var asked storagetest.Counts
		weight := etcd.Weigh(func() { asked = etcd.Count(func() { found, err = s.FindGrant(t.Context(), want.ID) }) })
		if err != nil || found.ID != want.ID || found.ClientID != c.ID || found.UserID != want.UserID ||
			found.Generation != 1 {
			t.Fatalf("%s: %+v, %v", c.ID, found, err)
		}
		if asked.Proposals != 0 || asked.Reads > 8 || weight.Bytes > 10_000 {
			t.Errorf("%s: %+v, %d bytes", c.ID, asked, weight.Bytes)
		}
		if alive, err := s.KillGrant(t.Context(), c.ID, want.ID, storage.AuditEntry{Action: storage.AuditGrantRevoked,
			Reason: "revoked"}); err != nil || !alive {
			t.Fatal(alive, err)
		}
		if _, err := s.FindGrant(t.Context(), want.ID); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: a dead grant: %v", c.ID, err)
		}
	}
	if _, err := s.FindGrant(t.Context(), "../"+storage.NewGrantID()); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("one that there never was: %v", err)
	}
}

func TestGrantsAreListedInPages(t *testing.T) {
	etcd := storagetest.Many(t)
	s := etcd.Store()
	small, big := appWithClient(t, s, "a", "a-1"), appWithClient(t, s, "b", "b-1")
	want := make(map[string]bool)
	for _, g := range manyGrants(t, s, small, 3) {
		want[g.ID] = true
	}
	ended := 0
	for i, g := range manyGrants(t, s, big, 1300) {
		if i%10 > 0 {
			want[g.ID] = true
			continue
		}
		ended++
		if _, err := s.KillGrant(t.Context(), big.ID, g.ID, storage.AuditEntry{Action: storage.AuditGrantRevoked,
			Reason: "revoked"}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(q storage.GrantQuery, most int) (seen []storage.Grant) {
		t.Helper()
		for {
			var page []storage.Grant
			var next string
			var err error
			var asked storagetest.Counts
			weight := etcd.Weigh(func() { asked = etcd.Count(func() { page, next, err = s.Grants(t.Context(), q) }) })
			if err != nil {
				t.Fatal(err)
			}
			if asked.Proposals > 0 || asked.Reads > 10 {
				t.Errorf("a page is %+v", asked)
			}
			if len(page) > most {
				t.Fatalf("%d on a page", len(page))
			}
			if q.UserID == "" && weight.Bytes > 600_000 {
				t.Errorf("a page reads %d bytes", weight.Bytes)
			}
			seen = append(seen, page...)
			if q.After = next; next == "" {
				return seen
			}
		}
	}
	for _, limit := range []int{0, 7, 500} {
		most := limit
		if limit == 0 {
			most = 500
		}
		seen := list(storage.GrantQuery{Limit: limit}, most)
		once := make(map[string]bool)
		for i, g := range seen {
			if !want[g.ID] || once[g.ID] {
				t.Fatalf("pages of %d: %s is dead, or there twice", limit, g.ID)
			}
			once[g.ID] = true
			if i > 0 && seen[i-1].ClientID > g.ClientID {
				t.Fatalf("pages of %d: not in the order of clients", limit)
			}
		}
		if len(seen) != len(want) {
			t.Errorf("pages of %d: %d grants, want %d", limit, len(seen), len(want))
		}
	}
	if seen := list(storage.GrantQuery{ClientID: big.ID}, 500); len(seen) != 1300-ended {
		t.Errorf("of the client: %d", len(seen))
	}
	if seen := list(storage.GrantQuery{ClientID: small.ID, After: "0.zzz"}, 500); len(seen) != 0 {
		t.Errorf("after the client: %d", len(seen))
	}
	if seen := list(storage.GrantQuery{UserID: "many-1299"}, 500); len(seen) != 1 || seen[0].ClientID != big.ID {
		t.Errorf("of the user: %+v", seen)
	}
	var n int
	var err error
	if weight := etcd.Weigh(func() { n, err = s.CountGrants(t.Context(), big.ID) }); err != nil || n != 1300-ended ||
		weight.Bytes > 0 {
		t.Errorf("counted %d (%v), with %d bytes", n, err, weight.Bytes)
	}
}

// A store that opens reads clients and keys, and nothing that users leave behind.
func TestStartReadsNoGrants(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	manyGrants(t, s, appWithClient(t, s, "a", "a-1"), 600)
	if _, err := s.PutUser(t.Context(), storage.User{ID: "u", Connector: "local"}); err != nil {
		t.Fatal(err)
	}
	var asked storagetest.Counts
	weight := etcd.Weigh(func() { asked = etcd.Count(func() { etcd.Store() }) })
	if weight.Bytes > 10_000 || asked.Proposals > 0 {
		t.Errorf("%+v, %+v", weight, asked)
	}
}

// Nor does it go through people: those of the configuration are made what it says, those of connectors that are gone
// leave, and what is sealed is under the newest key, at the same cost for a thousand users as for one.
func TestStartGoesThroughNoUsers(t *testing.T) {
	start := func(users int) (storagetest.Weight, storagetest.Counts) {
		etcd := storagetest.Many(t)
		s := etcd.Store()
		ctx := t.Context()
		var group errgroup.Group
		group.SetLimit(64)
		for i := range users {
			group.Go(func() error {
				a := eve()
				a.User.ID, a.User.UpstreamID = fmt.Sprint("sub-", i), fmt.Sprint("uid=", i)
				_, err := s.ArriveUser(ctx, a)
				return err
			})
			group.Go(func() error {
				_, err := s.PutAccount(ctx, storage.User{ID: fmt.Sprint("u-", i), Email: fmt.Sprint(i, "@app.test")}, nil,
					&storage.FactorChange{Next: storage.Factors{Password: storage.Password{Hash: "$argon2id$"}}}, storage.AuditEntry{})
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		synced(t, s, storage.User{ID: "ann"})
		if err := s.Reseal(ctx); err != nil {
			t.Fatal(err)
		}
		var asked storagetest.Counts
		return etcd.Weigh(func() {
			asked = etcd.Count(func() {
				s := etcd.Store()
				synced(t, s, storage.User{ID: "ann"})
				if left, err := s.LeaveUsers(ctx, map[string]bool{"local": true, "ldap": true}); err != nil || left != 0 {
					t.Error(left, err)
				}
				if err := errors.Join(s.Reseal(ctx), s.Sweep(ctx)); err != nil {
					t.Error(err)
				}
			})
		}), asked
	}
	few, asked := start(1)
	many, askedOfMany := start(1000)
	if asked != askedOfMany || many.Bytes > few.Bytes+1000 {
		t.Errorf("%+v and %+v for one, %+v and %+v for many", few, asked, many, askedOfMany)
	}
}

// clientEndings are the ways in which a client ends, each with one call.
var clientEndings = map[string]func(t *testing.T, s *storage.Store) error{
	"delete app": func(t *testing.T, s *storage.Store) error {
		view, err := s.App(t.Context(), "app")
		if err != nil {
			return err
		}
		return s.BeginDelete(t.Context(), view, nil)
	},
	"apply without a client": func(t *testing.T, s *storage.Store) error {
		view, err := s.App(t.Context(), "app")
		if err != nil {
			return err
		}
		app := *view.App
		app.ClientID = ""
		return s.CommitRelease(t.Context(), storage.Release{App: app, RemoveClient: view.Client.ID})
	},
	"delete client": func(t *testing.T, s *storage.Store) error {
		view, err := s.App(t.Context(), "app")
		if err != nil {
			return err
		}
		return s.UnregisterClient(t.Context(), view.Client)
	},
}

const manyEnd = 1700

func TestManyGrantsEndAtOnceAndAreDeletedInPortions(t *testing.T) {
	for how, end := range clientEndings {
		t.Run(how, func(t *testing.T) {
			etcd := storagetest.Many(t)
			s := etcd.Store()
			c := appWithClient(t, s, "app", "app-1")
			stays := manyGrants(t, s, appWithClient(t, s, "appa", "app-10"), 1)[0]
			grants := manyGrants(t, s, c, manyEnd)
			asked := appAsks("a")
			if err := s.AddConsent(t.Context(), c.ID, storage.Presence{User: &storage.User{ID: "many-1"}}, asked); err != nil {
				t.Fatal(err)
			}
			var err error
			if weight := etcd.Weigh(func() { err = end(t, s) }); err != nil || weight.Deleted > 1000 {
				t.Errorf("one request deletes %d keys (%v)", weight.Deleted, err)
			}
			if dump := etcd.Dump(); strings.Contains(dump, grants[0].ID) || strings.Contains(dump, "consents/") ||
				strings.Contains(dump, "endings/") {
				t.Error("something is left")
			}
			if !alive(t, s, stays) {
				t.Error("another client's grant has ended")
			}
		})
	}
}

// After the first transaction nothing of the grants works, whatever becomes of the process; what is left to delete is
// deleted by the next start.
func TestInterruptedDeletionIsDeletedAndGoesOnAfterARestart(t *testing.T) {
	for how, end := range clientEndings {
		t.Run(how, func(t *testing.T) {
			etcd := storagetest.Many(t)
			s := etcd.Store()
			c := appWithClient(t, s, "app", "app-1")
			grants := manyGrants(t, s, c, manyEnd)
			writes := 0
			etcd.Inject(func(write, sent bool) error {
				if write && !sent {
					writes++
				}
				if writes > 2 { // the ending, and one portion
					return errors.New("the process is gone")
				}
				return nil
			})
			err := end(t, s)
			etcd.Inject(nil)
			if err != nil {
				t.Fatalf("it has ended, and yet: %v", err)
			}
			s.Close()
			left, dump := "", etcd.Dump()
			for _, g := range grants {
				if strings.Contains(dump, "chains/app-1/"+g.ID) {
					left = g.ID
					break
				}
			}
			if left == "" {
				t.Fatal("nothing is left to delete, so this test shows nothing")
			}
			// Another replica, which may have begun to go on
			other := etcd.Store(func(o *storage.Options) { o.Prefix = etcd.Prefix })
			for _, g := range grants {
				if alive(t, other, g) {
					t.Fatal("a grant is alive")
				}
				ref := storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: g.UserID, Generation: 1}
				var stale *storage.StaleError
				if _, err := other.RotateGrant(t.Context(), ref, g.ExpiresAt, 0, storage.Revisions{Client: c.Revision}); !errors.As(
					err, &stale) && !errors.Is(err, storage.ErrNotFound) {
					t.Fatalf("refresh: %v", err)
				}
				if g.ID == left {
					break
				}
			}
			if list, _, err := other.Grants(t.Context(), storage.GrantQuery{}); err != nil || len(list) != 0 {
				t.Errorf("%d are listed (%v)", len(list), err)
			}
			if n, err := other.CountGrants(t.Context(), c.ID); err != nil || n != 0 {
				t.Errorf("%d are counted (%v)", n, err)
			}
			if _, err := other.FindGrant(t.Context(), left); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("found: %v", err)
			}
			eventually(t, "all is deleted", func() bool {
				dump := etcd.Dump()
				return !strings.Contains(dump, "chains/") && !strings.Contains(dump, "grants/") &&
					!strings.Contains(dump, "endings/")
			})
		})
	}
}

// An id comes back when nothing is left of the client that had it before.
func TestClientThatComesBackFindsNothingLeft(t *testing.T) {
	etcd := storagetest.Many(t)
	s := etcd.Store()
	c := appWithClient(t, s, "app", "app-1")
	grants := manyGrants(t, s, c, manyEnd)
	writes := 0
	etcd.Inject(func(write, sent bool) error {
		if write && !sent {
			writes++
		}
		if write && writes > 1 {
			return errors.New("the process is gone")
		}
		return nil
	})
	if err := clientEndings["apply without a client"](t, s); err != nil {
		t.Fatal(err)
	}
	view := func() *storage.App {
		view, err := s.App(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		return view.App
	}
	app := *view()
	app.ClientID = c.ID
	again := storage.Release{App: app, Client: &storage.Client{ID: c.ID, App: "app", Client: c.Client}}
	if err := s.CommitRelease(t.Context(), again); err == nil {
		t.Fatal("the client is back beside the grants of the one before")
	}
	etcd.Inject(nil)
	if err := s.CommitRelease(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	dump := etcd.Dump()
	for _, g := range grants {
		if strings.Contains(dump, g.ID) || alive(t, s, g) {
			t.Fatal("a grant is back")
		}
	}
}

// A session from which very many grants came ends as any other, a portion at a time: nothing reads or ends all of them
// at once.
func TestSessionWithVeryManyGrantsEnds(t *testing.T) {
	etcd := storagetest.Many(t)
	s := etcd.Store()
	_, u := registered(t, s)
	c := wantsToBeTold(t, s)
	sid, other := signedIn(t, s, u, ""), appWithClient(t, s, "b", "b-1")
	const many = 7000
	grants := make([]storage.Grant, many)
	var group errgroup.Group
	group.SetLimit(64)
	for i := range grants {
		of := c
		if i%7 == 0 {
			of = other
		}
		grants[i] = from(sid, i%1000 == 1, of, u)
		group.Go(func() error {
			return failure(s.CreateGrant(context.Background(), grants[i], grants[i].ExpiresAt, on(of, u)))
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var ended *storage.EndedSession
	var err error
	weight := etcd.Weigh(func() { ended, err = s.EndSession(t.Context(), sid, "signed out") })
	if err != nil || len(ended.Clients) != 2 {
		t.Fatalf("%+v, %v", ended, err)
	}
	if weight.Deleted > 2000 || weight.Bytes > 10_000_000 {
		t.Errorf("%+v", weight)
	}
	if list := outbox(t, s); len(list) != 1 || list[0].ClientID != c.ID {
		t.Errorf("told: %+v", list)
	}
	if list, _, err := s.Grants(t.Context(), storage.GrantQuery{}); err != nil || len(list) != many/1000 {
		t.Errorf("%d grants outlive the session (%v), want %d", len(list), err, many/1000)
	}
	if strings.Contains(etcd.Dump(), "sessiongrants/") {
		t.Error("notes are left")
	}
}

// What a grant takes in the database: its two records and its note with the session, as a code exchange stores them.
func TestAGrantTakesAtMost700BytesOfDatabase(t *testing.T) {
	ctx := t.Context()
	embedded, err := storage.OpenEmbedded(ctx, t.TempDir(), discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(embedded.Close)
	s := storagetest.On(t, embedded.Client).Store()
	c := appWithClient(t, s, "my-oauth-app", storage.NewClientID("my-oauth-app"))
	used := func() int64 {
		t.Helper()
		at, err := embedded.Client.Get(ctx, "x", clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := embedded.Client.Compact(ctx, at.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
		status, err := embedded.Client.Status(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		return status.DbSizeInUse
	}
	const grants = 3000
	sessions := make([]string, grants/10)
	for i := range sessions {
		id, err := s.CreateSession(ctx, storage.Session{UserID: "u", ExpiresAt: time.Now().Add(12 * time.Hour)}, "")
		if err != nil {
			t.Fatal(err)
		}
		sessions[i] = storage.SID(id)
	}
	before := used()
	var group errgroup.Group
	group.SetLimit(64)
	for i := range grants {
		now := time.Now()
		g := storage.Grant{
			ID: grantID(c.ID, "0b1c"), ClientID: c.ID, UserID: "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0", Scopes: []string{"openid",
				"profile", "threads:read"},
			AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(30 * 24 * time.Hour),
			Session: sessions[i%len(sessions)], SessionEnds: now.Add(12 * time.Hour),
		}
		group.Go(func() error {
			return failure(s.CreateGrant(ctx, g, now.Add(14*24*time.Hour), storage.Revisions{Client: c.Revision}))
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	each := (used() - before) / grants
	t.Logf("%d bytes", each)
	if each > 700 {
		t.Errorf("a grant takes %d bytes", each)
	}
}
