package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// link is the value of a chain key: when the chain reached its present generation.
type link struct {
	At int64 `json:"at"` // Unix milliseconds
}

// tombstoneLife is how long a dead grant is remembered. It outlives every authorization code by far, so a code can
// never be redeemed after its grant has died.
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
// A grant that came from a session ([Grant.Session]) is recorded with it, provided that the session still exists.
//
// Errors: [ErrReplayed] when the grant exists or has existed, and it is dead now; [ErrSessionEnded] when its session
// has ended, and a [StaleError] when client or user changed: then nothing was written; [ErrSpent] when one of once was
// used before, and nothing was written, whatever the grant is. With [ErrReplayed], too, once is used now.
func (s *Store) CreateGrant(ctx context.Context, grant Grant, chainEnds time.Time, on Revisions, once ...Once) error {
	err := s.redeem(ctx, redemption{of: "code", grant: grant, chainEnds: chainEnds, on: on, once: once})
	if err != nil {
		return fmt.Errorf("create grant: %w", err)
	}
	return nil
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
//	if once is unused, client and user are as they were, the grant never existed, its session stands, the device authorization is there
//	  store the grant and its chain, note it with the session, drop the device authorization, use once
//	otherwise, if once is unused
//	  if the grant exists or has existed: bury it, use once
//	  otherwise: read what has changed
func (s *Store) redeem(ctx context.Context, r redemption) error {
	grant := &r.grant
	gk, ck := grantKey(grant.ClientID, grant.ID), chainKey(grant.ClientID, grant.ID)
	now := s.now()
	var replay transaction
	var unused *transaction
	var look records
	var session, device *found
	t, err := s.commit(ctx, func(t *transaction) error {
		body, err := s.leases.until(ctx, grant.ExpiresAt)
		if err != nil {
			return err
		}
		chain, err := s.leases.until(ctx, r.chainEnds)
		if err != nil {
			return err
		}
		bury, err := s.bury(ctx, grant.ClientID, grant.ID, AuditEntry{
			Actor: ClientActor(grant.ClientID), Action: AuditGrantReplayed, Reason: r.of + " replayed"})
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
		t.onlyIf(unspent(r.once)...)
		t.onlyIf(r.on.same(grant.ClientID, grant.UserID)...)
		t.onlyIf(absent(gk))
		t.onlyIf(sessionCmp(*grant)...)
		t.then.do(spend...)
		t.then.do(noted...)
		t.then.do(clientv3.OpPut(gk, encode(grant), clientv3.WithLease(body)),
			clientv3.OpPut(ck, encode(link{At: now.UnixMilli()}), clientv3.WithLease(chain)))

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
	case err != nil:
		return err
	case t.held:
		return nil
	case !unused.held:
		return ErrSpent
	case replay.held:
		return ErrReplayed
	case session != nil && session.count == 0:
		return ErrSessionEnded
	case device != nil && (device.one() == nil || device.one().ModRevision != r.deviceRevision):
		return ErrNotFound
	}
	return s.stale(look)
}

// GrantRef names a place in a refresh chain: what a refresh token holds.
type GrantRef struct {
	ClientID   string
	GrantID    string
	UserID     string
	Generation int64
}

// Rotation is a refresh chain's step: the generation that is valid now, since At.
type Rotation struct {
	Generation int64
	At         time.Time
}

// RotateGrant moves a refresh chain from ref's generation to the next in one transaction, provided that client and user
// are still at the given revisions. chainEnds is when the next refresh token expires.
//
// With reuse > 0, a token whose successor is not older than that and has not been used gets the same successor again:
// the Rotation as it was made. Otherwise a token that is not the newest of its chain is a replay.
//
// Errors: [ErrReplayed] for a replay, and the grant is dead now; [ErrNotFound] if the grant was dead already; a
// [StaleError] if client or user changed, and nothing was written; [ErrSpent] if one of once was used before, and
// nothing was written, whatever the state of the grant. If the grant is moved or killed, or the same successor is
// returned again, once is used now.
func (s *Store) RotateGrant(ctx context.Context, ref GrantRef, chainEnds time.Time, reuse time.Duration, on Revisions, once ...Once) (Rotation, error) {
	rotation, err := s.rotateGrant(ctx, ref, chainEnds, reuse, on, once)
	if err != nil {
		return Rotation{}, fmt.Errorf("rotate grant: %w", err)
	}
	return rotation, nil
}

// rotateGrant is the transaction that moves a chain: if once is unused, client and user are as they were and the chain
// is at the token's generation, move the chain and use once.
//
// All of a transaction goes through raft with every refresh, also a branch that is not taken. So what was wrong is
// looked up afterwards, and a replay is dealt with in a transaction of its own, see buryReplayed: a chain that was
// found to be beyond a token never comes back to it. With a reuse interval, beyond begins one generation later.
func (s *Store) rotateGrant(ctx context.Context, ref GrantRef, chainEnds time.Time, reuse time.Duration, on Revisions, once []Once) (Rotation, error) {
	ck := chainKey(ref.ClientID, ref.GrantID)
	now := s.now()
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
		t.onlyIf(clientv3.Compare(clientv3.Version(ck), "=", ref.Generation))
		t.then.do(spend...)
		t.then.do(clientv3.OpPut(ck, encode(link{At: now.UnixMilli()}), clientv3.WithLease(lease)))
		return nil
	})
	if err != nil {
		return Rotation{}, err
	}
	if t.held {
		return Rotation{Generation: ref.Generation + 1, At: time.UnixMilli(now.UnixMilli())}, nil
	}
	var after transaction
	look, chain := lookAt(&after.then, ref.ClientID, ref.UserID), after.then.get(ck)
	var spent []*found
	for _, o := range once {
		spent = append(spent, after.then.get(spentKey(o.ID), clientv3.WithCountOnly()))
	}
	if err := s.run(ctx, &after); err != nil {
		return Rotation{}, err
	}
	beyond := ref.Generation
	if reuse > 0 {
		beyond++
	}
	replayed := AuditEntry{Actor: ClientActor(ref.ClientID), Action: AuditGrantReplayed, Reason: "refresh token replayed"}
	switch {
	case slices.ContainsFunc(spent, func(f *found) bool { return f.count > 0 }):
		return Rotation{}, ErrSpent
	case chain.one() == nil || chain.one().Version < ref.Generation:
		return Rotation{}, ErrNotFound
	case chain.one().Version == ref.Generation:
		return Rotation{}, s.stale(look)
	case chain.one().Version > beyond:
		return Rotation{}, s.buryReplayed(ctx, ref, replayed, once)
	}
	// The direct predecessor was used again, and a reuse interval is configured.
	at, err := decode[link]("chain", chain.one().Value)
	if err != nil {
		return Rotation{}, err
	}
	made := time.UnixMilli(at.At)
	late := now.Sub(made) > reuse
	if stale := s.stale(look); !late && stale.revisions() != on {
		return Rotation{}, stale
	}
	for _, o := range once { // a look has written nothing
		if err := s.Spend(ctx, o); err != nil {
			return Rotation{}, err
		}
	}
	if late {
		if _, err := s.KillGrant(ctx, ref.ClientID, ref.GrantID, replayed); err != nil {
			return Rotation{}, err
		}
		return Rotation{}, ErrReplayed
	}
	return Rotation{Generation: chain.one().Version, At: made}, nil
}

// buryReplayed ends a grant, one of whose tokens came again, and uses once. Its error is [ErrReplayed], or [ErrSpent]
// when once was used meanwhile: then nothing was written.
func (s *Store) buryReplayed(ctx context.Context, ref GrantRef, why AuditEntry, once []Once) error {
	t, err := s.commit(ctx, func(t *transaction) error {
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
	t, err := s.commit(ctx, func(t *transaction) error {
		bury, err := s.buryLiving(ctx, clientID, grantID, why)
		t.onlyIf(present(chainKey(clientID, grantID)))
		t.then.do(bury...)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("kill grant: %w", err)
	}
	return t.held, nil
}

// GrantView is a grant with what the validity of its tokens depends on, read at one revision.
type GrantView struct {
	Grant      *Grant
	User       *User // nil when the user is gone
	Generation int64 // of the refresh chain
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
func (s *Store) GrantThrough(ctx context.Context, clientID, grantID, userID, throughID, onceID string) (GrantView, *Client, error) {
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
type grantRead struct{ grant, chain, user *found }

func readGrant(t *transaction, clientID, grantID, userID string) grantRead {
	return grantRead{t.then.get(grantKey(clientID, grantID)), t.then.get(chainKey(clientID, grantID)), t.then.get(userKey(userID))}
}

func (r grantRead) view() (GrantView, error) {
	chain := r.chain.one()
	if chain == nil {
		return GrantView{}, ErrNotFound
	}
	grant, err := decodeGrant(r.grant.kvs)
	if err != nil {
		return GrantView{}, fmt.Errorf("read grant: %w", err)
	}
	view := GrantView{Grant: grant, Generation: chain.Version}
	if view.User, err = decodeUsers(r.user.kvs); err != nil {
		return GrantView{}, fmt.Errorf("read grant: %w", err)
	}
	return view, nil
}

// Grants lists the live grants of a client, or of all clients when clientID is empty.
func (s *Store) Grants(ctx context.Context, clientID string) ([]Grant, error) {
	grants, chains := "grants/", "chains/"
	if clientID != "" {
		grants, chains = under("grants", clientID), under("chains", clientID)
	}
	var t transaction
	bodies, links := t.then.get(grants, clientv3.WithPrefix()), t.then.get(chains, clientv3.WithPrefix())
	if err := s.run(ctx, &t); err != nil {
		return nil, fmt.Errorf("list grants: %w", err)
	}
	alive := make(map[string]*mvccpb.KeyValue)
	for _, kv := range links.kvs {
		alive[strings.TrimPrefix(string(kv.Key), "chains/")] = kv
	}
	var out []Grant
	for _, kv := range bodies.kvs {
		chain := alive[strings.TrimPrefix(string(kv.Key), "grants/")]
		if chain == nil {
			continue
		}
		g, err := decode[Grant]("grant", kv.Value)
		if err != nil {
			return nil, fmt.Errorf("list grants: %w", err)
		}
		at, err := decode[link]("chain", chain.Value)
		if err != nil {
			return nil, fmt.Errorf("list grants: %w", err)
		}
		g.Generation, g.RotatedAt = chain.Version, time.UnixMilli(at.At).UTC()
		out = append(out, *g)
	}
	return out, nil
}

// FindGrant finds a live grant by its id alone, by scanning all of them: for operators, not for requests.
func (s *Store) FindGrant(ctx context.Context, grantID string) (*Grant, error) {
	grants, err := s.Grants(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		if g.ID == grantID {
			return &g, nil
		}
	}
	return nil, ErrNotFound
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
	tombstone := encode(Grant{ID: grantID, ClientID: clientID, Dead: why.Reason})
	return []clientv3.Op{
		s.auditOp(ctx, why),
		clientv3.OpPut(grantKey(clientID, grantID), tombstone, clientv3.WithLease(lease)),
		clientv3.OpDelete(chainKey(clientID, grantID)),
	}, nil
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

func decodeGrant(kvs []*mvccpb.KeyValue) (*Grant, error) {
	if len(kvs) == 0 {
		return nil, ErrNotFound
	}
	g, err := decode[Grant]("grant", kvs[0].Value)
	if err != nil {
		return nil, err
	}
	if g.Dead != "" {
		return nil, ErrNotFound
	}
	return g, nil
}
