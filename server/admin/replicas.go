package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Replica is a process that works on the database.
type Replica struct {
	Name    string    `json:"name" doc:"Its host and a random part: like no other."`
	Self    bool      `json:"self,omitempty" doc:"The replica that answers."`
	At      time.Time `json:"at" doc:"What time it said it was when it was last heard, which is once a minute."`
	Version string    `json:"version,omitempty" doc:"Of its program. Left out by versions that do not tell."`
	Started time.Time `json:"started,omitzero"`
	Config  string    `json:"config,omitempty" doc:"A digest of the configuration with which it serves, which says nothing about it: replicas that serve alike have the same."`
	Refused string    `json:"refused,omitempty" doc:"Why it goes on with an older configuration than the one that it has read last. Left out if it does not."`
	Keys    []string  `json:"encryptionKeys" nullable:"false" doc:"Fingerprints of the encryption keys that it has, newest first."`
	Seals   string    `json:"sealsUnder,omitempty" doc:"The fingerprint of that under which it seals."`
}

func (a *operations) registerReplicas(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-replicas", Method: http.MethodGet, Path: "/v1/replicas",
		Summary:     "List the processes that work on the database",
		Description: "The one that answers first. One that has ended without a word is listed for some minutes more.",
		Tags:        []string{"about"}, Errors: []int{503},
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
