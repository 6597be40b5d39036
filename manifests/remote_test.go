package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
)

// remoteControlled is a runtime plugin, a process of its own, that asks the test what to do about every call. So a test
// decides when it hangs, fails, lies or dies.
type remoteControlled struct {
	Socket string `json:"socket"`
}

// call is what the plugin was asked.
type call struct {
	Op         string // push, observe or remove
	App        string
	Target     plugins.Target
	Generation int64
	Fence      int64
	Digest     string
	Env        map[string]string
}

// reply is what the plugin is to do.
type reply struct {
	Status plugins.Status
	Fail   string // stale, digest, invalid, unavailable, or other words
	Exit   bool   // die
	Hang   bool   // never answer
}

func (*remoteControlled) Describe() plugins.Description {
	return plugins.Description{Name: "remote", Version: "1", Kinds: []string{plugins.TargetWorker}}
}

func (p *remoteControlled) Configure(_ context.Context, config json.RawMessage, _ string) error {
	return json.Unmarshal(config, p)
}

func (p *remoteControlled) ask(ctx context.Context, c call) (plugins.Status, error) {
	conn, err := net.Dial("unix", p.Socket)
	if err != nil {
		return plugins.Status{}, fmt.Errorf("%w: %w", plugins.ErrUnavailable, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var r reply
	if err := errors.Join(json.NewEncoder(conn).Encode(c), json.NewDecoder(conn).Decode(&r)); err != nil {
		return plugins.Status{}, fmt.Errorf("%w: %w", plugins.ErrUnavailable, err)
	}
	switch {
	case r.Exit:
		os.Exit(3)
	case r.Hang:
		<-ctx.Done()
		return plugins.Status{}, ctx.Err()
	}
	switch r.Fail {
	case "":
		return r.Status, nil
	case "stale":
		return r.Status, plugins.ErrStale
	case "digest":
		return r.Status, plugins.ErrDigestConflict
	case "invalid":
		return r.Status, fmt.Errorf("%w: a value has a line end", plugins.ErrInvalid)
	case "unavailable":
		return r.Status, fmt.Errorf("%w: the cluster is away", plugins.ErrUnavailable)
	default:
		return r.Status, errors.New(r.Fail)
	}
}

func (p *remoteControlled) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	return p.ask(ctx, call{"push", req.App, req.Target, req.Generation, req.Fence, req.Digest, req.Env})
}

func (p *remoteControlled) ObserveEnv(ctx context.Context, app string, t plugins.Target) (plugins.Status, error) {
	return p.ask(ctx, call{Op: "observe", App: app, Target: t})
}

func (p *remoteControlled) RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error {
	_, err := p.ask(ctx, call{Op: "remove", App: req.App, Target: req.Target, Generation: req.Generation,
		Fence: req.Fence})
	return err
}

func (p *remoteControlled) ListTargets(context.Context, string) ([]plugins.AppTarget, error) {
	return nil, nil
}

// remote is the test's end: the targets, which outlive the plugin, and a script that may get in between.
type remote struct {
	t testing.TB
	// script decides about a call before the contract does; nil, or a nil reply, leaves it to the contract.
	script func(call) *reply

	mu      sync.Mutex // owns all below, and is not held while script runs
	targets map[string]*held
	calls   []call
	busy    map[string]int // calls that change a target, under way
	crossed bool           // two of them were, at the same target
}

// held is what a target has.
type held struct {
	generation, fence int64
	digest            string
	env               map[string]string
}

// withRemote adds a remote-controlled runtime for workers.
func (r *rig) withRemote(script func(call) *reply) *remote {
	r.t.Helper()
	dir, err := os.MkdirTemp("", "wf") // a socket's path is short
	if err != nil {
		r.t.Fatal(err)
	}
	m := &remote{t: r.t, script: script, targets: make(map[string]*held), busy: make(map[string]int)}
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		r.t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { m.serve(conn) })
		}
	})
	r.t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
		_ = os.RemoveAll(dir)
	})
	rt, err := r.host.Runtime(spec("remote", map[string]any{"socket": socket}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.opts.Runtimes = append(r.opts.Runtimes, rt)
	return m
}

func (m *remote) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	var c call
	if err := json.NewDecoder(conn).Decode(&c); err != nil {
		return
	}
	_ = json.NewEncoder(conn).Encode(m.answer(c)) // fails when the plugin was killed
}

func (m *remote) answer(c call) reply {
	place := c.App + " " + c.Target.String()
	m.mu.Lock()
	m.calls = append(m.calls, c)
	if c.Op != "observe" {
		m.busy[place]++
		m.crossed = m.crossed || m.busy[place] > 1
		defer func() {
			m.mu.Lock()
			m.busy[place]--
			m.mu.Unlock()
		}()
	}
	m.mu.Unlock()
	if m.script != nil {
		if r := m.script(c); r != nil {
			return *r
		}
	}
	return m.contract(c)
}

// contract is how a runtime should behave.
func (m *remote) contract(c call) reply {
	m.mu.Lock()
	defer m.mu.Unlock()
	place := c.App + " " + c.Target.String()
	h := m.targets[place]
	switch {
	case c.Op == "observe":
	case h != nil && (c.Generation < h.generation || c.Fence < h.fence):
		return reply{Fail: "stale"}
	case c.Op == "remove":
		delete(m.targets, place)
		h = nil
	case h != nil && c.Generation == h.generation && c.Digest != h.digest:
		return reply{Fail: "digest"}
	default:
		h = &held{c.Generation, c.Fence, c.Digest, maps.Clone(c.Env)}
		m.targets[place] = h
	}
	return reply{Status: h.status()}
}

func (h *held) status() plugins.Status {
	if h == nil {
		return plugins.Status{State: plugins.StateFailed, Diagnostic: &plugins.Diagnostic{Message: "nothing is there",
			Retryable: true}}
	}
	return plugins.Status{State: plugins.StateReady, AcceptedGeneration: h.generation, ServingGeneration: h.generation,
		Digest: h.digest, Instances: 1, Location: "remote", Present: true}
}

func (m *remote) target(app, name string) *held {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.targets[app+" worker/"+name]
}

func (m *remote) set(app, name string, h *held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h == nil {
		delete(m.targets, app+" worker/"+name)
		return
	}
	m.targets[app+" worker/"+name] = h
}

// count is how many calls of a kind there were for an app.
func (m *remote) count(op, app string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.calls {
		if c.Op == op && c.App == app {
			n++
		}
	}
	return n
}

// receive waits for something that is about to happen.
func receive[T any](t *testing.T, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}
