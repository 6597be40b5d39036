package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Replica is a process that works on the database.
type Replica struct {
	Name    string    `json:"name" doc:"Its host and a random part, so it is unique."`
	Self    bool      `json:"self,omitempty" doc:"The replica that answers."`
	At      time.Time `json:"at" doc:"The time on its clock when it was last heard from; it reports once per minute."`
	Version string    `json:"version,omitempty" doc:"The version of its program. Left out by versions that do not report it."`
	Started time.Time `json:"started,omitzero"`
	Config  string    `json:"config,omitempty" doc:"A digest of the configuration with which it serves, which says nothing about it: replicas that serve alike have the same."`
	Refused string    `json:"refused,omitempty" doc:"Why it goes on with an older configuration than the one that it has read last. Left out if it does not."`
	Keys    []string  `json:"encryptionKeys" nullable:"false" doc:"Fingerprints of the encryption keys that it has, newest first."`
	Seals   string    `json:"sealsUnder,omitempty" doc:"The fingerprint of that under which it seals."`
}

func (a *operations) registerReplicas(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-replicas", Method: http.MethodGet, Path: "/v1/replicas",
		Summary: "List the processes that work on the database",
		Description: "The replica that answers comes first. One that ended without saying so is listed for a few " +
			"more minutes.",
		Tags: []string{"about"}, Errors: []int{503},
	}, a.listReplicas)
}

func (a *operations) listReplicas(ctx context.Context, _ *struct{}) (*reply[[]Replica], error) {
	stored, err := a.Store.Replicas(ctx)
	if err != nil {
		return nil, a.failed(ctx, "replicas", err)
	}
	out := make([]Replica, 0, len(stored))
	for _, r := range stored {
		out = append(out, Replica{Name: r.Name, Self: r.Self, At: r.At, Version: r.Version, Started: r.Started,
			Config: r.Config, Refused: r.Refused, Keys: listed(r.Keys), Seals: r.SealsUnder})
	}
	return &reply[[]Replica]{out}, nil
}
