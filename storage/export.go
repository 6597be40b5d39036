package storage

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// An export is all records, to be put into another etcd ([Importing]), where they mean the same: it says how often a
// record was written where that counts, and when its lease ends. A backup, in contrast, is a file of etcd's, which only
// becomes a database of etcd again.
//
// The records come line by line, as JSON, read in portions at one revision: first a header, last a line by which a
// stream that was cut off is told from one that has ended. What is secret stays sealed under the encryption key; see
// [WriteExport] for the file.

// exportFormat is the version of the format. A later one is for what an import of this version would get wrong.
const exportFormat = 1

// ExportHeader says what an export is of.
type ExportHeader struct {
	Format  int       `json:"format"`
	Program string    `json:"program"` // the version of warifu
	Issuer  string    `json:"issuer"`
	At      time.Time `json:"at"`
	// Revision up to which it goes.
	Revision int64 `json:"revision"`
	// Chosen is nil if it holds everything.
	Chosen *Selection `json:"chosen,omitempty"`
	// Replicas that ran at that time: what they do later is not in it.
	Replicas []string `json:"replicas,omitempty"`
}

// exportRecord is a record with its key, which stands in place of what etcd knows of it.
type exportRecord struct {
	Key   string `json:"k,omitempty"`
	Value string `json:"v,omitempty"`
	// Count is how often it was written, where that says something: a chain's generation, and guesses.
	Count int64 `json:"n,omitempty"`
	// Lease is the number of its lease in this export, from 1, and Ends when that ends, in Unix seconds, at its first
	// record.
	Lease int   `json:"l,omitempty"`
	Ends  int64 `json:"e,omitempty"`
}

func (r *exportRecord) kind() string { return kindOf(r.Key) }

// exportLine is a line after the header.
type exportLine struct {
	exportRecord
	End   *ExportEnd `json:"end,omitempty"`
	Fault string     `json:"fault,omitempty"` // why there is no more
}

// ExportEnd is the last line.
type ExportEnd struct {
	Records int            `json:"records"`
	Kinds   map[string]int `json:"kinds"`
}

func (e *ExportEnd) count(kind string) {
	if e.Kinds == nil {
		e.Kinds = make(map[string]int)
	}
	e.Records++
	e.Kinds[kind]++
}

// Exporting says what is exported.
type Exporting struct {
	Issuer  string
	Program string
	Chosen  *Selection // nil for everything
	action  string     // what the audit log calls it
}

// kindOf is the first segment of a key.
func kindOf(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return kind
}

// movedKinds are the kinds of records in the order of an export: users and clients first, of which the others are.
// Clocks are of replicas, which do not move.
func movedKinds() []string {
	return []string{"users", "apps", "clients",
		"keys", "compromised", "clientids", "formerids", "deliveries", "resources", "identities", "rotations",
		"secretuse", "endings",
		"factors", "handles", "logins", "links", "arrivals", "signins", "standing", "names", "complete",
		"sessions", "usersessions", "sessiongrants", "consents", "userconsents", "withdrawn", "grants", "chains",
		"usergrants",
		"devices", "upstreams", "asks", "pastterms", "logouts", "spent", "limits", "audit", "activity"}
}

// stayingKinds are those of replicas, and of the encryption key, which is another one elsewhere.
func stayingKinds() []string { return []string{"clocks", "encryption"} }

// stays reports whether a record is only of the place where it is.
func stays(key string) bool {
	return slices.Contains(stayingKinds(), kindOf(key)) || key == movedKey() || key == completeKey(completeSeals)
}

// Export writes an export of the records as they are now. An error also stands in the last line.
func (s *Store) Export(ctx context.Context, what Exporting, to io.Writer) error {
	out := bufio.NewWriterSize(to, 256<<10)
	x := exporting{s: s, lines: json.NewEncoder(out), leases: make(map[int64]int)}
	x.lines.SetEscapeHTML(false)
	err := x.export(ctx, what)
	if err != nil {
		_ = x.lines.Encode(exportLine{Fault: err.Error()})
		err = fmt.Errorf("export: %w", err)
	}
	return errors.Join(err, out.Flush())
}

type exporting struct {
	s      *Store
	lines  *json.Encoder
	leases map[int64]int // numbers of etcd's leases
	end    ExportEnd
}

func (x *exporting) export(ctx context.Context, what Exporting) error {
	// First, so that the export says that it was made. When storage is full, it does not.
	detail := "all records"
	if what.Chosen != nil {
		detail = what.Chosen.String()
	}
	entry := AuditEntry{Action: cmp.Or(what.action, AuditExport), Detail: detail}
	if err := x.s.Record(ctx, entry); err != nil && !errors.Is(err, ErrFull) {
		return err
	}
	clocks, err := x.s.kv.Get(ctx, under("clocks"), clientv3.WithPrefix())
	if err != nil {
		return err
	}
	header := ExportHeader{Format: exportFormat, Program: what.Program, Issuer: what.Issuer, At: x.s.now().UTC(),
		Revision: clocks.Header.Revision, Chosen: what.Chosen}
	for _, kv := range clocks.Kvs {
		if told, err := decode[clock]("clock", kv.Value); err == nil && x.s.now().Sub(told.At) < 3*time.Minute {
			header.Replicas = append(header.Replicas, lastSegment(kv.Key))
		}
	}
	if err := x.known(ctx, header.Revision); err != nil {
		return err
	}
	if err := x.lines.Encode(header); err != nil {
		return err
	}
	chosen := what.Chosen.picker()
	for _, kind := range movedKinds() {
		err := x.s.eachAt(ctx, under(kind), header.Revision, func(kv *mvccpb.KeyValue) error {
			if stays(string(kv.Key)) {
				return nil
			}
			if yes, err := chosen.picks(kv); err != nil || !yes {
				return err
			}
			return x.record(ctx, kind, kv)
		})
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			return errors.New("it took so long that etcd has dropped the records as they were when it began: " +
				"stop the server, and export from the database that nobody uses")
		case err != nil:
			return fmt.Errorf("%s: %w", kind, err)
		}
		if err := chosen.missed(kind); err != nil {
			return err
		}
	}
	return x.lines.Encode(exportLine{End: &x.end})
}

// known makes sure that there is nothing of which this version does not know whether it moves, and how.
func (x *exporting) known(ctx context.Context, revision int64) error {
	kinds := append(movedKinds(), stayingKinds()...)
	for from := "\x00"; ; {
		resp, err := x.s.kv.Get(ctx, from, clientv3.WithFromKey(), clientv3.WithKeysOnly(), clientv3.WithLimit(1),
			clientv3.WithRev(revision))
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		kind := kindOf(string(resp.Kvs[0].Key))
		if !slices.Contains(kinds, kind) {
			return fmt.Errorf("there are records %s/..., which this version of warifu does not know: use the version that "+
				"the servers have", kind)
		}
		from = clientv3.GetPrefixRangeEnd(under(kind))
	}
}

func (x *exporting) record(ctx context.Context, kind string, kv *mvccpb.KeyValue) error {
	if !utf8.Valid(kv.Value) {
		return fmt.Errorf("%s is damaged: it is no text", kv.Key)
	}
	r := exportRecord{Key: string(kv.Key), Value: string(kv.Value)}
	switch kind {
	case "chains":
		at, err := decodeChain(kv)
		if err != nil {
			return fmt.Errorf("%s: %w", kv.Key, err)
		}
		r.Count, at.Base = at.generation, 0
		r.Value = encode(at.link)
	case "limits":
		r.Count = kv.Version
	}
	if kv.Lease != 0 {
		r.Lease = x.leases[kv.Lease]
		if r.Lease == 0 {
			left, err := x.s.leases.lease.TimeToLive(ctx, clientv3.LeaseID(kv.Lease))
			if err != nil {
				return fmt.Errorf("read the end of a lease: %w", err)
			}
			r.Lease = len(x.leases) + 1
			x.leases[kv.Lease] = r.Lease
			r.Ends = x.s.now().Unix() + max(left.TTL, 0)
		}
	}
	x.end.count(kind)
	return x.lines.Encode(exportLine{exportRecord: r})
}

// About how much one read of many records brings, and the most records of one.
const (
	readAtOnce = 4 << 20
	mostAtOnce = 10_000
)

// eachAt calls do with every record under a prefix as it was at a revision, in the order of the keys. etcd counts all
// keys that follow, even for a few, so a portion is as large as its records allow.
func (s *Store) eachAt(ctx context.Context, prefix string, revision int64, do func(kv *mvccpb.KeyValue) error) error {
	return s.eachBetween(ctx, prefix, clientv3.GetPrefixRangeEnd(prefix), revision, do)
}

// eachBetween is eachAt for a range of keys; an end of "\x00" is that of all.
func (s *Store) eachBetween(ctx context.Context, from, end string, revision int64,
	do func(kv *mvccpb.KeyValue) error) error {
	for limit := int64(mostListed); ; {
		resp, err := s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(revision))
		if err != nil {
			return err
		}
		size := 1
		for _, kv := range resp.Kvs {
			size += len(kv.Key) + len(kv.Value)
			if err := do(kv); err != nil {
				return err
			}
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return nil
		}
		limit = min(max(int64(readAtOnce*len(resp.Kvs)/size), 100), mostAtOnce)
	}
}
