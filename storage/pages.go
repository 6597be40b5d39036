package storage

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Part says which part of a list is wanted.
type Part struct {
	After string // the cursor of the previous part; empty: from the start
	Limit int    // 0: as many as suit
}

// mostListed is how many records one read of a list takes.
const mostListed = 500

// part reads a part of the records under a prefix, in the order of their keys. A cursor is what follows the prefix in
// the key of the last record.
func part[T any](ctx context.Context, s *Store, prefix string, p Part,
	decode func(*mvccpb.KeyValue) (T, error)) (list []T, next string, err error) {
	if p.Limit <= 0 || p.Limit > mostListed {
		p.Limit = mostListed
	}
	from := prefix
	if p.After != "" {
		from += p.After + "\x00"
	}
	resp, err := s.kv.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
		clientv3.WithLimit(int64(p.Limit)))
	if err != nil {
		return nil, "", fmt.Errorf("list %s: %w", prefix, err)
	}
	list = make([]T, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		record, err := decode(kv)
		if err != nil {
			return nil, "", fmt.Errorf("list %s: %w", prefix, err)
		}
		list = append(list, record)
		next = string(kv.Key[len(prefix):])
	}
	if !resp.More {
		next = ""
	}
	return list, next, nil
}

// AppsPart is a part of the list of apps, by name; next is the cursor of the next part, empty when there is none.
func (s *Store) AppsPart(ctx context.Context, p Part) (apps []*App, next string, err error) {
	return part(ctx, s, under("apps"), p, decodeApp)
}

// ClientsPart is a part of the list of clients, by id.
func (s *Store) ClientsPart(ctx context.Context, p Part) (clients []*Client, next string, err error) {
	return part(ctx, s, under("clients"), p, decodeClient)
}

// DeliveriesPart is a part of the list of deliveries, by app and target: of those of one app, or of all when app is
// empty.
func (s *Store) DeliveriesPart(ctx context.Context, app string, p Part) (
	deliveries []*Delivery, next string, err error) {
	prefix := under("deliveries")
	if app != "" {
		prefix = under("deliveries", app)
	}
	return part(ctx, s, prefix, p, decodeDelivery)
}

// UsersPart is a part of the list of users, by id.
func (s *Store) UsersPart(ctx context.Context, p Part) (users []*User, next string, err error) {
	return part(ctx, s, under("users"), p, func(kv *mvccpb.KeyValue) (*User, error) {
		return decodeUsers([]*mvccpb.KeyValue{kv})
	})
}

// UsersOf reads the users with these ids, of which some may be the same or unknown; one read for each hundred.
func (s *Store) UsersOf(ctx context.Context, ids []string) (map[string]*User, error) {
	users := make(map[string]*User)
	for _, id := range ids {
		users[id] = nil
	}
	err := s.manyOf(ctx, ids, userKey, func(id string, kv *mvccpb.KeyValue) (err error) {
		users[id], err = decodeUsers([]*mvccpb.KeyValue{kv})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return users, nil
}

// manyOf calls do with the records of these ids, each once, of those that are there; one read for each hundred.
func (s *Store) manyOf(ctx context.Context, ids []string, keyOf func(id string) string,
	do func(id string, kv *mvccpb.KeyValue) error) error {
	for some := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(ids))), 100) {
		var t transaction
		each := make([]*found, len(some))
		for i, id := range some {
			each[i] = t.then.get(keyOf(id))
		}
		if err := s.run(ctx, &t); err != nil {
			return err
		}
		for i, id := range some {
			if kv := each[i].one(); kv != nil {
				if err := do(id, kv); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
