package manifests

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/warifu/warifu/manifests/strictyaml"
)

func TestSchemaIsWhatTheTableSays(t *testing.T) {
	generated, err := generateSchema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("app.schema.json", generated, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(generated, Schema()) {
		t.Error("app.schema.json is not what the table says: go generate ./manifests")
	}
}

func resolved(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	data, err := generateSchema()
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	r, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// treesOf reads the documents of a file as far as a validator of JSON could see them.
func treesOf(data []byte) []any {
	r := &strictyaml.Report{}
	var trees []any
	for _, written := range strictyaml.Split(r, data) {
		if root := treeOf(written, r); root != nil {
			trees = append(trees, root.JSON())
		}
	}
	return trees
}

// An editor that checks by the schema must never mark what the server accepts, and does mark what breaks its rules.
func TestSchemaNeverRefusesWhatParseAccepts(t *testing.T) {
	schema := resolved(t)
	var refused int
	for _, dir := range []string{"apps", "faults"} {
		for _, file := range fixtures(t, dir) {
			data := read(t, file)
			_, faults := Parse(file, data, Options{Dev: true})
			for _, tree := range treesOf(data) {
				err := schema.Validate(tree)
				if err != nil && faults.Err() == nil {
					t.Errorf("%s: %v", file, err)
				}
				if err != nil {
					refused++
				}
			}
		}
	}
	if refused < 30 {
		t.Errorf("the schema refused only %d of the faulty documents", refused)
	}
}

func TestSchemaTakesEveryIntervalThatParseTakes(t *testing.T) {
	schema := resolved(t)
	for _, interval := range []string{"30s", "0", "0m30s", "1s500ms", "0.5m", ".5s", "500000us", "+1s", "-0s", "0h",
		"30", "s", "1 s"} {
		data := []byte("apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: app}\nspec:\n  version: 1.0.0\n" +
			"  oauth:\n" +
			"    clientName: App\n    redirectUris: [https://app.test/cb]\n    scopes: [openid]\n" +
			"    refreshTokens: {reuseInterval: \"" + interval + "\"}\n")
		_, faults := Parse("app.yml", data, Options{})
		if good, err := faults.Err() == nil, schema.Validate(treesOf(data)[0]); good != (err == nil) {
			t.Errorf("%q: Parse says %v, and the schema %v", interval, faults.Err(), err)
		}
	}
}

func TestSchemaDescribesEveryKey(t *testing.T) {
	var walk func(s *shape, path string)
	walk = func(s *shape, path string) {
		if s.about == "" {
			t.Errorf("%s has no description", path)
		}
		if s.each != nil {
			walk(s.each, path+"[]")
		}
		for _, f := range s.fields {
			walk(f.shape, strictyaml.Join(path, f.name))
		}
	}
	walk(manifestShape, "")
}
