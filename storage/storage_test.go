package storage_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

var discard = slog.New(slog.DiscardHandler)

// eventually waits for what a watch brings.

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestMemoryFollowsOtherReplicas(t *testing.T) {
	etcd := storagetest.New(t)
	a, b := etcd.Store(), etcd.Store()
	c, _ := registered(t, a)
	eventually(t, "the other replica knows the client", func() bool {
		got, err := b.Client(t.Context(), c.ID)
		return err == nil && got.Revision == c.Revision
	})
	changed := *c
	changed.ClientName = "renamed"
	app, err := a.App(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.CommitRelease(t.Context(), storage.Release{App: *app.App, Client: &changed}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other replica knows the change", func() bool {
		got, err := b.Client(t.Context(), c.ID)
		return err == nil && got.ClientName == "renamed"
	})
}

func TestUnknownClientIsLookedUpOnceAndBounded(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	if n := etcd.Count(func() {
		if _, err := s.Client(t.Context(), "stranger"); !errors.Is(err, storage.ErrNotFound) {
			t.Error(err)
		}
	}); n != (storagetest.Counts{Reads: 1}) {
		t.Errorf("%+v", n)
	}
	n := etcd.Count(func() {
		for range 1000 {
			if _, err := s.Client(t.Context(), "stranger"); errors.Is(err, storage.ErrBusy) {
				return
			}
		}
		t.Error("no bound")
	})
	if n.Reads > 500 {
		t.Errorf("%d look-ups", n.Reads)
	}
}

func TestFaultsAreNotVerdicts(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, u := registered(t, s)
	broken := errors.New("etcd is on fire")
	etcd.Inject(func(write, sent bool) error { return broken })
	defer etcd.Inject(nil)
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	g := newGrant(c, u)
	for what, err := range map[string]error{
		"create": failure(s.CreateGrant(ctx, g, ends, on(c, u))),
		"grant":  func() error { _, err := s.Grant(ctx, c.ID, g.ID, u.ID); return err }(),
		"client": func() error { _, err := s.Client(ctx, "stranger"); return err }(),
	} {
		if !errors.Is(err, broken) || errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrReplayed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// sockets counts this process's open sockets.
