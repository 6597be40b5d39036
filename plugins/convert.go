package plugins

import (
	"fmt"

	"github.com/warifu/warifu/plugins/pluginpb"
)

// Between the wire's messages and this package's types. Nothing else touches the
// messages' fields, and nobody prints them.

func targetToPB(t Target) *pluginpb.Target {
	return &pluginpb.Target{Kind: t.Kind, Name: t.Name}
}

func targetFromPB(t *pluginpb.Target) Target {
	return Target{Kind: t.GetKind(), Name: t.GetName()}
}

func describeFromPB(d *pluginpb.DescribeResponse) Description {
	return Description{Name: d.GetName(), Version: d.GetVersion(), Kinds: d.GetKinds()}
}

func describeToPB(d Description) *pluginpb.DescribeResponse {
	return &pluginpb.DescribeResponse{Name: d.Name, Version: d.Version, Kinds: d.Kinds}
}

var sourceToPB = map[EnvSource]pluginpb.EnvValue_Source{
	SourceClientID:     pluginpb.EnvValue_CLIENT_ID,
	SourceClientSecret: pluginpb.EnvValue_CLIENT_SECRET,
	SourceIssuer:       pluginpb.EnvValue_ISSUER,
}

var sourceFromPB = map[pluginpb.EnvValue_Source]EnvSource{
	pluginpb.EnvValue_CLIENT_ID:     SourceClientID,
	pluginpb.EnvValue_CLIENT_SECRET: SourceClientSecret,
	pluginpb.EnvValue_ISSUER:        SourceIssuer,
}

func envValueToPB(v EnvValue) (*pluginpb.EnvValue, error) {
	if v.Source == SourceLiteral {
		return &pluginpb.EnvValue{Value: &pluginpb.EnvValue_Literal{Literal: v.Literal}}, nil
	}
	source, known := sourceToPB[v.Source]
	if !known {
		return nil, fmt.Errorf("unknown source %q of a variable", v.Source)
	}
	return &pluginpb.EnvValue{Value: &pluginpb.EnvValue_Source_{Source: source}}, nil
}

func envValueFromPB(v *pluginpb.EnvValue) (EnvValue, error) {
	switch value := v.GetValue().(type) {
	case *pluginpb.EnvValue_Literal:
		return EnvValue{Literal: value.Literal}, nil
	case *pluginpb.EnvValue_Source_:
		if source, known := sourceFromPB[value.Source]; known {
			return EnvValue{Source: source}, nil
		}
		return EnvValue{}, fmt.Errorf("unknown source %d of a variable", value.Source)
	default:
		return EnvValue{}, fmt.Errorf("a variable without a value")
	}
}

func noticesToPB(notices []Notice) []*pluginpb.Notice {
	out := make([]*pluginpb.Notice, 0, len(notices))
	for _, n := range notices {
		out = append(out, &pluginpb.Notice{Code: n.Code, Path: n.Path, Message: n.Message, Remedy: n.Remedy})
	}
	return out
}

func noticesFromPB(notices []*pluginpb.Notice) []Notice {
	var out []Notice
	for _, n := range notices {
		out = append(out, Notice{Code: n.GetCode(), Path: n.GetPath(), Message: n.GetMessage(), Remedy: n.GetRemedy()})
	}
	return out
}

func answerToPB(a *Answer) (*pluginpb.Answer, error) {
	if a == nil {
		return nil, nil
	}
	out := &pluginpb.Answer{
		Client:   registrationToPB(a.Client),
		Warnings: noticesToPB(a.Warnings),
		Denials:  noticesToPB(a.Denials),
	}
	for _, t := range a.Targets {
		env := make(map[string]*pluginpb.EnvValue, len(t.Env))
		for name, value := range t.Env {
			v, err := envValueToPB(value)
			if err != nil {
				return nil, err
			}
			env[name] = v
		}
		out.Targets = append(out.Targets, &pluginpb.TargetEnv{Target: targetToPB(t.Target), Env: env})
	}
	return out, nil
}

func answerFromPB(a *pluginpb.Answer) (*Answer, error) {
	if a == nil {
		return nil, nil
	}
	out := &Answer{
		Client:   registrationFromPB(a.GetClient()),
		Warnings: noticesFromPB(a.GetWarnings()),
		Denials:  noticesFromPB(a.GetDenials()),
	}
	for _, t := range a.GetTargets() {
		env := make(map[string]EnvValue, len(t.GetEnv()))
		for name, value := range t.GetEnv() {
			v, err := envValueFromPB(value)
			if err != nil {
				return nil, err
			}
			env[name] = v
		}
		out.Targets = append(out.Targets, TargetEnv{Target: targetFromPB(t.GetTarget()), Env: env})
	}
	return out, nil
}

func pushToPB(p PushRequest) *pluginpb.PushEnvRequest {
	return &pluginpb.PushEnvRequest{App: p.App, Target: targetToPB(p.Target),
		Generation: p.Generation, Fence: p.Fence, Digest: p.Digest, Env: p.Env}
}

func pushFromPB(p *pluginpb.PushEnvRequest) PushRequest {
	return PushRequest{App: p.GetApp(), Target: targetFromPB(p.GetTarget()),
		Generation: p.GetGeneration(), Fence: p.GetFence(), Digest: p.GetDigest(), Env: p.GetEnv()}
}

var stateToPB = map[State]pluginpb.Status_State{
	StateRolling: pluginpb.Status_ROLLING,
	StateReady:   pluginpb.Status_READY,
	StateFailed:  pluginpb.Status_FAILED,
}

var stateFromPB = map[pluginpb.Status_State]State{
	pluginpb.Status_ROLLING: StateRolling,
	pluginpb.Status_READY:   StateReady,
	pluginpb.Status_FAILED:  StateFailed,
}

func statusToPB(s Status) *pluginpb.Status {
	out := &pluginpb.Status{
		State: stateToPB[s.State], AcceptedGeneration: s.AcceptedGeneration, ServingGeneration: s.ServingGeneration,
		Digest: s.Digest, Instances: int32(min(max(s.Instances, 0), 1<<30)), Location: s.Location, Present: s.Present,
	}
	if d := s.Diagnostic; d != nil {
		out.Diagnostic = &pluginpb.Diagnostic{Message: d.Message, Remedy: d.Remedy, Retryable: d.Retryable}
	}
	return out
}

func statusFromPB(s *pluginpb.Status) Status {
	out := Status{
		State: stateFromPB[s.GetState()], AcceptedGeneration: s.GetAcceptedGeneration(),
		ServingGeneration: s.GetServingGeneration(),
		Digest:            s.GetDigest(), Instances: int(s.GetInstances()), Location: s.GetLocation(),
		Present: s.GetPresent(),
	}
	if d := s.GetDiagnostic(); d != nil {
		out.Diagnostic = &Diagnostic{Message: d.GetMessage(), Remedy: d.GetRemedy(), Retryable: d.GetRetryable()}
	}
	return out
}
