package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/warifu/warifu/plugins"
)

// version is set when it is built.
var version = "unknown"

func main() { plugins.ServeRuntime(&runtime{}) }

// runtime is safe for several goroutines once it is configured.
type runtime struct {
	settings settings
	cluster  *cluster

	mu    sync.Mutex // guards turns
	turns map[plugins.AppTarget]chan struct{}
}

func (*runtime) Describe() plugins.Description {
	return plugins.Description{Name: "kubernetes", Version: version}
}

// Configure checks the settings. The cluster need not be there.
func (r *runtime) Configure(_ context.Context, config json.RawMessage, _ string) error {
	s, err := parseSettings(config)
	if err != nil {
		return fmt.Errorf("%w: %w", plugins.ErrInvalid, err)
	}
	connection, namespace, err := s.connection()
	if err == nil {
		r.cluster, err = dial(connection, namespace)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", plugins.ErrInvalid, err)
	}
	r.settings, r.turns = s, map[plugins.AppTarget]chan struct{}{}
	return nil
}

// turn waits until nobody else in this process changes a target, and gives what ends the turn.
func (r *runtime) turn(ctx context.Context, at plugins.AppTarget) (func(), error) {
	r.mu.Lock()
	turn := r.turns[at]
	if turn == nil {
		turn = make(chan struct{}, 1)
		r.turns[at] = turn
	}
	r.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// found is what a target has in the cluster. The workloads were read before the Secret, and are written after it. So
// what is written to a workload in the version that was read here never replaces something newer than the Secret that
// was read, whoever else is at work.
type found struct {
	at        plugins.AppTarget
	workloads []workload // that are to have the variables
	former    []workload // that are not, and have some all the same; only everywhere finds them
	record    *record    // nil: no Secret
	foreign   error      // the Secret is somebody else's
}

func (r *runtime) find(ctx context.Context, at plugins.AppTarget) (found, error) {
	f := found{at: at}
	var err error
	if f.workloads, err = r.workloads(ctx, at); err != nil {
		return f, err
	}
	return f, r.readSecret(ctx, &f)
}

// everywhere also finds what a target has left in workloads of the namespace that are not its own any more.
func (r *runtime) everywhere(ctx context.Context, at plugins.AppTarget) (found, error) {
	f := found{at: at}
	all, err := r.list(ctx, "")
	if err != nil {
		return f, err
	}
	for _, w := range all {
		if r.serves(w, at) {
			f.workloads = append(f.workloads, w)
		} else if w.has(secretName(at)) {
			f.former = append(f.former, w)
		}
	}
	return f, r.readSecret(ctx, &f)
}

func (r *runtime) readSecret(ctx context.Context, f *found) error {
	secret, err := r.cluster.get(ctx, &secrets, secretName(f.at))
	if err == nil {
		f.record, f.foreign = readRecord(secret, f.at)
	}
	return err
}

// tries is how often a push or removal is begun again because somebody else wrote in the middle of it: another server,
// or the controller that counts a workload's pods.
const tries = 10

// errAgain says that something is not any more as it was read.
var errAgain = errors.New("it was written by somebody else meanwhile")

func overwritten(at plugins.AppTarget) error {
	return fmt.Errorf("%w: Secret/%s or its workloads are written by somebody else all the time", plugins.ErrUnavailable,
		secretName(at))
}

func (r *runtime) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	st, err := r.push(ctx, req)
	if err != nil {
		err = hidden{err, hide(err.Error(), req.Env)}
	}
	return st, err
}

func (r *runtime) push(ctx context.Context, req plugins.PushRequest) (st plugins.Status, err error) {
	at := plugins.AppTarget{App: req.App, Target: req.Target}
	if err := r.findable(at); err != nil {
		return st, err
	}
	done, err := r.turn(ctx, at)
	if err != nil {
		return st, err
	}
	defer done()
	for range tries {
		f, err := r.everywhere(ctx, at)
		if err != nil {
			return st, err
		}
		if err := plugins.Admit(f.record.held(), req); err != nil {
			return st, err
		}
		diagnostic, err := r.put(ctx, f, req)
		if no := (*refusal)(nil); errors.As(err, &no) {
			diagnostic, err = no.diagnostic(req.Env), nil
		}
		switch {
		case errors.Is(err, errAgain):
			continue
		case err != nil:
			return st, err
		case diagnostic != nil:
			return r.failed(f, diagnostic), nil
		}
		return r.ObserveEnv(ctx, req.App, req.Target)
	}
	return st, overwritten(at)
}

// put writes what is lacking. It returns [errAgain], or what no push can get through.
func (r *runtime) put(ctx context.Context, f found, req plugins.PushRequest) (*plugins.Diagnostic, error) {
	if bad := r.unfit(f, req); bad != nil {
		return bad, nil
	}
	next := f.record
	if next == nil || next.generation != req.Generation || !next.intact() {
		next = newRecord(f.record, req, r.status(f).ServingGeneration, time.Now())
	} else if next.fence != req.Fence {
		next = next.refenced(req.Fence)
	}
	lacking, diagnostic, err := r.rehearse(ctx, f.workloads, next)
	if diagnostic != nil || err != nil {
		return diagnostic, err
	}
	if next != f.record {
		if err := r.write(ctx, next); err != nil {
			return nil, err
		}
	}
	for _, w := range lacking {
		if diagnostic, err := r.give(ctx, w, next, false); diagnostic != nil || err != nil {
			return diagnostic, err
		}
	}
	return nil, r.takeBack(ctx, f.former, next.name())
}

// write puts a record into its Secret, which must be as it was read. It is made empty at first: what is made at once is
// not what a field manager applies, and would stay when the next generation has not got it.
func (r *runtime) write(ctx context.Context, next *record) (err error) {
	if next.object == nil {
		next.object, err = r.cluster.create(ctx, &secrets, next.name(), secrets.object(next.metadata()))
		if apierrors.IsAlreadyExists(err) {
			return errAgain
		}
		if err != nil {
			return err
		}
	}
	err = r.cluster.apply(ctx, &secrets, next.name(), next.apply(), applying{manager: next.name(), force: true})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return errAgain
	}
	return err
}

// longest is what a program can be started with, bytes of a variable's name and value together: MAX_ARG_STRLEN, less
// the = and the zero.
const longest = 128<<10 - 2

// unfit says what keeps any push from being carried, without a look at the cluster.
func (r *runtime) unfit(f found, req plugins.PushRequest) *plugins.Diagnostic {
	for name, value := range req.Env {
		problem := ""
		if strings.ContainsRune(value, 0) {
			problem = "has a zero byte, which no environment can hold"
		} else if len(name)+len(value) > longest {
			problem = fmt.Sprintf("is longer than the %d KiB that a program of Linux can be started with", longest>>10)
		}
		if problem != "" {
			return &plugins.Diagnostic{Message: "the value of variable " + name + " " + problem,
				Remedy: "give the variable another value"}
		}
	}
	if f.foreign != nil {
		return &plugins.Diagnostic{Message: f.foreign.Error(), Remedy: "delete it, or give it the label", Retryable: true}
	}
	if file := req.Env[variableAssertion]; file != "" {
		if req.Env[variableIssuer] == "" {
			return &plugins.Diagnostic{Message: variableAssertion + " is wanted, but not " + variableIssuer +
				", which its token is for", Remedy: "let env have " + variableIssuer + " as well"}
		}
		if path.Clean(file) != file || path.Dir(path.Dir(file)) == path.Dir(file) {
			return &plugins.Diagnostic{Message: fmt.Sprintf("%s is %q, and a token can only be mounted in a "+
				"directory of its own",
				variableAssertion, file),
				Remedy: "let it be an absolute path, such as /var/run/secrets/warifu/token"}
		}
	}
	if len(f.workloads) == 0 {
		return r.nowhere(f.at)
	}
	return nil
}

// rehearse tries on every workload that lacks something whether it would be given it, so that nothing is half-written
// when it would not.
func (r *runtime) rehearse(ctx context.Context, all []workload, next *record) ([]workload, *plugins.Diagnostic, error) {
	var lacking []workload
	for _, w := range all {
		problem, _, err := w.lacks(next)
		if err != nil {
			return nil, nil, err
		}
		if problem == "" {
			continue
		}
		t, err := w.template()
		if err != nil {
			return nil, nil, err
		}
		if _, missing := w.chosen(t); len(missing) > 0 {
			return nil, &plugins.Diagnostic{Message: w.String() + ": " + problem, Remedy: "correct the annotation",
				Retryable: true}, nil
		}
		if diagnostic, err := r.give(ctx, w, next, true); diagnostic != nil || err != nil {
			return nil, diagnostic, err
		}
		lacking = append(lacking, w)
	}
	return lacking, nil, nil
}

// give applies a workload's wish, or only tries to.
func (r *runtime) give(ctx context.Context, w workload, next *record, dry bool) (*plugins.Diagnostic, error) {
	owned := func(problem string) *plugins.Diagnostic {
		return &plugins.Diagnostic{Message: problem, Retryable: true,
			Remedy: "take it out of what they apply (nothing is taken by force); the next push then goes on"}
	}
	problem, err := w.contested(next)
	if err != nil {
		return nil, err
	}
	if problem != "" {
		return owned(problem), nil
	}
	wish, err := w.wish(next)
	if err != nil {
		return nil, err
	}
	how := applying{manager: next.name(), dry: dry}
	err = r.cluster.apply(ctx, w.resource, w.object.GetName(), wish, how)
	if fields := conflicts(err); len(fields) == 1 && fields[0].Field == next.stampField() && !ofAnotherTarget(fields[0]) {
		// Who went back to an older template, as kubectl rollout undo does, has brought back our own old stamp.
		how.force = true
		err = r.cluster.apply(ctx, w.resource, w.object.GetName(), wish, how)
	}
	if fields := conflicts(err); len(fields) > 0 {
		var owners []string
		for _, field := range fields {
			owners = append(owners, field.Field+": "+field.Message)
		}
		return owned(fmt.Sprintf("fields of %s belong to somebody else: %s", w, strings.Join(owners, "; "))), nil
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil, errAgain
	}
	return nil, err
}

// ofAnotherTarget reports whether a field belongs to a manager of ours, because the config assigns one workload twice.
func ofAnotherTarget(field metav1.StatusCause) bool {
	return strings.Contains(field.Message, `"`+namePrefix)
}

// conflicts are the fields that were to be applied and belong to somebody else; none when an error is another one.
func conflicts(err error) []metav1.StatusCause {
	var status *apierrors.StatusError
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.ErrStatus.Details == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(status.ErrStatus.Details.Causes), func(cause metav1.StatusCause) bool {
		return cause.Type != metav1.CauseTypeFieldManagerConflict
	})
}

// diagnostic says what the cluster refuses, by its own rules or those of an admission policy, which may name values.
func (r *refusal) diagnostic(env map[string]string) *plugins.Diagnostic {
	code := r.err.ErrStatus.Code
	return &plugins.Diagnostic{
		Message: "the cluster refuses it: " + hide(r.Error(), env), Remedy: "change what it objects to, then: warifu retry",
		Retryable: code != 422 && code != 413,
	}
}

func (r *runtime) ObserveEnv(ctx context.Context, app string, t plugins.Target) (plugins.Status, error) {
	f, err := r.find(ctx, plugins.AppTarget{App: app, Target: t})
	if err != nil {
		return plugins.Status{}, err
	}
	return r.status(f), nil
}

// RemoveEnv takes our fields out of every workload that has some, and then deletes the Secret.
func (r *runtime) RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error {
	at := plugins.AppTarget{App: req.App, Target: req.Target}
	done, err := r.turn(ctx, at)
	if err != nil {
		return err
	}
	defer done()
	for range tries {
		f, err := r.everywhere(ctx, at)
		if err != nil {
			return unavailable(err)
		}
		if err := plugins.AdmitRemoval(f.record.held(), req); err != nil {
			return err
		}
		err = r.takeBack(ctx, append(f.workloads, f.former...), secretName(at))
		if err == nil && f.record != nil {
			err = r.cluster.delete(ctx, &secrets, f.record.object)
		}
		if !errors.Is(err, errAgain) && !apierrors.IsConflict(err) {
			return unavailable(err)
		}
	}
	return overwritten(at)
}

// takeBack takes out of workloads what a field manager of ours has in them.
func (r *runtime) takeBack(ctx context.Context, from []workload, manager string) error {
	for _, w := range from {
		if !w.has(manager) {
			continue
		}
		err := r.cluster.apply(ctx, w.resource, w.object.GetName(), w.bare(), applying{manager: manager})
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return errAgain
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unavailable is for calls that have no status with which to say that something must change first.
func unavailable(err error) error {
	var no *refusal
	if errors.As(err, &no) {
		return fmt.Errorf("%w: the cluster refuses it: %w", plugins.ErrUnavailable, err)
	}
	return err
}

// ListTargets gives the targets that have a Secret.
func (r *runtime) ListTargets(ctx context.Context, app string) ([]plugins.AppTarget, error) {
	all, err := r.cluster.list(ctx, &secrets, labelManaged+"="+managed)
	if err != nil {
		return nil, unavailable(err)
	}
	var out []plugins.AppTarget
	for i := range all {
		if at, is := targetOf(&all[i]); is && (app == "" || app == at.App) {
			out = append(out, at)
		}
	}
	return out, nil
}
