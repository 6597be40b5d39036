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
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrSessionEnded means that the sign-in that a code came from has ended, so nothing is issued from it.
var ErrSessionEnded = errors.New("the session has ended")

// sessionUse is the record of a grant that came from a session: what ends, and which client is told, when the session
// ends.
type sessionUse struct {
	// UserID is the session's, and is no longer written: it is in the session.
	UserID string `json:"userId,omitempty"`
	// Stays means that the grant outlives the session.
	Stays bool `json:"stays,omitempty"`
	// Host and Since (Unix milliseconds) are of a grant with [Grant.Host].
	Host  string `json:"host,omitempty"`
	Since int64  `json:"since,omitempty"`

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

func sessionOfUserKey(userID, sid string) string { return key("usersessions", userID, sid) }

func randomText(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// newSessionID has 128 random bits that name a session, and 256 that open it. No name begins with a hyphen: operators
// type names in commands, where that begins a flag.
func newSessionID() string {
	sid := "-"
	for strings.HasPrefix(sid, "-") {
		sid = randomText(16)
	}
	return renewedSessionID(sid)
}

// renewedSessionID opens the session of this name under another secret.
func renewedSessionID(sid string) string { return sid + "." + randomText(32) }

// opens reports whether the id is the session's: the database holds only its hash.
func (s *Session) opens(id string) bool {
	sum := sha256.Sum256([]byte(id))
	return subtle.ConstantTimeCompare(sum[:], s.Hash) == 1
}

// sessionState is a session with everything that came from it, read at one revision.
type sessionState struct {
	session  *Session     // nil if it has ended
	modified int64        // etcd's modification revision of its record
	uses     []sessionUse // at most mostUses
	more     bool         // there are more uses
	revision int64        // of the read
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

func (s *Store) sessionState(ctx context.Context, sid string) (sessionState, error) {
	if sid == "" {
		return sessionState{}, nil
	}
	var t transaction
	record := t.then.get(sessionKey(sid))
	uses := t.then.get(under("sessiongrants", sid), clientv3.WithPrefix(), clientv3.WithLimit(mostUses))
	if err := s.run(ctx, &t); err != nil {
		return sessionState{}, err
	}
	st := sessionState{revision: t.revision, more: uses.count > mostUses}
	if kv := record.one(); kv != nil {
		session, err := decode[Session]("session", kv.Value)
		if err != nil {
			return sessionState{}, err
		}
		session.SID = sid
		st.session, st.modified = session, kv.ModRevision
	}
	var err error
	st.uses, err = sessionUses(sid, uses.kvs)
	return st, err
}

// sessionUses are the notes of a session.
func sessionUses(sid string, kvs []*mvccpb.KeyValue) (uses []sessionUse, err error) {
	for _, kv := range kvs {
		use, err := decode[sessionUse]("use of a session", kv.Value)
		if err != nil {
			return nil, err
		}
		clientSegment, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), under("sessiongrants", sid)), "/")
		use.clientID, use.grantID = lastSegment([]byte(clientSegment)), lastSegment(kv.Key)
		uses = append(uses, *use)
	}
	return uses, nil
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
// its id. An older one of the same user, and of the same term, goes on under its name, as apps know it, with a new id
// that opens it; another ends, as by [Store.EndSession], in the same transaction. Of a user with more than
// [MaxSessions], the one signed in to least lately ends next. It returns [ErrSpent] if [Session.Uses] was used before,
// and [ErrConflict] if the user's factors have changed since [Session.Leaves] was read.
func (s *Store) CreateSession(ctx context.Context, session Session, replaces string,
	audit ...AuditEntry) (id string, err error) {
	var notes *found       // of the user's sessions, with this one
	var noted *transaction // of the history
	err = Again(attempts, func() (again bool, err error) {
		var why AuditEntry
		goesOn := false
		was, err := s.endable(ctx, SID(replaces), func(was sessionState) (AuditEntry, bool) {
			if was.session == nil || !was.session.opens(replaces) {
				return why, false
			}
			goesOn = was.session.UserID == session.UserID && was.session.Term == session.Term && !was.more
			why = AuditEntry{Actor: UserActor(was.session.UserID), Reason: "replaced by another sign-in"}
			return why, !goesOn
		})
		if err != nil {
			return false, err
		}
		if was.session != nil && !was.session.opens(replaces) {
			was.session = nil
		}
		past, err := s.history(ctx, session.UserID)
		if err != nil {
			return false, err
		}
		id = newSessionID()
		var proof proofs
		t, err := s.commit(ctx, func(t *transaction) error {
			if proof, err = s.takeProof(ctx, t, session.UserID, session.Uses, session.Leaves); err != nil {
				return err
			}
			lease, err := s.leases.until(ctx, session.ExpiresAt)
			if err != nil {
				return err
			}
			switch {
			case was.session == nil:
			case goesOn:
				id = renewedSessionID(was.session.SID)
				if !was.session.Since.IsZero() {
					session.Since = was.session.Since
				}
				t.onlyIf(was.unchanged()...)
				var longer []clientv3.Op
				for _, u := range was.uses {
					longer = append(longer, clientv3.OpPut(useOfSessionKey(was.session.SID, u.clientID, u.grantID), encode(u),
						clientv3.WithLease(lease)))
				}
				t.then.do(bundled(longer)...)
			default:
				t.onlyIf(was.unchanged()...)
				end, err := s.endOps(ctx, was, why)
				if err != nil {
					return err
				}
				t.then.do(end...)
			}
			t.then.do(s.putSession(id, session, lease)...)
			if noted, err = s.putHistory(ctx, session.UserID, past, s.signedIn(&session)); err != nil {
				return err
			}
			t.then.inside(noted)
			notes = t.then.get(under("usersessions", session.UserID), clientv3.WithPrefix(), clientv3.WithCountOnly())
			t.then.do(s.auditOps(ctx, audit)...)
			return nil
		})
		if err != nil || t.held {
			return false, err
		}
		return true, proof.verdict()
	})
	if err != nil {
		return "", fmt.Errorf("store session: %w", err)
	}
	s.boundSessions(ctx, session.UserID, notes.count)
	if !noted.held {
		if err := s.AddSignIns(ctx, session.UserID, s.signedIn(&session)); ignore(err, ErrNotFound) != nil {
			s.log.WarnContext(ctx, "a sign-in is not in the user's history", "user", session.UserID, "error", err)
		}
	}
	return id, nil
}

// putSession are the operations that store a session under an id.
func (s *Store) putSession(id string, session Session, lease clientv3.LeaseID) []clientv3.Op {
	hash := sha256.Sum256([]byte(id))
	session.Hash = hash[:]
	return []clientv3.Op{clientv3.OpPut(sessionKey(SID(id)), encode(session), clientv3.WithLease(lease)),
		clientv3.OpPut(sessionOfUserKey(session.UserID, SID(id)), "", clientv3.WithLease(lease)),
		s.arrivalOp(session.UserID)}
}

// boundSessions ends what a user has beyond [MaxSessions].
func (s *Store) boundSessions(ctx context.Context, userID string, has int64) {
	if has <= MaxSessions {
		return
	}
	if err := s.endOldest(ctx, userID, has-MaxSessions); err != nil {
		s.log.WarnContext(ctx, "the oldest sessions of a user could not be ended; the next sign-in tries again",
			"user", userID, "error", err)
	}
}

// endOldest ends the n sessions of a user that were signed in to least lately.
func (s *Store) endOldest(ctx context.Context, userID string, n int64) error {
	oldest, err := s.leastLately(ctx, under("usersessions", userID), n)
	if err != nil {
		return err
	}
	for _, note := range oldest {
		_, err := s.RevokeSession(ctx, lastSegment(note.Key), AuditEntry{Actor: UserActor(userID),
			Reason: "the user signed in many times since"})
		if errors.Is(err, ErrNotFound) { // nothing is left but the note
			_, err = s.kv.Delete(ctx, string(note.Key))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// EndedSession is what a session was when it ended.
type EndedSession struct {
	SID    string
	UserID string
	// Clients that it was used with, by their ids.
	Clients []string
}

// EndSession ends the session that an id opens, in one transaction: with it end the grants that came from it, but for
// those that outlive it ([Grant.OutlivesSession]), and the outbox gets a [Logout] for each client that wants to be told
// (OpenID Connect Back-Channel Logout 1.0). why goes to the audit log. A session that has ended already is
// [ErrNotFound].
func (s *Store) EndSession(ctx context.Context, id, why string) (*EndedSession, error) {
	return s.endSession(ctx, SID(id), func(session *Session) (AuditEntry, bool) {
		return AuditEntry{Actor: UserActor(session.UserID), Reason: why}, session.opens(id)
	})
}

// RevokeSession is [Store.EndSession] for an operator, who knows the session by its sid.
func (s *Store) RevokeSession(ctx context.Context, sid string, why AuditEntry) (*EndedSession, error) {
	return s.endSession(ctx, sid, func(*Session) (AuditEntry, bool) { return why, true })
}

// endSession ends a session if may agrees, and says why.
func (s *Store) endSession(ctx context.Context, sid string,
	may func(*Session) (why AuditEntry, yes bool)) (*EndedSession, error) {
	var st sessionState
	err := Again(attempts, func() (again bool, err error) {
		var why AuditEntry
		yes := false
		st, err = s.endable(ctx, sid, func(st sessionState) (AuditEntry, bool) {
			if yes = st.session != nil; yes {
				why, yes = may(st.session)
			}
			return why, yes
		})
		if err != nil {
			return false, err
		}
		if !yes {
			return false, ErrNotFound
		}
		t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
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
func (s *Store) endOps(ctx context.Context, st sessionState, why AuditEntry) ([]clientv3.Op, error) {
	sid, userID := st.session.SID, st.session.UserID
	var each []clientv3.Op
	for _, u := range st.ending() {
		bury, err := s.bury(ctx, u.clientID, u.grantID, AuditEntry{
			Actor: why.Actor, Action: AuditGrantRevoked, Reason: why.Reason, User: userID})
		if err != nil {
			return nil, err
		}
		each = append(each, bury...)
	}
	for _, id := range st.clients() {
		each = append(each, s.logoutOp(Logout{ClientID: id, UserID: userID, SID: sid, At: s.now().UTC()}))
	}
	return append(bundled(each), append(
		s.auditOps(ctx, []AuditEntry{{Actor: why.Actor, Action: AuditSessionEnded, Reason: why.Reason, User: userID,
			Detail: "session " + sid + " of user " + userID}}),
		clientv3.OpDelete(sessionKey(sid)),
		clientv3.OpDelete(sessionOfUserKey(userID, sid)),
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

// endable reads a session that ends, if ends says so, and why. What is too much for the transaction that ends it has
// ended before.
func (s *Store) endable(ctx context.Context, sid string,
	ends func(sessionState) (why AuditEntry, yes bool)) (sessionState, error) {
	for {
		st, err := s.sessionState(ctx, sid)
		if err != nil {
			return st, err
		}
		why, yes := ends(st)
		if !yes {
			return st, nil
		}
		if more, err := s.endExcess(ctx, st, why); err != nil || !more {
			return st, err
		}
	}
}

// endExcess ends the grants of a session that are too many for one transaction. It reports whether there were any; then
// the session has to be read again. Of each client one note stays, so that the client is still told.
func (s *Store) endExcess(ctx context.Context, st sessionState, why AuditEntry) (bool, error) {
	if !st.more && len(st.ending()) <= mostEnding {
		return false, nil
	}
	keep := make(map[string]string) // by client, the grant whose note stays
	for _, u := range st.uses {
		if keep[u.clientID] == "" || u.Stays {
			keep[u.clientID] = u.grantID
		}
	}
	excess := slices.DeleteFunc(slices.Clone(st.uses), func(u sessionUse) bool {
		return u.Stays && keep[u.clientID] == u.grantID
	})
	if len(excess) == 0 {
		return false, fmt.Errorf("session %s was used with more than %d clients", st.session.SID, mostUses)
	}
	_, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		lease, err := s.leases.until(ctx, st.session.ExpiresAt)
		if err != nil {
			return err
		}
		var each []clientv3.Op
		for _, u := range excess[:min(mostEnding, len(excess))] {
			if !u.Stays {
				bury, err := s.bury(ctx, u.clientID, u.grantID, AuditEntry{
					Actor: why.Actor, Action: AuditGrantRevoked, Reason: "the session ended", User: st.session.UserID})
				if err != nil {
					return err
				}
				each = append(each, bury...)
			}
			note := useOfSessionKey(st.session.SID, u.clientID, u.grantID)
			if keep[u.clientID] == u.grantID {
				u.Stays = true // there is nothing left to end
				each = append(each, clientv3.OpPut(note, encode(u), clientv3.WithLease(lease)))
			} else {
				each = append(each, clientv3.OpDelete(note))
			}
		}
		t.onlyIf(atRevision(sessionKey(st.session.SID), st.modified))
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
	use := sessionUse{Stays: grant.OutlivesSession}
	if grant.Host != "" {
		use.Host, use.Since = grant.Host, grant.CreatedAt.UnixMilli()
	}
	return []clientv3.Op{clientv3.OpPut(useOfSessionKey(grant.Session, grant.ClientID, grant.ID), encode(use),
		clientv3.WithLease(lease))}, nil
}

// atOnce is for how long after each other the tabs of a browser may come back from a sign-in that they began at once.
const atOnce = time.Minute

// replacedBy are the grants in whose place one of a session at a host comes: one read, for such a grant alone.
//
// Those that are as new as it is stay, until the next sign-in: of tabs that come back at once each gets a grant, and
// the browser keeps the cookie that it is sent last, which may be that of any of them. If one of them ended another,
// the browser might be left with what has ended, and all its tabs sent to sign in again, at once.
func (s *Store) replacedBy(ctx context.Context, grant Grant) ([]sessionUse, error) {
	if grant.Session == "" || grant.Host == "" {
		return nil, nil
	}
	resp, err := s.kv.Get(ctx, under("sessiongrants", grant.Session, grant.ClientID), clientv3.WithPrefix(),
		clientv3.WithLimit(mostUses))
	if err != nil {
		return nil, err
	}
	uses, err := sessionUses(grant.Session, resp.Kvs)
	if err != nil {
		return nil, err
	}
	uses = slices.DeleteFunc(uses, func(u sessionUse) bool {
		return u.Host != grant.Host || u.Stays || u.grantID == grant.ID ||
			grant.CreatedAt.Sub(time.UnixMilli(u.Since)) < atOnce
	})
	return uses[:min(len(uses), mostEnding)], nil
}

// replaceOps end those grants.
func (s *Store) replaceOps(ctx context.Context, by Grant, uses []sessionUse) ([]clientv3.Op, error) {
	var each []clientv3.Op
	for _, u := range uses {
		bury, err := s.bury(ctx, u.clientID, u.grantID, AuditEntry{Actor: UserActor(by.UserID), Action: AuditGrantRevoked,
			Reason: "replaced by another sign-in", User: by.UserID})
		if err != nil {
			return nil, err
		}
		each = append(append(each, bury...), clientv3.OpDelete(useOfSessionKey(by.Session, u.clientID, u.grantID)))
	}
	return bundled(each), nil
}

// Presence is what the answer to a browser's authorization request depends on, read at one revision. Each may be nil.
type Presence struct {
	Session *Session
	User    *User
	Consent *Consent
	// AsOf is the revision of the read.
	AsOf int64
}

// Presence reads the session, its user and the user's consent to the client: one read. A session that has ended, or is
// another user's, is nil; so are a session and a consent of another term of the user than the present one.
func (s *Store) Presence(ctx context.Context, sessionID, userID, clientID string) (Presence, error) {
	var t transaction
	record, user, consent := t.then.get(sessionKey(SID(sessionID))), t.then.get(userKey(userID)),
		t.then.get(consentKey(clientID, userID))
	if err := s.run(ctx, &t); err != nil {
		return Presence{}, fmt.Errorf("read session: %w", err)
	}
	p := Presence{AsOf: t.revision}
	var err error
	if p.User, err = decodeUsers(user.kvs); err != nil {
		return Presence{}, fmt.Errorf("read session: %w", err)
	}
	if kv := record.one(); kv != nil {
		session, err := decode[Session]("session", kv.Value)
		if err != nil {
			return Presence{}, fmt.Errorf("read session: %w", err)
		}
		if session.opens(sessionID) && session.UserID == userID && p.User.Stands(session.Term) &&
			s.now().Before(session.ExpiresAt) {
			session.SID = SID(sessionID)
			p.Session = session
		}
	}
	given, err := decodeConsent(consent.kvs)
	if err != nil {
		return Presence{}, fmt.Errorf("read session: %w", err)
	}
	if given != nil && p.User.Stands(given.Term) {
		p.Consent = given
	}
	return p, nil
}
