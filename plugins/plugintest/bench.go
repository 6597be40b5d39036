package plugintest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/pluginpb"
)

// bench is what one check works with: processes and targets that are gone when
// it is over. It is safe for several goroutines but for session.
type bench struct {
	kit      *kit
	slug     string
	current  *session
	sessions []*session

	mu   sync.Mutex // owns what follows
	used map[string]*usage
}

// usage is what a target needs to be cleaned.
type usage struct {
	target            plugins.Target
	generation, fence int64
}

// session gives the running process, a configured one, started when there is
// none.
func (b *bench) session(ctx context.Context) (*session, error) {
	if b.current != nil {
		return b.current, nil
	}
	s, err := b.kit.configured(ctx)
	if err != nil {
		return nil, err
	}
	b.current = s
	b.sessions = append(b.sessions, s)
	return s, nil
}

// restart ends the process, with a word or by force, and starts another.
func (b *bench) restart(ctx context.Context) (*session, error) {
	if b.current != nil {
		b.current.kill()
		b.current = nil
	}
	return b.session(ctx)
}

// target prepares a target of this check's own.
func (b *bench) target(ctx context.Context, name string) (plugins.Target, error) {
	t := plugins.Target{Kind: b.kit.targetKind, Name: b.slug + "-" + name}
	if prepare := b.kit.harness.Prepare; prepare != nil {
		if err := prepare(ctx, b.kit.harness.App, t); err != nil {
			return t, fmt.Errorf("the harness' Prepare of %s: %w", t, err)
		}
	}
	b.uses(t, 0, 0)
	return t, nil
}

// limit bounds a call by what the harness is willing to wait for anything.
func (b *bench) limit(of time.Duration) time.Duration { return min(of, b.kit.harness.Settle) }

func (b *bench) uses(t plugins.Target, generation, fence int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.used[t.String()]
	if u == nil {
		u = &usage{target: t}
		b.used[t.String()] = u
	}
	u.generation, u.fence = max(u.generation, generation), max(u.fence, fence)
}

// end cleans the targets and ends the processes.
func (b *bench) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.kit.harness.Settle)
	defer cancel()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(b.used)) {
		u := b.used[name]
		if u.generation > 0 {
			if s, err := b.session(ctx); err == nil { // that it does not start was said by others
				_, err := s.runtime.RemoveEnv(ctx, removal(b.kit.harness.App, u.target, u.generation, u.fence))
				s.note(err)
			}
		}
		if discard := b.kit.harness.Discard; discard != nil {
			if err := discard(ctx, b.kit.harness.App, u.target); err != nil {
				errs = append(errs, fmt.Errorf("the harness' Discard of %s: %w", u.target, err))
			}
		}
	}
	for _, s := range b.sessions {
		s.kill()
	}
	return errors.Join(errs...)
}

// secret is a value of any form that holds the mark.
func (b *bench) secret(more string) string { return b.kit.out.mark + more }

// env is an ordinary environment, different for each n.
func (b *bench) env(n any) map[string]string {
	return map[string]string{
		"OAUTH_CLIENT_ID":     fmt.Sprintf("app-%v", n),
		"OAUTH_CLIENT_SECRET": b.secret(fmt.Sprintf("-%v", n)),
		"OAUTH_ISSUER":        "https://id.example.com",
	}
}

func (b *bench) request(t plugins.Target, generation, fence int64, env map[string]string) *pluginpb.PushEnvRequest {
	return &pluginpb.PushEnvRequest{
		App: b.kit.harness.App, Target: &pluginpb.Target{Kind: t.Kind, Name: t.Name},
		Generation: generation, Fence: fence, Digest: plugins.Digest(b.kit.key, env), Env: env,
	}
}

func removal(app string, t plugins.Target, generation, fence int64) *pluginpb.RemoveEnvRequest {
	return &pluginpb.RemoveEnvRequest{App: app, Target: &pluginpb.Target{Kind: t.Kind, Name: t.Name},
		Generation: generation, Fence: fence}
}

// push pushes once and holds the answer against the contract. The error is a
// gRPC status or a fault.
func (b *bench) push(ctx context.Context, s *session, req *pluginpb.PushEnvRequest) (*pluginpb.Status, error) {
	b.uses(plugins.Target{Kind: req.GetTarget().GetKind(), Name: req.GetTarget().GetName()}, req.GetGeneration(),
		req.GetFence())
	ctx, cancel := context.WithTimeout(ctx, b.limit(pushLimit))
	defer cancel()
	answer, err := s.runtime.PushEnv(ctx, req)
	s.note(err)
	if err != nil {
		return nil, err
	}
	st := answer.GetStatus()
	if err := s.noteStatus(st); err != nil {
		return nil, err
	}
	if st.GetState() == pluginpb.Status_FAILED {
		return st, nil
	}
	switch {
	case st.GetAcceptedGeneration() != req.GetGeneration():
		return nil, faultf("generation %d was pushed and the answer says that %d is accepted", req.GetGeneration(),
			st.GetAcceptedGeneration())
	case st.GetDigest() != req.GetDigest():
		return nil, faultf("the answer to a push has another digest than the push")
	case st.GetState() == pluginpb.Status_READY && st.GetServingGeneration() != req.GetGeneration():
		return nil, faultf("the answer says READY, but that generation %d serves, not %d", st.GetServingGeneration(),
			req.GetGeneration())
	}
	return st, nil
}

// observe looks once and holds the answer against the contract.
func (b *bench) observe(ctx context.Context, s *session, t plugins.Target) (*pluginpb.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, b.limit(observeLimit))
	defer cancel()
	answer, err := s.runtime.ObserveEnv(ctx, &pluginpb.ObserveEnvRequest{App: b.kit.harness.App,
		Target: &pluginpb.Target{Kind: t.Kind, Name: t.Name}})
	s.note(err)
	if err != nil {
		return nil, faultf("ObserveEnv failed: %s", b.words(err))
	}
	return answer.GetStatus(), s.noteStatus(answer.GetStatus())
}

// noteStatus searches a status for values and checks its form.
func (s *session) noteStatus(st *pluginpb.Status) error {
	d := st.GetDiagnostic()
	s.out.add("a status", []byte(strings.Join([]string{st.GetLocation(), st.GetDigest(), d.GetMessage(), d.GetRemedy()},
		"\n")))
	switch {
	case st.GetState() < pluginpb.Status_ROLLING || st.GetState() > pluginpb.Status_FAILED:
		return faultf("a status has no state (%d)", st.GetState())
	case st.GetState() == pluginpb.Status_FAILED && d.GetMessage() == "":
		return faultf("a status says FAILED and has no diagnostic with a message")
	case st.GetAcceptedGeneration() < 0 || st.GetServingGeneration() < 0 || st.GetInstances() < 0:
		return faultf("a status has a negative number")
	}
	return nil
}

// settled waits until the target is not ROLLING any more.
func (b *bench) settled(ctx context.Context, s *session, t plugins.Target) (*pluginpb.Status, error) {
	late := time.After(b.kit.harness.Settle) // of the rollout; each call has a limit of its own
	for {
		st, err := b.observe(ctx, s, t)
		if err != nil || st.GetState() != pluginpb.Status_ROLLING {
			return st, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-late:
			return nil, faultf("%s still says ROLLING after %s", t, b.kit.harness.Settle)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ready pushes, waits, and expects that exactly this is served.
func (b *bench) ready(ctx context.Context, s *session, t plugins.Target, generation, fence int64,
	env map[string]string) error {
	req := b.request(t, generation, fence, env)
	st, err := b.push(ctx, s, req)
	if err != nil {
		return b.failed("PushEnv", err)
	}
	if st.GetState() == pluginpb.Status_FAILED {
		return faultf("a push of generation %d failed: %s", generation, b.kit.out.safe(st.GetDiagnostic().GetMessage()))
	}
	return b.serves(ctx, s, t, req)
}

// serves expects that the target settles on what req pushed.
func (b *bench) serves(ctx context.Context, s *session, t plugins.Target, req *pluginpb.PushEnvRequest) error {
	st, err := b.settled(ctx, s, t)
	switch {
	case err != nil:
		return err
	case st.GetState() == pluginpb.Status_FAILED:
		return faultf("after a push of generation %d ObserveEnv says FAILED: %s", req.GetGeneration(),
			b.kit.out.safe(st.GetDiagnostic().GetMessage()))
	case st.GetAcceptedGeneration() != req.GetGeneration() || st.GetServingGeneration() != req.GetGeneration():
		return faultf("ObserveEnv says accepted %d and serving %d, expected %d", st.GetAcceptedGeneration(),
			st.GetServingGeneration(), req.GetGeneration())
	case st.GetDigest() != req.GetDigest():
		return faultf("ObserveEnv says another digest than that of generation %d", req.GetGeneration())
	case !st.GetPresent():
		return faultf("ObserveEnv says READY, but that no variables of ours are present")
	}
	return b.sees(ctx, t, req.GetEnv())
}

// sees expects that the program at the target sees these variables, when the
// harness can look.
func (b *bench) sees(ctx context.Context, t plugins.Target, env map[string]string) error {
	if b.kit.harness.Serving == nil {
		return nil
	}
	now, err := b.serving(ctx, t)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if value, there := now[name]; !there {
			return faultf("the target does not see %s", name)
		} else if value != env[name] {
			return faultf("the target sees another value of %s (%d bytes, expected %d)", name, len(value), len(env[name]))
		}
	}
	return nil
}

func (b *bench) serving(ctx context.Context, t plugins.Target) (map[string]string, error) {
	now, err := b.kit.harness.Serving(ctx, b.kit.harness.App, t)
	if err != nil {
		return nil, fmt.Errorf("the harness' Serving of %s: %w", t, err)
	}
	return now, nil
}

// refused expects that a call ended with one of the codes of the contract.
func (b *bench) refused(what string, err error, want codes.Code) error {
	var found fault
	switch {
	case err == nil:
		return faultf("%s was accepted, expected %s", what, want)
	case errors.As(err, &found):
		return err
	case status.Code(err) != want:
		return faultf("%s ended with %s (%s), expected %s", what, status.Code(err), b.words(err), want)
	}
	return nil
}

// failed names a call that should not have failed.
func (b *bench) failed(call string, err error) error {
	var found fault
	if errors.As(err, &found) {
		return err
	}
	return faultf("%s failed: %s", call, b.words(err))
}

func (b *bench) words(err error) string { return b.kit.out.safe(status.Convert(err).Message()) }

// list gives the targets of the harness' app that the runtime lists, by name.
func (b *bench) list(ctx context.Context, s *session) (map[plugins.Target]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, b.limit(observeLimit))
	defer cancel()
	answer, err := s.runtime.ListTargets(ctx, &pluginpb.ListTargetsRequest{App: b.kit.harness.App})
	s.note(err)
	if err != nil {
		return nil, b.failed("ListTargets", err)
	}
	out := map[plugins.Target]bool{}
	for _, t := range answer.GetTargets() {
		target := plugins.Target{Kind: t.GetTarget().GetKind(), Name: t.GetTarget().GetName()}
		if err := target.Check(); err != nil {
			return nil, faultf("ListTargets: %v", err)
		}
		if t.GetApp() != b.kit.harness.App {
			return nil, faultf("ListTargets of one app lists a target of another")
		}
		if out[target] {
			return nil, faultf("ListTargets lists %s twice", target)
		}
		out[target] = true
	}
	return out, nil
}

// remove takes the variables away.
func (b *bench) remove(ctx context.Context, s *session, t plugins.Target, generation, fence int64) error {
	ctx, cancel := context.WithTimeout(ctx, b.limit(pushLimit))
	defer cancel()
	_, err := s.runtime.RemoveEnv(ctx, removal(b.kit.harness.App, t, generation, fence))
	s.note(err)
	return err
}
