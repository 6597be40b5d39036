package manifests

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/warifu/warifu/storage"
)

// An app whose manifest is not in its directory any more is gone, and lives on: a file disappears for many reasons, and most of
// them are mistakes. It ends when an operator deletes it.

// followed is what the paths that this server follows hold at one time.
type followed struct {
	paths  []string
	docs   []*Document
	faults Faults
	empty  []string // directories without a manifest
}

// follow reads paths. A directory without a manifest is no fault: perhaps nothing was put there yet.
func (d *Deployer) follow(paths []string) followed {
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
	f.docs, f.faults = d.Parse(files)
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

// noteGone has the records of apps say whether their manifests are gone, and the log, once.
func (d *Deployer) noteGone(ctx context.Context, f followed) error {
	apps, err := d.store.Apps(ctx)
	if err != nil {
		return err
	}
	for _, path := range f.paths {
		here := under(path, apps)
		if len(here) == 0 && slices.Contains(f.empty, path) {
			d.log.InfoContext(ctx, "no manifest in this directory yet", "directory", path)
		}
		missing, fresh := 0, 0
		for _, app := range here {
			gone := f.gone(app)
			if gone {
				missing++
			}
			if gone == !app.GoneSince.IsZero() || !gone && !f.describes(app.Name) {
				continue
			}
			noted := *app
			noted.GoneSince = time.Time{}
			if gone {
				noted.GoneSince = d.now().UTC()
			}
			err := d.store.CommitRelease(ctx, storage.Release{App: noted})
			if errors.Is(err, storage.ErrConflict) {
				continue // it was applied or deleted, or another replica has noted it
			}
			if err != nil {
				return err
			}
			if gone {
				fresh++
				d.log.WarnContext(ctx, "the manifest of an app is gone; the app stays as it is", "app", app.Name, "file", app.Source,
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
