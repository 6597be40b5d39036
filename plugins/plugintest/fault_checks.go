package plugintest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/pluginpb"
)

// Checks of what interrupts a push.

// interrupts is how often, each time a little later.
const interrupts = 8

// pace measures a push, so that interruptions fall into the next ones.
func (b *bench) pace(ctx context.Context, s *session, t plugins.Target) (time.Duration, error) {
	began := time.Now()
	err := b.ready(ctx, s, t, 1, 1, b.env(1))
	return min(time.Since(began), 2*time.Second), err
}

func killedMidPush(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	length, err := b.pace(ctx, s, t)
	if err != nil {
		return err
	}
	for i := int64(1); i <= interrupts; i++ {
		old, next := b.request(t, i, 1, b.env(i)), b.request(t, i+1, 1, b.env(i+1))
		pushed := make(chan error, 1)
		go func() {
			_, err := b.push(ctx, s, next)
			pushed <- err
		}()
		time.Sleep(time.Duration(i-1) * length / interrupts)
		s.kill()
		var found fault
		if err := <-pushed; errors.As(err, &found) {
			return err
		}
		if s, err = b.restart(ctx); err != nil {
			return faultf("after it was killed in the middle of a push it does not start: %v", err)
		}
		if err := b.oldOrNew(ctx, s, t, old, next); err != nil {
			return faultf("after it was killed in the middle of a push, %v", err)
		}
		if err := b.ready(ctx, s, t, i+1, 1, next.GetEnv()); err != nil {
			return faultf("killed in the middle of a push and pushed again: %v", err)
		}
	}
	return nil
}

// oldOrNew expects that an interrupted push left one of two whole things, or a
// rollout that goes on.
func (b *bench) oldOrNew(ctx context.Context, s *session, t plugins.Target, old, next *pluginpb.PushEnvRequest) error {
	st, err := b.observe(ctx, s, t)
	if err != nil {
		return err
	}
	accepted := st.GetAcceptedGeneration()
	if accepted != old.GetGeneration() && accepted != next.GetGeneration() {
		return faultf("generation %d is accepted, expected %d or %d", accepted, old.GetGeneration(), next.GetGeneration())
	}
	if st.GetState() != pluginpb.Status_READY {
		return nil // the next push has to mend it
	}
	if accepted == next.GetGeneration() {
		return b.sees(ctx, t, next.GetEnv())
	}
	return b.sees(ctx, t, old.GetEnv())
}

func cancelledPush(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	length, err := b.pace(ctx, s, t)
	if err != nil {
		return err
	}
	other, err := b.target(ctx, "other")
	if err != nil {
		return err
	}
	for i := int64(1); i <= interrupts; i++ {
		old, next := b.request(t, i, 1, b.env(i)), b.request(t, i+1, 1, b.env(i+1))
		callCtx, cancel := context.WithTimeout(ctx, time.Duration(i-1)*length/interrupts)
		_, err := b.push(callCtx, s, next)
		cancel()
		if code := status.Code(err); err != nil && code != codes.Canceled && code != codes.DeadlineExceeded {
			return b.failed("a push that was cancelled", err)
		}
		if err := s.healthy(ctx); err != nil {
			return faultf("after a cancelled push: %v", err)
		}
		if err := b.ready(ctx, s, other, i, 1, b.env(fmt.Sprint("other", i))); err != nil {
			return faultf("after a push to one target was cancelled, another cannot be pushed to: %v", err)
		}
		if err := b.oldOrNew(ctx, s, t, old, next); err != nil {
			return faultf("after a cancelled push, %v", err)
		}
		if err := b.ready(ctx, s, t, i+1, 1, next.GetEnv()); err != nil {
			return faultf("cancelled and pushed again: %v", err)
		}
	}
	return nil
}

// noLeaks makes a plugin say as much as it can about a value and then looks for
// the mark, in all that was said in this and all other checks.
func noLeaks(ctx context.Context, b *bench) error {
	if b.kit.kind == plugins.RuntimeKind {
		if err := b.provoke(ctx); err != nil {
			return err
		}
	}
	if err := b.kit.out.searchFiles(b.kit.harness.StateDir, b.kit.harness.Targets); err != nil {
		return err
	}
	var errs []error
	for _, leak := range b.kit.out.leaked() {
		errs = append(errs, faultf("%s", leak))
	}
	return errors.Join(append(errs, onlyOnLinux())...)
}

// provoke brings a plugin into all the situations in which programs talk: good
// and refused pushes, nonsense, and the end with a dump of stacks.
func (b *bench) provoke(ctx context.Context) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	bare := map[string]string{"OAUTH_CLIENT_SECRET": b.secret("")} // the mark alone, for bare hashes
	if err := b.ready(ctx, s, t, 2, 2, bare); err != nil {
		return err
	}
	b.lookAround(s)
	if err := b.kit.out.searchFiles(b.kit.harness.StateDir, b.kit.harness.Targets); err != nil {
		return err
	}
	spoilt := map[string]string{"OAUTH_CLIENT_SECRET": b.secret("\x00\xc2\xa0'\"`\\\n")}
	for _, req := range []*pluginpb.PushEnvRequest{
		b.request(t, 1, 2, bare), b.request(t, 2, 1, bare), b.request(t, 2, 2, spoilt), b.request(t, 3, 2, spoilt),
		{Env: bare}, {App: b.kit.harness.App, Env: bare},
		{App: b.kit.harness.App, Generation: -1, Env: bare, Target: &pluginpb.Target{Kind: t.Kind, Name: t.Name},
			Digest: "x"},
		b.request(plugins.Target{Kind: t.Kind, Name: strings.Repeat("n", 257)}, 1, 1, bare),
	} {
		callCtx, cancel := context.WithTimeout(ctx, b.limit(pushLimit))
		answer, err := s.runtime.PushEnv(callCtx, req)
		cancel()
		s.note(err)
		if err == nil {
			b.uses(plugins.Target{Kind: req.GetTarget().GetKind(), Name: req.GetTarget().GetName()}, req.GetGeneration(),
				req.GetFence())
			_ = s.noteStatus(answer.GetStatus()) // its form was checked elsewhere
		}
	}
	b.lookAround(s)
	pending := make(chan struct{})
	go func() {
		defer close(pending)
		_, err := b.push(ctx, s, b.request(t, 9, 2, bare))
		var found fault
		if err != nil && !errors.As(err, &found) {
			return // it was killed; b.push noted what it said
		}
	}()
	s.signal(askForStacks)
	select {
	case <-s.exited:
	case <-time.After(leaveLimit):
	}
	s.kill()
	b.current = nil
	<-pending
	return nil
}

// lookAround searches what everybody on the machine can see of the processes.
func (b *bench) lookAround(s *session) {
	pid := s.cmd.Process.Pid
	b.kit.out.add("the environment of the plugin", environ(pid))
	for _, p := range append(descendants(pid), pid) {
		b.kit.out.add("the arguments of a process", commandLine(p))
	}
}
