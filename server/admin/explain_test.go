package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// explained asks for an explanation that must be there.
func explained(t *testing.T, h http.Handler, id string) admin.Explanation {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/refusals/"+id, nil))
	var out admin.Explanation
	if err := json.NewDecoder(w.Body).Decode(&out); err != nil || w.Code != http.StatusOK {
		t.Fatalf("explaining %s: %d, %v", id, w.Code, err)
	}
	return out
}

func TestExplainAddsLineAndNearestOfWhatIsRegistered(t *testing.T) {
	m := admin.NewRefusals(100)
	h, etcd, _ := newAPI(t, func(c *admin.Config) {
		c.Refusals = m
	})
	client := &storage.Client{ID: "app-client", App: "app", Client: oauth.Client{
		RedirectURIs: []string{"https://app.test/callback"}, Scopes: []string{"threads:read", "runs:read"}}}
	app := storage.App{Name: "app", ClientID: client.ID, Source: "apps/app.yml", Lines: map[string]storage.Place{
		"spec": {4, 1}, "spec.oauth": {6, 3}, "spec.oauth.redirectUris": {9, 5}, "spec.oauth.scopes": {11, 5}}}
	old := storage.App{Name: "old", ClientID: "old-client", Source: "old.yml"}
	for _, release := range []storage.Release{{App: app, Client: client},
		{App: old, Client: &storage.Client{ID: "old-client", App: "old"}}} {
		if err := etcd.Store().CommitRelease(t.Context(), release); err != nil {
			t.Fatal(err)
		}
	}
	for id, c := range map[string]struct {
		app, client, rule, asked, where string
		nearest, key, place             string
	}{
		"redirect": {"app", "app-client", oauth.RuleRedirectURIUnregistered, "https://app.test/callback/", "",
			"https://app.test/callback", "spec.oauth.redirectUris", "apps/app.yml:9:5"},
		"scope": {"app", "app-client", oauth.RuleScopeNotInManifest, "runs:reed", "", "runs:read",
			"spec.oauth.scopes", "apps/app.yml:11:5"},
		"default": {"app", "app-client", oauth.RuleGrantTypeUnregistered, "authorization-code", "",
			"authorization_code", "spec.oauth.grantTypes", "apps/app.yml:6:3"},
		"client":        {"", "ap-client", oauth.RuleClientUnknown, "ap-client", "", "app-client", "", ""},
		"configuration": {"app", "app-client", oauth.RuleGrantTypeOff, "", "", "", "oauth2.grantTypes", ""},
		"said by the rule": {"app", "app-client", oauth.RulePKCERequired, "", "spec.oauth.dpopBoundAccessTokens", "",
			"spec.oauth.dpopBoundAccessTokens", "apps/app.yml:6:3"},
		"old release":      {"old", "old-client", oauth.RuleScopeNotInManifest, "x", "", "", "spec.oauth.scopes", "old.yml"},
		"of no app":        {"", "registered", oauth.RuleScopeNotInManifest, "x", "", "", "", ""},
		"app that is gone": {"gone", "gone-client", oauth.RuleScopeNotInManifest, "x", "", "", "", ""},
	} {
		id = strings.ReplaceAll(id, " ", "-")
		m.Add(oauth.Refusal{RequestID: id, Endpoint: "/oauth/token", App: c.app, ClientID: c.client,
			Error: *oauth.Refuse("a_code", c.rule, "what was said").About(c.asked, "", c.where)})
		e := explained(t, h, id)
		if len(e.Reasons) != 1 {
			t.Fatalf("%s: %+v", id, e)
		}
		why := e.Reasons[0]
		if why.Rule != c.rule || why.Nearest != c.nearest || why.Key != c.key || why.Place != c.place ||
			why.Asked != c.asked || why.Said != "what was said" {
			t.Errorf("%s: %+v", id, why)
		}
		if c.app == "" && (strings.Contains(why.Remedy, "app.yml") || strings.Contains(why.Remedy, "spec.oauth")) {
			t.Errorf("%s: there is no manifest: %s", id, why.Remedy)
		}
		if why.Meaning == "" || why.Remedy == "" || e.Error != "a_code" || e.Endpoint != "/oauth/token" {
			t.Errorf("%s: no words: %+v", id, e)
		}
	}

	// After the manifest was applied again, the line of today is no answer to the request of then.
	m.Add(oauth.Refusal{RequestID: "before", At: time.Now(), Endpoint: "/oauth/authorize", App: "app",
		ClientID: "app-client",
		Error:    *oauth.Refuse("a_code", oauth.RuleRedirectURIUnregistered, "").About("https://app.test/cb2", "", "")})
	if why := explained(t, h, "before").Reasons[0]; strings.Contains(why.Remedy, "applied again") {
		t.Errorf("before: %s", why.Remedy)
	}
	view, err := etcd.Store().App(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	view.App.Applied = time.Now().Add(time.Minute)
	view.Client.RedirectURIs = append(view.Client.RedirectURIs, "https://app.test/cb2")
	if err := etcd.Store().CommitRelease(t.Context(), storage.Release{App: *view.App, Client: view.Client}); err != nil {
		t.Fatal(err)
	}
	if why := explained(t, h, "before").Reasons[0]; !strings.Contains(why.Remedy, "is in it now: make the "+
		"request again") || why.Nearest != "" {
		t.Errorf("since: %+v", why)
	}

	// What is known without storage is said without it.
	etcd.Inject(func(bool, bool) error { return errors.New("etcd is down") })
	if why := explained(t, h, "scope").Reasons[0]; why.Rule != oauth.RuleScopeNotInManifest || why.Remedy == "" ||
		why.Place != "" {
		t.Errorf("while storage is down: %+v", why)
	}
}

func TestExplainOfProblems(t *testing.T) {
	denial := admin.Fault{File: "app.yml", Line: 3, Column: 5, Path: "spec.version", Code: "no_friday",
		Message: "not on a Friday", Severity: "error"}
	known := admin.Fault{File: "app.yml", Line: 9, Column: 5, Path: "spec.oauth.scopes[0]", Code: "unknown-scope",
		Suggestion: "runs:read", Severity: "error"}
	warning := admin.Fault{File: "app.yml", Code: "unused", Severity: "warning"}
	for name, c := range map[string]struct {
		err   error
		rules string
	}{
		"faults":         {admin.InvalidManifest([]admin.Fault{known, warning, known}), "unknown-scope unknown-scope"},
		"denied":         {admin.Denied([]admin.Fault{denial}), "no_friday"},
		"would delete":   {admin.WouldDelete([]admin.Ending{{App: "app", ClientID: "app-x", Grants: 2}}), "would-delete"},
		"needs trust":    {admin.NeedsTrust("skips consent"), "needs-trust"},
		"deleting":       {admin.Deleting(), "deleting"},
		"resource taken": {&storage.TakenError{What: "resource identifier"}, "resource-taken"},
		"id taken":       {&storage.TakenError{What: "client id"}, "client-id-taken"},
		"host taken":     {&storage.TakenError{What: "host"}, "host-taken"},
		"full":           {storage.ErrFull, "storage-full"},
		"partly applied": {admin.PartlyApplied([]string{"a"}, "b", storage.ErrConflict), "partly-applied"},
		"rotating":       {admin.Rotating("waiting"), "rotating"},
		"no secret":      {admin.NoSecret("it is public"), "no-secret"},
		"sealed env":     {admin.SealedEnv("key k"), "sealed-env"},
		"stale":          {storage.ErrConflict, "stale-plan"},
		"not found":      {storage.ErrNotFound, "not-found"},
		"fault of ours":  {errors.New("canary"), "storage-unavailable"},
		"plugin":         {admin.PluginFailed("oauth", "no answer in time", "", errors.New("canary")), "plugin-failed"},
	} {
		h, _, _ := newAPI(t, func(cfg *admin.Config) { cfg.Apps = failing{c.err} })
		req := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/apply",
			strings.NewReader(`{"documents":[{"name":"a","content":"b"}]}`))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		var p admin.Problem
		if err := json.NewDecoder(w.Body).Decode(&p); err != nil || p.RequestID == "" ||
			p.RequestID != w.Header().Get("X-Request-Id") {
			t.Errorf("%s: the problem has the request id %q, the header %q, %v", name, p.RequestID,
				w.Header().Get("X-Request-Id"), err)
		}
		e := explained(t, h, p.RequestID)
		var rules []string
		for _, why := range e.Reasons {
			rules = append(rules, why.Rule)
			if why.Meaning == "" || why.Remedy == "" || strings.Contains(why.Said, "canary") {
				t.Errorf("%s: %+v", name, why)
			}
		}
		if got := strings.Join(rules, " "); got != c.rules || e.Endpoint != "POST /v1/apply" || e.Error != p.Code {
			t.Errorf("%s: %+v", name, e)
		}
		if e.Reasons[0].Rule == "no_friday" && (e.Reasons[0].Place != "app.yml:3:5" || e.Reasons[0].Key != "spec.version") {
			t.Errorf("%+v", e.Reasons[0])
		}
	}
}

// Whatever is answered with the id of a request is explained, also where no operation was asked.
func TestExplainOfEveryAnswer(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	m := admin.NewRefusals(100)
	h, _, _ := newAPI(t, func(c *admin.Config) { c.Refusals, c.Apps = m, hanging{} })
	tcp, _, _ := newAPI(t, func(c *admin.Config) { c.Refusals, c.Token = m, func() string { return token } })
	gone, leave := context.WithCancel(t.Context())
	leave()
	const docs = `{"documents":[{"name":"a","content":"b"}]}`
	for _, c := range []struct {
		h                             http.Handler
		ctx                           context.Context
		method, path, body, typ, rule string
	}{
		{tcp, t.Context(), "POST", "/v1/apply", docs, "application/json", "unauthorized"},
		{tcp, t.Context(), "GET", "/v1/apps", "", "", "unauthorized"},
		{h, t.Context(), "PUT", "/v1/apply", docs, "application/json", "method-not-allowed"},
		{h, t.Context(), "POST", "/v2/apply", docs, "application/json", "no-such-path"},
		{h, t.Context(), "GET", "/v1/nowhere", "", "", "no-such-path"},
		{h, t.Context(), "GET", "/v1/apps/nobody", "", "", "not-found"},
		{h, t.Context(), "GET", "/v1/refusals/unknown", "", "", "unknown-request"},
		{h, t.Context(), "POST", "/v1/apply", "a: b", "application/yaml", "unsupported-media-type"},
		{h, gone, "POST", "/v1/apply", docs, "application/json", "cancelled"},
	} {
		req := httptest.NewRequestWithContext(c.ctx, c.method, c.path, strings.NewReader(c.body))
		req.Header.Set("Content-Type", c.typ)
		req.Header.Set("Authorization", "Bearer canary")
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, req)
		var p admin.Problem
		if err := json.NewDecoder(w.Body).Decode(&p); err != nil || p.RequestID == "" ||
			p.RequestID != w.Header().Get("X-Request-Id") {
			t.Errorf("%s %s: the problem has the request id %q, %v", c.method, c.path, p.RequestID, err)
		}
		e := explained(t, h, p.RequestID)
		why := e.Reasons[0]
		if why.Rule != c.rule || why.Meaning == "" || why.Remedy == "" || e.Error != p.Code || e.Endpoint != c.method+" "+
			c.path {
			t.Errorf("%s %s: %+v", c.method, c.path, e)
		}
		if text, _ := json.Marshal(e); bytes.Contains(text, []byte("canary")) {
			t.Errorf("%s", text)
		}
	}
}

// Who only reads, or has no token, drives out nothing that was to change something.
func TestReadingDrivesOutNoRefusal(t *testing.T) {
	m := admin.NewRefusals(8)
	h, _, _ := newAPI(t, func(c *admin.Config) { c.Refusals = m })
	tcp, _, _ := newAPI(t, func(c *admin.Config) { c.Refusals, c.Token = m, func() string { return "x" } })
	_, kept := ask(t, h, "PUT", "/v1/apply")
	for range 20 {
		ask(t, h, "GET", "/v1/apps/nobody")
		ask(t, tcp, "POST", "/v1/apply")
	}
	if why := explained(t, h, kept.RequestID).Reasons[0]; why.Rule != "method-not-allowed" {
		t.Errorf("%+v", why)
	}
}

func TestExplainOfAPanic(t *testing.T) {
	h, _, log := newAPI(t, func(c *admin.Config) { c.Apps = failing{} })
	req := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/plan",
		strings.NewReader(`{"documents":[{"name":"a","content":"b"}]}`))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	id := w.Header().Get("X-Request-Id")
	if e := explained(t, h, id); e.Reasons[0].Rule != "internal" {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(log.String(), "request_id="+id) {
		t.Error("the log does not name the request")
	}
}

func TestExplainOfAnUnknownRequestSaysWhereToAsk(t *testing.T) {
	h, _, _ := newAPI(t, func(c *admin.Config) { c.Refusals = admin.NewRefusals(7) })
	resp, p := ask(t, h, "GET", "/v1/refusals/0123456789abcdef")
	if resp.StatusCode != 404 || p.Code != "unknown_request" || !strings.Contains(p.Detail, "the last 7") ||
		!strings.Contains(p.Remedy, "other replicas") {
		t.Errorf("%d %+v", resp.StatusCode, p)
	}
}
