package manifests

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// drift is what a deployer finds, one line each.
func (r *rig) drift(d *Deployer, docs []*Document, app string) []string {
	r.t.Helper()
	drift, err := d.Drift(context.Background(), docs, app)
	if err != nil {
		r.t.Fatal(err)
	}
	lines := []string{}
	for _, f := range drift.Findings {
		lines = append(lines, strings.Join(strings.Fields(strings.Join([]string{f.App, f.place(), string(f.Kind), f.Text},
			" ")), " "))
	}
	return lines
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d findings, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
		return
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}

func TestDriftOfWhatRuntimesHave(t *testing.T) {
	r := newRig(t)
	var listed []plugins.AppTarget
	m := r.withRemote(nil)
	r.opts.Runtimes[0] = listing{r.opts.Runtimes[0], &listed}
	d := r.deployer()
	r.apply(d, worker("app"))
	r.apply(d, worker("other"))
	stop := r.run(d)
	r.awaitReady("app")
	r.awaitReady("other")
	stop()
	wantLines(t, r.drift(d, nil, ""))
	good := *m.target("app", "web")
	for change, want := range map[string]string{
		"lost": "app worker/web missing", "older": "app worker/web older", "newer": "app worker/web changed",
		"digest": "app worker/web changed",
	} {
		h := good
		switch change {
		case "older":
			h.generation--
		case "newer":
			h.generation += 7
		case "digest":
			h.digest = "other"
		}
		if m.set("app", "web", &h); change == "lost" {
			m.set("app", "web", nil)
		}
		wantLines(t, r.drift(d, nil, ""), want)
		wantLines(t, r.drift(d, nil, "app"), want)
		wantLines(t, r.drift(d, nil, "other"))
	}
	m.set("app", "web", &good)
	// What a runtime has and nobody wants there; and what it says of another app's when it is asked about one.
	listed = []plugins.AppTarget{
		{App: "app", Target: plugins.Target{Kind: "worker", Name: "web"}},
		{App: "app", Target: plugins.Target{Kind: "worker", Name: "stray"}},
		{App: "gone", Target: plugins.Target{Kind: "worker", Name: "web"}},
	}
	wantLines(t, r.drift(d, nil, ""), "app worker/stray leftover", "gone worker/web leftover")
	wantLines(t, r.drift(d, nil, "app"), "app worker/stray leftover")
	wantLines(t, r.drift(d, nil, "other"))
}

// listing is a runtime that says what it is told to about its targets.
type listing struct {
	Runtime
	targets *[]plugins.AppTarget
}

func (l listing) ListTargets(context.Context, string) ([]plugins.AppTarget, error) {
	return *l.targets, nil
}

func TestDriftOfTheClientAndTheManifest(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.apply(d, worker("app"))
	r.run(d)
	r.awaitReady("app")
	before := r.etcd.Dump()
	wantLines(t, r.drift(d, documents(t, worker("app", "threads:read", "files:read")), ""),
		"app client the manifest leads to: scopes: add files:read", "app client the manifest leads to: scopes: "+
			"remove threads:read")
	wantLines(t, r.drift(d, documents(t, worker("app", "1.0.0", "1.1.0")), ""), "app unapplied the manifest "+
		"leads to: version")
	wantLines(t, r.drift(d, documents(t, worker("app", "web: {}", "api: {}")), ""), "app worker/api env",
		"app worker/web env")
	wantLines(t, r.drift(d, documents(t, worker("stranger")), ""), "stranger unapplied the app is not applied")
	if r.etcd.Dump() != before {
		t.Error("looking at drift has changed the store")
	}
	// The client's record was changed behind the manifest's back.
	view := r.view("app")
	c := *view.Client
	c.RedirectURIs = append(c.RedirectURIs, "https://evil.example.com/callback")
	if err := r.store.CommitRelease(t.Context(), storage.Release{App: *view.App, Client: &c}); err != nil {
		t.Fatal(err)
	}
	wantLines(t, r.drift(d, nil, ""), "app client the manifest leads to: redirectUris: remove "+
		"https://evil.example.com/callback")
	// The issuer is another one since the env was delivered.
	moved := r.deployer(func(o *DeployerOptions) { o.Issuer = "https://new.example.com" })
	wantLines(t, r.drift(moved, nil, ""), "app client", "app worker/web env the manifest leads to: worker web: "+
		"set OAUTH_ISSUER")
	if _, err := d.Drift(t.Context(), nil, "nobody"); !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
}

func TestDriftOfRuntimesThatDoNotAnswer(t *testing.T) {
	r := newRig(t).withFiles()
	m := r.withRemote(func(c call) *reply {
		if c.Op == "observe" && c.App == "down" {
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	d := r.deployer(func(o *DeployerOptions) { o.Assignments = []Assignment{{App: "down", Runtime: "remote"}} })
	r.apply(d, worker("down", "workers: {web: {}}", "workers: {a: {}, b: {}, c: {}}"))
	r.apply(d, worker("app"))
	r.apply(d, appYML("none", "workers: {web: {}}", "services: {}"))
	unassigned := r.deployer(func(o *DeployerOptions) {
		o.Assignments = []Assignment{{App: "down", Runtime: "remote"}, {App: "none", Runtime: "remote"}}
	})
	stop := r.run(unassigned)
	r.awaitReady("down")
	r.awaitReady("app")
	r.await("none", "nothing serves it", state(storage.DeliveryFailed))
	stop()
	before := m.count("observe", "down")
	wantLines(t, r.drift(unassigned, nil, ""),
		"down worker/a unknown", "down worker/b unknown", "down worker/c unknown",
		"none container/api unserved runtime remote, to which this target is assigned, serves only workers")
	if n := m.count("observe", "down") - before; n != 1 {
		t.Errorf("a runtime that is away was asked %d times", n)
	}
}
