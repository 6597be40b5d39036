package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Device is a device authorization (RFC 8628): what a device asks for, and what a user with a browser has decided. It
// is found by its user code, which alone opens nothing: tokens require the device code, which is not stored.
type Device struct {
	Grant     string    `json:"grant"` // id of the grant that it may lead to
	ClientID  string    `json:"clientId"`
	Scopes    []string  `json:"scopes"`
	Resources []string  `json:"resources,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	// Decision is empty until a user decides, which happens once. UserID is that user.
	Decision DeviceDecision `json:"decision,omitempty"`
	UserID   string         `json:"userId,omitempty"`
	// Approval is what package server needs to issue tokens, in its own format.
	Approval json.RawMessage `json:"approval,omitempty"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

// DeviceDecision is a user's decision about a [Device].
type DeviceDecision string

// Decisions.
const (
	DeviceApproved DeviceDecision = "approved"
	DeviceDenied   DeviceDecision = "denied"
)

// MaxDeviceLife is far below the life of tombstones: a device code must not outlive that of its grant.
const MaxDeviceLife = tombstoneLife / 2

func deviceKey(userCode string) string {
	sum := sha256.Sum256([]byte(userCode))
	return key("devices", hex.EncodeToString(sum[:]))
}

// CreateDevice stores what a device asks for, under its user code: one raft proposal. It returns [ErrConflict] if the
// code is taken.
func (s *Store) CreateDevice(ctx context.Context, userCode string, d Device) error {
	if err := s.putDevice(ctx, userCode, d, 0); err != nil {
		return fmt.Errorf("create device authorization: %w", err)
	}
	return nil
}

// putDevice stores a device authorization, provided that the one under its user code is at a revision (0: that there is
// none): [ErrConflict].
func (s *Store) putDevice(ctx context.Context, userCode string, d Device, revision int64) error {
	k := deviceKey(userCode)
	t, err := s.commit(ctx, func(t *transaction) error {
		lease, err := s.leases.until(ctx, d.ExpiresAt)
		t.onlyIf(atRevision(k, revision))
		t.then.do(clientv3.OpPut(k, encode(d), clientv3.WithLease(lease)))
		return err
	})
	if err == nil && !t.held {
		err = ErrConflict
	}
	return err
}

// Device reads a device authorization: one read. It returns [ErrNotFound] if there is none, or it was redeemed. One
// that has expired may still be returned.
func (s *Store) Device(ctx context.Context, userCode string) (*Device, error) {
	resp, err := s.kv.Get(ctx, deviceKey(userCode))
	if err != nil {
		return nil, fmt.Errorf("read device authorization: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return nil, ErrNotFound
	}
	return decodeDevice(resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
}

func decodeDevice(value []byte, revision int64) (*Device, error) {
	d, err := decode[Device]("device authorization", value)
	if err != nil {
		return nil, err
	}
	d.Revision = revision
	return d, nil
}

// DeviceState is what the answer to a polling device depends on, read at one revision.
type DeviceState struct {
	Device   *Device // nil if it is gone: never created, redeemed, or expired
	Redeemed bool    // its grant lives
}

// DeviceState reads the state of the device authorization that leads to a grant: one read.
func (s *Store) DeviceState(ctx context.Context, userCode, clientID, grantID string) (DeviceState, error) {
	var t transaction
	device, chain := t.then.get(deviceKey(userCode)), t.then.get(chainKey(clientID, grantID), clientv3.WithCountOnly())
	ended := hasEnded(&t, clientID)
	if err := s.run(ctx, &t); err != nil {
		return DeviceState{}, fmt.Errorf("read device authorization: %w", err)
	}
	state := DeviceState{Redeemed: chain.count > 0 && ended.count == 0}
	if kv := device.one(); kv != nil {
		d, err := decodeDevice(kv.Value, kv.ModRevision)
		if err != nil {
			return DeviceState{}, err
		}
		// The same user code may have been given to another device by now.
		if d.Grant == grantID {
			state.Device = d
		}
	}
	return state, nil
}

// DecideDevice stores the decision about d: one raft proposal. It returns [ErrConflict] if another decision has been
// stored since d was read, or d is gone.
func (s *Store) DecideDevice(ctx context.Context, userCode string, d Device) error {
	if err := s.putDevice(ctx, userCode, d, d.Revision); err != nil {
		return fmt.Errorf("decide device authorization: %w", err)
	}
	return nil
}

// RedeemDevice is [Store.CreateGrant] for the device code of d, which was approved: the same transaction removes the
// device authorization.
//
// Errors: those of CreateGrant, and [ErrNotFound] when the device authorization has gone since d was read and left no
// grant.
func (s *Store) RedeemDevice(ctx context.Context, userCode string, d *Device, grant Grant, chainEnds time.Time,
	on Revisions) (*User, error) {
	user, err := s.redeem(ctx, redemption{of: "device code", grant: grant, chainEnds: chainEnds, on: on,
		device: deviceKey(userCode), deviceRevision: d.Revision})
	if err != nil {
		return nil, fmt.Errorf("redeem device code: %w", err)
	}
	return user, nil
}
