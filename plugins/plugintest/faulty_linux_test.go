package plugintest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestModelPassesAllChecks(t *testing.T) {
	t.Parallel()
	for _, r := range Verify(t.Context(), self(t), modelHarness(t, "model"), nil) {
		if r.Outcome != Passed {
			t.Error(r)
		}
	}
}

// Each fault, the check that must find it, and what that must say.
var runtimeFaults = []struct{ fault, check, words string }{
	{"lenient", "configuration", "unknown setting was accepted"},
	{"panics at odd names", "bad requests", "made it panic"},
	{"prints on stdout", "clean stdout", "printed 7 bytes on stdout"},
	{"observes nothing", "push, observe, list and remove", "accepted 0"},
	{"removes nothing", "push, observe, list and remove", "after RemoveEnv"},
	{"removes what is newer", "push, observe, list and remove", "a removal of an older generation was accepted"},
	{"says nothing is wrong in words", "push, observe, list and remove", "no diagnostic"},
	{"rolls for ever", "push, observe, list and remove", "still says ROLLING"},
	{"claims another generation", "push, observe, list and remove", "the answer says that 4 is accepted"},
	{"rolls out again", "duplicate push", "made a new rollout"},
	{"takes an older generation", "stale push", "older generation was accepted"},
	{"takes an older fence", "stale push", "older fence was accepted"},
	{"no lock between comparing and writing", "reordered pushes", "expected 12"},
	{"takes another digest", "digest conflict", "was accepted"},
	{"calls a conflict stale", "digest conflict", "expected InvalidArgument"},
	{"memory in the process", "memory at the target", "after a restart"},
	{"wipes what others set", "variables of others", "somebody else"},
	{"keeps what is no longer wanted", "variables that are no longer wanted", "generation 2 has not"},
	{"forgets some values", "values", "that is empty"},
	{"cuts long values", "values", "32 KiB"},
	{"trims values", "values", "with a line end"},
	{"refuses a form of values for now", "values", "retryable"},
	{"blind to drift", "drift", "says READY after the target was spoilt"},
	{"observing repairs", "drift", "observing changes nothing"},
	{"drift is for ever", "drift", "not said to be retryable"},
	{"breaks the old", "failed rollout", "does not see"},
	{"hides a failure", "failed rollout", "ends with READY"},
	{"errs instead of failing", "failed rollout", "the rollout failed"},
	{"claims the new", "failed rollout", "says that generation 2 serves"},
	{"two writes", "killed in the middle of a push", "after it was killed in the middle of a push"},
	{"keeps its lock when cancelled", "cancelled push", "another cannot be pushed to"},
	{"one slot for all calls", "32 targets at once", "worker/32-targets-at-once"},
	{"lists a page", "32 targets at once", "ListTargets lacks"},
	{"starts twice", "stopped process", "a new one does not answer"},
	{"leaves a process", "leaves nothing behind", "still there"},
	{"leaves a socket", "leaves nothing behind", "left-"},
	{"logs values", noLeaksName, "stdio holds a value"},
	{"logs values past the library", noLeaksName, "stderr holds a value"},
	{"logs values in base64", noLeaksName, "stdio holds a value in base64"},
	{"passes a value as an argument", noLeaksName, "the arguments of a process holds a value"},
	{"keeps values in its state", noLeaksName, "cache in the state directory holds a value"},
	{"keeps bare hashes", noLeaksName, "the bare SHA-256 of a value"},
	{"says a value in an error", noLeaksName, "an error holds a value"},
	{"says a value in a refusal", noLeaksName, "an error holds a value"},
	{"says a value where it is", noLeaksName, "a status holds a value"},
	{"panics with a value", noLeaksName, "stderr holds a value"},
}

const noLeaksName = "no value in logs, arguments, errors and state"

func TestEachFaultOfARuntimeIsFound(t *testing.T) {
	t.Parallel()
	for _, f := range runtimeFaults {
		t.Run(f.fault, func(t *testing.T) {
			t.Parallel()
			h := modelHarness(t, "model")
			var config map[string]string
			if err := json.Unmarshal(h.Config, &config); err != nil {
				t.Fatal(err)
			}
			config["fault"] = f.fault
			h.Config, _ = json.Marshal(config) // a map of strings
			if slices.Contains([]string{"rolls for ever", "keeps its lock when cancelled", "starts twice"}, f.fault) {
				h.Settle = 3 * time.Second // it is waited for in vain
			}
			finds(t, h, f.check, f.words)
		})
	}
}

var hookFaults = []struct{ fault, check, words string }{
	{"panics at nonsense", "bad requests", "made it panic"},
	{"counts", "same question, same answer", "when it was asked again"},
	{"looks at the clock", "same question, same answer", "when it was asked again"},
	{"has the order of a map", "same question, same answer", "when it was asked again"},
	{"says which process it is", "same question, same answer", "from a new process"},
	{"names a target twice", "answers by the contract", "is listed twice"},
	{"wants a secret of nobody", "answers by the contract", "clientSecret"},
	{"codes are prose", "answers by the contract", "not lower_snake_case"},
	{"keeps a cache", "no side effects", "wrote"},
	{"starts a process", "no side effects", "it started"},
	{"mixes questions up", "32 questions at once", "while others asked"},
	{"fails instead of denying", "denial", "made it fail instead of deny"},
	{"does not say what to do", "denial", "does not say what to do"},
	{"lets everything through", "denial", "does not deny"},
}

func TestEachFaultOfAHookIsFound(t *testing.T) {
	t.Parallel()
	for _, f := range hookFaults {
		t.Run(f.fault, func(t *testing.T) {
			t.Parallel()
			finds(t, Harness{
				Args: []string{asPlugin, "hook"}, Config: json.RawMessage(fmt.Sprintf(`{"fault": %q}`, f.fault)),
				Denied: json.RawMessage(`{"metadata": {"name": "refused"}}`),
			}, f.check, f.words)
		})
	}
}

func TestFaultsOfTheStartAreFound(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ role, check, words string }{
		{"greets", checkStart, `not the handshake but "hello from a library"`},
		{"nobody", checkStart, "ended before it printed"},
		{"version 2", checkStart, "protocol version"},
		{"nameless", "description", "empty"},
		{"lets everybody in", "handshake and mutual TLS", "does not have the key"},
		{"unchecked", "bad requests", "was accepted, expected InvalidArgument"},
		{"stays", "leaves nothing behind", "did not end within"},
	} {
		t.Run(f.role, func(t *testing.T) {
			t.Parallel()
			finds(t, modelHarness(t, f.role), f.check, f.words)
		})
	}
}

// finds makes one check of a faulty plugin and expects that it fails, in these
// words.
func finds(t *testing.T, h Harness, name, words string) {
	t.Helper()
	k, r := begin(t.Context(), self(t), h)
	defer k.end()
	if name != checkStart {
		if r.Outcome == Failed {
			t.Fatalf("it does not start: %s\n%s", r, r.Said)
		}
		i := slices.IndexFunc(table, func(c check) bool { return c.name == name })
		r = k.run(t.Context(), table[i])
	}
	if r.Outcome != Failed || !strings.Contains(r.Problem, words) || r.Remedy == "" {
		t.Errorf("the check says %q, expected a failure with %q", r, words)
	}
	if strings.Contains(r.Problem, k.out.mark) {
		t.Error("the result holds a value")
	}
}

// A check that no fault fails could be empty.
func TestEveryCheckHasAFaultThatItFinds(t *testing.T) {
	t.Parallel()
	// By TestFaultsOfTheStartAreFound
	found := map[string]bool{checkStart: true, "handshake and mutual TLS": true, "description": true}
	for _, f := range append(slices.Clone(runtimeFaults), hookFaults...) {
		found[f.check] = true
	}
	for _, c := range table {
		if !found[c.name] {
			t.Errorf("no fault is made for the check %q", c.name)
		}
	}
}
