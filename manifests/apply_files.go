package manifests

import (
	"context"
	"errors"
	"fmt"
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
func (d *Deployer) Parse(files []File) ([]*Document, Faults) { return ParseFiles(files, d.parsing) }

// PlanFiles returns what applying files would do, with the warnings about them. Files with faults lead to [Faults].
func (d *Deployer) PlanFiles(ctx context.Context, files []File) ([]*Plan, Faults, error) {
	plans, warnings, err := d.planFiles(ctx, files)
	if err != nil {
		d.recordRefusal(ctx, storage.AuditPlan, "", err)
	}
	return plans, warnings, err
}

func (d *Deployer) planFiles(ctx context.Context, files []File) ([]*Plan, Faults, error) {
	docs, faults := d.Parse(files)
	if err := faults.Err(); err != nil {
		return nil, nil, err
	}
	plans, err := d.Plan(ctx, docs)
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
}

// ApplyFiles plans anew and applies that. What stops one of several apps leaves those before it applied:
// [*PartialError].
func (d *Deployer) ApplyFiles(ctx context.Context, files []File, opts ApplyOptions) ([]*Plan, Faults, error) {
	d.applying.Lock()
	defer d.applying.Unlock()
	plans, warnings, err := d.planFiles(ctx, files)
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

// ApplyPaths applies what can be applied of the files and directories that [Read] takes: a faulty file, or an app
// that is denied or fails, is logged and does not keep the others from being deployed. Nothing is deleted: a manifest that
// would remove a client or rename an app is refused, and an app whose manifest is gone is shown so.
func (d *Deployer) ApplyPaths(ctx context.Context, paths []string) {
	f := d.follow(paths)
	d.recordRefusal(ctx, storage.AuditApply, "", f.faults.Err())
	for _, fault := range f.faults {
		if fault.Severity == SeverityError {
			d.log.ErrorContext(ctx, "manifest refused", "fault", fault.String())
		} else {
			d.log.WarnContext(ctx, "manifest", "fault", fault.String())
		}
	}
	for _, doc := range f.docs {
		if f.faulty(doc.Path) {
			continue
		}
		if err := d.applyFollowed(ctx, &f, doc); err != nil && ctx.Err() == nil {
			d.recordRefusal(ctx, storage.AuditApply, doc.App.Metadata.Name, err)
			d.log.ErrorContext(ctx, "manifest not applied", "app", doc.App.Metadata.Name, "file", doc.Path, "error", err)
		}
	}
	if err := d.noteGone(ctx, f); err != nil && ctx.Err() == nil {
		d.log.ErrorContext(ctx, "cannot tell which manifests are gone", "error", err)
	}
}

// applyFollowed applies a manifest that this server follows, unless that would delete.
func (d *Deployer) applyFollowed(ctx context.Context, f *followed, doc *Document) error {
	apps, err := d.store.Apps(ctx)
	if err != nil {
		return err
	}
	if was := f.renamed(doc, apps); was != nil {
		return d.refuseRename(ctx, doc, was.Name)
	}
	err = d.applyOne(ctx, doc)
	var deletion *DeletionError
	if errors.As(err, &deletion) {
		return d.refuse(ctx, doc.App.Metadata.Name, doc, deletion)
	}
	return err
}

// applyOne applies one manifest. Another replica may be applying the same one; whichever comes second plans again.
func (d *Deployer) applyOne(ctx context.Context, doc *Document) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	return storage.Again(3, func() (again bool, err error) {
		plans, err := d.Plan(ctx, []*Document{doc})
		if err != nil {
			return false, err
		}
		plans[0].watched = true
		if len(plans[0].Ends) > 0 {
			return false, &DeletionError{Ends: plans[0].Ends}
		}
		if err = d.Apply(ctx, plans[0]); errors.Is(err, storage.ErrConflict) {
			return true, nil
		}
		return false, err
	})
}
