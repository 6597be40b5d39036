package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestMirrorFollowsTheDeliveries(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := storage.Delivery{App: "before", Target: storage.Target{Kind: "worker", Name: "web"}, Generation: 1}
	if err := s.CommitRelease(ctx, storage.Release{App: storage.App{Name: "before"},
		Deliveries: []storage.Delivery{before}}); err != nil {
		t.Fatal(err)
	}
	// Its first look at the store fails; it looks again.
	broken := true
	etcd.Inject(func(write, sent bool) error {
		if broken && !write {
			broken = false
			return errors.New("etcd is on fire")
		}
		return nil
	})
	m := s.MirrorDeliveries(ctx)
	same := func() bool {
		want, err := s.Deliveries(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return slices.EqualFunc(m.List(), want, func(a, b *storage.Delivery) bool {
			return a.App == b.App && a.Target == b.Target && a.Leaving == b.Leaving && a.Revision == b.Revision
		})
	}
	select {
	case <-m.Changed:
	case <-time.After(30 * time.Second):
		t.Fatal("the mirror is never complete")
	}
	etcd.Inject(nil)
	if !same() {
		t.Error("not what was there before")
	}
	var stored []*storage.Delivery
	for _, app := range []string{"b", "a", "a/b", "c"} {
		r := storage.Release{App: storage.App{Name: app}}
		for i := range 3 {
			r.Deliveries = append(r.Deliveries, storage.Delivery{App: app, Target: storage.Target{Kind: "worker",
				Name: fmt.Sprint(2 - i)}, Runtime: "one", Generation: 1})
		}
		if err := s.CommitRelease(ctx, r); err != nil {
			t.Fatal(err)
		}
		view, err := s.App(ctx, app)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, view.Deliveries...)
	}
	eventually(t, "new deliveries are there", same)
	for i, x := range stored {
		var err error
		switch next := *x; i % 3 {
		case 0:
			err = s.FinishRemoval(ctx, next)
		case 1:
			next.Runtime = "two"
			_, err = s.MoveDelivery(ctx, next, "one")
		default:
			_, err = s.UpdateDelivery(ctx, next)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "changes are there", same)
}

func TestMoveRemembersWhereEnvIsToBeTakenAway(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, target := t.Context(), storage.Target{Kind: "worker", Name: "web"}
	d := storage.Delivery{App: "app", Target: target, Runtime: "one", Generation: 3, Accepted: 3,
		State: storage.DeliveryReady}
	if err := s.CommitRelease(ctx, storage.Release{App: storage.App{Name: "app"},
		Deliveries: []storage.Delivery{d}}); err != nil {
		t.Fatal(err)
	}
	read := func() []*storage.Delivery {
		view, err := s.App(ctx, "app")
		if err != nil {
			t.Fatal(err)
		}
		return view.Deliveries
	}
	stale := *read()[0]
	to := stale
	to.Runtime = "two"
	moved, err := s.MoveDelivery(ctx, to, "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.MoveDelivery(ctx, to, "one"); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("moved twice: %v", err)
	}
	list := read()
	if len(list) != 2 || list[0].Runtime != "two" || list[0].State != storage.DeliveryPending || list[0].Accepted != 0 ||
		!list[1].Leaving || !list[1].Remove || list[1].Runtime != "one" || list[1].Generation != 3 {
		t.Fatalf("%+v, %+v", list[0], list[1])
	}
	// Somebody is taking the env away just now: the way back waits for that.
	claimed, err := s.ClaimDelivery(ctx, *list[1], "replica", time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	back := *moved
	back.Runtime = "one"
	if _, err := s.MoveDelivery(ctx, back, "two"); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("moved into a removal: %v", err)
	}
	claimed.Owner, claimed.OwnedUntil = "", time.Time{}
	if _, err := s.UpdateDelivery(ctx, *claimed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.MoveDelivery(ctx, back, "two"); err != nil {
		t.Fatal(err)
	}
	if list := read(); len(list) != 2 || list[0].Runtime != "one" || list[1].Runtime != "two" || !list[1].Leaving {
		t.Errorf("%+v", list)
	}
}
