package manifests

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/warifu/warifu/storage"
)

// claim is a delivery that this replica has to itself while it works on it. The claim is short, so that another replica
// need not wait for long when this one dies, and is renewed as long as the work goes on. The work ends before the claim
// does: a replica that cannot reach storage any more does not push against the one that takes over.
type claim struct {
	d *Deployer
	// work ends when the claim is about to.
	work   context.Context
	cutOff *time.Timer
	stop   context.CancelFunc // of renewing and of work
	ended  chan struct{}      // closed when nothing is renewed any more

	mu   sync.Mutex // owns held; not held by anything that waits for the runtime
	held storage.Delivery
}

// claim makes this replica the one that works on a delivery. Fences follow the clock, so that they keep growing even
// when a store is created anew while its targets stay.
func (a *attempt) claim(ctx context.Context, x storage.Delivery) (*claim, bool) {
	d, now := a.d, a.d.now()
	x.Fence = max(x.Fence, now.UnixMilli())
	begun := time.Now()
	held, err := d.store.ClaimDelivery(ctx, x, d.replica, now.Add(d.pace.Claim))
	if err != nil {
		if !errors.Is(err, storage.ErrConflict) && ctx.Err() == nil {
			d.log.WarnContext(ctx, "a delivery cannot be claimed; trying again", "app", x.App, "target", words(x.Target),
				"error", err)
		}
		return nil, false
	}
	c := &claim{d: d, ended: make(chan struct{}), held: *held}
	c.work, c.stop = context.WithCancel(ctx)
	c.cutOff = time.AfterFunc(c.left(begun), c.stop)
	go c.renew() // ends with stop, which release calls and waits for
	return c, true
}

// left is how long the work may go on when the claim was written at a time.
func (c *claim) left(written time.Time) time.Duration {
	return time.Until(written.Add(c.d.pace.Claim - c.d.pace.Claim/10))
}

// renew extends the claim until the work ends, or another wish has replaced the one that is worked on: that one is not
// to be delivered any more, and the claim ends when it ends.
func (c *claim) renew() {
	defer close(c.ended)
	for {
		storage.Pause(c.work, c.d.pace.Claim/3)
		if c.work.Err() != nil {
			return
		}
		written := time.Now()
		err := c.update(c.work, func(x *storage.Delivery) { x.OwnedUntil = c.d.now().Add(c.d.pace.Claim).UTC() })
		switch {
		case err == nil:
			c.cutOff.Reset(c.left(written))
		case errors.Is(err, storage.ErrConflict):
			return
		}
	}
}

// record is the delivery as it is stored, as far as this replica knows.
func (c *claim) record() storage.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// update changes the record, unless somebody else has.
func (c *claim) update(ctx context.Context, change func(*storage.Delivery)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.held
	change(&next)
	stored, err := c.d.store.UpdateDelivery(ctx, next)
	if err == nil {
		c.held = *stored
	}
	return err
}

// release ends renewing, and returns the record, which the caller stores with what came of the work: err, in other
// words if the work was cut off.
func (c *claim) release(ctx context.Context, err error) (storage.Delivery, error) {
	cut := c.work.Err() != nil && ctx.Err() == nil
	c.cutOff.Stop()
	c.stop()
	<-c.ended
	if err != nil && cut {
		err = fmt.Errorf("it was cut off, because this server could not renew its claim on the delivery: %w",
			context.DeadlineExceeded)
	}
	return c.record(), err
}
