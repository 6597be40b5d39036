package storage

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// RotationMirror is a copy of all rotations that follows the store, and knows which of them may be able to continue:
// those that changed, those of apps with a delivery that changed, and those whose new secret was used for the first
// time. So rotations cost nothing while they wait. It may lag behind: what is decided on it is compared in the
// transaction that carries it out.
type RotationMirror struct {
	// Changed has a value if a rotation may be able to continue since the last value was taken.
	Changed <-chan struct{}

	changed chan struct{}
	mu      sync.Mutex // owns all below
	all     map[string]*SecretRotation
	clients map[string]string // by app
	due     map[string]bool
}

// MirrorRotations follows the rotations, and what they wait for, until ctx ends.
func (s *Store) MirrorRotations(ctx context.Context) *RotationMirror {
	m := &RotationMirror{changed: make(chan struct{}, 1), due: make(map[string]bool)}
	m.Changed = m.changed
	missed := func([]*mvccpb.KeyValue) error { m.touch(everyRotation); return nil }
	for _, f := range []followed{
		{prefix: under("rotations"), reset: m.reset, put: m.put, del: m.del},
		{prefix: under("deliveries"), reset: missed,
			put: func(kv *mvccpb.KeyValue) error { m.delivery(kv.Key[len(s.prefix):]); return nil },
			del: func(key []byte, _ int64) { m.delivery(key) }},
		{prefix: under("secretuse"), reset: missed,
			put: func(kv *mvccpb.KeyValue) error { m.use(kv.Key[len(s.prefix):]); return nil },
			del: func([]byte, int64) {}},
	} {
		s.done.Go(func() {
			for ctx.Err() == nil {
				revision, err := s.list(ctx, f)
				if err == nil {
					s.watch(ctx, f, revision)
					return
				}
				if ctx.Err() == nil {
					s.log.Warn("rotations cannot be watched; trying again", "prefix", f.prefix, "error", err)
				}
				Pause(ctx, time.Second)
			}
		})
	}
	return m
}

// Take returns the rotations that may be able to continue, each once.
func (m *RotationMirror) Take() []*SecretRotation {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due []*SecretRotation
	for client := range m.due {
		if r := m.all[client]; r != nil {
			due = append(due, r)
		}
	}
	clear(m.due)
	return due
}

// Rotation returns the rotation of a client, nil if it has none. It is shared and must not be modified.
func (m *RotationMirror) Rotation(clientID string) *SecretRotation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[clientID]
}

// UnderWay is how many rotations are under way, and when the first of them began.
func (m *RotationMirror) UnderWay() (n int, first time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.all {
		if !r.UnderWay() {
			continue
		}
		if n++; n == 1 || r.StartedAt.Before(first) {
			first = r.StartedAt
		}
	}
	return n, first
}

func everyRotation(*SecretRotation) bool { return true }

// touch marks those rotations, of all that are not over, for which concerned is true.
func (m *RotationMirror) touch(concerned func(*SecretRotation) bool) {
	m.mu.Lock()
	for client, r := range m.all {
		if !r.Over() && concerned(r) {
			m.due[client] = true
		}
	}
	m.mu.Unlock()
	m.signal()
}

// touchOne marks the rotation of one client, as touch does.
func (m *RotationMirror) touchOne(clientID string, concerned func(*SecretRotation) bool) {
	m.mu.Lock()
	r := m.all[clientID]
	marked := r != nil && !r.Over() && concerned(r)
	if marked {
		m.due[clientID] = true
	}
	m.mu.Unlock()
	if marked {
		m.signal()
	}
}

func (m *RotationMirror) signal() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *RotationMirror) reset(kvs []*mvccpb.KeyValue) error {
	all, clients := make(map[string]*SecretRotation, len(kvs)), make(map[string]string, len(kvs))
	for _, kv := range kvs {
		r, err := decodeRotation(kv)
		if err != nil {
			return err
		}
		all[r.ClientID], clients[r.App] = r, r.ClientID
	}
	m.mu.Lock()
	m.all, m.clients = all, clients
	m.mu.Unlock()
	m.touch(everyRotation)
	return nil
}

func (m *RotationMirror) put(kv *mvccpb.KeyValue) error {
	r, err := decodeRotation(kv)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.all[r.ClientID], m.clients[r.App] = r, r.ClientID
	m.mu.Unlock()
	m.touchOne(r.ClientID, everyRotation)
	return nil
}

func (m *RotationMirror) del(key []byte, _ int64) {
	client := lastSegment(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.all[client]; r != nil && m.clients[r.App] == client {
		delete(m.clients, r.App)
	}
	delete(m.all, client)
}

// delivery handles a change at deliveries/<app>/...
func (m *RotationMirror) delivery(key []byte) {
	app, _, _ := strings.Cut(strings.TrimPrefix(string(key), under("deliveries")), "/")
	name, err := url.PathUnescape(app)
	if err != nil {
		return
	}
	m.mu.Lock()
	client := m.clients[name]
	m.mu.Unlock()
	m.touchOne(client, everyRotation)
}

// use handles a change at secretuse/<client>/<secret>.
func (m *RotationMirror) use(key []byte) {
	escaped, _, _ := strings.Cut(strings.TrimPrefix(string(key), under("secretuse")), "/")
	client, err := url.PathUnescape(escaped)
	if err != nil {
		return
	}
	secret := lastSegment(key)
	m.touchOne(client, func(r *SecretRotation) bool { return r.SecretID == secret && r.UsedAt.IsZero() })
}
