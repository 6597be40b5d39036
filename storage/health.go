package storage

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Note is something about etcd that an operator should know.
type Note struct {
	Kind  string // like no other of its time
	Wrong bool   // it does harm already
	Text  string
	// Remedy is what to do about it; it may be empty.
	Remedy string
}

func (n Note) String() string {
	if n.Remedy == "" {
		return n.Text
	}
	return n.Text + "; " + n.Remedy
}

// Health is how etcd is at this moment.
type Health struct {
	Members []Member
	// Round is how long a read takes on which a quorum agrees.
	Round time.Duration
	Notes []Note
}

// Member is what a member of etcd says of itself.
type Member struct {
	Endpoint string // empty: it is embedded
	Version  string
	Leads    bool
	// Size is that of its database file, of which Used is in use, and Quota the most that it may have (0: it does not
	// tell), in bytes.
	Size, Used, Quota int64
	Err               error // it does not answer, and nothing else is known
}

// Health asks etcd how it is.
func (s *Store) Health(ctx context.Context) (Health, error) {
	if s.keeper == nil {
		round, err := roundTrip(ctx, s.kv)
		return Health{Round: round}, err
	}
	return healthOf(ctx, s.keeper.client, s.keeper.endpoints, s.keeper.embedded != nil)
}

// Health asks an etcd cluster how it is, without a store on it.
func (r Remote) Health(ctx context.Context) (Health, error) {
	client, err := Dial(ctx, r, slog.New(slog.DiscardHandler))
	if err != nil {
		return Health{}, err
	}
	defer func() { _ = client.Close() }()
	return healthOf(ctx, client, r.Endpoints, false)
}

func healthOf(ctx context.Context, client *clientv3.Client, endpoints []string, embedded bool) (Health, error) {
	members := ask(ctx, client, endpoints)
	h := Health{Notes: notesOf(members, embedded)}
	for _, m := range members {
		shown := Member{Endpoint: Remote{Endpoints: []string{m.endpoint}}.named()[0], Err: m.err}
		if s := m.status; m.err == nil {
			shown.Version, shown.Leads = s.Version, s.Leader == s.Header.GetMemberId()
			shown.Size, shown.Used, shown.Quota = s.DbSize, s.DbSizeInUse, s.DbSizeQuota
		}
		h.Members = append(h.Members, shown)
	}
	if !embedded {
		h.Notes = append(h.Notes, clusterNotes(ctx, client, members)...)
	}
	var err error
	h.Round, err = roundTrip(ctx, client.KV)
	return h, err
}

// roundTrips are so many that one which is slow by chance does not count.
const roundTrips = 5

// roundTrip is how long a read on which a quorum agrees takes: the middle one of several.
func roundTrip(ctx context.Context, kv clientv3.KV) (time.Duration, error) {
	took := make([]time.Duration, roundTrips)
	for i := range took {
		began := time.Now()
		if _, err := kv.Get(ctx, "ping", clientv3.WithCountOnly()); err != nil {
			return 0, fmt.Errorf("read from etcd: %w", err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[roundTrips/2], nil
}

// full reports whether a member is out of room: then none of them takes writes.
func full(members []member) bool {
	return slices.ContainsFunc(members, func(m member) bool { return m.alarmed("NOSPACE") })
}

// roomRemedy is what an operator can do about an etcd that is full.
func roomRemedy(embedded bool) string {
	if embedded {
		return "raise storage.config.quota and restart, or end what is not needed"
	}
	return "make room in the etcd cluster (etcdctl compact, defrag, alarm disarm), or raise its --quota-backend-bytes"
}

// notesOf are what is to be said about the members.
func notesOf(members []member, embedded bool) (notes []Note) {
	if full(members) {
		notes = append(notes, Note{Kind: "full", Wrong: true, Text: "storage is full: it takes reads and revocations " +
			"only",
			Remedy: roomRemedy(embedded)})
	}
	for _, m := range members {
		notes = append(notes, m.notes(embedded, full(members))...)
	}
	return notes
}

// notes are what is to be said about one member.
func (m member) notes(embedded, full bool) (notes []Note) {
	who := "the etcd member " + Remote{Endpoints: []string{m.endpoint}}.named()[0]
	if m.endpoint == "" {
		who = "storage"
	}
	if m.err != nil {
		return []Note{{Kind: "silent " + m.endpoint, Text: who + " does not answer",
			Remedy: "see that etcd runs there, and that this machine can reach it"}}
	}
	if !embedded && slices.ContainsFunc(m.status.Errors, func(e string) bool {
		return strings.Contains(e, "no leader")
	}) {
		notes = append(notes, Note{Kind: "leaderless " + m.endpoint,
			Text: who + " knows no leader: too few members answer each other", Remedy: "start those that are down"})
	}
	if m.alarmed("CORRUPT") {
		notes = append(notes, Note{Kind: "corrupt " + m.endpoint, Wrong: true,
			Text: who + " has found that its data is corrupt, and refuses everything", Remedy: "replace that member"})
	}
	if share := m.used(m.status.DbSize); share >= fullish && !full {
		notes = append(notes, Note{Kind: "fullish " + m.endpoint,
			Text: fmt.Sprintf("%s has used %.0f %% of its %s; when it is full, nothing can be written", who, 100*share,
				Bytes(m.status.DbSizeQuota)), Remedy: roomRemedy(embedded)})
	}
	if v, err := parseVersion(m.status.Version); err == nil && v.before(advisedVersion) && !embedded {
		notes = append(notes, Note{Kind: "old " + m.endpoint, Text: fmt.Sprintf("%s is etcd %s", who, v),
			Remedy: fmt.Sprintf("upgrade it to %s or later", advisedVersion)})
	}
	return notes
}

// clusterNotes are what is to be said about the members together.
func clusterNotes(ctx context.Context, client *clientv3.Client, asked []member) (notes []Note) {
	if client.Cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	resp, err := client.MemberList(ctx)
	if err != nil {
		return nil // those that were asked say what is wrong
	}
	voters := 0
	for _, m := range resp.Members {
		if !m.IsLearner {
			voters++
		}
	}
	if voters > len(asked) {
		notes = append(notes, Note{Kind: "unnamed", Text: fmt.Sprintf(
			"storage.config.endpoints has %d of the %d members of the cluster: "+
				"when these are down, so is storage", len(asked), voters), Remedy: "name all of them"})
	}
	if voters%2 == 0 {
		notes = append(notes, Note{Kind: "even", Remedy: "add a member, or remove one",
			Text: fmt.Sprintf("the etcd cluster has %d members, which survive no more failures than %d would",
				voters, voters-1)})
	}
	return notes
}
