package config

import (
	"encoding/json"
	"reflect"

	"github.com/google/jsonschema-go/jsonschema"
)

//go:generate sh -c "go run .. config schema > .schema.tmp && mv .schema.tmp config.schema.json"

// Schema is the JSON Schema (draft 2020-12) of configurations. It is made from the same types, and the same fixed
// values, that the reader uses.
func Schema() []byte {
	types := map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[Duration](): {Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`},
		reflect.TypeFor[Size]():     {Type: "string", Pattern: `^[0-9]+(\.[0-9]+)?[KMGT]iB$`},
		reflect.TypeFor[Share]():    {Type: "string", Pattern: `^[0-9]+(\.[0-9]+)?%$`},
	}
	for _, t := range []reflect.Type{
		reflect.TypeFor[StorageType](), reflect.TypeFor[ConnectorType](), reflect.TypeFor[Subject](),
		reflect.TypeFor[MFADemand](), reflect.TypeFor[ScopeRisk](), reflect.TypeFor[LocalhostRedirects](),
		reflect.TypeFor[IDTokenClaims](), reflect.TypeFor[AccessTokenType](), reflect.TypeFor[AccessTokenAlg](),
		reflect.TypeFor[IssuerAlg](),
		reflect.TypeFor[MailTLS](), reflect.TypeFor[LogLevel](), reflect.TypeFor[LogFormat](),
	} {
		schema := &jsonschema.Schema{Type: "string"}
		for _, value := range choices[t.Name()] {
			schema.Enum = append(schema.Enum, value)
		}
		types[t] = schema
	}
	schema, err := jsonschema.For[Config](&jsonschema.ForOptions{TypeSchemas: types})
	if err != nil {
		panic(err) // the types are fixed when this is compiled
	}
	orNothing(schema)
	for _, section := range []*jsonschema.Schema{ // that are switched
		schema.Properties["oauth2"].Properties["clientIDMetadataDocuments"],
		schema.Properties["trustedIssuers"].Items.Properties["kubernetes"],
	} {
		section.Types = append(section.Types, "boolean")
	}
	schema.Schema = "https://json-schema.org/draft/2020-12/schema"
	schema.Title = "Configuration of warifu"
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(text, '\n')
}

// orNothing lets every section be empty: a key whose value is left out in YAML is null.
func orNothing(schema *jsonschema.Schema) {
	for _, property := range schema.Properties {
		if property.Type == "object" {
			property.Type, property.Types = "", []string{"null", "object"}
		}
		orNothing(property)
	}
	if schema.Items != nil {
		orNothing(schema.Items)
	}
}
