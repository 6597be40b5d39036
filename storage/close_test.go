package storage_test

import (
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// Stores that end at the same moment wait for no etcd that waits for them.
func TestManyStoresCloseAtOnce(t *testing.T) {
	etcd := storagetest.New(t)
	for range 10 {
		stores := make([]*storage.Store, 12)
		for i := range stores {
			stores[i] = etcd.Store()
		}
		closed := make(chan struct{})
		go func() {
			var all sync.WaitGroup
			for _, s := range stores {
				all.Go(s.Close)
			}
			all.Wait()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Fatal("they do not")
		}
	}
}
