// Command example is a complete runtime plugin to start your own from. It keeps
// one JSON file for each target: {"env": {what the app reads}, "pushed": {ours}}.
// Its config is {"dir": "/etc/apps"}; its test is the whole contract.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/warifu/warifu/plugins"
)

func main() { plugins.ServeRuntime(&runtime{}) }

type runtime struct {
	Dir string     `json:"dir"`
	mu  sync.Mutex // held from reading a file to replacing it
}

// file is a target. What a runtime has to remember is in it, so that neither a
// restart nor another server loses it.
type file struct {
	Env    map[string]string   `json:"env"`    // ours and those of others
	Pushed plugins.PushRequest `json:"pushed"` // generation 0: nothing is ours
}

func (*runtime) Describe() plugins.Description {
	return plugins.Description{Name: "example", Version: "1.0.0"}
}

func (r *runtime) Configure(_ context.Context, config json.RawMessage, _ string) error {
	decoder := json.NewDecoder(strings.NewReader(string(config)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(r); err != nil || !filepath.IsAbs(r.Dir) {
		return fmt.Errorf(`%w: the config is {"dir": "/absolute/directory"}`, plugins.ErrInvalid)
	}
	return os.MkdirAll(r.Dir, 0o700)
}

func (r *runtime) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, f, err := r.read(req.App, req.Target)
	err = errors.Join(err, ctx.Err()) // nobody waits for a call that was cancelled
	now, was := f.status(path), f.Pushed
	if err == nil {
		err = plugins.Admit(f.held(), req) // the contract's rule of generations and fences
	}
	switch {
	case err != nil:
		return now, err
	case req.Generation == was.Generation && req.Fence == was.Fence && now.State == plugins.StateReady:
		return now, nil // it is there already
	case strings.Contains(fmt.Sprint(req.Env), "\x00"):
		now.State, now.Diagnostic = plugins.StateFailed, &plugins.Diagnostic{Message: "a value holds a zero byte",
			Remedy: "change it"}
		return now, nil // what is there goes on serving
	}
	f.set(req)
	return f.status(path), write(path, f)
}

func (r *runtime) ObserveEnv(_ context.Context, app string, target plugins.Target) (plugins.Status, error) {
	path, f, err := r.read(app, target)
	return f.status(path), err
}

func (r *runtime) RemoveEnv(_ context.Context, req plugins.RemoveRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, f, err := r.read(req.App, req.Target)
	if err != nil || f.Pushed.Generation == 0 {
		return err
	}
	if err := plugins.AdmitRemoval(f.held(), req); err != nil {
		return err
	}
	f.set(plugins.PushRequest{})
	return write(path, f)
}

func (r *runtime) ListTargets(_ context.Context, app string) (out []plugins.AppTarget, _ error) {
	paths, err := filepath.Glob(filepath.Join(r.Dir, "*.json"))
	for _, path := range paths {
		if _, f, err := load(path); err == nil && f.Pushed.Generation > 0 && (app == "" || app == f.Pushed.App) {
			out = append(out, plugins.AppTarget{App: f.Pushed.App, Target: f.Pushed.Target})
		}
	}
	return out, err
}

func (f file) held() plugins.Held {
	return plugins.Held{Generation: f.Pushed.Generation, Fence: f.Pushed.Fence, Digest: f.Pushed.Digest}
}

// status compares what is there with what was pushed.
func (f file) status(path string) plugins.Status {
	st := plugins.Status{State: plugins.StateReady, Location: path, Present: f.Pushed.Generation > 0, Instances: 1,
		AcceptedGeneration: f.Pushed.Generation, ServingGeneration: f.Pushed.Generation, Digest: f.Pushed.Digest}
	wanted := maps.Clone(f.Env)
	maps.Copy(wanted, f.Pushed.Env)
	if !st.Present || !maps.Equal(wanted, f.Env) {
		st.State, st.ServingGeneration, st.Instances, st.Diagnostic = plugins.StateFailed, 0, 0, &plugins.Diagnostic{
			Message: "the file lacks what was pushed", Remedy: "apply the app again", Retryable: true}
	}
	return st
}

// set replaces our variables and leaves those of others.
func (f *file) set(req plugins.PushRequest) {
	for name := range f.Pushed.Env {
		delete(f.Env, name)
	}
	maps.Copy(f.Env, req.Env)
	f.Pushed = req
}

func (r *runtime) read(app string, t plugins.Target) (string, file, error) {
	name := url.PathEscape(app) + "," + t.Kind + "," + url.PathEscape(t.Name) + ".json" // no way out of the directory
	if err := t.Check(); err != nil || len(name) > 200 {
		return "", file{}, fmt.Errorf("%w: no target, or too long a name for a file", plugins.ErrInvalid)
	}
	return load(filepath.Join(r.Dir, name))
}

func load(path string) (string, file, error) {
	f := file{Env: map[string]string{}}
	content, err := os.ReadFile(path)
	if err == nil && json.Unmarshal(content, &f) == nil && f.Env != nil || errors.Is(err, os.ErrNotExist) {
		return path, f, nil
	}
	return path, f, fmt.Errorf("%w: %s is not a JSON file written by this plugin: correct or remove it",
		plugins.ErrUnavailable, path)
}

// write replaces the file in one step: a reader or a crash finds old or new.
func write(path string, f file) error {
	aside, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(json.NewEncoder(aside).Encode(f), aside.Sync(), aside.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
