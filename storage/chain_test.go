package storage_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// chained is a grant whose refresh tokens are used with a reuse interval.
type chained struct {
	t        *testing.T
	s        *storage.Store
	clock    *time.Time
	c        *storage.Client
	u        *storage.User
	g        storage.Grant
	interval time.Duration
}

// newChain starts a grant; its first refresh token is the second value.
func newChain(t *testing.T, s *storage.Store, clock *time.Time, interval time.Duration, c *storage.Client,
	u *storage.User) (*chained, storage.GrantRef) {
	t.Helper()
	h := &chained{t: t, s: s, clock: clock, c: c, u: u, g: newGrant(c, u), interval: interval}
	if _, err := s.CreateGrant(t.Context(), h.g, clock.Add(time.Hour), on(c, u)); err != nil {
		t.Fatal(err)
	}
	return h, h.token(storage.Rotation{Generation: 1, At: *clock})
}

// token is the refresh token that a step gives.
func (h *chained) token(r storage.Rotation) storage.GrantRef {
	return storage.GrantRef{ClientID: h.c.ID, GrantID: h.g.ID, UserID: h.u.ID, Generation: r.Generation,
		At: r.At, Before: r.Before, WithUser: true}
}

func (h *chained) try(token storage.GrantRef) (storage.GrantRef, error) {
	r, err := h.s.RotateGrant(h.t.Context(), token, h.clock.Add(time.Hour), h.interval, on(h.c, h.u))
	if err == nil && r.User.Revision != h.u.Revision {
		h.t.Errorf("token %d came with %+v", token.Generation, r.User)
	}
	return h.token(r), err
}

func (h *chained) use(token storage.GrantRef) storage.GrantRef {
	h.t.Helper()
	next, err := h.try(token)
	if err != nil {
		h.t.Fatalf("token %d: %v", token.Generation, err)
	}
	return next
}

func (h *chained) same(why string, got, want storage.GrantRef) {
	h.t.Helper()
	if got.Generation != want.Generation || !got.At.Equal(want.At) || !slices.Equal(got.Before, want.Before) {
		h.t.Errorf("%s: got %+v, want %+v", why, got, want)
	}
}

func (h *chained) alive() bool {
	h.t.Helper()
	_, err := h.s.Grant(h.t.Context(), h.c.ID, h.g.ID, h.u.ID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		h.t.Fatal(err)
	}
	return err == nil
}

// replayed uses a token whose interval is over.
func (h *chained) replayed(why string, token storage.GrantRef) {
	h.t.Helper()
	if _, err := h.try(token); !errors.Is(err, storage.ErrReplayed) || h.alive() {
		h.t.Errorf("%s: %v, alive %v", why, err, h.alive())
	}
}

// stopped is a clock that tests move, and a store that goes by it.
func stopped(etcd *storagetest.Etcd) (*time.Time, *storage.Store) {
	now := time.Now().Truncate(time.Second)
	return &now, etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return now } })
}

func TestReuseInterval(t *testing.T) {
	clock, s := stopped(storagetest.New(t))
	c, u := registered(t, s)
	for name, over := range map[string]func(h *chained, first, second storage.GrantRef){
		"the first token comes when its interval is over": func(h *chained, first, _ storage.GrantRef) {
			*clock = clock.Add(2*time.Second + time.Millisecond)
			h.replayed("10 s after its use", first)
		},
		"the second one has a later use": func(h *chained, _, second storage.GrantRef) {
			*clock = clock.Add(6 * time.Second)
			h.use(second)
			*clock = clock.Add(time.Millisecond)
			h.replayed("10 s after its use", second)
		},
		"the interval was taken away": func(h *chained, _, second storage.GrantRef) {
			h.interval = 0
			h.replayed("without an interval", second)
		},
		"the interval was made shorter": func(h *chained, first, second storage.GrantRef) {
			h.interval = 5 * time.Second
			h.use(second)
			h.replayed("8 s after its use", first)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, first := newChain(t, s, clock, 10*time.Second, c, u)
			second := h.use(first)
			*clock = clock.Add(4 * time.Second)
			h.same("while its successor is unused", h.use(first), second)
			third := h.use(second)
			h.same("after its successor was used", h.use(first), third)
			h.same("the successor", h.use(second), third)
			fourth := h.use(third)
			*clock = clock.Add(4 * time.Second)
			for _, token := range []storage.GrantRef{first, second, third} {
				h.same("after all of them were used", h.use(token), fourth)
			}
			over(h, first, second)
		})
	}
}

// Many who share a chain, and do not agree on which token is the newest: nobody is refused, each step is handed out as
// the same one to everybody, and there is one chain at the end.
func TestReuseIntervalOfRacers(t *testing.T) {
	s := storagetest.New(t).Store()
	now := time.Now()
	c, u := registered(t, s)
	h, first := newChain(t, s, &now, time.Minute, c, u)
	var mu sync.Mutex
	steps := make(map[int64]storage.GrantRef)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			<-start
			held := []storage.GrantRef{first}
			for i := range 25 {
				next, err := h.try(held[i*7%len(held)]) // not always the one it got last
				if err != nil {
					t.Errorf("refused: %v", err)
					return
				}
				held = append(held, next)
				mu.Lock()
				known, there := steps[next.Generation]
				steps[next.Generation] = next
				mu.Unlock()
				if there {
					h.same("a successor", next, known)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	newest := int64(len(steps)) + 1 // each generation was handed out to somebody
	last, there := steps[newest]
	if !there {
		t.Fatalf("%d steps, and none of them led to %d", len(steps), newest)
	}
	h.same("the first token", h.use(first), last)
	if next := h.use(last); next.Generation != newest+1 {
		t.Errorf("generation %d after %d", next.Generation, newest)
	}
}

// However fast a chain moves, it remembers a step a second, and notices a replay a second late at most.
func TestReuseIntervalOfAFastChain(t *testing.T) {
	clock, s := stopped(storagetest.New(t))
	c, u := registered(t, s)
	h, token := newChain(t, s, clock, 10*time.Second, c, u)
	var used []storage.GrantRef
	for range 300 { // 15 seconds
		*clock = clock.Add(50 * time.Millisecond)
		used = append(used, token)
		if token = h.use(token); len(token.Before) > 11 {
			t.Fatalf("it remembers %d steps", len(token.Before))
		}
	}
	h.same("10 s after its use", h.use(used[99]), token)
	h.replayed("11 s after its use", used[79])
}

// A replica whose clock is an hour ahead does not make intervals longer than until the next step.
func TestReuseIntervalAndAClockThatIsAhead(t *testing.T) {
	etcd := storagetest.New(t)
	clock, s := stopped(etcd)
	c, u := registered(t, s)
	h, first := newChain(t, s, clock, 10*time.Second, c, u)
	ahead := *h
	ahead.s = etcd.Store(func(o *storage.Options) { o.Now = func() time.Time { return clock.Add(time.Hour) } })
	second := ahead.use(first)
	third := h.use(second)
	h.same("inside the interval", h.use(first), third)
	*clock = clock.Add(11 * time.Second)
	h.replayed("11 s after its use", first)
}
