package manifests

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/warifu/warifu/storage"
)

// While storage fails, no deletion can be finished. When it is back, none waits for the next look at all apps, which is
// ten minutes away by default and an hour here.
func TestDeletionsGoOnSoonAfterABlip(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	const apps = 16
	for n := range apps {
		r.apply(d, appYML(fmt.Sprintf("app-%d", n)))
	}
	for n := range apps / 2 { // these begin before the loop runs, and so have nothing to take away when it does
		if err := d.Delete(t.Context(), fmt.Sprintf("app-%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	var writes atomic.Int64
	failed := make(chan struct{}, 1)
	r.etcd.Inject(func(write, sent bool) error {
		if !write || sent {
			return nil
		}
		if n := writes.Add(1); n%3 == 1 { // some go through
			return nil
		} else if n == 30 {
			failed <- struct{}{}
		}
		return errors.New("etcdserver: no leader")
	})
	r.run(d)
	receive(t, failed, "writes that fail")
	r.etcd.Inject(nil)
	for n := range apps {
		app := fmt.Sprintf("app-%d", n)
		if n >= apps/2 {
			if err := d.Delete(t.Context(), app); err != nil {
				t.Fatal(err)
			}
		}
		r.awaitGone(app)
	}
	if len(r.audited("app-0", "deleted|done")) != 1 {
		t.Error("the end is not recorded once")
	}
}

// A deletion that was confirmed has begun, though finishing it fails at first.
func TestDeletionThatCannotBeFinishedAtOnceHasBegun(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: app}\nspec: {version: 1.0.0}\n")
	r.run(d)
	var writes atomic.Int64
	r.etcd.Inject(func(write, sent bool) error {
		if n := writes.Load(); write && !sent && writes.Add(1) > 1 && n < 5 {
			return errors.New("etcdserver: no leader")
		}
		return nil
	})
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	r.awaitGone("app")
	if !strings.Contains(r.log.String(), "a deletion cannot be finished; trying again") {
		t.Error("nothing failed")
	}
}

// The replica that took the last env away died before it removed the app. Another one does that when it sees it.
func TestAnotherReplicaFinishesTheDeletionOfADeadOne(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	m := r.withRemote(nil)
	r.apply(d, worker("app"))
	x := *r.view("app").Deliveries[0]
	x.Runtime = "remote" // which the other replica does not know
	if _, err := r.store.ClaimDelivery(t.Context(), x, "dying", d.now().Add(d.pace.Claim)); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	r.run(r.deployer())
	r.apply(d, worker("other")) // when this is delivered, the loop has seen the deletion
	r.awaitReady("other")
	if err := r.store.FinishRemoval(t.Context(), *r.view("app").Deliveries[0]); err != nil {
		t.Fatal(err)
	}
	r.awaitGone("app")
	if m.count("remove", "app") != 0 {
		t.Error("it was taken away again")
	}
}

func TestFinishingADeletionMeetsAChange(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: app}\nspec: {version: 1.0.0}\n")
	view := r.view("app")
	if err := r.store.BeginDelete(t.Context(), view, nil); err != nil {
		t.Fatal(err)
	}
	once := false
	r.etcd.Inject(func(write, sent bool) error {
		if write && !sent && !once {
			once = true
			view := r.view("app")
			return r.store.CommitRelease(t.Context(), storage.Release{App: *view.App})
		}
		return nil
	})
	if done, err := r.store.FinishDelete(t.Context(), "app"); err != nil || !done {
		t.Errorf("done: %t, %v", done, err)
	}
}
