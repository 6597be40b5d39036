package plugintest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/pluginpb"
)

// Checks of the rules of a push: what comes again, late, or in another order.

// open gives what most checks begin with: a process and a target.
func (b *bench) open(ctx context.Context) (*session, plugins.Target, error) {
	s, err := b.session(ctx)
	if err != nil {
		return nil, plugins.Target{}, err
	}
	t, err := b.target(ctx, "target")
	return s, t, err
}

func pushObserveRemove(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	if st, err := b.observe(ctx, s, t); err != nil {
		return err
	} else if st.GetPresent() || st.GetAcceptedGeneration() != 0 || st.GetServingGeneration() != 0 {
		return faultf("before the first push ObserveEnv says generation %d, present %v", st.GetAcceptedGeneration(),
			st.GetPresent())
	}
	if err := b.ready(ctx, s, t, 3, 7, b.env("one")); err != nil {
		return err
	}
	listed, err := b.list(ctx, s)
	if err != nil {
		return err
	}
	if !listed[t] {
		return faultf("ListTargets lacks a target that was pushed to")
	}
	if err := b.ready(ctx, s, t, 4, 7, b.env("two")); err != nil {
		return err
	}
	if err := b.refused("a removal of an older generation", b.remove(ctx, s, t, 3, 7),
		codes.FailedPrecondition); err != nil {
		return err
	}
	if err := b.refused("a removal with an older fence", b.remove(ctx, s, t, 4, 6), codes.FailedPrecondition); err != nil {
		return err
	}
	if err := b.serves(ctx, s, t, b.request(t, 4, 7, b.env("two"))); err != nil {
		return err
	}
	for _, what := range []string{"RemoveEnv", "RemoveEnv of what is gone"} {
		if err := b.remove(ctx, s, t, 4, 7); err != nil {
			return b.failed(what, err)
		}
	}
	return b.removed(ctx, s, t)
}

func (b *bench) removed(ctx context.Context, s *session, t plugins.Target) error {
	st, err := b.settled(ctx, s, t)
	if err != nil {
		return err
	}
	if st.GetPresent() || st.GetState() == pluginpb.Status_READY && st.GetServingGeneration() > 0 {
		return faultf("after RemoveEnv ObserveEnv says %s, present %v", st.GetState(), st.GetPresent())
	}
	listed, err := b.list(ctx, s)
	if err != nil {
		return err
	}
	if listed[t] {
		return faultf("ListTargets lists a target after RemoveEnv")
	}
	if b.kit.harness.Serving == nil {
		return nil
	}
	now, err := b.serving(ctx, t)
	if err != nil {
		return err
	}
	for name := range b.env("") {
		if _, there := now[name]; there {
			return faultf("after RemoveEnv the target still sees %s", name)
		}
	}
	return nil
}

func duplicatePush(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	env := b.env("twice")
	if err := b.ready(ctx, s, t, 1, 1, env); err != nil {
		return err
	}
	rollout := func() (string, error) { return "", nil }
	if look := b.kit.harness.Rollout; look != nil {
		rollout = func() (string, error) {
			name, err := look(ctx, b.kit.harness.App, t)
			if err != nil {
				err = fmt.Errorf("the harness' Rollout: %w", err)
			}
			return name, err
		}
	}
	before, err := rollout()
	if err != nil {
		return err
	}
	for range 3 {
		if err := b.ready(ctx, s, t, 1, 1, env); err != nil {
			return err
		}
	}
	after, err := rollout()
	if err != nil {
		return err
	}
	if before != after {
		return faultf("the same push again made a new rollout: %s serves, it was %s", after, before)
	}
	// A server that has taken over says the same with its own fence.
	if err := b.ready(ctx, s, t, 1, 2, env); err != nil {
		return err
	}
	if b.kit.harness.Rollout == nil {
		return unchecked{"the harness has no Rollout; that the answers are right was checked"}
	}
	return nil
}

func stalePush(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	newest := b.request(t, 5, 3, b.env("newest"))
	if err := b.ready(ctx, s, t, 5, 3, newest.GetEnv()); err != nil {
		return err
	}
	for _, stale := range []struct {
		what              string
		generation, fence int64
	}{
		{"a push of an older generation", 4, 3},
		{"a push of an older generation with a newer fence", 4, 9},
		{"a push with an older fence", 5, 2},
		{"a push of a newer generation with an older fence", 6, 2},
	} {
		env := b.env("stale")
		if stale.generation == newest.GetGeneration() {
			env = newest.GetEnv()
		}
		_, err := b.push(ctx, s, b.request(t, stale.generation, stale.fence, env))
		if err := b.refused(stale.what, err, codes.FailedPrecondition); err != nil {
			return err
		}
		if err := b.serves(ctx, s, t, newest); err != nil {
			return faultf("after %s, %v", stale.what, err)
		}
	}
	return nil
}

// reorderedPushes has all generations race; the newest must be what is left.
func reorderedPushes(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	const newest = 12
	var racers sync.WaitGroup
	faults := make(chan error, newest)
	for _, i := range rand.Perm(newest) {
		racers.Go(func() {
			_, err := b.push(ctx, s, b.request(t, int64(i+1), 1, b.env(i+1)))
			if err != nil && status.Code(err) != codes.FailedPrecondition {
				faults <- b.failed("a push among others", err)
			}
		})
	}
	racers.Wait()
	select {
	case err := <-faults:
		return err
	default:
	}
	return b.serves(ctx, s, t, b.request(t, newest, 1, b.env(newest)))
}

func digestConflict(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	has := b.request(t, 2, 1, b.env("has"))
	if err := b.ready(ctx, s, t, 2, 1, has.GetEnv()); err != nil {
		return err
	}
	_, err = b.push(ctx, s, b.request(t, 2, 1, b.env("other")))
	if err := b.refused("a push of the same generation with another digest", err, codes.InvalidArgument); err != nil {
		return err
	}
	for _, detail := range status.Convert(err).Details() {
		if f, ok := detail.(*pluginpb.Fault); ok && f.GetReason() != pluginpb.Fault_DIGEST_CONFLICT {
			return faultf("the refusal's detail says %s, not DIGEST_CONFLICT", f.GetReason())
		}
	}
	return b.serves(ctx, s, t, has)
}

func memoryAtTarget(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	has := b.request(t, 4, 2, b.env("has"))
	if err := b.ready(ctx, s, t, 4, 2, has.GetEnv()); err != nil {
		return err
	}
	if s, err = b.restart(ctx); err != nil {
		return err
	}
	if err := b.serves(ctx, s, t, has); err != nil {
		return faultf("after a restart of the plugin, %v", err)
	}
	_, err = b.push(ctx, s, b.request(t, 3, 2, b.env("older")))
	if err := b.refused("after a restart of the plugin, a push of an older generation", err,
		codes.FailedPrecondition); err != nil {
		return err
	}
	_, err = b.push(ctx, s, b.request(t, 5, 1, b.env("older")))
	if err := b.refused("after a restart of the plugin, a push with an older fence", err,
		codes.FailedPrecondition); err != nil {
		return err
	}
	_, err = b.push(ctx, s, b.request(t, 4, 2, b.env("other")))
	if err := b.refused("after a restart of the plugin, the same generation with another digest", err,
		codes.InvalidArgument); err != nil {
		return err
	}
	listed, err := b.list(ctx, s)
	if err != nil {
		return err
	}
	if !listed[t] {
		return faultf("after a restart of the plugin ListTargets lacks a target that was pushed to")
	}
	return b.ready(ctx, s, t, 5, 2, b.env("newer"))
}
