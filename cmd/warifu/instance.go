package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// instance is a server, built and not yet running.
type instance struct {
	cfg    *config.Config
	log    *slog.Logger
	dir    string // absolute dataDir
	store  *storage.Store
	public *server.Server
	apps   *apps
	// refusals is what warifu explain explains.
	refusals *admin.Refusals
	// socket is where the admin API listens.
	socket string

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

// build makes an instance. What fails quickly comes first: listeners, then storage, then plugins. On an error nothing is left
// behind.
func build(ctx context.Context, cfg *config.Config, with building) (_ *instance, err error) {
	i := &instance{cfg: cfg, log: with.log, refusals: admin.NewRefusals(admin.DefaultRefusals)}
	slog.SetDefault(with.log) // libraries that take no logger use this one
	defer func() {
		if err != nil {
			i.close()
		}
	}()
	if i.dir, err = filepath.Abs(cfg.Storage.Config.DataDir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	provider := server.Config{
		Issuer: cfg.Issuer, Scopes: cfg.Catalogue(), Lifetimes: cfg.Lifetimes(), AllowedOrigins: cfg.Web.AllowedOrigins, Logger: i.log,
	}
	if err := i.oauth2(&provider); err != nil {
		return nil, err
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
	i.endpoints = append(i.endpoints, endpoint{name: "web.https", listener: listener, tls: cert.config(), patience: webPatience})
	return nil
}

// openAdmin opens the admin API on its socket, and over TCP where that is configured.
func (i *instance) openAdmin(ctx context.Context) error {
	cfg := i.cfg.Admin
	handler := func(token string) http.Handler {
		return admin.New(admin.Config{
			Store: i.store, Apps: i.apps, Rotations: i.apps, Issuer: i.cfg.Issuer, Version: programVersion(), Token: token, Logger: i.log,
			GrantTypes: oauth.UsualGrantTypes(), Refusals: i.refusals,
			Schemas: map[string][]byte{"app": manifests.Schema(), "config": config.Schema()},
		})
	}
	const patience = 3 * time.Minute // a request may wait for env to be delivered
	i.socket = cfg.Socket
	if i.socket == "" {
		i.socket = filepath.Join(i.dir, "admin.sock")
	}
	listener, err := listenSocket(ctx, i.socket)
	if err != nil {
		return err
	}
	i.onClose(func() { _ = listener.Close() })
	i.endpoints = append(i.endpoints, endpoint{name: "admin.socket", listener: listener, handler: handler(""), patience: patience})
	if cfg.Listen == "" {
		return nil
	}
	token, err := readLongSecret("admin.tokenFile", cfg.TokenFile)
	if err != nil {
		return err
	}
	tcp := endpoint{name: "admin.listen", handler: handler(token), patience: patience}
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

func readSecret(key, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// readLongSecret reads a secret that nobody has to remember and that must therefore be too long to guess.
func readLongSecret(key, file string) (string, error) {
	secret, err := readSecret(key, file)
	if err == nil && len(secret) < 32 {
		err = fmt.Errorf("%s: %s must hold at least 32 characters (make a secret with: openssl rand -hex 32)", key, file)
	}
	return secret, err
}

// storageTime is how long a start waits for storage. After that the process exits, and its supervisor can start it again.
const storageTime = 15 * time.Second

func (i *instance) openStorage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	var etcd *clientv3.Client
	keys := i.cfg.EncryptionKeyFiles
	if i.cfg.Storage.Type == config.StorageEtcd {
		remote, err := i.remote()
		if err != nil {
			return err
		}
		if etcd, err = storage.Dial(ctx, remote, i.log); err != nil {
			return err
		}
		i.onClose(func() { _ = etcd.Close() })
	} else {
		fresh := !exists(filepath.Join(i.dir, "etcd"))
		embedded, err := storage.OpenEmbedded(ctx, i.dir, i.log)
		if err != nil {
			return err
		}
		i.onClose(embedded.Close)
		etcd = embedded.Client
		if len(keys) == 0 {
			file := filepath.Join(i.dir, "encryption.key")
			if !exists(file) && !fresh {
				return fmt.Errorf("the encryption key %s is missing, and without it the secrets in %s cannot be read: restore it from a backup, or start with an empty data directory", file, i.dir)
			}
			if err := storage.CreateKEKFile(file); err != nil {
				return err
			}
			keys = []string{file}
		}
	}
	kek, err := storage.ReadKEK(keys...)
	if err != nil {
		return err
	}
	i.store, err = storage.New(ctx, etcd, storage.Options{Prefix: i.cfg.Storage.Config.Namespace, KEK: kek, Logger: i.log})
	if err != nil {
		return err
	}
	i.onClose(i.store.Close)
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// remote says how to reach the etcd cluster.
func (i *instance) remote() (storage.Remote, error) {
	detail := i.cfg.Storage.Config
	r := storage.Remote{Endpoints: detail.Endpoints, Username: detail.Username}
	var err error
	if detail.PasswordFile != "" {
		if r.Password, err = readSecret("storage.config.passwordFile", detail.PasswordFile); err != nil {
			return r, err
		}
	}
	secure := slices.ContainsFunc(detail.Endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") })
	if !secure && detail.SSL == (config.SSL{}) {
		return r, nil
	}
	if r.TLS, err = clientTLS(detail.SSL); err != nil {
		return r, fmt.Errorf("storage.config.ssl: %w", err)
	}
	return r, nil
}

func clientTLS(s config.SSL) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.ServerName}
	if s.CAFile != "" {
		pool, err := certPool(s.CAFile)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = pool
	}
	if s.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
