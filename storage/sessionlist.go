package storage

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// SessionView is a session, with its user and the clients that it was used with, by their ids.
type SessionView struct {
	Session
	User    *User
	Clients []string
}

// detailed is how many sessions one read looks up users and clients for.
const detailed = 50

// Sessions lists the sessions that stand in a part of all, of one user, or of all when userID is empty. next is the
// cursor of the next part, empty when there is none; a part may hold none and still have a next one.
func (s *Store) Sessions(ctx context.Context, userID string, p Part) (list []SessionView, next string, err error) {
	sessions, next, err := s.sessionsPart(ctx, userID, p)
	if err != nil {
		return nil, "", fmt.Errorf("list sessions: %w", err)
	}
	now := s.now()
	sessions = slices.DeleteFunc(sessions, func(session *Session) bool {
		return userID != "" && session.UserID != userID || !now.Before(session.ExpiresAt)
	})
	for some := range slices.Chunk(sessions, detailed) {
		var t transaction
		users, uses := make([]*found, len(some)), make([]*found, len(some))
		for i, session := range some {
			users[i] = t.then.get(userKey(session.UserID))
			uses[i] = t.then.get(under("sessiongrants", session.SID), clientv3.WithPrefix(), clientv3.WithKeysOnly(),
				clientv3.WithLimit(mostUses))
		}
		if err := s.run(ctx, &t); err != nil {
			return nil, "", fmt.Errorf("list sessions: %w", err)
		}
		for i, session := range some {
			user, err := decodeUsers(users[i].kvs)
			if err != nil {
				return nil, "", fmt.Errorf("list sessions: %w", err)
			}
			if !user.Stands(session.Term) {
				continue
			}
			clients := make(map[string]bool)
			for _, kv := range uses[i].kvs {
				segment, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), under("sessiongrants", session.SID)), "/")
				clients[lastSegment([]byte(segment))] = true
			}
			list = append(list, SessionView{Session: *session, User: user, Clients: slices.Sorted(maps.Keys(clients))})
		}
	}
	return list, next, nil
}

// sessionsPart is a part of the sessions of a user, or of all, with others among them perhaps.
func (s *Store) sessionsPart(ctx context.Context, userID string, p Part) (list []*Session, next string, err error) {
	decoded := func(kv *mvccpb.KeyValue) (*Session, error) {
		session, err := decode[Session]("session", kv.Value)
		if err == nil {
			session.SID = lastSegment(kv.Key)
		}
		return session, err
	}
	if userID == "" || !s.seek(1) {
		return part(ctx, s, under("sessions"), p, decoded)
	}
	sids, next, err := part(ctx, s, under("usersessions", userID), p, func(kv *mvccpb.KeyValue) (string, error) {
		return lastSegment(kv.Key), nil
	})
	if err != nil {
		return nil, "", err
	}
	err = s.manyOf(ctx, sids, sessionKey, func(_ string, kv *mvccpb.KeyValue) error {
		session, err := decoded(kv)
		if err == nil {
			list = append(list, session)
		}
		return err
	})
	return list, next, err
}

// RevokeSessions ends the sessions of a user that there are, and counts them. On an error, those that it counts have
// ended.
func (s *Store) RevokeSessions(ctx context.Context, userID string, why AuditEntry) (ended int, err error) {
	of := map[string]*leaver{userID: nil}
	err = s.eachOf(ctx, of, "usersessions", "sessions", func(kv *mvccpb.KeyValue) error {
		session, err := decode[Session]("session", kv.Value)
		if err != nil || session.UserID != userID {
			return err
		}
		if _, err = s.RevokeSession(ctx, lastSegment(kv.Key), why); err == nil {
			ended++
		}
		return ignore(err, ErrNotFound)
	})
	if err != nil {
		return ended, fmt.Errorf("end sessions of a user: %w", err)
	}
	return ended, nil
}
