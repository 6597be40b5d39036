package storage_test

import (
	"testing"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// Memory knows the resource servers that clients speak for, as long as one does, at every replica.
func TestResourcesFollowTheClients(t *testing.T) {
	etcd := storagetest.New(t)
	a := etcd.Store()
	speak := func(id string, identifiers ...string) {
		t.Helper()
		view, err := a.App(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		app := storage.App{Name: id, ClientID: id}
		if view.App != nil {
			app = *view.App
		}
		c := &storage.Client{ID: id, App: id, Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{ResourceIdentifiers: identifiers}}}
		if view.Client != nil {
			c.Revision = view.Client.Revision
		}
		if err := a.CommitRelease(t.Context(), storage.Release{App: app, Client: c}); err != nil {
			t.Fatal(err)
		}
	}
	speak("one", "https://api.test", "https://one.test", "https://one.test")
	speak("two", "https://api.test")
	b := etcd.Store() // has listed them; a watches
	for _, c := range []struct {
		rule   string
		change func()
		known  map[string]bool
	}{
		{"registered", func() {}, map[string]bool{"https://api.test": true, "https://one.test": true, "https://two.test": false, "": false}},
		{"one speaks for another", func() { speak("one", "https://two.test") }, map[string]bool{"https://api.test": true, "https://one.test": false, "https://two.test": true}},
		{"nobody speaks for the first any more", func() { speak("two") }, map[string]bool{"https://api.test": false, "https://two.test": true}},
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
				eventually(t, c.rule+" "+name+" "+identifier, func() bool { return s.KnowsResource(identifier) == known })
			}
		}
	}
}
