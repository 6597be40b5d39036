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

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

// newAPI is an admin API whose operations on manifests are not used: those are tested where the deployer is at hand.
func newAPI(t *testing.T, change ...func(*admin.Config)) (http.Handler, *storagetest.Etcd, *bytes.Buffer) {
	t.Helper()
	etcd, log := storagetest.New(t), &bytes.Buffer{}
	cfg := admin.Config{
		Store: etcd.Store(), Issuer: "https://id.test", Version: "v0", Logger: slog.New(slog.NewTextHandler(log, nil)),
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
		if p.Status != resp.StatusCode || p.Title != http.StatusText(p.Status) || p.Type != "urn:warifu:problem:"+p.Code || p.Detail == "" {
			t.Errorf("%s %s: not a whole problem: %+v", method, path, p)
		}
	}
	return resp, p
}

func TestOverTCPNeedsItsToken(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	h, _, _ := newAPI(t, func(c *admin.Config) { c.Token = token })
	for name, header := range map[string]string{
		"none": "", "wrong": "Bearer " + strings.Repeat("x", 32), "empty": "Bearer ", "other scheme": "Basic " + token,
		"part": "Bearer " + token[:31], "more": "Bearer " + token + "0",
	} {
		for _, path := range []string{"/v1/info", "/openapi.json", "/nowhere"} {
			resp, p := ask(t, h, "GET", path, "Authorization", header)
			if resp.StatusCode != 401 || p.Code != "unauthorized" || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer ") {
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

func TestUnknownErrorAndPanicStayInside(t *testing.T) {
	for name, apps := range map[string]failing{"error": {errors.New("canary error")}, "panic": {}} {
		h, _, log := newAPI(t, func(c *admin.Config) { c.Apps = apps })
		req := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/plan", strings.NewReader(`{"documents":[{"name":"a","content":"b"}]}`))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != 500 || strings.Contains(w.Body.String(), "canary") || !strings.Contains(w.Body.String(), `"code":"internal"`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if !strings.Contains(log.String(), "canary "+name) {
			t.Errorf("%s: the log does not say what happened", name)
		}
	}
}
