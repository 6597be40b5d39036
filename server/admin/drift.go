package admin

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// Drift is how what is there differs from what was applied.
type Drift struct {
	Apps     int            `json:"apps" doc:"How many apps were looked at."`
	Targets  int            `json:"targets" doc:"How many targets were looked at."`
	Findings []DriftFinding `json:"findings" nullable:"false"`
}

// DriftFinding is one difference. It never holds a value of env.
type DriftFinding struct {
	App     string `json:"app,omitempty"`
	Target  string `json:"target,omitempty" doc:"Such as worker/web; left out when the difference is about the whole app."`
	Runtime string `json:"runtime,omitempty"`
	Kind    string `json:"kind" enum:"unapplied,refused,client,env,missing,older,changed,failed,unserved,leftover,unknown" doc:"How it differs. unknown: the runtime does not say what it has."`
	Text    string `json:"text" doc:"The difference in words."`
	Remedy  string `json:"remedy,omitempty" doc:"What to do about it."`
}

type driftInput struct {
	Body struct {
		App       string     `json:"app,omitempty" maxLength:"63" doc:"Only this app; not together with documents."`
		Documents []Document `json:"documents,omitempty" maxItems:"100" doc:"Compare their apps with these, instead of with what was applied."`
	}
}

func (a *operations) registerDrift(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "drift", Method: http.MethodPost, Path: "/v1/drift",
		Summary: "Compare what was applied with what is in place",
		Description: "Compares the registered client, the env that was delivered and the env that runtimes have with what " +
			"the manifests lead to. It changes nothing.",
		Tags: []string{"apps"}, Errors: []int{400, 404, 409, 413, 422, 503}, MaxBodyBytes: maxBody,
	}, a.drift)
}

func (a *operations) drift(ctx context.Context, in *driftInput) (*reply[Drift], error) {
	if in.Body.App != "" && len(in.Body.Documents) > 0 {
		return nil, problem(http.StatusUnprocessableEntity, codeInvalidRequest,
			"app and documents exclude each other.", "Send one of them.")
	}
	drift, err := a.Apps.Drift(ctx, in.Body.Documents, in.Body.App)
	if err != nil {
		return nil, a.failed(ctx, "app "+in.Body.App, err)
	}
	return &reply[Drift]{drift}, nil
}
