package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Inside is what only a running server knows.
type Inside struct {
	Store *storage.Store
	// Schedules say how the keys of each use follow each other.
	Schedules []storage.KeySchedule
	// Plugins says what each plugin is, and starts those that nobody has needed so far. It may be nil.
	Plugins func(ctx context.Context) []Plugin
	// Upstreams are the identity providers and directories of connectors.
	Upstreams []Upstream
	// AllowLoopback: the configuration allows redirect URIs that lead to the user's own machine.
	AllowLoopback bool
	// NoProxies: the configuration trusts no proxies (web.trustedProxies).
	NoProxies bool
	// Configuration says what has become of the configuration that was read last. It may be nil.
	Configuration func() Configuration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Configuration is what has become of the configuration that a server has read last.
type Configuration struct {
	Refused string    // why it is not in use; "" if it is
	Since   time.Time // of the refusal
	// Unasked: it is not in use only because nobody has asked for it.
	Unasked bool
	Waits   []string // keys that wait for a restart
}

// Plugin is a deploy hook or a runtime.
type Plugin struct {
	Name, Kind string
	Version    string // as it says itself
	Err        error  // why it does not run
}

// Upstream is where a connector leads.
type Upstream struct {
	ID      string
	Address string // host:port
}

// Checks look at what the server has.
func (i Inside) Checks() []Check {
	if i.Now == nil {
		i.Now = time.Now
	}
	return []Check{
		{Name: "etcd", Look: i.etcd}, {Name: "configuration", Look: i.configuration},
		{Name: "replicas", Look: i.replicas}, {Name: "keys", Look: i.keys},
		{Name: "plugins", Look: i.plugins, Within: 2 * Patience}, {Name: "deliveries", Look: i.deliveries},
		{Name: "secrets", Look: i.secrets}, {Name: "redirects", Look: i.redirects},
		{Name: "forward-auth", Look: i.forwardAuth},
		{Name: "connectors", Look: i.connectors, Within: 2 * Patience},
	}
}

// configuration looks whether the server goes on with another configuration than there is.
func (i Inside) configuration(context.Context) ([]Finding, error) {
	if i.Configuration == nil {
		return nil, nil
	}
	c := i.Configuration()
	var out []Finding
	switch {
	case c.Unasked:
		out = append(out, wrong("if it is intended, run warifu reload (a restart would apply it as well); otherwise "+
			"put back what was there", "the server goes on with an older configuration (for %s): %s",
			roughly(i.Now().Sub(c.Since)), c.Refused))
	case c.Refused != "":
		out = append(out, wrong("correct it (warifu config validate checks it) before the server is restarted, which would "+
			"fail", "the server goes on with an older configuration (for %s): %s", roughly(i.Now().Sub(c.Since)), c.Refused))
	}
	if len(c.Waits) > 0 {
		out = append(out, warning("restart the server when it suits", "these wait for a restart: %s",
			strings.Join(c.Waits, ", ")))
	}
	if len(out) == 0 {
		out = append(out, fine("the configuration that was read last is in use"))
	}
	return out, nil
}

func (i Inside) etcd(ctx context.Context) ([]Finding, error) {
	h, err := i.Store.Health(ctx)
	return Etcd(h, err), nil
}

// How long a read on which a quorum agrees may take: each grant takes one round like it, and a write to the disks.
const (
	slowRound     = 50 * time.Millisecond
	slowestRound  = 500 * time.Millisecond
	fewEndpoints  = 5
	unansweredFix = "see that etcd runs, that most of its members reach each other (etcdctl endpoint health), and " +
		"what its log says"
)

// Etcd judges how etcd is; err is that it does not answer.
func Etcd(h storage.Health, err error) []Finding {
	var out []Finding
	for _, n := range h.Notes {
		f := warning(n.Remedy, "%s", n.Text)
		if n.Wrong {
			f.State = Wrong
		}
		out = append(out, f)
	}
	const disks = "give its members fast disks, and nothing else to do; keep them close to each other and to this " +
		"server"
	switch {
	case errors.Is(err, storage.ErrOldEtcd):
		return append(out, wrong("upgrade etcd, one member after the other; warifu does not start on this one", "%s", err))
	case err != nil:
		return append(out, wrong(unansweredFix, "etcd does not answer: %s", err))
	case h.Round > slowestRound:
		out = append(out, wrong(disks, "etcd takes %s for a read, and everything waits for it",
			h.Round.Round(time.Millisecond)))
	case h.Round > slowRound:
		out = append(out, warning(disks, "etcd takes %s for a read", h.Round.Round(time.Millisecond)))
	}
	var members []string
	for _, m := range h.Members[:min(len(h.Members), fewEndpoints)] {
		if m.Err != nil {
			continue
		}
		text := "etcd " + m.Version
		if m.Endpoint != "" {
			text = m.Endpoint + " is " + text
		} else {
			text = "embedded " + text
		}
		if m.Leads && m.Endpoint != "" {
			text += " and leads"
		}
		text += ", has " + storage.Bytes(m.Size)
		if m.Quota > 0 {
			text += " of " + storage.Bytes(m.Quota)
		}
		members = append(members, text)
	}
	return append(out, fine("%s; a read takes %s",
		strings.Join(append([]string{}, members...), "; "), h.Round.Round(10*time.Microsecond)))
}

// replicas looks whether the processes that work on the database are alike.
func (i Inside) replicas(ctx context.Context) ([]Finding, error) {
	all, err := i.Store.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	self := slices.IndexFunc(all, func(r storage.Replica) bool { return r.Self })
	var out []Finding
	for _, d := range i.Store.ClockDifferences() {
		way, by := "ahead", d.By
		if by < 0 {
			way, by = "behind", -by
		}
		out = append(out, wrong("set the clocks by NTP (timedatectl set-ntp true; chronyc tracking)",
			"the clock of the replica %s is %s %s: until the clocks agree, no key is rotated on schedule",
			d.Replica, by.Round(time.Second), way))
	}
	if self >= 0 {
		own := all[self]
		for n, r := range all {
			if n == self {
				continue
			}
			if r.Refused != "" {
				out = append(out, wrong("warifu doctor there says what to do",
					"the replica %s goes on with an older configuration: %s", r.Name, r.Refused))
			}
			if r.Config != "" && own.Config != "" && r.Config != own.Config {
				out = append(out, warning("give all of them the same configuration, then run warifu reload on each",
					"the replica %s serves with another configuration than %s", r.Name, own.Name))
			}
			if r.Version != "" && r.Version != own.Version {
				out = append(out, warning("upgrade all of them", "the replica %s is warifu %s, and %s is %s",
					r.Name, r.Version, own.Name, own.Version))
			}
			if r.SealsUnder != "" && len(own.Keys) > 0 && !slices.Contains(own.Keys, r.SealsUnder) {
				out = append(out, wrong("give all of them the same encryptionKeyFiles",
					"the replica %s seals under the encryption key %s, which %s does not have",
					r.Name, r.SealsUnder, own.Name))
			}
		}
	}
	if len(out) == 0 {
		out = append(out, fine("replicas: %d, with one configuration and version; clocks agree", len(all)))
	}
	return out, nil
}

// soonMade is when the successor of a new key is there at the latest.
const soonMade = 10 * time.Minute

// late is how long after its time something that happens on schedule has to be asked about.
const late = time.Hour

// keys looks whether each use has a key that signs or seals, and one that follows.
func (i Inside) keys(ctx context.Context) ([]Finding, error) {
	views, err := i.Store.KeyViews(ctx, i.Schedules...)
	if err != nil {
		return nil, err
	}
	var out []Finding
	var well []string
	now := i.Now()
	for _, s := range i.Schedules {
		var active, next *storage.KeyView
		some := false
		for n, v := range views {
			if v.Use != s.Use {
				continue
			}
			some = some || v.State != storage.KeyCompromised
			switch v.State {
			case storage.KeyActive:
				active = &views[n]
			case storage.KeyNext:
				next = &views[n]
			}
		}
		switch {
		case !some && (s.OnDemand || s.Use == storage.UsePairwise): // there is none yet
		case active == nil:
			out = append(out, wrong(
				"see what the server's log says of keys, and that storage has room; warifu keys rotate "+s.Use+
					" --compromised makes one", "no %s key is in use: nothing can be signed or sealed with it", s.Use))
		case s.Period > 0 && next == nil && now.Sub(active.Since) > soonMade:
			out = append(out, warning("see what the server's log says of keys, and that storage has room",
				"the %s key %s has no successor that apps could learn of before its turn", s.Use, active.Name))
		case s.Period > 0 && now.After(active.Until.Add(late)):
			out = append(out, warning("see that the clocks of all replicas agree and that storage has room; warifu "+
				"keys rotate "+s.Use+" does it now",
				"the %s key %s was to be replaced %s", s.Use, active.Name, ago(now, active.Until)))
		case s.Period > 0:
			well = append(well, fmt.Sprintf("%s (for %s, replaced %s)",
				s.Use, roughly(now.Sub(active.Since)), in(now, active.Until)))
		}
	}
	if len(well) > 0 {
		out = append(out, fine("in use: %s", strings.Join(well, "; ")))
	}
	return out, nil
}

func (i Inside) plugins(ctx context.Context) ([]Finding, error) {
	if i.Plugins == nil {
		return nil, nil
	}
	var out []Finding
	var well []string
	for _, p := range i.Plugins(ctx) {
		if p.Err != nil {
			out = append(out, wrong("see what it says in the server's log; warifu plugin verify tests it",
				"the %s %s does not run: %s", p.Kind, p.Name, p.Err))
			continue
		}
		well = append(well, p.Name+" "+p.Version)
	}
	if len(well) > 0 {
		out = append(out, fine("plugins that run: %s", strings.Join(well, ", ")))
	}
	return out, nil
}

// A delivery that has not come through after lagging is one of which to be told. mostNamed are named, in all lists.
const (
	lagging   = 5 * time.Minute
	mostNamed = 10
)

// deliveries looks whether targets have the env that they are to have.
func (i Inside) deliveries(ctx context.Context) ([]Finding, error) {
	var out []Finding
	all, bad := 0, 0
	for part := (storage.Part{Limit: 500}); ; {
		some, next, err := i.Store.DeliveriesPart(ctx, "", part)
		if err != nil {
			return nil, err
		}
		for _, d := range some {
			all++
			if f := i.delivery(d); f != nil {
				if bad++; bad <= mostNamed {
					out = append(out, *f)
				}
			}
		}
		if part.After = next; next == "" {
			break
		}
	}
	if bad > mostNamed {
		out = append(out, warning("warifu get deliveries lists all", "%d more deliveries lag behind", bad-mostNamed))
	}
	if bad == 0 {
		out = append(out, fine("deliveries: %d, and none lags behind", all))
	}
	return out, nil
}

// delivery says what is wrong with one; nil: nothing.
func (i Inside) delivery(d *storage.Delivery) *Finding {
	of := d.Target.Kind + "/" + d.Target.Name + " of " + d.App
	remedy := d.Remedy
	if remedy == "" {
		remedy = "warifu describe app " + d.App + " says more, and warifu retry app " + d.App + " tries again"
	}
	since := d.Since
	if since.IsZero() {
		since = d.UpdatedAt
	}
	var f Finding
	switch {
	case d.State == storage.DeliveryFailed || d.State == storage.DeliveryDegraded:
		f = wrong(remedy, "%s does not have its env (%s): %s", of, d.State, d.Error)
	case d.State != storage.DeliveryReady && i.Now().Sub(since) > lagging:
		f = warning(remedy, "the env of %s has been under way for %s (%s, generation %d of %d)",
			of, roughly(i.Now().Sub(since)), d.State,
			d.Serving, d.Generation)
	default:
		return nil
	}
	return &f
}

// unwatched is how long a rotation may wait before somebody has to see to it.
const unwatched = 24 * time.Hour

// secrets looks for secrets that are about to end and still in use, and for rotations that do not come to their end.
func (i Inside) secrets(ctx context.Context) ([]Finding, error) {
	clients, err := i.Store.Clients(ctx)
	if err != nil {
		return nil, err
	}
	var out []Finding
	now, rotating := i.Now(), 0
	for _, c := range clients {
		if len(c.Secrets) < 2 {
			continue
		}
		rotating++
		view, err := i.Store.Secrets(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		r := view.Rotation
		if !r.UnderWay() || len(out) == mostNamed {
			continue
		}
		last := view.Uses[r.Previous].Last
		begun := r.UsedAt // of the successor, everywhere: programs are restarted one after the other
		if r.ServedAt.After(begun) {
			begun = r.ServedAt
		}
		switch {
		case r.RetiresAt.IsZero() && now.Sub(r.StartedAt) > unwatched:
			out = append(out, warning("warifu get secrets "+c.App+" says what it waits for",
				"the secret of %s has been changing for %s, and both are valid", c.App, roughly(now.Sub(r.StartedAt))))
		case !r.RetiresAt.IsZero() && last.After(begun.Add(2*storage.UsePrecision)):
			out = append(out, warning("find the program that has the old one (warifu credentials "+c.App+" prints "+
				"the new one), and restart it",
				"a secret of %s ends %s, and was used %s, when its successor was in use already",
				c.App, in(now, r.RetiresAt), ago(now, last)))
		}
	}
	if len(out) == 0 {
		out = append(out, fine("rotations of secrets: %d, and none is stuck", rotating))
	}
	return out, nil
}

// redirects looks for apps whose users are sent to their own machine, as it is while an app is developed.
func (i Inside) redirects(ctx context.Context) ([]Finding, error) {
	clients, err := i.Store.Clients(ctx)
	if err != nil || i.AllowLoopback {
		return nil, err
	}
	var apps []string
	for _, c := range clients {
		if c.App == "" || c.IsNative() {
			continue
		}
		if slices.ContainsFunc(c.Returns(), oauth.IsLoopbackRedirect) {
			apps = append(apps, c.App)
		}
	}
	slices.Sort(apps)
	switch {
	case len(apps) == 0:
		return []Finding{fine("no app sends its users to their own machine")}, nil
	case len(apps) > mostNamed:
		apps = append(apps[:mostNamed], fmt.Sprintf("%d more", len(apps)-mostNamed))
	}
	return []Finding{warning(
		"take them out of their manifests (spec.oauth.redirectUris, spec.oauth.forwardAuth.hosts), or allow them with "+
			"manifests.localhostRedirects",
		"sign-ins lead to the user's own machine, where any program may listen: %s",
		strings.Join(apps, ", "))}, nil
}

// forwardAuth looks whether proxies may ask about the apps that are behind one.
func (i Inside) forwardAuth(context.Context) ([]Finding, error) {
	apps := i.Store.BehindForwardAuth()
	switch {
	case len(apps) == 0:
		return nil, nil
	case !i.NoProxies:
		return []Finding{fine("apps behind forward auth: %d, about which web.trustedProxies may ask", len(apps))}, nil
	case len(apps) > mostNamed:
		apps = append(apps[:mostNamed], fmt.Sprintf("%d more", len(apps)-mostNamed))
	}
	return []Finding{wrong(
		"list the proxy in front of them in web.trustedProxies, as in web: {trustedProxies: [127.0.0.1]} for one on "+
			"the same machine, then run warifu reload",
		"no proxy is allowed to ask about apps behind forward auth, so every request to them is refused: %s",
		strings.Join(apps, ", "))}, nil
}

// connectors looks whether identity providers and directories can be reached from the server.
func (i Inside) connectors(ctx context.Context) ([]Finding, error) {
	if len(i.Upstreams) == 0 {
		return nil, nil
	}
	checks := make([]Check, len(i.Upstreams))
	for n, u := range i.Upstreams {
		checks[n] = Check{Name: u.ID, Look: func(ctx context.Context) ([]Finding, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Address)
			if err == nil {
				_ = conn.Close()
				return []Finding{fine("%s", u.ID)}, nil
			}
			return []Finding{warning("see that it runs, and that the server may reach it (DNS, firewall)",
				"the connector %s does not reach %s: %s", u.ID, u.Address, reason(err))}, nil
		}}
	}
	var out []Finding
	var well []string
	for _, f := range Run(ctx, checks...) {
		if f.State == Fine {
			well = append(well, f.Seen)
		} else {
			f.Check = ""
			out = append(out, f)
		}
	}
	if len(well) > 0 {
		out = append(out, fine("connectors whose upstream can be reached: %s", strings.Join(well, ", ")))
	}
	return out, nil
}
