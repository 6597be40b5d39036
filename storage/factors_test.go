package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

var errRefused = errors.New("refused")

// equipped is an account that has one of each.
func equipped(t testing.TB, s *storage.Store, id string) *storage.Account {
	t.Helper()
	a := managed(t, s, id, id+"@app.test")
	next := a.Factors.Clone()
	next.TOTP = storage.TOTP{Secret: []byte("the secret of an app"), Step: 10}
	next.Recovery = []storage.RecoveryCode{{Hash: []byte("hash of a code")}, {Hash: []byte("hash of another")}}
	next.Passkeys = []storage.Passkey{{ID: []byte("key of " + id), Name: "phone", PublicKey: []byte("public key"),
		Count: 5}}
	a, _, err := s.ChangeFactors(t.Context(), a, storage.FactorChange{Next: next})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A thing that counts once counts once, however many replicas are shown it at the same time.
func TestFactorsCountOnceUnderRacersOnTwoStores(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	for what, use := range map[string]func(f *storage.Factors) bool{
		"recovery code": func(f *storage.Factors) bool {
			fresh := f.Recovery[0].UsedAt.IsZero()
			f.Recovery[0].UsedAt = time.Now().UTC()
			return fresh
		},
		"step of an authenticator app": func(f *storage.Factors) bool {
			later := f.TOTP.Step < 11
			f.TOTP.Step = 11
			return later
		},
		"counter of a passkey": func(f *storage.Factors) bool {
			higher := f.Passkeys[0].Count < 6
			f.Passkeys[0].Count = 6
			return higher
		},
	} {
		t.Run(what, func(t *testing.T) {
			id := strings.ReplaceAll(what, " ", "-")
			a := equipped(t, stores[0], id)
			exists := signedIn(t, stores[0], a.User, "")
			var n atomic.Int64
			won := race(t, 64, func() error {
				i := n.Add(1)
				s := stores[i%2]
				return storage.Again(16, func() (bool, error) {
					a, err := s.Account(t.Context(), id)
					if err != nil {
						return false, err
					}
					leaves := a.Factors.Clone()
					if !use(&leaves) {
						return false, errRefused
					}
					if i%3 == 0 {
						err = s.RaiseSession(t.Context(), storage.Raise{ID: exists, UserID: id, AMR: []string{"otp"}, Leaves: &leaves})
					} else {
						_, err = s.CreateSession(t.Context(), storage.Session{UserID: id, Term: a.User.Term,
							ExpiresAt: time.Now().Add(time.Hour),
							Leaves:    &leaves}, "")
					}
					if errors.Is(err, storage.ErrConflict) {
						return true, nil
					}
					return false, err
				})
			}, errRefused, storage.ErrConflict)
			if won != 1 {
				t.Errorf("it counted %d times", won)
			}
		})
	}
}

// A challenge that a passkey has signed counts once, also without a counter.
func TestChallengeCountsOnce(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	a := equipped(t, stores[0], "ann")
	uses := storage.Once{ID: "challenge", Until: time.Now().Add(time.Minute)}
	exists := signedIn(t, stores[0], a.User, "")
	var n atomic.Int64
	won := race(t, 64, func() error {
		i := n.Add(1)
		s := stores[i%2]
		switch i % 3 {
		case 0:
			return s.RaiseSession(t.Context(), storage.Raise{ID: exists, UserID: "ann", AMR: []string{"pop"}, Uses: uses})
		case 1:
			a, err := s.Account(t.Context(), "ann")
			if err == nil {
				_, _, err = s.ChangeFactors(t.Context(), a, storage.FactorChange{Next: a.Factors.Clone(), Uses: uses})
			}
			return err
		default:
			_, err := s.CreateSession(t.Context(), storage.Session{UserID: "ann", Term: a.User.Term,
				ExpiresAt: time.Now().Add(time.Hour), Uses: uses}, "")
			return err
		}
	}, storage.ErrSpent, storage.ErrConflict)
	if won != 1 {
		t.Errorf("it counted %d times", won)
	}
}

// What several browsers enrol at the same time is all there.
func TestEnrolmentsAtTheSameTimeAllStay(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	a := equipped(t, stores[0], "ann")
	var n atomic.Int64
	won := race(t, 12, func() error {
		i := n.Add(1)
		s := stores[i%2]
		return storage.Again(64, func() (bool, error) {
			a, err := s.Account(t.Context(), "ann")
			if err != nil {
				return false, err
			}
			next := a.Factors.Clone()
			next.Passkeys = append(next.Passkeys, storage.Passkey{ID: fmt.Append(nil, "key ", i)})
			_, _, err = s.ChangeFactors(t.Context(), a, storage.FactorChange{Next: next})
			if errors.Is(err, storage.ErrConflict) {
				return true, nil
			}
			return false, err
		})
	})
	now := account(t, stores[1], "ann")
	if won != 12 || len(now.Factors.Passkeys) != 13 || !bytes.Equal(now.Factors.Handle, a.Factors.Handle) {
		t.Errorf("%d won, %d passkeys", won, len(now.Factors.Passkeys))
	}
}

// A session whose user's term has ended gets nothing more into the account, also before it is cleared away.
func TestEndedTermKeepsFactorsOut(t *testing.T) {
	etcd := storagetest.New(t)
	s, other := etcd.Store(), etcd.Store()
	for name, ends := range map[string]func(a *storage.Account) error{
		"a new password": func(a *storage.Account) error {
			_, _, err := other.ChangeFactors(t.Context(), a, storage.FactorChange{Next: a.Factors,
				Ends: "the password has changed"})
			return err
		},
		"disabled": func(a *storage.Account) error {
			_, err := other.DisableUser(t.Context(), a.User.ID, storage.AuditEntry{})
			return err
		},
		"deleted": func(a *storage.Account) error {
			_, err := other.DeleteUser(t.Context(), a.User.ID, storage.AuditEntry{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := managed(t, s, strings.ReplaceAll(name, " ", "-"), strings.ReplaceAll(name, " ", "-")+"@app.test")
			if err := ends(a); err != nil {
				t.Fatal(err)
			}
			// It is not cleared away yet.
			left := signedIn(t, s, a.User, "")
			leaves := storage.Factors{}
			if now, err := s.Account(t.Context(), a.User.ID); err == nil {
				leaves = now.Factors.Clone()
			}
			leaves.Passkeys = []storage.Passkey{{ID: []byte("key of a thief")}}
			err := s.RaiseSession(t.Context(), storage.Raise{ID: left, UserID: a.User.ID, AMR: []string{"pop"}, Leaves: &leaves})
			if !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("raised: %v", err)
			}
			if now, err := s.Account(t.Context(), a.User.ID); err == nil && len(now.Factors.Passkeys) > 0 {
				t.Error("the passkey is there")
			}
		})
	}
}

// A sign-in that races with a new password stands only if it was made with that.
func TestNewPasswordBeatsSignIns(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	before := equipped(t, stores[0], "ann")
	var n atomic.Int64
	var own atomic.Value
	race(t, 64, func() error {
		i := n.Add(1)
		s := stores[i%2]
		if i == 20 {
			next := before.Factors.Clone()
			next.Password.Hash = "$argon2id$new"
			_, session, err := s.ChangeFactors(t.Context(), before, storage.FactorChange{Next: next,
				Ends:    "the password has changed",
				Session: storage.Session{UserID: "ann", ExpiresAt: time.Now().Add(time.Hour)}})
			own.Store(session)
			return err
		}
		_, err := s.CreateSession(t.Context(), storage.Session{UserID: "ann", Term: before.User.Term,
			ExpiresAt: time.Now().Add(time.Hour)}, "")
		return err
	})
	list, _, err := stores[0].Sessions(t.Context(), "ann", storage.Part{})
	if err != nil || len(list) != 1 || list[0].SID != storage.SID(own.Load().(string)) {
		t.Errorf("%d sessions stand (%v)", len(list), err)
	}
	// A link in a mail names the revision of before.
	stale := *account(t, stores[0], "ann")
	stale.Factors.Revision = before.Factors.Revision
	if _, _, err := stores[0].ChangeFactors(t.Context(), &stale, storage.FactorChange{Next: before.Factors}); !errors.Is(
		err, storage.ErrConflict) {
		t.Errorf("a link of before: %v", err)
	}
}

func TestLoginsBelongToOne(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	var n atomic.Int64
	taken := func(err error) error {
		var login *storage.LoginTakenError
		if errors.As(err, &login) {
			return errRefused
		}
		return err
	}
	won := race(t, 32, func() error {
		i := n.Add(1)
		_, err := stores[i%2].PutAccount(t.Context(), storage.User{ID: fmt.Sprint("u-", i), Email: "Ann@App.test"}, nil, nil,
			storage.AuditEntry{})
		return taken(err)
	}, errRefused, storage.ErrConflict)
	a, err := stores[0].AccountByLogin(t.Context(), "ann@app.TEST ")
	if won != 1 || err != nil {
		t.Fatalf("%d got it, %v", won, err)
	}
	other := managed(t, stores[0], "bob", "bob@app.test")
	changed := *other.User
	changed.Username = "ann@app.test"
	if _, err := stores[1].PutAccount(t.Context(), changed, other, nil, storage.AuditEntry{}); !errors.Is(taken(err),
		errRefused) {
		t.Error(err)
	}
	moved := *a.User
	moved.Email = "annie@app.test"
	if _, err := stores[0].PutAccount(t.Context(), moved, a, nil, storage.AuditEntry{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stores[1].PutAccount(t.Context(), changed, other, nil, storage.AuditEntry{}); err != nil {
		t.Errorf("a login that was given up: %v", err)
	}
	if a, err := stores[0].AccountByLogin(t.Context(), "ann@app.test"); err != nil || a.User.ID != "bob" {
		t.Error(a, err)
	}
}

// Whatever keyboard a name is typed on, it is the same one.
func TestLoginIsOneOnEveryKeyboard(t *testing.T) {
	s := storagetest.New(t).Store()
	for i, names := range [][2]string{{"caf\u00e9", "Cafe\u0301 "}, {"ann", "ＡＮＮ"}, {"ﾕｷ", "ユキ"},
		{"ben@app.test", "ｂｅｎ＠app．test"}} {
		name, also := names[0], names[1]
		a := managed(t, s, fmt.Sprint("u-", i), "")
		user := *a.User
		user.Username = name
		if _, err := s.PutAccount(t.Context(), user, a, nil, storage.AuditEntry{}); err != nil {
			t.Fatal(err)
		}
		if found, err := s.AccountByLogin(t.Context(), also); err != nil || found.User.ID != a.User.ID {
			t.Errorf("%s is not %s: %v", also, name, err)
		}
		var taken *storage.LoginTakenError
		if _, err := s.PutAccount(t.Context(), storage.User{ID: "other", Username: also}, nil, nil,
			storage.AuditEntry{}); !errors.As(err, &taken) {
			t.Errorf("somebody else is %s: %v", also, err)
		}
	}
}

// The configuration has somebody with the id of a managed account, and then no longer: whose password it is, is clear.
func TestAccountPassesToTheConfigurationAndBack(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx := t.Context()
	was := equipped(t, s, "ann")
	managed(t, s, "bob", "bob@app.test")
	synced(t, s, storage.User{ID: "ann", Email: "ann@app.test", Credential: "configured"})
	a := account(t, s, "ann")
	if a.User.Managed || a.User.Stands(was.User.Term) || !a.User.Active() || a.Factors.TOTP.Secret == nil {
		t.Errorf("%+v", a.User)
	}
	if _, err := s.AccountByLogin(ctx, "ann@app.test"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("it signs in as a managed one: %v", err)
	}
	if _, err := s.PutAccount(ctx, *a.User, a, nil, storage.AuditEntry{}); !errors.Is(err, storage.ErrNotManaged) {
		t.Error(err)
	}
	synced(t, s) // which leaves managed accounts alone
	if !user(t, s, "bob").Active() || user(t, s, "ann").Active() {
		t.Error("managed accounts are not of the configuration")
	}
	held := account(t, s, "ann")
	back, err := s.PutAccount(ctx, *held.User, held, nil, storage.AuditEntry{})
	if err != nil || !back.User.Active() || back.User.Stands(a.User.Term) {
		t.Fatal(back, err)
	}
	if now := account(t, s, "ann").Factors; now.Password.Hash != "" || now.TOTP.Secret == nil {
		t.Error("a password of long ago is back, or a second factor is gone")
	}
}

// After a restore nothing that counts once counts again.
func TestRestoredBackupUsesUpCodes(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s := storagetest.New(t).Store()
		equipped(t, s, "ann")
		managed(t, s, "bob", "bob@app.test")
		epoch, err := s.BeginEpoch(t.Context(), keep)
		if err != nil || epoch.Recovery != 1 || epoch.Users != 2 {
			t.Fatalf("%+v, %v", epoch, err)
		}
		f := account(t, s, "ann").Factors
		for _, c := range f.Recovery {
			if c.UsedAt.IsZero() {
				t.Error("a recovery code can be used")
			}
		}
		if now := time.Now().Unix() / 30; f.TOTP.Step < now || f.TOTP.Step > now+1 {
			t.Errorf("codes up to step %d are used, it is %d", f.TOTP.Step, now)
		}
		if len(f.Passkeys) != 1 || f.Password.Hash == "" || account(t, s, "bob").Factors.Password.Hash == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestRawDatabaseHoldsNoFactors(t *testing.T) {
	etcd := storagetest.New(t)
	a := equipped(t, etcd.Store(), "ann")
	dump := etcd.Dump()
	for what, secret := range map[string][]byte{
		"password": []byte(a.Factors.Password.Hash), "secret of an authenticator app": a.Factors.TOTP.Secret,
		"hash of a recovery code": a.Factors.Recovery[0].Hash, "public key": a.Factors.Passkeys[0].PublicKey,
	} {
		text := string(encodedIn(t, secret))
		if strings.Contains(dump, string(secret)) || strings.Contains(dump, text) {
			t.Errorf("the raw database holds the %s", what)
		}
	}
}
