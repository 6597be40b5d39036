package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/pluginpb"
)

// Checks that both kinds of plugins have.

func handshake(ctx context.Context, b *bench) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	return s.strangers(ctx)
}

// cleanStdout makes some calls and looks at the process's first descriptor: what
// came before the handshake line failed the start already.
func cleanStdout(ctx context.Context, b *bench) error {
	quiet := &transcript{mark: b.kit.out.mark}
	dir, err := b.kit.newDir()
	if err != nil {
		return err
	}
	s, err := startSession(ctx, b.kit.binary, b.kit.harness.Args, dir, quiet)
	if err != nil {
		return err
	}
	b.sessions = append(b.sessions, s)
	b.current = s
	if err := b.kit.configure(ctx, s, b.kit.harness.Config); err != nil {
		return b.failed("Configure", err)
	}
	if err := b.work(ctx, s); err != nil {
		return err
	}
	s.kill()
	b.current = nil
	if said := quiet.text("stdout"); said != "" {
		return faultf("it printed %d bytes on stdout after the handshake: %.80q", len(said), quiet.safe(said))
	}
	return nil
}

// work does something that is ordinary for the kind of plugin.
func (b *bench) work(ctx context.Context, s *session) error {
	if b.kit.kind == plugins.HookKind {
		_, err := b.evaluate(ctx, s, sampleManifests[0])
		return err
	}
	t, err := b.target(ctx, "work")
	if err != nil {
		return err
	}
	return b.ready(ctx, s, t, 1, 1, b.env("work"))
}

func description(ctx context.Context, b *bench) error {
	d := b.kit.description
	for what, text := range map[string]string{"name": d.GetName(), "version": d.GetVersion()} {
		if text == "" || len(text) > 100 || strings.ContainsFunc(text, unicode.IsControl) {
			return faultf("its %s is empty, long or not printable: %.120q", what, text)
		}
	}
	known := []string{plugins.TargetWorker, plugins.TargetContainer, plugins.TargetService}
	for i, kind := range d.GetKinds() {
		if !slices.Contains(known, kind) || slices.Contains(d.GetKinds()[:i], kind) {
			return faultf("its kind %q is unknown or there twice; kinds are %s", kind, strings.Join(known, ", "))
		}
	}
	if b.kit.kind == plugins.HookKind && len(d.GetKinds()) > 0 {
		return faultf("a hook has no target kinds")
	}
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	return s.healthy(ctx)
}

// configuration offers configs that no plugin can use, each to a new process.
func configuration(ctx context.Context, b *bench) error {
	surplus := map[string]any{}
	if len(b.kit.harness.Config) > 0 {
		if err := json.Unmarshal(b.kit.harness.Config, &surplus); err != nil {
			return fmt.Errorf("the harness' config is not a JSON object: %w", err)
		}
	}
	surplus["noPluginHasThisSetting"] = true
	unknown, err := json.Marshal(surplus)
	if err != nil {
		return fmt.Errorf("write a config: %w", err)
	}
	for _, bad := range []struct{ what, config string }{
		{"a config with an unknown setting", string(unknown)},
		{"a config that is a list", `["x"]`},
		{"a config that is cut off", `{"dir": "/x`},
	} {
		s, err := b.kit.start(ctx)
		if err != nil {
			return err
		}
		err = b.refused(bad.what, b.kit.configure(ctx, s, []byte(bad.config)), codes.InvalidArgument)
		s.kill()
		if err != nil {
			return err
		}
	}
	_, err = b.session(ctx)
	return err
}

// badRequests sends what the server never sends, and expects a refusal and a
// process that lives on.
func badRequests(ctx context.Context, b *bench) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	if b.kit.kind == plugins.HookKind {
		for _, manifest := range []string{"", "{", "{}", "null", `"text"`, "[1]", `{"spec": 5}`} {
			callCtx, cancel := context.WithTimeout(ctx, b.limit(describeLimit))
			_, err := s.hook.Evaluate(callCtx, &pluginpb.EvaluateRequest{ManifestJson: []byte(manifest)})
			cancel()
			s.note(err)
			if err := b.orderly(s, err, fmt.Sprintf("a manifest of %q", manifest)); err != nil {
				return err
			}
		}
		return s.healthy(ctx)
	}
	return b.badPushes(ctx, s)
}

func (b *bench) badPushes(ctx context.Context, s *session) error {
	good := plugins.Target{Kind: b.kit.targetKind, Name: b.slug}
	spoil := func(change func(*pluginpb.PushEnvRequest)) *pluginpb.PushEnvRequest {
		req := b.request(good, 1, 1, b.env("bad"))
		change(req)
		return req
	}
	for what, req := range map[string]*pluginpb.PushEnvRequest{
		"a push without an app":                 spoil(func(r *pluginpb.PushEnvRequest) { r.App = "" }),
		"a push without a target":               spoil(func(r *pluginpb.PushEnvRequest) { r.Target = nil }),
		"a push to a target without a name":     spoil(func(r *pluginpb.PushEnvRequest) { r.Target.Name = "" }),
		"a push to a target of an unknown kind": spoil(func(r *pluginpb.PushEnvRequest) { r.Target.Kind = "lambda" }),
		"a push of generation 0":                spoil(func(r *pluginpb.PushEnvRequest) { r.Generation = 0 }),
		"a push of a negative fence":            spoil(func(r *pluginpb.PushEnvRequest) { r.Fence = -1 }),
		"a push without a digest":               spoil(func(r *pluginpb.PushEnvRequest) { r.Digest = "" }),
		"a push of a variable named A=B":        spoil(func(r *pluginpb.PushEnvRequest) { r.Env["A=B"] = b.secret("") }),
		"a push of a variable without a name":   spoil(func(r *pluginpb.PushEnvRequest) { r.Env[""] = b.secret("") }),
		"an empty push":                         {},
	} {
		callCtx, cancel := context.WithTimeout(ctx, b.limit(pushLimit))
		_, err := s.runtime.PushEnv(callCtx, req)
		cancel()
		s.note(err)
		if err := b.refused(what, err, codes.InvalidArgument); err != nil {
			return err
		}
	}
	for _, name := range []string{"../../../../tmp/x", "a/b", ".", "..", "a\nb", "a\x00b", strings.Repeat("n", 5000),
		"日本", "-rf", "$(id)", "%s%n"} {
		t := plugins.Target{Kind: b.kit.targetKind, Name: name}
		callCtx, cancel := context.WithTimeout(ctx, b.limit(observeLimit))
		_, err := s.runtime.ObserveEnv(callCtx, &pluginpb.ObserveEnvRequest{App: name,
			Target: &pluginpb.Target{Kind: t.Kind, Name: t.Name}})
		cancel()
		s.note(err)
		if err := b.orderly(s, err, fmt.Sprintf("observing a target named %.20q", name)); err != nil {
			return err
		}
	}
	callCtx, cancel := context.WithTimeout(ctx, b.limit(pushLimit))
	defer cancel()
	_, err := s.runtime.RemoveEnv(callCtx, &pluginpb.RemoveEnvRequest{})
	s.note(err)
	if err := b.refused("an empty removal", err, codes.InvalidArgument); err != nil {
		return err
	}
	return s.healthy(ctx)
}

// orderly expects that a call was answered at all, well or with a refusal.
func (b *bench) orderly(s *session, err error, what string) error {
	select {
	case <-s.exited:
		return faultf("it died of %s", what)
	default:
	}
	switch status.Code(err) {
	case codes.Internal:
		return faultf("%s made it panic: %s", what, b.words(err))
	case codes.Unknown:
		return faultf("%s ended with an error without a meaning: %s", what, b.words(err))
	case codes.DeadlineExceeded:
		return faultf("%s was never answered", what)
	case codes.Unavailable:
		return faultf("%s ended the connection", what)
	}
	return nil
}

// hosted runs the plugin under the server's own plugin host.
func (b *bench) hosted(ctx context.Context, dir string,
	use func(ctx context.Context, host *plugins.Host, spec plugins.Spec) error) (err error) {
	host, err := plugins.NewHost(plugins.HostOptions{
		Logger: slog.New(slog.DiscardHandler), Dir: dir,
		Deadlines: plugins.Deadlines{Observe: 2 * time.Second, Evaluate: time.Second, Probe: 500 * time.Millisecond},
		Backoff:   plugins.Backoff{Min: time.Millisecond, Max: time.Millisecond},
	})
	if err != nil {
		return fmt.Errorf("make a plugin host: %w", err)
	}
	defer func() {
		if closeErr := host.Close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close the plugin host: %w", closeErr))
		}
	}()
	return use(ctx, host, plugins.Spec{
		Name: "plugin-under-test", Path: b.kit.binary, Args: b.kit.harness.Args,
		Config: b.kit.harness.Config, StateDir: b.kit.harness.StateDir,
	})
}

// stoppedProcess freezes the plugin below the server's own host, which must find
// out and go on with a new process.
func stoppedProcess(ctx context.Context, b *bench) error {
	if !seesProcesses {
		return unchecked{"processes can only be stopped and found on Linux"}
	}
	dir, err := b.kit.newDir()
	if err != nil {
		return err
	}
	call, err := b.hostedCall(ctx)
	if err != nil {
		return err
	}
	return b.hosted(ctx, dir, func(ctx context.Context, host *plugins.Host, spec plugins.Spec) error {
		ask, err := call(host, spec)
		if err != nil {
			return err
		}
		if err := ask(ctx); err != nil {
			return faultf("under the server's plugin host: %s", b.kit.out.safe(err.Error()))
		}
		frozen := started(dir)
		if len(frozen) == 0 {
			return errors.New("the plugin's process cannot be found below /proc")
		}
		for _, pid := range frozen {
			if err := stop(pid); err != nil {
				return fmt.Errorf("stop the plugin: %w", err)
			}
		}
		if err := ask(ctx); err == nil {
			return errors.New("the plugin was stopped and answered all the same")
		}
		deadline := time.Now().Add(b.kit.harness.Settle)
		for err = ask(ctx); err != nil; err = ask(ctx) {
			if time.Now().After(deadline) || ctx.Err() != nil {
				return faultf("after its process was stopped, a new one does not answer: %s", b.kit.out.safe(err.Error()))
			}
			time.Sleep(20 * time.Millisecond)
		}
		for _, pid := range frozen {
			if alive(pid) && slices.Contains(started(dir), pid) {
				return faultf("process %d, which was stopped, is still there", pid)
			}
		}
		return nil
	})
}

// hostedCall prepares the call that stoppedProcess repeats: for a runtime the
// observation of a target that was pushed to before.
func (b *bench) hostedCall(ctx context.Context) (func(*plugins.Host, plugins.Spec) (func(context.Context) error, error),
	error) {
	if b.kit.kind == plugins.HookKind {
		return func(host *plugins.Host, spec plugins.Spec) (func(context.Context) error, error) {
			hook, err := host.Hook(spec)
			return func(ctx context.Context) error {
				_, err := hook.Evaluate(ctx, plugins.EvaluateRequest{Manifest: sampleManifests[0], Issuer: sampleIssuer})
				return err
			}, err
		}, nil
	}
	t, err := b.target(ctx, "target")
	if err != nil {
		return nil, err
	}
	env := b.env("stopped")
	req := plugins.PushRequest{App: b.kit.harness.App, Target: t, Generation: 1, Fence: 1,
		Digest: plugins.Digest(b.kit.key, env), Env: env}
	return func(host *plugins.Host, spec plugins.Spec) (func(context.Context) error, error) {
		runtime, err := host.Runtime(spec)
		if err != nil {
			return nil, err
		}
		b.uses(t, 1, 1)
		if _, err := runtime.PushEnv(ctx, req); err != nil {
			return nil, faultf("under the server's plugin host: %s", b.kit.out.safe(err.Error()))
		}
		return func(ctx context.Context) error {
			st, err := runtime.ObserveEnv(ctx, req.App, t)
			if err == nil && st.AcceptedGeneration != 1 {
				err = fmt.Errorf("it says that generation %d is accepted, expected 1", st.AcceptedGeneration)
			}
			return err
		}, nil
	}, nil
}

// leavesNothing ends a process with a word, another by force, and looks for what
// is left of them.
func leavesNothing(ctx context.Context, b *bench) error {
	for _, how := range []struct {
		word string
		end  func(*session) error
	}{
		{"after it was asked to leave", func(s *session) error { return s.leave(ctx) }},
		{"after it was killed", func(s *session) error { s.kill(); return nil }},
	} {
		s, err := b.restart(ctx)
		if err != nil {
			return err
		}
		if err := b.work(ctx, s); err != nil {
			return err
		}
		pid := s.cmd.Process.Pid
		listening := sockets(pid)
		for _, child := range descendants(pid) {
			listening = append(listening, sockets(child)...)
		}
		b.current = nil
		if err := how.end(s); err != nil {
			return err
		}
		if err := b.remains(ctx, s, listening); err != nil {
			return faultf("%s, %v", how.word, err)
		}
	}
	return onlyOnLinux()
}

// onlyOnLinux ends the checks that look at processes.
func onlyOnLinux() error {
	if seesProcesses {
		return nil
	}
	return unchecked{"processes can only be looked at on Linux; the rest of it was checked"}
}

// remains looks for processes and sockets of a process that has ended. The
// kernel may need a moment to take away what was killed with it.
func (b *bench) remains(ctx context.Context, s *session, listening []string) error {
	deadline := time.Now().Add(leaveLimit)
	for {
		left := started(s.dir)
		for _, pid := range s.seen {
			if alive(pid) && !slices.Contains(left, pid) {
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return faultf("%d process(es) of it are still there: %s", len(left), b.kit.out.safe(commands(left)))
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, path := range listening {
		if _, err := os.Lstat(path); err == nil && !strings.HasPrefix(path, s.dir+"/") {
			return faultf("its socket %s is still there", path)
		}
	}
	return nil
}

func commands(pids []int) string {
	var out []string
	for _, pid := range pids {
		line := strings.TrimRight(strings.ReplaceAll(string(commandLine(pid)), "\x00", " "), " ")
		out = append(out, fmt.Sprintf("%d (%.60s)", pid, line))
	}
	return strings.Join(out, ", ")
}
