package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// leases hands out etcd leases for cleaning up. Records that end at about the same time share one, because a lease
// costs a raft proposal; but only so many, because all of them are deleted at once when it ends, and etcd does nothing
// else meanwhile. The leases of a bucket end at different times. A lease never decides whether a record is still valid.
type leases struct {
	lease clientv3.Lease
	now   func() time.Time

	mu      sync.Mutex
	buckets map[int64]*bucket // by the end of the bucket, Unix seconds
}

// bucket is the lease that records of a bucket get at present.
type bucket struct {
	id   clientv3.LeaseID
	used int
}

// mostPerLease is how many records share a lease.
const mostPerLease = 500

func newLeases(lease clientv3.Lease, now func() time.Time) *leases {
	return &leases{lease: lease, now: now, buckets: make(map[int64]*bucket)}
}

// widthOf is that of the bucket for a record: five minutes, or an hour if it lives for more than a day.
func widthOf(now, end time.Time) time.Duration {
	if end.Sub(now) > 24*time.Hour {
		return time.Hour
	}
	return 5 * time.Minute
}

// bucketEnd rounds up to the end of the bucket after that in which a record ends.
func bucketEnd(now, end time.Time) time.Time {
	width := widthOf(now, end)
	return end.Truncate(width).Add(2 * width)
}

// until is a lease of the bucket in which end falls. It is granted on the bucket's first use, and when the one before
// has its records. For a transaction that will not put (see [Store.commitEnd]) it is none.
func (l *leases) until(ctx context.Context, end time.Time) (clientv3.LeaseID, error) {
	if ctx.Value(leaseless{}) != nil {
		return clientv3.NoLease, nil
	}
	now := l.now()
	if end.Before(now) {
		end = now
	}
	at := bucketEnd(now, end)
	if id, ok := l.take(at.Unix()); ok {
		return id, nil
	}
	// Not under the mutex: two callers may each grant a lease, which wastes one and does no harm.
	sooner := rand.N(widthOf(now, end) / 2) // which leaves as much after the last record of the bucket
	granted, err := l.lease.Grant(ctx, int64((at.Sub(now)-sooner)/time.Second)+1)
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
	l.buckets[at.Unix()] = &bucket{id: granted.ID, used: 1}
	return granted.ID, nil
}

// take is the lease of a bucket, if it has room for one more record.
func (l *leases) take(at int64) (clientv3.LeaseID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[at]
	if b == nil || b.used >= mostPerLease {
		return 0, false
	}
	b.used++
	return b.id, true
}

// forget drops all buckets, for when etcd no longer knows a lease.
func (l *leases) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.buckets)
}
