package storage

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/protobuf/proto"
)

// Verification reads all records of a backup, of the directory of an embedded database that nobody uses, or of a
// cluster, and changes nothing there: each must be of a kind that this version knows, be readable, have secrets that
// open, and lead to what is there. It goes through the records twice: the first time it notes what there is, as hashes,
// and the second time it looks at each.
type Verification struct {
	KEK *KEK
	// Prefix of the keys, in a cluster and in the snapshot of one.
	Prefix string
	// Issuer of the server; a backup that names another one is not its own.
	Issuer string
	Now    func() time.Time // nil means time.Now
}

// Verified is what was found.
type Verified struct {
	// What it is, in words.
	What string
	// At is when the backup was made; zero if it does not say, and of a database.
	At      time.Time
	Records int
	Kinds   map[string]int
	// Moved is when the records came from another etcd; zero if they never moved.
	Moved time.Time
	// Keys are the fingerprints of the encryption keys under which something is sealed.
	Keys []string
	// Flaws are the first ones of each sort, and Wrong is how many there are.
	Flaws []Flaw
	Wrong int
}

// Flaw is something that is wrong.
type Flaw struct {
	Key    string // of the record; empty: all of it
	What   string
	Remedy string
}

// mostFlaws is how many flaws of one sort are told.
const mostFlaws = 20

// source are records of one moment, in any order. It may be gone through more than once.
type source func(ctx context.Context, do func(kv *mvccpb.KeyValue) error) error

// Cluster verifies the records in an etcd that is reached with a client, while servers may run.
func (v Verification) Cluster(ctx context.Context, client *clientv3.Client) (*Verified, error) {
	s := &Store{kv: client.KV}
	if v.Prefix != "" {
		s.kv = namespace.NewKV(client.KV, v.Prefix)
	}
	now, err := s.kv.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("verify the database: %w", err)
	}
	revision := now.Header.Revision
	return v.verify(ctx, "the database", remedyOfStore,
		func(ctx context.Context, do func(kv *mvccpb.KeyValue) error) error {
			return s.eachBetween(ctx, "\x00", "\x00", revision, do)
		})
}

// EmbeddedSize is the size of the file of an embedded database, in bytes, below the directory of a server.
func EmbeddedSize(dir string) (int64, error) {
	info, err := os.Stat(filepath.Join(etcdDir(dir), "member", "snap", "db"))
	if err != nil {
		return 0, fmt.Errorf("look at the embedded database: %w", err)
	}
	return info.Size(), nil
}

// Database verifies the embedded database of a directory. No process may use it.
func (v Verification) Database(ctx context.Context, dir string) (*Verified, error) {
	if err := UnfinishedRestore(dir); err != nil {
		return nil, err
	}
	file := databaseFile(dir)
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no database in %s", dir)
	}
	return v.bolt(ctx, "the database in "+dir, remedyOfStore, file)
}

func databaseFile(dir string) string { return filepath.Join(etcdDir(dir), "member", "snap", "db") }

// MayHaveRecords reports whether records may be in the embedded database of a directory, as far as can be said without
// opening it: [Embedding.Open] knows. Where there is no database, there are none.
func MayHaveRecords(dir string) (may bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // as in bolt
	defer func() {
		if recover() != nil {
			may = true
		}
	}()
	file := databaseFile(dir)
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return false
	}
	db, err := bbolt.Open(file, 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return true
	}
	defer func() { _ = db.Close() }() // opened for reading
	err = db.View(func(tx *bbolt.Tx) error {
		if revisions := tx.Bucket([]byte("key")); revisions != nil {
			last, err := lastRevisions(revisions, "")
			may = len(last) > 0
			return err
		}
		return nil
	})
	return may || err != nil
}

// Backup verifies a backup of either form, or what etcdctl snapshot save wrote.
func (v Verification) Backup(ctx context.Context, name string) (*Verified, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name the file of a backup, or none to verify the database of the "+
			"configuration", name)
	}
	what, err := VerifyBackup(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if what == SnapshotBackup {
		return v.bolt(ctx, name, remedyOfBackup, name)
	}
	lines, header, _, err := openBackup(file, v.KEK)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	_ = lines // only to learn what it says
	out, err := v.verify(ctx, name, remedyOfBackup, func(_ context.Context, do func(kv *mvccpb.KeyValue) error) error {
		lines, _, seals, err := openBackup(file, v.KEK)
		if err != nil {
			return err
		}
		reseal := resealing{seals.beneath(v.KEK)}
		_, err = lines.each(func(r *exportRecord) error {
			if err := reseal.record(r); err != nil {
				return err
			}
			return do(&mvccpb.KeyValue{Key: []byte(r.Key), Value: []byte(r.Value), Version: max(r.Count, 1)})
		})
		return err
	})
	if out != nil {
		out.At = header.At
		if header.Issuer != v.Issuer && v.Issuer != "" {
			out.Flaws, out.Wrong = append([]Flaw{{"", "it is of " + header.Issuer + ", and the configuration is of " + v.Issuer,
				"name the configuration of the server that it was made of"}}, out.Flaws...), out.Wrong+1
		}
	}
	return out, err
}

// Remedies, where nothing better is known.
const (
	remedyOfStore = "restore a backup that warifu verify finds nothing wrong with (warifu restore), " +
		"or send these lines to the maintainers of warifu"
	remedyOfBackup = "make another backup, and keep an older one that warifu verify finds nothing wrong with"
)

// errUsed means that another process has the file open to write.
var errUsed = errors.New("a server runs on it: stop it, or make a backup (warifu backup FILE) and verify that")

// bolt verifies the file of a database of etcd's.
func (v Verification) bolt(ctx context.Context, what, remedy, file string) (out *Verified, err error) {
	// A damaged file can have anything in it: what goes wrong while it is read is a fault of the file.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			out, err = nil, fmt.Errorf("%s is damaged: %v", what, fault)
		}
	}()
	db, err := bbolt.Open(file, 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", what, errUsed)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged, or not a database of etcd: %w", what, err)
	}
	defer func() { _ = db.Close() }() // opened for reading
	err = db.View(func(tx *bbolt.Tx) error {
		revisions := tx.Bucket([]byte("key"))
		if revisions == nil {
			return fmt.Errorf("%s is not a database of etcd", what)
		}
		last, err := lastRevisions(revisions, v.Prefix)
		if err != nil {
			return fmt.Errorf("%s is damaged: %w", what, err)
		}
		out, err = v.verify(ctx, what, remedy, func(_ context.Context, do func(kv *mvccpb.KeyValue) error) error {
			for _, at := range last {
				kv := new(mvccpb.KeyValue)
				if err := proto.Unmarshal(revisions.Get(at), kv); err != nil {
					return fmt.Errorf("a record is damaged: %w", err)
				}
				kv.Key = bytes.TrimPrefix(kv.Key, []byte(v.Prefix))
				if err := do(kv); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	})
	return out, err
}

// lastRevisions are the keys of a bucket of etcd's under which the newest values of records are. Such a key is the
// revision of a change, 17 bytes, and ends with a t if that was a deletion.
func lastRevisions(bucket *bbolt.Bucket, prefix string) ([][]byte, error) {
	last := make(map[string][]byte)
	err := bucket.ForEach(func(revision, value []byte) error {
		var kv mvccpb.KeyValue
		if err := proto.Unmarshal(value, &kv); err != nil {
			return err
		}
		switch name := string(kv.Key); {
		case !strings.HasPrefix(name, prefix):
		case len(revision) > 17 && revision[17] == 't':
			delete(last, name)
		default:
			last[name] = bytes.Clone(revision)
		}
		return nil
	})
	out := make([][]byte, 0, len(last))
	for _, revision := range last {
		out = append(out, revision)
	}
	slices.SortFunc(out, bytes.Compare)
	return out, err
}

// verifying is a verification on its way.
type verifying struct {
	s      *Store // that opens what is sealed, and no more
	out    *Verified
	remedy string
	seed   maphash.Seed
	facts  map[uint64]struct{}
	sealed map[string]int // by the fingerprint of the key
	told   map[string]int // flaws by sort
	whole  bool           // everything has its notes
}

func (v Verification) verify(ctx context.Context, what, remedy string, each source) (*Verified, error) {
	now := v.Now
	if now == nil {
		now = time.Now
	}
	x := &verifying{s: &Store{now: now}, out: &Verified{What: what, Kinds: make(map[string]int)}, remedy: remedy,
		seed: maphash.MakeSeed(), facts: make(map[uint64]struct{}), sealed: make(map[string]int), told: make(map[string]int)}
	x.s.keks.Store(v.KEK)
	if err := each(ctx, x.note); err != nil {
		return nil, fmt.Errorf("verify %s: %w", what, err)
	}
	if err := each(ctx, func(kv *mvccpb.KeyValue) error { x.look(kv); return nil }); err != nil {
		return nil, fmt.Errorf("verify %s: %w", what, err)
	}
	for fingerprint := range x.sealed {
		x.out.Keys = append(x.out.Keys, fingerprint)
	}
	slices.Sort(x.out.Keys)
	if x.out.Records == 0 {
		x.flaw("empty", "", "there are no records in it", "name the configuration of the server whose records they are "+
			"(storage.config.namespace)")
	}
	return x.out, nil
}

func (x *verifying) hash(parts ...string) uint64 {
	return maphash.String(x.seed, strings.Join(parts, "\x00"))
}

func (x *verifying) has(parts ...string) bool {
	_, is := x.facts[x.hash(parts...)]
	return is
}

// note remembers what there is.
func (x *verifying) note(kv *mvccpb.KeyValue) error {
	name := string(kv.Key)
	x.facts[x.hash(name)] = struct{}{}
	if name == completeKey(completeNotes) {
		x.whole = true
	}
	if kindOf(name) == "users" {
		if u, err := decodeUsers([]*mvccpb.KeyValue{kv}); err == nil { // if not, it is told of later
			for _, login := range u.logins() {
				x.facts[x.hash(loginKey(login), u.ID)] = struct{}{}
			}
		}
	}
	return nil
}

// flaw tells of something that is wrong.
func (x *verifying) flaw(sort, key, what, remedy string) {
	x.out.Wrong++
	if x.told[sort]++; x.told[sort] <= mostFlaws {
		x.out.Flaws = append(x.out.Flaws, Flaw{key, what, remedy})
	}
}

// look finds out what is wrong with a record.
func (x *verifying) look(kv *mvccpb.KeyValue) {
	name, kind := string(kv.Key), kindOf(string(kv.Key))
	x.out.Records++
	x.out.Kinds[kind]++
	check, known := verifiedKinds[kind]
	if !known {
		x.flaw("kind "+kind, name, "this version of warifu does not know records "+kind+"/...",
			"use the version of warifu that wrote them, or a later one")
		return
	}
	segments := strings.Split(name, "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			x.flaw(kind, name, "its key cannot be read", x.remedy)
			return
		}
		segments[i] = plain
	}
	if len(segments) < 2 {
		x.flaw(kind, name, "its key is too short", x.remedy)
		return
	}
	if err := check(x, kv, segments[1:]); err != nil {
		x.flaw(kind, name, err.Error(), x.remedyFor(err))
		return
	}
	if slices.Contains(sealedKinds(), kind) {
		x.unseal(kv, under(kind))
	}
}

// unseal opens all that is sealed in a record.
func (x *verifying) unseal(kv *mvccpb.KeyValue, prefix string) {
	_, err := eachSealed(prefix, kv.Value, func(purpose string, sealed *[]byte) error {
		if len(*sealed) == 0 {
			return nil
		}
		if len(*sealed) >= kekIDLen {
			x.sealed[hex.EncodeToString((*sealed)[:kekIDLen])]++
		}
		_, err := x.s.kek().open(purpose, *sealed)
		return err
	})
	if err != nil {
		x.flaw("sealed", string(kv.Key), err.Error(), x.remedyFor(err))
	}
}

func (x *verifying) remedyFor(err error) string {
	if errors.Is(err, errHalf) {
		return "run it again, or remove what it has left with warifu import --discard"
	}
	if strings.Contains(err.Error(), "encryptionKeyFiles") { // which says it already
		return "look for a copy of the key where the backups of keys are: without it, this is lost"
	}
	return x.remedy
}

// to is an error if a record leads nowhere.
func (x *verifying) to(key, what string) error {
	if !x.has(key) {
		return fmt.Errorf("it refers to %s, which does not exist", what)
	}
	return nil
}

// named is an error if a record says of itself that it is another one.
func named(is, place string) error {
	if is != place {
		return fmt.Errorf("it says that it belongs to %q", is)
	}
	return nil
}

// verifiedKind looks at a record, whose key has these segments after the first one.
type verifiedKind func(x *verifying, kv *mvccpb.KeyValue, at []string) error

// readable is all that is asked of a record of a kind.
func readable[T any](what string) verifiedKind {
	return func(_ *verifying, kv *mvccpb.KeyValue, _ []string) error {
		_, err := decode[T](what, kv.Value)
		return err
	}
}

// bare are records whose key says all.
func bare(*verifying, *mvccpb.KeyValue, []string) error { return nil }

// verifiedKinds are all kinds of records, and what is asked of each. Notes (indexes.go) and other hints may lead
// nowhere: what they lead to decides.
var verifiedKinds = map[string]verifiedKind{
	"users": verifyUser, "clients": verifyClient, "keys": verifyKey, "compromised": verifyCompromised,
	"encryption": verifyTurn, "sessions": verifySession, "consents": verifyConsent, "factors": verifyFactors,
	"logins": func(x *verifying, kv *mvccpb.KeyValue, at []string) error {
		of, err := decode[handleRecord]("index of accounts", kv.Value)
		if err == nil && !x.has(string(kv.Key), of.UserID) {
			err = fmt.Errorf("it refers to the user %s, who does not exist or does not sign in with it", of.UserID)
		}
		return err
	},
	"handles": func(x *verifying, kv *mvccpb.KeyValue, _ []string) error {
		of, err := decode[handleRecord]("index of accounts", kv.Value)
		if err == nil {
			err = x.to(userKey(of.UserID), "the user "+of.UserID)
		}
		return err
	},
	"links": func(_ *verifying, kv *mvccpb.KeyValue, _ []string) error {
		_, err := decodeLinks([]*mvccpb.KeyValue{kv})
		return err
	},
	"apps": func(_ *verifying, kv *mvccpb.KeyValue, at []string) error {
		a, err := decodeApp(kv)
		if err == nil {
			err = named(a.Name, at[0])
		}
		return err
	},
	"deliveries": func(x *verifying, kv *mvccpb.KeyValue, at []string) error {
		d, err := decodeDelivery(kv)
		if err == nil && !d.Remove {
			err = x.to(appKey(at[0]), "the app "+at[0])
		}
		return err
	},
	"grants": func(_ *verifying, kv *mvccpb.KeyValue, _ []string) error {
		_, err := decodeGrant(kv)
		return ignore(err, ErrNotFound)
	},
	"chains": func(_ *verifying, kv *mvccpb.KeyValue, _ []string) error {
		_, err := decodeChain(kv)
		return err
	},
	"rotations": func(_ *verifying, kv *mvccpb.KeyValue, _ []string) error {
		_, err := decodeRotation(kv)
		return err
	},
	"devices": readable[Device]("device authorization"), "clientids": readable[FormerClient]("former client"),
	"formerids": readable[formerOwner]("owner of a client id"), "endings": readable[ending]("end of a client's grants"),
	"resources":  readable[resourceOwner]("owner of a resource identifier"),
	"identities": readable[resourceOwner]("client of a workload"), "secretuse": readable[SecretUse]("use of a secret"),
	"arrivals": readable[arrival]("arrival"), "signins": readable[history]("history of sign-ins"),
	"sessiongrants": readable[sessionUse]("use of a session"), "pastterms": readable[pastTerm]("past term"),
	"logouts": readable[Logout]("logout"), "spent": readable[mark]("mark"), "audit": readable[AuditEntry]("audit entry"),
	"activity": readable[AuditEntry]("audit entry"), "complete": readable[complete]("mark"),
	"clocks": readable[clock]("clock"), "upstreams": readable[Upstream]("upstream"),
	"standing": bare, "names": bare, "usersessions": bare, "userconsents": bare, "usergrants": bare, "withdrawn": bare,
	"asks": bare, "limits": bare,
}

func verifyUser(x *verifying, kv *mvccpb.KeyValue, at []string) error {
	u, err := decodeUsers([]*mvccpb.KeyValue{kv})
	if err != nil {
		return err
	}
	for _, login := range u.logins() {
		if !x.has(loginKey(login)) {
			return errors.New("the user cannot sign in with a name or address that they have: logins/... has none")
		}
	}
	for _, note := range u.notes() {
		if x.whole && !x.has(note) {
			return fmt.Errorf("the user is not found in lists: there is no %s", note)
		}
	}
	return named(u.ID, at[0])
}

func verifyClient(_ *verifying, kv *mvccpb.KeyValue, at []string) error {
	c, err := decodeClient(kv)
	if err == nil {
		err = named(c.ID, at[0])
	}
	return err
}

func verifyKey(x *verifying, kv *mvccpb.KeyValue, _ []string) error {
	k, err := decode[Key]("key", kv.Value)
	if err != nil {
		return err
	}
	if _, err := x.s.kek().open(k.purpose(), k.Sealed); err != nil {
		return nil // which is told with all that does not open
	}
	if k, err = x.s.decodeKey(kv); err != nil {
		return err
	}
	return named(k.storageKey(), string(kv.Key))
}

func verifyCompromised(x *verifying, kv *mvccpb.KeyValue, at []string) error {
	if at[0] != movedName {
		_, err := decode[CompromisedKey]("compromised key", kv.Value)
		return err
	}
	m, err := decode[moved]("move", kv.Value)
	switch {
	case err != nil:
		return err
	case m.Unfinished:
		return errHalf
	}
	x.out.Moved = m.Imported
	return nil
}

func verifyTurn(x *verifying, kv *mvccpb.KeyValue, _ []string) error {
	t, err := decode[turn]("turn of encryption keys", kv.Value)
	if err == nil && x.s.kek().at(t.KEK) == nil {
		err = &KEKMissingError{t.KEK, t.Since}
	}
	return err
}

func verifySession(x *verifying, kv *mvccpb.KeyValue, at []string) error {
	session, err := decode[Session]("session", kv.Value)
	if err == nil && x.whole && !x.has(sessionOfUserKey(session.UserID, at[0])) {
		err = errors.New("the session is not found among those of its user")
	}
	return err
}

func verifyConsent(x *verifying, kv *mvccpb.KeyValue, at []string) error {
	_, err := decode[Consent]("consent", kv.Value)
	if err == nil && len(at) > 1 && x.whole && !x.has(consentOfUserKey(at[1], at[0])) {
		err = errors.New("the consent is not found among those of its user")
	}
	return err
}

func verifyFactors(x *verifying, kv *mvccpb.KeyValue, at []string) error {
	record, err := decode[factorsRecord]("factors", kv.Value)
	if err != nil {
		return err
	}
	if _, err := x.s.kek().open(factorsPurpose(at[0]), record.Sealed); err == nil { // else it is told with all such
		if _, err := x.s.decodeFactors(at[0], []*mvccpb.KeyValue{kv}); err != nil {
			return err
		}
	}
	return x.to(userKey(at[0]), "the user "+at[0])
}
