package storage_test

import (
	"bytes"
	"testing"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestRuntimeKeyIsTheSameOnAllReplicas(t *testing.T) {
	etcd := storagetest.New(t)
	one := etcd.Store()
	if _, err := one.RuntimeKey("file"); err == nil {
		t.Error("a key of nothing")
	}
	if err := one.RotateKeys(t.Context(), true, storage.KeySchedule{Use: storage.UsePairwise}); err != nil {
		t.Fatal(err)
	}
	two := etcd.Store()
	key := func(s *storage.Store, runtime string) []byte {
		t.Helper()
		key, err := s.RuntimeKey(runtime)
		if err != nil || len(key) != 32 {
			t.Fatalf("%d bytes, %v", len(key), err)
		}
		return key
	}
	if !bytes.Equal(key(one, "file"), key(two, "file")) {
		t.Error("replicas have different keys")
	}
	if bytes.Equal(key(one, "file"), key(one, "other")) {
		t.Error("two runtimes have the same key")
	}
}
