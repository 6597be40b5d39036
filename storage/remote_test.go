package storage_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// cluster is an etcd of three members, and the addresses of proxies before them.
func cluster(t *testing.T) (members []*embed.Etcd, proxies []*muzzle) {
	t.Helper()
	const n = 3
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		return l.Addr().String()
	}
	configs, initial := make([]*embed.Config, n), make([]string, n)
	for i := range configs {
		cfg := embed.NewConfig()
		peer, client := url.URL{Scheme: "http", Host: free()}, url.URL{Scheme: "http", Host: free()}
		cfg.Name, cfg.Dir, cfg.LogLevel = fmt.Sprintf("m%d", i), filepath.Join(t.TempDir(), "etcd"), "fatal"
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		configs[i], initial[i] = cfg, cfg.Name+"="+peer.String()
	}
	members = make([]*embed.Etcd, n)
	var started sync.WaitGroup
	for i, cfg := range configs {
		cfg.InitialCluster = strings.Join(initial, ",")
		started.Go(func() {
			etcd, err := embed.StartEtcd(cfg)
			if err != nil {
				t.Error(err)
				return
			}
			<-etcd.Server.ReadyNotify()
			members[i] = etcd
		})
	}
	started.Wait()
	t.Cleanup(func() {
		for _, m := range members {
			if m != nil {
				m.Close()
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	for _, cfg := range configs {
		proxies = append(proxies, newMuzzle(t, cfg.ListenClientUrls[0].Host))
	}
	return members, proxies
}

// muzzle passes connections on, until it is put on: then it takes everything and says nothing.
type muzzle struct {
	address string
	on      atomic.Bool
}

func newMuzzle(t *testing.T, to string) *muzzle {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	m := &muzzle{address: l.Addr().String()}
	go func() { // ends with the listener
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			go m.pass(out, in)
			go m.pass(in, out)
		}
	}()
	return m
}

func (m *muzzle) pass(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !m.on.Load() {
			_, _ = to.Write(buffer[:n])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// A member that takes requests and answers none costs no read, and writes only for a moment.
func TestSilentMemberIsLeftAlone(t *testing.T) {
	members, proxies := cluster(t)
	endpoints, follower := make([]string, len(proxies)), -1
	for i, p := range proxies {
		endpoints[i] = "http://" + p.address
		if members[i].Server.Leader() != members[i].Server.MemberID() {
			follower = i
		}
	}
	client, err := storage.Dial(t.Context(), storage.Remote{Endpoints: endpoints}, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	const patience = 15 * time.Second // of a request
	put := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := client.Put(ctx, "key", "value")
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write waits for as long as it may: %v", err)
		}
		return err
	}
	for range 30 { // so that there is a connection to each
		if err := put(); err != nil {
			t.Fatal(err)
		}
	}
	proxies[follower].on.Store(true)
	var requests sync.WaitGroup
	var lost atomic.Int64
	for range 30 {
		requests.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := client.Get(ctx, "key"); err != nil {
				t.Errorf("a read: %v", err)
			}
			if _, err := client.Txn(ctx).Then(clientv3.OpGet("key"), clientv3.OpGet("other")).Commit(); err != nil {
				t.Errorf("a transaction that reads: %v", err)
			}
		})
		requests.Go(func() {
			if put() != nil {
				lost.Add(1)
			}
		})
	}
	requests.Wait()
	if lost.Load() == 0 {
		t.Error("the member was not asked, so this shows nothing")
	}
	if asked := client.Endpoints(); len(asked) != 2 || slices.Contains(asked, endpoints[follower]) {
		t.Errorf("the silent member is not set aside: %v", asked)
	}
	for range 100 {
		if err := put(); err != nil {
			t.Fatalf("the silent member is still asked: %v", err)
		}
	}
	proxies[follower].on.Store(false)
	eventually(t, "the member is asked again", func() bool { return len(client.Endpoints()) == 3 })
	for range 30 {
		if err := put(); err != nil {
			t.Fatal(err)
		}
	}
}

// An etcd that is not there: what the system said of it is told, and no password.
func TestAnEtcdThatIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = storage.Dial(ctx, storage.Remote{Endpoints: []string{"http://ann:hunter2@" + address}}, discard)
	if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

// A connection on which nothing is asked stays, however long nothing comes: a watch is such a one.
func TestQuietWatchStays(t *testing.T) {
	etcd := storagetest.Remote(t)
	watch := etcd.Client.Watch(t.Context(), "quiet", clientv3.WithCreatedNotify())
	if first := <-watch; first.Err() != nil || !first.Created {
		t.Fatalf("the watch: %+v", first)
	}
	timer := time.NewTimer(storage.Silence + storage.Silence/2)
	defer timer.Stop()
	select {
	case got := <-watch:
		t.Fatalf("the watch says %+v, %v", got, got.Err())
	case <-timer.C:
	}
	if _, err := etcd.Client.Put(t.Context(), "quiet", "no more"); err != nil {
		t.Fatal(err)
	}
	if got := <-watch; len(got.Events) != 1 || got.Events[0].Kv.Version != 1 {
		t.Errorf("the watch says %+v, %v", got, got.Err())
	}
}

// saying is an etcd that says what version it has, and little else.
type saying struct {
	etcdserverpb.UnimplementedMaintenanceServer
	etcdserverpb.UnimplementedKVServer
	version string
}

func (s *saying) Status(context.Context, *etcdserverpb.StatusRequest) (*etcdserverpb.StatusResponse, error) {
	return &etcdserverpb.StatusResponse{Header: &etcdserverpb.ResponseHeader{}, Version: s.version}, nil
}

func (s *saying) Range(context.Context, *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	return &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{}}, nil
}

func (s *saying) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	etcdserverpb.RegisterMaintenanceServer(g, s)
	etcdserverpb.RegisterKVServer(g, s)
	go func() { _ = g.Serve(l) }() // ends with Stop
	t.Cleanup(g.Stop)
	return "http://" + l.Addr().String()
}

// An etcd that is too old is refused, and one with known faults is noted.
func TestOldEtcdIsNotTakenWithoutAWord(t *testing.T) {
	current := (&saying{version: "3.7.3"}).serve(t)
	for version, refused := range map[string]bool{
		"3.3.27": true, "3.4.43": true, "3.5.0-rc.1": false, "3.5.21": false, "3.6.5": false, "3.7.0": false, "3.7.1": false,
		"4.0.0": false,
	} {
		client, err := storage.Dial(t.Context(), storage.Remote{Endpoints: []string{current,
			(&saying{version: version}).serve(t)}}, discard)
		if refused != (err != nil) {
			t.Errorf("etcd %s: %v", version, err)
		}
		if refused && !strings.Contains(err.Error(), version) {
			t.Errorf("it does not name the version %s: %v", version, err)
		}
		if err != nil {
			continue
		}
		notes := storage.NotesOn(t.Context(), client)
		old := version < "3.7.1"
		if old != (len(notes) == 1) || old && !strings.Contains(notes[0], "3.7.1") {
			t.Errorf("notes on etcd %s: %q", version, notes)
		}
		_ = client.Close()
	}
}
