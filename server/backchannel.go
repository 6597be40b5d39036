package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

// The sender of logout tokens (OpenID Connect Back-Channel Logout 1.0).
//
// The transaction that ends a session writes an outbox entry for each client that wants to be told; whoever ended the
// session wakes the sender of that replica, and all of them look into the outbox from time to time. An entry is claimed
// by compare before it is sent, so replicas do not send it twice, and goes when the client has confirmed: a client is
// told at least once, whatever dies in between. What fails is tried again, later and later, for about an hour.

// typLogout keeps a logout token from being taken for an ID token (Back-Channel Logout 1.0 section 2.4).
const typLogout = "logout+jwt"

const (
	logoutTokenLife = 2 * time.Minute // section 2.4: preferably no longer
	// logoutClaim is how long a replica has an entry for itself; it gives up a request before that.
	logoutClaim = 15 * time.Second
	// logoutLook is how often a replica looks into the outbox when nothing wakes it.
	logoutLook = 20 * time.Second
	// logoutRest comes after a fault of storage.
	logoutRest = 5 * time.Second
	// logoutLanes is how many clients are told at once; each of them one thing after the other, so that one that hangs
	// delays nobody else.
	logoutLanes = 16
)

// logoutPauses come after each failed attempt, about an hour in all; after the last one the server gives up. A client
// that has read the token and refuses it is not asked that often.
var logoutPauses = []time.Duration{
	5 * time.Second, 15 * time.Second, 45 * time.Second, 2 * time.Minute, 6 * time.Minute, 15 * time.Minute,
	35 * time.Minute,
}

const mostRefusals = 3

// logoutClaims are the claims of a logout token (section 2.4). There is never a nonce.
type logoutClaims struct {
	Issuer   string                         `json:"iss"`
	Subject  string                         `json:"sub"`
	Audience string                         `json:"aud"`
	IssuedAt int64                          `json:"iat"`
	Expires  int64                          `json:"exp"`
	ID       string                         `json:"jti"`
	Session  string                         `json:"sid"`
	Events   map[string]map[string]struct{} `json:"events"`
}

const eventLogout = "http://schemas.openid.net/event/backchannel-logout"

// logoutSender sends logout tokens.
type logoutSender struct {
	*issuer
	client   func(ctx context.Context, id string) (*storage.Client, error)
	outbound *outbound.Client
	log      *slog.Logger
	ended    chan struct{} // wakes it: this replica has written to the outbox
}

// wakeSender says that the outbox may have something new.
func (o *logoutSender) wakeSender() {
	select {
	case o.ended <- struct{}{}:
	default:
	}
}

// sendLogouts sends what is in the outbox until ctx ends, as the configuration in force says.
func (s *Server) sendLogouts(ctx context.Context) {
	var lanes sync.WaitGroup
	defer lanes.Wait()
	busy, done := make(map[string]bool), make(chan string)
	for ctx.Err() == nil {
		o := s.InForce().logoutSender
		due, next, err := o.dueLogouts(ctx)
		if err != nil && ctx.Err() == nil {
			o.log.WarnContext(ctx, "the outbox of logouts cannot be read; trying again", "error", err)
		}
		for clientID, entries := range due {
			if busy[clientID] || len(busy) >= logoutLanes {
				continue
			}
			busy[clientID] = true
			lanes.Go(func() {
				if err := o.sendInTurn(ctx, entries); err != nil && ctx.Err() == nil {
					o.log.WarnContext(ctx, "logouts could not be sent; trying again", "client", clientID, "error", err)
					storage.Pause(ctx, logoutRest)
				}
				select {
				case done <- clientID:
				case <-ctx.Done():
				}
			})
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case clientID := <-done:
			delete(busy, clientID)
		case <-s.ended:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// dueLogouts are the entries that may be sent now, by client, and how long to wait until there may be others.
func (o *logoutSender) dueLogouts(ctx context.Context) (due map[string][]storage.Logout,
	next time.Duration, err error) {
	list, err := o.store.Logouts(ctx)
	due, next = make(map[string][]storage.Logout), logoutLook
	now := o.now()
	for _, l := range list {
		if at := l.Due(); at.After(now) {
			next = min(next, at.Sub(now))
		} else {
			due[l.ClientID] = append(due[l.ClientID], l)
		}
	}
	return due, next, err
}

// sendInTurn sends what is due for one client, until a fault of storage leaves the rest to a later look.
func (o *logoutSender) sendInTurn(ctx context.Context, entries []storage.Logout) error {
	for _, l := range entries {
		claimed, err := o.store.ClaimLogout(ctx, l, o.now().Add(logoutClaim))
		if err == nil {
			err = o.tellClient(ctx, claimed)
		}
		if err != nil && !errors.Is(err, storage.ErrConflict) { // a conflict: another replica has it
			return err
		}
	}
	return nil
}

// tellClient sends a claimed entry and writes down what came of it.
func (o *logoutSender) tellClient(ctx context.Context, l storage.Logout) error {
	c, err := o.client(ctx, l.ClientID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err != nil || c.BackchannelLogoutURI == "" {
		return o.store.DropLogout(ctx, l) // the client asks for no logout
	}
	failure, refused, err := o.postLogout(ctx, c, l)
	if err != nil {
		return err
	}
	if failure == "" {
		o.log.InfoContext(ctx, "client notified of a logout", "client", c.ID, "session", l.SID)
		return o.store.DropLogout(ctx, l)
	}
	o.log.WarnContext(ctx, "client could not be notified of a logout", "client", c.ID, "session", l.SID, "attempt",
		l.Attempts+1, "why", failure)
	if l.Attempts >= len(logoutPauses) || (refused && l.Attempts+1 >= mostRefusals) {
		return o.store.DropLogout(ctx, l, storage.AuditEntry{
			Actor: storage.ActorServer, Action: storage.AuditLogoutFailed, App: c.App,
			Outcome: storage.OutcomeFailed, Reason: failure, Detail: fmt.Sprintf("client %s, session %s, %d attempts", c.ID,
				l.SID, l.Attempts+1),
		})
	}
	_, err = o.store.PostponeLogout(ctx, l, o.now().Add(logoutPauses[l.Attempts]))
	return err
}

// postLogout posts the token (section 2.5) and says what was wrong with the answer (section 2.8), and whether the
// client has refused the token rather than been unreachable. An error is not the client's.
func (o *logoutSender) postLogout(ctx context.Context, c *storage.Client, l storage.Logout) (failure string,
	refused bool, err error) {
	token, err := o.logoutToken(ctx, c, l)
	if err != nil {
		return "", false, err
	}
	posting, cancel := context.WithTimeout(ctx, logoutClaim*2/3)
	defer cancel()
	reply, err := o.outbound.Post(posting, c.BackchannelLogoutURI, "application/x-www-form-urlencoded",
		[]byte(url.Values{"logout_token": {token}}.Encode()))
	if ctx.Err() != nil {
		return "", false, ctx.Err() // the server stops; that is not the client's fault
	}
	switch {
	case err != nil:
		return err.Error(), false, nil
	case reply.Status == http.StatusOK || reply.Status == http.StatusNoContent:
		return "", false, nil
	case reply.Status == http.StatusRequestTimeout || reply.Status == http.StatusTooManyRequests:
		return fmt.Sprintf("status %d", reply.Status), false, nil
	}
	return fmt.Sprintf("status %d", reply.Status), reply.Status < 500, nil
}

func (o *logoutSender) logoutToken(ctx context.Context, c *storage.Client, l storage.Logout) (string, error) {
	sub, err := o.subject(c, l.UserID)
	if err != nil {
		return "", err
	}
	session, err := o.sessionFor(c, l.SID)
	if err != nil {
		return "", err
	}
	now := o.now()
	return o.sign(ctx, registeredAlg(c.IDTokenSignedResponseAlg), typLogout, logoutClaims{
		Issuer: o.name, Subject: sub, Audience: c.ID,
		IssuedAt: now.Unix(), Expires: now.Add(logoutTokenLife).Unix(), ID: randomHex(16), Session: session,
		Events: map[string]map[string]struct{}{eventLogout: {}},
	})
}
