package manifests

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// An old secret retires only when every target serves the new one.

// A target that does not confirm keeps the old secret valid, for as long as it takes.
func TestLaggingTargetKeepsTheOldSecret(t *testing.T) {
	for name, lag := range map[string]*reply{
		"refuses": {Fail: "unavailable"},
		"broken": {Status: plugins.Status{Present: true, State: plugins.StateFailed,
			Diagnostic: &plugins.Diagnostic{Message: "does not start", Retryable: true}}},
		"never ready": nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			clock := r.clocked()
			var lagging atomic.Bool
			r.withRemote(func(c call) *reply {
				switch {
				case !lagging.Load() || c.Target.Name != "late" || c.Op == "remove":
					return nil
				case lag != nil:
					return lag
				case c.Op == "push":
					return &reply{Status: plugins.Status{Present: true, State: plugins.StateRolling, AcceptedGeneration: c.Generation,
						Digest: c.Digest, Instances: 2}}
				}
				x := deliveryOf(r.view("app").Deliveries, storage.Target{Kind: "worker", Name: "late"})
				return &reply{Status: plugins.Status{Present: true, State: plugins.StateRolling, AcceptedGeneration: x.Generation,
					Digest: x.Digest, Instances: 2}}
			})
			d := r.deployer()
			r.run(d)
			r.apply(d, worker("app", "web: {}", "web: {}, late: {}"))
			r.awaitReady("app")
			first := r.secret("app")
			lagging.Store(true)
			r.rotate(d, "app", RotateOptions{})
			second := r.secret("app")
			r.await("app", "one is ready", func(list []*storage.Delivery) bool {
				return slices.ContainsFunc(list, func(x *storage.Delivery) bool {
					return x.State == storage.DeliveryReady &&
						x.Target.Name == "web"
				})
			})
			r.use("app", second) // by the target that has it
			r.awaitRotation("app", "it is used", func(rot *storage.SecretRotation) bool { return !rot.UsedAt.IsZero() })
			clock.forward(7 * 24 * time.Hour)
			r.await("app", "the other is given up", func(list []*storage.Delivery) bool {
				return slices.ContainsFunc(list, func(x *storage.Delivery) bool {
					return x.State == storage.DeliveryDegraded || x.State == storage.DeliveryFailed && lag != nil && lag.Fail != ""
				})
			})
			r.settleRotations()
			r.valid("app", first, second)
			if rot := r.rotation("app"); !rot.ServedAt.IsZero() || !rot.RetiresAt.IsZero() {
				t.Errorf("%+v", rot)
			} else if words := Waiting(r.view("app"), rot, clock.now()); !strings.HasPrefix(words, "waiting for worker late (") {
				t.Error(words)
			}
			lagging.Store(false)
			if err := d.Retry(t.Context(), "app"); err != nil {
				t.Fatal(err)
			}
			r.awaitReady("app")
			r.awaitRotation("app", "the old secret is retired", func(rot *storage.SecretRotation) bool {
				return !rot.UnderWay()
			})
			r.valid("app", second)
		})
	}
}

// So does one that lags only when the grace ends, and one whose env is still being taken away.
func TestTargetThatIsNotReadyAtTheEndKeepsTheOldSecret(t *testing.T) {
	r := newRig(t)
	clock := r.clocked()
	var stuck atomic.Bool
	r.withRemote(func(c call) *reply {
		if stuck.Load() && c.Op == "remove" {
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	d := r.deployer()
	r.run(d)
	r.apply(d, worker("app", "web: {}", "web: {}, old: {}"))
	r.awaitReady("app")
	first := r.secret("app")
	r.rotate(d, "app", RotateOptions{Grace: time.Hour})
	second := r.secret("app")
	r.awaitReady("app")
	r.use("app", second)
	r.awaitRotation("app", "the grace begins", func(rot *storage.SecretRotation) bool { return !rot.RetiresAt.IsZero() })
	stuck.Store(true)
	r.apply(d, worker("app"))
	clock.forward(2 * time.Hour)
	r.await("app", "the removal has failed", func(list []*storage.Delivery) bool {
		return slices.ContainsFunc(list, func(x *storage.Delivery) bool {
			return x.Remove && (x.State == storage.DeliveryFailed || x.State == storage.DeliveryDegraded)
		})
	})
	r.settleRotations()
	r.valid("app", first, second)
	stuck.Store(false)
	if err := d.Retry(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	r.awaitRotation("app", "the old secret is retired", func(rot *storage.SecretRotation) bool { return !rot.UnderWay() })
	r.valid("app", second)
}

// A target that was ready once, and lost its env while nobody looked, keeps the old secret valid until it has the new
// one.
func TestTargetsAreLookedAtBeforeTheOldSecretRetires(t *testing.T) {
	r := newRig(t)
	clock := r.clocked()
	var down atomic.Bool
	m := r.withRemote(func(call) *reply {
		if down.Load() {
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	stop := r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	r.awaitReady("app")
	first, old := r.secret("app"), *m.target("app", "web")
	r.rotate(r.deployer(), "app", RotateOptions{Grace: time.Hour})
	second := r.secret("app")
	r.awaitReady("app")
	r.use("app", second)
	r.awaitRotation("app", "the grace begins", func(rot *storage.SecretRotation) bool { return !rot.RetiresAt.IsZero() })
	stop()
	m.set("app", "web", &old) // somebody brought the old one back
	down.Store(true)
	clock.forward(2 * time.Hour)
	stop = r.run(r.deployer())
	r.await("app", "it cannot be looked at", state(storage.DeliveryFailed))
	r.settleRotations()
	r.valid("app", first, second)
	stop()
	down.Store(false)
	r.run(r.deployer())
	r.awaitRotation("app", "the old one is retired", func(rot *storage.SecretRotation) bool { return !rot.UnderWay() })
	r.valid("app", second)
	if m.target("app", "web").env["OAUTH_CLIENT_SECRET"] != second {
		t.Error("retired before the target had the new one")
	}
}
