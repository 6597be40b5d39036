package runtimeworkers

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/child"
)

const (
	// From the start of a workerd to its listen event; 60 ms are usual.
	startLimit = 10 * time.Second
	// So many start at a time: each keeps a processor busy. Who takes longer than
	// slowStart no longer counts, so that bad scripts do not hold up good ones.
	maxStarts, slowStart = 4, time.Second
	// How long an address may still be another's.
	listenPatience = 2 * time.Second
	// At the plugin's own end: the host waits for three seconds.
	farewell = 2 * time.Second
	// A crashed Worker waits this long, doubled with each crash in a row.
	crashBackoff, maxCrashBackoff = 100 * time.Millisecond, 10 * time.Second
	// Who lived that long has not crashed in a row.
	settled = time.Minute
)

// workerd is the driver that runs Workers in workerd.
type workerd struct {
	settings workerdSettings
	store    *store
	spawner  *child.Spawner
	starts   chan struct{} // holds a token for each start under way
	log      func() io.Writer

	sockets string // a directory of mode 0700, for workerds' sockets

	ctx     context.Context // the driver's life, for starts that no call asks for
	end     context.CancelFunc
	running sync.WaitGroup // the goroutines that watch processes or start them again

	mu        sync.Mutex // owns what follows
	workers   map[string]*worker
	processes map[*process]bool // all that live, the draining ones too
	closed    bool
}

// newWorkerd checks the settings and begins to start the Workers that there are
// records of.
func newWorkerd(s workerdSettings, records *store) (*workerd, error) {
	if err := s.complete(); err != nil {
		return nil, err
	}
	known, err := records.all()
	if err != nil {
		return nil, err
	}
	// The directory of the plugin's own socket: the host removes it, however the
	// plugin ends, and has seen to it that a path in it is short enough.
	sockets := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	if sockets == "" {
		return nil, fmt.Errorf("%w: PLUGIN_UNIX_SOCKET_DIR is not set", plugins.ErrUnavailable)
	}
	d := &workerd{settings: s, store: records, sockets: sockets, spawner: child.NewSpawner(),
		starts: make(chan struct{}, maxStarts),
		log:    func() io.Writer { return os.Stderr }, workers: map[string]*worker{}, processes: map[*process]bool{}}
	d.ctx, d.end = context.WithCancel(context.Background())
	for _, rec := range known {
		w := d.worker(rec.App, rec.Worker)
		w.rec = &rec
		d.spawn(func() { d.restart(w) })
	}
	return d, nil
}

// worker gives the one of that name, made when it is new.
func (d *workerd) worker(app, name string) *worker {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := app + "\x00" + name
	if d.workers[key] == nil {
		d.workers[key] = newWorker(app, name)
	}
	return d.workers[key]
}

// PushEnv starts a process with the new variables beside the old one, keeps the
// record, and then ends the old one.
func (d *workerd) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	w := d.worker(req.App, req.Target.Name)
	if err := w.acquire(ctx); err != nil {
		return plugins.Status{}, err
	}
	defer w.release()
	rec, running := w.has()
	if err := plugins.Admit(rec.held(), req); err != nil {
		return plugins.Status{}, err
	}
	next := record{App: req.App, Worker: req.Target.Name, Generation: req.Generation, Fence: req.Fence,
		Digest: req.Digest, Env: maps.Clone(req.Env)}
	if running && rec.Generation == req.Generation {
		return d.confirm(w, *rec, next)
	}
	p, f, err := d.start(ctx, w, next)
	if err != nil {
		return refused(w.status(d.damage(w)), err)
	}
	next.Listen = f.address
	if err := d.store.save(next); err != nil {
		p.kill()
		d.discard(w, f)
		return plugins.Status{}, err
	}
	d.hand(w, next, f, p)
	return w.status(nil), nil
}

// confirm answers a push of what is there: only the fence may be new, or the
// record lost.
func (d *workerd) confirm(w *worker, rec, next record) (plugins.Status, error) {
	next.Listen = rec.Listen
	if next.Fence != rec.Fence || d.damage(w) != nil {
		if err := d.store.save(next); err != nil {
			return plugins.Status{}, err
		}
		w.mu.Lock()
		w.rec = &next
		w.mu.Unlock()
	}
	return w.status(nil), nil
}

// hand makes p the Worker's process and lets the old one finish.
func (d *workerd) hand(w *worker, rec record, f *front, p *process) {
	old := w.serve(rec, f, p)
	d.spawn(func() {
		<-p.exited
		if w.ended(p) {
			// Nobody hears it
			_, _ = fmt.Fprintf(d.log(), "%s/%s: the Worker's process exited and is being restarted\n", w.app, w.name)
			d.restart(w)
		}
	})
	if old != nil {
		old.finish(d.settings.drain())
	}
}

// start starts a process for rec. The Worker's turn is the caller's. A front that
// was made for a start that failed is closed again.
func (d *workerd) start(ctx context.Context, w *worker, rec record) (*process, *front, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	settings, err := d.settings.worker(w.app, w.name)
	if err != nil {
		return nil, nil, err
	}
	modules, err := loadScript(settings.Script)
	if err != nil {
		return nil, nil, err
	}
	f, err := d.front(ctx, w, settings.Listen, rec.Listen)
	if err != nil {
		return nil, nil, err
	}
	p, err := d.launch(ctx, launch{
		binary: d.settings.Workerd, sockets: d.sockets,
		config: workerdConfig(modules, settings, d.settings.Network, rec.Env),
		output: &output{scrub: newScrubber(slices.Collect(maps.Values(rec.Env))...), name: w.app + "/" + w.name, to: d.log},
	})
	if err != nil {
		d.discard(w, f)
		return nil, nil, err
	}
	return p, f, nil
}

// front gives the Worker's front, opened when there is none.
func (d *workerd) front(ctx context.Context, w *worker, address, kept string) (*front, error) {
	w.mu.Lock()
	f := w.front
	w.mu.Unlock()
	if f != nil {
		return f, nil
	}
	return listen(ctx, address, kept, listenPatience)
}

// discard closes a front that did not become the Worker's.
func (d *workerd) discard(w *worker, f *front) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.front != f {
		f.close(0)
	}
}

func (d *workerd) launch(ctx context.Context, l launch) (*process, error) {
	select {
	case d.starts <- struct{}{}:
		var once sync.Once
		release := func() { once.Do(func() { <-d.starts }) }
		defer release()
		defer time.AfterFunc(slowStart, release).Stop()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p, err := l.start(ctx, d.spawner, startLimit)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.processes[p] = true
	d.mu.Unlock()
	if !d.spawn(func() { d.forget(p) }) {
		p.kill()
		return nil, plugins.ErrUnavailable
	}
	return p, nil
}

// forget waits for a process to end.
func (d *workerd) forget(p *process) {
	<-p.exited
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.processes, p)
}

// spawn runs f in a goroutine that close waits for; not after close.
func (d *workerd) spawn(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.running.Go(f)
	}
	return !d.closed
}

// restart starts the Worker with what it has, as often as that takes, until it
// runs, has nothing any more, or the driver ends.
func (d *workerd) restart(w *worker) {
	for {
		timer := time.NewTimer(w.pause())
		select {
		case <-timer.C:
		case <-d.ctx.Done():
			timer.Stop()
			return
		}
		if w.acquire(d.ctx) != nil {
			return
		}
		done := d.startAgain(w)
		w.release()
		if done {
			return
		}
	}
}

func (d *workerd) startAgain(w *worker) (done bool) {
	rec, running := w.has()
	if rec == nil || running {
		return true
	}
	p, f, err := d.start(d.ctx, w, *rec)
	if err != nil {
		if d.ctx.Err() != nil {
			return true
		}
		w.failed(err)
		return false
	}
	next := *rec
	next.Listen = f.address
	d.hand(w, next, f, p)
	if next.Listen == rec.Listen {
		return true
	}
	if err := d.store.save(next); err != nil {
		_, _ = io.WriteString(d.log(), "the new address of a Worker was not kept: "+err.Error()+"\n")
	}
	return true
}

// damage reports a record in the store that is not the one that is served.
func (d *workerd) damage(w *worker) error {
	rec, _ := w.has()
	stored, err := d.store.load(w.app, w.name)
	switch {
	case err != nil:
		return err
	case rec == nil:
		return nil
	case stored == nil || stored.Generation != rec.Generation || stored.Digest != rec.Digest || stored.Fence != rec.Fence:
		return errDamaged
	}
	return nil
}

// ObserveEnv looks at the process and at the record.
func (d *workerd) ObserveEnv(_ context.Context, app string, t plugins.Target) (plugins.Status, error) {
	d.mu.Lock()
	w := d.workers[app+"\x00"+t.Name]
	d.mu.Unlock()
	if w == nil {
		w = newWorker(app, t.Name)
	}
	return w.status(d.damage(w)), nil
}

// RemoveEnv ends the Worker: it runs only with an environment of ours.
func (d *workerd) RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error {
	w := d.worker(req.App, req.Target.Name)
	if err := w.acquire(ctx); err != nil {
		return err
	}
	defer w.release()
	rec, _ := w.has()
	if err := plugins.AdmitRemoval(rec.held(), req); err != nil {
		return err
	}
	if err := d.store.remove(w.app, w.name); err != nil {
		return err
	}
	p, f := w.dismiss()
	d.spawn(func() { d.endWorker(p, f, d.settings.drain()) })
	return nil
}

// ListTargets gives the Workers that have an environment of ours.
func (d *workerd) ListTargets(_ context.Context, app string) ([]plugins.AppTarget, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []plugins.AppTarget
	for _, w := range d.workers {
		if rec, _ := w.has(); rec != nil && (app == "" || app == w.app) {
			out = append(out, plugins.AppTarget{App: w.app, Target: plugins.Target{Kind: plugins.TargetWorker, Name: w.name}})
		}
	}
	return out, nil
}

// endWorker takes no more requests and ends the process when those under way are
// answered.
func (d *workerd) endWorker(p *process, f *front, grace time.Duration) {
	if f != nil {
		f.close(grace)
	}
	if p != nil {
		p.finish(0)
	}
}

// close ends all Workers: they may finish for a moment.
func (d *workerd) close() {
	d.end()
	d.mu.Lock()
	d.closed = true
	workers := slices.Collect(maps.Values(d.workers))
	d.mu.Unlock()
	var ending sync.WaitGroup
	for _, w := range workers {
		p, f := w.dismiss()
		ending.Go(func() { d.endWorker(p, f, farewell) })
	}
	ending.Wait()
	d.mu.Lock()
	alive := slices.Collect(maps.Keys(d.processes))
	d.mu.Unlock()
	for _, p := range alive {
		p.kill() // those that drain as well
	}
	d.running.Wait()
	d.spawner.Close()
}
