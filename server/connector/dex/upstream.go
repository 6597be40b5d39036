package dex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	dex "github.com/dexidp/dex/connector"
)

const (
	// maxCalls is how many calls of one connector run at once, those included that nobody waits for any longer.
	maxCalls = 32
	// maxHanging is how many openings of one connector may hang before no other is begun.
	maxHanging = 3
)

// upstream is a connector of Dex, whose code knows few deadlines: opening one takes no context, and a directory is
// asked without one. So each opening and each call has a goroutine of its own, which is left behind when it takes too
// long; its answer is dropped. How many there can be is bounded.
type upstream struct {
	open  func(context.Context) (dex.Connector, error)
	slots chan struct{} // holds one for each call that runs

	mu      sync.Mutex // guards what follows
	conn    dex.Connector
	failed  error         // of the last opening
	opening chan struct{} // closed when the opening under way ends or is given up; nil without one
	hanging int           // openings that were given up and have not ended
	pause   time.Duration
	next    time.Time // when the next opening may begin
}

func newUpstream(open func(context.Context) (dex.Connector, error)) *upstream {
	return &upstream{open: open, slots: make(chan struct{}, maxCalls)}
}

// call asks the upstream, and opens it first if need be. It ends when ctx does, and after [callTimeout] at the latest.
func call[T any](ctx context.Context, u *upstream, ask func(context.Context, dex.Connector) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	var none T
	select {
	case u.slots <- struct{}{}:
	case <-ctx.Done():
		defer cancel()
		if errors.Is(ctx.Err(), context.Canceled) {
			return none, late(ctx)
		}
		return none, plain{fmt.Errorf("%d calls are under way, and none has ended within %s", maxCalls, callTimeout)}
	}
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() { // ends with the call, and holds a slot until then
		defer func() { <-u.slots }()
		defer cancel() // also lets go of what Dex's code has not closed
		value, err := guarded(func() (T, error) {
			conn, err := u.get(ctx)
			if err != nil {
				return none, err
			}
			return ask(ctx, conn)
		})
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		select {
		case a := <-answers: // it ended just now, perhaps because of that
			return a.value, a.err
		default:
		}
		return none, late(ctx)
	}
}

func late(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("nobody waits for the answer any longer: %w", ctx.Err())
	}
	return fmt.Errorf("there was no answer within %s: %w", callTimeout, ctx.Err())
}

// guarded turns a panic into an error: Dex's code has some, on answers that it did not expect.
func guarded[T any](f func() (T, error)) (value T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("the code of the connector did not expect such an answer")
			if fault, is := p.(runtime.Error); is {
				err = fmt.Errorf("%w (%w)", err, fault)
			}
			err = plain{err}
		}
	}()
	return f()
}

// get is the connector, once it is open. It waits for the opening under way, or begins one.
func (u *upstream) get(ctx context.Context) (dex.Connector, error) {
	u.mu.Lock()
	if u.conn == nil && u.opening == nil {
		now := time.Now()
		if u.hanging >= maxHanging || now.Before(u.next) {
			defer u.mu.Unlock()
			return nil, u.failed
		}
		u.begin()
	}
	conn, opening := u.conn, u.opening
	u.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	select {
	case <-opening:
	case <-ctx.Done():
		return nil, late(ctx)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn != nil {
		return u.conn, nil
	}
	return nil, u.failed
}

// begin begins an opening. The lock is held.
func (u *upstream) begin() {
	done := make(chan struct{})
	u.opening = done
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	giveUp := time.AfterFunc(callTimeout, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.opening == done {
			u.hanging++
			u.end(plain{fmt.Errorf("opening it has not ended within %s", callTimeout)})
		}
	})
	go func() { // ends when Dex's code does; at most maxHanging and one of them
		defer cancel()
		conn, err := guarded(func() (dex.Connector, error) { return u.open(ctx) })
		giveUp.Stop()
		u.mu.Lock()
		defer u.mu.Unlock()
		underWay := u.opening == done
		if !underWay {
			u.hanging--
		}
		switch {
		case err == nil && u.conn == nil:
			u.conn, u.failed, u.pause = conn, nil, 0
			if u.opening != nil {
				close(u.opening)
				if !underWay { // another one hangs, and is not waited for any longer
					u.hanging++
				}
				u.opening = nil
			}
		case err == nil: // another one was faster
			if closer, is := conn.(io.Closer); is {
				_ = closer.Close()
			}
		case underWay:
			u.end(err)
		}
	}()
}

// end notes that the opening under way has failed. The lock is held.
func (u *upstream) end(err error) {
	close(u.opening)
	u.opening, u.failed = nil, err
	u.pause = min(max(2*u.pause, firstPause), lastPause)
	u.next = time.Now().Add(u.pause)
}
