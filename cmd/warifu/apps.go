package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// apps is what the admin API, the watch of manifests and the start of a server have in common: documents go in, the deployer
// acts. It is a admin.Apps.
type apps struct {
	deployer  *manifests.Deployer
	store     *storage.Store // for the audit log
	options   manifests.Options
	localhost config.LocalhostRedirects
	log       *slog.Logger

	applying sync.Mutex // one apply at a time in this process; other replicas meet in the transaction
}

var _ admin.Apps = (*apps)(nil)

// parse turns documents into manifests, or says everything that is wrong with them.
func (a *apps) parse(files []manifests.File) ([]*manifests.Document, manifests.Faults, error) {
	docs, faults := manifests.ParseFiles(files, a.options)
	if a.localhost == config.LocalhostDeny {
		faults = append(faults, deniedRedirects(docs)...)
	}
	return docs, faults.Warnings(), faults.Err()
}

// deniedRedirects are the loopback redirect URIs, where manifests.localhostRedirects says deny.
func deniedRedirects(docs []*manifests.Document) manifests.Faults {
	var faults manifests.Faults
	for _, doc := range docs {
		if doc.App.Spec.OAuth == nil {
			continue
		}
		for i, uri := range doc.App.Spec.OAuth.RedirectURIs {
			if oauth.IsLoopbackRedirect(uri) {
				path := fmt.Sprintf("spec.oauth.redirectUris[%d]", i)
				at := doc.Place(path)
				faults = append(faults, manifests.Fault{
					File: doc.Path, Line: at.Line, Column: at.Column, Path: path, Code: "loopback-redirect", Severity: manifests.SeverityError,
					Message: path + " leads to the user's own machine, and this server takes no such redirect URI (manifests.localhostRedirects)",
				})
			}
		}
	}
	return faults
}

func filesOf(docs []admin.Document) []manifests.File {
	files := make([]manifests.File, len(docs))
	for i, d := range docs {
		files[i] = manifests.File{Name: d.Name, Data: []byte(d.Content)}
	}
	return files
}

func (a *apps) Plan(ctx context.Context, docs []admin.Document) ([]admin.AppPlan, []admin.Fault, error) {
	plans, warnings, err := a.plan(ctx, filesOf(docs))
	if err != nil {
		a.told(ctx, storage.AuditPlan, "", err)
		return nil, nil, edge(err)
	}
	return plansOf(plans), faultsOf(warnings), nil
}

func (a *apps) plan(ctx context.Context, files []manifests.File) ([]*manifests.Plan, manifests.Faults, error) {
	docs, warnings, err := a.parse(files)
	if err != nil {
		return nil, nil, err
	}
	plans, err := a.deployer.Plan(ctx, docs)
	return plans, warnings, err
}

func (a *apps) Apply(ctx context.Context, docs []admin.Document, expected map[string]string) ([]admin.AppPlan, []admin.Fault, error) {
	plans, warnings, err := a.apply(ctx, filesOf(docs), expected)
	if err != nil {
		return nil, nil, edge(err)
	}
	return plansOf(plans), faultsOf(warnings), nil
}

// apply plans anew and carries that out, when it is still about the revisions that the caller has seen. Several apps are
// several transactions: what stops one of them leaves those before it applied, and the error names them.
func (a *apps) apply(ctx context.Context, files []manifests.File, expected map[string]string) (plans []*manifests.Plan, warnings manifests.Faults, err error) {
	a.applying.Lock()
	defer a.applying.Unlock()
	at := "" // the app that it is about
	defer func() { a.told(ctx, storage.AuditApply, at, err) }()
	plans, warnings, err = a.plan(ctx, files)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range plans {
		at = p.App
		if want, ok := expected[p.App]; ok && want != revision(p) {
			return nil, nil, fmt.Errorf("apply %s: %w", p.App, storage.ErrConflict)
		}
	}
	var done []string
	for _, p := range plans {
		at = p.App
		err := a.deployer.Apply(ctx, p)
		if err != nil && len(done) > 0 {
			a.told(ctx, storage.AuditApply, at, err)
			a.log.ErrorContext(ctx, "applying several apps", "applied", done, "stopped at", p.App, "error", err)
			err = admin.PartlyApplied(done, p.App)
		}
		if err != nil {
			return nil, nil, err
		}
		done = append(done, p.App)
	}
	return plans, warnings, nil
}

func (a *apps) Delete(ctx context.Context, name string) error {
	return edge(a.deployer.Delete(ctx, name))
}

func (a *apps) Settle(ctx context.Context, name string) error {
	_, err := a.deployer.Settle(ctx, name)
	return edge(err)
}

// revision names what a plan was made on.
func revision(p *manifests.Plan) string {
	return fmt.Sprintf("%d.%d", p.Revisions.App, p.Revisions.Client)
}

// edge gives errors that are the caller's to mend their form in the admin API.
func edge(err error) error {
	var faults manifests.Faults
	var denied *manifests.DeniedError
	var rotating *manifests.RotatingError
	switch {
	case errors.As(err, &faults):
		return admin.InvalidManifest(faultsOf(faults))
	case errors.As(err, &denied):
		var reasons []admin.Fault
		for _, d := range denied.Denials {
			message := fmt.Sprintf("%s refuses %s: %s", d.Hook, strings.TrimSpace(d.App+" "+d.Path), d.Message)
			if d.Remedy != "" {
				message += " (" + d.Remedy + ")"
			}
			reasons = append(reasons, admin.Fault{
				File: d.File, Line: d.Line, Column: d.Column, Path: d.Path, Code: d.Code, Message: message,
				Severity: string(manifests.SeverityError),
			})
		}
		return admin.Denied(reasons)
	case errors.As(err, &rotating):
		return admin.Rotating(rotating.Waiting)
	case errors.Is(err, manifests.ErrNoSecret):
		return admin.NoSecret(err.Error())
	case errors.Is(err, manifests.ErrSealed):
		return admin.SealedEnv(err.Error())
	case errors.Is(err, manifests.ErrDeleting):
		return admin.Deleting()
	}
	return err
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
			App: p.App, Version: p.Version, Source: p.Source, Changed: p.Changed, Revision: revision(p),
			Changes: []admin.Change{}, Consequences: append([]string{}, p.Consequences...), Warnings: []admin.Notice{},
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
