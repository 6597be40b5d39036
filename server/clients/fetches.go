package clients

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// fetches keeps what was fetched from addresses that clients name: key sets, documents. Strangers can make this server
// fetch, so each address is asked rarely and by one request at a time, all of them together not often, and what is kept
// is bounded.
type fetches[T any] struct {
	pause time.Duration // the least time between two fetches from one address, whatever they brought
	most  int           // addresses that are remembered

	// all limits fetches from addresses of which nothing is kept. Those of which something is come again no oftener
	// than pause says, so a flood of new addresses is not in their way.
	all   *rate.Limiter
	hosts *hostLimits // the same for each host; nil: none

	mu      sync.Mutex // guards entries and the fields of each, and waiting
	entries map[string]*fetched[T]
	waiting int // requests that wait for a fetch
}

// mostWaiting are the requests that wait for fetches at once: each has a place among those at work, and whoever makes
// an address answer slowly must not have all of them.
const mostWaiting = 32

// lifetime of something that was fetched: how long it is taken for current, and how long it is used while its address
// gives nothing better.
type lifetime struct{ fresh, usable time.Duration }

type fetched[T any] struct {
	value         T // never modified; the zero value before there is one
	fresh, usable time.Time
	tried         time.Time // when a fetch was begun last
	// fetching is closed when the fetch that is under way has ended; nil when none is.
	fetching chan struct{}
}

// fetch gets what is at an address, and says for how long that is good. Its error leaves what was fetched before in
// use. It is not called for two requests at once, nor ended with the request that called it: it has a time limit of its
// own.
type fetch[T any] func(ctx context.Context, address string) (T, lifetime, error)

func newFetches[T any](pause time.Duration, most int, all *rate.Limiter, hosts *hostLimits) *fetches[T] {
	return &fetches[T]{pause: pause, most: most, all: all, hosts: hosts,
		entries: make(map[string]*fetched[T])}
}

var errManyFetches = fmt.Errorf("%w: of what clients name", storage.ErrBusy)

// held is what was fetched from an address, and whether it is current.
func (f *fetches[T]) held(address string, now time.Time) (value T, current bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entries[address]
	if e == nil || !now.Before(e.fresh) {
		return value, false
	}
	return e.value, true
}

// again fetches from an address, unless that was done a moment ago, or is being done: then it waits for that. The zero
// value is that there is nothing to use. Its error is a fault of this server; something to use may come with it.
func (f *fetches[T]) again(ctx context.Context, address string, now time.Time, get fetch[T]) (T, error) {
	f.mu.Lock()
	e := f.entry(address, now)
	other := e.fetching
	switch {
	case other == nil && now.Sub(e.tried) < f.pause:
		defer f.mu.Unlock()
		return e.use(now), nil
	case f.waiting >= mostWaiting,
		other == nil && !now.Before(e.usable) && (!f.hosts.allow(address, now) || !f.all.AllowN(now, 1)):
		defer f.mu.Unlock()
		return e.use(now), errManyFetches
	}
	f.waiting++
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.waiting--
	}()
	if other != nil {
		f.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			var none T
			return none, fmt.Errorf("wait for a fetch: %w", ctx.Err())
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return e.use(now), nil
	}
	e.fetching, e.tried = make(chan struct{}), now
	f.mu.Unlock()

	defer f.ended(e)
	value, good, err := get(context.WithoutCancel(ctx), address)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		e.value, e.fresh, e.usable = value, now.Add(good.fresh), now.Add(good.usable)
	}
	return e.use(now), nil
}

// ended ends a fetch for those that wait for it.
func (f *fetches[T]) ended(e *fetched[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(e.fetching)
	e.fetching = nil
}

// use is what may still be used. The mutex is held.
func (e *fetched[T]) use(now time.Time) (value T) {
	if now.Before(e.usable) {
		value = e.value
	}
	return value
}

// entry is that of an address. When there are too many, one makes room: of which nothing is to be used, or else the one
// that was asked longest ago. The mutex is held.
func (f *fetches[T]) entry(address string, now time.Time) *fetched[T] {
	if e := f.entries[address]; e != nil {
		return e
	}
	if len(f.entries) >= f.most {
		var first *fetched[T]
		at := ""
		for other, e := range f.entries {
			if e.fetching == nil && (first == nil || e.before(first, now)) {
				first, at = e, other
			}
		}
		delete(f.entries, at)
	}
	e := &fetched[T]{}
	f.entries[address] = e
	return e
}

// before reports whether e makes room sooner than other.
func (e *fetched[T]) before(other *fetched[T], now time.Time) bool {
	if use, useOther := now.Before(e.usable), now.Before(other.usable); use != useOther {
		return !use
	}
	return e.tried.Before(other.tried)
}

// hostLimits limit how often each host is asked, so that no client makes this server flood another. Hosts share limits
// by chance, so that memory does not grow with their number, and an outsider cannot tell which ones do.
type hostLimits struct {
	seed   maphash.Seed
	limits [256]*rate.Limiter
}

func newHostLimits(perSecond rate.Limit, atOnce int) *hostLimits {
	h := &hostLimits{seed: maphash.MakeSeed()}
	for i := range h.limits {
		h.limits[i] = rate.NewLimiter(perSecond, atOnce)
	}
	return h
}

func (h *hostLimits) allow(address string, now time.Time) bool {
	if h == nil {
		return true
	}
	return h.limits[maphash.String(h.seed, oauth.HostOf(address))%uint64(len(h.limits))].AllowN(now, 1)
}

// kept is how many addresses are remembered.
func (f *fetches[T]) kept() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.entries)
}
