package conformance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// own is the warifu server that the suite starts, once, for all tests that need it.
var own ownServer

type ownServer struct {
	once sync.Once
	err  error

	dir    string
	cfg    Config
	party  *Party
	cmd    *exec.Cmd
	stderr transcript
	ended  chan struct{} // closed after waited is set
	waited error
	pair   tls.Certificate
	slots  chan struct{} // of all suites together: the server counts sign-ins of a user at the same time as guesses
}

// suite is one for the server, with changes of the configuration.
func (o *ownServer) suite(t *testing.T, change func(*Config)) *Suite {
	t.Helper()
	o.once.Do(func() { o.err = o.start() })
	if o.err != nil {
		t.Fatal(o.err)
	}
	cfg := o.cfg
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, o.party)
	if err != nil {
		t.Fatal(err)
	}
	s.slots = o.slots
	t.Cleanup(s.Close)
	return s
}

// start builds the binary, starts the server, registers the clients with its command line, and serves the relying party.
func (o *ownServer) start() (err error) {
	if o.dir, err = os.MkdirTemp("", "warifu-conformance-"); err != nil {
		return err
	}
	binary := os.Getenv("WARIFU_BINARY")
	if binary == "" {
		binary = filepath.Join(o.dir, "warifu")
		if err := sources(); err != nil {
			return err
		}
		if out, err := exec.Command("go", "build", "-o", binary, "../cmd/warifu").CombinedOutput(); err != nil {
			return fmt.Errorf("build warifu: %w\n%s", err, out)
		}
	}
	if o.pair, err = o.certificate(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	base := "https://" + listener.Addr().String()
	o.party = Serve(listener, base, &o.pair)
	port, err := freePort()
	if err != nil {
		return err
	}
	token := rand.Text() + rand.Text()
	values := map[string]string{"Dir": o.dir, "Port": port, "BaseURL": base, "Token": token}
	if err := os.WriteFile(filepath.Join(o.dir, "registration-token"), []byte(token), 0o600); err != nil {
		return err
	}
	if err := fillIn("testdata/warifu", o.dir, values); err != nil {
		return err
	}
	if err := o.serve(binary); err != nil {
		return err
	}
	if o.cfg, err = ReadConfig(filepath.Join(o.dir, "suite.yaml")); err != nil {
		return err
	}
	o.cfg.Issuer, o.slots = "https://127.0.0.1:"+port, make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	return o.register(binary, base)
}

// sources reads the directories that the binary is built of: go test keeps results as long as what a test has read is the same.
func sources() error {
	for _, dir := range []string{"cmd", "manifests", "plugins", "server", "storage"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(_ string, _ os.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	return nil
}

// fillIn copies a directory of templates.
func fillIn(from, to string, values map[string]string) error {
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		text, err := template.ParseFiles(path)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := text.Option("missingkey=error").Execute(&out, values); err != nil {
			return err
		}
		return os.WriteFile(target, out.Bytes(), 0o600)
	})
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// certificate makes one for loopback, signed by itself.
func (o *ownServer) certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "conformance"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:  x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	if err := errors.Join(os.WriteFile(filepath.Join(o.dir, "tls.pem"), certPEM, 0o600), os.WriteFile(filepath.Join(o.dir, "tls.key"), keyPEM, 0o600)); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// patience is the deadline of what never comes, not of what is slow.
const patience = time.Minute

// serve starts the server and waits until it answers.
func (o *ownServer) serve(binary string) error {
	o.cmd = exec.Command(binary, "serve", filepath.Join(o.dir, "config.yaml"))
	o.cmd.Dir = o.dir
	o.cmd.Stderr = &o.stderr
	o.stderr.ready = make(chan struct{})
	if err := o.cmd.Start(); err != nil {
		return err
	}
	o.ended = make(chan struct{})
	go func() { // ends with the process
		o.waited = o.cmd.Wait()
		close(o.ended)
	}()
	select {
	case <-o.stderr.ready:
		return nil
	case <-o.ended:
		return fmt.Errorf("warifu serve ended: %w\n%s", o.waited, o.stderr.String())
	case <-time.After(patience):
		return fmt.Errorf("warifu serve is not ready\n%s", o.stderr.String())
	}
}

// transcript keeps what the server says on stderr.
type transcript struct {
	mu    sync.Mutex // guards text
	text  bytes.Buffer
	ready chan struct{} // closed when the server says that it serves
	told  bool
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	if !s.told && bytes.Contains(s.text.Bytes(), []byte("warifu serves")) {
		s.told = true
		close(s.ready)
	}
	return len(b), nil
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// register applies the manifests and takes the credentials of their clients.
func (o *ownServer) register(binary, base string) error {
	run := func(args ...string) ([]byte, error) {
		cmd := exec.Command(binary, append(args, "--admin", "unix://"+filepath.Join(o.dir, "data", "admin.sock"))...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("warifu %s: %w\n%s", strings.Join(args, " "), err, &stderr)
		}
		return out, nil
	}
	if _, err := run("apply", "--yes", "-f", filepath.Join(o.dir, "apps")); err != nil {
		return err
	}
	var faults []error
	credentials := func(app string) Client {
		c := Client{RedirectURI: base + "/callback", PostLogoutRedirectURI: base + "/post_logout_redirect"}
		out, err := run("credentials", app)
		if err == nil {
			var found struct{ ClientID, ClientSecret string }
			err = json.Unmarshal(out, &found)
			c.ID, c.Secret = found.ClientID, found.ClientSecret
		}
		faults = append(faults, err)
		return c
	}
	clients := &o.cfg.Clients
	clients.Client, clients.Client2, clients.SecretPost = credentials("client"), credentials("client2"), credentials("client-secret-post")
	back, front := credentials("backchannel"), credentials("frontchannel")
	back.BackchannelLogoutURI, front.FrontchannelLogoutURI = base+"/backchannel_logout", base+"/frontchannel_logout"
	clients.Backchannel, clients.Frontchannel = &back, &front
	return errors.Join(faults...)
}

// close ends the server and the relying party, if they were started.
func (o *ownServer) close() error {
	var faults []error
	if o.cmd != nil && o.cmd.Process != nil {
		if err := o.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			faults = append(faults, err)
		}
		select {
		case <-o.ended:
			if o.waited != nil {
				faults = append(faults, fmt.Errorf("warifu serve ended: %w\n%s", o.waited, o.stderr.String()))
			}
		case <-time.After(patience):
			faults = append(faults, errors.New("warifu serve does not end on SIGTERM"), o.cmd.Process.Kill())
		}
	}
	if o.party != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		faults = append(faults, o.party.Close(ctx))
	}
	if o.dir != "" {
		faults = append(faults, os.RemoveAll(o.dir))
	}
	return errors.Join(faults...)
}
