package plugins

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/server/traces/otlp"
	"github.com/warifu/warifu/server/traces/tracestest"
)

// A call of a plugin is part of the trace in which it was made, the plugin is told so, and it is counted; one in no
// trace is told nothing.
func TestCallsAreSeen(t *testing.T) {
	t.Parallel()
	collector := tracestest.Start(t)
	tracer, err := otlp.New(otlp.Options{Endpoint: collector.URL, Sample: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	m := metrics.New(metrics.Options{})
	h, _ := testHost(t, HostOptions{Metrics: m})
	r := testRuntime(t, h)
	if st, err := r.PushEnv(t.Context(), push("traced", nil)); err != nil || st.Location != "" {
		t.Errorf("in no trace: %+v %v", st, err)
	}
	ctx, span := tracer.Request(t.Context(), http.Header{}, false, "request")
	st, err := r.PushEnv(ctx, push("traced", map[string]string{"SECRET": "the-secret"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.PushEnv(ctx, push("stale", nil)); err == nil {
		t.Error("an older generation was taken")
	}
	span.End(false)
	tracer.Close()
	spans := collector.Spans()
	if len(spans) != 3 {
		t.Fatalf("%v", spans)
	}
	whole := spans[2]
	for i, s := range spans[:2] {
		if s.Parent != whole.ID || s.Name != "plugin PushEnv" || s.Failed != (i == 1) ||
			s.Attributes[string(traces.Plugin)] != r.Name() || s.Attributes[string(traces.Call)] != "PushEnv" {
			t.Errorf("%+v", s)
		}
	}
	if want := "00-" + whole.TraceID + "-" + spans[0].ID + "-01"; st.Location != want {
		t.Errorf("the plugin was told %q, want %q", st.Location, want)
	}
	if strings.Contains(collector.Raw(), "the-secret") || strings.Contains(collector.Raw(), "stale") {
		t.Error("the collector is told what was pushed, or what the plugin said")
	}
	page := httptest.NewRecorder()
	m.Handler().ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, want := range []string{`warifu_plugin_call_duration_seconds_count{call="PushEnv",plugin="` + r.Name() + `"} 3`,
		`warifu_plugin_up{kind="runtime",plugin="` + r.Name() + `"} 1`,
		`warifu_plugin_starts_total{kind="runtime",plugin="` + r.Name() + `"} 1`,
		`warifu_plugin_failures_total{kind="runtime",plugin="` + r.Name() + `"} 0`} {
		if !strings.Contains(page.Body.String(), want+"\n") {
			t.Errorf("/metrics does not have %s", want)
		}
	}
}
