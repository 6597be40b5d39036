package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/warifu/warifu/plugins/child"
	"github.com/warifu/warifu/server/metrics"
)

// Spec is one configured plugin.
type Spec struct {
	// Name is what logs and errors call it: lower-case letters, digits and
	// dashes. It is never used as a path.
	Name string
	// Kind may be left empty; Host.Hook and Host.Runtime know it.
	Kind Kind
	// Path is the executable, absolute. A built-in plugin is os.Executable().
	Path string
	// Args must not hold secrets: every user of the machine can read them.
	Args []string
	// SHA256 of the file in hex; checked before every start when set.
	SHA256 string
	// Config goes to the plugin as it is, through Configure.
	Config json.RawMessage
	// StateDir is a directory of the plugin's own that outlives it. Runtimes
	// that keep state need it.
	StateDir string
}

// Deadlines of what the host asks of a plugin. Zero fields take the value named.
type Deadlines struct {
	Start     time.Duration // 10 s: from the start of the process to its handshake
	Describe  time.Duration // 5 s
	Configure time.Duration // 5 s
	Evaluate  time.Duration // 5 s
	Observe   time.Duration // 10 s; also ListTargets
	Push      time.Duration // 30 s; also RemoveEnv
	Shutdown  time.Duration // 3 s, then it is killed
	Probe     time.Duration // 1 s: a health check after a call that failed
}

// Backoff between the end of a plugin and its next start. Zero fields take the
// value named.
type Backoff struct {
	Min   time.Duration // 1 s, doubled with each failure in a row
	Max   time.Duration // 5 min
	Reset time.Duration // 1 min: who lived that long starts again at Min
}

// HostOptions are what a Host needs from its builder.
type HostOptions struct {
	Logger *slog.Logger // required
	// Metrics tell which plugins run, and how long they take to answer; nil counts nothing.
	Metrics *metrics.Metrics
	// Dir holds the sockets, in directories of mode 0700. It is made when
	// missing; empty, or too long for a socket's path: the system's directory
	// for temporary files.
	Dir       string
	Deadlines Deadlines
	Backoff   Backoff
}

// Host runs plugins. It is safe for use by several goroutines.
type Host struct {
	log       *slog.Logger
	metrics   *metrics.Metrics
	deadlines Deadlines
	backoff   Backoff
	scrub     *scrubber
	sockets   *socketDirs
	spawner   *child.Spawner

	ctx     context.Context // over when the host closes; kept because processes outlive calls
	cancel  context.CancelFunc
	running sync.WaitGroup // one for each start and the process that came of it

	mu          sync.Mutex // owns what follows
	supervisors map[string]*supervisor
	closed      bool
}

// NewHost makes a host; nothing is started yet. Close it.
func NewHost(opts HostOptions) (*Host, error) {
	if opts.Logger == nil {
		return nil, errors.New("a plugin host needs a logger")
	}
	sockets, err := newSocketDirs(opts.Dir)
	if err != nil {
		return nil, err
	}
	h := &Host{
		log: opts.Logger, metrics: opts.Metrics, deadlines: opts.Deadlines.orDefault(), backoff: opts.Backoff.orDefault(),
		scrub: &scrubber{}, sockets: sockets, spawner: child.NewSpawner(),
		supervisors: map[string]*supervisor{},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.metrics.Source("plugins", h.tell)
	return h, nil
}

// Hook declares a deploy hook. It is started on its first call.
func (h *Host) Hook(spec Spec) (*Hook, error) {
	s, err := h.supervise(spec, HookKind)
	if err != nil {
		return nil, err
	}
	return &Hook{s: s}, nil
}

// Runtime declares a runtime. It is started on its first call.
func (h *Host) Runtime(spec Spec) (*Runtime, error) {
	s, err := h.supervise(spec, RuntimeKind)
	if err != nil {
		return nil, err
	}
	return &Runtime{s: s}, nil
}

// Hide makes the values unreadable in everything that plugins log or say in
// errors from now on. Values that are pushed are hidden without it.
func (h *Host) Hide(values ...string) { h.scrub.learn(values...) }

// Close ends all plugins: each is asked to leave, killed when it does not, and
// its socket removed. Calls under way fail; later ones get ErrClosed.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	for _, s := range h.supervisors {
		s.close()
	}
	h.mu.Unlock()
	h.cancel()
	h.running.Wait()
	h.spawner.Close()
	if err := h.sockets.remove(); err != nil {
		return fmt.Errorf("remove the plugin socket directory: %w", err)
	}
	return nil
}

// tell tells which plugins run, of those that were asked for already.
func (h *Host) tell(tell metrics.Tell) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.supervisors {
		s.mu.Lock()
		switch {
		case s.closed:
		case s.current != nil:
			tell(metrics.PluginUp, 1, string(s.kind), s.name)
		case s.failures > 0:
			tell(metrics.PluginUp, 0, string(s.kind), s.name)
		}
		s.mu.Unlock()
	}
}

func (h *Host) supervise(spec Spec, kind Kind) (*supervisor, error) {
	if spec.Kind != "" && spec.Kind != kind {
		return nil, fmt.Errorf("plugin %q is a %s, not a %s", spec.Name, spec.Kind, kind)
	}
	spec.Kind = kind
	if err := spec.check(); err != nil {
		return nil, err
	}
	spec.Args, spec.Config = slices.Clone(spec.Args), slices.Clone(spec.Config)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	key := string(kind) + "/" + spec.Name
	if h.supervisors[key] != nil {
		return nil, fmt.Errorf("plugin %q is configured twice as a %s; give each a name of its own", spec.Name, kind)
	}
	h.scrub.learnConfig(spec.Config)
	s := h.supervisor(spec)
	h.supervisors[key] = s
	return s, nil
}

func (h *Host) supervisor(spec Spec) *supervisor {
	return &supervisor{host: h, name: spec.Name, kind: spec.Kind, spec: spec, log: newPluginLog(h.log, h.scrub, spec.Name)}
}

var pluginName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ValidName says whether a plugin can be called so: a name is a part of paths, and never a path.
func ValidName(name string) bool { return pluginName.MatchString(name) }

func (s Spec) check() error {
	if !ValidName(s.Name) {
		return fmt.Errorf("%q cannot be the name of a plugin: use lower-case letters, digits and dashes, not a path", s.Name)
	}
	if !filepath.IsAbs(s.Path) {
		return fmt.Errorf("plugin %q: its path %q is not absolute", s.Name, s.Path)
	}
	if len(s.Config) > 0 && !json.Valid(s.Config) {
		return fmt.Errorf("plugin %q: its config is not JSON", s.Name)
	}
	return nil
}

func (d Deadlines) orDefault() Deadlines {
	defaults := Deadlines{
		Start: 10 * time.Second, Describe: 5 * time.Second, Configure: 5 * time.Second, Evaluate: 5 * time.Second,
		Observe: 10 * time.Second, Push: 30 * time.Second, Shutdown: 3 * time.Second, Probe: time.Second,
	}
	for _, f := range []struct{ got, want *time.Duration }{
		{&d.Start, &defaults.Start}, {&d.Describe, &defaults.Describe}, {&d.Configure, &defaults.Configure},
		{&d.Evaluate, &defaults.Evaluate}, {&d.Observe, &defaults.Observe}, {&d.Push, &defaults.Push},
		{&d.Shutdown, &defaults.Shutdown}, {&d.Probe, &defaults.Probe},
	} {
		if *f.got == 0 {
			*f.got = *f.want
		}
	}
	return d
}

func (b Backoff) orDefault() Backoff {
	if b.Min == 0 {
		b.Min = time.Second
	}
	if b.Max == 0 {
		b.Max = 5 * time.Minute
	}
	if b.Reset == 0 {
		b.Reset = time.Minute
	}
	return b
}
