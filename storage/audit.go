package storage

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// AuditEntry is a line of the audit log: who did what to which app, and what came of it. It never holds a secret.
type AuditEntry struct {
	// ID orders entries by time. The store assigns it.
	ID string    `json:"-"`
	At time.Time `json:"at"` // zero: now
	// Actor is who did it: [ActorServer], "uid:1000" at the admin socket, "token" at the admin API over TCP, "client:"
	// and a client id, or "user:" and a user id. If empty, it is the actor of the context, see [WithActor].
	Actor  string `json:"actor"`
	Action string `json:"action"` // one of the Audit constants, or another word that stays the same
	App    string `json:"app,omitempty"`
	Target string `json:"target,omitempty"` // as in worker/web
	// Outcome is [OutcomeDone] if empty.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"` // why it was refused or has failed, or why it was done
	Detail  string `json:"detail,omitempty"`
}

// Actions of the audit log.
const (
	AuditPlan             = "plan" // only when it was refused
	AuditApply            = "apply"
	AuditDelete           = "delete"  // an app's deletion begins
	AuditDeleted          = "deleted" // the app is gone
	AuditRetry            = "retry"
	AuditCredentials      = "credentials-read"
	AuditGrantRevoked     = "grant-revoked"
	AuditGrantReplayed    = "grant-replayed"      // a code or refresh token was used twice, so its grant was killed
	AuditSessionEnded     = "session-ended"       // a user signed out, or another one signed in, in that browser
	AuditLogoutFailed     = "logout-failed"       // a client could not be told that a session has ended
	AuditTokenRevoked     = "token-revoked"       // a client's own, which belongs to no grant
	AuditRegistered       = "client-registered"   // a client registered itself (RFC 7591)
	AuditRegisteredAnew   = "client-replaced"     // its registration, by its owner (RFC 7592)
	AuditUnregistered     = "client-unregistered" // by its owner or an operator
	AuditRotate           = "rotate"              // a secret's rotation begins
	AuditSecretServed     = "secret-served"       // every target serves the new secret
	AuditSecretUsed       = "secret-used"         // the new secret was used for the first time
	AuditSecretRetired    = "secret-retired"      // the previous secret is no longer valid
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

// ActorServer is the actor of what the server does on its own.
const ActorServer = "server"

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
		ops = append(ops, clientv3.OpDelete(under("audit"), clientv3.WithRange(auditFrom(now.Add(-AuditKept)))))
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
	if e.Outcome == "" {
		e.Outcome = OutcomeDone
	}
	e.Reason, e.Detail = cut(e.Reason), cut(e.Detail)
	return clientv3.OpPut(auditFrom(e.At)+"-"+rand.Text()[:12], encode(e))
}

// auditFrom comes before the keys of all entries at that time or later, and after all earlier ones.
func auditFrom(at time.Time) string {
	return under("audit") + fmt.Sprintf("%016x", max(at.UnixNano(), 0))
}

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
	After string    // the cursor of the previous page; empty: from the start
	Limit int       // 0: a page of a size that suits
}

// Audit lists entries of the audit log, oldest first. next is the cursor of the next page, empty when there is none; a
// page may hold fewer entries than the limit, even none, and still have a next one.
func (s *Store) Audit(ctx context.Context, q AuditQuery) (entries []AuditEntry, next string, err error) {
	limit := q.Limit
	if limit <= 0 || limit > auditPage {
		limit = auditPage
	}
	since := s.now().Add(-AuditKept)
	if q.Since.After(since) {
		since = q.Since
	}
	from := auditFrom(since)
	if after := under("audit") + q.After + "\x00"; q.After != "" && after > from {
		from = after
	}
	entries = []AuditEntry{}
	for scanned := 0; scanned < auditScan; {
		resp, err := s.kv.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(under("audit"))), clientv3.WithLimit(auditPage))
		if err != nil {
			return nil, "", fmt.Errorf("read audit log: %w", err)
		}
		for _, kv := range resp.Kvs {
			e, err := decode[AuditEntry]("audit entry", kv.Value)
			if err != nil {
				return nil, "", fmt.Errorf("read audit log: %w", err)
			}
			if e.ID = lastSegment(kv.Key); q.App == "" || q.App == e.App {
				if len(entries) == limit {
					return entries, next, nil
				}
				entries = append(entries, *e)
			}
			next = e.ID
		}
		if !resp.More {
			return entries, "", nil
		}
		scanned += len(resp.Kvs)
		from = under("audit") + next + "\x00"
	}
	return entries, next, nil
}
