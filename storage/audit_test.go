package storage_test

import (
	"context"
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
	s := storagetest.Many(t).Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
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
	if e := all[0]; e.Actor != "uid:7" || e.Outcome != storage.OutcomeDone || e.Detail != "0" ||
		!e.At.Equal(start.Add(time.Second)) {
		t.Errorf("%+v", e)
	}
	if got := audit(t, s, storage.AuditQuery{App: "a", Limit: 7}); len(got) != 350 || got[349].Detail != "698" {
		t.Errorf("%d entries of app a", len(got))
	}
	if got := audit(t, s, storage.AuditQuery{Since: start.Add(691 * time.Second)}); len(got) != 10 ||
		got[0].Detail != "690" {
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
	if dump := etcd.Dump(); strings.Contains(dump, "first") || !strings.Contains(dump, "second") ||
		!strings.Contains(dump, "third") {
		t.Errorf("kept:\n%s", dump)
	}
}

func TestAuditIsPartOfTheTransaction(t *testing.T) {
	s := storagetest.New(t).Store()
	told := func(word string) storage.Release {
		return storage.Release{App: storage.App{Name: "app"}, Audit: []storage.AuditEntry{{Action: storage.AuditApply,
			App: "app", Detail: word}}}
	}
	if err := s.CommitRelease(t.Context(), told("stored")); err != nil {
		t.Fatal(err)
	}
	if err := s.CommitRelease(t.Context(), told("lost")); !errors.Is(err, storage.ErrConflict) {
		t.Fatal(err)
	}
	if all := audit(t, s, storage.AuditQuery{}); len(all) != 1 || all[0].Detail != "stored" ||
		all[0].Actor != storage.ActorServer {
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
		if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); err != nil {
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
				if _, err := s.CreateGrant(ctx, code, ends, on(c, u)); !errors.Is(err, storage.ErrReplayed) {
					t.Errorf("code: %v", err)
				}
				if _, err := s.RotateGrant(ctx, ref, ends, 0, on(c, u)); !errors.Is(err, storage.ErrReplayed) &&
					!errors.Is(err, storage.ErrNotFound) {
					t.Errorf("refresh token: %v", err)
				}
			})
		}
		racers.Wait()
	})
	// One for each request, and one more for each that finds the chain moved on; the lease of tombstones is there already,
	// or granted once more.
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

func TestAuditOfAUserIsWhatTheyDidAndWhatWasDoneToThem(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := t.Context()
	for _, id := range []string{"ann", "annette"} {
		if _, err := s.PutUser(ctx, storage.User{ID: id, Connector: "local"}); err != nil {
			t.Fatal(err)
		}
	}
	ann, err := s.User(ctx, "ann")
	if err != nil {
		t.Fatal(err)
	}
	signedIn(t, s, ann, "")
	if err := s.Record(ctx, storage.AuditEntry{Actor: storage.UserActor("ann"), Action: storage.AuditSignIn},
		storage.AuditEntry{Action: storage.AuditUserCleared, Detail: "user ann: of an older version"},
		storage.AuditEntry{Action: storage.AuditConsentRevoked, Detail: "client c, user annette, of an older version"},
		storage.AuditEntry{Action: storage.AuditSignIn, Actor: storage.UserActor("annette"),
			Detail: "user ann"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.EndUser(ctx, "ann", storage.AuditEntry{Reason: "why"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range audit(t, s, storage.AuditQuery{User: "ann"}) {
		got = append(got, e.Action)
	}
	slices.Sort(got) // entries of one transaction have one time
	want := []string{storage.AuditSessionEnded, storage.AuditSignIn, storage.AuditUserCleared, storage.AuditUserCleared,
		storage.AuditUserEnded}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := audit(t, s, storage.AuditQuery{User: "annette"}); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAuditKnowsTheAddressOfWhoAsked(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := context.WithValue(t.Context(), storage.AddressKey{}, "192.0.2.7")
	if err := s.Record(ctx, storage.AuditEntry{Actor: storage.UserActor("ann"), Action: "one"},
		storage.AuditEntry{Actor: storage.UserActor("ann"), Action: "two", Address: "192.0.2.8"},
		storage.AuditEntry{Action: "three"}); err != nil {
		t.Fatal(err)
	}
	for _, e := range audit(t, s, storage.AuditQuery{}) {
		if want := map[string]string{"one": "192.0.2.7", "two": "192.0.2.8", "three": ""}[e.Action]; e.Address != want {
			t.Errorf("%s: from %q, want %q", e.Action, e.Address, want)
		}
	}
}

// Entries are added before, while and after the log is listed, by many at once, at times that are in no order.
func TestAuditIsFollowedWithoutGapsAndTwins(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, cancel := context.WithCancel(t.Context())
	const before, racers, each = 450, 8, 30
	add := func(from, to int) {
		for i := from; i < to; i++ {
			actor := []string{"uid:7", storage.UserActor("ann")}[i%2]
			if err := s.Record(t.Context(), storage.AuditEntry{Actor: actor, Action: "x", App: []string{"a", "b"}[i%4/2],
				Detail: fmt.Sprint(i), At: time.Now().Add(-time.Duration(i%7) * time.Second)}); err != nil {
				t.Error(err)
			}
		}
	}
	add(0, before)
	var adding sync.WaitGroup
	seen := make(map[string]int)
	done := errors.New("enough")
	err := s.FollowAudit(ctx, storage.AuditQuery{App: "a"}, func(entries []storage.AuditEntry) error {
		if len(seen) == 0 { // the first page
			for r := range racers {
				adding.Go(func() { add(before+r*each, before+(r+1)*each) })
			}
		}
		for _, e := range entries {
			seen[e.Detail]++
			if e.App != "a" {
				t.Errorf("%+v", e)
			}
		}
		if len(seen) == (before+racers*each+2)/2 {
			return done
		}
		return nil
	})
	adding.Wait()
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	for detail, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", detail, n)
		}
	}
	cancel()
	if err := s.FollowAudit(ctx, storage.AuditQuery{}, func([]storage.AuditEntry) error { return nil }); !errors.Is(err,
		context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}
