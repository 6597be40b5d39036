package runtimecontainers

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
)

var (
	web         = plugins.Target{Kind: plugins.TargetContainer, Name: "web"}
	credentials = map[string]string{
		"OAUTH_CLIENT_ID": "app-abcdefghijkl", "OAUTH_CLIENT_SECRET": "wfs_canary-of-the-tests",
		"OAUTH_ISSUER": "https://id.example",
	}
)

var digestKey = []byte("the server's key, which no runtime has")

func push(generation int64, env map[string]string) plugins.PushRequest {
	return plugins.PushRequest{App: "app", Target: web, Generation: generation, Fence: 1,
		Digest: plugins.Digest(digestKey, env), Env: env}
}

func config(t testing.TB, host string) json.RawMessage {
	t.Helper()
	out, err := json.Marshal(map[string]string{"host": host, "steady": "200ms", "probeTimeout": "10s"})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// served runs the runtime as a real plugin process.
func served(t testing.TB, host, state string) *plugins.Runtime {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h, err := plugins.NewHost(plugins.HostOptions{Logger: slog.New(slog.DiscardHandler), Dir: t.TempDir(),
		Backoff: plugins.Backoff{Min: time.Millisecond, Max: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	r, err := h.Runtime(plugins.Spec{Name: "containers", Path: path, Args: []string{"serve"}, Config: config(t, host),
		StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// configured is the runtime in this process.
func configured(t *testing.T, e *fakeEngine, more ...string) *containerRuntime {
	t.Helper()
	settings := map[string]string{"host": e.host, "steady": "1ms", "probeTimeout": "20s"}
	for i := 0; i < len(more); i += 2 {
		settings[more[i]] = more[i+1]
	}
	written, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	r := &containerRuntime{}
	if err := r.Configure(t.Context(), written, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return r
}

// pusher is the runtime as a plugin, or in this process.
type pusher interface {
	PushEnv(context context.Context, req plugins.PushRequest) (plugins.Status, error)
	ObserveEnv(context context.Context, app string, target plugins.Target) (plugins.Status, error)
}

// settled pushes and waits until the runtime says how it went.
func settled(t testing.TB, r pusher, req plugins.PushRequest) plugins.Status {
	t.Helper()
	st, err := r.PushEnv(t.Context(), req)
	for err == nil && st.State == plugins.StateRolling {
		time.Sleep(10 * time.Millisecond) // the contract has nobody who would call back
		st, err = r.ObserveEnv(t.Context(), req.App, req.Target)
	}
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// failed pushes what must fail.
func failed(t testing.TB, r pusher, req plugins.PushRequest) plugins.Status {
	t.Helper()
	st := settled(t, r, req)
	if st.State != plugins.StateFailed || st.Diagnostic == nil || st.Diagnostic.Message == "" ||
		st.Diagnostic.Remedy == "" {
		t.Fatalf("%+v %+v, want a failure with a remedy", st, st.Diagnostic)
	}
	return st
}

func ready(t testing.TB, r pusher, req plugins.PushRequest) plugins.Status {
	t.Helper()
	st := settled(t, r, req)
	if st.State != plugins.StateReady || st.ServingGeneration != req.Generation || !st.Present {
		t.Fatalf("%+v %+v, want generation %d ready", st, st.Diagnostic, req.Generation)
	}
	return st
}
