package storage

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func randomID(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return lowerBase32.EncodeToString(b)
}

// NewClientID is a client id that was never used: the app's name, so that logs can be read, and 60 random bits.
func NewClientID(app string) string { return app + "-" + randomID(8)[:12] }

// NewGrantID has 128 random bits.
func NewGrantID() string { return randomID(16) }

// Lengths of the ids of grants, with a mark and without.
const (
	grantMark  = 5
	grantIDLen = 26
)

// NewGrantIDOf begins with a mark that all ids of this user's grants to this client have in common, and few others: so
// one note leads to all of them. It says nothing to those who do not have the key of pairwise subjects, and before
// there is one it is [NewGrantID].
func (s *Store) NewGrantIDOf(clientID, userID string) string {
	p := s.pairwise()
	if p == nil {
		return NewGrantID()
	}
	mac := hmac.New(sha256.New, p.grant)
	mac.Write([]byte(key(clientID, userID)))
	return lowerBase32.EncodeToString(mac.Sum(nil))[:grantMark] + NewGrantID()
}

// markOf is how the ids of all grants begin that are found together with this one.
func markOf(grantID string) string {
	if len(grantID) == grantMark+grantIDLen {
		return grantID[:grantMark]
	}
	return grantID
}

func secretPurpose(clientID, secretID string) string {
	return "client-secret/" + clientID + "/" + secretID
}

// NewClientSecret makes a secret of 256 random bits for a client: the record to store, and the value.
func (s *Store) NewClientSecret(clientID string) (ClientSecret, string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	value := "wfs_" + base64.RawURLEncoding.EncodeToString(b)
	return s.ClientSecretOf(clientID, value), value
}

// ClientSecretOf is the record of a client secret that comes from elsewhere.
func (s *Store) ClientSecretOf(clientID, value string) ClientSecret {
	hash := sha256.Sum256([]byte(value))
	secret := ClientSecret{ID: randomID(5), Hash: hash[:], CreatedAt: s.now().UTC()}
	secret.Sealed = s.kek().seal(secretPurpose(clientID, secret.ID), []byte(value))
	return secret
}

// ClientSecretValue opens the newest secret of a client. A public client has none: [ErrNotFound].
func (s *Store) ClientSecretValue(c *Client) (string, error) {
	if len(c.Secrets) == 0 {
		return "", fmt.Errorf("secret of client %s: %w", c.ID, ErrNotFound)
	}
	newest := *c
	newest.Secrets = c.Secrets[len(c.Secrets)-1:]
	values, err := s.SecretValues(&newest)
	if err != nil {
		return "", err
	}
	return values[0], nil
}

// SecretValues opens all secrets of a client, oldest first.
func (s *Store) SecretValues(c *Client) ([]string, error) {
	var values []string
	for _, secret := range c.Secrets {
		plain, err := s.kek().open(secretPurpose(c.ID, secret.ID), secret.Sealed)
		if err != nil {
			return nil, err
		}
		values = append(values, string(plain))
	}
	return values, nil
}

// Verify reports whether secret is one of the client's. It takes the same time for every wrong secret; call it on nil
// for an unknown client, so that this takes the same time as well.
func (c *Client) Verify(secret string) bool { return c.SecretID(secret) != "" }

// mostStarting bounds a list for people.
const mostStarting = 100

// StartingClients are the apps that have said where a sign-in begins with them (initiateLoginUri), of those that are
// open to whoever asks, from memory, by name.
func (s *Store) StartingClients(open func(*Client) bool) []*Client {
	list := slices.DeleteFunc(s.mem.all(), func(c *Client) bool {
		return c.App == "" || c.InitiateLoginURI == "" || !c.Active() || !open(c)
	})
	slices.SortFunc(list, func(a, b *Client) int {
		return cmp.Or(cmp.Compare(a.ClientName, b.ClientName), cmp.Compare(a.ID, b.ID))
	})
	return list[:min(len(list), mostStarting)]
}

// Clients lists all clients, by id.
func (s *Store) Clients(ctx context.Context) ([]*Client, error) {
	resp, err := s.kv.Get(ctx, under("clients"), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list clients: %w", err)
	}
	clients := make([]*Client, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		c, err := decodeClient(kv)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
	}
	return clients, nil
}
