package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
)

// What operators do with accounts that are kept in the database, and with people of all kinds.

// applyUsersRequest is the body of applying people.
type applyUsersRequest struct {
	Documents []admin.Document `json:"documents"`
	DryRun    bool             `json:"dryRun,omitempty"`
}

func (c *cli) applyUser() *cobra.Command {
	var files []string
	var format string
	var dryRun, yes bool
	command := &cobra.Command{
		Use: "user -f FILE|DIR|-", Aliases: []string{"users"}, Short: "Make accounts of people, or change them",
		Long: `apply user makes the accounts that files describe, or changes them. The keys are those of staticPasswords:
a file is one person, a list of people, or the key staticPasswords with a list. userID may be left out; the
server then chooses one, and finds the user by e-mail address or user name from then on. hash may be left
out as well: warifu invite user lets somebody choose a password, or make a passkey, by themselves.

What a file leaves out about a user is forgotten, except the password and other factors. A hash, of
bcrypt or argon2id, becomes the password when it is new in the file, and ends all that was begun for the
user; the same hash again leaves the password that the user has chosen since. Nobody is removed: see warifu
delete user.

Somebody who was in staticPasswords can be taken over, with the same userID, once they are no longer there.`,
		Example: `  warifu apply user -f people.yaml
  warifu apply user -f people/ --dry-run
  echo '{email: ann@example.com, name: Ann, groups: [staff]}' | warifu apply user -f - --yes`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("name a file with people, a directory of such files or - (stdin) with -f")
			}
			docs, err := c.documents(files)
			if err != nil {
				return err
			}
			plan, err := c.eachPeople(cmd.Context(), docs, true)
			if err != nil {
				return err
			}
			if dryRun {
				return c.showUserChanges(plan, format)
			}
			if format == "table" {
				if err := c.showUserChanges(plan, format); err != nil {
					return err
				}
			}
			if anyUserChanged(plan) && !yes {
				if format != "table" {
					return usagef("-o %s cannot ask for confirmation: add --yes", format)
				}
				if err := c.confirm("Apply these changes?"); err != nil {
					return err
				}
			}
			applied, err := c.eachPeople(cmd.Context(), docs, false)
			if err != nil {
				return err
			}
			if format != "table" {
				return c.showUserChanges(applied, format)
			}
			c.say("%s", summary(applied))
			return nil
		},
	}
	command.Flags().StringArrayVarP(&files, "filename", "f", nil,
		"file with people, directory of such files, or - for stdin; can be repeated")
	must(command.MarkFlagFilename("filename", "yml", "yaml", "json"))
	command.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	outputFlag(command, &format, "table", "json", "yaml", "name")
	return command
}

// eachPeople sends each file in a request of its own, because the server bounds the people of one. What is wrong in any
// of them is found by the dry run, before anything is applied.
func (c *cli) eachPeople(ctx context.Context, docs []admin.Document, dryRun bool) (admin.UsersApplied, error) {
	all := admin.UsersApplied{Users: []admin.UserChange{}, Applied: !dryRun}
	source := make(map[string]string) // by id
	var wrong *admin.Problem
	for _, doc := range docs {
		some, err := tell[admin.UsersApplied](ctx, c, http.MethodPost, "/v1/users",
			applyUsersRequest{Documents: []admin.Document{doc}, DryRun: dryRun})
		var problem *admin.Problem
		if dryRun && errors.As(err, &problem) && len(problem.Faults) > 0 && (wrong == nil || wrong.Code == problem.Code) {
			if wrong != nil { // all that is wrong at once
				problem.Faults = append(wrong.Faults, problem.Faults...)
			}
			wrong = problem
			continue
		}
		if err != nil {
			if len(all.Users) > 0 && !dryRun {
				c.say("%s; apply all again once the following is fixed", summary(all))
			}
			return all, err
		}
		for _, u := range some.Users {
			if other, twice := source[u.ID]; twice && u.ID != "" {
				return all, usagef("user %s is in %s and in %s: describe them once", u.ID, other, doc.Name)
			}
			source[u.ID] = doc.Name
		}
		all.Users = append(all.Users, some.Users...)
	}
	if wrong != nil {
		return all, wrong
	}
	return all, nil
}

func anyUserChanged(all admin.UsersApplied) bool {
	for _, u := range all.Users {
		if u.Change != "unchanged" {
			return true
		}
	}
	return false
}

// summary counts what was done.
func summary(all admin.UsersApplied) string {
	n := make(map[string]int)
	for _, u := range all.Users {
		n[u.Change]++
	}
	return fmt.Sprintf("%s: %d created, %d changed, %d unchanged", counted(len(all.Users), "user"), n["created"],
		n["changed"], n["unchanged"])
}

func (c *cli) showUserChanges(all admin.UsersApplied, format string) error {
	switch format {
	case "json", "yaml":
		return encode(c.stdout, format, all)
	case "name":
		for _, u := range all.Users {
			if u.ID == "" { // a dry run, before there is one
				u.ID = "(new)"
			}
			if _, err := fmt.Fprintln(c.stdout, "user/"+u.ID); err != nil {
				return err
			}
		}
		return nil
	}
	var b strings.Builder
	for _, u := range all.Users {
		name := u.Login
		if u.ID != "" {
			name += " (" + u.ID + ")"
		}
		sign, ink, says := "~", yellow, name+": "+strings.Join(u.Changes, ", ")
		switch u.Change {
		case "unchanged":
			continue
		case "created":
			sign, ink, says = "+", green, name
		}
		fmt.Fprintf(&b, "%s %s\n", c.paint(c.stdout, ink, sign), harmless(says))
		if u.Ends {
			fmt.Fprintf(&b, "  %s sessions, grants and consents of the user end\n", c.paint(c.stdout, yellow, "!"))
		}
	}
	if b.Len() == 0 {
		fmt.Fprintln(&b, "no changes")
	}
	_, err := c.stdout.Write([]byte(b.String()))
	return err
}

// linkRequest is the body of making a link.
type linkRequest struct {
	For   string `json:"for"`
	Valid string `json:"valid"`
	Mail  bool   `json:"mail"`
}

// linkFlags are those of commands that make a link.
type linkFlags struct {
	valid  time.Duration
	noMail bool
	format string
}

func (f *linkFlags) add(command *cobra.Command) {
	command.Flags().DurationVar(&f.valid, "valid", 15*time.Minute, "how long the link is valid, at most 168h")
	command.Flags().BoolVar(&f.noMail, "no-mail", false, "print the link, also when the server could send it by mail")
}

// makeLink has the server make a link, and prints it unless it was sent by mail.
func (c *cli) makeLink(ctx context.Context, user, kind string, flags linkFlags) error {
	made, err := tell[admin.MadeLink](ctx, c, http.MethodPost, userPath(user)+"/link",
		linkRequest{For: kind, Valid: flags.valid.String(), Mail: !flags.noMail})
	if err != nil {
		return err
	}
	if flags.format == "json" || flags.format == "yaml" {
		return encode(c.stdout, flags.format, made)
	}
	if made.Mailed {
		c.say("a link is on its way to user %s by mail, and is valid until %s", made.UserID, when(made.ExpiresAt))
		return nil
	}
	c.say("whoever opens this link first becomes user %s: give it only to them; it works once, until %s",
		made.UserID, when(made.ExpiresAt))
	_, err = fmt.Fprintln(c.stdout, made.Link)
	return err
}

func (c *cli) invite() *cobra.Command {
	command := &cobra.Command{Use: "invite", Short: "Let somebody in by a link", Args: subcommands, RunE: needsSubcommand}
	var flags linkFlags
	var person struct {
		Email    string   `json:"email,omitempty"`
		Username string   `json:"username,omitempty"`
		UserID   string   `json:"userID,omitempty"`
		Name     string   `json:"name,omitempty"`
		Locale   string   `json:"locale,omitempty"`
		Groups   []string `json:"groups,omitempty"`
	}
	user := &cobra.Command{
		Use: "user USER", Short: "Let somebody take over their account by a link, and make the account if there is none",
		Long: `invite user makes a link on whose page somebody sets the password of their account, or makes a passkey. If
nobody has the e-mail address or user name yet, it makes the account first, with what the flags say.

If the server has mail (mail in its configuration) and the user has an address, the link is sent there;
otherwise it is printed, for you to pass on. It works once. Looking at its page does not use it up.`,
		Example: `  warifu invite user ann@example.com --name "Ann Example" --group staff --valid 72h
  warifu invite user ann@example.com --no-mail`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if flags.valid < time.Minute || flags.valid > 7*24*time.Hour {
				return usagef("--valid takes from 1m to 168h")
			}
			_, err := fetch[admin.UserDetail](cmd.Context(), c, userPath(args[0]))
			var problem *admin.Problem
			described := len(person.Groups) > 0 ||
				cmp.Or(person.Name, person.Username, person.UserID, person.Locale) != ""
			switch {
			case err == nil && described:
				return usagef("user %s exists: warifu apply user changes what is known of them", harmless(args[0]))
			case errors.As(err, &problem) && problem.Status == http.StatusNotFound:
				if strings.Contains(args[0], "@") {
					person.Email = args[0]
				} else if person.Username == "" {
					person.Username = args[0]
				} else {
					return usagef("name the user by e-mail address, or leave --username out")
				}
				if err := c.newUser(cmd.Context(), person); err != nil {
					return err
				}
			case err != nil:
				return err
			}
			return c.makeLink(cmd.Context(), args[0], admin.LinkInvitation, flags)
		},
	}
	user.Flags().StringVar(&person.Name, "name", "", "full name of somebody new")
	user.Flags().StringVar(&person.Username, "username", "",
		"user name of somebody new, with which they can sign in as well")
	user.Flags().StringVar(&person.UserID, "user-id", "",
		"id of somebody new, the subject of tokens (default: the server chooses one)")
	user.Flags().StringVar(&person.Locale, "locale", "", "language of somebody new, such as ja")
	user.Flags().StringArrayVar(&person.Groups, "group", nil, "group of somebody new; can be repeated")
	flags.add(user)
	outputFlag(user, &flags.format, "table", "json", "yaml")
	command.AddCommand(user)
	return command
}

// newUser makes the account of somebody whom flags describe.
func (c *cli) newUser(ctx context.Context, person any) error {
	text, err := jsonOf(person)
	if err != nil {
		return err
	}
	out, err := tell[admin.UsersApplied](ctx, c, http.MethodPost, "/v1/users",
		applyUsersRequest{Documents: []admin.Document{{Name: "flags", Content: text}}})
	if err == nil && len(out.Users) == 1 {
		c.say("user %s created", out.Users[0].ID)
	}
	return err
}

func (c *cli) disable() *cobra.Command {
	command := &cobra.Command{Use: "disable", Short: "Keep a user out", Args: subcommands, RunE: needsSubcommand}
	command.AddCommand(&cobra.Command{
		Use: "user USER", Short: "Keep a user out, and end everything that was begun for them",
		Long: `disable user ends all sessions, grants and consents of a user, and the codes and device approvals that
are on their way. The user cannot sign in any more, by whatever connector they come, until warifu enable
user. People of staticPasswords are disabled by taking them out of it.`,
		Example: `  warifu disable user ann@example.com`,
		Args:    operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := ask[admin.Ended](cmd.Context(), c, http.MethodPost, userPath(args[0])+"/disable")
			if err != nil {
				return err
			}
			c.say("user %s disabled: %s ended", out.UserID, counts(out))
			return nil
		},
	})
	return command
}

func (c *cli) enable() *cobra.Command {
	command := &cobra.Command{Use: "enable", Short: "Let a user in again", Args: subcommands, RunE: needsSubcommand}
	command.AddCommand(&cobra.Command{
		Use: "user USER", Short: "Let a user in again who was disabled", Example: `  warifu enable user ann@example.com`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := ask[admin.UserDetail](cmd.Context(), c, http.MethodPost, userPath(args[0])+"/enable")
			if err != nil {
				return err
			}
			c.say("user %s enabled: they sign in anew", out.ID)
			return nil
		},
	})
	return command
}

func (c *cli) deleteUser() *cobra.Command {
	return &cobra.Command{
		Use: "user USER", Short: "Delete a user and everything that is theirs",
		Long: `delete user deletes an account with its factors, history and links, and ends everything that was begun for
the user. Apps keep what they have about the user, and if the id is given to somebody else, apps take that
person for the user. Whoever comes by a connector gets a new account when they next sign in there: warifu
disable user keeps them out.`,
		Example: `  warifu delete user ann@example.com --yes`,
		Args:    operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := fetch[admin.UserDetail](cmd.Context(), c, userPath(args[0]))
			if err != nil {
				return err
			}
			if yes, _ := cmd.Flags().GetBool("yes"); !yes {
				if err := c.confirm(fmt.Sprintf("Delete user %s (%s)? Everything of theirs ends at once.", u.ID,
					harmless(email(u.User)))); err != nil {
					return err
				}
			}
			out, err := ask[admin.Ended](cmd.Context(), c, http.MethodDelete, userPath(u.ID))
			if err != nil {
				return err
			}
			c.say("user %s deleted: %s ended", out.UserID, counts(out))
			return nil
		},
	}
}

// passwordRequest is the body of setting a password.
type passwordRequest struct {
	Password string `json:"password"`
	Keep     bool   `json:"keep,omitempty"`
}

func (c *cli) setPassword() *cobra.Command {
	var flags linkFlags
	var link, keep bool
	command := &cobra.Command{
		Use: "set-password USER", Short: "Give a user another password, or a link to set one",
		Long: `set-password reads a password, on a terminal without showing it, or else from stdin, and gives it to a user
whose account is kept in the database. All that was begun for the user ends, unless --keep-sessions is
given. With --link it makes a link in place of that: whoever opens it chooses the password, and you never
know it. The link is sent by mail if the server has mail and the user has an address; otherwise it is
printed.`,
		Example: `  warifu set-password ann@example.com --link
  warifu set-password ann@example.com < password.txt`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if link {
				if keep {
					return usagef("--keep-sessions goes with a password, not with --link: what ends is up to the user then")
				}
				if flags.valid < time.Minute || flags.valid > 7*24*time.Hour {
					return usagef("--valid takes from 1m to 168h")
				}
				return c.makeLink(cmd.Context(), args[0], admin.LinkReset, flags)
			}
			for _, name := range []string{"valid", "no-mail"} {
				if cmd.Flags().Changed(name) {
					return usagef("--%s goes with --link", name)
				}
			}
			u, err := fetch[admin.UserDetail](cmd.Context(), c, userPath(args[0]))
			if err != nil {
				return err
			}
			if !u.Managed { // before anybody types a password
				return fmt.Errorf("user %s is kept %s, and so is their password: change it there (warifu hash makes the hash "+
					"for staticPasswords)", u.ID, keptWhere(u.User))
			}
			password, err := c.newPassword(cmd.Context())
			if err != nil {
				return err
			}
			if password == "" {
				return usagef("the password is empty")
			}
			out, err := tell[admin.PasswordSet](cmd.Context(), c, http.MethodPut, userPath(u.ID)+"/password",
				passwordRequest{Password: password, Keep: keep})
			if err != nil {
				return err
			}
			if out.Ended {
				c.say("user %s has a new password, and everything that was begun for them has ended", out.UserID)
			} else {
				c.say("user %s has a new password", out.UserID)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&link, "link", false, "make a link on whose page the user chooses the password")
	command.Flags().BoolVar(&keep, "keep-sessions", false, "let sessions, grants and consents go on")
	flags.add(command)
	outputFlag(command, &flags.format, "table", "json", "yaml")
	return command
}

func (c *cli) revokeFactor() *cobra.Command {
	var all, keep bool
	command := &cobra.Command{
		Use:   "factor USER ID | --all",
		Short: "Remove a passkey, an authenticator app or recovery codes that a user has lost",
		Long: `revoke factor removes a factor of a user, by its id, or all of them but the password: a passkey, the
authenticator app (totp), the recovery codes (recovery). All that was begun for the user ends, unless
--keep-sessions is given, because somebody else may have the factor. Where one is demanded, the user is led
to add another when they next sign in.`,
		Example: `  warifu describe user ann@example.com
  warifu revoke factor ann@example.com totp
  warifu revoke factor ann@example.com --all`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := userPath(args[0]) + "/factors"
			switch {
			case all && len(args) == 2:
				return usagef("name a factor or --all, not both")
			case len(args) == 2:
				path += "/" + url.PathEscape(args[1])
			case !all:
				return usagef("name a factor (see warifu describe user), or all with --all")
			}
			if keep {
				path += "?keep=true"
			}
			out, err := ask[admin.FactorsRemoved](cmd.Context(), c, http.MethodDelete, path)
			if err != nil {
				return err
			}
			switch {
			case len(out.Removed) == 0:
				c.say("user %s has no factors but the password: nothing was removed", out.Ended.UserID)
			case keep:
				c.say("%s of user %s removed", counted(len(out.Removed), "factor"), out.Ended.UserID)
			default:
				c.say("%s of user %s removed: %s ended", counted(len(out.Removed), "factor"), out.Ended.UserID,
					counts(out.Ended))
			}
			return nil
		},
	}
	command.Flags().BoolVar(&all, "all", false, "remove all factors but the password")
	command.Flags().BoolVar(&keep, "keep-sessions", false, "let sessions, grants and consents go on")
	return command
}
