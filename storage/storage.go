// Package storage keeps warifu's records in etcd and offers the atomic verbs on them. It is the only package that knows
// a key; the others use records ([Client], [Grant], [App], ...) and verbs ([Store.CreateGrant], ...).
//
// # When to use what
//
// [OpenEmbedded] runs etcd inside the process, with an in-process client and no socket. [Dial] connects to an etcd
// cluster. Both provide a *clientv3.Client, from which [New] makes a [Store], so the same code runs on one machine and
// on many replicas.
//
// # Keys
//
//	clients/<client>                   Client, its secrets sealed
//	apps/<app>                         App, the release record: what was applied last
//	clientids/<app>                    FormerClient, the id of a client that was removed: it comes back when the app's client does
//	deliveries/<app>/<kind>/<target>   Delivery, the outbox: env that a runtime should serve
//	  .../<runtime>                    Delivery that takes env away from a runtime which the target has left
//	grants/<client>/<grant>            Grant, written once; replaced by a tombstone when it dies
//	chains/<client>/<grant>            its refresh chain: etcd's own version of this key is the generation
//	devices/<hash of user code>        Device, a device authorization; gone once it is redeemed
//	consents/<client>/<user>           Consent
//	users/<user>, sessions/<sid>       User, Session
//	sessiongrants/<sid>/<client>/<grant>  a grant with openid that came from the session, so that ending the session finds it
//	logouts/<sid>/<client>             Logout, the outbox: a client is to be told that the session has ended
//	keys/<use>/<sequence>              Key: keys that sign, seal, and make pairwise subjects; sealed
//	spent/<hash>                       a name that has been used up, see Once; leased in buckets
//	limits/<account>/<window>          guesses: etcd's own version of this key is the count
//	resources/<identifier>             the client that has this resource identifier (RFC 8707), see below
//	rotations/<client>                 SecretRotation, the newest change of its secret
//	secretuse/<client>/<secret>        SecretUse, when it was used, coarse; written outside of requests
//	audit/<time>-<random>              AuditEntry, appended in the transaction of what it describes; kept for 400 days
//
// Every segment is escaped, so a name can hold any byte, and a listing of "a" never sees "ab". All keys stand under one
// prefix of the cluster ([Options.Prefix]).
//
// # One transaction
//
// A change of several keys is one transaction, and what it depends on is compared in it:
//
//   - Redeeming a code creates the grant if it never existed; if it did, the code is a replay and the same transaction
//     kills the grant. A dead grant leaves a tombstone until no code can name it any more.
//   - A refresh moves the chain from generation N to N+1 if the chain is at N; if it is beyond N, the token is a replay
//     and a second transaction kills the grant before the request is answered. That a chain is beyond N stays true
//     whatever happens in between. A grant is alive exactly as long as its chain key exists.
//   - Ending a session kills the grants that came from it, except those that outlive it, and writes to the outbox which
//     clients to tell. Redeeming a code compares that its session exists, so that nothing is issued from one that has
//     ended.
//   - Code and refresh also compare the revisions of the client and of the user on which the caller decided. A mismatch
//     changes nothing and returns the current records in a [StaleError]; the caller decides anew and tries again.
//
// Both can include something that may be used only once ([Once]), such as the jti of the assertion with which the
// client authenticated: it is compared and marked in the same transaction, even if that kills the grant, but not if the
// transaction changes nothing because a record is stale.
//
// So a code exchange and a refresh are one raft proposal each and no read.
//
// A device polls with its code (RFC 8628), so the state is read first: a poll that has to wait is one read, and the one
// that is answered with tokens is a proposal more, which creates the grant as above and removes the device
// authorization.
//
// # Resource identifiers
//
// A resource identifier belongs to one client. The transaction that stores a client compares that the keys of its new
// identifiers are free, and puts them; so if replicas give one identifier to several apps at the same time, one
// succeeds, and the others learn which client has it ([TakenError]). Keys are freed in the transaction in which the
// client gives them up or is removed.
//
// Databases of older versions have no such keys. A store that opens puts the missing ones, each for the client that has
// had the identifier longest. That needs no downtime, and replicas of the older version may go on in the meantime,
// because the records of clients remain the truth: a key that its client's record does not confirm is void, and a
// client whose record has an identifier keeps it without a key. Two clients to which an older version gave the same
// identifier both keep it, and every start logs that.
//
// # Memory
//
// Clients and keys are held in memory, fed by list-then-watch. Memory may lag behind: nothing is decided on it alone
// (see above), and a client that memory does not know is looked up in etcd, at a bounded rate, before it is called
// unknown.
//
// # Secrets
//
// What is secret in a record (client secrets, private keys, env of deliveries) is sealed with XChaCha20-Poly1305 under
// a key-encryption key that is not in etcd ([KEK]). Session cookies are stored as hashes. The raw database holds no
// usable secret.
//
// A client has one secret, or two while one replaces the other ([SecretRotation]). Requests only note in memory that a
// secret was used; one goroutine writes that, coarsely and outside of requests ([Store.WriteUses]). A secret that
// memory does not know is looked up in etcd, if it looks like one of this server's and at a bounded rate, so that a new
// one works at every replica at once.
//
// # Time
//
// Limits are time fields in records, checked on use. Leases only clean up; they are shared in buckets (see leases).
package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"golang.org/x/time/rate"
)

// Sentinels. Any other error of this package is a fault of the storage or of its use, never a verdict about a record:
// the HTTP edge answers it with 503.
var (
	// ErrNotFound means that there is no such record, or that it is dead.
	ErrNotFound = errors.New("not found")
	// ErrConflict means that the record changed since it was read; nothing was written.
	ErrConflict = errors.New("changed since it was read")
	// ErrReplayed means that a code or refresh token was used again. Its grant is dead now.
	ErrReplayed = errors.New("used before")
	// ErrSpent means that a [Once] was used before; nothing was written.
	ErrSpent = errors.New("already spent")
	// ErrBusy means that there are too many look-ups of unknown clients at this moment.
	ErrBusy = errors.New("too many look-ups")
)

// StaleError means that a decision was made on records that have changed since. It carries the current ones; a nil
// record is gone. Nothing was written.
type StaleError struct {
	Client *Client
	User   *User
}

func (e *StaleError) Error() string { return "client or user changed since they were read" }

// revisions of the current records.
func (e *StaleError) revisions() Revisions {
	var r Revisions
	if e.Client != nil {
		r.Client = e.Client.Revision
	}
	if e.User != nil {
		r.User = e.User.Revision
	}
	return r
}

// Options of a [Store].
type Options struct {
	// Prefix under which all keys stand, such as "warifu/". It may be empty.
	Prefix string
	// KEK seals what is secret. Required.
	KEK *KEK
	// OneMember says that the etcd has one member alone, which confirms a write once it has applied it. So a read need not ask raft
	// whether there is more (a serializable read), which costs several times the read. Only look-ups of single records do without:
	// an event of a watch can come a moment before what it tells of can be read that way.
	OneMember bool
	// Logger for what happens in the background (watching, cleaning). Required.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Store holds the records. It is safe for concurrent use. Close ends its goroutines; it does not close the etcd client.
type Store struct {
	kv      clientv3.KV
	lone    bool             // the etcd has one member
	watcher clientv3.Watcher // without the prefix, see events
	prefix  string
	kek     *KEK
	log     *slog.Logger
	now     func() time.Time
	leases  *leases
	unknown *rate.Limiter // look-ups of clients that memory does not know

	mem  memory
	uses usage
	// trimmed is the day, since 1970, on which this replica last dropped what is too old from the audit log.
	trimmed atomic.Int64

	cancel context.CancelFunc
	done   sync.WaitGroup // the watches of memory
}

// New lists what memory holds, starts to watch it and returns a Store that is ready. It fails if etcd cannot be reached
// within ctx, or if the records were sealed under a key that opts.KEK does not hold.
func New(ctx context.Context, client *clientv3.Client, opts Options) (*Store, error) {
	if opts.KEK == nil {
		return nil, errors.New("open storage: no encryption key")
	}
	now := opts.Now
	if now == nil {
		now = time.Now
	}
	s := &Store{
		kv:      client.KV,
		lone:    opts.OneMember,
		watcher: client.Watcher,
		prefix:  opts.Prefix,
		kek:     opts.KEK,
		log:     opts.Logger,
		now:     now,
		unknown: rate.NewLimiter(50, 100),
	}
	lease := client.Lease
	if opts.Prefix != "" {
		s.kv, lease = namespace.NewKV(client.KV, opts.Prefix), namespace.NewLease(client.Lease, opts.Prefix)
	}
	s.leases = newLeases(lease, now)
	s.mem.init()
	s.uses.init()
	watchCtx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if err := s.follow(ctx, watchCtx); err != nil {
		cancel()
		s.done.Wait()
		return nil, fmt.Errorf("open storage: %w", err)
	}
	if err := s.adoptResources(ctx); err != nil {
		s.log.Warn("resource identifiers from older versions could not be given their keys", "error", err)
	}
	return s, nil
}

// Close ends the watches.
func (s *Store) Close() {
	s.cancel()
	s.done.Wait()
}

// Ping asks etcd for a linearizable read, so it fails when there is no quorum.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.kv.Get(ctx, "ping", clientv3.WithCountOnly()); err != nil {
		return fmt.Errorf("ping storage: %w", err)
	}
	return nil
}

// key joins escaped segments: key("clients", id).
func key(segments ...string) string {
	for i, seg := range segments {
		segments[i] = url.PathEscape(seg)
	}
	return strings.Join(segments, "/")
}

// under is the prefix of all keys below the segments, and of nothing else.
func under(segments ...string) string { return key(segments...) + "/" }

// lastSegment is the unescaped last segment of a key.
func lastSegment(k []byte) string {
	s := string(k)
	seg, err := url.PathUnescape(s[strings.LastIndexByte(s, '/')+1:])
	if err != nil {
		return ""
	}
	return seg
}

// encode is the only way in which a record becomes a value.
func encode(record any) string {
	b, err := json.Marshal(record)
	if err != nil {
		// Records are plain structs: an error is a mistake in this package.
		panic(fmt.Sprintf("storage: encode %T: %v", record, err))
	}
	return string(b)
}

func decode[T any](what string, value []byte) (*T, error) {
	record := new(T)
	if err := json.Unmarshal(value, record); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	return record, nil
}
