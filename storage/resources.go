package storage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
)

// A resource identifier (RFC 8707) belongs to one client: two that spoke for one would read the tokens that are meant
// for the other. So it is a key, whose value names the client, and the transaction that stores a client compares and
// puts the keys of the identifiers that are new in it, and removes those that the client gives up (see [Store.claim]).
//
// So it is with the hosts of apps behind forward auth, which are kept as identifiers that are none of a resource server
// ([oauth.Client.Unique]): what a proxy asks about a host must be about one app.
//
// Identifiers that RFC 3986 takes for the same are one: its key has their canonical spelling
// ([oauth.CanonicalURI]), and tokens have the one that the client registered.
//
// A client's record remains the truth about its identifiers, because versions before this key wrote only records, and
// may still do so while replicas are updated one after the other. So a key counts only as long as its client's record
// confirms it; an identifier that memory knows from a record without a key counts too; and a store that opens gives
// every identifier without a key to the client that has had it longest. If an older version let two clients have the
// same identifier, both keep it, every start logs that, and neither app can be planned again before one gives it up.

// resourceOwner is the value of a resource identifier's key.
type resourceOwner struct {
	App      string `json:"app,omitempty"` // empty: a client that registered itself
	ClientID string `json:"clientId"`
}

func resourceKey(identifier string) string {
	return key("resources", oauth.CanonicalURI(identifier))
}

func ownerValue(c *Client) string { return encode(resourceOwner{App: c.App, ClientID: c.ID}) }

// TakenError says that a resource identifier, a host behind forward auth, or a client id, belongs to another. It is an
// [ErrConflict]: nothing was written.
type TakenError struct {
	What       string // resource identifier, host or client id
	Identifier string
	Owner      string // as in [Client.Owner]
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("the %s %s belongs to %s", e.What, e.Identifier, e.Owner)
}

func (e *TakenError) Is(target error) bool { return target == ErrConflict }

// Owner names the client's app, or the client itself if it belongs to none.
func (c *Client) Owner() string {
	if c.App == "" {
		return "client " + c.ID
	}
	return "app " + c.App
}

// claim adds to the transaction that stores c, and compares its revision, the operations that take the resource
// identifiers that are new in c, and free those that it gives up. An identifier that belongs to another, which is not
// the client that c replaces, is a [TakenError]. What a client had before is not refused, so that its other changes do
// not depend on that.
//
// What it reads is compared in the transaction: of several that claim one identifier at the same time, one succeeds.
// The others get [ErrConflict] from the transaction and, when they claim again, learn from here which client has it.
func (s *Store) claim(ctx context.Context, t *transaction, c *Client, replaced string) error {
	held, err := s.held(ctx, c)
	if err != nil {
		return err
	}
	var had []string
	if held != nil {
		had = held.Unique()
		t.then.do(freeResources(held, c.Unique())...)
	}
	wanted := canonical(c.Unique())
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
		if err := s.claimOne(ctx, t, c, identifier, keys[i], speaksFor(had, identifier), replaced); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) claimOne(ctx context.Context, t *transaction, c *Client, identifier string, found *found,
	had bool, replaced string) error {
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
		others[owner.ClientID] = identifier
	}
	delete(others, c.ID)
	delete(others, replaced) // which goes
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
			if speaksFor(owner.Unique(), identifier) {
				if had {
					return nil
				}
				if host := oauth.ForwardHostOf(identifier); host != "" {
					return &TakenError{What: "host", Identifier: host, Owner: owner.Owner()}
				}
				return &TakenError{What: "resource identifier", Identifier: identifier, Owner: owner.Owner()}
			}
			seen = owner.Revision
		}
		t.onlyIf(atRevision(clientKey(other), seen)) // it does not speak for it, whatever the key or memory says
	}
	t.onlyIf(atRevision(resourceKey(identifier), revision))
	t.then.do(clientv3.OpPut(resourceKey(identifier), ownerValue(c)))
	return nil
}

// held returns the record that c is to replace; nil if c is new. It returns [ErrConflict] if that is no longer at c's
// revision.
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

// storedClient returns the record of a client from etcd, even a disabled one; nil if there is none.
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

// freeResources are the operations that free the identifiers of a client except those in keep. Each does nothing if the
// key is not the client's. A nil client has none.
func freeResources(c *Client, keep []string) []clientv3.Op {
	if c == nil {
		return nil
	}
	var ops []clientv3.Op
	for _, identifier := range canonical(c.Unique()) {
		if k := resourceKey(identifier); !speaksFor(keep, identifier) {
			mine := clientv3.Compare(clientv3.Value(k), "=", ownerValue(c))
			ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{mine}, []clientv3.Op{clientv3.OpDelete(k)}, nil))
		}
	}
	return ops
}

// canonical is each of the identifiers once, in its canonical spelling.
func canonical(identifiers []string) []string {
	out := make([]string, len(identifiers))
	for i, identifier := range identifiers {
		out[i] = oauth.CanonicalURI(identifier)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// speaksFor reports whether an identifier is among those of a client.
func speaksFor(identifiers []string, identifier string) bool {
	_, found := oauth.FindResource(identifiers, identifier)
	return found
}

// adoptResources gives every resource identifier that has no key, or the key of a client that does not speak for it, to
// the client that has had it longest: a version without these keys has written it. Any number of replicas may do so at
// a time. What cannot be written is left to the next start: [Store.claim] does not depend on it.
func (s *Store) adoptResources(ctx context.Context) error {
	speaking := slices.DeleteFunc(s.mem.all(), func(c *Client) bool { return len(c.Unique()) == 0 })
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
		if c := s.mem.client(owner.ClientID); c != nil && speaksFor(c.Unique(), identifier) {
			owners[identifier] = c
		}
	}
	for _, c := range speaking {
		for _, identifier := range canonical(c.Unique()) {
			if owner := owners[identifier]; owner == nil {
				owners[identifier] = c
				k := resourceKey(identifier)
				var t transaction
				t.onlyIf(atRevision(k, revisions[identifier]), atRevision(clientKey(c.ID), c.Revision))
				t.then.do(clientv3.OpPut(k, ownerValue(c)))
				if err := s.run(ctx, &t); err != nil {
					s.log.Warn("a resource identifier could not be indexed; the next start tries again",
						"identifier", identifier, "owner", c.Owner(), "error", err)
				}
			} else if owner.ID != c.ID {
				s.log.Warn("two clients have the same resource identifier, and each can read tokens that are meant for the other: "+
					"remove it from one of them", "identifier", identifier, "owner", owner.Owner(), "other", c.Owner())
			}
		}
	}
	return nil
}

// resources is what memory holds of [oauth.Client.Resources]: by their canonical spelling, the clients that have one
// and how each of them spells it. Older versions let two clients have the same one.
type resources map[string]map[string]string

// replace replaces the record before of a client by now; nil means no record. A disabled client has no identifiers.
func (r resources) replace(before, now *Client) {
	if before != nil {
		for _, id := range canonical(before.Unique()) {
			if delete(r[id], before.ID); len(r[id]) == 0 {
				delete(r, id)
			}
		}
	}
	if !now.Active() {
		return
	}
	for _, spelled := range now.Unique() {
		id := oauth.CanonicalURI(spelled)
		if r[id] == nil {
			r[id] = make(map[string]string)
		}
		if _, first := r[id][now.ID]; !first {
			r[id][now.ID] = spelled
		}
	}
}

// speakers are the clients that have an identifier, as far as memory knows, with their spelling of it.
func (m *memory) speakers(identifier string) map[string]string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if known := m.resources[oauth.CanonicalURI(identifier)]; known != nil {
		return maps.Clone(known)
	}
	return make(map[string]string)
}

// Speakers are the clients that have a resource identifier, as far as memory knows: one, or more where an older version
// let them.
func (s *Store) Speakers(identifier string) []*Client {
	canonical := oauth.CanonicalURI(identifier)
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	var out []*Client
	for id := range s.mem.resources[canonical] {
		out = append(out, s.mem.clients[id])
	}
	return out
}

// KnownResource is a resource identifier as a client has registered it, of which another spelling may be given; empty
// when no client has it. It asks only memory: one that was registered a moment ago at another replica may not be known
// yet.
func (s *Store) KnownResource(identifier string) string {
	if oauth.ForwardHostOf(identifier) != "" {
		return ""
	}
	canonical := oauth.CanonicalURI(identifier)
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	spelled := ""
	for _, one := range s.mem.resources[canonical] {
		if spelled == "" || one < spelled { // of two clients, the same at every replica
			spelled = one
		}
	}
	return spelled
}

// FindResource is a resource identifier as a client has registered it, by what etcd has now; empty when no client has
// it. That takes up to two reads, which are limited as look-ups of clients are.
func (s *Store) FindResource(ctx context.Context, identifier string) (string, error) {
	if oauth.ForwardHostOf(identifier) != "" {
		return "", nil
	}
	if !s.unknown.Allow() {
		return "", ErrBusy
	}
	resp, err := s.kv.Get(ctx, resourceKey(identifier))
	if err != nil {
		return "", fmt.Errorf("read resource identifier: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return "", nil
	}
	owner, err := decode[resourceOwner]("owner of a resource identifier", resp.Kvs[0].Value)
	if err != nil {
		return "", err
	}
	c, err := s.storedClient(ctx, owner.ClientID)
	if err != nil || !c.Active() {
		return "", err
	}
	s.mem.learn(c)
	spelled, _ := oauth.FindResource(c.Unique(), identifier)
	return spelled, nil
}

// BehindForwardAuth are the apps behind forward auth that memory knows, by name.
func (s *Store) BehindForwardAuth() (apps []string) {
	for _, c := range s.mem.all() {
		if c.Active() && len(c.ForwardAuthHosts) > 0 {
			apps = append(apps, cmp.Or(c.App, c.ID))
		}
	}
	slices.Sort(apps)
	return apps
}

// AtHost is the client of the app behind forward auth at a host, as far as memory knows; nil if there is none.
func (s *Store) AtHost(host string) *Client {
	for _, c := range s.Speakers(oauth.ForwardIdentifier(host)) {
		if c.IsBehindForwardAuth(host) {
			return c
		}
	}
	return nil
}
