package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func appKey(name string) string { return key("apps", name) }

func formerKey(app string) string { return key("clientids", app) }

func deliveryKey(app string, t Target) string { return key("deliveries", app, t.Kind, t.Name) }

func decodeApp(kv *mvccpb.KeyValue) (*App, error) {
	a, err := decode[App]("app", kv.Value)
	if err != nil {
		return nil, err
	}
	a.Revision = kv.ModRevision
	return a, nil
}

func decodeDelivery(kv *mvccpb.KeyValue) (*Delivery, error) {
	d, err := decode[Delivery]("delivery", kv.Value)
	if err != nil {
		return nil, err
	}
	d.Revision = kv.ModRevision
	return d, nil
}

// AppView is an app with everything that belongs to it, read at one revision.
type AppView struct {
	App        *App          // nil if it was never applied, or was deleted
	Client     *Client       // nil if the app has none
	Former     *FormerClient // nil unless the app has lost a client once
	Deliveries []*Delivery
}

// App reads an app with its client and deliveries. For an app that does not exist the view is empty.
func (s *Store) App(ctx context.Context, name string) (AppView, error) {
	var view AppView
	var t transaction
	app, deliveries := t.then.get(appKey(name)), t.then.get(under("deliveries", name), clientv3.WithPrefix())
	former := t.then.get(formerKey(name))
	if err := s.run(ctx, &t); err != nil {
		return view, fmt.Errorf("read app: %w", err)
	}
	if kv := former.one(); kv != nil {
		var err error
		if view.Former, err = decode[FormerClient]("former client", kv.Value); err != nil {
			return view, fmt.Errorf("read app: %w", err)
		}
	}
	for _, kv := range deliveries.kvs {
		d, err := decodeDelivery(kv)
		if err != nil {
			return view, fmt.Errorf("read app: %w", err)
		}
		view.Deliveries = append(view.Deliveries, d)
	}
	if app.one() == nil {
		return view, nil
	}
	var err error
	if view.App, err = decodeApp(app.one()); err != nil {
		return view, fmt.Errorf("read app: %w", err)
	}
	if view.App.ClientID == "" {
		return view, nil
	}
	// The client's id is known only now; read it as of the same revision.
	got, err := s.kv.Get(ctx, clientKey(view.App.ClientID), clientv3.WithRev(t.revision))
	if err != nil {
		return view, fmt.Errorf("read app: %w", err)
	}
	if len(got.Kvs) == 0 { // it ended while storage was full, see endClient
		if view.Former == nil {
			view.Former = &FormerClient{ID: view.App.ClientID, Ended: s.now().UTC()}
		}
		return view, nil
	}
	if view.Client, err = decodeClient(got.Kvs[0]); err != nil {
		return view, fmt.Errorf("read app: %w", err)
	}
	return view, nil
}

// Apps lists all apps, by name.
func (s *Store) Apps(ctx context.Context) ([]*App, error) {
	resp, err := s.kv.Get(ctx, under("apps"), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list apps: %w", err)
	}
	apps := make([]*App, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		a, err := decodeApp(kv)
		if err != nil {
			return nil, fmt.Errorf("list apps: %w", err)
		}
		apps = append(apps, a)
	}
	return apps, nil
}

// Release is a new state of an app, with the revisions on which it was decided.
type Release struct {
	App App
	// Client is stored when it is not nil; RemoveClient removes the client with that id, its grants and consents. With
	// both, the one takes the place of the other.
	Client       *Client
	RemoveClient string
	// Deliveries that are new or changed. The others stay as they are.
	Deliveries []Delivery
	// Rotation of the client's secret that begins with this, or nil.
	Rotation *SecretRotation
	// Audit is what the audit log says about it.
	Audit []AuditEntry
}

// CommitRelease stores a release in one transaction, provided that every record in it is still at the revision that it
// carries (0: it does not exist), and that neither the id of a new client nor a resource identifier or workload that is
// new in it belongs to another ([TakenError]). Otherwise nothing is written, and the error is [ErrConflict].
func (s *Store) CommitRelease(ctx context.Context, r Release) error {
	if r.Client != nil && r.Client.Revision == 0 {
		// What ended with an earlier client of this id must be gone before the id comes back.
		if err := s.clearEnded(ctx, r.Client.ID); err != nil {
			return fmt.Errorf("commit release of %s: %w", r.App.Name, err)
		}
	}
	var t transaction
	t.onlyIf(atRevision(appKey(r.App.Name), r.App.Revision))
	t.then.do(clientv3.OpPut(appKey(r.App.Name), encode(r.App)))
	var gone *Client
	if r.RemoveClient != "" {
		// The app's revision, which is compared, stands for that of its client.
		var err error
		if gone, err = s.storedClient(ctx, r.RemoveClient); err != nil {
			return fmt.Errorf("commit release of %s: %w", r.App.Name, err)
		}
		t.then.do(s.removeClient(r.RemoveClient, gone, r.Client)...)
		t.then.do(s.keepID(r.App.Name, r.RemoveClient)...)
	}
	if r.Client != nil {
		if err := s.storeClient(ctx, &t, r.Client, r.RemoveClient); err != nil {
			return fmt.Errorf("commit release of %s: %w", r.App.Name, err)
		}
	}
	putDeliveries(&t, r.Deliveries)
	if r.Rotation != nil {
		k := rotationKey(r.Rotation.ClientID)
		t.onlyIf(atRevision(k, r.Rotation.Revision))
		t.then.do(clientv3.OpPut(k, encode(r.Rotation)))
	}
	t.then.do(s.auditOps(ctx, r.Audit)...)
	err := s.change(ctx, &t)
	if errors.Is(err, ErrFull) && gone != nil {
		err = s.endClient(ctx, &r.App, gone, r.Audit, "apply", err)
	}
	if err != nil {
		return fmt.Errorf("commit release of %s: %w", r.App.Name, err)
	}
	if r.Client != nil {
		learned := *r.Client
		learned.Revision = t.revision
		s.mem.learn(&learned)
	}
	if r.RemoveClient != "" {
		s.Forget(r.RemoveClient)
		s.clear(ctx, r.RemoveClient)
	}
	return nil
}

// putDeliveries stores deliveries of targets, provided that each is still at its revision.
func putDeliveries(t *transaction, deliveries []Delivery) {
	for _, d := range deliveries {
		k := deliveryKey(d.App, d.Target)
		t.onlyIf(atRevision(k, d.Revision))
		t.then.do(clientv3.OpPut(k, encode(d)))
	}
}

// storeClient adds to a transaction that a client and its resource identifiers are stored, provided that it is still at
// its revision, and that nothing of an earlier client with its id is left. The client with the id replaced, if any,
// goes in the same transaction.
func (s *Store) storeClient(ctx context.Context, t *transaction, c *Client, replaced string) error {
	if err := s.PublishKeys(ctx, &c.Client); err != nil {
		return err
	}
	t.onlyIf(atRevision(clientKey(c.ID), c.Revision))
	if c.Revision == 0 {
		t.onlyIf(absent(endingKey(c.ID)))
		if c.App != "" {
			if err := s.claimID(ctx, t, c); err != nil {
				return err
			}
		}
	}
	t.then.do(clientv3.OpPut(clientKey(c.ID), encode(c)))
	if err := s.claimIdentities(ctx, t, c, replaced); err != nil {
		return err
	}
	return s.claim(ctx, t, c, replaced)
}

// keepID remembers whose the id of an app's client is, in the transaction that removes it.
func (s *Store) keepID(app, clientID string) []clientv3.Op {
	now := s.now().UTC()
	return []clientv3.Op{
		clientv3.OpPut(formerKey(app), encode(FormerClient{ID: clientID, Ended: now})),
		clientv3.OpPut(formerOwnerKey(clientID), encode(formerOwner{App: app, Ended: now})),
	}
}

// removeClient are the operations that remove a client, end its grants and consents, and free the resource identifiers
// and workloads of its record, if there is one, but those that next, which takes its place, has as well. Grants leave
// no tombstones: codes that are still out fail on the client's revision, and after the client has returned on their
// time, see [Client.Issued].
func (s *Store) removeClient(id string, record, next *Client) []clientv3.Op {
	var keep []string
	if next != nil {
		keep = next.Resources()
	}
	return append(append(freeResources(record, keep), freeIdentities(record, next)...),
		s.endAll(id),
		clientv3.OpDelete(clientKey(id)),
		clientv3.OpDelete(under("secretuse", id), clientv3.WithPrefix()),
		clientv3.OpDelete(rotationKey(id)))
}

// BeginDelete starts to delete an app, in one transaction: its client is disabled and all grants end at once, and its
// deliveries, given as they should be now, take the env away. [Store.FinishDelete] does the rest. [ErrConflict]:
// something changed since view was read.
func (s *Store) BeginDelete(ctx context.Context, view AppView, removals []Delivery, audit ...AuditEntry) error {
	app := *view.App
	app.Deleting = true
	app.Applied = s.now().UTC()
	var t transaction
	t.onlyIf(atRevision(appKey(app.Name), app.Revision))
	t.then.do(clientv3.OpPut(appKey(app.Name), encode(app)))
	if view.Client != nil {
		c := *view.Client
		c.Disabled, c.UpdatedAt = true, s.now().UTC()
		t.onlyIf(atRevision(clientKey(c.ID), c.Revision))
		t.then.do(clientv3.OpPut(clientKey(c.ID), encode(c)))
		t.then.do(s.endAll(c.ID))
	}
	putDeliveries(&t, removals)
	t.then.do(s.auditOps(ctx, audit)...)
	err := s.change(ctx, &t)
	if errors.Is(err, ErrFull) && view.Client != nil {
		err = s.endClient(ctx, view.App, view.Client, audit, "delete", err)
	}
	if err != nil {
		return fmt.Errorf("delete app: %w", err)
	}
	if view.Client != nil {
		s.clear(ctx, view.Client.ID)
	}
	return nil
}

// endClient removes the client of an app that is to lose it when storage is full: nothing is left of it that opens
// anything. The rest of the app, which is to be changed, has to wait; again is what its operator does then.
func (s *Store) endClient(ctx context.Context, app *App, c *Client, audit []AuditEntry,
	again string, full error) error {
	t, err := s.commitEnd(ctx, func(ctx context.Context, t *transaction) error {
		t.onlyIf(atRevision(appKey(app.Name), app.Revision), atRevision(clientKey(c.ID), c.Revision))
		t.then.do(s.removeClient(c.ID, c, nil)...)
		t.then.do(s.keepID(app.Name, c.ID)...)
		t.then.do(s.auditOps(ctx, audit)...)
		return nil
	})
	if err == nil && !t.held {
		err = ErrConflict
	}
	if err != nil {
		return err
	}
	s.Forget(c.ID)
	return fmt.Errorf("its client has ended with all grants; %s it again once there is room: %w", again, full)
}

// FinishDelete removes an app that is being deleted, and its client, once no delivery is left. It reports whether the
// app is gone now; the app stays while env is still to be taken away.
func (s *Store) FinishDelete(ctx context.Context, name string) (done bool, err error) {
	err = Again(attempts, func() (again bool, err error) {
		done, again, err = s.finishDelete(ctx, name)
		return again, err
	})
	if err != nil {
		return false, fmt.Errorf("delete app: %w", err)
	}
	return done, nil
}

func (s *Store) finishDelete(ctx context.Context, name string) (done, again bool, err error) {
	view, err := s.App(ctx, name)
	if err != nil || view.App == nil {
		return err == nil, false, err
	}
	if !view.App.Deleting || len(view.Deliveries) > 0 {
		return false, false, nil
	}
	var t transaction
	t.onlyIf(atRevision(appKey(name), view.App.Revision))
	t.then.do(clientv3.OpDelete(appKey(name)))
	if view.App.ClientID != "" {
		t.then.do(s.removeClient(view.App.ClientID, view.Client, nil)...)
		t.then.do(s.keepID(name, view.App.ClientID)...)
	}
	t.then.do(s.auditOps(ctx, []AuditEntry{{Action: AuditDeleted, App: name, Detail: view.App.ClientID}})...)
	if err := s.run(ctx, &t); err != nil || !t.held {
		return false, err == nil, err // the record has changed, or another replica was faster
	}
	if view.App.ClientID != "" {
		s.Forget(view.App.ClientID)
		s.clear(ctx, view.App.ClientID)
	}
	return true, false, nil
}

// Deliveries lists all deliveries, by app and target.
func (s *Store) Deliveries(ctx context.Context) ([]*Delivery, error) {
	resp, err := s.kv.Get(ctx, under("deliveries"), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	out := make([]*Delivery, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		d, err := decodeDelivery(kv)
		if err != nil {
			return nil, fmt.Errorf("list deliveries: %w", err)
		}
		out = append(out, d)
	}
	return out, nil
}

// WatchDeliveries signals whenever a delivery has changed, until ctx ends, and whenever watching has begun: at the
// start and after every interruption. Its reader then lists. Signals that are not read are merged.
func (s *Store) WatchDeliveries(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	signal := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	s.done.Go(func() {
		for ctx.Err() == nil {
			watchCtx, cancel := context.WithCancel(ctx)
			for resp := range s.events(ownStream(watchCtx), under("deliveries"), clientv3.WithCreatedNotify()) {
				if resp.Err() != nil {
					break
				}
				signal()
			}
			cancel()
			Pause(ctx, time.Second)
		}
	})
	return changed
}

// ClaimDelivery makes owner the only one to push d until the given time, and returns the record as it is then. It
// returns [ErrConflict] if the delivery changed since it was read, or another replica has claimed it.
func (s *Store) ClaimDelivery(ctx context.Context, d Delivery, owner string, until time.Time) (*Delivery, error) {
	if d.Owner != "" && d.Owner != owner && s.now().Before(d.OwnedUntil) {
		return nil, ErrConflict
	}
	d.Owner, d.OwnedUntil = owner, until.UTC()
	d.Fence++
	return s.UpdateDelivery(ctx, d)
}

// UpdateDelivery stores what happened to a delivery. It returns [ErrConflict] if the delivery changed since it was
// read.
func (s *Store) UpdateDelivery(ctx context.Context, d Delivery, audit ...AuditEntry) (*Delivery, error) {
	d.UpdatedAt = s.now().UTC()
	revision, err := s.replace(ctx, d.key(), d.Revision, clientv3.OpPut(d.key(), encode(d)), audit)
	if err != nil {
		return nil, fmt.Errorf("store delivery: %w", err)
	}
	d.Revision = revision
	return &d, nil
}

// FinishRemoval drops a delivery whose env the runtime has taken away. It returns [ErrConflict] if the delivery
// changed.
func (s *Store) FinishRemoval(ctx context.Context, d Delivery, audit ...AuditEntry) error {
	if _, err := s.replace(ctx, d.key(), d.Revision, clientv3.OpDelete(d.key()), audit); err != nil {
		return fmt.Errorf("drop delivery: %w", err)
	}
	return nil
}

func envPurpose(d *Delivery) string {
	return "env/" + deliveryKey(d.App, d.Target)
}

// SealEnv seals the env of a delivery into it.
func (s *Store) SealEnv(d *Delivery, env map[string]string) error {
	plain, err := json.Marshal(env)
	if err != nil {
		return fmt.Errorf("seal env: %w", err)
	}
	d.Sealed = s.kek().seal(envPurpose(d), plain)
	return nil
}

// OpenEnv is the env that SealEnv took.
func (s *Store) OpenEnv(d *Delivery) (map[string]string, error) {
	if len(d.Sealed) == 0 {
		return nil, errors.New("open env: the delivery holds none")
	}
	plain, err := s.kek().open(envPurpose(d), d.Sealed)
	if err != nil {
		return nil, err
	}
	env := make(map[string]string)
	if err := json.Unmarshal(plain, &env); err != nil {
		return nil, errors.New("open env: not a map of strings")
	}
	return env, nil
}

// DigestKey is the key for digests of env, see plugins.Digest. It changes when a new encryption key is put in front.
func (s *Store) DigestKey() []byte { return s.kek().derive("env digest") }
