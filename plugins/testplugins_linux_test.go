package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/warifu/warifu/plugins/pluginpb"
)

// The test binary is every plugin of these tests: started with asPlugin as its
// first argument it plays the role of the second.
const asPlugin = "plugin-under-test"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asPlugin {
		play(os.Args[2], os.Args[3:])
		return
	}
	os.Exit(m.Run())
}

func play(role string, args []string) {
	switch role {
	case "hook":
		ServeHook(&scriptedHook{})
	case "runtime":
		ServeRuntime(&scriptedRuntime{})
	case "early-stdout":
		fmt.Println("hello from a library that prints")
		fmt.Println("{\"and\": \"json\"}")
		ServeHook(&scriptedHook{})
	case "stdout-without-end":
		chunk := strings.Repeat("x", 1<<16)
		for range 100 {
			fmt.Print(chunk)
		}
		for {
			fmt.Println("y")
		}
	case "version-2":
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig: handshake, GRPCServer: plugin.DefaultGRPCServer,
			VersionedPlugins: map[int]plugin.PluginSet{2: {string(HookKind): &wire{register: func(s *grpc.Server) {
				pluginpb.RegisterDeployHookServer(s, &hookServer{impl: &scriptedHook{}})
			}}}},
		})
	case "no-certificate":
		fmt.Printf("1|1|unix|%s/plugin1|grpc|\n", os.Getenv("PLUGIN_UNIX_SOCKET_DIR"))
		forever()
	case "elsewhere":
		fmt.Println("1|1|tcp|127.0.0.1:1|grpc|" + strings.Repeat("A", 100))
		forever()
	case "silent":
		forever()
	case "not-a-plugin":
		fmt.Fprintln(os.Stderr, "usage: something else")
	case "host":
		playHost(args)
	case "grandchild":
		playGrandchild()
	}
}

// forever keeps a process until it is killed. A plain select{} would be a
// deadlock to the Go runtime.
func forever() {
	never := make(chan os.Signal, 1)
	signal.Notify(never, os.Interrupt)
	for {
		<-never
	}
}

// scriptedHook does what the manifest's "do" says.
type scriptedHook struct{ config string }

func (h *scriptedHook) Describe() Description { return Description{Name: "scripted", Version: "1.2.3"} }

func (h *scriptedHook) Configure(_ context.Context, config json.RawMessage) error {
	h.config = string(config)
	if strings.Contains(h.config, "refuse") {
		return errors.New("this hook has no setting of that name")
	}
	return nil
}

func (h *scriptedHook) Evaluate(_ context.Context, req EvaluateRequest) (Answer, error) {
	var script struct{ Do, Say string }
	if err := json.Unmarshal(req.Manifest, &script); err != nil {
		return Answer{}, fmt.Errorf("%w: no script", ErrInvalid)
	}
	worker := Target{Kind: TargetWorker, Name: "web"}
	switch script.Do {
	case "environ":
		return said(strings.Join(os.Environ(), "\n")), nil
	case "config":
		return said(fmt.Sprint("as given: ", h.config == script.Say)), nil
	case "previous":
		raw, err := json.Marshal(req.Previous)
		return said(string(raw)), err
	case "full":
		return Answer{
			Client: req.Registered,
			Targets: []TargetEnv{{Target: worker, Env: map[string]EnvValue{"A": {Literal: "a"},
				"ID": {Source: SourceClientID}}}},
			Warnings: []Notice{{Code: "w", Path: "p", Message: req.Issuer, Remedy: "r"}},
			Denials:  []Notice{{Code: "d", Message: fmt.Sprint(req.Dev)}},
		}, nil
	case "exit":
		os.Exit(3)
	case "panic":
		panic("the secret is " + script.Say)
	case "panic-elsewhere":
		go func() { panic("the secret is " + script.Say) }()
		forever()
	case "pipe": // answers when somebody has written to it
		word, err := os.ReadFile(script.Say)
		return said(fmt.Sprint(os.Getpid(), " ", string(word))), err
	case "pid":
		return said(fmt.Sprint(os.Getpid(), " ", h.config)), nil
	case "hang":
		forever()
	case "flood":
		for range 20_000 {
			fmt.Fprintln(os.Stderr, "flood", script.Say)
		}
		fmt.Fprint(os.Stderr, strings.Repeat("long ", 100_000), script.Say, "\n")
	case "pollute":
		fmt.Println("1|1|unix|/tmp/evil|grpc|")
		runtime.GC() // nobody may close descriptor 1 under the plugin
		_, err := unix.Write(1, []byte(strings.Repeat("z", 200_000)+"\nraw "+script.Say+"\n"))
		return Answer{}, err
	case "big":
		return said(strings.Repeat("b", maxMessage+1)), nil
	case "unavailable":
		return Answer{}, fmt.Errorf("%w: the thing behind me is down", ErrUnavailable)
	case "lie-target":
		return Answer{Targets: []TargetEnv{{Target: Target{Kind: "lambda", Name: "x"}}}}, nil
	case "lie-twice":
		return Answer{Targets: []TargetEnv{{Target: worker}, {Target: worker}}}, nil
	case "lie-name":
		return Answer{Targets: []TargetEnv{{Target: worker, Env: map[string]EnvValue{"A=B\nC": {}}}}}, nil
	case "lie-secret":
		return Answer{Targets: []TargetEnv{{Target: worker, Env: map[string]EnvValue{"S": {Source: SourceClientSecret}}}}},
			nil
	case "lie-notice":
		return Answer{Denials: []Notice{{Code: "no_words"}}}, nil
	}
	return Answer{}, nil
}

func said(text string) Answer {
	return Answer{Warnings: []Notice{{Code: "said", Message: text + " "}}}
}

// scriptedRuntime does what the app's name says.
type scriptedRuntime struct{}

func (*scriptedRuntime) Describe() Description {
	return Description{Name: "scripted", Version: "1.2.3", Kinds: []string{TargetWorker}}
}

func (*scriptedRuntime) Configure(context.Context, json.RawMessage, string) error { return nil }

func (*scriptedRuntime) PushEnv(ctx context.Context, req PushRequest) (Status, error) {
	st := Status{State: StateReady, AcceptedGeneration: req.Generation, ServingGeneration: req.Generation,
		Digest: req.Digest, Instances: 2, Location: "here", Present: true}
	switch req.App {
	case "leaks":
		for name, value := range req.Env {
			fmt.Fprintf(os.Stderr, "%s=%s %q\n", name, value, value)
			slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("json", "value", value)
			fmt.Fprintf(os.Stderr, `{"@level":"warn","@message":"got %s","@module":"x","v":%q}`+"\n", value, value)
		}
		return Status{State: StateFailed, Diagnostic: &Diagnostic{Message: "cannot use " + req.Env["SECRET"],
			Remedy: req.Env["SECRET"]}}, nil
	case "leaks-in-error":
		return Status{}, errors.New("cannot use " + req.Env["SECRET"])
	case "leaks-in-panic":
		go func() { panic(req.Env["SECRET"]) }()
		forever()
	case "stale":
		return Status{}, fmt.Errorf("%w: generation 9", ErrStale)
	case "conflict":
		return Status{}, fmt.Errorf("%w: generation 1", ErrDigestConflict)
	case "invalid":
		return Status{}, fmt.Errorf("%w: no such place", ErrInvalid)
	case "traced":
		told, _ := metadata.FromIncomingContext(ctx)
		st.Location = strings.Join(told.Get("traceparent"), ", ")
	case "rolling":
		st.State, st.ServingGeneration = StateRolling, req.Generation-1
	case "lie-generation":
		st.AcceptedGeneration++
	case "lie-digest":
		st.Digest = "another"
	case "lie-serving":
		st.ServingGeneration--
	case "lie-nothing":
		return Status{}, nil
	case "lie-failed":
		return Status{State: StateFailed}, nil
	}
	return st, nil
}

func (*scriptedRuntime) ObserveEnv(context.Context, string, Target) (Status, error) {
	return Status{State: StateReady, AcceptedGeneration: 3, ServingGeneration: 3, Present: true}, nil
}

func (*scriptedRuntime) RemoveEnv(_ context.Context, req RemoveRequest) error {
	if req.App == "stale" {
		return ErrStale
	}
	return nil
}

func (*scriptedRuntime) ListTargets(context.Context, string) ([]AppTarget, error) {
	return []AppTarget{
		{App: "one", Target: Target{Kind: TargetWorker, Name: "web"}},
		{App: "two", Target: Target{Kind: TargetService, Name: "db"}},
	}, nil
}

// playHost is a host of its own process, to be killed. Its arguments are the
// socket directory and what its plugin may lack.
func playHost(args []string) {
	h, err := NewHost(HostOptions{Logger: slog.New(slog.DiscardHandler), Dir: args[0]})
	if err != nil {
		panic(err)
	}
	if len(args) > 1 && args[1] == "without-death-signal" {
		h.spawner.Orphans = true
	}
	hook, err := h.Hook(roleSpec("hook"))
	if err != nil {
		panic(err)
	}
	if _, err := hook.Describe(context.Background()); err != nil {
		panic(err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(hook.s.current.runner.Load().pid)
	forever()
}

// playGrandchild is a plugin that leaves a child behind, which holds its pipes.
func playGrandchild() {
	child := exec.Command(os.Args[0], asPlugin, "silent")
	// Files of its own for 1 and 2 would close them when they are collected
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		panic(err)
	}
	fmt.Fprintf(os.Stderr, "grandchild %d\n", child.Process.Pid)
	ServeHook(&scriptedHook{})
}

func roleSpec(role string) Spec {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Spec{Name: "under-test", Path: path, Args: []string{asPlugin, role}}
}

func script(do string, say ...string) EvaluateRequest {
	raw, err := json.Marshal(map[string]string{"do": do, "say": strings.Join(say, " ")})
	if err != nil {
		panic(err)
	}
	return EvaluateRequest{Manifest: raw}
}

// shortDeadlines make a hang cost little; they stay far above what an answer
// takes on a busy machine.
func shortDeadlines() Deadlines {
	return Deadlines{Evaluate: 700 * time.Millisecond, Probe: 700 * time.Millisecond, Shutdown: 700 * time.Millisecond}
}
