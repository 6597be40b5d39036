package storage_test

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

func TestEverythingOnRemoteEtcd(t *testing.T) { storagetest.Everywhere(t) }

// failure is the error of a verb that also returns the user.
func failure(_ *storage.User, err error) error { return err }

// registered stores a client and a user and gives their records.
func registered(t testing.TB, s *storage.Store) (*storage.Client, *storage.User) {
	t.Helper()
	ctx := t.Context()
	id := storage.NewClientID("app")
	secret, _ := s.NewClientSecret(id)
	err := s.CommitRelease(ctx, storage.Release{
		App: storage.App{Name: "app", ClientID: id},
		Client: &storage.Client{ID: id, App: "app", Secrets: []storage.ClientSecret{secret},
			Client: oauth.Client{ClientName: "App", RedirectURIs: []string{"https://app.test/cb"}, Scopes: []string{"a", "b"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := s.Client(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	user, err := s.PutUser(ctx, storage.User{ID: "user-1", Connector: "local", Email: "u@app.test"})
	if err != nil {
		t.Fatal(err)
	}
	return client, user
}

// on are the revisions of a client and a user as they were read.
func on(c *storage.Client, u *storage.User) storage.Revisions {
	return storage.Revisions{Client: c.Revision, User: u.Revision}
}

// grantID is one as [storage.Store.NewGrantIDOf] makes it, where there are no keys.
func grantID(clientID, userID string) string {
	sum := sha256.Sum256([]byte(clientID + " " + userID))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:5] + storage.NewGrantID()
}

func newGrant(c *storage.Client, u *storage.User) storage.Grant {
	now := time.Now()
	return storage.Grant{ID: grantID(c.ID, u.ID), ClientID: c.ID, UserID: u.ID, Scopes: []string{"a"}, CreatedAt: now,
		AuthTime: now, ExpiresAt: now.Add(24 * time.Hour), Term: u.Term}
}

func TestGrantLife(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	g := newGrant(c, u)
	if told, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil || told.Revision != u.Revision ||
		told.Email != u.Email {
		t.Fatalf("%+v, %v", told, err)
	}
	ref := storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: u.ID, Generation: 1}
	r, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u))
	if err != nil || r.Generation != 2 || r.User != nil {
		t.Fatalf("rotation: %+v, %v", r, err)
	}
	if view, err := s.Grant(ctx, c.ID, g.ID, u.ID); err != nil || view.Generation != 2 || view.User.Email != u.Email {
		t.Fatalf("grant: %+v, %v", view, err)
	}
	if list, _, err := s.Grants(ctx, storage.GrantQuery{ClientID: c.ID}); err != nil || len(list) != 1 ||
		list[0].Generation != 2 {
		t.Fatalf("grants: %+v, %v", list, err)
	}
	// The old token again: a replay, and the family dies.
	if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u)); !errors.Is(err, storage.ErrReplayed) {
		t.Fatalf("replay: %v", err)
	}
	ref.Generation = 2
	if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u)); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("after the replay: %v", err)
	}
	if _, err := s.Grant(ctx, c.ID, g.ID, u.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("grant after the replay: %v", err)
	}
	// The code again, after the family has died: still a replay, for the tombstone stands.
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); !errors.Is(err, storage.ErrReplayed) {
		t.Fatalf("code after death: %v", err)
	}
	if list, _, err := s.Grants(ctx, storage.GrantQuery{}); err != nil || len(list) != 0 {
		t.Fatalf("grants after death: %+v, %v", list, err)
	}
}

func TestCodeReplayKillsTheFamily(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	g := newGrant(c, u)
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); !errors.Is(err, storage.ErrReplayed) {
		t.Fatal(err)
	}
	if _, err := s.Grant(ctx, c.ID, g.ID, u.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("the grant lives: %v", err)
	}
}

// race runs n calls at once and counts how many succeed; every failure must be one of the allowed errors.
func race(t *testing.T, n int, call func() error, allowed ...error) int64 {
	t.Helper()
	var won atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range n {
		wg.Go(func() {
			<-start
			err := call()
			if err == nil {
				won.Add(1)
				return
			}
			for _, a := range allowed {
				if errors.Is(err, a) {
					return
				}
			}
			t.Errorf("unexpected: %v", err)
		})
	}
	close(start)
	wg.Wait()
	return won.Load()
}

func TestRacers(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	g := newGrant(c, u)
	if won := race(t, 32, func() error { return failure(s.CreateGrant(ctx, g, ends, on(c, u))) },
		storage.ErrReplayed); won != 1 {
		t.Errorf("%d redemptions of one code won", won)
	}
	g = newGrant(c, u)
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	ref := storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: u.ID, Generation: 1}
	if won := race(t, 64, func() error {
		_, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u))
		return err
	}, storage.ErrReplayed, storage.ErrNotFound); won != 1 {
		t.Errorf("%d refreshes of one token won", won)
	}
	if _, err := s.Grant(ctx, c.ID, g.ID, u.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the family survived its replay: %v", err)
	}
}

func TestStaleRevisionsWriteNothing(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	disabled := *u
	disabled.Disabled = true
	if _, err := s.PutUser(ctx, disabled); err != nil {
		t.Fatal(err)
	}
	var stale *storage.StaleError
	g := newGrant(c, u)
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); !errors.As(err, &stale) {
		t.Fatal(err)
	}
	if stale.User.Active() || stale.Client.Revision != c.Revision {
		t.Fatalf("stale: %+v", stale)
	}
	if strings.Contains(etcd.Dump(), g.ID) {
		t.Error("a stale redemption wrote something")
	}
}

func TestRevokeBeatsRefresh(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	for range 20 {
		g := newGrant(c, u)
		if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			ref := storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: u.ID, Generation: 1}
			for {
				r, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u))
				if err != nil {
					return
				}
				ref.Generation = r.Generation
			}
		})
		if _, err := s.KillGrant(ctx, c.ID, g.ID, storage.AuditEntry{Action: storage.AuditGrantRevoked,
			Reason: "revoked"}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Grant(ctx, c.ID, g.ID, u.ID); !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("alive after the revocation was answered: %v", err)
		}
		wg.Wait()
	}
}

func TestOneProposalEach(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	first := newGrant(c, u) // the leases of this hour
	if _, err := s.CreateGrant(ctx, first, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	g := newGrant(c, u)
	g.ExpiresAt = first.ExpiresAt
	for _, want := range []struct {
		what  string
		do    func() error
		count storagetest.Counts
	}{
		{"exchange and refresh", func() error {
			if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
				return err
			}
			_, err := s.RotateGrant(ctx, storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: u.ID, Generation: 1},
				ends, 0, on(c, u))
			return err
		}, storagetest.Counts{Proposals: 2}},
		{"grant", func() error { _, err := s.Grant(ctx, c.ID, g.ID, u.ID); return err }, storagetest.Counts{Reads: 1}},
		{"client", func() error { _, err := s.Client(ctx, c.ID); return err }, storagetest.Counts{}},
	} {
		var err error
		if got := etcd.Count(func() { err = want.do() }); err != nil || got != want.count {
			t.Errorf("%s: %+v, want %+v (%v)", want.what, got, want.count, err)
		}
	}
}

// The counter at the boundary and raft itself must agree.
func TestRaftCommitsOneEntryForARefresh(t *testing.T) {
	ctx := t.Context()
	embedded, err := storage.OpenEmbedded(ctx, t.TempDir(), discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(embedded.Close)
	s := storagetest.On(t, embedded.Client).Store()
	c, u := registered(t, s)
	g, ends := newGrant(c, u), time.Now().Add(time.Hour)
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	before := embedded.Proposals()
	for generation := range int64(50) {
		if _, err := s.RotateGrant(ctx, storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: u.ID, Generation: generation +
			1}, ends, 0, on(c, u)); err != nil {
			t.Fatal(err)
		}
	}
	// etcd's own upkeep (lease checkpoints, compaction) may add an entry or two.
	if n := embedded.Proposals() - before; n < 50 || n > 55 {
		t.Errorf("50 refreshes were %d proposals", n)
	}
}

func TestForgottenLeaseIsGrantedAgain(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	if _, err := s.CreateGrant(ctx, newGrant(c, u), ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	leases, err := etcd.Client.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases.Leases {
		if _, err := etcd.Client.Revoke(context.Background(), l.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.CreateGrant(ctx, newGrant(c, u), ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
}

// What a grant leaves behind outlives its code, however short the grant is: before, a code that lived for longer than
// the lease of its grant could be redeemed twice.
func TestGrantIsRememberedLongerThanItsCode(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, u := registered(t, s)
	id := storage.NewGrantID()
	ends := time.Now().Add(time.Second) // an access token of a second, and no refresh token
	grant := storage.Grant{ID: id, ClientID: c.ID, UserID: u.ID, Scopes: []string{"a"}, CreatedAt: time.Now(),
		ExpiresAt: ends}
	if _, err := s.CreateGrant(t.Context(), grant, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	found, err := etcd.Client.Get(t.Context(), etcd.Prefix+"grants/"+c.ID+"/"+id)
	if err != nil || len(found.Kvs) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	lease, err := etcd.Client.TimeToLive(t.Context(), clientv3.LeaseID(found.Kvs[0].Lease))
	if err != nil {
		t.Fatal(err)
	}
	if kept := time.Duration(lease.GrantedTTL) * time.Second; kept < 2*storage.MaxDeviceLife {
		t.Errorf("the grant is remembered for %s", kept)
	}
}
