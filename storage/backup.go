package storage

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// A backup of an embedded database is a snapshot of it, as etcd's own tools write and read it: the file of the
// database, followed by the SHA-256 of all that. What is secret in it stays sealed, so it is of no use without the
// encryption key, which is not in it.
//
// A cluster may be used by others as well, and a snapshot of it would hold what is theirs. So a backup of one is an
// export ([Store.Export]) of the records as they were at one revision, in a file like that of an export
// (exportfile.go), which begins with other words, is encrypted under a key that comes from the encryption key and ends
// with the SHA-256 of all that as well. It is restored by an import, of which nothing counts before the new epoch has
// begun, into a cluster or an embedded database in which there is nothing.
//
// A backup that is restored knows nothing of what happened after it was made: grants that were revoked since are alive
// in it, refresh tokens and codes that were used are unused, keys that were given up are good. So restoring opens a new
// epoch ([Store.BeginEpoch]).

// Backup is a backup of the records as they are now, to be read while the store goes on. Of the Exporting, it is the
// issuer and the program that count.
func (s *Store) Backup(ctx context.Context, what Exporting) (io.ReadCloser, error) {
	if !s.embedded {
		return s.backupRecords(ctx, what)
	}
	// First, so that the backup says when it was made. When storage is full, it does not.
	if err := s.Record(ctx, AuditEntry{Action: AuditBackup}); err != nil && !errors.Is(err, ErrFull) {
		return nil, err
	}
	snap, err := s.keeper.client.SnapshotWithVersion(ctx)
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	return snap.Snapshot, nil
}

const backupMagic = "warifu backup "

// backupRecords is a backup of a cluster, of which something has been read already: storage answers. Both ends of each
// pipe know when the other has failed.
func (s *Store) backupRecords(ctx context.Context, what Exporting) (io.ReadCloser, error) {
	what.Chosen, what.action = nil, AuditBackup
	kek := s.kek()
	lines, exported := io.Pipe()
	file, written := io.Pipe()
	exporting := make(chan error, 1)
	go func() { // ends when lines does
		err := s.Export(ctx, what, exported)
		exporting <- err
		_ = exported.CloseWithError(err)
	}()
	go func() { // ends with Export, or when file is closed
		sum := sha256.New()
		out := bufio.NewWriterSize(io.MultiWriter(written, sum), 256<<10)
		_, _, err := writeFile(backupMagic, out, lines, kek, kek.backupKey(kek.active))
		if err == nil {
			err = out.Flush()
		}
		if err == nil {
			_, err = written.Write(sum.Sum(nil))
		}
		_ = lines.CloseWithError(cmp.Or(err, io.ErrClosedPipe))
		_ = written.CloseWithError(err)
	}()
	begun := bufio.NewReader(file)
	if _, err := begun.Peek(1); err != nil {
		_ = file.Close()
		if fault := <-exporting; fault != nil {
			err = fault
		}
		return nil, fmt.Errorf("back up: %w", err)
	}
	return struct {
		io.Reader
		io.Closer
	}{begun, file}, nil
}

// backupKey is the key of the files of backups that comes from one of the encryption keys, and is named as that.
func (k *KEK) backupKey(i int) ExportKey {
	return ExportKey{k.derived(i, "backup"), []byte(k.ids[i])}
}

// Sorts of backups.
const (
	SnapshotBackup = "snapshot" // of an embedded database, or of a whole cluster
	RecordsBackup  = "records"  // of warifu's records in a cluster
)

var errNoBackup = errors.New("it is incomplete, or not a backup")

// VerifyBackup reports whether a file is a whole backup, which ends with the hash of the rest, and of which sort. What
// is in it, [Verification.Backup] finds out.
func VerifyBackup(file io.ReadSeeker) (sort string, err error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	if _, err = file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	rest, sum, first := sha256.New(), make([]byte, sha256.Size), make([]byte, len(backupMagic))
	if size < int64(len(sum)+len(first)) {
		return "", errNoBackup
	}
	if _, err := io.ReadFull(file, first); err != nil {
		return "", err
	}
	sort = SnapshotBackup
	if string(first) == backupMagic {
		sort = RecordsBackup
	} else if size%512 != sha256.Size { // the pages of a database, and the hash
		if strings.HasPrefix(exportMagic, string(first)) {
			return "", errors.New("it is an export, and not a backup: warifu import reads it")
		}
		return "", errNoBackup
	}
	_, _ = rest.Write(first) // never fails
	if _, err := io.CopyN(rest, file, size-int64(len(sum)+len(first))); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(file, sum); err != nil {
		return "", err
	}
	if !bytes.Equal(rest.Sum(nil), sum) {
		return "", errors.New("it is damaged or was cut off: its checksum does not match")
	}
	return sort, nil
}

// openBackup opens a backup of records, from its beginning.
func openBackup(file io.ReadSeeker, kek *KEK) (*exportLines, *ExportHeader, *KEK, error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	return openFile(backupMagic, io.LimitReader(file, size-sha256.Size), func(name []byte) (ExportKey, error) {
		for i, id := range kek.ids {
			if id == string(name) {
				return kek.backupKey(i), nil
			}
		}
		return ExportKey{}, errors.New("it is sealed under " + missingKey(hex.EncodeToString(name)))
	})
}

// Restoration says what is restored, and where.
type Restoration struct {
	File string
	// Embedding that is to serve it. Its directory may hold other files, such as the encryption key, but no database.
	Embedding
	KEK *KEK
	// Own is the file of the encryption key, if the database keeps its own. The keys that were put aside beside it open
	// the backup as well; those that it needs are put behind the others in the file.
	Own string
	// KeepGrants leaves grants, sessions and consents as they are in the backup.
	KeepGrants bool
	// Then is done in the new epoch, before the database is put in its place; nil for nothing.
	Then   func(ctx context.Context, s *Store) error
	Logger *slog.Logger
}

// Epoch is what has ended, and what has not, when a backup was restored.
type Epoch struct {
	// BackupAt is when the backup was made; zero if it does not say.
	BackupAt time.Time
	Ended
	// Recovery is how many users have no recovery codes any more, because nobody knows which have been used since; Users
	// is how many have a password or a factor here, which are as they were.
	Recovery, Users int
	// Apps, and Clients that registered themselves, which are as they were then.
	Apps, Clients []string
}

// Restore makes the database of a directory from a backup and begins a new epoch in it. The database is there when all
// of it is done, or not at all.
func (r Restoration) Restore(ctx context.Context) (*Epoch, error) {
	epoch, err := r.restore(ctx)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", r.File, err)
	}
	return epoch, nil
}

func (r Restoration) restore(ctx context.Context) (*Epoch, error) {
	file, err := os.Open(r.File)
	if err != nil {
		return nil, err
	}
	sort, err := VerifyBackup(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if sort != SnapshotBackup {
		return nil, errors.New("it is a backup of the records of a cluster, and not of an embedded database")
	}
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(r.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	if err := r.makeRoom(ctx); err != nil {
		return nil, err
	}
	half := Embedding{Dir: restoringDir(r.Dir), Quota: r.Quota}
	defer func() { _ = os.RemoveAll(half.Dir) }()
	// The directory itself stays all the time: while it is there, no server starts.
	err = errors.Join(os.MkdirAll(half.Dir, 0o700), os.RemoveAll(etcdDir(half.Dir)), syncDir(r.Dir))
	if err != nil {
		return nil, err
	}
	peer := "http://localhost:2380" // as embed has it; nobody listens there
	err = snapshot.NewV3(etcdLog(r.Logger)).Restore(snapshot.RestoreConfig{
		SnapshotPath: r.File, Name: memberName, OutputDataDir: etcdDir(half.Dir),
		PeerURLs: []string{peer}, InitialCluster: memberName + "=" + peer, InitialClusterToken: "etcd-cluster",
	})
	if err != nil {
		return nil, err
	}
	epoch, err := r.begin(ctx, half)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(etcdDir(half.Dir), etcdDir(r.Dir)); err != nil {
		return nil, err
	}
	return epoch, syncDir(r.Dir)
}

// makeRoom makes sure that there is no database. One without records, which a first start has left that was killed,
// gives way.
func (r Restoration) makeRoom(ctx context.Context) error {
	dir := etcdDir(r.Dir)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	inUse := fmt.Errorf("there is a database in %s already: put that directory aside first", dir)
	if MayHaveRecords(r.Dir) { // which need not be opened
		return inUse
	}
	fail := newFailure(r.Dir)
	etcd, err := Embedding{Dir: r.Dir, Quota: r.Quota}.start(ctx, fail, r.Logger)
	if err != nil {
		return inUse
	}
	there := &Embedded{Client: v3client.New(etcd.Server), etcd: etcd, fail: fail}
	empty, err := there.empty(ctx)
	there.Close()
	if err != nil || !empty {
		return inUse
	}
	return os.RemoveAll(dir)
}

// restoringDir is where a restore makes the database of a directory. Until it is done the database is in there alone.
func restoringDir(dir string) string { return filepath.Join(dir, "restoring") }

// RestoreUnfinishedError says that a restore into a directory has not come to its end.
type RestoreUnfinishedError struct{ Dir string }

func (e *RestoreUnfinishedError) Error() string {
	return fmt.Sprintf("a restore into %s was not finished: %s", e.Dir, e.Remedy())
}

// Remedy is what to do.
func (e *RestoreUnfinishedError) Remedy() string {
	return "run warifu restore again; to give the restore up, remove " + restoringDir(e.Dir)
}

// UnfinishedRestore is a [RestoreUnfinishedError] if a restore into a directory has not come to its end, else nil.
func UnfinishedRestore(dir string) error {
	if _, err := os.Lstat(restoringDir(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, half := os.Lstat(etcdDir(restoringDir(dir)))
	_, whole := os.Lstat(etcdDir(dir))
	if errors.Is(half, fs.ErrNotExist) && whole == nil {
		return nil // it was done, and only this was left
	}
	return &RestoreUnfinishedError{dir}
}

// settleRestore refuses, or removes, what a restore has left.
func (e Embedding) settleRestore() error {
	if err := UnfinishedRestore(e.Dir); err != nil && !e.Replace {
		return err
	}
	return os.RemoveAll(restoringDir(e.Dir))
}

// begin opens what was restored, for the new epoch.
func (r Restoration) begin(ctx context.Context, half Embedding) (*Epoch, error) {
	embedded, err := half.Open(ctx, r.Logger)
	if err != nil {
		return nil, err
	}
	defer embedded.Close()
	kek := r.KEK
	if r.Own != "" {
		if kek, err = ReadOwnKEK(r.Own); err != nil {
			return nil, err
		}
	}
	s, err := New(ctx, embedded.Client, Options{KEK: kek, OneMember: true, Embedded: embedded, Logger: r.Logger})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	x := exporting{s: s}
	if err := x.known(ctx, 0); err != nil {
		return nil, err
	}
	epoch, err := s.BeginEpoch(ctx, r.KeepGrants)
	if err == nil && r.Then != nil {
		err = r.Then(ctx, s)
	}
	if err == nil && r.Own != "" {
		err = s.keepKeysFor(ctx, r.Own)
	}
	return epoch, err
}

// keepKeysFor puts the keys that the records need into the file of the keys, behind those that are there.
func (s *Store) keepKeysFor(ctx context.Context, file string) error {
	needed, err := s.sealedUnder(ctx)
	if err != nil {
		return err
	}
	needed[s.kek().id()]++
	keys, err := readKeyFile(file)
	if err != nil {
		return err
	}
	have, more := len(keys), s.kek()
	for i, fingerprint := range more.fingerprints() {
		if i >= have && needed[fingerprint] > 0 {
			keys = append(keys, more.secrets[i])
		}
	}
	if len(keys) == have {
		return nil
	}
	return wrapKeyFile(replaceKeyFile(file, keys...))
}

// BeginEpoch ends, in one transaction, all that was issued before and could be known to others: grants, sessions,
// consents, codes, device authorizations, and every key that signs or seals. With keepGrants, grants, sessions and
// consents stay, and the keys that seal refresh tokens and cookies; the keys that sign are new all the same. Users and
// their pairwise subjects, apps and clients stay, and so do passwords, passkeys and authenticator apps. But what can be
// used once cannot be used again: no recovery code, and no code that an authenticator app has shown. Whoever calls it
// also has the secrets of apps replaced, which may have been given up since: they are in the env of targets, which this
// package does not know.
//
// No other process may use the database meanwhile.
func (s *Store) BeginEpoch(ctx context.Context, keepGrants bool) (*Epoch, error) {
	epoch, err := s.beginEpoch(ctx, keepGrants)
	if err != nil {
		return nil, fmt.Errorf("begin a new epoch: %w", err)
	}
	return epoch, nil
}

func (s *Store) beginEpoch(ctx context.Context, keepGrants bool) (*Epoch, error) {
	var look transaction
	all := func(kind string) *found {
		return look.then.get(under(kind), clientv3.WithPrefix(), clientv3.WithCountOnly())
	}
	chains, sessions, consents := all("chains"), all("sessions"), all("consents")
	keys := look.then.get(under("keys"), clientv3.WithPrefix())
	if err := s.run(ctx, &look); err != nil {
		return nil, err
	}
	epoch := new(Epoch)
	if err := s.useUpFactors(ctx, epoch); err != nil {
		return nil, err
	}
	ends := []string{"devices", "logouts"}
	if !keepGrants {
		ends = append(ends, "chains", "grants", "sessiongrants", "sessions", "usersessions", "consents", "userconsents",
			"usergrants", "upstreams", "asks")
		epoch.Ended = Ended{Sessions: int(sessions.count), Grants: int(chains.count), Consents: int(consents.count)}
	}
	var t transaction
	for _, kind := range ends {
		t.then.do(clientv3.OpDelete(under(kind), clientv3.WithPrefix()))
	}
	uses := make(map[string]bool)
	for _, kv := range keys.kvs {
		k, err := s.decodeKey(kv)
		if err != nil {
			return nil, err
		}
		if k.Use == UsePairwise || k.Use == UseSeal && keepGrants {
			continue
		}
		uses[k.Use] = true
		t.then.do(clientv3.OpDelete(k.storageKey()))
	}
	for use := range uses {
		k, err := s.newKey(use, s.ring(use).free, true, s.now())
		if err != nil {
			return nil, err
		}
		t.then.do(clientv3.OpPut(k.storageKey(), encode(k)))
	}
	entry := AuditEntry{Action: AuditRestored, Detail: epoch.Ended.String() + " ended"}
	t.then.do(s.auditOps(ctx, []AuditEntry{entry})...)
	if err := s.run(ctx, &t); err != nil {
		return nil, err
	}
	return epoch, s.survey(ctx, epoch)
}

// useUpFactors takes all recovery codes for used, and all codes of authenticator apps up to now. Each record is a
// transaction of its own, so it comes first, and can be done again.
func (s *Store) useUpFactors(ctx context.Context, epoch *Epoch) error {
	const period, early = 30, 1 // seconds of a step, and how many steps early a code may come (RFC 6238 section 5.2)
	now := s.now().UTC()
	return s.each(ctx, under("factors"), func(kv *mvccpb.KeyValue) error {
		userID := lastSegment(kv.Key)
		f, err := s.decodeFactors(userID, []*mvccpb.KeyValue{kv})
		if err != nil {
			return err
		}
		epoch.Users++
		next, void := f.Clone(), 0
		for i := range next.Recovery {
			if next.Recovery[i].UsedAt.IsZero() {
				next.Recovery[i].UsedAt, void = now, void+1
			}
		}
		if void > 0 {
			epoch.Recovery++
		}
		if next.TOTP.Secret != nil {
			next.TOTP.Step = max(next.TOTP.Step, now.Unix()/period+early)
		}
		if void == 0 && next.TOTP.Step == f.TOTP.Step {
			return nil
		}
		var t transaction
		s.putFactors(&t, userID, next)
		return s.change(ctx, &t)
	})
}

// survey finds out what is as it was when the backup was made.
func (s *Store) survey(ctx context.Context, epoch *Epoch) error {
	apps, err := s.Apps(ctx)
	if err != nil {
		return err
	}
	for _, a := range apps {
		epoch.Apps = append(epoch.Apps, a.Name)
	}
	clients, err := s.Clients(ctx)
	if err != nil {
		return err
	}
	for _, c := range clients {
		if c.App == "" {
			epoch.Clients = append(epoch.Clients, c.ID)
		}
	}
	for q := (AuditQuery{}); ; {
		entries, next, err := s.Audit(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Action == AuditBackup {
				epoch.BackupAt = e.At
			}
		}
		if q.After = next; next == "" {
			return nil
		}
	}
}
