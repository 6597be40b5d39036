package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/warifu/warifu/plugins"
)

// status says what a target has, by its Secret and its workloads alone.
func (r *runtime) status(f found) plugins.Status {
	st := plugins.Status{State: plugins.StateFailed, Location: r.location(f)}
	if f.record != nil && f.record.generation > 0 {
		st.AcceptedGeneration, st.Digest, st.Present = f.record.generation, f.record.digest, true
	}
	drift := func(serving int64, problem string) plugins.Status {
		st.ServingGeneration = serving
		st.Diagnostic = &plugins.Diagnostic{Message: problem, Retryable: true,
			Remedy: "the next push puts it right; to have it at once, apply the app again"}
		return st
	}
	switch {
	case f.foreign != nil:
		return drift(0, f.foreign.Error())
	case len(f.workloads) == 0:
		st.Diagnostic = r.nowhere(f.at)
		return st
	case !st.Present:
		return drift(0, fmt.Sprintf("%s has no variables of warifu's: there is no Secret/%s with some", f.workloads[0],
			secretName(f.at)))
	case !f.record.intact():
		return drift(0, fmt.Sprintf("Secret/%s was changed by somebody else", f.record.name()))
	}
	st.State = plugins.StateReady
	for _, w := range f.workloads {
		problem, stamp, err := w.lacks(f.record)
		if err != nil {
			return drift(0, err.Error())
		}
		if problem != "" {
			serving := int64(0)
			if was := stamped(stamp); was > 0 && was < f.record.generation {
				serving = f.record.before // it was never given this one
			}
			st.State = plugins.StateFailed
			return drift(serving, fmt.Sprintf("%s: %s", w, problem))
		}
		r.advance(&st, w, f.record)
		if st.State == plugins.StateFailed {
			return st
		}
	}
	if st.State == plugins.StateReady {
		st.ServingGeneration = f.record.generation
	}
	return st
}

// advance adds what one workload's controller says to a status.
func (r *runtime) advance(st *plugins.Status, w workload, has *record) {
	p, err := w.progress()
	if err != nil {
		p.failed = &plugins.Diagnostic{Message: err.Error(), Retryable: true}
	}
	st.Instances += p.pods
	if p.done {
		return
	}
	// When some pods of the template are available and no others are left, the rollout is over, whatever has befallen the
	// rest of them since.
	if limit := time.Duration(r.settings.RolloutTimeout); p.failed == nil && !p.through && time.Since(has.pushed) > limit {
		p.failed = w.overdue(p, limit)
	}
	st.State, st.ServingGeneration = plugins.StateRolling, has.before
	if p.failed != nil {
		st.State, st.Diagnostic = plugins.StateFailed, p.failed
	}
}

// failed is the status after a push that did not get through: what was there is still there.
func (r *runtime) failed(f found, why *plugins.Diagnostic) plugins.Status {
	st := r.status(f)
	st.State, st.Diagnostic = plugins.StateFailed, why
	return st
}

func (r *runtime) nowhere(at plugins.AppTarget) *plugins.Diagnostic {
	if assigned, is := r.settings.assigned(at.App, at.Target); is {
		return &plugins.Diagnostic{
			Message: fmt.Sprintf("namespace %s has no %s, which the config assigns", r.cluster.namespace, assigned),
			Remedy:  "create it, or correct workloads in the config of the runtime", Retryable: true,
		}
	}
	return &plugins.Diagnostic{
		Message: fmt.Sprintf("namespace %s has no Deployment, StatefulSet or DaemonSet with the labels %s=%s and %s%s=%s",
			r.cluster.namespace, labelApp, at.App, labelTarget, at.Target.Kind, at.Target.Name),
		Remedy: "give it these labels (metadata.labels of the workload, not of its pods); its variables then follow by " +
			"themselves", Retryable: true,
	}
}

// location names the workloads, a few of them.
func (r *runtime) location(f found) string {
	const most = 3
	var names []string
	for _, w := range f.workloads[:min(len(f.workloads), most)] {
		names = append(names, w.String())
	}
	if len(f.workloads) > most {
		names = append(names, fmt.Sprintf("%d more", len(f.workloads)-most))
	}
	if len(names) == 0 {
		return ""
	}
	return strings.Join(names, ", ") + " in " + r.cluster.namespace
}
