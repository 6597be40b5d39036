package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
)

// Importing says where an export is put: into an etcd in which nothing stands under the prefix, and which no server
// uses meanwhile.
//
// All of it is there in the end, or nothing counts. An import begins with the record of the move, unfinished, in a
// transaction that compares that there is nothing else; every transaction that follows compares that the record is
// still the same, and that no replica has told its time; and the last one finishes it. A store does not open before
// that, so a crash leaves nothing that is served. Whoever imports again removes what is left and begins anew; two at
// once hinder each other.
//
// It takes no records beside others: a database has one set of keys that sign and seal and one that pairwise subjects
// come from, and ids that mean one thing, which two sets of records do not agree on.
type Importing struct {
	Client *clientv3.Client
	Prefix string
	// KEK under which the secrets are sealed there.
	KEK *KEK
	// Issuer of the server there. Tokens, passkeys and env name it, so that of the export must be the same.
	Issuer string
	Key    ExportKey
	// Progress is told how many records are there, now and then; it may be nil.
	Progress func(records int)
	Logger   *slog.Logger
	Now      func() time.Time // nil means time.Now

	checked bool // all of the file can be read
}

// Imported is what has been imported.
type Imported struct {
	*ExportHeader
	*ExportEnd
	// Expired are records that have reached their end since the export was made, and are left out.
	Expired int
}

// Errors that say what an import found in its place.
var (
	ErrNotEmpty = errors.New("there are records in the database already, and an import or a restore needs an empty " +
		"one: two sets of keys and ids cannot be merged. Take an empty data directory, cluster or " +
		"namespace (storage.config)")
	ErrServed = errors.New("a server runs on the database: stop it first")
)

// shiftRoom is how much further than those of the export the revisions of an import begin: the server from which it
// came may have gone on for a while.
const shiftRoom = 1 << 30

// How much a transaction of an import puts: etcd takes requests of 1.5 MiB.
const (
	importBytes   = 512 << 10
	importRecords = 2000
)

// shortestLease is the least time for which a lease is made anew: it only cleans up.
const shortestLease = 10 * time.Minute

// Import puts the records of a file into the etcd. It reads the file twice: before it writes anything, it makes sure
// that all of it can be read.
func (i Importing) Import(ctx context.Context, file io.ReadSeeker) (*Imported, error) {
	done, err := i.imports(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	return done, nil
}

func (i Importing) imports(ctx context.Context, file io.ReadSeeker) (*Imported, error) {
	if err := i.check(file); err != nil {
		return nil, err
	}
	lines, header, seals, err := openExport(file, i.Key)
	if err != nil {
		return nil, err
	}
	w := i.writing()
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	end, err := w.addAll(ctx, lines, seals)
	if err == nil {
		err = w.finish(ctx, header, end)
	}
	if err != nil {
		return nil, unfinished(err)
	}
	return &Imported{ExportHeader: header, ExportEnd: end, Expired: w.expired}, nil
}

// Check reads all of a file before there is an etcd to import into, so that none is made for one that is refused. It
// needs no KEK either.
func (i *Importing) Check(file io.ReadSeeker) error {
	if err := i.check(file); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	i.checked = true
	return nil
}

// check reads all of a file, unless that was done, and writes nothing. The file is at its beginning again.
func (i Importing) check(file io.ReadSeeker) error {
	if i.checked {
		return nil
	}
	lines, header, seals, err := openExport(file, i.Key)
	if err == nil {
		err = i.checkLines(lines, header, seals)
	}
	if err != nil {
		return err
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

func (i Importing) checkLines(lines *exportLines, header *ExportHeader, seals *KEK) error {
	if err := i.ofIssuer(header); err != nil {
		return err
	}
	kek := i.KEK
	if kek == nil {
		var err error
		if kek, err = NewKEK(newKEKSecret()); err != nil {
			return err
		}
	}
	reseal := resealing{seals.beneath(kek)}
	_, err := lines.each(reseal.record)
	return err
}

func (i Importing) ofIssuer(header *ExportHeader) error {
	if header.Issuer != i.Issuer {
		return fmt.Errorf("the records are of %s, and this configuration's issuer is %s: tokens, passkeys and "+
			"the env of apps "+
			"name the issuer, so they would be good for nothing. Set issuer to that of the records", header.Issuer, i.Issuer)
	}
	return nil
}

// Restoring says how a backup of records is restored.
type Restoring struct {
	// KeepGrants leaves grants, sessions and consents as they are in the backup.
	KeepGrants bool
	// Then is done in the new epoch, before anything of it counts; nil for nothing.
	Then func(ctx context.Context, s *Store) error
}

// Expect reports whether a backup of records is one for Restore, and can be read to its end. It needs no etcd, so none
// is made for a backup that is refused.
func (i *Importing) Expect(file io.ReadSeeker) error {
	lines, header, seals, err := openBackup(file, i.KEK)
	if err == nil {
		err = i.checkLines(lines, header, seals)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	i.checked = true
	return nil
}

// Restore makes the records of an etcd in which there is nothing from a backup of records, and begins a new epoch. The
// backup is sealed under one of the keys of i.KEK; i.Key is not needed.
func (i Importing) Restore(ctx context.Context, file io.ReadSeeker, how Restoring) (*Epoch, error) {
	epoch, err := i.restore(ctx, file, how)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return epoch, nil
}

func (i Importing) restore(ctx context.Context, file io.ReadSeeker, how Restoring) (*Epoch, error) {
	lines, header, seals, err := openBackup(file, i.KEK)
	if err != nil {
		return nil, err
	}
	if !i.checked {
		if err := i.checkLines(lines, header, seals); err != nil {
			return nil, err
		}
		if lines, header, seals, err = openBackup(file, i.KEK); err != nil {
			return nil, err
		}
	}
	w := i.writing()
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	if _, err = w.addAll(ctx, lines, seals); err != nil {
		return nil, unfinished(err)
	}
	// The records are all there, and still nobody may use them: in them, what has ended since is alive.
	t := transaction{ifs: w.ifs()}
	at := moved{At: unfinishedWords, Unfinished: true, Shift: header.Revision + shiftRoom, Exported: header.At}
	t.then.do(clientv3.OpPut(movedKey(), encode(at)))
	if err := w.run(ctx, &t); err != nil {
		return nil, unfinished(err)
	}
	w.at = t.revision
	epoch, err := w.newEpoch(ctx, how)
	if err != nil {
		return nil, unfinished(err)
	}
	epoch.BackupAt = header.At
	at.At, at.Unfinished, at.Imported = movedWords, false, w.Now().UTC()
	t = transaction{ifs: w.ifs()}
	t.then.do(clientv3.OpPut(movedKey(), encode(at)),
		clientv3.OpPut(completeKey(completeSeals), encode(complete{At: at.Imported, KEK: w.KEK.id()})))
	if err := w.run(ctx, &t); err != nil {
		return nil, unfinished(err)
	}
	return epoch, nil
}

// newEpoch begins the epoch of a restored backup.
func (w *writing) newEpoch(ctx context.Context, how Restoring) (*Epoch, error) {
	s, err := New(ctx, w.Client, Options{Prefix: w.Prefix, KEK: w.KEK, Logger: w.Logger, Now: w.Now, unfinished: true})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	epoch, err := s.BeginEpoch(ctx, how.KeepGrants)
	if err == nil && how.Then != nil {
		err = how.Then(ctx, s)
	}
	return epoch, err
}

// unfinished says what is to be done about an import that was not finished.
func unfinished(err error) error {
	return fmt.Errorf("%w (nothing of it counts; do it again, or remove what there is with warifu import --discard)", err)
}

// Discard removes what an import has left that was not finished. It returns how many records that were. [ErrNotFound]:
// there is no such import.
func (i Importing) Discard(ctx context.Context) (int, error) {
	w := i.writing()
	m, at, err := readMoved(ctx, w.s.kv)
	if err == nil && (m == nil || !m.Unfinished) {
		err = ErrNotFound
	}
	removed := 0
	if err == nil {
		w.at = at
		removed, err = w.clear(ctx)
	}
	if err == nil {
		t := transaction{ifs: w.ifs()}
		t.then.do(clientv3.OpDelete(movedKey()))
		err = w.run(ctx, &t)
	}
	if err != nil {
		return removed, fmt.Errorf("remove an unfinished import: %w", err)
	}
	return removed, nil
}

// writing is an import on its way.
type writing struct {
	Importing
	s       *Store // with what transactions need, and no more
	lease   clientv3.Lease
	at      int64 // revision of the record of the move
	leases  map[int]importLease
	batch   []exportRecord
	bytes   int
	written int
	expired int
}

type importLease struct {
	id   clientv3.LeaseID // 0: none yet
	ends time.Time
}

func (i Importing) writing() *writing {
	if i.Now == nil {
		i.Now = time.Now
	}
	w := &writing{Importing: i, leases: make(map[int]importLease), lease: i.Client.Lease,
		s: &Store{kv: i.Client.KV, log: i.Logger, now: i.Now}}
	if i.Prefix != "" {
		w.s.kv, w.lease = namespace.NewKV(i.Client.KV, i.Prefix), namespace.NewLease(i.Client.Lease, i.Prefix)
	}
	return w
}

// ifs are the comparisons of every transaction.
func (w *writing) ifs() []clientv3.Cmp {
	return []clientv3.Cmp{atRevision(movedKey(), w.at),
		clientv3.Compare(clientv3.Version(under("clocks")), "=", 0).WithPrefix()}
}

// run is a transaction whose comparisons are ifs.
func (w *writing) run(ctx context.Context, t *transaction) error {
	clocks := t.otherwise.get(under("clocks"), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err := w.s.run(ctx, t); err != nil {
		return err
	}
	switch {
	case t.held:
		return nil
	case clocks.count > 0:
		return ErrServed
	}
	return errors.New("another import has begun on the database")
}

// begin puts the record of the move: into an empty database, or in place of that of an import that was not finished.
func (w *writing) begin(ctx context.Context) error {
	m, at, err := readMoved(ctx, w.s.kv)
	if err != nil {
		return err
	}
	unfinished := clientv3.OpPut(movedKey(), encode(moved{At: unfinishedWords, Unfinished: true}))
	var t transaction
	switch {
	case m == nil:
		t.onlyIf(nothing())
	case m.Unfinished:
		t.onlyIf(atRevision(movedKey(), at))
	default:
		return ErrNotEmpty
	}
	t.then.do(unfinished)
	if err := w.s.run(ctx, &t); err != nil {
		return err
	}
	if !t.held {
		return ErrNotEmpty
	}
	w.at = t.revision
	if m != nil {
		_, err = w.clear(ctx)
	}
	return err
}

// clear removes everything but the record of the move.
func (w *writing) clear(ctx context.Context) (removed int, err error) {
	for from := "\x00"; ; {
		resp, err := w.s.kv.Get(ctx, from, clientv3.WithFromKey(), clientv3.WithKeysOnly(), clientv3.WithLimit(importRecords))
		if err != nil || len(resp.Kvs) == 0 {
			return removed, err
		}
		t := transaction{ifs: []clientv3.Cmp{atRevision(movedKey(), w.at)}}
		first, last := from, string(resp.Kvs[len(resp.Kvs)-1].Key)
		for _, kv := range resp.Kvs {
			if string(kv.Key) == movedKey() {
				t.then.do(clientv3.OpDelete(first, clientv3.WithRange(movedKey())))
				first = movedKey() + "\x00"
				removed--
			}
		}
		if first <= last {
			t.then.do(clientv3.OpDelete(first, clientv3.WithRange(last+"\x00")))
		}
		if err := w.s.run(ctx, &t); err != nil {
			return removed, err
		}
		if !t.held {
			return removed, errors.New("another import has begun on the database")
		}
		removed += len(resp.Kvs)
		from = last + "\x00"
	}
}

// add puts a record, with others.
func (w *writing) add(ctx context.Context, r *exportRecord) error {
	if r.Lease != 0 {
		of, known := w.leases[r.Lease]
		if !known {
			of.ends = time.Unix(r.Ends, 0)
			w.leases[r.Lease] = of
		}
		if !of.ends.After(w.Now()) {
			w.expired++
			return nil
		}
	}
	switch r.kind() {
	case "chains":
		at, err := decode[link]("chain", []byte(r.Value))
		if err != nil {
			return err
		}
		at.Base = r.Count - 1
		r.Value = encode(at)
	case "limits":
		for range r.Count - 1 { // few: guesses are bounded
			if err := w.put(ctx, []exportRecord{*r}); err != nil {
				return err
			}
		}
	}
	w.batch, w.bytes = append(w.batch, *r), w.bytes+len(r.Key)+len(r.Value)
	if len(w.batch) < importRecords && w.bytes < importBytes {
		return nil
	}
	return w.flush(ctx)
}

// addAll puts all records of a file.
func (w *writing) addAll(ctx context.Context, lines *exportLines, seals *KEK) (*ExportEnd, error) {
	reseal := resealing{seals.beneath(w.KEK)}
	end, err := lines.each(func(r *exportRecord) error {
		if err := reseal.record(r); err != nil {
			return err
		}
		return w.add(ctx, r)
	})
	if err == nil {
		err = w.flush(ctx)
	}
	return end, err
}

func (w *writing) flush(ctx context.Context) error {
	err := w.put(ctx, w.batch)
	w.written += len(w.batch)
	w.batch, w.bytes = w.batch[:0], 0
	if err == nil && w.Progress != nil {
		w.Progress(w.written)
	}
	return err
}

// put is one transaction. A lease that has ended since it was made, because the import takes so long, is made anew.
func (w *writing) put(ctx context.Context, records []exportRecord) error {
	for attempt := 0; ; attempt++ {
		puts := make([]clientv3.Op, len(records))
		for n, r := range records {
			lease, err := w.leaseOf(ctx, r.Lease)
			if err != nil {
				return err
			}
			puts[n] = clientv3.OpPut(r.Key, r.Value, clientv3.WithLease(lease))
		}
		t := transaction{ifs: w.ifs()}
		t.then.do(bundled(puts)...)
		err := w.run(ctx, &t)
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) || attempt > 0 {
			return err
		}
		for _, r := range records {
			if of, known := w.leases[r.Lease]; known {
				of.id = 0
				w.leases[r.Lease] = of
			}
		}
	}
}

func (w *writing) leaseOf(ctx context.Context, number int) (clientv3.LeaseID, error) {
	if number == 0 {
		return clientv3.NoLease, nil
	}
	of := w.leases[number]
	if of.id == 0 {
		granted, err := w.lease.Grant(ctx, int64(max(of.ends.Sub(w.Now()), shortestLease)/time.Second))
		if err != nil {
			return 0, fmt.Errorf("make a lease: %w", err)
		}
		of.id = granted.ID
		w.leases[number] = of
	}
	return of.id, nil
}

// finish makes what was imported count.
func (w *writing) finish(ctx context.Context, header *ExportHeader, end *ExportEnd) error {
	t := transaction{ifs: w.ifs()}
	now := w.Now().UTC()
	t.then.do(
		clientv3.OpPut(movedKey(), encode(moved{At: movedWords, Shift: header.Revision + shiftRoom, Exported: header.At,
			Imported: now})),
		clientv3.OpPut(completeKey(completeSeals), encode(complete{At: now, KEK: w.KEK.id()})))
	t.then.do(w.s.auditOps(ctx, []AuditEntry{{Action: AuditImport,
		Detail: counted(end.Records-w.expired, "record") + ", exported at " + header.At.Format(time.RFC3339)}})...)
	return w.run(ctx, &t)
}
