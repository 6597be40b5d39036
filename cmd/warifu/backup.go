package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/storage"
)

func (c *cli) backup() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write a backup of a server's database",
		Long: `backup asks a running server for a backup of its records and writes it to a new file of mode 0600. The
server goes on meanwhile. What is secret in the backup is sealed under the encryption key, which is not in
it: keep a copy of that key too (encryption.key in dataDir, or the files of encryptionKeyFiles), elsewhere.

Of an embedded database it is a snapshot of etcd's. Of a cluster, which others may use as well, it has the
records of warifu's namespace as they were at one moment, and all of it is encrypted under the encryption key.

There is a file only if it was received whole and unaltered; what an interrupted backup leaves beside it
(.warifu-unfinished-*) is removed by the next one. warifu verify reads what is in it, and warifu
restore makes a database from it.`,
		Example: `  warifu backup /backup/warifu-$(date +%F).db`,
		Args:    operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			size, err := c.writeBackup(cmd.Context(), api, args[0])
			if err != nil {
				return err
			}
			c.say("%s: %s; keep the encryption key as well, which is not in it", args[0], storage.Bytes(size))
			return nil
		},
	}
}

// writeBackup writes a backup to a file that is there when all of it is, or not at all.
func (c *cli) writeBackup(ctx context.Context, api *client, file string) (size int64, err error) {
	if _, err := os.Lstat(file); err == nil {
		return 0, usagef("%s is there already: name another file", file)
	}
	draft, err := c.draft(file)
	if err != nil {
		return 0, unwritten(file, err)
	}
	defer draft.end()
	if size, err = api.download(ctx, http.MethodPost, "/v1/backup", draft.File); err != nil {
		return 0, unwritten(file, err)
	}
	if _, err := storage.VerifyBackup(draft.File); err != nil {
		return 0, fmt.Errorf("the backup that was received is unusable: %w", err)
	}
	if err := draft.publish(); err != nil {
		return 0, unwritten(file, err)
	}
	return size, nil
}

// unwritten says that there is no file, and why: not under which name it would have been written until it is whole.
func unwritten(file string, err error) error {
	var at *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &at):
		return fmt.Errorf("%s cannot be written: %w", file, at.Err)
	case errors.As(err, &link):
		return fmt.Errorf("%s cannot be written: %w", file, link.Err)
	}
	return fmt.Errorf("%s was not written: %w", file, err)
}

func (c *cli) restore() *cobra.Command {
	var file string
	var keep kept
	command := &cobra.Command{
		Use: "restore FILE --config CONFIG.yaml", Short: "Make a database from a backup, while no server runs",
		Long: `restore makes the records of a configuration's storage from a backup: those of an embedded database, also
from what etcdctl snapshot save wrote, or those of a namespace of a cluster. There must be none yet, and the
encryption key under which the backup was made must be in its place (encryptionKeyFiles may have a newer one in
front). A restore that was interrupted counts for nothing: run it again. A backup of a cluster can become an
embedded database.

A backup knows nothing of what happened after it was made: what was revoked since then would be alive again. So
restore begins a new epoch: all grants, sessions and consents end, all keys that sign and seal are new, and so
are the client secrets of apps. People sign in again. When the server starts it delivers the new secrets to the
targets that hold one; secrets that were handed out by hand are handed out again (warifu credentials).

Users are as they were, with their passwords, passkeys and authenticator apps: those who were disabled since
then have to be disabled again. Recovery codes are void, because nobody knows which have been used since then.

--keep-grants leaves grants, sessions, consents and the keys that seal as they were, so what was revoked since
is alive again, and a sealing key that has ended as compromised is good again. Refresh tokens that have been
used since are the newest ones of the backup: an app that has refreshed since holds a later one, which counts
as used twice, so its grant is revoked when it comes and its user signs in again.
--keep-secrets leaves the client secrets as they were, also those that have ended since.

A snapshot of an etcd cluster is restored with etcdutl. Without FILE, restore begins a new epoch in a cluster,
while no server runs.`,
		Example: `  warifu restore /backup/warifu-2026-11-28.db --config config.yaml && warifu serve config.yaml`,
		Args:    operands(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("name the configuration with --config")
			}
			cfg, err := c.configuration(file)
			if err != nil {
				return err
			}
			epoch, err := c.newEpoch(cmd.Context(), cfg, args, keep)
			if err != nil {
				return err
			}
			c.sayEpoch(epoch, keep)
			return nil
		},
	}
	command.Flags().StringVar(&file, "config", "", "configuration of the server")
	command.Flags().BoolVar(&keep.grants, "keep-grants", false,
		"leave grants, sessions and consents as they are in the backup")
	command.Flags().BoolVar(&keep.secrets, "keep-secrets", false, "leave client secrets as they are in the backup")
	must(command.MarkFlagFilename("config", "yaml", "yml"))
	return command
}

// kept is what restore leaves as it was.
type kept struct{ grants, secrets bool }

// epoch is what has ended with a restore, and what is new.
type epoch struct {
	*storage.Epoch
	secrets manifests.Replaced
}

// newEpoch restores a backup, or begins a new epoch in a cluster that was restored.
func (c *cli) newEpoch(ctx context.Context, cfg *config.Settings, args []string, keep kept) (epoch, error) {
	log, _ := newLogger(cfg.Logger, c.stderr)
	cluster := cfg.Storage.Type == config.StorageEtcd
	var e epoch
	secrets := func(ctx context.Context, s *storage.Store) (err error) {
		if !keep.secrets {
			e.secrets, err = manifests.New(manifests.DeployerOptions{Store: s, Issuer: cfg.Issuer}).
				ReplaceSecrets(ctx, "restored from a backup")
		}
		return err
	}
	if len(args) > 0 && cfg.KEK != nil {
		restored, err := c.restoreRecords(ctx, cfg, args[0], storage.Restoring{KeepGrants: keep.grants, Then: secrets}, log)
		if restored != nil || err != nil {
			e.Epoch = restored
			return e, err
		}
	}
	switch {
	case cluster && len(args) > 0:
		return e, usagef("%s is a snapshot of etcd: a cluster is restored from that with etcdutl snapshot restore; then run "+
			"warifu restore without a file", args[0])
	case cluster:
		client, err := storage.Dial(ctx, cfg.Etcd, log)
		if err != nil {
			return e, err
		}
		defer func() { _ = client.Close() }()
		s, err := storage.New(ctx, client, storage.Options{Prefix: cfg.Storage.Config.Namespace, KEK: cfg.KEK, Logger: log})
		if err != nil {
			return e, err
		}
		defer s.Close()
		if e.Epoch, err = s.BeginEpoch(ctx, keep.grants); err == nil {
			err = secrets(ctx, s)
		}
		return e, err
	case len(args) == 0:
		return e, usagef("name the backup")
	case cfg.KEK == nil:
		return e, usagef("the backup is sealed under the encryption key of its server: put a copy of that at %s first, "+
			"with mode 0600", cfg.KEKFile)
	}
	var err error
	e.Epoch, err = storage.Restoration{
		File: args[0], Embedding: storage.Embedding{Dir: cfg.Dir, Quota: int64(cfg.Storage.Config.Quota)}, KEK: cfg.KEK,
		Own: cfg.KEKFile, KeepGrants: keep.grants, Then: secrets, Logger: log,
	}.Restore(ctx)
	return e, err
}

// restoreRecords restores a backup of records; nil if it is a snapshot.
func (c *cli) restoreRecords(ctx context.Context, cfg *config.Settings, name string, how storage.Restoring,
	log *slog.Logger) (*storage.Epoch, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // opened for reading
	sort, err := storage.VerifyBackup(file)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", name, err)
	}
	if sort != storage.RecordsBackup {
		return nil, nil
	}
	restoring := storage.Importing{Prefix: cfg.Storage.Config.Namespace, KEK: cfg.KEK, Issuer: cfg.Issuer, Logger: log}
	if err := restoring.Expect(file); err != nil {
		return nil, err
	}
	i := &instance{cfg: cfg, log: log}
	defer i.close()
	if restoring.Client, err = i.openEtcd(ctx, "", true); err != nil {
		return nil, err
	}
	return restoring.Restore(ctx, file, how)
}

func (c *cli) sayEpoch(e epoch, keep kept) {
	of := "of an unknown time"
	if !e.BackupAt.IsZero() {
		of = "of " + e.BackupAt.Format(time.RFC3339)
	}
	c.say("%s: the database is that of the backup, %s", c.paint(c.stderr, green, "restored"), of)
	if keep.grants {
		c.say("  Grants, sessions and consents are as they were: what was revoked since then is alive.")
		c.say("  An app that has refreshed since then holds a refresh token that is refused here, and its " +
			"grant is revoked when")
		c.say("  it comes with that: its users sign in again.")
		c.say("  So are the keys that seal them. If they were ended as compromised since then: " +
			"warifu keys rotate seal --compromised")
	} else {
		c.say("  Ended: %s. Everybody signs in and consents again.", e.Ended)
	}
	c.say("  New: the keys that sign. Access tokens from before are not accepted here; resource servers " +
		"that verify them by")
	c.say("  themselves reject them once they have fetched the keys again.")
	if apps := e.secrets.Delivered; len(apps) > 0 {
		c.say("  New: client secrets, which are delivered when the server starts (%s).", strings.Join(apps, ", "))
	}
	if apps := e.secrets.ByHand; len(apps) > 0 {
		c.say("  New: client secrets that no target holds. Hand out those of %s with:", strings.Join(apps, ", "))
		c.say("    warifu credentials APP")
	}
	if keep.secrets && len(e.Apps) > 0 {
		c.say("  As they were then: the apps and their client secrets (%s). End those that were given up since then with:",
			strings.Join(e.Apps, ", "))
		c.say("    warifu rotate APP --compromised")
	} else if len(e.Apps) > 0 {
		c.say("  As they were then: the apps. Apply their manifests again, and delete those that were deleted since then.")
	}
	if e.Users > 0 {
		c.say("  As they were then: users, and the passwords, passkeys and authenticator apps of %d of them. "+
			"Disable those who",
			e.Users)
		c.say("  were disabled since then, and set the passwords anew that were given up.")
	}
	if e.Recovery > 0 {
		c.say("  Void: the recovery codes of %d users, some of which may have been used since then. They make "+
			"new ones in their "+
			"account.", e.Recovery)
	}
	if len(e.Clients) > 0 {
		c.say("  As they were then: %d clients that registered themselves, with their secrets. "+
			"Remove those that are not wanted with:", len(e.Clients))
		c.say("    warifu delete client ID")
	}
}
