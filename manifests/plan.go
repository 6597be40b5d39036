package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// ChangeKind says what a [Change] does. The values are stable.
type ChangeKind string

// Kinds of changes.
const (
	CreateApp      ChangeKind = "createApp"
	UpdateManifest ChangeKind = "updateManifest" // what the release record keeps, and nothing that follows from it
	RegisterClient ChangeKind = "registerClient"
	RemoveClient   ChangeKind = "removeClient"
	UpdateField    ChangeKind = "updateField" // Field from Old to New
	AddTo          ChangeKind = "add"         // New to the list Field
	RemoveFrom     ChangeKind = "remove"      // Old from the list Field
	AddTarget      ChangeKind = "addTarget"   // Target gets env for the first time
	RemoveTarget   ChangeKind = "removeTarget"
	SetEnv         ChangeKind = "setEnv" // Names at Target
	UnsetEnv       ChangeKind = "unsetEnv"
	Repair         ChangeKind = "repair" // Target's delivery has failed and is tried again
)

// Change is one difference between what exists and what should. It never holds a value of env.
type Change struct {
	Kind   ChangeKind      `json:"kind"`
	Field  string          `json:"field,omitempty"` // as in the manifest: clientName, redirectUris, ...
	Old    string          `json:"old,omitempty"`
	New    string          `json:"new,omitempty"`
	Target *storage.Target `json:"target,omitempty"`
	Names  []string        `json:"names,omitempty"` // of variables
	// Text is the change in words.
	Text string `json:"text"`
}

// Revisions are the records that a plan was made from, 0 for one that did not exist: a plan is stale once they differ.
type Revisions struct {
	App    int64 `json:"app"`
	Client int64 `json:"client"`
}

// String is what a caller hands back to apply exactly the plan that they saw.
func (r Revisions) String() string { return fmt.Sprintf("%d.%d", r.App, r.Client) }

// Plan is what applying a manifest would do to one app. It can be shown to anyone who may see the manifest: it holds
// no secret, nor does its JSON.
type Plan struct {
	App     string `json:"app"`
	Version string `json:"version"`
	Source  string `json:"source"` // the file as it was named
	// Changed says whether applying writes a new release. Without it, applying still repairs: every target is observed,
	// and env that was lost is delivered again.
	Changed bool     `json:"changed"`
	Changes []Change `json:"changes"`
	// Consequences of the changes for the users of the app, in words.
	Consequences []string `json:"consequences"`
	// Ends are the clients that go. A plan with any is only applied when that is allowed: see [ApplyOptions].
	Ends []Ending `json:"ends,omitempty"`
	// Trust is by whose word users are not asked for consent; empty when they are. A plan that needs the word is only
	// applied with it: see [ApplyOptions].
	Trust     Trust            `json:"trust,omitempty"`
	Warnings  []plugins.Notice `json:"warnings"`
	Revisions Revisions        `json:"revisions"`

	// What should be; nil in a plan that was not made by [Deployer.Plan].
	wanted  *wanted
	watched bool     // the manifest is one that this server follows
	further []string // how the app reaches further than what it was trusted with
}

// wanted is the state that a plan leads to.
type wanted struct {
	doc      *Document
	manifest []byte
	client   *plugins.Registration // nil if there is none
	clientID string                // that the manifest chooses; empty: none
	targets  []plugins.TargetEnv   // those with env
	// client record has to be written
	clientChanged bool
	trusted       bool // see [storage.Client]
}

// Plan returns what applying the documents would do. It asks the deploy hooks and reads the store, and has no side
// effects. A manifest that may not be applied leads to a [*DeniedError] with the denials of all documents, an app
// that is being deleted to [ErrDeleting].
func (d *Deployer) Plan(ctx context.Context, docs []*Document) ([]*Plan, error) {
	return d.plan(ctx, docs, false)
}

// plan is Plan. With trust, an operator gives their word for apps whose users are not to be asked for consent.
func (d *Deployer) plan(ctx context.Context, docs []*Document, trust bool) ([]*Plan, error) {
	plans := make([]*Plan, 0, len(docs))
	var denied DeniedError
	taken := newClaims(d)
	for _, doc := range docs {
		p, denials, err := d.planApp(ctx, doc, trust)
		if err != nil {
			return nil, err
		}
		if p != nil {
			claimed, err := taken.check(ctx, p)
			if err != nil {
				return nil, err
			}
			denials = append(denials, claimed...)
			if err := d.warnOfPeers(ctx, p, docs); err != nil {
				return nil, err
			}
		}
		plans = append(plans, p)
		for _, denial := range denials {
			at := doc.Place(denial.Path)
			denial.File, denial.Line, denial.Column = doc.Path, at.Line, at.Column
			denied.Denials = append(denied.Denials, denial)
		}
	}
	if len(denied.Denials) > 0 {
		return nil, &denied
	}
	return plans, nil
}

func (d *Deployer) planApp(ctx context.Context, doc *Document, trust bool) (*Plan, []Denial, error) {
	name := doc.App.Metadata.Name
	view, err := d.store.App(ctx, name)
	if err != nil {
		return nil, nil, fmt.Errorf("plan %s: %w", name, err)
	}
	if view.App != nil && view.App.Deleting {
		return nil, nil, deleting(name)
	}
	manifest, err := doc.App.JSON()
	if err != nil {
		return nil, nil, fmt.Errorf("plan %s: %w", name, err)
	}
	if n := len(targetsOf(doc.App)); n > plugins.MaxTargets { // no hook could answer about them
		return nil, []Denial{ownDenial(name, plugins.Notice{
			Code: "too_many_targets", Path: "spec",
			Message: fmt.Sprintf("has %d workers, containers and services, but an app may have at most %d",
				n, plugins.MaxTargets),
			Remedy: "split the app into several"})}, nil
	}
	answer, denials, err := d.evaluate(ctx, doc, manifest, registrationOf(view.Client))
	if err != nil || len(denials) > 0 {
		return nil, denials, err
	}
	canonicalKeys(answer.Client)
	denials, err = d.checkSector(ctx, name, registrationOf(view.Client), answer.Client)
	if err != nil || len(denials) > 0 {
		return nil, denials, err
	}
	c := &comparison{view: view, want: &wanted{doc: doc, manifest: manifest, client: answer.Client}}
	if o := doc.App.Spec.OAuth; o != nil && answer.Client != nil {
		c.want.clientID = o.ClientID
	}
	for _, t := range answer.Targets {
		if len(t.Env) > 0 {
			c.want.targets = append(c.want.targets, t)
		}
	}
	c.plan = &Plan{
		App: name, Version: doc.App.Spec.Version, Source: doc.Path,
		Changes: []Change{}, Consequences: []string{}, Warnings: append([]plugins.Notice{}, d.warnings(&answer)...),
		Revisions: revisionsOf(view), wanted: c.want,
	}
	if err := d.compare(ctx, c); err != nil {
		return nil, nil, fmt.Errorf("plan %s: %w", name, err)
	}
	d.trust(c, trust)
	return c.plan, c.tooMany(), nil
}

func revisionsOf(view storage.AppView) Revisions {
	var r Revisions
	if view.App != nil {
		r.App = view.App.Revision
	}
	if view.Client != nil {
		r.Client = view.Client.Revision
	}
	return r
}

// comparison fills a plan with the differences between view and want.
type comparison struct {
	view    storage.AppView
	want    *wanted
	plan    *Plan
	touched int // targets that the release writes
}

func (c *comparison) change(ch Change, format string, args ...any) {
	ch.Text = fmt.Sprintf(format, args...)
	c.plan.Changes = append(c.plan.Changes, ch)
	c.plan.Changed = c.plan.Changed || ch.Kind != Repair
}

func (c *comparison) consequence(format string, args ...any) {
	c.plan.Consequences = append(c.plan.Consequences, fmt.Sprintf(format, args...))
}

func (d *Deployer) compare(ctx context.Context, c *comparison) error {
	c.release()
	if err := d.compareClient(ctx, c); err != nil {
		return err
	}
	stays := c.view.Client
	if c.want.replaces(stays) {
		stays = nil
	}
	creds, err := d.credentials(stays)
	if err != nil {
		return err
	}
	d.compareEnv(c, creds)
	if c.view.App != nil && !c.plan.Changed && !bytes.Equal(c.view.App.Manifest, c.want.manifest) {
		c.change(Change{Kind: UpdateManifest}, "store the new manifest; nothing else changes")
	}
	return nil
}

// release compares the release record itself.
func (c *comparison) release() {
	was, spec := c.view.App, c.want.doc.App.Spec
	switch {
	case was == nil:
		c.change(Change{Kind: CreateApp, New: c.plan.App}, "create app %s %s", c.plan.App, spec.Version)
	case was.Version != spec.Version:
		c.change(Change{Kind: UpdateField, Field: "version", Old: was.Version, New: spec.Version},
			"version: %s -> %s", was.Version, spec.Version)
	}
}

// compareEnv compares the env of every target. The values in creds are those of now: what is still to be made (a new
// client's id and secret) is empty there, and so differs from whatever is delivered.
func (d *Deployer) compareEnv(c *comparison, creds credentials) {
	for _, t := range c.want.targets {
		target := targetOf(t.Target)
		names := slices.Sorted(maps.Keys(t.Env))
		was := deliveryOf(c.view.Deliveries, target)
		if was == nil || was.Remove {
			c.touched++
			c.change(Change{Kind: AddTarget, Target: &target, Names: names}, "%s: deliver %s", words(target),
				strings.Join(names, ", "))
			continue
		}
		set, unset := differences(d.deliveredEnv(was), creds.resolve(t.Env))
		if len(set) > 0 {
			c.change(Change{Kind: SetEnv, Target: &target, Names: set}, "%s: set %s", words(target), strings.Join(set, ", "))
		}
		if len(unset) > 0 {
			c.change(Change{Kind: UnsetEnv, Target: &target, Names: unset}, "%s: take away %s", words(target),
				strings.Join(unset, ", "))
		}
		switch {
		case len(set)+len(unset) > 0:
			c.touched++
		case was.State == storage.DeliveryFailed || was.State == storage.DeliveryDegraded:
			c.change(Change{Kind: Repair, Target: &target}, "%s: deliver again (%s)", words(target), was.Error)
		}
	}
	for _, was := range c.view.Deliveries {
		if was.Remove || c.want.has(was.Target) {
			continue
		}
		c.touched++
		target := was.Target
		names := slices.Sorted(maps.Keys(d.deliveredEnv(was)))
		c.change(Change{Kind: RemoveTarget, Target: &target, Names: names}, "%s: take away %s", words(target),
			strings.Join(names, ", "))
	}
}

// replaces reports whether another client takes the place of an app's: the manifest chooses another id.
func (w *wanted) replaces(was *storage.Client) bool {
	return was != nil && w.client != nil && w.clientID != "" && w.clientID != was.ID
}

func (w *wanted) has(t storage.Target) bool {
	return slices.ContainsFunc(w.targets, func(e plugins.TargetEnv) bool { return targetOf(e.Target) == t })
}

// deliveredEnv is the env of a delivery. One that can no longer be decrypted counts as empty, and so is delivered anew.
func (d *Deployer) deliveredEnv(x *storage.Delivery) map[string]string {
	env, err := d.store.OpenEnv(x)
	if err != nil {
		return nil
	}
	return env
}

// differences are the names to set and to take away, sorted.
func differences(was, want map[string]string) (set, unset []string) {
	for name, value := range want {
		if old, there := was[name]; !there || old != value {
			set = append(set, name)
		}
	}
	for name := range was {
		if _, stays := want[name]; !stays {
			unset = append(unset, name)
		}
	}
	slices.Sort(set)
	slices.Sort(unset)
	return set, unset
}

// tooMany denies a release that would not fit into one transaction.
func (c *comparison) tooMany() []Denial {
	deny := func(code, message, remedy string) []Denial {
		return []Denial{ownDenial(c.plan.App, plugins.Notice{Code: code, Path: "spec", Message: message, Remedy: remedy})}
	}
	switch {
	case len(c.want.targets) > maxTargets:
		return deny("too_many_targets",
			fmt.Sprintf("%d workers, containers and services get env, but an app may have at most %d", len(c.want.targets),
				maxTargets),
			"split the app into several")
	case c.touched > maxTouched:
		return deny("too_many_changes",
			fmt.Sprintf("env changes at %d targets at once, but one release may change at most %d", c.touched, maxTouched),
			"apply it in steps: first remove targets, then add others")
	case c.size() > maxRelease:
		return deny("too_large",
			fmt.Sprintf("the manifest and what follows from it take %d KiB, but a release may take at most %d", c.size()>>10,
				maxRelease>>10),
			"leave out what is not needed for the deployment, or split the app into several")
	}
	return nil
}

// size estimates the bytes that the release takes in its transaction: records are JSON, and bytes in them base64.
func (c *comparison) size() int {
	const record = 1 << 10 // the rest of a record
	base64 := func(n int) int { return n * 4 / 3 }
	size := record + base64(len(c.want.manifest))
	if c.want.client != nil {
		client, _ := json.Marshal(c.want.client) // strings and lists of strings always encode
		size += record + len(client)
	}
	for _, t := range c.want.targets {
		size += record
		for name, value := range t.Env {
			size += base64(len(name) + len(value.Literal))
		}
	}
	return size
}

func deliveryOf(deliveries []*storage.Delivery, t storage.Target) *storage.Delivery {
	for _, d := range deliveries {
		if d.Target == t && !d.Leaving {
			return d
		}
	}
	return nil
}

// count is "1 grant ends" or "12 grants end".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
