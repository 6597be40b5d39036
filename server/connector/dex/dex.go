// Package dex has the connectors to the world outside: directories and identity providers, in the kinds that Dex has,
// with the same keys in the configuration, so that whoever runs Dex can bring theirs along. The trees of Dex's own
// connector packages hang on this one import.
//
// Most kinds are Dex's code behind an adapter (redirect.go, password.go). Four are ours, with Dex's keys: oidc
// (oidc.go), because Dex's asks for no nonce and checks no issuer of an answer; saml (saml.go), because Dex calls its
// own unmaintained; ldap (ldap.go) and oauth (oauth.go), because Dex's wait without a deadline.
//
// [New] reads a configuration strictly (decode.go) and asks nobody. What is asked, is asked later, with a deadline and
// a bound (upstream.go). Dex's errors have no types, and quote upstreams: verdict.go tells verdicts from faults, and
// keeps of the words what names nobody. Nothing that Dex's code logs about people is logged (log.go).
package dex

import (
	"encoding/json"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/dexidp/dex/connector/atlassiancrowd"
	"github.com/dexidp/dex/connector/authproxy"
	"github.com/dexidp/dex/connector/bitbucketcloud"
	"github.com/dexidp/dex/connector/gitea"
	"github.com/dexidp/dex/connector/github"
	"github.com/dexidp/dex/connector/gitlab"
	"github.com/dexidp/dex/connector/google"
	"github.com/dexidp/dex/connector/keystone"
	"github.com/dexidp/dex/connector/ldap"
	"github.com/dexidp/dex/connector/linkedin"
	"github.com/dexidp/dex/connector/microsoft"
	"github.com/dexidp/dex/connector/oauth"
	"github.com/dexidp/dex/connector/oidc"
	"github.com/dexidp/dex/connector/openshift"

	"github.com/warifu/warifu/server/connector"
)

// Spec is a connector as the configuration names it.
type Spec struct {
	Type string // one of [Types]
	ID   string
	// Config is what stands below config, as JSON.
	Config json.RawMessage
	// Callbacks are the addresses of this server to which an upstream may send browsers back, the usual one first:
	// {issuer}/callback/{id} and {issuer}/callback. A redirectURI of the configuration is one of them.
	Callbacks []string
	// Ask is how often the upstream is asked again about its users (refreshUpstream), which [New] hands on to
	// [connector.Connector.Ask]; 0 for never. Only if it is set does a connector get a refresh token of the upstream.
	Ask time.Duration
	// SkipGroups is whether the upstream is not asked for groups, nor for the permission to read them.
	SkipGroups bool
	// TrustUpstream is whether [connector.Identity] says how and when the upstream found out who somebody is (amr, acr and
	// auth_time).
	TrustUpstream bool
	// Trusted reports whether the peer of a request, as in [net/http.Request.RemoteAddr], is a proxy whose headers are
	// believed; nil if there is none. It is for authproxy.
	Trusted func(remoteAddr string) bool
	Logger  *slog.Logger
}

// Fault is something that is wrong with [Spec.Config].
type Fault struct {
	Path       string // below config, as in userSearch.baseDN; "" for all of it
	Code       string // unknown-key, type, required, value, file
	Suggestion string
	Message    string // completes the sentence "config.userSearch.baseDN ..."
}

// kind is a type of connector.
type kind struct {
	name string
	// config makes a struct with json tags, into which the configuration is decoded strictly.
	config func() any
	// build makes the connector. It asks no upstream, so it takes no time. What it finds missing or wrong has been decoded
	// without a fault.
	build func(s Spec, config any) (connector.Connector, []Fault)
}

// kinds are all types, by name.
var kinds = []kind{
	{"atlassian-crowd", func() any { return new(atlassiancrowd.Config) }, crowdKind.build},
	{"authproxy", func() any { return new(authproxy.Config) }, buildAuthproxy},
	{"bitbucket-cloud", func() any { return new(bitbucketcloud.Config) }, bitbucketKind.build},
	{"gitea", func() any { return new(gitea.Config) }, giteaKind.build},
	{"github", func() any { return new(github.Config) }, githubKind.build},
	{"gitlab", func() any { return new(gitlab.Config) }, gitlabKind.build},
	{"google", func() any { return new(google.Config) }, googleKind.build},
	{"keystone", func() any { return new(keystone.Config) }, keystoneKind.build},
	{"ldap", func() any { return new(ldap.Config) }, ldapKind.build},
	{"linkedin", func() any { return new(linkedin.Config) }, linkedinKind.build},
	{"microsoft", func() any { return new(microsoft.Config) }, microsoftKind.build},
	{"oauth", func() any { return new(oauth.Config) }, oauthKind.build},
	{"oidc", func() any { return new(oidc.Config) }, buildOIDC},
	{"openshift", func() any { return new(openshift.Config) }, openshiftKind.build},
	{"saml", func() any { return new(samlConfig) }, buildSAML},
	{"samlExperimental", func() any { return new(samlConfig) }, buildSAML}, // Dex's old name
}

// askForGroups are the types that read groups by themselves, often with a permission of their own. The others are told
// of them with everything else.
var askForGroups = []string{
	"atlassian-crowd", "bitbucket-cloud", "github", "gitlab", "google", "keystone", "ldap", "microsoft",
}

// Types are the names of all types.
func Types() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// New makes the connector of s, or says everything that is wrong with its configuration. It reads the files that the
// configuration names, and asks no upstream.
func New(s Spec) (connector.Connector, []Fault) {
	for _, k := range kinds {
		if k.name != s.Type {
			continue
		}
		var r report
		config := k.config()
		r.decode(s.Config, config)
		made, faults := k.build(s, config)
		if required := reflect.ValueOf(config).Elem().FieldByName("Groups"); s.SkipGroups {
			switch {
			case !slices.Contains(askForGroups, k.name):
				r.fault("", "value", "", "is of a type that does not ask for groups by itself: leave skipGroups out")
			case required.IsValid() && required.Len() > 0:
				r.fault("groups", "value", "", "cannot be combined with skipGroups: they would not be enforced")
			}
		}
		for _, f := range faults {
			r.fault(f.Path, f.Code, f.Suggestion, "%s", f.Message)
		}
		if len(r.faults) > 0 {
			return connector.Connector{}, r.faults
		}
		return made, nil
	}
	return connector.Connector{}, []Fault{{Code: "value", Message: "is not a type of connector"}}
}

func sortedKeys(object map[string]any) []string { return slices.Sorted(maps.Keys(object)) }
