package admin

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Document is an app.yml as it was read.
type Document struct {
	Name    string `json:"name" maxLength:"4096" doc:"The name that faults use for it: a path, or stdin."`
	Content string `json:"content" doc:"The YAML, one or several documents, at most 1 MiB."`
}

// AppPlan is what applying a manifest changes.
type AppPlan struct {
	App     string `json:"app"`
	Version string `json:"version,omitempty"`
	Source  string `json:"source,omitempty" doc:"The document that the app is in."`
	// Changed is about the release. Applying without changes still repairs targets that have lost their env.
	Changed bool `json:"changed" doc:"Whether applying changes anything. Applying without changes still repairs lost env."`
	// Revision is that of the records the plan was made from.
	Revision     string   `json:"revision" doc:"Pass it to apply, which refuses if something has changed since."`
	Changes      []Change `json:"changes" nullable:"false"`
	Consequences []string `json:"consequences" nullable:"false" doc:"What the changes mean for the users of the app."`
	// Ends is what cannot be taken back.
	Ends     []Ending `json:"ends,omitempty" doc:"Clients that applying removes. Such a plan is applied with allowDelete only."`
	Trust    string   `json:"trust,omitempty" enum:"configured,given,needed" doc:"By whose word users are not asked for consent: that of the configuration, or of an operator who gave it with an apply. Where it is needed, the plan is applied with trust only. Left out when users are asked."`
	Warnings []Notice `json:"warnings" nullable:"false"`
}

// Ending is a client that goes, and what goes with it.
type Ending struct {
	App      string `json:"app"`
	ClientID string `json:"clientId"`
	Grants   int    `json:"grants" doc:"How many grants end with it."`
}

// Change is one step of a plan. It never holds a value of env.
type Change struct {
	Kind   string   `json:"kind" doc:"A stable name for the kind of change, such as registerClient."`
	Text   string   `json:"text" doc:"The change in words."`
	Field  string   `json:"field,omitempty" doc:"What changes, such as scopes."`
	Old    string   `json:"old,omitempty"`
	New    string   `json:"new,omitempty"`
	Target string   `json:"target,omitempty" doc:"The worker, container or service, such as worker/web."`
	Names  []string `json:"names,omitempty" doc:"Names of variables."`
}

// Notice is a word from a deploy hook.
type Notice struct {
	Code    string `json:"code"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// Planned is the reply of plan and apply.
type Planned struct {
	Plans    []AppPlan `json:"plans" nullable:"false"`
	Warnings []Fault   `json:"warnings,omitempty" doc:"Faults in the documents that do not stop anything."`
	Applied  bool      `json:"applied" doc:"Whether the plans were carried out."`
}

// App is an app in a list.
type App struct {
	Name      string    `json:"name"`
	Version   string    `json:"version,omitempty"`
	ClientID  string    `json:"clientId,omitempty"`
	AutoEnv   bool      `json:"autoEnv"`
	Targets   int       `json:"targets"`
	State     string    `json:"state" enum:"active,gone,deleting"`
	Source    string    `json:"source,omitempty"`
	Applied   time.Time `json:"applied"`
	GoneSince time.Time `json:"goneSince,omitzero" doc:"When its manifest disappeared from its watched directory."`
	Refused   string    `json:"refused,omitempty" doc:"Why what its manifest in a watched directory says now was not applied."`
}

// AppDetail is an app with what belongs to it.
type AppDetail struct {
	App
	Client     *Client    `json:"client,omitempty"`
	Deliveries []Delivery `json:"deliveries" nullable:"false"`
	Secrets    []Secret   `json:"secrets" nullable:"false"`
	Grants     int        `json:"grants" doc:"How many grants are alive."`
	Trust      string     `json:"trust,omitempty" enum:"configured,given,needed" doc:"By whose word users are not asked for consent: that of the configuration, or of an operator who gave it with an apply. Where it is needed, they are asked, though the manifest says consent: skip."`
}

// Credentials are what an app needs to be an OAuth client.
type Credentials struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret,omitempty" doc:"Left out for a public client, for one that signs with its own key (private_key_jwt), and for a workload."`
	Issuer       string `json:"issuer"`

	AssertionFile string                   `json:"assertionFile,omitempty" doc:"Where a workload finds the token by which it is the client, if the platform has put it there."`
	Identities    []oauth.WorkloadIdentity `json:"identities,omitempty" doc:"The workloads that are the client: it has no secret."`

	Resource         string `json:"resource,omitempty" doc:"The resource server that the app is: the audience of its tokens."`
	ResourceMetadata string `json:"resourceMetadata,omitempty" doc:"Where the metadata of that resource server is (RFC 9728), for its answers 401."`
}

// Bounds of what plan, apply and drift take: MaxDocuments, and bytes of JSON.
const (
	MaxDocuments = 100
	maxBody      = 16 << 20
)

type planInput struct {
	Body struct {
		Documents []Document `json:"documents" minItems:"1" maxItems:"100" nullable:"false" doc:"At most 100, and 16 MiB in all; more are sent in several requests."`
	}
}

type applyInput struct {
	Body struct {
		Documents []Document        `json:"documents" minItems:"1" maxItems:"100" nullable:"false" doc:"At most 100, and 16 MiB in all; more are sent in several requests."`
		Expected  map[string]string `json:"expected,omitempty" doc:"Revisions of plans, by app. If one has changed, the request is refused with stale_plan."`
		// AllowDelete is the caller's word that they have seen what ends.
		AllowDelete bool `json:"allowDelete,omitempty" doc:"Remove clients that the documents leave out. Without it, such documents are refused with would_delete."`
		Trust       bool `json:"trust,omitempty" doc:"The operator's word that users of the apps whose manifests say consent: skip need not be asked. Without it, and unless the configuration trusts them, such documents are refused with needs_trust."`
		DryRun      bool `json:"dryRun,omitempty" doc:"Plan only."`
		Wait        int  `json:"wait,omitempty" minimum:"0" maximum:"120" doc:"Seconds to wait until every target serves the env or has failed."`
	}
}

type appInput struct {
	Name string `path:"name" maxLength:"63" doc:"Name of the app."`
}

type deleteInput struct {
	Name string `path:"name" maxLength:"63" doc:"Name of the app."`
	Wait int    `query:"wait" minimum:"0" maximum:"120" doc:"Seconds to wait until the app is gone."`
}

// reply wraps a body for huma.
type reply[T any] struct{ Body T }

func (a *operations) registerApps(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "plan", Method: http.MethodPost, Path: "/v1/plan",
		Summary: "Show what applying manifests would change",
		Tags:    []string{"apps"}, Errors: []int{400, 413, 422, 503}, MaxBodyBytes: maxBody,
	}, func(ctx context.Context, in *planInput) (*reply[Planned], error) {
		return a.plan(ctx, in.Body.Documents)
	})
	huma.Register(api, huma.Operation{
		OperationID: "apply", Method: http.MethodPost, Path: "/v1/apply", Summary: "Apply manifests",
		Tags: []string{"apps"}, Errors: []int{400, 409, 413, 422, 503}, MaxBodyBytes: maxBody,
	}, a.apply)
	huma.Register(api, huma.Operation{
		OperationID: "list-apps", Method: http.MethodGet, Path: "/v1/apps", Summary: "List apps",
		Tags: []string{"apps"}, Errors: []int{503},
	}, a.listApps)
	huma.Register(api, huma.Operation{
		OperationID: "describe-app", Method: http.MethodGet, Path: "/v1/apps/{name}",
		Summary: "Show an app and what belongs to it",
		Tags:    []string{"apps"}, Errors: []int{404, 503},
	}, a.describeApp)
	huma.Register(api, huma.Operation{
		OperationID: "delete-app", Method: http.MethodDelete, Path: "/v1/apps/{name}", Summary: "Delete an app",
		Description: "Its grants end at once, its env is taken away, then its client is removed.",
		Tags:        []string{"apps"}, Errors: []int{404, 409, 503}, DefaultStatus: http.StatusOK,
	}, a.deleteApp)
	huma.Register(api, huma.Operation{
		OperationID: "app-credentials", Method: http.MethodGet, Path: "/v1/apps/{name}/credentials",
		Summary:     "Hand out an app's client id and secret",
		Description: "The only reply of this API that holds a secret.",
		Tags:        []string{"apps"}, Errors: []int{404, 503},
	}, a.credentials)
}

func (a *operations) plan(ctx context.Context, docs []Document) (*reply[Planned], error) {
	plans, warnings, err := a.Apps.Plan(ctx, docs)
	if err != nil {
		return nil, a.failed(ctx, "such manifest", err)
	}
	return &reply[Planned]{Planned{Plans: plans, Warnings: warnings}}, nil
}

func (a *operations) apply(ctx context.Context, in *applyInput) (*reply[Planned], error) {
	if in.Body.DryRun {
		return a.plan(ctx, in.Body.Documents)
	}
	plans, warnings, err := a.Apps.Apply(ctx, in.Body.Documents, ApplyOptions{
		Expected: in.Body.Expected, AllowDelete: in.Body.AllowDelete, Trust: in.Body.Trust})
	if err != nil {
		return nil, a.failed(ctx, "such manifest", err)
	}
	if in.Body.Wait > 0 {
		ctx, cancel := within(ctx, time.Duration(in.Body.Wait)*time.Second)
		defer cancel()
		for _, p := range plans {
			if err := a.Apps.Settle(ctx, p.App); err != nil && ctx.Err() == nil {
				return nil, a.failed(ctx, "app "+p.App, err)
			}
		}
	}
	return &reply[Planned]{Planned{Plans: plans, Warnings: warnings, Applied: true}}, nil
}

func appOf(app *storage.App) App {
	state := "active"
	if !app.GoneSince.IsZero() {
		state = "gone"
	}
	if app.Deleting {
		state = "deleting"
	}
	refused := ""
	if app.Refused != nil {
		refused = app.Refused.Reason
	}
	return App{
		Refused: refused, GoneSince: app.GoneSince,
		Name: app.Name, Version: app.Version, ClientID: app.ClientID, AutoEnv: app.AutoEnv, Targets: len(app.Targets),
		State: state, Source: app.Source, Applied: app.Applied,
	}
}

func (a *operations) listApps(ctx context.Context, in *Part) (*items[App], error) {
	stored, next, err := a.Store.AppsPart(ctx, in.stored())
	if err != nil {
		return nil, a.failed(ctx, "apps", err)
	}
	apps := make([]App, 0, len(stored))
	for _, app := range stored {
		apps = append(apps, appOf(app))
	}
	return &items[App]{in.link(next), apps}, nil
}

// view reads an app that must exist.
func (a *operations) view(ctx context.Context, name string) (storage.AppView, error) {
	view, err := a.Store.App(ctx, name)
	if err == nil && view.App == nil {
		err = storage.ErrNotFound
	}
	if err != nil {
		return view, a.failed(ctx, "app "+name, err)
	}
	return view, nil
}

func (a *operations) describeApp(ctx context.Context, in *appInput) (*reply[AppDetail], error) {
	view, err := a.view(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	detail := AppDetail{App: appOf(view.App), Deliveries: []Delivery{}, Secrets: []Secret{}}
	for _, d := range view.Deliveries {
		detail.Deliveries = append(detail.Deliveries, deliveryOf(d))
	}
	if view.Client != nil {
		c := clientOf(view.Client)
		detail.Client, detail.Trust = &c, a.trust(view.Client)
		if detail.Grants, err = a.Store.CountGrants(ctx, view.Client.ID); err != nil {
			return nil, a.failed(ctx, "grants", err)
		}
		secrets, err := a.Rotations.Secrets(ctx, in.Name)
		if err != nil {
			return nil, a.failed(ctx, "secrets", err)
		}
		detail.Secrets = append(detail.Secrets, secrets...)
	}
	return &reply[AppDetail]{detail}, nil
}

// trust is by whose word the users of a client are not asked for consent.
func (a *operations) trust(c *storage.Client) string {
	switch {
	case c.Consent != oauth.ConsentSkip:
		return ""
	case slices.Contains(a.Trusted(), c.App):
		return "configured"
	case c.Trusted:
		return "given"
	}
	return "needed"
}

// Deleted is the reply of deleting an app.
type Deleted struct {
	App  string `json:"app"`
	Gone bool   `json:"gone" doc:"False while its env is still being taken away."`
}

func (a *operations) deleteApp(ctx context.Context, in *deleteInput) (*reply[Deleted], error) {
	if _, err := a.view(ctx, in.Name); err != nil {
		return nil, err
	}
	if err := a.Apps.Delete(ctx, in.Name); err != nil {
		return nil, a.failed(ctx, "app "+in.Name, err)
	}
	if in.Wait > 0 {
		waiting, cancel := within(ctx, time.Duration(in.Wait)*time.Second)
		err := a.Apps.Settle(waiting, in.Name)
		ended := waiting.Err() != nil
		cancel()
		if err != nil && !ended {
			return nil, a.failed(ctx, "app "+in.Name, err)
		}
	}
	ctx, cancel := within(ctx, a.Patience)
	defer cancel()
	view, err := a.Store.App(ctx, in.Name)
	if err != nil {
		return nil, a.failed(ctx, "app "+in.Name, err)
	}
	return &reply[Deleted]{Deleted{App: in.Name, Gone: view.App == nil}}, nil
}

func (a *operations) credentials(ctx context.Context, in *appInput) (*reply[Credentials], error) {
	view, err := a.view(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if view.Client == nil {
		return nil, problem(http.StatusNotFound, codeNoClient,
			"The app "+in.Name+" has no client.", "Its manifest needs spec.oauth.")
	}
	out := Credentials{ClientID: view.Client.ID, Issuer: a.Issuer}
	if out.Resource = view.Client.Resource; out.Resource != "" {
		out.ResourceMetadata = oauth.ResourceMetadataURL(a.Issuer, out.Resource)
	}
	if view.Client.TokenEndpointAuthMethod == oauth.AuthWorkload {
		out.AssertionFile, out.Identities = oauth.AssertionFile, view.Client.Identities
	}
	if len(view.Client.Secrets) > 0 {
		if out.ClientSecret, err = a.Store.ClientSecretValue(view.Client); err != nil {
			return nil, a.failed(ctx, "secret of app "+in.Name, err)
		}
	}
	// Recorded before they are sent, so that no reading goes unrecorded.
	err = a.Store.Record(ctx, storage.AuditEntry{
		Action: storage.AuditCredentials, App: in.Name, Detail: "client " + view.Client.ID})
	if err != nil {
		return nil, a.failed(ctx, "audit log", err)
	}
	a.Logger.Info("credentials handed out", "app", in.Name, "client", view.Client.ID)
	return &reply[Credentials]{out}, nil
}
