package storage

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/text/unicode/norm"
)

// Operators keep accounts by commands ([User.Managed]). Each name and address with which such a user signs in has a key
// that leads to them, put in the transaction that stores the user: so nobody else gets it, and a sign-in finds the user
// without going through all.

// ManagedConnector is the connector of managed accounts: the one of staticPasswords, because people see no difference.
const ManagedConnector = "local"

// NormalLogin is what all spellings of a name or address with which somebody signs in have in common. Spellings are
// also what different keyboards and systems make of the same letters: composed or not, of full width or half (the form
// NFKC of Unicode). So nobody gets a name that looks like another's and is none.
func NormalLogin(login string) string {
	return norm.NFKC.String(strings.ToLower(norm.NFKC.String(strings.TrimSpace(login))))
}

func loginKey(login string) string { return key("logins", NormalLogin(login)) }

// logins are those of a managed account.
func (u *User) logins() []string {
	if u == nil || !u.Managed {
		return nil
	}
	return u.names()
}

// HasAccounts reports whether there is a managed account.
func (s *Store) HasAccounts(ctx context.Context) (bool, error) {
	resp, err := s.kv.Get(ctx, under("logins"), clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		return false, fmt.Errorf("look for accounts: %w", err)
	}
	return len(resp.Kvs) > 0, nil
}

// AccountByLogin finds the managed account of somebody who signs in: two reads, also for a name that nobody has, for
// which it returns [ErrNotFound].
func (s *Store) AccountByLogin(ctx context.Context, login string) (*Account, error) {
	a, err := s.accountBy(ctx, loginKey(login))
	if err == nil && !slices.Contains(a.User.logins(), NormalLogin(login)) {
		return nil, ErrNotFound
	}
	return a, err
}

// ErrNotManaged means that a user is kept in the configuration, and only there can be changed.
var ErrNotManaged = errors.New("the user is not kept here")

// ErrLeft means that a user cannot be enabled by an operator's word: their connector is not there, or they sign in as
// another user ([User.Left]).
var ErrLeft = errors.New("the user has left")

// static reports whether the configuration has the user, or had until they were disabled.
func (u *User) static() bool { return u.Connector == ManagedConnector && !u.Managed }

// PutAccount stores a managed account, new or changed, with its password if it is given one: one transaction. A new one
// has no revision; one that exists must be as it was read, otherwise the error is [ErrConflict]. A user whom the
// configuration had before, and has no longer, can be taken over: what was begun before stays ended, and so does a
// password. Whether it is disabled is not changed by this, see [Store.DisableUser].
//
// Another error is a [LoginTakenError].
func (s *Store) PutAccount(ctx context.Context, user User, held *Account, change *FactorChange, by AuditEntry) (
	*Account, error) {
	if err := CheckUserID(user.ID); err != nil {
		return nil, err
	}
	user.Managed, user.Connector, user.UpstreamID = true, ManagedConnector, ""
	user.Disabled, user.Left, user.Revision = false, false, 0
	var was *User
	var asOf int64
	var factors Factors
	next := change
	if held != nil {
		was, asOf, factors = held.User, held.AsOf, held.Factors
		if !was.Managed && !(was.static() && was.Disabled) {
			return nil, ErrNotManaged
		}
		user.keep(was)
		user.Disabled = was.Managed && was.Disabled
		if !was.Managed && change == nil && factors.Password.Hash != "" {
			next = &FactorChange{Next: factors.Clone()}
			next.Next.Password = Password{}
		}
	} else {
		resp, err := s.kv.Get(ctx, userKey(user.ID), clientv3.WithKeysOnly())
		if err != nil {
			return nil, fmt.Errorf("store account: %w", err)
		}
		asOf = resp.Header.Revision
	}
	if was == nil || change != nil && change.Ends != "" {
		user.Credential = newCredential()
	}
	ends := ""
	if was != nil {
		ends = endsTerm(was, &user)
	}
	if change != nil && change.Ends != "" {
		ends = change.Ends
	}
	if was == nil || ends != "" {
		user.Term = newTerm(was, asOf)
	}
	user.UpdatedAt = s.now().UTC()
	var t transaction
	s.putUser(ctx, &t, was, user, ends, by)
	taken := make(map[string]*found)
	for _, login := range user.logins() {
		taken[login] = t.otherwise.get(loginKey(login))
	}
	if next != nil {
		next.Next.Revision = factors.Revision
		s.putFactors(&t, user.ID, next.Next)
		factors = next.Next
	}
	t.then.do(s.auditOps(ctx, []AuditEntry{by})...)
	if err := s.run(ctx, &t); err != nil {
		return nil, fmt.Errorf("store account: %w", err)
	}
	if !t.held {
		for login, f := range taken {
			if kv := f.one(); kv != nil {
				if to, err := decode[handleRecord]("index of accounts", kv.Value); err == nil && to.UserID != user.ID {
					return nil, &LoginTakenError{Login: login, UserID: to.UserID}
				}
			}
		}
		return nil, fmt.Errorf("store account: %w", ErrConflict)
	}
	if ends != "" {
		s.clearLater(ctx, user.ID)
	}
	user.Revision = t.revision
	if next != nil {
		factors.Revision = t.revision
	}
	return &Account{User: &user, Factors: factors, AsOf: t.revision}, nil
}

// clearLater clears away what a user has left whose term has ended; if that fails, the next look does it.
func (s *Store) clearLater(ctx context.Context, userID string) Ended {
	ended, err := s.clearPastTerms(ctx, pastTermKey(userID))
	if err != nil {
		s.log.WarnContext(ctx, "records that a user left behind cannot be deleted yet", "user", userID, "error", err)
	}
	return ended
}

// AccountsPart is a part of the list of users, by id, with their factors: two reads, or some more for a long part.
func (s *Store) AccountsPart(ctx context.Context, p Part) (accounts []*Account, next string, err error) {
	users, next, err := s.UsersPart(ctx, p)
	if err != nil {
		return nil, "", err
	}
	ids, at := make([]string, len(users)), make(map[string]*Account, len(users))
	for i, u := range users {
		a := &Account{User: u}
		accounts, ids[i], at[u.ID] = append(accounts, a), u.ID, a
	}
	err = s.manyOf(ctx, ids, factorsKey, func(id string, kv *mvccpb.KeyValue) (err error) {
		at[id].Factors, err = s.decodeFactors(id, []*mvccpb.KeyValue{kv})
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("list accounts: %w", err)
	}
	return accounts, next, nil
}

// DisableUser is an operator's word that a user may not sign in: all that was begun for them has ended, and it stays
// so, whatever their connector says. by says why, and goes to the audit log. It is no error if they are disabled
// already.
//
// Errors are [ErrNotFound], and [ErrNotManaged] for a user of the configuration. When storage is full, what was begun
// ends all the same, and the error is [ErrFull]: the user may sign in again once there is room.
func (s *Store) DisableUser(ctx context.Context, userID string, by AuditEntry) (Ended, error) {
	by.Action = AuditUserDisabled
	ended, err := s.setDisabled(ctx, userID, true, by)
	if errors.Is(err, ErrFull) {
		why := pastTerm{Actor: cmp.Or(by.Actor, ActorOf(ctx)), Reason: cmp.Or(by.Reason, "the user was disabled")}
		if cleared, clearing := s.clearUser(ctx, userID, why); clearing != nil {
			err = clearing
		} else {
			ended = cleared
		}
	}
	if err != nil {
		return ended, fmt.Errorf("disable user: %w", err)
	}
	return ended, nil
}

// EnableUser undoes [Store.DisableUser]. What was begun before stays ended. It is no error if they are not disabled.
//
// Errors are [ErrNotFound], [ErrNotManaged] for a user whom the configuration no longer has, and [ErrLeft].
func (s *Store) EnableUser(ctx context.Context, userID string, by AuditEntry) error {
	by.Action = AuditUserEnabled
	if _, err := s.setDisabled(ctx, userID, false, by); err != nil {
		return fmt.Errorf("enable user: %w", err)
	}
	return nil
}

// setDisabled is the transaction of both: a put of the user's record, which begins a new term.
func (s *Store) setDisabled(ctx context.Context, userID string, disabled bool, by AuditEntry) (Ended, error) {
	changed := false
	err := Again(attempts, func() (again bool, err error) {
		held, asOf, err := s.readUser(ctx, userID)
		switch {
		case err != nil:
			return false, err
		case held == nil:
			return false, ErrNotFound
		case disabled == held.Disabled && !(disabled && held.Left):
			return false, nil
		case held.static():
			return false, ErrNotManaged
		case held.Left && !disabled:
			return false, ErrLeft
		}
		next := *held
		next.Disabled, next.Left, next.UpdatedAt = disabled, false, s.now().UTC()
		ends := endsTerm(held, &next)
		if ends != "" {
			next.Term = newTerm(held, asOf)
		}
		if ends != "" && by.Reason != "" {
			ends = by.Reason
		}
		by.User, by.Detail = userID, "user "+userID
		var t transaction
		s.putUser(ctx, &t, held, next, ends, by)
		t.then.do(s.auditOps(ctx, []AuditEntry{by})...)
		err = s.change(ctx, &t)
		changed = err == nil
		return errors.Is(err, ErrConflict), ignore(err, ErrConflict)
	})
	if err != nil || !changed {
		return Ended{}, err
	}
	return s.clearLater(ctx, userID), nil
}

// DeleteUser deletes a user with all that there is of them: one transaction, after which nothing that was begun for
// them counts; their sessions, grants and consents are cleared away after it. Of a user of a connector nothing keeps
// the person from arriving again, as somebody new: that is what [Store.DisableUser] is for.
//
// Errors are [ErrNotFound], and [ErrNotManaged] for a user whom the configuration has.
func (s *Store) DeleteUser(ctx context.Context, userID string, by AuditEntry) (Ended, error) {
	by.Action, by.User, by.Detail = AuditUserDeleted, userID, "user "+userID
	var deleted int64 // the revision
	err := Again(attempts, func() (again bool, err error) {
		var look transaction
		user, factors := look.then.get(userKey(userID)), look.then.get(factorsKey(userID))
		upstream := look.then.get(upstreamKey(userID))
		if err := s.run(ctx, &look); err != nil {
			return false, err
		}
		held, err := decodeUsers(user.kvs)
		switch {
		case err != nil:
			return false, err
		case held == nil:
			return false, ErrNotFound
		case held.static() && held.Active():
			return false, ErrNotManaged
		}
		proven, err := s.decodeFactors(userID, factors.kvs)
		if err != nil {
			return false, err
		}
		asked, err := decodeUpstreams(upstream.kvs)
		if err != nil {
			return false, err
		}
		links, err := s.Links(ctx, userID)
		if err != nil {
			return false, err
		}
		t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
			t.onlyIf(atRevision(userKey(userID), held.Revision), atRevision(factorsKey(userID), proven.Revision))
			t.then.do(clientv3.OpDelete(userKey(userID)), clientv3.OpDelete(factorsKey(userID)),
				clientv3.OpDelete(arrivalKey(userID)), clientv3.OpDelete(signInsKey(userID)))
			if proven.Handle != nil {
				t.then.do(clientv3.OpDelete(handleKey(proven.Handle)))
			}
			if asked != nil {
				s.dropUpstream(t, asked)
			}
			moveNotes(t, held, nil)
			for _, l := range links {
				t.then.do(clientv3.OpDelete(linkKey(l.Connector, l.UpstreamID)))
			}
			t.then.do(clientv3.OpPut(pastTermKey(userID), encode(pastTerm{Actor: cmp.Or(by.Actor, ActorOf(ctx)),
				Reason: cmp.Or(by.Reason, "the user was deleted")})))
			t.then.do(s.auditOps(ctx, []AuditEntry{by})...)
			return nil
		})
		if err != nil {
			return false, err
		}
		deleted = t.revision
		return !t.held, nil
	})
	if err == nil {
		err = s.dropLinks(ctx, userID, deleted)
	}
	if err != nil {
		return Ended{}, fmt.Errorf("delete user: %w", err)
	}
	return s.clearLater(ctx, userID), nil
}

// dropLinks deletes the links to an account that was deleted at a revision, which somebody has joined to it at the last
// moment.
func (s *Store) dropLinks(ctx context.Context, userID string, deleted int64) error {
	links, err := s.Links(ctx, userID)
	for _, l := range links {
		if l.Revision > deleted { // it is to an account that came later
			continue
		}
		var t transaction
		t.onlyIf(atRevision(linkKey(l.Connector, l.UpstreamID), l.Revision))
		t.then.do(clientv3.OpDelete(linkKey(l.Connector, l.UpstreamID)))
		err = cmp.Or(err, s.run(ctx, &t))
	}
	return err
}

// Names of factors, beside those of passkeys.
const (
	FactorTOTP     = "totp"
	FactorRecovery = "recovery"
)

// Names of the factors that there are, but for the password: by these they are shown and removed.
func (f *Factors) Names() []string {
	var names []string
	for _, p := range f.Passkeys {
		names = append(names, p.Ref())
	}
	if f.TOTP.Secret != nil {
		names = append(names, FactorTOTP)
	}
	if len(f.Recovery) > 0 {
		names = append(names, FactorRecovery)
	}
	return names
}

// Ref names a passkey among those of its user.
func (p *Passkey) Ref() string { return base64.RawURLEncoding.EncodeToString(p.ID) }

// Remove removes a factor by its name, and reports whether there was such a one.
func (f *Factors) Remove(name string) bool {
	had := len(f.Names())
	switch name {
	case FactorTOTP:
		f.TOTP = TOTP{}
	case FactorRecovery:
		f.Recovery = nil
	default:
		f.Passkeys = slices.DeleteFunc(slices.Clone(f.Passkeys), func(p Passkey) bool { return p.Ref() == name })
	}
	return len(f.Names()) < had
}

// RemoveFactors removes factors of a user by an operator's word, because the user has lost them or somebody else has
// them: those that are named ([Factors.Names]), or all of them without names; a password stays. With ends, why the
// user's term ends with that, all that was begun for them has ended. It returns the names of those that were removed.
// [ErrNotFound]: there is no such user, or one of the names is of no factor; then nothing is removed.
func (s *Store) RemoveFactors(ctx context.Context, userID string, names []string, ends string, by AuditEntry) (
	removed []string, ended Ended, err error) {
	err = Again(attempts, func() (again bool, err error) {
		a, err := s.Account(ctx, userID)
		if err != nil {
			return false, err
		}
		if removed = names; len(names) == 0 {
			removed = a.Factors.Names()
		}
		change := FactorChange{Next: a.Factors.Clone(), Ends: ends}
		for _, name := range removed {
			if !change.Next.Remove(name) {
				return false, fmt.Errorf("%w: factor %s", ErrNotFound, name)
			}
			by.Action, by.User, by.Detail = AuditFactorRemoved, userID, "user "+userID+", "+name
			change.Audit = append(change.Audit, by)
		}
		if len(removed) == 0 {
			return false, nil
		}
		_, _, ended, err = s.changeFactors(ctx, a, change)
		return errors.Is(err, ErrConflict), ignore(err, ErrConflict)
	})
	if err != nil {
		return nil, Ended{}, fmt.Errorf("remove factors: %w", err)
	}
	return removed, ended, nil
}
