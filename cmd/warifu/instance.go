package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
)

// instance is a server, built and not yet running.
type instance struct {
	cfg    *config.Settings
	log    *slog.Logger
	store  *storage.Store
	public *server.Server
	apps   *apps
	// refusals is what warifu explain explains.
	refusals *admin.Refusals

	endpoints []endpoint
	closers   []func() // in the order of building; closed the other way round
}

// building is what the command that builds an instance adds to the configuration.
type building struct {
	dev bool
	// web is a listener that is open already, in place of web.http.
	web net.Listener
	log *slog.Logger
}

// build makes an instance. What fails quickly comes first: listeners, then storage, then plugins. On an error nothing
// is left behind.
func build(ctx context.Context, cfg *config.Settings, with building) (_ *instance, err error) {
	i := &instance{cfg: cfg, log: with.log, refusals: admin.NewRefusals(admin.DefaultRefusals)}
	slog.SetDefault(with.log) // libraries that take no logger use this one
	defer func() {
		if err != nil {
			i.close()
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	provider := cfg.Provider
	provider.Logger, provider.Refused = i.log, i.refusals.Add
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
	if provider.Passwords, err = i.people(ctx); err != nil {
		return nil, err
	}
	if i.public, err = server.New(ctx, provider); err != nil {
		return nil, fmt.Errorf("start the provider: %w", err)
	}
	if err := i.buildApps(server.ScopeNames(provider.Scopes), with.dev); err != nil {
		return nil, err
	}
	for n := range i.endpoints {
		i.endpoints[n].handler = i.public
	}
	return i, i.openAdmin(ctx)
}

// run serves until ctx ends. Ready is called once everything that serves has begun; when it fails, so does run.
func (i *instance) run(ctx context.Context, ready func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, e := range i.endpoints {
		group.Go(func() error { return e.serve(ctx, i.log) })
	}
	group.Go(func() error { return i.public.Run(ctx) })
	group.Go(func() error { return i.apps.deployer.Run(ctx) })
	group.Go(func() error { return ready(ctx) })
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
		return nil, fmt.Errorf("listen on %s: %w", what, err)
	}
	i.onClose(func() { _ = listener.Close() }) // a server that has served closed it before
	return listener, nil
}

// webPatience is how long a reply to a browser or app may take.
const webPatience = 30 * time.Second

func (i *instance) openWeb(ctx context.Context, opened net.Listener) error {
	web := i.cfg.Web
	if opened != nil {
		i.endpoints = append(i.endpoints, endpoint{name: "web.http", listener: opened, patience: webPatience})
	} else if web.HTTP != "" {
		listener, err := i.listen(ctx, "web.http", web.HTTP)
		if err != nil {
			return err
		}
		i.endpoints = append(i.endpoints, endpoint{name: "web.http", listener: listener, patience: webPatience})
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
		endpoint{name: "web.https", listener: listener, tls: cert.config(), patience: webPatience})
	return nil
}

// openAdmin opens the admin API on its socket, and over TCP where that is configured.
func (i *instance) openAdmin(ctx context.Context) error {
	cfg := i.cfg.Admin
	handler := func(token string) http.Handler {
		return admin.New(admin.Config{
			Store: i.store, Apps: i.apps, Rotations: i.apps, Issuer: i.cfg.Issuer, Version: programVersion(), Token: token, Logger: i.log,
			Refusals: i.refusals,
			Schemas:  map[string][]byte{"app": manifests.Schema(), "config": config.Schema()},
		})
	}
	const patience = 3 * time.Minute // a request may wait for env to be delivered
	listener, err := listenSocket(ctx, i.cfg.Socket)
	if err != nil {
		return err
	}
	i.onClose(func() { _ = listener.Close() })
	i.endpoints = append(i.endpoints,
		endpoint{name: "admin.socket", listener: listener, handler: handler(""), patience: patience})
	if cfg.Listen == "" {
		return nil
	}
	tcp := endpoint{name: "admin.listen", handler: handler(i.cfg.AdminToken), patience: patience}
	if cfg.TLSCert != "" {
		cert, err := loadCertificate(cfg.TLSCert, cfg.TLSKey, i.log)
		if err != nil {
			return fmt.Errorf("admin.tlsCert: %w", err)
		}
		tcp.tls = cert.config()
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

func (i *instance) openStorage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	var etcd *clientv3.Client
	var err error
	kek := i.cfg.KEK
	if i.cfg.Storage.Type == config.StorageEtcd {
		if etcd, err = storage.Dial(ctx, i.cfg.Etcd, i.log); err != nil {
			return err
		}
		i.onClose(func() { _ = etcd.Close() })
	} else {
		embedded, err := storage.OpenEmbedded(ctx, i.cfg.Dir, i.log)
		if err != nil {
			return err
		}
		i.onClose(embedded.Close)
		etcd = embedded.Client
	}
	if kek == nil {
		if err = storage.CreateKEKFile(i.cfg.KEKFile); err != nil {
			return err
		}
		if kek, err = storage.ReadKEK(i.cfg.KEKFile); err != nil {
			return err
		}
	}
	i.store, err = storage.New(ctx, etcd, storage.Options{
		Prefix: i.cfg.Storage.Config.Namespace, KEK: kek, OneMember: i.cfg.Storage.Type != config.StorageEtcd, Logger: i.log})
	if err != nil {
		return err
	}
	i.onClose(i.store.Close)
	return nil
}
