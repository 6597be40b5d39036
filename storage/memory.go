package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// memory is the part of the records that every request needs: clients and keys, as of some revision. Records in it are
// shared and never modified: an update replaces the pointer.
type memory struct {
	mu      sync.RWMutex // guards the maps
	clients map[string]*Client
	keys    map[string]*Key // by the key of the record
	// compromised keys by thumbprint: they count as gone, even where their record is.
	compromised map[string]*CompromisedKey

	resources  resources // derived from clients
	identities identities

	// Derived from keys and compromised, and replaced as a whole when a key comes or goes.
	byUse    map[string][]*Key // newest first
	seals    *seals
	pairwise *pairwise // nil before the key is there
}

func (m *memory) init() {
	m.clients, m.resources, m.identities = make(map[string]*Client), make(resources), make(identities)
	m.keys, m.compromised = make(map[string]*Key), make(map[string]*CompromisedKey)
	m.derive()
}

// derive rebuilds what is derived from keys. The mutex is held.
func (m *memory) derive() {
	m.byUse = make(map[string][]*Key)
	for _, k := range m.keys {
		if m.compromised[k.thumbprint] != nil {
			continue
		}
		m.byUse[k.Use] = append(m.byUse[k.Use], k)
	}
	for _, keys := range m.byUse {
		slices.SortFunc(keys, func(a, b *Key) int { return cmp.Compare(b.Sequence, a.Sequence) })
	}
	m.seals = newSeals(m.byUse[UseSeal])
	m.pairwise = newPairwise(m.byUse[UsePairwise])
}

func (m *memory) client(id string) *Client {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.clients[id]
}

// all are the clients that memory holds, disabled ones too.
func (m *memory) all() []*Client {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Collect(maps.Values(m.clients))
}

// learn stores a record that was read in passing, unless memory holds a newer one.
func (m *memory) learn(c *Client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if held := m.clients[c.ID]; held == nil || held.Revision < c.Revision {
		m.clients[c.ID] = c
		m.resources.replace(held, c)
		m.identities.replace(held, c)
	}
}

func (m *memory) forget(id string, revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if held := m.clients[id]; held != nil && held.Revision < revision {
		delete(m.clients, id)
		m.resources.replace(held, nil)
		m.identities.replace(held, nil)
	}
}

// Forget drops a client that turned out to be gone from memory.
func (s *Store) Forget(clientID string) { s.mem.forget(clientID, math.MaxInt64) }

// followed is a prefix that memory mirrors.
type followed struct {
	prefix string
	reset  func(kvs []*mvccpb.KeyValue) error // everything there is
	put    func(kv *mvccpb.KeyValue) error
	del    func(key []byte, revision int64)
}

func (s *Store) followed() []followed {
	return []followed{
		{prefix: under("clients"), reset: s.resetClients, put: s.putClient,
			del: func(key []byte, revision int64) { s.mem.forget(lastSegment(key), revision) }},
		{prefix: under("compromised"), reset: s.resetCompromised, put: s.putCompromised, del: func([]byte, int64) {}},
		{prefix: under("keys"), reset: s.resetKeys, put: s.putKey, del: s.dropKey},
		s.endings.followed(),
		s.followedTurn(),
	}
}

// follow lists every followed prefix and then watches it from that revision until watchCtx ends.
func (s *Store) follow(ctx, watchCtx context.Context) error {
	for _, f := range s.followed() {
		revision, err := s.list(ctx, f)
		if err != nil {
			return err
		}
		s.done.Go(func() { s.watch(watchCtx, f, revision) })
	}
	return nil
}

func (s *Store) list(ctx context.Context, f followed) (revision int64, err error) {
	resp, err := s.kv.Get(ctx, f.prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, fmt.Errorf("list %s: %w", f.prefix, err)
	}
	if err := f.reset(resp.Kvs); err != nil {
		return 0, fmt.Errorf("list %s: %w", f.prefix, err)
	}
	return resp.Header.Revision, nil
}

// watch applies changes after revision. When etcd has compacted them away, it lists again.
func (s *Store) watch(ctx context.Context, f followed, revision int64) {
	for ctx.Err() == nil {
		watchCtx, cancel := context.WithCancel(ownStream(ctx))
		w := s.measures.watching(watchCtx)
		for resp := range s.events(watchCtx, f.prefix, clientv3.WithRev(revision+1)) {
			w.heard()
			if err := resp.Err(); err != nil {
				if ctx.Err() == nil && !errors.Is(err, rpctypes.ErrCompacted) {
					s.log.Warn("storage watch interrupted", "prefix", f.prefix, "error", err)
				}
				break
			}
			for _, ev := range resp.Events {
				if ev.Type == mvccpb.DELETE {
					f.del(ev.Kv.Key[len(s.prefix):], ev.Kv.ModRevision)
				} else if err := f.put(ev.Kv); err != nil {
					s.log.Error("cannot decode a changed record", "key", string(ev.Kv.Key), "error", err)
				}
			}
			revision = max(revision, resp.Header.Revision)
		}
		s.measures.over(w)
		cancel()
		Pause(ctx, time.Second)
		if rev, err := s.list(ctx, f); err == nil {
			revision = rev
		} else if ctx.Err() == nil {
			s.log.Warn("a storage listing failed; trying again", "prefix", f.prefix, "error", err)
		}
	}
}

// events watches a prefix of this store. Keys in the events carry the store's prefix: an embedded etcd hands the same
// events to all its watchers, so they must not be modified, which etcd's own namespace.NewWatcher does.
//
// ctx is one of ownStream.
func (s *Store) events(ctx context.Context, prefix string, opts ...clientv3.OpOption) clientv3.WatchChan {
	opts = append(opts, clientv3.WithPrefix())
	if s.shift == 0 {
		return s.watcher.Watch(ctx, s.prefix+prefix, opts...)
	}
	if rev := clientv3.OpGet("", opts...).Rev(); rev > 0 {
		opts = append(opts, clientv3.WithRev(max(rev-s.shift, 1)))
	}
	return s.shiftedEvents(ctx, s.watcher.Watch(ctx, s.prefix+prefix, opts...))
}

// ownStream gives a watch a stream of its own, as etcd's client does for contexts whose metadata differ. On a stream of
// an embedded etcd that several share, each side may wait for the other for ever when more than one of them ends: the
// client to send that one ends, while nobody takes what the server has to say of another.
func ownStream(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "warifu-watch",
		strconv.FormatInt(watches.Add(1), 10))
}

// watches counts the watches of this process.
var watches atomic.Int64

func decodeClient(kv *mvccpb.KeyValue) (*Client, error) {
	c, err := decode[Client]("client", kv.Value)
	if err != nil {
		return nil, err
	}
	c.Revision = kv.ModRevision
	return c, nil
}

func (s *Store) resetClients(kvs []*mvccpb.KeyValue) error {
	clients, spoken, workloads := make(map[string]*Client, len(kvs)), make(resources), make(identities)
	for _, kv := range kvs {
		c, err := decodeClient(kv)
		if err != nil {
			return err
		}
		clients[c.ID] = c
		spoken.replace(nil, c)
		workloads.replace(nil, c)
	}
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	s.mem.clients, s.mem.resources, s.mem.identities = clients, spoken, workloads
	return nil
}

func (s *Store) putClient(kv *mvccpb.KeyValue) error {
	c, err := decodeClient(kv)
	if err != nil {
		return err
	}
	s.mem.learn(c)
	return nil
}

// AppOf is the app of a client, as far as memory knows; empty if it has none.
func (s *Store) AppOf(clientID string) string {
	if c := s.mem.client(clientID); c != nil {
		return c.App
	}
	return ""
}

// Remembers reports whether memory has a record of a client with this id, even a disabled one.
func (s *Store) Remembers(id string) bool { return s.mem.client(id) != nil }

// Known is the client with this id, as far as memory knows; nil when it knows none, or that it is disabled.
func (s *Store) Known(id string) *Client {
	if c := s.mem.client(id); c.Active() {
		return c
	}
	return nil
}

// Client returns the client with this id, from memory, or from etcd if memory does not know it. It returns
// [ErrDisabled] for a disabled client. Look-ups in etcd are limited; beyond the limit the error is [ErrBusy].
func (s *Store) Client(ctx context.Context, id string) (*Client, error) {
	c := s.mem.client(id)
	if c == nil {
		if len(id) > 256 || id == "" {
			return nil, ErrNotFound
		}
		if !s.unknown.Allow() {
			return nil, ErrBusy
		}
		resp, err := s.kv.Get(ctx, key("clients", id))
		if err != nil {
			return nil, fmt.Errorf("read client: %w", err)
		}
		if len(resp.Kvs) == 0 {
			return nil, ErrNotFound
		}
		if c, err = decodeClient(resp.Kvs[0]); err != nil {
			return nil, err
		}
		s.mem.learn(c)
	}
	if c.Disabled {
		return nil, ErrDisabled
	}
	return c, nil
}
