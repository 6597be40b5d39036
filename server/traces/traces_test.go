package traces_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/server/traces/otlp"
	"github.com/warifu/warifu/server/traces/tracestest"
)

const (
	trace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent = "00f067aa0ba902b7"
)

type buffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newTracer(t *testing.T, endpoint string, sample float64) (*traces.Tracer, *buffer) {
	t.Helper()
	log := &buffer{}
	tracer, err := otlp.New(otlp.Options{Endpoint: endpoint, Sample: sample, Version: "test",
		Issuer:  "https://id.example.com",
		Headers: map[string]string{"X-Collector-Token": "the-token"}, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return tracer, log
}

// Strangers say of which trace a request is, and only proxies that are trusted say whether it is sampled.
func TestWhoDecidesThatARequestIsTraced(t *testing.T) {
	t.Parallel()
	collector := tracestest.Start(t)
	never, _ := newTracer(t, collector.URL, 0)
	always, _ := newTracer(t, collector.URL, 1)
	defer never.Close()
	for _, c := range []struct {
		name    string
		tracer  *traces.Tracer
		from    string
		trusted bool
		traced  bool
		joined  bool
	}{
		{"nobody asks, none is sampled", never, "", false, false, false},
		{"nobody asks, all are sampled", always, "", false, true, false},
		{"a stranger wants it traced", never, "00-" + trace + "-" + parent + "-01", false, false, false},
		{"a stranger does not want it traced", always, "00-" + trace + "-" + parent + "-00", false, true, true},
		{"a proxy wants it traced", never, "00-" + trace + "-" + parent + "-01", true, true, true},
		{"a proxy does not want it traced", always, "00-" + trace + "-" + parent + "-00", true, false, false},
		{"a proxy says nothing", always, "", true, true, false},
		{"no hexadecimal digits", always, "00-" + strings.Repeat("x", 32) + "-" + parent + "-01", false, true, false},
		{"a trace of zeros", always, "00-" + strings.Repeat("0", 32) + "-" + parent + "-01", true, true, false},
		{"far too long", always, "00-" + strings.Repeat("4b", 5000), true, true, false},
		{"lines", always, "00-" + trace + "\r\n-" + parent + "-01", false, true, false},
	} {
		header := http.Header{}
		if c.from != "" {
			header["Traceparent"], header["Tracestate"] = []string{c.from}, []string{"stranger=says-this"}
		}
		ctx, span := c.tracer.Request(t.Context(), header, c.trusted, c.name)
		if (span != nil) != c.traced {
			t.Errorf("%s: traced: %v", c.name, span != nil)
		}
		if joined := span.ID() == trace; joined != c.joined {
			t.Errorf("%s: it is part of %s", c.name, span.ID())
		}
		if told := traces.Parent(ctx); c.traced != strings.HasPrefix(told, "00-"+span.ID()+"-") {
			t.Errorf("%s: those who are called are told %q", c.name, told)
		}
		inner, child := traces.Child(ctx, "call")
		if (child != nil) != c.traced || child.ID() != span.ID() {
			t.Errorf("%s: its part is of %q", c.name, child.ID())
		}
		if _, grandchild := traces.Child(inner, "call within a call"); grandchild != nil {
			t.Errorf("%s: those who are called add to it", c.name)
		}
		child.Set(traces.System, "etcd")
		child.End(true)
		span.Set(traces.Route, "")
		span.End(false)
	}
	always.Close()
	for _, s := range collector.Spans() {
		if s.TraceID == trace && s.Kind == "SPAN_KIND_SERVER" && s.Parent != parent {
			t.Errorf("%s: its parent is %s", s.Name, s.Parent)
		}
		if s.Failed != (s.Name == "call") {
			t.Errorf("%s failed: %v", s.Name, s.Failed)
		}
	}
	if len(collector.Spans()) == 0 || collector.Header("X-Collector-Token") != "the-token" {
		t.Errorf("%d spans came, with %q", len(collector.Spans()), collector.Header("X-Collector-Token"))
	}
	if strings.Contains(collector.Raw(), "says-this") {
		t.Error("what a stranger says of a trace was sent on")
	}
	var none *traces.Tracer
	if ctx, span := none.Request(t.Context(), nil, false, "x"); span != nil || ctx != t.Context() {
		t.Error("without a tracer there is a trace")
	}
	none.Close()
}

// A collector that is away, or takes everything and never answers, holds nobody up, and the log says it once.
func TestCollectorThatIsAway(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, and nobody else does
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }() // what waits there is nothing to this test
	for name, address := range map[string]string{"closed": closed, "silent": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracer, log := newTracer(t, "http://"+address+"/v1/traces", 1)
			begun := time.Now()
			const requests = 20_000 // ten times what may wait
			for range requests {
				ctx, span := tracer.Request(context.Background(), nil, false, "request")
				_, child := traces.Child(ctx, "call")
				child.End(false)
				span.End(false)
			}
			if each := time.Since(begun) / requests; each > time.Millisecond {
				t.Errorf("a request takes %v longer", each)
			}
			begun = time.Now()
			tracer.Close()
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("the end takes %v", took)
			}
			if n := strings.Count(log.String(), "traces are lost"); n > 1 || n == 0 && name == "closed" {
				t.Errorf("it is said %d times\n%s", n, log)
			}
			if strings.Contains(log.String(), "the-token") || strings.Contains(log.String(), address) {
				t.Errorf("the log says too much:\n%s", log)
			}
		})
	}
}
