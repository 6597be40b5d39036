package storage

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// SecretUse is when a client authenticated with a secret. Last is coarse: it is written at most once per
// [UsePrecision].
type SecretUse struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// UsePrecision is the precision with which the last use of a secret is known.
const UsePrecision = 10 * time.Minute

func useKey(clientID, secretID string) string { return key("secretuse", clientID, secretID) }

// SecretID returns the id of the client's secret that has this value, empty if there is none. It takes the same time
// for every wrong value; call it on nil for an unknown client, so that this takes the same time as well.
func (c *Client) SecretID(value string) string {
	hash := sha256.Sum256([]byte(value))
	if c == nil || len(c.Secrets) == 0 {
		var none [sha256.Size]byte
		subtle.ConstantTimeCompare(hash[:], none[:])
		return ""
	}
	found := ""
	for _, s := range c.Secrets {
		if subtle.ConstantTimeCompare(hash[:], s.Hash) == 1 {
			found = s.ID
		}
	}
	return found
}

// secretLength is the length of every secret that NewClientSecret has made.
const secretLength = len("wfs_") + 43

// ClientWith reads the client with this id from etcd, if the secret looks like one of this server's and memory does not
// know it: the client may have been given it a moment ago, at another replica. For anything else it returns nil without
// asking etcd. Look-ups are limited, together with those of unknown clients; beyond the limit the error is [ErrBusy].
func (s *Store) ClientWith(ctx context.Context, id, secret string) (*Client, error) {
	if len(secret) != secretLength || secret[:4] != "wfs_" {
		return nil, nil
	}
	if !s.unknown.Allow() {
		return nil, ErrBusy
	}
	resp, err := s.kv.Get(ctx, clientKey(id))
	if err != nil {
		return nil, fmt.Errorf("read client: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	c, err := decodeClient(resp.Kvs[0])
	if err != nil {
		return nil, err
	}
	s.mem.learn(c)
	return c, nil
}

// usage is what this process has seen of the use of secrets. Only correct secrets get into it, so the number of clients
// bounds it.
type usage struct {
	mu      sync.Mutex // guards the maps
	known   map[secretRef]time.Time
	pending map[secretRef]time.Time
	wake    chan struct{} // holds one signal while something is pending
}

type secretRef struct{ client, secret string }

func (u *usage) init() {
	u.known, u.pending = make(map[secretRef]time.Time), make(map[secretRef]time.Time)
	u.wake = make(chan struct{}, 1)
}

// NoteUse notes that a client has authenticated with a secret. It does not access etcd: [Store.WriteUses] does, later.
func (s *Store) NoteUse(clientID, secretID string) {
	now, ref := s.now(), secretRef{clientID, secretID}
	u := &s.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	if last, ok := u.known[ref]; ok && now.Sub(last) < UsePrecision {
		return
	}
	u.known[ref], u.pending[ref] = now, now
	u.signal()
}

func (u *usage) signal() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// WriteUses writes what [Store.NoteUse] notes, until ctx ends: each secret at most once per [UsePrecision], one after
// the other. What is lost with the process is noted again at the next use.
func (s *Store) WriteUses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.uses.wake:
		}
		if err := s.FlushUses(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the use of client secrets cannot be stored; trying again", "error", err)
			Pause(ctx, 5*time.Second)
			s.uses.signal()
		}
	}
}

// FlushUses writes what has been noted so far now. What cannot be written stays noted.
func (s *Store) FlushUses(ctx context.Context) error {
	u := &s.uses
	u.mu.Lock()
	pending := u.pending
	u.pending = make(map[secretRef]time.Time)
	for ref, at := range u.known { // those that are not used any more
		if s.now().Sub(at) >= 2*UsePrecision {
			delete(u.known, ref)
		}
	}
	u.mu.Unlock()
	var failed []error
	for ref, at := range pending {
		err := s.writeUse(ctx, ref, at)
		if err == nil {
			continue
		}
		failed = append(failed, err)
		u.mu.Lock()
		if _, newer := u.pending[ref]; !newer {
			u.pending[ref] = at
		}
		u.mu.Unlock()
	}
	return errors.Join(failed...)
}

// writeUse writes one use, if the secret is still the client's: a read and one transaction.
func (s *Store) writeUse(ctx context.Context, ref secretRef, at time.Time) error {
	k, ck := useKey(ref.client, ref.secret), clientKey(ref.client)
	err := Again(5, func() (again bool, err error) {
		var seen transaction
		client, uses := seen.then.get(ck), seen.then.get(k)
		if err := s.run(ctx, &seen); err != nil {
			return false, err
		}
		if client.one() == nil {
			return false, nil
		}
		c, err := decodeClient(client.one())
		if err != nil {
			return false, err
		}
		if !slices.ContainsFunc(c.Secrets, func(x ClientSecret) bool { return x.ID == ref.secret }) {
			return false, nil
		}
		use, revision := SecretUse{First: at.UTC(), Last: at.UTC()}, int64(0)
		if kv := uses.one(); kv != nil {
			was, err := decode[SecretUse]("use of a secret", kv.Value)
			if err != nil {
				return false, err
			}
			revision, use.First = kv.ModRevision, was.First
			if at.Sub(was.Last) < UsePrecision {
				return false, nil // another replica was first
			}
		}
		var write transaction
		write.onlyIf(atRevision(ck, c.Revision), atRevision(k, revision))
		write.then.do(clientv3.OpPut(k, encode(use)))
		err = s.run(ctx, &write)
		return !write.held, err
	})
	if err != nil {
		return fmt.Errorf("store use of a secret: %w", err)
	}
	return nil
}
