package manifests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// worker is an app with one worker, for the remote-controlled runtime.
func worker(app string, change ...string) string {
	return appYML(app, append(change, "  containers: {api: {}}\n", "")...)
}

func state(want string) func([]*storage.Delivery) bool {
	return func(list []*storage.Delivery) bool { return len(list) == 1 && list[0].State == want }
}

// A release that was committed is delivered, whoever dies in between.
func TestNextStartDeliversWhatWasCommitted(t *testing.T) {
	r := newRig(t).withFiles()
	r.apply(r.deployer(), appYML("app")) // no loop: killed between commit and push
	if _, err := os.Stat(r.envFile("app", "worker", "web")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("delivered by nobody: %v", err)
	}
	r.run(r.deployer())
	r.awaitReady("app")
	if env := r.env("app", "worker", "web"); env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("not delivered")
	}
}

// A process that died while it pushed left its claim behind. Its successor has the same name and need not wait; it
// looks before it pushes again.
func TestSuccessorTakesOverOwnClaimAndLooksFirst(t *testing.T) {
	r := newRig(t)
	m := r.withRemote(nil)
	named := func(o *DeployerOptions) { o.Replica = "embedded" }
	r.apply(r.deployer(named), worker("app"))
	x := *r.view("app").Deliveries[0]
	x.Runtime = "remote"
	claimed, err := r.store.ClaimDelivery(t.Context(), x, "embedded", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	// It got that far
	m.set("app", "web", &held{generation: claimed.Generation, fence: claimed.Fence, digest: claimed.Digest})
	r.run(r.deployer(named))
	r.awaitReady("app")
	if m.count("push", "app") != 0 || m.count("observe", "app") == 0 {
		t.Error("pushed again without a look")
	}
}

func TestDeadClaimOfAnotherReplicaIsTakenOverAfterItsEnd(t *testing.T) {
	r := newRig(t)
	m := r.withRemote(nil)
	var skew atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	r.store = r.etcd.Store(func(o *storage.Options) { o.Now = now })
	clocked := func(o *DeployerOptions) { o.Now, o.Store = now, r.store }
	r.apply(r.deployer(clocked), worker("app"))
	r.apply(r.deployer(clocked), worker("free"))
	claimed, err := r.store.ClaimDelivery(t.Context(), *r.view("app").Deliveries[0], "dead", now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	r.run(r.deployer(clocked))
	r.awaitReady("free")
	if m.count("push", "app") != 0 {
		t.Fatal("pushed against the claim of another replica")
	}
	skew.Store(int64(2 * time.Minute))
	r.apply(r.deployer(clocked), worker("another")) // the loop looks again, with the clock as it is now
	if list := r.awaitReady("app"); list[0].Fence <= claimed.Fence {
		t.Errorf("fence %d after %d", list[0].Fence, claimed.Fence)
	}
}

func TestEachTargetIsPushedByOneAtATime(t *testing.T) {
	r := newRig(t)
	m := r.withRemote(nil)
	for range 3 {
		r.run(r.deployer())
	}
	d := r.deployer()
	for round := range 5 {
		for app := range 4 {
			r.apply(d, worker(fmt.Sprintf("app%d", app), "{web: {}}", "{web: {}, cron: {}}", noEnv,
				[]string{noEnv, isPublic}[round%2]))
		}
	}
	for app := range 4 {
		name := fmt.Sprintf("app%d", app)
		list := r.awaitReady(name)
		for _, x := range list {
			if h := m.target(name, x.Target.Name); h == nil || h.generation != x.Generation || h.digest != x.Digest {
				t.Errorf("%s %s has %+v, want generation %d", name, x.Target.Name, h, x.Generation)
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.crossed {
		t.Error("a target was pushed to by two at once")
	}
}

func TestStuckTargetDelaysNoOtherApp(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	var free sync.Once
	m := r.withRemote(func(c call) *reply {
		if c.App == "stuck" {
			<-release
		}
		return nil
	})
	t.Cleanup(func() { free.Do(func() { close(release) }) })
	r.run(r.deployer())
	d := r.deployer()
	var many strings.Builder
	for i := range 20 {
		fmt.Fprintf(&many, "w%d: {}, ", i)
	}
	r.apply(d, worker("stuck", "web: {}", many.String()))
	for i := range 5 {
		r.apply(d, worker(fmt.Sprintf("free%d", i)))
	}
	for i := range 5 {
		r.awaitReady(fmt.Sprintf("free%d", i))
	}
	if n := m.count("push", "stuck"); n > 2 {
		t.Errorf("%d calls for one app at once", n)
	}
	free.Do(func() { close(release) })
	r.awaitReady("stuck")
}

func TestFailedDeliveryIsTriedAgain(t *testing.T) {
	for name, fails := range map[string]reply{
		"refused":       {Fail: "unavailable"},
		"unknown error": {Fail: "something else"},
		"process dies":  {Exit: true},
		"retryable failure": {Status: plugins.Status{State: plugins.StateFailed,
			Diagnostic: &plugins.Diagnostic{Message: "image missing", Retryable: true}}},
		"accepts another generation": {Status: plugins.Status{State: plugins.StateReady, AcceptedGeneration: 99,
			ServingGeneration: 99,
			Digest:            "other", Present: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var broken atomic.Bool
			broken.Store(true)
			m := r.withRemote(func(c call) *reply {
				if c.Op == "push" && broken.Load() {
					return &fails
				}
				return nil
			})
			d := r.deployer()
			r.apply(d, worker("app"))
			r.run(d)
			x := r.await("app", "it has failed twice", func(list []*storage.Delivery) bool {
				return list[0].State == storage.DeliveryFailed && list[0].Attempts >= 2
			})[0]
			if x.Error == "" || x.NextAttempt.IsZero() || x.Since.IsZero() {
				t.Errorf("a failure without words or a next attempt: %+v", x)
			}
			broken.Store(false)
			list := r.awaitReady("app")
			if x := list[0]; x.Attempts != 0 || x.Error != "" || !x.NextAttempt.IsZero() || !x.Since.IsZero() {
				t.Errorf("ready, and yet %d attempts, error %q", x.Attempts, x.Error)
			}
			if h := m.target("app", "web"); h.env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
				t.Error("another env arrived")
			}
		})
	}
}

func TestFailureThatNoRetryMendsIsDegradedAtOnce(t *testing.T) {
	for name, fails := range map[string]reply{
		"refused as invalid": {Fail: "invalid"},
		"final failure": {Status: plugins.Status{State: plugins.StateFailed,
			Diagnostic: &plugins.Diagnostic{Message: "no such worker", Remedy: "deploy it first"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var broken atomic.Bool
			broken.Store(true)
			m := r.withRemote(func(c call) *reply {
				if c.Op == "push" && broken.Load() {
					return &fails
				}
				return nil
			})
			d := r.deployer()
			r.apply(d, worker("app"))
			r.run(d)
			x := r.await("app", "it is degraded", state(storage.DeliveryDegraded))[0]
			if x.Error == "" || !strings.HasSuffix(x.Remedy, "apply again") || !x.NextAttempt.IsZero() {
				t.Errorf("error %q, remedy %q", x.Error, x.Remedy)
			}
			if n := m.count("push", "app"); n != 1 {
				t.Errorf("%d pushes", n)
			}
			if p := r.plan(d, worker("app")); p.Changed || !slices.Equal(kinds(p), []ChangeKind{Repair}) {
				t.Errorf("changed %t, %v", p.Changed, kinds(p))
			}
			broken.Store(false)
			if err := d.Retry(t.Context(), "app"); err != nil {
				t.Fatal(err)
			}
			r.awaitReady("app")
		})
	}
}

func TestGivesUpAfterAWhileUntilApplied(t *testing.T) {
	r := newRig(t)
	var broken atomic.Bool
	broken.Store(true)
	m := r.withRemote(func(c call) *reply {
		if c.Op == "push" && broken.Load() {
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	var skew atomic.Int64
	d := r.deployer(func(o *DeployerOptions) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	})
	r.apply(d, worker("app"))
	r.run(d)
	r.await("app", "it has failed twice", func(list []*storage.Delivery) bool { return list[0].Attempts >= 2 })
	skew.Store(int64(21 * time.Minute))
	r.await("app", "it is degraded", state(storage.DeliveryDegraded))
	pushes := m.count("push", "app")
	r.apply(d, worker("other")) // the loop has looked at everything once more when this has failed
	r.await("other", "another has failed", state(storage.DeliveryFailed))
	if m.count("push", "app") != pushes {
		t.Error("tried again though given up")
	}
	broken.Store(false)
	r.apply(d, worker("app"))
	r.awaitReady("app")
}

// After a push that was not answered nobody knows what happened: the next attempt looks first.
func TestAmbiguousTimeoutIsObservedBeforePushingAgain(t *testing.T) {
	r := newRig(t)
	var m *remote
	var pushes atomic.Int64
	m = r.withRemote(func(c call) *reply {
		if c.Op == "push" && pushes.Add(1) == 1 {
			m.contract(c) // it happens, and the answer gets lost
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	d := r.deployer()
	r.apply(d, worker("app"))
	r.run(d)
	r.awaitReady("app")
	if n := m.count("push", "app"); n != 1 {
		t.Errorf("%d pushes of one generation", n)
	}
}

// A replica that cannot reach storage does not go on pushing while another one may take over.
func TestPushWhoseClaimCannotBeRenewedIsCutOff(t *testing.T) {
	r := newRig(t)
	var pushes atomic.Int64
	failed := make(chan struct{}, 1)
	r.withRemote(func(c call) *reply {
		if c.Op != "push" || pushes.Add(1) > 1 {
			return nil
		}
		var writes atomic.Int64
		r.etcd.Inject(func(write, _ bool) error {
			if write && writes.Add(1) == 3 { // renewals, and then the outcome
				failed <- struct{}{}
			}
			if write {
				return errors.New("etcdserver: no leader")
			}
			return nil
		})
		return &reply{Hang: true}
	})
	d := r.deployer(func(o *DeployerOptions) { o.Pace.Claim = 300 * time.Millisecond })
	r.apply(d, worker("app"))
	r.run(d)
	receive(t, failed, "writes that fail")
	r.etcd.Inject(nil)
	r.awaitReady("app")
	if !strings.Contains(r.log.String(), "the outcome of a delivery cannot be stored") {
		t.Error("it was not cut off while storage failed")
	}
}

// Work that takes longer than a claim keeps its target, as long as its replica lives.
func TestClaimIsRenewedWhileTheWorkGoesOn(t *testing.T) {
	r := newRig(t)
	pushing, free := make(chan call, 10), make(chan struct{})
	m := r.withRemote(func(c call) *reply {
		if c.Op == "push" {
			pushing <- c
			<-free
		}
		return nil
	})
	short := func(o *DeployerOptions) { o.Pace.Claim = 600 * time.Millisecond }
	r.apply(r.deployer(short), worker("app"))
	r.run(r.deployer(short))
	receive(t, pushing, "the push")
	first := r.view("app").Deliveries[0]
	r.run(r.deployer(short)) // would take over when the claim ends
	r.await("app", "the claim was renewed three times", func(list []*storage.Delivery) bool {
		return list[0].OwnedUntil.Sub(first.OwnedUntil) > 600*time.Millisecond
	})
	close(free)
	x := r.awaitReady("app")[0]
	if n := m.count("push", "app"); n != 1 || m.crossed || x.Owner != "" {
		t.Errorf("%d pushes, crossed: %t, still owned by %q", n, m.crossed, x.Owner)
	}
}

// A replica that dies in the middle of a push is succeeded within 20 s, by default.
func TestDefaultClaimIsShort(t *testing.T) {
	if claim := New(DeployerOptions{}).pace.Claim; claim > 18*time.Second {
		t.Errorf("%s", claim)
	}
}

func TestRolloutIsFollowedUntilReady(t *testing.T) {
	r := newRig(t)
	var looks atomic.Int64
	var m *remote
	m = r.withRemote(func(c call) *reply {
		answer := m.contract(c)
		if c.Op == "observe" && looks.Add(1) > 3 {
			return &answer
		}
		answer.Status.State, answer.Status.ServingGeneration, answer.Status.Instances = plugins.StateRolling, 0, 0
		return &answer
	})
	d := r.deployer()
	r.apply(d, worker("app"))
	r.run(d)
	x := r.awaitReady("app")[0]
	if x.Serving != x.Generation || x.Instances != 1 {
		t.Errorf("%+v", x)
	}
	if n := m.count("push", "app"); n != 1 {
		t.Errorf("%d pushes for one rollout", n)
	}
}

func TestRolloutThatFails(t *testing.T) {
	r := newRig(t)
	var m *remote
	m = r.withRemote(func(c call) *reply {
		answer := m.contract(c)
		answer.Status.State, answer.Status.ServingGeneration = plugins.StateRolling, 0
		if c.Op == "observe" {
			answer.Status.State = plugins.StateFailed
			answer.Status.Diagnostic = &plugins.Diagnostic{Message: "the new one crashes", Remedy: "look at its log"}
		}
		return &answer
	})
	d := r.deployer()
	r.apply(d, worker("app"))
	r.run(d)
	x := r.await("app", "it is degraded", state(storage.DeliveryDegraded))[0]
	if x.Error != "the new one crashes" || x.Remedy != "look at its log; then apply again" {
		t.Errorf("%q, %q", x.Error, x.Remedy)
	}
}

func TestRolloutWithoutEndIsGivenUp(t *testing.T) {
	r := newRig(t)
	var m *remote
	m = r.withRemote(func(c call) *reply {
		answer := m.contract(c)
		answer.Status.State, answer.Status.ServingGeneration = plugins.StateRolling, 0
		return &answer
	})
	d := r.deployer(func(o *DeployerOptions) { o.Pace.GiveUp = 50 * time.Millisecond })
	r.apply(d, worker("app"))
	r.run(d)
	r.await("app", "it is degraded", state(storage.DeliveryDegraded))
}

func TestDeleteWhilePushIsInFlight(t *testing.T) {
	r := newRig(t)
	pushing, release := make(chan call, 1), make(chan struct{})
	m := r.withRemote(func(c call) *reply {
		if c.Op == "push" {
			pushing <- c
			<-release
		}
		return nil
	})
	d := r.deployer()
	r.apply(d, worker("app"))
	r.run(d)
	receive(t, pushing, "the push")
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	close(release) // the push arrives late
	if _, err := d.Settle(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if m.target("app", "web") != nil {
		t.Error("a late push outlived the deletion")
	}
	if m.crossed {
		t.Error("removed while the push was in flight")
	}
	if r.view("app").App != nil {
		t.Error("the app is still there")
	}
}

func TestTargetThatIsWantedAgainWhileItIsRemoved(t *testing.T) {
	r := newRig(t)
	removing, release := make(chan call, 1), make(chan struct{})
	m := r.withRemote(func(c call) *reply {
		if c.Op == "remove" {
			removing <- c
			<-release
		}
		return nil
	})
	d := r.deployer()
	r.apply(d, worker("app"))
	r.run(d)
	r.awaitReady("app")
	r.apply(d, worker("app", noEnv, ""))
	receive(t, removing, "the removal")
	r.apply(d, worker("app"))
	close(release)
	r.awaitReady("app")
	if h := m.target("app", "web"); h == nil || h.env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("not delivered again")
	}
}

func TestStopWaitsForNobodyAndLeavesTheClaimFree(t *testing.T) {
	r := newRig(t)
	pushing := make(chan call, 1)
	var once sync.Once
	r.withRemote(func(c call) *reply {
		if c.Op != "push" {
			return nil
		}
		var hang *reply
		once.Do(func() {
			pushing <- c
			hang = &reply{Hang: true}
		})
		return hang
	})
	d := r.deployer()
	r.apply(d, worker("app"))
	stop := r.run(d)
	receive(t, pushing, "the push")
	stop() // the plugin would take its time
	x := r.view("app").Deliveries[0]
	if x.Owner == "" || x.OwnedUntil.After(time.Now()) || x.State != storage.DeliveryPending {
		t.Errorf("%s, owned by %q until %s", x.State, x.Owner, x.OwnedUntil)
	}
	r.run(r.deployer()) // another name, and no need to wait
	r.awaitReady("app")
}

func TestRuntimeCannotSpeakSecretsOut(t *testing.T) {
	r := newRig(t)
	r.withRemote(func(c call) *reply {
		if c.Op != "push" {
			return nil
		}
		secret := c.Env["OAUTH_CLIENT_SECRET"]
		return &reply{Status: plugins.Status{State: plugins.StateFailed, Location: "http://x/?s=" + secret,
			Diagnostic: &plugins.Diagnostic{Message: "cannot use " + secret, Remedy: "do not use " + secret}}}
	})
	d := r.deployer()
	r.apply(d, worker("app"))
	r.run(d)
	x := r.await("app", "it is degraded", state(storage.DeliveryDegraded))[0]
	if secret := r.secret("app"); strings.Contains(x.Error+x.Remedy+x.Location, secret) {
		t.Error("a delivery shows the secret")
	}
	// What the host has not seen, a record still knows.
	if text := d.hide(x, "a\nb "+r.secret("app")); text != "a b [redacted]" {
		t.Errorf("%q", text)
	}
	if p := r.plan(d, worker("app")); strings.Contains(fmt.Sprintf("%+v", p.Changes), r.secret("app")) {
		t.Error("a plan shows the secret")
	}
}

func TestLoopSurvivesStorageFaults(t *testing.T) {
	r := newRig(t)
	m := r.withRemote(nil)
	d := r.deployer()
	r.apply(d, worker("app"))
	var requests atomic.Int64
	r.etcd.Inject(func(_, sent bool) error {
		// Every third request fails before it is sent, every fifth after etcd has done it.
		if n := requests.Add(1); n < 60 && (n%3 == 0 && !sent || n%5 == 0 && sent) {
			return errors.New("etcd is away")
		}
		return nil
	})
	t.Cleanup(func() { r.etcd.Inject(nil) })
	r.run(d)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for r.store.Ping(ctx) != nil || requests.Load() < 60 {
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
	r.awaitReady("app")
	if h := m.target("app", "web"); h.env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("not delivered")
	}
}

func TestSettleEndsWithItsContext(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app")) // nobody delivers
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Settle(ctx, "app"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestRetryOfUnknownApp(t *testing.T) {
	r := newRig(t)
	if err := r.deployer().Retry(t.Context(), "app"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestBackoffDoublesWithJitterUpToItsBound(t *testing.T) {
	p := Pace{}.withDefaults()
	for attempts, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second,
		9: 256 * time.Second, 10: 5 * time.Minute, 10000: 5 * time.Minute} {
		for range 100 {
			if got := p.backoff(attempts); got < want*3/4 || got > want*5/4 {
				t.Errorf("after %d attempts: %s, want about %s", attempts, got, want)
			}
		}
	}
}
