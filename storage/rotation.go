package storage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// SecretRotation is the newest change of a client's secret, and its progress. There is one for each client whose secret
// was ever rotated.
//
// It is kept beside the client's record and not in it: every grant compares the revision of that record, and every plan
// is made on it, so only what they must notice is written there, which is that a secret was added or removed. The
// client holds the secrets that are valid, oldest first and at most two; one that was retired is gone from it, hash
// included.
type SecretRotation struct {
	ClientID string `json:"clientId"`
	App      string `json:"app"`
	SecretID string `json:"secretId"` // the new secret, the client's newest
	// Previous is the secret that it replaces.
	Previous string `json:"previous"`
	// Compromised means that the previous secret was retired in the transaction that added the new one.
	Compromised bool      `json:"compromised,omitempty"`
	StartedAt   time.Time `json:"startedAt"`
	// Grace is how long the previous secret stays valid after all targets serve the new one and the new one was used.
	Grace time.Duration `json:"grace"`
	// ServedAt is when every target had confirmed that it serves the new secret. Without targets that are given the
	// secret it is the start: what confirms it then is its use.
	ServedAt time.Time `json:"servedAt,omitzero"`
	// UsedAt is when a client authenticated with the new secret for the first time.
	UsedAt time.Time `json:"usedAt,omitzero"`
	// RetiresAt is when the grace period ends, which begins once the new secret is served and used. AskedAt is when,
	// after that, every target was to be observed once more. RetiredAt is when the previous secret was removed: later
	// if a target was not ready.
	RetiresAt time.Time `json:"retiresAt,omitzero"`
	AskedAt   time.Time `json:"askedAt,omitzero"`
	RetiredAt time.Time `json:"retiredAt,omitzero"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

// UnderWay reports whether two secrets are valid. It is false for a nil rotation.
func (r *SecretRotation) UnderWay() bool { return r != nil && r.RetiredAt.IsZero() }

// Over reports whether the rotation can no longer change.
func (r *SecretRotation) Over() bool {
	return !r.RetiredAt.IsZero() && !r.ServedAt.IsZero() && !r.UsedAt.IsZero()
}

func rotationKey(clientID string) string { return key("rotations", clientID) }

func decodeRotation(kv *mvccpb.KeyValue) (*SecretRotation, error) {
	r, err := decode[SecretRotation]("rotation", kv.Value)
	if err != nil {
		return nil, err
	}
	r.Revision = kv.ModRevision
	return r, nil
}

// SecretsView is what is known about the secrets of a client, beside its record.
type SecretsView struct {
	Rotation *SecretRotation // nil: never rotated
	Uses     map[string]SecretUse
}

// Secrets reads what is known about the secrets of a client, at one revision.
func (s *Store) Secrets(ctx context.Context, clientID string) (SecretsView, error) {
	view := SecretsView{Uses: make(map[string]SecretUse)}
	var t transaction
	rotation, uses := t.then.get(rotationKey(clientID)), t.then.get(under("secretuse", clientID), clientv3.WithPrefix())
	if err := s.run(ctx, &t); err != nil {
		return view, fmt.Errorf("read secrets: %w", err)
	}
	if kv := rotation.one(); kv != nil {
		var err error
		if view.Rotation, err = decodeRotation(kv); err != nil {
			return view, fmt.Errorf("read secrets: %w", err)
		}
	}
	for _, kv := range uses.kvs {
		use, err := decode[SecretUse]("use of a secret", kv.Value)
		if err != nil {
			return view, fmt.Errorf("read secrets: %w", err)
		}
		view.Uses[lastSegment(kv.Key)] = *use
	}
	return view, nil
}

// UpdateRotation stores the progress of a rotation. It returns [ErrConflict] if the rotation changed since it was read.
func (s *Store) UpdateRotation(ctx context.Context, r SecretRotation, audit ...AuditEntry) error {
	k := rotationKey(r.ClientID)
	if _, err := s.replace(ctx, k, r.Revision, clientv3.OpPut(k, encode(r)), audit); err != nil {
		return fmt.Errorf("store rotation: %w", err)
	}
	return nil
}

// DropRotation removes a rotation whose secret is gone. It returns [ErrConflict] if the rotation changed since it was
// read.
func (s *Store) DropRotation(ctx context.Context, r SecretRotation) error {
	k := rotationKey(r.ClientID)
	if _, err := s.replace(ctx, k, r.Revision, clientv3.OpDelete(k), nil); err != nil {
		return fmt.Errorf("drop rotation: %w", err)
	}
	return nil
}

// RetireSecrets ends a rotation: of the client's secrets only the newest stays, in one transaction, provided that the
// rotation, the app, its client and each of its deliveries are still as the caller has seen them. So no target can have
// fallen behind, and none can have been added, since it was found that all of them serve the new secret. Otherwise
// nothing is written, and the error is [ErrConflict].
func (s *Store) RetireSecrets(ctx context.Context, r SecretRotation, view AppView, audit ...AuditEntry) error {
	now := s.now().UTC()
	c := *view.Client
	last := len(c.Secrets) - 1
	var t transaction
	for _, old := range c.Secrets[:last] {
		t.then.do(clientv3.OpDelete(useKey(c.ID, old.ID)))
	}
	c.Secrets, c.UpdatedAt = slices.Clone(c.Secrets[last:]), now
	r.RetiredAt = now
	t.onlyIf(atRevision(rotationKey(r.ClientID), r.Revision), atRevision(appKey(view.App.Name), view.App.Revision),
		atRevision(clientKey(c.ID), c.Revision))
	for _, d := range view.Deliveries {
		t.onlyIf(atRevision(d.key(), d.Revision))
	}
	t.then.do(clientv3.OpPut(clientKey(c.ID), encode(c)), clientv3.OpPut(rotationKey(c.ID), encode(r)))
	t.then.do(s.auditOps(ctx, audit)...)
	if err := s.change(ctx, &t); err != nil {
		return fmt.Errorf("retire secret of %s: %w", c.ID, err)
	}
	c.Revision = t.revision
	s.mem.learn(&c)
	return nil
}
