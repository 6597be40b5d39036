package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/connector"
)

// People: their accounts, and which identities of connectors sign in with which.

// mostGroupsShown bounds a cell of a table.
const mostGroupsShown = 3

func userCells(u admin.User) []string {
	groups := u.Groups
	if n := len(groups); n > mostGroupsShown {
		groups = append(groups[:mostGroupsShown:mostGroupsShown], fmt.Sprintf("and %d more", n-mostGroupsShown))
	}
	return []string{u.ID, u.Connector, u.Username, u.Name, email(u), strings.Join(groups, ", "),
		strings.Join(factorWords(u), ", "), u.State, when(u.SignedInAt)}
}

// factorWords are what a user has at this server to prove who they are.
func factorWords(u admin.User) []string {
	var words []string
	passkeys := 0
	if u.Password {
		words = append(words, "password")
	}
	for _, f := range u.Factors {
		switch f.Kind {
		case "passkey":
			passkeys++
		case "totp":
			words = append(words, "totp")
		}
	}
	if passkeys > 0 {
		words = append(words, counted(passkeys, "passkey"))
	}
	return words
}

// mostAgentShown bounds what a table shows of what a browser calls itself.
const mostAgentShown = 40

func shortened(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most-3]) + "..."
	}
	return text
}

func email(u admin.User) string {
	if u.Email != "" && !u.EmailVerified {
		return u.Email + " (not verified)"
	}
	return u.Email
}

func userPath(name string) string { return "/v1/users/" + url.PathEscape(name) }

func (c *cli) describeUser() *cobra.Command {
	var format string
	command := &cobra.Command{
		Use: "user USER", Short: "Show a user, and the identities that sign in as this user",
		Example: `  warifu describe user ann@example.com`,
		Args:    operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := fetch[admin.UserDetail](cmd.Context(), c, userPath(args[0]))
			if err != nil {
				return err
			}
			switch format {
			case "json", "yaml":
				return encode(c.stdout, format, u)
			case "name":
				_, err := fmt.Fprintln(c.stdout, "user/"+u.ID)
				return err
			}
			lines := [][]string{{"User", u.ID}, {"State", userState(u)}, {"Kept", keptWhere(u.User)}}
			for _, line := range [][]string{{"  Identity", u.UpstreamID}, {"User name", u.Username}, {"Name", u.Name},
				{"E-mail", email(u.User)}, {"Groups", strings.Join(u.Groups, ", ")}} {
				if line[1] != "" {
					lines = append(lines, line)
				}
			}
			for _, l := range u.Links {
				lines = append(lines, []string{"Also signs in", l.UpstreamID + " of connector " + l.Connector +
					", since " + when(l.At)})
			}
			if u.Password {
				lines = append(lines, []string{"Password", cmp.Or(when(u.PasswordAt), "in the configuration")})
			}
			lines = append(lines, []string{"Changed", when(u.UpdatedAt)},
				[]string{"Signed in", cmp.Or(when(u.SignedInAt), "not known")})
			if err := table(c.stdout, lines[0], lines[1:]); err != nil {
				return err
			}
			return c.showProofs(u)
		},
	}
	outputFlag(command, &format, "table", "json", "yaml", "name")
	return command
}

// keptWhere says who keeps the account.
func keptWhere(u admin.User) string {
	switch {
	case u.Managed:
		return "in the database, by commands (" + u.Connector + ")"
	case u.Connector == connector.StaticName:
		return "in staticPasswords of the configuration (" + u.Connector + ")"
	}
	return "by the connector " + u.Connector
}

// showProofs shows the factors of a user, and the last sign-ins.
func (c *cli) showProofs(u admin.UserDetail) error {
	var factors, signIns [][]string
	for _, f := range u.Factors {
		about := f.Name
		if f.Kind == "recovery" {
			about = counted(f.Left, "code") + " left"
		}
		factors = append(factors, []string{f.ID, f.Kind, about, when(f.At), when(f.UsedAt)})
	}
	for _, s := range u.SignIns {
		outcome := "signed in"
		if s.Failed != "" {
			outcome = fmt.Sprintf("failed: %s", s.Failed)
		}
		if s.Times > 1 {
			outcome += fmt.Sprintf(" (%d times)", s.Times)
		}
		signIns = append(signIns, []string{when(s.At), outcome, strings.Join(s.Methods, " "), s.Address,
			shortened(s.Agent, mostAgentShown)})
	}
	for _, part := range []struct {
		header []string
		rows   [][]string
	}{
		{[]string{"FACTOR", "KIND", "NAME", "ADDED", "USED"}, factors},
		{[]string{"SIGN-IN", "OUTCOME", "BY", "ADDRESS", "DEVICE"}, signIns},
	} {
		if len(part.rows) == 0 {
			continue
		}
		if _, err := fmt.Fprintln(c.stdout); err != nil {
			return err
		}
		if err := table(c.stdout, part.header, part.rows); err != nil {
			return err
		}
	}
	return nil
}

func userState(u admin.UserDetail) string {
	switch {
	case u.JoinedTo != "":
		return "joined: signs in as user " + u.JoinedTo
	case u.State == "left":
		return "disabled: the connector is no longer configured"
	}
	return u.State
}

// identityFlags are those that name an identity of a connector.
func identityFlags(command *cobra.Command, to *admin.Identity) {
	command.Flags().StringVar(&to.Connector, "connector", "", "id of the connector")
	command.Flags().StringVar(&to.UpstreamID, "as", "", "what the connector calls the person, as warifu "+
		"describe user shows it")
}

// checkIdentity is a usage error when a flag is missing.
func checkIdentity(named admin.Identity) error {
	switch {
	case named.Connector == "":
		return usagef("name the connector with --connector")
	case named.UpstreamID == "":
		return usagef("say with --as what the connector calls the person; warifu describe user shows it of somebody who " +
			"has signed in")
	}
	return nil
}

func (c *cli) link() *cobra.Command {
	command := &cobra.Command{Use: "link", Short: "Have an identity of a connector sign in as a user who exists",
		Args: subcommands, RunE: needsSubcommand}
	var identity admin.Identity
	user := &cobra.Command{
		Use: "user USER --connector ID --as IDENTITY", Short: "Have an identity of a connector sign in as a user who exists",
		Long: `link user joins an identity, which is what a connector calls somebody, to the account of a user. Nothing
else ever joins accounts, and an e-mail address least of all.

From then on the person signs in as that user, by either way. The user keeps name, e-mail address, groups
and connector: access rules of apps look at these, and refreshUpstream asks that connector, whichever way
the person came. The account that the identity had by itself is disabled, and everything begun for it ends;
apps that know it see the user instead.

When the user's own connector is taken out of the configuration later, the account belongs to the joined
identity's connector from the next sign-in on: so people move from one directory to another. Should the first
connector come back, the account is its own again from the next sign-in there on, and the joined identity
goes on to sign in as it.`,
		Example: `  warifu link user ann@example.com --connector github --as 583231`,
		Args:    operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkIdentity(identity); err != nil {
				return err
			}
			out, err := tell[admin.Linked](cmd.Context(), c, http.MethodPost, userPath(args[0])+"/links", identity)
			if err != nil {
				return err
			}
			c.say("%s of connector %s signs in as user %s from now on", out.UpstreamID, out.Connector, out.User.ID)
			c.say("  The user keeps name, e-mail address, groups and connector (%s).", out.User.Connector)
			if out.Given != "" {
				c.say("  The account %s, which the identity had by itself, is disabled: %s ended. Apps that know it see "+
					"user %s instead.",
					out.Given, counts(out.Ended), out.User.ID)
			}
			return nil
		},
	}
	identityFlags(user, &identity)
	command.AddCommand(user)
	return command
}

func (c *cli) unlink() *cobra.Command {
	command := &cobra.Command{Use: "unlink", Short: "Have an identity sign in with its own account again",
		Args: subcommands,
		RunE: needsSubcommand}
	var identity admin.Identity
	user := &cobra.Command{
		Use: "user USER --connector ID --as IDENTITY", Short: "Have an identity sign in with its own account again",
		Long: `unlink user undoes warifu link user. Everything begun for the user ends, because nobody knows by which
identity it was begun; the user may sign in again. The identity gets its own account back when the person
next signs in.`,
		Example: `  warifu unlink user ann@example.com --connector github --as 583231`,
		Args:    operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkIdentity(identity); err != nil {
				return err
			}
			out, err := ask[admin.Linked](cmd.Context(), c, http.MethodDelete, userPath(args[0])+"/links/"+
				url.PathEscape(identity.Connector)+"/"+url.PathEscape(identity.UpstreamID))
			if err != nil {
				return err
			}
			c.say("%s of connector %s no longer signs in as user %s: %s of the user ended", out.UpstreamID, out.Connector,
				out.User.ID, counts(out.Ended))
			return nil
		},
	}
	identityFlags(user, &identity)
	command.AddCommand(user)
	return command
}

// counts are what ended, in words.
func counts(e admin.Ended) string {
	return strings.Join([]string{counted(e.Sessions, "session"), counted(e.Grants, "grant"),
		counted(e.Consents, "consent")}, ", ")
}
