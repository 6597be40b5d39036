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

// Device is a device authorization (RFC 8628): what a device asks for, and what somebody with a browser has decided. It is found
// by its user code. That opens nothing by itself: tokens take the device code, which is not stored.
type Device struct {
	Grant     string    `json:"grant"` // id of the grant that it may lead to
	ClientID  string    `json:"clientId"`
	Scopes    []string  `json:"scopes"`
	Resources []string  `json:"resources,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	// Decision is empty until somebody decides, once. UserID is who did.
	Decision DeviceDecision `json:"decision,omitempty"`
	UserID   string         `json:"userId,omitempty"`
	// Approval is what the server needs to issue tokens, in its own words.
	Approval json.RawMessage `json:"approval,omitempty"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

// DeviceDecision is how somebody decided about a [Device].
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

// CreateDevice stores what a device asks for, under its user code: one raft proposal. [ErrConflict]: the code is taken.
func (s *Store) CreateDevice(ctx context.Context, userCode string, d Device) error {
	k := deviceKey(userCode)
	resp, err := s.commit(ctx, func() (clientv3.Txn, error) {
		lease, err := s.leases.until(ctx, d.ExpiresAt)
		if err != nil {
			return nil, err
		}
		return s.kv.Txn(ctx).
			If(clientv3.Compare(clientv3.Version(k), "=", 0)).
			Then(clientv3.OpPut(k, encode(d), clientv3.WithLease(lease))), nil
	})
	if err != nil {
		return fmt.Errorf("create device authorization: %w", err)
	}
	if !resp.Succeeded {
		return ErrConflict
	}
	return nil
}

// Device reads a device authorization: one read. [ErrNotFound]: there is none, or it was redeemed. One that has expired may
// still be there.
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

// DeviceState is what a device that polls is told from, read at one revision.
type DeviceState struct {
	Device   *Device // nil when it is gone: never asked for, redeemed, or too old
	Redeemed bool    // its grant lives
}

// DeviceState reads how far the device authorization is that leads to a grant: one read.
func (s *Store) DeviceState(ctx context.Context, userCode, clientID, grantID string) (DeviceState, error) {
	resp, err := s.kv.Txn(ctx).Then(
		clientv3.OpGet(deviceKey(userCode)),
		clientv3.OpGet(chainKey(clientID, grantID), clientv3.WithCountOnly())).Commit()
	if err != nil {
		return DeviceState{}, fmt.Errorf("read device authorization: %w", err)
	}
	state := DeviceState{Redeemed: resp.Responses[1].GetResponseRange().Count > 0}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		d, err := decodeDevice(kvs[0].Value, kvs[0].ModRevision)
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

// DecideDevice stores what was decided about d, provided that nobody has decided since d was read: one raft proposal.
// [ErrConflict]: somebody has, or it is gone.
func (s *Store) DecideDevice(ctx context.Context, userCode string, d Device) error {
	k := deviceKey(userCode)
	resp, err := s.commit(ctx, func() (clientv3.Txn, error) {
		lease, err := s.leases.until(ctx, d.ExpiresAt)
		if err != nil {
			return nil, err
		}
		return s.kv.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(k), "=", d.Revision)).
			Then(clientv3.OpPut(k, encode(d), clientv3.WithLease(lease))), nil
	})
	if err != nil {
		return fmt.Errorf("decide device authorization: %w", err)
	}
	if !resp.Succeeded {
		return ErrConflict
	}
	return nil
}

// RedeemDevice is [Store.CreateGrant] for the device code of d, which was approved: the same transaction takes the device
// authorization away.
//
// Errors: those of CreateGrant, and [ErrNotFound] when the device authorization has gone since d was read and left no grant.
func (s *Store) RedeemDevice(ctx context.Context, userCode string, d *Device, grant Grant, chainEnds time.Time, clientRevision, userRevision int64) error {
	dk, gk, ck := deviceKey(userCode), grantKey(grant.ClientID, grant.ID), chainKey(grant.ClientID, grant.ID)
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
			Actor: ClientActor(grant.ClientID), Action: AuditGrantReplayed, Reason: "device code replayed"})
		if err != nil {
			return nil, err
		}
		return s.kv.Txn(ctx).
			If(append(sameRevisions(grant.ClientID, clientRevision, grant.UserID, userRevision),
				clientv3.Compare(clientv3.Version(gk), "=", 0),
				clientv3.Compare(clientv3.ModRevision(dk), "=", d.Revision))...).
			Then(
				clientv3.OpPut(gk, encode(grant), clientv3.WithLease(body)),
				clientv3.OpPut(ck, encode(link{At: now.UnixMilli()}), clientv3.WithLease(chain)),
				clientv3.OpDelete(dk)).
			Else(clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.Version(gk), ">", 0)},
				bury,
				append(currentRecords(grant.ClientID, grant.UserID), clientv3.OpGet(dk)))), nil
	})
	if err != nil {
		return fmt.Errorf("redeem device code: %w", err)
	}
	if resp.Succeeded {
		return nil
	}
	inner := resp.Responses[0].GetResponseTxn()
	if inner.Succeeded {
		return ErrReplayed
	}
	if kvs := inner.Responses[2].GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].ModRevision != d.Revision {
		return ErrNotFound
	}
	return s.stale(inner.Responses)
}
