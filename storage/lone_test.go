package storage_test

import (
	"fmt"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/storage/storagetest"
)

// A read that comes after a confirmed write sees it, whoever wrote it and however it is read.
func TestReadsSeeConfirmedWrites(t *testing.T) {
	etcd := storagetest.New(t)
	ctx := t.Context()
	var racers sync.WaitGroup
	for i := range 16 {
		racers.Go(func() {
			for n := range 50 {
				key, value := fmt.Sprintf("%sread/%d", etcd.Prefix, i), fmt.Sprint(n)
				if _, err := etcd.Client.Put(ctx, key, value); err != nil {
					t.Error(err)
					return
				}
				got, err := etcd.Client.Get(ctx, key)
				if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
					t.Errorf("read after write %d: %v, %v", n, got, err)
				}
				read, err := etcd.Client.Txn(ctx).Then(clientv3.OpGet(key)).Commit()
				if err != nil || string(read.Responses[0].GetResponseRange().Kvs[0].Value) != value {
					t.Errorf("transaction after write %d: %v, %v", n, read, err)
				}
			}
		})
	}
	racers.Wait()
}
