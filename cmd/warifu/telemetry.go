package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/server/traces/otlp"
)

// newMetrics makes the numbers of a server that begins with a configuration.
func newMetrics(cfg *config.Settings) *metrics.Metrics {
	m := metrics.New(metrics.Options{Version: programVersion(), Apps: cfg.Telemetry.Apps})
	m.Started(time.Now())
	return m
}

// usualSample is telemetry.traces.sample unless something else is said.
const usualSample = 0.01

// newTracer makes what sends traces to the collector of a configuration; nil if there is none.
func newTracer(cfg *config.Settings, log *slog.Logger, m *metrics.Metrics) (*traces.Tracer, error) {
	t := cfg.Telemetry.Traces
	if t.Endpoint == "" {
		return nil, nil
	}
	endpoint, err := url.Parse(t.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("telemetry.traces.endpoint: %w", err)
	}
	if strings.Trim(endpoint.Path, "/") == "" {
		endpoint.Path = "/v1/traces"
	}
	return otlp.New(otlp.Options{Endpoint: endpoint.String(), Headers: cfg.TraceHeaders,
		Sample: cmp.Or(float64(t.Sample), usualSample), Version: programVersion(), Issuer: cfg.Issuer, Logger: log,
		Metrics: m})
}

// openTelemetry opens the listener at which Prometheus reads, if there is to be one.
func (i *instance) openTelemetry(ctx context.Context) error {
	address := i.cfg.Telemetry.HTTP
	if address == "" {
		return nil
	}
	listener, err := i.listen(ctx, "telemetry.http", address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", i.metrics.Handler())
	mux.Handle("GET /healthz", i.first.Live())
	mux.Handle("GET /readyz", i.first.Live())
	i.endpoints = append(i.endpoints, endpoint{name: "telemetry.http", listener: listener, handler: mux,
		patience: webPatience, connections: newConnections("telemetry", mostAdmin, nil, i.log)})
	return nil
}

// accessLog is where the lines of the access log go; nil if there are to be none. They are written whatever the level
// of the log is, and in its format.
func accessLog(cfg config.Logger, log *slog.Logger) *slog.Logger {
	if !cfg.Access {
		return nil
	}
	return slog.New(everything{log.Handler()})
}

// everything takes all levels.
type everything struct{ slog.Handler }

func (everything) Enabled(context.Context, slog.Level) bool { return true }
