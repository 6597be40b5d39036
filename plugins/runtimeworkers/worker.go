package runtimeworkers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/warifu/warifu/plugins"
)

// worker is one Worker that the driver workerd runs, or was asked to.
type worker struct {
	app, name string

	// turn holds a token while nobody changes this Worker: a push, a removal, or
	// the start after a crash. It is a channel so that waiting ends with a context.
	turn chan struct{}

	mu      sync.Mutex // owns what follows; held for moments, so that looking never waits for a start
	rec     *record    // nil: nothing of ours
	front   *front     // nil: not listening
	current *process   // nil: not running
	crashes int        // in a row
	problem *problem   // why it is not running
}

func newWorker(app, name string) *worker {
	w := &worker{app: app, name: name, turn: make(chan struct{}, 1)}
	w.turn <- struct{}{}
	return w
}

// acquire waits for the Worker's turn; release gives it back.
func (w *worker) acquire(ctx context.Context) error {
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *worker) release() { w.turn <- struct{}{} }

// has gives the record, and whether a process serves it.
func (w *worker) has() (*record, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rec, w.current != nil
}

// serve makes p the process and gives the one before; nil for none.
func (w *worker) serve(rec record, f *front, p *process) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.current
	if w.rec == nil || w.rec.Generation != rec.Generation {
		w.crashes = 0
	}
	w.rec, w.front, w.current, w.problem = &rec, f, p, nil
	f.use(p)
	return old
}

// ended takes note that p is gone and reports whether it should not be.
func (w *worker) ended(p *process) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current != p {
		return false
	}
	w.current = nil
	w.front.lost(p)
	if time.Since(p.started) > settled {
		w.crashes = 0
	}
	w.crashes++
	w.problem = &problem{message: "the Worker's process ended: " + p.why(), retryable: true,
		remedy: "it restarts automatically; see the server's log for what it printed"}
	return true
}

// failed takes note of why the Worker could not be started again.
func (w *worker) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.crashes++
	if !errors.As(err, &w.problem) {
		w.problem = &problem{message: err.Error(), retryable: true, remedy: "see the server's log"}
	}
}

// pause is how long to wait before the next start.
func (w *worker) pause() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.crashes == 0 {
		return 0
	}
	return min(crashBackoff<<min(w.crashes-1, 20), maxCrashBackoff)
}

// dismiss takes everything away and gives it back to be ended.
func (w *worker) dismiss() (*process, *front) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, f := w.current, w.front
	w.rec, w.front, w.current, w.problem, w.crashes = nil, nil, nil, nil, 0
	return p, f
}

// status says how the Worker is; damaged, what is wrong with its record.
func (w *worker) status(damaged error) plugins.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := plugins.Status{State: plugins.StateFailed}
	if w.front != nil {
		st.Location = w.front.url()
	}
	diagnose := func(p problem) plugins.Status {
		st.Diagnostic = &plugins.Diagnostic{Message: p.message, Remedy: p.remedy, Retryable: p.retryable}
		return st
	}
	if w.rec == nil {
		st.Present = damaged != nil
		if damaged == nil {
			damaged = errors.New("the Worker has no environment of warifu's")
		}
		return diagnose(problem{message: damaged.Error(), remedy: "apply the app again", retryable: true})
	}
	st.Present, st.AcceptedGeneration, st.Digest = true, w.rec.Generation, w.rec.Digest
	switch {
	case damaged != nil:
		return diagnose(problem{message: damaged.Error(), remedy: "apply the app again; the record is then put right",
			retryable: true})
	case w.current != nil:
		st.State, st.ServingGeneration, st.Instances = plugins.StateReady, w.rec.Generation, 1
		return st
	case w.problem != nil:
		return diagnose(*w.problem)
	default: // the plugin has just been started
		st.State = plugins.StateRolling
		return st
	}
}
