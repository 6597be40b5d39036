package storage

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A client id is an app's for good. While the app has the client, its record says so; after that, the key of the id
// does, and the app may have it again, and nobody else: whoever trusts the id, in an audience or a list of their own,
// never trusts another app by it. Ids that are made cannot meet; those that a manifest chooses could, so a transaction
// that makes a client compares that the id is free, or the app's own (see [Store.claimID]).
//
// Databases of older versions have only the record of the last client of each app ([FormerClient]), which is looked
// through where an id has no key.

// formerOwner is the value of the key of a client id whose client has ended.
type formerOwner struct {
	App   string    `json:"app"`
	Ended time.Time `json:"ended"`
}

func formerOwnerKey(id string) string { return key("formerids", id) }

// ClientIDOwner says whose a client id is.
type ClientIDOwner struct {
	Owner string    // as in [Client.Owner]; empty: nobody has had it
	App   string    // the owner, if it is an app
	Ended time.Time // of the app's client that had it; zero while there is one

	revision int64 // of the key of an id whose client has ended
}

// ClientIDOwner reads whose a client id is.
func (s *Store) ClientIDOwner(ctx context.Context, id string) (ClientIDOwner, error) {
	var t transaction
	record, former := t.then.get(clientKey(id)), t.then.get(formerOwnerKey(id))
	if err := s.run(ctx, &t); err != nil {
		return ClientIDOwner{}, fmt.Errorf("read the owner of a client id: %w", err)
	}
	var found ClientIDOwner
	if kv := former.one(); kv != nil {
		owner, err := decode[formerOwner]("owner of a client id", kv.Value)
		if err != nil {
			return found, err
		}
		found = ClientIDOwner{Owner: "app " + owner.App, App: owner.App, Ended: owner.Ended, revision: kv.ModRevision}
	}
	if kv := record.one(); kv != nil {
		c, err := decodeClient(kv)
		if err != nil {
			return found, err
		}
		found.Owner, found.App, found.Ended = c.Owner(), c.App, time.Time{}
	}
	if found.Owner != "" {
		return found, nil
	}
	resp, err := s.kv.Get(ctx, under("clientids"), clientv3.WithPrefix())
	if err != nil {
		return found, fmt.Errorf("list former clients: %w", err)
	}
	for _, kv := range resp.Kvs {
		last, err := decode[FormerClient]("former client", kv.Value)
		if err != nil {
			return found, err
		}
		if last.ID == id {
			app := lastSegment(kv.Key)
			return ClientIDOwner{Owner: "app " + app, App: app, Ended: last.Ended}, nil
		}
	}
	return found, nil
}

// claimID adds to the transaction that makes the client of an app that its id is nobody else's. Of several apps that
// claim one id at the same time, one succeeds; the others get [ErrConflict] from the transaction and, when they claim
// again, a [TakenError] from here.
func (s *Store) claimID(ctx context.Context, t *transaction, c *Client) error {
	owner, err := s.ClientIDOwner(ctx, c.ID)
	if err != nil {
		return err
	}
	if owner.Owner != "" && owner.App != c.App {
		return &TakenError{What: "client id", Identifier: c.ID, Owner: owner.Owner}
	}
	t.onlyIf(atRevision(formerOwnerKey(c.ID), owner.revision)) // that of its record is compared where it is stored
	return nil
}
