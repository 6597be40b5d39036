package main

import (
	"context"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
)

func (c *cli) audit() *cobra.Command {
	var app, since, format string
	command := &cobra.Command{
		Use: "audit", Short: "Show who did what, with which outcome",
		Long: `audit shows what was applied, refused, deleted, rotated, revoked, read and delivered: when, by whom,
for which app, and why it was refused or failed. The log is append-only, is kept for 400 days and never
holds a secret. The oldest entry comes first.`,
		Example: `  warifu audit
  warifu audit --app my-oauth-app --since 168h
  warifu audit --since 2026-01-31T12:00:00Z -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := sinceOf(since, time.Now())
			if err != nil {
				return err
			}
			found, err := c.auditLog(cmd.Context(), app, from)
			if err != nil {
				return err
			}
			return c.show(found, format, "entries in the audit log")
		},
	}
	command.Flags().StringVar(&app, "app", "", "show only this app")
	must(command.RegisterFlagCompletionFunc("app", c.completeApps))
	command.Flags().StringVar(&since, "since", "24h",
		"how far back: a duration such as 90m or 48h, or a date such as 2026-01-31 or 2026-01-31T12:00:00Z")
	outputFlag(command, &format, "table", "json", "yaml")
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
	return time.Time{}, usagef("--since %q is neither a duration such as 24h nor a date such as 2026-01-31 or 2026-01-31T12:00:00Z", text)
}

// auditLog gets all pages.
func (c *cli) auditLog(ctx context.Context, app string, since time.Time) (rows, error) {
	list := []admin.AuditEntry{}
	query := url.Values{"since": {since.UTC().Format(time.RFC3339)}}
	if app != "" {
		query.Set("app", app)
	}
	for {
		page, err := fetch[admin.AuditPage](ctx, c, "/v1/audit?"+query.Encode())
		if err != nil {
			return rows{}, err
		}
		list = append(list, page.Entries...)
		if page.Next == "" {
			break
		}
		query.Set("after", page.Next)
	}
	out := rows{data: list, header: []string{"TIME", "ACTOR", "ACTION", "APP", "TARGET", "OUTCOME", "REASON", "DETAIL"}}
	for _, e := range list {
		out.cells = append(out.cells, []string{when(e.At), e.Actor, e.Action, e.App, e.Target, e.Outcome, e.Reason, e.Detail})
	}
	return out, nil
}
