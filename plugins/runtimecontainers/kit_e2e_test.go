//go:build e2e

package runtimecontainers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/plugintest"
)

func TestPodmanRuntimeKeepsTheContract(t *testing.T) {
	p := startPodman(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plugintest.Run(t, binary, plugintest.Harness{
		Args: []string{"serve"}, Config: config(t, "unix://"+p.Socket), Settle: time.Minute,
		Prepare: func(ctx context.Context, app string, target plugins.Target) error {
			return p.prepare(ctx, app, target)
		},
		Discard: p.discard,
		Serving: p.serving,
		Rollout: p.serves,
		Foreign: func(ctx context.Context, app string, target plugins.Target, name, value string) error {
			return errors.Join(p.discard(ctx, app, target), p.prepare(ctx, app, target, "--env", name+"="+value))
		},
		Break: func(ctx context.Context, app string, target plugins.Target) error {
			return errors.Join(p.discard(ctx, app, target), p.prepare(ctx, app, target))
		},
		Fail: func(_ context.Context, _ string, _ plugins.Target, env map[string]string) (func(context.Context) error,
			error) {
			env["BROKEN"] = "yes"
			return nil, nil
		},
	})
}

func (p *podman) instances(app string, target plugins.Target) string {
	return filepath.Join(p.Dir, "instances", app, target.Kind+"-"+target.Name)
}

// prepare starts a container as its owner would, unless there is one.
func (p *podman) prepare(ctx context.Context, app string, target plugins.Target, more ...string) error {
	if ids, err := p.ids(ctx, app, target, "--all"); err != nil || len(ids) > 0 {
		return err
	}
	dir := p.instances(app, target)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	label, _ := targetLabel(target.Kind)
	args := []string{"run", "--detach", "--name", target.Name, "--network", "host", "--volume", dir + ":/instances",
		"--label", labelApp + "=" + app, "--label", label + "=" + target.Name}
	_, err := p.Try(ctx, append(append(args, more...), testImage)...)
	return err
}

// discard takes a target's containers away without asking them.
func (p *podman) discard(ctx context.Context, app string, target plugins.Target) error {
	ids, err := p.ids(ctx, app, target, "--all")
	if err != nil || len(ids) == 0 {
		return err
	}
	_, err = p.Try(ctx, append([]string{"rm", "--force", "--time", "0"}, ids...)...)
	return errors.Join(err, os.RemoveAll(p.instances(app, target)))
}

func (p *podman) ids(ctx context.Context, app string, target plugins.Target, more ...string) ([]string, error) {
	label, _ := targetLabel(target.Kind)
	out, err := p.Try(ctx, append([]string{"ps", "--no-trunc", "--quiet",
		"--filter", "label=" + labelApp + "=" + app, "--filter", "label=" + label + "=" + target.Name}, more...)...)
	return strings.Fields(out), err
}

// serves names what runs.
func (p *podman) serves(ctx context.Context, app string, target plugins.Target) (string, error) {
	ids, err := p.ids(ctx, app, target)
	return strings.Join(ids, " "), err
}

// serving asks the one instance that is announced.
func (p *podman) serving(ctx context.Context, app string, target plugins.Target) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		entries, err := os.ReadDir(p.instances(app, target))
		if err != nil {
			return nil, err
		}
		if len(entries) == 1 {
			env, err := ask(ctx, entries[0].Name())
			if err == nil {
				return env, nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("not one instance that answers but %d are announced: %w", len(entries), ctx.Err())
		}
	}
}
