package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrSessionEnded means that the sign-in that a code came from has ended, so nothing is issued from it.
var ErrSessionEnded = errors.New("the session has ended")

// sessionUse is the record of a grant that came from a session: what ends, and which client is told, when the session
// ends.
type sessionUse struct {
	UserID string `json:"userId"`
	// Stays means that the grant outlives the session.
	Stays bool `json:"stays,omitempty"`

	clientID, grantID string
}

func useOfSessionKey(sid, clientID, grantID string) string {
	return key("sessiongrants", sid, clientID, grantID)
}

// SID is the public name of a session, which opens nothing: the part of its id before the dot.
func SID(sessionID string) string {
	sid, _, _ := strings.Cut(sessionID, ".")
	return sid
}

func sessionKey(sid string) string { return key("sessions", sid) }

func randomText(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// newSessionID has 128 random bits that name a session, and 256 that open it.
func newSessionID() string { return renewedSessionID(randomText(16)) }

// renewedSessionID opens the session of this name under another secret.
func renewedSessionID(sid string) string { return sid + "." + randomText(32) }

// opens reports whether the id is the session's: the database holds only its hash.
func (s *Session) opens(id string) bool {
	sum := sha256.Sum256([]byte(id))
	return subtle.ConstantTimeCompare(sum[:], s.Hash) == 1
}

// sessionState is a session with everything that came from it, read at one revision.
type sessionState struct {
	session  *Session // nil if it has ended, or the id is not its own
	modified int64    // etcd's modification revision of its record
	uses     []sessionUse
	revision int64 // of the read
}

// ending are the grants that end with the session.
func (st sessionState) ending() []sessionUse {
	return slices.DeleteFunc(slices.Clone(st.uses), func(u sessionUse) bool { return u.Stays })
}

// clients are those that the session was used with, each once.
func (st sessionState) clients() []string {
	var ids []string
	for _, u := range st.uses {
		if !slices.Contains(ids, u.clientID) {
			ids = append(ids, u.clientID)
		}
	}
	return ids
}

func (s *Store) sessionState(ctx context.Context, id string) (sessionState, error) {
	if SID(id) == "" {
		return sessionState{}, nil
	}
	prefix := under("sessiongrants", SID(id))
	var t transaction
	record, uses := t.then.get(sessionKey(SID(id))), t.then.get(prefix, clientv3.WithPrefix())
	if err := s.run(ctx, &t); err != nil {
		return sessionState{}, err
	}
	st := sessionState{revision: t.revision}
	if kv := record.one(); kv != nil {
		session, err := decode[Session]("session", kv.Value)
		if err != nil {
			return sessionState{}, err
		}
		if session.opens(id) {
			session.SID = SID(id)
			st.session, st.modified = session, kv.ModRevision
		}
	}
	for _, kv := range uses.kvs {
		use, err := decode[sessionUse]("use of a session", kv.Value)
		if err != nil {
			return sessionState{}, err
		}
		clientSegment, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), prefix), "/")
		use.clientID, use.grantID = lastSegment([]byte(clientSegment)), lastSegment(kv.Key)
		st.uses = append(st.uses, *use)
	}
	return st, nil
}

// unchanged compares that the session is as it was read, and that nothing has come from it since.
func (st sessionState) unchanged() []clientv3.Cmp {
	sid := st.session.SID
	return []clientv3.Cmp{
		atRevision(sessionKey(sid), st.modified),
		clientv3.Compare(clientv3.ModRevision(under("sessiongrants", sid)), "<", st.revision+1).WithPrefix(),
	}
}

// CreateSession stores a new sign-in of a browser, in the place of the one that it had before ("" for none), and gives
// its id. An older one of the same user goes on under its name, as apps know it, with a new id that opens it; that of
// another user ends, as by [Store.EndSession], in the same transaction.
func (s *Store) CreateSession(ctx context.Context, session Session, replaces string) (id string, err error) {
	err = Again(attempts, func() (again bool, err error) {
		was, err := s.sessionState(ctx, replaces)
		if err != nil {
			return false, err
		}
		goesOn := was.session != nil && was.session.UserID == session.UserID && len(was.uses) <= mostUses
		if !goesOn {
			if more, err := s.endExcess(ctx, was); err != nil || more {
				return more, err
			}
		}
		id = newSessionID()
		t, err := s.commit(ctx, func(t *transaction) error {
			lease, err := s.leases.until(ctx, session.ExpiresAt)
			if err != nil {
				return err
			}
			switch {
			case was.session == nil:
			case goesOn:
				id = renewedSessionID(was.session.SID)
				t.onlyIf(was.unchanged()...)
				var longer []clientv3.Op
				for _, u := range was.uses {
					longer = append(longer, clientv3.OpPut(useOfSessionKey(was.session.SID, u.clientID, u.grantID), encode(u), clientv3.WithLease(lease)))
				}
				t.then.do(bundled(longer)...)
			default:
				t.onlyIf(was.unchanged()...)
				end, err := s.endOps(ctx, was, "replaced by another sign-in")
				if err != nil {
					return err
				}
				t.then.do(end...)
			}
			hash := sha256.Sum256([]byte(id))
			session.Hash = hash[:]
			t.then.do(clientv3.OpPut(sessionKey(SID(id)), encode(session), clientv3.WithLease(lease)))
			return nil
		})
		if err != nil {
			return false, err
		}
		return !t.held, nil
	})
	if err != nil {
		return "", fmt.Errorf("store session: %w", err)
	}
	return id, nil
}

// EndedSession is what a session was when it ended.
type EndedSession struct {
	SID    string
	UserID string
	// Clients that it was used with, by their ids.
	Clients []string
}

// EndSession ends a session in one transaction: with it end the grants that came from it, but for those that outlive it
// ([Grant.OutlivesSession]), and the outbox gets a [Logout] for each client that wants to be told (OpenID Connect
// Back-Channel Logout 1.0). why goes to the audit log. A session that has ended already is [ErrNotFound].
func (s *Store) EndSession(ctx context.Context, id, why string) (*EndedSession, error) {
	var st sessionState
	err := Again(attempts, func() (again bool, err error) {
		if st, err = s.sessionState(ctx, id); err != nil {
			return false, err
		}
		if st.session == nil {
			return false, ErrNotFound
		}
		if more, err := s.endExcess(ctx, st); err != nil || more {
			return more, err
		}
		t, err := s.commit(ctx, func(t *transaction) error {
			end, err := s.endOps(ctx, st, why)
			t.onlyIf(st.unchanged()...)
			t.then.do(end...)
			return err
		})
		if err != nil {
			return false, err
		}
		return !t.held, nil
	})
	if err != nil {
		return nil, fmt.Errorf("end session: %w", err)
	}
	return &EndedSession{SID: st.session.SID, UserID: st.session.UserID, Clients: st.clients()}, nil
}

// attempts bounds how often a transaction is tried that concurrent changes may make fail.
const attempts = 16

// endOps are the operations that end a session with all that ends with it.
func (s *Store) endOps(ctx context.Context, st sessionState, why string) ([]clientv3.Op, error) {
	sid, userID := st.session.SID, st.session.UserID
	var each []clientv3.Op
	for _, u := range st.ending() {
		bury, err := s.bury(ctx, u.clientID, u.grantID, AuditEntry{Actor: UserActor(userID), Action: AuditGrantRevoked, Reason: why})
		if err != nil {
			return nil, err
		}
		each = append(each, bury...)
	}
	for _, id := range st.clients() {
		each = append(each, s.logoutOp(Logout{ClientID: id, UserID: userID, SID: sid, At: s.now().UTC()}))
	}
	return append(bundled(each), append(
		s.auditOps(ctx, []AuditEntry{{Actor: UserActor(userID), Action: AuditSessionEnded, Reason: why, Detail: "session " + sid}}),
		clientv3.OpDelete(sessionKey(sid)),
		clientv3.OpDelete(under("sessiongrants", sid), clientv3.WithPrefix()))...), nil
}

// bundleOps is how many operations go into one nested transaction: etcd counts the operations of a transaction (at most
// 128) per path from the root, not in total.
const bundleOps = 60

func bundled(ops []clientv3.Op) []clientv3.Op {
	var out []clientv3.Op
	for chunk := range slices.Chunk(ops, bundleOps) {
		out = append(out, clientv3.OpTxn(nil, chunk, nil))
	}
	return out
}

// Bounds of a transaction. A session from which an app has got tokens all day long may have more grants than
// mostEnding: those end first, in transactions of their own. One with more than mostUses is not continued when its user
// signs in again.
const (
	mostEnding = 400
	mostUses   = 3000
)

// endExcess ends the grants of a session that are too many for one transaction. It reports whether there were any; then
// the session has to be read again.
func (s *Store) endExcess(ctx context.Context, st sessionState) (bool, error) {
	ending := st.ending()
	if st.session == nil || len(ending) <= mostEnding {
		return false, nil
	}
	_, err := s.commit(ctx, func(t *transaction) error {
		lease, err := s.leases.until(ctx, st.session.ExpiresAt)
		if err != nil {
			return err
		}
		var each []clientv3.Op
		for _, u := range ending[:mostEnding] {
			bury, err := s.bury(ctx, u.clientID, u.grantID, AuditEntry{
				Actor: UserActor(u.UserID), Action: AuditGrantRevoked, Reason: "the session ended"})
			if err != nil {
				return err
			}
			u.Stays = true // there is nothing left to end, but its client is still told
			each = append(each, append(bury, clientv3.OpPut(useOfSessionKey(st.session.SID, u.clientID, u.grantID), encode(u), clientv3.WithLease(lease)))...)
		}
		t.onlyIf(st.unchanged()...)
		t.then.do(bundled(each)...)
		return nil
	})
	return true, err
}

// sessionCmp compares that the session from which a grant comes exists; a grant without a session needs none.
func sessionCmp(grant Grant) []clientv3.Cmp {
	if grant.Session == "" {
		return nil
	}
	return []clientv3.Cmp{present(sessionKey(grant.Session))}
}

// sessionOps record with the session that a grant came from it.
func (s *Store) sessionOps(ctx context.Context, grant Grant) ([]clientv3.Op, error) {
	if grant.Session == "" {
		return nil, nil
	}
	lease, err := s.leases.until(ctx, grant.SessionEnds)
	if err != nil {
		return nil, err
	}
	return []clientv3.Op{clientv3.OpPut(useOfSessionKey(grant.Session, grant.ClientID, grant.ID),
		encode(sessionUse{UserID: grant.UserID, Stays: grant.OutlivesSession}), clientv3.WithLease(lease))}, nil
}

// Presence is what the answer to a browser's authorization request depends on, read at one revision. Each may be nil.
type Presence struct {
	Session *Session
	User    *User
	Consent *Consent
}

// Presence reads the session, its user and the user's consent to the client: one read. A session that has ended, or is
// another user's, is nil.
func (s *Store) Presence(ctx context.Context, sessionID, userID, clientID string) (Presence, error) {
	var t transaction
	record, user, consent := t.then.get(sessionKey(SID(sessionID))), t.then.get(userKey(userID)), t.then.get(consentKey(clientID, userID))
	if err := s.run(ctx, &t); err != nil {
		return Presence{}, fmt.Errorf("read session: %w", err)
	}
	var p Presence
	var err error
	if kv := record.one(); kv != nil {
		session, err := decode[Session]("session", kv.Value)
		if err != nil {
			return Presence{}, fmt.Errorf("read session: %w", err)
		}
		if session.opens(sessionID) && session.UserID == userID && s.now().Before(session.ExpiresAt) {
			session.SID = SID(sessionID)
			p.Session = session
		}
	}
	if p.User, err = decodeUsers(user.kvs); err != nil {
		return Presence{}, fmt.Errorf("read session: %w", err)
	}
	if kv := consent.one(); kv != nil {
		if p.Consent, err = decode[Consent]("consent", kv.Value); err != nil {
			return Presence{}, fmt.Errorf("read session: %w", err)
		}
	}
	return p, nil
}
