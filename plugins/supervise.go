package plugins

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/warifu/warifu/plugins/pluginpb"
	"github.com/warifu/warifu/server/traces"
)

const (
	// What a plugin says in an error or diagnostic is cut to this, bytes.
	maxErrorText = 1000
	// A plugin whose server answers but whose calls do not, this often in a
	// row, is restarted.
	maxTimeouts = 3
)

// supervisor keeps one plugin running: it starts it on the first call, notices
// its end at once, and starts a new process on the next call after the backoff.
type supervisor struct {
	host *Host
	name string
	kind Kind
	log  *pluginLog

	mu       sync.Mutex    // owns what follows, and calls, left and idle of its processes
	spec     Spec          // of the next start; see [Host.Change]
	current  *process      // nil: not running
	starting chan struct{} // closed when the start under way is over; nil: none
	failures int           // in a row
	since    time.Time     // of the first of them
	next     time.Time     // no start before
	cause    error         // of the last
	closed   bool
	removed  bool // it is no longer among the plugins of the host
	round    int  // of specs
}

// call runs one call on the running plugin, started when it must be, and gives
// its failure a name. limit is the host's own deadline for the call; when the
// caller's comes first, that is not the plugin's fault.
func (s *supervisor) call(ctx context.Context, op string, limit time.Duration,
	fn func(context.Context, *process) error) error {
	p, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer s.release(p)
	theirs, bounded := ctx.Deadline()
	bounded = bounded && theirs.Before(time.Now().Add(limit))
	callCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	callCtx, span := traces.Child(callCtx, "plugin "+op)
	if span != nil {
		span.Set(traces.Plugin, s.name)
		span.Set(traces.Call, op)
		callCtx = metadata.AppendToOutgoingContext(callCtx, "traceparent", traces.Parent(callCtx))
	}
	begun := time.Now()
	err = fn(callCtx, p)
	s.host.metrics.PluginCall(s.name, op, time.Since(begun))
	span.End(err != nil)
	if err != nil {
		if ctx.Err() != nil {
			return &CallError{Plugin: s.name, Op: op, Err: ctx.Err()}
		}
		if bounded && status.Code(err) == codes.DeadlineExceeded { // gRPC saw it before the context did
			return &CallError{Plugin: s.name, Op: op, Err: context.DeadlineExceeded}
		}
		return s.failed(p, op, err)
	}
	p.timeouts.Store(0)
	return nil
}

// acquire gives the running process, or the reason why there is none. The process does not leave before release.
func (s *supervisor) acquire(ctx context.Context) (*process, error) {
	for {
		p, wait, err := s.state()
		if p != nil || err != nil {
			return p, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, &CallError{Plugin: s.name, Op: "start", Err: ctx.Err()}
		}
	}
}

// state looks once: a process, an error, or something to wait for. It begins a
// start when one is due.
func (s *supervisor) state() (*process, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch now := time.Now(); {
	case s.closed:
		return nil, nil, ErrClosed
	case s.removed:
		return nil, nil, &CallError{Plugin: s.name, Op: "start", Err: ErrUnavailable,
			Message: "it is no longer in the configuration"}
	case s.current != nil:
		s.current.calls++
		return s.current, nil, nil
	case s.starting != nil:
		return nil, s.starting, nil
	case now.Before(s.next):
		return nil, nil, &BackoffError{Plugin: s.name, Since: s.since, NextTry: s.next, Cause: s.cause}
	default:
		s.starting = make(chan struct{})
		s.host.running.Go(s.start)
		return nil, s.starting, nil
	}
}

// start is its own goroutine, so that a caller who gives up does not end a start
// that others wait for. It lives until the process that it started has ended.
func (s *supervisor) start() {
	s.mu.Lock()
	spec, round := s.spec, s.round
	s.mu.Unlock()
	p, err := startProcess(s.host.ctx, s.host, spec, s.log)
	s.mu.Lock()
	close(s.starting)
	s.starting = nil
	switch {
	case err != nil && s.round == round:
		s.fail(err, 0)
	case err == nil && s.round == round && !s.closed:
		s.current = p
	case err == nil: // it is another plugin by now
		s.leave(p)
	}
	s.mu.Unlock()
	if err == nil {
		s.attend(p)
	}
}

// attend waits for the end of a process: its own, that of the host, or because it was told to leave.
func (s *supervisor) attend(p *process) {
	s.host.metrics.PluginStarted(string(s.kind), s.name)
	s.log.log.Debug("plugin started", "version", p.description.Version)
	r := p.runner.Load()
	select {
	case <-r.exited:
		s.retire(p, fmt.Errorf("it exited: %w", exitReason(r.err)))
		p.end(s.host.ctx, 0)
	case <-p.idle:
		p.end(context.WithoutCancel(s.host.ctx), s.host.deadlines.Shutdown)
	case <-s.host.ctx.Done():
		// The host's context is over; the good-bye has its own deadline.
		p.end(context.WithoutCancel(s.host.ctx), s.host.deadlines.Shutdown)
	}
}

func exitReason(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// retire takes a process out of use and kills it; start's goroutine cleans up.
func (s *supervisor) retire(p *process, cause error) {
	s.mu.Lock()
	if s.current == p {
		s.current = nil
		s.fail(cause, time.Since(p.started))
	}
	s.mu.Unlock()
	p.runner.Load().kill()
}

// release says that a call to a process is over.
func (s *supervisor) release(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.calls--
	if p.left && p.calls == 0 {
		close(p.idle)
	}
}

// leave ends a process that gets no more calls, once those under way are over: each has a deadline. The caller holds
// mu.
func (s *supervisor) leave(p *process) {
	if p.left {
		return
	}
	if p.left = true; p.calls == 0 {
		close(p.idle)
	}
}

// fail counts a failure and sets the next try. The caller holds mu.
func (s *supervisor) fail(cause error, lived time.Duration) {
	if s.host.ctx.Err() != nil {
		return // closing is no failure
	}
	backoff := s.host.backoff
	if lived >= backoff.Reset {
		s.failures = 0
	}
	now := time.Now()
	if s.failures == 0 {
		s.since = now
	}
	s.failures++
	s.host.metrics.PluginFailed(string(s.kind), s.name)
	delay := backoff.delay(s.failures)
	s.next, s.cause = now.Add(delay), cause
	s.log.log.Warn("plugin is not running", "cause", cause.Error(), "failures", s.failures, "retry_in", delay)
}

// delay doubles from Min to Max and adds up to a quarter, so that several hosts
// do not try in step.
func (b Backoff) delay(failures int) time.Duration {
	d := b.Max
	if shift := failures - 1; shift < 30 && b.Min<<shift < b.Max {
		d = b.Min << shift
	}
	return d + rand.N(d/4+1)
}

// failed names what went wrong with a call and decides whether the process is
// still any good.
func (s *supervisor) failed(p *process, op string, err error) error {
	out := &CallError{Plugin: s.name, Op: op, Err: sentinel(op, err),
		Message: s.host.scrub.cleanLine(status.Convert(err).Message(), maxErrorText)}
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		out.Message = ""
		if p.timeouts.Add(1) >= maxTimeouts {
			s.retire(p, fmt.Errorf("%s: %d calls in a row were not answered in time", op, maxTimeouts))
		} else if !p.healthy(s.host.ctx, s.host.deadlines.Probe) {
			s.retire(p, fmt.Errorf("%s was not answered in time, nor a health check", op))
		}
	case codes.Unavailable, codes.Canceled:
		// Either the connection is gone, or the plugin says that what it needs
		// is not there; only the first is the process's end.
		if !p.healthy(s.host.ctx, s.host.deadlines.Probe) {
			out.Message = "the plugin died or lost its connection during the call"
			s.retire(p, fmt.Errorf("it died or lost its connection during %s", op))
		}
	}
	return out
}

// close forbids further starts. The host's context ends what runs.
func (s *supervisor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.current = nil
}

// sentinel finds what a refused call means: by the plugin's own word when there
// is one, else by the status code as the contract defines it.
func sentinel(op string, err error) error {
	st := status.Convert(err)
	for _, detail := range st.Details() {
		if fault, ok := detail.(*pluginpb.Fault); ok {
			switch fault.GetReason() {
			case pluginpb.Fault_STALE:
				return ErrStale
			case pluginpb.Fault_DIGEST_CONFLICT:
				return ErrDigestConflict
			case pluginpb.Fault_INVALID:
				return ErrInvalid
			}
		}
	}
	switch st.Code() {
	case codes.FailedPrecondition:
		return ErrStale
	case codes.InvalidArgument:
		if op == opPush {
			return ErrDigestConflict
		}
		return ErrInvalid
	case codes.Unavailable, codes.Canceled:
		return ErrUnavailable
	case codes.DeadlineExceeded:
		return ErrDeadline
	case codes.Unimplemented, codes.ResourceExhausted:
		return fmt.Errorf("%w (%s)", ErrContract, st.Code())
	default:
		return fmt.Errorf("it failed (%s)", st.Code())
	}
}
