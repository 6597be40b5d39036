package server

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warifu/warifu/server/oauth"
)

// workroom is how many requests may be at work at once. What is at work mostly waits for storage: when that does not
// answer, requests would pile up for as long as each of them waits. So a bounded number is at work, some more wait a
// moment for a place, and the others are told at once to come back. Documents, /healthz and /readyz need no place.
type workroom struct {
	places  chan struct{}
	waiting atomic.Int64
}

const (
	// mostAtWork is far more than storage works on at a time.
	mostAtWork = 256
	// mostWaiting for a place, each for up to placeTime: a burst that storage gets through in that time.
	mostWaiting = 1024
	placeTime   = time.Second
	// retryCrowded is when to come back, in seconds.
	retryCrowded = "2"
)

// errCrowded is the refusal of a request for which there is no place.
var errCrowded = oauth.Refuse(oauth.CodeTemporarilyUnavailable, oauth.RuleStorageUnavailable,
	"too many requests are waiting for storage; try again later")

// arrivals are the bodies of requests that are arriving. A body takes no place before it is here: whoever sends slowly
// would have it meanwhile. But it takes memory, so there are so many at once, and of one address fewer: one connection
// may carry hundreds of requests.
type arrivals struct {
	mu   sync.Mutex // guards the rest
	all  int
	from map[netip.Prefix]int
}

const (
	mostArrivals      = 2048 // of up to 64 KiB each
	arrivalsOfAddress = 512
)

// begin reports whether another body from an address may arrive, which counts as n; end must follow then.
func (a *arrivals) begin(from netip.Prefix, n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all+n > mostArrivals || a.from[from]+n > arrivalsOfAddress {
		return false
	}
	a.all += n
	a.from[from] += n
	return true
}

func (a *arrivals) end(from netip.Prefix, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all -= n
	if a.from[from] -= n; a.from[from] == 0 {
		delete(a.from, from)
	}
}

func newWorkroom() *workroom { return &workroom{places: make(chan struct{}, mostAtWork)} }

// enter takes a place, and reports whether there was one in time.
func (r *workroom) enter(ctx context.Context) bool {
	select {
	case r.places <- struct{}{}:
		return true
	default:
	}
	if r.waiting.Add(1) > mostWaiting {
		r.waiting.Add(-1)
		return false
	}
	defer r.waiting.Add(-1)
	timer := time.NewTimer(placeTime)
	defer timer.Stop()
	select {
	case r.places <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (r *workroom) leave() { <-r.places }
