package plugins

import (
	"context"
	"fmt"

	"github.com/warifu/warifu/plugins/pluginpb"
)

// The operations, as errors name them.
const (
	opEvaluate = "Evaluate"
	opPush     = "PushEnv"
	opObserve  = "ObserveEnv"
	opRemove   = "RemoveEnv"
	opList     = "ListTargets"
)

// Hook is a deploy hook that the host runs.
type Hook struct{ s *supervisor }

// Name is its configured name.
func (h *Hook) Name() string { return h.s.name }

// Describe starts the hook when it is not running and says what it calls itself.
func (h *Hook) Describe(ctx context.Context) (Description, error) { return h.s.describe(ctx) }

// Evaluate asks the hook and holds its answer against the contract. The errors
// are a *CallError or a *BackoffError.
func (h *Hook) Evaluate(ctx context.Context, req EvaluateRequest) (Answer, error) {
	previous, err := answerToPB(req.Previous)
	if err != nil {
		return Answer{}, h.s.refuse(opEvaluate, ErrInvalid, err)
	}
	var resp *pluginpb.EvaluateResponse
	err = h.s.call(ctx, opEvaluate, h.s.host.deadlines.Evaluate, func(ctx context.Context, p *process) (err error) {
		resp, err = pluginpb.NewDeployHookClient(p.conn).Evaluate(ctx, &pluginpb.EvaluateRequest{
			ManifestJson: req.Manifest,
			Registered:   registrationToPB(req.Registered),
			Previous:     previous,
			Issuer:       req.Issuer,
			Dev:          req.Dev,
		})
		return err
	})
	if err != nil {
		return Answer{}, err
	}
	answer, err := answerFromPB(resp.GetAnswer())
	if err == nil && answer == nil {
		err = fmt.Errorf("an answer without content")
	}
	if err == nil {
		err = answer.check()
	}
	if err != nil {
		return Answer{}, h.s.refuse(opEvaluate, ErrContract, err)
	}
	h.s.clean(answer.Warnings)
	h.s.clean(answer.Denials)
	return *answer, nil
}

// clean makes a hook's words fit for a terminal and a log.
func (s *supervisor) clean(notices []Notice) {
	for i := range notices {
		for _, text := range []*string{&notices[i].Code, &notices[i].Path, &notices[i].Message, &notices[i].Remedy} {
			*text = s.host.scrub.clean(*text)
		}
	}
}

// Runtime is a runtime that the host runs.
type Runtime struct{ s *supervisor }

// Name is its configured name.
func (r *Runtime) Name() string { return r.s.name }

// Describe starts the runtime when it is not running and says what it calls
// itself and which kinds of targets it serves.
func (r *Runtime) Describe(ctx context.Context) (Description, error) { return r.s.describe(ctx) }

// PushEnv says what a target is to have. ErrStale and ErrDigestConflict are the
// contract's refusals; after ErrDeadline and ErrUnavailable nobody knows whether
// it happened, so observe first. A rollout that failed is a Status, not an error.
func (r *Runtime) PushEnv(ctx context.Context, req PushRequest) (Status, error) {
	if err := req.check(); err != nil {
		return Status{}, r.s.refuse(opPush, ErrInvalid, err)
	}
	for _, value := range req.Env {
		r.s.host.scrub.learn(value)
	}
	var resp *pluginpb.PushEnvResponse
	err := r.s.call(ctx, opPush, r.s.host.deadlines.Push, func(ctx context.Context, p *process) (err error) {
		resp, err = pluginpb.NewRuntimeClient(p.conn).PushEnv(ctx, pushToPB(req))
		return err
	})
	if err != nil {
		return Status{}, err
	}
	st := r.status(resp.GetStatus())
	if err := st.checkPush(req); err != nil {
		return Status{}, r.s.refuse(opPush, ErrContract, err)
	}
	return st, nil
}

// ObserveEnv says what a target has now.
func (r *Runtime) ObserveEnv(ctx context.Context, app string, target Target) (Status, error) {
	if err := target.Check(); err != nil {
		return Status{}, r.s.refuse(opObserve, ErrInvalid, err)
	}
	var resp *pluginpb.ObserveEnvResponse
	err := r.s.call(ctx, opObserve, r.s.host.deadlines.Observe, func(ctx context.Context, p *process) (err error) {
		resp, err = pluginpb.NewRuntimeClient(p.conn).ObserveEnv(ctx,
			&pluginpb.ObserveEnvRequest{App: app, Target: targetToPB(target)})
		return err
	})
	if err != nil {
		return Status{}, err
	}
	st := r.status(resp.GetStatus())
	if err := st.check(); err != nil {
		return Status{}, r.s.refuse(opObserve, ErrContract, err)
	}
	return st, nil
}

// RemoveEnv takes our variables away from a target. It is done also when there
// are none.
func (r *Runtime) RemoveEnv(ctx context.Context, req RemoveRequest) error {
	if err := checkAddressed(req.App, req.Target, req.Generation, req.Fence); err != nil {
		return r.s.refuse(opRemove, ErrInvalid, err)
	}
	return r.s.call(ctx, opRemove, r.s.host.deadlines.Push, func(ctx context.Context, p *process) error {
		_, err := pluginpb.NewRuntimeClient(p.conn).RemoveEnv(ctx, &pluginpb.RemoveEnvRequest{
			App: req.App, Target: targetToPB(req.Target), Generation: req.Generation, Fence: req.Fence})
		return err
	})
}

// ListTargets gives the targets that hold variables of ours, of one app or, with
// an empty name, of all.
func (r *Runtime) ListTargets(ctx context.Context, app string) ([]AppTarget, error) {
	var resp *pluginpb.ListTargetsResponse
	err := r.s.call(ctx, opList, r.s.host.deadlines.Observe, func(ctx context.Context, p *process) (err error) {
		resp, err = pluginpb.NewRuntimeClient(p.conn).ListTargets(ctx, &pluginpb.ListTargetsRequest{App: app})
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []AppTarget
	for _, t := range resp.GetTargets() {
		listed := AppTarget{App: t.GetApp(), Target: targetFromPB(t.GetTarget())}
		if err := listed.Target.Check(); err != nil {
			return nil, r.s.refuse(opList, ErrContract, err)
		}
		if app == "" || listed.App == app {
			out = append(out, listed)
		}
	}
	return out, nil
}

// status takes a plugin's status over, its words scrubbed and shortened.
func (r *Runtime) status(in *pluginpb.Status) Status {
	st := statusFromPB(in)
	scrub := r.s.host.scrub
	st.Location = scrub.cleanLine(st.Location, maxErrorText)
	if d := st.Diagnostic; d != nil {
		d.Message = scrub.cleanLine(d.Message, maxErrorText)
		d.Remedy = scrub.cleanLine(d.Remedy, maxErrorText)
	}
	return st
}

func (s *supervisor) describe(ctx context.Context) (Description, error) {
	p, err := s.acquire(ctx)
	if err != nil {
		return Description{}, err
	}
	defer s.release(p)
	return p.description, nil
}

// refuse is an error of the host's own about a call.
func (s *supervisor) refuse(op string, kind, err error) error {
	return &CallError{Plugin: s.name, Op: op, Err: kind, Message: s.host.scrub.cleanLine(err.Error(), maxErrorText)}
}
