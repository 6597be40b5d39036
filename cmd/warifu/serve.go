package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/cmd/warifu/config"
)

func (c *cli) serve() *cobra.Command {
	return &cobra.Command{
		Use: "serve CONFIG.yaml", Short: "Run the server",
		Long: `serve runs the server that a configuration file describes, until SIGINT or SIGTERM. Environment variables
override keys of the file: WARIFU_ followed by the path in capitals, as in WARIFU_WEB_HTTP for web.http.

When the file changes, or a file that it names, it is read again a second later, and also on SIGHUP and by
warifu reload. Changes take effect at once; the log lists them, and the keys that need a restart.
Faults change nothing, nor does a change that would end most of the people, connectors or directories of
manifests before warifu reload asks for it.`,
		Example: `  warifu config validate config.yaml && warifu serve config.yaml
  WARIFU_LOGGER_LEVEL=debug warifu serve config.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New(noConfiguration)
			}
			return operands(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := make(chan os.Signal, 1)
			signal.Notify(asked, syscall.SIGHUP)
			defer signal.Stop(asked)
			cfg, err := c.configuration(args[0])
			if err != nil {
				return err
			}
			return c.serveConfig(cmd.Context(), cfg, args[0], asked)
		},
	}
}

// noConfiguration is what serve says that is not given a file.
const noConfiguration = `the configuration is missing: write warifu serve CONFIG.yaml
Begin with these lines, or with config.example.yaml, and check it with warifu config validate:

  issuer: https://id.example.com     # the address of this server; http://localhost:5556 to try it
  web: {http: 127.0.0.1:5556}        # for the proxy that has the certificate; or https, tlsCert and tlsKey
  enablePasswordDB: true
  staticPasswords:
    - {email: ann@example.com, emailVerified: true, userID: ann, hash: ...}    # printed by warifu hash
  manifests: {directories: [apps], watch: true}

Without any configuration, warifu dev runs a server on this machine for one app`

// configuration reads a file and warns of variables that override nothing.
func (c *cli) configuration(file string) (*config.Settings, error) {
	c.warnOfVariables(config.Misspelled(c.environ, adminVariable),
		"a variable is the whole path of a single value, as in WARIFU_WEB_HTTP; "+
			"what is in a list of mappings comes from the file")
	return config.Read(file, c.environ)
}

// warnOfVariables warns of variables that override nothing, each with the one that was meant, or else with a hint.
func (c *cli) warnOfVariables(wrong map[string]string, hint string) {
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		why := hint
		if wrong[name] != "" {
			why = "did you mean " + wrong[name] + "?"
		}
		c.say("warning: the variable %s overrides nothing (%s)", name, why)
	}
}

func (c *cli) serveConfig(ctx context.Context, cfg *config.Settings, file string, asked <-chan os.Signal) error {
	log, relog := newLogger(cfg.Logger, c.stderr)
	i, err := build(ctx, cfg, building{log: log, relog: relog})
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	defer i.close()
	return i.run(ctx, func(ctx context.Context) error {
		listeners := make([]string, len(i.endpoints))
		for n, e := range i.endpoints {
			listeners[n] = e.name + " " + e.listener.Addr().String()
		}
		i.log.InfoContext(ctx, "warifu serves", "version", programVersion(), "issuer", cfg.Issuer, "listeners", listeners)
		again := &reloading{instance: i, file: file, asked: asked,
			read: func() (*config.Settings, error) { return config.Read(file, c.environ) }}
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error {
			again.run(ctx)
			return nil
		})
		group.Go(func() error {
			i.tellSupervisor(ctx)
			return nil
		})
		group.Go(func() error { return i.followManifests(ctx) })
		return group.Wait()
	})
}

// unlessInterrupted is the error of a start, in place of all that did not happen because somebody has stopped it.
func unlessInterrupted(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return errors.New("interrupted while it started")
	}
	return err
}

func (c *cli) config() *cobra.Command {
	command := &cobra.Command{Use: "config", Short: "Check a configuration", Args: subcommands, RunE: needsSubcommand}
	command.AddCommand(
		&cobra.Command{
			Use: "validate CONFIG.yaml", Short: "Report everything that is wrong in a configuration, with line and column",
			Long: `validate reports everything that is wrong in a configuration, and in the files that it names: certificates
and their keys, secrets, encryption keys, directories of manifests. serve starts with whatever it accepts, as
long as ports are free and etcd answers.`,
			Example: "  warifu config validate config.yaml",
			Args:    operands(1),
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
			Args:    operands(0),
			RunE: func(*cobra.Command, []string) error {
				_, err := c.stdout.Write(config.Schema())
				return err
			},
		})
	return command
}

func (c *cli) plugin() *cobra.Command {
	command := &cobra.Command{Use: "plugin", Short: "Check a plugin that you are writing", Args: subcommands,
		RunE: needsSubcommand}
	command.AddCommand(c.verify(), &cobra.Command{
		Use: "serve NAME", Short: "Serve a built-in plugin to the plugin host that started this process", Hidden: true,
		Args: operands(1), ValidArgs: namesOf(builtins()),
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
