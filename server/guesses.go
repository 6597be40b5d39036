package server

import (
	"cmp"
	"context"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/warifu/warifu/storage"
)

// Guesses of passwords, in each window of time. A lock ends with its window.
//
// They are counted by the account that is guessed at and by the address that they come from. A name that somebody has
// is counted in storage, for all replicas, before the password is checked: so guesses in parallel gain nothing.
// Everything else is counted in memory, in tables that do not grow: whatever strangers type or wherever they come from,
// nothing is written. Names that nobody has lock in the same way, at each replica by itself; so do those of a
// directory, which does not say whose they are.
//
// Codes of a second factor are counted in the same way, for an account of that name beside the user's own
// (factorpage.go).
//
// From one address few accounts can be tried in vain, however many guesses each of them has left. An account that the
// right password was given for no longer counts for its address, and no other does: so having an account is of no use
// for trying others.
//
// Whoever knows a name can lock it. That does not keep its owner out: a browser in which the user has signed in before
// (see knownBrowser) has guesses of its own, and neither lock concerns it.
const (
	mostGuesses  = 10 // for an account
	mostAccounts = 20 // in vain, from an address
	guessWindow  = 15 * time.Minute

	// Entries of the tables in memory.
	mostNames     = 20_000
	mostAddresses = 20_000
	// lockKnown is how long a replica relies on what storage said of a lock: another replica may have seen the right
	// password.
	lockKnown = 10 * time.Second
)

// guess is a sign-in with a password, before it is known whether the password is right.
type guess struct {
	user    string // whose name was typed; "" for a name that nobody has
	account string // for which it counts
	from    netip.Prefix
	known   bool // the user has signed in in this browser before
	most    int  // guesses for the account, if not [mostGuesses]
}

// allowed are the guesses for the account.
func (g guess) allowed() int { return cmp.Or(g.most, mostGuesses) }

// knownBy is by what a browser knows the user again: the user's id, or else the account that stands for it.
func (g guess) knownBy() string { return cmp.Or(g.user, g.account) }

// refusedGuess says why a guess is not made. The zero value: it is.
type refusedGuess struct {
	locked  bool      // for too many guesses, until then
	until   time.Time // set when locked
	crowded bool      // too many are under way
	first   bool      // the first one that met this lock, as far as this replica knows
	address bool      // the lock is that of the address
}

func (r refusedGuess) refused() bool { return r.locked || r.crowded }

// guesses counts.
type guesses struct {
	store *storage.Store
	now   func() time.Time
	seed  maphash.Seed

	names     *recent[counted]        // that nobody has, as far as is known
	locks     *recent[lock]           // of accounts, those that nobody has among them: they look the same
	addresses *recent[addressGuesses] // by network
	pace      pace
}

// counted is how many guesses there were in a window.
type counted struct {
	window time.Time
	n      int
}

// lock is of an account in a window.
type lock struct {
	window time.Time
	until  time.Time // it is not asked for before
}

// addressGuesses are the accounts that were tried from an address in a window and not signed in to.
type addressGuesses struct {
	window   time.Time
	accounts map[uint64]attempts
	told     bool // that it is locked
}

// attempts are those on one account from an address.
type attempts struct {
	underWay int
	failed   bool
}

func newGuesses(store *storage.Store, now func() time.Time) *guesses {
	return &guesses{
		store: store, now: now, seed: maphash.MakeSeed(),
		names: newRecent[counted](mostNames / 2), locks: newRecent[lock](mostNames),
		addresses: newRecent[addressGuesses](mostAddresses / 2),
	}
}

// hide is a name as the tables in memory have it: people type passwords into the field for the name.
func (g *guesses) hide(account string) uint64 { return maphash.String(g.seed, account) }

func (g *guesses) hidden(account string) string {
	h := g.hide(account)
	var b [8]byte
	for i := range b {
		b[i] = byte(h >> (8 * i))
	}
	return string(b[:])
}

// begin takes note of a guess; end must follow unless it is refused. What it refuses costs nothing.
func (g *guesses) begin(a guess) (no refusedGuess) {
	window := g.now().Truncate(guessWindow)
	g.locks.use(g.hidden(a.account), func(l *lock) { no.locked = g.now().Before(l.until) })
	if !no.refused() && !a.known {
		g.addresses.use(a.from.String(), func(from *addressGuesses) { no = from.begin(g.hide(a.account), window) })
	}
	if no.locked {
		no.until = window.Add(guessWindow)
	}
	return no
}

func (from *addressGuesses) begin(account uint64, window time.Time) (no refusedGuess) {
	if !from.window.Equal(window) {
		*from = addressGuesses{window: window}
	}
	t, again := from.accounts[account]
	if !again && len(from.accounts) >= mostAccounts {
		for _, other := range from.accounts {
			if !other.failed {
				return refusedGuess{crowded: true} // it may still turn out to be right
			}
		}
		no = refusedGuess{locked: true, address: true, first: !from.told}
		from.told = true
		return no
	}
	if from.accounts == nil {
		from.accounts = make(map[uint64]attempts)
	}
	t.underWay++
	from.accounts[account] = t
	return no
}

// end takes note of how a guess went. One that met a fault, or was not made after all, has not failed.
func (g *guesses) end(a guess, right, failed bool) {
	if a.known {
		return
	}
	account := g.hide(a.account)
	g.addresses.use(a.from.String(), func(from *addressGuesses) {
		t, there := from.accounts[account]
		if !there {
			return // the window has passed, or the account has been signed in to
		}
		t.underWay--
		t.failed = (t.failed || failed) && !right
		if t.failed || t.underWay > 0 {
			from.accounts[account] = t
			return
		}
		delete(from.accounts, account)
	})
}

// count counts a guess for its account. A lock is remembered for a while, so that those who meet it cost nothing.
func (g *guesses) count(ctx context.Context, a guess) (no refusedGuess, err error) {
	window := g.now().Truncate(guessWindow)
	free, until := false, window.Add(guessWindow)
	if a.user == "" {
		g.names.use(g.hidden(a.account), func(c *counted) {
			if !c.window.Equal(window) {
				*c = counted{window: window}
			}
			c.n++
			free = c.n <= a.allowed()
		})
		storage.Pause(ctx, g.pace.any())
	} else {
		begun := time.Now()
		if free, until, err = g.store.TakeGuess(ctx, a.account, int64(a.allowed()), guessWindow); err != nil {
			return no, err
		}
		g.pace.add(time.Since(begun))
	}
	if free {
		return no, nil
	}
	no = refusedGuess{locked: true, until: until}
	g.locks.use(g.hidden(a.account), func(l *lock) {
		no.first = !l.window.Equal(window)
		l.window, l.until = window, earlier(until, g.now().Add(lockKnown))
	})
	return no, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// forgive forgets the guesses for an account, because the right password was given.
func (g *guesses) forgive(ctx context.Context, a guess) error {
	g.locks.use(g.hidden(a.account), func(l *lock) { *l = lock{} })
	if a.user == "" { // somebody of a directory, who was counted here
		g.names.use(g.hidden(a.account), func(c *counted) { *c = counted{} })
		return nil
	}
	return g.store.ForgiveGuesses(ctx, a.account, guessWindow)
}

// pace remembers how long storage took to count the last guesses at names that somebody has, so that names that nobody
// has take as long.
type pace struct {
	mu    sync.Mutex // guards the rest
	times [32]time.Duration
	n     int // how many there were in all
}

func (p *pace) add(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times[p.n%len(p.times)] = d
	p.n++
}

// any is one of those, 0 before the first.
func (p *pace) any() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == 0 {
		return 0
	}
	return p.times[rand.N(min(p.n, len(p.times)))]
}
