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
//	clientids/<app>                    FormerClient, the id of a removed client, which comes back with the app's client
//	formerids/<client>                 formerOwner: the app that had a client with this id, which nobody else ever gets
//	deliveries/<app>/<kind>/<target>   Delivery, the outbox: env that a runtime should serve
//	  .../<runtime>                    Delivery that takes env away from a runtime which the target has left
//	grants/<client>/<grant>            Grant, written once; replaced by a tombstone when it dies
//	chains/<client>/<grant>            its refresh chain: etcd's own version of this key is the generation
//	devices/<hash of user code>        Device, a device authorization; gone once it is redeemed
//	consents/<client>/<user>           Consent
//	endings/<client>                   all grants and consents of the client have ended and are being deleted, see endAll
//	users/<user>, sessions/<sid>       User, Session
//	factors/<user>                     Factors, what the user has here to prove who they are; sealed
//	handles/<user handle>              the user whom authenticators call so
//	logins/<login>                     the user of a managed account who signs in with this name or address
//	arrivals/<user>                    arrival, when the user last signed in
//	links/<connector>/<upstream id>    Link, an identity that signs in as another account
//	upstreams/<user>                   Upstream, what a connector needs to be asked about the user again; sealed
//	asks/<time>/<user>                 a note of when that is to be
//	signins/<user>                     history, the last sign-ins as the user, and those that failed
//	standing/..., names/..., usergrants/...  notes by which users and what they have are found, see indexes.go
//	complete/notes, complete/seals     complete: everything has such notes, or is sealed under one key, see complete.go
//	usersessions/<user>/<sid>          a note that the user has the session, for the bound on these; leased like it
//	userconsents/<user>/<client>       the same of consents
//	pastterms/<user>                   the outbox of what a user has left whose term has ended, see [User.Stands]
//	withdrawn/<client>/<user>          a mark that a consent was withdrawn, by its revision; leased
//	sessiongrants/<sid>/<client>/<grant>  a grant with openid that came from the session, which ends it
//	logouts/<sid>/<client>             Logout, the outbox: a client is to be told that the session has ended
//	keys/<use>/<sequence>              Key: keys that sign, seal, and make pairwise subjects; sealed
//	compromised/<thumbprint>           CompromisedKey: a key that has ended, and is used no more wherever it comes from
//	compromised/moved                  moved: the records came from another etcd, see moved.go
//	encryption/key                     turn: under which encryption key all replicas seal, see encryption.go
//	clocks/<replica>                   clock: what time a replica says it is, and what it runs
//	spent/<hash>                       a name that has been used up, see Once; leased in buckets
//	limits/<account>/<window>          guesses at users who exist: etcd's own version of this key is the count
//	resources/<identifier>             the client that has this resource identifier (RFC 8707), see below
//	rotations/<client>                 SecretRotation, the newest change of its secret
//	secretuse/<client>/<secret>        SecretUse, when it was used, coarse; written outside of requests
//	audit/<time>-<random>              AuditEntry, appended in the transaction of what it describes; kept for 400 days
//	activity/<time>-<random>           the same, of what users, clients and strangers did; bounded in number as well
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
//   - Removing a client ends all its grants with one key, however many they are; the records are deleted afterwards, in
//     portions, so that nobody waits for it.
//   - Everything that is begun for a user carries the user's term, and counts in no other ([User.Stands]). One put of
//     the user's record ends all of it: a changed password, a user who is disabled or removed, an operator. A consent
//     that is withdrawn takes along the codes that rest on it, see [Store.RevokeConsent].
//   - What a user has to prove who they are is one record ([Factors]). Its revision is compared in the transaction of
//     whatever follows from it: the session that a code or a passkey begins or raises, an enrolment, a new password. So
//     a recovery code, a step of an authenticator app and a counter count once.
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
// A resource identifier belongs to one client, in all its equivalent spellings. The transaction that stores a client
// compares that the keys of its new identifiers are free, and puts them; so if replicas give one identifier to several
// apps at the same time, one succeeds, and the others learn which client has it ([TakenError]). Keys are freed in the
// transaction in which the client gives them up or is removed.
//
// Databases of older versions have no such keys. A store that opens puts the missing ones, each for the client that has
// had the identifier longest. That needs no downtime, and replicas of the older version may go on in the meantime,
// because the records of clients remain the truth: a key that its client's record does not confirm is void, and a
// client whose record has an identifier keeps it without a key. Two clients to which an older version gave the same
// identifier both keep it, and every start logs that.
//
// # People
//
// There may be very many, and no replica has them in memory. A sign-in reads the records of one; whatever concerns some
// of them follows notes that lead there (indexes.go); and a start goes through none, because marks say what holds for
// all (complete.go). Lists of all have pages.
//
// # Memory
//
// Clients and keys are held in memory, fed by list-then-watch. Memory may lag behind: nothing is decided on it alone
// (see above), and a client that memory does not know is looked up in etcd, at a bounded rate, before it is called
// unknown.
//
// # Secrets
//
// What is secret in a record (client secrets, private keys, env of deliveries, what connectors keep of users, all that
// users have to prove who they are) is sealed with XChaCha20-Poly1305 under a key-encryption key that is not in etcd
// ([KEK]). Which one seals is in a record that all replicas follow (encryption.go), so it is replaced while they run.
// Session cookies are stored as hashes. The raw database holds no usable secret.
//
// A client has one secret, or two while one replaces the other ([SecretRotation]). Requests only note in memory that a
// secret was used; one goroutine writes that, coarsely and outside of requests ([Store.WriteUses]). A secret that
// memory does not know is looked up in etcd, if it looks like one of this server's and at a bounded rate, so that a new
// one works at every replica at once.
//
// # Room
//
// etcd refuses to write once its file has reached a quota, although most of the file may be unused, and until somebody
// says that there is room again. A store looks at its etcd every few seconds ([Store.Condition]). In an embedded one it
// makes room: it drops the history of records, gives the unused part of the file back and lets etcd write again; of a
// cluster it says what its operators have to do. Writing is refused with [ErrFull] in the meantime, but what ends
// something is not: such a verb is tried once more as a transaction that only deletes, which etcd lets through.
//
// # Members that fail
//
// A request that writes is sent once: that no answer came does not mean that nothing was written. One that only reads
// is tried at another member when the first does not answer within two seconds; of three or more members, one that owes
// an answer for that long is then left alone for ten. A connection that owes an answer and is silent for five is
// closed. An embedded etcd that gives up, because its disk is full or its log is damaged, would end the process on the
// spot: here it stops, and its owner is told ([Embedded.Failed]). Of what etcd logs, warnings and errors are passed on,
// each kind at most once a minute.
//
// # Backups
//
// [Store.Backup] is a snapshot of etcd, in the format of etcd's own tools, or, of a cluster, an encrypted export of the
// records in it (backup.go). [Restoration] makes the database of a data directory from the one, and [Importing.Restore]
// the records of an empty etcd from the other. Either begins a new epoch, because a backup revives what has ended since
// it was made: grants, sessions, consents and what else was issued are deleted, the keys that sign and seal are
// replaced, and codes of users that count once are used up. [Verification] finds out what is wrong with a backup, or
// with what an etcd holds.
//
// # Moving
//
// [Store.Export] and [Importing] bring all records to another etcd, where revisions and generations go on (moved.go).
//
// # Time
//
// Limits are time fields in records, checked on use. Leases only clean up; they are shared in buckets (see leases).
//
// Clocks may be wrong, and nobody knows whose. So a clock never decides which key signs: a key has its turn by a
// transaction, and from then on it is the one that signs for all replicas. When its turn comes, and when a key is
// dropped, does depend on the time, and happens only after the clocks of all replicas that were heard have agreed for
// an hour (see clocks); a key that stays longer than it need does no harm.
package storage

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
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

	"github.com/warifu/warifu/server/metrics"
)

// Sentinels. Any other error of this package is a fault of the storage or of its use, never a verdict about a record:
// the HTTP edge answers it with 503.
var (
	// ErrNotFound means that there is no such record, or that it is dead.
	ErrNotFound = errors.New("not found")
	// ErrDisabled is the [ErrNotFound] of a client that is there, and is disabled.
	ErrDisabled = fmt.Errorf("%w: it is disabled", ErrNotFound)
	// ErrConflict means that the record changed since it was read; nothing was written.
	ErrConflict = errors.New("changed since it was read")
	// ErrReplayed means that a code or refresh token was used again. Its grant is dead now.
	ErrReplayed = errors.New("used before")
	// ErrSpent means that a [Once] was used before; nothing was written.
	ErrSpent = errors.New("already spent")
	// ErrFull means that etcd is out of room. Nothing was written; what ends something is not refused for that.
	ErrFull = errors.New("storage is full")
	// ErrBusy means that there are too many look-ups of unknown clients at this moment.
	ErrBusy = errors.New("too many lookups")
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
	// OwnKey is the file of the encryption key, if this program has made it and keeps it; empty: its operators do.
	OwnKey string
	// OneMember says that the etcd has one member alone, which confirms a write once it has applied it. So a read need not
	// ask raft whether there is more (a serializable read), which costs several times the read. Only look-ups of single
	// records do without: an event of a watch can come a moment before what it tells of can be read that way.
	OneMember bool
	// Embedded is the etcd of the client, if it is embedded: the store makes room in it.
	Embedded *Embedded
	// Metrics count what etcd is asked, and tell of ages and sizes; nil counts nothing.
	Metrics *metrics.Metrics
	// Logger for what happens in the background (watching, cleaning). Required.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// NewRSA makes RSA keys; nil means new ones of 2048 bits. Tests reuse some, because one takes a tenth of a second.
	NewRSA func() (*rsa.PrivateKey, error)

	unfinished bool // the store finishes an import
}

// Store holds the records. It is safe for concurrent use. Close ends its goroutines; it does not close the etcd client.
type Store struct {
	kv       clientv3.KV
	lone     bool             // the etcd has one member
	embedded bool             // it is this program's alone
	watcher  clientv3.Watcher // without the prefix, see events
	prefix   string
	keks     atomic.Pointer[KEK] // as of now, see encryption.go
	log      *slog.Logger
	now      func() time.Time
	newRSA   func() (*rsa.PrivateKey, error)
	leases   *leases
	unknown  *rate.Limiter // look-ups of clients that memory does not know

	keeper *keeper // nil where the client cannot be asked about its etcd

	measures measures

	mem     memory
	endings endings
	indexes indexes
	uses    usage
	clocks  clocks
	// shift is added to etcd's revisions, and moved is the revision of the move; 0 if the records never moved, see
	// moved.go.
	shift, moved int64
	sealing      sealing
	// trimmed is the day, since 1970, on which this replica last dropped what is too old from the audit log.
	trimmed atomic.Int64
	// swept is until when registrations that are in use need not be looked at again. It belongs to Sweep.
	swept map[string]time.Time

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
		kv:       client.KV,
		lone:     opts.OneMember,
		embedded: opts.Embedded != nil,
		watcher:  client.Watcher,
		prefix:   opts.Prefix,
		log:      opts.Logger,
		now:      now,
		unknown:  rate.NewLimiter(50, 100),
	}
	s.keks.Store(opts.KEK)
	s.sealing.init(opts.OwnKey)
	s.measures = newMeasures(opts.Metrics)
	lease := client.Lease
	if opts.Prefix != "" {
		s.kv, lease = namespace.NewKV(client.KV, opts.Prefix), namespace.NewLease(client.Lease, opts.Prefix)
	}
	s.kv = &measured{s.kv, &s.measures}
	s.newRSA = opts.NewRSA
	if s.newRSA == nil {
		s.newRSA = func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }
	}
	s.leases = newLeases(lease, now)
	s.mem.init()
	s.endings.changed = make(chan struct{}, 1)
	s.uses.init()
	s.clocks.init(now())
	watchCtx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if client.Maintenance != nil {
		s.keeper = newKeeper(client, opts.Embedded, opts.Logger)
		if opts.Embedded != nil {
			s.keeper.look(ctx) // before anything is written: there may be no room
		}
		s.done.Go(func() { s.keeper.run(watchCtx) })
	}
	if err := s.openMoved(ctx, opts.unfinished); err != nil {
		cancel()
		s.done.Wait()
		return nil, fmt.Errorf("open storage: %w", err)
	}
	if err := s.follow(ctx, watchCtx); err != nil {
		cancel()
		s.done.Wait()
		return nil, fmt.Errorf("open storage: %w", err)
	}
	err := s.dropReplicas(ctx)
	if err == nil {
		err = s.openTurn(ctx)
	}
	if err == nil {
		err = s.openComplete(ctx)
	}
	if err != nil {
		cancel()
		s.done.Wait()
		return nil, fmt.Errorf("open storage: %w", err)
	}
	if err := s.adoptResources(ctx); err != nil {
		s.log.Warn("resource identifiers from older versions could not be indexed", "error", err)
	}
	if err := s.adoptIdentities(ctx); err != nil {
		s.log.Warn("workloads could not be indexed", "error", err)
	}
	s.done.Go(func() { s.finishEndings(watchCtx) })
	s.done.Go(func() { s.askWatches(watchCtx) })
	opts.Metrics.Source("storage", s.told)
	return s, nil
}

// Close ends the watches. An embedded etcd that has given up answers nobody, also not those that go: they are left with
// it.
func (s *Store) Close() {
	s.unannounce()
	s.cancel()
	if s.keeper == nil || s.keeper.embedded == nil {
		s.done.Wait()
		return
	}
	ended := make(chan struct{})
	go func() { // ends with those that it waits for, or with the process
		s.done.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-s.keeper.embedded.Failed():
	}
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
