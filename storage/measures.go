package storage

import (
	"context"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/traces"
)

// What a store tells of itself in numbers and traces: what it asks of etcd and how long that takes, and, when somebody
// asks, how old keys and secrets are, how its etcd is, and how far its memory may be behind.

// measures are the numbers of a store. Without metrics they count nothing.
type measures struct {
	*metrics.Metrics
	reads, writes *metrics.Etcd

	mu      sync.Mutex // guards the set
	watches map[*watching]bool
}

func newMeasures(m *metrics.Metrics) measures {
	return measures{Metrics: m, reads: m.Etcd("read"), writes: m.Etcd("write"), watches: make(map[*watching]bool)}
}

// requested is a request to etcd that is under way.
type requested struct {
	kind  *metrics.Etcd
	begun time.Time
	span  *traces.Span
}

// request begins a request to etcd, with the context in which it is to be made. etcd is told of which trace it is a
// part.
func request(ctx context.Context, kind *metrics.Etcd, name string) (context.Context, requested) {
	a := requested{kind: kind, begun: time.Now()}
	if ctx, a.span = traces.Child(ctx, name); a.span != nil {
		a.span.Set(traces.System, "etcd")
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", traces.Parent(ctx))
	}
	return ctx, a
}

func (a requested) answered(err error) {
	a.kind.Answered(a.begun, err)
	a.span.End(err != nil)
}

// measured counts requests to etcd, but for transactions, which [Store.run] counts.
type measured struct {
	clientv3.KV
	*measures
}

func (m *measured) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, req := request(ctx, m.reads, "etcd get")
	resp, err := m.KV.Get(ctx, key, opts...)
	req.answered(err)
	return resp, err
}

func (m *measured) Put(ctx context.Context, key, value string,
	opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	ctx, req := request(ctx, m.writes, "etcd put")
	resp, err := m.KV.Put(ctx, key, value, opts...)
	req.answered(err)
	return resp, err
}

func (m *measured) Delete(ctx context.Context, key string,
	opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	ctx, req := request(ctx, m.writes, "etcd delete")
	resp, err := m.KV.Delete(ctx, key, opts...)
	req.answered(err)
	return resp, err
}

// watching is a watch by which memory follows etcd. From time to time it is asked whether it is up to date; the answer
// comes behind everything that etcd had to say before, so the time that it takes is how far memory may be behind.
type watching struct {
	ctx context.Context // by which etcd's client finds its stream; it ends with the watch

	mu   sync.Mutex // guards the rest
	owes time.Time  // since when it owes an answer; zero: it does not
	took time.Duration
}

// watching begins to ask a watch.
func (m *measures) watching(ctx context.Context) *watching {
	w := &watching{ctx: ctx}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watches[w] = true
	return w
}

// over is for a watch that has ended.
func (m *measures) over(w *watching) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watches, w)
}

// all are the watches at this moment.
func (m *measures) all() []*watching {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*watching, 0, len(m.watches))
	for w := range m.watches {
		out = append(out, w)
	}
	return out
}

// heard notes that something has come.
func (w *watching) heard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.owes.IsZero() {
		w.took, w.owes = time.Since(w.owes), time.Time{}
	}
}

// asked notes that it is being asked, and reports whether it still owes the answer to an earlier question.
func (w *watching) asked() (again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.owes.IsZero() {
		return true
	}
	w.owes = time.Now()
	return false
}

// lag is how far behind it may be.
func (w *watching) lag() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owes.IsZero() {
		return w.took
	}
	return max(w.took, time.Since(w.owes))
}

// How often watches are asked, and those again that owe an answer: etcd leaves a question unanswered to which there is
// no answer yet.
const (
	askWatch      = 10 * time.Second
	askWatchAgain = time.Second
)

// askWatches asks the watches until ctx ends. Nobody needs to know it where nothing is counted.
func (s *Store) askWatches(ctx context.Context) {
	if s.measures.Metrics == nil {
		return
	}
	for next := askWatch; ; {
		Pause(ctx, next)
		if ctx.Err() != nil {
			return
		}
		next = askWatch
		for _, w := range s.measures.all() {
			if w.asked() {
				next = askWatchAgain
			}
			asking, cancel := context.WithTimeout(w.ctx, askWatchAgain)
			_ = s.watcher.RequestProgress(asking) // what is not answered shows
			cancel()
		}
	}
}

// told tells what is known without asking etcd.
func (s *Store) told(tell metrics.Tell) {
	now := s.now()
	s.mem.mu.RLock()
	for use, keys := range s.mem.byUse {
		tell(metrics.Keys, float64(len(keys)), use)
		if i := activeKey(keys, now); i >= 0 {
			tell(metrics.KeyAge, max(now.Sub(keys[i].NotBefore), 0).Seconds(), use)
		}
	}
	described, self, oldest := 0, 0, time.Duration(0)
	for _, c := range s.mem.clients {
		if c.Disabled {
			continue
		}
		if c.App != "" {
			described++
		} else {
			self++
		}
		if n := len(c.Secrets); n > 0 {
			oldest = max(oldest, now.Sub(c.Secrets[n-1].CreatedAt))
		}
	}
	s.mem.mu.RUnlock()
	tell(metrics.Clients, float64(described), "manifest")
	tell(metrics.Clients, float64(self), "self")
	tell(metrics.ClientSecretAge, oldest.Seconds())
	lag := time.Duration(0)
	for _, w := range s.measures.all() {
		lag = max(lag, w.lag())
	}
	tell(metrics.WatchLag, lag.Seconds())
	tell(metrics.ClocksApart, float64(len(s.ClockDifferences())))
	s.clocks.mu.Lock()
	tell(metrics.Replicas, float64(len(s.clocks.others)+1))
	s.clocks.mu.Unlock()
	if s.keeper != nil {
		s.keeper.tell(tell)
	}
}

// tell tells how etcd was at the last look.
func (k *keeper) tell(tell metrics.Tell) {
	k.mu.Lock()
	full, members := k.condition.Full, k.members
	k.mu.Unlock()
	tell(metrics.StorageFull, metrics.Flag(full))
	for _, m := range members {
		name := m.endpoint[strings.LastIndexByte(m.endpoint, '@')+1:] // without a password that stands before
		if m.endpoint == "" {
			name = memberName
		}
		tell(metrics.EtcdUp, metrics.Flag(m.err == nil), name)
		if m.err != nil {
			continue
		}
		tell(metrics.EtcdSize, float64(m.status.DbSize), name)
		tell(metrics.EtcdSizeUsed, float64(m.status.DbSizeInUse), name)
		if m.status.DbSizeQuota > 0 {
			tell(metrics.EtcdQuota, float64(m.status.DbSizeQuota), name)
		}
		for _, alarm := range []string{"NOSPACE", "CORRUPT"} {
			tell(metrics.EtcdAlarms, metrics.Flag(m.alarmed(alarm)), name, alarm)
		}
	}
}
