// Package storagetest gives tests a real etcd, counts its requests and injects faults at that boundary.
//
// One embedded etcd serves all tests of a package; each test has a key prefix of its own. A package that uses it has
// this TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }
package storagetest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/storage"
)

// shared is the etcd of this process, started by the first test that needs one.
var shared struct {
	once   sync.Once
	dir    string
	client *clientv3.Client
	stop   func()
	err    error
}

var prefixes atomic.Int64

// Main runs the tests of a package and ends their etcd. It is also the etcd of [Everywhere].
func Main(m *testing.M) int {
	if addr := os.Getenv(serveEnv); addr != "" {
		return serve(addr)
	}
	code := m.Run()
	if shared.stop != nil {
		shared.stop()
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	return code
}

func start() {
	if shared.dir, shared.err = os.MkdirTemp("", "warifu-etcd-"); shared.err != nil {
		return
	}
	if os.Getenv(remoteEnv) != "" {
		shared.client, shared.stop, shared.err = dialRemote(shared.dir)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	embedded, err := storage.OpenEmbedded(ctx, shared.dir, slog.New(slog.DiscardHandler))
	if err != nil {
		shared.err = err
		return
	}
	shared.client, shared.stop = embedded.Client, embedded.Close
}

// Etcd is one test's view of an etcd.
type Etcd struct {
	// Client counts requests and meets the injected fault.
	Client *clientv3.Client
	// Prefix is the prefix of this test's keys.
	Prefix string
	// KEK seals the stores of this test, unless they are given another.
	KEK *storage.KEK

	tb     testing.TB
	alone  bool // see storage.Options.OneMember
	raw    *clientv3.Client
	counts counts
	keys   atomic.Int64 // RSA keys that this test's stores have made
	fault  atomic.Pointer[Fault]
}

// New returns an etcd view that this test has to itself.
func New(tb testing.TB) *Etcd {
	tb.Helper()
	users.note(tb)
	return onShared(tb)
}

// Many is [New] for a test that makes so many records that once is enough: [Everywhere] leaves it out.
func Many(tb testing.TB) *Etcd {
	tb.Helper()
	return onShared(tb)
}

func onShared(tb testing.TB) *Etcd {
	tb.Helper()
	shared.once.Do(start)
	if shared.err != nil {
		tb.Fatalf("start etcd: %v", shared.err)
	}
	return On(tb, shared.client)
}

// Alone is an embedded etcd that ends with the test, and that it has for itself: without a prefix, as it is by default.
func Alone(tb testing.TB) *Etcd {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	embedded, err := storage.OpenEmbedded(ctx, tb.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatalf("start etcd: %v", err)
	}
	tb.Cleanup(embedded.Close)
	e := On(tb, embedded.Client)
	e.Prefix, e.alone = "", true
	return e
}

// On is a test's view of any etcd.
func On(tb testing.TB, client *clientv3.Client) *Etcd {
	tb.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	kek, err := storage.NewKEK(key)
	if err != nil {
		tb.Fatal(err)
	}
	e := &Etcd{tb: tb, raw: client, KEK: kek, Prefix: fmt.Sprintf("test-%d-%d/", os.Getpid(), prefixes.Add(1))}
	e.Client = clientv3.NewCtxClient(context.Background())
	e.Client.KV = &kv{KV: client.KV, etcd: e}
	e.Client.Lease = &lease{Lease: client.Lease, etcd: e}
	e.Client.Watcher = client.Watcher
	return e
}

// Store opens a store on this test's keys; change alters its options. It is closed when the test ends.
func (e *Etcd) Store(change ...func(*storage.Options)) *storage.Store {
	e.tb.Helper()
	opts := storage.Options{Prefix: e.Prefix, KEK: e.KEK, OneMember: e.alone, Logger: slog.New(slog.DiscardHandler),
		NewRSA: e.NewRSA}
	for _, c := range change {
		c(&opts)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if os.Getenv(remoteEnv) != "" {
		if err := storage.PretendMoved(ctx, e.raw, opts.Prefix); err != nil {
			e.tb.Fatalf("open store: %v", err)
		}
	}
	store, err := storage.New(ctx, e.Client, opts)
	if err != nil {
		e.tb.Fatalf("open store: %v", err)
	}
	e.tb.Cleanup(store.Close)
	return store
}

// rsaKeys are those of this process, in the order in which they were made.
var rsaKeys struct {
	sync.Mutex
	made []*rsa.PrivateKey
}

// NewRSA is what [storage.Options] asks for: the stores of one test never get the same key twice, other tests do.
func (e *Etcd) NewRSA() (*rsa.PrivateKey, error) {
	n := int(e.keys.Add(1))
	rsaKeys.Lock()
	defer rsaKeys.Unlock()
	for len(rsaKeys.made) < n {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		rsaKeys.made = append(rsaKeys.made, key)
	}
	return rsaKeys.made[n-1], nil
}

// Dump returns all keys and values under this test's prefix, as the raw database has them.
func (e *Etcd) Dump() string {
	e.tb.Helper()
	resp, err := e.raw.Get(context.Background(), e.Prefix, clientv3.WithPrefix())
	if err != nil {
		e.tb.Fatal(err)
	}
	var out strings.Builder
	for _, kv := range resp.Kvs {
		_, _ = fmt.Fprintf(&out, "%s\n%s\n", kv.Key, kv.Value)
	}
	return out.String()
}

// Put writes a key under this test's prefix, past everything that counts and breaks requests.
func (e *Etcd) Put(key, value string) {
	e.tb.Helper()
	if _, err := e.raw.Put(context.Background(), e.Prefix+key, value); err != nil {
		e.tb.Fatal(err)
	}
}
