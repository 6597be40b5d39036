package manifests

import (
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

// oauthShape is spec.oauth: the fields that a client has, and autoEnv and clientId, which are about the app. What a
// value may be is for [oauth.Check] to say; the shape says what is text, a flag or a list.
var oauthShape = &shape{
	kind: objectKind, describe: describeOAuth, about: "The OAuth client that is registered when the app is deployed.",
	fields: oauthFields(),
}

var autoEnvShape = &shape{
	kind: flagKind, about: "Set OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET and OAUTH_ISSUER in every worker, container and " +
		"service; with resource also OAUTH_RESOURCE and OAUTH_RESOURCE_METADATA. Off unless written.",
}

var clientIDShape = &shape{
	kind: textKind, rule: checkClientID, describe: describeClientID, about: "The client id that the app has already, " +
		"elsewhere or in programs that know it. Without it one is made, and kept.",
}

func checkClientID(c *checker, v *strictyaml.Value, path string) {
	if !oauth.ValidClientID(v.Text) {
		c.Errorf(v.Position, path, "client-id", "",
			"must be 1 to %d letters, digits and . _ ~ @ -, of which the first is a letter or a digit", oauth.MaxClientID)
	}
}

// oauthFields are the rows of the table, and what is below a common key gathered into an object of its own. Which of
// them are required depends on the others, so that is for [oauth.Check] to say as well.
func oauthFields() []field {
	var fields []field
	objects := make(map[string]*shape)
	for _, f := range oauth.Fields() {
		if f.Key == "public" {
			fields = append(fields, field{"autoEnv", false, autoEnvShape}, field{"clientId", false, clientIDShape})
		}
		common, name, below := strings.Cut(f.Key, ".")
		if !below {
			fields = append(fields, field{f.Key, false, clientShape(f)})
			continue
		}
		object := objects[common]
		if object == nil {
			object = &shape{kind: objectKind, nullable: true, about: commonKeys[common]}
			if common == "access" {
				object.nullable, object.rule, object.describe = false, checkAccess, describeAccess
			}
			if common == "forwardAuth" {
				object.rule, object.describe = checkForwardAuth, describeForwardAuth
			}
			objects[common] = object
			fields = append(fields, field{common, false, object})
		}
		object.fields = append(object.fields, field{name, false, clientShape(f)})
	}
	return fields
}

// commonKeys are those that hold others, and what these are about.
var commonKeys = map[string]string{
	"metadata":      "Shown on the consent page.",
	"refreshTokens": "The app's refresh tokens; each can be used once.",
	"forwardAuth":   "An app that knows no OAuth, behind a proxy that asks this server about each request.",
	"access": "Who may use the app, of those who can sign in, and how they have to prove who they are. Without it: " +
		"everybody, however they sign in.",
}

// checkAccess refuses a rule that says nothing: whoever begins to write one does not mean everybody.
func checkAccess(c *checker, v *strictyaml.Value, path string) {
	if len(v.Fields) == 0 {
		c.Errorf(v.Position, path, "required", "",
			"is empty: list groups, connectors or emails, demand mfa, or leave it out to let everybody in")
	}
}

// checkForwardAuth refuses an app behind forward auth that is nowhere.
func checkForwardAuth(c *checker, v *strictyaml.Value, path string) {
	if v.Field("hosts") == nil {
		c.Errorf(v.Position, strictyaml.Join(path, "hosts"), "required", "",
			"is required: the hosts at which the app is, as in [wiki.example.com]")
	}
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
	case oauth.KindResource:
		s.kind, s.rule, s.describe = textKind, checkWritten, describeResourceIdentifier
	case oauth.KindOrigins:
		listOf(s, "An origin, as browsers send it.", describeOrigin)
	case oauth.KindResources:
		listOf(s, "An absolute URI without a fragment.", describeResourceIdentifier)
	case oauth.KindGroups:
		s.nonEmpty, s.nullable = true, false
		listOf(s, "The name of a group.", describeGroup)
	case oauth.KindGroupPatterns:
		s.nonEmpty, s.nullable = true, false
		listOf(s, "The name of a group; a star stands for any text.", describeGroup)
	case oauth.KindConnectors:
		s.nonEmpty, s.nullable = true, false
		listOf(s, "The id of a connector.", describeConnector)
	case oauth.KindEmails:
		s.nonEmpty, s.nullable = true, false
		listOf(s, "An e-mail address, or *@ and a domain.", describeEmail)
	case oauth.KindClaims:
		s.nonEmpty = true
		listOf(s, "A claim about users.", describeClaim)
	case oauth.KindApps:
		s.nonEmpty = true
		listOf(s, "The name of an app.", describeAppName)
	case oauth.KindIdentities:
		s.kind, s.nonEmpty, s.nullable, s.each = listKind, true, false, identityShape
	case oauth.KindHosts:
		s.nonEmpty, s.nullable = true, false
		listOf(s, "A host, with its port if that is not the usual one.", describeForwardHost)
	case oauth.KindFlag:
		s.kind = flagKind
	case oauth.KindSeconds:
		s.kind, s.most = numberKind, oauth.MaxSeconds
	case oauth.KindInterval:
		s.kind, s.bare, s.rule, s.describe = textKind, true, checkInterval, describeInterval
	case oauth.KindChoice:
		s.kind, s.rule, s.choices = textKind, checkWritten, f.Choices
		s.nullable = s.nullable && f.Key != "access.mfa" // whoever begins to write it means one
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

// identityShape is a workload that may be the client.
var identityShape = &shape{kind: objectKind, about: "A workload.", fields: []field{
	{"issuer", true, &shape{kind: textKind, rule: checkWritten, describe: describeIdentityPart,
		about: "The iss of its tokens, which is one of trustedIssuers in the server's configuration; the trust domain of a " +
			"SPIFFE ID (spiffe://example.org) where the tokens have none."}},
	{"subject", true, &shape{kind: textKind, rule: checkWritten, describe: describeIdentitySubject,
		about: "The sub of its tokens, all of it: system:serviceaccount:NAMESPACE:NAME on Kubernetes, " +
			"repo:OWNER/NAME:environment:NAME for a job of GitHub Actions, " +
			"project_path:GROUP/NAME:ref_type:branch:ref:main for one of GitLab CI, spiffe://DOMAIN/PATH with SPIFFE."}},
	{"audience", false, &shape{kind: textKind, rule: checkWritten, describe: describeIdentityPart,
		about: "For whom its tokens are, and nobody else. Without it: this server (its issuer), unless the server's " +
			"configuration says otherwise of the issuer."}},
}}

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

// checkInterval asks for the unit of a number: quotes would not mend "reuseInterval: 30".
func checkInterval(c *checker, v *strictyaml.Value, path string) {
	if v.IsText() {
		checkWritten(c, v, path)
		return
	}
	suggestion := ""
	if _, ok := wholeNumber(v); ok {
		suggestion = v.Text + "s"
	}
	c.Errorf(v.Position, path, "wrong-type", suggestion, "must be a duration, as in 30s")
}
