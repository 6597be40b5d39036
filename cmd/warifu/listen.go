package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/storage"
)

// socketAddress is the spelling of a socket's path with which it can be bound or connected to.
func socketAddress(path string) (string, error) {
	address, err := config.SocketAddress(path)
	if err != nil {
		return "", usageError{err}
	}
	return address, nil
}

// listenSocket listens on a Unix socket of mode 0600 in a directory that is made with mode 0700. A socket that a dead
// process left behind is replaced; one that answers is not.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	address, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the admin socket: %w", err)
	}
	if err := config.CheckSocket(path); err != nil {
		return nil, fmt.Errorf("listen on the admin socket: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		if conn, err := net.DialTimeout("unix", address, time.Second); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("listen on the admin socket: another server answers at %s", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the admin socket that a stopped server left behind: %w", err)
		}
	}
	listener, err := (&net.ListenConfig{Control: ownerOnly}).Listen(ctx, "unix", address)
	if err != nil {
		return nil, fmt.Errorf("listen on the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil { // where ownerOnly has no effect
		_ = listener.Close()
		return nil, fmt.Errorf("listen on the admin socket: %w", err)
	}
	return listener, nil
}

// ownerOnly sets the mode of a socket before it is bound, so that nobody can connect between bind and chmod: on Linux
// the file gets the mode of the open socket.
func ownerOnly(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) }) // chmod follows anyway
}

// certificate is a pair of files that is read again when one of them changes, so that a renewed certificate needs no
// restart.
type certificate struct {
	log *slog.Logger

	mu        sync.Mutex // guards what follows
	cert, key string
	loaded    *tls.Certificate
	stamp     [2]time.Time
	looked    time.Time
}

func loadCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return c, nil
}

// use takes the certificate of other files, or of the same ones at once, as they were read.
func (c *certificate) use(cert, key string, pair *tls.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cert, c.key, c.loaded, c.looked = cert, key, pair, time.Now()
	c.stamp = stampOf(cert, key)
}

// stampOf is when a pair of files was changed.
func stampOf(cert, key string) (stamp [2]time.Time) {
	for i, file := range []string{cert, key} {
		if info, err := os.Stat(file); err == nil {
			stamp[i] = info.ModTime()
		}
	}
	return stamp
}

// get is for tls.Config.GetCertificate. It looks at the files at most once in ten seconds, and keeps the certificate
// that it has if the new one cannot be read.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Since(c.looked) < 10*time.Second {
		return c.loaded, nil
	}
	c.looked = time.Now()
	stamp := stampOf(c.cert, c.key)
	if c.loaded != nil && stamp == c.stamp {
		return c.loaded, nil
	}
	pair, err := config.ReadCertificate(c.cert, c.key)
	if err != nil && c.loaded == nil {
		return nil, fmt.Errorf("read certificate %s: %w", c.cert, err)
	}
	if err != nil {
		c.log.Error("the changed certificate cannot be used; the previous one stays in use", "file", c.cert, "error", err)
		return c.loaded, nil
	}
	c.loaded, c.stamp = pair, stamp
	return c.loaded, nil
}

// toldOf tells from when to when the certificate is valid that a listener would serve now.
func (c *certificate) toldOf(listener string) metrics.Source {
	return func(tell metrics.Tell) {
		pair, err := c.get(nil)
		if err != nil || pair.Leaf == nil {
			return // there is always one after the start
		}
		tell(metrics.CertificateStart, float64(pair.Leaf.NotBefore.Unix()), listener)
		tell(metrics.CertificateEnd, float64(pair.Leaf.NotAfter.Unix()), listener)
	}
}

// cipherSuites are those that RFC 9325 section 4.2 recommends for TLS 1.2; those of TLS 1.3 are not configurable.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: cipherSuites, GetCertificate: c.get}
}

// unknownPeer names the peer at the admin socket when the kernel does not say who it is.
const unknownPeer = "socket"

// withPeer makes who is at the other end of a Unix socket the actor of its requests.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if k, bounded := conn.(*connection); bounded {
		conn = k.Conn
	}
	if local, ok := conn.(*net.UnixConn); ok {
		return storage.WithActor(ctx, peerOf(local))
	}
	return ctx
}

// endpoint is a listener together with the handler that answers on it.
type endpoint struct {
	name     string
	listener net.Listener
	tls      *tls.Config // nil: plain
	handler  http.Handler
	// patience is how long a reply may take from the end of the request's headers.
	patience time.Duration
	// connections bounds those of the listener; nil: no bound.
	connections *connections
	// slowest is how long the headers of a request, and a TLS handshake, may take. 0: headerTime.
	slowest time.Duration
	// grace is how long requests may still be under way after the end. 0: two seconds.
	grace time.Duration
}

const headerTime = 10 * time.Second

// serve answers on the endpoint until ctx ends; then requests under way have its grace.
func (e endpoint) serve(ctx context.Context, log *slog.Logger) error {
	s := &http.Server{
		Handler: e.handler, TLSConfig: e.tls, ConnContext: withPeer,
		// A peer that sends slowly or nothing, also in the TLS handshake, is cut off.
		ReadHeaderTimeout: cmp.Or(e.slowest, headerTime),
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      e.patience,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.With("listener", e.name).Handler(), slog.LevelDebug),
	}
	listener := e.listener
	if e.connections != nil {
		listener, s.ConnState = bounded{listener, e.connections}, e.connections.state
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		var err error
		if e.tls != nil {
			err = s.ServeTLS(listener, "", "")
		} else {
			err = s.Serve(listener)
		}
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve %s: %w", e.name, err)
	})
	group.Go(func() error {
		<-groupCtx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(e.grace, 2*time.Second))
		defer cancel()
		if err := s.Shutdown(end); err != nil {
			_ = s.Close() // requests that are still running are cut off
		}
		return nil
	})
	return group.Wait()
}
