package plugins

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warifu/warifu/server/oauth"
)

// canary stands for every secret: no test's log may hold it.
const canary = `wfs_CanaryCanaryCanaryCanaryCanaryCanaryCanary1`

// logBuffer collects what the host logs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits for a word of a plugin, which comes by a pipe or a stream of its own: not before the plugin's answers.
func (l *logBuffer) await(t *testing.T, word string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(l.String(), word); time.Sleep(
		5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q is not in the log:\n%s", word, l)
		}
	}
}

// testHost is a host whose log must not hold the canary, closed at the end.
func testHost(t *testing.T, opts HostOptions) (*Host, *logBuffer) {
	t.Helper()
	logs := &logBuffer{}
	opts.Logger = slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	h, err := NewHost(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if strings.Contains(logs.String(), "CanaryCanary") {
			t.Errorf("a secret is in the log:\n%s", logs)
		}
	})
	return h, logs
}

func testHook(t *testing.T, h *Host, spec Spec) *Hook {
	t.Helper()
	hook, err := h.Hook(spec)
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

// pid starts the hook when it must and gives its process.
func (h *Hook) pid(t *testing.T) int {
	t.Helper()
	p, err := h.s.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer h.s.release(p)
	return p.runner.Load().pid
}

// again waits for the end of the backoff and calls once more.
func again(t *testing.T, hook *Hook) {
	t.Helper()
	_, err := hook.Evaluate(t.Context(), script(""))
	var backoff *BackoffError
	if !errors.As(err, &backoff) || !errors.Is(err, ErrUnavailable) {
		t.Fatalf("right after the end: %v, want a BackoffError", err)
	}
	if backoff.Plugin != "under-test" || backoff.Cause == nil || backoff.Since.IsZero() {
		t.Errorf("the error does not say who, why and since when: %+v", backoff)
	}
	<-time.After(time.Until(backoff.NextTry))
	if _, err := hook.Evaluate(t.Context(), script("")); err != nil {
		t.Errorf("after the backoff: %v", err)
	}
}

// stop waits until every thread of the process is stopped: the signal alone leaves them some time to answer.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for running := true; running; time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		running = false
		for _, thread := range threads {
			stat, err := os.ReadFile(thread)
			if err != nil {
				continue // it has ended
			}
			running = running || !strings.Contains(string(stat), ") T ")
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// awaitGone waits until no process has the number, also when it is not a child
// of this one.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, syscall.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		if n == 1 {
			return
		}
		if err != nil && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			t.Fatalf("process %d still lives", pid)
		}
	}
}

func TestHookIsStartedOnFirstCallAndAnswers(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	if hook.s.current != nil {
		t.Error("it was started before its first call")
	}
	d, err := hook.Describe(t.Context())
	if err != nil || d.Name != "scripted" || d.Version != "1.2.3" {
		t.Errorf("Describe: %+v, %v", d, err)
	}
	req := script("full")
	req.Registered = &Registration{ClientName: "n", RedirectURIs: []string{"https://a/cb"}, Scopes: []string{"openid"},
		Public:  true,
		LogoURI: "l", TOSURI: "t", PolicyURI: "p", PostLogoutRedirectURIs: []string{"https://a/out"}}
	req.Issuer, req.Dev = "https://issuer.test", true
	answer, err := hook.Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(answer)
	const want = `{"client":{"clientName":"n","redirectUris":["https://a/cb"],"scopes":["openid"],"public":true,"logoUri":"l","tosUri":"t","policyUri":"p","postLogoutRedirectUris":["https://a/out"]},` +
		`"targets":[{"target":{"kind":"worker","name":"web"},"env":{"A":{"literal":"a"},"ID":{"source":"clientId"}}}],` +
		`"warnings":[{"code":"w","path":"p","message":"https://issuer.test","remedy":"r"}],"denials":[{"code":"d","message":"true"}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHookSeesTheAnswerOfTheHookBefore(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	req := script("previous")
	for _, want := range []string{"null ", `{"warnings":[{"code":"said","message":"null "}]} `} {
		answer, err := hook.Evaluate(t.Context(), req)
		if err != nil || len(answer.Warnings) != 1 || answer.Warnings[0].Message != want {
			t.Fatalf("got %+v, %v; want %q", answer.Warnings, err, want)
		}
		req.Previous = &answer
	}
}

func TestHostEnvironmentIsWithheld(t *testing.T) {
	const withheld = "not a token by its looks"
	t.Setenv("WARIFU_TEST_SECRET", withheld)
	h, _ := testHost(t, HostOptions{})
	answer, err := testHook(t, h, roleSpec("hook")).Evaluate(t.Context(), script("environ"))
	if err != nil {
		t.Fatal(err)
	}
	env := answer.Warnings[0].Message
	if strings.Contains(env, withheld) {
		t.Error("the plugin sees the host's environment")
	}
	for _, line := range strings.Split(env, "\n") {
		name, _, isVariable := strings.Cut(line, "=")
		// go-plugin's own words; the lines of the certificate have no name.
		if isVariable && name != "WARIFU_PLUGIN" && strings.ToUpper(name) == name && !strings.HasPrefix(name, "PLUGIN_") &&
			!strings.Contains(name, "/") && len(name) < 40 {
			t.Errorf("the plugin has %s", name)
		}
	}
}

func TestConfigGoesThroughConfigureNotArguments(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	spec := roleSpec("hook")
	spec.Config = json.RawMessage(`{"token":"` + canary + `"}`)
	hook := testHook(t, h, spec)
	answer, err := hook.Evaluate(t.Context(), script("config", string(spec.Config)))
	if err != nil || !strings.Contains(answer.Warnings[0].Message, "as given: true") {
		t.Fatalf("the plugin did not get its config: %v", err)
	}
	for _, file := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(filepath.Join("/proc", itoa(hook.pid(t)), file))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(canary)) {
			t.Errorf("the config is in %s", file)
		}
	}
}

func TestDeadPluginIsReplacedAfterBackoff(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit", "panic-elsewhere"} {
		t.Run(how, func(t *testing.T) {
			h, logs := testHost(t, HostOptions{Backoff: Backoff{Min: 300 * time.Millisecond}})
			hook := testHook(t, h, roleSpec("hook"))
			before := hook.pid(t)
			_, err := hook.Evaluate(t.Context(), script(how, canary))
			var call *CallError
			if !errors.Is(err, ErrUnavailable) || !errors.As(err, &call) || call.Plugin != "under-test" {
				t.Fatalf("the call that killed it: %v", err)
			}
			again(t, hook)
			if hook.pid(t) == before {
				t.Error("it is the same process")
			}
			if how != "exit" {
				logs.await(t, "panic: ")
			}
		})
	}
}

func TestPluginThatDiesWhileIdleIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{Backoff: Backoff{Min: 300 * time.Millisecond}})
	hook := testHook(t, h, roleSpec("hook"))
	p, err := hook.s.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.runner.Load().kill()
	<-p.runner.Load().exited
	for { // until the supervisor has seen it, too
		if current, _, err := hook.s.state(); current == nil && err != nil {
			break
		}
	}
	again(t, hook)
}

func TestPanicInACallIsAnErrorWithoutItsText(t *testing.T) {
	t.Parallel()
	h, logs := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	before := hook.pid(t)
	_, err := hook.Evaluate(t.Context(), script("panic", "swordfish"))
	if err == nil || !strings.Contains(err.Error(), "panicked") || strings.Contains(err.Error(), "swordfish") {
		t.Errorf("error: %v", err)
	}
	if _, err := hook.Evaluate(t.Context(), script("")); err != nil || hook.pid(t) != before {
		t.Errorf("the process did not survive: %v", err)
	}
	if strings.Contains(logs.String(), "swordfish") {
		t.Error("the panic's text is in the log")
	}
}

func TestHangMeetsTheDeadlineAndTheProcessIsReplaced(t *testing.T) {
	t.Parallel()
	deadlines := shortDeadlines()
	deadlines.Probe = 10 * time.Second
	h, _ := testHost(t, HostOptions{Deadlines: deadlines, Backoff: Backoff{Min: 300 * time.Millisecond}})
	hook := testHook(t, h, roleSpec("hook"))
	before := hook.pid(t)
	for i := range maxTimeouts {
		if _, err := hook.Evaluate(t.Context(), script("hang")); !errors.Is(err, ErrDeadline) {
			t.Fatalf("call %d: %v", i, err)
		}
		if i == 0 { // its server still answers, so one slow call costs nobody else
			if _, err := h.supervisors["hook/under-test"].acquire(t.Context()); err != nil || hook.pid(t) != before {
				t.Errorf("one hanging call ended the process: %v", err)
			}
		}
	}
	again(t, hook)
}

func TestStoppedPluginMeetsTheDeadlineAndIsReplaced(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{Deadlines: shortDeadlines(), Backoff: Backoff{Min: 300 * time.Millisecond}})
	hook := testHook(t, h, roleSpec("hook"))
	pid := hook.pid(t)
	stop(t, pid)
	if _, err := hook.Evaluate(t.Context(), script("")); !errors.Is(err, ErrDeadline) {
		t.Fatalf("call: %v", err)
	}
	awaitGone(t, pid)
	again(t, hook)
}

func TestCallersOwnDeadlineIsNotThePluginsFault(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	before := hook.pid(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := hook.Evaluate(ctx, script("hang")); !errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, ErrDeadline) {
		t.Errorf("error: %v", err)
	}
	if hook.pid(t) != before {
		t.Error("the process was replaced")
	}
}

func TestUnavailableByItsOwnWordKeepsTheProcess(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	before := hook.pid(t)
	_, err := hook.Evaluate(t.Context(), script("unavailable"))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the thing behind me is down") {
		t.Errorf("error: %v", err)
	}
	if hook.pid(t) != before {
		t.Error("the process was replaced")
	}
}

func TestFloodOfLogLinesIsCappedAndBlocksNobody(t *testing.T) {
	t.Parallel()
	h, logs := testHost(t, HostOptions{Deadlines: Deadlines{Evaluate: 30 * time.Second}})
	h.Hide(canary)
	hook := testHook(t, h, roleSpec("hook"))
	if _, err := hook.Evaluate(t.Context(), script("flood", canary)); err != nil {
		t.Fatal(err)
	}
	logs.await(t, "flood ")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(logs.String(), "flood "); n == 0 || n > 2000 {
		t.Errorf("%d of 20000 lines were logged", n)
	}
	for line := range strings.Lines(logs.String()) {
		if len(line) > 2*maxLineLogged {
			t.Errorf("a line of %d bytes was logged", len(line))
		}
	}
}

func TestStdoutPollutionBreaksNothing(t *testing.T) {
	t.Parallel()
	h, logs := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	for range 3 {
		if _, err := hook.Evaluate(t.Context(), script("pollute", canary)); err != nil {
			t.Fatal(err)
		}
	}
	early := roleSpec("early-stdout")
	early.Name = "early"
	if _, err := testHook(t, h, early).Describe(t.Context()); err != nil {
		t.Errorf("a plugin that prints before the handshake: %v", err)
	}
	logs.await(t, "hello from a library that prints")
	endless := roleSpec("stdout-without-end")
	endless.Name = "endless"
	wantStartError(t, testHook(t, h, endless), "did not complete the handshake", "full of other things")
}

// wantStartError holds a start that must fail, and the words that say why.
func wantStartError(t *testing.T, hook *Hook, words ...string) {
	t.Helper()
	_, err := hook.Describe(t.Context())
	var start *StartError
	if !errors.As(err, &start) {
		t.Fatalf("got %v, want a StartError", err)
	}
	if start.Plugin != hook.Name() || start.Path == "" {
		t.Errorf("the error does not say which plugin and where: %+v", start)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in: %v", word, err)
		}
	}
}

func TestStartsThatFailSayWhatWhereAndWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	for path, mode := range map[string]os.FileMode{text: 0o644, filepath.Join(dir, "garbage"): 0o755} {
		if err := os.WriteFile(path, []byte("not a program"), mode); err != nil {
			t.Fatal(err)
		}
	}
	at := func(path string) Spec { return Spec{Path: path} }
	refusing := roleSpec("hook")
	refusing.Config = json.RawMessage(`{"refuse":1}`)
	badSum := roleSpec("hook")
	badSum.SHA256 = "xyz"
	for name, c := range map[string]struct {
		spec  Spec
		words []string
	}{
		"missing binary": {at(filepath.Join(dir, "absent")), []string{"no such file", "install the plugin there"}},
		"directory":      {at(dir), []string{"not a file"}},
		"not executable": {at(text), []string{"may not be executed", "make the file executable"}},
		"not a program":  {at(filepath.Join(dir, "garbage")), []string{"exec format error"}},
		"not a plugin":   {roleSpec("not-a-plugin"), []string{"ended before the handshake"}},
		"wrong protocol version": {roleSpec("version-2"), []string{"another version of the plugin protocol",
			"install a build"}},
		"no mutual TLS":      {roleSpec("no-certificate"), []string{"no certificate for mutual TLS"}},
		"listens elsewhere":  {roleSpec("elsewhere"), []string{"outside its socket directory"}},
		"never shakes hands": {roleSpec("silent"), []string{"did not finish its start in 1.5s"}},
		"wrong kind":         {roleSpec("runtime"), []string{"not a hook plugin"}},
		"refuses its config": {refusing, []string{"refuses its configuration", "no setting of that name"}},
		"checksum not hex":   {badSum, []string{"not hexadecimal"}},
	} {
		t.Run(name, func(t *testing.T) {
			deadlines := Deadlines{}
			if name == "never shakes hands" {
				deadlines.Start = 1500 * time.Millisecond
			}
			h, _ := testHost(t, HostOptions{Deadlines: deadlines})
			c.spec.Name = "under-test"
			wantStartError(t, testHook(t, h, c.spec), c.words...)
		})
	}
}

func TestChecksumHoldsOnEveryStart(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "plugin")
	copyFile(t, os.Args[0], binary)
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	spec := roleSpec("hook")
	spec.Path, spec.SHA256 = binary, hex.EncodeToString(sum[:])
	h, _ := testHost(t, HostOptions{Backoff: Backoff{Min: 100 * time.Millisecond}})
	hook := testHook(t, h, spec)
	pid := hook.pid(t)
	if _, err := hook.Evaluate(t.Context(), script("exit")); err == nil {
		t.Fatal("it did not exit")
	}
	again(t, hook) // a second start of the same file passes

	changed := binary + ".new"
	if err := os.WriteFile(changed, append(content, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(changed, binary); err != nil {
		t.Fatal(err)
	}
	if hook.pid(t) == pid {
		t.Fatal("it was not restarted")
	}
	_, err = hook.Evaluate(t.Context(), script("exit"))
	for !strings.Contains(err.Error(), "sha256") {
		var backoff *BackoffError
		if errors.As(err, &backoff) {
			<-time.After(time.Until(backoff.NextTry))
		}
		if _, err = hook.Evaluate(t.Context(), script("")); err == nil {
			t.Fatal("a changed file was run")
		}
	}
	var start *StartError
	if !errors.As(err, &start) || !strings.Contains(start.Remedy, "put the new sha256") {
		t.Errorf("error: %v", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNameIsNotAPath(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	for _, name := range []string{"", "../up", "a/b", `a\b`, "a b", "A", "-a", ".", "a\x00b", strings.Repeat("a", 64)} {
		spec := roleSpec("hook")
		spec.Name = name
		if _, err := h.Hook(spec); err == nil {
			t.Errorf("%q was taken for a name", name)
		}
	}
	relative := roleSpec("hook")
	relative.Path = "plugin"
	if _, err := h.Hook(relative); err == nil {
		t.Error("a relative path was taken")
	}
	twice := roleSpec("hook")
	testHook(t, h, twice)
	if _, err := h.Hook(twice); err == nil {
		t.Error("two hooks of one name were taken")
	}
	if _, err := h.Runtime(Spec{Name: "x", Kind: HookKind, Path: "/x"}); err == nil {
		t.Error("a hook was taken for a runtime")
	}
}

func TestNoticesAreScrubbed(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	req := script("full")
	req.Issuer = "\x1b[2J" + canary
	req.Registered = &Registration{}
	answer, err := testHook(t, h, roleSpec("hook")).Evaluate(t.Context(), req)
	if err != nil || answer.Warnings[0].Message != "?[2J"+oauth.Redacted {
		t.Errorf("%+v, %v", answer.Warnings, err)
	}
}

func TestHookThatLiesIsRefused(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	for _, lie := range []string{"lie-target", "lie-twice", "lie-name", "lie-secret", "lie-notice", "big"} {
		if _, err := hook.Evaluate(t.Context(), script(lie)); !errors.Is(err, ErrContract) {
			t.Errorf("%s: %v", lie, err)
		}
	}
}
