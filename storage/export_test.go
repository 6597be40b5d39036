package storage

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// EtcdLog is the logger of etcd by another clock.
func EtcdLog(log *slog.Logger, now func() time.Time) *zap.Logger {
	return zap.New(&slogCore{log: log, level: zap.WarnLevel, seen: &seen{last: make(map[string]*repeated), now: now}})
}

// Campaign is how the only member becomes the leader.
var Campaign = campaign

// FailureOf is what is said when etcd gives up on a data directory.
func FailureOf(dir, what string, why error) error { return newFailure(dir).words(what, why) }

// Silence is how long a connection may owe an answer.
const Silence = silence

// NotesOn are what a store says of a cluster.
func NotesOn(ctx context.Context, client *clientv3.Client) []string {
	k := newKeeper(client, nil, slog.New(slog.DiscardHandler))
	k.look(ctx)
	return k.condition.Notes
}

// ExportedRecords are the records of an export by their keys, without what differs each time.
func ExportedRecords(from io.Reader) (map[string]string, error) {
	lines, _, err := readExport(from)
	if err != nil {
		return nil, err
	}
	records := make(map[string]string)
	_, err = lines.each(func(r *exportRecord) error {
		if !slices.Contains(sealedKinds(), r.kind()) {
			records[r.Key] = fmt.Sprint(r.Value, " ", r.Count, " ", r.Lease > 0)
		} else {
			records[r.Key] = "sealed"
		}
		return nil
	})
	return records, err
}

// KindsThatMove are those of an export, and those that stay.
func KindsThatMove() []string { return append(movedKinds(), stayingKinds()...) }

// NothingInFlight says that the test has nothing on its way to a store, so that resealing need not wait for it.
func NothingInFlight(s *Store) { s.sealing.inFlight = 0 }

// SealedUnder counts what is sealed, by the fingerprint of the key.
func SealedUnder(ctx context.Context, s *Store) (map[string]int, error) { return s.sealedUnder(ctx) }

// RenewKeyFile puts a new key in front of a file.
func RenewKeyFile(file string) (*KEK, error) { return renewKeyFile(file) }

// KindsVerified are those that a verification knows.
func KindsVerified() (kinds []string) {
	for kind := range verifiedKinds {
		kinds = append(kinds, kind)
	}
	return kinds
}
