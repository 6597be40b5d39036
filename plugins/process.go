package plugins

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	pluginrunner "github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/warifu/warifu/plugins/pluginpb"
)

// process is one life of a plugin: a go-plugin client, which cannot be started
// twice, and what belongs to it. It is made by startProcess and ended by end.
type process struct {
	client  *plugin.Client
	conn    *grpc.ClientConn
	runner  atomic.Pointer[runner] // set by go-plugin's goroutine while it starts
	dir     string                 // sockets; removed at the end
	streams []io.Closer            // the log's ends of the plugin's os.Stdout and os.Stderr
	started time.Time

	// Of the supervisor: how many calls are under way, whether it gets no more, and what is closed when it has none then.
	calls int
	left  bool
	idle  chan struct{}

	description Description
	timeouts    atomic.Int32 // calls in a row that were not answered in time
}

// startProcess starts, checks, describes and configures a plugin. Every step has
// its deadline; ctx ends all of them.
func startProcess(ctx context.Context, h *Host, spec Spec, log *pluginLog) (*process, error) {
	if err := checkBinary(spec); err != nil {
		return nil, err
	}
	dir, err := h.sockets.make()
	if err != nil {
		return nil, fmt.Errorf("plugin %q: make its socket directory: %w", spec.Name, err)
	}
	p := &process{dir: dir, started: time.Now(), idle: make(chan struct{})}
	config, err := p.clientConfig(h, spec, log)
	if err != nil {
		_ = os.Remove(dir) // it is empty
		return nil, fmt.Errorf("plugin %q: %w", spec.Name, err)
	}
	p.client = plugin.NewClient(config)
	if err := p.connect(ctx, h, spec, config); err != nil {
		p.end(ctx, 0)
		return nil, err
	}
	if err := p.introduce(ctx, spec, h); err != nil {
		p.end(ctx, 0)
		return nil, err
	}
	return p, nil
}

// checkBinary says what is wrong with a plugin's file before go-plugin tries it.
// The checksum is taken anew for each start.
func checkBinary(spec Spec) error {
	fault := func(problem, remedy string, err error) error {
		return &StartError{Plugin: spec.Name, Path: spec.Path, Problem: problem, Remedy: remedy, Err: err}
	}
	info, err := os.Stat(spec.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fault("there is no such file", "install the plugin there or correct its path in the configuration", err)
	case err != nil:
		return fault("the file cannot be looked at: "+err.Error(), "let the server's user read it", err)
	case !info.Mode().IsRegular():
		return fault("it is not a file", "give the path of the plugin's executable", nil)
	}
	if spec.SHA256 == "" {
		return nil
	}
	sum, err := hex.DecodeString(spec.SHA256)
	if err != nil {
		return fault("the configured sha256 is not hexadecimal", "give the output of sha256sum", err)
	}
	check := plugin.SecureConfig{Checksum: sum, Hash: sha256.New()}
	ok, err := check.Check(spec.Path)
	if err != nil {
		return fault("the file cannot be read: "+err.Error(), "let the server's user read it", err)
	}
	if !ok {
		return fault("its sha256 is not the configured one, so it was not run",
			"if you replaced the plugin, put the new sha256 into the configuration; otherwise find out who did",
			plugin.ErrChecksumsDoNotMatch)
	}
	return nil
}

func (p *process) clientConfig(h *Host, spec Spec, log *pluginLog) (*plugin.ClientConfig, error) {
	mutual, certificate, err := clientTLS()
	if err != nil {
		return nil, err
	}
	stdout, stderr := log.writer("stdout"), log.writer("stderr")
	p.streams = []io.Closer{stdout, stderr}
	return &plugin.ClientConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: versions(spec.Kind, nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		TLSConfig:        mutual,
		SkipHostEnv:      true,
		StartTimeout:     2 * h.deadlines.Start, // connect's own deadline comes first, and says what happened
		SyncStdout:       stdout,
		SyncStderr:       stderr,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: log.ours(), DisableTime: true}),
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: p.dir},
		GRPCDialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage))},
		RunnerFunc: func(_ hclog.Logger, env *exec.Cmd, socketDir string) (pluginrunner.Runner, error) {
			cmd := exec.Command(spec.Path, spec.Args...)
			cmd.Env = append(env.Env, envClientCert+"="+certificate) // what go-plugin says to the plugin, and nothing else
			r := newRunner(cmd, h.spawner, log, socketDir)
			p.runner.Store(r)
			return r, nil
		},
	}, nil
}

// connect starts the process and shakes hands. go-plugin's calls can block on a
// process that is stopped, so they run beside a deadline that kills it; then
// they return.
func (p *process) connect(ctx context.Context, h *Host, spec Spec, config *plugin.ClientConfig) error {
	ctx, cancel := context.WithTimeout(ctx, h.deadlines.Start)
	defer cancel()
	done, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		protocol, err := p.client.Client()
		if err == nil && config.TLSConfig.RootCAs == nil {
			err = errors.New("the plugin offered no certificate for mutual TLS")
		}
		if err == nil {
			var raw any
			if raw, err = protocol.Dispense(string(spec.Kind)); err == nil {
				p.conn = raw.(*grpc.ClientConn) // wire.GRPCClient gives nothing else
			}
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return handshakeError(h, spec, err)
		}
		return nil
	case <-ctx.Done():
		p.killStarting(over)
		return &StartError{Plugin: spec.Name, Path: spec.Path, Err: ErrDeadline,
			Problem: fmt.Sprintf("it did not finish its start in %s", h.deadlines.Start),
			Remedy:  "see its log lines for what it waits for"}
	}
}

// killStarting kills what connect is starting. The process may be just about to
// be made, so it asks again until connect's goroutine has come back.
func (p *process) killStarting(over <-chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if r := p.runner.Load(); r != nil {
			r.kill()
		}
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
}

func handshakeError(h *Host, spec Spec, err error) error {
	said := h.scrub.cleanLine(firstLine(err.Error()), maxErrorText)
	fault := &StartError{Plugin: spec.Name, Path: spec.Path, Err: err,
		Problem: "it did not complete the handshake: " + said,
		Remedy:  "check that it is a warifu plugin for this machine and see its log lines"}
	switch text := err.Error(); {
	case strings.Contains(text, "incompatible API version"):
		fault.Problem = fmt.Sprintf("it speaks another version of the plugin protocol than this server's %d (%s)",
			ProtocolVersion, said)
		fault.Remedy = "install a build of the plugin that is made for this version of warifu"
	case errors.Is(err, os.ErrPermission):
		fault.Problem = "it may not be executed"
		fault.Remedy = "make the file executable for the server's user"
	case strings.Contains(text, "plugin exited before we could connect"),
		strings.Contains(text, "Failed to read any lines"):
		fault.Problem = "it ended before the handshake"
		fault.Remedy = "see its log lines for why, and check that it is a warifu plugin for this machine"
	}
	return fault
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// introduce asks who the plugin is and configures it.
func (p *process) introduce(ctx context.Context, spec Spec, h *Host) error {
	describeCtx, cancel := context.WithTimeout(ctx, h.deadlines.Describe)
	defer cancel()
	var described *pluginpb.DescribeResponse
	var err error
	if spec.Kind == HookKind {
		described, err = pluginpb.NewDeployHookClient(p.conn).Describe(describeCtx, &pluginpb.DescribeRequest{})
	} else {
		described, err = pluginpb.NewRuntimeClient(p.conn).Describe(describeCtx, &pluginpb.DescribeRequest{})
	}
	if err != nil {
		return introduceError(h, spec, "Describe", err)
	}
	p.description = describeFromPB(described)
	configureCtx, cancel := context.WithTimeout(ctx, h.deadlines.Configure)
	defer cancel()
	if spec.Kind == HookKind {
		_, err = pluginpb.NewDeployHookClient(p.conn).Configure(configureCtx,
			&pluginpb.HookConfigureRequest{ConfigJson: spec.Config})
	} else {
		_, err = pluginpb.NewRuntimeClient(p.conn).Configure(configureCtx,
			&pluginpb.RuntimeConfigureRequest{ConfigJson: spec.Config, StateDir: spec.StateDir})
	}
	if err != nil {
		return introduceError(h, spec, "Configure", err)
	}
	return nil
}

func introduceError(h *Host, spec Spec, op string, err error) error {
	fault := &StartError{Plugin: spec.Name, Path: spec.Path, Err: sentinel(op, err)}
	message := h.scrub.cleanLine(status.Convert(err).Message(), maxErrorText)
	switch code := status.Code(err); {
	case code == codes.Unimplemented:
		fault.Problem = fmt.Sprintf("it is not a %s plugin", spec.Kind)
		fault.Remedy = "list it under the kind that it is"
	case op == "Configure" && code == codes.InvalidArgument:
		fault.Problem = "it refuses its configuration: " + message
		fault.Remedy = "correct the plugin's config"
	case code == codes.DeadlineExceeded:
		fault.Problem = "it did not answer " + op + " in time"
	default:
		fault.Problem = op + " failed: " + message
	}
	return fault
}

// healthy reports whether the plugin's server still answers at all.
func (p *process) healthy(ctx context.Context, limit time.Duration) bool {
	if !p.runner.Load().running() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(p.conn).Check(ctx,
		&grpc_health_v1.HealthCheckRequest{Service: plugin.GRPCServiceName})
	return err == nil
}

// end asks the plugin to leave, for at most grace, then kills it, and removes
// everything of it. Whatever the plugin does, it returns.
func (p *process) end(ctx context.Context, grace time.Duration) {
	if r := p.runner.Load(); r != nil {
		if p.conn != nil && grace > 0 && r.running() {
			p.shutdown(ctx, grace)
		}
		r.kill()
		if r.pid != 0 {
			<-r.exited
		}
	}
	p.client.Kill() // of a dead process whose pipes are closed: only tidies up
	for _, stream := range p.streams {
		_ = stream.Close() // a pipe's end: never fails
	}
	_ = os.RemoveAll(p.dir) // what stays is removed with the host's directory
}

// shutdown is go-plugin's own good-bye with a deadline, which go-plugin lacks.
func (p *process) shutdown(ctx context.Context, grace time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	err := p.conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	if err != nil && status.Code(err) != codes.Unavailable {
		return // it is killed
	}
	select {
	case <-p.runner.Load().exited:
	case <-ctx.Done():
	}
}
