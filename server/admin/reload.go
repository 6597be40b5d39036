package admin

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Reloaded is what has become of a configuration that was read again.
type Reloaded struct {
	Changed    []string   `json:"changed" nullable:"false" doc:"Keys whose changes are in effect now, and keys whose files have changed."`
	Connectors Connectors `json:"connectors,omitzero" doc:"Those that have come, changed or gone."`
	Restart    []Waiting  `json:"restart" nullable:"false" doc:"Keys whose changes take effect at the next start."`
	Warnings   []Fault    `json:"warnings" nullable:"false"`
	Since      time.Time  `json:"since,omitzero" doc:"If nothing has changed: when something last did. Left out where nothing has since the start."`
	Before     []string   `json:"before,omitempty" doc:"What was taken over then, in words."`
}

// What says in words what counts now.
func (r Reloaded) What() (lines []string) {
	for _, line := range []struct {
		what string
		keys []string
	}{
		{"changed", r.Changed}, {"connectors added", r.Connectors.Added},
		{"connectors changed", r.Connectors.Changed}, {"connectors removed", r.Connectors.Removed},
	} {
		if len(line.keys) > 0 {
			lines = append(lines, line.what+": "+strings.Join(line.keys, ", "))
		}
	}
	if r.Connectors.Reordered {
		lines = append(lines, "connectors: in another order")
	}
	return lines
}

// Connectors are ids of those that have come, changed or gone.
type Connectors struct {
	Added     []string `json:"added,omitempty"`
	Changed   []string `json:"changed,omitempty"`
	Removed   []string `json:"removed,omitempty"`
	Reordered bool     `json:"reordered,omitempty"`
}

// Waiting is a key that counts from the next start on.
type Waiting struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

func (a *operations) registerReload(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "reload", Method: http.MethodPost, Path: "/v1/reload", Summary: "Read the configuration again",
		Description: "Answers once it is in force. A faulty one is refused as a whole, and the previous one stays in " +
			"use.",
		Tags: []string{"about"}, Errors: []int{409, 422, 503},
	}, a.reload)
}

func (a *operations) reload(ctx context.Context, _ *struct{}) (*reply[Reloaded], error) {
	if a.Reload == nil {
		return nil, NoConfiguration()
	}
	done, err := a.Reload(ctx)
	if err != nil {
		return nil, a.failed(ctx, "configuration", err)
	}
	return &reply[Reloaded]{done}, nil
}

// NoConfiguration is the problem of a server that cannot read its configuration again.
func NoConfiguration() *Problem {
	return problem(http.StatusConflict, codeNoConfiguration,
		"This server is not running on a configuration that it could read again.", "Start it with warifu serve.")
}

// InvalidConfiguration is the problem of a configuration that was read again and is not taken over.
func InvalidConfiguration(detail, remedy string, faults []Fault) *Problem {
	p := problem(http.StatusUnprocessableEntity, codeInvalidConfiguration,
		detail+"; the previous one stays in use.", remedy)
	p.Faults = faults
	return p
}
