package runtimecontainers

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/container"

	"github.com/warifu/warifu/plugins"
)

// found is what the engine has for a target.
type found struct {
	instances []*container.InspectResponse // by name; without those that are on their way to replace one
	pairs     []pair
	// Names of containers that have the target's labels from their image alone, or from one that is gone
	inherited []string
}

// pair is a replacement that is not finished: both exist.
type pair struct{ old, next *container.InspectResponse }

// find asks the engine for a target's containers. Those that go away meanwhile are
// not there.
func (r *containerRuntime) find(ctx context.Context, app string, t plugins.Target) (found, error) {
	label, ok := targetLabel(t.Kind)
	if !ok || app == "" || t.Name == "" {
		return found{}, fmt.Errorf("%w: target %s of app %q is not a container or service", plugins.ErrInvalid, t, app)
	}
	wanted := []string{labelApp + "=" + app, label + "=" + t.Name}
	items, err := r.engine.list(ctx, wanted...)
	if err != nil {
		return found{}, err
	}
	var f found
	byID := map[string]*container.InspectResponse{}
	for _, item := range items {
		c, err := r.engine.inspect(ctx, item.ID)
		if err != nil {
			return found{}, err
		}
		if c == nil {
			continue
		}
		if !hasLabels(c.Config.Labels, wanted) {
			f.inherited = append(f.inherited, nameOf(c))
			continue
		}
		byID[c.ID] = c
	}
	slices.Sort(f.inherited)
	for _, c := range byID {
		if old := byID[c.Config.Labels[labelReplaces]]; old != nil && old != c {
			f.pairs = append(f.pairs, pair{old: old, next: c})
		} else {
			f.instances = append(f.instances, c)
		}
	}
	slices.SortFunc(f.instances, func(a, b *container.InspectResponse) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(f.pairs, func(a, b pair) int { return cmp.Compare(a.next.Name, b.next.Name) })
	return f, nil
}

// active gives the containers that serve the target: those that run, or all when
// none does.
func (f found) active() []*container.InspectResponse {
	var out []*container.InspectResponse
	for _, c := range f.instances {
		if alive(c) {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return f.instances
	}
	return out
}

// alive is a container that somebody wants to run.
func alive(c *container.InspectResponse) bool {
	return c.State.Running || c.State.Restarting || c.State.Paused
}

// running is a container whose process is there.
func running(c *container.InspectResponse) bool {
	return c.State.Running && !c.State.Restarting && !c.State.Paused
}

// newest gives the mark with the highest generation of all, those on their way
// included, and the highest fence; nil without any.
func (f found) newest() *mark {
	var out *mark
	look := func(c *container.InspectResponse) {
		m := readMark(c.Config.Labels)
		switch {
		case m == nil:
		case out == nil:
			out = m
		case m.generation > out.generation:
			m.fence = max(m.fence, out.fence)
			out = m
		default:
			out.fence = max(m.fence, out.fence)
		}
	}
	for _, c := range f.instances {
		look(c)
	}
	for _, p := range f.pairs {
		look(p.next)
	}
	return out
}

// serves reports whether a container has the variables of a generation, as they
// were pushed.
func (r *containerRuntime) serves(c *container.InspectResponse, generation int64, digest string) bool {
	m := readMark(c.Config.Labels)
	return m != nil && m.generation == generation && m.digest == digest && m.intact(r.key, c.Config.Env)
}

// lacking gives the containers that have yet to be replaced for a wish.
func (r *containerRuntime) lacking(f found, w *wish) []*container.InspectResponse {
	if w == nil {
		return slices.DeleteFunc(slices.Clone(f.instances), func(c *container.InspectResponse) bool {
			return readMark(c.Config.Labels) == nil
		})
	}
	return slices.DeleteFunc(slices.Clone(f.active()), func(c *container.InspectResponse) bool {
		return r.serves(c, w.generation, w.digest)
	})
}
