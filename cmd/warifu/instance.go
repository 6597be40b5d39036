package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/storage"
)

// instance is a server, built and not yet running.
type instance struct {
	cfg   *config.Settings
	log   *slog.Logger
	store *storage.Store
	// embedded is the etcd of the store, if it is in this process.
	embedded *storage.Embedded
	// first is the server of the configuration of the start, on which those of later ones are built, see public.
	first    *server.Server
	provider server.Config // in force
	// mail is the last sender that there was, nil if there was none; senders are those that run is to run.
	mail    *mail.Sender
	senders chan *mail.Sender
	apps    *apps
	host    *plugins.Host
	dev     bool
	// relog puts another configuration of the log in force; it may be nil.
	relog func(config.Logger)
	// web bounds the connections of browsers and apps.
	web                *connections
	webCert, adminCert *certificate // nil where there is no TLS
	adminToken         atomic.Pointer[string]
	// refollow says that manifests are to be applied anew, or from other directories.
	refollow chan struct{}
	// announced has what compares replicas look at once.
	announced chan struct{}
	// reloader reads the configuration again, see [reloading]; nil where that cannot be.
	reloader atomic.Pointer[reloading]
	// last is what has become of the configuration that was read last; nil if none was since the start.
	last atomic.Pointer[readLast]
	// inUse is the configuration in force, which may have been read after the start. Keys that wait for a restart are as
	// cfg has them.
	inUse atomic.Pointer[config.Settings]
	// syncing is for who changes the records of users; peopleLeft: storage could not take some of that yet, and leftover
	// says so to laterPeople.
	syncing    sync.Mutex
	peopleLeft atomic.Bool
	leftover   chan struct{}
	metrics    *metrics.Metrics
	traces     *traces.Tracer
	// refusals is what warifu explain explains.
	refusals *admin.Refusals

	endpoints []endpoint
	leaving   chan struct{} // closed when it begins to end
	closers   []func()      // in the order of building; closed the other way round
}

// public is the server of the configuration in force.
func (i *instance) public() *server.Server { return i.first.InForce() }

// building is what the command that builds an instance adds to the configuration.
type building struct {
	dev bool
	// web are listeners that are open already, in place of web.http.
	web []net.Listener
	log *slog.Logger
	// relog puts another configuration of the log in force; it may be nil.
	relog func(config.Logger)
	// refused is told of refusals as well; it may be nil.
	refused func(oauth.Refusal)
	// patience of the admin API; 0: the default.
	patience time.Duration
}

// build makes an instance. What fails quickly comes first: listeners, then storage, then plugins. On an error nothing
// is left behind.
func build(ctx context.Context, cfg *config.Settings, with building) (_ *instance, err error) {
	i := &instance{cfg: cfg, log: with.log, refusals: admin.NewRefusals(admin.DefaultRefusals),
		leftover: make(chan struct{}, 1), leaving: make(chan struct{}), senders: make(chan *mail.Sender, 1),
		refollow: make(chan struct{}, 1), announced: make(chan struct{}, 1), dev: with.dev, relog: with.relog,
		metrics: newMetrics(cfg)}
	i.inUse.Store(cfg)
	slog.SetDefault(with.log) // libraries that take no logger use this one
	log.SetOutput(unquoted{with.log})
	defer func() {
		if err != nil {
			i.close()
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of storage.config.dataDir: %w", err)
	}
	provider := cfg.Provider
	provider.Logger, provider.Refused = i.log, i.refusals.Add
	if i.traces, err = newTracer(cfg, i.log, i.metrics); err != nil {
		return nil, err
	}
	i.onClose(i.traces.Close)
	provider.AccessLog, provider.Metrics, provider.Traces = accessLog(cfg.Logger, i.log), i.metrics, i.traces
	if with.refused != nil {
		provider.Refused = func(r oauth.Refusal) {
			i.refusals.Add(r)
			with.refused(r)
		}
	}
	for _, w := range cfg.Warnings {
		i.log.WarnContext(ctx, "configuration", "fault", w.String())
	}
	if err := i.openWeb(ctx, with.web); err != nil {
		return nil, err
	}
	if err := i.openStorage(ctx); err != nil {
		return nil, err
	}
	provider.Store = i.store
	if provider.Connectors, err = i.connectors(cfg, nil); err != nil {
		return nil, err
	}
	if err := i.people(ctx); err != nil {
		return nil, err
	}
	if provider.Mail, err = i.sender(cfg); err != nil {
		return nil, err
	}
	if i.mail = provider.Mail; i.mail != nil {
		i.senders <- i.mail
	}
	if i.first, err = server.New(ctx, provider); err != nil {
		return nil, fmt.Errorf("start the provider: %w", err)
	}
	i.provider = provider
	if err := i.buildApps(); err != nil {
		return nil, err
	}
	for n := range i.endpoints {
		i.endpoints[n].handler = i.first.Live()
		if !with.dev {
			i.endpoints[n].grace = underWay
		}
	}
	if err := i.openTelemetry(ctx); err != nil {
		return nil, err
	}
	if err := i.announce(ctx); err != nil {
		return nil, err
	}
	return i, i.openAdmin(ctx, with.patience)
}

// run serves until ctx ends, and a while longer if that was by SIGTERM: until proxies have noticed that this server is
// leaving. Ready is called once everything that serves has begun; when it fails, so does run.
func (i *instance) run(ctx context.Context, ready func(context.Context) error) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, serving := errgroup.WithContext(serving)
	group.Go(func() error {
		select {
		case <-serving.Done():
			return nil
		case <-ctx.Done():
		}
		i.first.Leave()
		close(i.leaving)
		drain := time.Duration(i.inUse.Load().Web.DrainDelay)
		if errors.Is(context.Cause(ctx), errTerminated) && drain > 0 && !i.dev {
			i.log.InfoContext(serving, "shutting down; still serving until proxies have noticed", "drain", drain)
			storage.Pause(serving, drain)
		}
		stop()
		return nil
	})
	for _, e := range i.endpoints {
		group.Go(func() error { return e.serve(serving, i.log) })
	}
	group.Go(func() error { return i.first.Run(serving) })
	group.Go(func() error {
		i.sendMail(serving)
		return nil
	})
	group.Go(func() error {
		i.compareReplicas(serving)
		return nil
	})
	group.Go(func() error { return i.apps.deployer.Run(serving) })
	group.Go(func() error {
		i.laterPeople(serving)
		return nil
	})
	if i.embedded != nil {
		group.Go(func() error {
			select {
			case <-serving.Done():
				return nil
			case <-i.embedded.Failed():
				return i.embedded.Err()
			}
		})
	}
	group.Go(func() error { return ready(serving) })
	group.Go(func() error {
		debug.FreeOSMemory() // what the start has left over
		select {
		case <-serving.Done():
		case <-time.After(startTail):
			debug.FreeOSMemory() // and what the first work has
		}
		return nil
	})
	return group.Wait()
}

// close frees everything, newest first.
func (i *instance) close() {
	for _, free := range slices.Backward(i.closers) {
		free()
	}
}

func (i *instance) onClose(free func()) { i.closers = append(i.closers, free) }

// listen opens a TCP listener that close frees if it is never served.
func (i *instance) listen(ctx context.Context, what, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w%s", what, err, listenRemedy(what, err))
	}
	i.onClose(func() { _ = listener.Close() }) // a server that has served closed it before
	return listener, nil
}

// listenRemedy is what to do when the address at a key cannot be listened on.
func listenRemedy(key string, err error) string {
	var unknown *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ": stop the program that has this port (ss -ltnp), or choose another one in " + key
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": no network of this machine has that address: choose one that ip address shows, or 0.0.0.0 for all, in " +
			key
	case errors.Is(err, syscall.EACCES):
		return ": this user may not open that port: choose one from 1024 in " + key +
			", or give the program CAP_NET_BIND_SERVICE"
	case errors.As(err, &unknown):
		return ": that host name is not known here: write an address of this machine in " + key
	}
	return ""
}

// underWay is how long the requests of browsers and apps may go on when the server ends. None takes longer.
const underWay = 15 * time.Second

// webPatience is how long a reply to a browser or app may take.
const webPatience = 30 * time.Second

func (i *instance) openWeb(ctx context.Context, opened []net.Listener) error {
	web := i.cfg.Web
	i.web = newConnections("web", webConnections(web.MaxConnections), i.cfg.Provider.TrustedProxies, i.log)
	i.warnOfConnections(ctx, web)
	if opened == nil && web.HTTP != "" {
		listener, err := i.listen(ctx, "web.http", web.HTTP)
		if err != nil {
			return err
		}
		opened = []net.Listener{listener}
	}
	for _, listener := range opened {
		i.endpoints = append(i.endpoints, endpoint{name: "web.http", listener: listener, patience: webPatience,
			connections: i.web})
	}
	if web.HTTPS == "" {
		return nil
	}
	cert, err := loadCertificate(web.TLSCert, web.TLSKey, i.log)
	if err != nil {
		return fmt.Errorf("web.tlsCert: %w", err)
	}
	listener, err := i.listen(ctx, "web.https", web.HTTPS)
	if err != nil {
		return err
	}
	i.endpoints = append(i.endpoints,
		endpoint{name: "web.https", listener: listener, tls: cert.config(), patience: webPatience, connections: i.web})
	i.webCert = cert
	i.metrics.Source("web certificate", cert.toldOf("web.https"))
	return nil
}

func (i *instance) warnOfConnections(ctx context.Context, web config.Web) {
	if most := webConnections(web.MaxConnections); web.MaxConnections > most {
		i.log.WarnContext(ctx,
			"web.maxConnections is more than the open-file limit allows: raise that limit (ulimit -n)",
			"configured", web.MaxConnections, "most", most)
	}
}

// openAdmin opens the admin API on its socket, and over TCP where that is configured.
func (i *instance) openAdmin(ctx context.Context, patience time.Duration) error {
	cfg := i.cfg.Admin
	i.adminToken.Store(&i.cfg.AdminToken)
	handler := func(token func() string) http.Handler {
		return admin.New(admin.Config{
			Store: i.store, Apps: i.apps, People: people{i}, Links: people{i}, Rotations: i.apps, Issuer: i.cfg.Issuer,
			Version: programVersion(), Token: token, Logger: i.log,
			Refusals: i.refusals, Patience: patience, Leaving: i.leaving, SessionsEnded: i.first.SessionsEnded,
			Trusted: func() []string { return i.inUse.Load().Trusted }, Reload: i.reload,
			Doctor: i.inside, Probe: i.first.Probe,
			Connectors:   func() []string { return i.public().Connectors() },
			AccountOf:    i.first.AccountOf,
			KeySchedules: func() []storage.KeySchedule { return i.public().KeySchedules() },
			Metrics:      i.metrics.Handler(), Traces: i.traces,
			Schemas: map[string][]byte{"app": manifests.Schema(), "config": config.Schema()},
		})
	}
	const longest = 3 * time.Minute // a request may wait for env to be delivered
	listener, err := listenSocket(ctx, i.cfg.Socket)
	if err != nil {
		return err
	}
	i.onClose(func() { _ = listener.Close() })
	i.endpoints = append(i.endpoints,
		endpoint{name: "admin.socket", listener: listener, handler: handler(nil), patience: longest,
			connections: newConnections("admin socket", mostAdmin, nil, i.log)})
	if cfg.Listen == "" {
		return nil
	}
	tcp := endpoint{name: "admin.listen", handler: handler(func() string { return *i.adminToken.Load() }),
		patience:    longest,
		connections: newConnections("admin", mostAdmin, nil, i.log)}
	if cfg.TLSCert != "" {
		cert, err := loadCertificate(cfg.TLSCert, cfg.TLSKey, i.log)
		if err != nil {
			return fmt.Errorf("admin.tlsCert: %w", err)
		}
		tcp.tls, i.adminCert = cert.config(), cert
		i.metrics.Source("admin certificate", cert.toldOf("admin.listen"))
	}
	if tcp.listener, err = i.listen(ctx, "admin.listen", cfg.Listen); err != nil {
		return err
	}
	i.endpoints = append(i.endpoints, tcp)
	return nil
}

// storageTime is how long a start waits for storage. After that the process exits, and its supervisor can start it
// again.
const storageTime = 15 * time.Second

// embeddedTime is how long an embedded database may take until it serves: it reads its log and all keys, and gives back
// what is unused in its file.
const embeddedTime = 5 * time.Minute

// openEtcd opens the etcd in which the records are. An embedded one is opened as an [storage.Embedding] with the key
// file and whether a restore that was not finished gives way.
func (i *instance) openEtcd(ctx context.Context, keyFile string, replace bool) (*clientv3.Client, error) {
	if i.cfg.Storage.Type == config.StorageEtcd {
		ctx, cancel := context.WithTimeout(ctx, storageTime)
		defer cancel()
		etcd, err := storage.Dial(ctx, i.cfg.Etcd, i.log)
		if err != nil {
			return nil, fmt.Errorf("storage.config.endpoints: %w", err)
		}
		i.onClose(func() { _ = etcd.Close() })
		return etcd, nil
	}
	ctx, cancel := context.WithTimeout(ctx, embeddedTime)
	defer cancel()
	embedded, err := storage.Embedding{Dir: i.cfg.Dir, Quota: int64(i.cfg.Storage.Config.Quota), KeyFile: keyFile,
		Replace: replace}.Open(ctx, i.log)
	if err != nil {
		return nil, err
	}
	i.onClose(embedded.Close)
	i.embedded = embedded
	return embedded.Client, nil
}

// startTail is how long a server that serves already does things for the first time.
const startTail = 5 * time.Second

// startGCPercent is GOGC while storage is opened: an embedded etcd reads all of its keys into memory, of which hardly
// anything is garbage, so to look for it seldom makes the start faster by a third. See [instance.run] for what is left.
const startGCPercent = 400

func (i *instance) openStorage(ctx context.Context) error {
	usual := debug.SetGCPercent(startGCPercent)
	defer debug.SetGCPercent(usual)
	kek := i.cfg.KEK
	if i.cfg.KEKFile != "" {
		mended, err := config.MakePrivate(i.cfg.KEKFile)
		if err != nil {
			return err
		}
		if mended {
			i.log.WarnContext(ctx, "every user of this machine could get at the encryption key; its mode is 0600 now",
				"file", i.cfg.KEKFile)
		}
	}
	etcd, err := i.openEtcd(ctx, i.cfg.KEKFile, false)
	if err != nil {
		return err
	}
	limit := storageTime
	if i.embedded != nil {
		limit = embeddedTime // one that is full makes room first
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if kek == nil {
		if kek, err = storage.ReadKEK(i.cfg.KEKFile); err != nil {
			return err
		}
	}
	i.store, err = storage.New(ctx, etcd, storage.Options{
		Prefix: i.cfg.Storage.Config.Namespace, KEK: kek, OwnKey: i.cfg.KEKFile,
		OneMember: i.embedded != nil, Embedded: i.embedded, Metrics: i.metrics, Logger: i.log})
	if err != nil {
		return err
	}
	i.onClose(i.store.Close)
	return nil
}

// unquoted takes what the standard library logs. It leaves out what that quotes of a connection on which something came
// that nobody asked for: it can name people.
type unquoted struct{ *slog.Logger }

func (u unquoted) Write(line []byte) (int, error) {
	what, _, _ := strings.Cut(strings.TrimSpace(string(line)), " starting with ")
	u.Info(what)
	return len(line), nil
}
