package storage

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

// Embedded is an etcd of one member inside this process. It opens no socket.
type Embedded struct {
	// Client is connected in-process.
	Client *clientv3.Client

	etcd *embed.Etcd
	lock *os.File
}

// OpenEmbedded starts etcd on dir, which it creates with mode 0700, and returns when it serves. A directory serves one
// process at a time; a second one is refused.
func OpenEmbedded(ctx context.Context, dir string, log *slog.Logger) (*Embedded, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open embedded etcd: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open embedded etcd: %w", err)
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.Name = "embedded"
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.ListenMetricsUrls = nil, nil, nil
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "10m"
	cfg.SnapshotCount = 10_000
	// One member waits for nobody: a short election makes a start fast.
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: log, level: zap.WarnLevel}))
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open embedded etcd in %s: %w", dir, err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = errors.New("stopped while it started")
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		etcd.Close()
		_ = lock.Close()
		return nil, fmt.Errorf("open embedded etcd in %s: %w", dir, err)
	}
	return &Embedded{Client: v3client.New(etcd.Server), etcd: etcd, lock: lock}, nil
}

// Proposals counts the entries that raft has committed since the data directory was made.
func (e *Embedded) Proposals() uint64 { return e.etcd.Server.CommittedIndex() }

// Close stops etcd and frees the directory.
func (e *Embedded) Close() {
	_ = e.Client.Close()
	e.etcd.Close()
	_ = e.lock.Close()
}

// lockDir takes the directory for this process; the lock goes with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("another process uses the data directory %s: stop it, or choose another directory", dir)
	}
	return file, nil
}

// Remote says how to reach an etcd cluster.
type Remote struct {
	Endpoints          []string
	Username, Password string
	TLS                *tls.Config // nil: no TLS
}

// Dial connects to an etcd cluster. It fails when no member answers within ctx.
func Dial(ctx context.Context, remote Remote, log *slog.Logger) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            remote.Endpoints,
		Username:             remote.Username,
		Password:             remote.Password,
		TLS:                  remote.TLS,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		PermitWithoutStream:  true,
		Logger:               zap.New(&slogCore{log: log, level: zap.WarnLevel}),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd %v: %w", remote.Endpoints, err)
	}
	if _, err := client.Get(ctx, "ping", clientv3.WithCountOnly()); err != nil {
		_ = client.Close()
		return nil, fmt.Errorf("connect to etcd %v: %w", remote.Endpoints, err)
	}
	return client, nil
}
