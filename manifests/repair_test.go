package manifests

import (
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

func TestDriftIsRepaired(t *testing.T) {
	for name, drift := range map[string]func(h held) *held{
		"lost":             func(held) *held { return nil },
		"older generation": func(h held) *held { h.generation, h.digest = 0, "old"; return &h },
		"other digest":     func(h held) *held { h.digest = "other"; return &h },
		"newer generation": func(h held) *held { h.generation, h.digest = 17, "newer"; return &h },
		"newer fence":      func(h held) *held { h.digest = "newer"; h.fence += 1000; return &h },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			m := r.withRemote(nil)
			d := r.deployer(func(o *DeployerOptions) { o.Pace.Reconcile = 20 * time.Millisecond })
			r.apply(d, worker("app"))
			r.run(d)
			r.awaitReady("app")
			m.set("app", "web", drift(*m.target("app", "web")))
			want := r.secret("app")
			x := r.await("app", "it is repaired", func(list []*storage.Delivery) bool {
				h := m.target("app", "web")
				return h != nil && list[0].State == storage.DeliveryReady && h.generation == list[0].Generation &&
					h.digest == list[0].Digest && h.env["OAUTH_CLIENT_SECRET"] == want
			})[0]
			// The next release is beyond it all the same.
			r.apply(d, worker("app", noEnv, isPublic))
			if next := r.awaitReady("app")[0]; next.Generation <= x.Generation {
				t.Errorf("generation %d after %d", next.Generation, x.Generation)
			}
		})
	}
}

func TestWhatWasLostWhileNobodyLookedIsRepairedAtTheStart(t *testing.T) {
	r := newRig(t)
	m := r.withRemote(nil)
	stop := r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	r.awaitReady("app")
	stop()
	m.set("app", "web", nil)
	before := r.view("app").Deliveries[0].Revision
	r.run(r.deployer())
	r.await("app", "it is delivered again", func(list []*storage.Delivery) bool {
		return list[0].Revision > before && list[0].State == storage.DeliveryReady && m.target("app", "web") != nil
	})
}

// A store that was made anew meets targets that remember the old one.
func TestTargetAheadIsOvertaken(t *testing.T) {
	r := newRig(t)
	m := r.withRemote(nil)
	m.set("app", "web", &held{generation: 41, fence: time.Now().Add(30 * time.Minute).UnixMilli(), digest: "old"})
	d := r.deployer()
	r.apply(d, worker("app"))
	r.run(d)
	if x := r.awaitReady("app")[0]; x.Generation != 42 {
		t.Errorf("generation %d", x.Generation)
	}
	if h := m.target("app", "web"); h.env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("not delivered")
	}
	m.set("app", "web", &held{generation: 99, fence: m.target("app", "web").fence, digest: "old"})
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	r.await("app", "the env is taken away", none)
	if m.target("app", "web") != nil {
		t.Error("the env is still there")
	}
}

func TestNoRuntimeIsVisibleAndMendedByConfiguration(t *testing.T) {
	r := newRig(t)
	r.withRemote(nil) // serves workers only
	d := r.deployer()
	stop := r.run(d)
	r.apply(d, appYML("app"))
	list, err := d.Settle(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	container := deliveryOf(list, storage.Target{Kind: "container", Name: "api"})
	if container.State != storage.DeliveryFailed || container.Error != "no runtime serves containers" ||
		container.Remedy == "" || container.Runtime != "" {
		t.Errorf("%s, %q, %q", container.State, container.Error, container.Remedy)
	}
	if w := deliveryOf(list, storage.Target{Kind: "worker", Name: "web"}); w.State != storage.DeliveryReady {
		t.Errorf("the other target: %s", w.State)
	}
	stop()
	r.withFiles() // the second runtime, for what the first does not serve
	r.run(r.deployer())
	r.awaitReady("app")
	if env := r.env("app", "container", "api"); env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("not delivered")
	}
}

func TestRemovalWithoutItsRuntimeWaitsForIt(t *testing.T) {
	r := newRig(t).withFiles()
	stop := r.run(r.deployer())
	r.apply(r.deployer(), worker("app"))
	r.awaitReady("app")
	stop()
	without := r.deployer(func(o *DeployerOptions) { o.Runtimes = nil })
	stop = r.run(without)
	if err := without.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	x := r.await("app", "the removal failed", state(storage.DeliveryFailed))[0]
	if !strings.Contains(x.Error, "no longer configured") || x.Remedy == "" {
		t.Errorf("%q, %q", x.Error, x.Remedy)
	}
	stop()
	r.run(r.deployer())
	r.await("app", "the env is taken away", none)
}
