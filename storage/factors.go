package storage

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What a user has at this server to prove who they are stands in one record beside the user's: password, passkeys, the
// secret of an authenticator app, recovery codes. All of it is sealed. Whatever happens to it (something is enrolled, a
// counter moves on, a recovery code is used up) is one transaction that compares the revision of this record, together
// with what follows from it: a session, or the end of the user's term. So nothing in it counts twice, however many
// replicas are asked at once, and whatever refers to a revision of it, as a link in a mail does, works once.

// Factors are what a user has at this server to prove who they are. Its zero value is of somebody who has nothing here,
// such as a user of a connector.
type Factors struct {
	// Handle names the user to authenticators (the user handle of Web Authentication): see [NewHandle]. It is there from
	// the first passkey on, and stays.
	Handle   []byte    `json:"handle,omitempty"`
	Password Password  `json:"password,omitzero"`
	Passkeys []Passkey `json:"passkeys,omitempty"`
	TOTP     TOTP      `json:"totp,omitzero"`
	// Recovery are codes each of which stands once for another factor.
	Recovery []RecoveryCode `json:"recovery,omitempty"`
	// Applied is the fingerprint of the hash that an operator has last given the user as a password, whatever the user's
	// password is since: the same one, given again, changes nothing.
	Applied string `json:"applied,omitempty"`

	// Revision is etcd's modification revision of the record; 0 when there is none.
	Revision int64 `json:"-"`
}

// Password is a user's own.
type Password struct {
	Hash string    `json:"hash,omitempty"` // a PHC string of argon2id, or one of bcrypt; "" for none
	At   time.Time `json:"at,omitzero"`    // when it was set
}

// Passkey is a credential of Web Authentication.
type Passkey struct {
	ID        []byte    `json:"id"`
	Name      string    `json:"name"` // as the user calls it
	PublicKey []byte    `json:"publicKey"`
	AAGUID    []byte    `json:"aaguid,omitempty"`
	Transport []string  `json:"transport,omitempty"`
	Count     uint32    `json:"count,omitempty"` // the signature counter, 0 where the authenticator has none
	Verifies  bool      `json:"verifies,omitempty"`
	Syncable  bool      `json:"syncable,omitempty"` // it can be on several devices (backup eligible)
	Synced    bool      `json:"synced,omitempty"`   // and is (backup state)
	At        time.Time `json:"at"`
	UsedAt    time.Time `json:"usedAt,omitzero"`
}

// TOTP is what an authenticator app shares with this server (RFC 6238).
type TOTP struct {
	Secret []byte    `json:"secret,omitempty"` // nil for none
	Step   int64     `json:"step,omitempty"`   // of the last code that was taken: no earlier one is, nor that one again
	At     time.Time `json:"at,omitzero"`
	UsedAt time.Time `json:"usedAt,omitzero"`
}

// RecoveryCode is one of those that a user has.
type RecoveryCode struct {
	Hash   []byte    `json:"hash"`
	UsedAt time.Time `json:"usedAt,omitzero"`
}

// MaxPasskeys is how many one user may have.
const MaxPasskeys = 20

// Clone is a copy that can be changed.
func (f Factors) Clone() Factors {
	f.Passkeys, f.Recovery = slices.Clone(f.Passkeys), slices.Clone(f.Recovery)
	return f
}

// factorsRecord is how they are stored.
type factorsRecord struct {
	UserID string `json:"userId"`
	Sealed []byte `json:"sealed"`
}

func factorsKey(userID string) string { return key("factors", userID) }

func factorsPurpose(userID string) string { return "factors/" + userID }

// handleKey leads from a user handle to its user.
func handleKey(handle []byte) string {
	return key("handles", base64.RawURLEncoding.EncodeToString(handle))
}

func (s *Store) decodeFactors(userID string, kvs []*mvccpb.KeyValue) (f Factors, err error) {
	if len(kvs) == 0 {
		return f, nil
	}
	record, err := decode[factorsRecord]("factors", kvs[0].Value)
	if err != nil {
		return f, err
	}
	plain, err := s.kek().open(factorsPurpose(userID), record.Sealed)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(plain, &f); err != nil {
		return Factors{}, fmt.Errorf("decode factors: %w", err)
	}
	f.Revision = kvs[0].ModRevision
	return f, nil
}

// putFactors adds to a transaction that next takes the place of factors that are at its revision.
func (s *Store) putFactors(t *transaction, userID string, next Factors) {
	t.onlyIf(atRevision(factorsKey(userID), next.Revision))
	if next.Handle != nil {
		t.then.do(clientv3.OpPut(handleKey(next.Handle), encode(handleRecord{UserID: userID})))
	}
	plain := encode(next)
	t.then.do(clientv3.OpPut(factorsKey(userID), encode(factorsRecord{userID,
		s.kek().seal(factorsPurpose(userID), []byte(plain))})))
}

// NewHandle is a user handle that says nothing. An authenticator has to be told it before there is a passkey.
func NewHandle() []byte {
	handle := make([]byte, 32)
	_, _ = rand.Read(handle) // never fails: crypto/rand ends the process instead
	return handle
}

type handleRecord struct {
	UserID string `json:"userId"`
}

// Account is a user with what they have to prove who they are, read at one revision.
type Account struct {
	User    *User
	Factors Factors
	// AsOf is the revision of the read.
	AsOf int64
}

// Account reads a user and their factors: one read. It returns [ErrNotFound] for an unknown one.
func (s *Store) Account(ctx context.Context, userID string) (*Account, error) {
	var t transaction
	user, factors := t.then.get(userKey(userID)), t.then.get(factorsKey(userID))
	if err := s.run(ctx, &t); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	a := &Account{AsOf: t.revision}
	var err error
	if a.User, err = decodeUsers(user.kvs); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	if a.User == nil {
		return nil, ErrNotFound
	}
	if a.Factors, err = s.decodeFactors(userID, factors.kvs); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	return a, nil
}

// AccountByHandle finds the account that an authenticator names: two reads, also for a handle that nobody has, for
// which it returns [ErrNotFound].
func (s *Store) AccountByHandle(ctx context.Context, handle []byte) (*Account, error) {
	return s.accountBy(ctx, handleKey(handle))
}

// accountBy finds the account to which an index leads.
func (s *Store) accountBy(ctx context.Context, index string) (*Account, error) {
	resp, err := s.kv.Get(ctx, index)
	if err != nil {
		return nil, fmt.Errorf("find account: %w", err)
	}
	var to handleRecord
	if len(resp.Kvs) > 0 {
		found, err := decode[handleRecord]("index of accounts", resp.Kvs[0].Value)
		if err != nil {
			return nil, err
		}
		to = *found
	}
	return s.Account(ctx, to.UserID)
}

// FactorChange is a change of what a user has to prove who they are.
type FactorChange struct {
	Next Factors
	// Ends is why the user's term ends with it, "" if it does not: sessions, grants and consents, see [User.Stands].
	Ends string
	// Session is begun in the same transaction if it has a user: of the browser in which the change was made, when the
	// term ends. Its term is set.
	Session Session
	// Uses is used up by it, if it has an ID, such as the challenge that a passkey has signed.
	Uses  Once
	Audit []AuditEntry
}

// ChangeFactors replaces the factors of an account, provided that neither they nor the user's record have changed since
// they were read; otherwise the error is [ErrConflict], and nothing has happened. It is [ErrSpent] if what the change
// uses was used before. It is one transaction. It returns the account as it is now, and the id of the session, "" if
// none was asked for.
func (s *Store) ChangeFactors(ctx context.Context, a *Account, change FactorChange) (now *Account, sessionID string,
	err error) {
	now, sessionID, _, err = s.changeFactors(ctx, a, change)
	if err != nil {
		return nil, "", fmt.Errorf("change factors: %w", err)
	}
	return now, sessionID, nil
}

func (s *Store) changeFactors(ctx context.Context, a *Account, change FactorChange) (now *Account, sessionID string,
	ended Ended, err error) {
	user := *a.User
	if change.Ends != "" {
		user.Credential, user.Term, user.UpdatedAt = newCredential(), newTerm(a.User, a.AsOf), s.now().UTC()
	}
	change.Next.Revision = a.Factors.Revision
	if len(change.Next.Passkeys) > 0 && change.Next.Handle == nil {
		change.Next.Handle = NewHandle()
	}
	var notes *found
	var proof proofs
	t, err := s.commit(ctx, func(t *transaction) (err error) {
		if change.Ends != "" {
			s.putUser(ctx, t, a.User, user, change.Ends, AuditEntry{})
		} else {
			t.onlyIf(atRevision(userKey(user.ID), a.User.Revision))
		}
		if proof, err = s.takeProof(ctx, t, user.ID, change.Uses, &change.Next); err != nil {
			return err
		}
		if change.Session.UserID != "" {
			lease, err := s.leases.until(ctx, change.Session.ExpiresAt)
			if err != nil {
				return err
			}
			change.Session.Term = user.Term
			sessionID = newSessionID()
			t.then.do(s.putSession(sessionID, change.Session, lease)...)
			notes = t.then.get(under("usersessions", user.ID), clientv3.WithPrefix(), clientv3.WithCountOnly())
		}
		t.then.do(s.auditOps(ctx, change.Audit)...)
		return nil
	})
	if err != nil {
		return nil, "", Ended{}, err
	}
	if !t.held {
		return nil, "", Ended{}, cmp.Or(proof.verdict(), ErrConflict)
	}
	if notes != nil && change.Ends == "" {
		s.boundSessions(ctx, user.ID, notes.count)
	}
	if change.Ends != "" {
		user.Revision = t.revision
		ended = s.clearLater(ctx, user.ID)
	}
	change.Next.Revision = t.revision
	return &Account{User: &user, Factors: change.Next, AsOf: t.revision}, sessionID, ended, nil
}

// newCredential is a [User.Credential] of users whose passwords are here.
func newCredential() string { return randomText(16) }

// Raise is what a user has just proven in a session that exists, beside what they proved before.
type Raise struct {
	// ID opens the session, which is that of UserID.
	ID     string
	UserID string
	// AMR are the methods by which they did, and AuthTime is when, if it counts as a sign-in anew; zero if it does not.
	AMR      []string
	AuthTime time.Time
	// Uses is used up by it, if it has an ID, and Leaves are the user's factors as it leaves them, see [Session].
	Uses   Once
	Leaves *Factors
	Audit  []AuditEntry
}

// RaiseSession gives a session what its user has just proven: one read and one proposal. The error is [ErrNotFound]
// when the session has ended, be it that its user's term has, [ErrSpent] when what it uses was used before, and
// [ErrConflict] when the user's factors have changed since they were read; then nothing has happened.
func (s *Store) RaiseSession(ctx context.Context, raise Raise) error {
	err := Again(attempts, func() (again bool, err error) {
		standing, session, err := s.standing(ctx, raise.ID, raise.UserID)
		if err != nil {
			return false, err
		}
		next := *session
		for _, method := range raise.AMR {
			if !slices.Contains(next.AMR, method) {
				next.AMR = append(slices.Clone(next.AMR), method)
			}
		}
		if !raise.AuthTime.IsZero() {
			next.AuthTime = raise.AuthTime.UTC()
		}
		var proof proofs
		t, err := s.commit(ctx, func(t *transaction) error {
			lease, err := s.leases.until(ctx, next.ExpiresAt)
			if err != nil {
				return err
			}
			t.onlyIf(standing...)
			t.then.do(clientv3.OpPut(sessionKey(SID(raise.ID)), encode(next), clientv3.WithLease(lease)))
			proof, err = s.takeProof(ctx, t, raise.UserID, raise.Uses, raise.Leaves)
			t.then.do(s.auditOps(ctx, raise.Audit)...)
			return err
		})
		if err != nil || t.held {
			return false, err
		}
		return true, proof.verdict()
	})
	if err != nil {
		return fmt.Errorf("raise session: %w", err)
	}
	return nil
}

// standing is the session of a user that an id opens, if it still counts, and what a transaction compares that relies
// on that: whoever ends a user's term ends what comes of their sessions, before these are cleared away as well.
func (s *Store) standing(ctx context.Context, id, userID string) (is []clientv3.Cmp, session *Session, err error) {
	sessionAt, userAt := sessionKey(SID(id)), userKey(userID)
	var t transaction
	record, holder := t.then.get(sessionAt), t.then.get(userAt)
	if err := s.run(ctx, &t); err != nil {
		return nil, nil, err
	}
	user, err := decodeUsers(holder.kvs)
	if err != nil {
		return nil, nil, err
	}
	kv := record.one()
	if kv == nil {
		return nil, nil, ErrNotFound
	}
	if session, err = decode[Session]("session", kv.Value); err != nil {
		return nil, nil, err
	}
	if !session.opens(id) || session.UserID != userID || !user.Stands(session.Term) {
		return nil, nil, ErrNotFound
	}
	return []clientv3.Cmp{atRevision(sessionAt, kv.ModRevision), atRevision(userAt, user.Revision)}, session, nil
}

// proofs are what a transaction has found, that was to take what somebody has proven and did not.
type proofs struct {
	spent, factors *found
	leaves         *Factors
}

// takeProof adds to a transaction that what somebody has proven counts this once: uses was not used before, if it has
// an ID, and the user's factors are as they were when leaves were read, if that is not nil.
func (s *Store) takeProof(ctx context.Context, t *transaction, userID string, uses Once, leaves *Factors) (
	p proofs, err error) {
	if uses.ID != "" {
		once := []Once{uses}
		spend, err := s.spend(ctx, once)
		if err != nil {
			return p, err
		}
		t.onlyIf(unspent(once)...)
		t.then.do(spend...)
		p.spent = t.otherwise.get(spentKey(uses.ID), clientv3.WithCountOnly())
	}
	if leaves != nil {
		s.putFactors(t, userID, *leaves)
		p.leaves, p.factors = leaves, t.otherwise.get(factorsKey(userID), clientv3.WithKeysOnly())
	}
	return p, nil
}

// verdict is [ErrSpent] or [ErrConflict] if that is why the transaction did not happen.
func (p proofs) verdict() error {
	switch {
	case p.spent != nil && p.spent.count > 0:
		return ErrSpent
	case p.factors.movedFrom(p.leaves):
		return ErrConflict
	}
	return nil
}

// movedFrom reports whether the record that was found is at another revision than factors that were read.
func (f *found) movedFrom(factors *Factors) bool {
	if f == nil || factors == nil {
		return false
	}
	at := int64(0)
	if kv := f.one(); kv != nil {
		at = kv.ModRevision
	}
	return at != factors.Revision
}

// errLoginTaken is wrapped by [LoginTakenError].
var errLoginTaken = errors.New("somebody else signs in with that")

// LoginTakenError means that another user signs in with a name or address.
type LoginTakenError struct {
	Login  string
	UserID string // who has it
}

func (e *LoginTakenError) Error() string {
	return fmt.Sprintf("user %s signs in with %q", e.UserID, e.Login)
}
func (e *LoginTakenError) Unwrap() error { return errLoginTaken }
