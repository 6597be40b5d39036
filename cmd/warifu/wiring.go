package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
)

// newLogger makes the logger that the configuration asks for, writing to w. relog puts another one in its place, for
// everybody who has it.
func newLogger(l config.Logger, w io.Writer) (log *slog.Logger, relog func(config.Logger)) {
	live := liveHandler{now: &atomic.Pointer[slog.Handler]{}}
	relog = func(l config.Logger) {
		var level slog.Level
		must(level.UnmarshalText([]byte(l.Level))) // one of choices
		opts := &slog.HandlerOptions{Level: level}
		var next slog.Handler = slog.NewTextHandler(w, opts)
		if l.Format == "json" {
			next = slog.NewJSONHandler(w, opts)
		}
		live.now.Store(&next)
	}
	relog(l)
	return slog.New(server.LogHandler(live)), relog
}

// liveHandler hands records to the handler that there is now, with what loggers have added.
type liveHandler struct {
	now  *atomic.Pointer[slog.Handler]
	with []func(slog.Handler) slog.Handler
}

// Enabled is [slog.Handler.Enabled].
func (h liveHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return (*h.now.Load()).Enabled(ctx, level)
}

// Handle is [slog.Handler.Handle].
func (h liveHandler) Handle(ctx context.Context, record slog.Record) error {
	to := *h.now.Load()
	for _, with := range h.with {
		to = with(to)
	}
	return to.Handle(ctx, record)
}

func (h liveHandler) and(with func(slog.Handler) slog.Handler) slog.Handler {
	return liveHandler{h.now, append(slices.Clone(h.with), with)}
}

// WithAttrs is [slog.Handler.WithAttrs].
func (h liveHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.and(func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

// WithGroup is [slog.Handler.WithGroup].
func (h liveHandler) WithGroup(name string) slog.Handler {
	return h.and(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

// connectors makes the ways to sign in: with passwords, of the configuration and of managed accounts, if there are any,
// and by its connectors; those of kept are taken as they are.
func (i *instance) connectors(cfg *config.Settings,
	kept map[string]connector.Connector) ([]connector.Connector, error) {
	var all []connector.Connector
	if cfg.EnablePasswordDB {
		static, err := connector.NewStatic(cfg.Users)
		if err != nil {
			return nil, fmt.Errorf("staticPasswords: %w", err)
		}
		all = append(all, connector.Connector{ID: connector.StaticName,
			Password: connector.NewLocal(static, server.ManagedAccounts(i.store))})
	}
	upstreams, err := cfg.Upstreams(i.log, kept)
	return append(all, upstreams...), err
}

// people brings the records of users up to date: those of staticPasswords are as it says, and whoever came by a
// connector that is no longer there is disabled. A server whose storage is full goes on all the same, see
// [instance.laterPeople].
func (i *instance) people(ctx context.Context) error {
	err := i.syncPeople(ctx)
	if errors.Is(err, storage.ErrFull) {
		i.log.ErrorContext(ctx, "storage is full, so changes to staticPasswords are not stored yet: what they end "+
			"has ended already, but new people, and those with a new password, can sign in only once there is room",
			"error", err)
		i.later()
		return nil
	}
	return err
}

func (i *instance) syncPeople(ctx context.Context) error {
	i.syncing.Lock()
	defer i.syncing.Unlock()
	cfg := i.inUse.Load()
	var records []storage.User
	for _, u := range cfg.Users {
		records = append(records, server.UserRecord(u.Known()))
	}
	err := i.store.SyncUsers(ctx, connector.StaticName, records)
	if err != nil && !errors.Is(err, storage.ErrFull) {
		return fmt.Errorf("staticPasswords: %w", err)
	}
	if err := i.warnOfShadowed(ctx, records); err != nil {
		return fmt.Errorf("staticPasswords: %w", err)
	}
	there := make(map[string]bool)
	for _, id := range cfg.ConnectorIDs() {
		there[id] = true
	}
	left, leaving := i.store.LeaveUsers(ctx, there)
	if left > 0 {
		i.log.InfoContext(ctx, "users of connectors that are no longer in the configuration were signed out; they "+
			"can sign in again when their connector is back", "users", left)
	}
	if leaving != nil {
		return fmt.Errorf("connectors: %w", leaving)
	}
	return err
}

// mostCompared are the users of the configuration who are compared with accounts: each takes reads.
const mostCompared = 1000

// warnOfShadowed tells the operator of accounts whose users cannot get in: somebody of the configuration signs in with
// the same name or address, and comes first.
func (i *instance) warnOfShadowed(ctx context.Context, configured []storage.User) error {
	if some, err := i.store.HasAccounts(ctx); err != nil || !some {
		return err
	}
	for _, u := range configured[:min(len(configured), mostCompared)] {
		for _, login := range []string{u.Email, u.Username} {
			if login == "" {
				continue
			}
			a, err := i.store.AccountByLogin(ctx, login)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			i.log.WarnContext(ctx, "an entry of staticPasswords has the e-mail address or user name of an account, "+
				"whose user cannot sign in with a password: change one of them", "configured", u.ID,
				"account", a.User.ID)
		}
	}
	return nil
}

// roomAgain is how often records that storage could not take are tried again.
const roomAgain = 10 * time.Second

// later says that there is something for laterPeople.
func (i *instance) later() {
	i.peopleLeft.Store(true)
	select {
	case i.leftover <- struct{}{}:
	default:
	}
}

// laterPeople stores what storage could not take when people changed, once it can.
func (i *instance) laterPeople(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-i.leftover:
		}
		for ctx.Err() == nil {
			if !i.store.Condition().Full && i.syncPeople(ctx) == nil {
				i.peopleLeft.Store(false)
				i.log.InfoContext(ctx, "the changes to staticPasswords are stored now")
				break
			}
			storage.Pause(ctx, roomAgain)
		}
	}
}

// buildApps starts the plugin host and makes the deployer.
func (i *instance) buildApps() error {
	host, err := plugins.NewHost(plugins.HostOptions{Logger: i.log, Metrics: i.metrics,
		Dir: filepath.Join(i.cfg.Dir, "run")})
	if err != nil {
		return fmt.Errorf("start the plugin host: %w", err)
	}
	i.host = host
	i.onClose(func() {
		if err := host.Close(); err != nil {
			i.log.Warn("closing the plugin host", "error", err)
		}
	})
	hooks, runtimes, err := i.specs(i.cfg)
	if err != nil {
		return err
	}
	deploying := i.deploying(i.cfg, i.first)
	for _, spec := range hooks {
		hook, err := host.Hook(spec)
		if err != nil {
			return fmt.Errorf("plugins.deployHooks: %w", err)
		}
		deploying.Hooks = append(deploying.Hooks, hook)
	}
	for _, spec := range runtimes {
		runtime, err := host.Runtime(spec)
		if err != nil {
			return fmt.Errorf("plugins.runtimes: %w", err)
		}
		deploying.Runtimes = append(deploying.Runtimes, runtime)
	}
	i.apps = &apps{manifests.New(deploying)}
	return nil
}

// specs are the plugins of a configuration.
func (i *instance) specs(cfg *config.Settings) (hooks, runtimes []plugins.Spec, err error) {
	for _, p := range cfg.Plugins.Hooks() {
		spec, err := i.spec("hooks", p, builtinHooks)
		if err != nil {
			return nil, nil, err
		}
		hooks = append(hooks, spec)
	}
	for _, p := range cfg.Plugins.AllRuntimes() {
		spec, err := i.spec("runtimes", p, builtinRuntimes)
		if err != nil {
			return nil, nil, err
		}
		runtimes = append(runtimes, spec)
	}
	return hooks, runtimes, nil
}

// deploying is how manifests are applied and env is delivered, without the plugins.
func (i *instance) deploying(cfg *config.Settings, public *server.Server) manifests.DeployerOptions {
	replica := "" // a random name: replicas share the cluster
	if i.cfg.Storage.Type == config.StorageEmbedded {
		replica = "embedded" // one process at a time has the data directory, and takes over where the one before stopped
	}
	localhost := cfg.Manifests.LocalhostRedirects
	return manifests.DeployerOptions{
		Store: i.store, Assignments: assignments(cfg.Plugins), LeaveDrift: !cfg.Manifests.Repair,
		PruneAfter: cfg.Manifests.PruneDelay(),
		Issuer:     cfg.Issuer, Dev: i.dev || localhost == config.LocalhostAllow,
		Parsing: manifests.Options{
			Dev: i.dev, DenyLoopback: localhost == config.LocalhostDeny,
			NoProxies: len(cfg.Provider.TrustedProxies) == 0, Scopes: server.ScopeNames(cfg.Provider.Scopes),
			GrantTypes: cfg.GrantTypes(), Claims: public.ClaimScopes(), Connectors: cfg.ConnectorIDs(), Groups: cfg.Groups(),
			Issuers: cfg.TrustedNames(),
		},
		ResourceServers: cfg.OAuth2.Identifiers(), ReservedIDs: cfg.OAuth2.IDs(),
		CheckSector: public.CheckSectorIdentifier, Applied: public.Applied, Trusted: cfg.Trusted,
		SecretMaxAge: time.Duration(cfg.Expiry.SecretMaxAge), Replica: replica, Logger: i.log, Metrics: i.metrics,
		Traces: i.traces,
	}
}

func assignments(p config.Plugins) []manifests.Assignment {
	var out []manifests.Assignment
	for _, t := range p.Targets {
		out = append(out, manifests.Assignment{Kind: t.Kind, App: t.App, Name: t.Name, Runtime: t.Runtime})
	}
	return out
}

// ourselves is the file of this program, which is its built-in plugins, too.
var ourselves = os.Executable

// spec is how the host runs a plugin. The built-in runtime writes below the data directory unless it is told where.
func (i *instance) spec(kind string, p config.Plugin, builtin map[string]func()) (plugins.Spec, error) {
	spec := plugins.Spec{Name: p.Name, Path: p.Path, SHA256: p.SHA256,
		StateDir: filepath.Join(i.cfg.Dir, "plugins", kind, p.Name)}
	settings := p.Config
	if p.Path == "" && builtin[p.Name] != nil {
		self, err := ourselves()
		if err != nil {
			return spec, fmt.Errorf("find this program: %w", err)
		}
		spec.Path, spec.Args = self, []string{"plugin", "serve", p.Name}
		if p.Name == config.RuntimeFile {
			dir, _ := settings["dir"].(string) // the plugin itself says what else is wrong with its settings
			if dir == "" {
				dir = filepath.Join(i.cfg.Dir, "env")
			}
			absolute, err := filepath.Abs(dir)
			if err != nil {
				return spec, fmt.Errorf("plugin %s: %w", p.Name, err)
			}
			with := map[string]any{}
			for key, value := range settings {
				with[key] = value
			}
			with["dir"] = absolute
			if with["sealKey"], err = i.store.RuntimeKey(p.Name); err != nil { // []byte is base64 in JSON
				return spec, fmt.Errorf("plugin %s: %w", p.Name, err)
			}
			settings = with
		}
	}
	var err error
	if spec.Path, err = filepath.Abs(spec.Path); err != nil {
		return spec, fmt.Errorf("plugin %s: %w", p.Name, err)
	}
	if settings != nil {
		if spec.Config, err = json.Marshal(settings); err != nil {
			return spec, fmt.Errorf("plugin %s: its config holds something that JSON cannot express (%w)", p.Name, err)
		}
	}
	return spec, nil
}
