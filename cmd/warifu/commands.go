package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/admin"
)

func (c *cli) plan() *cobra.Command {
	var files []string
	var format string
	command := &cobra.Command{
		Use: "plan -f FILE|DIR|-", Short: "Show what applying manifests would change",
		Long: `plan shows what applying manifests would change, and what that means for the users of the apps.
It changes nothing. The exit code is 2 when there are changes.`,
		Example: `  warifu plan -f .takos/app.yml
  warifu plan -f apps/ -o json
  cat app.yml | warifu plan -f -`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			docs, err := c.documents(files)
			if err != nil {
				return err
			}
			plans, err := c.planned(cmd.Context(), docs)
			if err != nil {
				return err
			}
			planned := together(plans)
			if err := c.showPlans(planned, format); err != nil {
				return err
			}
			if changed(planned) {
				return errChanges
			}
			return nil
		},
	}
	fileFlag(command, &files)
	outputFlag(command, &format, "table", "json", "yaml", "name")
	return command
}

func fileFlag(command *cobra.Command, files *[]string) {
	command.Flags().StringArrayVarP(files, "filename", "f", nil,
		"manifest, directory of manifests, or - for stdin; can be repeated")
	must(command.MarkFlagFilename("filename", "yml", "yaml"))
}

func (c *cli) apply() *cobra.Command {
	var files []string
	var format string
	var dryRun, yes bool
	var words applyRequest // what the caller says with flags, and never with --yes
	var wait waiting
	command := &cobra.Command{
		Use: "apply -f FILE|DIR|-", Short: "Apply manifests",
		Long: `apply registers the apps that manifests describe, or updates them, and delivers their env. It shows the
plan first and asks for confirmation; --yes skips the question. An app that is registered already keeps
its client id and secret. When nothing has changed, apply still restores env that was lost. Any number of
manifests can be named; a file holds at most 1 MiB and 100 apps.

A manifest that leaves out the client of its app (spec.oauth) is refused, because the client's grants
would end: --allow-delete applies it. A manifest whose users are not to be asked for consent (consent: skip)
is refused unless the server's configuration trusts the app: --trust is your word for it.`,
		Example: `  warifu apply -f .takos/app.yml
  warifu apply -f apps/ --yes --wait
  warifu apply -f app.yml --dry-run`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			docs, err := c.documents(files)
			if err != nil {
				return err
			}
			plans, err := c.planned(cmd.Context(), docs)
			if err != nil {
				return err
			}
			planned := together(plans)
			if dryRun {
				return c.showPlans(planned, format)
			}
			if format == "table" {
				if err := c.showPlans(planned, format); err != nil {
					return err
				}
			}
			if ends := ending(planned); len(ends) > 0 && !words.AllowDelete {
				return c.refused(cmd.Context(), docs, plans, words, admin.WouldDelete(ends),
					func(p admin.AppPlan) bool { return len(p.Ends) > 0 })
			}
			if why := untrusted(planned); why != "" && !words.Trust {
				return c.refused(cmd.Context(), docs, plans, words, admin.NeedsTrust(why), needsTrust)
			}
			if changed(planned) && !yes {
				if format != "table" {
					return usagef("-o %s cannot ask for confirmation: add --yes", format)
				}
				if err := c.confirm("Apply these changes?"); err != nil {
					return err
				}
			}
			applied, err := c.applied(cmd.Context(), docs, plans, words)
			if err != nil && len(applied.Plans) > 0 {
				c.say("%d of %d apps were applied; apply all again once the following is fixed", len(applied.Plans),
					len(planned.Plans))
			}
			if format == "table" {
				for _, p := range applied.Plans {
					c.say("%s %s", p.App, c.paint(c.stderr, green, "applied"))
				}
			}
			if err != nil {
				return err
			}
			if format != "table" {
				if err := c.showPlans(applied, format); err != nil {
					return err
				}
			}
			var names []string
			for _, p := range applied.Plans {
				names = append(names, p.App)
			}
			return c.delivered(cmd.Context(), wait, "applied", names...)
		},
	}
	fileFlag(command, &files)
	command.Flags().BoolVar(&dryRun, "dry-run", false, "show the plan and change nothing")
	command.Flags().BoolVar(&words.AllowDelete, "allow-delete", false,
		"remove clients that manifests leave out, with their grants")
	command.Flags().BoolVar(&words.Trust, "trust", false,
		"do not ask for consent for apps whose manifests say consent: skip")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	wait.flags(command)
	outputFlag(command, &format, "table", "json", "yaml", "name")
	command.AddCommand(c.applyUser())
	return command
}

// applyRequest is the body of apply and, without the rest, of plan.
type applyRequest struct {
	Documents []admin.Document  `json:"documents"`
	Expected  map[string]string `json:"expected,omitempty"`
	// AllowDelete and Trust are said by flags, and never by --yes.
	AllowDelete bool `json:"allowDelete,omitempty"`
	Trust       bool `json:"trust,omitempty"`
}

// documents reads manifests without checking them: only the server knows the scopes.
func (c *cli) documents(paths []string) ([]admin.Document, error) {
	if len(paths) == 0 {
		return nil, usagef("name a manifest, a directory of manifests or - (stdin) with -f")
	}
	files, faults := manifests.Read(paths, c.stdin)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	docs := make([]admin.Document, len(files))
	for i, f := range files {
		docs[i] = admin.Document{Name: f.Name, Content: string(f.Data)}
	}
	return docs, nil
}

func (c *cli) sent(ctx context.Context, path string, request applyRequest) (admin.Planned, error) {
	var out admin.Planned
	api, err := c.client()
	if err != nil {
		return out, err
	}
	if err := api.do(ctx, http.MethodPost, path, request, &out); err != nil {
		return out, err
	}
	if path == "/v1/plan" { // apply would only repeat it
		for _, w := range out.Warnings {
			c.say("%s", faultOf(w))
		}
	}
	return out, nil
}

func changed(planned admin.Planned) bool {
	for _, p := range planned.Plans {
		if p.Changed {
			return true
		}
	}
	return false
}

// ending are the clients that go.
func ending(planned admin.Planned) []admin.Ending {
	var ends []admin.Ending
	for _, p := range planned.Plans {
		ends = append(ends, p.Ends...)
	}
	return ends
}

// needsTrust reports whether a plan takes the operator's word.
func needsTrust(p admin.AppPlan) bool { return p.Trust == string(manifests.TrustNeeded) }

// untrusted says that apps need the operator's word; "" if none does.
func untrusted(planned admin.Planned) string {
	var apps []string
	for _, p := range planned.Plans {
		if needsTrust(p) {
			apps = append(apps, p.App)
		}
	}
	if len(apps) == 0 {
		return ""
	}
	return "needs the operator's word for " + strings.Join(apps, ", ") + ", whose users are not to be asked for consent"
}

// showPlans writes plans on stdout.
func (c *cli) showPlans(planned admin.Planned, format string) error {
	switch format {
	case "json", "yaml":
		return encode(c.stdout, format, planned)
	case "name":
		for _, p := range planned.Plans {
			if _, err := fmt.Fprintln(c.stdout, "app/"+p.App); err != nil {
				return err
			}
		}
		return nil
	}
	var b strings.Builder
	for _, p := range planned.Plans {
		title := p.App
		if !p.Changed && len(p.Changes) == 0 {
			title += ": no changes"
		}
		fmt.Fprintln(&b, c.paint(c.stdout, bold, title))
		for _, change := range p.Changes {
			sign, ink := signOf(change.Kind)
			fmt.Fprintf(&b, "  %s %s\n", c.paint(c.stdout, ink, sign), harmless(change.Text))
		}
		for _, consequence := range p.Consequences {
			fmt.Fprintf(&b, "  %s %s\n", c.paint(c.stdout, yellow, "!"), harmless(consequence))
		}
		if len(p.Ends) > 0 {
			fmt.Fprintf(&b, "  %s %s\n", c.paint(c.stdout, red, "!"), "cannot be undone: apply needs --allow-delete")
		}
		for _, w := range p.Warnings {
			text := strings.TrimSpace(w.Path + " " + w.Message)
			if w.Remedy != "" {
				text += ": " + w.Remedy
			}
			fmt.Fprintf(&b, "  %s %s\n", c.paint(c.stdout, yellow, "warning:"), harmless(text))
		}
	}
	_, err := c.stdout.Write([]byte(b.String()))
	return err
}

func signOf(kind string) (string, color) {
	switch manifests.ChangeKind(kind) {
	case manifests.CreateApp, manifests.RegisterClient, manifests.AddTo, manifests.AddTarget, manifests.SetEnv:
		return "+", green
	case manifests.RemoveClient, manifests.RemoveFrom, manifests.RemoveTarget, manifests.UnsetEnv:
		return "-", red
	}
	return "~", yellow
}

// confirm asks the person at the terminal. Without a terminal it is a usage error.
func (c *cli) confirm(question string) error {
	if !isTerminal(c.stdin) {
		return usagef("%s There is no terminal to ask on: add --yes", question)
	}
	_, _ = fmt.Fprintf(c.stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(c.stdin).ReadString('\n')
	if word := strings.ToLower(strings.TrimSpace(answer)); err != nil || word != "y" && word != "yes" {
		return fmt.Errorf("nothing was changed")
	}
	return nil
}

func deliveryLine(d admin.Delivery) string {
	line := fmt.Sprintf("  %s %s/%s is %s", d.App, d.Kind, d.Name, d.State)
	if d.Error != "" {
		line += ": " + d.Error
	}
	if d.Remedy != "" {
		line += " (" + d.Remedy + ")"
	}
	return harmless(line)
}

// endsWith is what ends with an app.
func endsWith(app admin.AppDetail) string {
	if app.ClientID == "" {
		return "no client"
	}
	return fmt.Sprintf("client %s, grants: %d", app.ClientID, app.Grants)
}

func (c *cli) delete() *cobra.Command {
	var yes bool
	command := &cobra.Command{Use: "delete", Short: "Delete an app, a client that registered itself, or a user",
		Args: subcommands, RunE: needsSubcommand}
	app := &cobra.Command{
		Use: "app NAME", Short: "Delete an app: end its grants, take its env away, remove its client",
		Example: `  warifu delete app my-oauth-app --yes`,
		Args:    operands(1), ValidArgsFunction: c.completeApps,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			detail, err := fetch[admin.AppDetail](cmd.Context(), c, appPath(name))
			if err != nil {
				return err
			}
			if !yes {
				if err := c.confirm(fmt.Sprintf("Delete %s? Ends at once: %s. Targets that lose their env: %d.", name,
					endsWith(detail), len(detail.Deliveries))); err != nil {
					return err
				}
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			var out admin.Deleted
			if err := api.do(cmd.Context(), http.MethodDelete, appPath(name)+"?wait=30", nil, &out); err != nil {
				return err
			}
			if !out.Gone {
				return fmt.Errorf("%s is being deleted: its grants have ended, but its env has not been taken away everywhere yet "+
					"(see warifu get deliveries)", name)
			}
			c.say("%s deleted (ended: %s)", name, endsWith(detail))
			return nil
		},
	}
	registered := &cobra.Command{
		Use: "client ID", Short: "Remove a client that registered itself, and end its grants",
		Example: `  warifu get clients
  warifu delete client client-4s6a2kq7m5wd --yes`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			if !yes {
				if err := c.confirm(fmt.Sprintf("Remove the client %s? Its grants end at once.", harmless(args[0]))); err != nil {
					return err
				}
			}
			var out admin.Client
			if err := api.do(cmd.Context(), http.MethodDelete, "/v1/clients/"+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			c.say("client %s removed", out.ID)
			return nil
		},
	}
	for _, sub := range []*cobra.Command{app, registered, c.deleteUser()} {
		sub.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
		command.AddCommand(sub)
	}
	return command
}

func (c *cli) credentials() *cobra.Command {
	var format string
	command := &cobra.Command{
		Use: "credentials APP", Short: "Print an app's client id and secret",
		Long: `credentials prints what an app needs to act as an OAuth client: client id, secret and issuer; of a resource
server also which one it is, and where its metadata is; of a workload, which has no secret, where its token is.
With autoEnv: true the app has them in its environment already; with autoEnv: false this is how to get them.
Reading a secret is written to the audit log.`,
		Example: `  warifu credentials my-oauth-app
  warifu credentials my-oauth-app -o env > .env`,
		Args: operands(1), ValidArgsFunction: c.completeApps,
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := fetch[admin.Credentials](cmd.Context(), c, appPath(args[0])+"/credentials")
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(c.stdout).Encode(out)
			}
			lines := []string{"OAUTH_CLIENT_ID=" + out.ClientID}
			if out.ClientSecret != "" {
				lines = append(lines, "OAUTH_CLIENT_SECRET="+out.ClientSecret)
			}
			lines = append(lines, "OAUTH_ISSUER="+out.Issuer)
			if out.AssertionFile != "" {
				lines = append(lines, "OAUTH_CLIENT_ASSERTION_FILE="+out.AssertionFile)
				c.say("%s has no secret: it authenticates with a token of", args[0])
			}
			for _, id := range out.Identities {
				c.say("  %s", harmless(id.String()))
			}
			if out.Resource != "" {
				lines = append(lines, "OAUTH_RESOURCE="+out.Resource, "OAUTH_RESOURCE_METADATA="+out.ResourceMetadata)
			}
			_, err = fmt.Fprintln(c.stdout, strings.Join(lines, "\n"))
			return err
		},
	}
	outputFlag(command, &format, "json", "env")
	command.AddCommand(c.setCredentials())
	return command
}

// needsSubcommand is the RunE of commands that do nothing without a subcommand.
func needsSubcommand(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		names = append(names, sub.Name())
	}
	return usagef("%s needs one of: %s", cmd.CommandPath(), strings.Join(names, ", "))
}

// completeApps completes the names of apps, if a server answers.
func (c *cli) completeApps(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	api, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := fetchAll[admin.App](cmd.Context(), api, "/v1/apps")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, app := range list {
		names = append(names, cobra.CompletionWithDesc(app.Name, cmp.Or(app.ClientID, "no client")))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
