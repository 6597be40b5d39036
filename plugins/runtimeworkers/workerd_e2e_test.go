//go:build e2e

package runtimeworkers

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/warifu/warifu/plugins"
)

func TestWorkerReadsItsEnvironment(t *testing.T) {
	s := newSite(t)
	env := maps.Clone(credentials)
	env["ODD"] = "line\nend \"quoted\" = \\ 日本 \x01\x00 end"
	env["EMPTY"], env["LONG"] = "", strings.Repeat("0123456789abcdef", 2<<10)
	st := ready(t, s.rt, want(1, env))
	if got := envAt(t, st.Location); !maps.Equal(got, env) {
		t.Errorf("the Worker has %q", got)
	}
	if now := observe(t, s.rt); now != st {
		t.Errorf("observed %+v, pushed %+v", now, st)
	}
	env = map[string]string{"OAUTH_CLIENT_ID": "another"}
	if next := ready(t, s.rt, want(2, env)); next.Location != st.Location {
		t.Errorf("moved from %s to %s", st.Location, next.Location)
	}
	if got := envAt(t, st.Location); !maps.Equal(got, env) {
		t.Errorf("the Worker has %q", got)
	}
	if err := s.rt.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 2,
		Fence: 1}); err != nil {
		t.Fatal(err)
	}
	if now := observe(t, s.rt); now.Present || now.State != plugins.StateFailed {
		t.Errorf("after the removal: %+v", now)
	}
	if _, err := get(t, st.Location); err == nil {
		t.Error("a removed Worker answers")
	}
}

func TestWorkerThatDoesNotStartLeavesTheOldOne(t *testing.T) {
	for name, c := range map[string]struct{ script, word string }{
		"syntax error": {"export default { fetch(", "SyntaxError"},
		"exception that tells": {"import { env } from 'cloudflare:workers'; throw new Error('no ' + " +
			"env.OAUTH_CLIENT_SECRET)", "Error: no [redacted]"},
		"module that is not there":  {"import 'nothing'; export default {}", "No such module"},
		"no handler":                {"export const a = 1", "TypeError"},
		"script that does not stop": {"for (;;) {}", "did not listen within"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			old := want(1, map[string]string{"OAUTH_CLIENT_ID": "old"})
			st := ready(t, s.rt, old)
			s.script("app", "web", c.script)
			failed, err := s.rt.PushEnv(t.Context(), want(2, credentials))
			if err != nil || failed.State != plugins.StateFailed || failed.AcceptedGeneration != 1 ||
				failed.ServingGeneration != 1 || !failed.Diagnostic.Retryable {
				t.Fatalf("%+v, %v", failed, err)
			}
			if said := failed.Diagnostic.Message; !strings.Contains(said, c.word) ||
				strings.Contains(said, credentials["OAUTH_CLIENT_SECRET"]) {
				t.Errorf("diagnostic: %s", said)
			}
			if got := envAt(t, st.Location); !maps.Equal(got, old.Env) {
				t.Errorf("the old Worker has %q", got)
			}
			if now := observe(t, s.rt); now != st {
				t.Errorf("observed %+v", now)
			}
			s.script("app", "web", echo)
			ready(t, s.rt, want(2, credentials))
		})
	}
}

func TestFirstStartThatFailsLeavesNothing(t *testing.T) {
	s := newSite(t)
	if err := os.Remove(filepath.Join(s.root, "app", "web.js")); err != nil {
		t.Fatal(err)
	}
	st, err := s.rt.PushEnv(t.Context(), want(1, credentials))
	if err != nil || st.State != plugins.StateFailed || st.AcceptedGeneration != 0 ||
		!strings.Contains(st.Diagnostic.Message, "there is no script "+s.root) {
		t.Errorf("%+v %+v, %v", st, st.Diagnostic, err)
	}
	if now := observe(t, s.rt); now.Present || now.Location != "" {
		t.Errorf("observed %+v", now)
	}
	if targets, err := s.rt.ListTargets(t.Context(), ""); err != nil || len(targets) != 0 {
		t.Errorf("listed %v, %v", targets, err)
	}
}

func TestWorkerThatCrashedIsStartedAgainAndRequestsWait(t *testing.T) {
	s := newSite(t)
	st := ready(t, s.rt, want(1, credentials))
	plugin := children(t, os.Getpid())
	workers := children(t, plugin[0])
	if len(plugin) != 1 || len(workers) != 1 {
		t.Fatalf("plugins %v, Workers %v", plugin, workers)
	}
	if err := syscall.Kill(workers[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end", func() bool { return !alive(workers[0]) })
	if got := envAt(t, st.Location); !maps.Equal(got, credentials) { // waits for the next
		t.Errorf("the Worker has %q", got)
	}
	eventually(t, "READY again", func() bool { return observe(t, s.rt) == st })
}

func TestCrashLoopIsToldAndEndsWhenTheScriptIsMended(t *testing.T) {
	s := newSite(t)
	st := ready(t, s.rt, want(1, credentials))
	s.script("app", "web", "export default { fetch(")
	workers := children(t, children(t, os.Getpid())[0])
	if err := syscall.Kill(workers[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the diagnostic", func() bool {
		now := observe(t, s.rt)
		return now.State == plugins.StateFailed && now.ServingGeneration == 0 && now.AcceptedGeneration == 1 &&
			now.Present && strings.Contains(now.Diagnostic.Message, "SyntaxError")
	})
	s.script("app", "web", echo)
	eventually(t, "READY again", func() bool { return observe(t, s.rt) == st })
}

func TestRestartedPluginStartsItsWorkersAgain(t *testing.T) {
	s := newSite(t)
	st := ready(t, s.rt, want(3, credentials))
	s.stop()
	if _, err := get(t, st.Location); err == nil {
		t.Error("the Worker outlives the plugin")
	}
	s.start()
	eventually(t, "READY again", func() bool { return observe(t, s.rt) == st })
	if got := envAt(t, st.Location); !maps.Equal(got, credentials) {
		t.Errorf("the Worker has %q", got)
	}
	if _, err := s.rt.PushEnv(t.Context(), want(2, credentials)); !errors.Is(err, plugins.ErrStale) {
		t.Errorf("older generation: %v", err)
	}
}

func TestKilledPluginLeavesNoWorkerd(t *testing.T) {
	s := newSite(t)
	st := ready(t, s.rt, want(1, credentials))
	resp, err := http.Get(st.Location + "/hold?ms=60000") // one process drains
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	ready(t, s.rt, want(2, credentials))
	plugin := children(t, os.Getpid())[0]
	workers := children(t, plugin)
	if len(workers) != 2 {
		t.Fatalf("Workers: %v", workers)
	}
	if err := syscall.Kill(plugin, syscall.SIGKILL); err != nil { // the process alone, not its group
		t.Fatal(err)
	}
	eventually(t, "no workerd", func() bool { return !slices.ContainsFunc(workers, alive) })
}

func TestPluginThatIsAskedToEndLetsRequestsFinish(t *testing.T) {
	s := newSite(t)
	st := ready(t, s.rt, want(1, credentials))
	resp, err := http.Get(st.Location + "/hold?ms=700")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	s.stop()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(rest), "app-abc") {
		t.Errorf("the request got %q, %v", rest, err)
	}
}

func TestSecretsAreNotToBeFound(t *testing.T) {
	s := newSite(t)
	secret := credentials["OAUTH_CLIENT_SECRET"]
	env := maps.Clone(credentials)
	env["KEY"] = "-----BEGIN KEY-----\nfirst line of it\n-----END KEY-----"
	st := ready(t, s.rt, want(1, env))
	if _, err := get(t, st.Location+"/say"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Worker's words in the log", func() bool {
		return strings.Contains(s.log.String(), "app/web: the secret is ")
	})
	places := map[string]string{"the log": s.log.String()}
	for _, pid := range append(children(t, os.Getpid()), children(t, children(t, os.Getpid())[0])...) {
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil {
				t.Fatal(err)
			}
			places[fmt.Sprintf("%s of %d", file, pid)] = string(text)
		}
	}
	err := filepath.Walk(s.state, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		text, err := os.ReadFile(path)
		places[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range places {
		if strings.Contains(text, secret) || strings.Contains(text, "first line of it") {
			t.Errorf("a value is in %s", place)
		}
	}
}

func TestDirectoryOfModulesAndSettingsOfAWorker(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(s.root, "dist", "lib")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"index.js":        `import { answer } from "./lib/answer.mjs"; import data from "./data.json"; import page from "./page.html"; export default { fetch: (r, env) => Response.json({ ...env, answer, data: data.a, page }) }`,
		"lib/answer.mjs":  `export const answer = "42"`,
		"data.json":       `{"a": "b"}`,
		"page.html":       "<p>\"x\"</p>",
		"lib/ignored.map": "{",
	} {
		if err := os.WriteFile(filepath.Join(s.root, "dist", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s.stop()
	s.config = s.marshal(map[string]any{"driver": "workerd", "workerd": workerdBinary(t), "root": s.root,
		"network": []string{"public", "private"},
		"workers": map[string]any{"app/web": map[string]any{"script": "dist", "listen": l.Addr().String(),
			"compatibilityDate":  "2025-01-01",
			"compatibilityFlags": []string{"nodejs_compat"}, "vars": map[string]string{"THEIRS": "kept",
				"OAUTH_CLIENT_ID": "theirs"}}}})
	s.start()
	taken, err := s.rt.PushEnv(t.Context(), want(1, credentials))
	if err != nil || taken.State != plugins.StateFailed || !taken.Diagnostic.Retryable ||
		!strings.Contains(taken.Diagnostic.Message, "address already in use") {
		t.Errorf("with its address taken: %+v, %v", taken, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	st := ready(t, s.rt, want(1, credentials))
	if st.Location != "http://"+l.Addr().String() {
		t.Errorf("it listens at %s", st.Location)
	}
	wanted := maps.Clone(credentials)
	wanted["THEIRS"], wanted["answer"], wanted["data"], wanted["page"] = "kept", "42", "b", "<p>\"x\"</p>"
	if got := envAt(t, st.Location); !maps.Equal(got, wanted) {
		t.Errorf("the Worker has %q", got)
	}
}
