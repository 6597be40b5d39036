package manifests

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/storage"
)

// Hook is a deploy hook: it decides what a manifest means. [*plugins.Hook] is one.
type Hook interface {
	// Name is what the configuration calls it.
	Name() string
	// Evaluate has no side effects and gives the same answer to the same request.
	Evaluate(ctx context.Context, req plugins.EvaluateRequest) (plugins.Answer, error)
}

// Runtime carries env to where an app runs. [*plugins.Runtime] is one. Every call ends within a deadline of the
// runtime's own; its errors are those of package plugins.
type Runtime interface {
	// Name is what the configuration calls it; records of deliveries hold it.
	Name() string
	// Describe says which kinds of targets it serves; none means all.
	Describe(ctx context.Context) (plugins.Description, error)
	// PushEnv is level-triggered, see service Runtime of pluginpb for the rules.
	PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error)
	// ObserveEnv changes nothing.
	ObserveEnv(ctx context.Context, app string, target plugins.Target) (plugins.Status, error)
	// RemoveEnv of what is not there succeeds.
	RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error
	// ListTargets are those that hold env of ours; an empty app means all apps.
	ListTargets(ctx context.Context, app string) ([]plugins.AppTarget, error)
}

// DeployerOptions are what a [Deployer] is built from.
type DeployerOptions struct {
	Store *storage.Store
	// Hooks are asked in this order; each sees the answer of the one before.
	Hooks []Hook
	// Runtimes: the first that serves a kind of target gets all targets of that kind that are not assigned.
	Runtimes []Runtime
	// Assignments give targets to runtimes by name; the first that fits a target counts. They are the same on all
	// replicas.
	Assignments []Assignment
	// PruneAfter is how long a manifest that a server follows must have been gone before its app ends; 0 means that it
	// never does.
	PruneAfter time.Duration
	// LeaveDrift only shows env that was lost or changed at its target, and delivers it again when an operator asks for
	// it.
	LeaveDrift bool
	// Issuer is what OAUTH_ISSUER says.
	Issuer string
	// Dev leaves out what matters in production only, such as the warning about loopback redirect URIs.
	Dev bool
	// Parsing is what documents, and what hooks register, are checked against.
	Parsing Options
	// ResourceServers are the resource identifiers of the configuration's resource servers, which no app may claim.
	ResourceServers []string
	// ReservedIDs are names with which those resource servers authenticate: no client id.
	ReservedIDs []string
	// Trusted are the apps of which the configuration says that their users need not be asked for consent.
	Trusted []string
	// CheckSector returns what is wrong if a client with these redirect URIs names a sector identifier (OpenID Connect
	// Core 1.0 section 8.1). Nil accepts all.
	CheckSector func(ctx context.Context, uri string, redirectURIs []string) error
	// Applied hears that an app was applied; nil: nobody does.
	Applied func(ctx context.Context)
	// Replica names this process among those that share the store. A process that takes over its predecessor's data
	// directory should take over its name as well: it then owns the deliveries that its predecessor was pushing, and need
	// not wait until the claims on them end. Empty: a random name.
	Replica string
	// Metrics count deliveries and rotations; nil counts nothing.
	Metrics *metrics.Metrics
	// Traces are of deliveries; nil: there are none.
	Traces *traces.Tracer
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// SecretMaxAge is the age at which a client secret is rotated automatically; 0 means never.
	SecretMaxAge time.Duration
	// Pace of deliveries; zero fields are defaults.
	Pace Pace
}

// Pace says how fast and for how long deliveries are tried.
type Pace struct {
	// RetryMin and RetryMax bound the wait before a failed delivery is tried again. It doubles from one to the other, with
	// jitter. 1 s and 5 min.
	RetryMin, RetryMax time.Duration
	// GiveUp is how long a delivery may fail, or roll, before it is degraded. 20 min.
	GiveUp time.Duration
	// Reconcile is how often a target that is ready is observed for drift. 10 min.
	Reconcile time.Duration
	// RollMin and RollMax bound the wait between two looks at a rollout. 250 ms and 5 s.
	RollMin, RollMax time.Duration
	// Claim is how long a replica owns a delivery that it works on, unless it renews that, which it does as long as it
	// works: so another one takes over soon after it has died. An attempt is cut off before its claim ends. 15 s.
	Claim time.Duration
	// Workers is how many calls are made to one runtime at once. 8.
	Workers int
	// Look is how long applying one manifest that is followed may take, before the others get their turn. 15 s.
	Look time.Duration
}

func (p Pace) withDefaults() Pace {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&p.RetryMin, time.Second)
	set(&p.RetryMax, 5*time.Minute)
	set(&p.GiveUp, 20*time.Minute)
	set(&p.Reconcile, 10*time.Minute)
	set(&p.RollMin, 250*time.Millisecond)
	set(&p.RollMax, 5*time.Second)
	set(&p.Claim, 15*time.Second)
	set(&p.Look, 15*time.Second)
	if p.Workers <= 0 {
		p.Workers = 8
	}
	return p
}

// Deployer plans and applies manifests ([Deployer.Plan], [Deployer.Apply], [Deployer.Delete]) and delivers env to
// runtimes ([Deployer.Run]). It holds no state of its own but what can be learnt again: everything is in the store.
// It is safe for concurrent use, and several may share a store.
type Deployer struct {
	store    *storage.Store
	settings atomic.Pointer[settings]
	issuer   string
	replica  string
	metrics  *metrics.Metrics
	traces   *traces.Tracer
	log      *slog.Logger
	now      func() time.Time
	pace     Pace

	unfinished *unfinished // deletions
	// renewed and aging say that there are other settings, to [Deployer.Run] and to what rotates old secrets.
	renewed, aging chan struct{}
}

// settings are what [Deployer.Use] replaces.
type settings struct {
	dev         bool
	hooks       []Hook
	runtimes    []Runtime
	assignments []Assignment
	leaveDrift  bool
	pruneAfter  time.Duration // 0: never
	parsing     Options
	resources   []string // identifiers that no app may speak for
	reserved    []string // client ids that no app may have
	trusted     []string // apps
	sector      func(ctx context.Context, uri string, redirectURIs []string) error
	applied     func(ctx context.Context)
	maxAge      time.Duration // of client secrets
}

func settingsOf(opts DeployerOptions) *settings {
	return &settings{
		dev: opts.Dev, hooks: opts.Hooks, runtimes: opts.Runtimes, assignments: opts.Assignments, leaveDrift: opts.LeaveDrift,
		pruneAfter: opts.PruneAfter, parsing: opts.Parsing, resources: opts.ResourceServers, reserved: opts.ReservedIDs,
		trusted: opts.Trusted, sector: opts.CheckSector, applied: opts.Applied, maxAge: opts.SecretMaxAge,
	}
}

// set is how it works at this moment.
func (d *Deployer) set() *settings { return d.settings.Load() }

// New makes a Deployer.
func New(opts DeployerOptions) *Deployer {
	d := &Deployer{
		store: opts.Store, issuer: opts.Issuer,
		replica: opts.Replica, metrics: opts.Metrics, traces: opts.Traces, log: opts.Logger, now: opts.Now,
		pace:       opts.Pace.withDefaults(),
		unfinished: newUnfinished(), renewed: make(chan struct{}, 1), aging: make(chan struct{}, 1),
	}
	d.settings.Store(settingsOf(opts))
	if d.replica == "" {
		d.replica = rand.Text()
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	return d
}

// Use replaces how it works: all but store, issuer, replica, log, clock and pace. What is under way with a hook or a
// runtime ends there. With anew, because there are other runtimes, or the same ones with other settings, deliveries
// that wait go to those that there are now, and those that failed or are due later are tried at once, as after a start.
func (d *Deployer) Use(opts DeployerOptions, anew bool) {
	d.settings.Store(settingsOf(opts))
	if anew {
		wake(d.renewed)
	}
	wake(d.aging)
}

func wake(sleeper chan struct{}) {
	select {
	case sleeper <- struct{}{}:
	default:
	}
}

// ErrDeleting means that the app is being deleted, and cannot be planned or applied until that is done.
var ErrDeleting = errors.New("is being deleted")

// deleting is ErrDeleting with the app's name and what to wait for.
func deleting(app string) error {
	return fmt.Errorf("app %s %w: it can be applied again once its env is taken away everywhere (see its deliveries)", app,
		ErrDeleting)
}

// credentials are what the server fills into env.
type credentials struct {
	clientID, clientSecret, issuer string
}

// resolve turns a hook's wish into values. They are secret.
func (c credentials) resolve(wish map[string]plugins.EnvValue) map[string]string {
	env := make(map[string]string, len(wish))
	for name, value := range wish {
		switch value.Source {
		case plugins.SourceClientID:
			env[name] = c.clientID
		case plugins.SourceClientSecret:
			env[name] = c.clientSecret
		case plugins.SourceIssuer:
			env[name] = c.issuer
		default:
			env[name] = value.Literal
		}
	}
	return env
}

// credentials of a client as it is registered; a nil client gives the issuer alone.
func (d *Deployer) credentials(c *storage.Client) (credentials, error) {
	creds := credentials{issuer: d.issuer}
	if c == nil {
		return creds, nil
	}
	creds.clientID = c.ID
	if len(c.Secrets) == 0 {
		return creds, nil
	}
	var err error
	creds.clientSecret, err = d.store.ClientSecretValue(c)
	return creds, err
}

func targetOf(t plugins.Target) storage.Target { return storage.Target{Kind: t.Kind, Name: t.Name} }

func pluginTarget(t storage.Target) plugins.Target { return plugins.Target{Kind: t.Kind, Name: t.Name} }

// words of a target, for people: "worker web".
func words(t storage.Target) string { return t.Kind + " " + t.Name }
