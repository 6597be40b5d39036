package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// walk follows a list from part to part, and returns the names of its items and how many parts there were.
func walk(t *testing.T, h http.Handler, path, name string, most int) (names []string, parts int) {
	t.Helper()
	for path != "" {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		var items []map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &items); w.Code != 200 || err != nil {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		if items == nil || len(items) > most {
			t.Fatalf("%s: %s", path, w.Body)
		}
		for _, item := range items {
			names = append(names, item[name].(string))
		}
		path = admin.Next(w.Result().Header)
		parts++
	}
	return names, parts
}

func TestListsComeInParts(t *testing.T) {
	var store *storage.Store
	h, _, _ := newAPI(t, func(c *admin.Config) { store = c.Store })
	ctx := t.Context()
	if _, err := store.PutUser(ctx, storage.User{ID: "u-1", Connector: "local", Email: "ann@example.com"}); err != nil {
		t.Fatal(err)
	}
	var apps, clients, grants, hers, third []string
	for i := range 5 {
		app, id := fmt.Sprintf("app-%d", i), fmt.Sprintf("client/%d", i)
		apps, clients = append(apps, app), append(clients, id)
		target := storage.Target{Kind: "worker", Name: "of-" + app}
		err := store.CommitRelease(ctx, storage.Release{
			App:        storage.App{Name: app, ClientID: id},
			Client:     &storage.Client{ID: id, App: app, Client: oauth.Client{ClientName: app}},
			Deliveries: []storage.Delivery{{App: app, Target: target, State: storage.DeliveryPending}},
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := store.Client(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			g := storage.Grant{ID: storage.NewGrantID(), ClientID: id, UserID: fmt.Sprintf("u-%d", n), Scopes: []string{"a"},
				CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
			u, err := store.User(ctx, g.UserID)
			at := storage.Revisions{Client: c.Revision}
			if err == nil {
				at.User = u.Revision
			}
			if _, err := store.CreateGrant(ctx, g, g.ExpiresAt, at); err != nil {
				t.Fatal(err)
			}
			grants = append(grants, g.ID)
			if n == 1 {
				hers = append(hers, g.ID)
			}
			if i == 2 {
				third = append(third, g.ID)
			}
		}
	}
	for _, c := range []struct {
		path, name string
		want       []string
		parts      int
	}{
		{"/v1/apps?limit=2", "name", apps, 3},
		{"/v1/apps", "name", apps, 1},
		{"/v1/clients?limit=2", "id", clients, 3},
		{"/v1/clients?limit=2&app=app-3", "id", clients[3:4], 1},
		{"/v1/clients?app=nobody", "id", nil, 1},
		{"/v1/deliveries?limit=4", "app", apps, 2},
		{"/v1/deliveries?app=app-1", "app", apps[1:2], 1},
		{"/v1/grants?limit=4", "id", grants, 4},
		{"/v1/grants?limit=2&app=app-2", "id", third, 2},
		{"/v1/grants?limit=2&client=client%2F2", "id", third, 2},
		{"/v1/grants?client=nobody", "id", nil, 1},
		{"/v1/grants?limit=2&user=u-1", "id", hers, 3},
		{"/v1/grants?user=Ann@example.com", "id", hers, 1},
	} {
		most := 500
		if _, limit, ok := strings.Cut(c.path, "limit="); ok {
			most = int(limit[0] - '0')
		}
		names, parts := walk(t, h, c.path, c.name, most)
		slices.Sort(names)
		slices.Sort(c.want)
		if !slices.Equal(names, c.want) || parts != c.parts {
			t.Errorf("%s: %v in %d parts, want %v in %d", c.path, names, parts, c.want, c.parts)
		}
	}
	for path, status := range map[string]int{
		"/v1/grants?limit=0": 422, "/v1/apps?limit=501": 422, "/v1/grants?user=nobody": 404, "/v1/grants?app=nobody": 404,
	} {
		if resp, _ := ask(t, h, "GET", path); resp.StatusCode != status {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

// Clients that nobody has registered are listed as well, behind the others, as long as they hold something.
func TestDescribedClientsAreListed(t *testing.T) {
	var store *storage.Store
	h, _, _ := newAPI(t, func(c *admin.Config) { store = c.Store })
	ctx := t.Context()
	var want []string
	for i := range 5 {
		id := fmt.Sprintf("client-%d", i)
		if _, err := store.RegisterClient(ctx, storage.Client{ID: id, Client: oauth.Client{ClientName: id}}); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	for i := range 3 {
		id := fmt.Sprintf("https://agent%d.test/c", i)
		if err := store.AddConsent(ctx, id, storage.Presence{User: &storage.User{ID: "u-1"}}, storage.Asked{Name: "Agent",
			Host: "agent.test", Scopes: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	for limit, parts := range map[int]int{1: 8, 2: 4, 5: 2, 8: 1, 500: 1} {
		if got, n := walk(t, h, fmt.Sprintf("/v1/clients?limit=%d", limit), "id", limit); !slices.Equal(got, want) ||
			n != parts {
			t.Errorf("limit %d: %v in %d parts, want %d", limit, got, n, parts)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v1/clients?limit=1&after=described/", nil))
	if body := w.Body.String(); !strings.Contains(body, `"name":"Agent"`) || !strings.Contains(body, `"described":true`) ||
		!strings.Contains(body, `"consents":1`) {
		t.Errorf("%s", body)
	}
}
