package storage

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Each replica says in etcd what time it is, once a minute, and compares what the others have said. No clock is known
// to be right; but as long as all say the same, each of them may be trusted, and when they do not, whatever is decided
// by the time can wait, because nothing that is asked of this server depends on it: which key signs is in the records.

// clockTolerance is how far clocks may be apart: a code lives for about as long.
const clockTolerance = time.Minute

// clock is what a replica says the time is. It ends with a lease when the replica does.
type clock struct {
	At time.Time `json:"at"`
	// KEK is the encryption key under which the replica seals, and Notes that it puts notes, see [indexes].
	KEK   string `json:"kek,omitempty"`
	Notes bool   `json:"notes,omitempty"`

	// The rest is for people and for the other replicas, see [Replica].
	Announcement
	Started time.Time `json:"started,omitzero"`
	Keys    []string  `json:"keys,omitempty"`
}

// clocks are what this replica knows of the clocks of all.
type clocks struct {
	name      string     // of this replica, like no other
	started   time.Time  // when this replica was
	comparing sync.Mutex // orders comparisons, which wait for etcd

	mu        sync.Mutex   // guards the rest
	announced Announcement // what this process has said of itself
	told      bool         // it has said something
	last      time.Time    // when they were compared
	agreed    time.Time    // since when all of them have agreed; zero when they do not
	others    map[string]heard
}

// heard is what another replica has said.
type heard struct {
	revision int64
	by       time.Duration // how far it is ahead of this replica; 0: within the tolerance, or not known
}

func (c *clocks) init(now time.Time) {
	c.started = now
	host, _ := os.Hostname()
	c.name = strings.ToLower(strings.Trim(host+"-"+rand.Text()[:6], "-"))
	c.others = make(map[string]heard)
}

// ClockDifference is by how much the clock of another replica is ahead of this one's, or behind if it is less than 0.
type ClockDifference struct {
	Replica string
	By      time.Duration
}

// String says it without the replica's name, which is not for strangers.
func (d ClockDifference) String() string {
	word, by := "ahead of", d.By
	if by < 0 {
		word, by = "behind", -by
	}
	return fmt.Sprintf("the clock of another replica is %s %s this one's", by.Round(time.Second), word)
}

// ClockDifferences are the replicas whose clocks were found to be apart from this one's by minutes, sorted by name.
func (s *Store) ClockDifferences() []ClockDifference {
	s.clocks.mu.Lock()
	defer s.clocks.mu.Unlock()
	var out []ClockDifference
	for _, name := range slices.Sorted(maps.Keys(s.clocks.others)) {
		if by := s.clocks.others[name].by; by != 0 {
			out = append(out, ClockDifference{Replica: name, By: by})
		}
	}
	return out
}

// settled reports whether all clocks have agreed for as long as d, or there is nobody else. A replica that has just
// started has to wait for that long before it knows.
func (s *Store) settled(d time.Duration) bool {
	s.clocks.mu.Lock()
	defer s.clocks.mu.Unlock()
	return !s.clocks.agreed.IsZero() && s.now().Sub(s.clocks.agreed) >= d
}

// compareClocks tells the others the time and hears what they have told: one raft proposal.
func (s *Store) compareClocks(ctx context.Context) error {
	c := &s.clocks
	c.comparing.Lock()
	defer c.comparing.Unlock()
	now := s.now()
	var all, marks *found
	_, err := s.commit(ctx, func(t *transaction) error {
		err := s.tell(ctx, t)
		all = t.then.get(under("clocks"), clientv3.WithPrefix())
		marks = t.then.get(under("complete"), clientv3.WithPrefix())
		return err
	})
	if err == nil {
		err = s.completeOnly(ctx, all.kvs, marks.kvs)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	others, apart := make(map[string]heard), false
	for _, kv := range all.kvs {
		name := lastSegment(kv.Key)
		if name == c.name {
			continue
		}
		told, err := decode[clock]("clock", kv.Value)
		if err != nil {
			continue // what cannot be read says nothing
		}
		was, known := c.others[name]
		h := heard{revision: kv.ModRevision}
		switch by := told.At.Sub(now); {
		case told.At.Sub(s.now()) > clockTolerance: // it was said before now, whenever that was
			h.by = by
		case known && was.revision == kv.ModRevision:
			h.by = was.by // nothing new: the replica may be gone
		case known && by < -clockTolerance-now.Sub(c.last): // it was said after the last comparison
			h.by = by
		}
		others[name], apart = h, apart || h.by != 0
		if h.by != 0 && was.by == 0 {
			s.log.WarnContext(ctx, "clocks differ; until they agree, keys are not rotated on schedule: set the "+
				"clock that is wrong",
				"replica", name, "ahead", h.by.Round(time.Second))
		}
	}
	switch {
	case apart:
		c.agreed = time.Time{}
	case c.agreed.IsZero():
		c.agreed = now
		if !c.last.IsZero() {
			s.log.InfoContext(ctx, "clocks agree again")
		}
	}
	c.others, c.last = others, now
	return nil
}
