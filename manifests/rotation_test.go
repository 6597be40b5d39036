package manifests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

// shifted is a clock that runs on from wherever it is put.
type shifted struct{ by atomic.Int64 }

func (c *shifted) now() time.Time           { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *shifted) forward(d time.Duration)  { c.by.Add(int64(d)) }
func (c *shifted) store(o *storage.Options) { o.Now = c.now }

// clocked gives a rig a clock that can be put forward. Its deployers take over from each other, as one process after
// the other does on a data directory.
func (r *rig) clocked() *shifted {
	c := &shifted{}
	r.store = r.etcd.Store(c.store)
	r.opts.Store, r.opts.Now, r.opts.Replica = r.store, c.now, "embedded"
	return c
}

func (r *rig) rotate(d *Deployer, app string, opts RotateOptions) Rotated {
	r.t.Helper()
	got, err := d.Rotate(context.Background(), app, opts)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

// rotation is the record of an app's rotation, nil when there is none.
func (r *rig) rotation(app string) *storage.SecretRotation {
	r.t.Helper()
	c := r.view(app).Client
	if c == nil {
		return nil
	}
	seen, err := r.store.Secrets(context.Background(), c.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return seen.Rotation
}

func (r *rig) awaitRotation(app, what string, wanted func(*storage.SecretRotation) bool) *storage.SecretRotation {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		rot := r.rotation(app)
		if rot != nil && wanted(rot) {
			return rot
		}
		if time.Now().After(deadline) {
			for _, x := range r.view(app).Deliveries {
				r.t.Logf("%s: %s, generation %d, error %q", x.Target, x.State, x.Generation, x.Error)
			}
			r.t.Fatalf("waited in vain until %s: %+v\n%s", what, rot, r.log)
		}
		time.Sleep(2 * time.Millisecond) // nobody signals what is over
	}
}

// use has the app authenticate with a secret.
func (r *rig) use(app, secret string) {
	r.t.Helper()
	c := r.view(app).Client
	id := c.SecretID(secret)
	if id == "" {
		r.t.Fatal("the secret is not valid")
	}
	r.store.NoteUse(c.ID, id)
	if err := r.store.FlushUses(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

// settleRotations takes all rotations as far as they go now, as many deployers do that each die after one step.
func (r *rig) settleRotations() {
	for range 5 {
		r.stepRotations()
	}
}

// stepRotations takes every rotation one step further, as a deployer of its own does.
func (r *rig) stepRotations() {
	clients, err := r.store.Clients(context.Background())
	if err != nil {
		return // etcd was made to fail
	}
	for _, c := range clients {
		if seen, err := r.store.Secrets(context.Background(), c.ID); err == nil && seen.Rotation != nil {
			r.deployer().advance(context.Background(), seen.Rotation)
		}
	}
}

func (r *rig) valid(app string, secrets ...string) {
	r.t.Helper()
	c := r.view(app).Client
	if len(c.Secrets) != len(secrets) {
		r.t.Errorf("%d secrets are valid, want %d", len(c.Secrets), len(secrets))
	}
	for _, s := range secrets {
		if !c.Verify(s) {
			r.t.Error("a secret is not valid that should be")
		}
	}
}

func TestRotationEndToEnd(t *testing.T) {
	r := newRig(t).withFiles()
	clock := r.clocked()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	first := r.secret("app")
	clientID := r.view("app").Client.ID
	grant := r.grant(clientID, "threads:read")
	before := r.view("app").Deliveries[0].Generation

	got := r.rotate(d, "app", RotateOptions{Grace: time.Hour})
	second := r.secret("app")
	if len(got.Targets) != 2 || second == first || strings.Contains(fmt.Sprint(got), second) {
		t.Errorf("%+v", got)
	}
	r.valid("app", first, second)
	for _, x := range r.awaitReady("app") {
		if env := r.env("app", x.Target.Kind, x.Target.Name); env["OAUTH_CLIENT_SECRET"] != second ||
			env["OAUTH_CLIENT_ID"] != clientID || x.Generation <= before {
			t.Errorf("%s: generation %d, %v", x.Target, x.Generation, env["OAUTH_CLIENT_ID"])
		}
	}
	rot := r.awaitRotation("app", "it is served", func(rot *storage.SecretRotation) bool { return !rot.ServedAt.IsZero() })
	if !rot.UsedAt.IsZero() || !rot.RetiresAt.IsZero() {
		t.Errorf("it was not used yet: %+v", rot)
	}
	r.use("app", first) // says nothing about the new one
	clock.forward(48 * time.Hour)
	r.settleRotations()
	r.valid("app", first, second)

	r.use("app", second)
	rot = r.awaitRotation("app", "it is used", func(rot *storage.SecretRotation) bool { return !rot.RetiresAt.IsZero() })
	if grace := rot.RetiresAt.Sub(clock.now()); grace > time.Hour || grace < 55*time.Minute {
		t.Errorf("the grace is %s", grace)
	}
	clock.forward(50 * time.Minute)
	r.settleRotations()
	r.valid("app", first, second)
	clock.forward(10 * time.Minute)
	r.settleRotations()
	rot = r.awaitRotation("app", "the old one is retired", func(rot *storage.SecretRotation) bool {
		return !rot.UnderWay()
	})
	r.valid("app", second)
	if rot.RetiredAt.IsZero() || !rot.Over() {
		t.Errorf("%+v", rot)
	}
	if _, err := r.store.Grant(t.Context(), clientID, grant.ID, grant.UserID); err != nil {
		t.Errorf("the grant did not survive: %v", err)
	}
	if p := r.plan(d, appYML("app")); p.Changed {
		t.Errorf("a rotation is no change of the manifest: %+v", p.Changes)
	}
	if dump := r.etcd.Dump(); strings.Contains(dump, first) || strings.Contains(dump, second) {
		t.Error("the store holds a secret in the clear")
	}
	actions := ""
	entries, _, err := r.store.Audit(t.Context(), storage.AuditQuery{App: "app"})
	for _, e := range entries {
		if strings.HasPrefix(e.Action, "secret-") || e.Action == storage.AuditRotate {
			actions += e.Action + " "
		}
	}
	if err != nil || actions != "rotate secret-served secret-used secret-retired " {
		t.Errorf("the audit log says %q, %v", actions, err)
	}
	// The next one can begin.
	r.rotate(d, "app", RotateOptions{Grace: time.Hour})
	r.valid("app", second, r.secret("app"))
}

// Whichever write of a rotation fails, before etcd has it or after, and whoever dies then: the next process takes it
// on.
func TestRotationSurvivesItsProcessAtEveryStep(t *testing.T) {
	for _, sent := range []bool{false, true} {
		for n := int64(1); n <= 9; n++ {
			t.Run(fmt.Sprintf("write %d, sent %t", n, sent), func(t *testing.T) {
				r := newRig(t)
				clock := r.clocked()
				m := r.withRemote(nil)
				stop := r.run(r.deployer())
				r.apply(r.deployer(), worker("app"))
				r.awaitReady("app")
				stop()
				first := r.secret("app")

				var writes atomic.Int64
				r.etcd.Inject(func(write, after bool) error {
					if write && after == sent && writes.Add(1) == n {
						return errors.New("killed here")
					}
					return nil
				})
				for range 3 { // as a person would
					if _, err := r.deployer().Rotate(t.Context(), "app", RotateOptions{Grace: time.Hour}); err == nil ||
						errors.Is(err, ErrRotating) {
						break
					}
				}
				used := false
				for range 40 {
					stop := r.run(r.deployer())
					r.awaitReady("app")
					stop()
					if !used {
						c, second := r.view("app").Client, m.target("app", "web").env["OAUTH_CLIENT_SECRET"]
						r.store.NoteUse(c.ID, c.SecretID(second))
						used = r.store.FlushUses(t.Context()) == nil
					}
					r.stepRotations()
					clock.forward(20 * time.Minute)
					if rot := r.rotation("app"); rot.Over() {
						break
					}
				}
				r.etcd.Inject(nil)
				second := r.secret("app")
				r.valid("app", second)
				if second == first || m.target("app", "web").env["OAUTH_CLIENT_SECRET"] != second || !r.rotation("app").Over() {
					t.Errorf("%+v after %d writes", r.rotation("app"), writes.Load())
				}
			})
		}
	}
}

func TestOneRotationAtATime(t *testing.T) {
	r := newRig(t).withFiles()
	r.apply(r.deployer(), appYML("app"))
	var won, refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		d := r.deployer()
		wg.Go(func() {
			switch _, err := d.Rotate(context.Background(), "app", RotateOptions{Grace: time.Hour}); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, ErrRotating):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || refused.Load() != 7 {
		t.Errorf("%d won, %d refused", won.Load(), refused.Load())
	}
	if n := len(r.view("app").Client.Secrets); n != 2 {
		t.Errorf("%d secrets", n)
	}
	_, err := r.deployer().Rotate(t.Context(), "app", RotateOptions{})
	if err == nil || !strings.Contains(err.Error(), "container api (pending), worker web (pending)") {
		t.Errorf("it does not say for what the other one waits: %v", err)
	}
}

func TestRotationRefused(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.apply(d, appYML("public", noEnv, isPublic))
	r.apply(d, "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: none}\nspec: {version: 1.0.0}\n")
	r.apply(d, appYML("going"))
	if err := d.Delete(t.Context(), "going"); err != nil {
		t.Fatal(err)
	}
	for app, want := range map[string]error{"public": ErrNoSecret, "none": ErrNoSecret, "going": ErrDeleting,
		"nobody": storage.ErrNotFound} {
		if _, err := d.Rotate(t.Context(), app, RotateOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", app, err, want)
		}
	}
}

// An apply that meets a rotation neither loses the new secret nor the old one.
func TestRotationDuringApply(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.apply(d, appYML("app"))
	first := r.secret("app")
	plan := r.plan(d, appYML("app", "web: {}", "web: {}, late: {}"))
	r.rotate(d, "app", RotateOptions{Grace: time.Hour})
	if err := d.Apply(t.Context(), plan); !errors.Is(err, storage.ErrConflict) {
		t.Fatalf("a plan from before the rotation: %v", err)
	}
	r.apply(d, appYML("app", "web: {}", "web: {}, late: {}", "clientName: My App", "clientName: New name"))
	second := r.secret("app")
	r.valid("app", first, second)
	r.run(d)
	for _, x := range r.awaitReady("app") {
		if r.env("app", x.Target.Kind, x.Target.Name)["OAUTH_CLIENT_SECRET"] != second {
			t.Errorf("%s has another secret", x.Target)
		}
	}

	// At the same time, whoever wins.
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			plans, err := d.Plan(context.Background(), documents(t,
				appYML("app", "web: {}", fmt.Sprintf("web: {}, w%d: {}", i))))
			if err == nil {
				err = d.Apply(context.Background(), plans[0])
			}
			if err != nil && !errors.Is(err, storage.ErrConflict) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := d.Rotate(context.Background(), "app", RotateOptions{Compromised: true}); err != nil &&
				!errors.Is(err, storage.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	last := r.secret("app")
	r.valid("app", last)
	for _, x := range r.await("app", "all is ready and nothing is removed any more", func(list []*storage.Delivery) bool {
		return all(storage.DeliveryReady)(list) && !slices.ContainsFunc(list, func(x *storage.Delivery) bool {
			return x.Remove
		})
	}) {
		if r.env("app", x.Target.Kind, x.Target.Name)["OAUTH_CLIENT_SECRET"] != last {
			t.Errorf("%s has another secret", x.Target)
		}
	}
}

func TestAppDeletedDuringRotation(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	r.rotate(d, "app", RotateOptions{Grace: time.Hour})
	r.use("app", r.secret("app"))
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	r.settleRotations()
	if _, err := d.Settle(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if dump := r.etcd.Dump(); strings.Contains(dump, "rotations/") || strings.Contains(dump, "secretuse/") {
		t.Error("something of the rotation is left")
	}
	// And an app of the same name starts from nothing.
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	r.valid("app", r.secret("app"))
}

func TestCompromisedSecretEndsAtOnce(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	stop := r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	first := r.secret("app")
	grant := r.grant(r.view("app").Client.ID, "threads:read")
	r.rotate(d, "app", RotateOptions{Grace: time.Hour}) // one under way does not stop it
	second := r.secret("app")
	r.awaitReady("app")
	stop()

	got := r.rotate(d, "app", RotateOptions{Compromised: true})
	third := r.secret("app")
	r.valid("app", third)
	if c := r.view("app").Client; c.Verify(first) || c.Verify(second) {
		t.Error("an older secret is still valid")
	}
	said := strings.Join(got.Consequences, "\n")
	for _, want := range []string{"invalid_client", "container api, worker web", "1 grant stays"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	r.run(r.deployer())
	r.awaitReady("app")
	if r.env("app", "worker", "web")["OAUTH_CLIENT_SECRET"] != third {
		t.Error("not delivered")
	}
	r.use("app", third)
	r.awaitRotation("app", "it is over", func(rot *storage.SecretRotation) bool { return rot.Over() })
	if _, err := r.store.Grant(t.Context(), grant.ClientID, grant.ID, grant.UserID); err != nil {
		t.Errorf("the grant did not survive: %v", err)
	}
}

// Nobody but the app can confirm a secret that is handed out by hand: its use does.
func TestRotationWithoutTargets(t *testing.T) {
	r := newRig(t)
	clock := r.clocked()
	d := r.deployer()
	r.apply(d, appYML("app", noEnv, ""))
	first := r.secret("app")
	if got := r.rotate(d, "app", RotateOptions{}); len(got.Targets) != 0 ||
		!strings.Contains(strings.Join(got.Consequences, " "), "warifu credentials app") {
		t.Errorf("%+v", got)
	}
	second := r.secret("app")
	r.settleRotations()
	if rot := r.rotation("app"); rot.ServedAt.IsZero() {
		t.Errorf("%+v", rot)
	}
	clock.forward(365 * 24 * time.Hour)
	r.settleRotations()
	r.valid("app", first, second)
	r.use("app", second)
	r.settleRotations()
	r.valid("app", second)
}

func TestClientMadePublicDuringRotation(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.apply(d, appYML("app"))
	r.rotate(d, "app", RotateOptions{})
	r.apply(d, appYML("app", noEnv, isPublic))
	r.settleRotations()
	if rot := r.rotation("app"); rot != nil {
		t.Errorf("%+v", rot)
	}
	r.apply(d, appYML("app"))
	r.rotate(d, "app", RotateOptions{})
	r.valid("app", r.secret("app"), func() string {
		values, err := r.store.SecretValues(r.view("app").Client)
		if err != nil {
			t.Fatal(err)
		}
		return values[0]
	}())
}

func TestOldSecretsRotateByThemselves(t *testing.T) {
	r := newRig(t).withFiles()
	clock := r.clocked()
	const age = 90 * 24 * time.Hour
	d := r.deployer(func(o *DeployerOptions) { o.SecretMaxAge = age })
	r.apply(d, appYML("app"))
	r.apply(d, appYML("public", noEnv, isPublic))
	first := r.secret("app")
	clock.forward(age - time.Hour)
	d.rotateOld(t.Context())
	r.valid("app", first)
	clock.forward(time.Hour)
	r.apply(d, appYML("young"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { d.rotateOld(context.Background()) })
	}
	wg.Wait()
	second := r.secret("app")
	r.valid("app", first, second)
	r.valid("young", r.secret("young"))
	if rot := r.rotation("app"); rot.Grace != DefaultGrace {
		t.Errorf("%+v", rot)
	}
	// As long as nobody uses the new one there is no third, however old it gets.
	clock.forward(2 * age)
	d.rotateOld(t.Context())
	r.valid("app", first, second)
	stop := r.run(d)
	r.awaitReady("app")
	stop()
	r.use("app", second)
	r.settleRotations()
	clock.forward(DefaultGrace)
	r.run(d) // does all that is due by itself: ends the one rotation, begins the next
	r.awaitRotation("app", "the old one is retired", func(rot *storage.SecretRotation) bool {
		return !r.view("app").Client.Verify(first)
	})
	d.rotateOld(t.Context())
	r.valid("app", second, r.secret("app"))
}

// What a runtime says may hold a secret that this server does not deliver any more.
func TestOldSecretIsHiddenToo(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.apply(d, appYML("app"))
	first := r.secret("app")
	r.rotate(d, "app", RotateOptions{Compromised: true})
	if text := d.hide(r.view("app").Deliveries[0], "it has "+first+", still"); text != "it has [redacted], still" {
		t.Error(text)
	}
}

// A secret that the app has elsewhere is delivered and valid like one that is made; only one that is in use already may
// be weak, and that is said.
func TestSecretFromElsewhere(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	const weak = "ZXhhbXBsZS1hcHAtc2VjcmV0"
	before := r.etcd.Dump()
	if _, err := d.Rotate(t.Context(), "app", RotateOptions{Secret: weak}); !errors.Is(err, ErrSecret) ||
		strings.Contains(err.Error(), weak) {
		t.Errorf("weak: %v", err)
	}
	if first := r.secret("app"); first == "" || strings.Count(r.etcd.Dump(), "\"secrets\"") != strings.Count(before,
		"\"secrets\"") {
		t.Error("a secret that was refused is there")
	}
	got := r.rotate(d, "app", RotateOptions{Secret: weak, Imported: true})
	if len(got.Targets) != 2 || !slices.ContainsFunc(got.Consequences, func(c string) bool {
		return strings.Contains(c, "has 144 bits at most")
	}) {
		t.Errorf("%+v", got)
	}
	if c := r.view("app").Client; !c.Verify(weak) || len(c.Secrets) != 2 || r.secret("app") != weak ||
		r.delivered("app")["OAUTH_CLIENT_SECRET"] != weak {
		t.Error("the secret is not the client's")
	}
	if _, err := d.Rotate(t.Context(), "app", RotateOptions{Secret: weak, Imported: true}); !errors.Is(err, ErrSecret) ||
		!strings.Contains(err.Error(), "already") {
		t.Errorf("again: %v", err)
	}
	if dump := r.etcd.Dump(); strings.Contains(dump, weak) || strings.Contains(r.log.String(), weak) {
		t.Error("the database or the log holds the secret")
	}
}
