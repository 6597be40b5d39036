package storage_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// managed stores an account with a password, as an operator does.
func managed(t testing.TB, s *storage.Store, id, email string) *storage.Account {
	t.Helper()
	a, err := s.PutAccount(t.Context(), storage.User{ID: id, Email: email, Username: id}, nil, &storage.FactorChange{
		Next: storage.Factors{Password: storage.Password{Hash: "$argon2id$of-" + id, At: time.Now().UTC()}},
	}, storage.AuditEntry{Action: storage.AuditUserApplied})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func account(t testing.TB, s *storage.Store, id string) *storage.Account {
	t.Helper()
	a, err := s.Account(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// begun has something of each kind that is begun for a user.
type begun struct {
	session string
	grant   storage.Grant
	client  *storage.Client
}

func begin(t *testing.T, s *storage.Store, c *storage.Client, u *storage.User) begun {
	t.Helper()
	b := begun{session: signedIn(t, s, u, ""), client: c}
	b.grant = from(b.session, true, c, u)
	mustGrant(t, s, b.grant, c, u)
	if err := s.AddConsent(t.Context(), c.ID, storage.Presence{User: u}, appAsks("a")); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b begun) left(t *testing.T, s *storage.Store) string {
	t.Helper()
	p, err := s.Presence(t.Context(), b.session, b.grant.UserID, b.client.ID)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(p.Session != nil, alive(t, s, b.grant), p.Consent != nil)
}

func TestDisabledAccountHasNothingLeftAndComesBackWithoutIt(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := t.Context()
	c, static := registered(t, s)
	a := managed(t, s, "ann", "ann@app.test")
	b := begin(t, s, c, a.User)
	by := storage.AuditEntry{Actor: "uid:1000", Reason: "she has gone"}
	ended, err := s.DisableUser(ctx, "ann", by)
	if err != nil || ended != (storage.Ended{Sessions: 1, Grants: 1, Consents: 1}) {
		t.Fatal(ended, err)
	}
	if got := b.left(t, s); got != "false false false" || account(t, s, "ann").User.Active() {
		t.Errorf("left: %s", got)
	}
	if ended, err := s.DisableUser(ctx, "ann", by); err != nil || ended != (storage.Ended{}) {
		t.Errorf("again: %v %v", ended, err)
	}
	if entries := audited(t, s, storage.AuditUserDisabled); len(entries) != 1 || entries[0].Actor != "uid:1000" ||
		entries[0].Reason != "she has gone" {
		t.Errorf("%+v", entries)
	}
	// What an operator applies does not enable her.
	held := account(t, s, "ann")
	changed := *held.User
	changed.Name = "Ann"
	if _, err := s.PutAccount(ctx, changed, held, nil, by); err != nil || account(t, s, "ann").User.Active() {
		t.Errorf("applied: %v", err)
	}
	if err := s.EnableUser(ctx, "ann", by); err != nil || !account(t, s, "ann").User.Active() {
		t.Error(err)
	}
	if got := b.left(t, s); got != "false false false" {
		t.Errorf("it is back: %s", got)
	}
	for what, err := range map[string]error{
		"static": func() error { _, err := s.DisableUser(ctx, static.ID, by); return err }(),
		"delete": func() error { _, err := s.DeleteUser(ctx, static.ID, by); return err }(),
	} {
		if !errors.Is(err, storage.ErrNotManaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.DisableUser(ctx, "nobody", by); !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
}

func TestDeletedUserLeavesNothing(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx := t.Context()
	registered(t, s)
	c := wantsToBeTold(t, s)
	a := managed(t, s, "ann", "ann@app.test")
	next := a.Factors.Clone()
	next.Passkeys = []storage.Passkey{{ID: []byte("key"), Name: "phone"}}
	a, _, err := s.ChangeFactors(ctx, a, storage.FactorChange{Next: next})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.AccountByHandle(ctx, a.Factors.Handle); err != nil || found.User.ID != "ann" {
		t.Fatal(found, err)
	}
	begin(t, s, c, a.User)
	if _, _, err := s.LinkUser(ctx, storage.Link{Connector: "github", UpstreamID: "4711", UserID: "ann",
		Own: "github-4711"}); err != nil {
		t.Fatal(err)
	}
	if err := s.AddSignIns(ctx, "ann", storage.SignIn{At: time.Now(), Failed: "password"}); err != nil {
		t.Fatal(err)
	}
	ended, err := s.DeleteUser(ctx, "ann", storage.AuditEntry{})
	if err != nil || ended != (storage.Ended{Sessions: 1, Grants: 1, Consents: 1}) {
		t.Fatal(ended, err)
	}
	if list := outbox(t, s); len(list) != 1 {
		t.Errorf("told: %+v", list)
	}
	for line := range strings.Lines(etcd.Dump()) {
		key, is := strings.CutPrefix(strings.TrimSpace(line), etcd.Prefix)
		kind, _, _ := strings.Cut(key, "/")
		if is && strings.Contains(key, "ann") && kind != "logouts" || kind == "handles" || kind == "pastterms" {
			t.Errorf("%s is left", key)
		}
	}
	for _, of := range []func() error{
		func() error { _, err := s.Account(ctx, "ann"); return err },
		func() error { _, err := s.AccountByLogin(ctx, "ann@app.test"); return err },
		func() error { _, err := s.AccountByHandle(ctx, a.Factors.Handle); return err },
		func() error { _, err := s.FindUser(ctx, "ann@app.test"); return err },
		func() error { _, err := s.DeleteUser(ctx, "ann", storage.AuditEntry{}); return err },
		func() error { return s.AddSignIns(ctx, "ann", storage.SignIn{Failed: "password"}) },
	} {
		if err := of(); !errors.Is(err, storage.ErrNotFound) {
			t.Error(err)
		}
	}
	// Somebody who gets the id later has nothing of before.
	again := managed(t, s, "ann", "ann@app.test")
	if again.User.Stands(a.User.Term) || len(again.Factors.Passkeys) > 0 {
		t.Errorf("%+v", again)
	}
}

func TestFactorsAreRemovedByAnOperator(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := t.Context()
	c, _ := registered(t, s)
	a := managed(t, s, "ann", "ann@app.test")
	next := a.Factors.Clone()
	next.TOTP.Secret, next.Recovery = []byte("secret"), []storage.RecoveryCode{{Hash: []byte("h")}}
	next.Passkeys = []storage.Passkey{{ID: []byte("one")}, {ID: []byte("two")}}
	a, _, err := s.ChangeFactors(ctx, a, storage.FactorChange{Next: next})
	if err != nil {
		t.Fatal(err)
	}
	b := begin(t, s, c, a.User)
	if _, _, err := s.RemoveFactors(ctx, "ann", []string{"totp", "x"}, "lost", storage.AuditEntry{}); !errors.Is(err,
		storage.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	removed, ended, err := s.RemoveFactors(ctx, "ann", []string{a.Factors.Passkeys[0].Ref()}, "", storage.AuditEntry{})
	if err != nil || len(removed) != 1 || ended != (storage.Ended{}) || b.left(t, s) != "true true true" {
		t.Error(removed, ended, err)
	}
	removed, ended, err = s.RemoveFactors(ctx, "ann", nil, "lost", storage.AuditEntry{})
	if err != nil || len(removed) != 3 || ended != (storage.Ended{Sessions: 1, Grants: 1, Consents: 1}) ||
		b.left(t, s) != "false false false" {
		t.Error(removed, ended, err)
	}
	if f := account(t, s, "ann").Factors; len(f.Names()) > 0 || f.Password.Hash == "" {
		t.Errorf("%+v", f)
	}
	if n := len(audited(t, s, storage.AuditFactorRemoved)); n != 4 {
		t.Errorf("%d entries", n)
	}
}

func TestUsersAreFoundByWhatTheyAreCalled(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	ctx := t.Context()
	managed(t, s, "ann", "Ann@App.test")
	if _, err := s.PutUser(ctx, storage.User{ID: "u-1", Connector: "local", Email: "bob@app.test",
		Username: "Bob"}); err != nil {
		t.Fatal(err)
	}
	e := eve()
	e.User.Email = "bob@app.test"
	eve := arrive(t, s, e)
	for range 150 {
		managed(t, s, storage.NewGrantID(), storage.NewGrantID()+"@app.test")
	}
	for name, want := range map[string]string{"ann": "ann", "ann@app.test": "ann", " ANN@app.test": "ann", "u-1": "u-1",
		"bob": "u-1", eve.ID: eve.ID} {
		var found *storage.User
		var err error
		asked := etcd.Count(func() { found, err = s.FindUser(ctx, name) })
		if err != nil || found.ID != want || asked.Reads > 3 {
			t.Errorf("%s: %+v, %v, %+v", name, found, err, asked)
		}
	}
	if _, err := s.FindUser(ctx, "bob@app.test"); !errors.Is(err, storage.ErrAmbiguous) {
		t.Error(err)
	}
	if _, err := s.DisableUser(ctx, eve.ID, storage.AuditEntry{}); err != nil {
		t.Fatal(err)
	}
	if u, err := s.FindUser(ctx, "bob@app.test"); err != nil || u.ID != "u-1" {
		t.Error(u, err)
	}
	if _, err := s.PutUser(ctx, storage.User{ID: "u-1", Connector: "local", Email: "rob@app.test"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.FindUser(ctx, "bob"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a name of before: %v", err)
	}
	accounts, next, err := s.AccountsPart(ctx, storage.Part{Limit: 140})
	if err != nil || len(accounts) != 140 || next == "" {
		t.Fatal(len(accounts), next, err)
	}
	for _, a := range accounts {
		if a.User.Managed != (a.Factors.Password.Hash != "") || a.User.Managed &&
			!strings.HasSuffix(a.Factors.Password.Hash, a.User.ID) {
			t.Errorf("%+v", a)
		}
	}
}

func TestHistoryOfSignIns(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	ctx := t.Context()
	u := managed(t, s, "ann", "ann@app.test").User
	for i := range 30 {
		now = now.Add(time.Minute)
		_, err := s.CreateSession(ctx, storage.Session{UserID: "ann", Term: u.Term, AMR: []string{"pwd"},
			Address: fmt.Sprint("192.0.2.", i),
			Agent:   "Firefox", ExpiresAt: now.Add(time.Hour)}, "")
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			failed := storage.SignIn{At: now, Failed: "password", Address: fmt.Sprint("198.51.100.", i)}
			if err := s.AddSignIns(ctx, "ann", failed, failed, failed); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := s.SignIns(ctx, "ann", 0)
	if err != nil || len(list) != storage.MaxSignIns+storage.MaxFailedSignIns {
		t.Fatal(len(list), err)
	}
	if list[0].Address != "192.0.2.29" || list[0].AMR[0] != "pwd" || list[1].Failed == "" && list[2].Failed == "" {
		t.Errorf("%+v", list[:3])
	}
	for _, e := range list {
		if e.Failed != "" && e.Times != 3 {
			t.Errorf("%+v", e)
		}
	}
	if some, err := s.SignIns(ctx, "ann", 3); err != nil || len(some) != 3 {
		t.Error(some, err)
	}
	now = now.Add(storage.SignInsKept - 5*time.Minute)
	if list, err := s.SignIns(ctx, "ann", 0); err != nil || len(list) == 0 || len(list) > 10 {
		t.Errorf("%d old ones, %v", len(list), err)
	}
	if list, err := s.SignIns(ctx, "nobody", 0); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

// Somebody has signed in a thousand times at many apps, beside others.
func TestGrantsAndSessionsOfAUserAreFoundWithoutThoseOfOthers(t *testing.T) {
	etcd := storagetest.Many(t)
	s := etcd.Store()
	ctx := t.Context()
	one, two := appWithClient(t, s, "a", "a-1"), appWithClient(t, s, "b", "b-1")
	manyGrants(t, s, one, 1200)
	ann := managed(t, s, "ann", "ann@app.test").User
	want := make(map[string]bool)
	for i := range 70 {
		c := one
		if i%7 == 0 {
			c = two
		}
		g := newGrant(c, ann)
		if i%10 == 0 {
			g.ID = storage.NewGrantID() // of a device, or from before
		}
		mustGrant(t, s, g, c, ann)
		if want[g.ID] = i%5 > 0; !want[g.ID] {
			delete(want, g.ID)
			if _, err := s.KillGrant(ctx, c.ID, g.ID, storage.AuditEntry{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, limit := range []int{0, 3, 50} {
		seen := make(map[string]bool)
		for q := (storage.GrantQuery{UserID: "ann", Limit: limit}); ; {
			page, next, err := s.Grants(ctx, q)
			if err != nil || limit > 0 && len(page) > limit {
				t.Fatal(len(page), err)
			}
			for _, g := range page {
				if !want[g.ID] || seen[g.ID] {
					t.Fatalf("%s is dead, or there twice", g.ID)
				}
				seen[g.ID] = true
			}
			if q.After = next; next == "" {
				break
			}
		}
		if len(seen) != len(want) {
			t.Errorf("pages of %d: %d of %d", limit, len(seen), len(want))
		}
	}
	var all []storage.Grant
	var err error
	weight := etcd.Weigh(func() { all, err = s.GrantsOf(ctx, "ann") })
	if err != nil || len(all) != len(want) || weight.Bytes > 60_000 {
		t.Errorf("%d, %v, %+v", len(all), err, weight)
	}
	for i := range 300 {
		signedIn(t, s, &storage.User{ID: fmt.Sprint("other-", i%3)}, "")
	}
	for range 7 {
		signedIn(t, s, ann, "")
	}
	var sessions []storage.SessionView
	weight = etcd.Weigh(func() { sessions, _, err = s.Sessions(ctx, "ann", storage.Part{}) })
	if err != nil || len(sessions) != 7 || weight.Bytes > 20_000 {
		t.Errorf("%d, %v, %+v", len(sessions), err, weight)
	}
	if n, err := s.RevokeSessions(ctx, "ann", storage.AuditEntry{}); err != nil || n != 7 {
		t.Error(n, err)
	}
}
