package storage_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

var permanent = storage.KeySchedule{Use: storage.UsePairwise}

func pairwise(t *testing.T, s *storage.Store, sector, user string) string {
	t.Helper()
	sub, err := s.PairwiseSubject(sector, user)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// OpenID Connect Core 1.0 section 8.1: the same for the same sector and user, never the same otherwise, and known again
// by this server alone.
func TestPairwiseSubject(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	if _, err := s.PairwiseSubject("app.test", "ann"); err == nil {
		t.Error("made without a key")
	}
	if _, ok := s.PairwiseUser("ann"); ok {
		t.Error("known without a key")
	}
	if err := s.RotateKeys(t.Context(), true, permanent); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", storage.MaxUserID)
	seen := make(map[string]string)
	counts := etcd.Count(func() {
		for _, who := range [][2]string{
			{"app.test", "ann"}, {"app.test", "bob"}, {"other.test", "ann"}, {"app.testa", "nn"}, {"", "app.testann"},
			{"app.test", long}, {"other.test", long},
		} {
			sub := pairwise(t, s, who[0], who[1])
			if pairwise(t, s, who[0], who[1]) != sub {
				t.Errorf("%v has two subjects", who)
			}
			if user, ok := s.PairwiseUser(sub); !ok || user != who[1] {
				t.Errorf("%v comes back as %q, %v", who, user, ok)
			}
			if len(sub) > 255 || strings.Trim(sub, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				t.Errorf("subject of %d characters: %s", len(sub), sub)
			}
			if before, taken := seen[sub[:12]]; taken {
				t.Errorf("%v and %s begin alike", who, before)
			}
			seen[sub[:12]] = strings.Join(who[:], " ")
		}
	})
	if counts != (storagetest.Counts{}) {
		t.Errorf("etcd was asked: %+v", counts)
	}
	if len(pairwise(t, s, "app.test", "a")) != len(pairwise(t, s, "app.test", "08a8684b-db88-4b73-90a9-3cd1661f5466")) {
		t.Error("the length tells users apart")
	}
	for rule, id := range map[string]string{"empty": "", "too long": long + "x", "a NUL": "a\x00"} {
		if _, err := s.PairwiseSubject("app.test", id); err == nil {
			t.Errorf("a user id that is %s was taken", rule)
		}
	}
	sub := pairwise(t, s, "app.test", "ann")
	raw, err := base64.RawURLEncoding.DecodeString(sub)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	for rule, other := range map[string]string{
		"a changed byte": base64.RawURLEncoding.EncodeToString(raw), "cut off": sub[:len(sub)-4], "padding": sub +
			"=", "a line break": sub[:8] + "\n" + sub[8:],
		"empty": "", "a user id": "08a8684b-db88-4b73-90a9-3cd1661f5466", "a megabyte": strings.Repeat("A", 1<<20),
		"twice": sub + sub,
	} {
		if user, ok := s.PairwiseUser(other); ok {
			t.Errorf("%s passes as %q", rule, user)
		}
	}
}

// Apps keep subjects for ever, so nothing ever changes them: neither time, nor another replica, nor a new encryption
// key.
func TestPairwiseKeyIsForEver(t *testing.T) {
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
	var replicas []*storage.Store
	for range 8 {
		replicas = append(replicas, etcd.Store(with(oldKey)))
	}
	var all sync.WaitGroup
	for _, s := range replicas {
		all.Go(func() {
			if err := s.RotateKeys(t.Context(), false, permanent); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	sub := pairwise(t, replicas[0], "app.test", "ann")
	for _, s := range replicas {
		if pairwise(t, s, "app.test", "ann") != sub {
			t.Fatal("two replicas have two keys")
		}
	}
	now = now.Add(20 * 365 * 24 * time.Hour)
	if err := replicas[0].RotateKeys(t.Context(), false, permanent); err != nil {
		t.Fatal(err)
	}
	if keys := replicas[0].Keys(storage.UsePairwise); len(keys) != 1 {
		t.Errorf("%d keys after twenty years", len(keys))
	}
	for _, s := range replicas {
		s.Close()
	}
	next := etcd.Store(with(newKey, oldKey))
	storage.NothingInFlight(next)
	if err := next.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := pairwise(t, etcd.Store(with(newKey)), "app.test", "ann"); got != sub {
		t.Error("the subject changed with the encryption key")
	}
	if strings.Contains(etcd.Dump(), string(replicas[0].Keys(storage.UsePairwise)[0].Private.([]byte))) {
		t.Error("the raw database holds the key")
	}
}

func FuzzPairwiseUser(f *testing.F) {
	s := storagetest.New(f).Store()
	if err := s.RotateKeys(f.Context(), true, permanent); err != nil {
		f.Fatal(err)
	}
	good, err := s.PairwiseSubject("app.test", "ann")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("")
	f.Add(good[:32])
	f.Fuzz(func(t *testing.T, subject string) {
		if user, ok := s.PairwiseUser(subject); ok != (subject == good) {
			t.Errorf("%q is %q, %v", subject, user, ok)
		}
	})
}
