package manifests

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// unfinished are apps whose deletion may be ready to be finished: they have lost their last delivery, or finishing them
// has failed. It is a hint, which may be wrong or be lost: the records say what is true, and are all looked at from
// time to time.
type unfinished struct {
	wake chan struct{} // holds one

	mu   sync.Mutex // owns apps
	apps map[string]bool
}

func newUnfinished() *unfinished {
	return &unfinished{wake: make(chan struct{}, 1), apps: make(map[string]bool)}
}

func (u *unfinished) add(app string) {
	u.mu.Lock()
	u.apps[app] = true
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *unfinished) take() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	apps := slices.Sorted(maps.Keys(u.apps))
	clear(u.apps)
	return apps
}

// finishDeletions removes the apps that are being deleted and have nothing left to take away, until ctx ends. What
// fails is tried again soon, by the pace of deliveries.
func (d *Deployer) finishDeletions(ctx context.Context) {
	var all time.Time // when all apps are to be looked at
	var left []string
	for failures := 0; ctx.Err() == nil; {
		apps := append(left, d.unfinished.take()...)
		left = nil
		var failed error
		if now := d.now(); !now.Before(all) {
			list, err := d.apps(ctx)
			for _, app := range list {
				if app.Deleting && !slices.Contains(apps, app.Name) {
					apps = append(apps, app.Name)
				}
			}
			if failed = err; err == nil {
				all = now.Add(d.pace.Reconcile)
			}
		}
		for _, app := range apps {
			if err := d.finishDelete(ctx, app); err != nil {
				left, failed = append(left, app), errors.Join(failed, err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		wait := d.pace.Reconcile
		if failures++; failed == nil {
			failures = 0
		} else {
			wait = d.pace.backoff(failures)
			d.log.WarnContext(ctx, "deletions cannot be finished; trying again", "apps", len(left), "in", wait,
				"error", failed)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-d.unfinished.wake:
			if failed != nil { // it would fail as well
				select {
				case <-ctx.Done():
				case <-timer.C:
				}
			}
		}
		timer.Stop()
	}
}

// finishDelete gives up after a while, so that one app that cannot be removed does not keep the others.
func (d *Deployer) finishDelete(ctx context.Context, app string) error {
	ctx, cancel := context.WithTimeout(ctx, d.pace.Look)
	defer cancel()
	_, err := d.store.FinishDelete(ctx, app)
	return err
}
