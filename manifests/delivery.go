package manifests

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/storage"
)

// place is where a delivery goes.
type place struct {
	app    string
	target storage.Target
	left   string // the runtime that the target leaves, if that is what the delivery is about
}

func placeOf(x *storage.Delivery) place {
	at := place{app: x.App, target: x.Target}
	if x.Leaving {
		at.left = x.Runtime
	}
	return at
}

// hold keeps a delivery out of the loop's hands until a time, as long as its record is the same.
type hold struct {
	revision int64
	until    time.Time
	looks    int // at a rollout, so far
}

// workDone is what a worker reports.
type workDone struct {
	at   place
	lane string
	hold hold
	slow bool
}

// outbox is what [Deployer.Run] knows; only its own goroutine touches it. The truth is in the store: losing an outbox
// loses nothing.
type outbox struct {
	d       *Deployer
	started time.Time
	renewed time.Time // when there were other settings last
	catalog *catalog
	mirror  *storage.DeliveryMirror

	list  []*storage.Delivery
	moved map[place]bool // targets that another runtime is to serve first, before they lose what they had
	holds map[place]hold
	busy  map[place]bool
	lanes map[string]*lane // by runtime

	workers sync.WaitGroup
	done    chan workDone
}

// lane is the work under way at one runtime. Runtimes do not share lanes, so one that hangs delays only its own
// targets. Within a lane, each app gets a part, and so does everything that failed before: what is stuck leaves room
// for what is not.
type lane struct {
	busy, slow int
	apps       map[string]int
}

// Run delivers until ctx ends: the env of every delivery in the store is brought to its runtime, and kept there.
// Several replicas may run on one store; each target is pushed by one of them at a time. Run returns when no call is
// under way.
func (d *Deployer) Run(ctx context.Context) error {
	o := &outbox{
		d: d, started: d.now(),
		holds: make(map[place]hold), busy: make(map[place]bool), lanes: make(map[string]*lane),
		done: make(chan workDone), mirror: d.store.MirrorDeliveries(ctx),
	}
	o.catalog = newCatalog(d, &o.workers)
	d.metrics.Source("deliveries", o.tell)
	defer o.workers.Wait()
	o.workers.Go(func() { d.finishDeletions(ctx) })
	o.workers.Go(func() { d.rotations(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(o.start(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			continue // something is due; the list is as it was
		case <-o.catalog.learnt:
			continue
		case <-d.renewed:
			o.renew()
		case done := <-o.done:
			o.finish(done)
		case <-o.mirror.Changed:
			o.read()
		}
	}
}

// renew begins anew with other settings: what waits for a time need not, because what stopped it may have gone.
func (o *outbox) renew() {
	o.catalog, o.started, o.renewed = newCatalog(o.d, &o.workers), o.d.now(), o.d.now()
	for at, h := range o.holds {
		h.until = time.Time{}
		o.holds[at] = h
	}
}

// tell tells how far deliveries are.
func (o *outbox) tell(tell metrics.Tell) {
	now, oldest, states := o.d.now(), time.Duration(0), map[string]int{
		storage.DeliveryPending: 0, storage.DeliveryRolling: 0, storage.DeliveryReady: 0, storage.DeliveryFailed: 0,
		storage.DeliveryDegraded: 0, removing: 0,
	}
	for _, x := range o.mirror.List() {
		state := x.State
		if x.Remove {
			state = removing
		}
		states[state]++
		if state != storage.DeliveryReady {
			since := x.Since
			if since.IsZero() {
				since = x.UpdatedAt
			}
			oldest = max(oldest, now.Sub(since))
		}
	}
	for state, n := range states {
		tell(metrics.Deliveries, float64(n), state)
	}
	tell(metrics.DeliveryOldest, oldest.Seconds())
}

// removing is what metrics call a delivery that takes env away.
const removing = "removing"

// read takes the deliveries as the mirror has them now.
func (o *outbox) read() {
	list := o.mirror.List()
	had := o.list
	o.list, o.moved = list, make(map[place]bool)
	there, apps := make(map[place]bool, len(list)), make(map[string]bool)
	for _, x := range list {
		there[placeOf(x)], apps[x.App] = true, true
		if !x.Remove && x.State != storage.DeliveryReady {
			o.moved[placeOf(x)] = true
		}
	}
	for at := range o.holds {
		if !there[at] {
			delete(o.holds, at)
		}
	}
	for _, x := range had {
		if !apps[x.App] {
			o.d.unfinished.add(x.App) // whichever replica took the last env away, and whether it still lives
		}
	}
}

func (o *outbox) finish(done workDone) {
	delete(o.busy, done.at)
	o.holds[done.at] = done.hold
	l := o.lanes[done.lane]
	l.busy--
	if done.slow {
		l.slow--
	}
	if l.apps[done.at.app]--; l.apps[done.at.app] == 0 {
		delete(l.apps, done.at.app)
	}
}

func (o *outbox) send(ctx context.Context, done workDone) {
	select {
	case o.done <- done:
	case <-ctx.Done():
	}
}

// due returns when a delivery next needs something done; the zero time means never.
func (o *outbox) due(x *storage.Delivery) time.Time {
	d := o.d
	var at time.Time
	if x.Leaving && o.moved[place{app: x.App, target: x.Target}] {
		return time.Time{} // the runtime that it leaves is the one that still serves it
	}
	switch x.State {
	case storage.DeliveryReady, storage.DeliveryDegraded:
		if x.Remove && !x.Unreached {
			return time.Time{}
		}
		at = x.UpdatedAt.Add(d.pace.Reconcile)
		if x.UpdatedAt.Before(o.started) {
			at = o.started // it may have changed while no server was running
		}
	case storage.DeliveryFailed:
		at = x.NextAttempt
		if at.IsZero() { // there was no runtime; this start may have brought one
			at = o.started
		}
	default:
		at = later(x.NextAttempt, o.started)
	}
	if x.UpdatedAt.Before(o.renewed) && !at.IsZero() {
		at = o.renewed
	}
	switch h := o.holds[placeOf(x)]; {
	case h.revision > x.Revision:
		return time.Time{} // the mirror has not seen yet what was stored last
	case h.revision == x.Revision:
		at = later(at, h.until)
	}
	if x.Owner != "" && x.Owner != d.replica {
		at = later(at, x.OwnedUntil) // its owner is working on it, or is dead
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// start gives workers what is due, as far as the lanes have room, and returns the time until the next is due.
func (o *outbox) start(ctx context.Context) time.Duration {
	type entry struct {
		x  *storage.Delivery
		at time.Time
	}
	now, next := o.d.now(), o.d.pace.Reconcile
	var ready []entry
	for _, x := range o.list {
		at := o.due(x)
		switch {
		case at.IsZero() || o.busy[placeOf(x)]:
		case at.After(now):
			next = min(next, at.Sub(now))
		default:
			ready = append(ready, entry{x, at})
		}
	}
	slices.SortStableFunc(ready, func(a, b entry) int { return a.at.Compare(b.at) })
	for _, e := range ready {
		o.begin(ctx, e.x)
	}
	return next
}

// begin starts a worker for a delivery, if its lane has room; otherwise the end of another worker makes some.
func (o *outbox) begin(ctx context.Context, x *storage.Delivery) {
	rt, err := o.catalog.runtimeFor(ctx, x)
	if errors.Is(err, errAsking) {
		return // the answer wakes the loop
	}
	name := ""
	if rt != nil {
		name = rt.Name()
	}
	l := o.lanes[name]
	if l == nil {
		l = &lane{apps: make(map[string]int)}
		o.lanes[name] = l
	}
	workers := o.d.pace.Workers
	part := max(1, workers/2) // of a lane, for what failed before or is only looked at
	slow := x.Attempts > 0 || x.State != storage.DeliveryPending
	if l.busy >= workers || l.apps[x.App] >= max(1, workers/4) || slow && l.slow >= part {
		return
	}
	at := placeOf(x)
	o.busy[at] = true
	l.busy++
	l.apps[x.App]++
	if slow {
		l.slow++
	}
	w := &attempt{d: o.d, rt: rt, unserved: err, looks: o.holds[at].looks}
	o.workers.Go(func() {
		h := w.do(ctx, *x)
		o.send(ctx, workDone{at: at, lane: name, hold: h, slow: slow})
	})
}

// backoff is the wait before the next attempt after so many that failed: it doubles, with a quarter of jitter to
// either side.
func (p Pace) backoff(attempts int) time.Duration {
	wait := p.RetryMin
	for i := 1; i < attempts && wait < p.RetryMax; i++ {
		wait *= 2
	}
	return jitter(min(wait, p.RetryMax))
}

// roll is the wait before the next look at a rollout after so many looks.
func (p Pace) roll(looks int) time.Duration {
	wait := p.RollMin
	for i := 0; i < looks && wait < p.RollMax; i++ {
		wait *= 2
	}
	return min(wait, p.RollMax)
}

func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2))
}
