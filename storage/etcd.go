package storage

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// Embedded is an etcd with one member inside this process. It opens no socket.
type Embedded struct {
	// Client is connected in-process.
	Client *clientv3.Client

	etcd *embed.Etcd
	lock *os.File
	fail *failure
}

// DefaultQuota is the size up to which an embedded database grows unless [Embedding.Quota] says otherwise.
const DefaultQuota int64 = 8 << 30

// Embedding says how etcd is run inside this process.
type Embedding struct {
	Dir   string
	Quota int64 // bytes that the database may have; 0 means [DefaultQuota]
	// KeyFile of the encryption key of a database that has one of its own. Open makes it if it is not there: before the
	// database, so no crash leaves records without their key, and never beside records. Empty: none is made.
	KeyFile string
	// Replace removes what a restore has left that was not finished, which Open refuses otherwise.
	Replace bool
}

// OpenEmbedded opens an [Embedding] with the defaults.
func OpenEmbedded(ctx context.Context, dir string, log *slog.Logger) (*Embedded, error) {
	return Embedding{Dir: dir}.Open(ctx, log)
}

// Open starts etcd on the directory, which it creates with mode 0700, and returns when it serves. A directory serves
// one process at a time; a second one is refused.
func (e Embedding) Open(ctx context.Context, log *slog.Logger) (*Embedded, error) {
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open embedded etcd: %w", err)
	}
	fail := newFailure(e.Dir)
	lock, err := lockDir(e.Dir)
	if errors.Is(err, fs.ErrPermission) {
		err = fail.words("lock", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open embedded etcd: %w", err)
	}
	embedded, err := e.open(ctx, fail, log)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open embedded etcd in %s: %w", e.Dir, err)
	}
	embedded.lock = lock
	return embedded, nil
}

// open is Open, under the lock.
func (e Embedding) open(ctx context.Context, fail *failure, log *slog.Logger) (*Embedded, error) {
	if err := e.settleRestore(); err != nil {
		return nil, err
	}
	_, err := os.Lstat(etcdDir(e.Dir))
	if e.KeyFile != "" && errors.Is(err, fs.ErrNotExist) {
		if err := CreateKEKFile(e.KeyFile); err != nil {
			return nil, err
		}
	}
	etcd, err := e.start(ctx, fail, log)
	if err != nil {
		return nil, err
	}
	embedded := &Embedded{Client: v3client.New(etcd.Server), etcd: etcd, fail: fail}
	if e.KeyFile != "" {
		if err := embedded.keepKey(ctx, e.KeyFile); err != nil {
			embedded.Close()
			return nil, err
		}
	}
	return embedded, nil
}

// keepKey makes the key of a database that was there without one: older versions made the database first, and a process
// that was killed in between has left one without records.
func (e *Embedded) keepKey(ctx context.Context, file string) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	empty, err := e.empty(ctx)
	if err == nil && !empty {
		err = fmt.Errorf("there are records, and their encryption key %s is missing: put a copy of it there", file)
	}
	if err != nil {
		return err
	}
	return CreateKEKFile(file)
}

// empty reports whether there are no records at all.
func (e *Embedded) empty(ctx context.Context) (bool, error) {
	resp, err := e.Client.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		return false, fmt.Errorf("count the records: %w", err)
	}
	return resp.Count == 0, nil
}

// start starts etcd in a goroutine of its own, which stays where it is if etcd gives up.
func (e Embedding) start(ctx context.Context, fail *failure, log *slog.Logger) (*embed.Etcd, error) {
	starting.Lock()
	defer starting.Unlock()
	cfg := embed.NewConfig()
	cfg.Dir = etcdDir(e.Dir)
	cfg.Name = memberName
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.ListenMetricsUrls = nil, nil, nil
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "10m"
	cfg.SnapshotCount = 10_000
	cfg.QuotaBackendBytes = DefaultQuota
	if e.Quota > 0 {
		cfg.QuotaBackendBytes = e.Quota
	}
	// What the last process left unused in the file is given back before anybody waits for an answer.
	cfg.BootstrapDefragThresholdMegabytes = 256
	// A start reads all of raft's log that is on the disk, twice. Nobody needs more of it than is in no snapshot, so its
	// files are small and do not stay.
	walFiles()
	cfg.MaxWalFiles = 1
	// Each tick of raft's clock wakes the processor, and one member has nobody to hear from, so the clock is slow. An
	// election that is longer for it costs no time at the start, see campaign. What has been written is safe in the log
	// before it gets into the database file, so the file can wait a little, too.
	cfg.TickMs, cfg.ElectionMs, cfg.BackendBatchInterval = 500, 2500, 500*time.Millisecond
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLog(log, zap.WithFatalHook(fail), zap.WithPanicHook(fail)))
	type started struct {
		etcd *embed.Etcd
		err  error
	}
	result := make(chan started, 1)
	go func() {
		defer func() {
			if fault := recover(); fault != nil {
				result <- started{err: fmt.Errorf("%v", fault)}
			}
		}()
		etcd, err := embed.StartEtcd(cfg)
		result <- started{etcd, err}
	}()
	var etcd *embed.Etcd
	select {
	case r := <-result:
		if r.err != nil {
			return nil, fail.words("etcd does not start", r.err)
		}
		etcd = r.etcd
	case <-fail.failed:
		return nil, fail.err
	}
	campaigning, elected := context.WithCancel(ctx)
	var campaigners sync.WaitGroup
	campaigners.Go(func() { campaign(campaigning, raftStatus, etcd.Server.Process) })
	var err error
	select {
	case <-etcd.Server.ReadyNotify():
	case <-fail.failed:
		err = fail.err
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = errors.New("stopped during its start")
	case <-ctx.Done():
		err = ctx.Err()
	}
	elected()
	campaigners.Wait()
	if err != nil {
		if !fail.came() {
			etcd.Close()
		}
		return nil, err
	}
	return etcd, nil
}

// memberName is the name of the only member.
const memberName = "embedded"

func etcdDir(dir string) string { return filepath.Join(dir, "etcd") }

// walFiles makes the files of raft's log smaller than etcd's usual 64 MB.
var walFiles = sync.OnceFunc(func() { wal.SegmentSizeBytes = 16 << 20 })

// campaign has the only member elect itself at once, instead of when it has waited for a leader for as long as an
// election may take. It tries again until ctx ends, because raft refuses while a change of members is not applied yet;
// after that the election that every member begins by itself is still to come.
//
// Raft looks at each entry that it does not know to be applied, and gives up if there is one that it no longer has.
// etcd drops what it has applied before it tells raft that it has, so etcd's own word is not enough.
func campaign(ctx context.Context, status func() raft.Status, process func(context.Context, *raftpb.Message) error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		now := status()
		if now.Lead != 0 {
			return
		}
		if now.Applied > 0 && now.Applied >= now.GetCommit() {
			// What a leader sends to the member that is to follow it.
			_ = process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &now.ID, From: &now.ID}) // tried again
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// starting is held while a member starts: etcd tells raft's status in one place alone, for the member of this process
// that started last.
var starting sync.Mutex

// raftStatus is zero as long as there is no member.
func raftStatus() raft.Status {
	status, _ := expvar.Get("raft.status").(expvar.Func)().(raft.Status)
	return status
}

// Proposals counts the entries that raft has committed since the data directory was made.
func (e *Embedded) Proposals() uint64 { return e.etcd.Server.CommittedIndex() }

// Failed is closed when etcd has given up, because the disk is full or broken, say. Nothing more can be read or
// written; Err says why and how to go on. What was acknowledged is on the disk.
func (e *Embedded) Failed() <-chan struct{} { return e.fail.failed }

// Err is why etcd has given up, once [Embedded.Failed] is closed.
func (e *Embedded) Err() error {
	if !e.fail.came() {
		return nil
	}
	return e.fail.err
}

// Close stops etcd and frees the directory. An etcd that has given up is left as it is: it waits for itself for ever.
func (e *Embedded) Close() {
	_ = e.Client.Close()
	if !e.fail.came() {
		e.etcd.Close()
	}
	if e.lock != nil {
		_ = e.lock.Close()
	}
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
