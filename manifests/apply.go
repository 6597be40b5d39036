package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// tries bounds how often a transaction is repeated because a delivery moved on in the meantime: the loop writes only
// a few states per push, so a store that works does not reach it.
const tries = 50

// Apply makes a plan true: client, release record and outbox change in one transaction, and the loop of
// [Deployer.Run] delivers, in this process or another, now or after a restart. An app that is registered already
// keeps its client id and secret. A plan without changes writes no release, but has every target observed and
// repaired; where its keys are in the file is kept up to date all the same.
//
// Errors: [storage.ErrConflict] if the app changed after it was planned, or the client id or a resource identifier of
// the plan has gone to another app; [ErrDeleting] if the app is being deleted. Nothing was written then.
func (d *Deployer) Apply(ctx context.Context, p *Plan) error {
	if p.wanted == nil {
		return fmt.Errorf("apply %s: the plan was not made by this server", p.App)
	}
	// Made once: when the transaction is tried again, it is still the same client.
	fresh := storage.NewClientID(p.App)
	err := storage.Again(tries, func() (again bool, err error) {
		view, err := d.store.App(ctx, p.App)
		if err != nil {
			return false, err
		}
		if view.App != nil && view.App.Deleting {
			return false, deleting(p.App)
		}
		if revisionsOf(view) != p.Revisions {
			return false, fmt.Errorf("it was applied or deleted after this plan was made, so nothing was done; plan again: %w",
				storage.ErrConflict)
		}
		if !p.Changed {
			err = d.unchanged(ctx, p, view.App)
			if errors.Is(err, storage.ErrConflict) {
				return true, nil
			}
			return false, err
		}
		id, returned, err := d.nextClient(ctx, p, view, fresh)
		if err != nil {
			return false, err
		}
		release, err := d.release(p, view, id, returned)
		if err != nil {
			return false, err
		}
		entry := storage.AuditEntry{Action: storage.AuditApply, App: p.App,
			Detail: fmt.Sprintf("%s, %s", p.Version, count(len(p.Changes), "change", "changes"))}
		if len(p.Ends) > 0 {
			entry.Detail += "; removes " + endings(p.Ends)
		}
		if p.Trust != "" {
			entry.Detail += "; users are not asked for consent (" + p.Trust.words() + ")"
		}
		release.Audit = append(release.Audit, entry)
		err = d.store.CommitRelease(ctx, release)
		if taken := (*storage.TakenError)(nil); errors.As(err, &taken) {
			return false, fmt.Errorf("%w since this plan was made, so nothing was done; plan again", taken)
		}
		if errors.Is(err, storage.ErrConflict) {
			return true, nil // a delivery moved on, or the app did: the revisions tell
		}
		if err == nil {
			d.log.InfoContext(ctx, "app applied", "app", p.App, "version", p.Version, "client", release.App.ClientID,
				"generation", release.App.Generation, "deliveries", len(release.Deliveries))
			if applied := d.set().applied; applied != nil {
				applied(ctx)
			}
		}
		return false, err
	})
	if errors.Is(err, ErrDeleting) {
		return err
	}
	if err != nil {
		return fmt.Errorf("apply %s: %w", p.App, err)
	}
	err = d.ask(ctx, p.App)
	if err != nil && p.Changed {
		// The release is committed. What was delivered before is observed from time to time anyway.
		d.log.WarnContext(ctx, "targets that did not change could not be scheduled for observation",
			"app", p.App, "error", err)
		return nil
	}
	return err
}

// unchanged records in the audit log that a plan changes nothing. Lines may still have moved, if comments did.
func (d *Deployer) unchanged(ctx context.Context, p *Plan, app *storage.App) error {
	entry := storage.AuditEntry{Action: storage.AuditApply, App: p.App, Detail: p.Version + ", no changes"}
	lines := p.wanted.doc.placed()
	same := lines == nil || maps.Equal(lines, app.Lines)
	if p.watched {
		same = same && app.Watched && app.Source == p.Source && app.Refused == nil && app.GoneSince.IsZero()
	} else {
		same = same || app.Watched // which says where the manifest is that counts
	}
	if same {
		return d.store.Record(ctx, entry)
	}
	moved := *app
	moved.Source, moved.Lines = p.Source, lines
	moved.Watched, moved.Refused, moved.GoneSince, moved.GoneUnsure = p.watched, nil, time.Time{}, false
	err := d.store.CommitRelease(ctx, storage.Release{App: moved, Audit: []storage.AuditEntry{entry}})
	if err == nil && !app.GoneSince.IsZero() {
		d.log.InfoContext(ctx, "the manifest of an app is back", "app", p.App, "file", p.Source)
	}
	return err
}

// release is what a plan makes of an app as it is now.
func (d *Deployer) release(p *Plan, view storage.AppView, nextID string, returned time.Time) (storage.Release, error) {
	w, now := p.wanted, d.now().UTC()
	r := storage.Release{App: storage.App{
		Name: p.App, Version: p.Version, Manifest: w.manifest, Source: p.Source, Lines: w.doc.placed(),
		Applied: now, Watched: p.watched,
		AutoEnv: w.doc.App.Spec.OAuth != nil && w.doc.App.Spec.OAuth.AutoEnv,
		Targets: targetsOf(w.doc.App),
	}}
	if view.App != nil {
		r.App.Revision, r.App.Generation = view.App.Revision, view.App.Generation
	}
	was := view.Client
	if w.replaces(was) {
		r.RemoveClient, was = was.ID, nil
	}
	client := d.client(w.client, was, p.App, nextID, returned)
	if client != nil {
		client.Trusted = w.trusted
	}
	switch {
	case client == nil && view.Client != nil:
		r.RemoveClient = view.Client.ID
	case was == nil && client != nil:
		r.Client = client
	case client != nil && (view.Client == nil || w.clientChanged || len(client.Secrets) != len(view.Client.Secrets)):
		r.Client = client
	}
	if client != nil {
		r.App.ClientID = client.ID
	}
	creds, err := d.credentials(client)
	if err != nil {
		return r, err
	}
	generation := nextGeneration(view)
	for _, t := range w.targets {
		env := creds.resolve(t.Env)
		x := deliveryOf(view.Deliveries, targetOf(t.Target))
		if x != nil && !x.Remove && maps.Equal(d.deliveredEnv(x), env) {
			continue
		}
		next := d.wish(x, p.App, targetOf(t.Target), generation)
		next.Digest = plugins.Digest(d.store.DigestKey(), env)
		if err := d.store.SealEnv(&next, env); err != nil {
			return r, err
		}
		r.Deliveries = append(r.Deliveries, next)
	}
	for _, x := range view.Deliveries {
		if !x.Remove && !w.has(x.Target) {
			r.Deliveries = append(r.Deliveries, d.removal(x, generation))
		}
	}
	if len(r.Deliveries) > 0 {
		r.App.Generation = generation
	}
	return r, nil
}

// nextClient is the id of a client that is about to be made: the one that the manifest chooses, or that the app has had
// before, or else a fresh one. Nothing of a former client revives with its id. What it was issued is told apart by the
// time, which tokens say in whole seconds: so a client returns in a later second than the one in which it ended, and
// this waits for that.
func (d *Deployer) nextClient(ctx context.Context, p *Plan, view storage.AppView,
	fresh string) (id string, returned time.Time, err error) {
	w := p.wanted
	if w.client == nil || view.Client != nil && !w.replaces(view.Client) {
		return fresh, time.Time{}, nil
	}
	id, ended := cmp.Or(w.clientID, fresh), time.Time{}
	switch former := view.Former; {
	case former != nil && (w.clientID == "" || w.clientID == former.ID):
		id, ended = former.ID, former.Ended
	case w.clientID != "":
		owner, err := d.store.ClientIDOwner(ctx, w.clientID)
		if err != nil {
			return "", time.Time{}, err
		}
		ended = owner.Ended // or else the release is refused
	}
	if ended.IsZero() {
		return id, time.Time{}, nil
	}
	now := d.now().UTC()
	returned, after := now.Truncate(time.Second), ended.Truncate(time.Second).Add(time.Second)
	if returned.Before(after) {
		storage.Pause(ctx, min(after.Sub(now), time.Second))
		returned = after
	}
	return id, returned, ctx.Err()
}

// client is the record of a wanted registration: the existing one, changed, or a new one.
func (d *Deployer) client(want *plugins.Registration, was *storage.Client, app, nextID string,
	returned time.Time) *storage.Client {
	if want == nil {
		return nil
	}
	now := d.now().UTC()
	c := storage.Client{ID: nextID, CreatedAt: now, Returned: returned}
	if was != nil {
		c = *was
	}
	c.App, c.Client = app, *want
	c.UpdatedAt = now
	if !want.HasSecret() {
		c.Secrets = nil
	} else if len(c.Secrets) == 0 {
		secret, _ := d.store.NewClientSecret(c.ID) // the value is opened where env needs it
		c.Secrets = []storage.ClientSecret{secret}
	}
	return &c
}

// nextGeneration is beyond every generation of the app so far. A delivery may be ahead of the app's own counter, when
// its target was found with a generation that this store does not know.
func nextGeneration(view storage.AppView) int64 {
	var last int64
	if view.App != nil {
		last = view.App.Generation
	}
	for _, x := range view.Deliveries {
		last = max(last, x.Generation)
	}
	return last + 1
}

// wish is a delivery that starts anew. It keeps what belongs to the target (runtime, what it accepted and serves) and
// the claim of a replica that may be pushing the previous generation: no other replica pushes until that claim ends.
func (d *Deployer) wish(was *storage.Delivery, app string, target storage.Target, generation int64) storage.Delivery {
	x := storage.Delivery{App: app, Target: target}
	if was != nil {
		x = *was
	}
	x.Generation, x.Remove, x.Digest, x.Sealed = generation, false, "", nil
	d.afresh(&x)
	return x
}

// removal takes away what was delivered.
func (d *Deployer) removal(was *storage.Delivery, generation int64) storage.Delivery {
	x := d.wish(was, was.App, was.Target, generation)
	x.Remove = true
	return x
}

// afresh forgets what failed so far.
func (d *Deployer) afresh(x *storage.Delivery) {
	now := d.now().UTC()
	x.State, x.Attempts, x.Error, x.Remedy = storage.DeliveryPending, 0, "", ""
	x.NextAttempt, x.Since, x.UpdatedAt, x.Unreached = now, now, now, false
}

// Retry schedules all deliveries of an app to be tried again now, degraded ones included. Those that are ready are
// observed, and repaired if necessary. It returns [storage.ErrNotFound] if there is no such app.
func (d *Deployer) Retry(ctx context.Context, app string) error {
	view, err := d.store.App(ctx, app)
	if err != nil {
		return fmt.Errorf("retry %s: %w", app, err)
	}
	if view.App == nil {
		return fmt.Errorf("retry %s: %w", app, storage.ErrNotFound)
	}
	if err := d.store.Record(ctx, storage.AuditEntry{Action: storage.AuditRetry, App: app}); err != nil {
		return fmt.Errorf("retry %s: %w", app, err)
	}
	return d.ask(ctx, app)
}

// ask puts every delivery that is at rest back to pending. It is a wish in the store, so it reaches whichever replica
// delivers. A target that has what it should is found so by an observation, and nothing is rolled out again.
func (d *Deployer) ask(ctx context.Context, app string) error {
	asked := make(map[place]bool)
	err := storage.Again(tries, func() (again bool, err error) {
		view, err := d.store.App(ctx, app)
		if err != nil {
			return false, err
		}
		for _, x := range view.Deliveries {
			if asked[placeOf(x)] || x.State == storage.DeliveryRolling || x.State == storage.DeliveryPending && x.Attempts == 0 {
				continue // under way already
			}
			next := *x
			d.afresh(&next)
			_, err := d.store.UpdateDelivery(ctx, next)
			switch {
			case errors.Is(err, storage.ErrConflict):
				again = true
			case err != nil:
				return false, err
			default:
				asked[placeOf(x)] = true
			}
		}
		return again, nil
	})
	if err != nil {
		return fmt.Errorf("repair %s: %w", app, err)
	}
	return nil
}

// Delete starts to delete an app: in one transaction its client is disabled, all its grants end, and its targets are
// to lose their env. The loop of [Deployer.Run] takes the env away and then removes client and app, also after a
// restart. Deleting again retries what failed. It returns [storage.ErrNotFound] if there is no such app.
func (d *Deployer) Delete(ctx context.Context, app string) error {
	_, err := d.end(ctx, app, "", nil)
	return err
}

// end is [Deployer.Delete] for a reason. With still, the app ends only if that is true of its record, and nobody has
// begun to delete it; begun says whether this call has.
func (d *Deployer) end(ctx context.Context, app, why string, still func(*storage.App) bool) (begun bool, err error) {
	err = storage.Again(tries, func() (again bool, err error) {
		view, err := d.store.App(ctx, app)
		if err == nil && view.App == nil {
			err = storage.ErrNotFound
		}
		if err != nil {
			return false, err
		}
		if still != nil && (view.App.Deleting || !still(view.App)) {
			return false, nil
		}
		if view.App.Deleting {
			return false, d.ask(ctx, app)
		}
		generation := nextGeneration(view)
		var removals []storage.Delivery
		for _, x := range view.Deliveries {
			if !x.Remove {
				removals = append(removals, d.removal(x, generation))
			}
		}
		view.App.Generation = generation
		entry := storage.AuditEntry{Action: storage.AuditDelete, App: app, Reason: why,
			Detail: count(len(removals), "target loses its env", "targets lose their env")}
		ending, err := d.ending(ctx, view)
		if err != nil {
			return false, err
		}
		if ending != nil {
			entry.Detail = ending.String() + "; " + entry.Detail
		}
		err = d.store.BeginDelete(ctx, view, removals, entry)
		if errors.Is(err, storage.ErrConflict) {
			return true, nil
		}
		if begun = err == nil; begun {
			level := slog.LevelInfo
			if why != "" { // nobody has said it now
				level = slog.LevelWarn
			}
			d.log.Log(ctx, level, "app is being deleted", "app", app, "reason", cmp.Or(why, "requested by an operator"),
				"ends", entry.Detail)
		}
		return false, err
	})
	if err == nil && (begun || still == nil) {
		if _, err := d.store.FinishDelete(ctx, app); err != nil { // its deletion has begun, and is not undone
			d.log.WarnContext(ctx, "a deletion cannot be finished; trying again", "app", app, "error", err)
			d.unfinished.add(app)
		}
	}
	if still != nil && errors.Is(err, storage.ErrNotFound) {
		return false, nil // somebody else has ended it
	}
	if err != nil {
		return begun, fmt.Errorf("delete %s: %w", app, err)
	}
	return begun, nil
}

// Settle waits until every delivery of an app is ready or has failed, and returns them as they are then; an app that
// was deleted has none. It ends early with ctx.
func (d *Deployer) Settle(ctx context.Context, app string) ([]*storage.Delivery, error) {
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := d.store.WatchDeliveries(watchCtx)
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("settle %s: %w", app, ctx.Err())
		case <-changed:
		}
		view, err := d.store.App(ctx, app)
		if err != nil {
			return nil, fmt.Errorf("settle %s: %w", app, err)
		}
		if !settled(view.Deliveries) {
			continue
		}
		if view.App != nil && view.App.Deleting {
			// The loop does this as well; here it makes sure that the app is gone when its caller looks.
			if _, err := d.store.FinishDelete(ctx, app); err != nil {
				return nil, fmt.Errorf("settle %s: %w", app, err)
			}
		}
		return view.Deliveries, nil
	}
}

func settled(deliveries []*storage.Delivery) bool {
	for _, x := range deliveries {
		if x.State != storage.DeliveryPending && x.State != storage.DeliveryRolling {
			continue
		}
		if x.Leaving && stuck(deliveryOf(deliveries, x.Target)) {
			continue // it goes on when the runtime to which the target moves serves it
		}
		return false
	}
	return true
}

// stuck reports whether a delivery has failed for now. A nil delivery has not.
func stuck(x *storage.Delivery) bool {
	return x != nil && !x.Remove && (x.State == storage.DeliveryFailed || x.State == storage.DeliveryDegraded)
}
