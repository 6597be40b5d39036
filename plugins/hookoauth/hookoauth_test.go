package hookoauth

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
)

// The test binary is the plugin as well.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		Serve()
		return
	}
	os.Exit(m.Run())
}

const full = `{"apiVersion":"takos.dev/v1alpha1","kind":"App","metadata":{"name":"my-oauth-app"},"spec":{"version":"1.0.0",
"oauth":{"clientName":"My App","redirectUris":["https://my.app/cb","http://localhost:*"],"scopes":["threads:read","runs:write"],"autoEnv":true,
 "postLogoutRedirectUris":["https://my.app/bye"],"metadata":{"logoUri":"https://my.app/logo.png","tosUri":"https://my.app/tos","policyUri":"https://my.app/privacy"}},
"workers":{"web":{"env":{"A":"b"}},"api":{}},"containers":{"web":{"port":80}},"services":{"db":null},"routes":[{"name":"r","target":"web","path":"/"}]}}`

func evaluate(t *testing.T, manifest string, change func(*plugins.EvaluateRequest)) plugins.Answer {
	t.Helper()
	req := plugins.EvaluateRequest{Manifest: json.RawMessage(manifest), Issuer: "https://issuer.test"}
	if change != nil {
		change(&req)
	}
	answer, err := Evaluate(req)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// names lists what each target gets, as kind/name: NAME NAME.
func names(answer plugins.Answer) []string {
	var out []string
	for _, target := range answer.Targets {
		line := target.Target.String() + ":"
		for _, name := range []string{EnvClientID, EnvClientSecret, EnvIssuer, EnvAssertionFile, EnvResource,
			EnvResourceMetadata, "OTHER"} {
			if v, ok := target.Env[name]; ok {
				line += " " + name + "=" + string(v.Source)
				if name == EnvResource || name == EnvResourceMetadata || name == EnvAssertionFile {
					line += v.Literal
				}
			}
		}
		out = append(out, line)
	}
	return out
}

func TestManifestBecomesRegistration(t *testing.T) {
	got := evaluate(t, full, nil).Client
	want := &plugins.Registration{
		ClientName: "My App", RedirectURIs: []string{"https://my.app/cb", "http://localhost:*"},
		Scopes:  []string{"threads:read", "runs:write"},
		LogoURI: "https://my.app/logo.png", TOSURI: "https://my.app/tos", PolicyURI: "https://my.app/privacy",
		PostLogoutRedirectURIs: []string{"https://my.app/bye"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// everything is a manifest in which each field of the table is set, and the registration that it means.
func everything(t *testing.T) (manifest string, want *plugins.Registration) {
	t.Helper()
	const keySet = `{"keys":[{"kid":"1","kty":"EC"}]}`
	zero := int64(0)
	written, want := make(map[string]any), new(plugins.Registration)
	for _, f := range oauth.Fields() {
		var value any
		switch to := f.Of(want).(type) {
		case *string:
			*to, value = f.Key, f.Key
			if f.Kind == oauth.KindKeys {
				*to, value = keySet, json.RawMessage(keySet)
			}
		case *bool:
			*to, value = true, true
		case *[]string:
			*to = []string{f.Key, "and more"}
			value = *to
		case *[]oauth.WorkloadIdentity:
			*to = []oauth.WorkloadIdentity{{Issuer: "https://ci.example.com", Subject: "job", Audience: "here"},
				{Issuer: "i", Subject: "s"}}
			value = *to
		case **int64:
			*to, value = &zero, zero
		}
		at, name := written, f.Key
		if common, rest, below := strings.Cut(f.Key, "."); below {
			if at[common] == nil {
				at[common] = make(map[string]any)
			}
			at, name = at[common].(map[string]any), rest
		}
		at[name] = value
	}
	raw, err := json.Marshal(map[string]any{"spec": map[string]any{"oauth": written}})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw), want
}

func TestEveryFieldReachesTheRegistration(t *testing.T) {
	manifest, want := everything(t)
	if got := evaluate(t, manifest, nil).Client; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, none := range []string{
		`{"spec":{"oauth":{"jwks":null,"metadata":null,"defaultMaxAge":null,"autoEnv":null}}}`, `{"spec":{"oauth":{}}}`,
	} {
		if got := evaluate(t, none, nil).Client; !reflect.DeepEqual(got, new(plugins.Registration)) {
			t.Errorf("%s: %+v", none, got)
		}
	}
}

func TestAutoEnvReachesEveryWorkerContainerAndService(t *testing.T) {
	const all = " OAUTH_CLIENT_ID=clientId OAUTH_CLIENT_SECRET=clientSecret OAUTH_ISSUER=issuer"
	for name, c := range map[string]struct {
		manifest string
		want     string
	}{
		"autoEnv true":                {full, all},
		"autoEnv false takes it away": {strings.Replace(full, `"autoEnv":true`, `"autoEnv":false`, 1), ""},
		"autoEnv not written":         {strings.Replace(full, `"autoEnv":true,`, ``, 1), ""},
		"public client has no secret": {strings.Replace(full, `"autoEnv":true`, `"autoEnv":true,"public":true`, 1),
			" OAUTH_CLIENT_ID=clientId OAUTH_ISSUER=issuer"},
		"private_key_jwt has no secret": {strings.Replace(full, `"autoEnv":true`,
			`"autoEnv":true,"tokenEndpointAuthMethod":"private_key_jwt"`, 1), " OAUTH_CLIENT_ID=clientId OAUTH_ISSUER=issuer"},
		"a workload has its token instead": {strings.Replace(full, `"autoEnv":true`,
			`"autoEnv":true,"tokenEndpointAuthMethod":"workload","identities":[{"issuer":"https://ci.example.com","subject":"job"}]`, 1),
			" OAUTH_CLIENT_ID=clientId OAUTH_ISSUER=issuer OAUTH_CLIENT_ASSERTION_FILE=/var/run/secrets/warifu/token"},
		"a resource server has its metadata": {strings.Replace(full, `"autoEnv":true`,
			`"autoEnv":true,"resource":"https://mcp.my.app/mcp"`, 1),
			all + " OAUTH_RESOURCE=https://mcp.my.app/mcp " +
				"OAUTH_RESOURCE_METADATA=https://issuer.test/oauth/resource?resource=https%3A%2F%2Fmcp.my.app%2Fmcp"},
		"no spec.oauth, nothing is injected": {strings.Replace(full, `"oauth":`, `"other":`, 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := []string{"worker/api:" + c.want, "worker/web:" + c.want, "container/web:" + c.want, "service/db:" + c.want}
			if got := names(evaluate(t, c.manifest, nil)); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestNoOAuthSectionIsNoClient(t *testing.T) {
	for _, manifest := range []string{`{"spec":{}}`, `{}`, `{"spec":{"oauth":null}}`} {
		if answer := evaluate(t, manifest, nil); answer.Client != nil || len(answer.Denials)+len(answer.Warnings) > 0 {
			t.Errorf("%s: %+v", manifest, answer)
		}
	}
}

func TestLoopbackRedirectIsAWarningOutsideDev(t *testing.T) {
	uris := []string{
		"https://my.app/cb", "http://localhost:*", "http://127.0.0.1:8080/cb", "http://[::1]:*/cb",
		"http://LOCALHOST", "https://localhost/cb", "http://localhost.evil.test", "http://127.0.0.1.evil.test/",
		"myapp://localhost",
	}
	raw, err := json.Marshal(map[string]any{"spec": map[string]any{"oauth": map[string]any{"redirectUris": uris,
		"postLogoutRedirectUris": uris[1:2]}}})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, w := range evaluate(t, string(raw), nil).Warnings {
		if w.Code != CodeLoopbackRedirect || w.Message == "" || w.Remedy == "" {
			t.Errorf("warning: %+v", w)
		}
		paths = append(paths, w.Path)
	}
	want := []string{"spec.oauth.redirectUris[1]", "spec.oauth.redirectUris[2]", "spec.oauth.redirectUris[3]",
		"spec.oauth.postLogoutRedirectUris[0]"}
	if !reflect.DeepEqual(paths, want) {
		t.Errorf("got  %q\nwant %q", paths, want)
	}
	if dev := evaluate(t, string(raw), func(r *plugins.EvaluateRequest) { r.Dev = true }); len(dev.Warnings) > 0 {
		t.Errorf("in dev: %+v", dev.Warnings)
	}
}

func TestWhatTheHookBeforeDecidedIsKept(t *testing.T) {
	previous := &plugins.Answer{
		Client: &plugins.Registration{ClientName: "of another hook"},
		Targets: []plugins.TargetEnv{
			{Target: plugins.Target{Kind: plugins.TargetWorker, Name: "web"},
				Env: map[string]plugins.EnvValue{"OTHER": {Literal: "x"}, EnvIssuer: {Literal: "x"}}},
			{Target: plugins.Target{Kind: plugins.TargetService, Name: "new"},
				Env: map[string]plugins.EnvValue{"OTHER": {Literal: "x"}}},
		},
	}
	with := func(r *plugins.EvaluateRequest) { r.Previous = previous }
	got := names(evaluate(t, `{"spec":{"oauth":{"autoEnv":true},"workers":{"web":{}}}}`, with))
	want := []string{"worker/web: OAUTH_CLIENT_ID=clientId OAUTH_CLIENT_SECRET=clientSecret OAUTH_ISSUER=issuer OTHER=",
		"service/new: OTHER="}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(previous.Targets[0].Env) != 2 {
		t.Error("the answer before was changed")
	}
	if answer := evaluate(t, `{"spec":{}}`, with); answer.Client != previous.Client {
		t.Errorf("without spec.oauth: %+v", answer.Client)
	}
}

func TestManifestThatIsNotOneIsInvalidAndNotQuoted(t *testing.T) {
	for _, manifest := range []string{``, `[]`, `{"spec":{"oauth":{"clientName":["swordfish"]}}}`, `swordfish`} {
		_, err := Evaluate(plugins.EvaluateRequest{Manifest: json.RawMessage(manifest)})
		if !errors.Is(err, plugins.ErrInvalid) || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: %v", manifest, err)
		}
	}
}

func TestServedAsAPluginItAnswersTheSame(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host, err := plugins.NewHost(plugins.HostOptions{Logger: slog.New(slog.DiscardHandler), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	}()
	hook, err := host.Hook(plugins.Spec{Name: "oauth", Path: path, Args: []string{"serve"}, Config: json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	metadata, _ := everything(t)
	for _, manifest := range []string{full, metadata} {
		got, err := hook.Evaluate(t.Context(), plugins.EvaluateRequest{Manifest: json.RawMessage(manifest)})
		if err != nil {
			t.Fatal(err)
		}
		if want := evaluate(t, manifest, nil); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	misconfigured, err := host.Hook(plugins.Spec{Name: "oauth-2", Path: path, Args: []string{"serve"},
		Config: json.RawMessage(`{"colour":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := misconfigured.Describe(t.Context()); err == nil || !strings.Contains(err.Error(), `no setting "colour"`) {
		t.Errorf("an unknown setting: %v", err)
	}
}
