package manifests

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

const (
	noEnv    = "    autoEnv: true\n"
	isPublic = "    autoEnv: true\n    public: true\n"
)

func TestApplyRegistersAndDelivers(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	for _, x := range r.awaitReady("app") {
		env := r.env("app", x.Target.Kind, x.Target.Name)
		if env["OAUTH_CLIENT_ID"] != r.view("app").Client.ID || env["OAUTH_ISSUER"] != "https://issuer.example.com" {
			t.Errorf("%s has %q of %q", words(x.Target), env["OAUTH_CLIENT_ID"], env["OAUTH_ISSUER"])
		}
		if client := r.view("app").Client; !client.Verify(env["OAUTH_CLIENT_SECRET"]) {
			t.Errorf("%s has a secret that is not the client's", words(x.Target))
		}
		if x.Runtime != "file" || x.Location != r.envFile("app", x.Target.Kind, x.Target.Name) || x.Serving != x.Generation ||
			x.Owner != "" {
			t.Errorf("%+v", x)
		}
	}
	app := r.view("app").App
	want := []storage.Target{{Kind: "container", Name: "api"}, {Kind: "worker", Name: "web"}}
	if app.Version != "1.0.0" || !app.AutoEnv || app.Generation != 1 || !slices.Equal(app.Targets, want) ||
		app.Source != "app.yml" {
		t.Errorf("%+v", app)
	}
}

func TestUpdateKeepsClientIDAndSecret(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	before, secret := r.view("app"), r.secret("app")
	r.apply(d, appYML("app", "My App", "Your App", "1.0.0", "2.0.0"))
	r.awaitReady("app")
	after := r.view("app")
	if after.Client.ID != before.Client.ID || r.secret("app") != secret {
		t.Error("an update made other credentials")
	}
	if after.Client.ClientName != "Your App" || after.App.Version != "2.0.0" {
		t.Errorf("not updated: %+v", after.Client.ClientName)
	}
	if after.App.Generation != 1 || after.Deliveries[0].Generation != 1 {
		t.Error("env that did not change got a new generation")
	}
}

func TestUnchangedApplyIsNoOp(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	before := r.view("app")
	info, err := os.Stat(r.envFile("app", "worker", "web"))
	if err != nil {
		t.Fatal(err)
	}
	if p := r.apply(d, appYML("app")); p.Changed || len(p.Changes) != 0 {
		t.Errorf("%+v", p.Changes)
	}
	if _, err := d.Settle(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	after := r.view("app")
	if after.App.Revision != before.App.Revision || after.Client.Revision != before.Client.Revision {
		t.Error("an unchanged apply wrote a release")
	}
	again, err := os.Stat(r.envFile("app", "worker", "web"))
	if err != nil || !again.ModTime().Equal(info.ModTime()) {
		t.Errorf("an unchanged apply wrote the env file: %v", err)
	}
}

func TestUnchangedApplyRepairsLostEnv(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"file removed": os.Remove,
		"file emptied": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"value edited": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.Replace(string(data), "wfs_", "wfs_x", 1)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).withFiles()
			d := r.deployer()
			r.run(d)
			r.apply(d, appYML("app"))
			r.awaitReady("app")
			if err := lose(r.envFile("app", "worker", "web")); err != nil {
				t.Fatal(err)
			}
			if p := r.apply(d, appYML("app")); p.Changed {
				t.Errorf("%+v", p.Changes)
			}
			list, err := d.Settle(t.Context(), "app")
			if err != nil || !all(storage.DeliveryReady)(list) {
				t.Fatalf("%+v, %v", list, err)
			}
			if env := r.env("app", "worker", "web"); env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
				t.Error("the env was not repaired")
			}
		})
	}
}

func TestAutoEnvTurnedOffTakesEnvAway(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	client := r.view("app").Client.ID
	path := r.envFile("app", "worker", "web")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, "OTHER=kept\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.apply(d, appYML("app", noEnv, ""))
	r.await("app", "no delivery is left", none)
	if _, err := os.Stat(r.envFile("app", "container", "api")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the env file is still there: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "OTHER=kept\n" {
		t.Errorf("%q, %v", data, err)
	}
	if r.view("app").Client.ID != client {
		t.Error("the client changed")
	}
	r.apply(d, appYML("app"))
	if list := r.awaitReady("app"); list[0].Generation != 3 {
		t.Errorf("generation %d after on, off and on", list[0].Generation)
	}
}

func TestTargetGoneLosesItsEnv(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	r.apply(d, appYML("app", "  containers: {api: {}}\n", ""))
	r.await("app", "one is left", func(list []*storage.Delivery) bool { return len(list) == 1 })
	if _, err := os.Stat(r.envFile("app", "container", "api")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the env file is still there: %v", err)
	}
	if env := r.env("app", "worker", "web"); env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("the other target lost its env")
	}
}

func TestPublicAndBack(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	id, secret := r.view("app").Client.ID, r.secret("app")
	r.apply(d, appYML("app", noEnv, isPublic))
	r.awaitReady("app")
	if c := r.view("app").Client; !c.Public || len(c.Secrets) != 0 || c.ID != id {
		t.Errorf("%+v", c)
	}
	if _, there := r.env("app", "worker", "web")["OAUTH_CLIENT_SECRET"]; there {
		t.Error("a public client's env has a secret")
	}
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	if now := r.secret("app"); now == secret || r.env("app", "worker", "web")["OAUTH_CLIENT_SECRET"] != now {
		t.Error("a client that is confidential again has no new secret in its env")
	}
}

func TestIssuerChangeIsDelivered(t *testing.T) {
	r := newRig(t).withFiles()
	r.apply(r.deployer(), appYML("app"))
	moved := r.deployer(func(o *DeployerOptions) { o.Issuer = "https://moved.example.com" })
	r.run(moved)
	r.awaitReady("app")
	if p := r.apply(moved, appYML("app")); !p.Changed || !slices.Equal(p.Changes[0].Names, []string{"OAUTH_ISSUER"}) {
		t.Errorf("%+v", p.Changes)
	}
	for _, x := range r.awaitReady("app") {
		if env := r.env("app", x.Target.Kind, x.Target.Name); env["OAUTH_ISSUER"] != "https://moved.example.com" {
			t.Errorf("%s: %s", words(x.Target), env["OAUTH_ISSUER"])
		}
	}
}

func TestStalePlanWritesNothing(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	stale := r.plan(d, appYML("app", "My App", "Stale App"))
	r.apply(d, appYML("app", "My App", "Newer App"))
	before := r.etcd.Dump()
	err := d.Apply(context.Background(), stale)
	if !errors.Is(err, storage.ErrConflict) || !strings.Contains(err.Error(), "plan again") {
		t.Errorf("%v", err)
	}
	if r.etcd.Dump() != before {
		t.Error("a stale plan wrote something")
	}
}

// The loop writes what happens to deliveries, and that makes no plan stale.
func TestDeliveryDoesNotMakePlansStale(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.apply(d, appYML("app"))
	p := r.plan(d, appYML("app", noEnv, isPublic))
	r.run(d)
	r.awaitReady("app")
	if err := d.Apply(context.Background(), p); err != nil {
		t.Error(err)
	}
}

func TestOfTwoAppliesOneWins(t *testing.T) {
	for name, first := range map[string]bool{"the first ever": true, "an update": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d := r.deployer()
			if !first {
				r.apply(d, appYML("app", "My App", "Old App"))
			}
			const racers = 8
			plans := make([]*Plan, racers)
			for i := range plans {
				plans[i] = r.plan(d, appYML("app"))
			}
			errs := make([]error, racers)
			var race sync.WaitGroup
			for i := range plans {
				race.Go(func() { errs[i] = d.Apply(context.Background(), plans[i]) })
			}
			race.Wait()
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				} else if !errors.Is(err, storage.ErrConflict) {
					t.Error(err)
				}
			}
			if won != 1 {
				t.Errorf("%d applies won", won)
			}
			if clients, err := r.store.Clients(t.Context()); err != nil || len(clients) != 1 {
				t.Errorf("%d clients, %v", len(clients), err)
			}
		})
	}
}

func TestDeleteRevokesTakesAwayAndRemoves(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	client, secret := r.view("app").Client.ID, r.secret("app")
	g := r.grant(client, "threads:read")
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Grant(t.Context(), client, g.ID, g.UserID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a grant outlived its app: %v", err)
	}
	if list, err := d.Settle(t.Context(), "app"); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	if view := r.view("app"); view.App != nil {
		t.Errorf("%+v", view.App)
	}
	if _, err := os.Stat(r.envFile("app", "worker", "web")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the env file is still there: %v", err)
	}
	if err := d.Delete(t.Context(), "app"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	// An app of the same name is the same app to whoever knows its client id, and nothing else of it is there.
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	if r.view("app").Client.ID != client {
		t.Error("the client id did not come back")
	}
	if r.secret("app") == secret {
		t.Error("the secret came back")
	}
}

func TestDeleteWithoutTargetsNeedsNoLoop(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app", noEnv, ""))
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if r.view("app").App != nil {
		t.Error("the app is still there")
	}
}

// A deletion that died after its first transaction is finished by the next start.
func TestDeletionIsFinishedAfterRestart(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.apply(d, appYML("one"))
	r.apply(d, appYML("two", noEnv, ""))
	stop := r.run(d)
	r.awaitReady("one")
	stop()
	if err := d.Delete(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if err := r.store.BeginDelete(t.Context(), r.view("two"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Plan(t.Context(), documents(t, appYML("one"))); !errors.Is(err, ErrDeleting) {
		t.Errorf("%v", err)
	}
	if err := d.Apply(t.Context(), &Plan{App: "one", wanted: &wanted{}}); !errors.Is(err, ErrDeleting) {
		t.Errorf("%v", err)
	}
	next := r.deployer()
	r.run(next)
	for _, app := range []string{"one", "two"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if _, err := next.Settle(ctx, app); err != nil {
			t.Error(err)
		}
		cancel()
		if r.view(app).App != nil {
			t.Errorf("%s is still there", app)
		}
	}
}

func TestPlanOfAnotherServerIsRefused(t *testing.T) {
	r := newRig(t)
	if err := r.deployer().Apply(t.Context(), &Plan{App: "app"}); err == nil {
		t.Error("applied a plan that nobody made")
	}
}

// The database, the log (see newRig) and the errors hold no secret.
func TestSecretIsOnlyAtTheTarget(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	secret := r.secret("app")
	if strings.Contains(r.etcd.Dump(), secret) {
		t.Error("the database holds the client secret")
	}
	if !strings.Contains(r.log.String(), "env delivered") {
		t.Error("the log does not hold what it should")
	}
}
