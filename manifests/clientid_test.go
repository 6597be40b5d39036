package manifests

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/warifu/warifu/storage"
)

// chosen is a manifest that chooses its client id, with nothing to wait for.
func chosen(app, id string, more ...string) string {
	manifest := with(app, "\n    clientId: "+id+strings.Join(more, ""))
	return manifest[:strings.Index(manifest, "  workers:")]
}

// A client id that exists already, elsewhere or in what trusts it, is the app's own and never another's.
func TestClientIDOfTheManifest(t *testing.T) {
	r := newRig(t)
	d := r.deployer(func(o *DeployerOptions) { o.ReservedIDs = []string{"billing"} })
	p := r.apply(d, with("one", "\n    clientId: shop"))
	if got := r.view("one"); got.Client == nil || got.Client.ID != "shop" || got.App.ClientID != "shop" ||
		len(got.Client.Secrets) != 1 {
		t.Fatalf("%+v", got.Client)
	}
	if !slices.ContainsFunc(p.Changes, func(c Change) bool { return strings.HasSuffix(c.Text, ", as shop") }) {
		t.Errorf("%+v", p.Changes)
	}
	if env := r.delivered("one"); env["OAUTH_CLIENT_ID"] != "shop" {
		t.Errorf("env: %v", env["OAUTH_CLIENT_ID"])
	}
	if p := r.plan(d, appYML("one")); p.Changed && len(p.Ends) > 0 { // the id stays
		t.Errorf("without the key: %+v", p.Changes)
	}
	r.apply(d, chosen("gone", "former"))
	if err := d.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	for owner, manifest := range map[string]string{
		"app one":                                chosen("two", "shop"),
		"app gone":                               chosen("two", "former"),
		"a resource server of the configuration": chosen("two", "billing"),
		"app two":                                chosen("two", "new") + "---\n" + chosen("three", "new"),
	} {
		var denied *DeniedError
		_, err := d.Plan(t.Context(), documents(t, manifest))
		if !errors.As(err, &denied) || len(denied.Denials) != 1 || denied.Denials[0].Code != "client_id_taken" ||
			denied.Denials[0].Line == 0 ||
			!strings.Contains(err.Error(), "is or was the client id of "+owner+",") {
			t.Errorf("%s: %v", owner, err)
		}
	}
	r.apply(d, chosen("gone", "former"))
	if c := r.view("gone").Client; c.ID != "former" || c.Returned.IsZero() {
		t.Errorf("its own again: %+v", c)
	}
}

// Another id is another client: what the one before has given ends, and that is not done by the way.
func TestClientIDThatChangesEndsTheClient(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	const api = "\n    resourceIdentifiers: [https://api.example.com, urn:one]"
	r.apply(d, with("one", api))
	was := r.view("one").Client
	r.grant(was.ID, "threads:read")
	manifest := with("one", api+"\n    clientId: shop")
	p := r.plan(d, manifest)
	if len(p.Ends) != 1 || p.Ends[0] != (Ending{App: "one", ClientID: was.ID, Grants: 1}) {
		t.Fatalf("ends: %+v", p.Ends)
	}
	var deletion *DeletionError
	file := []File{{Name: "app.yml", Data: []byte(manifest)}}
	if _, _, err := d.ApplyFiles(t.Context(), file, ApplyOptions{}); !errors.As(err, &deletion) {
		t.Fatalf("%v", err)
	}
	if _, _, err := d.ApplyFiles(t.Context(), file, ApplyOptions{AllowDelete: true}); err != nil {
		t.Fatal(err)
	}
	view := r.view("one")
	if view.Client.ID != "shop" || !slices.Equal(view.Client.ResourceIdentifiers, was.ResourceIdentifiers) {
		t.Errorf("%+v", view.Client)
	}
	if env := r.delivered("one"); env["OAUTH_CLIENT_ID"] != "shop" || env["OAUTH_CLIENT_SECRET"] != r.secret("one") {
		t.Errorf("env: %v", env["OAUTH_CLIENT_ID"])
	}
	if old, err := r.store.Client(t.Context(), was.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the client before: %+v %v", old, err)
	}
	if n, err := r.store.CountGrants(t.Context(), was.ID); n != 0 || err != nil {
		t.Errorf("%d grants, %v", n, err)
	}
	if p := r.plan(d, manifest); p.Changed {
		t.Errorf("%+v", p.Changes)
	}
	// The id before is still the app's, and the tokens of then are not.
	if _, _, err := d.ApplyFiles(t.Context(), []File{{Name: "app.yml",
		Data: []byte(with("one", api+"\n    clientId: "+was.ID))}},
		ApplyOptions{AllowDelete: true}); err != nil {
		t.Fatal(err)
	}
	if c := r.view("one").Client; c.ID != was.ID || c.Returned.IsZero() {
		t.Errorf("%+v", c)
	}
	var denied *DeniedError
	if _, err := d.Plan(t.Context(), documents(t, chosen("two", "shop"))); !errors.As(err, &denied) {
		t.Errorf("%v", err)
	}
}

// Threat: one client id to two apps by two replicas.
func TestThreatOneClientIDForTwoApps(t *testing.T) {
	r := newRig(t)
	const racers = 16
	deployers := []*Deployer{r.deployer(), r.deployer()}
	var plans []*Plan
	for i := range racers {
		plans = append(plans, r.plan(deployers[i%2], chosen(fmt.Sprintf("app-%d", i), "shop")))
	}
	var won atomic.Int64
	var winner atomic.Value
	var all sync.WaitGroup
	start := make(chan struct{})
	for i, p := range plans {
		all.Go(func() {
			<-start
			err := deployers[i%2].Apply(t.Context(), p)
			switch {
			case err == nil:
				won.Add(1)
				winner.Store(p.App)
			case !errors.Is(err, storage.ErrConflict) || !strings.Contains(err.Error(),
				"the client id shop belongs to app app-"):
				t.Errorf("%s: %v", p.App, err)
			}
		})
	}
	close(start)
	all.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d apps have it", won.Load())
	}
	for _, p := range plans {
		view := r.view(p.App)
		if (view.App != nil) != (p.App == winner.Load()) || view.App != nil && view.Client.App != p.App {
			t.Errorf("%s: %+v", p.App, view)
		}
	}
}

// A database of an older version remembers the last client id of an app that was deleted, and nothing else of it.
func TestClientIDOfAnOlderVersionIsNobodyElses(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	if _, err := r.etcd.Client.Put(t.Context(), r.etcd.Prefix+"clientids/gone",
		`{"id":"gone-abc","ended":"2026-01-02T03:04:05Z"}`); err != nil {
		t.Fatal(err)
	}
	var denied *DeniedError
	if _, err := d.Plan(t.Context(), documents(t, chosen("two", "gone-abc"))); !errors.As(err, &denied) ||
		!strings.Contains(err.Error(), "of app gone,") {
		t.Errorf("%v", err)
	}
	r.apply(d, chosen("gone", "gone-abc"))
	if c := r.view("gone").Client; c.ID != "gone-abc" || c.Returned.IsZero() {
		t.Errorf("%+v", c)
	}
}

// A client id is read alike by all who get it, in a form, in a query and in Basic, and names no document.
func TestClientIDIsPlain(t *testing.T) {
	for id, good := range map[string]bool{
		"kubernetes": true, "0oa1b2c3": true, "123-abc.apps.example.com": true, "0f8fad5b-d9cb-469f-a165-70867728950e": true,
		"my_app@x~y":                          true,
		"https://app.example.com/client.json": false, "a:b": false, "a b": false, "a+b": false, "a/b": false,
		"-a": false, "ü": false,
		strings.Repeat("a", 128): true, strings.Repeat("a", 129): false, `""`: false,
	} {
		_, faults := Parse("app.yml", []byte(chosen("app", id)), Options{})
		err, wrong := faults.Err(), faults.Errors()
		if (err == nil) != good || !good && (len(wrong) != 1 || wrong[0].Path != "spec.oauth.clientId" ||
			wrong[0].Line == 0) {
			t.Errorf("%.20s: %v", id, err)
		}
	}
}

// delivered is the env that the app's worker is to have.
func (r *rig) delivered(app string) map[string]string {
	r.t.Helper()
	all := r.view(app).Deliveries
	if len(all) == 0 {
		r.t.Fatal("nothing is to be delivered")
	}
	env, err := r.store.OpenEnv(all[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return env
}
