package storage

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// key is the key of a delivery: that of its target, followed by the runtime's name if it takes env away from a runtime
// that the target has left.
func (d *Delivery) key() string {
	if d.Leaving {
		return key("deliveries", d.App, d.Target.Kind, d.Target.Name, d.Runtime)
	}
	return deliveryKey(d.App, d.Target)
}

// MoveDelivery gives a delivery to another runtime, in one transaction: d, which names the new runtime, starts anew
// there, and a second delivery records that the env is to be taken away from the runtime that had it. What was to be
// taken away from the new runtime stays. It returns [ErrConflict] if the delivery changed since it was read, or env is
// just being taken away there.
func (s *Store) MoveDelivery(ctx context.Context, d Delivery, from string, audit ...AuditEntry) (*Delivery, error) {
	now := s.now().UTC()
	leaving := Delivery{
		App: d.App, Target: d.Target, Runtime: from, Leaving: true, Remove: true, Generation: d.Generation, Fence: d.Fence,
		State: DeliveryPending, Accepted: d.Accepted, Serving: d.Serving, Instances: d.Instances, Location: d.Location,
		NextAttempt: now, Since: now, UpdatedAt: now,
	}
	d.State, d.Attempts, d.Error, d.Remedy = DeliveryPending, 0, "", ""
	d.Accepted, d.Serving, d.Instances, d.Location = 0, 0, 0, ""
	d.Owner, d.NextAttempt, d.Since, d.UpdatedAt = "", now, now, now
	back := Delivery{App: d.App, Target: d.Target, Runtime: d.Runtime, Leaving: true}
	got, err := s.kv.Get(ctx, back.key())
	if err != nil {
		return nil, fmt.Errorf("move delivery: %w", err)
	}
	if len(got.Kvs) > 0 {
		was, err := decodeDelivery(got.Kvs[0])
		if err != nil {
			return nil, fmt.Errorf("move delivery: %w", err)
		}
		if was.Owner != "" && now.Before(was.OwnedUntil) {
			return nil, ErrConflict
		}
		back.Revision = was.Revision
	}
	var t transaction
	t.onlyIf(atRevision(d.key(), d.Revision), atRevision(back.key(), back.Revision))
	t.then.do(clientv3.OpPut(d.key(), encode(d)), clientv3.OpPut(leaving.key(), encode(leaving)),
		clientv3.OpDelete(back.key()))
	t.then.do(s.auditOps(ctx, audit)...)
	if err := s.change(ctx, &t); err != nil {
		return nil, fmt.Errorf("move delivery: %w", err)
	}
	d.Revision = t.revision
	return &d, nil
}
