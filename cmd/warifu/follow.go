package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"time"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
)

// What goes on until somebody ends it, and what waits for something that servers do by themselves, outlives the server:
// when that has ended, it waits for the next one.

// away reports whether an error says that no server answers at the moment, or none that can do its work: the next one
// may.
func away(err error) bool {
	var unreachable *unreachableError
	var problem *admin.Problem
	var broken net.Error
	switch {
	case errors.As(err, &unreachable), errors.As(err, &broken),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true
	case errors.As(err, &problem):
		return problem.Status >= 500
	}
	return false
}

// outage is the time without a server of a command that asks again and again.
type outage struct {
	c   *cli
	api *client
	err error // with which the last question ended; nil while there is a server
}

// outlasts takes what a question ended with, says once that there is no server now, and reports whether the next one
// can go on with the work.
func (o *outage) outlasts(err error) bool {
	if err != nil && !away(err) {
		return false
	}
	if err != nil && o.err == nil {
		o.c.say("the server at %s has ended, or cannot answer now; waiting for the next one", o.api.where)
	}
	o.err = err
	return true
}

// How long to wait before a server that is away is asked again: doubled from one to the other.
const (
	shortestAway = 100 * time.Millisecond
	longestAway  = 5 * time.Second
)

// following is `warifu audit --follow`.
type following struct {
	c     *cli
	api   *client
	query url.Values
	since time.Time // as it was asked for
	show  func(rows) error

	newest time.Time                // of what was shown
	shown  map[admin.AuditEntry]int // what was shown of the last overlap, and how often

	unwritten error // of show: nobody reads any more
}

// overlap is how far back a log is asked for again whose server had ended: replicas put their entries by clocks of
// their own, and the last ones may not have arrived.
const overlap = time.Minute

// followAudit gets the log as it grows, until the command is interrupted, from one server after the other.
func (c *cli) followAudit(ctx context.Context, query url.Values, since time.Time, show func(rows) error) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	f := &following{c: c, api: api, query: query, since: since, show: show, shown: make(map[admin.AuditEntry]int)}
	begun, wait := false, shortestAway
	for {
		arrived, err := f.once(ctx, begun)
		switch {
		case ctx.Err() != nil:
			return nil // that is how it ends
		case f.unwritten != nil, !away(err), !begun && !arrived:
			return err
		case arrived:
			c.say("the server at %s has ended; the log goes on with the next one", api.where)
			begun, wait = true, shortestAway
		}
		storage.Pause(ctx, wait)
		wait = min(2*wait, longestAway)
	}
}

// once follows the log for as long as the server does. arrived: there was one.
func (f *following) once(ctx context.Context, again bool) (arrived bool, err error) {
	if since := f.newest.Add(-overlap); since.After(f.since) {
		f.query.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	reply, err := f.api.stream(ctx, "/v1/audit/follow?"+f.query.Encode())
	if err != nil {
		return false, err
	}
	defer func() { _ = reply.Close() }()
	if again {
		f.c.say("a server answers at %s again", f.api.where)
	}
	before := maps.Clone(f.shown)
	lines := json.NewDecoder(reply)
	for {
		var e admin.AuditEntry
		if err := lines.Decode(&e); err != nil {
			return true, fmt.Errorf("read the reply of %s: %w", f.api.where, err)
		}
		e.At = e.At.UTC() // comparable
		if before[e] > 0 {
			before[e]--
			continue
		}
		if f.unwritten = f.show(auditRows(e)); f.unwritten != nil {
			return true, f.unwritten
		}
		f.remember(e)
	}
}

func (f *following) remember(e admin.AuditEntry) {
	f.shown[e]++
	if e.At.After(f.newest) {
		f.newest = e.At
		maps.DeleteFunc(f.shown, func(e admin.AuditEntry, _ int) bool { return e.At.Before(f.newest.Add(-overlap)) })
	}
}
