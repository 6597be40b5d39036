package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// link is the value of a chain key: when the chain came to its present generation.
type link struct {
	At int64 `json:"at"` // Unix milliseconds
}

// tombstoneLife is how long a dead grant is remembered. It outlives every authorization code by far, so a code can never
// be redeemed after its grant has died.
const tombstoneLife = time.Hour

func grantKey(client, id string) string { return key("grants", client, id) }
func chainKey(client, id string) string { return key("chains", client, id) }
func userKey(id string) string          { return key("users", id) }
func clientKey(id string) string        { return key("clients", id) }

// CreateGrant redeems the code that names grant.ID: it stores the grant and starts its refresh chain at generation 1, in
// one transaction, provided that the grant never existed and that client and user are still at the given revisions (0: there is
// no such record).
// chainEnds is when the first refresh token expires.
//
// A grant that came from a session ([Grant.Session]) is noted with it, provided that the session still stands.
//
// Errors: [ErrReplayed] when the grant exists or has existed, and it is dead now; [ErrSessionEnded] when its session has ended,
// and a [StaleError] when client or user changed: then nothing was written; [ErrSpent] when one of once was used before, and
// nothing was written, whatever the grant is. With [ErrReplayed], too, once is used now.
func (s *Store) CreateGrant(ctx context.Context, grant Grant, chainEnds time.Time, clientRevision, userRevision int64, once ...Once) error {
	gk, ck := grantKey(grant.ClientID, grant.ID), chainKey(grant.ClientID, grant.ID)
	now := s.now()
	resp, err := s.commit(ctx, func() (clientv3.Txn, error) {
		body, err := s.leases.until(ctx, grant.ExpiresAt)
		if err != nil {
			return nil, err
		}
		chain, err := s.leases.until(ctx, chainEnds)
		if err != nil {
			return nil, err
		}
		bury, err := s.bury(ctx, grant.ClientID, grant.ID, AuditEntry{
			Actor: ClientActor(grant.ClientID), Action: AuditGrantReplayed, Reason: "code replayed"})
		if err != nil {
			return nil, err
		}
		spend, err := s.spend(ctx, once)
		if err != nil {
			return nil, err
		}
		noted, err := s.sessionOps(ctx, grant)
		if err != nil {
			return nil, err
		}
		look := append(currentRecords(grant.ClientID, grant.UserID), clientv3.OpGet(sessionKey(grant.Session), clientv3.WithCountOnly()))
		return s.kv.Txn(ctx).
			If(slices.Concat(unspent(once), sameRevisions(grant.ClientID, clientRevision, grant.UserID, userRevision),
				[]clientv3.Cmp{clientv3.Compare(clientv3.Version(gk), "=", 0)}, sessionCmp(grant))...).
			Then(slices.Concat(spend, noted, []clientv3.Op{
				clientv3.OpPut(gk, encode(grant), clientv3.WithLease(body)),
				clientv3.OpPut(ck, encode(link{At: now.UnixMilli()}), clientv3.WithLease(chain))})...).
			Else(clientv3.OpTxn(unspent(once), []clientv3.Op{clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.Version(gk), ">", 0)}, append(bury, spend...), look)}, nil)), nil
	})
	if err != nil {
		return fmt.Errorf("create grant: %w", err)
	}
	if resp.Succeeded {
		return nil
	}
	fresh := resp.Responses[0].GetResponseTxn()
	if !fresh.Succeeded {
		return ErrSpent
	}
	inner := fresh.Responses[0].GetResponseTxn()
	switch {
	case inner.Succeeded:
		return ErrReplayed
	case grant.Session != "" && inner.Responses[2].GetResponseRange().Count == 0:
		return ErrSessionEnded
	}
	return s.stale(inner.Responses)
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

// RotateGrant moves a refresh chain from ref's generation to the next in one transaction, provided that client and user are
// still at the given revisions. chainEnds is when the next refresh token expires.
//
// With reuse > 0, a token whose successor is not older than that and was not used itself gets the same successor again: the
// Rotation as it was made. Otherwise a token that is not the newest of its chain is a replay: [ErrReplayed], and the grant is
// dead now. [ErrNotFound]: the grant is dead already. A [StaleError]: client or user changed, and nothing was written.
// [ErrSpent]: one of once was used before, and nothing was written, whatever the grant is. Where the grant is moved, killed, or
// gives the same successor again, once is used now.
func (s *Store) RotateGrant(ctx context.Context, ref GrantRef, chainEnds time.Time, reuse time.Duration, clientRevision, userRevision int64, once ...Once) (Rotation, error) {
	ck := chainKey(ref.ClientID, ref.GrantID)
	now := s.now()
	resp, err := s.commit(ctx, func() (clientv3.Txn, error) {
		chain, err := s.leases.until(ctx, chainEnds)
		if err != nil {
			return nil, err
		}
		// A replay beyond this generation kills. With a reuse interval, the direct predecessor needs a look first.
		beyond := ref.Generation
		if reuse > 0 {
			beyond++
		}
		bury, err := s.bury(ctx, ref.ClientID, ref.GrantID, AuditEntry{
			Actor: ClientActor(ref.ClientID), Action: AuditGrantReplayed, Reason: "refresh token replayed"})
		if err != nil {
			return nil, err
		}
		spend, err := s.spend(ctx, once)
		if err != nil {
			return nil, err
		}
		look := append(currentRecords(ref.ClientID, ref.UserID), clientv3.OpGet(ck))
		return s.kv.Txn(ctx).
			If(slices.Concat(unspent(once), sameRevisions(ref.ClientID, clientRevision, ref.UserID, userRevision),
				[]clientv3.Cmp{clientv3.Compare(clientv3.Version(ck), "=", ref.Generation)})...).
			Then(append(spend, clientv3.OpPut(ck, encode(link{At: now.UnixMilli()}), clientv3.WithLease(chain)))...).
			Else(clientv3.OpTxn(unspent(once), []clientv3.Op{clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.Version(ck), ">", beyond)}, append(bury, spend...), look)}, nil)), nil
	})
	if err != nil {
		return Rotation{}, fmt.Errorf("rotate grant: %w", err)
	}
	if resp.Succeeded {
		return Rotation{Generation: ref.Generation + 1, At: time.UnixMilli(now.UnixMilli())}, nil
	}
	fresh := resp.Responses[0].GetResponseTxn()
	if !fresh.Succeeded {
		return Rotation{}, ErrSpent
	}
	inner := fresh.Responses[0].GetResponseTxn()
	if inner.Succeeded {
		return Rotation{}, ErrReplayed
	}
	chains := inner.Responses[2].GetResponseRange().Kvs
	if len(chains) == 0 || chains[0].Version < ref.Generation {
		return Rotation{}, ErrNotFound
	}
	if chains[0].Version == ref.Generation {
		return Rotation{}, s.stale(inner.Responses)
	}
	// The direct predecessor came again, and a reuse interval is configured.
	at, err := decode[link]("chain", chains[0].Value)
	if err != nil {
		return Rotation{}, fmt.Errorf("rotate grant: %w", err)
	}
	made := time.UnixMilli(at.At)
	late := now.Sub(made) > reuse
	if stale := s.staleOf(inner.Responses); !late && (stale.Client == nil || stale.Client.Revision != clientRevision ||
		stale.User == nil || stale.User.Revision != userRevision) {
		return Rotation{}, stale
	}
	for _, o := range once { // a look has written nothing
		if err := s.Spend(ctx, o); err != nil {
			return Rotation{}, fmt.Errorf("rotate grant: %w", err)
		}
	}
	if late {
		if _, err := s.KillGrant(ctx, ref.ClientID, ref.GrantID, AuditEntry{
			Actor: ClientActor(ref.ClientID), Action: AuditGrantReplayed, Reason: "refresh token replayed"}); err != nil {
			return Rotation{}, fmt.Errorf("rotate grant: %w", err)
		}
		return Rotation{}, ErrReplayed
	}
	return Rotation{Generation: chains[0].Version, At: made}, nil
}

// KillGrant ends a grant and everything issued from it. It says whether the grant was alive. why goes to the audit log if it
// was; its reason stays with the grant.
func (s *Store) KillGrant(ctx context.Context, clientID, grantID string, why AuditEntry) (bool, error) {
	resp, err := s.commit(ctx, func() (clientv3.Txn, error) {
		bury, err := s.bury(ctx, clientID, grantID, why)
		if err != nil {
			return nil, err
		}
		return s.kv.Txn(ctx).
			If(clientv3.Compare(clientv3.Version(chainKey(clientID, grantID)), ">", 0)).
			Then(bury...), nil
	})
	if err != nil {
		return false, fmt.Errorf("kill grant: %w", err)
	}
	return resp.Succeeded, nil
}

// GrantView is a grant with what its tokens are judged by, read at one revision.
type GrantView struct {
	Grant      *Grant
	User       *User // nil when the user is gone
	Generation int64 // of the refresh chain
}

// Grant reads a live grant and its user: one read. A dead or unknown one is [ErrNotFound].
func (s *Store) Grant(ctx context.Context, clientID, grantID, userID string) (GrantView, error) {
	resp, err := s.kv.Txn(ctx).Then(grantReads(clientID, grantID, userID)...).Commit()
	if err != nil {
		return GrantView{}, fmt.Errorf("read grant: %w", err)
	}
	return grantView(resp.Responses)
}

// GrantThrough is Grant, read together with the record of a client that uses the grant, be it its own or, after a token exchange,
// another's: still one read. The client is nil when it is gone or disabled. When the ID of a [Once] is given that has been used, the
// error is [ErrSpent].
func (s *Store) GrantThrough(ctx context.Context, clientID, grantID, userID, throughID, onceID string) (GrantView, *Client, error) {
	ops := append(grantReads(clientID, grantID, userID), clientv3.OpGet(clientKey(throughID)))
	if onceID != "" {
		ops = append(ops, clientv3.OpGet(spentKey(onceID), clientv3.WithCountOnly()))
	}
	resp, err := s.kv.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return GrantView{}, nil, fmt.Errorf("read grant: %w", err)
	}
	view, err := grantView(resp.Responses)
	if err != nil {
		return GrantView{}, nil, err
	}
	if onceID != "" && resp.Responses[4].GetResponseRange().Count > 0 {
		return GrantView{}, nil, ErrSpent
	}
	c, err := s.current(resp.Responses[3].GetResponseRange().Kvs)
	if errors.Is(err, ErrNotFound) {
		return view, nil, nil
	}
	return view, c, err
}

func grantReads(clientID, grantID, userID string) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpGet(grantKey(clientID, grantID)),
		clientv3.OpGet(chainKey(clientID, grantID)),
		clientv3.OpGet(userKey(userID)),
	}
}

// grantView is what grantReads brought.
func grantView(responses []*etcdserverpb.ResponseOp) (GrantView, error) {
	chain := responses[1].GetResponseRange().Kvs
	if len(chain) == 0 {
		return GrantView{}, ErrNotFound
	}
	grant, err := decodeGrant(responses[0].GetResponseRange().Kvs)
	if err != nil {
		return GrantView{}, fmt.Errorf("read grant: %w", err)
	}
	view := GrantView{Grant: grant, Generation: chain[0].Version}
	if view.User, err = decodeUsers(responses[2].GetResponseRange().Kvs); err != nil {
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
	resp, err := s.kv.Txn(ctx).Then(
		clientv3.OpGet(grants, clientv3.WithPrefix()),
		clientv3.OpGet(chains, clientv3.WithPrefix())).Commit()
	if err != nil {
		return nil, fmt.Errorf("list grants: %w", err)
	}
	alive := make(map[string]*mvccpb.KeyValue)
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		alive[strings.TrimPrefix(string(kv.Key), "chains/")] = kv
	}
	var out []Grant
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
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

// FindGrant finds a live grant by its id alone, by going through all of them: for operators, not for requests.
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

// bury are the operations that leave a tombstone where a grant was, and a word in the audit log if the grant was alive.
func (s *Store) bury(ctx context.Context, clientID, grantID string, why AuditEntry) ([]clientv3.Op, error) {
	lease, err := s.leases.until(ctx, s.now().Add(tombstoneLife))
	if err != nil {
		return nil, err
	}
	ck := chainKey(clientID, grantID)
	why.Detail = "grant " + grantID
	if c := s.mem.client(clientID); c != nil {
		why.App = c.App
	}
	tombstone := encode(Grant{ID: grantID, ClientID: clientID, Dead: why.Reason})
	return []clientv3.Op{
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Version(ck), ">", 0)}, []clientv3.Op{s.auditOp(ctx, why)}, nil),
		clientv3.OpPut(grantKey(clientID, grantID), tombstone, clientv3.WithLease(lease)),
		clientv3.OpDelete(ck),
	}, nil
}

func sameRevisions(clientID string, clientRevision int64, userID string, userRevision int64) []clientv3.Cmp {
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(clientKey(clientID)), "=", clientRevision),
		clientv3.Compare(clientv3.ModRevision(userKey(userID)), "=", userRevision),
	}
}

// currentRecords are the reads from which stale makes its error; they come first in a response.
func currentRecords(clientID, userID string) []clientv3.Op {
	return []clientv3.Op{clientv3.OpGet(clientKey(clientID)), clientv3.OpGet(userKey(userID))}
}

func (s *Store) stale(responses []*etcdserverpb.ResponseOp) error { return s.staleOf(responses) }

// staleOf also lets memory know what was read. A record that does not decode counts as gone: it cannot be used either.
func (s *Store) staleOf(responses []*etcdserverpb.ResponseOp) *StaleError {
	stale := &StaleError{}
	if kvs := responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		if c, err := decodeClient(kvs[0]); err == nil {
			s.mem.learn(c)
			stale.Client = c
		} else {
			s.log.Error("stored client does not decode", "error", err)
		}
	}
	var err error
	if stale.User, err = decodeUsers(responses[1].GetResponseRange().Kvs); err != nil {
		s.log.Error("stored user does not decode", "error", err)
	}
	return stale
}

// Forget drops a client that turned out to be gone from memory.
func (s *Store) Forget(clientID string) { s.mem.forget(clientID, math.MaxInt64) }

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

// commit runs the transaction. Should etcd not know a lease any more, it is made once again with fresh leases: such a
// transaction has changed nothing.
func (s *Store) commit(ctx context.Context, build func() (clientv3.Txn, error)) (*clientv3.TxnResponse, error) {
	for attempt := 0; ; attempt++ {
		txn, err := build()
		if err != nil {
			return nil, err
		}
		resp, err := txn.Commit()
		if errors.Is(err, rpctypes.ErrLeaseNotFound) && attempt == 0 {
			s.leases.forget()
			continue
		}
		return resp, err
	}
}
