//go:build e2e

package runtimeworkers

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
)

// echo answers with its variables. /hold takes its time after the answer's
// beginning, /id is another for each process, /say logs a secret.
const echo = `
let id;
export default { async fetch(request, env) {
  switch (new URL(request.url).pathname) {
  case "/id": return Response.json({ id: id ??= crypto.randomUUID() });
  case "/hold": return new Response(new ReadableStream({ async start(c) {
    c.enqueue(new TextEncoder().encode("begun\n"));
    await scheduler.wait(Number(new URL(request.url).searchParams.get("ms")));
    c.enqueue(new TextEncoder().encode(env.OAUTH_CLIENT_ID));
    c.close();
  }}));
  case "/say": console.log("the secret is " + env.OAUTH_CLIENT_SECRET);
  }
  return Response.json(env);
}};
`

// workerdBinary is the pinned workerd; `make e2e` installs it.
func workerdBinary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("WARIFU_WORKERD"); path != "" {
		return path
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "warifu-test", "workerd")
	path, ok := FindWorkerd(dir)
	if !ok {
		t.Fatalf("there is no workerd; install it with\n\tnpm install --no-save --prefix %s workerd@%s\n"+
			"or name it in WARIFU_WORKERD", dir, WorkerdVersion)
	}
	return path
}

// site is a directory of scripts and a host that runs the plugin on it.
type site struct {
	t           testing.TB
	root, state string
	config      json.RawMessage
	log         *lockedBuffer
	host        *plugins.Host
	rt          *plugins.Runtime
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, root: t.TempDir(), state: t.TempDir(), log: &lockedBuffer{}}
	s.script("app", "web", echo)
	s.config = s.marshal(map[string]any{"driver": "workerd", "workerd": workerdBinary(t), "root": s.root})
	s.start()
	return s
}

func (s *site) marshal(v any) json.RawMessage {
	s.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

func (s *site) script(app, worker, text string) {
	s.t.Helper()
	path := filepath.Join(s.root, app, worker+".js")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) start() {
	s.t.Helper()
	path, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.host, err = plugins.NewHost(plugins.HostOptions{Dir: s.t.TempDir(),
		Logger:  slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Backoff: plugins.Backoff{Min: time.Millisecond, Max: time.Millisecond}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.stop)
	s.rt, err = s.host.Runtime(plugins.Spec{Name: "workers", Path: path, Args: []string{"serve"}, Config: s.config,
		StateDir: s.state})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) stop() {
	s.t.Helper()
	if err := s.host.Close(); err != nil {
		s.t.Error(err)
	}
}

// get asks the Worker on a new connection.
func get(t testing.TB, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func envAt(t testing.TB, url string) map[string]string {
	t.Helper()
	text, err := get(t, url)
	var env map[string]string
	if err == nil {
		err = json.Unmarshal([]byte(text), &env)
	}
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// children finds processes by their parent.
func children(t testing.TB, parent int) []int {
	t.Helper()
	var out []int
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// alive reports a process that runs and is not only waited for.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(after, "Z")
}
