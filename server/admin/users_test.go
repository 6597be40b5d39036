package admin_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
)

func TestIdentitiesAreJoinedByOperatorsAlone(t *testing.T) {
	var store *storage.Store
	told := 0
	h, _, _ := newAPI(t, func(c *admin.Config) {
		store = c.Store
		c.Connectors = func() []string { return []string{"github", "ldap"} }
		c.AccountOf = func(connector, upstreamID string) string { return connector + "-" + upstreamID }
		c.SessionsEnded = func() { told++ }
	})
	ctx := t.Context()
	if _, err := store.PutUser(ctx, storage.User{ID: "ann", Connector: "local", Email: "ann@example.com"}); err != nil {
		t.Fatal(err)
	}
	arrive := func() *storage.User {
		t.Helper()
		u, err := store.ArriveUser(ctx, storage.Arrival{User: storage.User{ID: "github-4711", Connector: "github",
			UpstreamID: "4711",
			Email:      "ann@github.example", EmailVerified: true, Groups: storage.NamesOf([]string{"org:team"})}})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	u := arrive()
	if _, err := store.CreateSession(ctx, storage.Session{UserID: u.ID, Term: u.Term,
		ExpiresAt: time.Now().Add(time.Hour)}, ""); err != nil {
		t.Fatal(err)
	}
	call := func(method, path, body string, status int) map[string]any {
		t.Helper()
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(w, r)
		var out map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &out); w.Code != status || err != nil {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		return out
	}
	text := func(v any) string { s, _ := json.Marshal(v); return string(s) }
	shown := call("GET", "/v1/users/ann@github.example", "", http.StatusOK)
	for key, want := range map[string]string{"id": `"github-4711"`, "connector": `"github"`, "upstreamId": `"4711"`,
		"groups": `["org:team"]`, "state": `"active"`, "links": `[]`, "emailVerified": `true`} {
		if text(shown[key]) != want {
			t.Errorf("%s: %s, want %s", key, text(shown[key]), want)
		}
	}
	if at, err := time.Parse(time.RFC3339, shown["signedInAt"].(string)); err != nil || time.Since(at) > time.Minute {
		t.Errorf("%v", shown["signedInAt"])
	}
	const links = "/v1/users/ann/links"
	if p := call("POST", links, `{"connector":"gihub","upstreamId":"4711"}`, http.StatusNotFound); !strings.Contains(
		text(p), "github?") {
		t.Errorf("%v", p)
	}
	out := call("POST", links, `{"connector":"github","upstreamId":"4711"}`, http.StatusOK)
	if out["given"] != "github-4711" || out["ended"].(map[string]any)["sessions"] != 1.0 || told != 1 {
		t.Errorf("%v, told %d times", out, told)
	}
	if as := arrive(); as.ID != "ann" {
		t.Errorf("%+v", as)
	}
	if shown = call("GET", "/v1/users/ann", "", http.StatusOK); !strings.Contains(text(shown["links"]),
		`"upstreamId":"4711"`) {
		t.Errorf("%v", shown)
	}
	if shown = call("GET", "/v1/users/github-4711", "", http.StatusOK); shown["joinedTo"] != "ann" ||
		shown["state"] != "left" {
		t.Errorf("%v", shown)
	}
	call("POST", "/v1/users/github-4711/links", `{"connector":"ldap","upstreamId":"x"}`, http.StatusConflict)
	call("POST", "/v1/users/ldap-x/links", `{"connector":"ldap","upstreamId":"x"}`, http.StatusNotFound)
	const joined = "/github/4711"
	call("DELETE", "/v1/users/github-4711/links"+joined, "", http.StatusNotFound) // it is not joined to that one
	call("DELETE", links+joined, "", http.StatusOK)
	if as := arrive(); as.ID != "github-4711" || !as.Active() {
		t.Errorf("%+v", as)
	}
	call("POST", "/v1/users/github-4711/links", `{"connector":"github","upstreamId":"4711"}`, http.StatusConflict)
}
