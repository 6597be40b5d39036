package runtimecontainers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/warifu/warifu/plugins"
)

// acceptWithin is how long a push waits for that. A slow engine is no reason to
// let the server think that the push was lost.
const acceptWithin = 10 * time.Second

// slot is one target's place: who decides about it and what goes on there.
type slot struct {
	turn chan struct{} // holds one: who decides, from looking to starting a rollout

	mu    sync.Mutex // guards the rest
	now   *rollout   // nil when nothing goes on
	last  *outcome   // of the rollout before, when it failed
	begun int        // counts rollouts
	fence int64      // the highest that was let in; labels cannot follow without a rollout
}

// rollout is one goroutine that replaces a target's containers.
type rollout struct {
	wish     *wish // nil: our variables go away
	fence    int64
	cancel   context.CancelFunc
	accepted chan struct{} // closed when a container carries the wish
	done     chan struct{} // closed after the slot says how it went
	err      error         // set before done is closed
}

// outcome is a rollout that failed.
type outcome struct {
	generation int64
	fence      int64
	digest     string
	diagnostic *plugins.Diagnostic
}

func (r *containerRuntime) slot(app string, t plugins.Target) *slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := plugins.AppTarget{App: app, Target: t}
	s := r.slots[key]
	if s == nil {
		s = &slot{turn: make(chan struct{}, 1)}
		r.slots[key] = s
	}
	return s
}

// enter takes the turn; leave gives it back.
func (s *slot) enter(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slot) leave() { <-s.turn }

func (s *slot) state() (*rollout, *outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.last
}

// fenced gives the highest fence so far, this one included.
func (s *slot) fenced(fence int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fence = max(s.fence, fence)
	return s.fence
}

// rollouts counts those that were begun.
func (s *slot) rollouts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// begin starts a rollout. It outlives the call that asked for it and ends by
// itself, by a newer wish, or with the process. Only who has the turn may begin,
// when nothing goes on.
func (r *containerRuntime) begin(s *slot, app string, t plugins.Target, w *wish, fence int64) *rollout {
	ctx, cancel := context.WithCancel(context.Background())
	o := &rollout{wish: w, fence: fence, cancel: cancel, accepted: make(chan struct{}), done: make(chan struct{})}
	s.mu.Lock()
	s.now = o
	s.begun++
	s.mu.Unlock()
	go func() {
		defer cancel()
		err := r.roll(ctx, app, t, w, sync.OnceFunc(func() { close(o.accepted) }))
		s.mu.Lock()
		o.err, s.now = err, nil
		switch {
		case err == nil:
			s.last = nil
		case w != nil && !errors.Is(err, context.Canceled):
			s.last = &outcome{generation: w.generation, fence: fence, digest: w.digest, diagnostic: w.diagnostic(err)}
		}
		s.mu.Unlock()
		close(o.done)
	}()
	return o
}

// overtake ends the rollout that goes on and waits until it has cleaned up.
func (s *slot) overtake(ctx context.Context, o *rollout) error {
	o.cancel()
	select {
	case <-o.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// taken waits until the wish would survive this process, or is refused.
func (o *rollout) taken(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, acceptWithin)
	defer cancel()
	select {
	case <-o.accepted:
	case <-o.done:
	case <-ctx.Done():
	}
}

// roll finishes what was interrupted and then replaces one container after the
// other; the first that fails ends it. It calls accepted once a container has the
// wish in its labels.
func (r *containerRuntime) roll(ctx context.Context, app string, t plugins.Target, w *wish, accepted func()) error {
	f, err := r.find(ctx, app, t)
	if err != nil {
		return err
	}
	for _, p := range f.pairs {
		if err := r.finish(ctx, p); err != nil {
			return err
		}
	}
	if len(f.pairs) > 0 {
		if f, err = r.find(ctx, app, t); err != nil {
			return err
		}
	}
	for _, c := range r.lacking(f, w) {
		if err := r.replace(ctx, c, w, accepted); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// diagnostic says what is told about a rollout that failed.
func (w *wish) diagnostic(err error) *plugins.Diagnostic {
	d := &plugins.Diagnostic{Message: w.hide(err.Error()), Remedy: "it is retried automatically", Retryable: true}
	var f *fault
	if errors.As(err, &f) {
		d.Remedy, d.Retryable = f.remedy, f.retryable
	}
	return d
}
