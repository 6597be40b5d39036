package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
)

func (c *cli) explain() *cobra.Command {
	var format string
	command := &cobra.Command{
		Use: "explain REQUEST_ID", Short: "Say why a request was refused, and what to do",
		Long: `explain says which rule refused a request, what was asked, what was probably meant, which line of app.yml or
which key of the configuration decides, and what to do. The id of the request is in the header
X-Request-Id of every reply, on error pages, and in the server's log. Requests to plan and to apply have
one as well.

Refusals are kept in the memory of the replica that refused, the last 4096 of them, and never with a secret.
When one address is refused very often, its refusals are forgotten sooner.
Where several replicas serve, ask each (--admin).`,
		Example: `  warifu explain 3f9c2a7d51e08b64
  warifu explain 3f9c2a7d51e08b64 -o json`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("the id of the request is empty: it is in the header X-Request-Id of the reply, and " +
					"on the error page")
			}
			found, err := fetch[admin.Explanation](cmd.Context(), c, "/v1/refusals/"+url.PathEscape(args[0]))
			if err != nil {
				return err
			}
			if format != "text" {
				return encode(c.stdout, format, found)
			}
			_, err = fmt.Fprint(c.stdout, explained(found))
			return err
		},
	}
	outputFlag(command, &format, "text", "json", "yaml")
	return command
}

// explained is an explanation for people: what was asked, then each rule that refused.
func explained(e admin.Explanation) string {
	var out strings.Builder
	line := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&out, "  %-8s  %s\n", title, harmless(text))
		}
	}
	fmt.Fprintf(&out, "%s: %s\n", harmless(e.Endpoint), harmless(cmp.Or(e.Error, "refused without an error code")))
	line("at", when(e.At))
	line("client", e.ClientID)
	line("app", e.App)
	for _, name := range slices.Sorted(maps.Keys(e.Params)) {
		line("asked", name+"="+e.Params[name])
	}
	for _, why := range e.Reasons {
		fmt.Fprintf(&out, "\n%s: %s\n", harmless(why.Rule), why.Meaning)
		line("said", why.Said)
		line("value", why.Asked)
		line("try", why.Nearest)
		where := why.Key
		if why.Place != "" && why.Key != "" {
			where = why.Place + " (" + why.Key + ")"
		}
		line("where", cmp.Or(where, why.Place))
		line("do", why.Remedy)
	}
	if e.More > 0 {
		fmt.Fprintf(&out, "\nand %d more\n", e.More)
	}
	return out.String()
}

// hint names the command that says more about a request that was refused.
func (c *cli) hint(requestID string) {
	if requestID != "" {
		c.say("warifu explain %s says more.", harmless(requestID))
	}
}
