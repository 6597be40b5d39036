package plugins

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// configured is the scripted hook with a setting.
func configured(name, setting string) Spec {
	spec := roleSpec("hook")
	spec.Name, spec.Config = name, []byte(fmt.Sprintf("%q", setting))
	return spec
}

// heard is what a scripted hook says of its process and its settings.
func heard(t *testing.T, hook *Hook, do string, say ...string) string {
	t.Helper()
	answer, err := hook.Evaluate(t.Context(), script(do, say...))
	if err != nil {
		t.Error(err)
		return ""
	}
	return strings.TrimSpace(answer.Warnings[0].Message)
}

// A call that is under way when a plugin changes ends in the old process, which then leaves; the next ones are answered
// by the new one. What has not changed stays in its process, and what has gone ends.
func TestPluginsChangeUnderACall(t *testing.T) {
	t.Parallel()
	h, logs := testHost(t, HostOptions{})
	hook, same, other := testHook(t, h, configured("hook", "first")), testHook(t, h, configured("same", "x")),
		testHook(t, h, configured("other", "x"))
	old, stays, goes := hook.pid(t), same.pid(t), other.pid(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string)
	go func() { answered <- heard(t, hook, "pipe", pipe) }() // ends with the word below
	word, err := os.OpenFile(pipe, os.O_WRONLY, 0)           // returns when the call is under way
	if err != nil {
		t.Fatal(err)
	}
	change, err := h.Change(t.Context(), []Spec{configured("hook", "second"), configured("same", "x"),
		configured("new", "x")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := heard(t, hook, "pid"); got != fmt.Sprintf(`%d "first"`, old) {
		t.Errorf("before it counts: %s", got)
	}
	change.Commit()
	if got := heard(t, hook, "pid"); !strings.HasSuffix(got, `"second"`) || strings.HasPrefix(got, fmt.Sprint(old)) {
		t.Errorf("the next call: %s; the old process is %d", got, old)
	}
	_, _ = word.WriteString("done")
	_ = word.Close()
	if got := <-answered; got != fmt.Sprint(old, " done") {
		t.Errorf("the call that was under way: %q, want it answered by %d", got, old)
	}
	awaitGone(t, old)
	awaitGone(t, goes)
	if same.pid(t) != stays || len(change.Hooks) != 3 || change.Hooks[1].s != same.s {
		t.Error("one that has not changed is another one")
	}
	if _, err := other.Evaluate(t.Context(), script("pid")); !errors.Is(err, ErrUnavailable) || Culprit(err) != "other" {
		t.Errorf("one that has gone: %v", err)
	}
	if got := heard(t, change.Hooks[2], "pid"); !strings.HasSuffix(got, `"x"`) {
		t.Errorf("the new one: %s", got)
	}
	if strings.Contains(logs.String(), "not running") {
		t.Error("a change is told as a failure")
	}
}

// One that does not start leaves all as they are, and nothing behind.
func TestPluginThatDoesNotStartChangesNothing(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	hook := testHook(t, h, configured("hook", "first"))
	old := hook.pid(t)
	had, err := os.ReadDir(h.sockets.root)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]Spec{
		"refused":   configured("bad", "refuse"),
		"no plugin": {Name: "bad", Path: "/bin/true"},
		"missing":   {Name: "bad", Path: "/nowhere"},
		"twice":     configured("hook", "x"),
	} {
		_, err := h.Change(t.Context(), []Spec{configured("hook", "second"), bad}, nil)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		var start *StartError
		if name != "twice" && (!errors.As(err, &start) || start.Plugin != "bad") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := heard(t, hook, "pid"); got != fmt.Sprintf(`%d "first"`, old) {
		t.Errorf("afterwards: %s", got)
	}
	left, err := os.ReadDir(h.sockets.root)
	if err != nil || len(left) != len(had) {
		t.Errorf("there were %d directories for sockets, now there are %d: %v", len(had), len(left), err)
	}
	change, err := h.Change(t.Context(), []Spec{configured("hook", "third")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	waits := change.started[0].p.runner.Load().pid
	change.Discard()
	awaitGone(t, waits)
	if got := heard(t, hook, "pid"); got != fmt.Sprintf(`%d "first"`, old) {
		t.Errorf("after one that was not taken: %s", got)
	}
}
