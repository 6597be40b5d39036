package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/admin"
)

func (c *cli) drift() *cobra.Command {
	var files []string
	var app, format string
	command := &cobra.Command{
		Use: "drift", Short: "Compare what was applied with what is in place",
		Long: `drift compares the registered clients, the env that was delivered and the env that runtimes have with
what was applied, or with the manifests that -f names. It changes nothing. The exit code is 2 when
something differs, and 1 when a runtime does not report what it has.

The server also observes targets on its own and delivers again what was lost, unless manifests.repair
is false.`,
		Example: `  warifu drift
  warifu drift --app my-oauth-app -o json
  warifu drift -f .takos/app.yml`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			requests := []driftRequest{{App: app}}
			if len(files) > 0 {
				if app != "" {
					return usagef("--app and -f exclude each other: manifests name their apps")
				}
				docs, err := c.documents(files)
				if err != nil {
					return err
				}
				requests = nil
				for _, portion := range portions(docs) {
					requests = append(requests, driftRequest{Documents: portion})
				}
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			all := admin.Drift{Findings: []admin.DriftFinding{}}
			for _, request := range requests {
				var found admin.Drift
				if err := api.do(cmd.Context(), http.MethodPost, "/v1/drift", request, &found); err != nil {
					return err
				}
				all.Apps, all.Targets = all.Apps+found.Apps, all.Targets+found.Targets
				all.Findings = append(all.Findings, found.Findings...)
			}
			return c.showDrift(all, format)
		},
	}
	fileFlag(command, &files)
	command.Flags().StringVar(&app, "app", "", "show only this app")
	must(command.RegisterFlagCompletionFunc("app", c.completeApps))
	outputFlag(command, &format, "table", "json", "yaml")
	return command
}

// driftRequest is the body of drift.
type driftRequest struct {
	App       string           `json:"app,omitempty"`
	Documents []admin.Document `json:"documents,omitempty"`
}

// showDrift writes what was found and returns the error that leads to the exit code.
func (c *cli) showDrift(found admin.Drift, format string) error {
	if format != "table" {
		if err := encode(c.stdout, format, found); err != nil {
			return err
		}
	} else if len(found.Findings) > 0 {
		var cells [][]string
		for _, f := range found.Findings {
			cells = append(cells, []string{f.App, f.Target, f.Runtime, f.Kind, f.Text, f.Remedy})
		}
		if err := table(c.stdout, []string{"APP", "TARGET", "RUNTIME", "KIND", "FOUND", "WHAT TO DO"}, cells); err != nil {
			return err
		}
	}
	unknown := 0
	for _, f := range found.Findings {
		if f.Kind == string(manifests.FoundUnknown) {
			unknown++
		}
	}
	switch {
	case len(found.Findings) > unknown:
		return errChanges
	case unknown > 0:
		return fmt.Errorf("no drift where runtimes answered, but %d did not report what they have", unknown)
	}
	c.say("no drift (apps: %d, targets: %d)", found.Apps, found.Targets)
	return nil
}

// Drift is for admin.Apps.
func (a *apps) Drift(ctx context.Context, docs []admin.Document, app string) (admin.Drift, error) {
	var parsed []*manifests.Document
	if len(docs) > 0 {
		var faults manifests.Faults
		if parsed, faults = a.deployer.Parse(ctx, filesOf(docs)); faults.Err() != nil {
			return admin.Drift{}, edge(faults.Err())
		}
	}
	drift, err := a.deployer.Drift(ctx, parsed, app)
	if err != nil {
		return admin.Drift{}, edge(err)
	}
	out := admin.Drift{Apps: drift.Apps, Targets: drift.Targets, Findings: []admin.DriftFinding{}}
	for _, f := range drift.Findings {
		found := admin.DriftFinding{App: f.App, Runtime: f.Runtime, Kind: string(f.Kind), Text: f.Text, Remedy: f.Remedy}
		if f.Target != nil {
			found.Target = f.Target.Kind + "/" + f.Target.Name
		}
		out.Findings = append(out.Findings, found)
	}
	return out, nil
}
