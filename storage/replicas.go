package storage

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Announcement is what a process knows of itself and tells the others, beside the time (clocks.go).
type Announcement struct {
	Version string `json:"version,omitempty"` // of the program
	// Config is a digest of the configuration with which it serves: equal for replicas that serve alike. It says nothing
	// about what is in it.
	Config string `json:"config,omitempty"`
	// Refused is why it goes on with an older configuration than it has read; "" if it does not.
	Refused string `json:"refused,omitempty"`
}

// Replica is a process that works on the database, as it said at a time.
type Replica struct {
	Name string // like no other
	Self bool   // this process
	At   time.Time
	Announcement
	Started time.Time // zero if a version tells that does not know it
	// Keys are the encryption keys that it has, newest first, by their fingerprints; SealsUnder is the one that it uses. A
	// replica of an older version names only that.
	Keys       []string
	SealsUnder string
}

// Announce tells the other replicas what this process is, at once, and with every comparison of clocks from then on.
func (s *Store) Announce(ctx context.Context, a Announcement) error {
	s.clocks.mu.Lock()
	s.clocks.announced = a
	s.clocks.mu.Unlock()
	return s.announceAgain(ctx)
}

// announceAgain tells at once what has changed of this replica, and hears under which encryption key all seal.
func (s *Store) announceAgain(ctx context.Context) error {
	var held *found
	_, err := s.commit(ctx, func(t *transaction) error {
		held = t.then.get(turnKey())
		return s.tell(ctx, t)
	})
	if err == nil {
		err = s.heardTurn(held)
	}
	if err != nil {
		return fmt.Errorf("announce this replica: %w", err)
	}
	return nil
}

// tell adds to a transaction what this replica says of itself.
func (s *Store) tell(ctx context.Context, t *transaction) error {
	now := s.now()
	lease, err := s.leases.until(ctx, now)
	s.clocks.mu.Lock()
	announced := s.clocks.announced
	s.clocks.told = true
	s.clocks.mu.Unlock()
	t.then.do(clientv3.OpPut(key("clocks", s.clocks.name), encode(clock{
		At: now.UTC(), KEK: s.kek().id(), Notes: true,
		Announcement: announced, Started: s.clocks.started.UTC(), Keys: s.kek().fingerprints(),
	}), clientv3.WithLease(lease)))
	return err
}

// Replicas are the processes that work on the database, this one first, then by name. One that has ended without a word
// is listed for some minutes more.
func (s *Store) Replicas(ctx context.Context) ([]Replica, error) {
	resp, err := s.kv.Get(ctx, under("clocks"), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list replicas: %w", err)
	}
	return s.replicasOf(resp.Kvs)
}

func (s *Store) replicasOf(clocks []*mvccpb.KeyValue) ([]Replica, error) {
	replicas := make([]Replica, 0, len(clocks))
	for _, kv := range clocks {
		told, err := decode[clock]("clock", kv.Value)
		if err != nil {
			return nil, fmt.Errorf("list replicas: %s: %w", kv.Key, err)
		}
		r := Replica{Name: lastSegment(kv.Key), At: told.At, Announcement: told.Announcement, Started: told.Started,
			Keys: told.Keys, SealsUnder: told.KEK}
		if r.Self = r.Name == s.clocks.name; len(r.Keys) == 0 && told.KEK != "" {
			r.Keys = []string{told.KEK}
		}
		replicas = append(replicas, r)
	}
	slices.SortFunc(replicas, func(a, b Replica) int {
		if a.Self != b.Self {
			if a.Self {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return replicas, nil
}

// dropReplicas forgets the processes that have had an embedded database before this one. Nobody else is there.
func (s *Store) dropReplicas(ctx context.Context) error {
	if s.keeper == nil || s.keeper.embedded == nil {
		return nil
	}
	_, err := s.kv.Delete(ctx, under("clocks"), clientv3.WithPrefix())
	return err
}

// leavingTime is how long a replica that ends takes to say so.
const leavingTime = time.Second

// unannounce takes back what this replica has told, so that nobody waits for it. It may fail: the record ends with its
// lease.
func (s *Store) unannounce() {
	s.clocks.mu.Lock()
	told := s.clocks.told
	s.clocks.mu.Unlock()
	if !told || s.keeper != nil && s.keeper.embedded != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leavingTime)
	defer cancel()
	if _, err := s.kv.Delete(ctx, key("clocks", s.clocks.name)); err != nil {
		s.log.Debug("the record of this replica stays until its lease ends", "error", err)
	}
}
