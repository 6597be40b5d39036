package storage_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// audit reads the whole log, page by page.
func audit(t *testing.T, s *storage.Store, q storage.AuditQuery) []storage.AuditEntry {
	t.Helper()
	var all []storage.AuditEntry
	for {
		page, next, err := s.Audit(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		if next <= q.After {
			t.Fatalf("the cursor %q goes back to %q", q.After, next)
		}
		q.After = next
	}
}

func TestAuditIsListedInPagesByTimeAndApp(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := storagetest.New(t).Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	start := now
	for i := range 700 {
		now = now.Add(time.Second)
		err := s.Record(storage.WithActor(t.Context(), "uid:7"), storage.AuditEntry{
			Action: storage.AuditApply, App: []string{"a", "ab"}[i%2], Detail: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
	}
	all := audit(t, s, storage.AuditQuery{})
	if len(all) != 700 || !slices.IsSortedFunc(all, func(a, b storage.AuditEntry) int { return a.At.Compare(b.At) }) {
		t.Fatalf("%d entries, or not in their order", len(all))
	}
	if e := all[0]; e.Actor != "uid:7" || e.Outcome != storage.OutcomeDone || e.Detail != "0" || !e.At.Equal(start.Add(time.Second)) {
		t.Errorf("%+v", e)
	}
	if got := audit(t, s, storage.AuditQuery{App: "a", Limit: 7}); len(got) != 350 || got[349].Detail != "698" {
		t.Errorf("%d entries of app a", len(got))
	}
	if got := audit(t, s, storage.AuditQuery{Since: start.Add(691 * time.Second)}); len(got) != 10 || got[0].Detail != "690" {
		t.Errorf("since: %d entries", len(got))
	}
	now = start.Add(storage.AuditKept + 601*time.Second)
	if got := audit(t, s, storage.AuditQuery{}); len(got) != 100 {
		t.Errorf("%d entries are shown after their time", len(got))
	}
}

func TestAuditDropsWhatIsTooOld(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	etcd := storagetest.New(t)
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	for _, word := range []string{"first", "second", "third"} {
		if err := s.Record(t.Context(), storage.AuditEntry{Action: word}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(storage.AuditKept/2 + time.Hour)
	}
	if dump := etcd.Dump(); strings.Contains(dump, "first") || !strings.Contains(dump, "second") || !strings.Contains(dump, "third") {
		t.Errorf("kept:\n%s", dump)
	}
}

func TestAuditIsPartOfTheTransaction(t *testing.T) {
	s := storagetest.New(t).Store()
	told := func(word string) storage.Release {
		return storage.Release{App: storage.App{Name: "app"}, Audit: []storage.AuditEntry{{Action: storage.AuditApply, App: "app", Detail: word}}}
	}
	if err := s.CommitRelease(t.Context(), told("stored")); err != nil {
		t.Fatal(err)
	}
	if err := s.CommitRelease(t.Context(), told("lost")); !errors.Is(err, storage.ErrConflict) {
		t.Fatal(err)
	}
	if all := audit(t, s, storage.AuditQuery{}); len(all) != 1 || all[0].Detail != "stored" || all[0].Actor != storage.ActorServer {
		t.Errorf("%+v", all)
	}
}

func TestReplaysAreInTheAuditOnce(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, u := registered(t, s)
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	code, refresh := newGrant(c, u), newGrant(c, u)
	for _, g := range []storage.Grant{code, refresh} {
		if err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
			t.Fatal(err)
		}
	}
	ref := storage.GrantRef{ClientID: c.ID, GrantID: refresh.ID, UserID: u.ID, Generation: 1}
	if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u)); err != nil {
		t.Fatal(err)
	}
	// Many replays at once: each grant dies once, and is told of once.
	n := etcd.Count(func() {
		var racers sync.WaitGroup
		for range 8 {
			racers.Go(func() {
				if err := s.CreateGrant(ctx, code, ends, on(c, u)); !errors.Is(err, storage.ErrReplayed) {
					t.Errorf("code: %v", err)
				}
				if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u)); !errors.Is(err, storage.ErrReplayed) && !errors.Is(err, storage.ErrNotFound) {
					t.Errorf("refresh token: %v", err)
				}
			})
		}
		racers.Wait()
	})
	// One for each request, and one more for each that finds the chain moved on; the lease of tombstones is there already, or granted
	// once more.
	if n.Proposals > 26 {
		t.Errorf("%+v", n)
	}
	reasons := make(map[string]string)
	for _, e := range audit(t, s, storage.AuditQuery{App: "app"}) {
		if e.Action != storage.AuditGrantReplayed || e.Actor != storage.ClientActor(c.ID) {
			t.Errorf("%+v", e)
		}
		if was, twice := reasons[e.Detail]; twice {
			t.Errorf("told twice: %s, %s", was, e.Reason)
		}
		reasons[e.Detail] = e.Reason
	}
	if reasons["grant "+code.ID] != "code replayed" || reasons["grant "+refresh.ID] != "refresh token replayed" {
		t.Errorf("%v", reasons)
	}
}
