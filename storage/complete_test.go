package storage_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func encodedIn(t testing.TB, b []byte) []byte {
	t.Helper()
	return []byte(base64.StdEncoding.EncodeToString(b))
}

// plant puts a record as another version does.
func plant(t testing.TB, etcd *storagetest.Etcd, key, value string) {
	t.Helper()
	if _, err := etcd.Client.Put(t.Context(), etcd.Prefix+key, value); err != nil {
		t.Fatal(err)
	}
}

// withoutNotes is a database as an older version leaves it.
func withoutNotes(t testing.TB, etcd *storagetest.Etcd) {
	t.Helper()
	for _, kind := range []string{"standing/", "names/", "usergrants/", "usersessions/", "userconsents/", "complete/"} {
		if _, err := etcd.Client.Delete(t.Context(), etcd.Prefix+kind, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
	}
}

// A database of an older version has no notes. All is found all the same, and later by them.
func TestNotesAreAddedToTheDatabaseOfAnOlderVersion(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	clock := func(o *storage.Options) { o.Now = func() time.Time { return now } }
	s := etcd.Store(clock)
	ctx := t.Context()
	c, u := registered(t, s)
	arrive(t, s, eve())
	b := begin(t, s, c, u)
	b.grant.ID = storage.NewGrantID()
	mustGrant(t, s, b.grant, c, u)
	s.Close()
	withoutNotes(t, etcd)
	plant(t, etcd, "clocks/older", `{"at":"2026-11-27T09:30:15.123456789Z"}`)

	find := func(s *storage.Store) {
		t.Helper()
		if found, err := s.FindUser(ctx, "u@app.test"); err != nil || found.ID != u.ID {
			t.Errorf("by e-mail address: %+v, %v", found, err)
		}
		if grants, err := s.GrantsOf(ctx, u.ID); err != nil || len(grants) != 2 {
			t.Errorf("%d grants, %v", len(grants), err)
		}
		if sessions, _, err := s.Sessions(ctx, u.ID, storage.Part{}); err != nil || len(sessions) != 1 {
			t.Errorf("%d sessions, %v", len(sessions), err)
		}
	}
	s = etcd.Store(clock)
	find(s)
	if err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(etcd.Dump(), "complete/notes") {
		t.Fatal("an older replica goes on, and there is a mark")
	}
	find(s)
	if _, err := etcd.Client.Delete(ctx, etcd.Prefix+"clocks/older"); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(etcd.Dump(), "complete/notes") {
		t.Fatal("there is no mark")
	}
	plain := etcd.Count(func() { find(s) })
	if plain.Reads > 12 {
		t.Errorf("%+v", plain)
	}
	if left, err := s.LeaveUsers(ctx, map[string]bool{"local": true}); err != nil || left != 1 {
		t.Errorf("%d left, %v", left, err)
	}
	synced(t, s)
	if user(t, s, u.ID).Active() {
		t.Error("whom the configuration no longer has is active")
	}
	if ended, err := s.ClearPastTerms(ctx); err != nil || ended != (storage.Ended{Sessions: 1, Grants: 2, Consents: 1}) {
		t.Error(ended, err)
	}
	if got := b.left(t, s); got != "false false false" {
		t.Errorf("left: %s", got)
	}
	// An older replica comes back: what it writes has no notes.
	plant(t, etcd, "clocks/older", `{"at":"2026-11-27T09:30:15.123456789Z"}`)
	plant(t, etcd, "users/new",
		`{"id":"new","connector":"local","email":"new@app.test","updatedAt":"2026-11-27T09:30:15.123456789Z"}`)
	if err := s.RotateKeys(ctx, false, permanent); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*storage.Store{s, etcd.Store(clock)} {
		if found, err := s.FindUser(ctx, "new@app.test"); err != nil || found.ID != "new" {
			t.Errorf("%+v, %v", found, err)
		}
	}
}

// What is sealed under the newest key is not read again at each start.
func TestResealingGoesThroughAllOnce(t *testing.T) {
	etcd := storagetest.New(t)
	oldKey, newKey := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	with := func(keys ...[]byte) func(*storage.Options) {
		return func(o *storage.Options) {
			kek, err := storage.NewKEK(keys...)
			if err != nil {
				t.Fatal(err)
			}
			o.KEK = kek
		}
	}
	old := etcd.Store(with(oldKey))
	for range 3 {
		equipped(t, old, storage.NewGrantID())
	}
	reseal := func(s *storage.Store) storagetest.Counts {
		t.Helper()
		return etcd.Count(func() {
			if err := s.Reseal(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
	reseal(old)
	if asked := reseal(etcd.Store(with(oldKey))); asked != (storagetest.Counts{Reads: 1}) {
		t.Errorf("the next start: %+v", asked)
	}
	// A replica that seals under the new key says so. The other goes on, so there is no mark yet.
	tell := func(s *storage.Store) {
		t.Helper()
		if err := s.RotateKeys(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	tell(old)
	fresh := etcd.Store(with(newKey, oldKey))
	storage.NothingInFlight(fresh)
	if asked := reseal(fresh); asked.Proposals > 0 {
		t.Errorf("with a replica that does not have the new key: %+v", asked)
	}
	equipped(t, old, "late")
	// It has ended
	if _, err := etcd.Client.Delete(t.Context(), etcd.Prefix+"clocks/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if asked := reseal(fresh); asked.Proposals < 4 || !strings.Contains(etcd.Dump(), "complete/seals") {
		t.Errorf("alone: %+v", asked)
	}
	only := etcd.Store(with(newKey))
	if asked := reseal(only); asked != (storagetest.Counts{Reads: 1}) {
		t.Errorf("afterwards: %+v", asked)
	}
	if f := account(t, only, "late").Factors; f.TOTP.Secret == nil {
		t.Error("it cannot be opened")
	}
	// One that knows no turns and seals under the old key takes the mark away.
	plant(t, etcd, "clocks/older", `{"at":"2026-11-27T09:30:15.123456789Z","kek":"0123456789abcdef","notes":true}`)
	tell(only)
	if strings.Contains(etcd.Dump(), "complete/seals") {
		t.Error("the mark stays")
	}
}
