package server

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/traces"
)

// What an operator sees of requests: numbers, and, where they are asked for, a line of the access log for each. Both
// call a request by its route, which is the path of an endpoint or page as this server has it, and never by the path or
// the query that came: these can hold credentials, and there is no end of them.

// reply is the answer to a request, with what is told of it later.
type reply struct {
	http.ResponseWriter
	status int   // 0 before it has begun
	bytes  int64 // of the body
}

func (w *reply) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK { // not what goes before the answer
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *reply) Write(body []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(body)
	w.bytes += int64(n)
	return n, err
}

// Unwrap is for [http.ResponseController].
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// routed notes of which route a request is.
func (s *Server) routed(name string, next http.Handler) http.Handler {
	route := s.cfg.Metrics.Route(name)
	if route == nil && s.cfg.AccessLog == nil && s.cfg.Traces == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := visitOf(r.Context())
		v.route, v.at = route, name
		next.ServeHTTP(w, r)
	})
}

// served tells of a request that is over.
func (s *Server) served(v *visit, r *http.Request) {
	took := time.Since(v.begun)
	v.route.Served(v.outcome(), took)
	if v.span != nil {
		v.traced(r)
	}
	if s.cfg.AccessLog != nil {
		s.logAccess(v, r, &v.reply, v.at, v.from, took, slog.String("client", shownClient(v.client, maxShownClient)),
			slog.String("app", v.app()), slog.String("rule", v.rule))
	}
}

// traced ends the span of a request that is over.
func (v *visit) traced(r *http.Request) {
	route, method := v.at, r.Method
	if route == "" {
		route = "other"
	}
	if !slices.Contains(knownMethods, method) {
		method = "_OTHER"
	}
	v.span.Named(method + " " + route)
	v.span.Set(traces.Method, method)
	v.span.Set(traces.Route, route)
	v.span.SetNumber(traces.Status, cmp.Or(v.reply.status, http.StatusOK))
	v.span.Set(traces.Request, v.id[0])
	v.span.Set(traces.Rule, v.rule)
	if v.known != nil {
		v.span.Set(traces.Client, v.known.ID)
		v.span.Set(traces.App, v.known.App)
	}
	v.span.End(v.outcome() == metrics.Failed)
}

// knownMethods are those that traces name; others are one.
var knownMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodOptions}

// outcome is how a request ended.
func (v *visit) outcome() metrics.Outcome {
	switch {
	case v.failed || v.reply.status >= http.StatusInternalServerError:
		return metrics.Failed
	case v.rule != "" || v.reply.status >= http.StatusBadRequest:
		return metrics.Refused
	}
	return metrics.OK
}

// logAccess writes a line of the access log. All that comes from outside is a value of it, in which the log's format
// leaves no line break as it is.
func (s *Server) logAccess(ctx context.Context, r *http.Request, w *reply, route string, from netip.Addr,
	took time.Duration, more ...slog.Attr) {
	status := w.status
	if status == 0 {
		status = http.StatusOK // what net/http answers when a handler says nothing
	}
	if route == "" {
		route = "other"
	}
	s.cfg.AccessLog.LogAttrs(ctx, slog.LevelInfo, "request", append([]slog.Attr{
		slog.String("address", shownAddress(from)), slog.String("method", shownMethod(r.Method)),
		slog.String("route", route), slog.Int("status", status), slog.Int64("bytes", w.bytes),
		slog.Float64("seconds", took.Round(time.Microsecond).Seconds())}, more...)...)
}

// logDocument is logAccess for a document, which is served before anything else is known of a request.
func (s *Server) logDocument(r *http.Request, w *reply, route string, begun time.Time) {
	id := ""
	if ids := w.Header()["X-Request-Id"]; len(ids) > 0 {
		id = ids[0]
	}
	s.logAccess(r.Context(), r, w, route, s.addressOf(r), time.Since(begun), slog.String("client", ""),
		slog.String("app", ""), slog.String("rule", ""), slog.String("request_id", id))
}

// shownMethod is a method as logs show it: it can be any word, of any length.
func shownMethod(method string) string { return oauth.Cut(method, 16) }

// countGrant counts a request for tokens. An unknown grant type is not counted.
func (s *Server) countGrant(r *http.Request, q *clientRequest, err error) {
	if s.cfg.Metrics == nil {
		return
	}
	grant := grantNamed(q.form.Get("grant_type"))
	if grant == nil {
		return
	}
	outcome := metrics.OK
	switch e := refused(err); {
	case err == nil:
	case e == nil && gone(r):
		outcome = metrics.Refused
	case e == nil:
		outcome = metrics.Failed
	case e.Code == oauth.CodeAuthorizationPending || e.Code == oauth.CodeSlowDown:
		outcome = metrics.Pending
	default:
		outcome = metrics.Refused
	}
	s.cfg.Metrics.Grant(visitOf(r.Context()).app(), grant.name, outcome)
}

// Ways to sign in and how that ended, as metrics have them.
const (
	countedOK        = "ok"
	countedRefused   = "refused"
	countedLocked    = "locked"
	countedBusy      = "busy"
	countedCancelled = "cancelled"
	countedFailed    = "failed"

	wayPassword  = "password"
	wayPasskey   = "passkey"
	wayDirectory = "directory"
	wayProvider  = "provider"

	factorCode     = "code"
	factorRecovery = "recovery"
	factorPasskey  = "passkey"
)

// countSignIn counts a sign-in by a connector.
func (s *Server) countSignIn(by connector.Connector, outcome string) {
	way := wayProvider
	switch {
	case by.ID == connector.StaticName:
		way = wayPassword
	case by.Password != nil:
		way = wayDirectory
	}
	s.cfg.Metrics.SignIn(way, outcome)
}

// countSession counts the sign-in with which a session has begun.
func (s *Server) countSession(p proof) {
	if p.Way == "" {
		s.cfg.Metrics.SignIn(wayPasskey, countedOK)
		return
	}
	if by, is := s.ways.find(p.Way); is {
		s.countSignIn(by, countedOK)
	}
}

// countFactor counts a code that was given as a second factor.
func (s *Server) countFactor(recovery, right, locked bool) {
	factor, outcome := factorCode, countedRefused
	if recovery {
		factor = factorRecovery
	}
	switch {
	case right:
		outcome = countedOK
	case locked:
		outcome = countedLocked
	}
	s.cfg.Metrics.SecondFactor(factor, outcome)
}

// tellLoad tells how many are at work and wait.
func (s *lasting) tellLoad(tell metrics.Tell) {
	tell(metrics.RequestsAtWork, float64(len(s.workroom.places)))
	tell(metrics.RequestsWaiting, float64(s.workroom.waiting.Load()))
	s.arrivals.mu.Lock()
	arriving := s.arrivals.all
	s.arrivals.mu.Unlock()
	tell(metrics.RequestsArriving, float64(arriving))
	s.queue.mu.Lock()
	waiting := s.queue.count
	s.queue.mu.Unlock()
	tell(metrics.PasswordsWaiting, float64(waiting))
}
