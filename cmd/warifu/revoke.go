package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
)

func (c *cli) revoke() *cobra.Command {
	command := &cobra.Command{
		Use: "revoke", Short: "End a grant, a session, a consent, a lost factor, or all that a user has begun",
		Long: `revoke ends what users have begun, at once and for good: no token, code or browser revives it. Access
tokens that an app checks by signature alone stay valid there until they expire.`,
		Args: subcommands, RunE: needsSubcommand,
	}
	command.AddCommand(c.revokeGrant(), c.revokeSession(), c.revokeConsent(), c.revokeFactor(), c.revokeUser())
	return command
}

func (c *cli) revokeGrant() *cobra.Command {
	return &cobra.Command{
		Use: "grant ID", Short: "Revoke a grant and every token issued from it",
		Long: `revoke grant ends a grant and every token issued from it. The user's consent to the client goes with it,
so the user is asked before the client gets another. Other grants of the user to the client stay.`,
		Example: `  warifu get grants
  warifu revoke grant 5dq3v2zkzq7m4t2l6s3b5r7yqe`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := ask[admin.Revoked](cmd.Context(), c, http.MethodDelete, "/v1/grants/"+url.PathEscape(args[0]))
			if err != nil {
				return err
			}
			c.say("grant %s revoked", out.Grant)
			return nil
		},
	}
}

func (c *cli) revokeSession() *cobra.Command {
	var user string
	command := &cobra.Command{
		Use: "session SID | --user USER", Short: "Sign a user out in one browser, or in all",
		Long: `revoke session ends the sign-in of one browser, or with --user all sign-ins of a user. What would end if
the user signed out there ends: grants with openid but without offline_access. Clients that want to be told of
logouts are told. To end everything of a user, see warifu revoke user.`,
		Example: `  warifu get sessions
  warifu revoke session uUq3x0mVbVg2yQ5dJ0m9Pw
  warifu revoke session --user ann@example.com`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/v1/users/" + url.PathEscape(user) + "/sessions"
			switch {
			case len(args) == 1 && user != "":
				return usagef("name a session or --user, not both")
			case len(args) == 1:
				path = "/v1/sessions/" + url.PathEscape(args[0])
			case user == "":
				return usagef("name a session (see warifu get sessions), or a user with --user")
			}
			out, err := ask[admin.Ended](cmd.Context(), c, http.MethodDelete, path)
			if err != nil {
				return err
			}
			c.say("%s of user %s ended", counted(out.Sessions, "session"), out.UserID)
			return nil
		},
	}
	command.Flags().StringVar(&user, "user", "", "end all sessions of this user: an id, e-mail address or user name")
	return command
}

func (c *cli) revokeConsent() *cobra.Command {
	return &cobra.Command{
		Use: "consent CLIENT USER", Short: "Withdraw what a user allowed a client, and end the grants that it led to",
		Example: `  warifu revoke consent my-oauth-app ann@example.com
  warifu revoke consent client-4s6a2kq7m5wd user-1`,
		Args: operands(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := ask[admin.Ended](cmd.Context(), c, http.MethodDelete,
				"/v1/clients/"+url.PathEscape(args[0])+"/consents/"+url.PathEscape(args[1]))
			if err != nil {
				return err
			}
			c.say("consent of user %s to %s revoked: %s ended", out.UserID, out.Client, counted(out.Grants, "grant"))
			return nil
		},
	}
}

func (c *cli) revokeUser() *cobra.Command {
	return &cobra.Command{
		Use: "user USER", Short: "End everything that a user has begun: sessions, grants, consents, codes",
		Long: `revoke user ends all sessions, grants and consents of a user, and the codes and device approvals that
are on their way. The user may sign in again, and is then asked again what apps may do. Changing the
password in the configuration does the same, and so does taking the user or the connector out of it.`,
		Example: `  warifu revoke user ann@example.com`,
		Args:    operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := ask[admin.Ended](cmd.Context(), c, http.MethodPost, "/v1/users/"+url.PathEscape(args[0])+"/revoke")
			if err != nil {
				return err
			}
			c.say("user %s revoked: %s ended", out.UserID, counts(out))
			return nil
		},
	}
}

// ask has the server do something, and gives its reply.
func ask[T any](ctx context.Context, c *cli, method, path string) (out T, err error) {
	return tell[T](ctx, c, method, path, nil)
}

// tell is ask with what the server has to know for it.
func tell[T any](ctx context.Context, c *cli, method, path string, in any) (out T, err error) {
	api, err := c.client()
	if err != nil {
		return out, err
	}
	err = api.do(ctx, method, path, in, &out)
	return out, err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
