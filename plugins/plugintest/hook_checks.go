package plugintest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/pluginpb"
)

// Checks of deploy hooks.

const sampleIssuer = "https://id.example.com"

// sampleManifests are asked about besides the harness' own: an app with
// everything, a public one, and one without OAuth.
var sampleManifests = []json.RawMessage{
	json.RawMessage(`{"apiVersion":"takos.dev/v1alpha1","kind":"App","metadata":{"name":"kit-app"},"spec":{"version":"1.2.3",
		"oauth":{"clientName":"Kit App","redirectUris":["https://kit.example.com/callback","http://localhost:8787/callback"],
		"scopes":["openid","files:read"],"autoEnv":true,"metadata":{"logoUri":"https://kit.example.com/logo.png"}},
		"workers":{"web":{"artifactPath":"web.js"},"api":{},"cron":{}},"containers":{"job":{},"db":{}},"services":{"mail":{}}}}`),
	json.RawMessage(`{"apiVersion":"takos.dev/v1alpha1","kind":"App","metadata":{"name":"kit-public"},"spec":{"version":"0.1.0",
		"oauth":{"clientName":"Kit Public","redirectUris":["https://kit.example.com/callback"],"scopes":["openid"],"autoEnv":true,"public":true},
		"workers":{"web":{},"zeta":{},"alpha":{}}}}`),
	json.RawMessage(`{"apiVersion":"takos.dev/v1alpha1","kind":"App","metadata":{"name":"kit-keys"},"spec":{"version":"0.1.0",
		"oauth":{"clientName":"Kit Keys","scopes":["files:read"],"autoEnv":true,"grantTypes":["client_credentials"],
		"tokenEndpointAuthMethod":"private_key_jwt","jwksUri":"https://kit.example.com/jwks.json","defaultMaxAge":0},"workers":{"web":{}}}}`),
	json.RawMessage(
		`{"apiVersion":"takos.dev/v1alpha1","kind":"App","metadata":{"name":"kit-plain"},"spec":{"version":"0.1.0","workers":{"web":{}}}}`),
}

// questions are all manifests, each as a new app, as one that is registered, and
// as the second hook in a chain.
func (b *bench) questions() []*pluginpb.EvaluateRequest {
	registered := &pluginpb.Registration{ClientName: "Before", RedirectUris: []string{"https://old.example.com/callback"},
		Scopes: []string{"openid"}}
	previous := &pluginpb.Answer{Client: registered, Targets: []*pluginpb.TargetEnv{{
		Target: &pluginpb.Target{Kind: plugins.TargetWorker, Name: "web"},
		Env:    map[string]*pluginpb.EnvValue{"KIT_BEFORE": {Value: &pluginpb.EnvValue_Literal{Literal: "kept or not"}}},
	}}}
	var out []*pluginpb.EvaluateRequest
	for _, manifest := range append(append([]json.RawMessage{}, sampleManifests...), b.kit.harness.Manifests...) {
		out = append(out,
			&pluginpb.EvaluateRequest{ManifestJson: manifest, Issuer: sampleIssuer},
			&pluginpb.EvaluateRequest{ManifestJson: manifest, Issuer: sampleIssuer, Registered: registered, Dev: true},
			&pluginpb.EvaluateRequest{ManifestJson: manifest, Issuer: sampleIssuer, Registered: registered, Previous: previous})
	}
	return out
}

func (b *bench) evaluate(ctx context.Context, s *session, manifest json.RawMessage) (*pluginpb.Answer, error) {
	return b.ask(ctx, s, &pluginpb.EvaluateRequest{ManifestJson: manifest, Issuer: sampleIssuer})
}

func (b *bench) ask(ctx context.Context, s *session, req *pluginpb.EvaluateRequest) (*pluginpb.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, describeLimit)
	defer cancel()
	answer, err := s.hook.Evaluate(ctx, req)
	s.note(err)
	if err != nil {
		return nil, b.failed("Evaluate", err)
	}
	if answer.GetAnswer() == nil {
		return nil, faultf("Evaluate gave a response without an answer")
	}
	return answer.GetAnswer(), nil
}

// answers asks everything and gives the answers in bytes that differ when they
// do; the order of a map is not a difference.
func (b *bench) answers(ctx context.Context, s *session) ([][]byte, error) {
	var out [][]byte
	for _, q := range b.questions() {
		answer, err := b.ask(ctx, s, q)
		if err != nil {
			return nil, err
		}
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(answer)
		if err != nil {
			return nil, fmt.Errorf("write an answer: %w", err)
		}
		out = append(out, raw)
	}
	return out, nil
}

func same(first, now [][]byte, when string) error {
	for i := range first {
		if !bytes.Equal(first[i], now[i]) {
			return faultf("question %d of %d got another answer %s", i+1, len(first), when)
		}
	}
	return nil
}

func deterministic(ctx context.Context, b *bench) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	first, err := b.answers(ctx, s)
	if err != nil {
		return err
	}
	for range 10 {
		now, err := b.answers(ctx, s)
		if err != nil {
			return err
		}
		if err := same(first, now, "when it was asked again"); err != nil {
			return err
		}
	}
	if s, err = b.restart(ctx); err != nil {
		return err
	}
	now, err := b.answers(ctx, s)
	if err != nil {
		return err
	}
	return same(first, now, "from a new process")
}

// hookAnswers has the server's own host hold the answers against the contract.
func hookAnswers(ctx context.Context, b *bench) error {
	dir, err := b.kit.newDir()
	if err != nil {
		return err
	}
	return b.hosted(ctx, dir, func(ctx context.Context, host *plugins.Host, spec plugins.Spec) error {
		hook, err := host.Hook(spec)
		if err != nil {
			return fmt.Errorf("declare the hook: %w", err)
		}
		for _, q := range b.questions() {
			req := plugins.EvaluateRequest{Manifest: q.GetManifestJson(), Issuer: q.GetIssuer(), Dev: q.GetDev()}
			if q.GetRegistered() != nil {
				req.Registered = &plugins.Registration{ClientName: "Before",
					RedirectURIs: []string{"https://old.example.com/callback"}, Scopes: []string{"openid"}}
			}
			answer, err := hook.Evaluate(ctx, req)
			if err != nil {
				return faultf("the server refuses its answer: %s", b.kit.out.safe(err.Error()))
			}
			for _, n := range append(answer.Warnings, answer.Denials...) {
				if err := readable(n); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// readable holds a notice to what people and scripts can read.
func readable(n plugins.Notice) error {
	odd := func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	if n.Code == "" || strings.ContainsFunc(n.Code, odd) {
		return faultf("the code %.60q of a notice is not lower_snake_case", n.Code)
	}
	if strings.TrimSpace(n.Message) == "" || strings.ContainsFunc(n.Message+n.Path+n.Remedy, unicode.IsControl) {
		return faultf("notice %s has no message, or control characters in its words", n.Code)
	}
	return nil
}

// noSideEffects gives a process a directory as its home and looks what it does
// to that, to files at large, and to its own children.
func noSideEffects(ctx context.Context, b *bench) error {
	home, err := b.kit.newDir()
	if err != nil {
		return err
	}
	s, err := b.kit.configured(ctx, "HOME="+home, "TMPDIR="+home, "XDG_CACHE_HOME="+home, "XDG_CONFIG_HOME="+home,
		"XDG_STATE_HOME="+home)
	if err != nil {
		return err
	}
	b.current = s
	b.sessions = append(b.sessions, s)
	if _, err := b.answers(ctx, s); err != nil { // what a language does once on its first call is not the hook's
		return err
	}
	pid := s.cmd.Process.Pid
	filesBefore, stateBefore := files(home), files(b.kit.harness.StateDir)
	bytesBefore, counted := written(pid)
	if _, err := b.answers(ctx, s); err != nil {
		return err
	}
	if bytesAfter, ok := written(pid); counted && ok && bytesAfter != bytesBefore {
		return faultf("it wrote %d bytes to files while it was asked", bytesAfter-bytesBefore)
	}
	if files(home) != filesBefore || len(filesBefore) > 0 {
		return faultf("it wrote files below the home or temporary directory")
	}
	if files(b.kit.harness.StateDir) != stateBefore {
		return faultf("it wrote files below the state directory")
	}
	if children := descendants(pid); len(children) > 0 {
		return faultf("it started %d process(es): %s", len(children), commands(children))
	}
	return onlyOnLinux()
}

// files lists what is below a directory, with sizes and times.
func files(dir string) string {
	var b strings.Builder
	// An unreadable part is the same part later
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return nil
		}
		if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
			fmt.Fprintf(&b, "%s %d %s %s\n", path, info.Size(), info.Mode(), info.ModTime())
		}
		return nil
	})
	return b.String()
}

func manyQuestions(ctx context.Context, b *bench) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	first, err := b.answers(ctx, s)
	if err != nil {
		return err
	}
	const many = 32
	var wait sync.WaitGroup
	faults := make(chan error, many)
	for range many {
		wait.Go(func() {
			now, err := b.answers(ctx, s)
			if err == nil {
				err = same(first, now, "while others asked")
			}
			if err != nil {
				faults <- err
			}
		})
	}
	wait.Wait()
	select {
	case err := <-faults:
		return err
	default:
		return nil
	}
}

func denial(ctx context.Context, b *bench) error {
	manifest := b.kit.harness.Denied
	if manifest == nil {
		return unchecked{"the harness has no Denied, a manifest that the hook refuses"}
	}
	dir, err := b.kit.newDir()
	if err != nil {
		return err
	}
	return b.hosted(ctx, dir, func(ctx context.Context, host *plugins.Host, spec plugins.Spec) error {
		hook, err := host.Hook(spec)
		if err != nil {
			return fmt.Errorf("declare the hook: %w", err)
		}
		answer, err := hook.Evaluate(ctx, plugins.EvaluateRequest{Manifest: manifest, Issuer: sampleIssuer})
		if err != nil {
			return faultf("the manifest that it refuses made it fail instead of deny: %s", b.kit.out.safe(err.Error()))
		}
		if len(answer.Denials) == 0 {
			return faultf("it does not deny the manifest that it refuses")
		}
		var errs []error
		for _, n := range answer.Denials {
			if n.Remedy == "" {
				errs = append(errs, faultf("denial %s does not say what to do", n.Code))
			}
			errs = append(errs, readable(n))
		}
		return errors.Join(errs...)
	})
}
