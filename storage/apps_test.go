package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestNamesAreEncoded(t *testing.T) {
	s := storagetest.New(t).Store()
	names := []string{"a", "ab", "a/", "a/../b", "a\x00", "a/b", "%2F", "..", ""}
	for _, name := range names {
		d := storage.Delivery{App: name, Target: storage.Target{Kind: "worker", Name: name}, State: storage.DeliveryPending}
		if err := s.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: name, Source: name},
			Deliveries: []storage.Delivery{d}}); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	for _, name := range names {
		view, err := s.App(t.Context(), name)
		if err != nil || view.App == nil || view.App.Source != name {
			t.Errorf("%q: %+v, %v", name, view.App, err)
		}
		if len(view.Deliveries) != 1 || view.Deliveries[0].App != name {
			t.Errorf("%q lists %d deliveries", name, len(view.Deliveries))
		}
	}
}

func TestReleaseConflictWritesNothing(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, _ := registered(t, s)
	view, err := s.App(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	renamed := *c
	renamed.ClientName = "won"
	winner := storage.Release{App: *view.App, Client: &renamed}
	if err := s.CommitRelease(t.Context(), winner); err != nil {
		t.Fatal(err)
	}
	loser := *c
	loser.ClientName = "lost"
	err = s.CommitRelease(t.Context(), storage.Release{App: *view.App, Client: &loser,
		Deliveries: []storage.Delivery{{App: "app", Target: storage.Target{Kind: "worker", Name: "lost"}}}})
	if !errors.Is(err, storage.ErrConflict) {
		t.Fatal(err)
	}
	if strings.Contains(etcd.Dump(), "lost") {
		t.Error("a refused release wrote something")
	}
}

func TestDeleteApp(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	g := newGrant(c, u)
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	if err := s.AddConsent(ctx, c.ID, storage.Presence{User: u}, appAsks("a")); err != nil {
		t.Fatal(err)
	}
	view, err := s.App(ctx, "app")
	if err != nil {
		t.Fatal(err)
	}
	removal := storage.Delivery{App: "app", Target: storage.Target{Kind: "worker", Name: "web"}, Remove: true}
	if err := s.BeginDelete(ctx, view, []storage.Delivery{removal}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client is disabled", func() bool {
		_, err := s.Client(ctx, c.ID)
		return errors.Is(err,
			storage.ErrNotFound)
	})
	if _, err := s.Grant(ctx, c.ID, g.ID, u.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a grant outlived its app: %v", err)
	}
	if done, err := s.FinishDelete(ctx, "app"); err != nil || done {
		t.Fatalf("finished before the env was taken away: %v", err)
	}
	view, err = s.App(ctx, "app")
	if err != nil || len(view.Deliveries) != 1 {
		t.Fatal(err)
	}
	if err := s.FinishRemoval(ctx, *view.Deliveries[0]); err != nil {
		t.Fatal(err)
	}
	if done, err := s.FinishDelete(ctx, "app"); err != nil || !done {
		t.Fatalf("not finished: %v", err)
	}
	if clients, err := s.Clients(ctx); err != nil || len(clients) != 0 {
		t.Errorf("%d clients, %v", len(clients), err)
	}
	if p, err := s.Presence(ctx, "", u.ID, c.ID); err != nil || p.Consent != nil {
		t.Errorf("consent outlived its client: %v", err)
	}
	// A code that is still out cannot bring the grant back.
	var stale *storage.StaleError
	if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); !errors.As(err, &stale) || stale.Client != nil {
		t.Errorf("redeemed after the deletion: %v", err)
	}
}

func TestOneReplicaAtATimePushes(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	d := storage.Delivery{App: "app", Target: storage.Target{Kind: "worker", Name: "web"}, State: storage.DeliveryPending}
	if err := s.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: "app"},
		Deliveries: []storage.Delivery{d}}); err != nil {
		t.Fatal(err)
	}
	list, err := s.Deliveries(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatal(err)
	}
	claim := func(owner string, d storage.Delivery) (*storage.Delivery, error) {
		return s.ClaimDelivery(t.Context(), d, owner, now.Add(time.Minute))
	}
	if won := race(t, 8, func() error { _, err := claim("a", *list[0]); return err }, storage.ErrConflict); won != 1 {
		t.Errorf("%d claims won", won)
	}
	list, _ = s.Deliveries(t.Context())
	if _, err := claim("b", *list[0]); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("two owners: %v", err)
	}
	now = now.Add(2 * time.Minute) // a's claim has ended
	taken, err := claim("b", *list[0])
	if err != nil || taken.Fence <= list[0].Fence {
		t.Errorf("the dead claim was not taken over with a higher fence: %+v, %v", taken, err)
	}
}

func TestWatchDeliveries(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed := s.WatchDeliveries(ctx)
	<-changed // at the start
	if err := s.CommitRelease(ctx, storage.Release{App: storage.App{Name: "app"},
		Deliveries: []storage.Delivery{{App: "app", Target: storage.Target{Kind: "worker", Name: "web"}}}}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("no signal")
	}
}

// appAsks is a request of an app for scopes.
func appAsks(scopes ...string) storage.Asked {
	return storage.Asked{Name: "App", Host: "app.test", Scopes: scopes}
}
