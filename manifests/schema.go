package manifests

import (
	"bytes"
	_ "embed" // app.schema.json
	"encoding/json"
	"fmt"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/warifu/warifu/server/oauth"
)

//go:embed app.schema.json
var appSchema []byte

// Schema returns the JSON Schema (draft 2020-12) of a manifest, by which editors complete and check. It is less
// strict than [Parse], which also knows the scope catalogue and checks parts against each other, but never refuses
// what Parse accepts.
func Schema() []byte { return bytes.Clone(appSchema) }

// generateSchema writes the table as a schema.
func generateSchema() ([]byte, error) {
	s := manifestShape.schema()
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.ID = "https://raw.githubusercontent.com/warifu/warifu/main/manifests/app.schema.json"
	s.Title = "app.yml"
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(s); err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return b.Bytes(), nil
}

// schema is the JSON Schema of one shape.
func (s *shape) schema() *jsonschema.Schema {
	out := &jsonschema.Schema{Description: s.about}
	var kind string
	switch s.kind {
	case anyKind:
	case textKind:
		kind = "string"
		if s.nonEmpty {
			out.MinLength = jsonschema.Ptr(1)
		}
		if s.constant != "" {
			out.Const = jsonschema.Ptr[any](s.constant)
		}
		for _, choice := range s.choices {
			out.Enum = append(out.Enum, choice)
		}
		if s.choices != nil && s.nullable {
			out.Enum = append(out.Enum, nil)
		}
	case flagKind:
		kind = "boolean"
		out.Default = json.RawMessage("false")
	case numberKind:
		kind = "integer"
		out.Minimum, out.Maximum = jsonschema.Ptr(0.0), jsonschema.Ptr(float64(s.most))
	case listKind:
		kind = "array"
		out.Items, out.UniqueItems = s.each.schema(), s.unique
		if s.nonEmpty {
			out.MinItems = jsonschema.Ptr(1)
		}
	case objectKind:
		kind = "object"
		out.Properties = map[string]*jsonschema.Schema{}
		for _, f := range s.fields {
			out.Properties[f.name] = f.shape.schema()
			out.PropertyOrder = append(out.PropertyOrder, f.name)
			if f.required {
				out.Required = append(out.Required, f.name)
			}
		}
		if s.others == refuseUnknown {
			out.AdditionalProperties = &jsonschema.Schema{Not: &jsonschema.Schema{}}
		}
	case mappingKind:
		kind = "object"
		out.AdditionalProperties = s.each.schema()
	}
	switch {
	case kind != "" && s.nullable:
		out.Types = []string{kind, "null"}
	case kind != "":
		out.Type = kind
	}
	if s.describe != nil {
		s.describe(out)
	}
	return out
}

func describeName(s *jsonschema.Schema) {
	s.Pattern = dnsLabelPattern
	s.Examples = []any{"my-oauth-app"}
}

// describeVersion adds the expression that semver.org recommends.
func describeVersion(s *jsonschema.Schema) {
	s.Pattern = `^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
		`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`
	s.MaxLength = jsonschema.Ptr(maxVersion)
	s.Examples = []any{"1.0.0"}
}

func describeClientName(s *jsonschema.Schema) {
	s.Pattern = `\S`
	s.MaxLength = jsonschema.Ptr(oauth.MaxClientName)
	s.Examples = []any{"My OAuth App"}
}

func describeClientID(s *jsonschema.Schema) {
	s.Pattern = oauth.ClientIDPattern
	s.MaxLength = jsonschema.Ptr(oauth.MaxClientID)
	s.Examples = []any{"kubernetes"}
}

func describeScope(s *jsonschema.Schema) {
	s.Pattern = oauth.ScopePattern
	s.MaxLength = jsonschema.Ptr(oauth.MaxScope)
	s.Examples = []any{
		"threads:read", "threads:write", "runs:read", "runs:write", "files:read", "files:write", "repos:read", "repos:write",
	}
	for _, name := range oauth.StandardScopes() {
		s.Examples = append(s.Examples, name)
	}
}

// describeOAuth requires nothing of what is only a resource server, and of all others redirectUris, or
// hosts behind forward auth, where users sign in.
func describeOAuth(s *jsonschema.Schema) {
	var required []string
	for _, f := range oauth.Fields() {
		if f.Required {
			required = append(required, f.Key)
		}
	}
	s.If = &jsonschema.Schema{
		Required: []string{"resource"},
		Properties: map[string]*jsonschema.Schema{
			"redirectUris": {Not: &jsonschema.Schema{}}, "grantTypes": {Type: "null"},
		},
	}
	signIn := &jsonschema.Schema{Const: jsonschema.Ptr[any](oauth.GrantAuthorizationCode)}
	s.Else = &jsonschema.Schema{
		Required: required,
		If: &jsonschema.Schema{
			Required: []string{"grantTypes"},
			Properties: map[string]*jsonschema.Schema{
				"grantTypes": {Type: "array", Not: &jsonschema.Schema{Contains: signIn}},
			},
		},
		Else: &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Required: []string{"redirectUris"}}, {Required: []string{"forwardAuth"}},
		}},
	}
}

// describeGrantType lists all grant types; which of them are on is up to the server.
func describeGrantType(s *jsonschema.Schema) {
	for _, name := range oauth.GrantTypes() {
		s.Enum = append(s.Enum, name)
	}
}

func describeAppAddress(s *jsonschema.Schema) {
	s.Pattern = `^(https://[^/?#@*]+|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?)([/?][^#*]*)?$`
	s.MaxLength = jsonschema.Ptr(oauth.MaxRedirectURI)
}

func describeOrigin(s *jsonschema.Schema) {
	s.Pattern = `^[a-z][a-z0-9+.-]*://[^/?#@]+$`
	s.Examples = []any{"https://app.example.com", "http://localhost:*"}
}

func describeResourceIdentifier(s *jsonschema.Schema) {
	s.Pattern = `^[A-Za-z][A-Za-z0-9+.-]*:[^#]+$`
	s.MaxLength = jsonschema.Ptr(oauth.MaxAddress)
	s.Examples = []any{"https://api.example.com"}
}

// describeAccess requires that a rule about access says something.
func describeAccess(s *jsonschema.Schema) { s.MinProperties = jsonschema.Ptr(1) }

// describeIdentityPart is about what is compared to the letter.
func describeIdentityPart(s *jsonschema.Schema) {
	s.Pattern = `^[!-~]+$`
	s.MaxLength = jsonschema.Ptr(oauth.MaxIdentityPart)
}

// describeIdentitySubject adds that nothing in it stands for something else.
func describeIdentitySubject(s *jsonschema.Schema) {
	describeIdentityPart(s)
	s.Pattern = `^[!-)+-~]+$`
	s.Examples = []any{"system:serviceaccount:shop:web", "repo:example/shop:environment:production"}
}

func describeGroup(s *jsonschema.Schema) {
	s.Pattern = `^\S(.*\S)?$`
	s.MaxLength = jsonschema.Ptr(oauth.MaxGroup)
	s.Examples = []any{"admins", "team-a"}
}

func describeAppName(s *jsonschema.Schema) {
	s.Pattern = dnsLabelPattern
	s.Examples = []any{"kubectl"}
}

func describeConnector(s *jsonschema.Schema) {
	s.MinLength = jsonschema.Ptr(1)
	s.Examples = []any{"local"}
}

func describeEmail(s *jsonschema.Schema) {
	s.Pattern = `^[^@]+@[^@]+$`
	s.MaxLength = jsonschema.Ptr(oauth.MaxEmail)
	s.Examples = []any{"ann@example.com", "*@example.com"}
}

func describeClaim(s *jsonschema.Schema) {
	s.MinLength = jsonschema.Ptr(1)
	s.Examples = []any{oauth.ScopeGroups, "email"}
}

func describeJWK(s *jsonschema.Schema) {
	s.Required = []string{"kty"}
	kinds := &jsonschema.Schema{}
	for _, kind := range oauth.KeyTypes() {
		kinds.Enum = append(kinds.Enum, kind)
	}
	s.Properties = map[string]*jsonschema.Schema{"kty": kinds}
	for _, name := range oauth.PrivateMembers() {
		s.Properties[name] = &jsonschema.Schema{Not: &jsonschema.Schema{}}
	}
}

func describeRedirectURI(s *jsonschema.Schema) {
	s.Pattern = `^((https://[^/?#@*]+|http://(localhost|127\.0\.0\.1|\[::1\])(:([0-9]+|\*))?)([/?][^#*]*)?|` +
		`[a-z][a-z0-9+.-]*:/[^#*]*)$`
	s.Examples = []any{"https://app.example.com/callback", "http://localhost:*", "http://localhost:*/callback",
		"http://127.0.0.1/callback", "com.example.app:/callback"}
}

func describeForwardAuth(s *jsonschema.Schema) { s.Required = []string{"hosts"} }

func describeForwardHost(s *jsonschema.Schema) {
	s.Pattern = `^[a-z0-9.\[\]:-]+$`
	s.Examples = []any{"wiki.example.com", "wiki.example.com:8443"}
}

func describeWebAddress(s *jsonschema.Schema) {
	s.Pattern = `^https?://[^/?#@]+([/?#].*)?$`
	s.MaxLength = jsonschema.Ptr(oauth.MaxAddress)
}

// describeInterval is what [time.ParseDuration] takes.
func describeInterval(s *jsonschema.Schema) {
	s.Pattern = `^[+-]?(0|([0-9.]+(ns|us|µs|μs|ms|s|m|h))+)$`
	s.Examples = []any{"30s"}
}

func describeTargets(s *jsonschema.Schema) {
	s.PropertyNames = &jsonschema.Schema{Pattern: targetNamePattern}
}

func describeEnv(s *jsonschema.Schema) {
	s.Types = []string{"object", "array", "null"}
	s.Items = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
		{Type: "string"},
		{
			Type: "object", Required: []string{"name"},
			Properties: map[string]*jsonschema.Schema{"name": {Type: "string"}, "value": {}},
		},
	}}
}
