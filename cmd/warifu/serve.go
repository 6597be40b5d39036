package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/storage"
)

func (c *cli) serve() *cobra.Command {
	return &cobra.Command{
		Use: "serve CONFIG.yaml", Short: "Run the server",
		Long: `serve runs the server that a configuration file describes, until SIGINT or SIGTERM. Environment variables
override keys of the file: WARIFU_ and the path in capitals, as in WARIFU_WEB_HTTP for web.http.`,
		Example: `  warifu config validate config.yaml && warifu serve config.yaml
  WARIFU_LOGGER_LEVEL=debug warifu serve config.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.configuration(args[0])
			if err != nil {
				return err
			}
			return c.serveConfig(cmd.Context(), cfg)
		},
	}
}

// configuration reads a file and speaks up about variables that are probably misspelled.
func (c *cli) configuration(file string) (*config.Config, error) {
	wrong := config.Misspelled(c.environ, adminVariable)
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		c.say("warning: the variable %s overrides nothing (did you mean %s?)", name, wrong[name])
	}
	return config.Read(file, c.environ)
}

func (c *cli) serveConfig(ctx context.Context, cfg *config.Config) error {
	i, err := build(ctx, cfg, building{log: newLogger(cfg.Logger, c.stderr)})
	if err != nil {
		return err
	}
	defer i.close()
	return i.run(ctx, func(ctx context.Context) error {
		listeners := make([]string, len(i.endpoints))
		for n, e := range i.endpoints {
			listeners[n] = e.name + " " + e.listener.Addr().String()
		}
		i.log.InfoContext(ctx, "warifu serves", "version", programVersion(), "issuer", cfg.Issuer, "listeners", listeners)
		return i.followManifests(ctx)
	})
}

// followManifests applies the configured directories, and again when they change.
func (i *instance) followManifests(ctx context.Context) error {
	dirs := i.cfg.Manifests.Directories
	if len(dirs) == 0 {
		return nil
	}
	if !i.cfg.Manifests.Watch {
		i.applyDirectories(ctx, dirs)
		return nil
	}
	watch, err := manifests.NewWatch(dirs)
	if err != nil {
		return err
	}
	i.applyDirectories(ctx, dirs)
	return watch.Run(ctx, func(ctx context.Context) { i.applyDirectories(ctx, dirs) })
}

// applyDirectories applies what can be applied: a faulty file, a denied or a failing app is logged and keeps nobody else from
// being deployed.
func (i *instance) applyDirectories(ctx context.Context, dirs []string) {
	files, faults := manifests.Read(dirs, nil)
	docs, found := manifests.ParseFiles(files, i.apps.options)
	faults = append(faults, found...)
	if i.apps.localhost == config.LocalhostDeny {
		faults = append(faults, deniedRedirects(docs)...)
	}
	i.apps.told(ctx, storage.AuditApply, "", faults.Err())
	faulty := make(map[string]bool)
	for _, f := range faults {
		if f.Severity == manifests.SeverityError {
			faulty[f.File] = true
			i.log.ErrorContext(ctx, "manifest refused", "fault", f.String())
		} else {
			i.log.WarnContext(ctx, "manifest", "fault", f.String())
		}
	}
	for _, doc := range docs {
		if faulty[doc.Path] {
			continue
		}
		if err := i.apps.applyOne(ctx, doc); err != nil && ctx.Err() == nil {
			i.apps.told(ctx, storage.AuditApply, doc.App.Metadata.Name, err)
			i.log.ErrorContext(ctx, "manifest not applied", "app", doc.App.Metadata.Name, "file", doc.Path, "error", err)
		}
	}
}

// applyOne applies one manifest. Another replica may be applying the same one; whichever comes second plans again.
func (a *apps) applyOne(ctx context.Context, doc *manifests.Document) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	return storage.Again(3, func() (again bool, err error) {
		plans, err := a.deployer.Plan(ctx, []*manifests.Document{doc})
		if err != nil {
			return false, err
		}
		if err = a.deployer.Apply(ctx, plans[0]); errors.Is(err, storage.ErrConflict) {
			return true, nil
		}
		return false, err
	})
}

func (c *cli) config() *cobra.Command {
	command := &cobra.Command{Use: "config", Short: "Check a configuration", Args: cobra.NoArgs, RunE: needsSubcommand}
	command.AddCommand(
		&cobra.Command{
			Use: "validate CONFIG.yaml", Short: "Find everything that is wrong in a configuration, with line and column",
			Example: "  warifu config validate config.yaml",
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				if _, err := c.configuration(args[0]); err != nil {
					return err
				}
				c.say("%s is valid", args[0])
				return nil
			},
		},
		&cobra.Command{
			Use: "schema", Short: "Print the JSON Schema of configurations, for editors",
			Example: "  warifu config schema > config.schema.json",
			Args:    cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				_, err := c.stdout.Write(config.Schema())
				return err
			},
		})
	return command
}

func (c *cli) plugin() *cobra.Command {
	command := &cobra.Command{Use: "plugin", Short: "Check a plugin that you write", Args: cobra.NoArgs, RunE: needsSubcommand}
	command.AddCommand(c.verify(), &cobra.Command{
		Use: "serve NAME", Short: "Serve a built-in plugin to the plugin host that started this process", Hidden: true,
		Args: cobra.ExactArgs(1), ValidArgs: namesOf(builtins()),
		RunE: func(_ *cobra.Command, args []string) error {
			serve, ok := builtins()[args[0]]
			if !ok {
				return usagef("no plugin %q is built in: there are %v", args[0], namesOf(builtins()))
			}
			serve()
			return nil
		},
	})
	return command
}
