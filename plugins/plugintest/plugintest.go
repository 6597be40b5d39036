package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
)

// Harness is what the kit cannot know about a plugin. All of it may be left
// empty; a check that needs what is missing says so.
//
// The functions get the app and target that a check is about. They are called
// from several goroutines, for different targets.
type Harness struct {
	// Args of the executable.
	Args []string
	// Config is what Configure gets: the plugin's "config" in the server's
	// configuration, as JSON.
	Config json.RawMessage
	// StateDir outlives the plugin; empty: a new directory.
	StateDir string
	// Targets are files and directories below StateDir that are themselves the
	// place where the values live; they may hold secrets, but nobody else may
	// read them. Relative to StateDir.
	Targets []string
	// App that all targets belong to; empty: plugintest.
	App string
	// Kind of the targets; empty: the first that the runtime describes, or
	// worker.
	Kind string
	// Settle is how long a rollout may take, and everything else that a check
	// waits for; 0: 30 s.
	Settle time.Duration

	// Prepare is called before the first push to a target: it puts there what
	// the target runs in, such as a container without variables of ours.
	Prepare func(ctx context.Context, app string, target plugins.Target) error
	// Discard undoes Prepare, when a check is over.
	Discard func(ctx context.Context, app string, target plugins.Target) error
	// Serving gives the environment that the program at the target sees.
	Serving func(ctx context.Context, app string, target plugins.Target) (map[string]string, error)
	// Rollout names what serves the target now, and differs after each rollout:
	// a container's id, a process's number, a file's inode.
	Rollout func(ctx context.Context, app string, target plugins.Target) (string, error)
	// Foreign puts a variable at the target that is not warifu's, as its owner
	// would. Serving must then show it. It is called before the first push or
	// after one.
	Foreign func(ctx context.Context, app string, target plugins.Target, name, value string) error
	// Break spoils what serves the target behind the runtime's back: the file
	// is edited, the container removed.
	Break func(ctx context.Context, app string, target plugins.Target) error
	// Fail makes the next rollout at the target fail, until mend is called. It
	// may change env, which is about to be pushed, instead of the world.
	Fail func(ctx context.Context, app string, target plugins.Target,
		env map[string]string) (mend func(context.Context) error, err error)

	// Manifests that a hook is asked about, besides the kit's own, as JSON.
	Manifests []json.RawMessage
	// Denied is a manifest that a hook refuses; nil for a hook that refuses
	// none.
	Denied json.RawMessage
}

// Outcome of a check.
type Outcome string

// Outcomes. What was not checked is neither good nor bad.
const (
	Passed     Outcome = "ok"
	Failed     Outcome = "failed"
	NotChecked Outcome = "not checked"
)

// Result of one check.
type Result struct {
	Check   string // its name in [Checks]
	Outcome Outcome
	Problem string // what is wrong, or why it was not checked; never a value
	Remedy  string // what to do about a failure
	Said    string // the end of what it printed, when it did not start
	Took    time.Duration
}

// String gives the result in a line, or two when it failed.
func (r Result) String() string {
	switch r.Outcome {
	case Failed:
		return fmt.Sprintf("failed       %s: %s\n             -> %s", r.Check, r.Problem, r.Remedy)
	case NotChecked:
		return fmt.Sprintf("not checked  %s: %s", r.Check, r.Problem)
	default:
		return fmt.Sprintf("ok           %s", r.Check)
	}
}

// Run checks the plugin at the path binary, each check as a subtest. A check
// that the harness has too little for logs "not checked" and why.
func Run(t *testing.T, binary string, h Harness) {
	t.Helper()
	k, first := begin(t.Context(), binary, h)
	defer k.end()
	if first.Outcome == Failed {
		t.Fatalf("%s\n%s", first, first.Said)
	}
	for _, c := range k.checks() {
		t.Run(c.name, func(t *testing.T) {
			switch r := k.run(t.Context(), c); r.Outcome {
			case Failed:
				t.Errorf("%s\nto do: %s\n%s", r.Problem, r.Remedy, k.lastWords())
			case NotChecked:
				t.Logf("not checked: %s", r.Problem)
			}
		})
	}
}

// Verify makes the same checks outside of a test. It calls report after each and
// returns all results; the first is about the start, and when that failed there
// are no others.
func Verify(ctx context.Context, binary string, h Harness, report func(Result)) []Result {
	k, first := begin(ctx, binary, h)
	defer k.end()
	if report == nil {
		report = func(Result) {}
	}
	report(first)
	results := []Result{first}
	if first.Outcome == Failed {
		return results
	}
	for _, c := range k.checks() {
		if ctx.Err() != nil {
			break
		}
		r := k.run(ctx, c)
		report(r)
		results = append(results, r)
	}
	return results
}

// Checks names the checks of one kind of plugin, in their order.
func Checks(kind plugins.Kind) []string {
	var names []string
	for _, c := range table {
		if c.kind == "" || c.kind == kind {
			names = append(names, c.name)
		}
	}
	return names
}

func (h Harness) withDefaults(dir string) Harness {
	if h.StateDir == "" {
		h.StateDir = filepath.Join(dir, "state")
	}
	if h.App == "" {
		h.App = "plugintest"
	}
	if h.Settle == 0 {
		h.Settle = 30 * time.Second
	}
	return h
}
