package storage

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Clients that are described by documents have no record. What there is of them are the grants and consents under their
// ids, which are https URLs.

// DescribedClient is such a client, as far as it is stored.
type DescribedClient struct {
	ID       string
	Name     string // as a consent page has shown it last to one of its users; "" if none did
	Grants   int64
	Consents int64
}

// describedID begins the ids of described clients.
const describedID = "https://"

// DescribedClients is a part of the list of described clients that hold grants or consents, by id. A client costs two
// small reads, however much it holds.
func (s *Store) DescribedClients(ctx context.Context, p Part) (list []DescribedClient, next string, err error) {
	if p.Limit <= 0 || p.Limit > mostListed {
		p.Limit = mostListed
	}
	from := key(describedID)
	if p.After != "" {
		from = behind(p.After)
	}
	for {
		// Each read finds the first key at or behind a client's; keys of one client have its id in front.
		var t transaction
		grant := t.then.get(under("chains")+from, firstBefore("chains")...)
		consent := t.then.get(under("consents")+from, firstBefore("consents")...)
		if err := s.run(ctx, &t); err != nil {
			return nil, "", fmt.Errorf("list described clients: %w", err)
		}
		segment := ""
		for _, first := range []*found{grant, consent} {
			if kv := first.one(); kv != nil {
				_, rest, _ := strings.Cut(string(kv.Key), "/")
				if of, _, _ := strings.Cut(rest, "/"); segment == "" || of < segment {
					segment = of
				}
			}
		}
		switch {
		case segment == "":
			return list, "", nil
		case len(list) == p.Limit:
			return list, next, nil
		}
		from, next = behind(segment), segment
		id := lastSegment([]byte(segment))
		if s.Remembers(id) { // an operator has registered a client under that URL
			continue
		}
		c, held, err := s.described(ctx, id)
		if err != nil {
			return nil, "", fmt.Errorf("list described clients: %w", err)
		}
		if held {
			list = append(list, c)
		}
	}
}

// behind is the first key that is not of the client with this segment: "0" comes after "/".
func behind(segment string) string { return segment + "0" }

// firstBefore are the options of a read of one key, before all that is not of a described client.
func firstBefore(space string) []clientv3.OpOption {
	return []clientv3.OpOption{
		clientv3.WithRange(clientv3.GetPrefixRangeEnd(under(space) + key(describedID))),
		clientv3.WithLimit(1), clientv3.WithKeysOnly(),
	}
}

// described reads how much a described client holds, if it holds anything.
func (s *Store) described(ctx context.Context, id string) (c DescribedClient, held bool, err error) {
	var t transaction
	grants := t.then.get(under("chains", id), clientv3.WithPrefix(), clientv3.WithCountOnly())
	consents := t.then.get(under("consents", id), clientv3.WithPrefix(), clientv3.WithLimit(1))
	ended := hasEnded(&t, id)
	if err := s.run(ctx, &t); err != nil {
		return c, false, err
	}
	c = DescribedClient{ID: id, Grants: grants.count, Consents: consents.count}
	consent, err := decodeConsent(consents.kvs)
	if err == nil && consent != nil && len(consent.Allowances) > 0 {
		c.Name = consent.Allowances[len(consent.Allowances)-1].Name
	}
	return c, ended.count == 0, err
}

// EndDescribed ends all grants of a described client, and withdraws all consents to it. It reports false, and has done
// nothing, if a record has the client's id: then the client is not a described one.
func (s *Store) EndDescribed(ctx context.Context, id string, audit ...AuditEntry) (bool, error) {
	t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		t.onlyIf(absent(clientKey(id)))
		t.then.do(s.endAll(id))
		t.then.do(s.auditOps(ctx, audit)...)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("end a described client: %w", err)
	}
	if t.held {
		s.clear(ctx, id)
	}
	return t.held, nil
}
