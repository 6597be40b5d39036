package storage

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// DeliveryMirror is a copy of all deliveries that follows the store, so that its users need not list them all whenever
// one changes. It may lag behind: what is decided on it is compared in the transaction that carries it out.
type DeliveryMirror struct {
	// Changed has a value when something has changed since its last one was taken, and first when the mirror is
	// complete.
	Changed <-chan struct{}

	changed chan struct{}
	mu      sync.Mutex // owns keys and list, which have the same order
	keys    []string
	list    []*Delivery
}

// MirrorDeliveries follows the deliveries until ctx ends: it lists, and then watches from there; when that is
// interrupted, it lists again.
func (s *Store) MirrorDeliveries(ctx context.Context) *DeliveryMirror {
	m := &DeliveryMirror{changed: make(chan struct{}, 1)}
	m.Changed = m.changed
	f := followed{prefix: under("deliveries"), reset: m.reset, put: m.put, del: m.del}
	s.done.Go(func() {
		for ctx.Err() == nil {
			revision, err := s.list(ctx, f)
			if err == nil {
				s.watch(ctx, f, revision)
				return
			}
			if ctx.Err() == nil {
				s.log.Warn("deliveries cannot be read; trying again", "error", err)
			}
			Pause(ctx, time.Second)
		}
	})
	return m
}

// List returns all deliveries, sorted by app and target. The records are shared and must not be modified.
func (m *DeliveryMirror) List() []*Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list)
}

// signal wakes the reader. Signals that are not read are merged.
func (m *DeliveryMirror) signal() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *DeliveryMirror) reset(kvs []*mvccpb.KeyValue) error {
	keys, list := make([]string, 0, len(kvs)), make([]*Delivery, 0, len(kvs))
	for _, kv := range kvs { // by key, as etcd gives them
		d, err := decodeDelivery(kv)
		if err != nil {
			return err
		}
		keys, list = append(keys, d.key()), append(list, d)
	}
	m.mu.Lock()
	m.keys, m.list = keys, list
	m.mu.Unlock()
	m.signal()
	return nil
}

func (m *DeliveryMirror) put(kv *mvccpb.KeyValue) error {
	d, err := decodeDelivery(kv)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if i, there := slices.BinarySearch(m.keys, d.key()); there {
		m.list[i] = d
	} else {
		m.keys, m.list = slices.Insert(m.keys, i, d.key()), slices.Insert(m.list, i, d)
	}
	m.mu.Unlock()
	m.signal()
	return nil
}

func (m *DeliveryMirror) del(key []byte, _ int64) {
	m.mu.Lock()
	if i, there := slices.BinarySearch(m.keys, string(key)); there {
		m.keys, m.list = slices.Delete(m.keys, i, i+1), slices.Delete(m.list, i, i+1)
	}
	m.mu.Unlock()
	m.signal()
}
