package main

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
)

// keyUses are the arguments of warifu keys rotate.
var keyUses = []string{storage.UseRS256, storage.UseES256, storage.UseEdDSA, storage.UsePS256, storage.UseSeal,
	admin.AllKeys}

func (c *cli) keys() *cobra.Command {
	command := &cobra.Command{Use: "keys", Short: "List and replace the keys that sign and seal", Args: subcommands,
		RunE: needsSubcommand}
	command.AddCommand(c.listKeys(), c.rotateKeys())
	return command
}

var keyHeader = []string{"USE", "KID", "STATE", "SINCE", "UNTIL"}

func keyRow(k admin.Key) (name string, cells []string) {
	return "key/" + k.KID, []string{k.Use, k.KID, k.State, when(k.Since), when(k.Until)}
}

var listKeys = listOf("/v1/keys", keyHeader, keyRow)

func (c *cli) listKeys() *cobra.Command {
	var format string
	command := &cobra.Command{
		Use: "list", Short: "List signing and sealing keys and their state, never what is secret",
		Long: `list shows the keys of each use: RS256, ES256, EdDSA and PS256 sign tokens, seal seals codes, refresh tokens
and cookies, pairwise makes the subjects of apps that must not compare their users, encryption seals what is
secret in storage (KID is its fingerprint).

next is published and does not sign yet, active signs, verifying (for encryption: opens) is still used for what
it signed or sealed, and compromised has ended.
UNTIL is when that changes on schedule (expiry.signingKeys, expiry.sealingKeys).`,
		Example: `  warifu keys list
  warifu keys list -o json`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			shown := &listed{c: c, format: format, what: "keys"}
			all := rows{header: keyHeader}
			if err := listKeys(cmd.Context(), c, "", all.add); err != nil {
				return err
			}
			encryption, err := fetch[admin.Encryption](cmd.Context(), c, "/v1/encryption")
			if err != nil {
				return err
			}
			if err := errors.Join(all.add(encryptionRows(encryption)), shown.add(all)); err != nil {
				return err
			}
			return shown.end()
		},
	}
	outputFlag(command, &format, "table", "json", "yaml", "name")
	return command
}

func (c *cli) rotateKeys() *cobra.Command {
	var now, compromised, yes, encryption bool
	var wait waiting
	command := &cobra.Command{
		Use:   "rotate RS256|ES256|EdDSA|PS256|seal|all|--encryption",
		Short: "Replace a key that signs or seals, or that of the storage",
		Long: `rotate gives the next key of a use its turn. It signs as soon as it has been published for an hour, which is
usually now, and the previous key verifies what it has signed: nobody notices.

--now does not wait for the hour. What the next key signs is then refused by verifiers that have cached
the JWK Set and do not fetch it again for a kid that they do not know.

--compromised is for keys that others may have. A new key signs now, and all keys that the use has had so
far end: they are out of the JWK Set, and within seconds no replica accepts what they have signed or
sealed. They do not come back from a backup. With seal, everybody has to sign in again.

--encryption replaces the key under which secrets are sealed in storage: with a new one that the server makes,
or, where encryptionKeyFiles lists them, with the one that was put in front. Once all replicas have it,
everything is resealed under it, while they serve, and it says when the old one may go. A server that stops
meanwhile continues at its next start. Within an hour of a rotation it says how that ended; --now makes
another.`,
		Example: `  warifu keys rotate ES256
  warifu keys rotate all --now
  warifu keys rotate seal --compromised
  warifu keys rotate --encryption --wait`,
		Args: func(cmd *cobra.Command, args []string) error {
			if encryption && len(args) > 0 {
				return errors.New("--encryption is for the key of the storage, and takes no argument")
			} else if encryption {
				return nil
			} else if len(args) == 0 {
				return errors.New("say what to rotate: warifu keys rotate with one of " + strings.Join(keyUses, ", ") +
					", or with --encryption")
			}
			return operands(1)(cmd, args)
		}, ValidArgs: keyUses,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case encryption && compromised:
				return usagef("a leaked storage key is of use only together with a copy of the database: replace it " +
					"without --compromised, then replace the keys and secrets that it sealed")
			case encryption:
				return c.rotateEncryption(cmd.Context(), now, wait)
			case wait.wait:
				return usagef("--wait is for --encryption; other keys are replaced at once")
			}
			use := args[0]
			switch {
			case now && compromised:
				return usagef("--now and --compromised exclude each other: a compromised key is replaced at once in any case")
			case !slices.Contains(keyUses, use) && use != storage.UsePairwise: // the server says why not
				return usagef("no keys are called %q: name one of %s", use, strings.Join(keyUses, ", "))
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			if compromised && !yes && use != storage.UsePairwise {
				for _, end := range ends(use) {
					c.say("  %s %s", c.paint(c.stderr, red, "!"), end)
				}
				if err := c.confirm("End the keys of " + use + "? This cannot be undone."); err != nil {
					return err
				}
			}
			request := map[string]bool{"now": now, "compromised": compromised}
			var out admin.KeysRotated
			path := "/v1/keys/" + url.PathEscape(use) + "/rotate"
			if err := api.do(cmd.Context(), http.MethodPost, path, request, &out); err != nil {
				return err
			}
			for _, k := range out.Keys {
				c.sayRotated(k)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&now, "now", false, "let the next key sign now, even if it has not been published for an hour")
	command.Flags().BoolVar(&compromised, "compromised", false,
		"end all keys of the use, with what they have signed or sealed")
	command.Flags().BoolVar(&encryption, "encryption", false, "replace the key under which secrets are sealed in storage")
	command.Flags().BoolVar(&wait.wait, "wait", false,
		"with --encryption: wait until the old key may go, and show progress")
	command.Flags().DurationVar(&wait.timeout, "timeout", 15*time.Minute, "how long --wait waits")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	return command
}

// ends is what ends with the keys of a use.
func ends(use string) []string {
	switch use {
	case storage.UseSeal:
		return admin.SealEnds()
	case admin.AllKeys:
		return append(admin.SealEnds()[:2:2], admin.SigningEnds(storage.UseES256)[:2]...)
	}
	return admin.SigningEnds(use)
}

func (c *cli) sayRotated(k admin.KeyRotated) {
	verb := "signs"
	if k.Use == storage.UseSeal {
		verb = "seals"
	}
	from := "now"
	if time.Until(k.From) > time.Second {
		from = "from " + when(k.From) + " on"
	}
	c.say("%s %s: key %s %s %s", k.Use, c.paint(c.stderr, green, "rotated"), k.KID, verb, from)
	for _, previous := range k.Previous {
		if k.Compromised {
			c.say("  key %s has ended", previous)
		} else {
			c.say("  key %s verifies until %s", previous, when(k.Until))
		}
	}
	for _, consequence := range k.Consequences {
		c.say("  %s %s", c.paint(c.stderr, yellow, "!"), harmless(consequence))
	}
}
