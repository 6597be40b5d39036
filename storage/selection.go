package storage

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Selection chooses apps, clients and users for an export, with what they are: ids, secrets, env, releases; passwords,
// passkeys, authenticator apps, links to identities. Pairwise subjects stay the same. It leaves out what was begun and
// what was said (grants, consents, sessions, the audit log), and the keys that sign and seal, which the server with the
// rest goes on using. So people sign in and consent again.
type Selection struct {
	Apps    []string `json:"apps,omitempty"`    // names
	Clients []string `json:"clients,omitempty"` // ids of clients that registered themselves
	Users   []string `json:"users,omitempty"`   // ids, e-mail addresses, or names with which they sign in
}

// Everyone in a [Selection] stands for all of that sort.
const Everyone = "*"

func (s Selection) String() string {
	var parts []string
	for _, of := range []struct {
		what  string
		names []string
	}{{"apps", s.Apps}, {"clients", s.Clients}, {"users", s.Users}} {
		if len(of.names) > 0 {
			parts = append(parts, of.what+" "+strings.Join(of.names, " "))
		}
	}
	return strings.Join(parts, ", ")
}

// picker picks the records of a selection, which come in the order of [movedKinds]. A nil picker picks all.
type picker struct {
	apps, owners, users names
	clients, people     map[string]bool // ids that were picked
}

// names are those that are looked for, and whether they were found.
type names map[string]bool

func namesIn(list []string) names {
	n := make(names)
	for _, name := range list {
		n[name] = name == Everyone
	}
	return n
}

// has reports whether one of the names is looked for.
func (n names) has(some ...string) (has bool) {
	_, has = n[Everyone]
	for _, name := range some {
		if _, wanted := n[name]; wanted {
			n[name], has = true, true
		}
	}
	return has
}

func (n names) missing() []string {
	var out []string
	for name, found := range n {
		if !found {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (s *Selection) picker() *picker {
	if s == nil {
		return nil
	}
	return &picker{apps: namesIn(s.Apps), owners: namesIn(s.Clients), users: namesIn(s.Users),
		clients: make(map[string]bool), people: make(map[string]bool)}
}

// missed says which names were not found, once a kind has come to its end.
func (p *picker) missed(kind string) error {
	if p == nil {
		return nil
	}
	of, what := map[string]names{"users": p.users, "apps": p.apps, "clients": p.owners}[kind],
		map[string]string{"users": "user", "apps": "app", "clients": "client that registered itself"}[kind]
	if some := of.missing(); len(some) > 0 {
		return fmt.Errorf("there is no %s %s", what, strings.Join(some, ", "))
	}
	return nil
}

// picks reports whether a record is of what was chosen.
func (p *picker) picks(kv *mvccpb.KeyValue) (bool, error) {
	if p == nil {
		return true, nil
	}
	segments := strings.Split(string(kv.Key), "/")
	for i, s := range segments {
		name, err := url.PathUnescape(s)
		if err != nil {
			return false, fmt.Errorf("the key %s: %w", kv.Key, err)
		}
		segments[i] = name
	}
	if len(segments) < 2 {
		return false, nil
	}
	name, last := segments[1], segments[len(segments)-1]
	switch segments[0] {
	case "apps", "deliveries", "clientids":
		return p.apps.has(name), nil
	case "formerids":
		owner, err := decode[formerOwner]("owner of a client id", kv.Value)
		return err == nil && p.apps.has(owner.App), err
	case "clients":
		return p.client(kv)
	case "rotations", "secretuse":
		return p.clients[name], nil
	case "resources", "identities":
		owner, err := decode[resourceOwner]("owner of a resource identifier", kv.Value)
		return err == nil && p.clients[owner.ClientID], err
	case "users":
		return p.user(kv)
	case "factors", "arrivals", "signins":
		return p.people[name], nil
	case "standing", "names":
		return p.people[last], nil
	case "handles", "logins":
		of, err := decode[handleRecord]("handle", kv.Value)
		return err == nil && p.people[of.UserID], err
	case "links":
		l, err := decode[Link]("link", kv.Value)
		return err == nil && p.people[l.UserID], err
	case "keys":
		return name == UsePairwise, nil
	case "complete":
		return true, nil
	}
	return false, nil
}

func (p *picker) client(kv *mvccpb.KeyValue) (bool, error) {
	c, err := decodeClient(kv)
	if err != nil {
		return false, err
	}
	picked := c.App != "" && p.apps.has(c.App) || c.App == "" && p.owners.has(c.ID)
	if picked {
		p.clients[c.ID] = true
	}
	return picked, nil
}

func (p *picker) user(kv *mvccpb.KeyValue) (bool, error) {
	u, err := decodeUsers([]*mvccpb.KeyValue{kv})
	if err != nil {
		return false, err
	}
	names := []string{u.ID}
	for _, name := range []string{u.Email, u.Username} {
		if name != "" {
			names = append(names, name)
		}
	}
	picked := p.users.has(names...)
	if picked {
		p.people[u.ID] = true
	}
	return picked, nil
}
