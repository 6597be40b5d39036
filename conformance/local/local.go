// Package local runs the warifu binary for tests from outside: on loopback, by https with a certificate of its own
// making, on an embedded database that is thrown away, with one user of whom every standard claim is known.
package local

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
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The user.
const (
	Login    = "ann@example.com"
	Password = "password"
	UserID   = "08a8684b-db88-4b73-90a9-3cd1661f5466"
	Name     = "Ann Mary Example"
)

// Options of [Start].
type Options struct {
	// Binary to run; empty builds one.
	Binary string
	// Config has further keys of the configuration, as YAML; $ISSUER in it is the issuer.
	Config string
	// Authorities whose certificates the server trusts when it sends requests, beside its own; PEM.
	Authorities []byte
	// Files that Config names, by their names in Dir.
	Files map[string][]byte
	// Log gets what the server says; nil keeps it for the error of a start that fails.
	Log io.Writer
}

// Server is one that runs.
type Server struct {
	Binary string
	Dir    string // of everything that it keeps; removed by Stop
	Issuer string
	// Certificate of the server and of who listens beside it on loopback, and the file of the authority that signed it.
	Certificate tls.Certificate
	CAFile      string
	Roots       *x509.CertPool

	cmd   *exec.Cmd
	ended chan struct{}
}

// Start runs a server until Stop, and returns when it answers.
func Start(ctx context.Context, opts Options) (_ *Server, err error) {
	s := &Server{Binary: opts.Binary}
	if s.Dir, err = os.MkdirTemp("", "warifu-local-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.Binary == "" {
		s.Binary = filepath.Join(s.Dir, "warifu")
		if err := sources(ctx); err != nil {
			return nil, err
		}
		build := exec.CommandContext(ctx, "go", "build", "-o", s.Binary, "github.com/warifu/warifu/cmd/warifu")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build warifu: %w\n%s", err, out)
		}
	}
	if s.Binary, err = filepath.Abs(s.Binary); err != nil { // it runs in a directory of its own
		return nil, err
	}
	if err := s.certify(); err != nil {
		return nil, err
	}
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	s.Issuer = "https://" + strings.Replace(address, "127.0.0.1", "localhost", 1)
	if err := s.write(opts); err != nil {
		return nil, err
	}
	var said bytes.Buffer
	s.cmd = exec.Command(s.Binary, "serve", filepath.Join(s.Dir, "config.yaml"))
	s.cmd.Dir = s.Dir
	if s.cmd.Stderr = opts.Log; opts.Log == nil {
		s.cmd.Stderr = &said
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.ended = make(chan struct{})
	go func() { // ends with the process
		_ = s.cmd.Wait() // how it ends after SIGTERM says nothing
		close(s.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if _, err := s.Run("get", "apps"); err == nil {
			return s, nil
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("warifu serve ended\n%s", said.String())
		case <-ctx.Done():
			return nil, fmt.Errorf("warifu serve does not answer: %w\n%s", ctx.Err(), said.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// sources reads the directories that the binary is built of: go test keeps results as long as what a test has read is
// the same.
func sources(ctx context.Context) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	for _, part := range []string{"cmd", "manifests", "plugins", "server", "storage"} {
		dir := filepath.Join(strings.TrimSpace(string(root)), part)
		if err := filepath.WalkDir(dir, func(_ string, _ os.DirEntry, err error) error { return err }); err != nil {
			return err
		}
	}
	return nil
}

// config takes issuer, directory, address and further keys. The hash is of Password.
const config = `issuer: %[1]s
storage: {type: embedded, config: {dataDir: "%[2]s/data"}}
web: {https: "%[3]s", tlsCert: "%[2]s/tls.pem", tlsKey: "%[2]s/tls.key"}
enablePasswordDB: true
staticPasswords:
  - email: ` + Login + `
    emailVerified: true
    username: ann
    name: ` + Name + `
    givenName: Ann
    familyName: Example
    middleName: Mary
    nickname: Annie
    profile: https://example.com/ann
    picture: https://example.com/ann.png
    website: https://ann.example.com
    gender: female
    birthdate: "1990-04-01"
    zoneinfo: Asia/Tokyo
    locale: en
    phoneNumber: "+81312345678"
    phoneNumberVerified: true
    address: {streetAddress: 1 Example Street, locality: Chiyoda, region: Tokyo, postalCode: 100-0001, country: JP}
    groups: [admins, staff]
    userID: ` + UserID + `
    hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W
outbound: {allow: [127.0.0.0/8, "::1/128"], caFile: "%[2]s/ca.pem"}
manifests: {localhostRedirects: allow}
logger: {level: info}
%[4]s`

func (s *Server) write(opts Options) error {
	own, err := os.ReadFile(s.CAFile)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"ca.pem": append(bytes.Clone(opts.Authorities), own...),
		"config.yaml": fmt.Appendf(nil, config, s.Issuer, s.Dir, strings.TrimPrefix(s.Issuer, "https://"),
			strings.ReplaceAll(opts.Config, "$ISSUER", s.Issuer)),
	}
	for name, content := range opts.Files {
		files[name] = content
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.Dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Run runs a command of the binary against the server and gives what it prints.
func (s *Server) Run(args ...string) ([]byte, error) {
	cmd := exec.Command(s.Binary, append(args, "--admin", filepath.Join(s.Dir, "data", "admin.sock"))...)
	cmd.Dir = s.Dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("warifu %s: %w\n%s", args[0], err, &stderr)
	}
	return out, nil
}

// Apply deploys a manifest.
func (s *Server) Apply(manifest []byte) error {
	const name = "app.yml"
	if err := os.WriteFile(filepath.Join(s.Dir, name), manifest, 0o600); err != nil {
		return err
	}
	_, err := s.Run("apply", "-f", name, "--yes")
	return err
}

// Credentials are an app's.
type Credentials struct{ ClientID, ClientSecret, Issuer string }

// Credentials asks for those of an app.
func (s *Server) Credentials(app string) (Credentials, error) {
	var c Credentials
	out, err := s.Run("credentials", app, "-o", "json")
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(out, &c)
}

// Deploy applies the manifest of an app, of which only the lines below spec.oauth are given, and gives its credentials.
func (s *Server) Deploy(app string, oauth ...string) (Credentials, error) {
	manifest := fmt.Appendf(nil, "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: %s}\n"+
		"spec:\n  version: 1.0.0\n  oauth:\n", app)
	for _, line := range oauth {
		manifest = fmt.Appendf(manifest, "    %s\n", line)
	}
	if err := s.Apply(manifest); err != nil {
		return Credentials{}, err
	}
	return s.Credentials(app)
}

// Stop ends the server and removes what it kept.
func (s *Server) Stop() error {
	if s.ended != nil {
		_ = s.cmd.Process.Signal(os.Interrupt) // it may have ended by itself
		<-s.ended
	}
	return os.RemoveAll(s.Dir)
}

// FreeAddress is one on loopback that nobody listens on, for a program that has to be told one.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// certify makes a certificate for loopback, signed by an authority of its own, which nobody has the key of.
func (s *Server) certify() error {
	valid := x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true}
	authority := valid
	authority.Subject = pkix.Name{CommonName: "warifu test authority"}
	authority.IsCA, authority.KeyUsage = true, x509.KeyUsageCertSign
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, &authority, &authority, signing.Public(), signing)
	if err != nil {
		return err
	}
	leaf := valid
	leaf.Subject, leaf.KeyUsage = pkix.Name{CommonName: "localhost"}, x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	leaf.SerialNumber = new(big.Int).Add(leaf.SerialNumber, big.NewInt(1))
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, &leaf, &authority, private.Public(), signing)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	trusted := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorityDER})
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	s.CAFile, s.Roots = filepath.Join(s.Dir, "authority.pem"), x509.NewCertPool()
	s.Roots.AppendCertsFromPEM(trusted)
	if s.Certificate, err = tls.X509KeyPair(certificate, key); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(s.CAFile, trusted, 0o600),
		os.WriteFile(filepath.Join(s.Dir, "tls.pem"), certificate, 0o600),
		os.WriteFile(filepath.Join(s.Dir, "tls.key"), key, 0o600))
}
