package storage

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Condition is what is known of the etcd below a store, as of a moment ago.
type Condition struct {
	// Full means that etcd is out of room: until there is some again, it takes reads and deletes only.
	Full bool
	// Notes are what an operator should know, a line each. None: all is well.
	Notes []string
}

// Shares of the quota. An embedded database that is fullish gives back what is unused in its file, if that is worth it.
const (
	fullish  = 0.80
	worth    = 0.20
	disarmed = 0.95 // of a database that is full, the most with which it may write again
)

// How often the keeper looks (lookFull: while others have to make room), how long it waits for an answer, and how long
// it leaves a database alone that it has defragmented, which stops all else while it lasts: shorter when nothing can be
// written anyway.
const (
	lookEmbedded = 10 * time.Second
	lookRemote   = 30 * time.Second
	lookFull     = 2 * time.Second
	lookTime     = 3 * time.Second
	breath       = time.Second // between two looks, however many requests are refused
	rest         = 10 * time.Minute
	restFull     = time.Minute
)

// member is what a member of etcd says of itself.
type member struct {
	endpoint string // empty: it is embedded
	status   *clientv3.StatusResponse
	err      error
}

func (m member) alarmed(alarm string) bool {
	return m.err == nil && slices.ContainsFunc(m.status.Errors,
		func(e string) bool { return strings.Contains(e, "alarm:"+alarm) })
}

// used is how much of its quota a member's database has, from 0 to 1; 0 if it does not tell its quota (before etcd
// 3.6).
func (m member) used(bytes int64) float64 {
	if m.err != nil || m.status.DbSizeQuota <= 0 {
		return 0
	}
	return float64(bytes) / float64(m.status.DbSizeQuota)
}

// ask asks every member how it is, all at once.
func ask(ctx context.Context, client *clientv3.Client, endpoints []string) []member {
	if len(endpoints) == 0 {
		endpoints = []string{""}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	members := make([]member, len(endpoints))
	var all sync.WaitGroup
	for i, endpoint := range endpoints {
		all.Go(func() {
			members[i].endpoint = endpoint
			members[i].status, members[i].err = client.Status(ctx, endpoint)
		})
	}
	all.Wait()
	return members
}

// keeper looks at the etcd below a store: whether it has room, which versions its members have, whether they answer. An
// embedded etcd is also kept by it. etcd refuses to write when its file has reached the quota, even if most of the file
// is unused, and goes on refusing until somebody says that there is room; nobody else is there to do that.
type keeper struct {
	client    *clientv3.Client
	endpoints []string  // of all members; the client may leave one out for a while
	embedded  *Embedded // nil: a cluster, which its operators keep
	log       *slog.Logger
	wake      chan struct{} // has a value when etcd was out of room for a request

	mu        sync.Mutex // guards condition and members
	condition Condition
	members   []member // as they were at the last look
	// What follows belongs to the goroutine of run.
	told    map[string]bool
	smaller time.Time // when the database was last defragmented
	history bool      // the history of a cluster was found to be compacted
}

func newKeeper(client *clientv3.Client, embedded *Embedded, log *slog.Logger) *keeper {
	return &keeper{client: client, endpoints: client.Endpoints(), embedded: embedded, log: log,
		wake: make(chan struct{}, 1), told: make(map[string]bool)}
}

// Condition is how the etcd below the store is.
func (s *Store) Condition() Condition {
	if s.keeper == nil {
		return Condition{}
	}
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	return s.keeper.condition
}

// full notes that etcd was out of room for a request.
func (k *keeper) full() {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.condition.Full = true
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run looks until ctx ends.
func (k *keeper) run(ctx context.Context) {
	every := lookRemote
	if k.embedded != nil {
		every = lookEmbedded
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-k.wake:
		}
		next := every
		if k.look(ctx) && k.embedded == nil {
			next = lookFull
		}
		tick.Reset(next)
	}
}

// look finds out how etcd is, makes room where that is up to this process, and says what has changed. It reports
// whether etcd is full.
func (k *keeper) look(ctx context.Context) bool {
	members := ask(ctx, k.client, k.endpoints)
	if k.embedded != nil {
		members = k.keep(ctx, members)
	}
	if ctx.Err() != nil {
		return false
	}
	c := Condition{Full: full(members)}
	now := make(map[string]bool)
	notes := notesOf(members, k.embedded != nil)
	if k.embedded == nil && !k.compacted(ctx, members) {
		notes = append(notes, Note{Kind: "history", Text: "the etcd cluster keeps every version of every record",
			Remedy: "start its members with --auto-compaction-retention=10m"})
	}
	for _, n := range notes {
		c.Notes = append(c.Notes, n.String())
		level := slog.LevelWarn
		if n.Wrong {
			level = slog.LevelError
		}
		if now[n.Kind] = true; !k.told[n.Kind] {
			k.log.Log(ctx, level, n.String())
		}
	}
	if k.told["full"] && !c.Full {
		k.log.InfoContext(ctx, "storage has room again")
	}
	k.told = now
	k.mu.Lock()
	k.condition, k.members = c, members
	k.mu.Unlock()
	return c.Full
}

// compacted reports whether somebody compacts the history of a cluster. This process does not: it may serve others.
func (k *keeper) compacted(ctx context.Context, members []member) bool {
	const much = 100_000 // revisions
	if k.history || !slices.ContainsFunc(members, func(m member) bool {
		return m.err == nil && m.status.Header.GetRevision() > much
	}) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	_, err := k.client.Get(ctx, "ping", clientv3.WithRev(1), clientv3.WithCountOnly())
	k.history = err != nil // not there any more; or it cannot be known
	return k.history
}

// keep makes room in an embedded database: it drops the history, gives back what is unused in the file, and lets etcd
// write again.
func (k *keeper) keep(ctx context.Context, members []member) []member {
	m := members[0]
	if m.err != nil {
		return members
	}
	full := m.alarmed("NOSPACE")
	fragmented := m.used(m.status.DbSize) >= fullish && m.used(m.status.DbSize-m.status.DbSizeInUse) >= worth
	if !full && !fragmented {
		return members
	}
	if full {
		if _, err := k.client.Compact(ctx, m.status.Header.GetRevision(), clientv3.WithCompactPhysical()); err != nil {
			// It was before
			k.log.DebugContext(ctx, "the history of an embedded database that is full cannot be dropped", "error", err)
		}
		if m = ask(ctx, k.client, k.endpoints)[0]; m.err != nil {
			return []member{m}
		}
	}
	alone := rest
	if full {
		alone = restFull
	}
	if m.used(m.status.DbSizeInUse) < disarmed && m.used(m.status.DbSize) >= fullish && time.Since(k.smaller) > alone {
		began := time.Now()
		k.smaller = began
		if err := k.embedded.etcd.Server.Defragment(); err != nil {
			k.log.ErrorContext(ctx, "the unused space of the database file cannot be freed", "error", err)
		} else if next := ask(ctx, k.client, k.endpoints)[0]; next.err == nil {
			k.log.InfoContext(ctx, "the database was made smaller", "from", Bytes(m.status.DbSize),
				"to", Bytes(next.status.DbSize), "took", time.Since(began).Round(time.Millisecond))
			m = next
		}
	}
	if full && m.used(m.status.DbSize) < disarmed {
		alarm := &clientv3.AlarmMember{MemberID: m.status.Header.GetMemberId(), Alarm: etcdserverpb.AlarmType_NOSPACE}
		if _, err := k.client.AlarmDisarm(ctx, alarm); err != nil {
			k.log.ErrorContext(ctx, "etcd cannot be told that there is room again", "error", err)
		}
		m = ask(ctx, k.client, k.endpoints)[0]
	}
	return []member{m}
}

// Bytes is a size for people.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	size, unit := float64(n), 0
	for size >= 1024 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	if size >= 10 || unit == 0 {
		return fmt.Sprintf("%.0f %s", size, units[unit])
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}
