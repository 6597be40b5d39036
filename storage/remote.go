package storage

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// Remote says how to reach an etcd cluster.
type Remote struct {
	Endpoints          []string
	Username, Password string
	TLS                *tls.Config // nil: no TLS
}

// named are the endpoints as they may be shown.
func (r Remote) named() []string {
	shown := make([]string, len(r.Endpoints))
	for i, endpoint := range r.Endpoints {
		shown[i] = endpoint
		if scheme, rest, _ := strings.Cut(endpoint, "://"); strings.Contains(rest, "@") {
			shown[i] = scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
		}
	}
	return shown
}

// How long a member may say nothing. A read is tried at another member after readTry; a connection on which something
// was asked and nothing has come back for silence is closed, and its requests end, because a member that has stopped
// without closing its connections would otherwise keep its share of all requests waiting until they run out of time.
// (gRPC's own keepalive asks every 10 seconds at the most.)
//
// A member that was cut off takes requests again before it has caught up with the others, and each of them waits for
// that. So one that owes an answer for readTry is set aside for a while: the others are asked in its place, as long as
// they are a quorum by themselves.
const (
	readTry = 2 * time.Second
	silence = 5 * time.Second
	aside   = 10 * time.Second
)

// Dial connects to an etcd cluster. It fails if no member answers within ctx, or if one of them is older than
// [oldestVersion].
func Dial(ctx context.Context, remote Remote, log *slog.Logger) (*clientv3.Client, error) {
	watching := &attention{conns: make(map[string]*attentive), endpoints: remote.Endpoints, log: log}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            remote.Endpoints,
		Username:             remote.Username,
		Password:             remote.Password,
		TLS:                  remote.TLS,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		PermitWithoutStream:  true,
		Logger:               etcdLog(log),
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(watching.dial), grpc.WithStatsHandler(watching),
			grpc.WithChainUnaryInterceptor(elsewhere(len(remote.Endpoints))),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd %v: %w", remote.named(), watching.explained(err))
	}
	if _, err := client.Get(ctx, "ping", clientv3.WithCountOnly()); err != nil {
		_ = client.Close()
		err = watching.explained(err)
		return nil, fmt.Errorf("connect to etcd %v: %w", remote.named(), err)
	}
	if err := tooOld(ask(ctx, client, remote.Endpoints)); err != nil {
		_ = client.Close()
		return nil, fmt.Errorf("connect to etcd %v: %w", remote.named(), err)
	}
	watching.client.Store(client)
	return client, nil
}

// elsewhere tries a request that only reads at another member (the connection picks one after the other) when the one
// that was asked does not answer in time, or is gone. A request that may write is sent once: that no answer came does
// not mean that nothing was written.
func elsewhere(members int) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption) error {
		if members < 2 || !onlyReads(req) {
			return invoke(ctx, method, req, reply, conn, opts...)
		}
		var err error
		for range 2 * members { // chance may pick the same one again
			try, cancel := context.WithTimeout(ctx, readTry)
			err = invoke(try, method, req, reply, conn, opts...)
			late := try.Err() != nil
			cancel()
			if err == nil || ctx.Err() != nil || !late && status.Code(err) != codes.Unavailable {
				return err
			}
		}
		return err
	}
}

// onlyReads says whether a request to etcd writes nothing.
func onlyReads(req any) bool {
	switch r := req.(type) {
	case *etcdserverpb.RangeRequest:
		return true
	case *etcdserverpb.TxnRequest:
		reads := func(op *etcdserverpb.RequestOp) bool {
			return op.GetRequestRange() != nil || op.GetRequestTxn() != nil && onlyReads(op.GetRequestTxn())
		}
		notReads := func(op *etcdserverpb.RequestOp) bool { return !reads(op) }
		return !slices.ContainsFunc(r.Success, notReads) && !slices.ContainsFunc(r.Failure, notReads)
	}
	return false
}

// attention watches the connections to the members: one that owes an answer, and on which nothing has come for silence,
// is closed. It is told by gRPC what is asked (stats.Handler), and sees itself what comes.
type attention struct {
	endpoints []string
	log       *slog.Logger
	client    atomic.Pointer[clientv3.Client] // nil until it is there
	away      atomic.Bool                     // a member is set aside

	mu     sync.Mutex // guards what follows
	conns  map[string]*attentive
	failed error // why the last connection was not made; nil once one was
}

// setAside has the others asked for a while in the place of a member.
func (a *attention) setAside(address string) {
	client := a.client.Load()
	others := slices.DeleteFunc(slices.Clone(a.endpoints), func(endpoint string) bool {
		_, host, named := strings.Cut(endpoint, "://")
		if !named {
			host = endpoint
		}
		return strings.TrimSuffix(host[strings.LastIndexByte(host, '@')+1:], "/") == address
	})
	if client == nil || len(others) != len(a.endpoints)-1 || !a.away.CompareAndSwap(false, true) {
		return
	}
	a.log.Warn("an etcd member is slow to answer; requests go to the others for a while", "member", address)
	client.SetEndpoints(others...)
	time.AfterFunc(aside, func() {
		if client.Ctx().Err() == nil {
			client.SetEndpoints(a.endpoints...)
		}
		a.away.Store(false)
	})
}

// explained says of a request that ran out of time why: the client of etcd does not.
func (a *attention) explained(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return fmt.Errorf("%w (%w): see that etcd runs there, and that this machine can reach it", a.failed, err)
	}
	return fmt.Errorf("it can be reached, and does not answer (%w): see that its members have a leader (etcdctl endpoint "+
		"health), and that "+
		"http or https and the certificates are the right ones", err)
}

// dial connects to a member by TCP.
func (a *attention) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	a.mu.Lock()
	if err == nil || ctx.Err() == nil { // not what ends with the client
		a.failed = err
	}
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c := &attentive{Conn: conn, of: a, address: address}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns[conn.LocalAddr().String()] = c
	return c, nil
}

// attentive is a connection to a member.
type attentive struct {
	net.Conn
	of      *attention
	address string       // of the member
	last    atomic.Int64 // when something came or was asked for first, Unix nanoseconds

	mu   sync.Mutex // guards what follows
	owed int        // requests without the beginning of an answer
	due  *time.Timer
}

func (c *attentive) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.last.Store(time.Now().UnixNano())
	return n, err
}

func (c *attentive) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c.LocalAddr().String())
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (c *attentive) asked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owed++; c.owed > 1 {
		return
	}
	c.last.Store(time.Now().UnixNano())
	if c.due == nil {
		c.due = time.AfterFunc(silence, c.look)
	} else {
		c.due.Reset(silence)
	}
}

func (c *attentive) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owed--; c.owed == 0 {
		c.due.Stop()
	}
}

// look is called when nothing may have come for too long.
func (c *attentive) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owed == 0 {
		return
	}
	if left := silence - time.Since(time.Unix(0, c.last.Load())); left > 0 {
		c.due.Reset(left)
		return
	}
	_ = c.Conn.Close() // gRPC notices, and closes the rest
}

// asking is a request under way: the connection that owes its answer, and what happens if that takes long.
type asking struct {
	conn atomic.Pointer[attentive]
	late atomic.Pointer[time.Timer]
}

type askingKey struct{}

func (a *attention) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, askingKey{}, new(asking))
}

func (a *attention) HandleRPC(ctx context.Context, event stats.RPCStats) {
	request, _ := ctx.Value(askingKey{}).(*asking)
	if request == nil {
		return
	}
	switch e := event.(type) {
	case *stats.OutHeader:
		a.mu.Lock()
		c := a.conns[e.LocalAddr.String()]
		a.mu.Unlock()
		if c != nil {
			c.asked()
			if len(a.endpoints) > 2 {
				request.await(time.AfterFunc(readTry, func() { a.setAside(c.address) }))
			}
		}
		if was := request.conn.Swap(c); was != nil {
			was.answered()
		}
	case *stats.InHeader, *stats.InTrailer, *stats.End:
		request.await(nil)
		if c := request.conn.Swap(nil); c != nil {
			c.answered()
		}
	}
}

// await puts a timer in the place of the one before.
func (r *asking) await(late *time.Timer) {
	if was := r.late.Swap(late); was != nil {
		was.Stop()
	}
}

func (a *attention) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (a *attention) HandleConn(context.Context, stats.ConnStats) {}

// Versions of etcd. Older ones than oldestVersion lack what this package uses, or lose writes that they confirmed
// (etcd 3.5.0 to 3.5.2 do so as well: hence the advice). Those before advisedVersion have known faults.
var (
	oldestVersion  = version{3, 5, 0}
	advisedVersion = version{3, 7, 1} // GHSA-xg4h-6gfc-h4m8
)

type version [3]int

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// parseVersion reads 3.5.21, or 3.6.0-rc.1.
func parseVersion(text string) (version, error) {
	var v version
	if _, err := fmt.Sscanf(text, "%d.%d.%d", &v[0], &v[1], &v[2]); err != nil {
		return v, fmt.Errorf("%q is not a version of etcd", text)
	}
	return v, nil
}

func (v version) before(other version) bool { return slices.Compare(v[:], other[:]) < 0 }

// ErrOldEtcd is that a member of a cluster is older than this package can do with.
var ErrOldEtcd = errors.New("too old")

// tooOld says which of the members are older than this package can do with.
func tooOld(members []member) error {
	var errs []error
	for _, m := range members {
		if m.err != nil {
			continue // the others serve; the keeper tells of it
		}
		v, err := parseVersion(m.status.Version)
		if err != nil {
			continue
		}
		if v.before(oldestVersion) {
			errs = append(errs, fmt.Errorf("%s is etcd %s, which is %w: upgrade it to %s or later (%s at the least)",
				m.endpoint, v, ErrOldEtcd, advisedVersion, oldestVersion))
		}
	}
	return errors.Join(errs...)
}
