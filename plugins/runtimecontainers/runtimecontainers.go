package runtimecontainers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"github.com/warifu/warifu/plugins"
)

// Serve runs the runtime as a plugin process; it returns when the host ends it.
func Serve() { plugins.ServeRuntime(&containerRuntime{}) }

// containerRuntime is safe for several goroutines once it is configured.
type containerRuntime struct {
	settings settings
	engine   *engine
	key      []byte // of seals

	mu    sync.Mutex // guards slots
	slots map[plugins.AppTarget]*slot
}

func (r *containerRuntime) Describe() plugins.Description {
	return plugins.Description{Name: "containers", Version: "1.0.0",
		Kinds: []string{plugins.TargetContainer, plugins.TargetService}}
}

// Configure checks the settings and takes the seal's key from the state directory
// or puts one there. The engine need not be up.
func (r *containerRuntime) Configure(_ context.Context, config json.RawMessage, stateDir string) error {
	s, err := parseSettings(config)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(stateDir) {
		return fmt.Errorf("%w: the runtime containers needs a state directory", plugins.ErrInvalid)
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	key, err := loadKey(filepath.Join(stateDir, "seal.key"))
	if err != nil {
		return err
	}
	e, err := dial(s)
	if err != nil {
		return fmt.Errorf("%w: %w", plugins.ErrInvalid, err)
	}
	r.settings, r.engine, r.key, r.slots = s, e, key, map[plugins.AppTarget]*slot{}
	return nil
}

func loadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) == 32 {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the seal's key: %w", err)
	}
	key = make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	if err := renameio.WriteFile(path, key, 0o600, renameio.IgnoreUmask()); err != nil {
		return nil, fmt.Errorf("keep the seal's key: %w", err)
	}
	return key, nil
}

// PushEnv follows the rules of the contract by what the containers' labels say and
// by what goes on in this process.
func (r *containerRuntime) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	s := r.slot(req.App, req.Target)
	if err := s.enter(ctx); err != nil {
		return plugins.Status{}, err
	}
	defer s.leave()
	f, err := r.find(ctx, req.App, req.Target)
	if err != nil {
		return plugins.Status{}, err
	}
	now, last := s.state()
	if err := s.admit(f, now, last, req); err != nil {
		return plugins.Status{}, err
	}
	if bad := unfit(f, r, req); bad != nil {
		return *bad, nil
	}
	if now != nil && (now.wish == nil || now.wish.generation != req.Generation) {
		if err := s.overtake(ctx, now); err != nil {
			return plugins.Status{}, err
		}
		if f, err = r.find(ctx, req.App, req.Target); err != nil {
			return plugins.Status{}, err
		}
		now = nil
	}
	w := &wish{generation: req.Generation, fence: req.Fence, digest: req.Digest, env: req.Env}
	if now == nil && (len(f.pairs) > 0 || len(r.lacking(f, w)) > 0) {
		if err := ctx.Err(); err != nil {
			return plugins.Status{}, err // nobody waits for it any more
		}
		r.begin(s, req.App, req.Target, w, req.Fence).taken(ctx)
	}
	return r.ObserveEnv(ctx, req.App, req.Target)
}

// unfit is the status after a push that no container can take; what was there
// before serves on.
func unfit(f found, r *containerRuntime, req plugins.PushRequest) *plugins.Status {
	for name, value := range req.Env {
		if strings.ContainsRune(value, 0) {
			st := r.status(req.App, req.Target, f, nil, nil)
			st.State = plugins.StateFailed
			st.Diagnostic = &plugins.Diagnostic{
				Message: "the value of variable " + name + " has a zero byte, which no environment can hold",
				Remedy:  "give the variable another value",
			}
			return &st
		}
	}
	return nil
}

// admit holds a push against what the target has or is about to have.
func (s *slot) admit(f found, now *rollout, last *outcome, req plugins.PushRequest) error {
	err := plugins.Admit(s.held(f, now, last), req)
	if err == nil {
		s.fenced(req.Fence)
	}
	return err
}

func (s *slot) admitRemoval(f found, now *rollout, last *outcome, req plugins.RemoveRequest) error {
	err := plugins.AdmitRemoval(s.held(f, now, last), req)
	if err == nil {
		s.fenced(req.Fence)
	}
	return err
}

// held is what the target has or is about to have.
func (s *slot) held(f found, now *rollout, last *outcome) plugins.Held {
	has := f.newest()
	if has == nil {
		has = &mark{}
	}
	if last != nil {
		has = has.or(last.generation, last.fence, last.digest)
	}
	if now != nil && now.wish != nil {
		has = has.or(now.wish.generation, now.fence, now.wish.digest)
	}
	return plugins.Held{Generation: has.generation, Fence: s.fenced(has.fence), Digest: has.digest}
}

// or gives the newer of two, with the higher fence.
func (m *mark) or(generation, fence int64, digest string) *mark {
	out := *m
	if generation > m.generation {
		out.generation, out.digest = generation, digest
	}
	out.fence = max(m.fence, fence)
	return &out
}

// ObserveEnv asks the engine; it changes nothing.
func (r *containerRuntime) ObserveEnv(ctx context.Context, app string, t plugins.Target) (plugins.Status, error) {
	s := r.slot(app, t)
	for {
		// What ends while the engine is asked is told as going on. What begins
		// meanwhile would look interrupted, so it is looked at again.
		begun := s.rollouts()
		now, last := s.state()
		f, err := r.find(ctx, app, t)
		if err != nil {
			return plugins.Status{}, err
		}
		if begun == s.rollouts() {
			return r.status(app, t, f, now, last), nil
		}
	}
}

// RemoveEnv replaces the target's containers by such without our variables, and
// waits until it is done. A call that is given up leaves it going on; the next one
// joins.
func (r *containerRuntime) RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error {
	s := r.slot(req.App, req.Target)
	o, err := r.removal(ctx, s, req)
	if o == nil || err != nil {
		return err
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case o.err == nil:
		return nil
	case errors.Is(o.err, context.Canceled):
		return fmt.Errorf("%w: a newer push took the target over", plugins.ErrUnavailable)
	}
	return fmt.Errorf("%w: %w", plugins.ErrUnavailable, o.err)
}

// removal decides, in its turn, and gives the rollout to wait for; nil when nothing
// of ours is there.
func (r *containerRuntime) removal(ctx context.Context, s *slot, req plugins.RemoveRequest) (*rollout, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	f, err := r.find(ctx, req.App, req.Target)
	if err != nil {
		return nil, err
	}
	now, last := s.state()
	if err := s.admitRemoval(f, now, last, req); err != nil {
		return nil, err
	}
	if now != nil && now.wish == nil {
		return now, nil
	}
	if now != nil {
		if err := s.overtake(ctx, now); err != nil {
			return nil, err
		}
		if f, err = r.find(ctx, req.App, req.Target); err != nil {
			return nil, err
		}
	}
	if f.newest() == nil && len(f.pairs) == 0 {
		s.mu.Lock()
		s.last = nil
		s.mu.Unlock()
		return nil, nil
	}
	return r.begin(s, req.App, req.Target, nil, req.Fence), nil
}

// ListTargets asks the engine for the containers that have labels of ours.
func (r *containerRuntime) ListTargets(ctx context.Context, app string) ([]plugins.AppTarget, error) {
	labels := []string{labelGeneration, labelApp}
	if app != "" {
		labels[1] = labelApp + "=" + app
	}
	items, err := r.engine.list(ctx, labels...)
	if err != nil {
		return nil, err
	}
	var out []plugins.AppTarget
	for _, item := range items {
		c, err := r.engine.inspect(ctx, item.ID)
		if err != nil {
			return nil, err
		}
		if c == nil || !hasLabels(c.Config.Labels, labels) {
			continue
		}
		for _, t := range targetsOf(c.Config.Labels) {
			if at := (plugins.AppTarget{App: c.Config.Labels[labelApp], Target: t}); !slices.Contains(out, at) {
				out = append(out, at)
			}
		}
	}
	return out, nil
}
