package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// FindingKind says in what way something differs. The values are stable.
type FindingKind string

// Kinds of findings.
const (
	FoundUnapplied FindingKind = "unapplied" // the app, or what its manifest says, is not applied
	FoundRefused   FindingKind = "refused"   // a deploy hook would not allow the manifest any more
	FoundClient    FindingKind = "client"    // the registered client differs from the manifest
	FoundEnv       FindingKind = "env"       // the env that is delivered differs from what the manifest leads to
	FoundMissing   FindingKind = "missing"   // the runtime does not have the target's env
	FoundOlder     FindingKind = "older"     // the runtime has, or serves, an older generation
	FoundChanged   FindingKind = "changed"   // the runtime has something else
	FoundFailed    FindingKind = "failed"    // the runtime has it, and reports a failure
	FoundUnserved  FindingKind = "unserved"  // no runtime serves the target
	FoundLeftover  FindingKind = "leftover"  // a runtime has env that no app wants there
	FoundUnknown   FindingKind = "unknown"   // the runtime does not say what it has
)

// Finding is one difference between what was applied and what is there. It never holds a value of env.
type Finding struct {
	App     string
	Target  *storage.Target // nil: about the app
	Runtime string
	Kind    FindingKind
	Text    string
	Remedy  string
}

// Drift is what [Deployer.Drift] found, sorted by app and target.
type Drift struct {
	Apps, Targets int // how many were looked at
	Findings      []Finding
}

// Drift compares apps with what their manifests lead to: the registered client, the env that was delivered and the
// env that the runtimes have. With documents, it compares their apps with the documents; without, it compares all
// apps, or the named one, with what was applied. It changes nothing. It returns [storage.ErrNotFound] if there is no
// such app.
func (d *Deployer) Drift(ctx context.Context, docs []*Document, app string) (*Drift, error) {
	only := make(map[string]bool) // empty: all
	if len(docs) == 0 {
		applied, err := d.appliedDocuments(ctx, app)
		if err != nil {
			return nil, err
		}
		if docs = applied; app != "" {
			only[app] = true
		}
	} else {
		for _, doc := range docs {
			only[doc.App.Metadata.Name] = true
		}
	}
	drift := &Drift{Apps: len(docs), Findings: []Finding{}}
	for _, doc := range docs {
		found, err := d.registeredDrift(ctx, doc)
		if err != nil {
			return nil, err
		}
		drift.Findings = append(drift.Findings, found...)
	}
	if err := d.deliveredDrift(ctx, drift, only); err != nil {
		return nil, err
	}
	slices.SortStableFunc(drift.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.place(), b.place()), cmp.Compare(a.Runtime, b.Runtime))
	})
	return drift, nil
}

func (f Finding) place() string {
	if f.Target == nil {
		return ""
	}
	return label(*f.Target)
}

// appliedDocuments are the manifests that were applied, of apps that are not being deleted.
func (d *Deployer) appliedDocuments(ctx context.Context, app string) ([]*Document, error) {
	apps, err := d.store.Apps(ctx)
	if err != nil {
		return nil, fmt.Errorf("drift: %w", err)
	}
	var docs []*Document
	for _, a := range apps {
		if app != "" && a.Name != app {
			continue
		}
		if a.Deleting {
			if app != "" {
				return nil, deleting(app)
			}
			continue
		}
		manifest := &App{}
		if err := manifest.UnmarshalJSON(a.Manifest); err != nil {
			return nil, fmt.Errorf("drift of %s: %w", a.Name, err)
		}
		docs = append(docs, &Document{App: manifest, Path: a.Source})
	}
	if app != "" && len(docs) == 0 {
		return nil, fmt.Errorf("drift of %s: %w", app, storage.ErrNotFound)
	}
	return docs, nil
}

// registeredDrift compares what the store has of an app with what the manifest leads to.
func (d *Deployer) registeredDrift(ctx context.Context, doc *Document) ([]Finding, error) {
	name := doc.App.Metadata.Name
	plan, denials, err := d.planApp(ctx, doc, false)
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, denial := range denials {
		found = append(found, Finding{App: name, Kind: FoundRefused, Text: denial.String(), Remedy: denial.Remedy})
	}
	if plan == nil {
		return found, nil
	}
	for _, c := range plan.Changes {
		f := Finding{App: name, Target: c.Target, Text: "the manifest leads to: " + c.Text, Remedy: "apply the manifest"}
		switch c.Kind {
		case Repair:
			continue // is observed
		case CreateApp:
			f.Kind, f.Text = FoundUnapplied, "the app is not applied"
			return []Finding{f}, nil
		case UpdateManifest:
			f.Kind = FoundUnapplied
		case AddTarget, RemoveTarget, SetEnv, UnsetEnv:
			f.Kind = FoundEnv
		default:
			if f.Kind = FoundClient; c.Field == "version" {
				f.Kind = FoundUnapplied
			}
		}
		found = append(found, f)
	}
	return found, nil
}

// deliveredDrift compares what runtimes have with what was delivered. Each runtime is asked separately, so that one
// that hangs does not delay the others.
func (d *Deployer) deliveredDrift(ctx context.Context, drift *Drift, only map[string]bool) error {
	deliveries, err := d.store.Deliveries(ctx)
	if err != nil {
		return fmt.Errorf("drift: %w", err)
	}
	at := make(map[string][]*storage.Delivery) // by runtime
	var found []Finding
	for _, x := range deliveries {
		rt, _ := d.set().runtimeNamed(x.Runtime)
		if rt != nil {
			at[x.Runtime] = append(at[x.Runtime], x)
		}
		if len(only) > 0 && !only[x.App] {
			continue
		}
		drift.Targets++
		if rt == nil {
			f := finding(x, FoundUnserved, cmp.Or(x.Error, "no runtime has taken it yet"), x.Remedy)
			if x.Remove {
				f.Kind = FoundLeftover
			}
			found = append(found, f)
		}
	}
	var mu sync.Mutex // guards found
	var asking sync.WaitGroup
	for _, rt := range d.set().runtimes {
		asking.Go(func() {
			more := d.runtimeDrift(ctx, rt, at[rt.Name()], only)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, more...)
		})
	}
	asking.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("drift: %w", err)
	}
	// A delivery that changed in the meantime was compared with what is no longer wanted.
	now, err := d.store.Deliveries(ctx)
	if err != nil {
		return fmt.Errorf("drift: %w", err)
	}
	wanted, moved := make(map[place]int64), make(map[place]bool)
	for _, x := range deliveries {
		wanted[placeOf(x)] = x.Generation
	}
	for _, x := range now {
		if at := placeOf(x); wanted[at] != x.Generation {
			moved[place{app: at.app, target: at.target}] = true
		}
		delete(wanted, placeOf(x))
	}
	for at := range wanted { // is gone
		moved[place{app: at.app, target: at.target}] = true
	}
	for _, f := range found {
		if f.Target == nil || !moved[place{app: f.App, target: *f.Target}] {
			drift.Findings = append(drift.Findings, f)
		}
	}
	return nil
}

func finding(x *storage.Delivery, kind FindingKind, text, remedy string) Finding {
	return Finding{App: x.App, Target: &x.Target, Runtime: x.Runtime, Kind: kind, Text: text, Remedy: remedy}
}

// runtimeDrift asks one runtime for everything. Once it fails to answer, it is not asked again.
func (d *Deployer) runtimeDrift(ctx context.Context, rt Runtime, deliveries []*storage.Delivery,
	only map[string]bool) []Finding {
	var found []Finding
	known := make(map[plugins.AppTarget]bool)
	var down error
	for _, x := range deliveries {
		known[plugins.AppTarget{App: x.App, Target: pluginTarget(x.Target)}] = true
		if len(only) > 0 && !only[x.App] {
			continue
		}
		if x.Remove {
			found = append(found, finding(x, FoundLeftover,
				strings.TrimSuffix("its env has not been taken away yet: "+x.Error, ": "), x.Remedy))
			continue
		}
		if down == nil {
			st, err := rt.ObserveEnv(ctx, x.App, pluginTarget(x.Target))
			if err == nil {
				found = append(found, d.observedDrift(x, st)...)
				continue
			}
			if errors.Is(err, plugins.ErrUnavailable) || errors.Is(err, plugins.ErrDeadline) {
				down = err
			}
			found = append(found, finding(x, FoundUnknown, d.hide(x, err.Error()), failureOf(err).remedy))
			continue
		}
		found = append(found, finding(x, FoundUnknown, d.hide(x, down.Error()), failureOf(down).remedy))
	}
	if down != nil {
		return found
	}
	app := ""
	if len(only) == 1 {
		for name := range only {
			app = name
		}
	}
	listed, err := rt.ListTargets(ctx, app)
	if err != nil {
		return append(found, Finding{App: app, Runtime: rt.Name(), Kind: FoundUnknown,
			Text: "what other env it has cannot be listed: " + err.Error(), Remedy: failureOf(err).remedy})
	}
	for _, t := range listed {
		if known[t] || len(only) > 0 && !only[t.App] {
			continue
		}
		target := targetOf(t.Target)
		found = append(found, Finding{App: t.App, Target: &target, Runtime: rt.Name(), Kind: FoundLeftover,
			Text: "the runtime has env from warifu that no app wants there", Remedy: "remove it in the runtime, " +
				"unless another warifu delivers there"})
	}
	return found
}

// observedDrift compares what a runtime reports with what was delivered.
func (d *Deployer) observedDrift(x *storage.Delivery, st plugins.Status) []Finding {
	remedy := "it is delivered again automatically, or now with warifu retry " + x.App
	if d.set().leaveDrift {
		remedy = "find out why; then warifu retry " + x.App
	}
	switch {
	case st.Present && st.AcceptedGeneration == x.Generation && st.Digest == x.Digest:
		if st.State == plugins.StateFailed {
			why := failureAt(st)
			return []Finding{finding(x, FoundFailed, d.hide(x, why.message), d.hide(x, why.remedy))}
		}
		if st.ServingGeneration != x.Generation {
			return []Finding{finding(x, FoundOlder,
				fmt.Sprintf("the runtime still serves generation %d while it rolls out %d", st.ServingGeneration, x.Generation),
				"wait for it")}
		}
		return nil
	case !st.Present:
		return []Finding{finding(x, FoundMissing, foundAt(st, x.Generation), remedy)}
	case st.AcceptedGeneration < x.Generation:
		return []Finding{finding(x, FoundOlder, foundAt(st, x.Generation), remedy)}
	}
	return []Finding{finding(x, FoundChanged, foundAt(st, x.Generation), remedy)}
}
