package storage_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// logged is a log that tests read.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// small is an embedded etcd with little room, and a store that looks after it as a server does.
func small(t *testing.T, dir string, quota int64, kek *storage.KEK,
	log *slog.Logger) (*storage.Embedded, *storage.Store) {
	t.Helper()
	embedded, err := storage.Embedding{Dir: dir, Quota: quota}.Open(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.New(t.Context(), embedded.Client, storage.Options{KEK: kek, OneMember: true, Embedded: embedded,
		Logger: log})
	if err != nil {
		embedded.Close()
		t.Fatal(err)
	}
	return embedded, s
}

// fill writes until etcd refuses, with a new key each time or the same one again and again.
func fill(t *testing.T, embedded *storage.Embedded, again bool) {
	t.Helper()
	value := make([]byte, 100<<10)
	for range 10_000 {
		_, _ = rand.Read(value)
		k := "filler"
		if !again {
			k += rand.Text()
		}
		if _, err := embedded.Client.Put(t.Context(), k, string(value)); err != nil {
			return
		}
	}
	t.Fatal("etcd is never full")
}

// A database whose file is full of what nobody needs any more makes room by itself, and writes again.
func TestFullDatabaseMakesRoom(t *testing.T) {
	kek, log := storagetest.New(t).KEK, new(logged)
	embedded, s := small(t, t.TempDir(), 8<<20, kek, log.logger())
	defer embedded.Close()
	defer s.Close()
	c, u := registered(t, s)
	fill(t, embedded, true)
	g := newGrant(c, u)
	if _, err := s.CreateGrant(t.Context(), g, time.Now().Add(time.Hour), on(c, u)); err != nil &&
		!errors.Is(err, storage.ErrFull) {
		t.Fatal(err) // the keeper may have been faster
	}
	eventually(t, "a grant is stored", func() bool {
		return failure(s.CreateGrant(t.Context(), newGrant(c, u), time.Now().Add(time.Hour), on(c, u))) == nil
	})
	eventually(t, "the store says that it has room", func() bool { return !s.Condition().Full })
	for _, want := range []string{"the database was made smaller"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	if n := strings.Count(log.String(), "level=WARN") + strings.Count(log.String(), "level=ERROR"); n > 5 {
		t.Errorf("%d lines of warnings:\n%s", n, log)
	}
}

// A database that is full of what is needed refuses writes and says so, ends what is to end, and goes on where it
// stopped once it is given more room.
func TestFullDatabaseStillEndsThings(t *testing.T) {
	kek, log, dir, ctx := storagetest.New(t).KEK, new(logged), t.TempDir(), t.Context()
	embedded, s := small(t, dir, 8<<20, kek, log.logger())
	c, u := registered(t, s)
	ends := time.Now().Add(time.Hour)
	revoked, replayed, living := newGrant(c, u), newGrant(c, u), newGrant(c, u)
	for _, g := range []storage.Grant{revoked, replayed, living} {
		mustGrant(t, s, g, c, u)
	}
	again := newGrant(c, u)
	mustGrant(t, s, again, c, u)
	used := storage.GrantRef{ClientID: c.ID, GrantID: replayed.ID, UserID: u.ID, Generation: 1}
	if _, err := s.RotateGrant(ctx, used, ends, 0, on(c, u)); err != nil {
		t.Fatal(err)
	}
	sid := signedIn(t, s, u, "")
	inSession := from(sid, false, c, u)
	mustGrant(t, s, inSession, c, u)
	own, err := s.RegisterClient(ctx, storage.Client{ID: "own", Client: oauth.Client{ClientName: "Own"}})
	if err != nil {
		t.Fatal(err)
	}
	mustGrant(t, s, newGrant(own, u), own, u)

	leaving, err := s.PutUser(ctx, storage.User{ID: "leaving", Connector: "local"})
	if err != nil {
		t.Fatal(err)
	}
	ofLeaving := newGrant(c, leaving)
	ofLeaving.Term = leaving.Term
	mustGrant(t, s, ofLeaving, c, leaving)
	stands := func() bool {
		view, err := s.Grant(ctx, c.ID, ofLeaving.ID, leaving.ID)
		return err == nil && view.User.Stands(view.Grant.Term)
	}
	if !stands() {
		t.Fatal("the grant of the user who is to leave is not alive")
	}
	withdrawn := newGrant(c, u)
	mustGrant(t, s, withdrawn, c, u)
	other := &storage.Client{ID: "other-1", App: "other", Client: oauth.Client{ClientName: "Other"}}
	if err := s.CommitRelease(ctx, storage.Release{App: storage.App{Name: "other", ClientID: other.ID},
		Client: other}); err != nil {
		t.Fatal(err)
	}
	if other, err = s.Client(ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	ofOther := newGrant(other, u)
	mustGrant(t, s, ofOther, other, u)

	lost := &storage.Client{ID: "lost-1", App: "lost", Client: oauth.Client{ClientName: "Lost"}}
	if err := s.CommitRelease(ctx, storage.Release{App: storage.App{Name: "lost", ClientID: lost.ID},
		Client: lost}); err != nil {
		t.Fatal(err)
	}
	if lost, err = s.Client(ctx, lost.ID); err != nil {
		t.Fatal(err)
	}
	ofLost := newGrant(lost, u)
	mustGrant(t, s, ofLost, lost, u)

	if err := s.RotateKeys(ctx, false, sealing); err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(storage.SealCode, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}

	eventually(t, "the store is full, and says so", func() bool {
		fill(t, embedded, false) // what is unused in its file is given back, so there may be room again
		_, err := s.CreateGrant(ctx, newGrant(c, u), ends, on(c, u))
		condition := s.Condition()
		return errors.Is(err, storage.ErrFull) && condition.Full && len(condition.Notes) > 0 &&
			strings.HasPrefix(condition.Notes[0], "storage is full")
	})
	if was, err := s.KillGrant(ctx, c.ID, revoked.ID, storage.AuditEntry{Action: storage.AuditGrantRevoked,
		Reason: "by an operator"}); err != nil || !was {
		t.Errorf("revoke a grant: %v, %v", was, err)
	}
	if _, err := s.RotateGrant(ctx, used, ends, 0, on(c, u)); !errors.Is(err, storage.ErrReplayed) {
		t.Errorf("a refresh token that was used before: %v", err)
	}
	if _, err := s.CreateGrant(ctx, again, ends, on(c, u)); !errors.Is(err, storage.ErrFull) {
		t.Errorf("what may be the same redemption: %v", err)
	}
	later := again
	later.CreatedAt = later.CreatedAt.Add(time.Second)
	if _, err := s.CreateGrant(ctx, later, ends, on(c, u)); !errors.Is(err, storage.ErrReplayed) {
		t.Errorf("a code that was redeemed before: %v", err)
	}
	if was, err := s.RevokeGrant(ctx, withdrawn, storage.AuditEntry{Action: storage.AuditGrantRevoked}); err != nil ||
		!was || alive(t, s, withdrawn) {
		t.Errorf("revoke a grant and its consent: %v, %v", was, err)
	}
	if _, err := s.EndUser(ctx, leaving.ID, storage.AuditEntry{Reason: "by an operator"}); err != nil || stands() {
		t.Errorf("end everything of a user: %v", err)
	}
	if _, err := s.EndSession(ctx, sid, "signed out"); err != nil {
		t.Errorf("end a session: %v", err)
	}
	if err := s.UnregisterClient(ctx, own, storage.AuditEntry{Action: storage.AuditUnregistered,
		Detail: own.ID}); err != nil {
		t.Errorf("remove a client: %v", err)
	}
	view, err := s.App(ctx, "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.BeginDelete(ctx, view, nil); !errors.Is(err, storage.ErrFull) ||
		!strings.Contains(err.Error(), "its client has ended") {
		t.Errorf("delete an app: %v", err)
	}
	if view, err = s.App(ctx, "lost"); err != nil {
		t.Fatal(err)
	}
	without := storage.Release{App: *view.App, RemoveClient: lost.ID}
	without.App.ClientID = ""
	if err := s.CommitRelease(ctx, without); !errors.Is(err, storage.ErrFull) ||
		!strings.Contains(err.Error(), "its client has ended") || alive(t, s, ofLost) {
		t.Errorf("apply without the client: %v", err)
	}
	for _, r := range []int64{2, 2} { // the second time there is no other key to go on with
		_, err := s.RotateKey(ctx, sealing, storage.TurnCompromised)
		if k, of := s.SigningKey(storage.UseSeal); !errors.Is(err, storage.ErrFull) || of != nil || k.Sequence != r ||
			len(s.Keys(storage.UseSeal)) != 1 {
			t.Errorf("end the sealing keys: %v", err)
		}
	}
	if _, err := s.Open(storage.SealCode, sealed); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("what a compromised key has sealed opens: %v", err)
	}
	if n := strings.Count(log.String(), "storage is full:"); n > 2 { // there may be room for a moment
		t.Errorf("the log says %d times that storage is full:\n%s", n, log)
	}
	s.Close()
	embedded.Close()

	embedded, s = small(t, dir, 1<<30, kek, discard) // fill may write many times the quota before etcd looks at the size
	defer embedded.Close()
	defer s.Close()
	if s.Condition().Full {
		t.Error("it is full with a larger quota as well")
	}
	for what, g := range map[string]storage.Grant{"revoked": revoked, "replayed": replayed,
		"of a code that came again": again, "of the session": inSession} {
		if alive(t, s, g) {
			t.Errorf("the grant that was %s lives again", what)
		}
		if _, err := s.CreateGrant(ctx, g, ends, on(c, u)); !errors.Is(err, storage.ErrReplayed) &&
			!errors.Is(err, storage.ErrSessionEnded) {
			t.Errorf("the code of the grant that was %s is redeemed again: %v", what, err)
		}
	}
	if !alive(t, s, living) {
		t.Error("a grant is gone that nobody has ended")
	}
	if _, err := s.PutUser(ctx, storage.User{ID: leaving.ID, Connector: "local"}); err != nil || stands() {
		t.Errorf("the user is back, and so is the grant: %v", err)
	}
	if alive(t, s, ofOther) {
		t.Error("the grant of an app that was deleted lives")
	}
	view, err = s.App(ctx, "other")
	if err != nil || view.Client != nil || view.Former == nil || view.Former.ID != other.ID {
		t.Errorf("the app after its client has ended: %+v, %v", view, err)
	}
	if err := s.BeginDelete(ctx, view, nil); err != nil {
		t.Errorf("delete an app whose client has ended: %v", err)
	}
	for _, want := range []string{storage.AuditGrantRevoked, storage.AuditGrantReplayed, storage.AuditSessionEnded,
		storage.AuditUnregistered} {
		if !strings.Contains(log.String(), "action="+want) && len(audited(t, s, want)) == 0 {
			t.Errorf("neither the log nor the audit log has %s:\n%s", want, log)
		}
	}
	if _, err := s.Client(ctx, own.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a client that was removed: %v", err)
	}
	mustGrant(t, s, newGrant(c, u), c, u)
}

// A database that comes near its quota says so before it is full.
func TestDatabaseNearItsQuotaSaysSo(t *testing.T) {
	kek, log := storagetest.New(t).KEK, new(logged)
	dir := t.TempDir()
	embedded, s := small(t, dir, 1<<30, kek, discard) // fill may write many times the quota before etcd looks at the size
	value := make([]byte, 100<<10)
	for n := range 90 {
		_, _ = rand.Read(value)
		if _, err := embedded.Client.Put(t.Context(), fmt.Sprintf("filler-%d", n), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	status, err := embedded.Client.Status(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	embedded.Close()
	embedded, s = small(t, dir, status.DbSize*100/85, kek, log.logger())
	defer embedded.Close()
	defer s.Close()
	condition := s.Condition()
	if condition.Full || len(condition.Notes) != 1 || !strings.Contains(condition.Notes[0], "storage has used ") {
		t.Errorf("condition: %+v", condition)
	}
	if n := strings.Count(log.String(), "storage has used "); n != 1 {
		t.Errorf("the log says it %d times:\n%s", n, log)
	}
}
