package main

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/admin"
)

var _ admin.Rotations = (*apps)(nil)

// Rotate is for admin.Apps.
func (a *apps) Rotate(ctx context.Context, app string, grace time.Duration, compromised bool) (admin.Rotated, error) {
	begun, err := a.deployer.Rotate(ctx, app, manifests.RotateOptions{Grace: grace, Compromised: compromised})
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
}

func (c *cli) rotate() *cobra.Command {
	var grace time.Duration
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
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeApps,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := rotateRequest{Compromised: compromised}
			if cmd.Flags().Changed("grace") {
				if compromised {
					return usagef("--grace and --compromised exclude each other: a secret that others may have gets no grace period")
				}
				if grace < 0 || grace%time.Second != 0 {
					return usagef("--grace %s must be a whole number of seconds, 0s or more", grace)
				}
				seconds := int64(grace / time.Second)
				request.Grace = &seconds
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			var out admin.Rotated
			if err := api.do(cmd.Context(), http.MethodPost, appPath(args[0])+"/rotate", request, &out); err != nil {
				return err
			}
			c.say("%s %s: secret %s replaces %s", out.App, c.paint(c.stderr, green, "rotated"), out.Secret, out.Previous)
			for _, consequence := range out.Consequences {
				c.say("  %s %s", c.paint(c.stderr, yellow, "!"), harmless(consequence))
			}
			return c.delivered(cmd.Context(), wait, "rotated", out.App)
		},
	}
	command.Flags().DurationVar(&grace, "grace", admin.DefaultGrace,
		"how long the old secret stays valid after the new one is served everywhere and has been used")
	command.Flags().BoolVar(&compromised, "compromised", false, "end the old secret at once")
	wait.flags(command)
	return command
}

func (c *cli) retry() *cobra.Command {
	var wait waiting
	command := &cobra.Command{
		Use: "retry APP", Short: "Retry the failed env deliveries of an app now",
		Long: `retry makes the server try every delivery of an app again now, including those that it has given up.
Targets that are ready are observed, and repaired if necessary.`,
		Example: `  warifu retry my-oauth-app --wait`,
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeApps,
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
