package storage_test

import (
	"bytes"
	"testing"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// Each replica says what it is, and is gone from the list once it has left.
func TestReplicasTellWhatTheyAre(t *testing.T) {
	etcd := storagetest.New(t)
	older, newer := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	open := func(keys ...[]byte) *storage.Store {
		kek, err := storage.NewKEK(keys...)
		if err != nil {
			t.Fatal(err)
		}
		return etcd.Store(func(o *storage.Options) { o.KEK = kek })
	}
	one, two := open(older), open(newer, older)
	for store, config := range map[*storage.Store]string{one: "c1", two: "c2"} {
		if err := store.Announce(t.Context(), storage.Announcement{Version: "v1.2.3", Config: config}); err != nil {
			t.Fatal(err)
		}
	}
	replicas, err := one.Replicas(t.Context())
	if err != nil || len(replicas) != 2 {
		t.Fatalf("%+v, %v", replicas, err)
	}
	self, other := replicas[0], replicas[1]
	if !self.Self || self.Config != "c1" || self.Version != "v1.2.3" || self.Started.IsZero() || len(self.Keys) != 1 {
		t.Errorf("of itself: %+v", self)
	}
	if other.Self || other.Config != "c2" || len(other.Keys) != 2 || other.Keys[1] != self.Keys[0] {
		t.Errorf("of the other: %+v", other)
	}
	if err := one.Announce(t.Context(), storage.Announcement{Config: "c3"}); err != nil {
		t.Fatal(err)
	}
	one.Close()
	if replicas, err = two.Replicas(t.Context()); err != nil || len(replicas) != 1 || !replicas[0].Self {
		t.Errorf("after one has left: %+v, %v", replicas, err)
	}
}
