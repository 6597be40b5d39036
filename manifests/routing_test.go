package manifests

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

func TestFirstAssignmentThatFitsCounts(t *testing.T) {
	d := New(DeployerOptions{Assignments: []Assignment{
		{Kind: "worker", App: "shop-*", Name: "web", Runtime: "first"},
		{App: "shop-[ab]", Runtime: "second"},
		{Kind: "container", Runtime: "third"},
		{Name: "odd-[", Runtime: "never"},
	}})
	for _, c := range []struct{ app, kind, name, want string }{
		{"shop-a", "worker", "web", "first"},
		{"shop-a", "worker", "api", "second"},
		{"shop-c", "worker", "api", ""},
		{"shop-c", "container", "api", "third"},
		{"shop", "worker", "odd-[", ""},
	} {
		if got := d.set().assigned(c.app, storage.Target{Kind: c.kind, Name: c.name}); got != c.want {
			t.Errorf("%s %s/%s: %q, want %q", c.app, c.kind, c.name, got, c.want)
		}
	}
}

// unservedTarget waits for a delivery that no runtime serves, for a reason in these words.
func unservedTarget(t *testing.T, r *rig, words string) {
	t.Helper()
	x := r.await("app", words, func(list []*storage.Delivery) bool {
		return list[0].State == storage.DeliveryFailed && strings.Contains(list[0].Error, words)
	})[0]
	if x.Remedy == "" {
		t.Error("it does not say what to do")
	}
}

func TestAssignmentThatCannotWorkIsVisible(t *testing.T) {
	r := newRig(t).withFiles()
	r.withRemote(nil) // workers only
	r.apply(r.deployer(), appYML("app", "workers: {web: {}}", "services: {}"))
	stop := r.run(r.deployer(func(o *DeployerOptions) {
		o.Assignments = []Assignment{{Kind: "container", Runtime: "remote"}}
	}))
	unservedTarget(t, r, "serves only workers")
	stop()
	stop = r.run(r.deployer(func(o *DeployerOptions) { o.Assignments = []Assignment{{Runtime: "elsewhere"}} }))
	unservedTarget(t, r, "elsewhere, to which this target is assigned, is not configured")
	stop()
	r.run(r.deployer())
	r.awaitReady("app")
}

// A target that another runtime is to serve is served by the one before until then, and has its env removed there
// after.
func TestTargetMovesToAnotherRuntime(t *testing.T) {
	r := newRig(t).withFiles()
	open := make(chan struct{})
	m := r.withRemote(func(c call) *reply {
		select {
		case <-open:
			return nil
		default:
			return &reply{Fail: "unavailable"}
		}
	})
	stop := r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	before := r.awaitReady("app")[0]
	stop()
	if before.Runtime != "file" {
		t.Fatalf("at %s", before.Runtime)
	}
	moving := func(o *DeployerOptions) { o.Assignments = []Assignment{{Kind: "worker", Runtime: "remote"}} }
	stop = r.run(r.deployer(moving))
	list := r.await("app", "the new runtime fails", func(list []*storage.Delivery) bool {
		return len(list) == 2 && list[0].State == storage.DeliveryFailed && list[0].Attempts > 2
	})
	if list[0].Runtime != "remote" || !list[1].Leaving || !list[1].Remove || list[1].Runtime != "file" {
		t.Errorf("%+v, %+v", list[0], list[1])
	}
	if r.env("app", "worker", "web")["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("the env is gone before another runtime serves it")
	}
	stop() // and nothing of it is forgotten
	close(open)
	stop = r.run(r.deployer(moving))
	r.await("app", "it has moved", func(list []*storage.Delivery) bool {
		return len(list) == 1 &&
			list[0].State == storage.DeliveryReady
	})
	if h := m.target("app", "web"); h == nil || h.env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("not delivered at the new runtime")
	}
	if listed := r.listed("file", "app"); len(listed) > 0 {
		t.Errorf("still at the old runtime: %v", listed)
	}
	if !slices.Contains(r.told("app"), storage.AuditDeliveryMoved) {
		t.Errorf("the audit log: %v", r.told("app"))
	}
	// Without the assignment it stays where it is.
	stop()
	stop = r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	if x := r.awaitReady("app")[0]; x.Runtime != "remote" {
		t.Errorf("at %s", x.Runtime)
	}
	stop()
}

func TestTargetMovesBackBeforeItHasLeft(t *testing.T) {
	r := newRig(t).withFiles()
	m := r.withRemote(func(c call) *reply {
		if c.Op == "push" {
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	stop := r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	r.awaitReady("app")
	stop()
	stop = r.run(r.deployer(func(o *DeployerOptions) { o.Assignments = []Assignment{{Runtime: "remote"}} }))
	r.await("app", "it fails there", func(list []*storage.Delivery) bool {
		return list[0].State == storage.DeliveryFailed
	})
	stop()
	r.run(r.deployer(func(o *DeployerOptions) { o.Assignments = []Assignment{{Runtime: "file"}} }))
	r.await("app", "it is back", func(list []*storage.Delivery) bool {
		return len(list) == 1 &&
			list[0].State == storage.DeliveryReady
	})
	if r.env("app", "worker", "web")["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("the env is gone")
	}
	if m.count("remove", "app") == 0 { // nobody knows what a push that failed has done
		t.Error("nothing was taken away at the runtime that could not serve it")
	}
}

func TestDeleteWhileItMovesTakesAwayAtBoth(t *testing.T) {
	r := newRig(t).withFiles()
	m := r.withRemote(func(c call) *reply {
		if c.Op == "push" {
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	stop := r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	r.awaitReady("app")
	stop()
	d := r.deployer(func(o *DeployerOptions) { o.Assignments = []Assignment{{Runtime: "remote"}} })
	r.run(d)
	r.await("app", "it fails there", func(list []*storage.Delivery) bool {
		return list[0].State == storage.DeliveryFailed
	})
	// Who waits for it hears of the failure, though the rest of the move has still to come.
	if list, err := d.Settle(t.Context(), "app"); err != nil || len(list) != 2 || !list[1].Leaving ||
		list[1].State != storage.DeliveryPending {
		t.Errorf("settled as %v, %v", list, err)
	}
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Settle(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if r.view("app").App != nil || len(r.listed("file", "app")) > 0 || m.count("remove", "app") == 0 {
		t.Error("env is left, or the app")
	}
}

func TestRuntimeThatIsGoneKeepsItsEnvVisible(t *testing.T) {
	r := newRig(t).withFiles()
	r.withRemote(nil)
	stop := r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	r.awaitReady("app")
	stop()
	stop = r.run(r.deployer(func(o *DeployerOptions) { o.Runtimes = o.Runtimes[1:] }))
	list := r.await("app", "it has moved", func(list []*storage.Delivery) bool {
		return len(list) == 2 && list[0].State == storage.DeliveryReady && list[1].State == storage.DeliveryFailed
	})
	if !strings.Contains(list[1].Error, "file, which has the env of this target, is no longer configured") {
		t.Errorf("%q", list[1].Error)
	}
	stop()
	r.run(r.deployer())
	r.await("app", "it is taken away", func(list []*storage.Delivery) bool { return len(list) == 1 })
}

func TestDriftThatIsToStayIsShown(t *testing.T) {
	r := newRig(t)
	m := r.withRemote(nil)
	stop := r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	r.awaitReady("app")
	stop()
	m.set("app", "web", nil)
	pushes := m.count("push", "app")
	d := r.deployer(func(o *DeployerOptions) { o.LeaveDrift = true })
	r.run(d)
	x := r.await("app", "the drift is shown", state(storage.DeliveryDegraded))[0]
	if x.Error != "the runtime no longer has this env" || !strings.Contains(x.Remedy, "warifu retry app") {
		t.Errorf("%q, %q", x.Error, x.Remedy)
	}
	if n := m.count("push", "app"); n != pushes || !slices.Contains(r.told("app"), storage.AuditDeliveryDrift) {
		t.Errorf("%d pushes after %d; told: %v", n, pushes, r.told("app"))
	}
	if err := d.Retry(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	r.awaitReady("app")
	if m.target("app", "web") == nil {
		t.Error("not delivered again")
	}
}

// The audit log tells each state once, however often an attempt is made.
func TestAuditTellsOfDeliveriesWithoutRepeating(t *testing.T) {
	r := newRig(t)
	failures := 5
	r.withRemote(func(c call) *reply {
		if c.Op == "push" && failures > 0 {
			failures--
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	d := r.deployer()
	r.run(d)
	p := r.plan(d, worker("app"))
	if err := d.Apply(storage.WithActor(t.Context(), "uid:42"), p); err != nil {
		t.Fatal(err)
	}
	r.awaitReady("app")
	if err := d.Delete(storage.WithActor(t.Context(), "uid:43"), "app"); err != nil {
		t.Fatal(err)
	}
	r.await("app", "it is gone", none)
	if _, err := d.Settle(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	want := []string{storage.AuditApply, storage.AuditDeliveryFailed, storage.AuditDeliveryReady, storage.AuditDelete,
		storage.AuditDeliveryRemoved, storage.AuditDeleted}
	if got := r.told("app"); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	entries, _, err := r.store.Audit(t.Context(), storage.AuditQuery{App: "app"})
	if err != nil {
		t.Fatal(err)
	}
	if entries[0].Actor != "uid:42" || entries[1].Actor != storage.ActorServer || entries[3].Actor != "uid:43" {
		t.Errorf("%+v", entries)
	}
	if e := entries[1]; e.Outcome != storage.OutcomeFailed || e.Target != "worker/web" ||
		!strings.Contains(e.Reason, "the cluster is away") {
		t.Errorf("%+v", e)
	}
}

// told are the actions that the audit log has of an app.
func (r *rig) told(app string) []string {
	r.t.Helper()
	entries, _, err := r.store.Audit(context.Background(), storage.AuditQuery{App: app})
	if err != nil {
		r.t.Fatal(err)
	}
	var actions []string
	for _, e := range entries {
		actions = append(actions, e.Action)
	}
	return actions
}

// listed are the targets that a runtime says it holds.
func (r *rig) listed(runtime, app string) []plugins.AppTarget {
	r.t.Helper()
	for _, rt := range r.opts.Runtimes {
		if rt.Name() == runtime {
			list, err := rt.ListTargets(context.Background(), app)
			if err != nil {
				r.t.Fatal(err)
			}
			return list
		}
	}
	r.t.Fatalf("no runtime %s", runtime)
	return nil
}
