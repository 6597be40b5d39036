package manifests

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errAsking means that a runtime is being asked which kinds it serves, and has not answered yet.
var errAsking = errors.New("the runtimes are being asked what they serve")

// unserved says why a delivery has no runtime, and what to do about it.
type unserved struct {
	message, remedy string
	// again is when to look again; it is zero if only another configuration helps.
	again time.Time
}

func (e *unserved) Error() string { return e.message }

// catalog knows which runtime serves which kind of target. A runtime is asked when that first matters, so plugins
// that are not needed are not started.
type catalog struct {
	d      *Deployer
	set    *settings     // to which it belongs
	learnt chan struct{} // a runtime has answered
	asking *sync.WaitGroup

	mu      sync.Mutex // owns entries
	entries []catalogEntry
}

type catalogEntry struct {
	asking  bool
	known   bool
	kinds   []string // empty: all
	failed  error
	retryAt time.Time
	fails   int
}

// newCatalog knows nothing yet; asking is where its questions count.
func newCatalog(d *Deployer, asking *sync.WaitGroup) *catalog {
	set := d.set()
	return &catalog{d: d, set: set, learnt: make(chan struct{}, 1), asking: asking,
		entries: make([]catalogEntry, len(set.runtimes))}
}

// ask asks a runtime in the background. c.mu is held.
func (c *catalog) ask(ctx context.Context, i int) {
	if c.entries[i].asking {
		return
	}
	c.entries[i].asking = true
	c.asking.Go(func() {
		description, err := c.set.runtimes[i].Describe(ctx)
		c.mu.Lock()
		e := &c.entries[i]
		e.asking = false
		if err == nil {
			e.known, e.kinds, e.failed = true, description.Kinds, nil
		} else {
			e.fails++
			e.failed, e.retryAt = err, c.d.now().Add(c.d.pace.backoff(e.fails))
		}
		c.mu.Unlock()
		select {
		case c.learnt <- struct{}{}:
		default:
		}
	})
}
