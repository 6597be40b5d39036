package storage_test

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestOnce(t *testing.T) {
	etcd := storagetest.New(t)
	s, other := etcd.Store(), etcd.Store()
	ctx := t.Context()
	once := storage.Once{ID: "client/a identifier", Until: time.Now().Add(time.Minute)}
	if err := s.Spend(ctx, once, storage.AuditEntry{Action: "first"}); err != nil {
		t.Fatal(err)
	}
	for _, store := range []*storage.Store{s, other} {
		if err := store.Spend(ctx, once, storage.AuditEntry{Action: "second"}); !errors.Is(err, storage.ErrSpent) {
			t.Errorf("a second use: %v", err)
		}
	}
	if err := s.Spend(ctx, storage.Once{ID: "client/a identifie", Until: once.Until}); err != nil {
		t.Errorf("another name: %v", err)
	}
	entries, _, err := s.Audit(ctx, storage.AuditQuery{})
	if err != nil || len(entries) != 1 || entries[0].Action != "first" {
		t.Errorf("audit log %+v, %v", entries, err)
	}
	// The database holds no name, and each mark goes with the bucket of its end.
	all, err := etcd.Client.Get(ctx, etcd.Prefix+"spent/", clientv3.WithPrefix())
	if err != nil || len(all.Kvs) != 2 || all.Kvs[0].Lease == 0 || all.Kvs[0].Lease != all.Kvs[1].Lease {
		t.Fatalf("%v, %v", all, err)
	}
	for _, kv := range all.Kvs {
		if strings.Contains(string(kv.Key)+string(kv.Value), "identifi") {
			t.Errorf("%s %s", kv.Key, kv.Value)
		}
	}
	lease, err := etcd.Client.TimeToLive(ctx, clientv3.LeaseID(all.Kvs[0].Lease))
	if err != nil || lease.TTL < 60 || lease.TTL > 60+600 {
		t.Errorf("%+v, %v", lease, err)
	}
}

func TestOnceRacers(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	once := storage.Once{ID: "a", Until: ends}
	if won := race(t, 32, func() error { return s.Spend(ctx, once) }, storage.ErrSpent); won != 1 {
		t.Errorf("%d used a name at once", won)
	}
	// Each with a code of its own, and one assertion.
	once.ID = "b"
	if won := race(t, 32, func() error { return failure(s.CreateGrant(ctx, newGrant(c, u), ends, on(c, u), once)) },
		storage.ErrSpent); won != 1 {
		t.Errorf("%d codes were redeemed with one assertion", won)
	}
	if list, _, err := s.Grants(ctx, storage.GrantQuery{ClientID: c.ID}); err != nil || len(list) != 1 {
		t.Errorf("%d grants, %v", len(list), err)
	}
	g := newGrant(c, u)
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	once.ID = "c"
	ref := storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: u.ID, Generation: 1}
	if won := race(t, 32, func() error {
		_, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u), once)
		return err
	}, storage.ErrSpent); won != 1 {
		t.Errorf("%d refreshes with one assertion", won)
	}
	if _, err := s.Grant(ctx, c.ID, g.ID, u.ID); err != nil {
		t.Errorf("the grant suffered from assertions that were spent: %v", err)
	}
}

// What is spent changes nothing; what changes nothing spends nothing; and what kills a grant does spend.
func TestOnceInTheTransactionOfAGrant(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	name := func(id string) storage.Once { return storage.Once{ID: id, Until: ends} }
	spent := func(id string) bool {
		t.Helper()
		_, err := s.CurrentClient(ctx, c.ID, id)
		if err != nil && !errors.Is(err, storage.ErrSpent) {
			t.Fatal(err)
		}
		return err != nil
	}
	alive := func(g storage.Grant) bool {
		t.Helper()
		_, err := s.Grant(ctx, c.ID, g.ID, u.ID)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	var stale *storage.StaleError
	g := newGrant(c, u)
	if _, err := s.CreateGrant(ctx, g, ends, storage.Revisions{Client: c.Revision, User: u.Revision - 1},
		name("1")); !errors.As(err, &stale) || spent("1") {
		t.Errorf("stale: %v, spent %v", err, spent("1"))
	}
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u), name("1")); err != nil || !spent("1") {
		t.Fatalf("%v, spent %v", err, spent("1"))
	}
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u), name("1")); !errors.Is(err, storage.ErrSpent) || !alive(g) {
		t.Errorf("code and assertion both replayed: %v, alive %v", err, alive(g))
	}
	if _, err := s.CreateGrant(ctx, newGrant(c, u), ends, storage.Revisions{Client: c.Revision, User: u.Revision - 1},
		name("1")); !errors.Is(err, storage.ErrSpent) {
		t.Errorf("stale and spent: %v", err)
	}
	ref := storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: u.ID, Generation: 1}
	if _, err := s.RotateGrant(ctx, ref, ends, 0, storage.Revisions{Client: c.Revision, User: u.Revision - 1},
		name("2")); !errors.As(err, &stale) || spent("2") {
		t.Errorf("stale refresh: %v, spent %v", err, spent("2"))
	}
	if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u), name("1")); !errors.Is(err, storage.ErrSpent) || !alive(g) {
		t.Errorf("refresh with a spent assertion: %v, alive %v", err, alive(g))
	}
	if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u), name("2"), name("3")); err != nil ||
		!spent("2") || !spent("3") {
		t.Errorf("refresh: %v", err)
	}
	if _, err := s.RotateGrant(ctx, ref, ends, time.Minute, on(c, u), name("2")); !errors.Is(err, storage.ErrSpent) ||
		!alive(g) {
		t.Errorf("the token again, within a reuse interval, and the assertion again: %v", err)
	}
	if again, err := s.RotateGrant(ctx, ref, ends, time.Minute, on(c, u), name("4")); err != nil ||
		again.Generation != 2 || !spent("4") {
		t.Errorf("the token again, within a reuse interval: %v, spent %v", err, spent("4"))
	}
	if _, err := s.RotateGrant(ctx, ref, ends, time.Minute, storage.Revisions{Client: c.Revision, User: u.Revision - 1},
		name("5")); !errors.As(err, &stale) || spent("5") {
		t.Errorf("the same, stale: %v, spent %v", err, spent("5"))
	}
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u), name("5")); !errors.Is(err, storage.ErrReplayed) ||
		!spent("5") || alive(g) {
		t.Errorf("code replay: %v, spent %v, alive %v", err, spent("5"), alive(g))
	}
	g = newGrant(c, u)
	ref.GrantID = g.ID
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u), name("6")); !errors.Is(err, storage.ErrReplayed) ||
		!spent("6") || alive(g) {
		t.Errorf("refresh replay: %v, spent %v, alive %v", err, spent("6"), alive(g))
	}
}

func TestCurrentClient(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx := t.Context()
	c, _ := registered(t, s)
	if got, err := s.CurrentClient(ctx, c.ID, ""); err != nil || got.Revision != c.Revision {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.CurrentClient(ctx, "unknown", "x"); !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
	view, err := s.App(ctx, "app")
	if err != nil {
		t.Fatal(err)
	}
	view.Client.Disabled = true
	if err := s.CommitRelease(ctx, storage.Release{App: *view.App, Client: view.Client}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CurrentClient(ctx, c.ID, ""); !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
}

func TestClientSince(t *testing.T) {
	t.Run("any etcd", func(t *testing.T) { testClientSince(t, storagetest.New(t)) })
	t.Run("one member", func(t *testing.T) { testClientSince(t, storagetest.Alone(t)) })
}

func testClientSince(t *testing.T, etcd *storagetest.Etcd) {
	s := etcd.Store()
	ctx := t.Context()
	c, _ := registered(t, s)
	since := func(id string, revision int64) *storage.StaleError {
		t.Helper()
		var stale *storage.StaleError
		if err := s.ClientSince(ctx, id, revision); err != nil && !errors.As(err, &stale) {
			t.Fatal(err)
		}
		return stale
	}
	if n := etcd.Count(func() {
		if stale := since(c.ID, c.Revision); stale != nil {
			t.Errorf("nothing has happened to it, but: %+v", stale)
		}
	}); n.Reads != 1 || n.Proposals != 0 {
		t.Errorf("%+v", n)
	}
	if stale := since("unknown", 0); stale != nil {
		t.Errorf("there was none and there is none, but: %+v", stale)
	}
	if stale := since("unknown", 7); stale == nil || stale.Client != nil {
		t.Errorf("one that is gone: %+v", stale)
	}
	view, err := s.App(ctx, "app")
	if err != nil {
		t.Fatal(err)
	}
	view.Client.ClientName = "Another name"
	if err := s.CommitRelease(ctx, storage.Release{App: *view.App, Client: view.Client}); err != nil {
		t.Fatal(err)
	}
	if stale := since(c.ID, c.Revision); stale == nil || stale.Client == nil || stale.Client.ClientName != "Another name" {
		t.Errorf("one that has changed: %+v", stale)
	}
}

func TestGrantThroughAnotherClient(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	g := newGrant(c, u)
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	if err := s.CommitRelease(ctx, storage.Release{App: storage.App{Name: "other", ClientID: "other"},
		Client: &storage.Client{ID: "other", App: "other"}}); err != nil {
		t.Fatal(err)
	}
	once := storage.Once{ID: "token", Until: ends}
	if got := etcd.Count(func() {
		view, through, err := s.GrantThrough(ctx, c.ID, g.ID, u.ID, "other", once.ID)
		if err != nil || view.Grant.ID != g.ID || view.User.ID != u.ID || view.Generation != 1 || through.ID != "other" ||
			through.Revision == 0 {
			t.Errorf("%+v, %+v, %v", view, through, err)
		}
	}); got != (storagetest.Counts{Reads: 1}) {
		t.Errorf("%+v", got)
	}
	if _, through, err := s.GrantThrough(ctx, c.ID, g.ID, u.ID, c.ID, ""); err != nil || through.ID != c.ID {
		t.Errorf("its own: %v", err)
	}
	if view, through, err := s.GrantThrough(ctx, c.ID, g.ID, u.ID, "nobody", ""); err != nil || view.Grant == nil ||
		through != nil {
		t.Errorf("no such client: %+v, %v", through, err)
	}
	if err := s.Spend(ctx, once); err != nil {
		t.Fatal(err)
	}
	for rule, try := range map[string]struct {
		grant, through, once string
		want                 error
	}{
		"a name that was used":   {g.ID, "other", once.ID, storage.ErrSpent},
		"another name":           {g.ID, "other", "another", nil},
		"no such grant":          {"none", "other", "", storage.ErrNotFound},
		"no grant, name is used": {"none", "other", once.ID, storage.ErrNotFound},
	} {
		if _, _, err := s.GrantThrough(ctx, c.ID, try.grant, u.ID, try.through, try.once); !errors.Is(err, try.want) {
			t.Errorf("%s: %v", rule, err)
		}
	}
	if _, err := s.KillGrant(ctx, c.ID, g.ID, storage.AuditEntry{Action: storage.AuditGrantRevoked}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.GrantThrough(ctx, c.ID, g.ID, u.ID, "other", ""); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a dead grant: %v", err)
	}
}

// Whoever has used a name may do so again, where that is offered; nobody else may.
func TestOnceByTheSame(t *testing.T) {
	etcd := storagetest.New(t)
	s, other := etcd.Store(), etcd.Store()
	ctx := t.Context()
	once := storage.Once{ID: "request", Until: time.Now().Add(time.Minute)}
	for _, store := range []*storage.Store{s, other, s} {
		if err := store.SpendBy(ctx, once, "visit 1"); err != nil {
			t.Errorf("the same: %v", err)
		}
	}
	for _, by := range []string{"visit 2", "visit", "", "VISIT 1"} {
		if err := other.SpendBy(ctx, once, by); !errors.Is(err, storage.ErrSpent) {
			t.Errorf("%q: %v", by, err)
		}
	}
	if err := s.Spend(ctx, once); !errors.Is(err, storage.ErrSpent) {
		t.Errorf("by nobody in particular: %v", err)
	}
	plain := storage.Once{ID: "jti", Until: once.Until}
	if err := s.Spend(ctx, plain); err != nil {
		t.Fatal(err)
	}
	if err := s.SpendBy(ctx, plain, ""); !errors.Is(err, storage.ErrSpent) {
		t.Errorf("after nobody in particular: %v", err)
	}
	var visits atomic.Int64
	raced := storage.Once{ID: "raced", Until: once.Until}
	if won := race(t, 32, func() error { return s.SpendBy(ctx, raced, strconv.FormatInt(visits.Add(1), 10)) },
		storage.ErrSpent); won != 1 {
		t.Errorf("%d used a name at once", won)
	}
	got := etcd.Count(func() {
		if err := s.SpendBy(ctx, raced, "late"); !errors.Is(err, storage.ErrSpent) {
			t.Error(err)
		}
	})
	if got.Proposals > 1 || got.Reads > 0 {
		t.Errorf("%+v", got)
	}
}
