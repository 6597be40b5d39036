package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/storage"
)

// started is a server that a test ends as supervisors do.
type started struct {
	*instance
	terminate context.CancelCauseFunc
	ended     chan error
}

func startServer(t *testing.T, dir, address string, change func(*config.Config)) *started {
	t.Helper()
	web, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Issuer = "http://" + web.Addr().String()
	cfg.Storage.Config.DataDir = dir
	cfg.Admin.Socket = filepath.Join(dir, "a.sock")
	change(cfg)
	settings, err := config.Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	i, err := build(t.Context(), settings, building{web: []net.Listener{web}, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := &started{instance: i, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancelCause(context.Background())
	s.terminate = cancel
	ready := make(chan struct{})
	go func() { // ends with wait
		err := i.run(ctx, func(context.Context) error { close(ready); return nil })
		i.close()
		s.ended <- err
	}()
	<-ready
	return s
}

func (s *started) wait(t *testing.T) {
	t.Helper()
	if err := <-s.ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

// backend is a server as a proxy sees it.
type backend struct {
	address string
	ready   atomic.Bool
}

// probe follows what a server says of itself until ctx ends.
func (b *backend) probe(ctx context.Context) {
	client := &http.Client{Timeout: time.Second}
	for ctx.Err() == nil {
		resp, err := client.Get("http://" + b.address + "/readyz")
		b.ready.Store(err == nil && resp.StatusCode == http.StatusOK)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		storage.Pause(ctx, 20*time.Millisecond)
	}
}

// Servers that restart one after the other behind a proxy lose no request.
func TestRollingRestartLosesNothing(t *testing.T) {
	drained := func(cfg *config.Config) { cfg.Web.DrainDelay = config.Duration(time.Second) }
	dirs, servers, backends := []string{t.TempDir(), t.TempDir()}, make([]*started, 2), make([]*backend, 2)
	ctx, stop := context.WithCancel(t.Context())
	var probes sync.WaitGroup
	for n, dir := range dirs {
		servers[n] = startServer(t, dir, "127.0.0.1:0", drained)
		b := &backend{address: servers[n].endpoints[0].listener.Addr().String()}
		b.ready.Store(true)
		backends[n] = b
		probes.Go(func() { b.probe(ctx) })
	}
	var turn atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			to := backends[int(turn.Add(1))%2]
			if !to.ready.Load() {
				to = backends[int(turn.Add(1))%2]
			}
			r.Out.URL.Scheme, r.Out.URL.Host = "http", to.address
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	})
	defer proxy.Close()
	var load sync.WaitGroup
	var asked atomic.Int64
	for range 8 {
		load.Go(func() {
			for ctx.Err() == nil {
				asked.Add(1)
				// No transport sends a POST again by itself.
				resp, err := http.Post(proxy.URL+"/oauth/token", "application/x-www-form-urlencoded",
					strings.NewReader("grant_type=x"))
				if err != nil {
					t.Errorf("lost: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnauthorized {
					t.Errorf("lost: %s", resp.Status)
				}
			}
		})
	}
	for n := range servers {
		before := asked.Load()
		servers[n].terminate(errTerminated)
		servers[n].wait(t)
		if asked.Load() == before {
			t.Error("nothing was asked meanwhile")
		}
		servers[n] = startServer(t, dirs[n], backends[n].address, drained)
		for !backends[n].ready.Load() {
			storage.Pause(ctx, time.Millisecond)
		}
	}
	stop()
	load.Wait()
	probes.Wait()
	for _, s := range servers {
		s.terminate(context.Canceled) // Ctrl-C: without delay
		s.wait(t)
	}
}

// A database that is full makes the server not ready, and what an operator revokes is revoked all the same.
func TestFullDatabaseIsNotReady(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.0.1:0", func(cfg *config.Config) { cfg.Storage.Config.Quota = 16 << 20 })
	defer func() {
		s.terminate(context.Canceled)
		s.wait(t)
	}()
	ready := func() (int, string) {
		resp, err := http.Get("http://" + s.endpoints[0].listener.Addr().String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	if status, text := ready(); status != http.StatusOK || text != "ready\n" {
		t.Fatalf("at the start: %d %s", status, text)
	}
	ctx := t.Context()
	client, err := s.store.RegisterClient(ctx, storage.Client{ID: "own"})
	if err != nil {
		t.Fatal(err)
	}
	grant := storage.Grant{ID: storage.NewGrantID(), ClientID: client.ID, UserID: "ann",
		ExpiresAt: time.Now().Add(time.Hour)}
	if _, err := s.store.CreateGrant(ctx, grant, grant.ExpiresAt, storage.Revisions{Client: client.Revision}); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 100<<10)
	for deadline := time.Now().Add(time.Minute); ; {
		_, _ = rand.Read(value)
		if _, err := s.embedded.Client.Put(ctx, "filler"+rand.Text(), string(value)); err == nil {
			continue
		}
		// Which is refused, so that it is noticed
		_, _ = s.store.RegisterClient(ctx, storage.Client{ID: "another" + rand.Text()})
		if status, text := ready(); status == http.StatusServiceUnavailable &&
			strings.Contains(text, "raise storage.config.quota") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is ready although its database is full")
		}
	}
	if resp := s.ask(t, http.MethodDelete, "/v1/grants/"+grant.ID, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("revoke a grant: %s", resp.Status)
	}
	if _, err := s.store.Grant(ctx, client.ID, grant.ID, grant.UserID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the grant lives: %v", err)
	}
	if resp := s.ask(t, http.MethodDelete, "/v1/clients/"+client.ID, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("remove a client: %s", resp.Status)
	}

	// It starts again, although there is no room for users who are new or have changed.
	s.terminate(context.Canceled)
	s.wait(t)
	s = startServer(t, dir, "127.0.0.1:0", func(cfg *config.Config) {
		cfg.Storage.Config.Quota, cfg.EnablePasswordDB = 16<<20, true
		cfg.StaticPasswords = []config.StaticPassword{{Email: "ann@example.com", UserID: "ann",
			Hash: "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"}}
	})
	if status, text := ready(); status != http.StatusServiceUnavailable || !s.peopleLeft.Load() {
		t.Errorf("after another start: %d %s", status, text)
	}
}
