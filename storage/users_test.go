package storage_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestGuessesAreCountedAtomically(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now().Truncate(time.Minute)
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	guess := func() error {
		ok, _, err := s.TakeGuess(t.Context(), "User@app.test", 5, time.Minute)
		if err == nil && !ok {
			err = storage.ErrConflict
		}
		return err
	}
	if allowed := race(t, 40, guess, storage.ErrConflict); allowed != 5 {
		t.Errorf("%d of 40 parallel guesses were allowed, want 5", allowed)
	}
	if ok, retry, _ := s.TakeGuess(t.Context(), "user@APP.test ", 5, time.Minute); ok ||
		!retry.Equal(now.Add(time.Minute)) {
		t.Errorf("another spelling has another counter, or retry %s is wrong", retry)
	}
	now = now.Add(time.Minute) // the lock ends by itself
	if err := guess(); err != nil {
		t.Error(err)
	}
}

func TestSyncUsersDisablesWhoIsGone(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := t.Context()
	if err := s.SyncUsers(ctx, "local", []storage.User{{ID: "1"}, {ID: "2"}}); err != nil {
		t.Fatal(err)
	}
	before, _ := s.User(ctx, "1")
	if err := s.SyncUsers(ctx, "local", []storage.User{{ID: "1"}}); err != nil {
		t.Fatal(err)
	}
	after, _ := s.User(ctx, "1")
	if before.Revision != after.Revision {
		t.Error("an unchanged user was written")
	}
	if gone, _ := s.User(ctx, "2"); gone.Active() {
		t.Error("a user who is gone is active")
	}
	if err := s.SyncUsers(ctx, "local", []storage.User{{ID: "1"}, {ID: "2"}}); err != nil {
		t.Fatal(err)
	}
	if back, _ := s.User(ctx, "2"); !back.Active() {
		t.Error("a user who is back is not active")
	}
}

// Every field of a user counts when records are compared, and comes back as it was stored.
func TestUserIsWrittenWhenAnythingChanged(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := t.Context()
	revision := int64(0)
	var u storage.User
	put := func() int64 {
		t.Helper()
		stored, err := s.PutUser(ctx, u)
		if err != nil {
			t.Fatal(err)
		}
		held, err := s.User(ctx, u.ID)
		if err != nil || *held != *stored {
			t.Fatalf("%+v, %v; want %+v", held, err, stored)
		}
		return held.Revision
	}
	var change func(v reflect.Value, at string)
	change = func(v reflect.Value, at string) {
		for i := range v.NumField() {
			f, name := v.Field(i), at+v.Type().Field(i).Name
			switch {
			case name == "UpdatedAt" || name == "Revision" || name == "Term": // the store's own
				continue
			case f.Kind() == reflect.Struct:
				change(f, name+".")
				continue
			case f.Kind() == reflect.Bool:
				f.SetBool(true)
			case f.Type() == reflect.TypeFor[storage.JSON]():
				f.SetString(`["x"]`)
			default:
				f.SetString("x")
			}
			after := put()
			if after == revision {
				t.Errorf("a change of %s was not written", name)
			}
			if revision = after; put() != revision {
				t.Errorf("written without a change, after %s", name)
			}
		}
	}
	change(reflect.ValueOf(&u).Elem(), "")
}

func TestSessionEnds(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	ctx := t.Context()
	u, err := s.PutUser(ctx, storage.User{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	session := storage.Session{UserID: "1", ExpiresAt: now.Add(time.Hour), Term: u.Term}
	present := func(id, user string) bool {
		p, err := s.Presence(ctx, id, user, "c")
		if err != nil {
			t.Fatal(err)
		}
		return p.Session != nil
	}
	first, err := s.CreateSession(ctx, session, "")
	if err != nil || !present(first, "1") {
		t.Fatal(err)
	}
	if present(first, "2") {
		t.Error("another user's session counts")
	}
	second, err := s.CreateSession(ctx, session, first)
	if err != nil || present(first, "1") || !present(second, "1") {
		t.Errorf("a new sign-in left the old session: %v", err)
	}
	now = now.Add(2 * time.Hour)
	if present(second, "1") {
		t.Error("the session outlived its time")
	}
}
