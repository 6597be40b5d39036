package plugins

import (
	"errors"
	"fmt"
)

// More than this is not an app, it is a flood.
// MaxTargets is how many targets an answer may have: more than any app has that can be applied.
const MaxTargets = 1000

const (
	maxEnv     = 1000
	maxNotices = 1000
)

// check holds a hook's answer against the contract, so that a faulty or lying
// hook is refused before anybody acts on it.
func (a Answer) check() error {
	if len(a.Targets) > MaxTargets || len(a.Warnings)+len(a.Denials) > maxNotices {
		return errors.New("more targets or notices than any app has")
	}
	seen := map[Target]bool{}
	for _, t := range a.Targets {
		if err := t.Target.Check(); err != nil {
			return err
		}
		if seen[t.Target] {
			return fmt.Errorf("target %s is listed twice", t.Target)
		}
		seen[t.Target] = true
		if err := t.check(a.Client); err != nil {
			return fmt.Errorf("target %s: %w", t.Target, err)
		}
	}
	for _, notices := range [][]Notice{a.Warnings, a.Denials} {
		for _, n := range notices {
			if n.Code == "" || n.Message == "" {
				return errors.New("a warning or denial has no code or no message")
			}
		}
	}
	return nil
}

func (t TargetEnv) check(client *Registration) error {
	if len(t.Env) > maxEnv {
		return errors.New("more variables than any target has")
	}
	for name, value := range t.Env {
		switch {
		case !ValidEnvName(name):
			return fmt.Errorf("%q cannot be the name of a variable", name)
		case value.Source == SourceClientID && client == nil,
			value.Source == SourceClientSecret && (client == nil || !client.HasSecret()):
			return fmt.Errorf("variable %s wants the %s of a client that has none", name, value.Source)
		}
	}
	return nil
}

// checkPush holds a runtime's answer to a push against the rules.
func (s Status) checkPush(req PushRequest) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.State == StateFailed {
		return nil
	}
	if s.AcceptedGeneration != req.Generation || s.Digest != req.Digest {
		return fmt.Errorf("generation %d was pushed, but the answer accepts generation %d or another digest",
			req.Generation, s.AcceptedGeneration)
	}
	if s.State == StateReady && s.ServingGeneration != req.Generation {
		return fmt.Errorf("ready, but serving generation %d instead of %d", s.ServingGeneration, req.Generation)
	}
	return nil
}

func (s Status) check() error {
	switch s.State {
	case StateRolling, StateReady:
	case StateFailed:
		if s.Diagnostic == nil || s.Diagnostic.Message == "" {
			return errors.New("failed without a diagnostic")
		}
	default:
		return errors.New("a status without a state")
	}
	if s.AcceptedGeneration < 0 || s.ServingGeneration < 0 {
		return errors.New("a negative generation")
	}
	return nil
}

func (p PushRequest) check() error {
	if err := checkAddressed(p.App, p.Target, p.Generation, p.Fence); err != nil {
		return err
	}
	if p.Digest == "" {
		return errors.New("a push without a digest")
	}
	for name := range p.Env {
		if !ValidEnvName(name) {
			return fmt.Errorf("%q cannot be the name of a variable", name)
		}
	}
	return nil
}

func checkAddressed(app string, t Target, generation, fence int64) error {
	if app == "" {
		return errors.New("no app")
	}
	if generation < 1 || fence < 0 {
		return fmt.Errorf("generation %d or fence %d is out of range", generation, fence)
	}
	return t.Check()
}
