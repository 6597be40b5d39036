package admin

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/server/doctor"
)

// Examined is what a server has found out about itself.
type Examined struct {
	At       time.Time        `json:"at" doc:"By the clock of the server."`
	Findings []doctor.Finding `json:"findings" nullable:"false"`
	Probe    string           `json:"probe,omitempty" doc:"Sent to the issuer in the header Warifu-Probe within two minutes, it has the server say in the header Warifu-Arrived of its reply what has arrived of that request: JSON in base64url."`
}

type examineInput struct {
	Check string `query:"check" maxLength:"64" doc:"Only the check of this name, such as etcd."`
}

func (a *operations) registerDoctor(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "doctor", Method: http.MethodGet, Path: "/v1/doctor",
		Summary: "Look for what is wrong, or soon will be",
		Description: "What only the server knows: etcd, replicas, keys, plugins, deliveries, secrets. Nothing is " +
			"changed.",
		Tags: []string{"about"}, Errors: []int{503},
	}, a.examine)
}

func (a *operations) examine(ctx context.Context, in *examineInput) (*reply[Examined], error) {
	out := Examined{At: time.Now().UTC(), Findings: []doctor.Finding{}}
	if a.Doctor != nil {
		checks := a.Doctor()
		if in.Check != "" {
			checks = slices.DeleteFunc(checks, func(c doctor.Check) bool { return c.Name != in.Check })
		}
		out.Findings = doctor.Run(ctx, checks...)
	}
	if a.Probe != nil && in.Check == "" {
		probe, err := a.Probe()
		if err != nil {
			a.logFault(ctx, "admin API", "probe", err) // the findings are worth more
		}
		out.Probe = probe
	}
	return &reply[Examined]{out}, nil
}
