package main

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// openAPI is the part of the document that the test looks at.
type openAPI struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		Responses map[string]struct {
			Content map[string]struct {
				Schema json.RawMessage `json:"schema"`
			} `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	} `json:"components"`
}

// validator resolves a schema of the document. Its references point into components, which become $defs.
func (d openAPI) validator(t *testing.T, schema json.RawMessage) *jsonschema.Resolved {
	t.Helper()
	defs, err := json.Marshal(d.Components.Schemas)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"allOf":[%s],"$defs":%s}`, schema, defs)
	text = strings.ReplaceAll(text, "#/components/schemas/", "#/$defs/")
	var s jsonschema.Schema
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

// check holds a reply to what the document says about the operation, and returns its body.
func (d openAPI) check(t *testing.T, operation string, resp *http.Response) any {
	t.Helper()
	method, path, _ := strings.Cut(operation, " ")
	documented, ok := d.Paths[path][strings.ToLower(method)]
	if !ok {
		t.Fatalf("%s is not in the document", operation)
	}
	as, ok := documented.Responses[fmt.Sprint(resp.StatusCode)]
	if !ok {
		t.Fatalf("%s answers %d, which is not in the document", operation, resp.StatusCode)
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	media, ok := as.Content[kind]
	if !ok {
		t.Fatalf("%s %d answers %s, which is not in the document", operation, resp.StatusCode, kind)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body any
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatalf("%s: %v in %s", operation, err, text)
	}
	if err := d.validator(t, media.Schema).Validate(body); err != nil {
		t.Errorf("%s %d does not fit its schema: %v\n%s", operation, resp.StatusCode, err, text)
	}
	if cache := resp.Header.Get("Cache-Control"); cache != "no-store" {
		t.Errorf("%s: Cache-Control is %q", operation, cache)
	}
	if operation != "GET /v1/apps/{name}/credentials" && strings.Contains(string(text), "wfs_") {
		t.Errorf("%s hands out a secret", operation)
	}
	return body
}
