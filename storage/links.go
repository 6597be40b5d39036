package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// An operator can join an identity, which is what a connector calls somebody, to an account that exists: from then on
// they sign in as that ([Store.ArriveUser]). Nothing else ever does that; an e-mail address that two accounts share
// least of all, because one connector may not check what another does.

// Link is an identity that is joined to an account.
type Link struct {
	Connector  string `json:"connector"`
	UpstreamID string `json:"upstreamId"`
	// UserID is the account with which the identity signs in.
	UserID string `json:"userId"`
	// Own is the account that the identity has by itself, whether or not there is one.
	Own string    `json:"own"`
	At  time.Time `json:"at"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

func (l *Link) revision() int64 {
	if l == nil {
		return 0
	}
	return l.Revision
}

func (l *Link) String() string {
	return fmt.Sprintf("%s of connector %s, user %s", l.UpstreamID, l.Connector, l.UserID)
}

func linkKey(connector, upstreamID string) string { return key("links", connector, upstreamID) }

func decodeLinks(kvs []*mvccpb.KeyValue) (*Link, error) {
	if len(kvs) == 0 {
		return nil, nil
	}
	l, err := decode[Link]("link", kvs[0].Value)
	if err != nil {
		return nil, err
	}
	l.Revision = kvs[0].ModRevision
	return l, nil
}

// ErrLinked means that an identity or an account takes part in another link, which the error names.
var ErrLinked = errors.New("it is joined to another account")

// Links are the identities that are joined to an account, or to any if userID is empty. It goes through all links: for
// operators, not for requests.
func (s *Store) Links(ctx context.Context, userID string) (links []Link, err error) {
	err = s.each(ctx, under("links"), func(kv *mvccpb.KeyValue) error {
		l, err := decodeLinks([]*mvccpb.KeyValue{kv})
		if err == nil && (userID == "" || l.UserID == userID) {
			links = append(links, *l)
		}
		return err
	})
	return links, err
}

// LinkUser joins an identity to an account. The account that the identity had by itself is disabled, and all that was
// begun for it has ended: apps that know it do not see the person again. It is returned, nil if there was none, with
// what was cleared away. It is no error if the identity is joined to the account already.
//
// The account may be the identity's own that belongs to another connector since ([Store.ArriveUser]): the person signs
// in as it again, and nothing is given up. Where the account knows its origin, the identity needs no link for that.
//
// Errors are [ErrNotFound], if there is no such account, [ErrConflict], if the identity signs in as it without a link,
// and [ErrLinked].
func (s *Store) LinkUser(ctx context.Context, link Link) (given *User, ended Ended, err error) {
	err = Again(attempts, func() (again bool, err error) {
		var look transaction
		links, account, own := look.then.get(linkKey(link.Connector, link.UpstreamID)), look.then.get(userKey(link.UserID)),
			look.then.get(userKey(link.Own))
		if err := s.run(ctx, &look); err != nil {
			return false, err
		}
		held, err := decodeLinks(links.kvs)
		if err != nil {
			return false, err
		}
		to, err := decodeUsers(account.kvs)
		if err != nil {
			return false, err
		}
		from, err := decodeUsers(own.kvs)
		switch {
		case err != nil:
			return false, err
		case to == nil:
			return false, ErrNotFound
		case held != nil && held.UserID == link.UserID:
			return false, nil
		case held != nil:
			return false, fmt.Errorf("%w: %s", ErrLinked, held)
		case link.Own == link.UserID && to.Connector == link.Connector && to.UpstreamID == link.UpstreamID:
			return false, fmt.Errorf("%w: it is the account that the identity has by itself", ErrConflict)
		}
		var t transaction
		if link.Own != link.UserID {
			if err := s.unlinked(ctx, to, link.Own); err != nil {
				return false, err
			}
		} else { // its own account belongs to another identity since, and is not given up
			from = nil
		}
		t.onlyIf(absent(linkKey(link.Connector, link.UpstreamID)), atRevision(userKey(to.ID), to.Revision))
		link.At = s.now().UTC()
		t.then.do(clientv3.OpPut(linkKey(link.Connector, link.UpstreamID), encode(link)))
		t.then.do(s.auditOps(ctx, []AuditEntry{{Action: AuditUserLinked, User: link.UserID, Detail: link.String()}})...)
		switch {
		case link.Own == link.UserID:
		case from == nil:
			t.onlyIf(absent(userKey(link.Own)))
		default:
			next := *from
			next.Term, next.UpdatedAt = newTerm(from, look.revision), s.now().UTC()
			if next.Active() {
				next.Disabled, next.Left = true, true
			}
			s.putUser(ctx, &t, from, next, "the identity signs in as another user now", AuditEntry{})
		}
		if err = s.change(ctx, &t); err == nil {
			given = from
		}
		return errors.Is(err, ErrConflict), ignore(err, ErrConflict)
	})
	if err != nil {
		return nil, Ended{}, fmt.Errorf("join identity: %w", err)
	}
	if given == nil {
		return nil, Ended{}, nil
	}
	// It has ended; the next look clears it away
	if ended, err = s.clearPastTerms(ctx, pastTermKey(link.Own)); err != nil {
		s.log.WarnContext(ctx, "records that a joined account left behind cannot be deleted yet", "error", err)
	}
	return given, ended, nil
}

// unlinked is [ErrLinked] if an account's identity is joined to another itself, or if others are joined to the account
// that is given up. So a link never leads to another.
func (s *Store) unlinked(ctx context.Context, to *User, own string) error {
	if to.UpstreamID != "" {
		resp, err := s.kv.Get(ctx, linkKey(to.Connector, to.UpstreamID))
		if err != nil {
			return err
		}
		if l, err := decodeLinks(resp.Kvs); err != nil || l != nil && l.UserID != to.ID {
			if err == nil {
				err = fmt.Errorf("%w: %s", ErrLinked, l)
			}
			return err
		}
	}
	others, err := s.Links(ctx, own)
	if err == nil && len(others) > 0 {
		err = fmt.Errorf("%w: %s", ErrLinked, &others[0])
	}
	return err
}

// UnlinkUser undoes [Store.LinkUser]: the identity signs in as the account again that it has by itself. All that was
// begun for the account to which it was joined ends, because nobody knows by which identity. [ErrNotFound]: there is no
// such link.
func (s *Store) UnlinkUser(ctx context.Context, connector, upstreamID string) (*Link, Ended, error) {
	k := linkKey(connector, upstreamID)
	var link *Link
	var ended Ended
	err := Again(attempts, func() (again bool, err error) {
		resp, err := s.kv.Get(ctx, k)
		if err != nil {
			return false, err
		}
		if link, err = decodeLinks(resp.Kvs); err != nil || link == nil {
			if err == nil {
				err = ErrNotFound
			}
			return false, err
		}
		unlink := func(t *transaction) {
			t.onlyIf(atRevision(k, link.Revision))
			t.then.do(clientv3.OpDelete(k))
			t.then.do(s.auditOps(ctx, []AuditEntry{{Action: AuditUserUnlinked, User: link.UserID, Detail: link.String()}})...)
		}
		ended, err = s.endUser(ctx, link.UserID, AuditEntry{Reason: "an identity is no longer joined to the account"}, unlink)
		if errors.Is(err, ErrNotFound) { // the account is gone
			var t transaction
			unlink(&t)
			err = s.change(ctx, &t)
		}
		return errors.Is(err, ErrConflict), ignore(err, ErrConflict)
	})
	if err != nil {
		return nil, Ended{}, fmt.Errorf("undo a link: %w", err)
	}
	return link, ended, nil
}
