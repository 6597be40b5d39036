package main

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
)

func (c *cli) audit() *cobra.Command {
	var app, user, since, format string
	var follow bool
	command := &cobra.Command{
		Use: "audit", Short: "Show who did what, with which outcome",
		Long: `audit shows what was applied, refused, deleted, rotated, revoked, read and delivered, and who signed in,
failed to, and allowed what: when, by whom, for which app, from which address, and why it was refused or
failed. The log is append-only, is kept for 400 days and never holds a secret. Of what users and clients
did, the last 100,000 entries are kept. The oldest entry comes first.

With --follow it goes on, and shows each entry as it is added, until you end it; when the server ends, it
waits for the next one, and leaves nothing out. -o jsonl writes one entry per line, as JSON, for other
programs.`,
		Example: `  warifu audit
  warifu audit --app my-oauth-app --since 168h
  warifu audit --user ann@example.com --follow
  warifu audit --since 2026-01-31T12:00:00Z -o json`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := sinceOf(since, time.Now())
			if err != nil {
				return err
			}
			query := url.Values{"since": {from.UTC().Format(time.RFC3339)}}
			for name, value := range map[string]string{"app": app, "user": user} {
				if value != "" {
					query.Set(name, value)
				}
			}
			shown := &listed{c: c, format: format, what: "entries in the audit log"}
			switch {
			case follow && (format == "json" || format == "yaml"):
				return usagef("--follow has no end, which -o %s needs: use -o jsonl", format)
			case follow:
				return c.followAudit(cmd.Context(), query, from, shown.add)
			}
			if err := c.auditLog(cmd.Context(), query, shown.add); err != nil {
				return err
			}
			return shown.end()
		},
	}
	command.Flags().StringVar(&app, "app", "", "show only this app")
	must(command.RegisterFlagCompletionFunc("app", c.completeApps))
	command.Flags().StringVar(&user, "user", "",
		"show only what this user did, or what was done to them: an id, e-mail address or user name")
	command.Flags().BoolVarP(&follow, "follow", "F", false, "go on with what is added")
	command.Flags().StringVar(&since, "since", "24h",
		"how far back: a duration such as 90m or 48h, or a date such as 2026-01-31 or 2026-01-31T12:00:00Z")
	outputFlag(command, &format, "table", "json", "jsonl", "yaml")
	return command
}

// sinceOf reads --since.
func sinceOf(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usagef("--since %q is neither a duration such as 24h nor a date such as 2026-01-31 or "+
		"2026-01-31T12:00:00Z", text)
}

// auditLog gets the log, page by page.
func (c *cli) auditLog(ctx context.Context, query url.Values, show func(rows) error) error {
	for {
		page, err := fetch[admin.AuditPage](ctx, c, "/v1/audit?"+query.Encode())
		if err != nil {
			return err
		}
		if err := show(auditRows(page.Entries...)); err != nil {
			return err
		}
		if page.Next == "" {
			return nil
		}
		query.Set("after", page.Next)
	}
}

func auditRows(entries ...admin.AuditEntry) rows {
	out := rows{header: []string{"TIME", "ACTOR", "ACTION", "APP", "TARGET", "OUTCOME", "REASON", "DETAIL"}}
	for _, e := range entries {
		out.data = append(out.data, e)
		out.cells = append(out.cells, []string{when(e.At), e.Actor, e.Action, e.App, e.Target, e.Outcome,
			e.Reason, detailOf(e)})
	}
	return out
}

// detailOf is the detail of an entry, with the client and the address that it came from.
func detailOf(e admin.AuditEntry) string {
	parts := []string{}
	for _, part := range []struct{ what, text string }{{"", e.Detail}, {"client ", e.Client}, {"from ", e.Address}} {
		if part.text != "" {
			parts = append(parts, part.what+part.text)
		}
	}
	return strings.Join(parts, ", ")
}
