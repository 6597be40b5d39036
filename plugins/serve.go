package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/warifu/warifu/plugins/pluginpb"
)

// DeployHook is what the author of a deploy hook implements. Evaluate has no
// side effects and gives the same answer to the same request; it may be called
// from several goroutines.
type DeployHook interface {
	// Describe may be called before Configure.
	Describe() Description
	// Configure gets the plugin's config as JSON, empty when there is none. An
	// error is shown to the operator and the plugin is not used.
	Configure(ctx context.Context, config json.RawMessage) error
	Evaluate(ctx context.Context, req EvaluateRequest) (Answer, error)
}

// EnvRuntime is what the author of a runtime implements. The rules of a push are
// in pluginpb (service Runtime). Wrap ErrStale, ErrDigestConflict, ErrInvalid or
// ErrUnavailable to say why a call is refused; a rollout that fails is a Status,
// not an error. No error or Diagnostic may hold a variable's value.
//
// All but Configure may be called from several goroutines.
type EnvRuntime interface {
	Describe() Description
	// Configure also gets a directory that is the plugin's alone and outlives
	// it.
	Configure(ctx context.Context, config json.RawMessage, stateDir string) error
	PushEnv(ctx context.Context, req PushRequest) (Status, error)
	ObserveEnv(ctx context.Context, app string, target Target) (Status, error)
	RemoveEnv(ctx context.Context, req RemoveRequest) error
	ListTargets(ctx context.Context, app string) ([]AppTarget, error)
}

// ServeHook serves impl to the host that started this process and returns when
// the host asks it to end. Nothing may be printed on stdout before; afterwards
// os.Stdout and os.Stderr are the host's log.
func ServeHook(impl DeployHook) {
	serve(HookKind, func(s *grpc.Server) { pluginpb.RegisterDeployHookServer(s, &hookServer{impl: impl}) })
}

// ServeRuntime is ServeHook for runtimes.
func ServeRuntime(impl EnvRuntime) {
	serve(RuntimeKind, func(s *grpc.Server) { pluginpb.RegisterRuntimeServer(s, &runtimeServer{impl: impl}) })
}

// parentPoll is how often a plugin looks whether its host still lives.
const parentPoll = 500 * time.Millisecond

func serve(kind Kind, register func(*grpc.Server)) {
	// Serve puts others into these variables; unreferenced, the files would be
	// closed by the garbage collector and their numbers given to other files.
	stdout, stderr := os.Stdout, os.Stderr
	defer runtime.KeepAlive(stdout)
	defer runtime.KeepAlive(stderr)
	go watchParent(os.Getppid())
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: versions(kind, register),
		Logger: hclog.New(&hclog.LoggerOptions{
			Level: hclog.Info, Output: os.Stderr, JSONFormat: true,
		}),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts,
				grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
				grpc.UnaryInterceptor(recovered))...)
		},
	})
}

// watchParent ends the process when its host is gone: it then has another parent.
// It lives as long as the process.
func watchParent(parent int) {
	for range time.Tick(parentPoll) {
		if os.Getppid() != parent {
			os.Exit(1)
		}
	}
}

// recovered turns a panic into an Internal error. The panic's value may hold a
// secret, so it is shown nowhere; the stack has no values.
func recovered(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if recover() != nil {
			fmt.Fprintf(os.Stderr, "panic in %s\n%s", info.FullMethod, debug.Stack())
			resp, err = nil, status.Error(codes.Internal, "the plugin panicked; its log has the stack")
		}
	}()
	resp, err = next(ctx, req)
	// A call that ended because the host would not wait longer failed for that reason, whatever it ran into then.
	if code := status.Code(err); ctx.Err() != nil && (code == codes.Unavailable || code == codes.Unknown) {
		return nil, status.Error(status.FromContextError(ctx.Err()).Code(), status.Convert(err).Message())
	}
	return resp, err
}

// statusError gives an error of an implementation its place in the contract.
func statusError(err error) error {
	if err == nil {
		return nil
	}
	code, reason := codes.Unknown, pluginpb.Fault_REASON_UNSPECIFIED
	switch {
	case errors.Is(err, ErrStale):
		code, reason = codes.FailedPrecondition, pluginpb.Fault_STALE
	case errors.Is(err, ErrDigestConflict):
		code, reason = codes.InvalidArgument, pluginpb.Fault_DIGEST_CONFLICT
	case errors.Is(err, ErrInvalid):
		code, reason = codes.InvalidArgument, pluginpb.Fault_INVALID
	case errors.Is(err, ErrUnavailable):
		code = codes.Unavailable
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	st := status.New(code, err.Error())
	if reason == pluginpb.Fault_REASON_UNSPECIFIED {
		return st.Err()
	}
	detailed, detailErr := st.WithDetails(&pluginpb.Fault{Reason: reason})
	if detailErr != nil {
		return st.Err() // the code alone says enough
	}
	return detailed.Err()
}

type hookServer struct {
	pluginpb.UnimplementedDeployHookServer
	impl DeployHook
}

func (s *hookServer) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	return describeToPB(s.impl.Describe()), nil
}

func (s *hookServer) Configure(ctx context.Context,
	req *pluginpb.HookConfigureRequest) (*pluginpb.HookConfigureResponse, error) {
	if err := s.impl.Configure(ctx, req.GetConfigJson()); err != nil {
		return nil, configError(err)
	}
	return &pluginpb.HookConfigureResponse{}, nil
}

func (s *hookServer) Evaluate(ctx context.Context, req *pluginpb.EvaluateRequest) (*pluginpb.EvaluateResponse, error) {
	previous, err := answerFromPB(req.GetPrevious())
	if err != nil {
		return nil, statusError(fmt.Errorf("%w: previous answer: %w", ErrInvalid, err))
	}
	answer, err := s.impl.Evaluate(ctx, EvaluateRequest{
		Manifest:   req.GetManifestJson(),
		Registered: registrationFromPB(req.GetRegistered()),
		Previous:   previous,
		Issuer:     req.GetIssuer(),
		Dev:        req.GetDev(),
	})
	if err != nil {
		return nil, statusError(err)
	}
	out, err := answerToPB(&answer)
	if err != nil {
		return nil, statusError(err)
	}
	return &pluginpb.EvaluateResponse{Answer: out}, nil
}

type runtimeServer struct {
	pluginpb.UnimplementedRuntimeServer
	impl EnvRuntime
}

func (s *runtimeServer) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	return describeToPB(s.impl.Describe()), nil
}

func (s *runtimeServer) Configure(ctx context.Context,
	req *pluginpb.RuntimeConfigureRequest) (*pluginpb.RuntimeConfigureResponse, error) {
	if err := s.impl.Configure(ctx, req.GetConfigJson(), req.GetStateDir()); err != nil {
		return nil, configError(err)
	}
	return &pluginpb.RuntimeConfigureResponse{}, nil
}

func (s *runtimeServer) PushEnv(ctx context.Context, req *pluginpb.PushEnvRequest) (*pluginpb.PushEnvResponse, error) {
	push := pushFromPB(req)
	if err := push.check(); err != nil {
		return nil, statusError(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	st, err := s.impl.PushEnv(ctx, push)
	if err != nil {
		return nil, statusError(err)
	}
	return &pluginpb.PushEnvResponse{Status: statusToPB(st)}, nil
}

func (s *runtimeServer) ObserveEnv(ctx context.Context,
	req *pluginpb.ObserveEnvRequest) (*pluginpb.ObserveEnvResponse, error) {
	st, err := s.impl.ObserveEnv(ctx, req.GetApp(), targetFromPB(req.GetTarget()))
	if err != nil {
		return nil, statusError(err)
	}
	return &pluginpb.ObserveEnvResponse{Status: statusToPB(st)}, nil
}

func (s *runtimeServer) RemoveEnv(ctx context.Context,
	req *pluginpb.RemoveEnvRequest) (*pluginpb.RemoveEnvResponse, error) {
	remove := RemoveRequest{App: req.GetApp(), Target: targetFromPB(req.GetTarget()), Generation: req.GetGeneration(),
		Fence: req.GetFence()}
	if err := checkAddressed(remove.App, remove.Target, remove.Generation, remove.Fence); err != nil {
		return nil, statusError(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if err := s.impl.RemoveEnv(ctx, remove); err != nil {
		return nil, statusError(err)
	}
	return &pluginpb.RemoveEnvResponse{}, nil
}

func (s *runtimeServer) ListTargets(ctx context.Context,
	req *pluginpb.ListTargetsRequest) (*pluginpb.ListTargetsResponse, error) {
	targets, err := s.impl.ListTargets(ctx, req.GetApp())
	if err != nil {
		return nil, statusError(err)
	}
	out := &pluginpb.ListTargetsResponse{}
	for _, t := range targets {
		out.Targets = append(out.Targets, &pluginpb.AppTarget{App: t.App, Target: targetToPB(t.Target)})
	}
	return out, nil
}

// configError marks a refused configuration, which no restart mends, as invalid.
func configError(err error) error {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInvalid) {
		return statusError(err)
	}
	return statusError(fmt.Errorf("%w: %w", ErrInvalid, err))
}
