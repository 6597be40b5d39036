package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/warifu/warifu/storage"
)

// What people and strangers do at the pages goes to the log and to the audit log: sign-ins, those that failed and the
// locks that followed, and what was allowed or denied. What was typed is never told: not the password, nor a name that
// nobody has, because people type passwords into that field, too.
//
// Neither log can be flooded. Each address, and all strangers together, have a budget of lines; what goes beyond is
// counted, and the number is told once a minute. A sign-in and its entry are one transaction; other entries are written
// each second, so that the time of an answer says nothing. Names that nobody has are told by their number alone.

// budget bounds how often something is told.
type budget struct {
	each  rate.Limit // a second, for one address
	burst int        // at once
	all   *rate.Limiter
	by    *recent[*rate.Limiter]

	mu     sync.Mutex // guards the rest
	beyond int        // how often it was not told since that was last asked
}

func newBudget(each rate.Limit, burst int, all rate.Limit, allBurst int) *budget {
	return &budget{each: each, burst: burst, all: rate.NewLimiter(all, allBurst), by: newRecent[*rate.Limiter](10_000)}
}

// spend reports whether something that comes from an address may be told.
func (b *budget) spend(from string, now time.Time) bool {
	free := false
	b.by.use(from, func(limit **rate.Limiter) {
		if *limit == nil {
			*limit = rate.NewLimiter(b.each, b.burst)
		}
		free = (*limit).AllowN(now, 1)
	})
	if free && b.all.AllowN(now, 1) {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beyond++
	return false
}

// leftOut is how often something was not told since it was last called.
func (b *budget) leftOut() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.beyond
	b.beyond = 0
	return n
}

// journal tells what happens at the pages.
type journal struct {
	store *storage.Store
	log   *slog.Logger
	now   func() time.Time

	refusals *budget // lines of the log about requests that were refused
	faults   *budget // and about those that met a fault
	kept     *budget // refusals that are kept for warifu explain beside those of others
	failures *budget // entries about sign-ins that failed
	people   *budget // entries about what users do who have signed in

	mu      sync.Mutex           // guards the rest
	entries []storage.AuditEntry // that wait to be written
	tries   []failedSignIn       // sign-ins that failed, for the histories of users, likewise
	lost    int                  // for which there was no room, since that was last told
	nobody  int                  // sign-ins with unknown names, since that was last told
}

// mostEntries may wait while storage does not answer.
const mostEntries = 1000

// failedSignIn is a sign-in that failed, for the history of the user whose account it was about.
type failedSignIn struct {
	user string
	storage.SignIn
}

func newJournal(store *storage.Store, log *slog.Logger, now func() time.Time) *journal {
	j := &journal{
		store: store, log: log, now: now,
		refusals: newBudget(1, 300, 10, 3000), kept: newBudget(0.2, 300, 2, 2000), faults: newBudget(1, 20, 1, 100),
		failures: newBudget(1.0/30, 30, 1.0/3, 300), people: newBudget(1, 60, 50, 1000),
	}
	return j
}

// failed notes a sign-in that failed: in the log at once, in the audit log soon, and in the history of the user whose
// account it was about, if anybody's.
func (j *journal) failed(ctx context.Context, e storage.AuditEntry, from netip.Addr, t failedSignIn) {
	if !j.failures.spend(networkOf(from).String(), j.now()) {
		return
	}
	j.line(ctx, e)
	j.write(e)
	j.mu.Lock()
	defer j.mu.Unlock()
	if t.user != "" && len(j.tries) < mostEntries {
		j.tries = append(j.tries, t)
	}
}

// did notes what a user did who has signed in.
func (j *journal) did(ctx context.Context, e storage.AuditEntry) {
	if j.people.spend(e.Actor, j.now()) {
		j.line(ctx, e)
		j.write(e)
	}
}

// line is an entry as a line of the log, without what it does not say. manifests/deploy/fail2ban reads these lines.
func (j *journal) line(ctx context.Context, e storage.AuditEntry) {
	attrs := make([]slog.Attr, 0, 6)
	for _, attr := range []slog.Attr{
		slog.String("actor", e.Actor), slog.String("outcome", cmp.Or(e.Outcome, storage.OutcomeDone)),
		slog.String("reason", e.Reason), slog.String("detail", e.Detail), slog.String("client", e.Client),
		slog.String("address", e.Address),
	} {
		if attr.Value.String() != "" {
			attrs = append(attrs, attr)
		}
	}
	j.log.LogAttrs(ctx, slog.LevelInfo, e.Action, attrs...)
}

// replayed tells that something was used twice and its grant was revoked.
func (j *journal) replayed(ctx context.Context, what, client, grant string) {
	if j.people.spend(client, j.now()) {
		j.log.WarnContext(ctx, what+" used twice: its grant was revoked", "client", client, "grant", grant)
	}
}

// stranger notes a sign-in with a name that nobody has, or whose user is not known here.
func (j *journal) stranger(ctx context.Context, from netip.Addr, client, why string) {
	if j.refusals.spend(networkOf(from).String(), j.now()) {
		j.line(ctx, storage.AuditEntry{
			Actor: storage.ActorStranger, Action: storage.AuditSignIn, Outcome: storage.OutcomeRefused,
			Reason: why, Client: client, Address: shownAddress(from)})
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.nobody++
}

// write has entries written by run.
func (j *journal) write(entries ...storage.AuditEntry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, entries...)
	j.lost += max(len(j.entries)-mostEntries, 0)
	j.entries = j.entries[:min(len(j.entries), mostEntries)]
}

// flush writes the entries that wait. Those that storage does not take stay, as far as there is room.
func (j *journal) flush(ctx context.Context) {
	const most = 100 // operations of a transaction
	for {
		j.mu.Lock()
		batch := j.entries[:min(len(j.entries), most)]
		j.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := j.store.Record(ctx, batch...)
		cancel()
		if err != nil {
			j.log.Warn("cannot write entries to the audit log; trying again", "entries", len(batch), "error", err)
			return
		}
		j.mu.Lock()
		j.entries = j.entries[len(batch):]
		j.mu.Unlock()
	}
}

// flushTries writes the sign-ins that failed to the histories of their users. Those that storage does not take stay.
func (j *journal) flushTries(ctx context.Context) {
	j.mu.Lock()
	wait := j.tries
	j.tries = nil
	j.mu.Unlock()
	for len(wait) > 0 {
		user, rest := wait[0].user, wait[:0:0]
		var list []storage.SignIn
		for _, t := range wait {
			if t.user == user {
				list = append(list, t.SignIn)
			} else {
				rest = append(rest, t)
			}
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := j.store.AddSignIns(ctx, user, list...)
		cancel()
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			j.log.Warn("cannot write failed sign-ins to the histories of users; trying again", "error", err)
			j.mu.Lock()
			defer j.mu.Unlock()
			j.tries = append(wait, j.tries[:min(len(j.tries), max(0, mostEntries-len(wait)))]...)
			return
		}
		wait = rest
	}
}

// sumUp tells what was left out since the last time.
func (j *journal) sumUp() {
	if n := j.refusals.leftOut(); n > 0 {
		j.log.Info("further refused requests were left out of the log", "left_out", n)
	}
	if n := j.faults.leftOut(); n > 0 {
		j.log.Warn("further failed requests were left out of the log", "left_out", n)
	}
	beyond := j.failures.leftOut()
	j.mu.Lock()
	nobody, lost := j.nobody, j.lost
	j.nobody, j.lost = 0, 0
	j.mu.Unlock()
	if lost > 0 {
		j.log.Warn("audit log entries were lost because storage did not accept them in time", "entries", lost)
	}
	var entries []storage.AuditEntry
	tell := func(n int, reason string) {
		if n == 0 {
			return
		}
		entries = append(entries, storage.AuditEntry{
			Actor: storage.ActorStranger, Action: storage.AuditSignIn, Outcome: storage.OutcomeRefused,
			Reason: reason, Detail: fmt.Sprintf("%d since the entry of this kind before", n)})
	}
	tell(nobody, "sign-ins with unknown names")
	tell(beyond, "sign-ins beyond those that are told one by one")
	tell(j.people.leftOut(), "sign-ins and decisions of users beyond those that are told one by one")
	j.write(entries...)
}

// run writes entries each second, and tells each minute what was left out, until ctx ends.
func (j *journal) run(ctx context.Context) {
	write, sum := time.NewTicker(time.Second), time.NewTicker(time.Minute)
	defer write.Stop()
	defer sum.Stop()
	for {
		select {
		case <-write.C:
			j.flush(ctx)
			j.flushTries(ctx)
		case <-sum.C:
			j.sumUp()
		case <-ctx.Done():
			j.sumUp()
			j.flush(context.WithoutCancel(ctx))
			j.flushTries(context.WithoutCancel(ctx))
			return
		}
	}
}

// gone reports whether nobody waits for the answer any more. What fails then is no fault of this server's.
func gone(r *http.Request) bool {
	v := visitOf(r.Context())
	return v.Context != nil && errors.Is(v.Err(), context.Canceled)
}

// shownAddress is an address as logs show it.
func shownAddress(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
