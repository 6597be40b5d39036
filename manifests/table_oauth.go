package manifests

import (
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

// oauthShape is spec.oauth: the fields that a client has, and autoEnv, which is about the app. What a value may be is
// for [oauth.Check] to say; the shape says what is text, a flag or a list.
var oauthShape = &shape{
	kind: objectKind, describe: describeOAuth, about: "The OAuth client that is registered when the app is deployed.",
	fields: oauthFields(),
}

var autoEnvShape = &shape{
	kind: flagKind, about: "Set OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET and OAUTH_ISSUER in every worker, container and " +
		"service. Off unless written.",
}

// oauthFields are the rows of the table, and what is below a common key gathered into an object of its own.
func oauthFields() []field {
	var fields []field
	metadata := &shape{kind: objectKind, nullable: true, about: "Shown on the consent page."}
	for _, f := range oauth.Fields() {
		if f.Key == "public" {
			fields = append(fields, field{"autoEnv", false, autoEnvShape})
		}
		if name, is := strings.CutPrefix(f.Key, "metadata."); is {
			metadata.fields = append(metadata.fields, field{name, f.Required, clientShape(f)})
			continue
		}
		fields = append(fields, field{f.Key, f.Required, clientShape(f)})
	}
	return append(fields, field{"metadata", false, metadata})
}

// clientShape is the place of a field in a manifest.
func clientShape(f *oauth.Field) *shape {
	s := &shape{about: f.About, nullable: !f.Required && !firstKeys[f.Key] && f.Kind != oauth.KindPage}
	switch f.Kind {
	case oauth.KindName:
		s.kind, s.rule, s.describe = textKind, checkWritten, describeClientName
	case oauth.KindRedirects:
		s.nonEmpty = firstKeys[f.Key]
		listOf(s, "A redirect URI.", describeRedirectURI)
	case oauth.KindScopes:
		s.nonEmpty = true
		listOf(s, "A scope of the server's catalogue.", describeScope)
	case oauth.KindGrants:
		s.nonEmpty = true
		listOf(s, "A grant type.", describeGrantType)
	case oauth.KindResources:
		listOf(s, "An absolute URI without a fragment.", describeResourceIdentifier)
	case oauth.KindFlag:
		s.kind = flagKind
	case oauth.KindSeconds:
		s.kind, s.most = numberKind, oauth.MaxSeconds
	case oauth.KindChoice:
		s.kind, s.rule, s.choices = textKind, checkWritten, f.Choices
	case oauth.KindKeys:
		s.kind, s.others, s.fields = objectKind, warnUnknown, keySetFields
	case oauth.KindAddress, oauth.KindSector:
		s.kind, s.rule, s.describe = textKind, checkWritten, describeAppAddress
	case oauth.KindPage:
		s.kind, s.rule, s.describe = textKind, checkWritten, describeWebAddress
	}
	return s
}

// firstKeys are those of the first manifests that are nothing when they are left out, and must not be left empty.
var firstKeys = map[string]bool{"redirectUris": true, "public": true}

// keySetFields are those of a JWK Set (RFC 7517 section 5).
var keySetFields = []field{
	{"keys", true, &shape{
		kind: listKind, nonEmpty: true, about: "The keys.",
		each: &shape{
			kind: mappingKind, describe: describeJWK, about: "A public key: RSA of 2048 bits or more, EC P-256 or Ed25519.",
			each: passing("A member of the key."),
		},
	}},
}

func listOf(s *shape, about string, describe func(*jsonschema.Schema)) {
	s.kind, s.unique, s.each = listKind, true, &shape{kind: textKind, describe: describe, about: about}
}

// checkWritten refuses a key that is written with nothing in it: a client that has nothing there leaves the key out.
func checkWritten(c *checker, v *strictyaml.Value, path string) {
	if v.Text == "" {
		c.Errorf(v.Position, path, "required", "", "is empty")
	}
}
