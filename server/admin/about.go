package admin

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// Info is about the server.
type Info struct {
	Issuer  string `json:"issuer"`
	Version string `json:"version" doc:"Version of the server."`
}

type schemaInput struct {
	Name string `path:"name" maxLength:"64" doc:"As in app.json or config.json."`
}

type schemaOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (a *operations) registerAbout(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "info", Method: http.MethodGet, Path: "/v1/info", Summary: "Say which server this is",
		Tags: []string{"about"}, Errors: []int{500},
	}, func(context.Context, *struct{}) (*reply[Info], error) {
		return &reply[Info]{Info{Issuer: a.Issuer, Version: a.Version}}, nil
	})
	huma.Register(api, huma.Operation{
		OperationID: "schema", Method: http.MethodGet, Path: "/schemas/{name}", Summary: "Serve a JSON Schema, for editors",
		Tags: []string{"about"}, Errors: []int{404},
		Responses: map[string]*huma.Response{"200": {
			Description: "A JSON Schema, draft 2020-12",
			Content:     map[string]*huma.MediaType{"application/schema+json": {Schema: &huma.Schema{Type: "object"}}},
		}},
	}, func(ctx context.Context, in *schemaInput) (*schemaOutput, error) {
		name, isJSON := strings.CutSuffix(in.Name, ".json")
		schema, ok := a.Schemas[name]
		if !ok || !isJSON {
			return nil, a.failed(ctx, "schema "+in.Name, storage.ErrNotFound)
		}
		return &schemaOutput{"application/schema+json", schema}, nil
	})
}
