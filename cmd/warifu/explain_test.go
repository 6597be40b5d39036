package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
)

// explanation is what the instance says of a refused request.
func (i *instance) explanation(t *testing.T, requestID string) admin.Explanation {
	t.Helper()
	resp := i.ask(t, "GET", "/v1/refusals/"+requestID, "")
	var out admin.Explanation
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("explaining %q: %d, %v", requestID, resp.StatusCode, err)
	}
	return out
}

// refusedProblem sends what must be refused, and returns the problem, which has the id of its request.
func (i *instance) refusedProblem(t *testing.T, path, body string) admin.Problem {
	t.Helper()
	resp := i.ask(t, "POST", path, body)
	var p admin.Problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode < 400 {
		t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
	}
	if id := resp.Header.Get("X-Request-Id"); id == "" || p.RequestID != id {
		t.Errorf("the problem has the request id %q, the header %q", p.RequestID, id)
	}
	return p
}

// Whatever a manifest is refused for is explained by its rule, at its place.
func TestExplainOfFaultyManifests(t *testing.T) {
	i := testInstance(t)
	files, err := filepath.Glob("../../manifests/testdata/faults/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			body := documents(t, map[string]any{"dryRun": true}, string(text))
			resp := i.ask(t, "POST", "/v1/apply", body)
			if resp.StatusCode == http.StatusOK {
				return // nothing is wrong with it but what is warned of
			}
			p := i.refusedProblem(t, "/v1/apply", body)
			e := i.explanation(t, p.RequestID)
			if e.Endpoint != "POST /v1/apply" || e.Error != p.Code || len(e.Reasons) != len(p.Faults) || len(p.Faults) == 0 {
				t.Fatalf("%d faults, explained by %+v", len(p.Faults), e)
			}
			for n, f := range p.Faults {
				why := e.Reasons[n]
				place := f.File
				if f.Line > 0 {
					place = fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
				}
				if strings.ReplaceAll(why.Rule, "_", "-") != strings.ReplaceAll(f.Code, "_", "-") || why.Place != place ||
					why.Key != f.Path || why.Nearest != f.Suggestion {
					t.Errorf("%s at %s is explained by %+v", f.Code, place, why)
				}
				if rule, known := oauth.FindRule(f.Code); !known || why.Meaning != rule.Meaning || why.Remedy != rule.Remedy {
					t.Errorf("no words for the rule %s", f.Code)
				}
			}
		})
	}
}

func TestExplainOfRefusedApplies(t *testing.T) {
	i := testInstance(t, func(c *config.Config) { c.Web.TrustedProxies = []string{"10.0.0.1"} })
	broken := testInstance(t, func(c *config.Config) {
		c.Plugins.DeployHooks = []config.Plugin{{Name: "broken", Path: "/bin/false"}}
	})
	example := exampleManifest(t)
	apply := func(more map[string]any, change ...string) string {
		return documents(t, more, strings.NewReplacer(change...).Replace(example))
	}
	if resp := i.ask(t, "POST", "/v1/apply", apply(nil)); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	onTheWay := apply(nil, "my-oauth-app", "stuck")
	if resp := i.ask(t, "POST", "/v1/apply", onTheWay); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	view, err := i.store.App(t.Context(), "stuck")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.store.BeginDelete(t.Context(), view, nil); err != nil {
		t.Fatal(err)
	}
	owner := "    clientId: chosen\n    forwardAuth: {hosts: [wiki.example.com]}\n    autoEnv: true"
	if resp := i.ask(t, "POST", "/v1/apply", apply(nil, "my-oauth-app", "owner", "    autoEnv: true", owner, "    scopes:",
		"    scopes:\n      - openid")); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	with := func(line string) string { return apply(nil, "    autoEnv: true", "    "+line+"\n    autoEnv: true") }
	taken := "    resourceIdentifiers: [" + i.cfg.Issuer + "]\n    autoEnv: true"
	for name, c := range map[string]struct {
		body, rule, place string
	}{
		"without its client": {apply(nil, example[strings.Index(example, "  oauth:"):strings.Index(example, "  workers:")],
			""), "would-delete", ""},
		"without consent": {with("consent: skip"), "needs-trust", ""},
		"a client id": {apply(nil, "my-oauth-app", "second", "    autoEnv: true", "    clientId: chosen\n"+
			"    autoEnv: true"), "client-id-taken", "0.yml:"},
		"a host": {apply(nil, "    autoEnv: true", "    forwardAuth: {hosts: [wiki.example.com]}\n    autoEnv: true",
			"    scopes:", "    scopes:\n      - openid"), "host-taken", "0.yml:"},
		"stale": {apply(map[string]any{"expected": map[string]string{"my-oauth-app": "1.1"}}, "1.0.0", "1.0.1"),
			"stale-plan", ""},
		"deleting": {onTheWay, "deleting", ""},
		"denied":   {apply(nil, "    autoEnv: true", taken), "resource-taken", "0.yml:"},
		"schema":   {`{"documents":[]}`, "invalid-request", ""},
		"no JSON":  {`{`, "bad-request", ""},
		"too much": {`{"documents":[{"name":"x","content":"` + strings.Repeat("x", 17<<20) + `"}]}`, "too-large", ""},
	} {
		e := i.explanation(t, i.refusedProblem(t, "/v1/apply", c.body).RequestID)
		if why := e.Reasons[0]; len(e.Reasons) != 1 || why.Rule != c.rule || !strings.HasPrefix(why.Place, c.place) ||
			why.Meaning == "" || why.Remedy == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	for name, c := range map[string]struct {
		of                 *instance
		method, path, rule string
	}{
		"a hook that does not run": {broken, "POST", "/v1/apply", "plugin-failed"},
		"by another method":        {i, "PUT", "/v1/apply", "method-not-allowed"},
		"at another address":       {i, "POST", "/v1/apply/", "no-such-path"},
	} {
		resp := c.of.ask(t, c.method, c.path, apply(nil))
		e := c.of.explanation(t, resp.Header.Get("X-Request-Id"))
		if why := e.Reasons[0]; why.Rule != c.rule || why.Meaning == "" || why.Remedy == "" || e.Endpoint != c.method+" "+
			c.path {
			t.Errorf("%s: %s %+v", name, resp.Status, e)
		}
	}
}

// What an app is refused for is explained by the line of the manifest that it was applied from.
func TestExplainOfARefusedApp(t *testing.T) {
	i := testInstance(t)
	if resp := i.ask(t, "POST", "/v1/apply", documents(t, nil, exampleManifest(t))); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	view, err := i.store.App(t.Context(), "my-oauth-app")
	if err != nil {
		t.Fatal(err)
	}
	authorize := func(redirectURI, scope string) *http.Request {
		query := url.Values{"response_type": {"code"}, "client_id": {view.Client.ID}, "redirect_uri": {redirectURI},
			"scope": {scope}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.cfg.Issuer+"/oauth/authorize?"+
			query.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	redirectURI := view.Client.RedirectURIs[0]
	for name, c := range map[string]struct {
		req                  *http.Request
		rule, place, nearest string
	}{
		"redirect URI": {authorize(redirectURI+"s", "threads:read"), oauth.RuleRedirectURIUnregistered,
			"0.yml:10:5", redirectURI},
		"scope": {authorize(redirectURI, "threads:reed"), oauth.RuleScopeNotInManifest, "0.yml:13:5", "threads:read"},
	} {
		resp, err := http.DefaultTransport.RoundTrip(c.req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		e := i.explanation(t, resp.Header.Get("X-Request-Id"))
		if why := e.Reasons[0]; why.Rule != c.rule || why.Place != c.place || why.Nearest != c.nearest ||
			e.App != "my-oauth-app" || e.ClientID != view.Client.ID {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
