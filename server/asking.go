package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
)

// A connector can be asked again about those who have signed in by it, as often as the configuration says
// ([connector.Connector.Ask]). That happens here, beside all requests: no token ever waits for an upstream. What is
// due, and who asks, is decided in storage (see its upstreams.go); what comes of the answer, here:
//
//   - The user is still there: their record is brought up to date. Codes and refresh tokens carry the revision of the
//     record, so the next use of each decides anew who may use the app.
//   - The upstream says no: all that was begun for the user ends.
//   - Anything else is a fault, and says nothing about anybody. The question is put off, each time for longer.

const (
	// asksAtOnce is how many questions are under way at a time.
	asksAtOnce = 8
	// askTime is how long an answer may take; askHold is for how long a replica has a question, which is longer than all
	// that it takes at once may take.
	askTime = 10 * time.Second
	askHold = 3 * time.Minute
	// asksEvery is how often this replica looks for what is due.
	asksEvery = 15 * time.Second
	// askAgain is when a question is due again after a fault, twice as long after the next one, and so on, to
	// mostAskAgain.
	askAgain     = time.Minute
	mostAskAgain = time.Hour
	// restOfFault is how long a connector is asked nothing after a fault, so that one that does not answer does not keep
	// the questions to others waiting.
	restOfFault = 30 * time.Second
	// storeTime is how long it may take to store an answer; storeTimes, how often it is tried: the upstream may take what
	// it was asked with only once.
	storeTime, storeTimes = 5 * time.Second, 4
)

// asking asks connectors about their users.
type asking struct {
	mu     sync.Mutex // guards faulty
	faulty map[string]time.Time
}

// rests reports whether a connector is to be asked nothing for now.
func (a *asking) rests(id string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, is := a.faulty[id]
	return is && now.Before(at.Add(restOfFault))
}

// noteOutcome notes how a question to a connector went, and reports whether that is new.
func (a *asking) noteOutcome(id string, fault bool, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, was := a.faulty[id]
	if !fault {
		delete(a.faulty, id)
		return was
	}
	if a.faulty == nil {
		a.faulty = make(map[string]time.Time)
	}
	a.faulty[id] = now
	return !was
}

// refresherOf is what asks a connector again, nil if it is not to be asked.
func refresherOf(way connector.Connector) connector.Refresher {
	if way.Ask <= 0 {
		return nil
	}
	if r, is := way.Redirect.(connector.Refresher); is {
		return r
	}
	r, _ := way.Password.(connector.Refresher)
	return r
}

// askUpstreams asks what is due until ctx ends, as the configuration in force says.
func (s *Server) askUpstreams(ctx context.Context) {
	for ctx.Err() == nil {
		more, err := s.InForce().askDue(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, storage.ErrFull) { // that storage is full is told already
			s.log.WarnContext(ctx, "connectors cannot be asked about their users; trying again", "error", err)
		}
		if err != nil || !more {
			storage.Pause(ctx, asksEvery)
		}
	}
}

// askDue asks what is due. more: there may be others.
func (s *Server) askDue(ctx context.Context) (more bool, err error) {
	questions, more, err := s.store.ClaimQuestions(ctx, func(id string) bool {
		way, is := s.ways.find(id)
		return is && refresherOf(way) != nil
	}, askHold)
	var all errgroup.Group
	all.SetLimit(asksAtOnce)
	for _, q := range questions {
		all.Go(func() error {
			if ctx.Err() != nil {
				return nil // it is due again later
			}
			return s.ask(ctx, q)
		})
	}
	return more, errors.Join(err, all.Wait())
}

// ask asks one question, and does what follows from the answer. Its error is a fault of storage.
func (s *Server) ask(ctx context.Context, q *storage.Question) error {
	way, _ := s.ways.find(q.Connector)
	refresher := refresherOf(way)
	if refresher == nil {
		return nil // it has just gone from the configuration
	}
	if s.asking.rests(way.ID, s.now()) {
		return s.putOff(ctx, q)
	}
	record, data, err := askedAgain(ctx, way, refresher, q)
	var refused *connector.RefusedError
	fault := err != nil && !errors.As(err, &refused)
	if s.asking.noteOutcome(way.ID, fault, s.now()) {
		if fault {
			s.log.WarnContext(ctx, "a connector cannot be asked about its users: they stay as they are; trying again",
				"connector", way.ID, "error", err)
		} else {
			s.log.InfoContext(ctx, "a connector can be asked about its users again", "connector", way.ID)
		}
	}
	switch {
	case fault:
		return s.putOff(ctx, q)
	case refused != nil:
		return s.endRefused(ctx, way, q, refused)
	}
	return storeAnswer(ctx, func(ctx context.Context) error { return s.store.Answered(ctx, q, record, data, way.Ask) })
}

// askedAgain is who a user is now, as the connector says, and what it needs to be asked next. A server that is about to
// end waits for the answer.
func askedAgain(ctx context.Context, way connector.Connector, refresher connector.Refresher,
	q *storage.Question) (record storage.User, data []byte, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	known := identityOf(q.User)
	known.Data = q.Data
	who, err := refresher.Refresh(ctx, known)
	if err != nil {
		return record, nil, err
	}
	if who.UserID != known.UserID {
		return record, nil, errors.New("the answer is about somebody else")
	}
	if who, err = way.Admit(who); err != nil {
		return record, nil, err
	}
	return UserRecord(who), who.Data, nil
}

// putOff lets a question be due again later.
func (s *Server) putOff(ctx context.Context, q *storage.Question) error {
	wait := min(askAgain<<min(q.Failed, 10), mostAskAgain)
	return storeAnswer(ctx, func(ctx context.Context) error { return s.store.Unanswered(ctx, q, wait) })
}

// endRefused ends all that was begun for a user of whom the connector says that they may not sign in any longer.
func (s *Server) endRefused(ctx context.Context, way connector.Connector, q *storage.Question,
	refused *connector.RefusedError) error {
	why := storage.AuditEntry{Actor: storage.ActorServer,
		Reason: fmt.Sprintf("the connector %s no longer lets the user sign in: %s", way.ID, refused.Reason)}
	return storeAnswer(ctx, func(ctx context.Context) error {
		ended, is, err := s.store.Refused(ctx, q, why)
		if is && err == nil {
			s.log.InfoContext(ctx, "a connector no longer lets a user sign in: sessions, grants and consents have ended",
				"connector", way.ID, "user", q.UserID, "ended", ended.String())
			s.wakeSender()
		}
		return err
	})
}

// storeAnswer stores what comes of an answer, and tries more than once unless this server is about to end.
func storeAnswer(ctx context.Context, store func(ctx context.Context) error) (err error) {
	for n := range storeTimes {
		if n > 0 {
			storage.Pause(ctx, time.Second)
		}
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
		err = store(within)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, storage.ErrFull) {
			return err
		}
	}
	return err
}

// identityOf is the identity of which [UserRecord] made a record, as the connector knows it.
func identityOf(u *storage.User) connector.Identity {
	who := connector.Identity{
		UserID: u.UpstreamID, Username: u.Username, PreferredUsername: u.PreferredUsername, Name: u.Name, Email: u.Email,
		EmailVerified: u.EmailVerified, Groups: u.GroupNames(), Profile: connector.Profile(u.Profile),
		Address: connector.Address(u.Address), Credential: u.Credential,
	}
	if u.Attributes != "" {
		_ = json.Unmarshal([]byte(u.Attributes), &who.Attributes) // [storage.AttributesOf] has made it
	}
	return who
}
