package storage_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// eve is somebody whom the connector ldap knows.
func eve() storage.Arrival {
	return storage.Arrival{User: storage.User{ID: "sub-eve", Connector: "ldap", UpstreamID: "uid=eve", Name: "Eve",
		Email: "eve@app.test", EmailVerified: true, Groups: storage.NamesOf([]string{"staff"})}}
}

func arrive(t *testing.T, s *storage.Store, a storage.Arrival) *storage.User {
	t.Helper()
	u, err := s.ArriveUser(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestArrivalMakesARecordAndKeepsIt(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	first := arrive(t, s, eve())
	if held := user(t, s, "sub-eve"); *held != *first || !held.Active() || held.Name != "Eve" {
		t.Errorf("%+v, then %+v", first, held)
	}
	if asked := etcd.Count(func() { arrive(t, s, eve()) }); asked != (storagetest.Counts{Reads: 1}) {
		t.Errorf("nothing has changed, and yet: %+v", asked)
	}
	changed := eve()
	changed.User.Groups = storage.NamesOf([]string{"staff", "admins"})
	var second *storage.User
	if asked := etcd.Count(func() { second = arrive(t, s, changed) }); asked != (storagetest.Counts{Reads: 1,
		Proposals: 1}) {
		t.Errorf("a change: %+v", asked)
	}
	if second.Term != first.Term || second.Revision == first.Revision || len(second.GroupNames()) != 2 {
		t.Errorf("%+v", second)
	}
}

// Everybody who arrives at once finds one account.
func TestArrivalsAtOnce(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	for _, s := range stores {
		race(t, 12, func() error {
			a := eve()
			a.Data, a.Ask, a.Until = []byte("x"), time.Minute, time.Now().Add(time.Hour)
			_, err := s.ArriveUser(t.Context(), a)
			return err
		}, storage.ErrConflict)
	}
	if n := strings.Count(etcd.Dump(), etcd.Prefix+"asks/"); n != 1 {
		t.Errorf("%d notes", n)
	}
}

func TestArrivalTakesOverNoAccountOfAnotherConnector(t *testing.T) {
	s := storagetest.New(t).Store()
	synced(t, s, storage.User{ID: "sub-eve", Email: "ann@app.test"})
	for rule, change := range map[string]func(a *storage.Arrival){
		"another connector":         func(*storage.Arrival) {},
		"another of that connector": func(a *storage.Arrival) { a.User.Connector = "local" },
	} {
		a := eve()
		change(&a)
		if _, err := s.ArriveUser(t.Context(), a); !errors.Is(err, storage.ErrOtherConnector) {
			t.Errorf("%s: %v", rule, err)
		}
	}
	if held := user(t, s, "sub-eve"); held.Connector != "local" || held.Name != "" {
		t.Errorf("%+v", held)
	}
}

// An e-mail address, verified or not, says nothing about whose account it is.
func TestEmailJoinsNoAccounts(t *testing.T) {
	s := storagetest.New(t).Store()
	synced(t, s, storage.User{ID: "ann", Email: "eve@app.test", EmailVerified: true, Username: "eve"})
	if u := arrive(t, s, eve()); u.ID != "sub-eve" {
		t.Errorf("%+v", u)
	}
	other := eve()
	other.User.Connector, other.User.ID = "github", "sub-github-eve"
	if u := arrive(t, s, other); u.ID != "sub-github-eve" {
		t.Errorf("%+v", u)
	}
	if ann := user(t, s, "ann"); ann.Connector != "local" || ann.Name != "" {
		t.Errorf("%+v", ann)
	}
}

func TestUsersOfAConnectorThatIsGone(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	synced(t, s, storage.User{ID: "ann"})
	before := arrive(t, s, eve())
	session := signedIn(t, s, before, "")
	both := map[string]bool{"local": true, "ldap": true}
	leave := func(connectors map[string]bool) int {
		t.Helper()
		n, err := s.LeaveUsers(t.Context(), connectors)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := leave(both); n != 0 || !user(t, s, "sub-eve").Active() {
		t.Errorf("%d left although their connector is there", n)
	}
	if n := leave(map[string]bool{"local": true}); n != 1 {
		t.Errorf("%d left", n)
	}
	if n := leave(map[string]bool{"local": true}); n != 0 {
		t.Errorf("%d left once more", n)
	}
	p, err := s.Presence(t.Context(), session, "sub-eve", "c")
	if err != nil || p.Session != nil || user(t, s, "sub-eve").Active() || !user(t, s, "ann").Active() {
		t.Errorf("%+v, %v", p, err)
	}
	back := arrive(t, s, eve())
	if !back.Active() || back.Left || back.Stands(before.Term) {
		t.Errorf("%+v", back)
	}
	// Whom somebody has disabled stays disabled.
	disabled := *back
	disabled.Disabled = true
	if _, err := s.PutUser(t.Context(), disabled); err != nil {
		t.Fatal(err)
	}
	leave(map[string]bool{"local": true})
	if u := arrive(t, s, eve()); u.Active() || u.Left || user(t, s, "sub-eve").Active() {
		t.Errorf("an arrival undoes what an operator has done: %+v", u)
	}
}

// Whatever changes of the users meanwhile, they leave; and where they are back before that, they are.
func TestUsersLeaveWhileTheyChange(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	const many = 60
	arrival := func(i int) storage.Arrival {
		a := eve()
		a.User.ID, a.User.UpstreamID = fmt.Sprint("sub-", i), fmt.Sprint(i)
		return a
	}
	for i := range many {
		arrive(t, s, arrival(i))
	}
	var next atomic.Int64
	race(t, 32, func() error {
		i := int(next.Add(1))
		if i%4 == 0 {
			_, err := s.LeaveUsers(t.Context(), map[string]bool{"local": true})
			return err
		}
		a := arrival(i)
		a.User.Name = fmt.Sprint("Eve ", i)
		_, err := s.ArriveUser(t.Context(), a)
		return err
	}, storage.ErrConflict)
	if _, err := s.LeaveUsers(t.Context(), map[string]bool{"local": true}); err != nil {
		t.Fatal(err)
	}
	for i := range many {
		if u := user(t, s, fmt.Sprint("sub-", i)); !u.Left || u.Active() {
			t.Errorf("%+v", u)
		}
	}
}

func TestManyUsersOfAConnectorThatIsGone(t *testing.T) {
	etcd := storagetest.Many(t)
	s := etcd.Store()
	const many = 600 // more than a page
	for i := range many {
		a := eve()
		a.User.ID, a.User.UpstreamID = fmt.Sprint("sub-", i), fmt.Sprint(i)
		u := arrive(t, s, a)
		if i == many/2 {
			signedIn(t, s, u, "")
		}
	}
	asked := etcd.Count(func() {
		if n, err := s.LeaveUsers(t.Context(), map[string]bool{"local": true}); err != nil || n != many {
			t.Errorf("%d left, %v", n, err)
		}
	})
	if asked.Proposals > many/20 || asked.Reads > many/50 {
		t.Errorf("%+v", asked)
	}
	if ended, err := s.ClearPastTerms(t.Context()); err != nil || ended.Sessions != 1 {
		t.Errorf("%+v, %v", ended, err)
	}
	if strings.Contains(etcd.Dump(), etcd.Prefix+"pastterms/") {
		t.Error("something is left to clear away")
	}
}

// The subjects of Dex are base64url, and can be long.
func TestLongUserIDs(t *testing.T) {
	s := storagetest.New(t).Store()
	if err := s.RotateKeys(t.Context(), true, permanent); err != nil {
		t.Fatal(err)
	}
	encoded := func(n int) string {
		return base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff, 0, 7}, n)[:n])
	}
	longest := encoded(166)
	if len(longest) != storage.MaxEncodedUserID {
		t.Fatalf("%d characters", len(longest))
	}
	seen := map[string]bool{}
	for n := 108; n <= 166; n++ {
		id := encoded(n)
		for _, sector := range []string{"app.test", "other.test"} {
			sub := pairwise(t, s, sector, id)
			if back, ok := s.PairwiseUser(sub); !ok || back != id || len(sub) > 255 || seen[sub] {
				t.Fatalf("%d bytes: %d characters, %q, %v", n, len(sub), back, ok)
			}
			seen[sub] = true
			if pairwise(t, s, sector, id) != sub {
				t.Errorf("%d bytes: two subjects", n)
			}
		}
	}
	sub := pairwise(t, s, "app.test", longest)
	raw, _ := base64.RawURLEncoding.DecodeString(sub)
	for i := range raw {
		raw[i] ^= 1
		if id, ok := s.PairwiseUser(base64.RawURLEncoding.EncodeToString(raw)); ok {
			t.Fatalf("with another byte %d: %q", i, id)
		}
		raw[i] ^= 1
	}
	for rule, c := range map[string]struct {
		id    string
		right bool
	}{
		"Dex's for a DN": {encoded(115), true}, "the longest": {longest, true}, "one more": {longest + "A", false},
		"long and not base64url": {strings.Repeat("x.", 80), false}, "long with padding": {encoded(115)[:153] + "=", false},
		"144 of anything": {strings.Repeat("x.", 72), true}, "empty": {"", false}, "a space": {"a b", false},
		"a line break": {longest[:200] + "\n" + longest[200:], false}, "not ASCII": {"é", false},
	} {
		if err := storage.CheckUserID(c.id); (err == nil) != c.right || err != nil && !errors.Is(err, storage.ErrUserID) {
			t.Errorf("%s: %v", rule, err)
		}
		a := eve()
		a.User.ID = c.id
		if _, err := s.ArriveUser(t.Context(), a); (err == nil) != c.right {
			t.Errorf("%s: %v", rule, err)
		}
		if _, err := s.PairwiseSubject("app.test", c.id); c.right && err != nil {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

// A subject that an app has keeps its meaning: this one was made by the version before.
func TestPairwiseSubjectsOfShortIDsAreAsTheyWere(t *testing.T) {
	s := storagetest.New(t).Store()
	if err := s.RotateKeys(t.Context(), true, permanent); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]int{1: 118, 48: 118, 49: 182, 144: 246} {
		if got := len(pairwise(t, s, "app.test", strings.Repeat("A", n))); got != want {
			t.Errorf("an id of %d: %d characters, want %d", n, got, want)
		}
	}
}

func TestLastArrival(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now().Truncate(time.Second)
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	u := arrive(t, s, eve())
	for range 2 {
		now = now.Add(time.Hour)
		signedIn(t, s, u, "")
	}
	at, err := s.LastArrivals(t.Context(), []string{u.ID, "nobody"})
	if err != nil || len(at) != 1 || !at[u.ID].Equal(now) {
		t.Errorf("%v, %v", at, err)
	}
}

// What a sign-in uses up makes one session, however often it comes.
func TestSignInUsesUpItsState(t *testing.T) {
	s := storagetest.New(t).Store()
	u := arrive(t, s, eve())
	session := storage.Session{UserID: u.ID, Term: u.Term, ExpiresAt: time.Now().Add(time.Hour),
		Uses: storage.Once{ID: "state", Until: time.Now().Add(time.Hour)}}
	if n := race(t, 16, func() error {
		_, err := s.CreateSession(t.Context(), session, "")
		return err
	}, storage.ErrSpent); n != 1 {
		t.Errorf("%d sessions", n)
	}
	if list, _, err := s.Sessions(t.Context(), u.ID, storage.Part{}); err != nil || len(list) != 1 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}
