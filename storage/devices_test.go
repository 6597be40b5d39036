package storage_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const userCode = "WDJBMJHT"

// asked stores a device authorization and reads it back.
func asked(t *testing.T, s *storage.Store, c *storage.Client) *storage.Device {
	t.Helper()
	now := time.Now()
	d := storage.Device{Grant: storage.NewGrantID(), ClientID: c.ID, Scopes: []string{"a"}, CreatedAt: now,
		ExpiresAt: now.Add(10 * time.Minute)}
	if err := s.CreateDevice(t.Context(), userCode, d); err != nil {
		t.Fatal(err)
	}
	stored, err := s.Device(t.Context(), userCode)
	if err != nil || stored.Decision != "" || stored.Grant != d.Grant {
		t.Fatalf("%+v, %v", stored, err)
	}
	return stored
}

// approved is one that a user has approved.
func approved(t *testing.T, s *storage.Store, c *storage.Client, u *storage.User) *storage.Device {
	t.Helper()
	d := asked(t, s, c)
	d.Decision, d.UserID, d.Approval = storage.DeviceApproved, u.ID, json.RawMessage(`{"u":"user-1"}`)
	if err := s.DecideDevice(t.Context(), userCode, *d); err != nil {
		t.Fatal(err)
	}
	state, err := s.DeviceState(t.Context(), userCode, c.ID, d.Grant)
	if err != nil || state.Redeemed || state.Device == nil || state.Device.Decision != storage.DeviceApproved ||
		string(state.Device.Approval) != string(d.Approval) {
		t.Fatalf("%+v, %v", state, err)
	}
	return state.Device
}

func grantOf(d *storage.Device) storage.Grant {
	return storage.Grant{ID: d.Grant, ClientID: d.ClientID, UserID: d.UserID, Scopes: d.Scopes, CreatedAt: time.Now(),
		ExpiresAt: time.Now().Add(24 * time.Hour)}
}

func TestDeviceLife(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	if _, err := s.Device(ctx, userCode); !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
	d := approved(t, s, c, u)
	if err := s.CreateDevice(ctx, userCode, storage.Device{Grant: "other", ExpiresAt: ends}); !errors.Is(err,
		storage.ErrConflict) {
		t.Errorf("a code that is taken: %v", err)
	}
	if state, err := s.DeviceState(ctx, userCode, c.ID, "other"); err != nil || state.Device != nil {
		t.Errorf("the state of another device: %+v, %v", state, err)
	}
	if _, err := s.RedeemDevice(ctx, userCode, d, grantOf(d), ends, on(c, u)); err != nil {
		t.Fatal(err)
	}
	if state, err := s.DeviceState(ctx, userCode, c.ID, d.Grant); err != nil || state.Device != nil || !state.Redeemed {
		t.Errorf("after it was redeemed: %+v, %v", state, err)
	}
	// Again: a replay, and the family dies.
	if _, err := s.RedeemDevice(ctx, userCode, d, grantOf(d), ends, on(c, u)); !errors.Is(err, storage.ErrReplayed) {
		t.Errorf("replay: %v", err)
	}
	if _, err := s.Grant(ctx, c.ID, d.Grant, u.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the grant lives: %v", err)
	}
	if state, err := s.DeviceState(ctx, userCode, c.ID, d.Grant); err != nil || state.Redeemed {
		t.Errorf("after the replay: %+v, %v", state, err)
	}
}

func TestDeviceRedeemedOnce(t *testing.T) {
	s := storagetest.New(t).Store()
	c, u := registered(t, s)
	d := approved(t, s, c, u)
	won := race(t, 32, func() error {
		return failure(s.RedeemDevice(t.Context(), userCode, d, grantOf(d), time.Now().Add(time.Hour), on(c, u)))
	}, storage.ErrReplayed)
	if won != 1 {
		t.Errorf("%d redeemed it", won)
	}
}

func TestDeviceDecidedOnce(t *testing.T) {
	s := storagetest.New(t).Store()
	c, u := registered(t, s)
	d := asked(t, s, c)
	won := race(t, 32, func() error {
		decided := *d
		decided.Decision, decided.UserID = storage.DeviceDenied, u.ID
		return s.DecideDevice(t.Context(), userCode, decided)
	}, storage.ErrConflict)
	if won != 1 {
		t.Errorf("%d decided", won)
	}
}

func TestDeviceOfStaleRecords(t *testing.T) {
	s := storagetest.New(t).Store()
	ctx, ends := t.Context(), time.Now().Add(time.Hour)
	c, u := registered(t, s)
	d := approved(t, s, c, u)
	changed := *u
	changed.Disabled = true
	if _, err := s.PutUser(ctx, changed); err != nil {
		t.Fatal(err)
	}
	var stale *storage.StaleError
	if _, err := s.RedeemDevice(ctx, userCode, d, grantOf(d), ends, on(c, u)); !errors.As(err, &stale) ||
		stale.User.Active() || stale.Client == nil {
		t.Fatalf("%+v, %v", stale, err)
	}
	// Nothing was written: it can still be redeemed on what is true now.
	if _, err := s.RedeemDevice(ctx, userCode, d, grantOf(d), ends, storage.Revisions{Client: stale.Client.Revision,
		User: stale.User.Revision}); err != nil {
		t.Error(err)
	}
}

// What somebody else decided, or what was cleaned up, redeems nothing.
func TestDeviceThatChanged(t *testing.T) {
	s := storagetest.New(t).Store()
	c, u := registered(t, s)
	d := approved(t, s, c, u)
	before := *d
	before.Revision--
	if _, err := s.RedeemDevice(t.Context(), userCode, &before, grantOf(d), time.Now().Add(time.Hour),
		on(c, u)); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := s.Grant(t.Context(), c.ID, d.Grant, u.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a grant: %v", err)
	}
}
