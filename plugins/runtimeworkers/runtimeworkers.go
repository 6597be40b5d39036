// Package runtimeworkers is the built-in runtime `workers`: it gives Workers their
// environment. Two drivers serve the same contract; config says which.
//
// # workerd
//
// The driver runs the Workers itself, in Cloudflare's open runtime workerd:
//
//	{
//	  "driver": "workerd",
//	  "workerd": "/opt/workerd",            // default: PATH, then node_modules of root and above
//	  "root": "/srv/apps",                  // where scripts are
//	  "script": "{root}/{app}/{worker}.js", // this is the default
//	  "workers": {"my-app/web": {"script": "/srv/my-app/dist/worker", "listen": "127.0.0.1:8787"}}
//	}
//
// Workers may connect to public addresses only, as workerd has it; "network":
// ["public", "private"] lets them reach an issuer on 127.0.0.1.
//
// The variables are text bindings: the script finds them in its env. They reach
// workerd in a file that has no name (Linux) or is gone after the start
// (elsewhere), so neither arguments nor process environment show them.
//
// The plugin listens for the Workers and passes each request to the Worker's
// process, over a socket that only this user can reach. New variables mean a new
// process beside the old one; when it listens, all new requests are its own, and
// the old one is told to end when it has answered those that it had: no request is
// lost. A Worker that does not start leaves the old one as it was, and the push
// FAILED with what workerd said, rid of values. Each start reads the script anew.
// Requests that take longer than drainSeconds, WebSockets too, are cut off.
//
// Generation, digest and variables are kept in the state directory, sealed with a
// key beside them that only the service's user can read. So the plugin starts all
// Workers again after its own restart, without asking anybody; who takes the
// directory without the key has nothing. A Worker whose process ended is started
// again, the later the more often it happens; meanwhile requests wait for ten
// seconds and an observation says what is wrong. No workerd outlives the plugin:
// when asked to end it lets them finish for two seconds, and when it is killed the
// kernel kills them (Linux).
//
// A Worker runs while it has an environment of ours; RemoveEnv ends it.
//
// # cloudflare
//
// The driver writes the variables as secrets of scripts that somebody else
// deploys to Cloudflare:
//
//	{"driver": "cloudflare", "accountId": "...", "tokenFile": "/etc/warifu/cloudflare.token", "script": "{app}-{worker}"}
//
// One PATCH of secrets-bulk writes and deletes all names of a push together,
// leaves other secrets alone, and deploys one version. Values never come back
// from the API: drift is a name that is gone, or a version deployed after ours,
// which may have other values; the next push, of the same generation too, puts
// them right. The version that ours became is kept with the generation in the
// state directory; the version's tags say both to people. A script with an
// uploaded version that is not deployed is left alone until it is (the API's
// errors 10214 and 10215), because writing would deploy somebody's pending
// version. Rate limits hold back all calls of the driver.
//
// This driver was tested against a strict imitation written from the API's
// published shapes. The real service was not reached.
package runtimeworkers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/warifu/warifu/plugins"
)

// Serve runs the runtime as a plugin process; it returns when the host ends it.
func Serve() {
	r := &workersRuntime{}
	plugins.ServeRuntime(r)
	if r.driver != nil {
		r.close()
	}
}

// driver is how Workers are reached. The methods are those of
// [plugins.EnvRuntime]; targets have been checked.
type driver interface {
	PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error)
	ObserveEnv(ctx context.Context, app string, t plugins.Target) (plugins.Status, error)
	RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error
	ListTargets(ctx context.Context, app string) ([]plugins.AppTarget, error)
	close()
}

// workersRuntime is safe for several goroutines once it is configured.
type workersRuntime struct {
	driver
}

func (r *workersRuntime) Describe() plugins.Description {
	return plugins.Description{Name: "workers", Version: "1.0.0", Kinds: []string{plugins.TargetWorker}}
}

// Configure makes the driver that the settings name.
func (r *workersRuntime) Configure(_ context.Context, config json.RawMessage, stateDir string) error {
	var kind struct {
		Driver string `json:"driver"`
	}
	if err := json.Unmarshal(config, &kind); err != nil {
		return fmt.Errorf("%w: the config of the runtime workers is an object with a driver: %w", plugins.ErrInvalid, err)
	}
	if !filepath.IsAbs(stateDir) {
		return fmt.Errorf("%w: the runtime workers needs a state directory", plugins.ErrInvalid)
	}
	store, err := openStore(stateDir)
	if err != nil {
		return err
	}
	switch kind.Driver {
	case "workerd":
		var s workerdSettings
		if err := decodeSettings(config, &s); err != nil {
			return err
		}
		r.driver, err = newWorkerd(s, store)
	case "cloudflare":
		var s cloudflareSettings
		if err := decodeSettings(config, &s); err != nil {
			return err
		}
		r.driver, err = newCloudflare(s, store)
	default:
		return fmt.Errorf("%w: driver %q is not workerd or cloudflare", plugins.ErrInvalid, kind.Driver)
	}
	return err
}

func decodeSettings(config json.RawMessage, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%w: the config of the runtime workers: %w", plugins.ErrInvalid, err)
	}
	return nil
}

// check refuses what no driver serves.
func check(app string, t plugins.Target) error {
	switch {
	case app == "":
		return fmt.Errorf("%w: no app", plugins.ErrInvalid)
	case t.Kind != plugins.TargetWorker:
		return fmt.Errorf("%w: the runtime workers serves targets of kind worker, not %s", plugins.ErrInvalid, t)
	case t.Name == "":
		return fmt.Errorf("%w: target has no name", plugins.ErrInvalid)
	}
	return nil
}

func (r *workersRuntime) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	if err := check(req.App, req.Target); err != nil {
		return plugins.Status{}, err
	}
	return r.driver.PushEnv(ctx, req)
}

func (r *workersRuntime) ObserveEnv(ctx context.Context, app string, t plugins.Target) (plugins.Status, error) {
	if err := check(app, t); err != nil {
		return plugins.Status{}, err
	}
	return r.driver.ObserveEnv(ctx, app, t)
}

func (r *workersRuntime) RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error {
	if err := check(req.App, req.Target); err != nil {
		return err
	}
	return r.driver.RemoveEnv(ctx, req)
}

// held is what the Worker has; nil is nothing.
func (r *record) held() plugins.Held {
	if r == nil {
		return plugins.Held{}
	}
	return plugins.Held{Generation: r.Generation, Fence: r.Fence, Digest: r.Digest}
}

// problem is why a rollout failed, in words for the operator. It holds no value
// of a variable.
type problem struct {
	message, remedy string
	retryable       bool
}

func (p *problem) Error() string { return p.message }

// refused is the status after a push that failed: what was there before still
// serves. Other errors than a problem are given back.
func refused(st plugins.Status, err error) (plugins.Status, error) {
	var p *problem
	if !errors.As(err, &p) {
		return plugins.Status{}, err
	}
	st.State = plugins.StateFailed
	st.Diagnostic = &plugins.Diagnostic{Message: p.message, Remedy: p.remedy, Retryable: p.retryable}
	return st, nil
}
