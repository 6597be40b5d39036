package storage_test

import (
	"bytes"
	"encoding/base64"
	"errors"
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

// OpenID Connect Core 1.0 section 8.1: the same for the same sector and user, never the same otherwise, and known again by this
// server alone.
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
			{"app.test", "ann"}, {"app.test", "bob"}, {"other.test", "ann"}, {"app.testa", "nn"}, {"", "app.testann"}, {"app.test", long}, {"other.test", long},
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
		"a changed byte": base64.RawURLEncoding.EncodeToString(raw), "cut off": sub[:len(sub)-4], "padding": sub + "=", "a line break": sub[:8] + "\n" + sub[8:],
		"empty": "", "a user id": "08a8684b-db88-4b73-90a9-3cd1661f5466", "a megabyte": strings.Repeat("A", 1<<20), "twice": sub + sub,
	} {
		if user, ok := s.PairwiseUser(other); ok {
			t.Errorf("%s passes as %q", rule, user)
		}
	}
}

// Apps keep subjects for ever, so nothing ever changes them: neither time, nor another replica, nor a new encryption key.
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
	if err := etcd.Store(with(newKey, oldKey)).Reseal(t.Context()); err != nil {
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

func TestSector(t *testing.T) {
	for rule, c := range map[string]struct {
		uri       string
		redirects []string
		want      string
		err       error
	}{
		"one host":                      {redirects: []string{"https://app.test/a", "https://APP.test:8443/b"}, want: "app.test"},
		"loopback does not count":       {redirects: []string{"https://app.test/a", "http://localhost:*", "http://127.0.0.1:3000/cb", "http://[::1]:*/cb"}, want: "app.test"},
		"nothing but loopback":          {redirects: []string{"http://localhost:*"}, want: "client c"},
		"native":                        {redirects: []string{"com.example.app:/cb"}, want: "client c"},
		"several hosts":                 {redirects: []string{"https://app.test/a", "https://b.test/b"}, err: storage.ErrSectors},
		"several hosts, one identifier": {uri: "https://Sector.test:444/x", redirects: []string{"https://app.test/a", "https://b.test/b"}, want: "sector.test"},
	} {
		got, err := (&storage.Client{ID: "c", RedirectURIs: c.redirects, ClientMetadata: storage.ClientMetadata{SectorIdentifierURI: c.uri}}).Sector()
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", rule, got, err)
		}
	}
	for _, bad := range []string{"sector", "https://", "::"} {
		if got, err := (&storage.Client{ClientMetadata: storage.ClientMetadata{SectorIdentifierURI: bad}}).Sector(); err == nil {
			t.Errorf("sector identifier %q gives %q", bad, got)
		}
	}
}
