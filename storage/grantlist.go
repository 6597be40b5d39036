package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// There can be any number of grants, so nothing here reads all of them at once: lists have pages, counts count keys,
// and to find a grant by its id alone is to ask for it under every client.

// GrantQuery says which live grants are wanted.
type GrantQuery struct {
	ClientID string // empty: those of all clients
	UserID   string // empty: those of all users
	After    string // the cursor of the previous page; empty: from the start
	Limit    int    // 0: a page of a size that suits
}

// Bounds of a listing: of a page, and of the grants that one goes through.
const (
	grantPage = 500
	grantScan = 10_000
)

// Grants lists live grants by client and id: two reads, or a few more, for each [grantPage] that it goes through. next
// is the cursor of the next page, empty when there is none; a page may hold fewer grants than the limit, even none, and
// still have a next one. What is created or ends between two pages may be missed or still be listed.
func (s *Store) Grants(ctx context.Context, q GrantQuery) (grants []Grant, next string, err error) {
	if q.Limit <= 0 || q.Limit > grantPage {
		q.Limit = grantPage
	}
	if q.UserID != "" && s.seek(1) {
		if grants, next, err = s.grantsOf(ctx, q); err != nil {
			return nil, "", fmt.Errorf("list grants: %w", err)
		}
		return grants, next, nil
	}
	w := s.walkGrants(q)
	for scanned := 0; scanned < grantScan && !w.done; {
		limit := grantPage
		if q.UserID == "" {
			limit = q.Limit - len(grants)
		}
		chains, err := w.read(ctx, s, limit)
		if err != nil {
			return nil, "", fmt.Errorf("list grants: %w", err)
		}
		page, err := s.grantsAt(ctx, chains)
		if err != nil {
			return nil, "", fmt.Errorf("list grants: %w", err)
		}
		for i, g := range page {
			if g == nil || q.UserID != "" && q.UserID != g.UserID {
				continue
			}
			grants = append(grants, *g)
			if len(grants) == q.Limit {
				if i < len(page)-1 {
					w.after, w.done = placeOf(chains[i].Key), false
				}
				return grants, w.cursor(), nil
			}
		}
		scanned += len(chains)
	}
	return grants, w.cursor(), nil
}

// grantsAt reads the grants that belong to chains, which follow each other: one read, or more if many have died between
// them. A grant that is dead by now is nil.
func (s *Store) grantsAt(ctx context.Context, chains []*mvccpb.KeyValue) ([]*Grant, error) {
	grants := make([]*Grant, len(chains))
	if len(chains) == 0 {
		return grants, nil
	}
	bodies, dead := make(map[string]*mvccpb.KeyValue, len(chains)), make(map[string]bool)
	from, end := "grants/"+placeOf(chains[0].Key), "grants/"+placeOf(chains[len(chains)-1].Key)+"\x00"
	for more := true; more; {
		var t transaction
		some := t.then.get(from, clientv3.WithRange(end), clientv3.WithLimit(2*grantPage))
		ended := t.then.get(under("endings"), clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err := s.run(ctx, &t); err != nil {
			return nil, err
		}
		for _, kv := range some.kvs {
			bodies[placeOf(kv.Key)] = kv
			from = string(kv.Key) + "\x00"
		}
		for _, kv := range ended.kvs {
			dead[lastSegment(kv.Key)] = true
		}
		more = len(some.kvs) == 2*grantPage
	}
	for i, chain := range chains {
		body := bodies[placeOf(chain.Key)]
		if body == nil || dead[clientOfKey(body.Key)] {
			continue
		}
		g, err := listedGrant(body, chain)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		grants[i] = g
	}
	return grants, nil
}

// placeOf is where a grant is: what follows chains/ or grants/ in a key, <client>/<grant>.
func placeOf(k []byte) string {
	_, place, _ := strings.Cut(string(k), "/")
	return place
}

// grantWalk goes through the chains of all clients, or of one, in the order of their places.
//
// etcd counts all keys of the range of a read, even for a few of them. So a read goes up to the end of a client, or of
// some that have few grants; and within a client that has many, only as far as the grants that were read last let
// expect: ids are random, so they are spread evenly.
type grantWalk struct {
	clients []string // places where the grants of the clients that memory knows begin, in order: <client>/
	end     string
	after   string // the place up to which it has come
	reach   int    // how far one read goes within a client, see spread; 0: to its end
	many    int    // over how many clients one read goes
	done    bool
}

func (s *Store) walkGrants(q GrantQuery) *grantWalk {
	w := &grantWalk{many: 1, end: clientv3.GetPrefixRangeEnd(under("chains"))}
	if q.ClientID != "" {
		w.after = under(q.ClientID)
		w.end = clientv3.GetPrefixRangeEnd(under("chains", q.ClientID))
	} else {
		for _, c := range s.mem.all() {
			w.clients = append(w.clients, under(c.ID))
		}
		slices.Sort(w.clients)
	}
	if q.After != "" {
		reach, place, _ := strings.Cut(q.After, ".")
		w.reach, _ = strconv.Atoi(reach) // 0 does as well
		w.after = max(w.after, place)
	}
	return w
}

// cursor is where another walk goes on.
func (w *grantWalk) cursor() string {
	if w.done {
		return ""
	}
	return strconv.Itoa(w.reach) + "." + w.after
}

// horizon is the end of the next read.
func (w *grantWalk) horizon() string {
	client, id, within := strings.Cut(w.after, "/")
	switch {
	case within && w.reach > 0 && spread(id)+w.reach < spreads:
		return "chains/" + client + "/" + spreadAt(spread(id)+w.reach)
	case within:
		return min(w.end, clientv3.GetPrefixRangeEnd("chains/"+client+"/"))
	}
	next, _ := slices.BinarySearch(w.clients, w.after+"/")
	if last := next + w.many - 1; last < len(w.clients) {
		return min(w.end, clientv3.GetPrefixRangeEnd("chains/"+w.clients[last]))
	}
	return w.end
}

// read gives the next chains, at most limit, or none although there may be more.
func (w *grantWalk) read(ctx context.Context, s *Store, limit int) ([]*mvccpb.KeyValue, error) {
	end := w.horizon()
	resp, err := s.kv.Get(ctx, "chains/"+w.after+pastAll, clientv3.WithRange(end), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return nil, err
	}
	chains := resp.Kvs
	if !resp.More {
		w.after, w.done = strings.TrimPrefix(end, "chains/"), end == w.end
		if w.reach *= 2; !strings.Contains(w.after, "/") {
			w.reach = 0
		}
		w.many = min(2*w.many, 256)
		return chains, nil
	}
	w.after, w.many = placeOf(chains[len(chains)-1].Key), 1
	client, last, _ := strings.Cut(w.after, "/")
	first, n := last, 0
	for _, kv := range slices.Backward(chains) {
		c, id, _ := strings.Cut(placeOf(kv.Key), "/")
		if c != client {
			break
		}
		first, n = id, n+1
	}
	if w.reach = 0; n >= few {
		w.reach = max(1, (spread(last)-spread(first))*grantPage/n)
	}
	return chains, nil
}

// few grants say nothing about how all are spread.
const few = 4

// The characters of ids in the order of keys, and how many of them say how ids are spread.
const (
	spreadDigits = "234567abcdefghijklmnopqrstuvwxyz"
	spreadLength = 5
	spreads      = 1 << (5 * spreadLength)
)

// spread says where an id is among all ids, from 0 to [spreads].
func spread(id string) (at int) {
	for i := range spreadLength {
		at <<= 5
		if i < len(id) {
			digit, _ := slices.BinarySearch([]byte(spreadDigits), id[i])
			at += min(digit, len(spreadDigits)-1)
		}
	}
	return at
}

// spreadAt is a place between ids: it comes before all that are there or follow, and no key is that place.
func spreadAt(at int) string {
	var digits [spreadLength]byte
	for i := spreadLength - 1; i >= 0; i-- {
		digits[i], at = spreadDigits[at&31], at>>5
	}
	return string(digits[:]) + pastAll
}

// pastAll is less than every character of an escaped segment, and occurs in none.
const pastAll = "!"

// EachGrant calls do with every live grant of a client, or of all clients when clientID is empty, page by page, each as
// it is then. An error of do ends it.
func (s *Store) EachGrant(ctx context.Context, clientID string, do func(g *Grant) error) error {
	for q := (GrantQuery{ClientID: clientID}); ; {
		grants, next, err := s.Grants(ctx, q)
		if err != nil {
			return err
		}
		for i := range grants {
			if err := do(&grants[i]); err != nil {
				return err
			}
		}
		if q.After = next; next == "" {
			return nil
		}
	}
}

// listedGrant is a live grant with the state of its chain.
func listedGrant(body, chain *mvccpb.KeyValue) (*Grant, error) {
	g, err := decodeGrant(body)
	if err != nil {
		return nil, err
	}
	at, err := decodeChain(chain)
	if err != nil {
		return nil, err
	}
	g.Generation, g.RotatedAt = at.generation, time.UnixMilli(at.At).UTC()
	return g, nil
}

// CountGrants counts the live grants of a client: one read, of a number alone.
func (s *Store) CountGrants(ctx context.Context, clientID string) (int, error) {
	var t transaction
	chains := t.then.get(under("chains", clientID), clientv3.WithPrefix(), clientv3.WithCountOnly())
	ended := hasEnded(&t, clientID)
	if err := s.run(ctx, &t); err != nil {
		return 0, fmt.Errorf("count grants: %w", err)
	}
	if ended.count > 0 {
		return 0, nil
	}
	return int(chains.count), nil
}

// asked is how many clients one read asks for a grant, and in how many places it looks for other clients: etcd takes
// 128 operations in a transaction.
const asked = 60

// FindGrant finds a live grant by its id alone: it asks for it under the clients that memory knows, [asked] to a read.
// Between their keys it looks for other clients, which are described by documents or are new, and asks under these too.
// So what it costs follows the number of clients, not of grants.
func (s *Store) FindGrant(ctx context.Context, grantID string) (*Grant, error) {
	type gap struct{ from, to string }
	var gaps []gap
	var clients []string // chains/<client>/
	for _, c := range s.mem.all() {
		clients = append(clients, under("chains", c.ID))
	}
	slices.Sort(clients)
	all := under("chains")
	from := all
	for _, client := range clients {
		gaps = append(gaps, gap{from, client})
		from = clientv3.GetPrefixRangeEnd(client)
	}
	gaps = append(gaps, gap{from, clientv3.GetPrefixRangeEnd(all)})
	for len(clients)+len(gaps) > 0 {
		var t transaction
		ask, look := clients[:min(asked, len(clients))], gaps[:min(asked, len(gaps))]
		clients, gaps = clients[len(ask):], gaps[len(look):]
		var has, others []*found
		for _, client := range ask {
			has = append(has, t.then.get(client+key(grantID), clientv3.WithKeysOnly()))
		}
		for _, g := range look {
			others = append(others, t.then.get(g.from, clientv3.WithRange(g.to), clientv3.WithKeysOnly(), clientv3.WithLimit(1)))
		}
		if err := s.run(ctx, &t); err != nil {
			return nil, fmt.Errorf("find grant: %w", err)
		}
		for _, f := range has {
			if kv := f.one(); kv != nil {
				return s.grantAt(ctx, clientOfKey(kv.Key), grantID)
			}
		}
		for i, f := range others {
			if kv := f.one(); kv != nil {
				client := under("chains", clientOfKey(kv.Key))
				clients = append(clients, client)
				gaps = append(gaps, gap{clientv3.GetPrefixRangeEnd(client), look[i].to})
			}
		}
	}
	return nil, ErrNotFound
}

// grantAt reads a live grant with the state of its chain: one read.
func (s *Store) grantAt(ctx context.Context, clientID, grantID string) (*Grant, error) {
	var t transaction
	body, chain := t.then.get(grantKey(clientID, grantID)), t.then.get(chainKey(clientID, grantID))
	ended := hasEnded(&t, clientID)
	if err := s.run(ctx, &t); err != nil {
		return nil, fmt.Errorf("find grant: %w", err)
	}
	if body.one() == nil || chain.one() == nil || ended.count > 0 {
		return nil, ErrNotFound
	}
	return listedGrant(body.one(), chain.one())
}
