package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/cmd/warifu/migrate"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/manifests/strictyaml"
)

func (c *cli) migrate() *cobra.Command {
	command := &cobra.Command{Use: "migrate", Short: "Migrate from another server", Args: subcommands,
		RunE: needsSubcommand}
	var out, issuer string
	dex := &cobra.Command{
		Use: "dex CONFIG.yaml", Short: "Make a configuration and manifests from a Dex configuration",
		Long: `dex reads a configuration of Dex: its file, the ConfigMap or Secret of Kubernetes that holds it, or argocd-cm
of Argo CD. It writes config.yaml, and for each of staticClients a manifest with the same client id, and a
file with its secret for warifu credentials set. Users keep the sub that Dex gave them.

For each key that cannot be migrated it says why, and it prints the commands that come next. It changes no file
that is there already.`,
		Example: `  warifu migrate dex /etc/dex/config.yaml --out /etc/warifu
  kubectl get configmap dex -o yaml > dex.yaml && warifu migrate dex dex.yaml`,
		Args: operands(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := filepath.Abs(out)
			if err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			data, err := configurationOfDex(args[0])
			if err != nil {
				return err
			}
			result, err := migrate.Dex(args[0], data, migrate.Options{Dir: dir, Issuer: issuer, Environ: c.environ})
			if err != nil {
				return err
			}
			if err := result.Write(dir); err != nil {
				return err
			}
			return c.showMigration(dir, result)
		},
	}
	dex.Flags().StringVar(&out, "out", "warifu", "directory for what is written")
	dex.Flags().StringVar(&issuer, "issuer", "", "address of the server, where it is not Dex's")
	must(dex.MarkFlagDirname("out"))
	command.AddCommand(dex)
	return command
}

// configurationOfDex reads a file that people write.
func configurationOfDex(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, manifests.Faults{strictyaml.Unreadable(file, err)}
	}
	defer func() { _ = f.Close() }() // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, manifests.Faults{strictyaml.Unreadable(file, err)}
	}
	return data, nil
}

// showMigration says what was written and what was not, and on stdout what comes next.
func (c *cli) showMigration(dir string, result *migrate.Result) error {
	for _, l := range result.Leftovers {
		c.say("%s", harmless(l.String()))
	}
	for _, f := range result.Files {
		c.say("%s %s", c.paint(c.stderr, green, "wrote"), filepath.Join(dir, f.Path))
	}
	for _, note := range result.Notes {
		c.say("%s %s", c.paint(c.stderr, yellow, "note:"), harmless(note))
	}
	var missing manifests.Faults
	if _, err := config.Read(filepath.Join(dir, "config.yaml"), c.environ); errors.As(err, &missing) {
		c.say("Before it can start:")
		for _, f := range missing {
			c.say("  %s", f)
		}
	}
	var b strings.Builder
	for _, s := range result.Steps {
		fmt.Fprintf(&b, "# %s\n%s\n", harmless(s.Why), harmless(s.Command))
	}
	_, err := c.stdout.Write([]byte(b.String()))
	return err
}
