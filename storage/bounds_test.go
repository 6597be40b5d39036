package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// Users, clients and strangers cannot push the entries of operators out of the audit log, nor fill it.
func TestWhatOthersDidIsBoundedInTheAuditLog(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	var want []string
	for i := range 40 {
		now = now.Add(time.Second)
		actor, action := "uid:0", fmt.Sprintf("operator-%d", i)
		if i%4 != 0 {
			actor, action = []string{storage.UserActor("ann"), storage.ClientActor("c"), storage.ActorStranger}[i%4-1],
				fmt.Sprintf("other-%d", i)
		}
		if i%4 == 0 || i >= 20 {
			want = append(want, action)
		}
		if err := s.Record(t.Context(), storage.AuditEntry{Actor: actor, Action: action}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SweepActivity(t.Context(), 15); err != nil {
		t.Fatal(err)
	}
	var got []string
	for after := ""; ; {
		entries, next, err := s.Audit(t.Context(), storage.AuditQuery{Limit: 7, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			got = append(got, e.Action)
		}
		if after = next; after == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("left\n%v, want\n%v", got, want)
	}
}

// More entries than a page of both kinds come in the order of time.
func TestTheAuditLogMergesByTime(t *testing.T) {
	etcd := storagetest.Many(t)
	now := time.Now().Add(-time.Hour)
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	const n = 900
	for i := range n {
		now = now.Add(time.Second)
		actor := "uid:0"
		if i > 100 && i%5 != 0 {
			actor = storage.UserActor("ann")
		}
		if err := s.Record(t.Context(), storage.AuditEntry{Actor: actor, Action: fmt.Sprintf("%04d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for after := ""; ; {
		entries, next, err := s.Audit(t.Context(), storage.AuditQuery{After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Action != fmt.Sprintf("%04d", seen) {
				t.Fatalf("entry %d is %s", seen, e.Action)
			}
			seen++
		}
		if after = next; after == "" {
			break
		}
	}
	if seen != n {
		t.Errorf("%d of %d entries", seen, n)
	}
}

// Clients that registered themselves and were never used go by themselves; those that are in use stay.
func TestRegistrationsThatWereNeverUsedExpire(t *testing.T) {
	etcd := storagetest.New(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	register := func(name string) *storage.Client {
		hash, _ := storage.NewRegistrationToken()
		c, err := s.RegisterClient(t.Context(), storage.Client{ID: storage.NewClientID("client"), RegistrationToken: hash,
			CreatedAt: now, UpdatedAt: now,
			Client: oauth.Client{ClientName: name}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	unused, used := register("unused"), register("used")
	if err := s.AddConsent(t.Context(), used.ID, storage.Presence{User: &storage.User{ID: "ann"}},
		appAsks("openid")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(storage.UnusedRegistration - time.Minute)
	young := register("young")
	sweep := func() {
		t.Helper()
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	there := func(c *storage.Client) bool {
		_, err := s.CurrentClient(context.Background(), c.ID, "")
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	sweep()
	if !there(unused) {
		t.Error("removed before its time")
	}
	now = now.Add(2 * time.Minute)
	sweep()
	if there(unused) || !there(used) || !there(young) {
		t.Errorf("unused %v, used %v, young %v", there(unused), there(used), there(young))
	}
}

// One lease with all records of a moment would stop all writes while etcd deletes them.
func TestManyRecordsAreSpreadOverLeases(t *testing.T) {
	etcd := storagetest.Many(t)
	now := time.Now()
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	for i := range 1200 {
		if _, _, err := s.TakeGuess(t.Context(), fmt.Sprintf("user %d", i), 10, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := etcd.Client.Get(t.Context(), etcd.Prefix+"limits/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	leases := map[int64]int{}
	for _, kv := range resp.Kvs {
		leases[kv.Lease]++
	}
	for lease, records := range leases {
		if lease == 0 || records > 500 {
			t.Errorf("%d records with lease %x", records, lease)
		}
	}
	if len(resp.Kvs) != 1200 || len(leases) < 3 {
		t.Errorf("%d records, %d leases", len(resp.Kvs), len(leases))
	}
}

// noted writes so many notes below a prefix, as that many sessions or consents leave them.
func noted(t *testing.T, etcd *storagetest.Etcd, under string, n int) {
	t.Helper()
	for from := 0; from < n; from += 100 {
		var ops []clientv3.Op
		for i := from; i < min(n, from+100); i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%s%d", etcd.Prefix, under, i), ""))
		}
		if _, err := etcd.Client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// However often somebody signs in, there are only so many sessions: the oldest end, with what ends with them.
func TestSessionsOfAUserAreBounded(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	c, ann := registered(t, s)
	bob, err := s.PutUser(t.Context(), storage.User{ID: "bob", Connector: "local"})
	if err != nil {
		t.Fatal(err)
	}
	ofBob := signedIn(t, s, bob, "")
	// The history is read
	if got := etcd.Count(func() { signedIn(t, s, bob, "") }); got != (storagetest.Counts{Proposals: 1, Reads: 1}) {
		t.Errorf("a sign-in within the bound: %+v", got)
	}
	var ids []string
	var grants []storage.Grant
	for range 3 {
		id := signedIn(t, s, ann, "")
		ids, grants = append(ids, id), append(grants, from(id, false, c, ann))
		mustGrant(t, s, grants[len(grants)-1], c, ann)
	}
	noted(t, etcd, "usersessions/"+ann.ID+"/", storage.MaxSessions-3)
	for range 2 {
		ids = append(ids, signedIn(t, s, ann, ""))
	}
	for i, id := range ids {
		p, err := s.Presence(t.Context(), id, ann.ID, c.ID)
		if err != nil || (p.Session == nil) != (i < 2) {
			t.Errorf("session %d: %+v, %v", i, p.Session, err)
		}
	}
	for i, g := range grants {
		if alive(t, s, g) != (i == 2) {
			t.Errorf("grant of session %d: alive: %v", i, i < 2)
		}
	}
	if p, err := s.Presence(t.Context(), ofBob, bob.ID, c.ID); err != nil || p.Session == nil {
		t.Errorf("another user's session: %+v, %v", p.Session, err)
	}
	if _, err := s.RevokeSessions(t.Context(), ann.ID, storage.AuditEntry{Reason: "revoked by an operator"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if strings.Contains(etcd.Dump(), "usersessions/"+ann.ID+"/"+storage.SID(id)) {
			t.Errorf("something is left of session %s", storage.SID(id))
		}
	}
}

// A user may allow something to any number of clients, because anybody can publish a document that describes one: the
// consents that were given least lately are forgotten.
func TestConsentsOfAUserAreBounded(t *testing.T) {
	etcd := storagetest.New(t)
	s := etcd.Store()
	_, ann := registered(t, s)
	allow := func(client string) {
		t.Helper()
		if err := s.AddConsent(t.Context(), client, storage.Presence{User: ann}, appAsks("openid")); err != nil {
			t.Fatal(err)
		}
	}
	id := func(i int) string { return fmt.Sprintf("https://app.test/%d", i) }
	for i := range 3 {
		if got := etcd.Count(func() { allow(id(i)) }); got != (storagetest.Counts{Proposals: 1, Reads: 1}) {
			t.Errorf("a consent within the bound: %+v", got)
		}
	}
	noted(t, etcd, "userconsents/"+ann.ID+"/", storage.MaxConsents-3)
	allow(id(0)) // which is used, so it stays
	allow(id(3))
	for i, want := range []bool{true, false, true, true} {
		p, err := s.Presence(t.Context(), "", ann.ID, id(i))
		if err != nil || (p.Consent != nil) != want {
			t.Errorf("consent to client %d: %+v, %v", i, p.Consent, err)
		}
	}
	if _, err := s.RevokeConsent(t.Context(), id(3), ann.ID,
		storage.AuditEntry{Reason: "revoked by an operator"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.EndUser(t.Context(), ann.ID, storage.AuditEntry{Reason: "revoked by an operator"}); err != nil {
		t.Fatal(err)
	}
	if dump := etcd.Dump(); strings.Contains(dump, "consents/"+ann.ID+"/https") {
		t.Error("notes of consents that have ended are left")
	}
}

// Clients that registered themselves are bounded in number, and make room after a day when there is little left.
func TestRegistrationsAreBoundedInNumber(t *testing.T) {
	etcd := storagetest.Many(t)
	now := time.Now()
	hash, _ := storage.NewRegistrationToken()
	client := func(n int, at time.Time) storage.Client {
		return storage.Client{ID: fmt.Sprintf("client-%05d", n), RegistrationToken: hash, CreatedAt: at, UpdatedAt: at,
			Client: oauth.Client{ClientName: "Agent"}}
	}
	const batch = 100
	for n := 0; n < storage.MaxRegistrations; n += batch {
		var puts []clientv3.Op
		for i := n; i < n+batch; i++ {
			value, err := json.Marshal(client(i, now.Add(-25*time.Hour)))
			if err != nil {
				t.Fatal(err)
			}
			puts = append(puts, clientv3.OpPut(etcd.Prefix+fmt.Sprintf("clients/client-%05d", i), string(value)))
		}
		if _, err := etcd.Client.Txn(t.Context()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	s := etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
	if _, err := s.RegisterClient(t.Context(), client(storage.MaxRegistrations, now)); !errors.Is(err,
		storage.ErrTooMany) {
		t.Errorf("one more than there may be: %v", err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RegisterClient(t.Context(), client(storage.MaxRegistrations, now)); err != nil {
		t.Errorf("after unused ones have gone: %v", err)
	}
}
