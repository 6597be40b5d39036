package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/admin"
)

// listing is a kind of record that `warifu get` lists.
type listing struct {
	name, singular, short string
	filtered              bool // takes --app
	ofApp                 bool // takes the app as an argument as well
	list                  func(ctx context.Context, c *cli, query string) (rows, error)
}

// rows are a list in the shapes that people and programs read.
type rows struct {
	data   any
	header []string
	cells  [][]string
	names  []string
}

// rowsOf gets a list from the server and shapes it.
func rowsOf[T any](ctx context.Context, c *cli, path string, header []string,
	row func(T) (name string, cells []string)) (rows, error) {
	list, err := fetch[[]T](ctx, c, path)
	if err != nil {
		return rows{}, err
	}
	out := rows{data: list, header: header}
	for _, item := range list {
		name, cells := row(item)
		out.names, out.cells = append(out.names, name), append(out.cells, cells)
	}
	return out, nil
}

var listings = []listing{
	{name: "apps", singular: "app", short: "List apps", list: func(ctx context.Context, c *cli, _ string) (rows, error) {
		return rowsOf(ctx, c, "/v1/apps", []string{"NAME", "VERSION", "CLIENT ID", "AUTO ENV", "TARGETS", "STATE", "APPLIED"},
			func(a admin.App) (string, []string) {
				return "app/" + a.Name, []string{a.Name, a.Version, a.ClientID, strconv.FormatBool(a.AutoEnv),
					strconv.Itoa(a.Targets), appState(a), when(a.Applied)}
			})
	}},
	{name: "clients", singular: "client", short: "List OAuth clients", filtered: true,
		list: func(ctx context.Context, c *cli, query string) (rows, error) {
			return rowsOf(ctx, c, "/v1/clients"+query, []string{"CLIENT ID", "APP", "NAME", "TYPE", "SCOPES"},
				func(a admin.Client) (string, []string) {
					return "client/" + a.ID, []string{a.ID, a.App, a.Name, clientType(a), strings.Join(a.Scopes, " ")}
				})
		}},
	{name: "deliveries", singular: "delivery", short: "List the env deliveries of each target and their progress",
		filtered: true, list: func(ctx context.Context, c *cli, query string) (rows, error) {
			return rowsOf(ctx, c, "/v1/deliveries"+query,
				[]string{"APP", "TARGET", "RUNTIME", "STATE", "GENERATION", "LOCATION", "ERROR", "NEXT ATTEMPT"},
				func(d admin.Delivery) (string, []string) {
					target := d.Kind + "/" + d.Name
					next := ""
					if d.State != "ready" {
						next = when(d.NextAttempt)
					}
					return "delivery/" + d.App + "/" + target, []string{d.App, target, d.Runtime, deliveryState(d),
						fmt.Sprintf("%d/%d", d.Serving, d.Generation), d.Location, d.Error, next}
				})
		}},
	{name: "grants", singular: "grant", short: "List live grants: what users have allowed apps to do", filtered: true,
		list: func(ctx context.Context, c *cli, query string) (rows, error) {
			return rowsOf(ctx, c, "/v1/grants"+query,
				[]string{"ID", "APP OR CLIENT", "USER", "SCOPES", "CREATED", "LAST USED", "EXPIRES"},
				func(g admin.Grant) (string, []string) { return "grant/" + g.ID, grantCells(g) })
		}},
	{name: "secrets", singular: "secret",
		short: "List client secrets with their age, state and last use, never their values", filtered: true, ofApp: true,
		list: func(ctx context.Context, c *cli, query string) (rows, error) {
			return rowsOf(ctx, c, "/v1/secrets"+query, append([]string{"APP"}, secretHeader...),
				func(s admin.Secret) (string, []string) {
					return "secret/" + s.App + "/" + s.ID, append([]string{s.App}, secretCells(s)...)
				})
		}},
}

// grantCells names the client where there is no app, because the client registered itself or is described by a
// document.
func grantCells(g admin.Grant) []string {
	return []string{g.ID, cmp.Or(g.App, g.ClientID), cmp.Or(g.User, g.UserID), strings.Join(g.Scopes, " "),
		when(g.CreatedAt), when(g.UsedAt), when(g.ExpiresAt)}
}

// appState is the state of an app for a table.
func appState(a admin.App) string {
	switch {
	case a.State == "gone":
		return "gone since " + when(a.GoneSince)
	case a.Refused != "":
		return a.State + " (manifest refused)"
	}
	return a.State
}

func clientType(c admin.Client) string {
	kind := "confidential"
	if c.Public {
		kind = "public"
	} else if c.TokenEndpointAuthMethod == plugins.AuthMethodPrivateKeyJWT {
		kind += ", own key"
	}
	if c.Disabled {
		kind += ", disabled"
	}
	return kind
}

func deliveryState(d admin.Delivery) string {
	if d.Removing {
		return d.State + " (removing)"
	}
	return d.State
}

func (c *cli) get() *cobra.Command {
	command := &cobra.Command{
		Use: "get", Short: "List apps, clients, deliveries, grants or secrets", Args: cobra.NoArgs, RunE: needsSubcommand,
		Example: `  warifu get apps
  warifu get grants --app my-oauth-app -o json
  warifu get deliveries -o name`,
	}
	for _, l := range listings {
		var format, app string
		sub := &cobra.Command{
			Use: l.name, Short: l.short, Args: cobra.NoArgs, Example: "  warifu get " + l.name + " -o json",
			Aliases: []string{l.singular},
			RunE: func(cmd *cobra.Command, args []string) error {
				query := ""
				if len(args) > 0 {
					if app != "" && app != args[0] {
						return usagef("%s and --app %s name two different apps", args[0], app)
					}
					app = args[0]
				}
				if app != "" {
					query = "?app=" + url.QueryEscape(app)
				}
				found, err := l.list(cmd.Context(), c, query)
				if err != nil {
					return err
				}
				return c.show(found, format, l.name)
			},
		}
		if l.ofApp {
			sub.Use, sub.Args, sub.ValidArgsFunction = l.name+" [APP]", cobra.MaximumNArgs(1), c.completeApps
		}
		if l.filtered {
			sub.Flags().StringVar(&app, "app", "", "show only this app")
			must(sub.RegisterFlagCompletionFunc("app", c.completeApps))
		}
		outputFlag(sub, &format, "table", "json", "yaml", "name")
		command.AddCommand(sub)
	}
	return command
}

func (c *cli) show(list rows, format, what string) error {
	switch format {
	case "json", "yaml":
		return encode(c.stdout, format, list.data)
	case "name":
		for _, name := range list.names {
			if _, err := fmt.Fprintln(c.stdout, name); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list.cells) == 0 {
		c.say("There are no %s.", what)
		return nil
	}
	return table(c.stdout, list.header, list.cells)
}

func (c *cli) describe() *cobra.Command {
	command := &cobra.Command{Use: "describe", Short: "Show an app and what belongs to it", Args: cobra.NoArgs,
		RunE: needsSubcommand}
	var format string
	app := &cobra.Command{
		Use: "app NAME", Short: "Show an app, its client, its deliveries and how many grants it has",
		Example: `  warifu describe app my-oauth-app`,
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeApps,
		RunE: func(cmd *cobra.Command, args []string) error {
			detail, err := fetch[admin.AppDetail](cmd.Context(), c, appPath(args[0]))
			if err != nil {
				return err
			}
			switch format {
			case "json", "yaml":
				return encode(c.stdout, format, detail)
			case "name":
				_, err := fmt.Fprintln(c.stdout, "app/"+detail.Name)
				return err
			}
			return c.showApp(detail)
		},
	}
	outputFlag(app, &format, "table", "json", "yaml", "name")
	command.AddCommand(app)
	return command
}

func (c *cli) showApp(a admin.AppDetail) error {
	lines := [][]string{
		{"App", a.Name}, {"Version", a.Version}, {"State", appState(a.App)}, {"Source", a.Source},
		{"Applied", when(a.Applied)},
		{"Auto env", strconv.FormatBool(a.AutoEnv)}, {"Grants", strconv.Itoa(a.Grants)},
	}
	if a.Refused != "" {
		lines = append(lines, []string{"Refused", "its manifest " + a.Refused})
	}
	if client := a.Client; client != nil {
		lines = append(lines, []string{"Client", client.ID + " (" + clientType(*client) + ")"},
			[]string{"  Name", client.Name})
		for _, entry := range []struct {
			title  string
			values []string
		}{
			{"  Redirect URIs", client.RedirectURIs}, {"  After sign-out", client.PostLogoutRedirectURIs},
			{"  Scopes", client.Scopes},
			{"  Logo", single(client.LogoURI)}, {"  Terms", single(client.TosURI)}, {"  Privacy", single(client.PolicyURI)},
			{"  Grant types", client.GrantTypes}, {"  Authenticates", single(authentication(*client))},
			{"  Keys", client.KeyIDs},
			{"  Keys from", single(client.JWKSURI)}, {"  Signatures", signatures(*client)},
			{"  Requires", requirements(*client)},
			{"  Subjects", single(subjects(*client))}, {"  Starts at", single(client.InitiateLoginURI)},
			{"  Logout", logoutAddresses(*client)}, {"  Speaks for", client.ResourceIdentifiers}, {"  Further", unworded(*client)},
		} {
			for i, value := range entry.values {
				title := entry.title
				if i > 0 {
					title = " "
				}
				lines = append(lines, []string{title, value})
			}
		}
	} else {
		lines = append(lines, []string{"Client", "none: the manifest has no spec.oauth"})
	}
	if err := table(c.stdout, lines[0], lines[1:]); err != nil {
		return err
	}
	if len(a.Secrets) > 0 {
		if _, err := fmt.Fprintln(c.stdout); err != nil {
			return err
		}
		var cells [][]string
		for _, s := range a.Secrets {
			cells = append(cells, secretCells(s))
		}
		if err := table(c.stdout, append([]string{"SECRET"}, secretHeader[1:]...), cells); err != nil {
			return err
		}
	}
	if len(a.Deliveries) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(c.stdout); err != nil {
		return err
	}
	var cells [][]string
	for _, d := range a.Deliveries {
		said := d.Error
		if d.Remedy != "" {
			said += "; " + d.Remedy
		}
		next, instances := "", ""
		if d.State == "failed" {
			next = when(d.NextAttempt)
		}
		if d.Instances > 0 {
			instances = strconv.Itoa(d.Instances)
		}
		cells = append(cells, []string{d.Kind + "/" + d.Name, d.Runtime, deliveryState(d),
			fmt.Sprintf("%d/%d/%d", d.Generation, d.Accepted, d.Serving),
			instances, d.Location, said, next})
	}
	return table(c.stdout,
		[]string{"TARGET", "RUNTIME", "STATE", "WANTED/ACCEPTED/SERVING", "INSTANCES", "LOCATION", "ERROR", "NEXT ATTEMPT"},
		cells)
}

// single is a list of what is there.
func single(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}
