package manifests

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/warifu/warifu/storage"
)

// Assignment gives targets to a runtime. Kind, App and Name are patterns (path.Match); an empty one fits everything.
type Assignment struct {
	Kind, App, Name string
	// Runtime is the name of the one that gets them.
	Runtime string
}

func (a Assignment) fits(app string, t storage.Target) bool {
	fits := func(pattern, name string) bool {
		ok, err := path.Match(pattern, name)
		return pattern == "" || err == nil && ok
	}
	return fits(a.Kind, t.Kind) && fits(a.App, app) && fits(a.Name, t.Name)
}

// assigned is the runtime that the configuration names for a target; empty if it names none.
func (s *settings) assigned(app string, t storage.Target) string {
	for _, a := range s.assignments {
		if a.fits(app, t) {
			return a.Runtime
		}
	}
	return ""
}

// runtimeNamed returns the configured runtime of that name, and its index.
func (s *settings) runtimeNamed(name string) (Runtime, int) {
	for i, rt := range s.runtimes {
		if rt.Name() == name {
			return rt, i
		}
	}
	return nil, -1
}

// runtimeFor is the runtime of a delivery: the one that it is assigned to; without an assignment the one that has it,
// or else the first that serves its kind. Env is taken away by the runtime that has it. The error is errAsking or an
// [*unserved].
func (c *catalog) runtimeFor(ctx context.Context, x *storage.Delivery) (Runtime, error) {
	if x.Remove {
		if x.Runtime == "" {
			return nil, nil // no runtime ever had it: there is nothing to take away
		}
		if rt, _ := c.set.runtimeNamed(x.Runtime); rt != nil {
			return rt, nil
		}
		return nil, &unserved{
			message: fmt.Sprintf("runtime %s, which has the env of this target, is no longer configured", x.Runtime),
			remedy:  "configure the runtime again, so that the env can be taken away there",
		}
	}
	if name := c.set.assigned(x.App, x.Target); name != "" {
		return c.assignedRuntime(ctx, x, name)
	}
	if rt, _ := c.set.runtimeNamed(x.Runtime); rt != nil {
		return rt, nil
	}
	for i, rt := range c.set.runtimes {
		serves, _, err := c.serves(ctx, i, x.Target.Kind)
		if err != nil {
			return nil, err
		}
		if serves {
			return rt, nil
		}
	}
	return nil, &unserved{
		message: fmt.Sprintf("no runtime serves %ss", x.Target.Kind),
		remedy:  "configure one (plugins.runtimes), or hand the credentials to the app by other means: warifu credentials",
	}
}

func (c *catalog) assignedRuntime(ctx context.Context, x *storage.Delivery, name string) (Runtime, error) {
	rt, i := c.set.runtimeNamed(name)
	if rt == nil {
		return nil, &unserved{
			message: fmt.Sprintf("runtime %s, to which this target is assigned, is not configured", name),
			remedy:  "name a runtime of plugins.runtimes in plugins.targets",
		}
	}
	if x.Runtime == name {
		return rt, nil // it has accepted the target before, so it serves the kind
	}
	serves, kinds, err := c.serves(ctx, i, x.Target.Kind)
	if err != nil || serves {
		return rt, err
	}
	return nil, &unserved{
		message: fmt.Sprintf("runtime %s, to which this target is assigned, serves only %ss", name,
			strings.Join(kinds, "s and ")),
		remedy: "assign it to another runtime (plugins.targets)",
	}
}

// serves reports whether a runtime serves a kind, and which kinds it serves.
func (c *catalog) serves(ctx context.Context, i int, kind string) (bool, []string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &c.entries[i]
	switch {
	case e.known:
		return len(e.kinds) == 0 || slices.Contains(e.kinds, kind), e.kinds, nil
	case e.failed != nil && c.d.now().Before(e.retryAt):
		return false, nil, &unserved{
			message: fmt.Sprintf("runtime %s does not say what it serves: %v", c.set.runtimes[i].Name(), e.failed),
			remedy:  "it is asked again automatically; the plugin's messages are in the server's log",
			again:   e.retryAt,
		}
	}
	c.ask(ctx, i)
	return false, nil, errAsking
}

// move gives a delivery to this attempt's runtime if another one has it. The env stays at the other one until the
// target is ready here; then the loop takes it away.
func (a *attempt) move(ctx context.Context, x storage.Delivery) (*storage.Delivery, bool) {
	from, to := x.Runtime, a.rt.Name()
	x.Runtime = to
	if from == "" || from == to {
		return &x, true
	}
	moved, err := a.d.store.MoveDelivery(ctx, x, from, storage.AuditEntry{
		Action: storage.AuditDeliveryMoved, App: x.App, Target: label(x.Target), Detail: fmt.Sprintf("from runtime %s to %s",
			from, to),
	})
	if err != nil {
		if !errors.Is(err, storage.ErrConflict) && ctx.Err() == nil {
			a.d.log.WarnContext(ctx, "a delivery cannot be moved; trying again", "app", x.App, "target", words(x.Target),
				"error", err)
		}
		return nil, false
	}
	a.d.log.InfoContext(ctx, "delivery moved", "app", x.App, "target", words(x.Target), "from", from, "runtime", to)
	return moved, true
}

// label names a target as the audit log and commands do.
func label(t storage.Target) string { return t.Kind + "/" + t.Name }
