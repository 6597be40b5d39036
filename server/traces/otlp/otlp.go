// Package otlp sends traces to a collector, by OTLP over HTTP.
//
// Spans wait in a queue that never grows beyond [most], and are sent beside requests. When the collector is away or
// slow, they are dropped; the log says so once, and the metrics how many they were.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/traces"
)

// Bounds of what waits for the collector.
const (
	most     = 2048 // spans
	batch    = 512
	every    = 2 * time.Second
	sendTime = 10 * time.Second
)

// Options of [New].
type Options struct {
	// Endpoint is the address of the collector, with its path, as in http://127.0.0.1:4318/v1/traces.
	Endpoint string
	// Headers go with each batch, such as a token of the collector.
	Headers map[string]string
	// Sample is the share of requests that are traced, from 0 to 1.
	Sample float64
	// Version of the program, and the Issuer that it serves, by which its traces are found.
	Version, Issuer string
	// Logger is told when the collector does not take traces. Required.
	Logger *slog.Logger
	// Metrics count what is lost; nil counts nothing.
	Metrics *metrics.Metrics
}

// New makes a tracer, which sends what it has in the background until Close. The collector need not be there.
func New(o Options) (*traces.Tracer, error) {
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(o.Endpoint),
		otlptracehttp.WithHeaders(o.Headers), otlptracehttp.WithTimeout(sendTime),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		// What the collector did not take is not sent again: the next batch waits already.
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}))
	if err != nil {
		return nil, fmt.Errorf("prepare to send traces: %w", err)
	}
	provider := newProvider(exporter, o)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) // told has said it, without what the collector answered
	return traces.Of(provider, o.Sample, provider.Shutdown), nil
}

func newProvider(exporter sdktrace.SpanExporter, o Options) *sdktrace.TracerProvider {
	waiting := new(atomic.Int64)
	sender := sdktrace.NewBatchSpanProcessor(
		&told{SpanExporter: exporter, log: o.Logger, metrics: o.Metrics, waiting: waiting},
		sdktrace.WithMaxQueueSize(most), sdktrace.WithMaxExportBatchSize(batch), sdktrace.WithBatchTimeout(every),
		sdktrace.WithExportTimeout(sendTime))
	return sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(&queue{SpanProcessor: sender, metrics: o.Metrics, waiting: waiting}),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // [traces.Tracer.Request] has decided already
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "warifu"),
			attribute.String("service.version", o.Version), attribute.String("service.namespace", o.Issuer))))
}

// queue lets no more spans wait than there may be. OpenTelemetry's own queue, which has room for as many, tells nobody
// of those that it drops.
type queue struct {
	sdktrace.SpanProcessor
	metrics *metrics.Metrics
	waiting *atomic.Int64 // spans that have ended and were not sent
}

func (q *queue) OnEnd(span sdktrace.ReadOnlySpan) {
	if q.waiting.Add(1) > most {
		q.waiting.Add(-1)
		q.metrics.SpansLost("queue", 1)
		return
	}
	q.SpanProcessor.OnEnd(span)
}

// told says in the log when the collector does not take spans, and when it does again.
type told struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	metrics *metrics.Metrics
	waiting *atomic.Int64 // as in queue
	away    atomic.Bool
}

func (e *told) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.waiting.Add(-int64(len(spans)))
	if err != nil {
		e.metrics.SpansLost("collector", len(spans))
	}
	switch {
	case err != nil && !e.away.Swap(true):
		e.log.Warn("traces are lost: the collector does not accept them; the next ones will be sent as usual",
			"reason", reason(err))
	case err == nil && e.away.Swap(false):
		e.log.Info("the collector accepts traces again")
	}
	return err
}

// reason is why a batch was not taken, without what the collector says and where it is.
func reason(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it does not answer in time"
	case errors.As(err, new(interface{ Temporary() bool })):
		return "it cannot be reached"
	}
	return "it refuses them, or cannot be reached: compare telemetry.traces with its settings"
}
