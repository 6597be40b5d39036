// Package metrics is what an operator sees of a running server in numbers: what is counted, and the page from which
// Prometheus takes it.
//
// # One table
//
// Every family is a row of the table in table.go, with its labels and the words that explain it; the dashboard and the
// alerts of manifests/deploy may name nothing else, and a test holds them to it. A program has one [Metrics]. Rooms get
// it from whoever builds them, and ask it for handles ([Metrics.Route], [Metrics.Grant], ...) when they are built: to
// count through a handle takes no look-up and allocates nothing. What is known only at the moment when somebody asks,
// such as ages and sizes, comes from sources ([Metrics.Source]).
//
// A nil *Metrics counts nothing, and so do the nil handles that it gives, so that whoever needs no numbers passes none.
//
// # Labels
//
// Labels have few values that are known beforehand: those of the table, or of this program (routes, grant types,
// rules), or of the configuration (plugins, members of etcd). Nothing that a request says becomes one. No label names a
// user; apps are named where the configuration asks for it (telemetry.apps), and then only those that a manifest has
// registered.
//
// This room is on the ground floor: it imports the client of Prometheus alone, and every other may import it.
package metrics

import (
	"net/http"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the numbers of one program. It is safe for concurrent use.
type Metrics struct {
	registry   *prometheus.Registry
	counters   map[string]*prometheus.CounterVec
	histograms map[string]*prometheus.HistogramVec
	gauges     map[string]*gauge
	apps       bool

	mu      sync.RWMutex // guards what follows
	sources map[string]Source
	values  map[string]float64 // of gauges without labels that are set, see set
	routes  map[string]*Route
	grants  map[appGrant]*Tally
}

// gauge is a family whose values come from sources.
type gauge struct {
	desc   *prometheus.Desc
	labels int
}

// Source tells values when somebody asks for them. It must not wait for anything.
type Source func(tell Tell)

// Tell tells one value of a gauge of the table, with the values of its labels in the order of the table.
type Tell func(name string, value float64, labels ...string)

// Options of [New].
type Options struct {
	Version string // of the program
	// Apps are named in what is counted of grants.
	Apps bool
}

// New makes the numbers of a program, all zero.
func New(o Options) *Metrics {
	m := &Metrics{
		registry: prometheus.NewPedanticRegistry(), apps: o.Apps,
		counters: make(map[string]*prometheus.CounterVec), histograms: make(map[string]*prometheus.HistogramVec),
		gauges: make(map[string]*gauge), sources: make(map[string]Source), values: make(map[string]float64),
		routes: make(map[string]*Route), grants: make(map[appGrant]*Tally),
	}
	for _, f := range table {
		switch names := f.names(); f.kind {
		case counter:
			vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.name, Help: f.help}, names)
			m.counters[f.name] = vec
			for _, values := range f.known() { // from 0 on, so that the first one is an increase
				vec.WithLabelValues(values...)
			}
			m.registry.MustRegister(vec)
		case histogram:
			opts := prometheus.HistogramOpts{Name: f.name, Help: f.help, Buckets: f.buckets}
			m.histograms[f.name] = prometheus.NewHistogramVec(opts, names)
			m.registry.MustRegister(m.histograms[f.name])
		default:
			m.gauges[f.name] = &gauge{prometheus.NewDesc(f.name, f.help, names, nil), len(names)}
		}
	}
	m.registry.MustRegister(sourced{m}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Source("build", func(tell Tell) { tell(BuildInfo, 1, o.Version, goVersion()) })
	return m
}

// Handler is the page that Prometheus reads.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, // what one source says wrongly must not hide the rest
		Registry:      m.registry, EnableOpenMetrics: true,
	})
}

// Source has values told by fn, in the place of what was under the same name before: a part of the program that is
// replaced takes the place of the one before it.
func (m *Metrics) Source(name string, fn Source) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources[name] = fn
}

// set keeps the value of a gauge without labels until the next one.
func (m *Metrics) set(name string, value float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] = value
}

// sourced collects what sources tell.
type sourced struct{ *Metrics }

func (s sourced) Describe(out chan<- *prometheus.Desc) {
	for _, g := range s.gauges {
		out <- g.desc
	}
}

func (s sourced) Collect(out chan<- prometheus.Metric) {
	s.mu.RLock()
	sources := make([]Source, 0, len(s.sources))
	for _, fn := range s.sources {
		sources = append(sources, fn)
	}
	type value struct {
		name string
		is   float64
	}
	var values []value
	for name, is := range s.values {
		values = append(values, value{name, is})
	}
	s.mu.RUnlock()
	told := make(map[string]bool)
	tell := func(name string, is float64, labels ...string) {
		g := s.gauges[name]
		if g == nil || len(labels) != g.labels {
			out <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(errUnknown(name)), errUnknown(name))
			return
		}
		series := name + "\x00" + joined(labels)
		if told[series] {
			return // two say the same; one of them suffices
		}
		told[series] = true
		out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, is, labels...)
	}
	for _, v := range values {
		tell(v.name, v.is)
	}
	for _, fn := range sources {
		fn(tell)
	}
}

// names are those of the labels.
func (f family) names() []string {
	var names []string
	for _, l := range f.labels {
		names = append(names, l.name)
	}
	return names
}

// known are the values of the labels, in all combinations; none if the table does not know those of one.
func (f family) known() [][]string {
	all := [][]string{nil}
	for _, l := range f.labels {
		var with [][]string
		for _, values := range all {
			for _, v := range l.values {
				with = append(with, append(slices.Clone(values), v))
			}
		}
		all = with
	}
	return all
}

// Family is a row of the table as others may see it.
type Family struct {
	Name string
	// Labels are their names, and Values those that each may have; nil: the table does not know them.
	Labels []string
	Values [][]string
	// Histogram: its samples are named NAME_bucket, NAME_sum and NAME_count.
	Histogram bool
}

// Families are what there is, in the order of the table.
func Families() []Family {
	var all []Family
	for _, f := range table {
		shown := Family{Name: f.name, Labels: f.names(), Histogram: f.kind == histogram}
		for _, l := range f.labels {
			shown.Values = append(shown.Values, slices.Clone(l.values))
		}
		all = append(all, shown)
	}
	return all
}
