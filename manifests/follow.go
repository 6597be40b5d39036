package manifests

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/warifu/warifu/storage"
)

// follower applies the manifests at paths. It remembers what could not be applied because of a fault of storage, of a
// plugin, or because the app was still being deleted: that is tried again, though no file has changed.
type follower struct {
	d        *Deployer
	paths    []string
	left     map[string]string // what stopped an app, by its name
	stuck    string            // what stopped all that were left with it
	failures int               // looks in a row that left something
}

// ApplyPaths applies what can be applied of the files and directories that [Read] takes: a faulty file, or an app that
// is denied or fails, is logged and does not keep the others from being deployed. Nothing is deleted: a manifest that
// would remove a client or rename an app is refused. An app whose manifest is gone is shown so, and ends if it has been
// gone for long enough and that is configured.
func (d *Deployer) ApplyPaths(ctx context.Context, paths []string) {
	f := &follower{d: d, paths: paths}
	f.look(ctx, true)
}

// Follow is ApplyPaths, once, or with watch whenever a manifest changes; and what a fault has stopped is tried again.
// It returns when there is nothing left to do, or ctx ends. An error means that watching could not begin.
func (d *Deployer) Follow(ctx context.Context, paths []string, watch bool) error {
	f := &follower{d: d, paths: paths}
	if watch {
		w, err := NewWatch(paths)
		if err != nil {
			return err
		}
		first := true
		w.Run(ctx, func(ctx context.Context, changed bool) time.Duration {
			all := changed || first
			first = false
			return f.look(ctx, all)
		})
		return nil
	}
	for again := f.look(ctx, true); again > 0 && ctx.Err() == nil; again = f.look(ctx, false) {
		storage.Pause(ctx, again)
	}
	return nil
}

// look applies all manifests, or those that were left, and then sees which are gone. It returns when to look again
// although nothing has changed; 0 means never.
func (f *follower) look(ctx context.Context, all bool) (again time.Duration) {
	if all || len(f.left) > 0 {
		f.apply(ctx, all)
	}
	ended, due, err := f.missing(ctx)
	if ctx.Err() != nil {
		return 0
	}
	if ended {
		return f.look(ctx, true) // without the app that has ended, another manifest may be applied
	}
	if err != nil {
		f.d.log.ErrorContext(ctx, "cannot tell which manifests are gone; trying again", "error", err)
	}
	if err == nil && len(f.left) == 0 {
		f.failures = 0
		return due
	}
	f.failures++
	return f.d.pace.backoff(f.failures)
}

// apply applies all manifests, or those that were left.
func (f *follower) apply(ctx context.Context, all bool) {
	d, files := f.d, f.d.follow(ctx, f.paths)
	if all {
		d.recordRefusal(ctx, storage.AuditApply, "", files.faults.Err())
		for _, fault := range files.faults {
			if fault.Severity == SeverityError {
				d.log.ErrorContext(ctx, "manifest refused", "fault", fault.String())
			} else {
				d.log.WarnContext(ctx, "manifest", "fault", fault.String())
			}
		}
	}
	before := f.left
	f.left = make(map[string]string)
	apps, stuck := d.apps(ctx)
	for _, path := range files.empty {
		if all && stuck == nil && len(under(path, apps)) == 0 {
			d.log.InfoContext(ctx, "no manifest in this directory yet", "directory", path)
		}
	}
	waiting := 0 // for what is stuck
	for _, doc := range files.docs {
		name := doc.App.Metadata.Name
		if _, was := before[name]; files.faulty(doc.Path) || !all && !was {
			continue
		}
		if stuck != nil {
			f.left[name] = stuck.Error()
			waiting++
			continue
		}
		err := d.applyFollowed(ctx, &files, doc, apps)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			apps = append(apps, &storage.App{Name: name, Source: doc.Path, Watched: true})
			continue
		case errors.Is(err, context.DeadlineExceeded):
			stuck = d.reached(ctx) // if it was storage, nothing else would get through now
		}
		if !decided(err) {
			f.left[name] = err.Error()
		}
		if before[name] != err.Error() {
			d.recordRefusal(ctx, storage.AuditApply, name, err)
			d.log.ErrorContext(ctx, "manifest not applied", "app", name, "file", doc.Path, "error", err,
				"tried_again", f.left[name] != "")
		}
	}
	was := f.stuck
	if f.stuck = ""; waiting > 0 {
		f.stuck = stuck.Error()
	}
	if f.stuck != was && waiting > 0 && ctx.Err() == nil {
		d.log.ErrorContext(ctx, "manifests cannot be applied now; trying again", "apps", waiting, "error", stuck)
	}
}

// decided reports whether an error of applying stays as it is until somebody changes the manifest, or says otherwise.
func decided(err error) bool {
	var denied *DeniedError
	var untrusted *TrustError
	return errors.As(err, &denied) || errors.As(err, &untrusted)
}

// reached is the error of a storage that does not answer.
func (d *Deployer) reached(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.pace.Look/3)
	defer cancel()
	return d.store.Ping(ctx)
}

// apps lists all apps, and gives up after a while.
func (d *Deployer) apps(ctx context.Context) ([]*storage.App, error) {
	ctx, cancel := context.WithTimeout(ctx, d.pace.Look)
	defer cancel()
	return d.store.Apps(ctx)
}

// applyFollowed applies a manifest that this server follows, unless that would delete, or takes the operator's word.
func (d *Deployer) applyFollowed(ctx context.Context, f *followed, doc *Document, apps []*storage.App) error {
	ctx, cancel := context.WithTimeout(ctx, d.pace.Look)
	defer cancel()
	if was := f.renamed(doc, apps); was != nil {
		return d.refuseRename(ctx, doc, was.Name)
	}
	err := d.applyOne(ctx, doc)
	var refused refusal
	known := slices.ContainsFunc(apps, func(app *storage.App) bool { return app.Name == doc.App.Metadata.Name })
	if errors.As(err, &refused) && known { // there is an app with which it can be kept
		return d.refuse(ctx, doc.App.Metadata.Name, doc, refused)
	}
	return err
}

// applyOne applies one manifest. Somebody else may be applying the same one; whoever comes second plans again.
func (d *Deployer) applyOne(ctx context.Context, doc *Document) error {
	return storage.Again(3, func() (again bool, err error) {
		plans, err := d.Plan(ctx, []*Document{doc})
		if err != nil {
			return false, err
		}
		plans[0].watched = true
		if len(plans[0].Ends) > 0 {
			return false, &DeletionError{Ends: plans[0].Ends}
		}
		if err := plans[0].lacksTrust(); err != nil {
			return false, err
		}
		if err = d.Apply(ctx, plans[0]); errors.Is(err, storage.ErrConflict) {
			return true, nil
		}
		return false, err
	})
}
