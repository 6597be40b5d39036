package storage_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// unkeyed stores a client as a version without keys for resource identifiers did.
func unkeyed(t *testing.T, etcd *storagetest.Etcd, c storage.Client) {
	t.Helper()
	value, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Client.Put(t.Context(), etcd.Prefix+"clients/"+c.ID, string(value)); err != nil {
		t.Fatal(err)
	}
}

func speaking(id string, identifiers ...string) storage.Client {
	return storage.Client{ID: id, App: id,
		Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{ResourceIdentifiers: identifiers}}}
}

// speak applies an app whose client speaks for these resource servers.
func speak(t *testing.T, s *storage.Store, app string, identifiers ...string) error {
	t.Helper()
	view, err := s.App(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	release := storage.Release{App: storage.App{Name: app, ClientID: app}}
	if view.App != nil {
		release.App = *view.App
	}
	c := speaking(app, identifiers...)
	if view.Client != nil {
		c.Revision = view.Client.Revision
	}
	release.Client = &c
	return s.CommitRelease(t.Context(), release)
}

// resourceKeys are the keys of resource identifiers with the client that each names.
func resourceKeys(t *testing.T, etcd *storagetest.Etcd) map[string]string {
	t.Helper()
	resp, err := etcd.Client.Get(t.Context(), etcd.Prefix+"resources/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]string)
	for _, kv := range resp.Kvs {
		var owner struct{ ClientID string }
		if err := json.Unmarshal(kv.Value, &owner); err != nil {
			t.Fatal(err)
		}
		identifier, err := url.PathUnescape(strings.TrimPrefix(string(kv.Key), etcd.Prefix+"resources/"))
		if err != nil {
			t.Fatal(err)
		}
		keys[identifier] = owner.ClientID
	}
	return keys
}

func takenBy(err error) string {
	var taken *storage.TakenError
	if !errors.As(err, &taken) || !errors.Is(err, storage.ErrConflict) {
		return fmt.Sprint(err)
	}
	return taken.Owner
}

// Threat: one resource identifier to two apps by two replicas.
func TestThreatResourceIdentifierOfTwoApps(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	var racer atomic.Int64
	won := race(t, 32, func() error {
		n := racer.Add(1)
		s, app := stores[n%2], fmt.Sprintf("app-%d", n)
		err := speak(t, s, app, "https://api.test", "https://api.test", "urn:"+app)
		view, readErr := s.App(t.Context(), app)
		if stored := view.App != nil; readErr != nil || stored != (err == nil) || stored != (view.Client != nil) {
			t.Errorf("%s is half there: %+v %v", app, view, readErr)
		}
		return err
	}, storage.ErrConflict)
	keys := resourceKeys(t, etcd)
	owner := keys["https://api.test"]
	if won != 1 || len(keys) != 2 || keys["urn:"+owner] != owner {
		t.Fatalf("%d racers have it, and the keys are %v", won, keys)
	}
	for i, s := range stores {
		if got := takenBy(speak(t, s, "late", "urn:late", "https://api.test")); got != "app "+owner {
			t.Errorf("replica %d: %v", i, got)
		}
	}
	if len(resourceKeys(t, etcd)) != 2 {
		t.Errorf("a refused release has left keys: %v", resourceKeys(t, etcd))
	}
}

// Identifiers that RFC 3986 takes for the same are one, whoever spells it how; tokens get the owner's spelling.
func TestResourceIdentifierInAnotherSpelling(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	if err := speak(t, s, "one", "https://MCP.example.com/", "urn:one"); err != nil {
		t.Fatal(err)
	}
	for _, spelled := range []string{"https://mcp.example.com", "HTTPS://mcp.example.com:443/",
		"https://mcp.example.com/a/.."} {
		if got := takenBy(speak(t, s, "two", spelled)); got != "app one" {
			t.Errorf("%s: %s", spelled, got)
		}
		found, err := s.FindResource(t.Context(), spelled)
		if known := s.KnownResource(spelled); err != nil || found != "https://MCP.example.com/" || known != found ||
			len(s.Speakers(spelled)) != 1 {
			t.Errorf("%s is known as %q, and found as %q, %v", spelled, known, found, err)
		}
	}
	// Its owner may spell it anew, and another may have it once it is given up.
	for _, c := range []struct {
		app     string
		spelled []string
	}{{"one", []string{"https://mcp.example.com", "urn:one"}}, {"one", []string{"urn:one"}},
		{"two", []string{"https://mcp.example.com:443"}}} {
		if err := speak(t, s, c.app, c.spelled...); err != nil {
			t.Errorf("%s: %v", c.app, err)
		}
	}
	if keys := resourceKeys(t, etcd); len(keys) != 2 || keys["https://mcp.example.com"] != "two" ||
		keys["urn:one"] != "one" {
		t.Errorf("%v", keys)
	}
}

func TestResourceIdentifierIsFreedByItsOwner(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	const api = "https://api.test/a%2Fb c"
	for _, c := range []struct {
		rule string
		free func(app string) error
	}{
		{"the app drops it", func(app string) error { return speak(t, s, app, "urn:"+app) }},
		{"the app drops all", func(app string) error { return speak(t, s, app) }},
		{"the app has no client any more", func(app string) error {
			view, err := s.App(t.Context(), app)
			if err != nil {
				return err
			}
			return s.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: app, Revision: view.App.Revision},
				RemoveClient: view.Client.ID})
		}},
		{"the app is deleted", func(app string) error {
			view, err := s.App(t.Context(), app)
			if err != nil {
				return err
			}
			if err := s.BeginDelete(t.Context(), view, nil); err != nil {
				return err
			}
			if got := takenBy(speak(t, s, "waiting", api)); got != "app "+app {
				t.Errorf("while the app is being deleted: %v", got)
			}
			_, err = s.FinishDelete(t.Context(), app)
			return err
		}},
	} {
		app := strings.ReplaceAll(c.rule, " ", "-")
		if err := speak(t, s, app, api, "urn:"+app); err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if err := speak(t, s, app, "urn:"+app, api); err != nil || resourceKeys(t, etcd)[api] != app {
			t.Fatalf("%s: keeps it: %v, %v", c.rule, err, resourceKeys(t, etcd))
		}
		if got := takenBy(speak(t, s, "other", api)); got != "app "+app {
			t.Errorf("%s: before: %v", c.rule, got)
		}
		if err := c.free(app); err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if keys := resourceKeys(t, etcd); keys[api] != "" {
			t.Errorf("%s: %v", c.rule, keys)
		}
	}
}

func TestResourceIdentifierOfARegisteredClient(t *testing.T) {
	etcd := storagetest.New(t)
	a, b := etcd.Store(), etcd.Store()
	itself := speaking("itself", "https://api.test")
	itself.App = ""
	c, err := a.RegisterClient(t.Context(), itself)
	if err != nil {
		t.Fatal(err)
	}
	if got := takenBy(speak(t, b, "app", "https://api.test")); got != "client itself" {
		t.Errorf("an app: %v", got)
	}
	second := speaking("second", "https://api.test")
	if _, err := b.RegisterClient(t.Context(), second); takenBy(err) != "app second" && takenBy(err) != "client itself" {
		t.Errorf("another registration: %v", err)
	}
	next := *c
	next.ResourceIdentifiers = []string{"https://other.test"}
	if c, err = a.ReplaceClient(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if err := speak(t, b, "app", "https://api.test"); err != nil {
		t.Errorf("after it was replaced: %v", err)
	}
	next = *c
	next.ResourceIdentifiers = []string{"https://api.test"}
	if _, err := b.ReplaceClient(t.Context(), next); takenBy(err) != "app app" {
		t.Errorf("back again: %v", err)
	}
	if err := a.UnregisterClient(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if keys := resourceKeys(t, etcd); len(keys) != 1 || keys["https://api.test"] != "app" {
		t.Errorf("%v", keys)
	}
	var racer atomic.Int64
	won := race(t, 32, func() error {
		n := racer.Add(1)
		itself := speaking(fmt.Sprintf("client-%d", n), "https://raced.test")
		itself.App = ""
		_, err := []*storage.Store{a, b}[n%2].RegisterClient(t.Context(), itself)
		if err != nil && !strings.HasPrefix(takenBy(err), "client client-") {
			t.Errorf("not told who has it: %v", err)
		}
		return err
	}, storage.ErrConflict)
	if won != 1 {
		t.Errorf("%d racers have it", won)
	}
}

// A database of a version without keys: who speaks for what is found by the records, whatever the keys say.
func TestResourceIdentifiersWithoutKeys(t *testing.T) {
	etcd := storagetest.New(t)
	young := speaking("young", "https://double.test")
	young.CreatedAt = time.Now()
	unkeyed(t, etcd, young)
	unkeyed(t, etcd, speaking("old", "https://double.test", "https://old.test"))
	s := etcd.Store()
	if keys := resourceKeys(t, etcd); len(keys) != 2 || keys["https://double.test"] != "old" ||
		keys["https://old.test"] != "old" {
		t.Errorf("at the start: %v", keys)
	}

	// What an older replica writes meanwhile has no key, or leaves one behind.
	unkeyed(t, etcd, speaking("late", "https://late.test"))
	eventually(t, "memory knows", func() bool { return s.KnownResource("https://late.test") != "" })
	if got := takenBy(speak(t, s, "app", "https://late.test")); got != "app late" {
		t.Errorf("without a key: %v", got)
	}
	unkeyed(t, etcd, speaking("old", "https://double.test"))
	if err := speak(t, s, "app", "https://old.test"); err != nil || resourceKeys(t, etcd)["https://old.test"] != "app" {
		t.Errorf("a key that was left behind: %v, %v", err, resourceKeys(t, etcd))
	}

	// Each of two that share one can still be changed, and removed, without the other.
	held, err := s.Client(t.Context(), "young")
	if err != nil {
		t.Fatal(err)
	}
	renamed := *held
	renamed.ClientName = "Renamed"
	if held, err = s.ReplaceClient(t.Context(), renamed); err != nil {
		t.Fatalf("one of two: %v", err)
	}
	if got := takenBy(speak(t, s, "third", "https://double.test")); got != "app old" && got != "app young" {
		t.Errorf("a third: %v", got)
	}
	if err := s.UnregisterClient(t.Context(), held); err != nil || resourceKeys(t, etcd)["https://double.test"] != "old" {
		t.Errorf("removed: %v, %v", err, resourceKeys(t, etcd))
	}
}

// Memory knows the resource servers that clients speak for, as long as one does, at every replica. Two may speak for
// one in a database of an older version.
func TestResourcesFollowTheClients(t *testing.T) {
	etcd := storagetest.New(t)
	a := etcd.Store()
	apply := func(id string, identifiers ...string) {
		t.Helper()
		if err := speak(t, a, id, identifiers...); err != nil {
			t.Fatal(err)
		}
	}
	apply("one", "https://api.test", "https://one.test", "https://one.test")
	unkeyed(t, etcd, speaking("two", "https://api.test"))
	b := etcd.Store() // has listed them; a watches
	for _, c := range []struct {
		rule   string
		change func()
		known  map[string]bool
	}{
		{"registered", func() {}, map[string]bool{"https://api.test": true, "https://one.test": true,
			"https://two.test": false, "": false}},
		{"one speaks for another", func() { apply("one", "https://two.test") }, map[string]bool{"https://api.test": true,
			"https://one.test": false, "https://two.test": true}},
		{"nobody speaks for the first any more", func() { unkeyed(t, etcd, speaking("two")) },
			map[string]bool{"https://api.test": false, "https://two.test": true}},
		{"the last app is being deleted", func() {
			view, err := a.App(t.Context(), "one")
			if err != nil {
				t.Fatal(err)
			}
			if err := a.BeginDelete(t.Context(), view, nil); err != nil {
				t.Fatal(err)
			}
		}, map[string]bool{"https://two.test": false}},
	} {
		c.change()
		for name, s := range map[string]*storage.Store{"here": a, "elsewhere": b} {
			for identifier, known := range c.known {
				eventually(t, c.rule+" "+name+" "+identifier, func() bool { return (s.KnownResource(identifier) != "") == known })
			}
		}
	}
}

// Threat: one host behind forward auth to two apps by two replicas, each at a port of its own. To the keys it is one.
func TestThreatForwardHostOfTwoApps(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	stand := func(s *storage.Store, app string, hosts ...string) error {
		c := storage.Client{ID: app, App: app}
		c.ForwardAuthHosts = hosts
		return s.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: app, ClientID: app}, Client: &c})
	}
	var racer atomic.Int64
	won := race(t, 16, func() error {
		n := racer.Add(1)
		return stand(stores[n%2], fmt.Sprintf("app-%d", n), "wiki.test", fmt.Sprintf("wiki.test:%d", 8000+n))
	}, storage.ErrConflict)
	keys := resourceKeys(t, etcd)
	owner := keys["forward-auth://wiki.test"]
	if won != 1 || len(keys) != 1 || owner == "" {
		t.Fatalf("%d racers have it, and the keys are %v", won, keys)
	}
	for i, s := range stores {
		if got := takenBy(stand(s, "late", "wiki.test:9000")); got != "app "+owner {
			t.Errorf("replica %d: %v", i, got)
		}
		eventually(t, "the replica knows the host", func() bool {
			c := s.AtHost("wiki.test")
			return c != nil && c.ID == owner
		})
		if c := s.AtHost("wiki.test:9000"); c != nil {
			t.Errorf("replica %d: a port that nobody lists is %s", i, c.ID)
		}
		if found, err := s.FindResource(t.Context(), "forward-auth://wiki.test"); found != "" || err != nil {
			t.Errorf("replica %d: the host is a resource server: %q %v", i, found, err)
		}
	}
}
