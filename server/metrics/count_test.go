package metrics_test

import (
	"testing"
	"time"

	"github.com/warifu/warifu/server/metrics"
)

// What a refresh counts: its route, its grant, and its one transaction. Counting must allocate nothing.
func BenchmarkRefreshCounted(b *testing.B) {
	m := metrics.New(metrics.Options{Apps: true})
	route, etcd := m.Route("/oauth/token"), m.Etcd("write")
	b.ReportAllocs()
	for b.Loop() {
		etcd.Answered(time.Now(), nil)
		m.Grant("board", "refresh_token", metrics.OK)
		route.Served(metrics.OK, time.Millisecond)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := metrics.New(metrics.Options{Apps: true})
	route, etcd := m.Route("/oauth/token"), m.Etcd("write")
	m.Grant("board", "refresh_token", metrics.OK)
	if n := testing.AllocsPerRun(100, func() {
		etcd.Answered(time.Now(), nil)
		m.Grant("board", "refresh_token", metrics.OK)
		route.Served(metrics.OK, time.Millisecond)
	}); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
	var none *metrics.Metrics // counts nothing, and neither do its handles
	none.Route("x").Served(metrics.Failed, 0)
	none.Etcd("x").Answered(time.Now(), nil)
	none.Grant("x", "y", metrics.Refused)
	none.SignIn("x", "y")
	none.SpansLost("x", 1)
	none.Started(time.Now())
	none.Reloaded(time.Now())
	none.Source("x", nil)
}
