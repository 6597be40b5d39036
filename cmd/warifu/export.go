package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/storage"
)

func (c *cli) export() *cobra.Command {
	var file, key string
	var chosen storage.Selection
	command := &cobra.Command{
		Use:   "export FILE --config CONFIG.yaml --key KEYFILE",
		Short: "Write all records to a file, to move them to another storage",
		Long: `export writes all records of a server to a new file, from which warifu import makes the records of another
storage: from embedded etcd to a cluster, back, or to another namespace. Apps and people do not notice: ids,
secrets, keys, env, passwords, passkeys, sessions, grants, consents, refresh tokens and the audit log stay.

Stop the server first, and start none on the old storage again: what happens there after the export is not in
it. An embedded database is only read while no server runs. Of a cluster on which servers run, the file has the
records of one moment; export says so then.

The file is encrypted under the key in KEYFILE, which is made, with mode 0600, if it is not there.

--apps, --clients and --users choose ("*": all). That leaves out what users began and allowed (grants,
consents, sessions, the audit log), and the keys that sign and seal: people sign in and consent again.`,
		Example: `  warifu export warifu.export --config config.yaml --key export.key
  warifu export shop.export --config config.yaml --key export.key --apps shop --users ann@example.com`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" || key == "" {
				return usagef("name the configuration with --config, and the file of the key with --key")
			}
			cfg, err := c.configuration(file)
			if err != nil {
				return err
			}
			what := storage.Exporting{Issuer: cfg.Issuer, Program: programVersion()}
			if chosen.String() != "" {
				what.Chosen = &chosen
			}
			return c.writeExport(cmd.Context(), cfg, what, args[0], key)
		},
	}
	flags := command.Flags()
	flags.StringVar(&file, "config", "", "configuration of the server")
	flags.StringVar(&key, "key", "", "file of the key of the export")
	flags.StringSliceVar(&chosen.Apps, "apps", nil, "only these apps")
	flags.StringSliceVar(&chosen.Clients, "clients", nil, "only these clients, which registered themselves, by id")
	flags.StringSliceVar(&chosen.Users, "users", nil, "only these users, by id, e-mail address or user name")
	must(command.MarkFlagFilename("config", "yaml", "yml"))
	return command
}

// writeExport writes an export to a file that is there when all of it is, or not at all.
func (c *cli) writeExport(ctx context.Context, cfg *config.Settings, what storage.Exporting, name,
	keyFile string) error {
	if _, err := os.Lstat(name); err == nil {
		return usagef("%s is there already: name another file", name)
	}
	if cfg.KEK == nil {
		return usagef("there is no database in %s: name the configuration of the server", cfg.Dir)
	}
	if err := storage.CreateKEKFile(keyFile); err != nil {
		return err
	}
	key, err := readExportKey(keyFile)
	if err != nil {
		return err
	}
	log, _ := newLogger(cfg.Logger, c.stderr)
	i := &instance{cfg: cfg, log: log}
	defer i.close()
	if err := i.openStorage(ctx); err != nil {
		return err
	}
	draft, err := c.draft(name)
	if err != nil {
		return unwritten(name, err)
	}
	defer draft.end()
	lines, to := io.Pipe()
	exporting := make(chan error, 1)
	go func() {
		err := i.store.Export(ctx, what, to)
		_ = to.CloseWithError(err)
		exporting <- err
	}()
	out := bufio.NewWriterSize(draft, 256<<10)
	header, end, err := storage.WriteExport(out, lines, cfg.KEK, key)
	_ = lines.CloseWithError(err)
	if fault := <-exporting; fault != nil && !errors.Is(fault, io.ErrClosedPipe) && err == nil {
		err = fault
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = draft.publish()
	}
	if err != nil {
		return unwritten(name, err)
	}
	c.say("%s: %d records, encrypted under %s, without which it is good for nothing", name, end.Records, keyFile)
	if len(header.Replicas) > 0 {
		c.say("  Servers ran a moment ago: %s. What they do after %s is not in the file.",
			strings.Join(header.Replicas, ", "), header.At.Format("15:04:05Z"))
		c.say("  To lose nothing, stop them, and export again.")
	}
	return nil
}

// readExportKey reads the key of an export, at which nobody else may get.
func readExportKey(file string) (storage.ExportKey, error) {
	key, err := storage.ReadExportKey(file)
	if err == nil {
		err = config.CheckKeyFile(file)
	}
	return key, err
}

func (c *cli) importing() *cobra.Command {
	var file, key string
	var discard bool
	command := &cobra.Command{
		Use: "import FILE --config CONFIG.yaml --key KEYFILE", Short: "Make the records of an empty storage from an export",
		Long: `import puts what warifu export wrote into the storage of a configuration, in which there is nothing yet, while
no server runs on it. Secrets are sealed under the encryption key of that configuration.

Either all of it is imported, or nothing counts: no server starts on an import that was not finished. Run it
again, or remove what it has left with --discard. It cannot add to records that are there, because two sets of
keys and ids cannot be merged. The issuer has to be that of the export. Older versions of warifu do not start
on the database.`,
		Example: `  warifu import warifu.export --config cluster.yaml --key export.key && warifu serve cluster.yaml`,
		Args:    operands(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" || !discard && (key == "" || len(args) == 0) {
				return usagef("name the export, the configuration with --config, and the file of the key with --key")
			}
			cfg, err := c.configuration(file)
			if err != nil {
				return err
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return c.readExport(cmd.Context(), cfg, name, key, discard)
		},
	}
	flags := command.Flags()
	flags.StringVar(&file, "config", "", "configuration of the storage to import into")
	flags.StringVar(&key, "key", "", "file of the key of the export")
	flags.BoolVar(&discard, "discard", false, "remove what an import has left that was not finished")
	must(command.MarkFlagFilename("config", "yaml", "yml"))
	return command
}

func (c *cli) readExport(ctx context.Context, cfg *config.Settings, name, keyFile string, discard bool) error {
	log, _ := newLogger(cfg.Logger, c.stderr)
	i := &instance{cfg: cfg, log: log}
	defer i.close()
	importing := storage.Importing{Prefix: cfg.Storage.Config.Namespace, KEK: cfg.KEK, Issuer: cfg.Issuer, Logger: i.log}
	var export *os.File
	if !discard {
		var err error
		if importing.Key, err = readExportKey(keyFile); err != nil {
			return err
		}
		if export, err = os.Open(name); err != nil {
			return err
		}
		defer func() { _ = export.Close() }()
		if err = importing.Check(export); err != nil {
			return err
		}
	}
	keyOf := cfg.KEKFile
	if discard { // which needs none
		keyOf = ""
	}
	var err error
	if importing.Client, err = i.openEtcd(ctx, keyOf, false); err != nil {
		return err
	}
	if discard {
		removed, err := importing.Discard(ctx)
		if errors.Is(err, storage.ErrNotFound) {
			return errors.New("there is no unfinished import: nothing was removed")
		}
		if err == nil {
			c.say("removed: %d records of an import that was not finished", removed)
		}
		return err
	}
	if importing.KEK == nil {
		if importing.KEK, err = storage.ReadKEK(cfg.KEKFile); err != nil {
			return err
		}
	}
	done, err := importing.Import(ctx, export)
	if err != nil {
		return err
	}
	c.say("%s: %d records, as they were at %s", c.paint(c.stderr, green, "imported"), done.Records-done.Expired,
		done.At.Format("2006-01-02T15:04:05Z"))
	if done.Chosen != nil {
		c.say("  Only %s: without grants, consents, sessions, the audit log, and the keys that sign and seal.", done.Chosen)
	} else {
		c.say("  Start no server on the storage that they came from again: both would give tokens under the same keys.")
	}
	return nil
}
