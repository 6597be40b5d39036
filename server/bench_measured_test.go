package server_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/traces/otlp"
	"github.com/warifu/warifu/storage"
)

// BenchmarkRefreshMeasured is what it costs a refresh to be seen: by metrics, with an access log as well, and with
// traces of 1 % of the requests, sent to a collector in this process. The servers have one etcd, and take turns of some
// hundred requests each within one run, so that whatever else the machine does meets them all. X-cpu-ns is the
// processor's time for one request in the cheapest turn, and X-percent how much more that is than without;
// X-median-percent is the median of what it was more in turns that followed each other.
func BenchmarkRefreshMeasured(b *testing.B) {
	p := newBenchIDP(b)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // what it is, is nothing to this
	}))
	defer collector.Close()
	type variant struct {
		name   string
		change func(*server.Config)
		p      *benchIDP
		took   []float64 // ns of the processor for one request, in each turn
	}
	variants := []*variant{
		{name: "bare", change: func(*server.Config) {}},
		{name: "bare-again", change: func(*server.Config) {}}, // how much the figures are worth
		{name: "metrics", change: func(c *server.Config) { c.Metrics = metrics.New(metrics.Options{Apps: true}) }},
		{name: "access-log", change: func(c *server.Config) {
			c.Metrics = metrics.New(metrics.Options{Apps: true})
			c.AccessLog = slog.New(server.LogHandler(slog.NewJSONHandler(io.Discard, nil)))
		}},
		{name: "traces", change: func(c *server.Config) {
			tracer, err := otlp.New(otlp.Options{Endpoint: collector.URL + "/v1/traces", Sample: 0.01, Version: "bench",
				Issuer: p.issuer, Logger: c.Logger})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(tracer.Close)
			c.Traces = tracer
		}},
	}
	for _, v := range variants {
		q := *p.idp
		v.change(&q.cfg)
		q.serve(p.etcd.Store(func(o *storage.Options) { o.Now, o.Metrics = p.clock.now, q.cfg.Metrics }))
		v.p = &benchIDP{&q, q.handler}
	}
	tokens := make([]string, callers)
	for i := range tokens {
		tokens[i] = p.grantTokens(b)["refresh_token"].(string)
	}
	const each = 8 // requests of a caller in a turn
	turn := func(v *variant) {
		runtime.GC()
		spent := processorTime(b)
		var all sync.WaitGroup
		for i := range tokens {
			all.Go(func() {
				for range each {
					tokens[i] = post(b, v.p.handler, "/oauth/token", v.p.withClient(url.Values{
						"grant_type": {"refresh_token"}, "refresh_token": {tokens[i]}}))["refresh_token"].(string)
				}
			})
		}
		all.Wait()
		v.took = append(v.took, float64(processorTime(b)-spent)/float64(each*len(tokens)))
	}
	for _, v := range variants { // before it counts
		turn(v)
		v.took = nil
	}
	n, begun := 0, time.Now()
	for b.Loop() {
		for i := range variants {
			turn(variants[(i+n)%len(variants)])
		}
		n++
	}
	b.ReportMetric(0, "ns/op") // of four servers together, which says nothing
	bare := variants[0].took
	for _, v := range variants {
		b.ReportMetric(slices.Min(v.took), v.name+"-cpu-ns")
		if v == variants[0] {
			continue
		}
		more := make([]float64, n)
		for i := range more {
			more[i] = (v.took[i]/bare[i] - 1) * 100
		}
		slices.Sort(more)
		b.ReportMetric((slices.Min(v.took)/slices.Min(bare)-1)*100, v.name+"-percent")
		b.ReportMetric(more[n/2], v.name+"-median-percent")
	}
	b.Logf("%d turns of each in %v", n, time.Since(begun).Round(time.Second))
}
