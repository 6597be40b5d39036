package storage_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func workload(subject string) oauth.WorkloadIdentity {
	return oauth.WorkloadIdentity{Issuer: "https://cluster.test", Subject: subject}
}

// beWorkload applies an app whose client is these workloads.
func beWorkload(t *testing.T, s *storage.Store, app string, ids ...oauth.WorkloadIdentity) error {
	t.Helper()
	view, err := s.App(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	c := storage.Client{ID: app, App: app, Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{
		TokenEndpointAuthMethod: oauth.AuthWorkload, Identities: ids}}}
	release := storage.Release{App: storage.App{Name: app, ClientID: app}, Client: &c}
	if view.App != nil {
		release.App, c.Revision = *view.App, view.Client.Revision
	}
	return s.CommitRelease(t.Context(), release)
}

// identityKeys counts the keys of workloads.
func identityKeys(t *testing.T, etcd *storagetest.Etcd) int64 {
	t.Helper()
	resp, err := etcd.Client.Get(t.Context(), etcd.Prefix+"identities/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return resp.Count
}

// clientOf is whose client a workload is, by one replica.
func clientOf(t *testing.T, s *storage.Store, subject string) string {
	t.Helper()
	c, err := s.ClientOf(t.Context(), "https://cluster.test", subject)
	if errors.Is(err, storage.ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// Threat: one workload to two apps by two replicas.
func TestThreatWorkloadOfTwoApps(t *testing.T) {
	etcd := storagetest.New(t)
	stores := []*storage.Store{etcd.Store(), etcd.Store()}
	var racer atomic.Int64
	won := race(t, 64, func() error {
		n := racer.Add(1)
		return beWorkload(t, stores[n%2], fmt.Sprintf("app-%d", n), workload("web"), workload(fmt.Sprintf("own-%d", n)))
	}, storage.ErrConflict)
	owner := clientOf(t, stores[0], "web")
	if won != 1 || owner == "" || clientOf(t, stores[1], "web") != owner || identityKeys(t, etcd) != 2 {
		t.Fatalf("%d racers are the workload, %q has it, and there are %d keys", won, owner, identityKeys(t, etcd))
	}
	for i, s := range stores {
		if got := takenBy(beWorkload(t, s, "late", workload("late"), workload("web"))); got != "app "+owner {
			t.Errorf("replica %d: %v", i, got)
		}
	}
}

// A workload that an app gives up, or that ends with it, is free for another one.
func TestWorkloadIsGivenUp(t *testing.T) {
	etcd := storagetest.New(t)
	s, other := etcd.Store(), etcd.Store()
	for _, ids := range [][]oauth.WorkloadIdentity{{workload("a"), workload("b")}, {workload("b"), workload("c")},
		{workload("b")}} {
		if err := beWorkload(t, s, "one", ids...); err != nil {
			t.Fatal(err)
		}
		if n := identityKeys(t, etcd); n != int64(len(ids)) {
			t.Errorf("%d workloads, and %d keys", len(ids), n)
		}
	}
	if err := beWorkload(t, other, "two", workload("a"), workload("c")); err != nil {
		t.Fatal(err)
	}
	if got := takenBy(beWorkload(t, other, "three", workload("b"))); got != "app one" {
		t.Errorf("a workload that one still is: %s", got)
	}
	view, err := s.App(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.BeginDelete(t.Context(), view, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an app that is being deleted is no workload", func() bool { return clientOf(t, s, "b") == "" })
	if done, err := s.FinishDelete(t.Context(), "one"); err != nil || !done {
		t.Fatal(done, err)
	}
	if err := beWorkload(t, other, "three", workload("b")); err != nil {
		t.Errorf("a workload whose app has gone: %v", err)
	}
	eventually(t, "the workload is the other app", func() bool { return clientOf(t, other, "b") == "three" })
}

// Records that come from elsewhere, without the keys of their workloads, get them when a store opens.
func TestWorkloadsWithoutKeysGetThem(t *testing.T) {
	etcd := storagetest.New(t)
	unkeyed(t, etcd, storage.Client{ID: "one", App: "one", Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{
		TokenEndpointAuthMethod: oauth.AuthWorkload, Identities: []oauth.WorkloadIdentity{workload("a"), workload("b")}}}})
	for range 2 {
		s := etcd.Store()
		if n := identityKeys(t, etcd); n != 2 || clientOf(t, s, "a") != "one" {
			t.Errorf("%d keys", n)
		}
		if got := takenBy(beWorkload(t, s, "two", workload("b"))); got != "app one" {
			t.Errorf("taken by %s", got)
		}
	}
	resp, err := etcd.Client.Get(t.Context(), etcd.Prefix+"identities/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		if kv.Version != 1 {
			t.Errorf("%s was written %d times", kv.Key, kv.Version)
		}
	}
}
