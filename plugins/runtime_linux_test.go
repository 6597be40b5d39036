package plugins

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/oauth"
)

var webWorker = Target{Kind: TargetWorker, Name: "web"}

func testRuntime(t *testing.T, h *Host) *Runtime {
	t.Helper()
	r, err := h.Runtime(roleSpec("runtime"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func push(app string, env map[string]string) PushRequest {
	return PushRequest{App: app, Target: webWorker, Generation: 3, Fence: 1, Digest: "d", Env: env}
}

func TestRuntimeCallsArriveAndReturn(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	r := testRuntime(t, h)
	d, err := r.Describe(t.Context())
	if err != nil || len(d.Kinds) != 1 || d.Kinds[0] != TargetWorker {
		t.Errorf("Describe: %+v, %v", d, err)
	}
	st, err := r.PushEnv(t.Context(), push("app", map[string]string{"A": "b"}))
	if want := (Status{State: StateReady, AcceptedGeneration: 3, ServingGeneration: 3, Digest: "d", Instances: 2,
		Location: "here", Present: true}); err != nil || st != want {
		t.Errorf("PushEnv: %+v, %v", st, err)
	}
	if st, err := r.PushEnv(t.Context(), push("rolling", nil)); err != nil || st.State != StateRolling ||
		st.ServingGeneration != 2 {
		t.Errorf("PushEnv that rolls: %+v, %v", st, err)
	}
	if st, err := r.ObserveEnv(t.Context(), "app", webWorker); err != nil || !st.Present || st.ServingGeneration != 3 {
		t.Errorf("ObserveEnv: %+v, %v", st, err)
	}
	if err := r.RemoveEnv(t.Context(), RemoveRequest{App: "app", Target: webWorker, Generation: 4}); err != nil {
		t.Errorf("RemoveEnv: %v", err)
	}
	if err := r.RemoveEnv(t.Context(), RemoveRequest{App: "stale", Target: webWorker, Generation: 4}); !errors.Is(err,
		ErrStale) {
		t.Errorf("RemoveEnv of an older generation: %v", err)
	}
	if all, err := r.ListTargets(t.Context(), ""); err != nil || len(all) != 2 {
		t.Errorf("ListTargets: %v, %v", all, err)
	}
	if one, err := r.ListTargets(t.Context(), "one"); err != nil || len(one) != 1 || one[0].App != "one" {
		t.Errorf("ListTargets of an app whose plugin gives more: %v, %v", one, err)
	}
}

func TestRefusedPushesHaveNames(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	r := testRuntime(t, h)
	for app, want := range map[string]error{"stale": ErrStale, "conflict": ErrDigestConflict, "invalid": ErrInvalid} {
		_, err := r.PushEnv(t.Context(), push(app, nil))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", app, err)
		}
		if n := strings.Count(err.Error(), want.Error()); n != 1 {
			t.Errorf("%s: the reason is told %d times: %v", app, n, err)
		}
	}
	for name, req := range map[string]PushRequest{
		"no app":          {Target: webWorker, Generation: 1, Digest: "d"},
		"no generation":   {App: "a", Target: webWorker, Digest: "d"},
		"no digest":       {App: "a", Target: webWorker, Generation: 1},
		"negative fence":  {App: "a", Target: webWorker, Generation: 1, Fence: -1, Digest: "d"},
		"unknown kind":    {App: "a", Target: Target{Kind: "vm", Name: "x"}, Generation: 1, Digest: "d"},
		"no target name":  {App: "a", Target: Target{Kind: TargetWorker}, Generation: 1, Digest: "d"},
		"name with lines": push("a", map[string]string{"A\nB": "c"}),
	} {
		if _, err := r.PushEnv(t.Context(), req); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRuntimeThatLiesIsRefused(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	r := testRuntime(t, h)
	for _, lie := range []string{"lie-generation", "lie-digest", "lie-serving", "lie-nothing", "lie-failed"} {
		if _, err := r.PushEnv(t.Context(), push(lie, nil)); !errors.Is(err, ErrContract) {
			t.Errorf("%s: %v", lie, err)
		}
	}
}

// The log itself is searched for the canary by testHost when the test ends.
func TestPushedSecretIsInNoLogErrorArgumentOrEnvironment(t *testing.T) {
	t.Parallel()
	h, logs := testHost(t, HostOptions{})
	r := testRuntime(t, h)
	// Neither looks like a token of ours: only knowing it helps.
	plain, awkward := "CanaryCanary-plain", "CanaryCanary \"quoted\" <&> \\ é/+="
	env := map[string]string{"SECRET": awkward, "OTHER": plain, "TOKEN": canary}
	st, err := r.PushEnv(t.Context(), push("leaks", env))
	if err != nil || st.State != StateFailed {
		t.Fatalf("%+v, %v", st, err)
	}
	if said := fmt.Sprintf("%+v", *st.Diagnostic); strings.Contains(said, "CanaryCanary") ||
		!strings.Contains(said, oauth.Redacted) {
		t.Errorf("diagnostic: %s", said)
	}
	for _, word := range []string{"SECRET=" + oauth.Redacted, "got " + oauth.Redacted} {
		logs.await(t, word)
	}
	_, err = r.PushEnv(t.Context(), push("leaks-in-error", env))
	if err == nil || strings.Contains(err.Error(), "CanaryCanary") || !strings.Contains(err.Error(), oauth.Redacted) {
		t.Errorf("error: %v", err)
	}
	p, err := r.s.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{os.Getpid(), p.runner.Load().pid} {
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join("/proc", itoa(pid), file))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), "CanaryCanary") {
				t.Errorf("a secret is in %s", file)
			}
		}
	}
	if _, err = r.PushEnv(t.Context(), push("leaks-in-panic", env)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error: %v", err)
	}
	logs.await(t, "panic: "+oauth.Redacted)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPushRequestPrintsNoValue(t *testing.T) {
	t.Parallel()
	req := push("a", map[string]string{"A": canary})
	for _, text := range []string{fmt.Sprint(req), fmt.Sprintf("%+v %#v %s %q %v", req, req, req, req, &req),
		req.LogValue().String()} {
		if strings.Contains(text, canary) {
			t.Errorf("a value is in %q", text)
		}
	}
}

func TestDigestIsKeyedAndUnambiguous(t *testing.T) {
	t.Parallel()
	base := Digest([]byte("k"), map[string]string{"A": "1", "B": "2"})
	if len(base) != 64 || base != Digest([]byte("k"), map[string]string{"B": "2", "A": "1"}) {
		t.Errorf("the digest is not a function of the content: %s", base)
	}
	for name, other := range map[string]string{
		"another key":     Digest([]byte("l"), map[string]string{"A": "1", "B": "2"}),
		"another value":   Digest([]byte("k"), map[string]string{"A": "1", "B": "3"}),
		"shifted borders": Digest([]byte("k"), map[string]string{"A1": "", "B": "2"}),
		"one less":        Digest([]byte("k"), map[string]string{"A": "1"}),
	} {
		if other == base {
			t.Errorf("%s: the same digest", name)
		}
	}
}

func TestScrubberKnowsValuesInEverySpellingAndOurTokens(t *testing.T) {
	t.Parallel()
	s := &scrubber{}
	s.learn("pass word/é\"x", "pass word/é\"x and more", "short")
	s.learnConfig([]byte(`{"apiToken":"hidden-token","nested":{"password":["hidden-list"]},"dir":"/visible/dir"}`))
	for in, want := range map[string]string{
		`a pass word/é"x b`:                                       "a [redacted] b",
		`a pass word/é"x and more b`:                              "a [redacted] b",
		`{"v":"pass word/é\"x"}`:                                  `{"v":"[redacted]"}`,
		`?v=pass+word%2F%C3%A9%22x`:                               "?v=[redacted]",
		"short is short":                                          "short is short",
		"hidden-token hidden-list /visible/dir":                   "[redacted] [redacted] /visible/dir",
		"wfs_0123456789abcdef, wfr_0123456789-_abc wfc_01234567x": "[redacted], [redacted] [redacted]",
		"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl!":      "[redacted]!",
		"bell\a and\x1b[31m and\xff":                              "bell? and?[31m and?",
	} {
		if got := s.clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := s.cleanLine(strings.Repeat("x", 95)+"hidden-token", 100); strings.Contains(got, "hidd") {
		t.Errorf("half a secret is left: %q", got)
	}
	for i := range maxSecrets + 10 {
		s.learn(fmt.Sprintf("secret-%06d", i))
	}
	if len(s.known) != maxSecrets || len(s.order) != maxSecrets {
		t.Errorf("%d values are kept", len(s.known))
	}
}
