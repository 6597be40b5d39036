// Package tracestest is a collector of traces for tests: it takes OTLP over HTTP, as protobuf, from whoever sends it.
package tracestest

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span as it came.
type Span struct {
	Name, TraceID, ID, Parent string // ids in hexadecimal; Parent is "" for a span without one
	Kind                      string // SPAN_KIND_SERVER and the like
	Failed                    bool
	Attributes                map[string]string
	Took                      time.Duration
}

// Collector has what came.
type Collector struct {
	URL string // of /v1/traces

	mu      sync.Mutex // guards the rest
	spans   []Span
	headers http.Header // of the last request
	raw     []string    // of each request
	changed chan struct{}
}

// Start starts a collector on loopback, which ends with the test.
func Start(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{changed: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("the collector cannot read what came: %v", err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf") // an empty message is an empty body
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL + "/v1/traces"
	return c
}

func (c *Collector) take(r *http.Request) error {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		zipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return err
		}
		body = zipped
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var sent coltracepb.ExportTraceServiceRequest
	if err := proto.Unmarshal(content, &sent); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers, c.raw = r.Header.Clone(), append(c.raw, string(content))
	for _, of := range sent.GetResourceSpans() {
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, spanOf(s))
			}
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

func spanOf(s *tracepb.Span) Span {
	span := Span{Name: s.GetName(), TraceID: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()),
		Parent: hex.EncodeToString(s.GetParentSpanId()), Kind: s.GetKind().String(),
		Failed:     s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		Attributes: make(map[string]string), Took: time.Duration(s.GetEndTimeUnixNano() - s.GetStartTimeUnixNano())}
	for _, a := range s.GetAttributes() {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			span.Attributes[a.GetKey()] = v.StringValue
		default:
			span.Attributes[a.GetKey()] = a.GetValue().String()
		}
	}
	return span
}

// Spans are those that came.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Raw is all that came, as it came.
func (c *Collector) Raw() (all string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.raw {
		all += r
	}
	return all
}

// Header is one of the last request.
func (c *Collector) Header(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers.Get(name)
}

// Await waits until a span has come for which is returns true, and fails the test if none does within a minute.
func (c *Collector) Await(t testing.TB, what string, is func(Span) bool) Span {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		c.mu.Lock()
		i, changed := slices.IndexFunc(c.spans, is), c.changed
		var found Span
		if i >= 0 {
			found = c.spans[i]
		}
		c.mu.Unlock()
		if i >= 0 {
			return found
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no span came for %s, of %v", what, c.Spans())
		}
	}
}
