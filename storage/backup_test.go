package storage_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// epochSchedules are keys of every kind.
var epochSchedules = []storage.KeySchedule{
	{Use: storage.UseSeal, Period: time.Hour, Overlap: time.Hour}, {Use: storage.UsePairwise},
	{Use: storage.UseES256, Period: time.Hour, Overlap: time.Hour},
}

// backedUp is a store with a grant and a session, and a backup of it; then the grant is revoked and the session ended.
type backedUp struct {
	kek           *storage.KEK
	client        *storage.Client
	user          *storage.User
	grant         storage.Grant
	session, code string
	subject       string
	signed        map[string]bool // names of keys
	file          string
}

func backUp(t *testing.T) *backedUp {
	t.Helper()
	return backUpUnder(t, storagetest.New(t).KEK)
}

func backUpUnder(t *testing.T, kek *storage.KEK) *backedUp {
	t.Helper()
	ctx := t.Context()
	b := &backedUp{kek: kek, signed: make(map[string]bool), file: filepath.Join(t.TempDir(), "backup.db")}
	embedded, s := small(t, t.TempDir(), 0, b.kek, discard)
	defer embedded.Close()
	defer s.Close()
	if err := s.RotateKeys(ctx, false, epochSchedules...); err != nil {
		t.Fatal(err)
	}
	b.client, b.user = registered(t, s)
	b.session = signedIn(t, s, b.user, "")
	b.grant = newGrant(b.client, b.user)
	mustGrant(t, s, b.grant, b.client, b.user)
	if _, err := s.RotateGrant(ctx, b.ref(1), time.Now().Add(time.Hour), 0, on(b.client, b.user)); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.code, err = s.Seal(storage.SealCode, []byte("a code")); err != nil {
		t.Fatal(err)
	}
	b.subject = pairwise(t, s, "app.test", b.user.ID)
	for _, k := range s.Keys(storage.UseES256) {
		b.signed[k.Name()] = true
	}
	snapshot, err := s.Backup(ctx, storage.Exporting{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = snapshot.Close() }()
	file, err := os.Create(b.file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(file, snapshot)
	sort, unusable := storage.VerifyBackup(file)
	if err := errors.Join(err, unusable, file.Close()); err != nil || sort != storage.SnapshotBackup {
		t.Fatal(err)
	}
	if _, err := s.KillGrant(ctx, b.client.ID, b.grant.ID,
		storage.AuditEntry{Action: storage.AuditGrantRevoked}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.EndSession(ctx, b.session, "signed out"); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *backedUp) ref(generation int64) storage.GrantRef {
	return storage.GrantRef{ClientID: b.client.ID, GrantID: b.grant.ID, UserID: b.user.ID, Generation: generation}
}

// restored is the store of a backup.
func (b *backedUp) restored(t *testing.T, keep bool) (*storage.Epoch, *storage.Store) {
	t.Helper()
	dir := t.TempDir()
	epoch, err := storage.Restoration{File: b.file, Embedding: storage.Embedding{Dir: dir}, KEK: b.kek, KeepGrants: keep,
		Logger: discard}.Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if epoch.BackupAt.IsZero() || len(epoch.Apps) != 1 {
		t.Errorf("it says %+v", epoch)
	}
	embedded, s := small(t, dir, 0, b.kek, discard)
	t.Cleanup(func() {
		s.Close()
		embedded.Close()
	})
	if err := s.RotateKeys(t.Context(), false, epochSchedules...); err != nil {
		t.Fatal(err)
	}
	for _, k := range s.Keys(storage.UseES256) {
		if b.signed[k.Name()] {
			t.Errorf("the key %s, which may have been given up, signs again", k.Name())
		}
	}
	if _, err := s.SigningKey(storage.UseES256); err != nil {
		t.Errorf("no key signs: %v", err)
	}
	if again := pairwise(t, s, "app.test", b.user.ID); again != b.subject {
		t.Errorf("the user is %s to apps, and was %s", again, b.subject)
	}
	if _, err := s.Client(t.Context(), b.client.ID); err != nil {
		t.Errorf("the client: %v", err)
	}
	return epoch, s
}

// What was revoked, ended or used after a backup does not come back with it.
func TestRestoredBackupRevivesNothing(t *testing.T) {
	b := backUp(t)
	epoch, s := b.restored(t, false)
	ctx := t.Context()
	if epoch.Grants != 1 || epoch.Sessions != 1 {
		t.Errorf("it says %+v", epoch)
	}
	if alive(t, s, b.grant) {
		t.Error("a revoked grant lives")
	}
	for generation := range int64(3) {
		if _, err := s.RotateGrant(ctx, b.ref(generation+1), time.Now().Add(time.Hour), 0, on(b.client, b.user)); !errors.Is(
			err, storage.ErrNotFound) {
			t.Errorf("a refresh token of generation %d: %v", generation+1, err)
		}
	}
	if p, err := s.Presence(ctx, b.session, b.user.ID, b.client.ID); err != nil || p.Session != nil {
		t.Errorf("a session that ended: %+v, %v", p.Session, err)
	}
	if _, err := s.Open(storage.SealCode, b.code); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a code from before: %v", err)
	}
	if entries := audited(t, s, storage.AuditRestored); len(entries) != 1 {
		t.Errorf("the audit log: %+v", entries)
	}
}

func TestRestoredBackupKeepsGrantsWhenAsked(t *testing.T) {
	b := backUp(t)
	epoch, s := b.restored(t, true)
	if epoch.Grants != 0 || !alive(t, s, b.grant) {
		t.Errorf("the grant is gone: %+v", epoch)
	}
	if _, err := s.RotateGrant(t.Context(), b.ref(2), time.Now().Add(time.Hour), 0, on(b.client, b.user)); err != nil {
		t.Errorf("its refresh token: %v", err)
	}
	if plain, err := s.Open(storage.SealCode, b.code); err != nil || string(plain) != "a code" {
		t.Errorf("what was sealed: %s, %v", plain, err)
	}
}

// Nothing is left behind, or replaced, by what cannot be restored.
func TestRestoreIsWholeOrNothing(t *testing.T) {
	b := backUp(t)
	whole, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	for what, text := range map[string][]byte{"cut": whole[:len(whole)/2], "damaged": damaged, "empty": nil,
		"another": []byte("a manifest")} {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		b.refused(t, what, storage.Restoration{File: file, KEK: b.kek})
	}
	b.refused(t, "with another key", storage.Restoration{File: b.file, KEK: storagetest.New(t).KEK})
}

func (b *backedUp) refused(t *testing.T, what string, r storage.Restoration) {
	t.Helper()
	r.Dir, r.Logger = t.TempDir(), discard
	if _, err := r.Restore(t.Context()); err == nil {
		t.Errorf("%s: restored", what)
	}
	for _, left := range []string{"etcd", "restoring"} {
		if _, err := os.Lstat(filepath.Join(r.Dir, left)); err == nil {
			t.Errorf("%s: %s is left", what, left)
		}
	}
}

// A backup with records that this version does not know is of a newer one: to begin an epoch in it would leave them
// out.
func TestBackupOfANewerVersionIsNotRestored(t *testing.T) {
	kek, dir := storagetest.New(t).KEK, t.TempDir()
	embedded, s := small(t, dir, 0, kek, discard)
	defer embedded.Close()
	defer s.Close()
	if _, err := embedded.Client.Put(t.Context(), "wings/a", "{}"); err != nil {
		t.Fatal(err)
	}
	snapshot, err := s.Backup(t.Context(), storage.Exporting{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(snapshot)
	if err := errors.Join(err, snapshot.Close()); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	_, err = storage.Restoration{File: written(t, text), Embedding: storage.Embedding{Dir: to}, KEK: kek,
		Logger: discard}.Restore(t.Context())
	if err == nil || !strings.Contains(err.Error(), "there are records wings/..., which this version of "+
		"warifu does not know") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(filepath.Join(to, "etcd")); err == nil {
		t.Errorf("there is left: %v", left)
	}
}

// While a restore has not come to its end no server starts beside what it has left, and the next one takes its place.
func TestUnfinishedRestoreOfADirectoryIsNotServed(t *testing.T) {
	b := backUp(t)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "restoring", "etcd"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, opened := storage.OpenEmbedded(t.Context(), dir, discard)
	_, verified := storage.Verification{KEK: b.kek}.Database(t.Context(), dir)
	for _, err := range []error{opened, verified} {
		var half *storage.RestoreUnfinishedError
		if !errors.As(err, &half) || !strings.Contains(err.Error(), "run warifu restore again") {
			t.Errorf("it is opened: %v", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "etcd")); err == nil {
		t.Error("there is a database beside it")
	}
	_, err := storage.Restoration{File: b.file, Embedding: storage.Embedding{Dir: dir}, KEK: b.kek,
		Logger: discard}.Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// One that was killed when all was done leaves an empty directory, which says nothing.
	if err := os.Mkdir(filepath.Join(dir, "restoring"), 0o700); err != nil {
		t.Fatal(err)
	}
	embedded, s := small(t, dir, 0, b.kek, discard)
	defer embedded.Close()
	defer s.Close()
	if _, err := os.Lstat(filepath.Join(dir, "restoring")); err == nil {
		t.Error("it is still there")
	}
}

// A first start that was killed before the database had its key leaves nothing that is in the way; and no key is made
// beside records.
func TestKeyIsMadeWithTheDatabaseAndNeverLater(t *testing.T) {
	b := backUp(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "encryption.key")
	with := storage.Embedding{Dir: dir, KeyFile: key}
	open := func(e storage.Embedding) (*storage.Embedded, error) { return e.Open(t.Context(), discard) }
	bare, err := open(storage.Embedding{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	bare.Close()
	if storage.MayHaveRecords(dir) {
		t.Error("an empty database may have records")
	}
	_, err = storage.Restoration{File: b.file, Embedding: storage.Embedding{Dir: dir}, KEK: b.kek,
		Logger: discard}.Restore(t.Context())
	if err != nil {
		t.Fatalf("over an empty database: %v", err)
	}
	if !storage.MayHaveRecords(dir) {
		t.Error("a restored database has no records")
	}
	if there, err := open(with); err == nil || !strings.Contains(err.Error(), key+" is missing") {
		if err == nil {
			there.Close()
		}
		t.Errorf("records without a key: %v", err)
	}
	if _, err := os.Lstat(key); err == nil {
		t.Fatal("a key was made beside records")
	}
	_, err = storage.Restoration{File: b.file, Embedding: storage.Embedding{Dir: dir}, KEK: b.kek,
		Logger: discard}.Restore(t.Context())
	if err == nil || !strings.Contains(err.Error(), "put that directory aside") {
		t.Errorf("over records: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first one makes an empty database, and loses its key
		there, err := open(with)
		if err != nil {
			t.Fatal(err)
		}
		there.Close()
		if err := os.Remove(key); err != nil {
			t.Fatalf("there is no key: %v", err)
		}
	}
}

// A backup from before the last rotation is read with the key that was put aside then, and restored with it.
func TestKeysThatWerePutAsideOpenOlderBackups(t *testing.T) {
	old := bytes.Repeat([]byte{7}, 32)
	b := backUpUnder(t, kekOf(t, old))
	dir := t.TempDir()
	file := filepath.Join(dir, "encryption.key")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256(old)
	put(file, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, 32))+"\n")
	put(file+"."+hex.EncodeToString(sum[:8]), base64.StdEncoding.EncodeToString(old)+"\n")
	put(file+".bak", "not a key")
	kek, err := storage.ReadOwnKEK(file)
	if err != nil {
		t.Fatal(err)
	}
	found, err := storage.Verification{KEK: kek}.Backup(t.Context(), b.file)
	sound(t, found, err)
	_, err = storage.Restoration{File: b.file, Embedding: storage.Embedding{Dir: dir},
		KEK: kekOf(t, bytes.Repeat([]byte{9}, 32)),
		Own: file, Logger: discard}.Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if kek, err = storage.ReadKEK(file); err != nil {
		t.Fatal(err)
	}
	embedded, s := small(t, dir, 0, kek, discard)
	defer embedded.Close()
	defer s.Close()
	if keys, err := s.Encryption(t.Context()); err != nil || len(keys.Keys) != 2 {
		t.Errorf("the file has %+v, %v", keys, err)
	}
}
