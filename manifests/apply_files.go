package manifests

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/warifu/warifu/storage"
)

// PartialError says that of several apps only the first ones could be applied: each is a transaction of its own.
type PartialError struct {
	Applied []string
	App     string // the first that was not applied
	Err     error  // why
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("applied %s, but not %s: %v", strings.Join(e.Applied, ", "), e.App, e.Err)
}

func (e *PartialError) Unwrap() error { return e.Err }

// Parse reads manifests from files, by this server's configuration. Look at [Faults.Err] before acting on them.
//
// The groups of people who are kept in the store are not in [Options.Groups], and can change at any moment, by any
// replica. So nobody is warned of a group that no one is in as soon as there are such people.
func (d *Deployer) Parse(ctx context.Context, files []File) ([]*Document, Faults) {
	docs, faults := ParseFiles(files, d.set().parsing)
	unknown := func(f Fault) bool { return f.Code == "unknown-group" }
	if slices.ContainsFunc(faults, unknown) {
		if kept, err := d.store.HasAccounts(ctx); kept || err != nil { // to warn wrongly is worse than not to warn
			faults = slices.DeleteFunc(faults, unknown)
		}
	}
	return docs, faults
}

// PlanFiles returns what applying files would do, with the warnings about them. Files with faults lead to [Faults].
func (d *Deployer) PlanFiles(ctx context.Context, files []File) ([]*Plan, Faults, error) {
	plans, warnings, err := d.planFiles(ctx, files, false)
	if err != nil {
		d.recordRefusal(ctx, storage.AuditPlan, "", err)
	}
	return plans, warnings, err
}

func (d *Deployer) planFiles(ctx context.Context, files []File, trust bool) ([]*Plan, Faults, error) {
	docs, faults := d.Parse(ctx, files)
	if err := faults.Err(); err != nil {
		return nil, nil, err
	}
	plans, err := d.plan(ctx, docs, trust)
	if err != nil {
		return nil, nil, err
	}
	return plans, faults.Warnings(), nil
}

// ApplyOptions say under what conditions files are applied.
type ApplyOptions struct {
	// Expected are the [Revisions] that the caller has seen, by app, as text. An app that is not in it is applied in any
	// case.
	Expected map[string]string
	// AllowDelete lets clients go. Without it a plan that [Plan.Ends] any is refused: [*DeletionError].
	AllowDelete bool
	// Trust is the operator's word for apps whose users are not to be asked for consent. Without it, a plan whose
	// [Plan.Trust] is [TrustNeeded] is refused: [*TrustError].
	Trust bool
}

// ApplyFiles plans anew and applies that. What stops one of several apps leaves those before it applied:
// [*PartialError].
func (d *Deployer) ApplyFiles(ctx context.Context, files []File, opts ApplyOptions) ([]*Plan, Faults, error) {
	plans, warnings, err := d.planFiles(ctx, files, opts.Trust)
	if err != nil {
		d.recordRefusal(ctx, storage.AuditApply, "", err)
		return nil, nil, err
	}
	for _, p := range plans {
		var err error
		if want, ok := opts.Expected[p.App]; ok && want != p.Revisions.String() {
			err = fmt.Errorf("apply %s: %w", p.App, storage.ErrConflict)
		} else if len(p.Ends) > 0 && !opts.AllowDelete {
			err = &DeletionError{Ends: p.Ends}
		} else {
			err = p.lacksTrust()
		}
		if err != nil {
			d.recordRefusal(ctx, storage.AuditApply, p.App, err)
			return nil, nil, err
		}
	}
	var done []string
	for _, p := range plans {
		if err := d.Apply(ctx, p); err != nil {
			d.recordRefusal(ctx, storage.AuditApply, p.App, err)
			if len(done) == 0 {
				return nil, nil, err
			}
			d.log.ErrorContext(ctx, "only some of the apps were applied", "applied", done, "stopped at", p.App, "error", err)
			return nil, nil, &PartialError{Applied: done, App: p.App, Err: err}
		}
		done = append(done, p.App)
	}
	return plans, warnings, nil
}
