package main

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
)

func (c *cli) serve() *cobra.Command {
	return &cobra.Command{
		Use: "serve CONFIG.yaml", Short: "Run the server",
		Long: `serve runs the server that a configuration file describes, until SIGINT or SIGTERM. Environment variables
override keys of the file: WARIFU_ followed by the path in capitals, as in WARIFU_WEB_HTTP for web.http.`,
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

// configuration reads a file and warns of variables that are probably misspelled.
func (c *cli) configuration(file string) (*config.Settings, error) {
	wrong := config.Misspelled(c.environ, adminVariable)
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		c.say("warning: the variable %s overrides nothing (did you mean %s?)", name, wrong[name])
	}
	return config.Read(file, c.environ)
}

func (c *cli) serveConfig(ctx context.Context, cfg *config.Settings) error {
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
		i.apps.deployer.ApplyPaths(ctx, dirs)
		return nil
	}
	watch, err := manifests.NewWatch(dirs)
	if err != nil {
		return err
	}
	i.apps.deployer.ApplyPaths(ctx, dirs)
	return watch.Run(ctx, func(ctx context.Context) { i.apps.deployer.ApplyPaths(ctx, dirs) })
}

func (c *cli) config() *cobra.Command {
	command := &cobra.Command{Use: "config", Short: "Check a configuration", Args: cobra.NoArgs, RunE: needsSubcommand}
	command.AddCommand(
		&cobra.Command{
			Use: "validate CONFIG.yaml", Short: "Report everything that is wrong in a configuration, with line and column",
			Long: `validate reports everything that is wrong in a configuration, and in the files that it names: certificates
and their keys, secrets, encryption keys, directories of manifests. What it accepts, serve starts with, as long
as ports are free and etcd answers.`,
			Example: "  warifu config validate config.yaml",
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				settings, err := c.configuration(args[0])
				if err != nil {
					return err
				}
				for _, w := range settings.Warnings {
					c.say("%s", w)
				}
				c.say("%s is valid", args[0])
				return nil
			},
		},
		&cobra.Command{
			Use: "schema", Short: "Print the JSON Schema of the configuration, for editors",
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
	command := &cobra.Command{Use: "plugin", Short: "Check a plugin that you are writing", Args: cobra.NoArgs,
		RunE: needsSubcommand}
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
