package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/storage"
)

// attempt is one piece of work on one delivery: a push, a removal, or a look at what the target has. What comes of it
// is written to the store before the next one starts.
type attempt struct {
	d        *Deployer
	rt       Runtime // nil if there is none; then unserved says why, or there is nothing to take away
	unserved error
	looks    int    // at the rollout, so far
	before   string // the delivery's state when this began
}

func (a *attempt) do(ctx context.Context, x storage.Delivery) hold {
	a.before = x.State
	ctx, span := a.d.traces.Work(ctx, "delivery")
	span.Set(traces.App, x.App)
	defer span.End(false)
	switch {
	case a.unserved != nil:
		return a.noRuntime(ctx, x)
	case x.Remove:
		return a.remove(ctx, x)
	case x.Runtime == a.rt.Name() && x.State != storage.DeliveryPending && x.State != storage.DeliveryFailed:
		return a.look(ctx, x)
	default:
		return a.push(ctx, x)
	}
}

// hold keeps the delivery, as it is stored now, for a while.
func (a *attempt) hold(x storage.Delivery, wait time.Duration) hold {
	return hold{revision: x.Revision, until: a.d.now().Add(wait), looks: a.looks}
}

// noRuntime records that no runtime can deliver this.
func (a *attempt) noRuntime(ctx context.Context, x storage.Delivery) hold {
	var why *unserved
	if !errors.As(a.unserved, &why) {
		why = &unserved{message: a.unserved.Error()}
	}
	wait := a.d.pace.Reconcile
	if !why.again.IsZero() {
		wait = max(why.again.Sub(a.d.now()), a.d.pace.RetryMin)
	}
	if x.State == storage.DeliveryFailed && x.Error == why.message && x.NextAttempt.Equal(why.again) {
		return a.hold(x, wait)
	}
	x.State, x.Error, x.Remedy, x.NextAttempt = storage.DeliveryFailed, why.message, why.remedy, why.again.UTC()
	if why.again.IsZero() {
		x.NextAttempt = time.Time{}
	}
	a.d.log.WarnContext(ctx, "env cannot be delivered", "app", x.App, "target", words(x.Target), "error", x.Error)
	return a.settleAt(ctx, x, wait)
}

// push delivers. The claim comes first, so that no other replica pushes to this target before it ends, and the
// attempt ends before the claim does.
func (a *attempt) push(ctx context.Context, x storage.Delivery) hold {
	// If the owner of the previous attempt is still named, its outcome is unknown. A target that accepted this generation
	// once is only pushed to again if it has lost it.
	unsure := x.Owner != "" || x.Accepted == x.Generation
	a.looks = 0
	moved, ok := a.move(ctx, x)
	if !ok {
		return a.hold(x, a.d.pace.RetryMin)
	}
	c, ok := a.claim(ctx, *moved)
	if !ok {
		return a.hold(*moved, a.d.pace.RetryMin)
	}
	st, looked, err := a.deliver(c, unsure)
	next, err := c.release(ctx, err)
	var unopened failure
	if errors.As(err, &unopened) {
		a.d.fail(&next, unopened)
		return a.settle(ctx, next)
	}
	if err != nil {
		return a.failed(ctx, next, err)
	}
	has := a.d.judge(&next, st)
	switch {
	case has || looked:
	case st.State == plugins.StateFailed: // refused: what was there before still serves
		a.d.fail(&next, failureAt(st))
	default:
		return a.failed(ctx, next, fmt.Errorf("runtime %s: %w: it accepted another generation or digest than was pushed",
			a.rt.Name(), plugins.ErrContract))
	}
	return a.settle(ctx, next)
}

// deliver pushes what is claimed, unless a look at the target shows that it is there already.
func (a *attempt) deliver(c *claim, unsure bool) (st plugins.Status, looked bool, err error) {
	x := c.record()
	if unsure {
		if st, err = a.observe(c.work, &x); err != nil {
			return st, true, err
		}
		if next := x; a.d.judge(&next, st) && next.State != storage.DeliveryFailed && next.State != storage.DeliveryDegraded {
			return st, true, nil
		}
	}
	env, err := a.d.store.OpenEnv(&x)
	if err != nil {
		return st, false, failure{message: err.Error(), permanent: true,
			remedy: "put the encryption key that is missing back into encryptionKeyFiles, then apply again"}
	}
	err = a.overtaking(c, func(x storage.Delivery) (err error) {
		st, err = a.rt.PushEnv(c.work, plugins.PushRequest{
			App: x.App, Target: pluginTarget(x.Target),
			Generation: x.Generation, Fence: x.Fence, Digest: x.Digest, Env: env,
		})
		return err
	})
	st.Present = true // the runtime has just said so
	return st, false, err
}

// remove takes the env away, and then the delivery out of the store.
func (a *attempt) remove(ctx context.Context, x storage.Delivery) hold {
	if a.rt != nil {
		c, ok := a.claim(ctx, x)
		if !ok {
			return a.hold(x, a.d.pace.RetryMin)
		}
		err := a.overtaking(c, func(x storage.Delivery) error {
			return a.rt.RemoveEnv(c.work, plugins.RemoveRequest{
				App: x.App, Target: pluginTarget(x.Target), Generation: x.Generation, Fence: x.Fence,
			})
		})
		next, err := c.release(ctx, err)
		if err != nil {
			return a.failed(ctx, next, err)
		}
		x = next
	}
	if err := a.d.store.FinishRemoval(ctx, x, a.entry(x, storage.AuditDeliveryRemoved)); err != nil {
		if !errors.Is(err, storage.ErrConflict) && ctx.Err() == nil {
			a.d.log.WarnContext(ctx, "a removal cannot be finished; trying again", "app", x.App, "target", words(x.Target),
				"error", err)
		}
		return a.hold(x, a.d.pace.RetryMin) // or the target is wanted again
	}
	a.d.metrics.Delivered("removed")
	a.d.log.InfoContext(ctx, "env removed", "app", x.App, "target", words(x.Target), "runtime", x.Runtime)
	if err := a.d.finishDelete(ctx, x.App); err != nil {
		a.d.unfinished.add(x.App)
	}
	return a.hold(x, a.d.pace.RetryMin)
}

// look follows a rollout, finds drift of what was ready, and recovery of what was given up. It changes nothing at the
// target, so it needs no claim.
func (a *attempt) look(ctx context.Context, x storage.Delivery) hold {
	st, err := a.observe(ctx, &x)
	if err != nil {
		return a.blind(ctx, x, err)
	}
	next := x
	has := a.d.judge(&next, st)
	switch {
	case has && next.State == storage.DeliveryReady:
		a.looks = 0
		if x.State != storage.DeliveryReady || moved(x, next) {
			return a.settle(ctx, next)
		}
		return a.hold(x, jitter(a.d.pace.Reconcile))
	case has && next.State == storage.DeliveryRolling:
		a.looks++
		if a.d.now().Sub(next.Since) >= a.d.pace.GiveUp && x.State == storage.DeliveryRolling {
			a.d.fail(&next, failure{message: fmt.Sprintf("runtime %s is still rolling it out", a.rt.Name()),
				remedy: "see in the runtime why the app does not start"})
			return a.settle(ctx, next)
		}
		if x.State != storage.DeliveryRolling || moved(x, next) {
			return a.settle(ctx, next)
		}
		return a.hold(x, a.d.pace.roll(a.looks))
	case x.State == storage.DeliveryDegraded && x.Unreached:
		a.d.log.InfoContext(ctx, "the runtime answers again, and the env is delivered",
			"app", x.App, "target", words(x.Target), "runtime", x.Runtime)
		a.d.afresh(&next)
		return a.settle(ctx, next)
	case x.State == storage.DeliveryDegraded:
		return a.hold(x, jitter(a.d.pace.Reconcile)) // no better than before than before
	case has:
		return a.settle(ctx, next) // the rollout failed, or what was ready is broken
	}
	return a.drifted(ctx, next, st)
}

// blind is a look that failed. Nothing is known to be lost, so nothing changes, unless a rollout has taken too long.
func (a *attempt) blind(ctx context.Context, x storage.Delivery, err error) hold {
	if ctx.Err() != nil {
		return hold{}
	}
	if x.State == storage.DeliveryRolling && a.d.now().Sub(x.Since) >= a.d.pace.GiveUp {
		return a.failed(ctx, x, err)
	}
	a.d.log.WarnContext(ctx, "a target cannot be observed", "app", x.App, "target", words(x.Target), "runtime", x.Runtime,
		"error", a.d.hide(&x, err.Error()))
	a.looks++
	return a.hold(x, a.d.pace.backoff(a.looks))
}

func (a *attempt) observe(ctx context.Context, x *storage.Delivery) (plugins.Status, error) {
	return a.rt.ObserveEnv(ctx, x.App, pluginTarget(x.Target))
}

// overtaking makes a call, and once more when the target turns out to have a generation or a fence that this store
// does not know: the store was created anew, or another system wrote there. The record decides, so the new generation
// goes there first; a replica that has lost its claim fails at that, and nothing of its old wish gets through.
func (a *attempt) overtaking(c *claim, call func(storage.Delivery) error) error {
	x := c.record()
	err := call(x)
	if !errors.Is(err, plugins.ErrStale) && !errors.Is(err, plugins.ErrDigestConflict) {
		return err
	}
	st, err := a.observe(c.work, &x)
	if err != nil {
		return err
	}
	if err := c.update(c.work, func(x *storage.Delivery) {
		x.Generation = max(x.Generation, st.AcceptedGeneration) + 1
		// What fence the target has is not known. More each time: a clock that was set back is overtaken in the end.
		x.Fence += time.Hour.Milliseconds() << min(x.Attempts, 20)
	}); err != nil {
		return err
	}
	x = c.record()
	a.d.log.WarnContext(c.work, "a target has a newer generation or fence than this server knows; trying again with "+
		"one that is newer still",
		"app", x.App, "target", words(x.Target),
		"runtime", x.Runtime, "found", st.AcceptedGeneration, "generation", x.Generation)
	return call(x)
}

// failed stores what went wrong. The owner stays named, without a claim: what the runtime did is not known.
func (a *attempt) failed(ctx context.Context, x storage.Delivery, err error) hold {
	switch {
	case errors.Is(err, storage.ErrConflict):
		return hold{} // a newer wish replaced this one
	case ctx.Err() != nil: // this server is stopping, which is not a failure
	default:
		a.d.fail(&x, failureOf(err))
	}
	x.OwnedUntil = a.d.now().UTC()
	return a.settleAt(ctx, x, a.d.pace.RetryMin)
}

// settle stores what is known now and gives the claim back.
func (a *attempt) settle(ctx context.Context, x storage.Delivery, audit ...storage.AuditEntry) hold {
	x.Owner, x.OwnedUntil = "", time.Time{}
	wait := a.d.pace.RetryMin
	switch x.State {
	case storage.DeliveryReady:
		wait = jitter(a.d.pace.Reconcile)
	case storage.DeliveryRolling:
		wait = a.d.pace.roll(a.looks)
	case storage.DeliveryPending:
		wait = 0
	}
	return a.settleAt(ctx, x, wait, audit...)
}

// settleAt stores a record, even while this server stops, and holds it for a while.
func (a *attempt) settleAt(ctx context.Context, x storage.Delivery, wait time.Duration,
	audit ...storage.AuditEntry) hold {
	storing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	stored, err := a.d.store.UpdateDelivery(storing, x, append(audit, a.told(x)...)...)
	switch {
	case errors.Is(err, storage.ErrConflict):
		return hold{} // there is a newer wish
	case err != nil:
		a.d.log.WarnContext(ctx, "the outcome of a delivery cannot be stored; trying again", "app", x.App,
			"target", words(x.Target), "error", err)
		return a.hold(x, a.d.pace.RetryMin)
	}
	a.d.metrics.Delivered(x.State)
	switch x.State {
	case storage.DeliveryReady:
		a.d.log.InfoContext(ctx, "env delivered", "app", x.App, "target", words(x.Target), "runtime", x.Runtime,
			"generation", x.Generation, "location", x.Location)
	case storage.DeliveryFailed:
		a.d.log.WarnContext(ctx, "env not delivered", "app", x.App, "target", words(x.Target), "runtime", x.Runtime,
			"generation", x.Generation, "attempts", x.Attempts, "again", x.NextAttempt, "error", x.Error)
	case storage.DeliveryDegraded:
		a.d.log.ErrorContext(ctx, "env not delivered; no more attempts until warifu retry or apply", "app", x.App,
			"target", words(x.Target), "runtime", x.Runtime, "generation", x.Generation, "attempts", x.Attempts, "error",
			x.Error)
	}
	return a.hold(*stored, wait)
}

// moved reports whether an observation found something worth storing although the state is the same.
func moved(was, is storage.Delivery) bool {
	return was.Accepted != is.Accepted || was.Serving != is.Serving || was.Instances != is.Instances ||
		was.Location != is.Location
}

// judge copies what a runtime reports into x, and reports whether the target has what x asks for. If so, x gets the
// state that follows from it; if not, x keeps its state.
func (d *Deployer) judge(x *storage.Delivery, st plugins.Status) bool {
	x.Accepted, x.Serving, x.Instances = st.AcceptedGeneration, st.ServingGeneration, st.Instances
	x.Location = d.hide(x, st.Location)
	if !st.Present || st.AcceptedGeneration != x.Generation || st.Digest != x.Digest {
		return false
	}
	switch {
	case st.State == plugins.StateFailed:
		d.fail(x, failureAt(st))
	case st.State == plugins.StateReady && st.ServingGeneration == x.Generation:
		x.State, x.Attempts, x.Error, x.Remedy = storage.DeliveryReady, 0, "", ""
		x.NextAttempt, x.Since, x.Unreached = time.Time{}, time.Time{}, false
	default:
		x.State, x.Error, x.Remedy, x.NextAttempt, x.Unreached = storage.DeliveryRolling, "", "", time.Time{}, false
		if x.Since.IsZero() {
			x.Since = d.now().UTC()
		}
	}
	return true
}

// failure is why an attempt failed.
type failure struct {
	message, remedy string
	permanent       bool      // trying the same again cannot help
	unreached       bool      // the runtime did not answer
	notBefore       time.Time // no attempt can succeed earlier
}

// fail counts a failed attempt and decides when the next one is, if any.
func (d *Deployer) fail(x *storage.Delivery, f failure) {
	now := d.now().UTC()
	if x.Since.IsZero() {
		x.Since = now
	}
	x.Attempts++
	x.Error, x.Remedy = d.hide(x, f.message), d.hide(x, f.remedy)
	if f.permanent || now.Sub(x.Since) >= d.pace.GiveUp {
		x.State, x.NextAttempt, x.Unreached = storage.DeliveryDegraded, time.Time{}, f.unreached
		x.Remedy = cmp.Or(x.Remedy, "correct the cause")
		switch {
		case f.unreached:
			x.Remedy += "; once the runtime answers, it is delivered"
		case !strings.Contains(x.Remedy, "apply again"):
			x.Remedy += "; then apply again"
		}
		return
	}
	x.State = storage.DeliveryFailed
	x.NextAttempt = later(now.Add(d.pace.backoff(x.Attempts)), f.notBefore).UTC()
}

// Error is the message: a failure that is known in full is an error as well.
func (f failure) Error() string { return f.message }

// failureAt is what a runtime says about a target that failed.
func failureAt(st plugins.Status) failure {
	if st.Diagnostic == nil {
		return failure{message: "the runtime reports a failure without saying which"}
	}
	return failure{message: st.Diagnostic.Message, remedy: st.Diagnostic.Remedy, permanent: !st.Diagnostic.Retryable}
}

// failureOf turns an error of a runtime into a failure with a message and a remedy.
func failureOf(err error) failure {
	f := failure{message: err.Error()}
	var start *plugins.StartError
	var backoff *plugins.BackoffError
	if errors.As(err, &backoff) {
		f.notBefore = backoff.NextTry
	}
	f.unreached = errors.As(err, &start) || errors.Is(err, plugins.ErrUnavailable) ||
		errors.Is(err, plugins.ErrDeadline) ||
		errors.Is(err, context.DeadlineExceeded)
	switch {
	case errors.As(err, &start):
		f.remedy = start.Remedy
	case errors.Is(err, plugins.ErrInvalid):
		f.permanent, f.remedy = true, "change what the message names, in the manifest or in the deploy hook"
	case errors.Is(err, plugins.ErrContract):
		f.remedy = "the runtime plugin is faulty: update it"
	case errors.Is(err, plugins.ErrDeadline), errors.Is(err, context.DeadlineExceeded):
		f.remedy = "the target is observed and retried automatically; the plugin's messages are in the server's log"
	case errors.Is(err, plugins.ErrStale), errors.Is(err, plugins.ErrDigestConflict):
		f.remedy = "make sure that no other warifu delivers to this target"
	default:
		f.remedy = "it is retried automatically; the plugin's messages are in the server's log"
	}
	return f
}

// What a runtime says is cut to this length. Values no longer than minHidden occur in texts for other reasons and are
// not hidden.
const (
	maxWords  = 1000
	minHidden = 6
)

// hide takes the values of a delivery's env out of a text that came from a runtime, and makes it one short line. The
// plugin host does the same with what it has seen, but forgets it at a restart; this does not.
func (d *Deployer) hide(x *storage.Delivery, text string) string {
	if text == "" {
		return ""
	}
	if len(x.Sealed) > 0 {
		env, err := d.store.OpenEnv(x)
		if err == nil {
			for _, value := range env {
				if len(value) >= minHidden {
					text = strings.ReplaceAll(text, value, oauth.Redacted)
				}
			}
		}
	}
	text = oauth.RedactCredentials(text) // an older secret, say, for which the env has no value any more
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "..."
	}
	return text
}
