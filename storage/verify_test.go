package storage_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// backedUpRecords is the file of a backup of a store in a cluster.
func backedUpRecords(t *testing.T, s *storage.Store) string {
	t.Helper()
	backup, err := s.Backup(t.Context(), storage.Exporting{Issuer: movedIssuer, Program: "test"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(backup)
	if err := errors.Join(err, backup.Close()); err != nil {
		t.Fatal(err)
	}
	return written(t, text)
}

func written(t *testing.T, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func restoredRecords(t *testing.T, e *storagetest.Etcd, kek *storage.KEK, file string,
	how storage.Restoring) (*storage.Epoch, error) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := storage.VerifyBackup(f); err != nil {
		return nil, err
	}
	return storage.Importing{Client: e.Client, Prefix: e.Prefix, KEK: kek, Issuer: movedIssuer, Logger: discard}.Restore(
		t.Context(), f, how)
}

// sound makes sure that nothing is wrong.
func sound(t *testing.T, found *storage.Verified, err error) {
	t.Helper()
	if err != nil || found.Wrong > 0 || found.Records == 0 {
		t.Fatalf("%+v, %v", found, err)
	}
}

// A backup of a cluster has the records of a namespace; what was revoked or used since does not come back with it.
func TestClusterIsBackedUpAndRestored(t *testing.T) {
	from, there, kept := storagetest.Remote(t), storagetest.New(t), storagetest.New(t)
	first := from.Store()
	u := use(t, first)
	subject := pairwise(t, first, "app.test", u.user.ID)
	file := backedUpRecords(t, first)
	v := storage.Verification{KEK: from.KEK, Prefix: from.Prefix, Issuer: movedIssuer}
	found, err := v.Cluster(t.Context(), from.Client)
	sound(t, found, err)
	if found, err = v.Backup(t.Context(), file); err == nil && (found.At.IsZero() || found.Kinds["users"] != 1) {
		t.Errorf("it says %+v", found)
	}
	sound(t, found, err)
	if len(audited(t, first, storage.AuditBackup)) != 1 {
		t.Error("the audit log has no backup")
	}
	if text, err := os.ReadFile(file); err != nil || bytes.Contains(text, []byte(u.user.ID)) {
		t.Errorf("a backup can be read: %v", err)
	}

	then := false
	epoch, err := restoredRecords(t, there, from.KEK, file,
		storage.Restoring{Then: func(ctx context.Context, s *storage.Store) error {
			then = true
			_, err := storage.New(ctx, there.Client, storage.Options{Prefix: there.Prefix, KEK: from.KEK, Logger: discard})
			if !errors.Is(err, storage.ErrUnfinished) {
				t.Errorf("it can be served before the epoch is there: %v", err)
			}
			return nil
		}})
	if err != nil || epoch.Grants != 2 || epoch.Sessions != 1 || epoch.BackupAt.IsZero() || !then {
		t.Fatalf("%+v, %v, %t", epoch, err, then)
	}
	s := there.Store(keyed(from.KEK))
	if alive(t, s, u.grant) {
		t.Error("a grant lives")
	}
	if _, err := s.Open(storage.SealRefresh, u.sealed); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a token from before: %v", err)
	}
	if again := pairwise(t, s, "app.test", u.user.ID); again != subject {
		t.Errorf("the user is %s to apps, and was %s", again, subject)
	}
	v.Prefix = there.Prefix
	found, err = v.Cluster(t.Context(), there.Client)
	sound(t, found, err)
	if found.Moved.IsZero() {
		t.Error("it does not say that the records came from elsewhere")
	}
	if _, err := restoredRecords(t, there, from.KEK, file, storage.Restoring{}); !errors.Is(err, storage.ErrNotEmpty) {
		t.Errorf("over other records: %v", err)
	}

	// Kept, and under a newer encryption key.
	both := kekOf(t, bytes.Repeat([]byte{7}, 32))
	if _, err := restoredRecords(t, kept, both, file, storage.Restoring{}); err == nil ||
		!strings.Contains(err.Error(), "encryptionKeyFiles") {
		t.Errorf("without its key: %v", err)
	}
	if epoch, err := restoredRecords(t, kept, from.KEK, file, storage.Restoring{KeepGrants: true}); err != nil ||
		epoch.Grants != 0 {
		t.Fatalf("%+v, %v", epoch, err)
	}
	u.refreshed(t, kept.Store(keyed(from.KEK)))
}

// Whoever dies on the way leaves nothing that is served, and the next attempt begins anew.
func TestUnfinishedRestoreIsNotServed(t *testing.T) {
	from, e := storagetest.New(t), storagetest.New(t)
	first := from.Store()
	use(t, first)
	file := backedUpRecords(t, first)
	broken := errors.New("the process is gone")
	ended, reached := false, false
	for requests := 0; !ended; requests++ {
		left := requests
		e.Inject(func(write, sent bool) error {
			if !write || sent {
				return nil
			}
			if left--; left < 0 {
				return broken
			}
			return nil
		})
		epoch, err := restoredRecords(t, e, from.KEK, file,
			storage.Restoring{Then: func(context.Context, *storage.Store) error {
				reached = true
				return nil
			}})
		e.Inject(nil)
		ended = err == nil
		if err != nil && !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if requests == 0 {
			continue
		}
		s, err := storage.New(t.Context(), e.Client, storage.Options{Prefix: e.Prefix, KEK: from.KEK, Logger: discard})
		if err == nil {
			s.Close()
		}
		if ended && (err != nil || epoch.Grants != 2) || !ended && !errors.Is(err, storage.ErrUnfinished) {
			t.Fatalf("after %d requests: %v", requests, err)
		}
	}
	if !reached {
		t.Error("it never came to the epoch")
	}
}

// What is no backup, or one of another version, is refused with words that say what it is.
func TestForeignBackupsAreRefused(t *testing.T) {
	e, key := storagetest.New(t), exportKey(t)
	s := e.Store()
	use(t, s)
	whole, err := os.ReadFile(backedUpRecords(t, s))
	if err != nil {
		t.Fatal(err)
	}
	summed := func(text []byte) []byte {
		sum := sha256.Sum256(text)
		return append(bytes.Clone(text), sum[:]...)
	}
	body := whole[:len(whole)-sha256.Size]
	altered := bytes.Clone(body)
	altered[len(altered)-100] ^= 1
	for words, text := range map[string][]byte{
		"cut off":         whole[:len(whole)-1],
		"not a backup":    []byte("apiVersion: v1"),
		"it is an export": exported(t, s, e.KEK, key, nil),
		"format 2":        summed(bytes.Replace(body, []byte("backup 1\n"), []byte("backup 2\n"), 1)),
		"is cut off, or damaged somewhere from byte": summed(altered),
		"is sealed under encryption":                 summed(slices.Concat(body[:16], bytes.Repeat([]byte{1}, 8), body[24:])),
	} {
		file := written(t, text)
		_, err := storage.Verification{KEK: e.KEK}.Backup(t.Context(), file)
		_, restored := restoredRecords(t, storagetest.New(t), e.KEK, file, storage.Restoring{})
		for _, err := range []error{err, restored} {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v", words, err)
			}
		}
	}
	found, err := storage.Verification{KEK: e.KEK, Issuer: "https://other.test"}.Backup(t.Context(), written(t, whole))
	if err != nil || found.Wrong != 1 || !strings.Contains(found.Flaws[0].What, "https://other.test") {
		t.Errorf("of another issuer: %+v, %v", found, err)
	}
}

func TestEveryKindOfRecordIsVerified(t *testing.T) {
	verified, all := storage.KindsVerified(), storage.KindsThatMove()
	slices.Sort(verified)
	slices.Sort(all)
	if !slices.Equal(verified, all) {
		t.Errorf("verified: %s\nthere are: %s", verified, all)
	}
}

// Each fault is found, with the record that has it and what to do.
func TestVerificationFindsWhatIsWrong(t *testing.T) {
	e := storagetest.New(t)
	s := e.Store()
	u := use(t, s)
	v := storage.Verification{KEK: e.KEK, Prefix: e.Prefix}
	for key, of := range map[string]struct{ value, words string }{
		"users/broken":            {"{", "decode user"},
		"users/other":             {`{"id":"ann"}`, `it says that it belongs to "ann"`},
		"users/%zz":               {`{}`, "its key cannot be read"},
		"wings/a":                 {"{}", "does not know records wings/"},
		"logins/nobody":           {`{"userId":"nobody"}`, "it refers to the user nobody"},
		"handles/aa":              {`{"userId":"nobody"}`, "it refers to the user nobody"},
		"sessions/lost":           {`{"userId":"` + u.user.ID + `"}`, "not found among those of its user"},
		"deliveries/none/w/web":   {`{"app":"none"}`, "the app none, which does not exist"},
		"compromised/moved":       {`{"at":"x","unfinished":true}`, "was not finished"},
		"keys/ES256/0000000000ff": {`{"use":"ES256","sealed":"AAAA"}`, "too short"},
		"encryption/key": {`{"kek":"00ff00ff00ff00ff","since":"2026-01-01T00:00:00Z"}`,
			"add its file to encryptionKeyFiles"},
	} {
		was, err := e.Client.Get(t.Context(), e.Prefix+key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Client.Put(t.Context(), e.Prefix+key, of.value); err != nil {
			t.Fatal(err)
		}
		found, err := v.Cluster(t.Context(), e.Client)
		if err != nil || found.Wrong != 1 || found.Flaws[0].Key != key || !strings.Contains(found.Flaws[0].What, of.words) ||
			found.Flaws[0].Remedy == "" {
			t.Errorf("%s: %+v, %v", key, found, err)
		}
		if _, err = e.Client.Delete(t.Context(), e.Prefix+key); err == nil && len(was.Kvs) > 0 {
			_, err = e.Client.Put(t.Context(), e.Prefix+key, string(was.Kvs[0].Value))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	found, err := v.Cluster(t.Context(), e.Client)
	sound(t, found, err)
	v.KEK = kekOf(t, bytes.Repeat([]byte{9}, 32))
	if found, err := v.Cluster(t.Context(), e.Client); err != nil || found.Wrong < 5 {
		t.Errorf("with another key: %+v, %v", found, err)
	}
	v.Prefix = "elsewhere/"
	if found, err := v.Cluster(t.Context(), e.Client); err != nil || found.Wrong != 1 {
		t.Errorf("where nothing is: %+v, %v", found, err)
	}
}

// A snapshot, and a database that nobody uses, are read as they are and not changed; a database in use is refused.
func TestDatabasesAreVerifiedWithoutChangingThem(t *testing.T) {
	kek, dir := storagetest.New(t).KEK, t.TempDir()
	embedded, s := small(t, dir, 0, kek, discard)
	use(t, s)
	backup, err := s.Backup(t.Context(), storage.Exporting{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(backup)
	if err := errors.Join(err, backup.Close()); err != nil {
		t.Fatal(err)
	}
	v := storage.Verification{KEK: kek}
	if _, err := v.Database(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "a server runs on it") {
		t.Errorf("while it is used: %v", err)
	}
	s.Close()
	embedded.Close()
	file := filepath.Join(dir, "etcd", "member", "snap", "db")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	modified := func() time.Time {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	at := modified()
	found, err := v.Database(t.Context(), dir)
	sound(t, found, err)
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) || !modified().Equal(at) {
		t.Errorf("it was changed: %v", err)
	}
	found, err = v.Backup(t.Context(), written(t, text))
	sound(t, found, err)
	if found.Kinds["users"] != 1 || found.Kinds["keys"] == 0 {
		t.Errorf("it says %+v", found)
	}
	other := storage.Verification{KEK: kekOf(t, bytes.Repeat([]byte{9}, 32))}
	if found, err := other.Backup(t.Context(), written(t, text)); err != nil || found.Wrong == 0 ||
		!strings.Contains(found.Flaws[0].What, "encryption key") {
		t.Errorf("with another key: %+v, %v", found, err)
	}
	// Pages with anything in them, behind a checksum that is right.
	for page := 0; page < len(text)-sha256.Size; page += 4096 {
		broken := bytes.Clone(text[:len(text)-sha256.Size])
		for i := range broken[page:min(page+4096, len(broken))] {
			broken[page+i] = byte(i * 7)
		}
		sum := sha256.Sum256(broken)
		if _, err := v.Backup(t.Context(), written(t, append(broken, sum[:]...))); err != nil && page > 8192 &&
			!strings.Contains(err.Error(), "damaged") {
			t.Errorf("page %d: %v", page/4096, err)
		}
	}
	if _, err := v.Database(t.Context(), t.TempDir()); err == nil {
		t.Error("there is no database")
	}
}
