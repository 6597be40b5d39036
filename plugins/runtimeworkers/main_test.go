package runtimeworkers

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
)

// The test binary is the plugin as well, and workerd's stand-in.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 2 && os.Args[1] == "serve":
		if err := standIn(os.Args[2]); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err) // nobody hears it
			os.Exit(1)
		}
		return
	case len(os.Args) == 2 && os.Args[1] == "serve":
		Serve()
		return
	}
	os.Exit(m.Run())
}

var (
	digestKey   = []byte("test")
	web         = plugins.Target{Kind: plugins.TargetWorker, Name: "web"}
	credentials = map[string]string{"OAUTH_CLIENT_ID": "app-abc", "OAUTH_CLIENT_SECRET": "wfs_secret-of-the-app",
		"OAUTH_ISSUER": "http://127.0.0.1:5556"}
)

func want(generation int64, env map[string]string) plugins.PushRequest {
	return plugins.PushRequest{App: "app", Target: web, Generation: generation, Fence: 1,
		Digest: plugins.Digest(digestKey, env), Env: env}
}

// pusher is a runtime, in this process or another.
type pusher interface {
	PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error)
	ObserveEnv(ctx context.Context, app string, t plugins.Target) (plugins.Status, error)
}

// ready pushes and wants the answer READY.
func ready(t testing.TB, p pusher, req plugins.PushRequest) plugins.Status {
	t.Helper()
	st, err := p.PushEnv(t.Context(), req)
	if err != nil || st.State != plugins.StateReady || st.ServingGeneration != req.Generation || st.Digest != req.Digest ||
		!st.Present {
		t.Fatalf("push of generation %d: %+v %+v, %v", req.Generation, st, st.Diagnostic, err)
	}
	return st
}

func observe(t testing.TB, p pusher) plugins.Status {
	t.Helper()
	st, err := p.ObserveEnv(t.Context(), "app", web)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// eventually asks until it is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
