package server

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/warifu/warifu/storage"
)

// A [Server] is made of one configuration and never changes. Another configuration is another Server ([Server.With]) on
// what lasts: what this process has counted, what waits in it, and what it does beside requests. So no request sees two
// configurations: it ends on the one that it began with. What is sealed (pending requests, codes, tokens) and stored
// belongs to no configuration, and whoever began to sign in under one goes on under the next.

// lasting is what stays when the configuration changes.
type lasting struct {
	inForce atomic.Pointer[Server]
	// retold wakes [Server.Run] when another configuration is in force, and denials what ends clients of denied hosts.
	retold, denials chan struct{}

	// note is a line more for whoever asks whether this server is ready.
	note atomic.Pointer[string]
	// warned: a proxy that is not trusted has told an address.
	warned   sync.Once
	unasked  unasked
	devices  *devices
	workroom *workroom
	arrivals arrivals
	// leaving is set once the server is about to end, see Leave.
	leaving atomic.Bool
	guesses *guesses
	queue   *queue // of passwords to be checked
	asking  asking
	journal *journal
	// asserting limits the assertions of clients that nobody answers for.
	asserting *budget
	postroom  *postroom
	changes   *budget // of people in their accounts
	// registering limits how often clients register themselves from an address where anybody may.
	registering *recent[*rate.Limiter]
}

func newLasting(cfg Config) *lasting {
	return &lasting{
		retold: make(chan struct{}, 1), denials: make(chan struct{}, 1),
		devices: newDevices(cfg.Lifetimes.DeviceCode), workroom: newWorkroom(),
		arrivals: arrivals{from: make(map[netip.Prefix]int)},
		guesses:  newGuesses(cfg.Store, cfg.Now), journal: newJournal(cfg.Store, cfg.Logger, cfg.Now),
		asserting:   newBudget(strangersAssertions, strangersAssertionsBurst, allAssertions, allAssertionsBurst),
		registering: newRecent[*rate.Limiter](10_000), postroom: newPostroom(), changes: newChanges(),
	}
}

// With makes a Server of another configuration of the same issuer, with the same store, log, metrics, traces and clock,
// on what lasts. It counts from [Server.TakeOver] on; an error leaves everything as it was.
func (s *Server) With(cfg Config) (*Server, error) {
	before := s.InForce()
	if cfg.Issuer != s.cfg.Issuer {
		return nil, errors.New("another issuer is another server")
	}
	cfg.Store, cfg.Logger, cfg.Now = s.cfg.Store, s.cfg.Logger, s.cfg.Now
	cfg.Metrics, cfg.Traces = s.cfg.Metrics, s.cfg.Traces
	return build(cfg, before)
}

// TakeOver puts the configuration of this Server in force: requests that come from now on are its own. Nothing of it
// can fail.
func (s *Server) TakeOver() {
	s.devices.live(s.cfg.Lifetimes.DeviceCode)
	s.inForce.Store(s)
	for _, wake := range []chan struct{}{s.retold, s.denials} {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	s.wakeSender()
}

// InForce is the Server of the configuration in force: this one, or one that has taken over.
func (s *Server) InForce() *Server { return s.inForce.Load() }

// Live brings each request to the Server that is in force when it begins.
func (s *Server) Live() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.InForce().ServeHTTP(w, r) })
}

// Run keeps keys rotating and secrets sealed under the newest encryption key, writes when client secrets were used,
// clears away what ended with changes of users, tells clients of sessions that have ended, and asks connectors about
// their users, until ctx ends: each time as the configuration in force says.
func (s *Server) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.store.WriteUses(ctx) })
	beside.Go(func() { s.sendLogouts(ctx) })
	beside.Go(func() { s.journal.run(ctx) })
	beside.Go(func() { s.askUpstreams(ctx) })
	beside.Go(func() { s.runPostroom(ctx) })
	beside.Go(func() { s.refreshIssuers(ctx) })
	beside.Go(func() { s.store.KeepSealed(ctx) })
	beside.Go(func() { s.endDenied(ctx) })
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		err := s.store.RotateKeys(ctx, false, s.InForce().KeySchedules()...)
		if err != nil && ctx.Err() == nil && !errors.Is(err, storage.ErrFull) { // that storage is full is told already
			s.log.Error("cannot rotate keys", "error", err)
		}
		s.clearPastTerms(ctx)
		if err := s.store.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("records over their limits cannot be removed; trying again", "error", err)
		}
		s.InForce().warnOfUnasked(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.retold:
		}
	}
}

// clearPastTerms clears away what users have left whose term has ended, such as those whose password has changed in the
// configuration.
func (s *Server) clearPastTerms(ctx context.Context) {
	cleared, err := s.store.ClearPastTerms(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("cannot yet delete the sessions, grants and consents that ended when users changed; trying again",
			"error", err)
	}
	if cleared != (storage.Ended{}) {
		s.log.Info("users have changed: their earlier sessions, grants and consents have ended", "ended", cleared.String())
		s.wakeSender()
	}
}

// endDenied ends what the clients of denied documents hold. It looks again from time to time: while replicas get a new
// configuration one after the other, one that does not have it yet may still give them something.
func (s *Server) endDenied(ctx context.Context) {
	for ctx.Err() == nil {
		wait := time.Hour
		if err := s.InForce().clients.EndDenied(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("cannot end the grants and consents of clients on denied hosts; trying again", "error", err)
			wait = time.Minute
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.denials:
		}
		timer.Stop()
	}
}

// Leave prepares for the end of the server, which goes on serving: /readyz says 503 from now on, so that proxies and
// load balancers send requests elsewhere, and every connection is closed after its next reply, when nothing is under
// way on it.
func (s *Server) Leave() { s.leaving.Store(true) }

// Note has /readyz say something that an operator should know; "" for nothing.
func (s *Server) Note(line string) { s.note.Store(&line) }

// SessionsEnded says that sessions were ended beside the server: clients are told at once instead of at the next look.
func (s *Server) SessionsEnded() { s.wakeSender() }
