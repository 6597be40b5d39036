package manifests

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/warifu/warifu/storage"
)

// An app whose manifest is not in its directory any more is gone, and lives on: a file disappears for many reasons, and
// most of them are mistakes. It ends when an operator deletes it, or, if the configuration says so (prune), when it has
// been gone for long enough. That is only believed of a look that could read everything: see [followed.whole].

// followed is what the paths that this server follows hold at one time.
type followed struct {
	paths  []string
	docs   []*Document
	faults Faults
	empty  []string // directories without a manifest
}

// follow reads paths. A directory without a manifest is no fault: perhaps nothing was put there yet.
func (d *Deployer) follow(ctx context.Context, paths []string) followed {
	f := followed{paths: paths}
	var held []string
	for _, path := range paths {
		if _, err := filesOf(path); errors.Is(err, errNoManifest) {
			f.empty = append(f.empty, path)
		} else {
			held = append(held, path)
		}
	}
	if len(held) == 0 {
		return f
	}
	files, faults := Read(held, nil)
	f.docs, f.faults = d.Parse(ctx, files)
	f.faults = append(faults, f.faults...)
	return f
}

// faulty says whether something is wrong with a file, or whether a path cannot be read.
func (f *followed) faulty(path string) bool {
	return slices.ContainsFunc(f.faults, func(x Fault) bool { return x.File == path && x.Severity == SeverityError })
}

func (f *followed) describes(app string) bool {
	return slices.ContainsFunc(f.docs, func(doc *Document) bool { return doc.App.Metadata.Name == app })
}

// gone says whether a followed manifest of an app has disappeared. One that is there and faulty has not.
func (f *followed) gone(app *storage.App) bool {
	return !f.describes(app.Name) && !f.faulty(app.Source)
}

// under are the apps whose manifest was last seen at a path: in that file, or in that directory as [Load] reads it.
func under(path string, apps []*storage.App) []*storage.App {
	var out []*storage.App
	for _, app := range apps {
		at, err := filepath.Rel(path, app.Source)
		dir := filepath.Dir(at)
		if err == nil && app.Watched && !app.Deleting && at != ".." && (dir == "." || dir == ".takos") {
			out = append(out, app)
		}
	}
	return out
}

// renamed is the app that a new one would take the place of: its manifest was in the same file, and is nowhere now.
func (f *followed) renamed(doc *Document, apps []*storage.App) *storage.App {
	name := doc.App.Metadata.Name
	for _, app := range apps {
		if app.Name == name {
			return nil
		}
	}
	for _, app := range under(doc.Path, apps) {
		if f.gone(app) {
			return app
		}
	}
	return nil
}

// whole says whether everything could be read, so that what is not there is known to be missing. A directory that
// cannot be read or holds no manifest may be a volume that is not mounted; and a manifest with a fault may be the one
// that is missed, under another name or in another directory. Then nothing ends, and the time until it does begins anew
// with the next whole look: a volume that was away for a day and comes back in part ends nothing either.
func (f *followed) whole() bool { return len(f.empty) == 0 && f.faults.Err() == nil }

// missed is since when the manifest of an app is gone, as of this look, and whether that is unsure.
func (f *followed) missed(app *storage.App, now time.Time) (since time.Time, unsure bool) {
	switch {
	case f.describes(app.Name), app.GoneSince.IsZero() && !f.gone(app):
		return time.Time{}, false
	case app.GoneSince.IsZero(), app.GoneUnsure && f.whole():
		return now.UTC(), !f.whole()
	}
	return app.GoneSince, !f.whole()
}

// missing notes which apps have lost their manifests, and ends those that have been without for long enough. due is
// when to look again, 0 for never; ended says whether an app has ended.
func (f *follower) missing(ctx context.Context) (ended bool, due time.Duration, err error) {
	d := f.d
	ctx, cancel := context.WithTimeout(ctx, d.pace.Look)
	defer cancel()
	files := d.follow(ctx, f.paths) // anew: applying has taken its time
	if err := d.noteGone(ctx, files); err != nil {
		return false, 0, err
	}
	after := d.set().pruneAfter
	if after == 0 {
		return false, 0, nil
	}
	return d.prune(ctx, files, after)
}

// noteGone has the records of apps say whether their manifests are gone, and the log, once.
func (d *Deployer) noteGone(ctx context.Context, f followed) error {
	apps, err := d.store.Apps(ctx)
	if err != nil {
		return err
	}
	for _, path := range f.paths {
		here := under(path, apps)
		missing, fresh := 0, 0
		for _, app := range here {
			noted := *app
			noted.GoneSince, noted.GoneUnsure = f.missed(app, d.now())
			if !noted.GoneSince.IsZero() {
				missing++
			}
			if noted.GoneSince.Equal(app.GoneSince) && noted.GoneUnsure == app.GoneUnsure {
				continue
			}
			err := d.store.CommitRelease(ctx, storage.Release{App: noted})
			if errors.Is(err, storage.ErrConflict) {
				continue // it was applied or deleted, or another replica has noted it
			}
			if err != nil {
				return err
			}
			if app.GoneSince.IsZero() && !noted.GoneSince.IsZero() {
				fresh++
				d.log.WarnContext(ctx, "the manifest of an app is gone; the app "+d.fate(), "app", app.Name, "file", app.Source,
					"remedy", "warifu delete app "+app.Name)
			}
		}
		if fresh > 0 && missing == len(here) {
			d.log.WarnContext(ctx, "all apps of a directory are gone at once, as when a volume is not mounted",
				"directory", path, "apps", missing)
		}
	}
	return nil
}

// fate is what becomes of an app whose manifest is gone.
func (d *Deployer) fate() string {
	after := d.set().pruneAfter
	if after == 0 {
		return "stays as it is"
	}
	return "ends in " + after.String() + " unless it comes back"
}

// prune ends the apps that have been without a manifest for long enough. It is asked often within that time, and by
// every replica, so that one that has the manifest says so before it is too late.
func (d *Deployer) prune(ctx context.Context, f followed, after time.Duration) (
	ended bool, due time.Duration, err error) {
	apps, err := d.store.Apps(ctx)
	if err != nil {
		return false, 0, err
	}
	due = after / 4
	for _, path := range f.paths {
		for _, app := range under(path, apps) {
			if app.GoneSince.IsZero() || app.GoneUnsure || !f.whole() || f.describes(app.Name) {
				continue
			}
			if left := app.GoneSince.Add(after).Sub(d.now()); left > 0 {
				due = min(due, left)
				continue
			}
			why := "its manifest " + app.Source + " has been gone since " + app.GoneSince.Format(time.RFC3339)
			begun, e := d.end(ctx, app.Name, why, func(now *storage.App) bool { return now.Revision == app.Revision })
			ended, err = ended || begun, errors.Join(err, e)
		}
	}
	return ended, due, err
}
