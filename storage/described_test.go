package storage_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// Described clients are found by what they hold, page by page, and no others.
func TestDescribedClients(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx := t.Context()
	c, u := registered(t, s)
	grant := func(id string) {
		t.Helper()
		g := newGrant(c, u)
		g.ClientID = id
		if _, err := s.CreateGrant(ctx, g, time.Now().Add(time.Hour), storage.Revisions{User: u.Revision}); err != nil {
			t.Fatal(err)
		}
	}
	consent := func(id, user, name string) {
		t.Helper()
		if err := s.AddConsent(ctx, id, storage.Presence{User: &storage.User{ID: user}},
			storage.Asked{Name: name, Host: "app.test", Scopes: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
	}
	var want []storage.DescribedClient
	for i := range 7 {
		d := storage.DescribedClient{ID: fmt.Sprintf("https://a%d.test/c?x=y&z=%%2f", i)}
		for range i % 3 {
			grant(d.ID)
			d.Grants++
		}
		if i%2 == 1 || i%3 == 0 {
			consent(d.ID, u.ID, "App")
			consent(d.ID, "other", "App")
			d.Consents, d.Name = 2, "App"
		}
		want = append(want, d)
	}
	consent("https-app-1", u.ID, "An app of a manifest")
	consent("https:", u.ID, "No document")
	consent(c.ID, u.ID, "My App")
	if _, err := s.RegisterClient(ctx, storage.Client{ID: "https://a3.test/stored", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	consent("https://a3.test/stored", u.ID, "An operator's")
	for _, most := range []int{1, 2, 3, 100} {
		var got []storage.DescribedClient
		after := ""
		for {
			list, next, err := s.DescribedClients(ctx, storage.Part{After: after, Limit: most})
			if err != nil || len(list) > most {
				t.Fatal(len(list), err)
			}
			got = append(got, list...)
			if next == "" {
				break
			}
			after = next
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %+v\nwant %+v", most, got, want)
		}
	}
	ended, err := s.EndDescribed(ctx, want[5].ID)
	if err != nil || !ended {
		t.Fatal(ended, err)
	}
	if got, _, err := s.DescribedClients(ctx, storage.Part{}); err != nil || len(got) != 6 {
		t.Errorf("%+v %v", got, err)
	}
	if ended, err := s.EndDescribed(ctx, "https://a3.test/stored"); err != nil || ended {
		t.Errorf("a registered client: %v %v", ended, err)
	}
}

// Several pages that are allowed at once all count, and a record does not grow without end.
func TestConsentsAtOnce(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := t.Context()
	c, u := registered(t, s)
	here := storage.Presence{User: u}
	ask := func(i int, scopes ...string) storage.Asked {
		return storage.Asked{Name: "App", Host: fmt.Sprintf("app%d.test", i), Scopes: scopes}
	}
	errs := make(chan error)
	for i := range 8 {
		go func() { errs <- s.AddConsent(ctx, c.ID, here, ask(i, "a")) }()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	read := func() *storage.Consent {
		t.Helper()
		p, err := s.Presence(ctx, "", u.ID, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return p.Consent
	}
	for i := range 8 {
		if !read().Covers(ask(i, "a")) || read().Covers(ask(i, "a", "b")) || read().Covers(ask(i+1, "b")) {
			t.Errorf("%d: %+v", i, read())
		}
	}
	for i := range 70 {
		if err := s.AddConsent(ctx, c.ID, here, ask(i, "b")); err != nil {
			t.Fatal(err)
		}
	}
	if c := read(); len(c.Allowances) != 64 || c.Covers(ask(0, "b")) || !c.Covers(ask(69, "b")) ||
		!slices.Equal(c.Scopes, []string{"a", "b"}) {
		t.Errorf("%d %v", len(c.Allowances), c.Scopes)
	}
}
