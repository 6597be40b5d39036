// Package hookoauth is the built-in deploy hook `oauth`: it reads spec.oauth of
// an app.yml and says which client the app is to have and which variables each
// of its targets gets.
//
// It is a pure function of its request. The manifest has been validated before;
// what the hook adds is meaning:
//
//   - no spec.oauth: no client of this hook's, and nothing injected;
//   - autoEnv: true: OAUTH_CLIENT_ID, OAUTH_ISSUER and, unless the client has
//     none (public, private_key_jwt, or workload), OAUTH_CLIENT_SECRET at every
//     worker, container and service; for a resource server also OAUTH_RESOURCE
//     and OAUTH_RESOURCE_METADATA; for a workload OAUTH_CLIENT_ASSERTION_FILE,
//     the path at which the platform puts its token;
//   - autoEnv: false: the same targets with no variables, which takes away what
//     an earlier version injected;
//   - a loopback redirect URI outside a development server: a warning.
//
// In a chain it keeps what the hook before it decided about other variables and,
// when the manifest has no spec.oauth, about the client.
package hookoauth

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
)

// Variables that are injected. OAUTH_ISSUER lets standard libraries find all
// endpoints.
const (
	EnvClientID     = "OAUTH_CLIENT_ID"
	EnvClientSecret = "OAUTH_CLIENT_SECRET"
	EnvIssuer       = "OAUTH_ISSUER"
	// EnvResource is the resource server that the app is, and EnvResourceMetadata where its metadata is (RFC 9728).
	EnvResource         = "OAUTH_RESOURCE"
	EnvResourceMetadata = "OAUTH_RESOURCE_METADATA"
	// EnvAssertionFile is where a workload finds the token by which it is the client. A runtime that can have such tokens
	// issued sees it, and puts one there.
	EnvAssertionFile = "OAUTH_CLIENT_ASSERTION_FILE"
)

// CodeLoopbackRedirect is the code of the warning about loopback redirect URIs.
const CodeLoopbackRedirect = "loopback_redirect"

// Serve runs the hook as a plugin process; it returns when the host ends it.
func Serve() { plugins.ServeHook(hook{}) }

type hook struct{}

func (hook) Describe() plugins.Description {
	return plugins.Description{Name: "oauth", Version: "1.0.0"}
}

// Configure takes no settings; an empty object is one.
func (hook) Configure(_ context.Context, config json.RawMessage) error {
	if len(config) == 0 {
		return nil
	}
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(config, &settings); err != nil {
		return fmt.Errorf("%w: the config is not an object", plugins.ErrInvalid)
	}
	if len(settings) > 0 {
		return fmt.Errorf("%w: the hook oauth has no setting %q", plugins.ErrInvalid, slices.Sorted(maps.Keys(settings))[0])
	}
	return nil
}

func (hook) Evaluate(_ context.Context, req plugins.EvaluateRequest) (plugins.Answer, error) {
	return Evaluate(req)
}

// manifest is what the hook reads of an app.yml.
type manifest struct {
	Spec struct {
		OAuth      *spec                      `json:"oauth"`
		Workers    map[string]json.RawMessage `json:"workers"`
		Containers map[string]json.RawMessage `json:"containers"`
		Services   map[string]json.RawMessage `json:"services"`
	} `json:"spec"`
}

// spec is spec.oauth: a registration, and what is about the app.
type spec struct {
	plugins.Registration
	AutoEnv bool
}

// UnmarshalJSON reads each field of the registration from where its key says, such as logoUri below metadata.
func (o *spec) UnmarshalJSON(data []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return err
	}
	for _, f := range oauth.Fields() {
		raw, err := member(members, f.Key)
		switch to := f.Of(&o.Registration); {
		case err != nil:
			return err
		case raw == nil || string(raw) == "null":
		case f.Kind == oauth.KindKeys: // a mapping in the manifest, and text in a registration
			*to.(*string) = string(raw)
		default:
			if err := json.Unmarshal(raw, to); err != nil {
				return err
			}
		}
	}
	if raw := members["autoEnv"]; raw != nil {
		return json.Unmarshal(raw, &o.AutoEnv)
	}
	return nil
}

// member is what is at a key, in which a dot is a mapping; nil if there is nothing.
func member(of map[string]json.RawMessage, key string) (json.RawMessage, error) {
	name, rest, below := strings.Cut(key, ".")
	if !below || of[name] == nil {
		return of[name], nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(of[name], &members); err != nil {
		return nil, err
	}
	return member(members, rest)
}

// Evaluate is the hook. The only error is a manifest that is not JSON of the
// shape of an app.yml.
func Evaluate(req plugins.EvaluateRequest) (plugins.Answer, error) {
	var m manifest
	if err := json.Unmarshal(req.Manifest, &m); err != nil {
		// The JSON error may quote the manifest, which may hold anything.
		return plugins.Answer{}, fmt.Errorf("%w: the manifest is not JSON of the shape of an app.yml", plugins.ErrInvalid)
	}
	var previous plugins.Answer
	if req.Previous != nil {
		previous = *req.Previous
	}
	o := m.Spec.OAuth
	if o == nil {
		return plugins.Answer{Client: previous.Client, Targets: withEnv(m.targets(), nil, previous.Targets)}, nil
	}
	answer := plugins.Answer{
		Client:  &o.Registration,
		Targets: withEnv(m.targets(), o.env(req.Issuer), previous.Targets),
	}
	if !req.Dev && !answer.Client.IsNative() {
		answer.Warnings = append(loopbackWarnings("spec.oauth.redirectUris", o.RedirectURIs),
			loopbackWarnings("spec.oauth.postLogoutRedirectUris", o.PostLogoutRedirectURIs)...)
	}
	return answer, nil
}

func (o *spec) env(issuer string) map[string]plugins.EnvValue {
	if !o.AutoEnv {
		return nil
	}
	env := map[string]plugins.EnvValue{
		EnvClientID: {Source: plugins.SourceClientID},
		EnvIssuer:   {Source: plugins.SourceIssuer},
	}
	if o.HasSecret() {
		env[EnvClientSecret] = plugins.EnvValue{Source: plugins.SourceClientSecret}
	}
	if o.TokenEndpointAuthMethod == oauth.AuthWorkload {
		env[EnvAssertionFile] = plugins.EnvValue{Literal: oauth.AssertionFile}
	}
	if o.Resource != "" {
		env[EnvResource] = plugins.EnvValue{Literal: o.Resource}
		env[EnvResourceMetadata] = plugins.EnvValue{Literal: oauth.ResourceMetadataURL(issuer, o.Resource)}
	}
	return env
}

// targets lists the manifest's targets, workers first, each kind by name, so that
// the same manifest always gives the same answer.
func (m *manifest) targets() []plugins.Target {
	var out []plugins.Target
	for _, kind := range []struct {
		name  string
		parts map[string]json.RawMessage
	}{
		{plugins.TargetWorker, m.Spec.Workers},
		{plugins.TargetContainer, m.Spec.Containers},
		{plugins.TargetService, m.Spec.Services},
	} {
		for _, name := range slices.Sorted(maps.Keys(kind.parts)) {
			out = append(out, plugins.Target{Kind: kind.name, Name: name})
		}
	}
	return out
}

// withEnv gives every target of the manifest env, on top of what previous gave
// it. Targets that only previous knows keep what they have.
func withEnv(targets []plugins.Target, env map[string]plugins.EnvValue,
	previous []plugins.TargetEnv) []plugins.TargetEnv {
	before := map[plugins.Target]map[string]plugins.EnvValue{}
	for _, t := range previous {
		before[t.Target] = t.Env
	}
	var out []plugins.TargetEnv
	for _, t := range targets {
		merged := map[string]plugins.EnvValue{}
		maps.Copy(merged, before[t])
		maps.Copy(merged, env)
		out = append(out, plugins.TargetEnv{Target: t, Env: merged})
	}
	for _, t := range previous {
		if !slices.Contains(targets, t.Target) {
			out = append(out, t)
		}
	}
	return out
}

func loopbackWarnings(path string, uris []string) []plugins.Notice {
	var out []plugins.Notice
	for i, uri := range uris {
		if !oauth.IsLoopbackRedirect(uri) {
			continue
		}
		out = append(out, plugins.Notice{
			Code: CodeLoopbackRedirect, Path: fmt.Sprintf("%s[%d]", path, i),
			Message: fmt.Sprintf("is %s, where any program on the user's machine can receive the authorization code", uri),
			Remedy:  "remove it before production; development servers allow it without this warning",
		})
	}
	return out
}
