package storage

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// leases hands out etcd leases for cleaning up. Records that end at about the same time share one, because a lease
// costs a raft proposal. A lease never decides whether a record is still valid.
type leases struct {
	lease clientv3.Lease
	now   func() time.Time

	mu      sync.Mutex
	buckets map[int64]clientv3.LeaseID // by the end of the bucket, Unix seconds
}

func newLeases(lease clientv3.Lease, now func() time.Time) *leases {
	return &leases{lease: lease, now: now, buckets: make(map[int64]clientv3.LeaseID)}
}

// bucketEnd rounds up to the next full five minutes, or to the next hour if the record lives for more than a day.
func bucketEnd(now, end time.Time) time.Time {
	width := 5 * time.Minute
	if end.Sub(now) > 24*time.Hour {
		width = time.Hour
	}
	return end.Truncate(width).Add(2 * width)
}

// until is the lease of the bucket in which end falls. It is granted on the bucket's first use.
func (l *leases) until(ctx context.Context, end time.Time) (clientv3.LeaseID, error) {
	now := l.now()
	if end.Before(now) {
		end = now
	}
	bucket := bucketEnd(now, end)
	l.mu.Lock()
	id, ok := l.buckets[bucket.Unix()]
	l.mu.Unlock()
	if ok {
		return id, nil
	}
	// Not under the mutex: two callers may each grant a lease, which wastes one and does no harm.
	granted, err := l.lease.Grant(ctx, int64(bucket.Sub(now)/time.Second)+1)
	if err != nil {
		return 0, fmt.Errorf("grant lease: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for past := range l.buckets {
		if past < now.Unix() {
			delete(l.buckets, past)
		}
	}
	l.buckets[bucket.Unix()] = granted.ID
	return granted.ID, nil
}

// forget drops all buckets, for when etcd no longer knows a lease.
func (l *leases) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.buckets)
}
