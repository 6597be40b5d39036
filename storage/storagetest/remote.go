package storagetest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/warifu/warifu/storage"
)

// serveEnv tells a test binary to be an etcd server on a directory; remoteEnv tells New to use such a server.
const (
	serveEnv  = "WARIFU_TEST_ETCD_DIR"
	remoteEnv = "WARIFU_TEST_ETCD_REMOTE"
)

// Everywhere runs the tests of the package that call [New] once more, in a second process, on an etcd in a third one
// that speaks only TLS. Call it in a test of its own, in a package whose other tests are not parallel: it waits for
// them, because they tell by what they call whether the second process would see anything else.
func Everywhere(t *testing.T) {
	t.Helper()
	if os.Getenv(remoteEnv) != "" {
		return // this is that second process
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.count=1", "-test.run="+users.pattern())
	cmd.Env = append(os.Environ(), remoteEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("on a remote etcd: %v\n%s", err, out)
	}
}

// callers are the tests of this process that have called [New].
type callers struct {
	mu    sync.Mutex
	names map[string]bool
	read  bool // nobody may come any more
}

var users = callers{names: map[string]bool{}}

func (c *callers) note(tb testing.TB) {
	tb.Helper()
	if _, fuzzing := tb.(*testing.F); fuzzing {
		return // these come after all tests
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read {
		tb.Fatal("a test that runs beside storagetest.Everywhere is not run on a remote etcd: it must not be parallel")
	}
	name, _, _ := strings.Cut(tb.Name(), "/")
	c.names[name] = true
}

// pattern is what -test.run has to be for them: everything, where the test of [Everywhere] was run alone.
func (c *callers) pattern() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = true
	if len(c.names) == 0 {
		return "."
	}
	return "^(" + strings.Join(slices.Sorted(maps.Keys(c.names)), "|") + ")$"
}

// Remote is an etcd in a process of its own that speaks only TLS, whatever [New] returns. It ends with the test.
func Remote(tb testing.TB) *Etcd {
	tb.Helper()
	client, stop, err := dialRemote(tb.TempDir())
	if err != nil {
		tb.Fatalf("start a remote etcd: %v", err)
	}
	tb.Cleanup(stop)
	e := On(tb, client)
	e.Prefix = "" // as it is by default
	return e
}

// dialRemote starts the server and connects to it; stop ends both.
func dialRemote(dir string) (client *clientv3.Client, stop func(), err error) {
	if err := certificate(dir); err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // its end is the server's end
	if err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	end := func() { _ = stdin.Close(); _ = cmd.Wait() }
	endpoint, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		end()
		return nil, nil, fmt.Errorf("etcd did not start: %w", err)
	}
	pemCert, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		end()
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pemCert)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err = storage.Dial(ctx, storage.Remote{
		Endpoints: []string{strings.TrimSpace(endpoint)},
		TLS:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		end()
		return nil, nil, err
	}
	return client, func() { _ = client.Close(); end() }, nil
}

// serve is the second process.
func serve(dir string) int {
	fail := func(err error) int {
		_, _ = fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	port, err := freePort()
	if err != nil {
		return fail(err)
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "data")
	cfg.LogLevel = "fatal" // it calls its own end an error
	cfg.ListenPeerUrls = nil
	u := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", port)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
	cfg.ClientTLSInfo.CertFile = filepath.Join(dir, "cert.pem")
	cfg.ClientTLSInfo.KeyFile = filepath.Join(dir, "key.pem")
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return fail(err)
	}
	<-etcd.Server.ReadyNotify()
	_, _ = fmt.Println(u.String())
	_, _ = io.Copy(io.Discard, os.Stdin)
	etcd.Close()
	return 0
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func certificate(dir string) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	return errors.Join(write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", key))
}
