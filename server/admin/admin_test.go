package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

// newAPI is an admin API whose operations on manifests are not used: those are tested where the deployer is at hand.
func newAPI(t *testing.T, change ...func(*admin.Config)) (http.Handler, *storagetest.Etcd, *bytes.Buffer) {
	t.Helper()
	etcd, log := storagetest.New(t), &bytes.Buffer{}
	cfg := admin.Config{
		Store: etcd.Store(), Issuer: "https://id.test", Version: "v0", Logger: slog.New(slog.NewTextHandler(log, nil)),
		KeySchedules: func() []storage.KeySchedule { return nil },
	}
	for _, c := range change {
		c(&cfg)
	}
	return admin.New(cfg), etcd, log
}

func ask(t *testing.T, h http.Handler, method, path string, header ...string) (*http.Response, admin.Problem) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	resp := w.Result()
	var p admin.Problem
	if resp.StatusCode >= 400 {
		if kind := resp.Header.Get("Content-Type"); kind != "application/problem+json" {
			t.Errorf("%s %s: an error of type %q", method, path, kind)
		}
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.Status != resp.StatusCode || p.Title != http.StatusText(p.Status) || p.Type != "urn:warifu:problem:"+
			p.Code || p.Detail == "" {
			t.Errorf("%s %s: not a whole problem: %+v", method, path, p)
		}
	}
	return resp, p
}

func TestOverTCPNeedsItsToken(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	h, _, _ := newAPI(t, func(c *admin.Config) { c.Token = func() string { return token } })
	for name, header := range map[string]string{
		"none": "", "wrong": "Bearer " + strings.Repeat("x", 32), "empty": "Bearer ", "other scheme": "Basic " + token,
		"part": "Bearer " + token[:31], "more": "Bearer " + token + "0",
	} {
		for _, path := range []string{"/v1/info", "/openapi.json", "/nowhere"} {
			resp, p := ask(t, h, "GET", path, "Authorization", header)
			if resp.StatusCode != 401 || p.Code != "unauthorized" || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"),
				"Bearer ") {
				t.Errorf("%s: %s answers %d %s", name, path, resp.StatusCode, p.Code)
			}
		}
	}
	for _, header := range []string{"Bearer " + token, "bearer " + token} {
		if resp, _ := ask(t, h, "GET", "/v1/info", "Authorization", header); resp.StatusCode != 200 {
			t.Errorf("%q: %d", header, resp.StatusCode)
		}
	}
}

func TestUnknownPathAndMethodAreProblems(t *testing.T) {
	h, _, _ := newAPI(t)
	if resp, p := ask(t, h, "GET", "/v2/apps"); resp.StatusCode != 404 || p.Code != "no_such_path" {
		t.Error(resp.StatusCode, p)
	}
	resp, p := ask(t, h, "PATCH", "/v1/apps/x")
	if resp.StatusCode != 405 || p.Code != "method_not_allowed" || resp.Header.Get("Allow") != "DELETE, GET" {
		t.Error(resp.StatusCode, p, resp.Header.Get("Allow"))
	}
}

func TestStorageFaultIs503AndItsTextStaysInside(t *testing.T) {
	h, etcd, log := newAPI(t)
	etcd.Inject(func(bool, bool) error { return errors.New("etcdserver: canary text") })
	for _, request := range []string{
		"GET /v1/apps", "GET /v1/apps/a", "GET /v1/apps/a/credentials", "DELETE /v1/apps/a", "GET /v1/clients",
		"GET /v1/deliveries", "GET /v1/grants", "GET /v1/grants?app=a", "DELETE /v1/grants/g", "GET /v1/audit",
		"GET /v1/keys",
	} {
		method, path, _ := strings.Cut(request, " ")
		resp, p := ask(t, h, method, path)
		if resp.StatusCode != 503 || p.Code != "storage_unavailable" || strings.Contains(p.Detail+p.Remedy, "canary") {
			t.Errorf("%s: %d %+v", request, resp.StatusCode, p)
		}
	}
	if !strings.Contains(log.String(), "canary text") {
		t.Error("the log does not say what happened")
	}
	etcd.Inject(nil)
	if resp, _ := ask(t, h, "GET", "/v1/apps"); resp.StatusCode != 200 {
		t.Error("still", resp.StatusCode)
	}
}

// failing is a deployer in a state that it should never be in.
type failing struct{ err error }

func (f failing) Plan(context.Context, []admin.Document) ([]admin.AppPlan, []admin.Fault, error) {
	if f.err == nil {
		panic("canary panic")
	}
	return nil, nil, f.err
}

func (f failing) Apply(context.Context, []admin.Document, admin.ApplyOptions) ([]admin.AppPlan, []admin.Fault, error) {
	return nil, nil, f.err
}
func (f failing) Delete(context.Context, string) error { return f.err }
func (f failing) Settle(context.Context, string) error { return f.err }
func (f failing) Drift(context.Context, []admin.Document, string) (admin.Drift, error) {
	return admin.Drift{}, f.err
}

// An error that is no verdict is a fault; a 500 is a mistake in this program.
func TestUnknownErrorAndPanicStayInside(t *testing.T) {
	for name, c := range map[string]struct {
		apps   failing
		status int
		code   string
	}{"error": {failing{errors.New("canary error")}, 503, "storage_unavailable"}, "panic": {failing{}, 500, "internal"}} {
		h, _, log := newAPI(t, func(cfg *admin.Config) { cfg.Apps = c.apps })
		req := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/plan",
			strings.NewReader(`{"documents":[{"name":"a","content":"b"}]}`))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != c.status || strings.Contains(w.Body.String(), "canary") || !strings.Contains(w.Body.String(), `"code":"`+
			c.code+`"`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if !strings.Contains(log.String(), "canary "+name) {
			t.Errorf("%s: the log does not say what happened", name)
		}
	}
}

func post(t *testing.T, h http.Handler, path, body string) (int, admin.Problem) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	var p admin.Problem
	if err := json.NewDecoder(w.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return w.Code, p
}

func TestFaultOfAPluginIs503AndNamesIt(t *testing.T) {
	why := errors.New("canary text")
	h, _, log := newAPI(t, func(c *admin.Config) {
		c.Apps = failing{admin.PluginFailed("oauth", "no answer in time", "", why)}
	})
	for _, path := range []string{"/v1/plan", "/v1/apply", "/v1/drift"} {
		status, p := post(t, h, path, `{"documents":[{"name":"a","content":"b"}]}`)
		if status != 503 || p.Code != "plugin_failed" || p.Detail != `The plugin "oauth" failed: no answer in time.` ||
			p.Remedy == "" {
			t.Errorf("%s: %d %+v", path, status, p)
		}
	}
	if strings.Count(log.String(), "canary text") != 3 {
		t.Error("the log does not say what happened")
	}
}

// What stopped the second of two apps decides whether it is a conflict or a fault.
func TestPartlyAppliedSaysWhatStoppedIt(t *testing.T) {
	for name, c := range map[string]struct {
		why    error
		status int
		words  string
	}{
		"verdict of storage": {storage.ErrConflict, 409, "Not applied: two"},
		"verdict":            {admin.Deleting(), 409, "The app is being deleted."},
		"fault of storage":   {errors.New("canary"), 503, "Not applied: two"},
		"fault of a plugin": {admin.PluginFailed("oauth", "no answer in time", "", errors.New("canary")), 503,
			`The plugin "oauth" failed`},
	} {
		t.Run(name, func(t *testing.T) {
			h, _, _ := newAPI(t, func(cfg *admin.Config) {
				cfg.Apps = failing{admin.PartlyApplied([]string{"one"}, "two",
					c.why)}
			})
			status, p := post(t, h, "/v1/apply", `{"documents":[{"name":"a","content":"b"}]}`)
			if status != c.status || p.Code != "partly_applied" || !strings.Contains(p.Detail, c.words) ||
				!strings.Contains(p.Detail, "Applied: one.") ||
				strings.Contains(p.Detail, "canary") {
				t.Errorf("%d %+v", status, p)
			}
		})
	}
}

// hanging does nothing until its caller gives up.
type hanging struct{ failing }

func (hanging) Apply(ctx context.Context, _ []admin.Document,
	_ admin.ApplyOptions) ([]admin.AppPlan, []admin.Fault, error) {
	<-ctx.Done()
	return nil, nil, ctx.Err()
}
func (hanging) Delete(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }

func TestRequestThatHangsIsAnswered(t *testing.T) {
	h, _, log := newAPI(t, func(c *admin.Config) { c.Apps, c.Patience = hanging{}, 10*time.Millisecond })
	for _, wait := range []string{"", `,"wait":120`} {
		status, p := post(t, h, "/v1/apply", `{"documents":[{"name":"a","content":"b"}]`+wait+`}`)
		if status != 503 || p.Code != "timeout" || !strings.Contains(p.Detail, "within 10ms") {
			t.Errorf("%d %+v", status, p)
		}
	}
	if !strings.Contains(log.String(), "deadline exceeded") {
		t.Error("the log does not say what happened")
	}
}

// settling applies at once, and its env takes longer than a request may.
type settling struct {
	failing
	waited chan time.Duration
}

func (s settling) Apply(context.Context, []admin.Document, admin.ApplyOptions) ([]admin.AppPlan, []admin.Fault, error) {
	return []admin.AppPlan{{App: "a"}}, nil, nil
}

func (s settling) Settle(ctx context.Context, _ string) error {
	end, _ := ctx.Deadline()
	s.waited <- time.Until(end)
	return nil
}

func TestWaitForDeliveriesHasATimeOfItsOwn(t *testing.T) {
	apps := settling{waited: make(chan time.Duration, 1)}
	h, _, _ := newAPI(t, func(c *admin.Config) { c.Apps = apps })
	status, _ := post(t, h, "/v1/apply", `{"documents":[{"name":"a","content":"b"}],"wait":100}`)
	if left := <-apps.waited; status != 200 || left < 90*time.Second {
		t.Errorf("%d: %s left", status, left)
	}
}
