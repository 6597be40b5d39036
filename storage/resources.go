package storage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A resource identifier (RFC 8707) belongs to one client: two that spoke for one would read the tokens that are meant for the other.
// So it is a key, whose value names the client, and the transaction that stores a client compares and puts the keys of what is
// new in it, and takes those away that the client gives up. [Store.claim] says how.
//
// A client's record remains the truth about what it speaks for, because versions before this key wrote records alone, and may
// still do so while replicas are updated one after the other. So a key counts only as long as its client's record bears it out; a client
// that memory knows without a key of its own counts too; and a store that opens gives every identifier without a key to the client
// that has had it longest. An identifier that an older version has let two clients have stays theirs, is logged at every start, and
// neither app can be planned again before one gives it up.

// resourceOwner is the value of a resource identifier's key.
type resourceOwner struct {
	App      string `json:"app,omitempty"` // empty: a client that registered itself
	ClientID string `json:"clientId"`
}

func resourceKey(identifier string) string { return key("resources", identifier) }

func ownerValue(c *Client) string { return encode(resourceOwner{App: c.App, ClientID: c.ID}) }

// TakenError says that a resource identifier belongs to another client. It is an [ErrConflict]: nothing was written.
type TakenError struct {
	Identifier string
	Owner      string // as in [Client.Owner]
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("the resource identifier %s belongs to %s", e.Identifier, e.Owner)
}

func (e *TakenError) Is(target error) bool { return target == ErrConflict }

// Owner names whose client it is: its app, or the client itself when it belongs to none.
func (c *Client) Owner() string {
	if c.App == "" {
		return "client " + c.ID
	}
	return "app " + c.App
}

// claim adds to the transaction that stores c, and compares its revision, what makes the resource identifiers c's that are new in
// it, and frees those that it gives up. One that belongs to somebody else is a [TakenError]. What a client had before is not
// refused, so that nothing else of it depends on that.
//
// What it reads is compared in the transaction: of those who claim one identifier at a time, one succeeds. The others get
// [ErrConflict] from the transaction and, when they claim again, learn from here who has it.
func (s *Store) claim(ctx context.Context, t *transaction, c *Client) error {
	held, err := s.held(ctx, c)
	if err != nil {
		return err
	}
	var had []string
	if held != nil {
		had = held.ResourceIdentifiers
		t.then.do(freeResources(held, c.ResourceIdentifiers)...)
	}
	wanted := slices.Compact(slices.Sorted(slices.Values(c.ResourceIdentifiers)))
	if len(wanted) == 0 {
		return nil
	}
	var look transaction
	keys := make([]*found, len(wanted))
	for i, identifier := range wanted {
		keys[i] = look.then.get(resourceKey(identifier))
	}
	if err := s.run(ctx, &look); err != nil {
		return fmt.Errorf("read resource identifiers: %w", err)
	}
	for i, identifier := range wanted {
		if err := s.claimOne(ctx, t, c, identifier, keys[i], slices.Contains(had, identifier)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) claimOne(ctx context.Context, t *transaction, c *Client, identifier string, found *found, had bool) error {
	var revision int64
	others := s.mem.speakers(identifier)
	if kv := found.one(); kv != nil {
		owner, err := decode[resourceOwner]("owner of a resource identifier", kv.Value)
		if err != nil {
			return err
		}
		revision = kv.ModRevision
		if owner.ClientID == c.ID {
			t.onlyIf(atRevision(resourceKey(identifier), revision))
			return nil
		}
		others[owner.ClientID] = true
	}
	delete(others, c.ID)
	for other := range others {
		resp, err := s.kv.Get(ctx, clientKey(other))
		if err != nil {
			return fmt.Errorf("read client: %w", err)
		}
		var seen int64
		if len(resp.Kvs) > 0 {
			owner, err := decodeClient(resp.Kvs[0])
			if err != nil {
				return err
			}
			if slices.Contains(owner.ResourceIdentifiers, identifier) {
				if had {
					return nil
				}
				return &TakenError{Identifier: identifier, Owner: owner.Owner()}
			}
			seen = owner.Revision
		}
		t.onlyIf(atRevision(clientKey(other), seen)) // it does not speak for it, whatever the key or memory says
	}
	t.onlyIf(atRevision(resourceKey(identifier), revision))
	t.then.do(clientv3.OpPut(resourceKey(identifier), ownerValue(c)))
	return nil
}

// held is the record that c is to replace; nil when c is new. [ErrConflict]: it is not at c's revision any more.
func (s *Store) held(ctx context.Context, c *Client) (*Client, error) {
	if c.Revision == 0 {
		return nil, nil
	}
	if known := s.mem.client(c.ID); known != nil && known.Revision == c.Revision {
		return known, nil
	}
	stored, err := s.storedClient(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	if stored == nil || stored.Revision != c.Revision {
		return nil, ErrConflict
	}
	return stored, nil
}

// storedClient is the record of a client as etcd has it, be it disabled; nil when there is none.
func (s *Store) storedClient(ctx context.Context, id string) (*Client, error) {
	resp, err := s.kv.Get(ctx, clientKey(id))
	if err != nil {
		return nil, fmt.Errorf("read client: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	return decodeClient(resp.Kvs[0])
}

// freeResources are the operations that free what a client speaks for, but for what it keeps. Each does nothing when the key is not
// the client's. A nil client speaks for nothing.
func freeResources(c *Client, keep []string) []clientv3.Op {
	if c == nil {
		return nil
	}
	var ops []clientv3.Op
	for _, identifier := range c.ResourceIdentifiers {
		if k := resourceKey(identifier); !slices.Contains(keep, identifier) {
			mine := clientv3.Compare(clientv3.Value(k), "=", ownerValue(c))
			ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{mine}, []clientv3.Op{clientv3.OpDelete(k)}, nil))
		}
	}
	return ops
}

// adoptResources gives every resource identifier that has no key, or the key of a client that does not speak for it, to the client
// that has had it longest: a version without these keys has written it. Any number of replicas may do so at a time. What cannot
// be written is left to the next start: [Store.claim] does not depend on it.
func (s *Store) adoptResources(ctx context.Context) error {
	speaking := slices.DeleteFunc(s.mem.all(), func(c *Client) bool { return len(c.ResourceIdentifiers) == 0 })
	if len(speaking) == 0 {
		return nil
	}
	slices.SortFunc(speaking, func(a, b *Client) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	resp, err := s.kv.Get(ctx, under("resources"), clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("list resource identifiers: %w", err)
	}
	owners, revisions := make(map[string]*Client), make(map[string]int64)
	for _, kv := range resp.Kvs {
		owner, err := decode[resourceOwner]("owner of a resource identifier", kv.Value)
		if err != nil {
			return err
		}
		identifier := lastSegment(kv.Key)
		revisions[identifier] = kv.ModRevision
		if c := s.mem.client(owner.ClientID); c != nil && slices.Contains(c.ResourceIdentifiers, identifier) {
			owners[identifier] = c
		}
	}
	for _, c := range speaking {
		for _, identifier := range c.ResourceIdentifiers {
			if owner := owners[identifier]; owner == nil {
				owners[identifier] = c
				k := resourceKey(identifier)
				var t transaction
				t.onlyIf(atRevision(k, revisions[identifier]), atRevision(clientKey(c.ID), c.Revision))
				t.then.do(clientv3.OpPut(k, ownerValue(c)))
				if err := s.run(ctx, &t); err != nil {
					s.log.Warn("a resource identifier has no key yet", "identifier", identifier, "owner", c.Owner(), "error", err)
				}
			} else if owner.ID != c.ID {
				s.log.Warn("two clients speak for one resource identifier, and each can read tokens that are meant for the other: "+
					"take it from one of them", "identifier", identifier, "owner", owner.Owner(), "other", c.Owner())
			}
		}
	}
	return nil
}

// resources are the resource servers that clients speak for, by identifier and client: what memory holds of
// [oauth.ClientMetadata.ResourceIdentifiers]. An older version has let two clients speak for one.
type resources map[string]map[string]bool

// replace takes now in the place of before, the same client's record; nil is no record. A disabled client speaks for nobody.
func (r resources) replace(before, now *Client) {
	if before != nil {
		for _, id := range before.ResourceIdentifiers {
			if delete(r[id], before.ID); len(r[id]) == 0 {
				delete(r, id)
			}
		}
	}
	if !now.Active() {
		return
	}
	for _, id := range now.ResourceIdentifiers {
		if r[id] == nil {
			r[id] = make(map[string]bool)
		}
		r[id][now.ID] = true
	}
}

// speakers are the clients that memory has speak for an identifier.
func (m *memory) speakers(identifier string) map[string]bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if known := m.resources[identifier]; known != nil {
		return maps.Clone(known)
	}
	return make(map[string]bool)
}

// KnowsResource says whether a client speaks for the resource server of that identifier. It asks memory alone: one that was
// registered a moment ago at another replica may not be known yet.
func (s *Store) KnowsResource(identifier string) bool {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return len(s.mem.resources[identifier]) > 0
}
