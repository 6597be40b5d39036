package metrics

import (
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Outcome is how something ended. Which of them there are for what is said by the table.
type Outcome int

// Outcomes of requests and grants.
const (
	OK Outcome = iota
	Refused
	Failed
	Pending
)

// words of outcomes, as labels have them.
var words = [...]string{OK: "ok", Refused: "refused", Failed: "failed", Pending: "pending"}

// Tally counts by outcome.
type Tally struct {
	of [len(words)]prometheus.Counter
}

func newTally(vec *prometheus.CounterVec, outcomes []Outcome, labels ...string) *Tally {
	t := &Tally{}
	for _, o := range outcomes {
		t.of[o] = vec.WithLabelValues(append(labels[:len(labels):len(labels)], words[o])...)
	}
	return t
}

// Count counts one that ended so.
func (t *Tally) Count(o Outcome) {
	if t != nil && t.of[o] != nil {
		t.of[o].Inc()
	}
}

// Route counts the requests of a route.
type Route struct {
	*Tally
	name string
	took prometheus.Observer
}

// Route is the handle of a route: the path of an endpoint or page below the issuer, or one word for several. The same
// name gives the same one.
func (m *Metrics) Route(name string) *Route {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.routes[name]
	if r == nil {
		r = &Route{newTally(m.counters[requestsTotal], []Outcome{OK, Refused, Failed}, name), name,
			m.histograms[requestSeconds].WithLabelValues(name)}
		m.routes[name] = r
	}
	return r
}

// Served counts a request that was answered.
func (r *Route) Served(o Outcome, took time.Duration) {
	if r == nil {
		return
	}
	r.Count(o)
	r.took.Observe(took.Seconds())
}

// appGrant is a grant type as an app uses it; app is empty for all.
type appGrant struct{ app, grantType string }

// Grant counts a request for tokens; app is that of the client, empty if no manifest has registered it.
func (m *Metrics) Grant(app, grantType string, o Outcome) {
	if m == nil {
		return
	}
	m.grant(appGrant{"", grantType}).Count(o)
	if m.apps && app != "" {
		m.grant(appGrant{app, grantType}).Count(o)
	}
}

// GrantType has a grant type counted from 0 on.
func (m *Metrics) GrantType(name string) {
	if m != nil {
		m.grant(appGrant{"", name})
	}
}

func (m *Metrics) grant(of appGrant) *Tally {
	m.mu.RLock()
	t := m.grants[of]
	m.mu.RUnlock()
	if t != nil {
		return t
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t = m.grants[of]; t == nil {
		all := []Outcome{OK, Pending, Refused, Failed}
		if of.app == "" {
			t = newTally(m.counters[grantsTotal], all, of.grantType)
		} else {
			t = newTally(m.counters[appGrantsTotal], all, of.app, of.grantType)
		}
		m.grants[of] = t
	}
	return t
}

// Refused counts a refusal, or a form that is shown again, by its rule.
func (m *Metrics) Refused(rule string) { m.count(refusalsTotal, rule) }

// SignIn counts a sign-in. The table says which ways and outcomes there are.
func (m *Metrics) SignIn(way, outcome string) { m.count(signInsTotal, way, outcome) }

// SecondFactor counts a second factor that was given.
func (m *Metrics) SecondFactor(factor, outcome string) { m.count(factorsTotal, factor, outcome) }

// Delivered counts an attempt to deliver by the state in which it left the target.
func (m *Metrics) Delivered(state string) { m.count(deliveriesTotal, state) }

// Drifted counts env that was found lost or changed.
func (m *Metrics) Drifted() { m.count(driftTotal) }

// Rotation counts a step of the rotation of a client secret.
func (m *Metrics) Rotation(step string) { m.count(rotationStepsTotal, step) }

// KeyUse has the turns of keys of a use counted from 0 on.
func (m *Metrics) KeyUse(use string) {
	if m != nil {
		m.counters[keyTurnsTotal].WithLabelValues(use)
	}
}

// KeyTurn counts a key whose turn has come.
func (m *Metrics) KeyTurn(use string) { m.count(keyTurnsTotal, use) }

// Letter counts a letter, or an attempt to send it.
func (m *Metrics) Letter(outcome string) { m.count(lettersTotal, outcome) }

// SpansLost counts spans of traces that did not get to the collector. The table says which causes there are.
func (m *Metrics) SpansLost(cause string, spans int) {
	if m != nil {
		m.counters[spansLostTotal].WithLabelValues(cause).Add(float64(spans))
	}
}

// PluginStarted counts a start of a plugin that succeeded, and PluginFailed one that did not, or the end of a process.
func (m *Metrics) PluginStarted(kind, plugin string) {
	m.count(pluginStartsTotal, kind, plugin)
	if m != nil {
		m.counters[pluginFailuresTotal].WithLabelValues(kind, plugin) // so that the first one is an increase
	}
}

// PluginFailed is beside [Metrics.PluginStarted].
func (m *Metrics) PluginFailed(kind, plugin string) { m.count(pluginFailuresTotal, kind, plugin) }

// PluginCall counts a call of a plugin.
func (m *Metrics) PluginCall(plugin, call string, took time.Duration) {
	if m != nil {
		m.histograms[pluginSeconds].WithLabelValues(plugin, call).Observe(took.Seconds())
	}
}

// Started is that a program has begun with its configuration.
func (m *Metrics) Started(at time.Time) {
	if m == nil {
		return
	}
	m.set(lastReload, seconds(at))
	m.set(reloadRefused, 0)
}

// Reloaded counts a configuration that was read again and taken into use.
func (m *Metrics) Reloaded(at time.Time) {
	m.count(reloadsTotal, words[OK])
	if m != nil {
		m.set(lastReload, seconds(at))
	}
}

// ReloadRefused counts a configuration that was read again and refused.
func (m *Metrics) ReloadRefused() { m.count(reloadsTotal, words[Refused]) }

// SetReloadRefused keeps whether the configuration that was read last was refused.
func (m *Metrics) SetReloadRefused(is bool) {
	if m != nil {
		m.set(reloadRefused, Flag(is))
	}
}

// Differ keeps how many other replicas have another configuration.
func (m *Metrics) Differ(replicas int) {
	if m != nil {
		m.set(replicasDiffer, float64(replicas))
	}
}

// Etcd counts requests to etcd of one kind.
type Etcd struct {
	*Tally
	took prometheus.Observer
}

// Etcd is the handle of a kind of request to etcd.
func (m *Metrics) Etcd(kind string) *Etcd {
	if m == nil {
		return nil
	}
	return &Etcd{newTally(m.counters[etcdTotal], []Outcome{OK, Failed}, kind),
		m.histograms[etcdSeconds].WithLabelValues(kind)}
}

// Answered counts a request that began at a time.
func (e *Etcd) Answered(begun time.Time, err error) {
	if e == nil {
		return
	}
	if err != nil {
		e.Count(Failed)
	} else {
		e.Count(OK)
	}
	e.took.Observe(time.Since(begun).Seconds())
}

// count counts what is rare enough for a look-up.
func (m *Metrics) count(name string, labels ...string) {
	if m != nil {
		m.counters[name].WithLabelValues(labels...).Inc()
	}
}

// Flag is 1 if something is so, and 0 if not.
func Flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func goVersion() string { return runtime.Version() }

func joined(labels []string) string { return strings.Join(labels, "\x00") }

func errUnknown(name string) error {
	return errors.New("a source has told " + name + ", which the table does not have with these labels")
}
