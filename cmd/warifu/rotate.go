package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/admin"
)

var _ admin.Rotations = (*apps)(nil)

// Rotate is for admin.Apps.
func (a *apps) Rotate(ctx context.Context, app string, how admin.RotateOptions) (admin.Rotated, error) {
	begun, err := a.deployer.Rotate(ctx, app, manifests.RotateOptions(how))
	if err != nil {
		return admin.Rotated{}, edge(err)
	}
	rot := begun.Rotation
	out := admin.Rotated{
		App: rot.App, ClientID: rot.ClientID, Secret: rot.SecretID, Previous: rot.Previous, Compromised: rot.Compromised,
		Targets: []string{}, Consequences: append([]string{}, begun.Consequences...),
	}
	if !rot.Compromised {
		out.Grace = int64(rot.Grace / time.Second)
	}
	for _, t := range begun.Targets {
		out.Targets = append(out.Targets, t.Kind+"/"+t.Name)
	}
	return out, nil
}

// Retry is for admin.Apps.
func (a *apps) Retry(ctx context.Context, app string) error { return edge(a.deployer.Retry(ctx, app)) }

// Secrets is for admin.Apps.
func (a *apps) Secrets(ctx context.Context, app string) ([]admin.Secret, error) {
	found, err := a.deployer.Secrets(ctx, app)
	if err != nil {
		return nil, err
	}
	out := make([]admin.Secret, 0, len(found))
	for _, s := range found {
		out = append(out, admin.Secret{
			App: s.App, ClientID: s.ClientID, ID: s.ID, State: s.State, CreatedAt: s.CreatedAt, ServedAt: s.ServedAt,
			UsedAt: s.UsedAt, LastUsedAt: s.LastUsedAt, RetiresAt: s.RetiresAt, Waiting: s.Waiting,
		})
	}
	return out, nil
}

// rotateRequest is the body of a rotation.
type rotateRequest struct {
	Grace       *int64 `json:"grace,omitempty"`
	Compromised bool   `json:"compromised,omitempty"`
	Secret      string `json:"secret,omitempty"`
	Imported    bool   `json:"imported,omitempty"`
}

func (c *cli) rotate() *cobra.Command {
	var grace gracePeriod
	var compromised bool
	var wait waiting
	command := &cobra.Command{
		Use: "rotate APP", Short: "Replace the client secret of an app without interrupting it",
		Long: `rotate gives an app's client a new secret and delivers it to every target that has the old one. Both are
valid until every target serves the new one, the app has used it, and the grace period has passed since
then; a target that lags behind keeps the old one valid. warifu get secrets shows the progress. Grants
stay: no user has to sign in again.

--compromised ends the old secret at once, even where it is still in use, and says what that breaks.`,
		Example: `  warifu rotate my-oauth-app
  warifu rotate my-oauth-app --grace 1h --wait
  warifu rotate my-oauth-app --compromised --wait`,
		Args: operands(1), ValidArgsFunction: c.completeApps,
		RunE: func(cmd *cobra.Command, args []string) error {
			seconds, err := grace.seconds(cmd)
			if err != nil {
				return err
			}
			if seconds != nil && compromised {
				return usagef("--grace and --compromised exclude each other: a secret that others may have gets no grace period")
			}
			return c.replaceSecret(cmd.Context(), args[0], rotateRequest{Grace: seconds, Compromised: compromised}, wait)
		},
	}
	grace.flags(command)
	command.Flags().BoolVar(&compromised, "compromised", false, "end the old secret at once")
	wait.flags(command)
	return command
}

// gracePeriod is the flag --grace.
type gracePeriod time.Duration

func (g *gracePeriod) flags(command *cobra.Command) {
	command.Flags().DurationVar((*time.Duration)(g), "grace", admin.DefaultGrace,
		"how long the old secret stays valid after the new one is served everywhere and has been used")
}

// seconds are those that were asked for; nil leaves it to the server.
func (g gracePeriod) seconds(command *cobra.Command) (*int64, error) {
	if !command.Flags().Changed("grace") {
		return nil, nil
	}
	grace := time.Duration(g)
	if grace < 0 || grace%time.Second != 0 {
		return nil, usagef("--grace %s must be a whole number of seconds, 0s or more", grace)
	}
	return new(int64(grace / time.Second)), nil
}

// replaceSecret has a secret replaced, and says what follows.
func (c *cli) replaceSecret(ctx context.Context, app string, request rotateRequest, wait waiting) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var out admin.Rotated
	if err := api.do(ctx, http.MethodPost, appPath(app)+"/rotate", request, &out); err != nil {
		return err
	}
	c.say("%s %s: secret %s replaces %s", out.App, c.paint(c.stderr, green, "rotated"), out.Secret, out.Previous)
	for _, consequence := range out.Consequences {
		c.say("  %s %s", c.paint(c.stderr, yellow, "!"), harmless(consequence))
	}
	return c.delivered(ctx, wait, "rotated", out.App)
}

// setCredentials is `warifu credentials set`.
func (c *cli) setCredentials() *cobra.Command {
	var file string
	var imported bool
	var grace gracePeriod
	var wait waiting
	command := &cobra.Command{
		Use: "set APP --secret-file FILE", Short: "Give an app's client a secret that exists already",
		Long: `set gives an app's client the secret in a file, or with - on stdin: where the app has one already, or a secret
store makes them. It replaces the secret that the client has as warifu rotate does: it is delivered to every
target, and both are valid until the grace period has passed after that.

A secret needs 256 bits, as openssl rand -hex 32 makes. With --import it is one that the app has already:
16 characters are enough then, with a warning.`,
		Example: `  warifu credentials set my-oauth-app --secret-file secret.txt
  vault read -field=secret apps/shop | warifu credentials set shop --secret-file - --import`,
		Args: operands(1), ValidArgsFunction: c.completeApps,
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("name the file with the secret: --secret-file FILE, or - for stdin")
			}
			secret, err := c.secretIn(file)
			if err != nil {
				return err
			}
			seconds, err := grace.seconds(cmd)
			if err != nil {
				return err
			}
			request := rotateRequest{Secret: secret, Imported: imported, Grace: seconds}
			return c.replaceSecret(cmd.Context(), args[0], request, wait)
		},
	}
	flags := command.Flags()
	flags.StringVar(&file, "secret-file", "", "file that holds the secret; - is stdin")
	flags.BoolVar(&imported, "import", false, "the app has this secret already, so it may be weaker")
	grace.flags(command)
	must(command.MarkFlagFilename("secret-file"))
	wait.flags(command)
	return command
}

// secretIn reads a secret from a file or stdin, without the line end that editors add.
func (c *cli) secretIn(file string) (string, error) {
	in := c.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read the secret: %w", err)
		}
		defer func() { _ = f.Close() }() // opened for reading
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, 64<<10))
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", usagef("%s holds no secret", file)
	}
	return secret, nil
}

func (c *cli) retry() *cobra.Command {
	var wait waiting
	command := &cobra.Command{
		Use: "retry APP", Short: "Retry the failed env deliveries of an app now",
		Long: `retry makes the server try every delivery of an app again now, including those that it has given up.
Targets that are ready are observed, and repaired if necessary.`,
		Example: `  warifu retry my-oauth-app --wait`,
		Args:    operands(1), ValidArgsFunction: c.completeApps,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			var out admin.Retried
			if err := api.do(cmd.Context(), http.MethodPost, appPath(args[0])+"/retry", nil, &out); err != nil {
				return err
			}
			c.say("%s: deliveries are being tried again", out.App)
			return c.delivered(cmd.Context(), wait, "deliveries were tried again", out.App)
		},
	}
	wait.flags(command)
	return command
}

// secretCells are a secret in a table.
func secretCells(s admin.Secret) []string {
	return []string{s.ID, s.State, when(s.CreatedAt), when(s.ServedAt), when(s.UsedAt), when(s.LastUsedAt),
		when(s.RetiresAt), s.Waiting}
}

var secretHeader = []string{"ID", "STATE", "CREATED", "SERVED", "USED", "LAST USED", "RETIRES", "WAITING"}
