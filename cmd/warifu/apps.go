package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/admin"
)

// apps is the admin API's view of a deployer: it translates between the two, which do not know each other.
type apps struct{ deployer *manifests.Deployer }

var _ admin.Apps = (*apps)(nil)

func filesOf(docs []admin.Document) []manifests.File {
	files := make([]manifests.File, len(docs))
	for i, d := range docs {
		files[i] = manifests.File{Name: d.Name, Data: []byte(d.Content)}
	}
	return files
}

func (a *apps) Plan(ctx context.Context, docs []admin.Document) ([]admin.AppPlan, []admin.Fault, error) {
	plans, warnings, err := a.deployer.PlanFiles(ctx, filesOf(docs))
	if err != nil {
		return nil, nil, edge(err)
	}
	return plansOf(plans), faultsOf(warnings), nil
}

func (a *apps) Apply(ctx context.Context, docs []admin.Document, opts admin.ApplyOptions) (
	[]admin.AppPlan, []admin.Fault, error) {
	plans, warnings, err := a.deployer.ApplyFiles(ctx, filesOf(docs), manifests.ApplyOptions(opts))
	if err != nil {
		return nil, nil, edge(err)
	}
	return plansOf(plans), faultsOf(warnings), nil
}

func (a *apps) Delete(ctx context.Context, name string) error {
	return edge(a.deployer.Delete(ctx, name))
}

func (a *apps) Settle(ctx context.Context, name string) error {
	_, err := a.deployer.Settle(ctx, name)
	return edge(err)
}

// edge turns an error that the caller can correct into what the admin API answers with.
func edge(err error) error {
	var faults manifests.Faults
	var denied *manifests.DeniedError
	var rotating *manifests.RotatingError
	var partial *manifests.PartialError
	var deletion *manifests.DeletionError
	var untrusted *manifests.TrustError
	switch {
	case errors.As(err, &partial):
		return admin.PartlyApplied(partial.Applied, partial.App, edge(partial.Err))
	case errors.As(err, &faults):
		return admin.InvalidManifest(faultsOf(faults))
	case errors.As(err, &denied):
		var reasons []admin.Fault
		for _, d := range denied.Denials {
			message := fmt.Sprintf("app %s: %s refuses %s: %s", d.App, d.Hook, cmp.Or(d.Path, "the manifest"), d.Message)
			if d.Remedy != "" {
				message += " (" + d.Remedy + ")"
			}
			reasons = append(reasons, admin.Fault{
				File: d.File, Line: d.Line, Column: d.Column, Path: d.Path, Code: d.Code, Message: message,
				Severity: string(manifests.SeverityError),
			})
		}
		return admin.Denied(reasons)
	case errors.As(err, &deletion):
		return admin.WouldDelete(endingsOf(deletion.Ends))
	case errors.As(err, &untrusted):
		return admin.NeedsTrust(untrusted.Error())
	case errors.As(err, &rotating):
		return admin.Rotating(rotating.Waiting)
	case errors.Is(err, manifests.ErrNoSecret):
		return admin.NoSecret(err.Error())
	case errors.Is(err, manifests.ErrSecret):
		return admin.UnusableSecret(err.Error())
	case errors.Is(err, manifests.ErrSealed):
		return admin.SealedEnv(err.Error())
	case errors.Is(err, manifests.ErrDeleting):
		return admin.Deleting()
	case plugins.Culprit(err) != "":
		return pluginFailed(err)
	}
	return err
}

// pluginFailed names the plugin, what went wrong with it, and what to do.
func pluginFailed(err error) *admin.Problem {
	name, remedy := plugins.Culprit(err), ""
	why := err.Error()
	if _, said, found := strings.Cut(why, fmt.Sprintf("plugin %q: ", name)); found {
		why = said
	}
	var start *plugins.StartError
	switch {
	case errors.As(err, &start):
		why = start.Problem
		if start.Remedy != "" {
			remedy = strings.ToUpper(start.Remedy[:1]) + start.Remedy[1:] + "."
		}
	case errors.Is(err, context.DeadlineExceeded):
		why = plugins.ErrDeadline.Error()
	}
	return admin.PluginFailed(name, why, remedy, err)
}

func endingsOf(ends []manifests.Ending) []admin.Ending {
	var out []admin.Ending
	for _, e := range ends {
		out = append(out, admin.Ending(e))
	}
	return out
}

func faultsOf(faults manifests.Faults) []admin.Fault {
	var out []admin.Fault
	for _, f := range faults {
		out = append(out, admin.Fault{
			File: f.File, Line: f.Line, Column: f.Column, Path: f.Path, Code: f.Code,
			Message: f.Message, Suggestion: f.Suggestion, Severity: string(f.Severity),
		})
	}
	return out
}

func plansOf(plans []*manifests.Plan) []admin.AppPlan {
	out := make([]admin.AppPlan, 0, len(plans))
	for _, p := range plans {
		plan := admin.AppPlan{
			App: p.App, Version: p.Version, Source: p.Source, Changed: p.Changed, Revision: p.Revisions.String(),
			Changes: []admin.Change{}, Consequences: append([]string{}, p.Consequences...),
			Ends: endingsOf(p.Ends), Trust: string(p.Trust), Warnings: []admin.Notice{},
		}
		for _, c := range p.Changes {
			change := admin.Change{Kind: string(c.Kind), Text: c.Text, Field: c.Field, Old: c.Old, New: c.New, Names: c.Names}
			if c.Target != nil {
				change.Target = c.Target.Kind + "/" + c.Target.Name
			}
			plan.Changes = append(plan.Changes, change)
		}
		for _, n := range p.Warnings {
			plan.Warnings = append(plan.Warnings, admin.Notice{Code: n.Code, Path: n.Path, Message: n.Message, Remedy: n.Remedy})
		}
		out = append(out, plan)
	}
	return out
}
