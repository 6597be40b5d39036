package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/warifu/warifu/plugins"
)

// model is a runtime that keeps the contract, but for the one fault in its
// config. A fault is code that authors have written before.
type model struct {
	Dir   string `json:"dir"`
	Fault string `json:"fault"`

	state   string
	mu      sync.Mutex // held from reading a file to replacing it, unless the fault is that it is not
	memory  map[string]modelFile
	current string // the target of the last call, which nobody may rely on
}

type modelFile struct {
	Env    map[string]string
	Pushed *plugins.PushRequest
}

func (m *model) is(fault string) bool { return m.Fault == fault }

func (m *model) Describe() plugins.Description {
	if os.Args[2] == "nameless" {
		return plugins.Description{Kinds: []string{"worker", "worker"}}
	}
	return plugins.Description{Name: "model", Version: "1.0.0"}
}

func (m *model) Configure(_ context.Context, config json.RawMessage, stateDir string) error {
	decoder := json.NewDecoder(strings.NewReader(string(config)))
	if !strings.Contains(string(config), `"lenient"`) {
		decoder.DisallowUnknownFields()
	}
	if err := decoder.Decode(m); err != nil {
		return err
	}
	m.state, m.memory = stateDir, map[string]modelFile{}
	return m.configureFault()
}

func (m *model) path(app string, t plugins.Target) string {
	return filepath.Join(m.Dir, fmt.Sprintf("%x,%s,%x.json", app, t.Kind, t.Name))
}

func (m *model) read(path string) (modelFile, error) {
	f := modelFile{Env: map[string]string{}}
	if m.is("memory in the process") {
		if kept, ok := m.memory[path]; ok {
			return modelFile{Env: maps.Clone(kept.Env), Pushed: kept.Pushed}, nil
		}
	}
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return f, nil
	case err != nil:
		return f, err
	case m.is("memory in the process"):
		err = json.Unmarshal(content, &f)
		f.Pushed = nil
		return f, err
	}
	return f, json.Unmarshal(content, &f)
}

func (m *model) write(path string, f modelFile) error {
	m.memory[path] = f
	content, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (m *model) status(path string, f modelFile) plugins.Status {
	st := plugins.Status{State: plugins.StateFailed, Location: path,
		Diagnostic: &plugins.Diagnostic{Message: "not as it was pushed", Remedy: "apply again", Retryable: true}}
	if f.Pushed == nil {
		return st
	}
	st.Present, st.AcceptedGeneration, st.Digest = true, f.Pushed.Generation, f.Pushed.Digest
	wanted := maps.Clone(f.Env)
	maps.Copy(wanted, f.Pushed.Env)
	if maps.Equal(wanted, f.Env) || m.is("blind to drift") || m.Fault == "two writes" || m.Fault == "forgets some values" {
		st.State, st.ServingGeneration, st.Instances, st.Diagnostic = plugins.StateReady, f.Pushed.Generation, 1, nil
	}
	return st
}

func (m *model) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	path := m.path(req.App, req.Target)
	m.lock()
	defer m.unlock(ctx)
	f, err := m.read(path)
	if err != nil {
		return plugins.Status{}, err
	}
	if err := m.admit(f.Pushed, req); err != nil {
		return plugins.Status{}, err
	}
	if f.Pushed != nil && f.Pushed.Generation == req.Generation && f.Pushed.Fence == req.Fence &&
		f.Pushed.Digest == req.Digest {
		if st := m.status(path, f); st.State == plugins.StateReady && !m.is("rolls out again") {
			return st, nil
		}
	}
	return m.rollOut(ctx, path, f, req)
}

func (m *model) admit(was *plugins.PushRequest, req plugins.PushRequest) error {
	switch {
	case was == nil:
		return nil
	case req.Fence < was.Fence && !m.is("takes an older fence"),
		req.Generation < was.Generation && !m.is("takes an older generation"):
		if m.is("says a value in a refusal") {
			return fmt.Errorf("%w: %v", plugins.ErrStale, req.Env)
		}
		m.panicFault(req)
		return plugins.ErrStale
	case req.Generation == was.Generation && req.Digest != was.Digest && !m.is("takes another digest"):
		if m.is("calls a conflict stale") {
			return plugins.ErrStale
		}
		return plugins.ErrDigestConflict
	}
	return nil
}

func (m *model) rollOut(ctx context.Context, path string, f modelFile,
	req plugins.PushRequest) (plugins.Status, error) {
	if st, done, err := m.pushFault(ctx, path, f, req); done {
		return st, err
	}
	if strings.Contains(req.Env["KIT_FAIL"], "fail") {
		return m.failing(path, f, req)
	}
	f = replaced(f, req)
	m.envFault(&f, req)
	if err := m.write(path, f); err != nil {
		return plugins.Status{}, err
	}
	return m.status(path, f), nil
}

// replaced is f with the variables of req instead of the ones before.
func replaced(f modelFile, req plugins.PushRequest) modelFile {
	env := maps.Clone(f.Env)
	if f.Pushed != nil {
		for name := range f.Pushed.Env {
			delete(env, name)
		}
	}
	maps.Copy(env, req.Env)
	return modelFile{Env: env, Pushed: &req}
}

func (m *model) failing(path string, f modelFile, req plugins.PushRequest) (plugins.Status, error) {
	st := m.status(path, f)
	switch m.Fault {
	case "breaks the old":
		f.Env = map[string]string{}
		if err := m.write(path, f); err != nil {
			return st, err
		}
	case "hides a failure":
		st.AcceptedGeneration, st.ServingGeneration, st.Digest, st.State = req.Generation, req.Generation, req.Digest,
			plugins.StateReady
		return st, nil
	case "errs instead of failing":
		return st, errors.New("the rollout failed")
	case "claims the new":
		st.ServingGeneration = req.Generation
	}
	st.State, st.Diagnostic = plugins.StateFailed, &plugins.Diagnostic{Message: "told to fail", Remedy: "do not"}
	if m.is("says a value in a diagnostic") {
		st.Diagnostic.Message = "cannot use " + req.Env["OAUTH_CLIENT_SECRET"]
	}
	return st, nil
}

func (m *model) ObserveEnv(_ context.Context, app string, t plugins.Target) (plugins.Status, error) {
	if strings.Contains(t.Name, "..") && m.is("panics at odd names") {
		panic("a path")
	}
	if len(app)+len(t.Name) > 100 {
		return plugins.Status{}, fmt.Errorf("%w: too long", plugins.ErrInvalid)
	}
	path := m.path(app, t)
	m.lock()
	defer m.mu.Unlock()
	f, err := m.read(path)
	st := m.status(path, f)
	return m.observeFault(path, f, st), err
}

func (m *model) RemoveEnv(_ context.Context, req plugins.RemoveRequest) error {
	path := m.path(req.App, req.Target)
	m.lock()
	defer m.mu.Unlock()
	f, err := m.read(path)
	if err != nil || f.Pushed == nil {
		return err
	}
	if (req.Generation < f.Pushed.Generation || req.Fence < f.Pushed.Fence) && !m.is("removes what is newer") {
		return plugins.ErrStale
	}
	if m.is("removes nothing") {
		return nil
	}
	f = replaced(f, plugins.PushRequest{})
	if m.is("removes what others set") {
		f.Env = nil
	}
	f.Pushed = nil
	return m.write(path, f)
}

func (m *model) ListTargets(_ context.Context, app string) ([]plugins.AppTarget, error) {
	paths, err := filepath.Glob(filepath.Join(m.Dir, "*.json"))
	var out []plugins.AppTarget
	for _, path := range paths {
		m.mu.Lock()
		f, err := m.read(path)
		m.mu.Unlock()
		if err == nil && f.Pushed != nil && (app == "" || app == f.Pushed.App) {
			out = append(out, plugins.AppTarget{App: f.Pushed.App, Target: f.Pushed.Target})
		}
	}
	if m.is("lists a page") && len(out) > 20 {
		out = out[:20]
	}
	return out, err
}

// modelHarness knows the model's files.
func modelHarness(t *testing.T, args ...string) Harness {
	m := &model{Dir: t.TempDir(), memory: map[string]modelFile{}}
	change := func(app string, target plugins.Target, name, value string) error {
		path := m.path(app, target)
		f, err := m.read(path)
		if err != nil {
			return err
		}
		f.Env[name] = value
		return m.write(path, f)
	}
	var mu sync.Mutex // owns m.memory here
	return Harness{
		Args: append([]string{asPlugin}, args...), Config: json.RawMessage(fmt.Sprintf(`{"dir": %q}`, m.Dir)),
		Serving: func(_ context.Context, app string, target plugins.Target) (map[string]string, error) {
			f, err := m.read(m.path(app, target))
			return f.Env, err
		},
		Rollout: func(_ context.Context, app string, target plugins.Target) (string, error) {
			info, err := os.Stat(m.path(app, target))
			if err != nil {
				return "", err
			}
			return info.ModTime().String(), nil
		},
		Foreign: func(_ context.Context, app string, target plugins.Target, name, value string) error {
			mu.Lock()
			defer mu.Unlock()
			return change(app, target, name, value)
		},
		Break: func(_ context.Context, app string, target plugins.Target) error {
			mu.Lock()
			defer mu.Unlock()
			return change(app, target, "OAUTH_CLIENT_ID", "spoilt")
		},
		Fail: func(_ context.Context, _ string, _ plugins.Target, env map[string]string) (func(context.Context) error,
			error) {
			env["KIT_FAIL"] = "fail"
			return nil, nil
		},
	}
}
