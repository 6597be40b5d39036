package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/storage"
)

func (c *cli) verifyRecords() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "verify [FILE] --config CONFIG.yaml",
		Short: "Check a backup, or the records of a server, without changing anything",
		Long: `verify reads every record of a backup and says what is wrong with it and what to do: that the file is whole,
that this version of warifu can read each record, that all secrets open under the encryption keys of the
configuration, and that what records refer to exists. The exit code is 1 if something is wrong.

Without FILE it does the same with the storage of the configuration: an embedded database while no server runs,
or warifu's records in a cluster, also while servers run.`,
		Example: `  warifu verify /backup/warifu-2026-11-28.db --config config.yaml
  warifu verify --config config.yaml`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("name the configuration with --config: the secrets are sealed under its encryption keys")
			}
			cfg, err := c.configuration(file)
			if err != nil {
				return err
			}
			if cfg.KEK == nil {
				return usagef("the secrets are sealed under the encryption key of the server: put a copy of that at %s, "+
					"with mode 0600, or name the configuration of the server", cfg.KEKFile)
			}
			found, err := c.findWrong(cmd.Context(), cfg, args)
			if err != nil {
				return err
			}
			return c.sayVerified(found)
		},
	}
	command.Flags().StringVar(&file, "config", "", "configuration of the server")
	must(command.MarkFlagFilename("config", "yaml", "yml"))
	return command
}

func (c *cli) findWrong(ctx context.Context, cfg *config.Settings, args []string) (*storage.Verified, error) {
	v := storage.Verification{KEK: cfg.KEK, Prefix: cfg.Storage.Config.Namespace, Issuer: cfg.Issuer}
	switch {
	case len(args) > 0:
		if cfg.KEKFile != "" { // an older backup may need keys that were put aside since
			var err error
			if v.KEK, err = storage.ReadOwnKEK(cfg.KEKFile); err != nil {
				return nil, err
			}
		}
		return v.Backup(ctx, args[0])
	case cfg.Storage.Type == config.StorageEmbedded:
		return v.Database(ctx, cfg.Dir)
	}
	log, _ := newLogger(cfg.Logger, c.stderr)
	client, err := storage.Dial(ctx, cfg.Etcd, log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }() // opened for reading
	return v.Cluster(ctx, client)
}

func (c *cli) sayVerified(found *storage.Verified) error {
	for _, f := range found.Flaws {
		line := c.paint(c.stdout, red, "wrong") + "  "
		if f.Key != "" {
			line += harmless(f.Key) + ": "
		}
		fmt.Fprintln(c.stdout, line+harmless(f.What))
		fmt.Fprintf(c.stdout, "       -> %s\n", harmless(f.Remedy))
	}
	if more := found.Wrong - len(found.Flaws); more > 0 {
		fmt.Fprintf(c.stdout, "       and %d more of these\n", more)
	}
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(found.Kinds)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", harmless(kind), found.Kinds[kind]))
	}
	counts := ""
	if len(kinds) > 0 {
		counts = " (" + strings.Join(kinds, ", ") + ")"
	}
	c.say("%s: %d records%s", found.What, found.Records, counts)
	if !found.At.IsZero() {
		c.say("  made at %s", found.At.UTC().Format(time.RFC3339))
	}
	if !found.Moved.IsZero() {
		c.say("  its records came from another storage at %s", found.Moved.UTC().Format(time.RFC3339))
	}
	if len(found.Keys) > 0 {
		c.say("  secrets are sealed under encryption key %s", strings.Join(found.Keys, ", "))
	}
	if found.Wrong > 0 {
		if found.Wrong == 1 {
			return fmt.Errorf("one thing is wrong with %s", found.What)
		}
		return fmt.Errorf("%d things are wrong with %s", found.Wrong, found.What)
	}
	c.say("%s", c.paint(c.stderr, green, "nothing is wrong"))
	return nil
}
