package storage_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const secretOfUpstream = "upstream-refresh-token"

func askable(string) bool { return true }

// asking is an etcd with a user whose connector is asked each quarter of an hour, and a clock.
type asking struct {
	*storagetest.Etcd
	*storage.Store
	now  time.Time
	user *storage.User
}

func newAsking(t *testing.T) *asking {
	a := &asking{Etcd: storagetest.New(t), now: time.Now()}
	a.Store = a.replica()
	a.arrive(t)
	return a
}

func (a *asking) replica() *storage.Store {
	return a.Etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return a.now } })
}

func (a *asking) arrive(t *testing.T) {
	t.Helper()
	arrival := eve()
	arrival.Data, arrival.Ask, arrival.Until = []byte(secretOfUpstream), 15*time.Minute, a.now.Add(24*time.Hour)
	a.user = arrive(t, a.Store, arrival)
}

func (a *asking) claim(t *testing.T) []*storage.Question {
	t.Helper()
	list, more, err := a.ClaimQuestions(t.Context(), askable, time.Minute)
	if err != nil || more {
		t.Fatal(more, err)
	}
	return list
}

// due lets a quarter of an hour go by, and claims.
func (a *asking) due(t *testing.T) *storage.Question {
	t.Helper()
	a.now = a.now.Add(16 * time.Minute)
	list := a.claim(t)
	if len(list) != 1 || string(list[0].Data) != secretOfUpstream || list[0].User.ID != a.user.ID {
		t.Fatalf("%+v", list)
	}
	return list[0]
}

func (a *asking) left() bool {
	dump := a.Dump()
	return strings.Contains(dump, "upstreams/") || strings.Contains(dump, "asks/")
}

func TestWhatConnectorsKeepIsSealed(t *testing.T) {
	a := newAsking(t)
	if dump := a.Dump(); strings.Contains(dump, secretOfUpstream) || !strings.Contains(dump, "upstreams/sub-eve") {
		t.Error("the raw database holds what opens the upstream, or nothing")
	}
}

func TestQuestionsAreClaimedOnce(t *testing.T) {
	a := newAsking(t)
	if asked := a.Count(func() { a.claim(t) }); asked != (storagetest.Counts{Reads: 1}) {
		t.Errorf("nothing is due, and yet: %+v", asked)
	}
	a.now = a.now.Add(16 * time.Minute)
	var mu sync.Mutex
	claimed := 0
	stores := []*storage.Store{a.Store, a.replica(), a.replica()}
	race(t, 24, func() error {
		mu.Lock()
		s := stores[claimed%3]
		mu.Unlock()
		list, _, err := s.ClaimQuestions(t.Context(), askable, time.Minute)
		mu.Lock()
		claimed += len(list)
		mu.Unlock()
		return err
	})
	if claimed != 1 {
		t.Errorf("claimed %d times", claimed)
	}
	a.now = a.now.Add(2 * time.Minute) // and whoever claimed it has died
	if list := a.claim(t); len(list) != 1 {
		t.Errorf("%d claimed", len(list))
	}
}

func TestAnswersChangeTheRecord(t *testing.T) {
	a := newAsking(t)
	q := a.due(t)
	same := eve().User
	if asked := a.Count(func() {
		if err := a.Answered(t.Context(), q, same, nil, 15*time.Minute); err != nil {
			t.Fatal(err)
		}
	}); asked != (storagetest.Counts{Proposals: 1}) {
		t.Errorf("%+v", asked)
	}
	if now := user(t, a.Store, a.user.ID); *now != *a.user {
		t.Errorf("changed without a change: %+v", now)
	}
	q = a.due(t)
	changed := same
	changed.ID, changed.Connector, changed.UpstreamID = "", "", ""
	changed.Groups = storage.NamesOf([]string{"guests"})
	if err := a.Answered(t.Context(), q, changed, []byte("next"), 15*time.Minute); err != nil {
		t.Fatal(err)
	}
	now := user(t, a.Store, a.user.ID)
	if now.Revision == a.user.Revision || now.Term != a.user.Term || now.GroupNames()[0] != "guests" ||
		now.Connector != "ldap" || now.UpstreamID != "uid=eve" {
		t.Errorf("%+v", now)
	}
	a.now = a.now.Add(16 * time.Minute)
	if list := a.claim(t); len(list) != 1 || string(list[0].Data) != "next" {
		t.Errorf("%+v", list)
	}
}

// What was asked before a person signed in again says nothing about them any longer.
func TestLateAnswersCountForNothing(t *testing.T) {
	for what, answer := range map[string]func(a *asking, q *storage.Question) error{
		"another answer": func(a *asking, q *storage.Question) error {
			return a.Answered(t.Context(), q, storage.User{Name: "Old"}, []byte("old"), time.Minute)
		},
		"a refusal": func(a *asking, q *storage.Question) error {
			_, ended, err := a.Refused(t.Context(), q, storage.AuditEntry{Reason: "x"})
			if ended {
				t.Error("ended")
			}
			return err
		},
		"a fault": func(a *asking, q *storage.Question) error { return a.Unanswered(t.Context(), q, time.Hour) },
	} {
		a := newAsking(t)
		q := a.due(t)
		a.arrive(t)
		before := a.Dump()
		if err := answer(a, q); err != nil || a.Dump() != before {
			t.Errorf("%s: %v, or something was written", what, err)
		}
	}
}

// Whoever signs in by a joined identity has the account's own connector asked for longer, and disturbs no question to
// it: what the connector has answered may be all that opens it now.
func TestJoinedIdentitiesKeepTheQuestionOpen(t *testing.T) {
	a := newAsking(t)
	if _, _, err := a.LinkUser(t.Context(), storage.Link{Connector: "oidc", UpstreamID: "4711", UserID: a.user.ID,
		Own: "sub-there"}); err != nil {
		t.Fatal(err)
	}
	q := a.due(t)
	there := storage.Arrival{User: storage.User{ID: "sub-there", Connector: "oidc", UpstreamID: "4711"},
		Until: a.now.Add(72 * time.Hour)}
	for i, want := range []int64{1, 0} {
		if asked := a.Count(func() { arrive(t, a.Store, there) }); asked.Proposals != want {
			t.Errorf("sign-in %d: %+v", i, asked)
		}
	}
	if err := a.Answered(t.Context(), q, eve().User, []byte("next"), time.Minute); err != nil {
		t.Fatal(err)
	}
	a.now = a.now.Add(48 * time.Hour)
	if list := a.claim(t); len(list) != 1 || string(list[0].Data) != "next" {
		t.Errorf("%+v", list)
	}
}

// The answer was asked for before an operator changed the record.
func TestAnswersMeetAChangedRecord(t *testing.T) {
	a := newAsking(t)
	q := a.due(t)
	other := eve().User
	other.Nickname = "evy"
	if _, err := a.PutUser(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	answer := eve().User
	answer.Name = "Eve the Second"
	if err := a.Answered(t.Context(), q, answer, nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	if now := user(t, a.Store, a.user.ID); now.Name != "Eve the Second" {
		t.Errorf("%+v", now)
	}
	q = a.due(t)
	if _, err := a.EndUser(t.Context(), a.user.ID, storage.AuditEntry{Reason: "revoked by an operator"}); err != nil {
		t.Fatal(err)
	}
	before := a.Dump()
	if err := a.Answered(t.Context(), q, eve().User, nil, time.Minute); err != nil || a.Dump() != before {
		t.Errorf("an answer about a term that has ended: %v", err)
	}
}

func TestRefusalEndsEverythingOfTheUser(t *testing.T) {
	a := newAsking(t)
	session := signedIn(t, a.Store, a.user, "")
	q := a.due(t)
	ended, did, err := a.Refused(t.Context(), q, storage.AuditEntry{Reason: "the connector ldap says so"})
	if err != nil || !did || ended.Sessions != 1 {
		t.Fatal(ended, did, err)
	}
	p, err := a.Presence(t.Context(), session, a.user.ID, "c")
	if err != nil || p.Session != nil || a.left() {
		t.Errorf("%+v, %v", p, err)
	}
	if list := audited(t, a.Store, storage.AuditUserEnded); len(list) != 1 ||
		list[0].Reason != "the connector ldap says so" {
		t.Errorf("%+v", list)
	}
	a.arrive(t) // who may again
	if !a.user.Active() || !a.left() {
		t.Error("they cannot come back")
	}
}

// A fault says nothing about anybody.
func TestFaultsPutQuestionsOff(t *testing.T) {
	a := newAsking(t)
	for n := 1; n < 4; n++ {
		q := a.due(t)
		if q.Failed != n-1 {
			t.Errorf("failed %d times", q.Failed)
		}
		if err := a.Unanswered(t.Context(), q, 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		if list := a.claim(t); len(list) > 0 {
			t.Error("asked again at once")
		}
	}
	if now := user(t, a.Store, a.user.ID); *now != *a.user {
		t.Errorf("%+v", now)
	}
}

func TestWhatConnectorsKeepGoes(t *testing.T) {
	for when, end := range map[string]func(a *asking) error{
		"all has ended that they began": func(a *asking) error { a.now = a.now.Add(25 * time.Hour); return nil },
		"the user has ended": func(a *asking) error {
			_, err := a.EndUser(t.Context(), a.user.ID, storage.AuditEntry{Reason: "x"})
			return err
		},
		"the connector has gone": func(a *asking) error {
			_, err := a.LeaveUsers(t.Context(), map[string]bool{"local": true})
			return err
		},
		"the record has gone": func(a *asking) error {
			_, err := a.Etcd.Client.Delete(t.Context(), a.Prefix+"users/sub-eve")
			return err
		},
		"they have signed in, and there is nothing to ask": func(a *asking) error {
			_, err := a.ArriveUser(t.Context(), eve())
			return err
		},
	} {
		a := newAsking(t)
		if err := end(a); err != nil {
			t.Fatal(err)
		}
		a.now = a.now.Add(16 * time.Minute)
		if list := a.claim(t); len(list) != 0 || a.left() {
			t.Errorf("%s: %d to ask, or something is left", when, len(list))
		}
	}
	a := newAsking(t)
	a.now = a.now.Add(16 * time.Minute)
	if list, _, err := a.ClaimQuestions(t.Context(), func(string) bool { return false }, time.Minute); err != nil ||
		len(list) != 0 || a.left() {
		t.Errorf("the connector cannot be asked any longer: %+v, %v", list, err)
	}
}

// Hundreds that are due at once are taken in portions.
func TestManyQuestions(t *testing.T) {
	a := newAsking(t)
	for i := range 120 {
		arrival := eve()
		arrival.User.ID += string(rune('A'+i/26)) + string(rune('a'+i%26))
		arrival.Data, arrival.Ask, arrival.Until = []byte("x"), 15*time.Minute, a.now.Add(24*time.Hour)
		arrive(t, a.Store, arrival)
	}
	a.now = a.now.Add(16 * time.Minute)
	seen := 0
	for more := true; more; {
		var list []*storage.Question
		var err error
		asked := a.Count(func() { list, more, err = a.ClaimQuestions(t.Context(), askable, time.Minute) })
		if err != nil || len(list) == 0 || len(list) > 50 || asked.Reads > 2 {
			t.Fatalf("%d, %+v, %v", len(list), asked, err)
		}
		seen += len(list)
	}
	if seen != 121 {
		t.Errorf("%d", seen)
	}
}

func TestWhatConnectorsKeepIsSealedAnew(t *testing.T) {
	etcd := storagetest.New(t)
	oldKey, newKey := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	now := time.Now()
	with := func(keys ...[]byte) func(*storage.Options) {
		return func(o *storage.Options) {
			kek, err := storage.NewKEK(keys...)
			if err != nil {
				t.Fatal(err)
			}
			o.KEK, o.Now = kek, func() time.Time { return now }
		}
	}
	arrival := eve()
	arrival.Data, arrival.Ask, arrival.Until = []byte(secretOfUpstream), time.Minute, now.Add(time.Hour)
	arrive(t, etcd.Store(with(oldKey)), arrival)
	next := etcd.Store(with(newKey, oldKey))
	storage.NothingInFlight(next)
	if err := next.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Minute)
	list, _, err := etcd.Store(with(newKey)).ClaimQuestions(t.Context(), askable, time.Minute)
	if err != nil || len(list) != 1 || string(list[0].Data) != secretOfUpstream {
		t.Errorf("%+v, %v", list, err)
	}
}

// A backup holds tokens of upstreams that may have been given up since.
func TestNewEpochAsksNobody(t *testing.T) {
	a := newAsking(t)
	if err := a.RotateKeys(t.Context(), true, permanent); err != nil {
		t.Fatal(err)
	}
	if _, err := a.BeginEpoch(t.Context(), true); err != nil || !a.left() {
		t.Errorf("grants are kept: %v", err)
	}
	if _, err := a.BeginEpoch(t.Context(), false); err != nil || a.left() {
		t.Errorf("something is left: %v", err)
	}
}

func TestLinkedIdentitySignsInAsTheAccount(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	synced(t, s, storage.User{ID: "ann", Name: "Ann"})
	own := arrive(t, s, eve())
	session := signedIn(t, s, own, "")
	link := storage.Link{Connector: "ldap", UpstreamID: "uid=eve", UserID: "ann", Own: "sub-eve"}
	given, ended, err := s.LinkUser(storage.WithActor(t.Context(), "uid:1000"), link)
	if err != nil || given == nil || given.ID != "sub-eve" || ended.Sessions != 1 {
		t.Fatal(given, ended, err)
	}
	if p, err := s.Presence(t.Context(), session, "sub-eve", "c"); err != nil || p.Session != nil {
		t.Errorf("%+v, %v", p, err)
	}
	var as *storage.User
	if asked := etcd.Count(func() { as = arrive(t, s, eve()) }); asked.Proposals != 0 || asked.Reads > 2 {
		t.Errorf("%+v", asked)
	}
	if ann := user(t, s, "ann"); *as != *ann || ann.Name != "Ann" || ann.Connector != "local" {
		t.Errorf("%+v", as)
	}
	before := etcd.Dump()
	if _, _, err := s.LinkUser(t.Context(), link); err != nil || etcd.Dump() != before {
		t.Errorf("once more: %v", err)
	}
	if links, err := s.Links(t.Context(), "ann"); err != nil || len(links) != 1 || links[0].UpstreamID != "uid=eve" {
		t.Errorf("%+v, %v", links, err)
	}
	// It is undone, and whoever signed in so is out.
	session = signedIn(t, s, as, "")
	undone, ended, err := s.UnlinkUser(t.Context(), "ldap", "uid=eve")
	if err != nil || undone.UserID != "ann" || ended.Sessions != 1 {
		t.Fatal(undone, ended, err)
	}
	if p, err := s.Presence(t.Context(), session, "ann", "c"); err != nil || p.Session != nil {
		t.Errorf("%+v, %v", p, err)
	}
	if back := arrive(t, s, eve()); back.ID != "sub-eve" || !back.Active() {
		t.Errorf("%+v", back)
	}
	if _, _, err := s.UnlinkUser(t.Context(), "ldap", "uid=eve"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("once more: %v", err)
	}
	for _, action := range []string{storage.AuditUserLinked, storage.AuditUserUnlinked} {
		if list := audited(t, s, action); len(list) != 1 || !strings.Contains(list[0].Detail, "user ann") {
			t.Errorf("%s: %+v", action, list)
		}
	}
}

func TestLinksLeadToNoOtherLink(t *testing.T) {
	s := storagetest.New(t).Store()
	synced(t, s, storage.User{ID: "ann"}, storage.User{ID: "bob"})
	arrive(t, s, eve())
	mallory := eve()
	mallory.User.ID, mallory.User.UpstreamID = "sub-mallory", "uid=mallory"
	arrive(t, s, mallory)
	if _, _, err := s.LinkUser(t.Context(), storage.Link{Connector: "ldap", UpstreamID: "uid=eve", UserID: "ann",
		Own: "sub-eve"}); err != nil {
		t.Fatal(err)
	}
	for rule, c := range map[string]struct {
		link storage.Link
		want error
	}{
		"an identity that is joined": {storage.Link{Connector: "ldap", UpstreamID: "uid=eve", UserID: "bob", Own: "sub-eve"},
			storage.ErrLinked},
		"to an account that is": {storage.Link{Connector: "ldap", UpstreamID: "uid=mallory", UserID: "sub-eve",
			Own: "sub-mallory"}, storage.ErrLinked},
		"to nobody": {storage.Link{Connector: "ldap", UpstreamID: "uid=mallory", UserID: "nobody",
			Own: "sub-mallory"}, storage.ErrNotFound},
		"to itself": {storage.Link{Connector: "ldap", UpstreamID: "uid=mallory", UserID: "sub-mallory",
			Own: "sub-mallory"}, storage.ErrConflict},
		"from one that has a link": {storage.Link{Connector: "x", UpstreamID: "ann", UserID: "bob", Own: "ann"},
			storage.ErrLinked},
	} {
		if _, _, err := s.LinkUser(t.Context(), c.link); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

// People move from one directory to another with their accounts: these are joined, and the first directory goes.
func TestAccountMovesWhenItsConnectorIsGone(t *testing.T) {
	s := storagetest.New(t).Store()
	before := arrive(t, s, eve())
	there := eve()
	there.User.ID, there.User.Connector, there.User.UpstreamID, there.User.Name = "sub-there", "oidc", "4711", "Eve There"
	if _, _, err := s.LinkUser(t.Context(), storage.Link{Connector: "oidc", UpstreamID: "4711", UserID: before.ID,
		Own: "sub-there"}); err != nil {
		t.Fatal(err)
	}
	if as := arrive(t, s, there); as.ID != before.ID || as.Name != "Eve" || as.Connector != "ldap" {
		t.Errorf("%+v", as)
	}
	if _, err := s.LeaveUsers(t.Context(), map[string]bool{"oidc": true}); err != nil {
		t.Fatal(err)
	}
	as := arrive(t, s, there)
	if as.ID != before.ID || !as.Active() || as.Name != "Eve There" || as.Connector != "oidc" || as.Stands(before.Term) {
		t.Errorf("%+v", as)
	}
	// Nobody else of the first directory gets it, nor does a connector that is called otherwise.
	for rule, change := range map[string]func(u *storage.User){
		"somebody else":     func(u *storage.User) { u.UpstreamID = "uid=mallory" },
		"another connector": func(u *storage.User) { u.Connector = "ldap2" },
	} {
		other := eve()
		change(&other.User)
		if _, err := s.ArriveUser(t.Context(), other); !errors.Is(err, storage.ErrOtherConnector) {
			t.Errorf("%s: %v", rule, err)
		}
	}
	there.User.Name = "Eve Still There"
	if as = arrive(t, s, there); as.Name != "Eve Still There" || as.ID != before.ID {
		t.Errorf("%+v", as)
	}
	// The first directory is back: the account is its own again, and the other identity signs in as it.
	moved := as
	as = arrive(t, s, eve())
	if as.ID != before.ID || as.Connector != "ldap" || as.Name != "Eve" || !as.Stands(moved.Term) {
		t.Errorf("%+v", as)
	}
	if as = arrive(t, s, there); as.ID != before.ID || as.Connector != "ldap" || as.Name != "Eve" {
		t.Errorf("%+v", as)
	}
	// It goes once more, and comes back when the other identity is no longer joined.
	if _, err := s.LeaveUsers(t.Context(), map[string]bool{"oidc": true}); err != nil {
		t.Fatal(err)
	}
	if as = arrive(t, s, there); as.Connector != "oidc" {
		t.Errorf("%+v", as)
	}
	if _, _, err := s.UnlinkUser(t.Context(), "oidc", "4711"); err != nil {
		t.Fatal(err)
	}
	if as = arrive(t, s, there); as.ID != "sub-there" {
		t.Errorf("%+v", as)
	}
	if as = arrive(t, s, eve()); as.ID != before.ID || as.Connector != "ldap" {
		t.Errorf("%+v", as)
	}
	// Whom an operator has disabled stays out.
	if _, err := s.DisableUser(t.Context(), before.ID, storage.AuditEntry{}); err != nil {
		t.Fatal(err)
	}
	if as = arrive(t, s, eve()); as.Active() {
		t.Errorf("%+v", as)
	}
}

// An account that an older version has moved does not know its origin: its first identity is let in by an operator.
func TestAccountWithoutOriginIsOpenedByAnOperator(t *testing.T) {
	s := storagetest.New(t).Store()
	if _, err := s.PutUser(t.Context(), storage.User{ID: "sub-eve", Connector: "oidc", UpstreamID: "4711"}); err != nil {
		t.Fatal(err)
	}
	back := storage.Link{Connector: "ldap", UpstreamID: "uid=eve", UserID: "sub-eve", Own: "sub-eve"}
	for range 2 {
		if _, err := s.ArriveUser(t.Context(), eve()); !errors.Is(err, storage.ErrOtherConnector) {
			t.Errorf("without its link: %v", err)
		}
		if given, _, err := s.LinkUser(t.Context(), back); err != nil || given != nil {
			t.Fatal(given, err)
		}
		if as := arrive(t, s, eve()); as.ID != "sub-eve" || !as.Active() || as.Connector != "oidc" {
			t.Errorf("%+v", as)
		}
		if _, _, err := s.UnlinkUser(t.Context(), "ldap", "uid=eve"); err != nil {
			t.Fatal(err)
		}
	}
	// When the account's connector goes as well, it belongs to the first one again.
	if _, _, err := s.LinkUser(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LeaveUsers(t.Context(), map[string]bool{"ldap": true}); err != nil {
		t.Fatal(err)
	}
	if as := arrive(t, s, eve()); as.ID != "sub-eve" || !as.Active() || as.Connector != "ldap" || as.Name != "Eve" {
		t.Errorf("%+v", as)
	}
}

// Whatever arrives while identities are joined, nothing stands of the account that is given up.
func TestLinkBeatsArrivals(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	synced(t, s, storage.User{ID: "ann"})
	arrive(t, s, eve())
	var once sync.Once
	race(t, 24, func() error {
		err := errors.New("")
		once.Do(func() {
			_, _, err = s.LinkUser(t.Context(), storage.Link{Connector: "ldap", UpstreamID: "uid=eve",
				UserID: "ann", Own: "sub-eve"})
		})
		if err == nil || err.Error() != "" {
			return err
		}
		a := eve()
		a.Data, a.Ask, a.Until = []byte("x"), time.Minute, time.Now().Add(time.Hour)
		u, err := s.ArriveUser(t.Context(), a)
		if err == nil {
			_, err = s.CreateSession(t.Context(), storage.Session{UserID: u.ID, Term: u.Term,
				ExpiresAt: time.Now().Add(time.Hour)}, "")
		}
		return err
	}, storage.ErrConflict)
	if list, _, err := s.Sessions(t.Context(), "sub-eve", storage.Part{}); err != nil || len(list) != 0 ||
		user(t, s, "sub-eve").Active() {
		t.Errorf("%+v, %v", list, err)
	}
	if as := arrive(t, s, eve()); as.ID != "ann" {
		t.Errorf("%+v", as)
	}
}
