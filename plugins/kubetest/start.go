package kubetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/warifu/warifu/plugins/child"
)

// startLimit is how long the server may take; on an idle machine it takes three seconds.
const startLimit = 2 * time.Minute

func start() (_ *Cluster, err error) {
	file, err := program()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "warifu-kube-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, CAFile: filepath.Join(dir, "serving.crt"), Kubeconfig: filepath.Join(dir, "kubeconfig"),
		Token: rand.Text()}
	var ends []func()
	c.stop = func() {
		for i := range ends {
			ends[len(ends)-1-i]()
		}
		_ = os.RemoveAll(dir)
	}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	etcd, err := startEtcd(filepath.Join(dir, "etcd"))
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	ends = append(ends, etcd.Close)
	certificate, err := c.writeFiles()
	if err != nil {
		return nil, err
	}
	c.client = trusting(certificate)
	ends = append(ends, c.client.CloseIdleConnections)
	spawner := child.NewSpawner()
	ends = append(ends, spawner.Close)
	for tries := 0; ; tries++ { // a free port may be somebody else's when the server takes it
		end, err := c.startServer(spawner, file, etcd.Clients[0].Addr().String())
		if err == nil {
			ends = append(ends, end)
			return c, c.writeKubeconfig(c.Kubeconfig, "default", c.Token)
		}
		if tries == 2 {
			return nil, err
		}
	}
}

func startEtcd(dir string) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = dir, "fatal"
	cfg.UnsafeNoFsync = true
	cfg.ListenPeerUrls = nil
	loopback := hostURL("http", 0)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{loopback}, []url.URL{loopback}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case <-time.After(startLimit):
		etcd.Close()
		return nil, errors.New("it does not serve")
	}
}

// startServer returns when the server is ready, with what ends it.
func (c *Cluster) startServer(spawner *child.Spawner, file, etcd string) (func(), error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	u := hostURL("https", port)
	c.URL, c.Issuer = u.String(), u.String()
	in := func(name string) string { return filepath.Join(c.dir, name) }
	var said output
	cmd := exec.Command(file,
		"--etcd-servers=http://"+etcd,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
		"--cert-dir="+c.dir, "--tls-cert-file="+c.CAFile, "--tls-private-key-file="+in("serving.key"),
		"--token-auth-file="+in("tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer="+c.Issuer, "--service-account-signing-key-file="+in("accounts.key"),
		"--service-account-key-file="+in("accounts.pub"),
		"--service-account-extend-token-expiration=false",
		"--profiling=false",
	)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := spawner.Start(cmd); err != nil {
		return nil, fmt.Errorf("start kube-apiserver: %w", err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = cmd.Wait() // a signal ends it
		close(ended)
	}()
	end := func() {
		_ = cmd.Process.Kill() // gone already is fine
		<-ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for {
		status, answer, err := c.Ask(ctx, c.Token, http.MethodGet, "/readyz", nil)
		if err == nil && status == http.StatusOK {
			return end, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("kube-apiserver has ended: %s", lastLines(said.String(), 10))
		case <-ctx.Done():
			end()
			return nil, fmt.Errorf("kube-apiserver is not ready after %s: %v %s\n%s", startLimit, err, answer,
				lastLines(said.String(), 10))
		case <-time.After(50 * time.Millisecond): // nobody tells when it is
		}
	}
}

// writeFiles makes what the server is started with, and gives its certificate.
func (c *Cluster) writeFiles() ([]byte, error) {
	accounts, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&accounts.PublicKey)
	if err != nil {
		return nil, err
	}
	serving, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(serving)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost", "kubernetes.default.svc"},
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &serving.PublicKey, serving)
	if err != nil {
		return nil, err
	}
	certificate := encode("CERTIFICATE", der)
	for name, content := range map[string][]byte{
		"serving.crt":  certificate,
		"serving.key":  encode("PRIVATE KEY", private),
		"accounts.key": encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(accounts)),
		"accounts.pub": encode("PUBLIC KEY", public),
		"tokens.csv":   []byte(c.Token + `,admin,admin,"system:masters"` + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return certificate, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// output is a buffer that is read while the process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
