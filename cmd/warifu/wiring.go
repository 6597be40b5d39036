package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
)

// newLogger makes the logger that the configuration asks for, writing to w.
func newLogger(l config.Logger, w io.Writer) *slog.Logger {
	var level slog.Level
	must(level.UnmarshalText([]byte(l.Level))) // one of choices
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(server.LogHandler(slog.NewJSONHandler(w, opts)))
	}
	return slog.New(server.LogHandler(slog.NewTextHandler(w, opts)))
}

// people makes the password connector and brings the records of its users up to date. Without enablePasswordDB there
// is no connector, and its users are disabled.
func (i *instance) people(ctx context.Context) (connector.Password, error) {
	var records []storage.User
	for _, u := range i.cfg.Users {
		records = append(records, server.UserRecord(u.Identity))
	}
	if err := i.store.SyncUsers(ctx, connector.StaticName, records); err != nil {
		return nil, fmt.Errorf("staticPasswords: %w", err)
	}
	if !i.cfg.EnablePasswordDB {
		return nil, nil
	}
	static, err := connector.NewStatic(i.cfg.Users)
	if err != nil {
		return nil, fmt.Errorf("staticPasswords: %w", err)
	}
	return static, nil
}

// buildApps starts the plugin host and makes the deployer.
func (i *instance) buildApps(scopes []string, dev bool) error {
	host, err := plugins.NewHost(plugins.HostOptions{Logger: i.log, Dir: filepath.Join(i.cfg.Dir, "run")})
	if err != nil {
		return fmt.Errorf("start the plugin host: %w", err)
	}
	i.onClose(func() {
		if err := host.Close(); err != nil {
			i.log.Warn("closing the plugin host", "error", err)
		}
	})
	var hooks []manifests.Hook
	for _, p := range i.cfg.Plugins.Hooks() {
		spec, err := i.spec("hooks", p, builtinHooks)
		if err != nil {
			return err
		}
		hook, err := host.Hook(spec)
		if err != nil {
			return fmt.Errorf("plugins.deployHooks: %w", err)
		}
		hooks = append(hooks, hook)
	}
	var runtimes []manifests.Runtime
	for _, p := range i.cfg.Plugins.AllRuntimes() {
		spec, err := i.spec("runtimes", p, builtinRuntimes)
		if err != nil {
			return err
		}
		runtime, err := host.Runtime(spec)
		if err != nil {
			return fmt.Errorf("plugins.runtimes: %w", err)
		}
		runtimes = append(runtimes, runtime)
	}
	replica := "" // a random name: replicas share the cluster
	if i.cfg.Storage.Type == config.StorageEmbedded {
		replica = "embedded" // one process at a time has the data directory, and takes over where the one before stopped
	}
	localhost := i.cfg.Manifests.LocalhostRedirects
	i.apps = &apps{manifests.New(manifests.DeployerOptions{
		Store: i.store, Hooks: hooks, Runtimes: runtimes, Assignments: assignments(i.cfg.Plugins), LeaveDrift: !i.cfg.Manifests.Repair,
		Issuer: i.cfg.Issuer, Dev: dev || localhost == config.LocalhostAllow,
		Parsing: manifests.Options{
			Dev: dev, DenyLoopback: localhost == config.LocalhostDeny, Scopes: scopes, GrantTypes: i.cfg.GrantTypes(),
		},
		ResourceServers: i.cfg.OAuth2.Identifiers(), CheckSector: i.public.CheckSectorIdentifier,
		SecretMaxAge: time.Duration(i.cfg.Expiry.SecretMaxAge), Replica: replica, Logger: i.log,
	})}
	return nil
}

func assignments(p config.Plugins) []manifests.Assignment {
	var out []manifests.Assignment
	for _, t := range p.Targets {
		out = append(out, manifests.Assignment{Kind: t.Kind, App: t.App, Name: t.Name, Runtime: t.Runtime})
	}
	return out
}

// spec is how the host runs a plugin. The built-in runtime writes below the data directory unless it is told where.
func (i *instance) spec(kind string, p config.Plugin, builtin map[string]func()) (plugins.Spec, error) {
	spec := plugins.Spec{Name: p.Name, Path: p.Path, SHA256: p.SHA256,
		StateDir: filepath.Join(i.cfg.Dir, "plugins", kind, p.Name)}
	settings := p.Config
	if p.Path == "" && builtin[p.Name] != nil {
		self, err := os.Executable()
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
