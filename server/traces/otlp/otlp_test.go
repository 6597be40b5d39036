package otlp

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/warifu/warifu/server/metrics"
)

// collector takes nothing before it is told how it answers.
type collector struct {
	answer chan struct{}
	err    error

	mu    sync.Mutex // guards what follows
	spans int        // that were sent
}

func (c *collector) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	<-c.answer
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans += len(spans)
	return c.err
}

func (c *collector) Shutdown(context.Context) error { return nil }

// What is lost is counted span by span: those for which there was no room, and those that the collector did not take.
func TestSpansThatAreLostAreCounted(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"it takes them": nil, "it refuses them": errors.New("refused")} {
		m := metrics.New(metrics.Options{})
		c := &collector{answer: make(chan struct{}), err: err}
		provider := newProvider(c, Options{Logger: slog.New(slog.DiscardHandler), Metrics: m})
		tracer := provider.Tracer("test")
		for range most + 7 {
			_, span := tracer.Start(t.Context(), "request")
			span.End()
		}
		close(c.answer)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_ = provider.Shutdown(ctx) // it has the error of the collector, if any
		cancel()
		c.mu.Lock()
		sent := c.spans
		c.mu.Unlock()
		if sent != most {
			t.Errorf("%s: %d spans were sent, want %d", name, sent, most)
		}
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
		refused := "0"
		if err != nil {
			refused = "2048"
		}
		for _, series := range []string{`{cause="queue"} 7`, `{cause="collector"} ` + refused} {
			if !strings.Contains(w.Body.String(), "warifu_trace_spans_lost_total"+series+"\n") {
				t.Errorf("%s: there is no %s in\n%s", name, series, w.Body)
			}
		}
	}
}
