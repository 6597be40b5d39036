// Package traces is what an operator sees of single requests: which parts they had, here, at etcd and at plugins, and
// how long each took, sent to a collector by OTLP over HTTP.
//
// # What is traced
//
// A [Tracer] decides for each request, when it comes, whether it is one of those that are sampled; of the others there
// is no trace at all, and they cost a random number. A sampled request has a [Span], in its context, of which rooms
// below make parts ([Child]) without knowing the tracer. A nil *Tracer samples nothing, and a nil *Span takes whatever
// is said of it, so that nobody asks whether there are traces.
//
// # Who is believed
//
// A request may say of which trace it is a part (W3C Trace Context, the header traceparent). Anybody can send that: a
// stranger's header gives the trace its id and its parent, so that an app finds its requests again, but never decides
// that a request is sampled. Proxies that the configuration trusts do, either way. Only the trace's id goes on, to etcd
// and plugins; upstream identity providers and apps are told nothing.
//
// # What spans say
//
// Names and attributes are those of the constants here ([Key]): routes, rules, outcomes, known clients and their apps.
// Nothing that a request says becomes one but the id of its trace, and no key of etcd, user, address, token or text of
// an error is in any.
//
// This room is on the ground floor: it imports OpenTelemetry's API alone, and every other may import it, also plugins
// of other people. What collects spans and sends them is in the room otlp, which only the program itself links.
package traces

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Key names an attribute of a span. The first ones are of OpenTelemetry's semantic conventions.
type Key string

// Keys.
const (
	Method  Key = "http.request.method"
	Route   Key = "http.route"
	Status  Key = "http.response.status_code"
	System  Key = "db.system.name" // etcd
	Call    Key = "rpc.method"     // of a plugin
	Client  Key = "warifu.client"  // its id, if it is a known one
	App     Key = "warifu.app"
	Rule    Key = "warifu.rule" // by which it was refused
	Plugin  Key = "warifu.plugin"
	Request Key = "warifu.request_id"
)

// Tracer begins traces. It is safe for concurrent use.
type Tracer struct {
	tracer trace.Tracer
	sample float64
	end    func(context.Context) error
}

// on is true once there was a tracer: before, no context holds a span, and nobody looks for one.
var on atomic.Bool

// scope is what OpenTelemetry calls the part of a program whose spans these are.
const scope = "github.com/warifu/warifu/server/traces"

// Of makes a tracer of a provider, which takes all spans that it is given: the tracer has decided already which there
// are. Sample is the share of requests that are traced, from 0 to 1; end is called by Close, to send what is left.
func Of(provider trace.TracerProvider, sample float64, end func(context.Context) error) *Tracer {
	on.Store(true)
	return &Tracer{tracer: provider.Tracer(scope), sample: sample, end: end}
}

// closeTime is how long the end of a tracer waits for the collector.
const closeTime = 3 * time.Second

// Close sends what is left, as far as there is time.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = t.end(ctx) // what could not be sent is lost, and the log has why
}

// Span is a part of a trace that is under way. A nil one is of no trace.
type Span struct{ span trace.Span }

var contexts propagation.TraceContext

// Request begins the trace of a request, if it is sampled; else it returns ctx as it is, and nil. Trusted: a proxy of
// the configuration has sent it.
func (t *Tracer) Request(ctx context.Context, header http.Header, trusted bool, name string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	var from trace.SpanContext
	if len(header["Traceparent"]) > 0 {
		from = trace.SpanContextFromContext(contexts.Extract(context.Background(), propagation.HeaderCarrier(header)))
	}
	sampled := from.IsSampled()
	if !trusted || !from.IsValid() {
		sampled = t.chosen()
		from = from.WithTraceState(trace.TraceState{}).WithTraceFlags(0)
	}
	if !sampled {
		return ctx, nil
	}
	if from.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, from)
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
	return ctx, &Span{span}
}

// Work begins the trace of something that nobody has asked for, if it is sampled.
func (t *Tracer) Work(ctx context.Context, name string) (context.Context, *Span) {
	if t == nil || !t.chosen() {
		return ctx, nil
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindInternal))
	return ctx, &Span{span}
}

func (t *Tracer) chosen() bool { return t.sample >= 1 || rand.Float64() < t.sample }

// Child begins a part of the trace of a context: a call of somebody else, who gets the context. If there is no trace it
// returns ctx as it is, and nil.
//
// The context that it returns lets those who are called know the trace, and not add to it.
func Child(ctx context.Context, name string) (context.Context, *Span) {
	if !on.Load() {
		return ctx, nil
	}
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	_, span := parent.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient))
	return trace.ContextWithSpanContext(ctx, span.SpanContext()), &Span{span}
}

// Parent is the traceparent of a context, for those who are called; "" if there is no trace.
func Parent(ctx context.Context) string {
	if !on.Load() || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := make(propagation.MapCarrier, 1)
	contexts.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// ID is the id of the trace; "" if there is none.
func (s *Span) ID() string {
	if s == nil {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// Named gives it another name, by what has become known.
func (s *Span) Named(name string) {
	if s != nil {
		s.span.SetName(name)
	}
}

// Set says something of it. An empty value says nothing.
func (s *Span) Set(key Key, value string) {
	if s != nil && value != "" {
		s.span.SetAttributes(attribute.String(string(key), value))
	}
}

// SetNumber is [Span.Set] with a number.
func (s *Span) SetNumber(key Key, value int) {
	if s != nil {
		s.span.SetAttributes(attribute.Int(string(key), value))
	}
}

// End ends it; failed: by a fault, as opposed to a refusal.
func (s *Span) End(failed bool) {
	if s == nil {
		return
	}
	if failed {
		s.span.SetStatus(codes.Error, "")
	}
	s.span.End()
}
