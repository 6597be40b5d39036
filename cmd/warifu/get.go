package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/admin"
)

// listing is a kind of record that `warifu get` lists.
type listing struct {
	name, singular, short string
	filters               []string // the flags that it takes, of those in getFilters
	ofApp                 bool     // takes the app as an argument as well
	list                  func(ctx context.Context, c *cli, query string, show func(rows) error) error
}

// getFilters are the flags that narrow a list, with what they mean.
var getFilters = map[string]string{
	"app": "show only this app", "client": "show only the client with this id",
	"user":      "show only this user: an id, an e-mail address or a user name",
	"connector": "show only those of this connector; local are those of the configuration and of the database",
	"state":     "show only those in this state: active, disabled or left",
	"group":     "show only those who are in this group",
	"match":     "show only those whose id, user name, name or e-mail address has this in it",
	"address":   "show only those from this IP address or network, such as 192.0.2.7 or 192.0.2.0/24",
}

// rows are a part of a list in the shapes that people and programs read.
type rows struct {
	data   []any
	header []string
	cells  [][]string
	names  []string
}

// listOf gets a list from the server, part by part, and shapes it.
func listOf[T any](path string, header []string, row func(T) (name string, cells []string)) func(
	ctx context.Context, c *cli, query string, show func(rows) error) error {
	return func(ctx context.Context, c *cli, query string, show func(rows) error) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		return eachPart(ctx, api, path+query, func(part []T) error {
			out := rows{header: header}
			for _, item := range part {
				name, cells := row(item)
				out.data, out.names, out.cells = append(out.data, item), append(out.names, name), append(out.cells, cells)
			}
			return show(out)
		})
	}
}

var listings = []listing{
	{name: "apps", singular: "app", short: "List apps",
		list: listOf("/v1/apps", []string{"NAME", "VERSION", "CLIENT ID", "AUTO ENV", "TARGETS", "STATE", "APPLIED"},
			func(a admin.App) (string, []string) {
				return "app/" + a.Name, []string{a.Name, a.Version, a.ClientID, strconv.FormatBool(a.AutoEnv),
					strconv.Itoa(a.Targets), appState(a), when(a.Applied)}
			})},
	{name: "clients", singular: "client", short: "List OAuth clients", filters: []string{"app"},
		list: listOf("/v1/clients", []string{"CLIENT ID", "APP", "NAME", "TYPE", "SCOPES"},
			func(a admin.Client) (string, []string) {
				scopes := strings.Join(a.Scopes, " ")
				if a.AnyScope {
					scopes += " (or others)"
				}
				return "client/" + a.ID, []string{a.ID, a.App, a.Name, clientType(a), scopes}
			})},
	{name: "deliveries", singular: "delivery", short: "List the env deliveries of each target and their progress",
		filters: []string{"app"},
		list: listOf("/v1/deliveries",
			[]string{"APP", "TARGET", "RUNTIME", "STATE", "GENERATION", "LOCATION", "ERROR", "NEXT ATTEMPT"},
			func(d admin.Delivery) (string, []string) {
				target := d.Kind + "/" + d.Name
				next := ""
				if d.State != "ready" {
					next = when(d.NextAttempt)
				}
				return "delivery/" + d.App + "/" + target, []string{d.App, target, d.Runtime, deliveryState(d),
					fmt.Sprintf("%d/%d", d.Serving, d.Generation), d.Location, d.Error, next}
			})},
	{name: "grants", singular: "grant", short: "List live grants: what users have allowed apps to do",
		filters: []string{"app", "client", "user"},
		list: listOf("/v1/grants", []string{"ID", "APP OR CLIENT", "USER", "SCOPES", "CREATED", "LAST USED", "EXPIRES"},
			func(g admin.Grant) (string, []string) { return "grant/" + g.ID, grantCells(g) })},
	{name: "replicas", singular: "replica",
		short: "List the server's processes: version, start, digest of the configuration, encryption keys",
		list: listOf("/v1/replicas", []string{"REPLICA", "VERSION", "STARTED", "HEARD", "CONFIG", "ENCRYPTION KEYS",
			"REFUSED"},
			func(r admin.Replica) (string, []string) { return "replica/" + r.Name, replicaCells(r) })},
	{name: "secrets", singular: "secret",
		short:   "List client secrets with their age, state and last use, never their values",
		filters: []string{"app"}, ofApp: true,
		list: listOf("/v1/secrets", append([]string{"APP"}, secretHeader...),
			func(s admin.Secret) (string, []string) {
				return "secret/" + s.App + "/" + s.ID, append([]string{s.App}, secretCells(s)...)
			})},
	{name: "sessions", singular: "session",
		short:   "List browsers in which users are signed in, and the clients that they used",
		filters: []string{"user", "address"},
		list: listOf("/v1/sessions", []string{"SESSION", "USER", "SINCE", "EXPIRES", "BY", "ADDRESS", "DEVICE", "CLIENTS"},
			func(s admin.Session) (string, []string) {
				return "session/" + s.SID, []string{s.SID, cmp.Or(s.User, s.UserID), when(s.Since), when(s.ExpiresAt),
					strings.Join(s.Methods, " "), s.Address, shortened(s.Agent, mostAgentShown), strings.Join(s.Clients, " ")}
			})},
	{name: "users", singular: "user",
		short:   "List users: of the configuration, of the database, and who came by a connector",
		filters: []string{"connector", "state", "group", "match"},
		list: listOf("/v1/users",
			[]string{"ID", "CONNECTOR", "USER NAME", "NAME", "E-MAIL", "GROUPS", "FACTORS", "STATE", "SIGNED IN"},
			func(u admin.User) (string, []string) { return "user/" + u.ID, userCells(u) })},
}

// grantCells names the client where there is no app, because the client registered itself or is described by a
// document.
func grantCells(g admin.Grant) []string {
	return []string{g.ID, cmp.Or(g.App, g.ClientID), cmp.Or(g.User, g.UserID), strings.Join(g.Scopes, " "),
		when(g.CreatedAt), when(g.UsedAt), when(g.ExpiresAt)}
}

// replicaCells mark the replica that answers, and the encryption key under which each seals; last is why it has refused
// a newer configuration.
func replicaCells(r admin.Replica) []string {
	name, keys := r.Name, slices.Clone(r.Keys)
	if r.Self {
		name += " (answers)"
	}
	for i, k := range keys {
		if k == r.Seals && len(keys) > 1 {
			keys[i] += " (seals)"
		}
	}
	return []string{name, r.Version, when(r.Started), when(r.At), shortened(r.Config, 12), strings.Join(keys, " "),
		r.Refused}
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
	if c.Described {
		return fmt.Sprintf("document, grants: %d, consents: %d", c.Grants, c.Consents)
	}
	if c.Public {
		kind = "public"
	}
	switch c.TokenEndpointAuthMethod {
	case plugins.AuthMethodPrivateKeyJWT:
		kind += ", own key"
	case plugins.AuthMethodWorkload:
		kind += ", workload"
	}
	switch {
	case onlyForwardAuth(c):
		kind = "behind forward auth"
	case len(c.ForwardAuthHosts) > 0:
		kind += ", behind forward auth"
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
		Use: "get", Short: "List apps, clients, deliveries, grants, replicas, sessions, secrets or users", Args: subcommands,
		RunE: needsSubcommand,
		Example: `  warifu get apps
  warifu get grants --app my-oauth-app -o json
  warifu get grants --user ann@example.com
  warifu get users
  warifu get deliveries -o name`,
	}
	for _, l := range listings {
		var format string
		filters := make(map[string]*string)
		sub := &cobra.Command{
			Use: l.name, Short: l.short, Args: operands(0), Example: "  warifu get " + l.name + " -o json",
			Aliases: []string{l.singular},
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					if app := filters["app"]; *app != "" && *app != args[0] {
						return usagef("%s and --app %s name two different apps", args[0], *app)
					}
					*filters["app"] = args[0]
				}
				query := url.Values{}
				for name, value := range filters {
					if *value != "" {
						query.Set(name, *value)
					}
				}
				asked := ""
				if len(query) > 0 {
					asked = "?" + query.Encode()
				}
				shown := &listed{c: c, format: format, what: l.name}
				if err := l.list(cmd.Context(), c, asked, shown.add); err != nil {
					return err
				}
				return shown.end()
			},
		}
		if l.ofApp {
			sub.Use, sub.Args, sub.ValidArgsFunction = l.name+" [APP]", operands(0), c.completeApps
		}
		for _, name := range l.filters {
			filters[name] = sub.Flags().String(name, "", getFilters[name])
			if name == "app" {
				must(sub.RegisterFlagCompletionFunc("app", c.completeApps))
			}
		}
		outputFlag(sub, &format, "table", "json", "yaml", "name")
		command.AddCommand(sub)
	}
	return command
}

func (c *cli) describe() *cobra.Command {
	command := &cobra.Command{Use: "describe", Short: "Show an app and what belongs to it, or a user", Args: subcommands,
		RunE: needsSubcommand}
	var format string
	app := &cobra.Command{
		Use: "app NAME", Short: "Show an app, its client, its deliveries and how many grants it has",
		Example: `  warifu describe app my-oauth-app`,
		Args:    operands(1), ValidArgsFunction: c.completeApps,
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
	command.AddCommand(app, c.describeUser())
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
			{"  Redirect URIs", client.RedirectURIs}, {"  Forward auth", behindForwardAuth(*client)},
			{"  After sign-out", client.PostLogoutRedirectURIs},
			{"  Scopes", client.Scopes},
			{"  Logo", single(client.LogoURI)}, {"  Terms", single(client.TosURI)}, {"  Privacy", single(client.PolicyURI)},
			{"  Grant types", client.GrantTypes}, {"  Authenticates", single(authentication(*client))},
			{"  Workloads", workloads(*client)}, {"  Keys", client.KeyIDs},
			{"  Keys from", single(client.JWKSURI)}, {"  Signatures", signatures(*client)},
			{"  Requires", requirements(*client)},
			{"  Subjects", single(subjects(*client))}, {"  Starts at", single(client.InitiateLoginURI)},
			{"  Logout", logoutAddresses(*client)}, {"  Speaks for", speaksFor(*client)},
			{"  Exchanges for", client.TokenExchangeAudiences}, {"  May be used by", admitted(*client)},
			{"  Consent", single(consent(a))}, {"  Further", unworded(*client)},
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
	if len(a.Secrets) > 0 && (a.Client == nil || !onlyForwardAuth(*a.Client)) { // where no secret opens anything
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
