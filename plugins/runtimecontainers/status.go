package runtimecontainers

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/warifu/warifu/plugins"
)

// status says what a target has: by its containers, by the replacement that goes
// on, and by the one that failed last.
func (r *containerRuntime) status(app string, t plugins.Target, f found, now *rollout, last *outcome) plugins.Status {
	st := plugins.Status{State: plugins.StateFailed, Location: locations(f.active())}
	if m := f.newest(); m != nil {
		st.AcceptedGeneration, st.Digest, st.Present = m.generation, m.digest, true
	}
	st.ServingGeneration = r.serving(f)
	if now != nil && now.wish != nil {
		st.State, st.Present = plugins.StateRolling, true
		st.AcceptedGeneration, st.Digest = now.wish.generation, now.wish.digest
		st.Instances = r.counted(f, now.wish.generation)
		return st
	}
	if last != nil && last.generation >= st.AcceptedGeneration &&
		(st.ServingGeneration != last.generation || len(f.pairs) > 0) && len(f.instances) > 0 {
		st.AcceptedGeneration, st.Digest, st.Diagnostic = last.generation, last.digest, last.diagnostic
		st.Instances = r.counted(f, st.ServingGeneration)
		return st
	}
	st.Instances = r.counted(f, st.AcceptedGeneration)
	st.Diagnostic = r.diagnose(app, t, f, st)
	if st.Diagnostic == nil {
		st.State = plugins.StateReady
	}
	return st
}

// serving gives the generation that every container has, intact; 0 for none.
func (r *containerRuntime) serving(f found) int64 {
	lowest := int64(0)
	for i, c := range f.active() {
		m := readMark(c.Config.Labels)
		if !m.intact(r.key, c.Config.Env) || !running(c) {
			return 0
		}
		if i == 0 || m.generation < lowest {
			lowest = m.generation
		}
	}
	return lowest
}

// counted gives how many containers have a generation, intact, and run.
func (r *containerRuntime) counted(f found, generation int64) int {
	n := 0
	count := func(c *container.InspectResponse) {
		m := readMark(c.Config.Labels)
		if m != nil && m.generation == generation && running(c) && m.intact(r.key, c.Config.Env) {
			n++
		}
	}
	for _, c := range f.active() {
		count(c)
	}
	return n
}

// diagnose says in which way the containers are not what they should be; nil when
// they are.
func (r *containerRuntime) diagnose(app string, t plugins.Target, f found, st plugins.Status) *plugins.Diagnostic {
	if len(f.instances) == 0 && len(f.inherited) > 0 {
		label, _ := targetLabel(t.Kind)
		return &plugins.Diagnostic{
			Message: fmt.Sprintf("container %s has the labels %s=%s and %s=%s from its image (or its image is gone), and "+
				"labels of images do not count: "+
				"whoever builds an image must not choose whose variables it gets", f.inherited[0], labelApp, app, label, t.Name),
			Remedy: "build the image without these labels and give them to the container, with --label or the service's " +
				"labels of a compose file",
			Retryable: true,
		}
	}
	if len(f.instances) == 0 {
		label, _ := targetLabel(t.Kind)
		return &plugins.Diagnostic{
			Message: fmt.Sprintf("the engine has no container with the labels %s=%s and %s=%s", labelApp, app, label, t.Name),
			Remedy: fmt.Sprintf("start it with --label %s=%s --label %s=%s; its variables then follow by themselves",
				labelApp, app, label, t.Name),
			Retryable: true,
		}
	}
	again := "the next push puts it right; to have it at once, apply the app again"
	if len(f.pairs) > 0 {
		p := f.pairs[0]
		return &plugins.Diagnostic{Retryable: true, Remedy: again,
			Message: fmt.Sprintf("the replacement of container %s by %s was interrupted", nameOf(p.old), nameOf(p.next))}
	}
	for _, c := range f.active() {
		m := readMark(c.Config.Labels)
		switch {
		case m == nil:
			return &plugins.Diagnostic{Retryable: true, Remedy: again,
				Message: fmt.Sprintf("container %s has no variables of warifu's: it was made by somebody else", nameOf(c))}
		case !m.intact(r.key, c.Config.Env):
			return &plugins.Diagnostic{Retryable: true, Remedy: again,
				Message: fmt.Sprintf("the variables of container %s were changed by somebody else", nameOf(c))}
		case m.generation != st.AcceptedGeneration:
			return &plugins.Diagnostic{Retryable: true, Remedy: again,
				Message: fmt.Sprintf("container %s has generation %d, others have %d", nameOf(c), m.generation,
					st.AcceptedGeneration)}
		case !running(c):
			return &plugins.Diagnostic{Retryable: true, Remedy: "see its log, mend it and start it",
				Message: fmt.Sprintf("container %s has its variables, but %s", nameOf(c), condition(c))}
		}
	}
	return nil
}

// condition says in words what a container does that does not run.
func condition(c *container.InspectResponse) string {
	switch {
	case c.State.Paused:
		return "is paused"
	case c.State.Restarting:
		return fmt.Sprintf("ends and is started again and again, last with code %d", c.State.ExitCode)
	case c.State.OOMKilled:
		return "was ended for want of memory"
	case c.State.Status == container.StateCreated:
		return "was never started"
	}
	return fmt.Sprintf("has ended with code %d", c.State.ExitCode)
}

// locations names the containers, a few of them.
func locations(cs []*container.InspectResponse) string {
	const most = 3
	var names []string
	for _, c := range cs[:min(len(cs), most)] {
		names = append(names, nameOf(c))
	}
	if len(cs) > most {
		names = append(names, fmt.Sprintf("%d more", len(cs)-most))
	}
	return strings.Join(names, ", ")
}
