package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestSealedStrings(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	if err := s.RotateKeys(t.Context(), true, storage.KeySchedule{Use: storage.UseSeal, Period: time.Hour}); err != nil {
		t.Fatal(err)
	}
	code, err := s.Seal(storage.SealCode, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := s.Open(storage.SealCode, code); err != nil || string(plain) != "payload" {
		t.Fatalf("%q, %v", plain, err)
	}
	if again, _ := s.Seal(storage.SealCode, []byte("payload")); again == code {
		t.Error("the same string twice")
	}
	for name, bad := range map[string]string{
		"another type's prefix": string(storage.SealRefresh) + strings.TrimPrefix(code, string(storage.SealCode)),
		"no prefix":             strings.TrimPrefix(code, string(storage.SealCode)),
		"a changed byte":        code[:len(code)-5] + "AAAA" + code[len(code)-1:],
		"cut off":               code[:len(code)-4],
		"empty":                 "",
		"padding":               code + "=",
		"white space":           code + "\n",
		"a megabyte of dots":    strings.Repeat(".", 1<<20),
	} {
		for _, as := range []storage.SealType{storage.SealCode, storage.SealRefresh, storage.SealSession} {
			n := etcd.Count(func() {
				if _, err := s.Open(as, bad); !errors.Is(err, storage.ErrNotFound) {
					t.Errorf("%s opened as %s: %v", name, as, err)
				}
			})
			if n != (storagetest.Counts{}) {
				t.Errorf("%s reached etcd: %+v", name, n)
			}
		}
	}
	a, _ := s.SealFixed(storage.SealRefresh, []byte("one"))
	b, _ := s.SealFixed(storage.SealRefresh, []byte("one"))
	c, _ := s.SealFixed(storage.SealRefresh, []byte("two"))
	if a != b || a == c {
		t.Error("fixed sealing is not fixed by its plain text")
	}
}

func FuzzOpen(f *testing.F) {
	s := storagetest.New(f).Store()
	if err := s.RotateKeys(f.Context(), true, storage.KeySchedule{Use: storage.UseSeal, Period: time.Hour}); err != nil {
		f.Fatal(err)
	}
	good, err := s.Seal(storage.SealCode, []byte("payload"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("wfc_")
	f.Add("wfc_AAAAAAAA")
	f.Fuzz(func(t *testing.T, sealed string) {
		plain, err := s.Open(storage.SealCode, sealed)
		if (err == nil) != (sealed == good) {
			t.Errorf("%q opened as %q, %v", sealed, plain, err)
		}
	})
}

func TestKeysRotate(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	schedule := storage.KeySchedule{Use: storage.UseES256, Period: 24 * time.Hour, Overlap: 2 * time.Hour}
	rotate := func() {
		t.Helper()
		if err := s.RotateKeys(t.Context(), false, schedule); err != nil {
			t.Fatal(err)
		}
	}
	signs := func() string {
		t.Helper()
		k, err := s.SigningKey(storage.UseES256)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s-%d", k.Use, k.Sequence)
	}
	rotate()
	if keys := s.Keys(storage.UseES256); len(keys) != 2 || signs() != "ES256-1" {
		t.Fatalf("at first: %d keys, %s signs", len(keys), signs())
	}
	rotate() // again: nothing to do
	if keys := s.Keys(storage.UseES256); len(keys) != 2 {
		t.Fatalf("%d keys", len(keys))
	}
	now = now.Add(25 * time.Hour)
	rotate()
	if signs() != "ES256-2" {
		t.Error("the published key does not sign in its time")
	}
	if keys := s.Keys(storage.UseES256); len(keys) != 3 {
		t.Errorf("%d keys: the old one must verify still, the next be published", len(keys))
	}
	now = now.Add(2 * time.Hour)
	rotate()
	eventually(t, "the old key is dropped", func() bool { return len(s.Keys(storage.UseES256)) == 2 })
	// After a long stop, the key that was published before signs, and not the one that nobody has seen.
	now = now.Add(1000 * time.Hour)
	rotate()
	rotate()
	if signs() != "ES256-3" {
		t.Errorf("%s signs", signs())
	}
}

func TestReplicasMakeEachKeyOnce(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store(), etcd.Store()}
	race(t, 12, func() error {
		for _, s := range stores {
			if err := s.RotateKeys(t.Context(), false, storage.KeySchedule{Use: storage.UseES256,
				Period: time.Hour}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, s := range stores {
		eventually(t, "two keys", func() bool { return len(s.Keys(storage.UseES256)) == 2 })
		a, b := s.Keys(storage.UseES256), stores[0].Keys(storage.UseES256)
		if !bytes.Equal(a[0].Sealed, b[0].Sealed) || !bytes.Equal(a[1].Sealed, b[1].Sealed) {
			t.Error("replicas disagree about a key")
		}
	}
}

func TestEncryptionKeyRotation(t *testing.T) {
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
	s := etcd.Store(with(oldKey))
	c, _ := registered(t, s)
	if err := s.RotateKeys(t.Context(), false, storage.KeySchedule{Use: storage.UseSeal, Period: time.Hour}); err != nil {
		t.Fatal(err)
	}
	value, err := s.ClientSecretValue(c)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(storage.SealCode, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	next := etcd.Store(with(newKey, oldKey))
	storage.NothingInFlight(next)
	if err := next.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = etcd.Store(with(newKey)) // the old one can go
	c, err = s.Client(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.ClientSecretValue(c); err != nil || again != value {
		t.Errorf("secret after the rotation: %v", err)
	}
	if _, err := s.Open(storage.SealCode, sealed); err != nil {
		t.Errorf("sealed before the rotation: %v", err)
	}
	// Without the right key the store does not open, and says why.
	kek, _ := storage.NewKEK(oldKey)
	_, err = storage.New(t.Context(), etcd.Client, storage.Options{Prefix: etcd.Prefix, KEK: kek, Logger: discard})
	if err == nil || !strings.Contains(err.Error(), "encryptionKeyFiles") {
		t.Errorf("opened with a key that is gone: %v", err)
	}
}

func TestRawDatabaseHoldsNoUsableSecret(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, u := registered(t, s)
	value, err := s.ClientSecretValue(c)
	if err != nil {
		t.Fatal(err)
	}
	d := storage.Delivery{App: "app", Target: storage.Target{Kind: "worker", Name: "web"}, Generation: 1,
		State: storage.DeliveryPending}
	if err := s.SealEnv(&d, map[string]string{"OAUTH_CLIENT_SECRET": value}); err != nil {
		t.Fatal(err)
	}
	view, err := s.App(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CommitRelease(t.Context(), storage.Release{App: *view.App,
		Deliveries: []storage.Delivery{d}}); err != nil {
		t.Fatal(err)
	}
	session, err := s.CreateSession(t.Context(), storage.Session{UserID: u.ID, ExpiresAt: time.Now().Add(time.Hour)}, "")
	if err != nil {
		t.Fatal(err)
	}
	session = strings.TrimPrefix(session, storage.SID(session)+".")
	if err := s.RotateKeys(t.Context(), true, storage.KeySchedule{Use: storage.UseSeal, Period: time.Hour}); err != nil {
		t.Fatal(err)
	}
	dump := etcd.Dump()
	if !strings.Contains(dump, c.ID) {
		t.Fatal("the dump does not hold what it should")
	}
	for what, secret := range map[string]string{"client secret": value, "session id": session,
		"sealing key": string(s.Keys(storage.UseSeal)[0].Private.([]byte))} {
		if strings.Contains(dump, secret) {
			t.Errorf("the raw database holds the %s", what)
		}
	}
	if env, err := s.OpenEnv(&d); err != nil || env["OAUTH_CLIENT_SECRET"] != value {
		t.Errorf("env: %v", err)
	}
}

func TestEncryptionKeyFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := storage.CreateKEKFile(file); err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(file)
	if err := storage.CreateKEKFile(file); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(file); !bytes.Equal(first, again) {
		t.Error("an existing key was replaced")
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := storage.ReadKEK(file); err != nil {
		t.Error(err)
	}
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("c2hvcnQ="), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{bad, filepath.Join(dir, "missing")} {
		_, err := storage.ReadKEK(f)
		if err == nil || strings.Contains(err.Error(), "c2hvcnQ") || !strings.Contains(err.Error(), f) {
			t.Errorf("%v", err)
		}
	}
}
