package storage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
)

// A consent is what a user said yes to on a page, and the page named more than scopes: the client, the host to which
// answers go, and the resources (RFC 8707). So a consent is a list of allowances, each of which is the scopes that were
// allowed in one such surrounding, and covers nothing in another. A second host of a client has its allowance beside
// the first.

// Consent is what a user allowed a client.
type Consent struct {
	ClientID string `json:"clientId"`
	UserID   string `json:"userId"`
	// Scopes are those of all allowances together: for listings, and for versions that know no allowances.
	Scopes    []string  `json:"scopes"`
	UpdatedAt time.Time `json:"updatedAt"`
	// Term of the user in which it was given, see [User.Stands].
	Term int64 `json:"term,omitempty"`
	// Allowances are in the order in which they were last added to. A consent that an older version stored has none,
	// see [Store.AdoptConsent].
	Allowances []Allowance `json:"allowances,omitempty"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

// Allowance is what a user allowed a client of that name, whose answers go to that host, at that resource; without a
// resource, where none was asked for.
type Allowance struct {
	Name     string   `json:"name"`
	Host     string   `json:"host"`
	Resource string   `json:"resource,omitempty"`
	Scopes   []string `json:"scopes"`
}

// Asked is what a user is asked to allow, as the consent page shows it.
type Asked struct {
	Name      string // of the client
	Host      string // to which the answer goes
	Resources []string
	Scopes    []string
}

// allowances are what a consent to all that was asked consists of.
func (a Asked) allowances() []Allowance {
	resources := a.Resources
	if len(resources) == 0 {
		resources = []string{""}
	}
	var out []Allowance
	for _, resource := range resources {
		out = append(out, Allowance{Name: a.Name, Host: a.Host, Resource: resource, Scopes: slices.Clone(a.Scopes)})
	}
	return out
}

// place is where in the list an allowance of the same surrounding is; -1 if there is none. A nil consent has none.
func (c *Consent) place(of Allowance) int {
	if c == nil {
		return -1
	}
	return slices.IndexFunc(c.Allowances, func(a Allowance) bool {
		return a.Name == of.Name && a.Host == of.Host && a.Resource == of.Resource
	})
}

// Allowed are those of the scopes asked for that the user has allowed before, at each of the resources. A nil consent
// allows nothing.
func (c *Consent) Allowed(asked Asked) []string {
	allowed := asked.Scopes
	for _, wanted := range asked.allowances() {
		i := c.place(wanted)
		if i < 0 {
			return nil
		}
		allowed = oauth.Within(allowed, c.Allowances[i].Scopes)
	}
	return allowed
}

// Covers reports whether the user has allowed all that is asked for.
func (c *Consent) Covers(asked Asked) bool {
	return c != nil && len(c.Allowed(asked)) == len(asked.Scopes)
}

// Bare reports whether an older version stored the consent, which remembered nothing beside the scopes.
func (c *Consent) Bare() bool { return c != nil && len(c.Allowances) == 0 }

// mostAllowances bounds a record: who has more loses the oldest, and is asked again there.
const mostAllowances = 64

// add puts an allowance beside those that there are.
func (c *Consent) add(more Allowance) {
	if i := c.place(more); i >= 0 {
		more.Scopes = append(slices.Clone(c.Allowances[i].Scopes), oauth.Without(more.Scopes, c.Allowances[i].Scopes)...)
		c.Allowances = slices.Delete(c.Allowances, i, i+1)
	}
	c.Allowances = append(c.Allowances, more)
	c.Allowances = c.Allowances[max(0, len(c.Allowances)-mostAllowances):]
	c.Scopes = append(c.Scopes, oauth.Without(more.Scopes, c.Scopes)...)
}

func consentKey(clientID, userID string) string { return key("consents", clientID, userID) }

func consentOfUserKey(userID, clientID string) string { return key("userconsents", userID, clientID) }

func decodeConsent(kvs []*mvccpb.KeyValue) (*Consent, error) {
	if len(kvs) == 0 {
		return nil, nil
	}
	c, err := decode[Consent]("consent", kvs[0].Value)
	if err != nil {
		return nil, err
	}
	c.Revision = kvs[0].ModRevision
	return c, nil
}

// AddConsent remembers what the user of p allowed a client, beside what was allowed before. If the consent was
// withdrawn since p was read, nothing is written, and the error is [ErrWithdrawn]; if the user's term has ended, what
// is written does not count. Of a user with more than [MaxConsents], the one that was added to least lately is
// forgotten next.
func (s *Store) AddConsent(ctx context.Context, clientID string, p Presence, asked Asked) error {
	k := consentKey(clientID, p.User.ID)
	var all int64 // the user's consents, with this one
	err := Again(attempts, func() (again bool, err error) {
		resp, err := s.kv.Get(ctx, k)
		if err != nil {
			return false, err
		}
		held, err := decodeConsent(resp.Kvs)
		if err != nil {
			return false, err
		}
		consent, revision := &Consent{ClientID: clientID, UserID: p.User.ID, Term: p.User.Term}, int64(0)
		if held != nil {
			revision = held.Revision
			switch {
			case held.Term > p.User.Term:
				return false, nil // what p saw is over, and the user has allowed something since
			case held.Term == p.User.Term:
				consent = held
			}
		}
		for _, more := range asked.allowances() {
			consent.add(more)
		}
		consent.UpdatedAt = s.now().UTC()
		var t transaction
		t.onlyIf(atRevision(k, revision))
		t.onlyIf(notWithdrawn(clientID, p.User.ID, p.AsOf)...)
		t.then.do(clientv3.OpPut(k, encode(consent)), clientv3.OpPut(consentOfUserKey(p.User.ID, clientID), ""))
		notes := t.then.get(under("userconsents", p.User.ID), clientv3.WithPrefix(), clientv3.WithCountOnly())
		mark := t.otherwise.get(withdrawnKey(clientID, p.User.ID), clientv3.WithKeysOnly())
		if err := s.run(ctx, &t); err != nil {
			return false, err
		}
		if t.held {
			all = notes.count
			return false, nil
		}
		if kv := mark.one(); kv != nil && kv.ModRevision > p.AsOf {
			return false, ErrWithdrawn
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("store consent: %w", err)
	}
	if all > MaxConsents {
		if err := s.forgetConsents(ctx, p.User.ID, all-MaxConsents); err != nil {
			s.log.WarnContext(ctx, "the oldest consents of a user could not be removed; the next consent tries again",
				"user", p.User.ID, "error", err)
		}
	}
	return nil
}

// ConsentsOf are the consents of a user, of whatever term: a read for the notes of them, and one for each hundred.
func (s *Store) ConsentsOf(ctx context.Context, userID string) (list []Consent, err error) {
	clients, err := s.lasts(ctx, under("userconsents", userID))
	if err == nil {
		err = s.manyOf(ctx, clients, func(clientID string) string { return consentKey(clientID, userID) },
			func(_ string, kv *mvccpb.KeyValue) error {
				c, err := decodeConsent([]*mvccpb.KeyValue{kv})
				if err == nil {
					list = append(list, *c)
				}
				return err
			})
	}
	if err != nil {
		return nil, fmt.Errorf("list consents: %w", err)
	}
	return list, nil
}

// forgetConsents forgets the n consents of a user that were added to least lately: there are any number of clients,
// because a document makes one. If one of them is added to meanwhile, nothing is written.
func (s *Store) forgetConsents(ctx context.Context, userID string, n int64) error {
	const atOnce = 40 // in one transaction
	notes, err := s.leastLately(ctx, under("userconsents", userID), min(n, atOnce))
	if err != nil {
		return err
	}
	var t transaction
	for _, note := range notes {
		t.onlyIf(atRevision(string(note.Key), note.ModRevision))
		t.then.do(clientv3.OpDelete(consentKey(lastSegment(note.Key), userID)), clientv3.OpDelete(string(note.Key)))
	}
	return s.run(ctx, &t)
}

// AdoptConsent makes of a consent without allowances one for a client of that name and for that host, where no resource
// is asked for: of resources, no older version said anything. [ErrConflict]: the consent has changed since it was read,
// or was withdrawn.
func (s *Store) AdoptConsent(ctx context.Context, bare Consent, name, host string) (*Consent, error) {
	bare.add(Allowance{Name: name, Host: host, Scopes: slices.Clone(bare.Scopes)})
	bare.UpdatedAt = s.now().UTC()
	k := consentKey(bare.ClientID, bare.UserID)
	var err error
	if bare.Revision, err = s.replace(ctx, k, bare.Revision, clientv3.OpPut(k, encode(bare)), nil); err != nil {
		return nil, fmt.Errorf("adopt consent: %w", err)
	}
	return &bare, nil
}
