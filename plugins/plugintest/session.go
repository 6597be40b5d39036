package plugintest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/child"
	"github.com/warifu/warifu/plugins/pluginpb"
)

// What go-plugin and the server say to a plugin in its environment, as any
// author in any language has to know it.
const (
	cookie     = "WARIFU_PLUGIN=a71d3c8be3b94d0f9f8a6a6b4e7e1f52"
	envSockets = "PLUGIN_UNIX_SOCKET_DIR"
	maxMessage = 4 << 20 // bytes, in either direction

	startLimit    = 10 * time.Second // from the start to the handshake
	leaveLimit    = 3 * time.Second  // from the request to leave to the end
	describeLimit = 5 * time.Second
	observeLimit  = 10 * time.Second
	pushLimit     = 30 * time.Second
)

// session is one process of the plugin, started by hand so that what it prints
// is seen as it is. close ends it; everything else may be called in between.
type session struct {
	cmd     *exec.Cmd
	out     *transcript
	dir     string // its sockets
	address string
	tls     *tls.Config
	conn    *grpc.ClientConn
	exited  chan struct{} // closed when the process is gone and its output read
	readers chan struct{} // closed when stdout and stderr have ended
	first   chan string   // the first line on stdout; closed when stdout ends before
	seen    []int         // processes below it, as last looked for

	mu   sync.Mutex // owns what follows
	gone bool       // the process was waited for: its number may be another's

	runtime pluginpb.RuntimeClient
	hook    pluginpb.DeployHookClient
}

// startSession starts the process and shakes hands. dir is for its sockets and
// must be empty. extra goes into the environment.
func startSession(ctx context.Context, binary string, args []string, dir string, out *transcript,
	extra ...string) (*session, error) {
	config, certificate, err := clientTLS()
	if err != nil {
		return nil, err
	}
	s := &session{out: out, dir: dir, tls: config, exited: make(chan struct{}), readers: make(chan struct{}),
		first: make(chan string, 1)}
	s.cmd = exec.Command(binary, args...)
	s.cmd.Env = append([]string{
		cookie, envSockets + "=" + dir, "PLUGIN_CLIENT_CERT=" + certificate,
		"PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_MIN_PORT=10000", "PLUGIN_MAX_PORT=25000",
	}, extra...)
	child.OwnGroup(s.cmd)
	if err := s.spawn(); err != nil {
		return nil, faultf("it cannot be started: %v", err)
	}
	if err := s.shakeHands(ctx); err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

// spawn starts the process and the goroutines that read it; they end with it.
func (s *session) spawn() error {
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	errs := make(chan struct{})
	go func() {
		defer close(errs)
		s.out.copy("stderr", stderr)
	}()
	go func() {
		defer close(s.readers)
		defer close(s.first)
		reader := bufio.NewReader(stdout)
		line, err := reader.ReadString('\n')
		if err == nil || line != "" {
			s.first <- strings.TrimRight(line, "\r\n")
		}
		s.out.copy("stdout", reader)
		<-errs
	}()
	go func() {
		defer close(s.exited)
		if !child.AwaitExit(s.cmd.Process.Pid) {
			<-s.readers
		}
		s.mu.Lock()
		child.KillGroup(s.cmd.Process.Pid) // as the server does: what is left of it would hold the pipes
		s.gone = true
		s.mu.Unlock()
		select {
		case <-s.readers:
		case <-time.After(leaveLimit): // somebody else holds the pipes; Wait closes them
		}
		_ = s.cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	return nil
}

// shakeHands reads the line on stdout, holds it against what it must be, and
// connects.
func (s *session) shakeHands(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var line string
	select {
	case first, ok := <-s.first:
		if !ok {
			return faultf("it ended before it printed the handshake line")
		}
		line = first
	case <-ctx.Done():
		return faultf("it printed no handshake line within %s", startLimit)
	}
	fields := strings.Split(line, "|")
	if len(fields) < 6 {
		s.out.add("stdout", []byte(line))
		return faultf("the first line on stdout is not the handshake but %.80q", s.out.safe(line))
	}
	switch {
	case fields[0] != "1":
		return faultf("the handshake says core protocol %.20q, go-plugin's is 1", fields[0])
	case fields[1] != fmt.Sprint(plugins.ProtocolVersion):
		return faultf("the handshake says protocol version %.20q, this server's is %d", fields[1], plugins.ProtocolVersion)
	case fields[2] != "unix":
		return faultf("it listens on %.20q, not on a unix socket", fields[2])
	case filepath.Dir(filepath.Clean(fields[3])) != filepath.Clean(s.dir):
		return faultf("its socket is not in the directory that %s names", envSockets)
	case fields[4] != "grpc":
		return faultf("the handshake says protocol %.20q, not grpc", fields[4])
	}
	der, err := base64.RawStdEncoding.DecodeString(fields[5])
	if err != nil || len(der) == 0 {
		return faultf("the handshake's sixth field is not its certificate in base64 without padding")
	}
	theirs, err := x509.ParseCertificate(der)
	if err != nil {
		return faultf("the certificate in the handshake cannot be read: %v", err)
	}
	s.tls.RootCAs = x509.NewCertPool()
	s.tls.RootCAs.AddCert(theirs)
	s.address = fields[3]
	return s.connect(ctx)
}

func (s *session) connect(ctx context.Context) error {
	conn, err := dial(s.address, s.tls)
	if err != nil {
		return err
	}
	s.conn = conn
	s.runtime, s.hook = pluginpb.NewRuntimeClient(conn), pluginpb.NewDeployHookClient(conn)
	if err := s.healthy(ctx); err != nil {
		return err
	}
	go s.readStdio()
	return nil
}

func dial(socket string, config *tls.Config) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("prepare the connection: %w", err)
	}
	return conn, nil
}

// readStdio follows what go-plugin's kit makes of a plugin's os.Stdout and
// os.Stderr: a stream of its own. Others need not have it. It ends with the
// connection.
func (s *session) readStdio() {
	stream, err := s.conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true},
		"/plugin.GRPCStdio/StreamStdio")
	if err != nil {
		return
	}
	if stream.SendMsg(&emptypb.Empty{}) != nil || stream.CloseSend() != nil {
		return
	}
	for {
		var message emptypb.Empty // its fields stay unknown, and with that readable
		if stream.RecvMsg(&message) != nil {
			return
		}
		for raw := message.ProtoReflect().GetUnknown(); len(raw) > 0; {
			number, kind, n := protowire.ConsumeTag(raw)
			size := protowire.ConsumeFieldValue(number, kind, raw[max(n, 0):])
			if n < 0 || size < 0 {
				return
			}
			if kind == protowire.BytesType {
				data, _ := protowire.ConsumeBytes(raw[n:]) // measured just before
				s.out.add("stdio", data)
			}
			raw = raw[n+size:]
		}
	}
}

// leave asks the process to end and reports whether it did in time.
func (s *session) leave(ctx context.Context) error {
	s.look()
	ctx, cancel := context.WithTimeout(ctx, leaveLimit)
	defer cancel()
	err := s.conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	select {
	case <-s.exited:
		s.kill()
		return nil
	case <-ctx.Done():
		s.kill()
		if err != nil && status.Code(err) != codes.Unavailable { // that is a server which ends before it answers
			return faultf("plugin.GRPCController/Shutdown: %v", s.out.safe(err.Error()))
		}
		return faultf("it took plugin.GRPCController/Shutdown but did not end within %s", leaveLimit)
	}
}

// kill ends the process at once, and its group, as the server does, and waits
// until it is gone.
func (s *session) kill() {
	select {
	case <-s.exited:
	default:
		s.look()
		s.signal(child.KillGroup)
		<-s.exited
	}
	if s.conn != nil {
		_ = s.conn.Close() // a closed connection is closed
	}
}

// signal does something to the process unless it is gone.
func (s *session) signal(do func(pid int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gone {
		do(s.cmd.Process.Pid)
	}
}

// look notes which processes are below it.
func (s *session) look() { s.seen = descendants(s.cmd.Process.Pid) }

// clientTLS makes the key with which this start of the plugin is called, and its
// certificate in PEM.
func clientTLS() (*tls.Config, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"},
		DNSNames:  []string{"localhost"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, "", fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ServerName:   "localhost", MinVersion: tls.VersionTLS12,
	}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

// strangers tries to talk to the plugin's socket without the key of this start.
func (s *session) strangers(ctx context.Context) error {
	other, _, err := clientTLS()
	if err != nil {
		return err
	}
	other.RootCAs = s.tls.RootCAs
	without := &tls.Config{RootCAs: s.tls.RootCAs, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	for _, config := range []*tls.Config{other, without} {
		conn, err := dial(s.address, config)
		if err != nil {
			return err
		}
		callCtx, cancel := context.WithTimeout(ctx, describeLimit)
		_, err = pluginpb.NewRuntimeClient(conn).Describe(callCtx, &pluginpb.DescribeRequest{})
		_, hookErr := pluginpb.NewDeployHookClient(conn).Describe(callCtx, &pluginpb.DescribeRequest{})
		cancel()
		_ = conn.Close() // a closed connection is closed
		if err == nil || hookErr == nil {
			return faultf("it answers a caller who does not have the key of PLUGIN_CLIENT_CERT")
		}
	}
	info, err := os.Stat(s.address)
	if err != nil {
		return errors.Join(faultf("its socket is not where the handshake says"), err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return faultf("what the handshake names is not a socket")
	}
	return nil
}
