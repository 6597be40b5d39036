package server

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Checking a password is made to cost, processor and memory, so few are checked at once, and the others wait. How many
// may wait follows from how long a check takes: each is to have its answer while somebody still looks at the page.
// Whoever finds the queue full is told so at once.
const (
	// queueTime is how long the whole queue may take to be worked off.
	queueTime = 5 * time.Second
	// longestWait ends the waiting where a check takes longer than expected.
	longestWait = 8 * time.Second
	// mostQueued bounds the queue where checks are fast: each who waits has a place (see room), and others need some,
	// too.
	mostQueued = mostAtWork / 2
	// usualCheck is how long a check takes until that is known.
	usualCheck = 100 * time.Millisecond
)

// errQueueFull: the queue is full.
var errQueueFull = errors.New("too many are waiting")

// queue lets in as many as there are cores. Those who wait are let in by turns, one of each address; when the queue is
// full, the last of the address that has most waiting makes room for others. So one address can fill the queue, but
// keeps nobody out.
type queue struct {
	slots int

	mu      sync.Mutex // guards the rest
	in      int
	waiting map[netip.Prefix][]*waiter // never empty
	turns   []netip.Prefix             // the keys of waiting, whose turn is next first
	count   int                        // of all who wait
	takes   time.Duration              // how long one is in, lately
}

// waiter waits to be let in (true), or to be sent away (false).
type waiter struct{ told chan bool }

// newQueue makes a queue; takes is how long a check takes, 0 if that is not known.
func newQueue(takes time.Duration) *queue {
	if takes <= 0 {
		takes = usualCheck
	}
	return &queue{slots: max(1, runtime.GOMAXPROCS(0)), waiting: make(map[netip.Prefix][]*waiter), takes: takes}
}

// enter waits to be let in. leave must be called then. The error is [errQueueFull], or that of ctx.
func (q *queue) enter(ctx context.Context, from netip.Prefix) (leave func(), err error) {
	w := q.line(from)
	if w == nil {
		return nil, errQueueFull
	}
	patience := time.NewTimer(longestWait)
	defer patience.Stop()
	select {
	case in := <-w.told:
		if !in {
			return nil, errQueueFull
		}
		begun := time.Now()
		return func() { q.leave(time.Since(begun)) }, nil
	case <-patience.C:
		err = errQueueFull
	case <-ctx.Done():
		err = ctx.Err()
	}
	q.abandon(from, w)
	return nil, err
}

// line lets somebody in who need not wait, or puts them into the queue; nil when there is no room.
func (q *queue) line(from netip.Prefix) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &waiter{told: make(chan bool, 1)}
	if q.in < q.slots {
		q.in++
		w.told <- true
		return w
	}
	if q.count >= q.room() && !q.makeRoom(from) {
		return nil
	}
	if len(q.waiting[from]) == 0 {
		q.turns = append(q.turns, from)
	}
	q.waiting[from] = append(q.waiting[from], w)
	q.count++
	return w
}

// room is how many may wait.
func (q *queue) room() int {
	return min(max(int(queueTime*time.Duration(q.slots)/q.takes), q.slots), mostQueued)
}

// makeRoom sends somebody away for an address that asks, unless no other address has more waiting than it would have
// then.
func (q *queue) makeRoom(from netip.Prefix) bool {
	if most := q.busiest(); len(q.waiting[most]) > len(q.waiting[from])+1 {
		q.sendAway(most)
		return true
	}
	return false
}

// busiest is the address that has most waiting; of several, the one whose turn comes last.
func (q *queue) busiest() netip.Prefix {
	var most netip.Prefix
	for _, network := range q.turns {
		if len(q.waiting[network]) >= len(q.waiting[most]) {
			most = network
		}
	}
	return most
}

// sendAway tells the last of an address to come back later.
func (q *queue) sendAway(from netip.Prefix) {
	waiting := q.waiting[from]
	last := waiting[len(waiting)-1]
	q.drop(from, last)
	last.told <- false
}

// drop takes somebody out of the queue, and reports whether they were still in it.
func (q *queue) drop(from netip.Prefix, w *waiter) bool {
	at := slices.Index(q.waiting[from], w)
	if at < 0 {
		return false
	}
	q.count--
	if q.waiting[from] = slices.Delete(q.waiting[from], at, at+1); len(q.waiting[from]) == 0 {
		delete(q.waiting, from)
		q.turns = slices.DeleteFunc(q.turns, func(n netip.Prefix) bool { return n == from })
	}
	return true
}

// abandon is for somebody who no longer waits. They may have been let in at the same moment.
func (q *queue) abandon(from netip.Prefix, w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.drop(from, w) && <-w.told {
		q.next()
	}
}

func (q *queue) leave(took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.takes = max((3*q.takes+took)/4, time.Microsecond)
	q.next()
	for q.count > q.room() { // checks take longer than was expected
		q.sendAway(q.busiest())
	}
}

// next gives a place that has become free to the address whose turn it is.
func (q *queue) next() {
	if len(q.turns) == 0 {
		q.in--
		return
	}
	from := q.turns[0]
	first := q.waiting[from][0]
	q.turns = append(q.turns[1:], from)
	q.drop(from, first)
	first.told <- true
}
