package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// AuditEntry is a line of the audit log: who did what to which app, and what came of it. It never holds a secret.
type AuditEntry struct {
	// ID orders entries by time. The store assigns it.
	ID string    `json:"-"`
	At time.Time `json:"at"` // zero: now
	// Actor is who did it: [ActorServer], "uid:1000" at the admin socket, "token" at the admin API over TCP, "client:" and
	// a client id, "user:" and a user id, or [ActorStranger]. If empty, it is the actor of the context, see [WithActor].
	Actor  string `json:"actor"`
	Action string `json:"action"` // one of the Audit constants, or another word that stays the same
	App    string `json:"app,omitempty"`
	Target string `json:"target,omitempty"` // as in worker/web
	// Outcome is [OutcomeDone] if empty.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"` // why it was refused or has failed, or why it was done
	Detail  string `json:"detail,omitempty"`
	// Client is the id of the client for which a user did it, Address the IP address that it came from: if empty, that of
	// the context, see [AddressKey], unless the server did it on its own.
	Client  string `json:"client,omitempty"`
	Address string `json:"address,omitempty"`
	// User is the id of the user whom it is about, where that is not the actor. Entries of older versions have it in the
	// detail alone.
	User string `json:"user,omitempty"`
}

// about reports whether a user has done it, or it was done to them.
func (e *AuditEntry) about(userID string) bool {
	if e.User != "" || strings.HasPrefix(e.Actor, UserActor("")) {
		return e.User == userID || e.Actor == UserActor(userID)
	}
	for _, after := range strings.Split(e.Detail, "user ")[1:] {
		if rest, is := strings.CutPrefix(after, userID); is && (rest == "" || rest[0] == ':' || rest[0] == ',') {
			return true
		}
	}
	return false
}

// Actions of the audit log.
const (
	AuditPlan          = "plan" // only when it was refused
	AuditApply         = "apply"
	AuditDelete        = "delete"  // an app's deletion begins
	AuditDeleted       = "deleted" // the app is gone
	AuditRetry         = "retry"
	AuditCredentials   = "credentials-read"
	AuditSignIn        = "sign-in"
	AuditSignInLocked  = "sign-in-locked" // no more guesses are taken for a while
	AuditAccessRefused = "access-refused" // the user may not use the app
	AuditConsentGiven  = "consent-given"
	AuditConsentDenied = "consent-denied"
	AuditGrantRevoked  = "grant-revoked"
	AuditGrantReplayed = "grant-replayed" // a code or refresh token was used twice, so its grant was killed
	// A user signed out, another one signed in in that browser, or an operator ended it
	AuditSessionEnded     = "session-ended"
	AuditUserEnded        = "user-ended"          // everything that was begun for a user has ended
	AuditUserCleared      = "user-cleared"        // its records are gone; how many
	AuditUserApplied      = "user-applied"        // an operator made or changed a managed account
	AuditUserInvited      = "user-invited"        // a link was made with which somebody takes over their account
	AuditUserDisabled     = "user-disabled"       // by an operator
	AuditUserEnabled      = "user-enabled"        // again
	AuditUserDeleted      = "user-deleted"        // with all that there was of it
	AuditPasswordSet      = "password-set"        // by its user, by a link, or by an operator
	AuditFactorAdded      = "factor-added"        // a passkey, an authenticator app, recovery codes
	AuditFactorRemoved    = "factor-removed"      // by its user, or by an operator for who has lost it
	AuditResetAsked       = "reset-asked"         // somebody asked for a link to set a new password
	AuditSessionRaised    = "session-raised"      // a second factor was proven in a session
	AuditUserLinked       = "user-linked"         // an identity of a connector signs in as that user from now on
	AuditUserUnlinked     = "user-unlinked"       // and does not any longer
	AuditConsentRevoked   = "consent-revoked"     // with the grants that it led to
	AuditLogoutFailed     = "logout-failed"       // a client could not be told that a session has ended
	AuditTokenRevoked     = "token-revoked"       // a client's own, which belongs to no grant
	AuditRegistered       = "client-registered"   // a client registered itself (RFC 7591)
	AuditRegisteredAnew   = "client-replaced"     // its registration, by its owner (RFC 7592)
	AuditUnregistered     = "client-unregistered" // by its owner or an operator
	AuditClientDenied     = "client-denied"       // the configuration denies the host of its document
	AuditRotate           = "rotate"              // a secret's rotation begins
	AuditSecretServed     = "secret-served"       // every target serves the new secret
	AuditSecretUsed       = "secret-used"         // the new secret was used for the first time
	AuditSecretRetired    = "secret-retired"      // the previous secret is no longer valid
	AuditKeyRotated       = "key-rotated"         // a key signs or seals from now on, or from when the detail says
	AuditKeyEnded         = "key-ended"           // a key was compromised: nothing that it has signed or sealed is valid
	AuditEncryptionAsked  = "encryption-rotate"   // an operator asks for another encryption key
	AuditEncryptionTurned = "encryption-rotated"  // secrets are sealed under another encryption key from now on
	AuditResealed         = "encryption-resealed" // nothing is sealed under another one any more
	AuditBackup           = "backup"              // a backup of the database was made
	AuditExport           = "export"              // of what the detail says
	AuditImport           = "import"              // the records came from an export
	AuditRestored         = "restored"            // the database was made from a backup, and a new epoch began
	AuditDeliveryReady    = "delivery-ready"
	AuditDeliveryFailed   = "delivery-failed"
	AuditDeliveryDegraded = "delivery-degraded"
	AuditDeliveryDrift    = "delivery-drift"
	AuditDeliveryMoved    = "delivery-moved" // from one runtime to another
	AuditDeliveryRemoved  = "delivery-removed"
)

// Outcomes of entries in the audit log.
const (
	OutcomeDone    = "done"
	OutcomeRefused = "refused"
	OutcomeFailed  = "failed"
)

// Actors that are no particular person.
const (
	ActorServer   = "server"   // of what the server does on its own
	ActorStranger = "stranger" // of what somebody did who is not known
)

// AuditKept is how long an entry of the audit log is kept.
const AuditKept = 400 * 24 * time.Hour

// Bounds of the audit log: of a text in an entry, of a page, and of the entries that one listing goes through.
const (
	maxAuditText = 1000
	auditPage    = 200
	auditScan    = 10_000
)

type actorKey struct{}

// WithActor names the actor on whose behalf everything under ctx is done.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// ActorOf returns the actor that [WithActor] named, or else [ActorServer].
func ActorOf(ctx context.Context) string {
	if actor, ok := ctx.Value(actorKey{}).(string); ok && actor != "" {
		return actor
	}
	return ActorServer
}

// AddressKey is the key of a context for the IP address, as text, from which its request came.
type AddressKey struct{}

// ClientActor names a client as an actor.
func ClientActor(clientID string) string { return "client:" + clientID }

// Record appends entries that go with no change of a record to the audit log; verbs that change a record write their
// entries in the same transaction. It costs one raft proposal for all entries.
func (s *Store) Record(ctx context.Context, entries ...AuditEntry) error {
	if len(entries) == 0 {
		return nil
	}
	var t transaction
	t.then.do(s.auditOps(ctx, entries)...)
	if err := s.run(ctx, &t); err != nil {
		return fmt.Errorf("record audit entry: %w", err)
	}
	return nil
}

// auditOps are the operations that append entries, for the transaction of the change that they describe. The first of a
// day also drops what is older than [AuditKept]: a lease would not do, because etcd restarts it whenever it starts.
func (s *Store) auditOps(ctx context.Context, entries []AuditEntry) []clientv3.Op {
	if len(entries) == 0 {
		return nil
	}
	ops := make([]clientv3.Op, 0, len(entries)+1)
	for _, e := range entries {
		ops = append(ops, s.auditOp(ctx, e))
	}
	now := s.now()
	day := now.Unix() / (24 * 60 * 60)
	if s.trimmed.Swap(day) != day {
		for _, place := range auditPlaces() {
			ops = append(ops, clientv3.OpDelete(place, clientv3.WithRange(place+auditName(now.Add(-AuditKept)))))
		}
	}
	return ops
}

func (s *Store) auditOp(ctx context.Context, e AuditEntry) clientv3.Op {
	if e.At.IsZero() {
		e.At = s.now()
	}
	e.At = e.At.UTC()
	if e.Actor == "" {
		e.Actor = ActorOf(ctx)
	}
	if from, known := ctx.Value(AddressKey{}).(string); known && e.Address == "" && e.Actor != ActorServer {
		e.Address = from
	}
	if e.Outcome == "" {
		e.Outcome = OutcomeDone
	}
	e.Reason, e.Detail = cut(e.Reason), cut(e.Detail)
	return clientv3.OpPut(auditPlace(e.Actor)+auditName(e.At)+"-"+rand.Text()[:12], encode(e))
}

// auditPlaces are the prefixes of entries: of what operators and the server did, and of what users, clients and
// strangers did. The latter are bounded in number (see bounds.go), so that nobody can push the former out.
func auditPlaces() []string { return []string{under("audit"), under("activity")} }

// auditPlace is the prefix of the entries of an actor.
func auditPlace(actor string) string {
	if actor == ActorStranger || strings.HasPrefix(actor, UserActor("")) || strings.HasPrefix(actor, ClientActor("")) {
		return under("activity")
	}
	return under("audit")
}

// auditName comes before the names of all entries at that time or later, and after all earlier ones.
func auditName(at time.Time) string { return fmt.Sprintf("%016x", max(at.UnixNano(), 0)) }

func cut(text string) string {
	if len(text) <= maxAuditText {
		return text
	}
	return strings.ToValidUTF8(text[:maxAuditText], "") + "..."
}

// UserActor names a user as an actor.
func UserActor(userID string) string { return "user:" + userID }

// AuditQuery says which entries are wanted.
type AuditQuery struct {
	Since time.Time // zero: all that is kept
	App   string    // empty: all
	User  string    // id of the user who did it or whom it is about; empty: all
	After string    // the cursor of the previous page; empty: from the start
	Limit int       // 0: a page of a size that suits
}

// wants reports whether an entry is one of those.
func (q *AuditQuery) wants(e *AuditEntry) bool {
	return (q.App == "" || q.App == e.App) && (q.User == "" || e.about(q.User))
}

// Audit lists entries of the audit log, oldest first. next is the cursor of the next page, empty when there is none; a
// page may hold fewer entries than the limit, even none, and still have a next one.
func (s *Store) Audit(ctx context.Context, q AuditQuery) (entries []AuditEntry, next string, err error) {
	return s.auditAt(ctx, q, 0)
}

// auditAt is [Store.Audit] as of a revision; 0 for the present one.
func (s *Store) auditAt(ctx context.Context, q AuditQuery, asOf int64) (entries []AuditEntry, next string, err error) {
	limit := q.Limit
	if limit <= 0 || limit > auditPage {
		limit = auditPage
	}
	since := s.now().Add(-AuditKept)
	if q.Since.After(since) {
		since = q.Since
	}
	from := auditName(since)
	if after := q.After + "\x00"; q.After != "" && after > from {
		from = after
	}
	entries = []AuditEntry{}
	for scanned := 0; scanned < auditScan; {
		found, more, err := s.auditPart(ctx, from, asOf)
		if err != nil {
			return nil, "", fmt.Errorf("read audit log: %w", err)
		}
		for _, e := range found {
			if q.wants(&e) {
				if len(entries) == limit {
					return entries, next, nil
				}
				entries = append(entries, e)
			}
			next = e.ID
		}
		if !more {
			return entries, "", nil
		}
		scanned += len(found)
		from = next + "\x00"
	}
	return entries, next, nil
}

// auditPart reads the entries from a name on, by time, as far as one page of each place tells all of them. more: there
// are others.
func (s *Store) auditPart(ctx context.Context, from string, asOf int64) (entries []AuditEntry, more bool, err error) {
	var t transaction
	var pages []*found
	for _, place := range auditPlaces() {
		pages = append(pages, t.then.get(place+from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(place)),
			clientv3.WithLimit(auditPage), clientv3.WithRev(asOf)))
	}
	if err := s.run(ctx, &t); err != nil {
		return nil, false, err
	}
	until := ""
	for _, page := range pages {
		for _, kv := range page.kvs {
			e, err := decode[AuditEntry]("audit entry", kv.Value)
			if err != nil {
				return nil, false, err
			}
			e.ID = lastSegment(kv.Key)
			entries = append(entries, *e)
		}
		if int64(len(page.kvs)) < page.count {
			last := lastSegment(page.kvs[len(page.kvs)-1].Key)
			if !more || last < until {
				until = last
			}
			more = true
		}
	}
	slices.SortFunc(entries, func(a, b AuditEntry) int { return strings.Compare(a.ID, b.ID) })
	if more {
		entries = slices.DeleteFunc(entries, func(e AuditEntry) bool { return e.ID > until })
	}
	return entries, more, nil
}

// FollowAudit gives do the entries that [Store.Audit] lists, and then each that is added, until ctx ends, or do returns
// an error, which it returns. Nothing is left out in between, and nothing comes twice. What is added comes in the order
// in which it was stored; of several replicas, that need not be the order of their clocks.
func (s *Store) FollowAudit(ctx context.Context, q AuditQuery, do func([]AuditEntry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	now, err := s.kv.Get(ctx, under("audit"), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("follow audit log: %w", err)
	}
	asOf := now.Header.Revision
	added, broken := make(chan clientv3.WatchResponse), make(chan struct{}, len(auditPlaces()))
	for _, place := range auditPlaces() {
		events := s.events(ownStream(ctx), place, clientv3.WithRev(asOf+1))
		watching.Go(func() {
			for resp := range events {
				select {
				case added <- resp:
				case <-ctx.Done():
					return
				}
			}
			broken <- struct{}{}
		})
	}
	for more := true; more; {
		var entries []AuditEntry
		if entries, q.After, err = s.auditAt(ctx, q, asOf); err != nil {
			return err
		}
		if err := do(entries); err != nil {
			return err
		}
		more = q.After != ""
	}
	for {
		var resp clientv3.WatchResponse
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-broken:
			return errors.New("follow audit log: the watch has ended")
		case resp = <-added:
		}
		if err := resp.Err(); err != nil {
			return fmt.Errorf("follow audit log: %w", err)
		}
		var entries []AuditEntry
		for _, ev := range resp.Events {
			if ev.Type != clientv3.EventTypePut {
				continue
			}
			e, err := decode[AuditEntry]("audit entry", ev.Kv.Value)
			if err != nil {
				return fmt.Errorf("follow audit log: %w", err)
			}
			if e.ID = lastSegment(ev.Kv.Key); q.wants(e) {
				entries = append(entries, *e)
			}
		}
		if err := do(entries); err != nil {
			return err
		}
	}
}
