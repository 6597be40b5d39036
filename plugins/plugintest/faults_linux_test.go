package plugintest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warifu/warifu/plugins"
)

// The faults of the model, where they need more than a condition.

func (m *model) configureFault() error {
	switch m.Fault {
	case "starts twice":
		for _, name := range []string{"first", "second"} {
			f, err := os.OpenFile(filepath.Join(m.state, name), os.O_CREATE|os.O_EXCL, 0o600)
			if err == nil {
				return f.Close()
			}
		}
		return errors.New("two were there already")
	case "leaves a socket":
		listener, err := net.Listen("unix", filepath.Join(m.Dir, fmt.Sprintf("left-%d", os.Getpid())))
		if err != nil {
			return err
		}
		go func() {
			for {
				if _, err := listener.Accept(); err != nil {
					return
				}
			}
		}()
	}
	return nil
}

func (m *model) lock() { m.mu.Lock() }

func (m *model) unlock(ctx context.Context) {
	if m.is("keeps its lock when cancelled") && ctx.Err() != nil {
		return
	}
	m.mu.Unlock()
}

// pushFault does what a fault does instead of a rollout, or before it.
func (m *model) pushFault(ctx context.Context, path string, f modelFile,
	req plugins.PushRequest) (plugins.Status, bool, error) {
	secret := req.Env["OAUTH_CLIENT_SECRET"]
	switch m.Fault {
	case "keeps its lock when cancelled":
		time.Sleep(5 * time.Millisecond)
	case "no lock between comparing and writing":
		m.mu.Unlock()
		time.Sleep(time.Duration(20-req.Generation) * time.Millisecond)
		m.mu.Lock()
	case "one slot for all calls":
		m.current = path
		m.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		m.mu.Lock()
		f = replaced(f, req)
		return m.status(path, f), true, m.write(m.current, f)
	case "two writes":
		half := modelFile{Env: f.Env, Pushed: &req}
		if err := m.write(path, half); err != nil {
			return plugins.Status{}, true, err
		}
		time.Sleep(20 * time.Millisecond)
	case "rolls for ever":
		st := m.status(path, replaced(f, req))
		st.State = plugins.StateRolling
		return st, true, m.write(path, replaced(f, req))
	case "claims another generation":
		st := m.status(path, replaced(f, req))
		st.AcceptedGeneration++
		return st, true, nil
	case "refuses a form of values for now":
		if strings.Contains(req.Env["KIT_VALUE"], "\n") {
			st := m.status(path, f)
			st.State, st.Diagnostic = plugins.StateFailed, &plugins.Diagnostic{Message: "line ends", Retryable: true}
			return st, true, nil
		}
	case "prints on stdout":
		_, _ = unix.Write(1, []byte("pushed\n")) // a library that was written for terminals
	case "logs values":
		fmt.Fprintln(os.Stderr, req.Env)
	case "logs values past the library":
		_, _ = unix.Write(2, []byte("value "+secret+"\n"))
	case "logs values in base64":
		fmt.Fprintln(os.Stderr, base64.StdEncoding.EncodeToString([]byte("user:"+secret)))
	case "passes a value as an argument":
		return m.child(path, f, req, false, "sleeper", secret)
	case "leaves a process":
		return m.child(path, f, req, true, "sleeper")
	case "keeps values in its state":
		if err := os.WriteFile(filepath.Join(m.state, "cache"), []byte(secret), 0o600); err != nil {
			return plugins.Status{}, true, err
		}
	case "keeps bare hashes":
		if err := os.WriteFile(filepath.Join(m.state, "cache"), fmt.Appendf(nil, "%x", sha256.Sum256([]byte(secret))),
			0o600); err != nil {
			return plugins.Status{}, true, err
		}
	case "says a value in an error":
		if strings.Contains(secret, "\n") {
			return plugins.Status{}, true, fmt.Errorf("%w: %s", plugins.ErrInvalid, secret)
		}
	}
	return plugins.Status{}, false, nil
}

// child starts a process that outlives its own start, for a while.
func (m *model) child(path string, f modelFile, req plugins.PushRequest, away bool,
	args ...string) (plugins.Status, bool, error) {
	cmd := exec.Command("/proc/self/exe", append([]string{asPlugin}, args...)...)
	cmd.Env = []string{"NOTHING=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: away}
	if err := cmd.Start(); err != nil {
		return plugins.Status{}, true, err
	}
	f = replaced(f, req)
	return m.status(path, f), true, m.write(path, f)
}

// envFault spoils what is about to be written.
func (m *model) envFault(f *modelFile, req plugins.PushRequest) {
	switch m.Fault {
	case "wipes what others set":
		f.Env = maps.Clone(req.Env)
	case "forgets some values":
		maps.DeleteFunc(f.Env, func(_, value string) bool { return value == "" })
	case "cuts long values":
		for name, value := range f.Env {
			f.Env[name] = value[:min(len(value), 4096)]
		}
		f.Pushed.Env = maps.Clone(f.Env)
	case "trims values":
		for name, value := range f.Env {
			f.Env[name] = strings.TrimSpace(value)
		}
		f.Pushed.Env = maps.Clone(f.Env)
	case "keeps what is no longer wanted":
		if old, err := m.read(m.path(req.App, req.Target)); err == nil {
			for name, value := range old.Env {
				if _, there := f.Env[name]; !there {
					f.Env[name] = value
				}
			}
		}
	}
}

func (m *model) observeFault(path string, f modelFile, st plugins.Status) plugins.Status {
	switch m.Fault {
	case "observes nothing":
		return plugins.Status{State: plugins.StateReady}
	case "says nothing is wrong in words":
		st.State, st.Diagnostic = plugins.StateFailed, nil
	case "rolls for ever":
		st.State = plugins.StateRolling
	case "observing repairs":
		if f.Pushed != nil && st.State == plugins.StateFailed {
			if err := m.write(path, replaced(f, *f.Pushed)); err != nil {
				return st
			}
		}
	case "drift is for ever":
		if st.Diagnostic != nil {
			st.Diagnostic.Retryable = false
		}
	case "says a value where it is":
		if f.Pushed != nil {
			st.Location = f.Pushed.Env["OAUTH_CLIENT_SECRET"]
		}
	}
	return st
}

func (m *model) panicFault(req plugins.PushRequest) {
	if m.is("panics with a value") {
		go panic("what to do with " + req.Env["OAUTH_CLIENT_SECRET"])
		time.Sleep(time.Minute)
	}
}

// faultyHook is a hook with the fault in its config.
type faultyHook struct {
	Fault string `json:"fault"`

	asked   int
	pending chan json.RawMessage
}

func (h *faultyHook) Describe() plugins.Description {
	return plugins.Description{Name: "faulty", Version: "1.0.0"}
}

func (h *faultyHook) Configure(_ context.Context, config json.RawMessage) error {
	h.pending = make(chan json.RawMessage, 1000)
	decoder := json.NewDecoder(strings.NewReader(string(config)))
	decoder.DisallowUnknownFields()
	return decoder.Decode(h)
}

func (h *faultyHook) Evaluate(_ context.Context, req plugins.EvaluateRequest) (plugins.Answer, error) {
	var manifest struct {
		Metadata struct{ Name string }
		Spec     struct{ Workers map[string]any }
	}
	if h.Fault == "mixes questions up" {
		h.pending <- req.Manifest
		time.Sleep(time.Millisecond)
		req.Manifest = <-h.pending
	}
	if err := json.Unmarshal(req.Manifest, &manifest); err != nil {
		return plugins.Answer{}, fmt.Errorf("%w: no manifest", plugins.ErrInvalid)
	}
	worker := plugins.Target{Kind: plugins.TargetWorker, Name: "web"}
	say := func(code string, words any) plugins.Answer {
		return plugins.Answer{Warnings: []plugins.Notice{{Code: code, Message: fmt.Sprint(words)}}}
	}
	switch h.Fault {
	case "counts":
		h.asked++
		return say("count", h.asked), nil
	case "looks at the clock":
		return say("time", time.Now().UnixNano()), nil
	case "has the order of a map":
		var answer plugins.Answer
		for name := range manifest.Spec.Workers {
			answer.Targets = append(answer.Targets, plugins.TargetEnv{Target: plugins.Target{Kind: plugins.TargetWorker,
				Name: name}})
		}
		return answer, nil
	case "says which process it is":
		return say("process", os.Getpid()), nil
	case "keeps a cache":
		return say("cached", "yes"), os.WriteFile(filepath.Join(os.TempDir(), fmt.Sprint(time.Now().UnixNano())),
			req.Manifest, 0o600)
	case "starts a process":
		cmd := exec.Command("/proc/self/exe", asPlugin, "sleeper")
		return say("started", "yes"), cmd.Start()
	case "names a target twice":
		return plugins.Answer{Targets: []plugins.TargetEnv{{Target: worker}, {Target: worker}}}, nil
	case "wants a secret of nobody":
		return plugins.Answer{Targets: []plugins.TargetEnv{{Target: worker,
			Env: map[string]plugins.EnvValue{"S": {Source: plugins.SourceClientSecret}}}}}, nil
	case "codes are prose":
		return say("This is not a code", "words"), nil
	case "panics at nonsense":
		if manifest.Metadata.Name == "" {
			panic("no name")
		}
	case "mixes questions up":
		return say("name", manifest.Metadata.Name), nil
	}
	return h.denied(manifest.Metadata.Name)
}

func (h *faultyHook) denied(name string) (plugins.Answer, error) {
	if name != "refused" {
		return plugins.Answer{}, nil
	}
	deny := plugins.Notice{Code: "refused", Message: "this app is refused", Remedy: "call it something else"}
	switch h.Fault {
	case "fails instead of denying":
		return plugins.Answer{}, errors.New("refused")
	case "does not say what to do":
		deny.Remedy = ""
	case "lets everything through":
		return plugins.Answer{}, nil
	case "paints its words":
		deny.Message = "\x1b[31mrefused\x1b[0m"
	}
	return plugins.Answer{Denials: []plugins.Notice{deny}}, nil
}
