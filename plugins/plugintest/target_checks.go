package plugintest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/pluginpb"
)

// Checks of what is at the target: values, variables of others, drift, failed
// rollouts, many at once.

const foreignName, foreignValue = "KIT_FOREIGN", "somebody else's"

func variablesOfOthers(ctx context.Context, b *bench) error {
	h := b.kit.harness
	switch {
	case h.Foreign == nil:
		return needs("Foreign")
	case h.Serving == nil:
		return needs("Serving")
	}
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	if err := h.Foreign(ctx, h.App, t, foreignName, foreignValue); err != nil {
		return fmt.Errorf("the harness' Foreign: %w", err)
	}
	theirs := func(when string) error {
		now, err := b.serving(ctx, t)
		if err == nil && now[foreignName] != foreignValue {
			err = faultf("%s the target does not see a variable of somebody else any more", when)
		}
		return err
	}
	if err := theirs("before the first push"); err != nil {
		return fmt.Errorf("the harness' Foreign or Serving does not work: %w", err)
	}
	for generation := int64(1); generation <= 2; generation++ {
		if err := b.ready(ctx, s, t, generation, 1, b.env(generation)); err != nil {
			return err
		}
		if err := theirs("after a push"); err != nil {
			return err
		}
	}
	if err := b.remove(ctx, s, t, 2, 1); err != nil {
		return b.failed("RemoveEnv", err)
	}
	return theirs("after RemoveEnv")
}

func unwantedVariables(ctx context.Context, b *bench) error {
	if b.kit.harness.Serving == nil {
		return needs("Serving")
	}
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	more := b.env(1)
	more["KIT_MORE"] = b.secret("-more")
	if err := b.ready(ctx, s, t, 1, 1, more); err != nil {
		return err
	}
	if err := b.ready(ctx, s, t, 2, 1, b.env(2)); err != nil {
		return err
	}
	now, err := b.serving(ctx, t)
	if err != nil {
		return err
	}
	if _, there := now["KIT_MORE"]; there {
		return faultf("the target still sees a variable that generation 1 set and generation 2 has not")
	}
	if err := b.ready(ctx, s, t, 3, 1, map[string]string{}); err != nil {
		return faultf("with no variables at all: %v", err)
	}
	if now, err = b.serving(ctx, t); err != nil {
		return err
	}
	for name := range b.env("") {
		if _, there := now[name]; there {
			return faultf("the target still sees %s after a push of no variables", name)
		}
	}
	return nil
}

func values(ctx context.Context, b *bench) error {
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	generation := int64(1)
	serving := b.request(t, generation, 1, b.env("plain"))
	if err := b.ready(ctx, s, t, generation, 1, serving.GetEnv()); err != nil {
		return err
	}
	for _, v := range []struct{ what, value string }{
		{"with a line end", b.secret("\nsecond line\r\nthird\n")},
		{"with quotes", b.secret(`'single' "double" ` + "`back`")},
		{"with =", "=" + b.secret("==a=b=")},
		{"with spaces around", "  " + b.secret(" \t")},
		{"with #, $, \\ and %", b.secret(` # $HOME ${X} $(id) \n \\ %s !`)},
		{"in UTF-8", b.secret("日本語 🔑 é\u0301 \u00a0")},
		{"that is empty", ""},
		{"of 32 KiB", b.secret(strings.Repeat("x", 32<<10-len(b.kit.out.mark)))},
		{"with a backslash at its end", b.secret(`\`)},
		{"that looks like a comment", "# " + b.secret("")},
		{"that looks like JSON", `{"k": "` + b.secret("") + `"}`},
	} {
		generation++
		env := map[string]string{"KIT_VALUE": v.value, "OAUTH_CLIENT_ID": fmt.Sprint(generation)}
		req := b.request(t, generation, 1, env)
		st, err := b.push(ctx, s, req)
		if err != nil {
			return faultf("a value %s: %v", v.what, b.failed("PushEnv", err))
		}
		if st.GetState() == pluginpb.Status_ROLLING {
			if st, err = b.settled(ctx, s, t); err != nil {
				return err
			}
		}
		if st.GetState() == pluginpb.Status_FAILED {
			if st.GetDiagnostic().GetRetryable() {
				return faultf("a value %s fails and is said to be retryable: it can never be carried", v.what)
			}
			if err := b.sees(ctx, t, serving.GetEnv()); err != nil {
				return faultf("after a value %s was refused, %v", v.what, err)
			}
			continue
		}
		if err := b.serves(ctx, s, t, req); err != nil {
			return faultf("a value %s: %v", v.what, err)
		}
		serving = req
	}
	if b.kit.harness.Serving == nil {
		return unchecked{"the harness has no Serving; that the pushes are answered well was checked"}
	}
	return nil
}

func drift(ctx context.Context, b *bench) error {
	spoil := b.kit.harness.Break
	if spoil == nil {
		return needs("Break")
	}
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	req := b.request(t, 2, 1, b.env("kept"))
	if err := b.ready(ctx, s, t, 2, 1, req.GetEnv()); err != nil {
		return err
	}
	for _, how := range []string{"", " by a process that did not see it happen"} {
		if err := spoil(ctx, b.kit.harness.App, t); err != nil {
			return fmt.Errorf("the harness' Break: %w", err)
		}
		if how != "" {
			if s, err = b.restart(ctx); err != nil {
				return err
			}
		}
		st, err := b.settled(ctx, s, t)
		if err != nil {
			return err
		}
		if st.GetState() == pluginpb.Status_READY {
			return faultf("ObserveEnv%s says READY after the target was spoilt", how)
		}
		if !st.GetDiagnostic().GetRetryable() {
			return faultf("drift is not said to be retryable: the same push puts it right")
		}
		again, err := b.observe(ctx, s, t)
		if err != nil {
			return err
		}
		if again.GetState() == pluginpb.Status_READY {
			return faultf("ObserveEnv put the target right by itself: observing changes nothing")
		}
		if err := b.ready(ctx, s, t, 2, 1, req.GetEnv()); err != nil {
			return faultf("the same push does not put a spoilt target right: %v", err)
		}
	}
	return nil
}

func failedRollout(ctx context.Context, b *bench) error {
	fail := b.kit.harness.Fail
	if fail == nil {
		return needs("Fail")
	}
	s, t, err := b.open(ctx)
	if err != nil {
		return err
	}
	old := b.request(t, 1, 1, b.env("old"))
	if err := b.ready(ctx, s, t, 1, 1, old.GetEnv()); err != nil {
		return err
	}
	env := b.env("new")
	mend, err := fail(ctx, b.kit.harness.App, t, env)
	if err != nil {
		return fmt.Errorf("the harness' Fail: %w", err)
	}
	failing := b.failing(ctx, s, t, old, env)
	if mend != nil {
		if err := mend(ctx); err != nil {
			return errors.Join(failing, fmt.Errorf("the harness' mend: %w", err))
		}
	}
	if failing != nil {
		return failing
	}
	if err := b.ready(ctx, s, t, 3, 1, b.env("after")); err != nil {
		return faultf("after a failed rollout a good push does not get through: %v", err)
	}
	return nil
}

// failing pushes what must fail, twice, and expects that old still serves.
func (b *bench) failing(ctx context.Context, s *session, t plugins.Target, old *pluginpb.PushEnvRequest,
	env map[string]string) error {
	for range 2 {
		st, err := b.push(ctx, s, b.request(t, 2, 1, env))
		if err != nil {
			return b.failed("a push whose rollout fails", err)
		}
		if st.GetState() == pluginpb.Status_ROLLING {
			if st, err = b.settled(ctx, s, t); err != nil {
				return err
			}
		}
		if st.GetState() != pluginpb.Status_FAILED {
			return faultf("a rollout that must fail ends with %s", st.GetState())
		}
		if st.GetServingGeneration() != old.GetGeneration() {
			return faultf("after a failed rollout the status says that generation %d serves, expected %d",
				st.GetServingGeneration(), old.GetGeneration())
		}
		if err := b.sees(ctx, t, old.GetEnv()); err != nil {
			return faultf("after a failed rollout %v", err)
		}
	}
	return nil
}

func manyTargets(ctx context.Context, b *bench) error {
	const many = 32
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	targets := make([]plugins.Target, many)
	for i := range targets {
		if targets[i], err = b.target(ctx, fmt.Sprint(i)); err != nil {
			return err
		}
	}
	err = each(targets, func(i int, t plugins.Target) error { return b.ready(ctx, s, t, int64(i+1), 1, b.env(i)) })
	if err != nil {
		return err
	}
	// Once more, when all are there: nobody wrote over another's.
	for i, t := range targets {
		if err := b.serves(ctx, s, t, b.request(t, int64(i+1), 1, b.env(i))); err != nil {
			return err
		}
	}
	listed, err := b.list(ctx, s)
	if err != nil {
		return err
	}
	for _, t := range targets {
		if !listed[t] {
			return faultf("ListTargets lacks %s, one of %d that were pushed to", t, many)
		}
	}
	err = each(targets, func(i int, t plugins.Target) error {
		if err := b.remove(ctx, s, t, int64(i+1), 1); err != nil {
			return b.failed("RemoveEnv", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if listed, err = b.list(ctx, s); err != nil {
		return err
	}
	for _, t := range targets {
		if listed[t] {
			return faultf("ListTargets still lists %s, one of %d that were removed at once", t, many)
		}
	}
	return nil
}

// each runs do for all targets at once and joins at most three errors.
func each(targets []plugins.Target, do func(int, plugins.Target) error) error {
	var wait sync.WaitGroup
	var mu sync.Mutex // owns errs
	errs := map[string]error{}
	for i, t := range targets {
		wait.Go(func() {
			if err := do(i, t); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs[t.String()] = faultf("%s: %v", t, err)
			}
		})
	}
	wait.Wait()
	var out []error
	for err := range maps.Values(errs) {
		if out = append(out, err); len(out) == 3 {
			break
		}
	}
	return errors.Join(out...)
}
