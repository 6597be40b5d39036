package plugins

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Change is another set of plugins for a [Host]: those that are new, or of which the [Spec] has changed, have started
// and wait. Either Commit or Discard must follow.
type Change struct {
	// Hooks and Runtimes in the order of their specs. Those of before that are still there are the same.
	Hooks    []*Hook
	Runtimes []*Runtime

	host    *Host
	set     map[string]*supervisor // all that there are then
	started []started
	// attended: somebody waits for the end of each that was started.
	attended bool
}

// started is a process that waits for its plugin.
type started struct {
	s    *supervisor
	spec Spec
	p    *process
}

// Change starts what differs from the plugins that there are now. If one does not start, or is refused, all stay as
// they are; so do calls, in any case: a plugin that has changed gets the next ones in its new process, and its old
// process ends after those under way. The plugins of one host are changed by one caller at a time.
func (h *Host) Change(ctx context.Context, hooks, runtimes []Spec) (_ *Change, err error) {
	c := &Change{host: h, set: make(map[string]*supervisor)}
	defer func() {
		if err != nil {
			c.Discard()
		}
	}()
	var fresh []started
	for _, list := range []struct {
		kind  Kind
		specs []Spec
	}{{HookKind, hooks}, {RuntimeKind, runtimes}} {
		for _, spec := range list.specs {
			s, differs, err := c.declare(list.kind, &spec)
			if err != nil {
				return nil, err
			}
			if differs {
				fresh = append(fresh, started{s: s, spec: spec})
			}
			if list.kind == HookKind {
				c.Hooks = append(c.Hooks, &Hook{s: s})
			} else {
				c.Runtimes = append(c.Runtimes, &Runtime{s: s})
			}
		}
	}
	return c, c.start(ctx, fresh)
}

// declare finds the supervisor of a plugin, or makes one, and reports whether it needs another process.
func (c *Change) declare(kind Kind, spec *Spec) (s *supervisor, differs bool, err error) {
	if spec.Kind != "" && spec.Kind != kind {
		return nil, false, fmt.Errorf("plugin %q is a %s, not a %s", spec.Name, spec.Kind, kind)
	}
	spec.Kind = kind
	if err := spec.check(); err != nil {
		return nil, false, err
	}
	key := string(kind) + "/" + spec.Name
	if c.set[key] != nil {
		return nil, false, fmt.Errorf("plugin %q is configured twice as a %s; give each a name of its own", spec.Name, kind)
	}
	spec.Args, spec.Config = slices.Clone(spec.Args), slices.Clone(spec.Config)
	h := c.host
	h.mu.Lock()
	s = h.supervisors[key]
	h.mu.Unlock()
	if s == nil {
		s, differs = h.supervisor(*spec), true
	} else {
		s.mu.Lock()
		differs = !reflect.DeepEqual(s.spec, *spec)
		s.mu.Unlock()
	}
	c.set[key] = s
	if differs {
		h.scrub.learnConfig(spec.Config)
	}
	return s, differs, nil
}

// start starts the processes of what is fresh, beside each other.
func (c *Change) start(ctx context.Context, fresh []started) error {
	var mu sync.Mutex // guards c.started and failed
	var failed error
	var all sync.WaitGroup
	for _, x := range fresh {
		all.Go(func() {
			p, err := startProcess(ctx, c.host, x.spec, x.s.log)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = errors.Join(failed, err)
				return
			}
			x.p = p
			c.started = append(c.started, x)
		})
	}
	all.Wait()
	if failed != nil {
		return failed
	}
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	if c.host.closed {
		return ErrClosed
	}
	c.attended = true
	for _, x := range c.started {
		c.host.running.Go(func() { x.s.attend(x.p) })
	}
	return nil
}

// Commit puts the change in use. It cannot fail.
func (c *Change) Commit() {
	h := c.host
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, s := range h.supervisors {
		if c.set[key] == nil {
			s.gone()
		}
	}
	h.supervisors = c.set
	for _, x := range c.started {
		x.s.change(x.spec, x.p)
	}
	c.started = nil
	if h.closed {
		for _, s := range h.supervisors {
			s.close()
		}
	}
}

// Discard ends what was started for the change.
func (c *Change) Discard() {
	for _, x := range c.started {
		if !c.attended {
			x.p.end(context.WithoutCancel(c.host.ctx), c.host.deadlines.Shutdown)
			continue
		}
		x.s.mu.Lock()
		x.s.leave(x.p)
		x.s.mu.Unlock()
	}
	c.started = nil
}

// change makes another plugin of this one, which runs already.
func (s *supervisor) change(spec Spec, p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.leave(s.current)
	}
	s.spec, s.current, s.round = spec, p, s.round+1
	if !p.runner.Load().running() { // meanwhile; the next call starts it again
		s.current = nil
	}
	s.failures, s.next, s.cause = 0, time.Time{}, nil
}

// gone ends a plugin that is no longer in the configuration.
func (s *supervisor) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.leave(s.current)
	}
	s.removed, s.current, s.round = true, nil, s.round+1
}
