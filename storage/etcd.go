package storage

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// Embedded is an etcd with one member inside this process. It opens no socket.
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
	// Each tick of raft's clock wakes the processor, and one member has nobody to hear from, so the clock is slow. An
	// election that is longer for it costs no time at the start, see campaign.
	cfg.TickMs, cfg.ElectionMs = 200, 1000
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: log, level: zap.WarnLevel}))
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open embedded etcd in %s: %w", dir, err)
	}
	campaigning, elected := context.WithCancel(ctx)
	var candidate sync.WaitGroup
	candidate.Go(func() { campaign(campaigning, etcd.Server) })
	select {
	case <-etcd.Server.ReadyNotify():
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = errors.New("stopped during its start")
	case <-ctx.Done():
		err = ctx.Err()
	}
	elected()
	candidate.Wait()
	if err != nil {
		etcd.Close()
		_ = lock.Close()
		return nil, fmt.Errorf("open embedded etcd in %s: %w", dir, err)
	}
	return &Embedded{Client: v3client.New(etcd.Server), etcd: etcd, lock: lock}, nil
}

// campaign has the only member elect itself at once, instead of when it has waited for a leader for as long as an
// election may take. It tries again until ctx ends, because raft refuses while a change of members is not applied yet;
// after that the election that every member begins by itself is still to come.
func campaign(ctx context.Context, server *etcdserver.EtcdServer) {
	id := uint64(server.MemberID())
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for server.Leader() == 0 {
		if server.AppliedIndex() >= server.CommittedIndex() {
			// What a leader sends to the member that is to follow it.
			_ = server.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &id, From: &id}) // tried again
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Proposals counts the entries that raft has committed since the data directory was made.
func (e *Embedded) Proposals() uint64 { return e.etcd.Server.CommittedIndex() }

// Close stops etcd and frees the directory.
func (e *Embedded) Close() {
	_ = e.Client.Close()
	e.etcd.Close()
	_ = e.lock.Close()
}

// lockDir locks the directory for this process. The lock ends with the process, however that ends.
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

// Dial connects to an etcd cluster. It fails if no member answers within ctx.
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
