package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// tombstoneLife is how long a dead grant is remembered, and for how long at least that a grant existed. It outlives
// every authorization code by far, so a code can never be redeemed twice, nor after its grant has died.
const tombstoneLife = time.Hour

func grantKey(client, id string) string { return key("grants", client, id) }
func chainKey(client, id string) string { return key("chains", client, id) }
func userKey(id string) string          { return key("users", id) }
func clientKey(id string) string        { return key("clients", id) }

// Revisions are those of the client and the user on which a decision was made; 0 means that there was no such record. A
// verb that takes them compares that both are unchanged.
type Revisions struct {
	Client, User int64
}

// same compares that client and user are still at these revisions.
func (r Revisions) same(clientID, userID string) []clientv3.Cmp {
	return []clientv3.Cmp{atRevision(clientKey(clientID), r.Client), atRevision(userKey(userID), r.User)}
}

// CreateGrant redeems the code that names grant.ID: it stores the grant and starts its refresh chain at generation 1,
// in one transaction, provided that the grant never existed and that client and user are still at the given revisions.
// chainEnds is when the first refresh token expires.
//
// A grant that came from a session ([Grant.Session]) is recorded with it, provided that the session still exists. One
// of a browser at a host ([Grant.Host]) ends those that the session has there, but for those of the last minute: that
// costs a read.
//
// It returns the user as of that transaction, so that what a reply says about them costs no read.
//
// Errors: [ErrReplayed] when the grant exists or has existed, and it is dead now; [ErrSessionEnded] when its session
// has ended, [ErrWithdrawn] when the consent was withdrawn, and a [StaleError] when client or user changed: then
// nothing was written; [ErrSpent] when one of once was used before, and nothing was written, whatever the grant is.
// With [ErrReplayed], too, once is used now.
func (s *Store) CreateGrant(ctx context.Context, grant Grant, chainEnds time.Time, on Revisions,
	once ...Once) (*User, error) {
	user, err := s.redeem(ctx, redemption{of: "code", grant: grant, chainEnds: chainEnds, on: on, once: once})
	if err != nil {
		return nil, fmt.Errorf("create grant: %w", err)
	}
	return user, nil
}

// redemption is what redeeming a code or a device code takes.
type redemption struct {
	of        string // what is redeemed, for the audit log
	grant     Grant
	chainEnds time.Time
	on        Revisions
	once      []Once
	// device is the key of the device authorization, which has to be at a revision, and goes; "" for none.
	device         string
	deviceRevision int64
}

// redeem is the transaction that begins a grant:
//
//	if once is unused, client and user are as they were, the grant never existed, its session stands, the consent was
//	not withdrawn, the device authorization is there
//	  store the grant and its chain, note it with the session and with the user, bury those that it replaces, drop the
//	  device authorization, use once; read the user
//	otherwise, if once is unused
//	  if the grant exists or has existed: bury it, use once
//	  otherwise: read what has changed
func (s *Store) redeem(ctx context.Context, r redemption) (*User, error) {
	grant := &r.grant
	gk, ck := grantKey(grant.ClientID, grant.ID), chainKey(grant.ClientID, grant.ID)
	now := s.now()
	replaces, err := s.replacedBy(ctx, *grant)
	if err != nil {
		return nil, err
	}
	var replay transaction
	var unused *transaction
	var look records
	var session, device, user *found
	t, err := s.commit(ctx, func(t *transaction) error {
		body, err := s.leases.until(ctx, remembered(grant.ExpiresAt, now))
		if err != nil {
			return err
		}
		chain, err := s.leases.until(ctx, r.chainEnds)
		if err != nil {
			return err
		}
		bury, err := s.bury(ctx, grant.ClientID, grant.ID, AuditEntry{
			Actor: ClientActor(grant.ClientID), Action: AuditGrantReplayed, Reason: r.of + " replayed", User: grant.UserID})
		if err != nil {
			return err
		}
		spend, err := s.spend(ctx, r.once)
		if err != nil {
			return err
		}
		noted, err := s.sessionOps(ctx, *grant)
		if err != nil {
			return err
		}
		replaced, err := s.replaceOps(ctx, *grant, replaces)
		if err != nil {
			return err
		}
		note, err := s.noteGrant(ctx, grant, body)
		if err != nil {
			return err
		}
		t.onlyIf(unspent(r.once)...)
		t.onlyIf(r.on.same(grant.ClientID, grant.UserID)...)
		t.onlyIf(absent(gk))
		t.onlyIf(sessionCmp(*grant)...)
		t.onlyIf(notWithdrawn(grant.ClientID, grant.UserID, grant.AsOf)...)
		t.then.do(spend...)
		t.then.do(noted...)
		t.then.do(replaced...)
		t.then.do(clientv3.OpPut(gk, encodeGrant(grant), clientv3.WithLease(body)),
			clientv3.OpPut(ck, link{At: now.UnixMilli()}.encode(), clientv3.WithLease(chain)), note)
		user = t.then.get(userKey(grant.UserID))

		replay = transaction{ifs: []clientv3.Cmp{present(gk)}}
		replay.then.do(bury...)
		replay.then.do(spend...)
		look = lookAt(&replay.otherwise, grant.ClientID, grant.UserID)
		if grant.Session != "" {
			session = replay.otherwise.get(sessionKey(grant.Session), clientv3.WithCountOnly())
		}
		if r.device != "" {
			t.onlyIf(atRevision(r.device, r.deviceRevision))
			t.then.do(clientv3.OpDelete(r.device))
			device = replay.otherwise.get(r.device)
		}
		unused = t.otherwise.ifUnspent(r.once, &replay)
		return nil
	})
	switch {
	case errors.Is(err, ErrFull):
		return nil, s.redeemed(ctx, r, err)
	case err != nil:
		return nil, err
	case t.held:
		return decodeUsers(user.kvs)
	case !unused.held:
		return nil, ErrSpent
	case replay.held:
		return nil, ErrReplayed
	case session != nil && session.count == 0:
		return nil, ErrSessionEnded
	case device != nil && (device.one() == nil || device.one().ModRevision != r.deviceRevision):
		return nil, ErrNotFound
	}
	stale := s.stale(look)
	if grant.AsOf > 0 && stale.revisions() == r.on { // everything else is as it has to be
		return nil, ErrWithdrawn
	}
	return nil, stale
}

// redeemed deals with a code that comes when etcd is full. It cannot be redeemed; but if it was before, it is a replay,
// and the grant ends. An etcd that fills up may say so of what it has just written: that is no replay.
func (s *Store) redeemed(ctx context.Context, r redemption, full error) error {
	grant := &r.grant
	resp, err := s.kv.Get(ctx, grantKey(grant.ClientID, grant.ID))
	if err != nil {
		return err
	}
	if len(resp.Kvs) == 0 || string(resp.Kvs[0].Value) == encodeGrant(grant) {
		return full
	}
	ref := GrantRef{ClientID: grant.ClientID, GrantID: grant.ID}
	return s.buryReplayed(ctx, ref, AuditEntry{
		Actor: ClientActor(grant.ClientID), Action: AuditGrantReplayed, Reason: r.of + " replayed"}, r.once)
}

// remembered is until when the record of a grant stays, which may be longer than the grant: as long as it is there, its
// code is known to be redeemed.
func remembered(expires, now time.Time) time.Time {
	if least := now.Add(tombstoneLife); expires.Before(least) {
		return least
	}
	return expires
}

// GrantRef names a place in a refresh chain: what a refresh token holds.
type GrantRef struct {
	ClientID   string
	GrantID    string
	UserID     string
	Generation int64
	// At and Before are those of the [Rotation] that led there; only a reuse interval asks for them.
	At     time.Time
	Before []Step
	// Base and Move are those of that Rotation, too; 0 of one that was not in a chain from another etcd.
	Base, Move int64
	// WithUser asks for [Rotation.User].
	WithUser bool
}

// Rotation is a refresh chain's step: the generation that is valid now, since At.
type Rotation struct {
	Generation int64
	At         time.Time
	// Before are the steps before it that the chain remembers. The next refresh token holds them.
	Before []Step
	// Base and Move say how the generation is counted in a chain that came from another etcd; see moved.go. The next
	// refresh token holds them, if they are not 0.
	Base, Move int64
	User       *User // as of the transaction, which has read it along; nil unless it was asked for
}

// RotateGrant moves a refresh chain from ref's generation to the next in one transaction, provided that client and user
// are still at the given revisions. chainEnds is when the next refresh token expires.
//
// With reuse > 0, a token that was used, but not longer ago than that, gets the newest step of its chain again, as it
// was made, however far the chain has moved since: so there is one chain always, whoever asks. Otherwise a token that
// is not the newest of its chain is a replay.
//
// Errors: [ErrReplayed] for a replay, and the grant is dead now; [ErrNotFound] if the grant was dead already; a
// [StaleError] if client or user changed, and nothing was written; [ErrSpent] if one of once was used before, and
// nothing was written, whatever the state of the grant. If the grant is moved or killed, or the newest step is returned
// again, once is used now.
func (s *Store) RotateGrant(ctx context.Context, ref GrantRef, chainEnds time.Time, reuse time.Duration, on Revisions,
	once ...Once) (Rotation, error) {
	rotation, err := s.rotateGrant(ctx, ref, chainEnds, reuse, on, once)
	if err != nil {
		return Rotation{}, fmt.Errorf("rotate grant: %w", err)
	}
	return rotation, nil
}

// rotateGrant is the transaction that moves a chain: if once is unused, client and user are as they were and the chain
// is at the token's generation, move the chain and use once. A token from before a move of the records does not know
// how its chain counts now, so that may take a second transaction.
//
// All of a transaction goes through raft with every refresh, also a branch that is not taken. So what was wrong is
// looked up afterwards, and a replay is dealt with in a transaction of its own, see buryReplayed: a chain that was
// found to be beyond a token never comes back to it.
func (s *Store) rotateGrant(ctx context.Context, ref GrantRef, chainEnds time.Time, reuse time.Duration, on Revisions,
	once []Once) (Rotation, error) {
	for {
		rotation, err := s.rotateFrom(ctx, ref, chainEnds, reuse, on, once)
		counts, is := errors.AsType[*countsFrom](err)
		if !is {
			return rotation, err
		}
		ref.Base, ref.Move = counts.base, s.moved
	}
}

// countsFrom is an answer for a token that is the newest of a chain which came from another etcd, and does not know it.
type countsFrom struct{ base int64 }

func (c *countsFrom) Error() string {
	return fmt.Sprintf("the chain has %d generations before it came here", c.base)
}

// rotateFrom is one try of that.
func (s *Store) rotateFrom(ctx context.Context, ref GrantRef, chainEnds time.Time, reuse time.Duration, on Revisions,
	once []Once) (Rotation, error) {
	ck := chainKey(ref.ClientID, ref.GrantID)
	now := s.now()
	ref.Base, ref.Move = ref.counted(s.moved)
	next, user := ref.next(now, reuse), new(found)
	t, err := s.commit(ctx, func(t *transaction) error {
		lease, err := s.leases.until(ctx, chainEnds)
		if err != nil {
			return err
		}
		spend, err := s.spend(ctx, once)
		if err != nil {
			return err
		}
		t.onlyIf(unspent(once)...)
		t.onlyIf(on.same(ref.ClientID, ref.UserID)...)
		t.onlyIf(s.atGeneration(ck, ref)...)
		t.then.do(spend...)
		t.then.do(clientv3.OpPut(ck, next.encode(), clientv3.WithLease(lease)))
		if ref.WithUser {
			user = t.then.get(userKey(ref.UserID))
		}
		return nil
	})
	full := errors.Is(err, ErrFull) // a replay is still one
	if err != nil && !full {
		return Rotation{}, err
	}
	if !full && t.held {
		made := next.rotation(ref.Generation+1, ref.Move)
		made.User, err = decodeUsers(user.kvs)
		return made, err
	}
	refusal := err
	var after transaction
	look, chain := lookAt(&after.then, ref.ClientID, ref.UserID), after.then.get(ck)
	var spent []*found
	for _, o := range once {
		spent = append(spent, after.then.get(spentKey(o.ID), clientv3.WithCountOnly()))
	}
	if err := s.run(ctx, &after); err != nil {
		return Rotation{}, err
	}
	switch {
	case slices.ContainsFunc(spent, func(f *found) bool { return f.count > 0 }):
		return Rotation{}, ErrSpent
	case chain.one() == nil:
		return Rotation{}, ErrNotFound
	}
	newest, err := decodeChain(chain.one())
	switch {
	case err != nil:
		return Rotation{}, err
	case newest.generation < ref.Generation:
		return Rotation{}, ErrNotFound
	case full && (newest.generation == ref.Generation || string(chain.one().Value) == next.encode()):
		return Rotation{}, refusal // an etcd that fills up may say so of what it has just written
	case newest.generation == ref.Generation && newest.move(s.moved) != ref.Move:
		return Rotation{}, &countsFrom{newest.Base}
	case newest.generation == ref.Generation:
		return Rotation{}, s.stale(look)
	}
	// The token was used before.
	if !newest.usedWithin(reuse, now, ref.Generation, newest.generation) {
		return Rotation{}, s.buryReplayed(ctx, ref, AuditEntry{
			Actor: ClientActor(ref.ClientID), Action: AuditGrantReplayed, Reason: "refresh token replayed"}, once)
	}
	stale := s.stale(look)
	if stale.revisions() != on {
		return Rotation{}, stale
	}
	for _, o := range once { // a look has written nothing
		if err := s.Spend(ctx, o); err != nil {
			return Rotation{}, err
		}
	}
	again := newest.rotation(newest.generation, newest.move(s.moved))
	again.User = stale.User
	return again, nil
}

// buryReplayed ends a grant, one of whose tokens came again, and uses once. Its error is [ErrReplayed], or [ErrSpent]
// when once was used meanwhile: then nothing was written.
func (s *Store) buryReplayed(ctx context.Context, ref GrantRef, why AuditEntry, once []Once) error {
	t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		why.User = ref.UserID
		bury, err := s.bury(ctx, ref.ClientID, ref.GrantID, why)
		if err != nil {
			return err
		}
		spend, err := s.spend(ctx, once)
		t.onlyIf(unspent(once)...)
		t.then.do(bury...)
		t.then.do(spend...)
		return err
	})
	switch {
	case err != nil:
		return err
	case !t.held:
		return ErrSpent
	}
	return ErrReplayed
}

// KillGrant ends a grant and everything issued from it, and reports whether the grant was alive. If it was, why is
// written to the audit log, and its reason stays with the grant.
func (s *Store) KillGrant(ctx context.Context, clientID, grantID string, why AuditEntry) (bool, error) {
	alive, err := s.killGrant(ctx, clientID, grantID, why, nil)
	if err != nil {
		return false, fmt.Errorf("kill grant: %w", err)
	}
	return alive, nil
}

// killGrant is the transaction that ends a grant, and does what also gives besides; nil for nothing.
func (s *Store) killGrant(ctx context.Context, clientID, grantID string, why AuditEntry,
	also func(context.Context) ([]clientv3.Op, error)) (alive bool, err error) {
	t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		bury, err := s.buryLiving(ctx, clientID, grantID, why)
		if err != nil {
			return err
		}
		t.onlyIf(present(chainKey(clientID, grantID)))
		t.then.do(bury...)
		if also == nil {
			return nil
		}
		ops, err := also(ctx)
		t.then.do(ops...)
		return err
	})
	if err != nil {
		return false, err
	}
	return t.held, nil
}

// GrantView is a grant with what the validity of its tokens depends on, read at one revision.
type GrantView struct {
	Grant      *Grant
	User       *User // nil when the user is gone
	Generation int64 // of the refresh chain
	// ClientRevision is that of the record of the client to which the grant was given; 0 if it has none.
	ClientRevision int64
}

// Grant reads a live grant and its user: one read. It returns [ErrNotFound] for a dead or unknown one.
func (s *Store) Grant(ctx context.Context, clientID, grantID, userID string) (GrantView, error) {
	var t transaction
	grant := readGrant(&t, clientID, grantID, userID)
	if err := s.run(ctx, &t); err != nil {
		return GrantView{}, fmt.Errorf("read grant: %w", err)
	}
	return grant.view()
}

// GrantThrough is Grant, read together with the record of the client that uses the grant, which after a token exchange
// is not the one that it was given to: still one read. The client is nil if it is gone or disabled. If onceID is the ID
// of a [Once] that has been used, the error is [ErrSpent].
func (s *Store) GrantThrough(ctx context.Context, clientID, grantID, userID, throughID,
	onceID string) (GrantView, *Client, error) {
	var t transaction
	grant := readGrant(&t, clientID, grantID, userID)
	through, spent := t.then.get(clientKey(throughID)), getSpent(&t, onceID)
	if err := s.run(ctx, &t); err != nil {
		return GrantView{}, nil, fmt.Errorf("read grant: %w", err)
	}
	view, err := grant.view()
	if err != nil {
		return GrantView{}, nil, err
	}
	if spent.count > 0 {
		return GrantView{}, nil, ErrSpent
	}
	c, err := s.current(through.kvs)
	if errors.Is(err, ErrNotFound) {
		return view, nil, nil
	}
	return view, c, err
}

// grantRead is the read that leads to a [GrantView].
type grantRead struct{ grant, chain, user, ended, client *found }

func readGrant(t *transaction, clientID, grantID, userID string) grantRead {
	return grantRead{
		t.then.get(grantKey(clientID, grantID)), t.then.get(chainKey(clientID, grantID)),
		t.then.get(userKey(userID)), hasEnded(t, clientID),
		t.then.get(clientKey(clientID), clientv3.WithKeysOnly()), // whoever knows the client by heart needs no more
	}
}

// hasEnded asks whether all grants of a client have ended, see [Store.endAll].
func hasEnded(t *transaction, clientID string) *found {
	return t.then.get(endingKey(clientID), clientv3.WithCountOnly())
}

func (r grantRead) view() (GrantView, error) {
	body, chain := r.grant.one(), r.chain.one()
	if body == nil || chain == nil || r.ended.count > 0 {
		return GrantView{}, ErrNotFound
	}
	grant, err := decodeGrant(body)
	if err != nil {
		return GrantView{}, fmt.Errorf("read grant: %w", err)
	}
	at, err := decodeChain(chain)
	if err != nil {
		return GrantView{}, fmt.Errorf("read grant: %w", err)
	}
	view := GrantView{Grant: grant, Generation: at.generation}
	if kv := r.client.one(); kv != nil {
		view.ClientRevision = kv.ModRevision
	}
	if view.User, err = decodeUsers(r.user.kvs); err != nil {
		return GrantView{}, fmt.Errorf("read grant: %w", err)
	}
	return view, nil
}

// bury are the operations that replace a grant by a tombstone, and write to the audit log if the grant was alive.
func (s *Store) bury(ctx context.Context, clientID, grantID string, why AuditEntry) ([]clientv3.Op, error) {
	ops, err := s.buryLiving(ctx, clientID, grantID, why)
	if err == nil {
		ops[0] = clientv3.OpTxn([]clientv3.Cmp{present(chainKey(clientID, grantID))}, []clientv3.Op{ops[0]}, nil)
	}
	return ops, err
}

// buryLiving is bury for a transaction that compares that the grant is alive.
func (s *Store) buryLiving(ctx context.Context, clientID, grantID string, why AuditEntry) ([]clientv3.Op, error) {
	lease, err := s.leases.until(ctx, s.now().Add(tombstoneLife))
	if err != nil {
		return nil, err
	}
	why.Detail = "grant " + grantID
	if c := s.mem.client(clientID); c != nil {
		why.App = c.App
	}
	ops := []clientv3.Op{
		s.auditOp(ctx, why),
		clientv3.OpPut(grantKey(clientID, grantID), tombstone(why.Reason), clientv3.WithLease(lease)),
		clientv3.OpDelete(chainKey(clientID, grantID)),
	}
	if why.User != "" && markOf(grantID) == grantID { // the note is of this grant alone
		ops = append(ops, clientv3.OpDelete(key("usergrants", why.User, clientID, grantID)))
	}
	return ops, nil
}

// records are the reads of the records on which a decision was made.
type records struct{ client, user *found }

func lookAt(b *branch, clientID, userID string) records {
	return records{client: b.get(clientKey(clientID)), user: b.get(userKey(userID))}
}

// stale returns the current records to the caller, and updates memory. A record that cannot be decoded counts as gone,
// because it cannot be used either.
func (s *Store) stale(look records) *StaleError {
	stale := &StaleError{}
	if kv := look.client.one(); kv != nil {
		if c, err := decodeClient(kv); err == nil {
			s.mem.learn(c)
			stale.Client = c
		} else {
			s.log.Error("a stored client cannot be decoded", "error", err)
		}
	}
	var err error
	if stale.User, err = decodeUsers(look.user.kvs); err != nil {
		s.log.Error("a stored user cannot be decoded", "error", err)
	}
	return stale
}
