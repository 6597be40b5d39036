package storage_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// rotation makes the release that gives the app's client a second secret.
func rotation(t *testing.T, s *storage.Store) (storage.Release, string) {
	t.Helper()
	view, err := s.App(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	secret, value := s.NewClientSecret(view.Client.ID)
	c := *view.Client
	c.Secrets = append(c.Secrets[:len(c.Secrets):len(c.Secrets)], secret)
	rot := storage.SecretRotation{
		ClientID: c.ID, App: "app", SecretID: secret.ID, Previous: c.Secrets[0].ID, StartedAt: time.Now().UTC(),
		Grace: time.Hour,
	}
	seen, err := s.Secrets(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if seen.Rotation != nil {
		rot.Revision = seen.Rotation.Revision
	}
	return storage.Release{App: *view.App, Client: &c, Rotation: &rot}, value
}

func underWay(t *testing.T, s *storage.Store) (storage.SecretRotation, storage.AppView, string) {
	t.Helper()
	release, value := rotation(t, s)
	if err := s.CommitRelease(t.Context(), release); err != nil {
		t.Fatal(err)
	}
	seen, err := s.Secrets(t.Context(), release.Client.ID)
	if err != nil || !seen.Rotation.UnderWay() {
		t.Fatalf("%+v, %v", seen, err)
	}
	view, err := s.App(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	return *seen.Rotation, view, value
}

func TestOneOfManyRotationsWins(t *testing.T) {
	s := storagetest.New(t).Store()
	registered(t, s)
	if won := race(t, 16, func() error {
		release, _ := rotation(t, s)
		release.Client.Secrets = release.Client.Secrets[len(release.Client.Secrets)-1:] // --compromised, as often as it likes
		return s.CommitRelease(t.Context(), release)
	}, storage.ErrConflict); won == 0 {
		t.Error("nobody won")
	}
	release, _ := rotation(t, s)
	if won := race(t, 16, func() error { return s.CommitRelease(t.Context(), release) }, storage.ErrConflict); won != 1 {
		t.Errorf("%d won", won)
	}
	if view, err := s.App(t.Context(), "app"); err != nil || len(view.Client.Secrets) != 2 {
		t.Errorf("%d secrets, %v", len(view.Client.Secrets), err)
	}
}

func TestRetiredSecretLeavesNothingBehind(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, _ := registered(t, s)
	old := c.Secrets[0]
	oldValue, err := s.ClientSecretValue(c)
	if err != nil {
		t.Fatal(err)
	}
	rot, view, value := underWay(t, s)
	if !view.Client.Verify(oldValue) || !view.Client.Verify(value) || view.Client.Verify(value+"x") {
		t.Error("exactly both secrets should be right")
	}
	if got := view.Client.SecretID(value); got != rot.SecretID {
		t.Errorf("the new secret is %s, want %s", got, rot.SecretID)
	}
	s.NoteUse(c.ID, old.ID)
	s.NoteUse(c.ID, rot.SecretID)
	if err := s.FlushUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.RetireSecrets(t.Context(), rot, view); err != nil {
		t.Fatal(err)
	}
	kept, err := s.Client(t.Context(), c.ID)
	if err != nil || kept.Verify(oldValue) || !kept.Verify(value) {
		t.Errorf("memory: %v", err)
	}
	seen, err := s.Secrets(t.Context(), c.ID)
	if err != nil || seen.Rotation.UnderWay() || len(seen.Uses) != 1 || seen.Uses[rot.SecretID].First.IsZero() {
		t.Errorf("%+v, %v", seen, err)
	}
	// Nothing is written about a secret that is gone.
	s.NoteUse(c.ID, old.ID)
	if err := s.FlushUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(etcd.Dump()) {
		if strings.Contains(line, "secretuse/") && strings.Contains(line, old.ID) || strings.Contains(line, `"id":"`+old.ID) {
			t.Errorf("still there: %s", line)
		}
	}
	if err := s.RetireSecrets(t.Context(), rot, view); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("retired twice: %v", err)
	}
}

// What the decision to retire was made on is compared in its transaction.
func TestRetiringLosesAgainstEveryChange(t *testing.T) {
	web := storage.Target{Kind: "worker", Name: "web"}
	for name, change := range map[string]func(t *testing.T, s *storage.Store, view storage.AppView,
		rot storage.SecretRotation){
		"a delivery": func(t *testing.T, s *storage.Store, view storage.AppView, _ storage.SecretRotation) {
			if _, err := s.UpdateDelivery(t.Context(), *view.Deliveries[0]); err != nil {
				t.Fatal(err)
			}
		},
		"a new target": func(t *testing.T, s *storage.Store, view storage.AppView, _ storage.SecretRotation) {
			if err := s.CommitRelease(t.Context(), storage.Release{App: *view.App, Deliveries: []storage.Delivery{
				{App: "app", Target: storage.Target{Kind: "worker", Name: "new"}}}}); err != nil {
				t.Fatal(err)
			}
		},
		"the client": func(t *testing.T, s *storage.Store, view storage.AppView, _ storage.SecretRotation) {
			if err := s.BeginDelete(t.Context(), view, nil); err != nil {
				t.Fatal(err)
			}
		},
		"the rotation": func(t *testing.T, s *storage.Store, _ storage.AppView, rot storage.SecretRotation) {
			if err := s.UpdateRotation(t.Context(), rot); err != nil {
				t.Fatal(err)
			}
			if err := s.UpdateRotation(t.Context(), rot); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("stored on an old one: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := storagetest.New(t).Store()
			registered(t, s)
			view, err := s.App(t.Context(), "app")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.CommitRelease(t.Context(), storage.Release{App: *view.App,
				Deliveries: []storage.Delivery{{App: "app", Target: web}}}); err != nil {
				t.Fatal(err)
			}
			rot, view, _ := underWay(t, s)
			change(t, s, view, rot)
			if err := s.RetireSecrets(t.Context(), rot, view); !errors.Is(err, storage.ErrConflict) {
				t.Fatalf("%v", err)
			}
			if clients, err := s.Clients(t.Context()); err != nil || len(clients[0].Secrets) != 2 {
				t.Errorf("a refused retirement wrote something: %v", err)
			}
		})
	}
}

func TestUsesAreWrittenOnceInTheirPrecision(t *testing.T) {
	etcd := storagetest.New(t)
	var offset atomic.Int64
	start := time.Now().UTC()
	clock := func(o *storage.Options) { o.Now = func() time.Time { return start.Add(time.Duration(offset.Load())) } }
	s, other := etcd.Store(clock), etcd.Store(clock)
	c, _ := registered(t, s)
	id := c.Secrets[0].ID
	if got := etcd.Count(func() {
		race(t, 64, func() error {
			s.NoteUse(c.ID, id)
			return nil
		})
	}); got != (storagetest.Counts{}) {
		t.Errorf("noting asks etcd: %+v", got)
	}
	flush := func(s *storage.Store) storagetest.Counts {
		return etcd.Count(func() {
			if err := s.FlushUses(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	if got := flush(s); got.Proposals != 1 {
		t.Errorf("64 uses: %+v", got)
	}
	other.NoteUse(c.ID, id)
	if got := flush(other); got.Proposals != 0 {
		t.Errorf("the same at another replica: %+v", got)
	}
	s.NoteUse(c.ID, id)
	if got := flush(s); got != (storagetest.Counts{}) {
		t.Errorf("one more, at once: %+v", got)
	}
	offset.Store(int64(storage.UsePrecision))
	s.NoteUse(c.ID, id)
	if got := flush(s); got.Proposals != 1 {
		t.Errorf("one more, later: %+v", got)
	}
	view, err := s.Secrets(t.Context(), c.ID)
	if use := view.Uses[id]; err != nil || !use.First.Equal(start) || !use.Last.Equal(start.Add(storage.UsePrecision)) {
		t.Errorf("%+v, %v", use, err)
	}
	// A fault loses nothing.
	offset.Store(int64(2 * storage.UsePrecision))
	s.NoteUse(c.ID, id)
	etcd.Inject(func(bool, bool) error { return errors.New("etcd is away") })
	if err := s.FlushUses(t.Context()); err == nil {
		t.Error("no error")
	}
	etcd.Inject(nil)
	if got := flush(s); got.Proposals != 1 {
		t.Errorf("after a fault: %+v", got)
	}
}

// A secret that memory does not know yet is looked up, if it looks like one.
func TestSecretsThatMemoryDoesNotKnow(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, _ := registered(t, s)
	_, value := s.NewClientSecret(c.ID)
	var found *storage.Client
	ask := func(id, secret string) storagetest.Counts {
		return etcd.Count(func() {
			var err error
			if found, err = s.ClientWith(t.Context(), id, secret); err != nil {
				t.Error(err)
			}
		})
	}
	for _, secret := range []string{"", "x", "wfs_", value + "x", "abc_" + value[4:]} {
		if got := ask(c.ID, secret); got != (storagetest.Counts{}) || found != nil {
			t.Errorf("%q: %+v", secret, got)
		}
	}
	if got := ask(c.ID, value); got != (storagetest.Counts{Reads: 1}) || found == nil || found.Revision != c.Revision {
		t.Errorf("%+v", got)
	}
	if ask("nobody", value); found != nil {
		t.Error("found a client that is not there")
	}
	busy := false
	for range 1000 {
		if _, err := s.ClientWith(t.Context(), c.ID, value); errors.Is(err, storage.ErrBusy) {
			busy = true
		}
	}
	if !busy {
		t.Error("not limited")
	}
}

// Who follows rotations hears of what they wait for, and of nothing else.
func TestRotationMirror(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, _ := registered(t, s)
	m := s.MirrorRotations(t.Context())
	deliver := func(app string) {
		t.Helper()
		view, err := s.App(t.Context(), app)
		if err != nil {
			t.Fatal(err)
		}
		release := storage.Release{App: storage.App{Name: app}}
		if view.App != nil {
			release.App = *view.App
		}
		d := storage.Delivery{App: app, Target: storage.Target{Kind: "worker", Name: "a/b"}}
		for _, x := range view.Deliveries {
			d.Revision = x.Revision
		}
		release.Deliveries = []storage.Delivery{d}
		if err := s.CommitRelease(t.Context(), release); err != nil {
			t.Fatal(err)
		}
	}
	heard := func(what string) *storage.SecretRotation {
		t.Helper()
		var found []*storage.SecretRotation
		eventually(t, what, func() bool { found = append(found, m.Take()...); return len(found) > 0 })
		return found[0]
	}
	rot, view, _ := underWay(t, s)
	if got := heard("the rotation"); got.SecretID != rot.SecretID {
		t.Errorf("%+v", got)
	}
	eventually(t, "all is followed", func() bool { // deliveries and uses are listed and then watched
		deliver("app")
		return len(m.Take()) > 0
	})
	s.NoteUse(c.ID, c.Secrets[0].ID) // of the one before: nobody waits for it
	deliver("other")
	if err := s.FlushUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.NoteUse(c.ID, rot.SecretID)
	if err := s.FlushUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard("the use of the new one")
	done := rot
	done.ServedAt, done.UsedAt = time.Now(), time.Now()
	if view, err := s.App(t.Context(), "app"); err != nil || s.RetireSecrets(t.Context(), done, view) != nil {
		t.Fatal(err)
	}
	eventually(t, "it is over", func() bool { return m.Rotation(c.ID).Over() })
	m.Take()
	deliver("app")
	deliver("other")
	if got := m.Take(); len(got) > 0 {
		t.Errorf("heard of what is over: %+v", got[0])
	}
	if view, err := s.App(t.Context(), "app"); err != nil || s.BeginDelete(t.Context(), view, nil) != nil {
		t.Fatal(view, err)
	}
	view, err := s.App(t.Context(), "app")
	if err != nil || s.FinishRemoval(t.Context(), *view.Deliveries[0]) != nil {
		t.Fatal(err)
	}
	if _, err := s.FinishDelete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { return m.Rotation(c.ID) == nil })
}
